// SPDX-License-Identifier: Apache-2.0
// run.dir/log.jsonl: a JSON object a line, a line a step. Fields are only ever added within
// "modist.step/1". Each line is one write, so that a reader never sees half of one for long, and a
// line that could not be written is lost as a whole, not the training.
#include "runtime/train/train.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct md_train_log {
  char *path;
  int fd;
  off_t end;  // of the lines that are complete
  int64_t lost;
  md_json json;
};

static void warn_once(md_train_log *l, const char *what, int error, md_diags *d) {
  if (l->lost++ > 0) return;
  md_warning(d, MD_IN_FILE(l->path), "the log %s (%s); training goes on without it", what,
             strerror(error));
}

static void put_float(md_json *j, const char *prefix, const char *name, double x) {
  char key[32];
  snprintf(key, sizeof key, "%s%s", prefix, name);
  md_json_key(j, key);
  md_json_float(j, x);
}

static void put_bool(md_json *j, const char *prefix, const char *name, bool x) {
  char key[32];
  snprintf(key, sizeof key, "%s%s", prefix, name);
  md_json_key(j, key);
  md_json_bool(j, x);
}

static void put_measure(md_json *j, const md_measure *m) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  md_json_begin(j, '{');
  md_json_key(j, "schema");
  md_json_str(j, "modist.step/1");
  put_float(j, "time", "", (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
  md_json_key(j, "step");
  md_json_int(j, m->step);
  put_float(j, "epoch", "", m->epoch);
  put_float(j, "lr", "", m->lr);
  put_float(j, "loss", "", m->loss);
  for (int i = 0; i < MD_NUM_TERMS; i++) {
    if (!m->has_term[i]) continue;
    put_float(j, "loss_", md_term_names[i], m->term[i]);
    put_float(j, "top1_", md_term_names[i], m->top1[i]);
  }
  if (m->has_chance) put_float(j, "chance", "", m->chance);
  if (m->has_chance) put_float(j, "masked", "", m->masked);
  if (m->has_top1) put_float(j, "top1", "", m->supervised_top1);
  for (int i = 0; i < MD_NUM_SIDES; i++) {
    if (!m->has_side[i]) continue;
    put_float(j, "std_", md_side_names[i], m->std[i]);
    put_bool(j, "collapsed_", md_side_names[i], m->is_collapsed[i]);
  }
  put_float(j, "step_s", "", (double)m->step_ns / 1e9);
  put_float(j, "wait_s", "", (double)m->wait_ns / 1e9);
  md_json_end(j, '}');
}

// Bytes of the lines up to step `done`, each complete; what follows is written again.
static off_t kept_bytes(const char *path, int64_t done) {
  FILE *f = fopen(path, "re");
  char *line = NULL;
  size_t cap = 0;
  off_t kept = 0;
  for (ssize_t len; f && (len = getline(&line, &cap, f)) > 0; kept += len) {
    const char *step = strstr(line, "\"step\":");
    if (line[len - 1] != '\n' || !step || strtoll(step + 7, NULL, 10) > done) break;
  }
  free(line);
  if (f) fclose(f);
  return kept;
}

md_train_log *md_train_log_open(const char *path, int64_t done, md_diags *d) {
  md_train_log *l = md_calloc(1, sizeof *l);
  l->path = strdup(path);
  if (!l->path) md_out_of_memory(strlen(path));
  l->json.compact = true;
  l->end = done ? kept_bytes(path, done) : 0;
  l->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  struct stat st;
  if (l->fd < 0 || fstat(l->fd, &st) < 0 || (S_ISREG(st.st_mode) && ftruncate(l->fd, l->end) < 0))
    warn_once(l, "cannot be opened", errno, d);
  return l;
}

void md_train_log_step(md_train_log *l, const md_measure *m, md_diags *d) {
  if (!l || l->fd < 0) return;
  md_text *line = &l->json.out;
  l->json = (md_json){.out = *line, .compact = true};
  line->len = 0;
  put_measure(&l->json, m);
  md_put_bytes(line, "\n", 1);
  ssize_t n = write(l->fd, line->s, line->len);
  if (n == (ssize_t)line->len) {
    l->end += n;
    return;
  }
  warn_once(l, "cannot be written", n < 0 ? errno : ENOSPC, d);
  // The next line, for which there may be room again, must not be glued to half of this one.
  if (n > 0 && ftruncate(l->fd, l->end) < 0) {
    close(l->fd);
    l->fd = -1;
  }
}

void md_train_log_sync(md_train_log *l) {
  if (l && l->fd >= 0) fdatasync(l->fd);  // a failure of it shows in the next line
}

void md_train_log_close(md_train_log *l, md_diags *d) {
  if (!l) return;
  if (l->fd >= 0 && close(l->fd) != 0) warn_once(l, "cannot be closed", errno, d);
  if (l->lost > 1)
    md_warning(d, MD_IN_FILE(l->path), "%lld lines of the log are lost", (long long)l->lost);
  md_text_free(&l->json.out);
  free(l->path);
  free(l);
}
