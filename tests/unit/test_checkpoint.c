// SPDX-License-Identifier: Apache-2.0
// Checkpoints: what is saved comes back, nothing damaged or foreign gets in, and a disk that is full
// leaves the older file alone.
#include "runtime/train/train.h"

#include "base/file.h"
#include "base/safetensors.h"
#include "tests/unit/folder.h"
#include "tests/unit/small_engine.h"
#include "tests/unit/suite.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { DATA_FLIPS = 2000 };
static const char config_text[] = "model:\n  name: 'modist-tiny'\n";

// It has other states than the small one.
static const char other[] = "graph @other(%x: f32[3]) {\n"
                            "  %vw = state @v.w {init=normal, a=0.0, b=1.0} : f32[3]\n"
                            "  %vb = state @v.b {init=zeros} : f32[3]\n"
                            "  %mw = state @m.w {init=normal, a=0.0, b=1.0} : f32[3,2]\n"
                            "  %y = mul %x, %vw : f32[3]\n"
                            "  return %y\n"
                            "}\n";

static void save(md_engine *e, const char *name, int64_t step) {
  md_diags *d = md_diags_create();
  md_checkpoint_info info = {.step = step, .config = config_text, .videos = "2 abc"};
  ck_assert_msg(md_checkpoint_save(e, in_folder(name), &info, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
}

static bool is_equal(md_engine *a, md_engine *b, const char *name) {
  md_type type;
  const void *x = md_engine_state(a, name, &type), *y = md_engine_state(b, name, NULL);
  return memcmp(x, y, (size_t)md_type_bytes(&type)) == 0;
}

// Opens and expects a refusal; the code that was told.
static bool refused_as(const char *path, const char *code) {
  md_diags *d = md_diags_create();
  md_checkpoint *c = md_checkpoint_open(path, d);
  bool ok = !c && md_diags_errors(d) == 1 && md_diags_status(d) == MD_ERR_DATA &&
            (!code || strstr(md_diags_text(d), code));
  if (!ok) fprintf(stderr, "%s\n", c ? "accepted" : md_diags_text(d));
  md_checkpoint_close(c);
  md_diags_destroy(d);
  return ok;
}

START_TEST(what_is_saved_comes_back) {
  make_empty_folder();
  md_engine *a = engine_of(small, 1), *b = engine_of(small, 2);
  ck_assert(!is_equal(a, b, "v.w"));
  save(a, "a", 17);
  md_diags *d = md_diags_create();
  md_checkpoint *c = md_checkpoint_open(in_folder("a"), d);
  ck_assert_msg(c != NULL, "%s", md_diags_text(d));
  ck_assert_int_eq(md_checkpoint_step(c), 17);
  ck_assert_str_eq(md_checkpoint_config(c), config_text);
  ck_assert_str_eq(md_checkpoint_videos(c), "2 abc");
  // First one network alone, then everything.
  ck_assert_msg(md_checkpoint_restore(c, b, "v.", d), "%s", md_diags_text(d));
  ck_assert(is_equal(a, b, "v.w") && !is_equal(a, b, "m.w"));
  ck_assert_msg(md_checkpoint_restore(c, b, NULL, d), "%s", md_diags_text(d));
  ck_assert(is_equal(a, b, "m.w") && is_equal(a, b, "n"));
  ck_assert_int_eq(md_diags_errors(d), 0);
  md_checkpoint_close(c);
  md_diags_destroy(d);
  md_engine_destroy(a);
  md_engine_destroy(b);
  remove_folder();
}
END_TEST

START_TEST(another_network_is_refused_and_untouched) {
  make_empty_folder();
  md_engine *a = engine_of(small, 1), *b = engine_of(other, 2), *before = engine_of(other, 2);
  save(a, "a", 1);
  md_diags *d = md_diags_create();
  md_checkpoint *c = md_checkpoint_open(in_folder("a"), d);
  ck_assert(!md_checkpoint_restore(c, b, NULL, d));
  const char *text = md_diags_text(d);
  static const char *const says[] = {
      "E0862", "of 3 states 1 are missing and 1 of another type; 1 are not known",
      "missing: v.b f32[3]", "of another type: m.w f32[2,3] (needed: f32[3,2])",
      "not known: n i32[1]"};
  for (int i = 0; i < MD_COUNT(says); i++)
    ck_assert_msg(strstr(text, says[i]) != NULL, "no '%s' in\n%s", says[i], text);
  ck_assert(is_equal(b, before, "v.w") && is_equal(b, before, "m.w"));
  ck_assert(!md_checkpoint_restore(c, b, "v.", d));        // v.b is missing
  ck_assert(!md_checkpoint_restore(c, b, "nothing.", d));  // no such state
  ck_assert(is_equal(b, before, "v.w"));
  md_checkpoint_close(c);
  md_diags_destroy(d);
  md_engine_destroy(a);
  md_engine_destroy(b);
  md_engine_destroy(before);
  remove_folder();
}
END_TEST

static void overwrite_byte(const char *path, size_t at, char byte) {
  FILE *f = fopen(path, "r+b");
  ck_assert_ptr_nonnull(f);
  fseek(f, (long)at, SEEK_SET);
  fputc(byte, f);
  fclose(f);
}

// Every byte of a small file, each with one bit and with all bits turned.
START_TEST(every_flipped_byte_of_the_header_is_found) {
  make_empty_folder();
  md_engine *e = engine_of(small, 1);
  save(e, "a", 5);
  char *bytes;
  size_t len;
  ck_assert(md_file_read(in_folder("a"), 1 << 20, E0601, NULL, &bytes, &len));
  for (size_t i = 0; i < len; i++) {
    const char flips[] = {(char)(1 << i % 8), (char)0xFF};
    for (int k = 0; k < MD_COUNT(flips); k++) {
      overwrite_byte(in_folder("a"), i, (char)(bytes[i] ^ flips[k]));
      ck_assert_msg(refused_as(in_folder("a"), NULL), "byte %zu of %zu", i, len);
    }
    overwrite_byte(in_folder("a"), i, bytes[i]);
  }
  md_checkpoint *c = md_checkpoint_open(in_folder("a"), NULL);
  ck_assert_ptr_nonnull(c);  // as it was
  md_checkpoint_close(c);
  for (size_t cut = 0; cut < len; cut++) {
    ck_assert(md_file_save(in_folder("cut"), bytes, cut, NULL));
    ck_assert_msg(refused_as(in_folder("cut"), NULL), "cut at %zu", cut);
  }
  free(bytes);
  md_engine_destroy(e);
  remove_folder();
}
END_TEST

// A training step's file: one random bit of its data at a time.
START_TEST(random_flips_in_the_data_are_found) {
  make_empty_folder();
  md_step s = md_step_defaults();
  md_model_from("modist-tiny")->fill(&s);
  s.batch = 2;
  s.bank = 4;
  md_diags *d = md_diags_create();
  md_engine_options o = {.backend = MD_BACKEND_INTERP, .passes = md_pass_defaults()};
  md_engine *e = md_engine_create(md_step_graph(&s, d), &o, d);
  ck_assert_msg(e != NULL, "%s", md_diags_text(d));
  save(e, "a", 5);
  char *bytes;
  size_t len, header = 0;
  ck_assert(md_file_read(in_folder("a"), 1 << 30, E0601, d, &bytes, &len));
  for (int i = 7; i >= 0; i--) header = header << 8 | (unsigned char)bytes[i];
  uint64_t key = md_hash_key("flip", 1);
  printf("flips of seed 1 in %zu bytes of data\n", len - 8 - header);
  for (uint64_t n = 0; n < DATA_FLIPS; n++) {
    size_t at = 8 + header + md_hash_at(key, 2 * n) % (len - 8 - header);
    overwrite_byte(in_folder("a"), at, (char)(bytes[at] ^ 1 << md_hash_at(key, 2 * n + 1) % 8));
    ck_assert_msg(refused_as(in_folder("a"), "E0860"), "flip %d at %zu", (int)n, at);
    overwrite_byte(in_folder("a"), at, bytes[at]);
  }
  free(bytes);
  md_engine_destroy(e);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

// Whole and well formed, but not what a checkpoint has.
START_TEST(foreign_files_are_refused) {
  static const struct {
    md_st_meta meta[4];
    int num;
    const char *says;
  } cases[] = {
      {{{"format", "pt"}}, 1, "no checksum"},
      {{{"format", MD_CHECKPOINT_FORMAT}, {"step", "3"}, {"config", ""}}, 3, "no checksum"},
      {{{"format", MD_CHECKPOINT_FORMAT}, {"checksum", "0123"}}, 2, "checksum differs"},
      {{{"format", "modist.checkpoint/2"}, {"step", "3"}, {"config", ""}, {"checksum", NULL}},
       4,
       "modist.checkpoint/2"},
      {{{"step", "3"}, {"config", ""}, {"checksum", NULL}}, 3, "format ''"},
      {{{"format", MD_CHECKPOINT_FORMAT}, {"config", ""}, {"checksum", NULL}}, 3, "which step"},
      {{{"format", MD_CHECKPOINT_FORMAT}, {"step", "-1"}, {"config", ""}, {"checksum", NULL}},
       4,
       "which step"},
      {{{"format", MD_CHECKPOINT_FORMAT}, {"step", "3x"}, {"config", ""}, {"checksum", NULL}},
       4,
       "which step"},
      {{{"format", MD_CHECKPOINT_FORMAT}, {"step", "3"}, {"checksum", NULL}}, 3, "no settings"},
  };
  make_empty_folder();
  for (int i = 0; i < MD_COUNT(cases); i++) {
    ck_assert(md_safetensors_write(in_folder("f"), NULL, 0, cases[i].meta, cases[i].num, NULL));
    ck_assert(refused_as(in_folder("f"), cases[i].says));
  }
  ck_assert(refused_as(in_folder("nowhere"), "No such file"));
  ck_assert(refused_as(folder, "a folder"));
  remove_folder();
}
END_TEST

// In a child that may write files of `limit` bytes only, a save fails, as on a full disk.
static int save_within(md_engine *e, const char *path, rlim_t limit) {
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){limit, limit});
    md_diags *d = md_diags_create();
    md_checkpoint_info info = {.step = 2, .config = config_text};
    bool ok = md_checkpoint_save(e, path, &info, d);
    bool told = strstr(md_diags_text(d), "E0801") && strstr(md_diags_text(d), "cannot write");
    _exit(ok ? 0 : told ? (int)md_diags_status(d) : 99);
  }
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert(WIFEXITED(status));
  return WEXITSTATUS(status);
}

START_TEST(a_save_that_fails_anywhere_leaves_the_older_file) {
  make_empty_folder();
  md_engine *e = engine_of(small, 1);
  save(e, "a", 1);
  char *bytes;
  size_t len;
  ck_assert(md_file_read(in_folder("a"), 1 << 20, E0601, NULL, &bytes, &len));
  free(bytes);
  // Without the name of the videos the new file is shorter; it ends at most here.
  for (rlim_t limit = 0; limit < len - 16; limit += 7) {
    ck_assert_int_eq(save_within(e, in_folder("a"), limit), MD_ERR_RUN);
    md_checkpoint *c = md_checkpoint_open(in_folder("a"), NULL);
    ck_assert_ptr_nonnull(c);
    ck_assert_int_eq(md_checkpoint_step(c), 1);
    md_checkpoint_close(c);
  }
  char command[96];
  snprintf(command, sizeof command, "test \"$(ls -A '%s')\" = a", folder);  // no leftovers
  ck_assert_int_eq(system(command), 0);
  ck_assert_int_eq(save_within(e, in_folder("a"), len), 0);
  md_engine_destroy(e);
  remove_folder();
}
END_TEST

// The file that a run was started with may be named again, whatever it sets.
START_TEST(the_same_settings_file_changes_nothing) {
  static const char *const names[] = {
      "clips_r3d18_slow_112", "mini_modist",          "mini_rgb",
      "modist_tiny",          "pretrain_k400_modist", "pretrain_r18_128"};
  const char *source = getenv("MODIST_SOURCE");
  make_empty_folder();
  md_engine *e = engine_of(small, 1);
  for (int i = 0; i < MD_COUNT(names); i++) {
    char path[512];
    snprintf(path, sizeof path, "%s/configs/%s.yaml", source ? source : ".", names[i]);
    md_diags *d = md_diags_create();
    md_config *given = md_config_load(path, (char *[]){"run.threads=3"}, 1, d);
    ck_assert_msg(given != NULL, "%s", md_diags_text(d));
    md_text text = {0}, again = {0};
    md_config_print(given, false, &text);
    md_checkpoint_info info = {.step = 1, .config = text.s};
    ck_assert(md_checkpoint_save(e, in_folder("a"), &info, d));
    md_checkpoint *c = md_checkpoint_open(in_folder("a"), d);
    md_config *both = md_resume_config(c, given, d);
    ck_assert_msg(both != NULL, "%s", md_diags_text(d));
    md_config_print(both, false, &again);
    ck_assert_str_eq(text.s, again.s);
    md_text_free(&text);
    md_text_free(&again);
    md_checkpoint_close(c);
    md_config_destroy(both);
    md_config_destroy(given);
    md_diags_destroy(d);
  }
  md_engine_destroy(e);
  remove_folder();
}
END_TEST

// What a checkpoint of a stranger says may not open other files.
START_TEST(settings_of_a_checkpoint_name_no_files) {
  make_empty_folder();
  md_engine *e = engine_of(small, 1);
  md_checkpoint_info info = {.config = "_base_: /etc/passwd\nbatch: 2\n"};
  ck_assert(md_checkpoint_save(e, in_folder("a"), &info, NULL));
  md_diags *d = md_diags_create();
  md_checkpoint *c = md_checkpoint_open(in_folder("a"), d);
  md_config *given = md_config_load(NULL, NULL, 0, d);
  ck_assert_ptr_null(md_resume_config(c, given, d));
  ck_assert_msg(strstr(md_diags_text(d), "_base_ has no place in these settings") != NULL, "%s",
                md_diags_text(d));
  md_config_destroy(given);
  md_checkpoint_close(c);
  md_diags_destroy(d);
  md_engine_destroy(e);
  remove_folder();
}
END_TEST

SUITE_MAIN("checkpoint", what_is_saved_comes_back, another_network_is_refused_and_untouched,
           every_flipped_byte_of_the_header_is_found, random_flips_in_the_data_are_found,
           foreign_files_are_refused, the_same_settings_file_changes_nothing,
           settings_of_a_checkpoint_name_no_files, a_save_that_fails_anywhere_leaves_the_older_file)
