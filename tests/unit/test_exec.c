// SPDX-License-Identifier: Apache-2.0
// The pool, the check of programs, the executor, traces.
#include "exec_fixture.h"
#include "suite.h"

#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

// --- Allocations of our own code, counted by the linker's --wrap.

static atomic_int num_allocations;
void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
void *__real_realloc(void *, size_t);
void *__real_aligned_alloc(size_t, size_t);
void *__real_mmap(void *, size_t, int, int, int, off_t);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t from);

void *__wrap_malloc(size_t n) {
  atomic_fetch_add(&num_allocations, 1);
  return __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size) {
  atomic_fetch_add(&num_allocations, 1);
  return __real_calloc(n, size);
}
void *__wrap_realloc(void *p, size_t n) {
  atomic_fetch_add(&num_allocations, 1);
  return __real_realloc(p, n);
}
void *__wrap_aligned_alloc(size_t align, size_t n) {
  atomic_fetch_add(&num_allocations, 1);
  return __real_aligned_alloc(align, n);
}
void *__wrap_mmap(void *at, size_t n, int prot, int flags, int fd, off_t from) {
  atomic_fetch_add(&num_allocations, 1);
  return __real_mmap(at, n, prot, flags, fd, from);
}

// --- The pool

typedef struct tally {
  atomic_int *done;
  int threads;
  atomic_int num_wrong;
} tally;

static void mark(void *ctx, int64_t item, int thread) {
  tally *t = ctx;
  atomic_fetch_add(&t->done[item], 1);
  if (thread < 0 || thread >= t->threads) atomic_fetch_add(&t->num_wrong, 1);
}

START_TEST(pool_runs_every_item_once) {
  static const int64_t sizes[] = {0, 1, 2, 3, 7, 64, 1000};
  int num_wrong = 0;
  for (int threads = 1; threads <= 5; threads++) {
    md_pool *p = md_pool_create(threads);
    ck_assert_int_eq(md_pool_threads(p), threads);
    for (int round = 0; round < 2000; round++) {
      int64_t n = sizes[round % MD_COUNT(sizes)];
      atomic_int done[1000] = {0};
      tally t = {.done = done, .threads = threads};
      md_pool_run(p, n, mark, &t);
      for (int64_t i = 0; i < 1000; i++) num_wrong += atomic_load(&done[i]) != (i < n);
      num_wrong += atomic_load(&t.num_wrong);
      if (round % 500 == 0) usleep(3000);  // workers fall asleep
    }
    md_pool_destroy(p);
  }
  ck_assert_int_eq(num_wrong, 0);
}
END_TEST

// Two items that wait for one another: only two threads end this.
static void meet(void *ctx, int64_t item, int thread) {
  (void)item, (void)thread;
  atomic_int *here = ctx;
  atomic_fetch_add(here, 1);
  while (atomic_load(here) < 2) usleep(10);
}

START_TEST(pool_uses_its_threads_also_after_sleep) {
  md_pool *p = md_pool_create(2);
  for (int i = 0; i < 20; i++) {
    atomic_int here = 0;
    md_pool_run(p, 2, meet, &here);
    ck_assert_int_eq(atomic_load(&here), 2);
    if (i % 2) usleep(5000);
  }
  md_pool_destroy(p);
}
END_TEST

// The first thread waits for the second one, which begins in the middle and waits for what the first one then takes
// from its end.
typedef struct halves {
  atomic_int first[2], done[8];  // first: item of a thread, 1 for item 0
} halves;

static void take_turns(void *ctx, int64_t item, int thread) {
  halves *h = ctx;
  int none = 0;
  atomic_compare_exchange_strong(&h->first[thread], &none, (int)item + 1);
  while (item == 0 && !atomic_load(&h->first[1])) usleep(10);
  for (int i = 5; item == 4 && i < 8; i++)
    while (!atomic_load(&h->done[i])) usleep(10);
  atomic_store(&h->done[item], 1);
}

START_TEST(pool_gives_each_thread_its_part_and_who_has_none_left_helps) {
  md_pool *p = md_pool_create(2);
  for (int i = 0; i < 20; i++) {
    halves h = {0};
    md_pool_run(p, 8, take_turns, &h);
    ck_assert_int_eq(atomic_load(&h.first[0]), 1);
    ck_assert_int_eq(atomic_load(&h.first[1]), 5);
    if (i % 2) usleep(5000);
  }
  md_pool_destroy(p);
}
END_TEST

// --- Steps

// Loss of each step and the final w.
static void train(int threads, int steps, float *loss, float *w) {
  md_program *p = fixture(EXEC_KERNELS);
  md_exec *e = md_exec_create(p, &(md_exec_options){.threads = threads, .seed = 7}, NULL);
  ck_assert_ptr_nonnull(e);
  for (int i = 0; i < steps; i++) {
    set_input(e, i);
    ck_assert(md_exec_step(e, NULL));
    loss[i] = *(const float *)md_exec_result(e, "loss", NULL);
  }
  ck_assert_int_eq(*(int32_t *)md_exec_state(e, "step", NULL), steps);
  memcpy(w, md_exec_state(e, "w", NULL), sizeof(float) * ELEMENTS);
  md_exec_destroy(e);
  md_program_destroy(p);
}

START_TEST(a_step_computes_what_its_kernels_say) {
  static float loss[3], w[ELEMENTS], x[ELEMENTS], want[ELEMENTS];
  double start[ELEMENTS];
  train(1, 1, loss, w);
  md_init_values(MD_INIT_uniform, 0.25, 0.1, "w", 7, ELEMENTS, 0, ELEMENTS, start);
  float sum = 0;
  for (int i = 0; i < ELEMENTS; i += 256) {
    float part = 0;
    for (int k = i; k < i + 256; k++) {
      x[k] = (float)md_hash_unit(md_hash_key("x", 0), (uint64_t)k);
      want[k] = 2 * x[k] + (float)start[k];
      part += want[k];
    }
    sum += part;
  }
  ck_assert_mem_eq(w, want, sizeof want);
  ck_assert_float_eq_tol(loss[0], sum, 1e-3f);
}
END_TEST

START_TEST(results_are_equal_for_any_number_of_threads) {
  static float loss[4][20], w[4][ELEMENTS];
  for (int i = 0; i < 4; i++) train(i + 1, 20, loss[i], w[i]);
  for (int i = 1; i < 4; i++) {
    ck_assert_mem_eq(loss[0], loss[i], sizeof loss[0]);
    ck_assert_mem_eq(w[0], w[i], sizeof w[0]);
  }
  ck_assert(loss[0][0] != loss[0][1]);
}
END_TEST

START_TEST(a_step_allocates_nothing) {
  md_program *p = fixture(EXEC_KERNELS);
  md_trace *t = md_trace_create();
  int before_create = atomic_load(&num_allocations);
  md_exec_options o = {.threads = 2, .check_nan = true, .time = true};
  md_exec *e = md_exec_create(p, &o, NULL);
  ck_assert(atomic_load(&num_allocations) > before_create);  // the counter counts
  md_exec_set_trace(e, t);
  set_input(e, 0);
  bool ok = true;
  int before = atomic_load(&num_allocations);
  for (int i = 0; i < 10; i++) ok = ok && md_exec_step(e, NULL);
  int after = atomic_load(&num_allocations);  // ck_assert allocates
  ck_assert(ok);
  ck_assert_int_eq(after, before);
  md_exec_destroy(e);
  md_trace_destroy(t);
  md_program_destroy(p);
}
END_TEST

START_TEST(nan_is_named_with_its_region_and_no_copy_is_applied) {
  md_program *p = fixture(EXEC_KERNELS);
  md_diags *d = md_diags_create();
  md_exec *e = md_exec_create(p, &(md_exec_options){.threads = 2, .check_nan = true}, d);
  set_input(e, 0);
  ck_assert(md_exec_step(e, d));
  static float before[ELEMENTS];
  float *w = md_exec_state(e, "w", NULL), *x = md_exec_input(e, "x", NULL);
  x[100] = 3e38f;  // finite, but 2 x is not
  memcpy(before, w, sizeof before);
  ck_assert(!md_exec_step(e, d));
  ck_assert_str_eq(
      md_diags_text(d),
      "error[E0710]: region 'scale' (launch 1 of 2, step 2) made 'y' not finite: 1 of 4096 "
      "elements, the first is inf at [100]\n");
  ck_assert_int_eq(md_diags_status(d), MD_ERR_NUMERIC);
  ck_assert_mem_eq(before, w, sizeof before);
  md_exec_destroy(e);
  md_program_destroy(p);
  md_diags_destroy(d);
}
END_TEST

START_TEST(nan_of_an_input_is_not_blamed_on_a_region) {
  md_program *p = fixture(EXEC_KERNELS);
  md_diags *d = md_diags_create();
  md_exec *e = md_exec_create(p, &(md_exec_options){.check_nan = true}, d);
  set_input(e, 0);
  ((float *)md_exec_input(e, "x", NULL))[4095] = -INFINITY;
  ck_assert(!md_exec_step(e, d));
  ck_assert_str_eq(md_diags_text(d),
                   "error[E0710]: input 'x' is not finite before step 1: 1 of 4096 "
                   "elements, the first is -inf at [4095]\n");
  md_exec_destroy(e);
  md_program_destroy(p);
  md_diags_destroy(d);
}
END_TEST

START_TEST(only_real_channels_of_blocks_are_looked_at) {
  md_arg a = {.dtype = MD_F32,
              .block = 8,
              .rank = 3,
              .dim = {2, 11, 3},
              .bytes = sizeof(float[2 * 2 * 3 * 8])};
  float x[2 * 2 * 3 * 8];
  char what[160];
  for (int i = 0; i < MD_COUNT(x); i++) {
    int lane = i % 8, block = i / 24 % 2;
    x[i] = block * 8 + lane < 11 ? 1 : NAN;  // NaN in all of the padding
  }
  ck_assert_int_eq(md_arg_look(&a, x, what, sizeof what), MD_FINITE);
  x[((1 * 2 + 1) * 3 + 2) * 8 + 2] = NAN;  // n = 1, channel 10, place 2
  x[((1 * 2 + 1) * 3 + 2) * 8 + 1] = INFINITY;
  ck_assert_int_ne(md_arg_look(&a, x, what, sizeof what), MD_FINITE);
  ck_assert_str_eq(what, "2 of 66 elements, the first is inf at [1,9,2]");
}
END_TEST

START_TEST(every_float_type_is_searched_for_nan) {
  static const md_dtype types[] = {MD_F32, MD_BF16, MD_F64};
  for (int t = 0; t < 3; t++) {
    double room[33];
    char what[160];
    md_arg a = {
        .dtype = types[t], .rank = 2, .dim = {3, 11}, .bytes = 33 * md_dtype_size(types[t])};
    for (int i = 0; i < 33; i++)
      md_element_store(types[t], room, i, i % 3 ? i % 2 ? 1e38 : -0.0 : -3.3e38);
    ck_assert_int_eq(md_arg_look(&a, room, what, sizeof what), MD_FINITE);
    for (int i = 0; i < 33; i++) {
      double kept = md_element_load(types[t], room, i);
      md_element_store(types[t], room, i, i % 2 ? -INFINITY : NAN);
      ck_assert_int_ne(md_arg_look(&a, room, what, sizeof what), MD_FINITE);
      md_element_store(types[t], room, i, kept);
    }
    md_element_store(types[t], room, 5, -INFINITY);
    ck_assert_int_eq(md_arg_look(&a, room, what, sizeof what), MD_MINUS_INF);
    md_element_store(types[t], room, 6, INFINITY);
    ck_assert_int_eq(md_arg_look(&a, room, what, sizeof what), MD_NOT_FINITE);
    md_element_store(types[t], room, 5, 0);
    md_element_store(types[t], room, 6, 0);
    md_element_store(types[t], room, 32, NAN);
    ck_assert_int_ne(md_arg_look(&a, room, what, sizeof what), MD_FINITE);
    ck_assert_str_eq(what, "1 of 33 elements, the first is nan at [2,10]");
  }
  int32_t ones = -1;
  ck_assert_int_eq(md_arg_look(&(md_arg){.dtype = MD_I32, .bytes = 4}, &ones, NULL, 0), MD_FINITE);
}
END_TEST

typedef struct taps {
  int num_before, num_after, stop_at;
} taps;

static bool count_tap(void *ctx, md_exec *e, int launch, bool before) {
  taps *t = ctx;
  const md_program *p = md_exec_program(e);
  if (before) t->num_before++;
  else t->num_after++;
  // After `scale`, its result is there.
  if (!before && launch == 0) ck_assert(*(const float *)md_exec_arg(e, &p->arg[2]) != 0);
  return before || launch != t->stop_at;
}

START_TEST(taps_see_every_launch_and_can_stop) {
  md_program *p = fixture(EXEC_KERNELS);
  md_exec *e = md_exec_create(p, NULL, NULL);
  set_input(e, 0);
  taps t = {.stop_at = -1};
  md_exec_set_tap(e, count_tap, &t);
  ck_assert(md_exec_step(e, NULL));
  ck_assert_int_eq(t.num_before, 2);
  ck_assert_int_eq(t.num_after, 2);
  t = (taps){.stop_at = 0};
  ck_assert(!md_exec_step(e, NULL));
  ck_assert_int_eq(t.num_before, 1);
  ck_assert_int_eq(*(int32_t *)md_exec_state(e, "step", NULL), 1);
  md_exec_destroy(e);
  md_program_destroy(p);
}
END_TEST

START_TEST(memory_limit_is_refused_with_the_numbers) {
  md_program *p = fixture(EXEC_KERNELS);
  md_diags *d = md_diags_create();
  md_exec_options o = {.threads = 2, .memory_limit = 60000};
  ck_assert_ptr_null(md_exec_create(p, &o, d));
  ck_assert_str_eq(
      md_diags_text(d),
      "error[E0803]: program 'fixture' needs 66.2 KiB of memory, but 58.6 KiB are allowed\n"
      "   note: arena 16.1 KiB, states 32.0 KiB, inputs 16.0 KiB, workspace 64 B, scratch "
      "2.0 KiB\n"
      "   hint: a smaller batch, clip or bank needs less\n");
  ck_assert_int_eq(md_diags_status(d), MD_ERR_MEMORY);
  // The same words without an executor, and the same number of bytes.
  int64_t bytes = 128 + 16384 + 64 + 2 * 16384 + 4 + 16384 + 4 + 2 * 1024;
  ck_assert_int_eq(md_program_bytes(p, 2), bytes);
  ck_assert(md_program_fits(p, 2, 0, NULL) && md_program_fits(p, 2, bytes, NULL));
  md_diags *same = md_diags_create();
  ck_assert(!md_program_fits(p, 2, 60000, same));
  ck_assert_str_eq(md_diags_text(same), md_diags_text(d));
  md_diags_destroy(same);
  md_diags_clear(d);
  o.memory_limit = 0;
  p->arena_bytes = (int64_t)1 << 45;  // more than any machine that runs this test has free
  ck_assert_ptr_null(md_exec_create(p, &o, d));
  ck_assert(strstr(md_diags_text(d), "are free"));
  p->arena_bytes = Y_AT + 16384;
  o.memory_limit = 68000;
  md_exec *e = md_exec_create(p, &o, d);
  ck_assert_ptr_nonnull(e);
  ck_assert_int_eq(md_exec_bytes(e), bytes);
  md_exec_destroy(e);
  md_program_destroy(p);
  md_diags_destroy(d);
}
END_TEST

// Growth of the process from before the arena is made to the end of a step, against the plan.
START_TEST(memory_grows_by_what_was_planned) {
#ifdef MODIST_HOSTILE_ARENA
  return;  // the sanitizer's own memory grows with it
#endif
  md_program *p = fixture(EXEC_KERNELS);
  p->arena_bytes = (int64_t)200 << 20;
  md_diags *d = md_diags_create();
  md_exec *e = md_exec_create(p, &(md_exec_options){.threads = 1}, d);
  ck_assert_msg(e != NULL, "%s", md_diags_text(d));
  md_arg arena = {.space = MD_IN_ARENA, .bytes = p->arena_bytes};
  memset(md_exec_arg(e, &arena), 1, (size_t)arena.bytes);
  double planned = (double)md_exec_bytes(e), grown = (double)md_exec_grown(e);
  ck_assert_msg(fabs(grown - planned) <= 0.05 * planned, "planned %g, grown by %g", planned, grown);
  md_exec_destroy(e);
  md_program_destroy(p);
  md_diags_destroy(d);
}
END_TEST

START_TEST(a_kernel_that_is_not_there_is_named) {
  md_program *p = fixture(EXEC_KERNELS);
  md_diags *d = md_diags_create();
  p->phase[1].symbol = "partial_2";
  ck_assert_ptr_null(md_exec_create(p, NULL, d));
  ck_assert_str_eq(md_diags_text(d),
                   "error[E0634]: the code of 'fixture' has no kernel 'partial_2'\n");
  md_program_destroy(p);
  md_diags_destroy(d);
}
END_TEST

// --- Initial values

START_TEST(states_start_as_their_rules_say) {
  md_program *p = fixture(EXEC_KERNELS);
  md_exec *e = md_exec_create(p, &(md_exec_options){.seed = 7}, NULL);
  const md_spec *s;
  const float *w = md_exec_state(e, "w", &s), *ema = md_exec_state(e, "w_ema", NULL);
  ck_assert_str_eq(s->name, "w");
  int num_outside = 0;
  for (int i = 0; i < ELEMENTS; i++) num_outside += w[i] < 0.15f || w[i] >= 0.35f;
  ck_assert_int_eq(num_outside, 0);
  ck_assert_mem_eq(w, ema, sizeof(float) * ELEMENTS);
  ck_assert_int_eq(*(int32_t *)md_exec_state(e, "step", NULL), 0);
  ck_assert_ptr_null(md_exec_state(e, "x", NULL));
  ck_assert_ptr_null(md_exec_input(e, "w", NULL));
  ck_assert_ptr_null(md_exec_result(e, "w", NULL));
  md_exec_destroy(e);
  md_program_destroy(p);
}
END_TEST

// Numbers from the script that makes the golden sets: uniform("s4.w", 7, scale 0.1, center 0.25).
START_TEST(uniform_states_have_the_bits_of_the_golden_sets) {
  static const struct {
    int64_t i;
    uint32_t bits;
  } rows[] = {
      {0, 0x3E3EC584u},
      {1, 0x3EA2BA7Du},
      {5, 0x3E973496u},
      {40000, 0x3E9F3890u},
  };
  for (int k = 0; k < MD_COUNT(rows); k++) {
    double x;
    md_init_values(MD_INIT_uniform, 0.25, 0.1, "s4.w", 7, 1, rows[k].i, 1, &x);
    float f = (float)x;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    ck_assert_uint_eq(bits, rows[k].bits);
  }
}
END_TEST

START_TEST(unit_rows_have_norm_one_and_do_not_depend_on_the_cut) {
  double all[64 * 128], part[2 * 128];
  md_init_values(MD_INIT_unit_rows, 0, 0, "bank", 1, 128, 0, MD_COUNT(all), all);
  for (int r = 0; r < 64; r++) {
    double sum = 0;
    for (int i = 0; i < 128; i++) sum += all[r * 128 + i] * all[r * 128 + i];
    ck_assert_double_eq_tol(sum, 1, 1e-12);
  }
  md_init_values(MD_INIT_unit_rows, 0, 0, "bank", 1, 128, 3840, MD_COUNT(part), part);
  ck_assert_mem_eq(part, all + 3840, sizeof part);
  ck_assert(all[0] != all[128]);
}
END_TEST

START_TEST(large_states_are_the_same_for_any_number_of_threads) {
  enum { ROWS = 5000, ROW = 33, ALL = ROWS * ROW };
  static uint16_t first[ALL];
  for (int threads = 1; threads <= 3; threads++) {
    md_program *p = md_program_create("states");
    p->target = "cpu:generic";
    p->state = MD_NEW_ARRAY(p->arena, md_spec, p->num_states = 3);
    p->state[0] = (md_spec){.name = "bank",
                            .dtype = MD_BF16,
                            .rank = 2,
                            .dim = {ROWS, ROW},
                            .bytes = sizeof first,
                            .init = MD_INIT_unit_rows};
    p->state[1] = (md_spec){
        .name = "mask", .dtype = MD_BOOL, .rank = 1, .dim = {3}, .bytes = 3, .init = MD_INIT_ones};
    p->state[2] = (md_spec){.name = "id",
                            .dtype = MD_I64,
                            .rank = 1,
                            .dim = {70000},
                            .bytes = 560000,
                            .init = MD_INIT_fill,
                            .a = -2};
    md_exec *e = md_exec_create(p, &(md_exec_options){.threads = threads, .seed = 3}, NULL);
    const uint16_t *bank = md_exec_state(e, "bank", NULL);
    if (threads == 1) memcpy(first, bank, sizeof first);
    ck_assert_mem_eq(first, bank, sizeof first);
    ck_assert_mem_eq(md_exec_state(e, "mask", NULL), "\1\1\1", 3);
    const int64_t *id = md_exec_state(e, "id", NULL);
    int num_wrong = 0;
    for (int i = 0; i < 70000; i++) num_wrong += id[i] != -2;
    ck_assert_int_eq(num_wrong, 0);
    md_exec_destroy(e);
    md_program_destroy(p);
  }
  float last = md_bf16_to_float(first[ALL - 1]);
  ck_assert(last != 0 && fabsf(last) < 1);
}
END_TEST

// --- The check

typedef struct wrong_program {
  void (*spoil)(md_program *p);
  const char *text;
} wrong_program;

// clang-format off
#define SPOIL(name, ...) static void name(md_program *p) { __VA_ARGS__; }
SPOIL(arg_past_the_arena, p->arg[2].offset += 4)
SPOIL(arg_at_a_negative_place, p->arg[2].offset = -4)
SPOIL(arg_of_endless_bytes, p->arg[2].bytes = INT64_MAX)
SPOIL(arg_of_no_state, p->arg[1].index = 3)
SPOIL(arg_of_negative_state, p->arg[1].index = -1)
SPOIL(arg_of_no_space, p->arg[1].space = MD_NUM_SPACES)
SPOIL(arg_that_writes_input, p->arg[0].write = true)
SPOIL(arg_too_short_for_its_type, p->arg[3].bytes -= 4)
SPOIL(arg_of_endless_type, p->arg[3].rank = 3; p->arg[3].dim[1] = p->arg[3].dim[2] = 1ll << 40)
SPOIL(arg_between_elements, p->arg[3].offset += 2; p->arg[3].dim[0] = 1; p->arg[3].bytes -= 4)
SPOIL(arg_in_blocks_without_channels, p->arg[3].block = 8)
SPOIL(input_of_other_bytes, p->input[0].bytes = 4)
SPOIL(input_without_elements, p->input[0].dim[0] = 0)
SPOIL(input_without_name, p->input[0].name = "")
SPOIL(two_states_of_a_name, p->state[2].name = "w")
SPOIL(state_with_odd_init, p->state[0].init = 9)
SPOIL(state_filled_with_nan, p->state[0].a = NAN)
SPOIL(state_that_copies_nothing, p->state[2].from = "v")
SPOIL(state_that_copies_itself, p->state[2].from = "w_ema")
SPOIL(state_that_copies_another_shape, p->state[2].from = "step")
SPOIL(launch_past_the_phases, p->launch[1].num_phases = 3)
SPOIL(launch_past_the_arguments, p->launch[1].first_arg = INT32_MAX)
SPOIL(phase_without_items, p->phase[0].items = 0)
SPOIL(phase_with_endless_scratch, p->phase[0].scratch_bytes = INT64_MAX)
SPOIL(phase_with_odd_symbol, p->phase[0].symbol = "a;b")
SPOIL(copy_to_no_state, p->copy[0].state = 3)
SPOIL(copy_of_other_size, p->copy[0].state = 1)
SPOIL(copy_of_its_target, p->copy[0].src = p->arg[1])
SPOIL(result_in_the_workspace, p->result_at[0].space = MD_IN_WORKSPACE)
SPOIL(result_of_other_type, p->result_at[1].dtype = MD_I32)
SPOIL(endless_arena, p->arena_bytes = INT64_MAX)
SPOIL(negative_count, p->num_inputs = -1)
SPOIL(no_target, p->target = NULL)

static const wrong_program wrong_programs[] = {
  {arg_past_the_arena,
   "launch 'scale': 'y' reaches beyond the arena (16384 bytes at 132 of 16512)"},
  {arg_at_a_negative_place,
   "launch 'scale': 'y' reaches beyond the arena (16384 bytes at -4 of 16512)"},
  {arg_of_endless_bytes, "launch 'scale': 'y' reaches beyond the arena"},
  {arg_of_no_state, "launch 'scale': 'w' lies in memory that does not exist"},
  {arg_of_negative_state, "launch 'scale': 'w' lies in memory that does not exist"},
  {arg_of_no_space, "launch 'scale': 'w' lies in memory that does not exist"},
  {arg_that_writes_input, "launch 'scale': 'x' writes to an input"},
  {arg_too_short_for_its_type, "launch 'sum': 'y' has 16380 bytes, but its type needs 16384"},
  {arg_of_endless_type, "launch 'sum': 'y' has no possible type"},
  {arg_between_elements, "launch 'sum': 'y' is not aligned to its elements"},
  {arg_in_blocks_without_channels, "launch 'sum': 'y' has no possible type"},
  {input_of_other_bytes, "input 'x' has 4 bytes, but its type needs 16384"},
  {input_without_elements, "input 'x' has no possible type"},
  {input_without_name, "input 0 has no name of 1 to 255 characters"},
  {two_states_of_a_name, "two states are named 'w'"},
  {state_with_odd_init, "state 'w' has an unknown init 9"},
  {state_filled_with_nan, "state 'w' is initialised with a number that is not finite"},
  {state_that_copies_nothing, "state 'w_ema' copies a state that is not there"},
  {state_that_copies_itself, "state 'w_ema' is a copy of a copy, more than 8 deep"},
  {state_that_copies_another_shape, "state 'w_ema' copies 'step', which has another shape"},
  {launch_past_the_phases, "launch 'sum': phases 1+3 of 3"},
  {launch_past_the_arguments, "launch 'sum': arguments 2147483647+4 of 7"},
  {phase_without_items, "symbol 'scale' has 0 items"},
  {phase_with_endless_scratch, "scratch memory of 9223372036854775807 bytes"},
  {phase_with_odd_symbol, "symbol 'a;b' is not made of A-Z a-z 0-9 _"},
  {copy_to_no_state, "copy 0 goes to state 3 of 3"},
  {copy_of_other_size, "update of 'step': 16384 bytes for a state of 4"},
  {copy_of_its_target, "update of 'w' reads a state that is updated too"},
  {result_in_the_workspace, "result 'loss' lies in the workspace"},
  {result_of_other_type, "result 'y' has another type or layout where it lies"},
  {endless_arena, "an arena of 9223372036854775807 bytes"},
  {negative_count, "-1 inputs; 0 to 1048576 are possible"},
  {no_target, "it has no target"},
};
// clang-format on

START_TEST(a_program_that_contradicts_itself_is_refused) {
  md_diags *d = md_diags_create();
  md_program *good = bare_program();
  ck_assert(md_program_check(good, d));
  md_program_destroy(good);
  for (int i = 0; i < MD_COUNT(wrong_programs); i++) {
    md_program *p = bare_program();
    wrong_programs[i].spoil(p);
    md_diags_clear(d);
    ck_assert(!md_program_check(p, d));
    ck_assert_int_eq(md_diags_errors(d), 1);
    const char *text = md_diags_text(d);
    ck_assert_msg(!strncmp(text, "error[E0632]: program: ", 23) &&
                      strstr(text, wrong_programs[i].text),
                  "want '%s' in '%s'", wrong_programs[i].text, text);
    md_program_destroy(p);
  }
  md_diags_destroy(d);
}
END_TEST

// --- Times and traces

START_TEST(times_are_kept_when_wanted) {
  md_program *p = fixture(EXEC_KERNELS);
  md_exec *e = md_exec_create(p, &(md_exec_options){.time = true}, NULL);
  for (int i = 0; i < 5; i++) ck_assert(md_exec_step(e, NULL));
  const md_launch_time *t = md_exec_times(e);
  for (int i = 0; i < 2; i++) {
    ck_assert_int_eq(t[i].calls, 5);
    ck_assert(t[i].min_ns > 0 && 5 * t[i].min_ns <= t[i].total_ns);
  }
  md_exec_destroy(e);
  md_program_destroy(p);
}
END_TEST

START_TEST(trace_is_json_with_a_span_for_each_launch) {
  char path[] = "/tmp/modist-trace-XXXXXX";
  close(mkstemp(path));
  md_program *p = fixture(EXEC_KERNELS);
  md_exec *e = md_exec_create(p, &(md_exec_options){.threads = 2}, NULL);
  md_trace *t = md_trace_create();
  md_exec_set_trace(e, t);
  for (int i = 0; i < 3; i++) ck_assert(md_exec_step(e, NULL));
  md_exec_set_trace(e, NULL);
  ck_assert(md_exec_step(e, NULL));
  ck_assert(md_trace_save(t, path, NULL));
  json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, NULL), *event;
  ck_assert_ptr_nonnull(root);
  int num_launches = 0, num_shares = 0;
  size_t i;
  json_array_foreach(json_object_get(root, "traceEvents"), i, event) {
    if (strcmp(json_string_value(json_object_get(event, "ph")), "X")) continue;
    const char *kind = json_string_value(json_object_get(event, "cat"));
    num_launches += !strcmp(kind, "launch");
    num_shares += !strcmp(kind, "share");
    ck_assert(json_number_value(json_object_get(event, "ts")) >= 0);
    ck_assert(json_number_value(json_object_get(event, "dur")) >= 0);
  }
  ck_assert_int_eq(num_launches, 6);
  ck_assert(num_shares >= 9);  // three phases in each of three steps, on one or two threads
  json_decref(root);
  unlink(path);
  md_trace_destroy(t);
  md_exec_destroy(e);
  md_program_destroy(p);
}
END_TEST

// Two launches from 10 to 90: one thread has items for 70 of 80, the other for 30.
START_TEST(a_trace_tells_how_long_threads_had_items) {
  md_trace *t = md_trace_create();
  ck_assert_double_eq(md_trace_busy(t), 0);
  md_trace_span(t, "wait", "data", 0, 0, 10);
  md_trace_span(t, "a", "launch", 0, 10, 50);
  md_trace_span(t, "b", "launch", 0, 52, 90);
  ck_assert_double_eq(md_trace_busy(t), 0);
  md_trace_span(t, "a0", "share", 0, 11, 49);
  md_trace_span(t, "a0", "share", 1, 20, 50);
  md_trace_span(t, "b0", "share", 0, 54, 86);
  ck_assert_double_eq_tol(md_trace_busy(t), 100. / 160, 1e-12);
  md_trace_destroy(t);
}
END_TEST

START_TEST(a_quota_of_processor_time_counts_as_cores) {
  const struct {
    const char *text;
    int cores;
  } rows[] = {{"200000 100000\n", 2},    {"150000 100000\n", 2}, {"50000 100000\n", 1},
              {"max 100000\n", INT_MAX}, {"", INT_MAX},          {"100000 0\n", INT_MAX}};
  char path[] = "/tmp/modist_quota_XXXXXX";
  int fd = mkstemp(path);
  ck_assert_int_ge(fd, 0);
  close(fd);
  for (int i = 0; i < MD_COUNT(rows); i++) {
    FILE *f = fopen(path, "w");
    fputs(rows[i].text, f);
    fclose(f);
    ck_assert_int_eq(md_cpu_quota(path), rows[i].cores);
  }
  unlink(path);
  ck_assert_int_eq(md_cpu_quota(path), INT_MAX);
}
END_TEST

SUITE_MAIN("exec", a_quota_of_processor_time_counts_as_cores, pool_runs_every_item_once,
           pool_uses_its_threads_also_after_sleep,
           pool_gives_each_thread_its_part_and_who_has_none_left_helps,
           a_step_computes_what_its_kernels_say, results_are_equal_for_any_number_of_threads,
           a_step_allocates_nothing, nan_is_named_with_its_region_and_no_copy_is_applied,
           nan_of_an_input_is_not_blamed_on_a_region, only_real_channels_of_blocks_are_looked_at,
           every_float_type_is_searched_for_nan, taps_see_every_launch_and_can_stop,
           memory_limit_is_refused_with_the_numbers, memory_grows_by_what_was_planned,
           a_kernel_that_is_not_there_is_named, states_start_as_their_rules_say,
           uniform_states_have_the_bits_of_the_golden_sets,
           unit_rows_have_norm_one_and_do_not_depend_on_the_cut,
           large_states_are_the_same_for_any_number_of_threads,
           a_program_that_contradicts_itself_is_refused, times_are_kept_when_wanted,
           trace_is_json_with_a_span_for_each_launch, a_trace_tells_how_long_threads_had_items)
