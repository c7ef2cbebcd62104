// SPDX-License-Identifier: Apache-2.0
// Choosing a kernel: an ordered list of rows, the first without an objection takes the region. The
// last takes any whose anchor has a kernel: it runs the anchor alone, with what surrounds it as
// stream phases before and after.
#include "codegen/cpu/emit.h"

#include <string.h>

static const char *refuse_apart(const md_region_view *r, const md_cpu *cpu) {
  if (!r->anchor || r->num_nodes == 1) return "";
  md_arena *a = md_arena_create();
  bool alone = md_lower(md_region_view_of(r->g, 0, r->anchor, a), cpu, NULL);
  alone = alone && (!r->twin || md_lower(md_region_view_of(r->g, 0, r->twin, a), cpu, NULL));
  md_arena_destroy(a);
  return alone ? NULL : "alone it has no kernel either";
}

static bool is_in_halves(const md_type *t, const md_cpu *cpu) {
  int64_t rest = t->block ? (t->shape.dim[1] - 1) % t->block : 0;
  MD_ASSERT(t->block != cpu->lanes || rest >= cpu->half->lanes, "half of a block is empty");
  return t->block == cpu->half->lanes;
}

const md_cpu *md_lanes_for(const md_region_view *r, const md_cpu *cpu) {
  bool halves = false;
  if (!cpu->half) return cpu;
  for (int i = 0; i < r->num_inputs; i++)
    halves |= is_in_halves(md_type_in(r->g, r->input[i]), cpu);
  for (int i = 0; i < r->num_nodes; i++)
    for (int j = 0; j < r->node[i]->num_out; j++)
      halves |= is_in_halves(md_type_in(r->g, r->node[i]->out + (md_val)j), cpu);
  return halves ? cpu->half : cpu;
}

static void emit_anchor(md_kernel *k, const md_node *anchor) {
  const md_region_view *r = k->r;
  md_val *operand = MD_NEW_ARRAY(k->arena, md_val, anchor->num_in + 1);
  int num = 0;
  for (int i = 0; i < anchor->num_in; i++) {
    if (anchor->in[i] != MD_NONE && md_inner(r, anchor->in[i])) operand[num++] = anchor->in[i];
  }
  md_materialise(k, operand, num);
  k->r = md_region_view_of(r->g, 0, anchor, k->arena);
  for (int i = 0; i < k->r->num_outputs; i++) md_kernel_place(k, k->r->output[i]);
  md_lower(k->r, k->e.cpu, NULL)->emit(k);
  for (int i = 0; i < k->r->num_outputs; i++) md_kernel_ready(k, k->r->output[i]);
  k->r = r;
}

// Brings the anchor's operands into memory, lowers the anchor as a region of its own, then the
// rest.
static void emit_apart(md_kernel *k) {
  emit_anchor(k, k->r->anchor);
  if (k->r->twin) emit_anchor(k, k->r->twin);
  md_materialise(k, k->r->output, k->r->num_outputs);
}

static const md_lowering apart_rows[] = {{"anchor apart", refuse_apart, emit_apart}, {0}};

const md_lowering *md_lower(const md_region_view *r, const md_cpu *cpu, md_text *refusals) {
  const md_lowering *const tables[] = {
      md_stream_rows, md_conv_rows, md_matmul_rows, md_nce_rows, md_pool_rows,
      md_row_rows,    md_move_rows, md_image_rows,  apart_rows,
  };
  for (int i = 0; i < MD_COUNT(tables); i++) {
    for (const md_lowering *row = tables[i]; row->name; row++) {
      const char *why = row->refuse(r, cpu);
      if (!why) return row;
      if (*why && refusals) md_put(refusals, "%s%s: %s", refusals->len ? "; " : "", row->name, why);
    }
  }
  return NULL;
}
