// SPDX-License-Identifier: Apache-2.0
// Work in a process of its own, for what a kernel that fails, or never ends, can spoil: after most errors NVIDIA's
// driver is of no use in that process, and nothing but the end of the process ends a kernel. The driver must not
// be initialised before a process forks, so whoever calls this asks the driver apart, too.
#include "runtime/exec/exec.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LET_GO = 60 };  // s that a driver may take to let a killed process go

void *md_shared_create(int64_t bytes) {
  void *at = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) md_out_of_memory((size_t)bytes);
  return at;
}

void md_shared_destroy(void *at, int64_t bytes) {
  if (at) munmap(at, (size_t)bytes);
}

int md_apart(md_status (*work)(void *ctx), void *ctx) {
  pid_t parent = getpid();
  fflush(NULL);  // else the child writes it once more
  pid_t child = fork();
  if (child) return (int)child;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(MD_ERR_RUN);
  exit((int)work(ctx));
}

static bool has_ended(int child, int *how) {
  int status;
  pid_t was;
  while ((was = waitpid(child, &status, WNOHANG)) < 0 && errno == EINTR) {
  }
  if (was == 0) return false;
  if (was < 0) *how = MD_ERR_RUN;  // somebody else has asked
  else *how = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  return true;
}

// False: it is still there after *until_ns.
static bool waited(int child, const _Atomic int64_t *until_ns, int *how) {
  while (!has_ended(child, how)) {
    if (until_ns && md_now_ns() > *until_ns) return false;
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
  }
  return true;
}

int md_apart_wait(int child, const _Atomic int64_t *until_ns) {
  int how;
  if (waited(child, until_ns, &how)) return how;
  kill(child, SIGKILL);
  _Atomic int64_t let_go = md_now_ns() + (int64_t)LET_GO * 1000000000;
  return waited(child, &let_go, &how) ? MD_APART_LATE : MD_APART_STUCK;
}
