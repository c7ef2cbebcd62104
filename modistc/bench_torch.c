// SPDX-License-Identifier: Apache-2.0
// The same work in PyTorch, as a process that takes turns with ours: it is sent a line, does the work
// once and answers with the milliseconds.
//
//   modistc  --- "\n" --->  python -c program TASK   (a socket is its standard input and output)
//            <-- "3.25\n" --
#include "modistc/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_WORDS = 24 };
// The peer's threads spin for a while after their work; ours shall not share the cores with them.
static const struct timespec rest = {.tv_nsec = 20000000};

struct md_bench_peer {
  pid_t child;
  int socket;
  FILE *errors;
  char version[64];
};

// --- the process

static bool send_line(md_bench_peer *p) { return send(p->socket, "\n", 1, MSG_NOSIGNAL) == 1; }

static bool read_line(md_bench_peer *p, char *line, int size) {
  for (int n = 0; n < size - 1;) {
    ssize_t got = read(p->socket, &line[n], 1);
    if (got < 0 && errno == EINTR) continue;
    if (got != 1) return false;
    line[n + 1] = 0;
    if (line[n++] != '\n') continue;
    line[n - 1] = 0;
    return true;
  }
  return false;
}

// The last line that it wrote to its standard error: Python's message.
static void last_words(md_bench_peer *p, char *why, size_t size) {
  char line[256], clean[256];
  snprintf(why, size, "it ended without a word");
  rewind(p->errors);
  while (fgets(line, sizeof line, p->errors)) {
    line[strcspn(line, "\n")] = 0;
    if (*line) snprintf(why, size, "%s", md_clean(line, clean, sizeof clean));
  }
}

static bool spawn(md_bench_peer *p, const char *python, const char *folder, char *const *argv,
                  char *why, size_t size) {
  int end[2];
  p->errors = tmpfile();
  if (!p->errors || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, end) != 0) {
    snprintf(why, size, "%s", strerror(errno));
    return false;
  }
  p->socket = end[0];
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, end[1], 0);
  posix_spawn_file_actions_adddup2(&files, end[1], 1);
  posix_spawn_file_actions_adddup2(&files, fileno(p->errors), 2);
  posix_spawn_file_actions_addchdir_np(&files, folder);
  int error = posix_spawnp(&p->child, python, &files, NULL, argv, environ);
  posix_spawn_file_actions_destroy(&files);
  close(end[1]);
  if (!error) return true;
  p->child = 0;
  snprintf(why, size, "%s: %s", python, strerror(error));
  return false;
}

// A path that still holds in another folder; a bare name is looked up in PATH.
static const char *from_here(const char *path, md_arena *a) {
  char here[4096];
  if (!strchr(path, '/') || *path == '/' || !getcwd(here, sizeof here)) return path;
  return md_format(a, "%s/%s", here, path);
}

// --- taking turns

static bool is_ready(md_bench_peer *p, char *why, size_t size) {
  char line[128];
  if (!read_line(p, line, sizeof line)) {
    last_words(p, why, size);
    return false;
  }
  if (strncmp(line, "ready ", 6) != 0) {
    snprintf(why, size, "the program does not answer as expected");
    return false;
  }
  md_clean(line + 6, p->version, sizeof p->version);
  return true;
}

md_bench_peer *md_bench_peer_start(const md_bench *b, const char *task, char *why, size_t size) {
  md_arena *a = b->cli->arena;
  const char *python = md_cli_get(b->cli, "torch-python"),
             *folder = md_cli_get(b->cli, "torch-reference");
  if (!python) python = "python3";
  const char *script = folder ? md_format(a, "%s/reference/bench_torch.py", folder) : NULL;
  if (!task) snprintf(why, size, "the peer has nothing like it");
  else if (!folder) snprintf(why, size, "--torch-reference=DIR is not given");
  else if (access(script, R_OK) != 0) snprintf(why, size, "%s: %s", script, strerror(errno));
  if (!task || !folder || access(script, R_OK) != 0) return NULL;
  int threads = md_bench_threads(b), num = 0;
  md_text program = {0};
  for (int i = 0; md_bench_program[i]; i++) md_put(&program, "%s", md_bench_program[i]);
  char *argv[MAX_WORDS + 4] = {md_strdup(a, python), md_strdup(a, "-c"), md_strdup(a, program.s)};
  md_text_free(&program);
  char *words =
           md_format(a, "%s %s threads=%d compile=%d", b->precision == MD_BF16 ? "bf16" : "fp32",
                     task, threads, md_cli_has(b->cli, "torch-compile")),
       *rest_of = NULL;
  for (char *w = strtok_r(words, " ", &rest_of); w; w = strtok_r(NULL, " ", &rest_of)) {
    MD_ASSERT(num < MAX_WORDS, "task of the peer: %s", task);
    argv[3 + num++] = w;
  }
  md_bench_peer *p = md_calloc(1, sizeof *p);
  p->socket = -1;
  if (spawn(p, from_here(python, a), folder, argv, why, size) && is_ready(p, why, size)) return p;
  md_bench_peer_stop(p);
  return NULL;
}

const char *md_bench_peer_version(const md_bench_peer *p) { return p->version; }

bool md_bench_peer_run(md_bench_peer *p, double *ms, char *why, size_t size) {
  char line[128];
  bool ok = send_line(p) && read_line(p, line, sizeof line);
  if (!ok) last_words(p, why, size);
  else if (!md_parse_float(line, ms) || !isfinite(*ms) || *ms <= 0) {
    snprintf(why, size, "it answered '%s'", line);
    ok = false;
  }
  nanosleep(&rest, NULL);
  return ok;
}

void md_bench_peer_stop(md_bench_peer *p) {
  if (!p) return;
  if (p->socket >= 0) close(p->socket);  // it reads the end of its input and ends
  while (p->child && waitpid(p->child, NULL, 0) < 0 && errno == EINTR) continue;
  if (p->errors) fclose(p->errors);
  free(p);
}
