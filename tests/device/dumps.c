// SPDX-License-Identifier: Apache-2.0
// Dumps on a GPU: each kernel writes the registers that one instruction leaves, and the device must write the
// very bits of the golden file, which is what the fiber machine makes of the same text (tests/simt/dumps/).
//   device_dumps FOLDER    one of device_make_dumps
// The folder's list.txt has a line for each dump, NAME THREADS WORDS SHARED ARGUMENTS READS TARGET...; words are
// those of a thread, and it reads memory, or by a tensor map that is tiled or im2col. NAME.TARGET is its code, NAME.txt the golden file, x.bin what kernels read. Exit code: 0 all that
// the device takes agree, 1 some do not (on stderr: which, then why), 2 usage or no such folder, 4 there is no GPU
// that takes one.
#include "tests/device/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TARGETS = 4 };
typedef struct Dump {
  char name[48], reads[8], target[MAX_TARGETS][16];
  int threads, words, shared_bytes, num_args, num_targets;
} Dump;

// All of a file, with a NUL behind it, malloc'ed; NULL: it cannot be read.
static char *read_all(const char *folder, const char *name, size_t *bytes) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *f = fopen(path, "rb");
  if (!f) return NULL;
  md_text all = {0};
  char part[4096];
  for (size_t n; (n = fread(part, 1, sizeof part, f)) > 0;) md_put_bytes(&all, part, n);
  fclose(f);
  *bytes = all.len;
  return all.s;
}

static bool read_line(const char *line, Dump *d) {
  char t[MAX_TARGETS][16];
  int num = sscanf(line, "%47s %d %d %d %d %7s %15s %15s %15s %15s", d->name, &d->threads,
                   &d->words, &d->shared_bytes, &d->num_args, d->reads, t[0], t[1], t[2], t[3]);
  d->num_targets = num - 6;
  memcpy(d->target, t, sizeof t);
  return num > 6;
}

// sm_90a is for that architecture alone, sm_80 for its major one, compute_80 for all from it on.
static bool takes(int sm, const char *target) {
  int of = 0;
  if (sscanf(target, "compute_%d", &of) == 1) return sm >= of;
  if (sscanf(target, "sm_%d", &of) != 1) return false;
  return strchr(target, 'a') ? sm == of : sm >= of && sm / 10 == of / 10;
}

// The first target of the line that the device takes, or NULL.
static const char *choose(const Dump *dump, int sm) {
  for (int i = 0; i < dump->num_targets; i++)
    if (takes(sm, dump->target[i])) return dump->target[i];
  return NULL;
}

typedef struct TensorMap {
  _Alignas(64) char bytes[128];
} TensorMap;

// A map of what lies at `from`, as in tests/simt/test_tensor.c: a plane of 64 by 64, or an image of 8 by 8 pixels
// with 64 channels whose windows have a border of one pixel and a stride of two.
static bool encode(const Driver *d, const Dump *dump, Address from, TensorMap *map, md_text *why) {
  enum { BF16 = 9, SWIZZLE_128 = 3 };
  static const uint64_t plane[] = {64, 64}, plane_stride[] = {128}, image[] = {64, 8, 8, 1, 1},
                        image_stride[] = {128, 1024, 8192, 8192};
  static const unsigned box[] = {64, 8}, one[] = {1, 1}, step[] = {1, 2, 2, 1, 1};
  static const int border[] = {-1, -1, 0};
  void *x = (void *)(uintptr_t)from;
  if (!strcmp(dump->reads, "memory")) return true;
  if (!strcmp(dump->reads, "tiled"))
    return driver_good(
        d, d->tiled(map, BF16, 2, x, plane, plane_stride, box, one, 0, SWIZZLE_128, 0, 0),
        "cuTensorMapEncodeTiled", why);
  return driver_good(d,
                     d->im2col(map, BF16, 5, x, image, image_stride, border, border, 64, 16, step,
                               0, SWIZZLE_128, 0, 0),
                     "cuTensorMapEncodeIm2col", why);
}

// *y: malloc'ed, full of ones before.
static bool run(const Driver *d, const Dump *dump, const void *code, const char *x, size_t x_bytes,
                uint32_t **y, md_text *why) {
  size_t bytes = sizeof **y * (size_t)dump->words * (size_t)dump->threads;
  void *module = NULL;
  Address from = 0, to = 0;
  TensorMap map;
  void *first = strcmp(dump->reads, "memory") ? (void *)&map : &from;
  void *two[] = {first, &to}, *one[] = {&to};
  bool ok = driver_good(d, d->load(&module, code), "cuModuleLoadData", why) &&
            driver_good(d, d->alloc(&from, x_bytes), "cuMemAlloc", why) &&
            driver_good(d, d->alloc(&to, bytes), "cuMemAlloc", why) &&
            driver_good(d, d->to_device(from, x, x_bytes), "cuMemcpyHtoD", why) &&
            driver_good(d, d->set(to, 0xff, bytes), "cuMemsetD8", why) &&
            encode(d, dump, from, &map, why) &&
            driver_launch(d, module, dump->name, 1, dump->threads, dump->shared_bytes,
                          dump->num_args == 1 ? one : two, why);
  *y = malloc(bytes);
  MD_ASSERT(*y, "out of memory");
  ok = ok && driver_good(d, d->to_host(*y, to, bytes), "cuMemcpyDtoH", why);
  if (to) d->free(to);
  if (from) d->free(from);
  if (module) d->unload(module);
  return ok;
}

// golden: "THREAD: WORD WORD ..." for each thread, words in hexadecimal.
static bool is_golden(const Dump *dump, const uint32_t *y, const char *golden, md_text *why) {
  const char *at = golden;
  int wrong = 0;
  for (int i = 0; i < dump->threads; i++) {
    char *end;
    bool whole = strtol(at, &end, 10) == i && *end == ':';
    at = end + whole;
    for (int j = 0; whole && j < dump->words; j++) {
      uint32_t want = (uint32_t)strtoul(at, &end, 16), is = y[i * dump->words + j];
      whole = end > at;
      at = end;
      if (!whole || is == want || wrong++) continue;
      md_put(why, "word %d of thread %d is %08x, but %08x in the golden file", j, i, is, want);
    }
    if (whole) continue;
    md_put(why, "the golden file breaks off at thread %d", i);
    return false;
  }
  if (wrong > 1) md_put(why, "; %d words differ", wrong);
  at += strspn(at, "\n");
  if (!wrong && *at) md_put(why, "the golden file has more than %d threads", dump->threads);
  return !wrong && !*at;
}

static bool try(const Driver *d, const Dump *dump, const char *folder, const char *target,
                const char *x, size_t x_bytes, md_text *why) {
  char name[80];
  size_t code_bytes, golden_bytes;
  snprintf(name, sizeof name, "%s.%s", dump->name, target);
  char *code = read_all(folder, name, &code_bytes);
  snprintf(name, sizeof name, "%s.txt", dump->name);
  char *golden = read_all(folder, name, &golden_bytes);
  uint32_t *y = NULL;
  bool ok = code && golden;
  if (!ok) md_put(why, "its code or its golden file cannot be read");
  ok = ok && run(d, dump, code, x, x_bytes, &y, why) && is_golden(dump, y, golden, why);
  free(y);
  free(golden);
  free(code);
  return ok;
}

typedef struct Tally {
  int num, right, left_out;
  md_text names, whys;  // of those that differ
} Tally;

static void count(Tally *t, const Dump *dump, const char *target, bool ok, const char *why) {
  printf("%-20s %s\n", dump->name, !target ? "no code for the device" : ok ? target : "DIFFERS");
  t->left_out += !target;
  t->num += target != NULL;
  t->right += ok;
  if (!target || ok) return;
  md_put(&t->names, "%s%s", t->names.s ? ", " : "", dump->name);
  md_put(&t->whys, "%s: %s\n", dump->name, why ? why : "?");
}

// Takes apart what list is.
static void try_all(const Driver *d, char *list, const char *folder, const char *x, size_t x_bytes,
                    Tally *t) {
  for (char *line = list, *end; (end = strchr(line, '\n')); line = end + 1) {
    *end = '\0';
    Dump dump = {0};
    md_text why = {0};
    const char *target = read_line(line, &dump) ? choose(&dump, d->sm) : NULL;
    bool ok = target && try(d, &dump, folder, target, x, x_bytes, &why);
    count(t, &dump, target, ok, why.s);
    md_text_free(&why);
  }
  printf("%d of %d dumps are as golden files have them, %d are not for sm_%d\n", t->right, t->num,
         t->left_out, d->sm);
  if (t->right < t->num)
    fprintf(stderr, "%d of %d dumps differ: %s\n%s", t->num - t->right, t->num, t->names.s,
            t->whys.s);
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: device_dumps FOLDER\n");
    return 2;
  }
  size_t list_bytes, x_bytes;
  char *list = read_all(argv[1], "list.txt", &list_bytes);
  char *x = read_all(argv[1], "x.bin", &x_bytes);
  Driver d = {0};
  Tally t = {0};
  bool is_there = list && x;
  if (!is_there) {
    fprintf(stderr, "device_dumps: no list.txt and x.bin in %s\n", argv[1]);
  } else if (driver_open(&d)) {
    try_all(&d, list, argv[1], x, x_bytes, &t);
    d.release(d.device);
  }
  md_text_free(&t.whys);
  md_text_free(&t.names);
  free(x);
  free(list);
  return !is_there ? 2 : !t.num ? NO_DEVICE : t.right < t.num;
}
