// SPDX-License-Identifier: Apache-2.0
// Convolutions that another engine can do in place of our launches: a region that is one convolution, or one
// gradient of it, and nothing else; its operands and its result lie where the graph says; and its launches,
// but for weights that are packed early, come one behind the other and do nothing for other regions.
#include "codegen/cuda/plain_conv.h"

#include "codegen/region.h"

#include <stdlib.h>

// A constant has no place.
static bool is_tensor(const md_graph *g, md_val v) {
  md_dtype t = md_type_in(g, v)->dtype;
  return (t == MD_F32 || t == MD_BF16) && md_def(g, v)->op != MD_OP_constant;
}

// The only node of a region, if it is a plain convolution; else NULL.
static const md_node *only_node(const md_graph *g, int region, md_arena *scratch) {
  const md_region_view *r = md_region_view_of(g, region, NULL, scratch);
  const md_node *n = r->num_nodes == 1 ? r->node[0] : NULL;
  if (!n || (n->op != MD_OP_conv3d && n->op != MD_OP_conv3d_dgrad && n->op != MD_OP_conv3d_wgrad))
    return NULL;
  bool has_bias = n->op == MD_OP_conv3d && n->num_in > 2 && n->in[2] != MD_NONE;
  bool fits = is_tensor(g, n->in[0]) && is_tensor(g, n->in[1]) && is_tensor(g, n->out);
  return has_bias || !fits ? NULL : n;
}

static int num_parts(const md_cuda_launch *l) { return l->num_parts ? l->num_parts : 1; }
static const md_cuda_launch *part_of(const md_cuda_launch *l, int i) {
  return l->num_parts ? &l->part[i] : l;
}

// How many parts of a launch are the region's.
static int parts_of(const md_cuda_launch *l, int region) {
  int num = 0;
  for (int i = 0; i < num_parts(l); i++) num += part_of(l, i)->region == region;
  return num;
}

static bool has_moved(const md_cuda_launch *l, int region) {
  for (int i = 0; i < num_parts(l); i++)
    if (part_of(l, i)->region == region && part_of(l, i)->is_moved) return true;
  return false;
}

static bool is_early(const md_cuda_launch *l, int region) {
  for (int i = 0; i < num_parts(l); i++)
    if (part_of(l, i)->region == region && !part_of(l, i)->is_early) return false;
  return true;
}

static bool is_whole(const md_cuda_launch *l, int region) {
  return parts_of(l, region) == num_parts(l);
}

static bool writes_over(const md_cuda_launch *l, const md_graph *g, md_val v) {
  for (int i = 0; i < num_parts(l); i++) {
    const md_cuda_launch *part = part_of(l, i);
    for (int k = 0; k < part->num_args; k++)
      if (part->arg[k].write && part->arg[k].val != MD_NONE &&
          md_shares_memory(g, part->arg[k].val, v))
        return true;
  }
  return false;
}

// From where weights are packed early on, the graph's own may be gone, which another engine would read.
static bool keeps_operands(const md_graph *g, const md_cuda_module *m, int region,
                           const md_plain_conv *c) {
  int i = 0;
  while (!parts_of(&m->launch[i], region)) i++;
  for (; i < c->first; i++)
    for (int k = 0; k < 2; k++)
      if (writes_over(&m->launch[i], g, c->node->in[k])) return false;
  return true;
}

// The launches that are the region's alone. What is packed early stays where it is unless it stands among
// them or directly before: then nobody else needs it.
static bool find_launches(const md_cuda_module *m, int region, md_plain_conv *to) {
  int first = -1, last = -1;
  for (int i = 0; i < m->num_launches; i++) {
    const md_cuda_launch *l = &m->launch[i];
    if (has_moved(l, region)) return false;
    if (!parts_of(l, region) || is_early(l, region)) continue;
    if (first < 0) first = i;
    last = i;
  }
  if (first < 0) return false;
  for (int i = first; i <= last; i++)
    if (!is_whole(&m->launch[i], region)) return false;
  while (first > 0 && is_whole(&m->launch[first - 1], region)) first--;
  to->first = first;
  to->num = last + 1 - first;
  return true;
}

static int compare(const void *a, const void *b) {
  return ((const md_plain_conv *)a)->first - ((const md_plain_conv *)b)->first;
}

md_plain_conv *md_cu_plain_convs(const md_graph *g, const md_cuda_module *m, int *num,
                                 md_arena *a) {
  md_plain_conv *all = MD_NEW_ARRAY(a, md_plain_conv, g->num_regions + 1);
  md_arena *scratch = md_arena_create();
  *num = 0;
  for (int region = 1; region <= g->num_regions; region++) {
    md_plain_conv *c = &all[*num];
    c->node = only_node(g, region, scratch);
    if (c->node && find_launches(m, region, c) && keeps_operands(g, m, region, c)) (*num)++;
    md_arena_reset(scratch);
  }
  md_arena_destroy(scratch);
  qsort(all, (size_t)*num, sizeof *all, compare);
  return all;
}
