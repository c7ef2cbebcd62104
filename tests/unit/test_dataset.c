// SPDX-License-Identifier: Apache-2.0
// Surveys of videos that are made here, and indexes of them.
#include "runtime/video/video.h"

#include "base/file.h"
#include "tests/unit/suite.h"
#include "tests/video/make_video.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VIDEOS = 4 };
static char folder[] = "/tmp/modist_dataset_XXXXXX";

static const char *in_folder(const char *name) {
  static char path[8][256];
  static int at;
  char *p = path[at++ % 8];
  snprintf(p, sizeof path[0], "%s/%s", folder, name);
  return p;
}

static void write_text(const char *path, const char *text) {
  FILE *f = fopen(path, "w");
  ck_assert_ptr_nonnull(f);
  fputs(text, f);
  fclose(f);
}

static void make(const char *name, int w, int h, int frames, int fps, int rotation) {
  make_video(&(made_video){.path = in_folder(name),
                           .w = w,
                           .h = h,
                           .frames = frames,
                           .fps_num = fps,
                           .fps_den = 1,
                           .rotation = rotation,
                           .pixel = made_square});
}

// Four videos, a name that a csv must quote, and a file that is none.
static void make_folder(void) {
  for (size_t i = strlen(folder) - 6; folder[i]; i++) folder[i] = 'X';
  ck_assert_ptr_nonnull(mkdtemp(folder));
  ck_assert_int_eq(mkdir(in_folder("v"), 0777), 0);
  make("v/a.mp4", 64, 48, 40, 20, 0);
  make("v/b, \"c\".mp4", 48, 64, 90, 30, 0);
  make("v/d.mp4", 64, 32, 25, 25, 90);
  make("v/e.avi", 32, 32, 30, 10, 0);
  write_text(in_folder("v/f.mp4"), "this is no video");
}

static void remove_folder(void) {
  char command[64];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  ck_assert_int_eq(system(command), 0);
}

static md_dataset *open_set(const char *path) {
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = path}, d);
  ck_assert_msg(s != NULL, "%s", md_diags_text(d));
  md_diags_destroy(d);
  return s;
}

typedef struct Seen {
  md_text csv;
  int num, broken, stop_after;
  const md_catalog *known;
} Seen;

static bool see(void *ctx, const md_survey_row *r) {
  Seen *s = ctx;
  s->num++;
  if (r->why) s->broken++;
  else ck_assert(md_catalog_put(&s->csv, in_folder("index.csv"), r, NULL));
  return s->num != s->stop_after;
}

static bool is_known(void *ctx, md_survey_row *r) {
  const Seen *s = ctx;
  const md_survey_row *old = md_catalog_find(s->known, r->path);
  if (!old || old->bytes != r->bytes) return false;
  const char *path = r->path;
  *r = *old;
  r->path = path;
  return true;
}

static Seen survey(md_survey_options o) {
  Seen s = {0};
  md_put(&s.csv, "%s\n", md_catalog_header);
  o.each = see;
  o.ctx = &s;
  ck_assert(md_survey(&o, NULL));
  return s;
}

START_TEST(a_survey_finds_the_same_with_any_number_of_workers) {
  make_folder();
  md_dataset *data = open_set(in_folder("v"));
  Seen one = survey((md_survey_options){.data = data, .hash = true});
  Seen three = survey((md_survey_options){.data = data, .hash = true, .workers = 3});
  ck_assert_int_eq(one.num, VIDEOS + 1);
  ck_assert_int_eq(one.broken, 1);
  ck_assert_str_eq(one.csv.s, three.csv.s);
  md_text_free(&one.csv);
  md_text_free(&three.csv);
  md_dataset_destroy(data);
  remove_folder();
}
END_TEST

START_TEST(a_survey_can_be_stopped) {
  make_folder();
  md_dataset *data = open_set(in_folder("v"));
  Seen s = {.stop_after = 2};
  ck_assert(
      !md_survey(&(md_survey_options){.data = data, .workers = 2, .each = see, .ctx = &s}, NULL));
  ck_assert_int_eq(s.num, 2);
  md_text_free(&s.csv);
  md_dataset_destroy(data);
  remove_folder();
}
END_TEST

static void save(const char *path, const md_text *t) {
  ck_assert(md_file_save(path, t->s, t->len, NULL));
}

START_TEST(an_index_reads_back_and_is_a_list_of_videos) {
  make_folder();
  md_dataset *data = open_set(in_folder("v"));
  data->items[1].label = 7;
  Seen s = survey((md_survey_options){.data = data, .hash = true, .full_decode = true});
  save(in_folder("index.csv"), &s.csv);

  md_diags *d = md_diags_create();
  md_catalog *c = md_catalog_create();
  ck_assert_msg(md_catalog_read(c, in_folder("index.csv"), false, d), "%s", md_diags_text(d));
  ck_assert_int_eq(c->num, VIDEOS);
  static const struct {
    int w, h, rotation;
    int64_t frames;
    double fps, seconds;
  } want[VIDEOS] = {{64, 48, 0, 40, 20, 2},
                    {48, 64, 0, 90, 30, 3},
                    {32, 64, 90, 25, 25, 1},
                    {32, 32, 0, 30, 10, 3}};
  for (int i = 0; i < VIDEOS; i++) {
    const md_survey_row *r = &c->row[i];
    ck_assert_str_eq(r->path, data->items[i].path);
    ck_assert_ptr_eq(md_catalog_find(c, data->items[i].path), r);
    ck_assert_int_eq(r->label, i == 1 ? 7 : -1);
    ck_assert_int_eq(r->w, want[i].w);
    ck_assert_int_eq(r->h, want[i].h);
    ck_assert_int_eq(r->rotation, want[i].rotation);
    ck_assert_int_eq(r->frames, want[i].frames);
    ck_assert_double_eq_tol(r->fps, want[i].fps, 1e-6);
    ck_assert_double_eq_tol(r->seconds, want[i].seconds, 1e-6);
    ck_assert_str_eq(r->codec, "mpeg4");
    struct stat st;
    ck_assert_int_eq(stat(r->path, &st), 0);
    ck_assert_int_eq(r->bytes, st.st_size);
    char *bytes;
    size_t len;
    ck_assert(md_file_read(r->path, 1 << 20, E0503, NULL, &bytes, &len));
    md_digest hash = md_digest_of(bytes, len);
    ck_assert(r->has_hash && r->hash.lo == hash.lo && r->hash.hi == hash.hi);
    free(bytes);
  }
  ck_assert_ptr_null(md_catalog_find(c, in_folder("v/f.mp4")));

  // The folder moves with its index.
  char from[64];
  snprintf(from, sizeof from, "%s", folder);
  folder[strlen(folder) - 1] ^= 1;
  ck_assert_int_eq(rename(from, folder), 0);
  md_dataset *list = open_set(in_folder("index.csv"));
  ck_assert_int_eq(list->num_items, VIDEOS);
  for (int i = 0; i < VIDEOS; i++) {
    ck_assert_int_eq(access(list->items[i].path, R_OK), 0);
    ck_assert_int_eq(list->items[i].label, i == 1 ? 7 : -1);
  }
  md_dataset_destroy(list);
  md_dataset_destroy(data);
  md_catalog_destroy(c);
  md_diags_destroy(d);
  md_text_free(&s.csv);
  remove_folder();
}
END_TEST

// A row that is known is not looked at again; a file that changed is. A last line that was cut off
// is not taken.
START_TEST(a_stopped_index_goes_on) {
  make_folder();
  md_dataset *data = open_set(in_folder("v"));
  Seen s = survey((md_survey_options){.data = data});
  md_text part = {0};
  md_put_bytes(&part, s.csv.s, s.csv.len - 5);
  save(in_folder("part.csv"), &part);
  md_catalog *c = md_catalog_create();
  md_diags *d = md_diags_create();
  ck_assert_msg(md_catalog_read(c, in_folder("part.csv"), true, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
  ck_assert_int_eq(c->num, VIDEOS - 1);

  struct stat st;
  ck_assert_int_eq(stat(in_folder("v/a.mp4"), &st), 0);
  FILE *f = fopen(in_folder("v/a.mp4"), "w");  // broken now, and as long as before
  for (int64_t i = 0; i < st.st_size; i++) fputc('x', f);
  fclose(f);
  write_text(in_folder("v/d.mp4"), "broken, and shorter");
  Seen again = {.known = c};
  ck_assert(md_survey(
      &(md_survey_options){.data = data, .known = is_known, .each = see, .ctx = &again}, NULL));
  ck_assert_int_eq(again.broken, 2);  // d and f
  ck_assert_ptr_nonnull(strstr(again.csv.s, "a.mp4"));
  ck_assert_ptr_nonnull(strstr(again.csv.s, "e.avi"));
  ck_assert_ptr_null(strstr(again.csv.s, "d.mp4"));
  md_text_free(&again.csv);
  md_text_free(&part);
  md_text_free(&s.csv);
  md_catalog_destroy(c);
  md_dataset_destroy(data);
  remove_folder();
}
END_TEST

START_TEST(fields_survive_a_csv) {
  static const char *const fields[] = {"plain", "",   "a,b",  "\"", "a \"b\", c",
                                       " lead", "#x", "\"\"", "x\""};
  for (int i = 0; i < MD_COUNT(fields); i++) {
    md_text line = {0}, back = {0};
    md_csv_put(&line, fields[i]);
    md_put(&line, ",rest");
    const char *p = line.s;
    ck_assert(md_csv_field(&p, line.s + line.len, &back));
    ck_assert_str_eq(back.s, fields[i]);
    ck_assert_str_eq(p, ",rest");
    md_text_free(&line);
    md_text_free(&back);
  }
  md_text back = {0};
  const char *open = "\"never closed", *p = open;
  ck_assert(!md_csv_field(&p, open + strlen(open), &back));
  md_text_free(&back);
}
END_TEST

START_TEST(a_path_with_a_line_break_is_refused) {
  md_diags *d = md_diags_create();
  md_text line = {0};
  md_survey_row r = {.path = "a\nb.mp4", .codec = "h264"};
  ck_assert(!md_catalog_put(&line, "index.csv", &r, d));
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "E0872"));
  ck_assert_uint_eq(line.len, 0);
  md_text_free(&line);
  md_diags_destroy(d);
}
END_TEST

SUITE_MAIN("dataset", a_survey_finds_the_same_with_any_number_of_workers, a_survey_can_be_stopped,
           an_index_reads_back_and_is_a_list_of_videos, a_stopped_index_goes_on,
           fields_survive_a_csv, a_path_with_a_line_break_is_refused)
