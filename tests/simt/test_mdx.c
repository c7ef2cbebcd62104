// SPDX-License-Identifier: Apache-2.0
// CUDA artefacts from the inside: programs of all samples are sound, come back from a file as they went,
// and a file or program that is not sound is refused by name. Without NVRTC: says so and is skipped.
#include "tests/simt/program.h"
#include "tests/simt/samples.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char both[] = "cuda:sm_80,cuda:sm_90a";
enum { EVERY = 4 };  // sample: all of them would take minutes
static int failed;
static char folder[] = "/tmp/modist-mdx-XXXXXX";

static void check(bool ok, const char *claim, const char *seen) {
  if (!ok) printf("FAILED %s\n%s\n", claim, seen ? seen : "");
  failed += !ok;
}

static md_program *program_of_text(const char *text, const char *targets, md_diags *d) {
  md_pass_options o = md_pass_defaults();
  md_graph *g = md_parse_graph("text", text, strlen(text), d);
  if (g && md_cuda_facts(targets, &o.facts, d)) g = md_run_passes(g, &o, NULL, d);
  md_cuda_options c = {.targets = targets, .want_graph_text = true};
  md_program *p = g ? md_cuda_program(g, &c, NULL, d) : NULL;
  if (g) md_graph_destroy(g);
  return p;
}

static const char *path_of(const char *name) {
  static char path[100];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static void write_file(const char *path, const char *data, size_t bytes) {
  FILE *f = fopen(path, "wb");
  check(f && fwrite(data, 1, bytes, f) == bytes && fclose(f) == 0, "a file is written", path);
}

static bool same(const md_text *a, const md_text *b) {
  return a->len == b->len && !memcmp(a->s, b->s, a->len);
}

static void samples_come_back(void) {
  char name[64];
  md_text text = {0};
  for (int i = 0; simt_sample(i, &text, name); i += EVERY) {
    md_diags *d = md_diags_create();
    Program *sample = program_create(text.s, 2, 1, d);
    md_cuda_options o = {.targets = both, .want_graph_text = true};
    md_program *p = sample ? md_cuda_program(sample->g, &o, NULL, d) : NULL, *q = NULL;
    md_text file = {0}, again = {0};
    bool ok = p && md_program_write(p, &file, d);
    if (ok) write_file(path_of("sample.mdx"), file.s, file.len);
    q = ok ? md_artefact_check(path_of("sample.mdx"), d) : NULL;
    ok = q && q->num_variants == 3 && q->num_launches == p->num_launches &&
         md_program_write(q, &again, d) && same(&file, &again);
    check(ok, name, md_diags_text(d));
    // One kernel text serves all targets so far, and then their launches are the same.
    if (q)
      check(q->variant[0].first_launch == q->variant[2].first_launch, "PTX has them too", name);
    md_text_free(&file);
    md_text_free(&again);
    md_program_destroy(p);
    md_program_destroy(q);
    program_destroy(sample);
    md_diags_destroy(d);
    md_text_free(&text);
    text = (md_text){0};
  }
}

// --- one program, spoiled in one way after another

static const char step[] =
    "graph @step(%x: f32[5,130], %g: f32[130]) {\n  %w = state @w {init=normal, b=1} : f32[130]\n"
    "  %k = constant {value=1.5} : bf16[7]\n  %a = exp %x\n  %s = sum %a {axes=[0]}\n"
    "  %w2 = add %w, %s\n  %m = mul %w2, %g\n  update @w = %m\n  return %a, %k, %w\n}\n";

typedef void Spoil(md_program *p);

static void no_kernel(md_program *p) { p->variant[1].num_kernels--; }
static void fewer_arguments(md_program *p) { p->launch[p->num_launches - 1].num_args--; }
static void too_many_threads(md_program *p) { p->phase[0].threads = 512; }
static void too_much_shared(md_program *p) { p->phase[0].shared_bytes = 200 << 10; }
static void other_target(md_program *p) { p->variant[0].target = "cuda:sm_90"; }
static void other_ptx(md_program *p) { p->variant[2].target = "cuda:compute_90"; }
static void other_code(md_program *p) {
  p->kernel[0].data = p->kernel[1].data;
  p->kernel[0].bytes = p->kernel[1].bytes;
  p->kernel[0].member = p->kernel[1].member;
}
static void no_elf(md_program *p) { p->kernel[0].data = memset(md_alloc(p->arena, 64), 'x', 64); }
static void cut_elf(md_program *p) { p->kernel[0].bytes /= 2; }
static void no_target(md_program *p) { p->variant[0].target = "cuda:sm_8x"; }
static void launches_beyond(md_program *p) { p->variant[0].num_launches += 1000; }
static void no_threads(md_program *p) { p->phase[0].threads = 0; }
static void many_blocks(md_program *p) { p->phase[0].items = (int64_t)1 << 31; }
static void workspace_beyond(md_program *p) { p->variant[0].workspace_bytes = 1 << 20; }

static const struct {
  Spoil *spoil;
  const char *says;
} spoils[] = {
    {no_kernel, "has no kernel"},
    {fewer_arguments, "pointers"},
    {too_many_threads, "takes 256 threads, but"},
    {too_much_shared, "bytes of shared memory; a block of cuda:sm_80 has 166912"},
    {other_target, "is for sm_80, not for cuda:sm_90"},
    {other_ptx, "is for sm_80, not for cuda:compute_90"},
    {other_code, "has no kernel"},
    {no_elf, "it is no ELF file"},
    {cut_elf, "cannot be read"},
    {no_target, "'cuda:sm_8x' is no CUDA target"},
    {launches_beyond, "launches 0+"},
    {no_threads, "blocks of 0 threads"},
    {many_blocks, "2147483648 items"},
    {workspace_beyond, "has a workspace of its own"},
};

static void spoiled_programs_are_refused(void) {
  for (int i = 0; i < MD_COUNT(spoils); i++) {
    md_diags *d = md_diags_create();
    md_program *p = program_of_text(step, both, d);
    check(p != NULL, "the program", md_diags_text(d));
    if (p) {
      spoils[i].spoil(p);
      bool ok = md_program_check(p, d) && md_gpu_code_check(p, d);
      check(!ok && md_diags_status(d) == MD_ERR_DATA && strstr(md_diags_text(d), spoils[i].says),
            spoils[i].says, md_diags_text(d));
    }
    md_program_destroy(p);
    md_diags_destroy(d);
  }
}

// --- the file

// The archive of `file` with `from` in its manifest as `to`.
static void edit_manifest(const md_text *file, const char *from, const char *to, md_text *out) {
  md_arena *a = md_arena_create();
  md_member *m;
  int num = md_zip_read("x", file->s, file->len, a, &m, NULL);
  const char *old = md_strndup(a, m[0].data, m[0].bytes), *at = strstr(old, from);
  check(num > 3 && at, "what is edited is there", from);
  if (at) {
    m[0].data = md_format(a, "%.*s%s%s", (int)(at - old), old, to, at + strlen(from));
    m[0].bytes = strlen(m[0].data);
    md_zip_write(m, num, out);
  }
  md_arena_destroy(a);
}

static void edited_files_are_refused(const md_text *file) {
  static const struct {
    const char *from, *to, *says;
  } rows[] = {
      {"\"abi\": 1", "\"abi\": 2", "E0631"},
      {"modist.artefact/6", "modist.artefact/1", "E0631"},
      {"\"xxh3\":\"", "\"xxh3\":\"f", "E0632"},
      {"\"symbol\":\"k", "\"symbol\":\"q", "E0636"},
      {"\"threads\":256", "\"threads\":1024", "E0636"},
      {".cubin\"}", ".cubix\"}", "artefact has no 'c"},
      {"\"first_launch\": 0", "\"first_launch\": 7", "E0632"},
      {"\"target\": \"cuda:sm_80\"", "\"target\": \"cuda:sm_70\"", "E0636"},
  };
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_text edited = {0};
    md_diags *d = md_diags_create();
    edit_manifest(file, rows[i].from, rows[i].to, &edited);
    write_file(path_of("edited.mdx"), edited.s, edited.len);
    md_program *p = md_artefact_check(path_of("edited.mdx"), d);
    check(!p && strstr(md_diags_text(d), rows[i].says), rows[i].to, md_diags_text(d));
    md_program_destroy(p);
    md_diags_destroy(d);
    md_text_free(&edited);
  }
}

// A deflated stream may say the same in other words: then nothing is lost.
static bool is_the_same(const md_program *p, const md_text *file) {
  md_text again = {0};
  bool same = md_program_write(p, &again, NULL) && again.len == file->len &&
              !memcmp(again.s, file->s, file->len);
  md_text_free(&again);
  return same;
}

// Any byte: a checksum, a header or a deflated stream says so.
static void flipped_files_are_refused(const md_text *file) {
  int taken = 0;
  for (uint64_t i = 0; i < 400; i++) {
    size_t at = (size_t)(md_hash_at(3, i) % file->len);
    file->s[at] ^= (char)(1 << (i % 8));
    write_file(path_of("flipped.mdx"), file->s, file->len);
    md_program *p = md_artefact_check(path_of("flipped.mdx"), NULL);
    file->s[at] ^= (char)(1 << (i % 8));
    taken += p && !is_the_same(p, file);
    md_program_destroy(p);
  }
  check(taken == 0, "a file with one bit changed is refused", NULL);
  for (size_t len = 0; len < file->len; len += 97) {
    write_file(path_of("cut.mdx"), file->s, len);
    check(!md_artefact_check(path_of("cut.mdx"), NULL), "a file that is cut off is refused", NULL);
  }
}

static void files_are_checked(void) {
  md_diags *d = md_diags_create();
  md_program *p = program_of_text(step, both, d);
  md_text file = {0};
  check(p && md_program_write(p, &file, d), "the file", md_diags_text(d));
  if (file.s) {
    edited_files_are_refused(&file);
    flipped_files_are_refused(&file);
  }
  md_text_free(&file);
  md_program_destroy(p);
  md_diags_destroy(d);
}

// A program that shares its kernels is the same, and its archive lacks them.
static void kernels_are_shared(void) {
  md_diags *d = md_diags_create();
  md_program *p = program_of_text(step, both, d), *q = NULL;
  const char *path = path_of("shared.mdx");
  md_text file = {0}, again = {0};
  bool ok = p && md_program_write(p, &file, d) && md_program_save_sharing(p, path, d);
  q = ok ? md_artefact_check(path, d) : NULL;
  check(q && md_program_write(q, &again, d) && same(&file, &again), "it comes back whole",
        md_diags_text(d));
  char *bytes = NULL;
  size_t len = 0;
  check(md_file_read(path, 1 << 30, E0601, d, &bytes, &len) && len < file.len / 2,
        "kernels are not in the archive", md_diags_text(d));
  free(bytes);
  md_text_free(&file);
  md_text_free(&again);
  md_program_destroy(p);
  md_program_destroy(q);
  md_diags_destroy(d);
}

// Which target a device takes.
static void devices_choose(void) {
  static const struct {
    int sm;
    const char *target;
  } rows[] = {
      {75, NULL},          {80, "cuda:sm_80"},       {86, "cuda:sm_80"},
      {90, "cuda:sm_90a"}, {100, "cuda:compute_80"}, {120, "cuda:compute_80"},
  };
  md_diags *d = md_diags_create();
  md_program *p = program_of_text(step, both, d);
  for (int i = 0; p && i < MD_COUNT(rows); i++) {
    const md_gpu_variant *v = md_gpu_variant_for(p, rows[i].sm);
    check(rows[i].target ? v && !strcmp(v->target, rows[i].target) : !v, "a device's target",
          v ? v->target : "none");
  }
  check(p != NULL, "the program", md_diags_text(d));
  md_program_destroy(p);
  md_diags_destroy(d);
}

// Of two units the first cannot be compiled, the second not at the first time. That it can later is no reason to
// go on. Needs the double of NVRTC, which refuses `late` as often as a unit is tried.
static void a_late_success_hides_no_failure(void) {
  static const char good[] = "MD_KERNEL(32) late(float *a0) { a0[md_thread()] = 1.0f; }\n",
                    bad[] = "MD_KERNEL(32) bad(float *a0) { a0[0] = nothing; }\n";
  const char *path = getenv("MODIST_NVRTC");
  if (!path || !strstr(path, "nvrtc_double")) return;
  setenv("MODIST_STAND_IN_NVRTC_FAULT", "late:4", 1);
  md_cuda_unit u[] = {{.name = "bad", .text = bad, .what = "a mistake", .arch = {80, 0}},
                      {.name = "late", .text = good, .what = "bad luck", .arch = {80, 0}}};
  md_diags *d = md_diags_create();
  bool ok = md_cuda_units_compile(u, MD_COUNT(u), true, 1, d);
  const char *said = md_diags_text(d);
  check(!ok && strstr(said, "bad: NVRTC refuses") && strstr(said, "it is of a mistake"),
        "what cannot be compiled is reported", said);
  check(!strstr(said, "late") && !strstr(said, "bad luck") && u[1].data && !u[1].failed &&
            u[0].failed,
        "what can be later is not", said);
  free(u[0].data);
  free(u[1].data);
  // Else it did not fail at the first time. Five programs of it were asked for up to here.
  setenv("MODIST_STAND_IN_NVRTC_FAULT", "late:9", 1);
  md_cubin c = {0};
  check(!md_nvrtc_compile(good, "late", (md_cuda_arch){80, 0}, false, &c, NULL),
        "a unit is tried four times", NULL);
  unsetenv("MODIST_STAND_IN_NVRTC_FAULT");
  md_diags_destroy(d);
}

int main(void) {
  int major, minor;
  md_diags *d = md_diags_create();
  bool is_there = md_nvrtc_version(&major, &minor, d);
  if (!is_there) printf("skipped: %s", md_diags_text(d));
  md_diags_destroy(d);
  if (!is_there) return 77;
  check(mkdtemp(folder) && !setenv("MODIST_CACHE", folder, 1), "a folder", folder);
  samples_come_back();
  spoiled_programs_are_refused();
  files_are_checked();
  kernels_are_shared();
  devices_choose();
  a_late_success_hides_no_failure();
  char command[80];
  snprintf(command, sizeof command, "rm -r %s", folder);
  check(system(command) == 0, "the folder goes", NULL);
  printf("%d failed\n", failed);
  return failed != 0;
}
