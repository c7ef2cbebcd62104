// SPDX-License-Identifier: Apache-2.0
// Makes the folder that device_dumps runs: the kernels of tests/simt/kernels/dumps*.cu, each compiled alone, for a
// target of the first tensor cores that have bf16, for sm_90a, and as PTX where any later device has the
// instruction; and the golden files. It needs NVRTC, no GPU.
//   device_make_dumps FOLDER
#include "tests/simt/kernels.h"
#include "tests/simt/simt.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "codegen/cuda/cuda.h"

typedef struct Target {
  const char *name;
  md_cuda_arch arch;
  bool is_ptx;
} Target;
static const Target all[] = {
    {"sm_90a", {90, 'a'}, false}, {"sm_80", {80, 0}, false}, {"compute_80", {80, 0}, true}};
static const struct {
  const char *file;
  int num_targets;  // the first ones
} files[] = {{"dumps.cu", MD_COUNT(all)}, {"dumps_hopper.cu", 1}};

static bool save(const char *folder, const char *name, const char *data, size_t bytes,
                 md_diags *d) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return md_file_save(path, data, bytes, d);
}

static bool save_golden(const char *folder, const char *kernel, md_diags *d) {
  char path[1024], name[64], *text;
  size_t len;
  dump_path(kernel, path);
  snprintf(name, sizeof name, "%.47s.txt", kernel);
  if (!md_file_read(path, 1 << 20, E0801, d, &text, &len)) return false;
  bool ok = save(folder, name, text, len, d);
  free(text);
  return ok;
}

static bool make(const char *folder, const char *text, const Kernel *k, int num_targets,
                 md_text *list, md_diags *d) {
  char *alone = kernel_alone(text, k->name);
  const char *reads = !k->tmaps ? "memory" : kernel_option(k, "im2col", 0) ? "im2col" : "tiled";
  md_put(list, "%s %d %d %d %d %s", k->name, k->threads, (int)kernel_option(k, "words", 1),
         (int)kernel_option(k, "shared", 0), k->num_args, reads);
  bool ok = save_golden(folder, k->name, d);
  for (int i = 0; ok && i < num_targets; i++) {
    char name[80];
    md_cubin code;
    snprintf(name, sizeof name, "%.47s.%s", k->name, all[i].name);
    ok = md_nvrtc_compile(alone, k->name, all[i].arch, all[i].is_ptx, &code, d);
    if (!ok) break;
    ok = save(folder, name, code.data, code.bytes, d);
    free(code.data);
    free(code.log);
    md_put(list, " %s", all[i].name);
  }
  md_put(list, "\n");
  free(alone);
  return ok;
}

static bool make_all(const char *folder, md_text *list, md_diags *d) {
  Kernel k[MAX_KERNELS];
  bool ok = true;
  for (int f = 0; f < MD_COUNT(files); f++) {
    char *text = kernels_read(files[f].file);
    int num = text ? kernels_find(text, k) : 0;
    ok = ok && num;
    for (int i = 0; ok && i < num; i++)
      ok = make(folder, text, &k[i], files[f].num_targets, list, d);
    free(text);
  }
  return ok;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: device_make_dumps FOLDER\n");
    return 2;
  }
  md_diags *d = md_diags_create();
  md_text list = {0};
  uint16_t *x = kernel_numbers("x", DUMP_NUMBERS, 0);
  bool ok = make_all(argv[1], &list, d) && save(argv[1], "list.txt", list.s, list.len, d) &&
            save(argv[1], "x.bin", (const char *)x, DUMP_NUMBERS * sizeof *x, d);
  if (!ok) md_diags_print(d, stderr, false);
  simt_free_buffers();
  md_text_free(&list);
  md_diags_destroy(d);
  return !ok;
}
