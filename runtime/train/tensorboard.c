// SPDX-License-Identifier: Apache-2.0
// run.dir/events.out.tfevents.*: what log.jsonl says, as TensorBoard reads it. A file is a row of
// records: length, its checksum, an Event message, its checksum (masked CRC-32C, little-endian). The
// few fields that are needed are encoded here by hand:
//
//   Event   1 wall_time double, 2 step int64, 3 file_version string, 5 summary, 7 session_log
//   Summary 1 value { 1 tag string, 2 simple_value float }       SessionLog 1 status (1: start)
#include "runtime/train/train.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };  // wire types

struct md_tensorboard {
  char *path;
  int fd;  // -1: given up
};

static void put_varint(md_text *t, uint64_t x) {
  for (; x >= 0x80; x >>= 7) md_put_bytes(t, (char[]){(char)(x | 0x80)}, 1);
  md_put_bytes(t, (char[]){(char)x}, 1);
}

static void put_fixed(md_text *t, uint64_t x, int bytes) {
  for (int i = 0; i < bytes; i++) md_put_bytes(t, (char[]){(char)(x >> 8 * i)}, 1);
}

static void put_tag(md_text *t, int field, int wire) {
  put_varint(t, (uint64_t)field << 3 | (uint64_t)wire);
}

static void put_bytes(md_text *t, int field, const char *s, size_t len) {
  put_tag(t, field, BYTES);
  put_varint(t, len);
  md_put_bytes(t, s, len);
}

static void put_scalar(md_text *summary, const char *group, const char *name, double x) {
  md_text value = {0}, tag = {0};
  float narrow = (float)x;
  uint32_t bits;
  memcpy(&bits, &narrow, sizeof bits);
  md_put(&tag, "%s/%s", group, name);
  put_bytes(&value, 1, tag.s, tag.len);
  put_tag(&value, 2, FIXED32);
  put_fixed(&value, bits, 4);
  put_bytes(summary, 1, value.s, value.len);
  md_text_free(&value);
  md_text_free(&tag);
}

static void put_head(md_text *event, int64_t step) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  double seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
  uint64_t bits;
  memcpy(&bits, &seconds, sizeof bits);
  put_tag(event, 1, FIXED64);
  put_fixed(event, bits, 8);
  put_tag(event, 2, VARINT);
  put_varint(event, (uint64_t)step);
}

static uint32_t masked_crc(const char *s, size_t len) {
  uint32_t crc = md_crc32c(s, len);
  return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static void give_up(md_tensorboard *t, int error, md_diags *d) {
  md_warning(d, MD_IN_FILE(t->path), "cannot be written (%s); training goes on without TensorBoard",
             strerror(error));
  if (t->fd >= 0) close(t->fd);
  t->fd = -1;
}

// One record, one write. What follows half a record could not be read, so a failure is the end.
static void write_event(md_tensorboard *t, const md_text *event, md_diags *d) {
  md_text record = {0};
  put_fixed(&record, event->len, 8);
  put_fixed(&record, masked_crc(record.s, 8), 4);
  md_put_bytes(&record, event->s, event->len);
  put_fixed(&record, masked_crc(event->s, event->len), 4);
  ssize_t n = write(t->fd, record.s, record.len);
  if (n != (ssize_t)record.len) give_up(t, n < 0 ? errno : ENOSPC, d);
  md_text_free(&record);
}

static void write_start(md_tensorboard *t, int64_t done, md_diags *d) {
  static const char version[] = "brain.Event:2";
  md_text event = {0};
  put_head(&event, 0);
  put_bytes(&event, 3, version, sizeof version - 1);
  write_event(t, &event, d);
  if (done && t->fd >= 0) {
    // Readers drop what an interrupted run had written from this step on.
    event.len = 0;
    put_head(&event, done + 1);
    put_bytes(&event, 7, (char[]){1 << 3 | VARINT, 1}, 2);
    write_event(t, &event, d);
  }
  md_text_free(&event);
}

md_tensorboard *md_tensorboard_open(const char *dir, int64_t done, md_diags *d) {
  md_tensorboard *t = md_calloc(1, sizeof *t);
  md_text path = {0};
  md_put(&path, "%s/" MD_EVENTS_PREFIX "%010lld.%ld" MD_EVENTS_SUFFIX, dir, (long long)time(NULL),
         (long)getpid());
  t->path = path.s;
  t->fd = open(t->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (t->fd < 0) give_up(t, errno, d);
  else write_start(t, done, d);
  return t;
}

void md_tensorboard_step(md_tensorboard *t, const md_measure *m, md_diags *d) {
  if (!t || t->fd < 0) return;
  md_text summary = {0}, event = {0};
  put_scalar(&summary, "loss", "total", m->loss);
  for (int i = 0; i < MD_NUM_TERMS; i++) {
    if (!m->has_term[i]) continue;
    put_scalar(&summary, "loss", md_term_names[i], m->term[i]);
    put_scalar(&summary, "top1", md_term_names[i], m->top1[i]);
  }
  if (m->has_chance) put_scalar(&summary, "loss", "chance", m->chance);
  if (m->has_top1) put_scalar(&summary, "top1", "labels", m->supervised_top1);
  for (int i = 0; i < MD_NUM_SIDES; i++)
    if (m->has_side[i]) put_scalar(&summary, "embedding_std", md_side_names[i], m->std[i]);
  put_scalar(&summary, "run", "lr", m->lr);
  put_scalar(&summary, "run", "epoch", m->epoch);
  put_scalar(&summary, "run", "step_s", (double)m->step_ns / 1e9);
  put_scalar(&summary, "run", "data_wait_s", (double)m->wait_ns / 1e9);
  put_head(&event, m->step);
  put_bytes(&event, 5, summary.s, summary.len);
  write_event(t, &event, d);
  md_text_free(&summary);
  md_text_free(&event);
}

void md_tensorboard_close(md_tensorboard *t) {
  if (!t) return;
  if (t->fd >= 0) close(t->fd);
  free(t->path);
  free(t);
}
