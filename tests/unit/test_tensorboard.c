// SPDX-License-Identifier: Apache-2.0
// Event files are read back by a decoder that knows the wire format and nothing of the writer; and
// the alarm that warns of collapse; a full disk under these and under the log.
#include "runtime/train/train.h"

#include "base/file.h"
#include "tests/unit/suite.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[40];

static void make_folder(void) {
  strcpy(folder, "/tmp/modist_board_XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_folder(void) {
  char command[64];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  ck_assert_int_eq(system(command), 0);
}

static void read_events(char **data, size_t *len) {
  DIR *d = opendir(folder);
  char path[400] = "";
  for (struct dirent *e; (e = readdir(d));)
    if (strstr(e->d_name, "tfevents")) snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
  closedir(d);
  ck_assert(md_file_read(path, 1 << 20, E0206, NULL, data, len));
}

// --- the decoder

typedef struct Bytes {
  const unsigned char *at, *end;
} Bytes;

static uint64_t fixed(Bytes *b, int bytes) {
  uint64_t x = 0;
  ck_assert(b->end - b->at >= bytes);
  for (int i = 0; i < bytes; i++) x |= (uint64_t)b->at[i] << 8 * i;
  b->at += bytes;
  return x;
}

static uint64_t varint(Bytes *b) {
  uint64_t x = 0;
  for (int shift = 0;; shift += 7) {
    ck_assert(b->at < b->end && shift < 64);
    x |= (uint64_t)(*b->at & 0x7F) << shift;
    if (*b->at++ < 0x80) return x;
  }
}

typedef struct Field {
  int number, wire;
  uint64_t value;  // of a number
  Bytes bytes;
} Field;

static bool next_field(Bytes *b, Field *f) {
  if (b->at == b->end) return false;
  uint64_t tag = varint(b);
  f->number = (int)(tag >> 3);
  f->wire = (int)(tag & 7);
  switch (f->wire) {
  case 0: f->value = varint(b); break;
  case 1: f->value = fixed(b, 8); break;
  case 5: f->value = fixed(b, 4); break;
  case 2: {
    uint64_t len = varint(b);
    ck_assert_uint_le(len, (uint64_t)(b->end - b->at));
    f->bytes = (Bytes){b->at, b->at + len};
    b->at += len;
    break;
  }
  default: ck_abort_msg("wire type %d", f->wire);
  }
  return true;
}

static bool is_text(Bytes b, const char *s) {
  return (size_t)(b.end - b.at) == strlen(s) && memcmp(b.at, s, strlen(s)) == 0;
}

// The payload of the next record, both checksums checked.
static bool next_record(Bytes *b, Bytes *event) {
  if (b->at == b->end) return false;
  const unsigned char *start = b->at;
  uint64_t len = fixed(b, 8);
  uint32_t crc = md_crc32c(start, 8);
  ck_assert_uint_eq((uint32_t)fixed(b, 4), (crc >> 15 | crc << 17) + 0xA282EAD8u);
  ck_assert_uint_le(len + 4, (uint64_t)(b->end - b->at));
  *event = (Bytes){b->at, b->at + len};
  b->at += len;
  crc = md_crc32c(event->at, len);
  ck_assert_uint_eq((uint32_t)fixed(b, 4), (crc >> 15 | crc << 17) + 0xA282EAD8u);
  return true;
}

typedef struct Event {
  double time;
  int64_t step;
  Bytes version, summary, session;
} Event;

static bool next_event(Bytes *b, Event *e) {
  Bytes bytes;
  *e = (Event){0};
  if (!next_record(b, &bytes)) return false;
  for (Field f; next_field(&bytes, &f);) {
    if (f.number == 1) memcpy(&e->time, &f.value, 8);
    if (f.number == 2) e->step = (int64_t)f.value;
    if (f.number == 3) e->version = f.bytes;
    if (f.number == 5) e->summary = f.bytes;
    if (f.number == 7) e->session = f.bytes;
  }
  ck_assert(e->time > 1e9);
  return true;
}

// The scalar under `tag`, NAN where there is none.
static double scalar(Bytes summary, const char *tag) {
  for (Field value; next_field(&summary, &value);) {
    bool is_it = false;
    float x = NAN;
    for (Field f; next_field(&value.bytes, &f);) {
      if (f.number == 1) is_it = is_text(f.bytes, tag);
      uint32_t bits = (uint32_t)f.value;
      if (f.number == 2 && f.wire == 5) memcpy(&x, &bits, 4);
    }
    if (is_it) return (double)x;
  }
  return NAN;
}

static md_measure measure(int64_t step) {
  return (md_measure){.step = step,
                      .epoch = 0.5,
                      .lr = 0.25,
                      .loss = 7.5 + (double)step,
                      .has_chance = true,
                      .chance = 4,
                      .has_term = {true, false, true, false},
                      .term = {1.5, 0, 2.5, 0},
                      .top1 = {0.125, 0, 1, 0},
                      .has_side = {true, false},
                      .std = {0.0625, 0},
                      .wait_ns = 250000000,
                      .step_ns = 500000000};
}

START_TEST(crc32c_is_castagnolis) {
  ck_assert_uint_eq(md_crc32c("123456789", 9), 0xE3069283u);
  ck_assert_uint_eq(md_crc32c("", 0), 0);
}
END_TEST

START_TEST(every_number_of_a_step_can_be_read_back) {
  make_folder();
  md_diags *d = md_diags_create();
  md_tensorboard *t = md_tensorboard_open(folder, 0, d);
  for (int64_t step = 1; step <= 300; step++) {
    md_measure m = measure(step);
    md_tensorboard_step(t, &m, d);
  }
  md_tensorboard_close(t);
  ck_assert_int_eq(md_diags_warnings(d), 0);
  char *data;
  size_t len;
  read_events(&data, &len);
  Bytes file = {(unsigned char *)data, (unsigned char *)data + len};
  Event e;
  ck_assert(next_event(&file, &e));
  ck_assert(is_text(e.version, "brain.Event:2"));
  static const struct {
    const char *tag;
    double value;
  } rows[] = {{"loss/v", 1.5},     {"loss/vm", 2.5},
              {"loss/chance", 4},  {"top1/v", 0.125},
              {"top1/vm", 1},      {"embedding_std/v", 0.0625},
              {"run/lr", 0.25},    {"run/data_wait_s", 0.25},
              {"run/step_s", 0.5}, {"run/epoch", 0.5}};
  for (int64_t step = 1; step <= 300; step++) {
    ck_assert(next_event(&file, &e));
    ck_assert_int_eq(e.step, step);
    ck_assert(e.session.at == NULL);  // a run that starts is none that goes on
    ck_assert_double_eq(scalar(e.summary, "loss/total"), 7.5 + (double)step);
    for (int i = 0; i < MD_COUNT(rows); i++)
      ck_assert_msg(scalar(e.summary, rows[i].tag) == rows[i].value, "%s", rows[i].tag);
    ck_assert(isnan(scalar(e.summary, "loss/m")) && isnan(scalar(e.summary, "embedding_std/m")));
  }
  ck_assert(!next_event(&file, &e));
  free(data);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

// Readers drop what they have from the step of a session's start on.
START_TEST(a_resumed_run_says_where_it_starts) {
  make_folder();
  md_diags *d = md_diags_create();
  md_tensorboard *t = md_tensorboard_open(folder, 17, d);
  md_measure m = measure(18);
  md_tensorboard_step(t, &m, d);
  md_tensorboard_close(t);
  char *data;
  size_t len;
  read_events(&data, &len);
  Bytes file = {(unsigned char *)data, (unsigned char *)data + len};
  Event e;
  ck_assert(next_event(&file, &e) && next_event(&file, &e));
  ck_assert_int_eq(e.step, 18);
  Field status;
  ck_assert(next_field(&e.session, &status));
  ck_assert(status.number == 1 && status.wire == 0 && status.value == 1);
  ck_assert(next_event(&file, &e));
  ck_assert_int_eq(e.step, 18);
  ck_assert_double_eq(scalar(e.summary, "loss/total"), 25.5);
  free(data);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

// A line is there or not: half of one would be glued to the next, when there is room again.
START_TEST(a_full_disk_costs_whole_lines_of_the_log) {
  make_folder();
  md_diags *d = md_diags_create();
  char path[80];
  snprintf(path, sizeof path, "%s/log.jsonl", folder);
  md_train_log *log = md_train_log_open(path, 0, d);
  md_measure m = measure(1);
  md_train_log_step(log, &m, d);
  struct stat st;
  ck_assert_int_eq(stat(path, &st), 0);
  off_t line = st.st_size;
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){(rlim_t)(line + line / 2), before.rlim_max});
  m = measure(2);
  md_train_log_step(log, &m, d);
  ck_assert_int_eq(stat(path, &st), 0);
  ck_assert_int_eq(st.st_size, line);
  setrlimit(RLIMIT_FSIZE, &before);
  m = measure(3);
  md_train_log_step(log, &m, d);
  md_train_log_close(log, d);
  char *text;
  size_t len;
  ck_assert(md_file_read(path, 1 << 20, E0801, d, &text, &len));
  const char *second = strchr(text, '\n') + 1, *end = strchr(second, '\n');
  ck_assert(end == text + len - 1 && strncmp(second, "{\"schema\"", 9) == 0);
  ck_assert_ptr_nonnull(strstr(second, "\"step\":3"));
  ck_assert_msg(md_diags_warnings(d) == 1, "%s", md_diags_text(d));
  free(text);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

// What was written before the disk was full can still be read, up to the last whole record.
START_TEST(a_full_disk_is_told_once) {
  make_folder();
  md_diags *d = md_diags_create();
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  setrlimit(RLIMIT_FSIZE, &(struct rlimit){1000, before.rlim_max});
  md_tensorboard *t = md_tensorboard_open(folder, 0, d);
  for (int64_t step = 1; step <= 20; step++) {
    md_measure m = measure(step);
    md_tensorboard_step(t, &m, d);
  }
  md_tensorboard_close(t);
  t = md_tensorboard_open("/nowhere/at/all", 0, d);
  md_measure m = measure(1);
  md_tensorboard_step(t, &m, d);
  md_tensorboard_close(t);
  setrlimit(RLIMIT_FSIZE, &before);
  ck_assert_int_eq(md_diags_errors(d), 0);
  ck_assert_msg(md_diags_warnings(d) == 2, "%s", md_diags_text(d));
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "training goes on without TensorBoard"));
  char *data;
  size_t len;
  read_events(&data, &len);
  ck_assert_uint_eq(len, 1000);
  Bytes file = {(unsigned char *)data, (unsigned char *)data + len}, whole;
  uint64_t first = fixed(&(Bytes){file.at, file.end}, 8);
  ck_assert_uint_lt(first, 100);
  ck_assert(next_record(&file, &whole) && next_record(&file, &whole));
  free(data);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

START_TEST(collapse_is_told_once_when_it_starts_and_once_when_it_ends) {
  // Random directions of 100 dimensions have 0.1; the alarm starts below 0.01 and ends at 0.02. The
  // log knows nothing of that: a run that was resumed in between logs the same.
  static const struct {
    double std;
    int warnings;
    bool is_collapsed;
  } steps[] = {{0.1, 0, false},    {0.0101, 0, false}, {0.0099, 1, true},  {0.001, 1, true},
               {0.0199, 1, false}, {0.0201, 2, false}, {0.0101, 2, false}, {0, 3, true}};
  md_alarm a = {.batch = 8, .dim = {100, 100}};
  md_diags *d = md_diags_create();
  for (int i = 0; i < MD_COUNT(steps); i++) {
    md_measure m = {.step = i + 1, .has_side = {false, true}, .std = {0, steps[i].std}};
    md_alarm_check(&a, &m, d);
    ck_assert_int_eq(md_diags_warnings(d), steps[i].warnings);
    ck_assert(m.is_collapsed[1] == steps[i].is_collapsed && !m.is_collapsed[0]);
  }
  const char *text = md_diags_text(d);
  ck_assert_ptr_nonnull(strstr(text, "step 3: embeddings of m have collapsed: std 0.00990"));
  ck_assert_ptr_nonnull(strstr(text, "step 6: embeddings of m are apart again"));
  md_alarm one = {.batch = 1, .dim = {100, 100}};
  md_measure m = {.step = 1, .has_side = {true, true}};
  md_alarm_check(&one, &m, d);
  ck_assert_int_eq(md_diags_warnings(d), 3);
  md_diags_destroy(d);
}
END_TEST

SUITE_MAIN("tensorboard", crc32c_is_castagnolis, every_number_of_a_step_can_be_read_back,
           a_resumed_run_says_where_it_starts, a_full_disk_costs_whole_lines_of_the_log,
           a_full_disk_is_told_once, collapse_is_told_once_when_it_starts_and_once_when_it_ends)
