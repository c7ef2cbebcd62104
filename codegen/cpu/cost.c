// SPDX-License-Identifier: Apache-2.0
// How long a kernel should take. Within a core arithmetic and memory do not overlap well: what a tile
// needs is packed before it is multiplied, and stored, with its sums, after. So the parts add up:
//
//   seconds = start + nodes * node + (flops / (a F) + memory bytes / (m B) + cached bytes / (c B)) / t
//
// F and B are the rates of the machine (md_cpu_roof), t the share of its threads that have an item, and
// a, m, c what a family of kernels makes of the rates. Leaves of the graph (states, inputs) come from
// memory; what the step itself made comes from the last cache, where all that a kernel touches fits.
#include "codegen/cpu/emit.h"
#include "codegen/work.h"

#include <string.h>

// Of fastest calls in `bench step --predict` on 2 cores of Zen 5, in f32 and bf16; tools/fit_cost.py
// prints these rows anew.
static const double start_s = 0.4e-6, node_s = 0.03e-6;
typedef struct Shares {
  const char *family;  // begins the lowering's name; the last row takes all others
  double arithmetic, memory, cache;
} Shares;
// clang-format off
static const Shares shares[] = {
    {"conv3d winograd weight", 1.91, 2.12, 0.41},
    {"conv3d winograd",        2.28, 0.36, 0.75},
    {"conv3d weight gradient", 0.87, 1.11, 1.31},
    {"conv3d",                 0.91, 1.02, 1.41},
    {"stream",                 10.0, 1.14, 1.68},
    {"max pool",               0.19, 0.88, 0.67},
    {"InfoNCE",                5.18, 0.60, 0.71},
    {"matmul",                 0.34, 1.03, 1.01},
    {"",                       0.18, 1.03, 0.68},
};
// clang-format on

md_cpu_work md_work_of(const md_region_view *r, bool in_f32, const md_cpu *cpu) {
  md_work all = md_work_of_region(r);
  md_cpu_work w = {.nodes = r->num_nodes, .flops = all.flops};
  bool fits = all.leaf_bytes + all.made_bytes <= (double)cpu->cache_bytes;
  w.memory_bytes = all.leaf_bytes + (fits ? 0 : all.made_bytes);
  w.cache_bytes = fits ? all.made_bytes : 0;
  // Only convolutions multiply bf16; the weight gradient's result is f32.
  const md_node *a = r->anchor;
  w.is_bf16 = cpu->bf16_dot && !in_f32 && a && strncmp(md_ops[a->op].name, "conv3d", 6) == 0 &&
              md_type_in(r->g, a->in[0])->dtype == MD_BF16;
  return w;
}

md_cpu_roof md_cpu_nominal_roof(const md_cpu *cpu, int threads) {
  return (md_cpu_roof){.f32_flops = cpu->core_flops * threads,
                       .bf16_flops = cpu->bf16_dot ? 2 * cpu->core_flops * threads : 0,
                       .read_bytes = cpu->read_bytes};
}

double md_cpu_predict(const md_cpu_kernel_report *k, const md_cpu_roof *roof, int threads) {
  const md_cpu_work *w = &k->work;
  const Shares *s = shares;
  while (strncmp(k->lowering, s->family, strlen(s->family)) != 0) s++;
  double used = (double)MD_MIN(MD_MAX(k->items, 1), threads) / threads;
  double flops = w->is_bf16 && roof->bf16_flops > 0 ? roof->bf16_flops : roof->f32_flops;
  double seconds = w->flops / (s->arithmetic * flops) +
                   (w->memory_bytes / s->memory + w->cache_bytes / s->cache) / roof->read_bytes;
  return start_s + node_s * w->nodes + seconds / used;
}
