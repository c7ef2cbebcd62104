// SPDX-License-Identifier: Apache-2.0
// Per-channel reductions that ride in the epilogue of a convolution: the kernel adds up what it has
// in registers, stores partials for each (channel block, sample, part), and a last phase joins them
// in that order. Of bf16, whose squares f32 holds exactly, a row of pixels is added up in f32 before it
// joins the rest in double; so are the sums of gradients of bf16, which take no difference of squares.
#include "codegen/cpu/emit.h"

struct md_sums {
  md_kernel *k;
  int num, max_blocks, lanes, num_acc;
  const md_node **node;
  int64_t samples, channels, blocks, parts, count;  // count: elements of a sample and channel
  bool *by_rows;                                    // of each node
  md_var *acc, *row;  // [block][quantity], of the function that is being built
  md_ir fn;
  int64_t partials;  // double [channel block][sample][part][quantity][lane]
};

static const md_shape *source(const md_region_view *r, const md_node *n) {
  return &md_type_in(r->g, n->in[0])->shape;
}

static const char *refuse_node(const md_region_view *r, const md_node *n) {
  const md_shape *s = source(r, n);
  if (s->rank < 2) return "reduces a vector";
  for (int i = 0; i < n->num_out; i++) {
    for (int k = 0; k < r->num_nodes; k++) {
      for (int j = 0; j < r->node[k]->num_in; j++) {
        if (r->node[k]->in[j] == n->out + (md_val)i) return "reads a reduction in its own region";
      }
    }
  }
  if (n->op == MD_OP_moments || n->op == MD_OP_batch_norm_sums) return NULL;
  const md_dims *axes = &n->attr.axes.axes;
  for (int64_t i = 0; i < axes->n; i++) {
    if (axes->d[i] == 1) return "reduces the channels";
  }
  return axes->n == s->rank - 1 ? NULL : "reduces some axes only";
}

const char *md_sums_refuse(const md_region_view *r) {
  const md_shape *shape = NULL;
  for (int i = 0; i < r->num_nodes; i++) {
    const md_node *n = r->node[i];
    if (md_ops[n->op].role != MD_REDUCE) continue;
    const char *why = refuse_node(r, n);
    if (why) return why;
    if (shape && !md_shape_equal(shape, source(r, n))) return "reduces tensors of two shapes";
    shape = source(r, n);
  }
  return NULL;
}

// Is v bf16, perhaps widened?
static bool is_bf16(const md_region_view *r, md_val v) {
  const md_node *n = md_inner(r, v);
  if (n && n->op == MD_OP_cast) v = n->in[0];
  return md_type_in(r->g, v)->dtype == MD_BF16;
}

md_sums *md_sums_create(md_kernel *k, int64_t parts, int max_blocks) {
  const md_region_view *r = k->r;
  md_sums *s = MD_NEW(k->arena, md_sums);
  *s = (md_sums){.k = k, .max_blocks = max_blocks, .parts = parts, .lanes = k->e.cpu->lanes};
  s->node = MD_NEW_ARRAY(k->arena, const md_node *, r->num_nodes);
  for (int i = 0; i < r->num_nodes; i++) {
    if (md_ops[r->node[i]->op].role != MD_REDUCE) continue;
    s->node[s->num++] = r->node[i];
    s->num_acc += md_reduce_quantities(r->node[i]);
  }
  if (!s->num) return NULL;
  const md_shape *shape = source(r, s->node[0]);
  s->samples = shape->dim[0];
  s->channels = shape->dim[1];
  s->blocks = md_ceil_div(s->channels, s->lanes);
  s->count = md_elements(shape) / (s->samples * s->channels);
  s->acc = MD_NEW_ARRAY(k->arena, md_var, max_blocks * s->num_acc);
  s->row = MD_NEW_ARRAY(k->arena, md_var, max_blocks * s->num_acc);
  s->by_rows = MD_NEW_ARRAY(k->arena, bool, s->num);
  for (int i = 0; i < s->num; i++)
    s->by_rows[i] = is_bf16(r, r->anchor->out) &&
                    (s->node[i]->op != MD_OP_moments || is_bf16(r, s->node[i]->in[0]));
  int64_t bytes = s->blocks * s->samples * parts * s->num_acc * s->lanes * 8;
  s->partials = md_workspace_reserve(k, bytes);
  return s;
}

void md_sums_clear(md_sums *s, int blocks) {
  if (!s) return;
  md_emit *e = &s->k->e;
  for (int i = 0; i < s->max_blocks * s->num_acc && s->fn != e->fn; i++) {
    s->acc[i] = md_var_new(e, md_lanes_type(e->f64, s->lanes), NULL, "acc");
    s->row[i] = md_var_new(e, md_lanes_type(e->f32, s->lanes), NULL, "row");
  }
  s->fn = e->fn;
  for (int b = 0, acc = 0; b < blocks; b++) {
    for (int i = 0; i < s->num; i++) {
      for (int q = 0; q < md_reduce_quantities(s->node[i]); q++, acc++) {
        md_set(e, s->acc[acc], md_reduce_neutral(e, s->node[i], e->f64, s->lanes));
        md_set(e, s->row[acc], md_reduce_neutral(e, s->node[i], e->f32, s->lanes));
      }
    }
  }
}

void md_sums_add(md_sums *s, int block, md_body *b, const md_point *p) {
  if (!s) return;
  md_emit *e = &s->k->e;
  for (int i = 0, acc = block * s->num_acc; i < s->num; i++) {
    const md_node *n = s->node[i];
    const md_var *to = s->by_rows[i] ? s->row : s->acc;
    md_ir term[MD_MAX_QUANTITIES];
    md_reduce_terms(b, n, p, s->by_rows[i] ? e->f32 : e->f64, term);
    for (int q = 0; q < md_reduce_quantities(n); q++, acc++)
      md_set(e, to[acc], md_reduce_join(e, n, md_get(e, to[acc]), term[q]));
  }
}

void md_sums_row(md_sums *s, int blocks) {
  if (!s) return;
  md_emit *e = &s->k->e;
  for (int b = 0, acc = 0; b < blocks; b++) {
    for (int i = 0; i < s->num; i++) {
      const md_node *n = s->node[i];
      for (int q = 0; q < md_reduce_quantities(n); q++, acc++) {
        if (!s->by_rows[i]) continue;
        md_ir row = md_convert(e, md_get(e, s->row[acc]), e->f64);
        md_set(e, s->acc[acc], md_reduce_join(e, n, md_get(e, s->acc[acc]), row));
        md_set(e, s->row[acc], md_reduce_neutral(e, n, e->f32, s->lanes));
      }
    }
  }
}

// Row `row` of a channel block: sample * parts + part.
static md_ir partial_at(md_sums *s, md_ir channel_block, md_ir row, int acc) {
  md_emit *e = &s->k->e;
  md_ir at = md_iadd(e, md_imulc(e, channel_block, s->samples * s->parts), row);
  return md_imulc(e, md_iaddc(e, md_imulc(e, at, s->num_acc), acc), s->lanes);
}

void md_sums_store(md_sums *s, int block, md_ir n, md_ir channel_block, md_ir part) {
  if (!s) return;
  md_emit *e = &s->k->e;
  md_ir to = md_workspace(s->k, s->partials);
  md_ir row = md_iadd(e, md_imulc(e, n, s->parts), part);
  for (int i = 0; i < s->num_acc; i++) {
    md_ir at = partial_at(s, channel_block, row, i);
    md_store(e, MD_F64, to, at, md_get(e, s->acc[block * s->num_acc + i]), NULL);
  }
}

// Results of node i for the channels of this item; a group is a run of rows.
static void merge_node(md_sums *s, int i, int first_acc) {
  md_emit *e = &s->k->e;
  const md_node *n = s->node[i];
  const md_shape *result = &md_type_in(s->k->r->g, n->out)->shape;
  int64_t groups = result->rank == 2 ? result->dim[0] : 1;
  int64_t rows = s->samples / groups * s->parts;
  md_ir from = md_workspace(s->k, s->partials);
  md_ir channel = md_imulc(e, s->k->item, s->lanes), mask = NULL;
  if (s->channels % s->lanes) {
    mask = md_first_lanes(e, md_isub(e, md_i64(e, s->channels), channel), s->lanes);
  }
  md_loop g = md_loop_begin(e, md_i64(e, 0), md_i64(e, groups), 1, "group");
  md_var acc[MD_MAX_QUANTITIES];
  int num = md_reduce_quantities(n);
  for (int q = 0; q < num; q++) {
    md_ir neutral = md_reduce_neutral(e, n, e->f64, s->lanes);
    acc[q] = md_var_new(e, LLVMTypeOf(neutral), neutral, "acc");
  }
  md_ir first = md_imulc(e, g.i, rows);
  md_loop l = md_loop_begin(e, first, md_iaddc(e, first, rows), 1, "row");
  for (int q = 0; q < num; q++) {
    md_ir x =
        md_load(e, MD_F64, from, partial_at(s, s->k->item, l.i, first_acc + q), s->lanes, NULL);
    md_set(e, acc[q], md_reduce_join(e, n, md_get(e, acc[q]), x));
  }
  md_loop_end(e, &l);
  md_ir total[MD_MAX_QUANTITIES], at[] = {g.i, channel};
  for (int q = 0; q < num; q++) total[q] = md_get(e, acc[q]);
  md_body b;
  md_body_init(&b, s->k);
  bool grouped = result->rank == 2;
  md_point p = md_point_of(grouped ? 2 : 1, grouped ? at : at + 1, grouped, s->lanes, mask);
  md_reduce_store(&b, n, s->samples / groups * s->count, &p, total);
  md_loop_end(e, &g);
}

void md_sums_finish(md_sums *s) {
  if (!s) return;
  for (int i = 0; i < s->num; i++) {
    for (int q = 0; q < s->node[i]->num_out; q++)
      md_kernel_place(s->k, s->node[i]->out + (md_val)q);
  }
  md_phase_begin(s->k, "merge", s->blocks, 0);
  for (int i = 0, acc = 0; i < s->num; i++) {
    merge_node(s, i, acc);
    acc += md_reduce_quantities(s->node[i]);
  }
  md_phase_end(s->k);
}
