// SPDX-License-Identifier: Apache-2.0
// Facts of devices: every row says all that a prediction needs and reads back from its file; lists of
// targets; occupancy and times against numbers worked out by hand.
#include "codegen/cuda/cuda.h"
#include "runtime/train/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failed;

static void check(bool ok, const char *claim, const char *seen) {
  if (!ok) printf("FAILED %s\n%s\n", claim, seen ? seen : "");
  failed += !ok;
}

typedef struct Taker {
  md_cuda_spec *spec;
  md_arena *arena;
  md_diags *d;
} Taker;

static bool take(void *ctx, const char *key, const char *text, md_place key_at, md_place at) {
  const Taker *t = ctx;
  return md_cuda_spec_set(t->spec, key, text, key_at, at, t->arena, t->d);
}

static void devices_read_back(void) {
  char path[] = "/tmp/modist-spec-XXXXXX";
  int fd = mkstemp(path);
  check(fd >= 0, "a file", path);
  for (int i = 0; i < md_cuda_num_devices(); i++) {
    const md_cuda_spec *s = md_cuda_device_at(i);
    md_cuda_spec read = {.title = "", .source = ""};
    md_text text = {0}, again = {0};
    md_diags *d = md_diags_create();
    md_arena *a = md_arena_create();
    md_cuda_spec_print(s, &text);
    FILE *f = fopen(path, "wb");
    check(f && fputs(text.s, f) >= 0 && fclose(f) == 0, "the file is written", path);
    bool ok = md_config_pairs(path, take, &(Taker){&read, a, d}, d) &&
              md_cuda_spec_check(&read, path, d) && strlen(read.source) > 20;
    md_cuda_spec_print(&read, &again);
    check(ok && !strcmp(text.s, again.s), s->name, ok ? again.s : md_diags_text(d));
    check(s->block_shared_bytes == (double)md_gpu_shared_limit(s->arch.sm),
          "loader and table agree on shared memory", s->name);
    md_arena_destroy(a);
    md_diags_destroy(d);
    md_text_free(&text);
    md_text_free(&again);
  }
  close(fd);
  unlink(path);
}

static void lists_of_targets(void) {
  static const struct {
    const char *list, *error;
    int num;
  } rows[] = {
      {"cuda:sm_80", NULL, 1},
      {"cuda:sm_80,cuda:sm_90a", NULL, 2},
      {"cuda:sm_80,sm_90a,h200x", "unknown target 'cuda:h200x'", 0},
      {"cuda:a100,h200", NULL, 2},
      {"cuda:h100,cuda:h200", "'cuda:h200' stands twice", 0},
      {"cuda:sm_80,", "unknown target 'cuda:'", 0},
      {"cuda:sm_70", "the lowest is --target=cuda:sm_75", 0},
      {"cuda:h20", "did you mean --target=cuda:h200?", 0},
  };
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_cuda_arch arch[MD_CUDA_TARGETS];
    md_diags *d = md_diags_create();
    int num = md_cuda_targets(rows[i].list, arch, MD_CUDA_TARGETS, d);
    check(num == rows[i].num && (!rows[i].error || strstr(md_diags_text(d), rows[i].error)),
          rows[i].list, md_diags_text(d));
    md_diags_destroy(d);
  }
  md_cuda_arch h200;
  check(md_cuda_parse("cuda:h200", &h200, NULL) && h200.sm == 90 && h200.suffix == 'a',
        "a device stands for its code", NULL);
  check(!strcmp(md_cuda_device_of((md_cuda_arch){90, 0})->name, "h200"), "the best of sm_90", NULL);
  check(!md_cuda_device_of((md_cuda_arch){87, 0}), "no device of sm_87 is known", NULL);
}

// One graph is for all targets of a list: what wgmma wants is wanted where all of them have it.
static void facts_of_a_list(void) {
  static const struct {
    const char *list;
    bool wgmma;
  } rows[] = {{"cuda:sm_80", false},
              {"cuda:h200", true},
              {"cuda:sm_90a", true},
              {"cuda:sm_90a,cuda:sm_80", false},
              {"cuda:sm_80,cuda:sm_90a", false}};
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_target_facts f;
    md_diags *d = md_diags_create();
    bool ok = md_cuda_facts(rows[i].list, &f, d);
    check(ok && (f.stored_wgrad > 0) == rows[i].wgmma && (f.twin_side > 0) == rows[i].wgmma,
          rows[i].list, md_diags_text(d));
    md_diags_destroy(d);
  }
}

// A launch of 1056 blocks on the 132 multiprocessors of an H200.
static md_cuda_cost cost(int threads, int registers, int64_t shared, double bytes, double flops,
                         md_cuda_math math) {
  md_phase f = {.symbol = "k", .items = 1056, .threads = threads, .shared_bytes = shared};
  md_launch l = {.name = "l", .num_phases = 1, .bytes = bytes, .flops = flops};
  md_program p = {.phase = &f, .num_phases = 1, .launch = &l, .num_launches = 1};
  md_kernel_facts k = {.registers = registers};
  return md_cuda_predict(&p, &l, &k, math, md_cuda_device("h200"));
}

static void blocks_fit_by_hand(void) {
  static const struct {
    int threads, registers;
    int64_t shared;
    int blocks;
  } rows[] = {
      {256, 32, 0, 8},          // 2048 threads
      {32, 16, 0, 32},          // 32 blocks
      {256, 128, 0, 2},         // 4 warps a part: 16 in all
      {256, 33, 0, 6},          // 40 registers a thread: 12 warps a part, 48 in all
      {384, 168, 0, 1},         // 12 warps of 5376 registers: 3 a part
      {128, 32, 48 << 10, 4},   // 49 KiB of 228 with the reserved one
      {128, 32, 227 << 10, 1},  // all that a block can have
      {128, 32, 228 << 10, 0},  // more than that
      {1024, 65, 0, 0},         // 72 registers a thread: 28 warps, but 32 are needed
  };
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_cuda_cost c = cost(rows[i].threads, rows[i].registers, rows[i].shared, 1e9, 0, MD_CUDA_FMA);
    char seen[80];
    snprintf(seen, sizeof seen, "%d threads of %d registers: %d", rows[i].threads,
             rows[i].registers, c.blocks_per_sm);
    check(c.blocks_per_sm == rows[i].blocks, "blocks of a multiprocessor", seen);
  }
}

static void times_by_hand(void) {
  static const struct {
    double bytes, flops;
    md_cuda_math math;
    double us;
    md_cuda_limit limit;
  } rows[] = {
      {4.32e9, 0, MD_CUDA_FMA, 2 + 1000, MD_BY_MEMORY},
      {4.32e9, 50.25e9, MD_CUDA_FMA, 2 + 1000, MD_BY_MEMORY},  // as long as its arithmetic
      {4.32e9, 100.5e9, MD_CUDA_FMA, 2 + 2000, MD_BY_FMA},
      {4.32e9, 100.5e9, MD_CUDA_WGMMA, 2 + 1000, MD_BY_MEMORY},
      {0, 742.125e9, MD_CUDA_WGMMA, 2 + 1000, MD_BY_TENSOR},
      {0, 603.595e9, MD_CUDA_MMA, 2 + 1000, MD_BY_TENSOR},
      {4320, 0, MD_CUDA_FMA, 2.001, MD_BY_LAUNCH},
  };
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_cuda_cost c = cost(256, 32, 0, rows[i].bytes, rows[i].flops, rows[i].math);
    char seen[80];
    snprintf(seen, sizeof seen, "row %d: %.6f us, %s", i, c.us, md_cuda_limit_names[c.limit]);
    check(fabs(c.us - rows[i].us) < 1e-6 * rows[i].us && c.limit == rows[i].limit, "time", seen);
  }
}

// Its own cores are what an A100 reaches its peak with.
static void mma_is_not_legacy_everywhere(void) {
  md_phase f = {.symbol = "k", .items = 1080, .threads = 256};
  md_launch l = {.name = "l", .num_phases = 1, .flops = 234e9};
  md_program p = {.phase = &f, .num_phases = 1, .launch = &l, .num_launches = 1};
  md_kernel_facts k = {.registers = 32};
  md_cuda_cost c = md_cuda_predict(&p, &l, &k, MD_CUDA_MMA, md_cuda_device("a100"));
  char seen[40];
  snprintf(seen, sizeof seen, "%.6f us", c.us);
  check(fabs(c.us - 1002) < 1e-3, "mma.sync on an A100", seen);
}

int main(void) {
  devices_read_back();
  lists_of_targets();
  facts_of_a_list();
  blocks_fit_by_hand();
  times_by_hand();
  mma_is_not_legacy_everywhere();
  printf("%d failed\n", failed);
  return failed != 0;
}
