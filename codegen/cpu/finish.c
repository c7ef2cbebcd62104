// SPDX-License-Identifier: Apache-2.0
// What surrounds an anchor. Everything that follows it is stored at the anchor's points; a prologue
// value that somebody else reads too is streamed by a phase of its own, before the anchor runs.
#include "codegen/cpu/parts.h"

const char *md_refuse_block(const md_region_view *r, md_val v, const md_cpu *cpu) {
  const md_type *t = md_type_in(r->g, v);
  if (t->block % cpu->lanes) return "its channel blocks are not the target's vectors";
  return NULL;
}

static bool follows(const md_region_view *r, const md_node *n) {
  return n == r->anchor || md_in_epilogue(r, n);
}

static bool is_reduction(const md_node *n) { return md_ops[n->op].role == MD_REDUCE; }

const char *md_finish_refuse(const md_region_view *r, const md_cpu *cpu, bool sums) {
  const md_shape *shape = &md_type_in(r->g, r->anchor->out)->shape;
  for (int i = 0; i < r->num_inputs; i++) {
    const char *why = md_refuse_block(r, r->input[i], cpu);
    if (why) return why;
  }
  for (int i = 0; i < r->num_outputs; i++) {
    const md_node *n = md_inner(r, r->output[i]);
    const char *why = md_refuse_block(r, r->output[i], cpu);
    if (why) return why;
    if (is_reduction(n)) continue;
    if (!follows(r, n)) {
      if (!md_in_prologue(r, n)) return "it holds a value that has nothing to do with the anchor";
      continue;
    }
    if (n != r->anchor && !md_shape_equal(&md_type_in(r->g, r->output[i])->shape, shape))
      return "a result has another shape than the anchor's";
  }
  if (!md_has_sums(r)) return NULL;
  return sums ? md_sums_refuse(r) : "a reduction follows";
}

bool md_is_input(const md_region_view *r, md_val v) {
  for (int i = 0; i < r->num_inputs; i++)
    if (r->input[i] == v) return true;
  return false;
}

bool md_has_sums(const md_region_view *r) {
  for (int i = 0; i < r->num_nodes; i++)
    if (is_reduction(r->node[i])) return true;
  return false;
}

bool md_stores_directly(const md_region_view *r) {
  for (int i = 0; i < r->num_nodes; i++)
    if (md_in_epilogue(r, r->node[i])) return false;
  return !md_type_in(r->g, r->anchor->out)->block;
}

void md_finish_set(md_body *b, md_val v, md_ir value) {
  if (md_type_in(b->k->r->g, v)->dtype == MD_BF16) value = md_round_bf16(&b->k->e, value);
  md_body_set(b, v, value);
}

void md_finish_store(md_body *b, const md_point *p) {
  const md_region_view *r = b->k->r;
  md_ir *value = MD_NEW_ARRAY(b->k->arena, md_ir, r->num_outputs);
  for (int i = 0; i < r->num_outputs; i++) {
    const md_node *n = md_inner(r, r->output[i]);
    if (md_type_in(r->g, r->output[i])->shape.rank != p->rank) continue;
    if (!is_reduction(n) && follows(r, n)) value[i] = md_body_value(b, r->output[i], p);
  }
  for (int i = 0; i < r->num_outputs; i++)
    if (value[i]) md_body_store(b, r->output[i], p, value[i]);
}

typedef struct Kept {
  md_kernel *k;
  md_val v;
} Kept;

static void keep(void *ctx, const md_point *p) {
  const Kept *c = ctx;
  md_body b;
  md_body_init(&b, c->k);
  md_body_store(&b, c->v, p, md_body_value(&b, c->v, p));
}

void md_finish_kept(md_kernel *k) {
  const md_region_view *r = k->r;
  for (int i = 0; i < r->num_outputs; i++) {
    const md_node *n = md_inner(r, r->output[i]);
    if (follows(r, n) || is_reduction(n)) continue;
    Kept c = {k, r->output[i]};
    md_walk w = md_walk_of(k, md_type_in(r->g, c.v));
    md_walk_phase(k, "kept", &w, keep, &c);
  }
}

md_dtype md_wide_dtype(md_dtype d) { return d == MD_F64 ? MD_F64 : MD_F32; }
