// SPDX-License-Identifier: Apache-2.0
// How long a launch should take on a device that is only described: what it moves over the bandwidth, or
// what it computes over the rate, whichever is longer, and the start of a launch.
//
//   seconds = start + max(bytes / (m B), FLOPs / (a F)) / share of the multiprocessors with a block
//
// B and F are peaks; a and m what good kernels reach of them. Reads that hit the L2 cache are not
// modelled. Nothing here has been measured: a device decides.
#include "codegen/cuda/cuda.h"

#include <math.h>
#include <string.h>

// Of good kernels by what they multiply with, of streams on H100-class devices, and between kernels of a
// CUDA graph. Where the peak is that of wgmma or tcgen05, mma.sync reaches at most 63 % of it by the
// micro-benchmarks of H100 (arXiv 2402.13499, 2501.12084).
static const double memory_share = 0.9, start_us = 2;
static double math_share(md_cuda_math math, int sm) {
  bool is_legacy = sm >= 90 && sm < 120;
  return math == MD_CUDA_MMA && is_legacy ? 0.61 : 0.75;
}

const char *const md_cuda_limit_names[MD_NUM_LIMITS] = {"memory", "tensor", "fma", "launch"};

static int round_up(int x, int to) { return (x + to - 1) / to * to; }

// Registers are given to warps in pieces of 256, from one of four parts of a multiprocessor; shared memory
// to blocks in pieces of 128 bytes, and 1 KiB of it to the system.
static int fitting_blocks(const md_phase *f, const md_kernel_facts *k, const md_cuda_spec *s) {
  int warps = round_up(f->threads, 32) / 32;
  double blocks = fmin(s->blocks, floor(s->threads / (32.0 * warps)));
  if (k->registers > 0) {
    double part = floor(s->registers / 4 / round_up(32 * k->registers, 256));
    blocks = fmin(blocks, floor(4 * part / warps));
  }
  int64_t shared = md_round_up(k->shared_bytes + f->shared_bytes + MD_RESERVED_SHARED, 128);
  blocks = fmin(blocks, floor(s->shared_bytes / (double)shared));
  return (double)shared - MD_RESERVED_SHARED > s->block_shared_bytes ? 0 : (int)blocks;
}

md_cuda_cost md_cuda_predict(const md_program *p, const md_launch *l, const md_kernel_facts *k,
                             md_cuda_math math, const md_cuda_spec *s) {
  const md_phase *f = &p->phase[l->first_phase];
  md_cuda_cost c = {.blocks_per_sm = fitting_blocks(f, k, s)};
  double used = fmin(1, (double)f->items / s->sms);
  double peak = math == MD_CUDA_FMA ? s->fma_flops : s->tensor_flops;
  double rate = math_share(math, s->arch.sm) * peak;
  double memory = 1e6 * l->bytes / (memory_share * s->bandwidth) / used;
  double arithmetic = 1e6 * l->flops / rate / used, longest = fmax(memory, arithmetic);
  c.us = start_us + longest;
  if (longest < start_us) c.limit = MD_BY_LAUNCH;
  else if (memory >= arithmetic) c.limit = MD_BY_MEMORY;
  else c.limit = math == MD_CUDA_FMA ? MD_BY_FMA : MD_BY_TENSOR;
  return c;
}

const md_gpu_kernel *md_cuda_kernel_of(const md_program *p, const md_gpu_variant *v,
                                       const md_launch *l) {
  const char *symbol = p->phase[l->first_phase].symbol;
  for (int i = v->first_kernel; i < v->first_kernel + v->num_kernels; i++)
    if (!strcmp(p->kernel[i].symbol, symbol)) return &p->kernel[i];
  return NULL;
}

md_cuda_cost md_cuda_cost_of(const md_program *p, const md_gpu_variant *v, const md_launch *l,
                             const md_cuda_report *r, const md_cuda_spec *s) {
  const md_gpu_kernel *k = md_cuda_kernel_of(p, v, l);
  return md_cuda_predict(p, l, &k->facts, r->math[k - p->kernel], s);
}

md_cuda_forecast md_cuda_forecast_of(const md_program *p, const md_gpu_variant *v,
                                     const md_cuda_report *r, const md_cuda_spec *s) {
  md_cuda_forecast f = {0};
  for (int i = v->first_launch; i < v->first_launch + v->num_launches; i++) {
    md_cuda_cost c = md_cuda_cost_of(p, v, &p->launch[i], r, s);
    f.launches[c.limit]++;
    f.us[c.limit] += c.us;
    f.all_us += c.us;
    f.flops += p->launch[i].flops;
    f.bytes += p->launch[i].bytes;
  }
  return f;
}
