// SPDX-License-Identifier: Apache-2.0
// Any bytes as a checkpoint, with a seal that is made to fit, so that what lies behind it is reached:
// settings, step, states. A refused one must leave the engine's states alone.
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_file.h"

#include "base/safetensors.h"
#include "runtime/train/train.h"

#include <string.h>

enum { DIGITS = 32 };
static const char graph_text[] = "graph @small(%x: f32[3]) {\n"
                                 "  %v = state @v.w {init=ones} : f32[3]\n"
                                 "  %m = state @m.w {init=ones} : f32[2,3]\n"
                                 "  %n = state @n {init=fill, a=7.0} : i32[1]\n"
                                 "  %y = mul %x, %v : f32[3]\n"
                                 "  return %y\n"
                                 "}\n";

static md_engine *make_engine(void) {
  md_graph *g = md_parse_graph("fuzz.mdg", graph_text, strlen(graph_text), NULL);
  md_engine_options o = {.backend = MD_BACKEND_INTERP, .passes = md_pass_defaults()};
  md_engine *e = md_engine_create(g, &o, NULL);
  MD_ASSERT(e, "no engine");
  return e;
}

static void seal(char *file, size_t size) {
  static const char key[] = "\"checksum\":\"";
  char *digits = memmem(file, size, key, sizeof key - 1), text[DIGITS + 1];
  if (!digits || (size_t)(file + size - digits) < sizeof key - 1 + DIGITS) return;
  digits += sizeof key - 1;
  md_hasher *h = md_hasher_create();
  md_hasher_add(h, file, (size_t)(digits - file));
  md_hasher_add(h, digits + DIGITS, (size_t)(file + size - digits) - DIGITS);
  memcpy(digits, md_digest_text(md_hasher_end(h), text), DIGITS);
}

static void try_restore(const md_checkpoint *c, const char *prefix) {
  md_engine *e = make_engine();
  md_diags *d = md_diags_create();
  bool ok = md_checkpoint_restore(c, e, prefix, d);
  MD_ASSERT(ok == (md_diags_errors(d) == 0), "%d errors", md_diags_errors(d));
  static const float ones[3] = {1, 1, 1};
  if (!ok) MD_ASSERT(memcmp(md_engine_state(e, "v.w", NULL), ones, sizeof ones) == 0, "touched");
  md_diags_destroy(d);
  md_engine_destroy(e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char *file = malloc(size + 1);
  if (!file) return 0;
  memcpy(file, data, size);
  seal(file, size);
  md_diags *d = md_diags_create();
  md_checkpoint *c = md_checkpoint_open(fuzz_path(file, size), d);
  MD_ASSERT(!c == (md_diags_errors(d) > 0), "%d errors", md_diags_errors(d));
  if (c) {
    MD_ASSERT(md_checkpoint_step(c) >= 0, "step");
    try_restore(c, NULL);
    try_restore(c, "v.");
    md_config *given = md_config_load(NULL, NULL, 0, NULL);
    md_config *both = md_resume_config(c, given, d);
    MD_ASSERT(!both == (md_diags_errors(d) > 0), "%d errors", md_diags_errors(d));
    md_config_destroy(both);
    md_config_destroy(given);
    (void)md_resume_check_videos(c, "12 abc", "videos", d);
  }
  md_checkpoint_close(c);
  md_diags_destroy(d);
  free(file);
  return 0;
}

void fuzz_seeds(void (*add)(const char *s, size_t len)) {
  static const char *const configs[] = {"batch: 2\n", "model:\n  name: 'modist-tiny'\nepochs: 3\n",
                                        "_base_: /etc/passwd\n"};
  md_engine *e = make_engine();
  for (int i = 0; i < MD_COUNT(configs); i++) {
    md_checkpoint_info info = {.step = 17, .config = configs[i], .videos = "12 abc"};
    const char *path = fuzz_path(NULL, 0);
    if (md_checkpoint_save(e, path, &info, NULL)) fuzz_add_file(path, add);
  }
  md_engine_destroy(e);
}
