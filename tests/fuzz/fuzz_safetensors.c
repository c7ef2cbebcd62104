// SPDX-License-Identifier: Apache-2.0
// Any bytes as a safetensors file: no crash; tensors of an accepted one lie within it, and written
// again it reads back to the same.
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_file.h"

#include "base/safetensors.h"

#include <string.h>

static void check_tensors(const md_safetensors *s) {
  size_t sum = 0;
  for (int i = 0; i < s->num; i++) {
    const md_st_tensor *t = &s->tensor[i];
    const char *at = t->data;
    MD_ASSERT(at >= s->file && at + t->bytes <= s->file + s->file_bytes, "%s is outside", t->name);
    MD_ASSERT(md_safetensors_find(s, t->name) == t, "%s is not found", t->name);
    sum += t->bytes;
  }
  MD_ASSERT(sum <= s->file_bytes, "%zu bytes of tensors in %zu", sum, s->file_bytes);
}

// Names and values that are no texts of C are cut at their NUL, so such files are left out.
static void check_round_trip(const md_safetensors *s) {
  const char *path = fuzz_path(NULL, 0);
  MD_ASSERT(md_safetensors_write(path, s->tensor, s->num, s->meta, s->num_meta, NULL), "write");
  md_diags *d = md_diags_create();
  md_safetensors *again = md_safetensors_read(path, d);
  MD_ASSERT(again, "a written file is refused: %s", md_diags_text(d));
  MD_ASSERT(again->num == s->num && again->num_meta == s->num_meta, "%d of %d tensors", again->num,
            s->num);
  for (int i = 0; i < s->num; i++) {
    const md_st_tensor *a = &s->tensor[i], *b = md_safetensors_find(again, a->name);
    MD_ASSERT(b && b->bytes == a->bytes && b->dtype == a->dtype && b->rank == a->rank &&
                  memcmp(a->data, b->data, a->bytes) == 0,
              "tensor %s differs", a->name);
  }
  md_safetensors_destroy(again);
  md_diags_destroy(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  md_diags *d = md_diags_create();
  md_safetensors *s = md_safetensors_read(fuzz_path(data, size), d);
  MD_ASSERT(!s == (md_diags_errors(d) > 0), "%d errors", md_diags_errors(d));
  if (s) {
    check_tensors(s);
    (void)md_safetensors_sealed(s, "checksum");
    if (!memmem(data, size, "\\u0000", 6)) check_round_trip(s);
  }
  md_safetensors_destroy(s);
  md_diags_destroy(d);
  return 0;
}

void fuzz_seeds(void (*add)(const char *s, size_t len)) {
  float f[6] = {1, 2, 3, 4, 5, 6};
  int64_t i[2] = {-1, 1};
  md_st_tensor t[] = {{"v.w", MD_F32, 2, {2, 3}, f, sizeof f},
                      {"n", MD_I64, 1, {2}, i, sizeof i},
                      {"flag", MD_U8, 1, {3}, f, 3},
                      {"none", MD_BF16, 2, {0, 4}, f, 0}};
  md_st_meta meta[] = {{"format", "x"}, {"checksum", NULL}};
  for (int num = 0; num <= MD_COUNT(t); num++) {
    const char *path = fuzz_path(NULL, 0);
    if (md_safetensors_write(path, t, num, meta, num ? 2 : 0, NULL)) fuzz_add_file(path, add);
  }
}
