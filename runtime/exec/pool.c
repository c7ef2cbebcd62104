// SPDX-License-Identifier: Apache-2.0
// Threads that share the items of one job after another.
//
// Each thread begins with a run of items of its own, the same part of every job: what a kernel leaves
// in a core's caches is what that core asks for in the next one. Who has none left takes from the end
// of the longest run.
//
// Who shortens a run with a compare-and-swap owns what it cut off, an item of the job that is posted
// now, and that job cannot end before it is done; so what describes the job is read after the claim
// and needs no lock, and a worker that sleeps through a whole job is neither waited for nor in the way:
//
//   caller:  fn, ctx;  left = n;  runs;  posts++  ->  claim, work ...  -> wait until left == 0
//   worker:  spin, then sleep, until posts changes  ->  claim, work, left -= k  ->  ...
//
// Sleeping is a futex on a word that counts posts (workers) or ends (caller). Who sleeps says so
// first and looks again; who posts counts first and then looks for sleepers. Both are sequentially
// consistent, so one of them sees the other.
#include "runtime/exec/exec.h"

#include "base/log.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
  SPINS = 4000,  // some 50 us: longer than the gap between two launches of a step
  MAX_THREADS = 1024,
  SHARES = 4,  // a claim takes that part of its own run: large first, then single
};

// Items that nobody has claimed: the first in the upper half, behind the last in the lower one.
typedef struct run {
  _Alignas(64) _Atomic uint64_t items;
} run;

// What several threads write has cache lines of its own.
struct md_pool {                 // NOLINT(clang-analyzer-optin.performance.Padding)
  int num_threads, num_workers;  // num_threads = 1 + num_workers
  int spins;
  pthread_t *worker;
  run *run;  // [num_workers + 1], of threads
  atomic_bool is_ending;

  // The job. Written while no run has items and read after a claim.
  void (*fn)(void *, int64_t, int);
  void *ctx;
  _Alignas(64) atomic_llong left;  // items that are not done
  _Alignas(64) atomic_uint posts;
  atomic_int num_asleep;
  _Alignas(64) atomic_uint ends;
  atomic_bool caller_sleeps;
};

typedef struct start {
  md_pool *pool;
  int thread;
} start;

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Returns at once when *word is not `seen`; may return for no reason.
static void sleep_on(atomic_uint *word, unsigned seen) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void wake(atomic_uint *word, int num) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, num, NULL, NULL, 0);
}

static uint64_t pack(int64_t first, int64_t end) { return (uint64_t)first << 32 | (uint64_t)end; }
static int64_t first_of(uint64_t items) { return (int64_t)(items >> 32); }
static int64_t end_of(uint64_t items) { return (int64_t)(items & UINT32_MAX); }
static int64_t num_of(uint64_t items) { return end_of(items) - first_of(items); }

static uint64_t longest_run(const md_pool *p, int *from) {
  uint64_t longest = 0;
  for (int i = 0; i <= p->num_workers; i++) {
    uint64_t items = atomic_load(&p->run[i].items);
    if (num_of(items) <= num_of(longest)) continue;
    longest = items;
    *from = i;
  }
  return longest;
}

// Takes a part of the thread's own run from the front or, where that has ended, half of the longest one from its end.
// False: nothing is left.
static bool claim(md_pool *p, int thread, int64_t *first, int64_t *end) {
  for (;;) {
    int from = thread;
    uint64_t items = atomic_load(&p->run[thread].items), rest;
    bool is_own = num_of(items) > 0;
    if (!is_own) items = longest_run(p, &from);
    if (num_of(items) == 0) return false;
    int64_t take = MD_MAX(1, num_of(items) / (is_own ? SHARES : 2));
    *first = is_own ? first_of(items) : end_of(items) - take;
    *end = *first + take;
    rest = is_own ? pack(*end, end_of(items)) : pack(first_of(items), *first);
    if (atomic_compare_exchange_weak(&p->run[from].items, &items, rest)) return true;
  }
}

static void work(md_pool *p, int thread) {
  int64_t first, end;
  while (claim(p, thread, &first, &end)) {
    for (int64_t i = first; i < end; i++) p->fn(p->ctx, i, thread);
    int64_t num = end - first;
    if (atomic_fetch_sub(&p->left, num) > num || !atomic_load(&p->caller_sleeps)) continue;
    atomic_fetch_add(&p->ends, 1);
    wake(&p->ends, 1);
  }
}

// Until there was another post than the one that is known; returns the count.
static unsigned wait_for_post(md_pool *p, unsigned known) {
  for (int i = 0; i < p->spins; i++) {
    unsigned posts = atomic_load_explicit(&p->posts, memory_order_acquire);
    if (posts != known) return posts;
    pause_briefly();
  }
  atomic_fetch_add(&p->num_asleep, 1);
  if (atomic_load(&p->posts) == known) sleep_on(&p->posts, known);
  atomic_fetch_sub(&p->num_asleep, 1);
  return atomic_load(&p->posts);
}

static void *worker_main(void *arg) {
  start s = *(start *)arg;
  free(arg);
  for (unsigned posts = 0; !atomic_load(&s.pool->is_ending);) {
    posts = wait_for_post(s.pool, posts);
    work(s.pool, s.thread);
  }
  return NULL;
}

static void wait_for_end(md_pool *p) {
  for (int i = 0; i < p->spins; i++) {
    if (atomic_load(&p->left) == 0) return;
    pause_briefly();
  }
  atomic_store(&p->caller_sleeps, true);
  for (;;) {
    unsigned seen = atomic_load(&p->ends);
    if (atomic_load(&p->left) == 0) break;
    sleep_on(&p->ends, seen);
  }
  atomic_store(&p->caller_sleeps, false);
}

int md_cpu_quota(const char *path) {
  FILE *f = fopen(path, "re");
  if (!f) return INT_MAX;
  char line[64] = "", *end;  // "QUOTA PERIOD" in microseconds, or "max PERIOD"
  bool found = fgets(line, sizeof line, f) != NULL;
  fclose(f);
  int64_t quota = strtoll(line, &end, 10), period = strtoll(end, NULL, 10);
  return found && quota > 0 && period > 0 ? (int)MD_MIN(md_ceil_div(quota, period), INT_MAX)
                                          : INT_MAX;
}

int md_pool_default(void) {
  cpu_set_t set;
  long n =
      sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
  // More threads than a container's quota would be put to sleep, all of them, in the middle of a step.
  n = MD_MIN(n, md_cpu_quota("/sys/fs/cgroup/cpu.max"));
  return (int)MD_MAX(1, MD_MIN(n, MAX_THREADS));
}

// False when the system has no thread left. Workers block all signals: those are the program's.
static bool add_worker(md_pool *p) {
  start *s = md_malloc(sizeof *s);
  *s = (start){p, p->num_workers + 1};
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  int error = pthread_create(&p->worker[p->num_workers], NULL, worker_main, s);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (error) {
    free(s);
    md_log(MD_LOG_EXEC, MD_LEVEL_WARN, "only %d of %d threads could be made: %s",
           p->num_workers + 1, p->num_threads, strerrordesc_np(error));
    return false;
  }
  p->num_workers++;
  return true;
}

md_pool *md_pool_create(int threads) {
  int cores = md_pool_default();
  if (threads <= 0) threads = cores;
  threads = MD_MIN(threads, MAX_THREADS);
  md_pool *p = aligned_alloc(64, (size_t)md_round_up(sizeof *p, 64));
  if (!p) md_out_of_memory(sizeof *p);
  memset(p, 0, sizeof *p);
  p->num_threads = threads;
  p->spins = threads <= cores ? SPINS : 0;  // with fewer cores, who spins holds up another
  p->worker = md_calloc((size_t)threads, sizeof *p->worker);
  p->run = aligned_alloc(64, (size_t)threads * sizeof *p->run);
  if (!p->run) md_out_of_memory((size_t)threads * sizeof *p->run);
  memset(p->run, 0, (size_t)threads * sizeof *p->run);
  // Fewer threads than wanted are slower, not wrong.
  while (p->num_workers + 1 < threads && add_worker(p)) {
  }
  return p;
}

void md_pool_destroy(md_pool *p) {
  if (!p) return;
  atomic_store(&p->is_ending, true);
  atomic_fetch_add(&p->posts, 1);
  wake(&p->posts, INT_MAX);
  for (int i = 0; i < p->num_workers; i++) pthread_join(p->worker[i], NULL);
  free(p->worker);
  free(p->run);
  free(p);
}

int md_pool_threads(const md_pool *p) { return p->num_threads; }

void md_pool_run(md_pool *p, int64_t n, void (*fn)(void *ctx, int64_t item, int thread),
                 void *ctx) {
  if (n == 1 || p->num_workers == 0) {
    for (int64_t i = 0; i < n; i++) fn(ctx, i, 0);
    return;
  }
  if (n <= 0) return;
  MD_ASSERT(n <= MD_MAX_ITEMS, "%lld items are too many", (long long)n);
  MD_ASSERT(atomic_load(&p->left) == 0, "md_pool_run called within or beside md_pool_run");
  p->fn = fn;
  p->ctx = ctx;
  atomic_store(&p->left, n);
  int threads = p->num_workers + 1;
  for (int i = 0; i < threads; i++)
    atomic_store(&p->run[i].items, pack(i * n / threads, (i + 1) * n / threads));
  atomic_fetch_add(&p->posts, 1);
  if (atomic_load(&p->num_asleep) > 0) wake(&p->posts, (int)MD_MIN(n - 1, INT_MAX));
  work(p, 0);
  wait_for_end(p);
}
