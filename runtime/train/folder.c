// SPDX-License-Identifier: Apache-2.0
// The folder of a run, which one process at a time works in:
//
//   run.dir/config.yaml, log.jsonl, weights.safetensors, checkpoints/step-00000120.safetensors
//
// weights.safetensors is a checkpoint too: the newest when a run ended or was stopped.
#include "runtime/train/train.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char leftover[] = ".modist-";  // temporary files of a process that was killed

struct md_run_folder {
  char *path;
  int fd;  // holds the lock
};

static char *path_of(const char *dir, const char *name) {
  md_text t = {0};
  md_put(&t, "%s/%s", dir, name);
  return t.s;
}

char *md_run_weights_path(const char *dir) { return path_of(dir, "weights.safetensors"); }

char *md_run_checkpoint_path(const char *dir, int64_t step) {
  char name[64];
  snprintf(name, sizeof name, "checkpoints/step-%08lld.safetensors", (long long)step);
  return path_of(dir, name);
}

// The step of a checkpoint's name; -1: it is something else.
static int64_t step_of(const char *name) {
  char digits[24] = "", again[64];
  int64_t step;
  if (sscanf(name, "step-%20[0-9].safetensors", digits) != 1 || !md_parse_int(digits, &step))
    return -1;
  snprintf(again, sizeof again, "step-%08lld.safetensors", (long long)step);
  return strcmp(name, again) == 0 ? step : -1;
}

static int by_step(const void *x, const void *y) {
  int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
  return (a > b) - (a < b);
}

bool md_run_checkpoints(const char *dir, int64_t **steps, int *num, md_diags *d) {
  char *path = path_of(dir, "checkpoints");
  DIR *folder = opendir(path);
  int error = folder || errno == ENOENT || errno == ENOTDIR ? 0 : errno, cap = 0;
  *steps = NULL;
  *num = 0;
  for (struct dirent *e = NULL; folder;) {
    errno = 0;
    e = readdir(folder);
    error = errno;
    if (!e) break;
    int64_t step = step_of(e->d_name);
    if (step >= 0) MD_PUSH(*steps, *num, cap, step);
  }
  if (folder) closedir(folder);
  // What cannot be read may hold checkpoints: who took it for empty would give them up.
  if (error)
    md_error(d, error == ENOMEM ? E0802 : E0801, MD_IN_FILE(path), "cannot be read: %s",
             strerror(error));
  free(path);
  if (*num) qsort(*steps, (size_t)*num, sizeof **steps, by_step);
  return !error;
}

bool md_run_protect(const char *dir, bool has_checkpoint, md_diags *d) {
  struct stat info;
  int64_t *steps;
  int num;
  bool is_known = md_run_checkpoints(dir, &steps, &num, d);
  free(steps);
  if (!is_known) return false;
  char *weights = md_run_weights_path(dir);
  bool has_weights = lstat(weights, &info) == 0;
  if (has_weights || num) {
    md_error(d, E0208, MD_IN_FILE(has_weights ? weights : dir), "run.dir already holds %s of a run",
             has_weights ? "the weights" : "the checkpoints");
    md_hint(d,
            has_checkpoint
                ? "a run from another one's checkpoint needs a folder of its own: run.dir=ANOTHER"
                : "--resume goes on with it; run.dir=ANOTHER keeps both; --overwrite replaces the "
                  "old one");
  }
  free(weights);
  return !has_weights && !num;
}

static bool make_folders(const char *dir, md_diags *d) {
  char *path = strdup(dir);
  if (!path) md_out_of_memory(strlen(dir));
  bool ok = md_make_folders(path, 0777);
  if (!ok)
    md_error(d, E0801, MD_IN_FILE(path), "the folder of the run cannot be made: %s",
             strerror(errno));
  free(path);
  return ok;
}

// File systems without locks are used without one.
static bool lock(md_run_folder *f, md_diags *d) {
  f->fd = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (f->fd < 0)
    return md_error(d, E0801, MD_IN_FILE(f->path), "the folder of the run cannot be opened: %s",
                    strerror(errno));
  if (flock(f->fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return true;
  md_error(d, E0866, MD_IN_FILE(f->path), "another process is training in this folder");
  md_hint(d, "wait for its end, or take another folder: run.dir=ANOTHER");
  return false;
}

static void remove_files(const char *dir, const char *prefix, const char *suffix) {
  DIR *folder = opendir(dir);
  int fd = folder ? dirfd(folder) : -1;
  size_t start = strlen(prefix), end = strlen(suffix);
  for (struct dirent *e; fd >= 0 && (e = readdir(folder));) {
    size_t len = strlen(e->d_name);
    if (len >= start + end && strncmp(e->d_name, prefix, start) == 0 &&
        strcmp(e->d_name + len - end, suffix) == 0)
      unlinkat(fd, e->d_name, 0);
  }
  if (folder) closedir(folder);
}

static bool remove_file(char *take_path, md_diags *d) {
  bool ok = unlink(take_path) == 0 || errno == ENOENT;
  if (!ok) md_error(d, E0801, MD_IN_FILE(take_path), "cannot be removed: %s", strerror(errno));
  free(take_path);
  return ok;
}

// What a resumed run would take for its own, newest first: a kill in between leaves an older run.
static bool remove_run(const char *dir, md_diags *d) {
  int64_t *steps;
  int num;
  bool ok = md_run_checkpoints(dir, &steps, &num, d) && remove_file(md_run_weights_path(dir), d);
  for (int i = num - 1; i >= 0 && ok; i--)
    ok = remove_file(md_run_checkpoint_path(dir, steps[i]), d);
  free(steps);
  if (ok) remove_files(dir, MD_EVENTS_PREFIX, MD_EVENTS_SUFFIX);
  return ok;
}

bool md_run_contains(const char *dir, const char *file) {
  char *folder = realpath(dir, NULL), *path = realpath(file, NULL);
  size_t len = folder ? strlen(folder) : 0;
  bool inside = folder && path && strncmp(path, folder, len) == 0 && path[len] == '/';
  free(folder);
  free(path);
  return inside;
}

md_run_folder *md_run_folder_open(const char *dir, bool is_new, md_diags *d) {
  md_run_folder *f = md_calloc(1, sizeof *f);
  f->path = strdup(dir);
  if (!f->path) md_out_of_memory(strlen(dir));
  f->fd = -1;
  char *checkpoints = path_of(dir, "checkpoints");
  bool ok = make_folders(dir, d) && lock(f, d) && make_folders(checkpoints, d);
  if (ok) {
    remove_files(dir, leftover, "");
    remove_files(checkpoints, leftover, "");
    ok = !is_new || remove_run(dir, d);
  }
  free(checkpoints);
  if (ok) return f;
  md_run_folder_close(f);
  return NULL;
}

void md_run_folder_close(md_run_folder *f) {
  if (!f) return;
  if (f->fd >= 0) close(f->fd);
  free(f->path);
  free(f);
}

void md_run_keep_newest(const char *dir, int64_t step, int64_t keep) {
  int64_t *steps, kept = 0;
  int num;
  (void)md_run_checkpoints(dir, &steps, &num, NULL);  // too many files are no reason to stop
  for (int i = num - 1; i >= 0; i--) {
    if (steps[i] > step || ++kept <= keep) continue;
    char *path = md_run_checkpoint_path(dir, steps[i]);
    unlink(path);
    free(path);
  }
  free(steps);
}
