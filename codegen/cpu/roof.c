// SPDX-License-Identifier: Apache-2.0
// What this machine does at most: multiply-adds that touch registers alone, and sums over more memory
// than a cache holds. The kernels are emitted as all others are, so that what is measured holds for
// the vectors and instructions of the target.
#include "codegen/cpu/emit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  ARITHMETIC_STEPS = 1 << 16,  // of an item
  ITEMS_A_THREAD = 8,
  READ_BYTES = 256 << 20,
  READ_ITEM_BYTES = 256 << 10,
  READ_SUMS = 8,
  MIN_RUNS = 3,
  ROUNDS = 12,
};
static const double enough_s = 0.02;  // of one rate in a round

typedef void Kernel(void *const *arg, int64_t item, void *scratch);
typedef struct Rate {
  Kernel *kernel;
  int64_t items;
  double work;     // of an item
  void *arg[1];    // memory full of 0.5
  char *scratch;   // of thread 0
  int64_t stride;  // from one thread's to the next's
} Rate;

// --- kernels: their only argument stands where others have the workspace

static md_ir factor(md_kernel *k, LLVMTypeRef type, int64_t offset) {
  md_ir v = LLVMBuildLoad2(k->e.b, type, md_workspace(k, offset), "");
  LLVMSetAlignment(v, 4);
  return v;
}

static int64_t accumulators(const md_cpu *cpu) { return cpu->registers - 2; }

// acc += a*b in all registers but two, each its own chain, so that neither the time of one
// multiply-add nor memory is waited for. Without FMA it is acc*a + b: a*b would be computed once.
static void emit_arithmetic(md_kernel *k, bool is_dot) {
  md_emit *e = &k->e;
  int64_t num = accumulators(e->cpu), bytes = (int64_t)4 * e->cpu->lanes;
  md_phase_begin(k, is_dot ? "dot" : "arithmetic", 1, num * bytes);
  LLVMTypeRef vector = md_lanes_type(e->f32, e->cpu->lanes);
  LLVMTypeRef pairs = md_lanes_type(e->i32, e->cpu->lanes);
  md_ir a = factor(k, is_dot ? pairs : vector, 0), b = factor(k, is_dot ? pairs : vector, bytes);
  md_var *acc = MD_NEW_ARRAY(k->arena, md_var, num);
  for (int64_t i = 0; i < num; i++) acc[i] = md_var_new(e, vector, md_zero(vector), "acc");
  md_loop l = md_loop_begin(e, md_i64(e, 0), md_i64(e, ARITHMETIC_STEPS), 1, "step");
  for (int64_t i = 0; i < num; i++) {
    md_ir old = md_get(e, acc[i]), new;
    if (is_dot) new = md_bf16_dot(e, old, a, b);
    else new = e->cpu->fma ? md_fma(e, a, b, old) : md_fma(e, old, a, b);
    md_set(e, acc[i], new);
  }
  md_loop_end(e, &l);
  for (int64_t i = 0; i < num; i++)
    md_store(e, MD_F32, k->scratch, md_i64(e, i * e->cpu->lanes), md_get(e, acc[i]), NULL);
  md_phase_end(k);
}

static void emit_reading(md_kernel *k) {
  md_emit *e = &k->e;
  int64_t lanes = e->cpu->lanes;
  md_phase_begin(k, "reading", READ_BYTES / READ_ITEM_BYTES, lanes * 4 * READ_SUMS);
  LLVMTypeRef vector = md_lanes_type(e->f32, e->cpu->lanes);
  md_var sum[READ_SUMS];
  for (int i = 0; i < READ_SUMS; i++) sum[i] = md_var_new(e, vector, md_zero(vector), "sum");
  md_ir first = md_imulc(e, k->item, READ_ITEM_BYTES / 4), memory = md_workspace(k, 0);
  md_loop l =
      md_loop_begin(e, md_i64(e, 0), md_i64(e, READ_ITEM_BYTES / 4), READ_SUMS * lanes, "i");
  for (int i = 0; i < READ_SUMS; i++) {
    md_ir at = md_iadd(e, first, md_iaddc(e, l.i, i * lanes));
    md_set(e, sum[i],
           md_fadd(e, md_get(e, sum[i]), md_load(e, MD_F32, memory, at, e->cpu->lanes, NULL)));
  }
  md_loop_end(e, &l);
  for (int i = 0; i < READ_SUMS; i++)
    md_store(e, MD_F32, k->scratch, md_i64(e, i * lanes), md_get(e, sum[i]), NULL);
  md_phase_end(k);
}

// --- running them

static void *compile(const md_cpu *cpu, md_arena *a, md_diags *d) {
  md_region_view nothing = {0};
  md_kernel k = {.e = md_emit_open(cpu, "roof"),
                 .r = &nothing,
                 .whole = &nothing,
                 .arena = a,
                 .symbol = "roof"};
  emit_arithmetic(&k, false);
  emit_reading(&k);
  if (cpu->bf16_dot) emit_arithmetic(&k, true);
  md_object object = {0};
  md_cpu_report times = {0};
  bool ok = md_module_setup(k.e.mod, cpu, d) &&
            md_object_compile(k.e.mod, cpu, false, &object, &times, d);
  void *jit = ok ? md_jit_load(&object, 1, d) : NULL;
  free(object.data);
  md_emit_close(&k.e);
  return jit;
}

static void run_item(void *ctx, int64_t item, int thread) {
  const Rate *r = ctx;
  r->kernel(r->arg, item, r->scratch + thread * r->stride);
}

// Raises `rate` to the work a second in the best of some runs; disturbances only slow it down.
static bool measure(md_pool *pool, Rate *r, void *jit, const char *symbol, double *rate,
                    md_diags *d) {
  *(void **)&r->kernel = md_jit_lookup(jit, symbol);
  if (!r->kernel)
    return md_error(d, E0830, MD_NOWHERE, "LLVM could not place kernel %s in memory: %s", symbol,
                    md_jit_reason(jit));
  double best = INFINITY, spent = 0;
  for (int i = 0; i < MIN_RUNS || spent < enough_s; i++) {
    int64_t start = md_now_ns();
    md_pool_run(pool, r->items, run_item, r);
    double seconds = (double)(md_now_ns() - start) / 1e9;
    best = fmin(best, seconds);
    spent += seconds;
  }
  *rate = fmax(*rate, r->work * (double)r->items / best);
  return true;
}

static bool measure_all(const md_cpu *cpu, md_pool *pool, void *jit, char *memory, char *scratch,
                        md_cpu_roof *roof, md_diags *d) {
  double flops = 2.0 * (double)accumulators(cpu) * cpu->lanes * ARITHMETIC_STEPS;
  Rate r = {.items = (int64_t)ITEMS_A_THREAD * md_pool_threads(pool),
            .work = flops,
            .arg = {memory},
            .scratch = scratch,
            .stride = (int64_t)4 * cpu->registers * cpu->lanes};
  if (!measure(pool, &r, jit, "roof_0_arithmetic", &roof->f32_flops, d)) return false;
  r.work = 2 * flops;
  if (cpu->bf16_dot && !measure(pool, &r, jit, "roof_2_dot", &roof->bf16_flops, d)) return false;
  r.items = READ_BYTES / READ_ITEM_BYTES;
  r.work = READ_ITEM_BYTES;
  return measure(pool, &r, jit, "roof_1_reading", &roof->read_bytes, d);
}

bool md_cpu_measure_roof(const md_cpu *cpu, int threads, md_cpu_roof *roof, md_diags *d) {
  *roof = (md_cpu_roof){0};
  md_arena *a = md_arena_create();
  if (threads <= 0) threads = md_pool_default();
  md_block memory = {0}, scratch = {0};
  void *jit = compile(cpu, a, d);
  bool ok = jit != NULL;
  int64_t scratch_bytes = (int64_t)4 * cpu->registers * cpu->lanes * threads;
  if (ok && (!md_block_create(&memory, READ_BYTES) || !md_block_create(&scratch, scratch_bytes)))
    ok = md_error(d, E0802, MD_NOWHERE, "not enough memory to measure the roof");
  for (int64_t i = 0; ok && i < READ_BYTES / 4; i++) ((float *)memory.at)[i] = 0.5f;
  // New threads each round: some systems leave two on one core for as long as they live.
  for (int round = 0; ok && round < ROUNDS; round++) {
    md_pool *pool = md_pool_create(threads);
    ok = measure_all(cpu, pool, jit, memory.at, scratch.at, roof, d);
    md_pool_destroy(pool);
  }
  md_block_destroy(&memory);
  md_block_destroy(&scratch);
  if (jit) md_jit_free(jit);
  md_arena_destroy(a);
  return ok;
}
