// SPDX-License-Identifier: Apache-2.0
// What reductions add up, one section for all who reduce. It is gathered in double (sums.c: of bf16, by rows), so that
// the variance of values far from zero survives: E[x^2] - E[x]^2 loses the digits that the mean has
// over the deviation, and of those float inputs leave double enough.
#include "codegen/cpu/emit.h"

#include <math.h>

int md_reduce_quantities(const md_node *n) {
  return n->op == MD_OP_moments || n->op == MD_OP_batch_norm_sums ? 2 : 1;
}

md_ir md_reduce_neutral(md_emit *e, const md_node *n, LLVMTypeRef type, int lanes) {
  return md_const(e, type, lanes, n->op == MD_OP_max ? -INFINITY : 0);
}

md_ir md_reduce_join(md_emit *e, const md_node *n, md_ir a, md_ir b) {
  return n->op == MD_OP_max ? md_fmax(e, a, b) : md_fadd(e, a, b);
}

void md_reduce_terms(md_body *b, const md_node *n, const md_point *p, LLVMTypeRef type,
                     md_ir *term) {
  md_emit *e = &b->k->e;
  md_ir first = md_body_value(b, n->in[0], p);
  term[0] = md_convert(e, first, type);
  if (n->op == MD_OP_moments) {
    term[1] = md_fmul(e, term[0], term[0]);
  } else if (n->op == MD_OP_batch_norm_sums) {
    const md_shape *x = &md_type_in(b->k->r->g, n->in[1])->shape;
    int64_t groups = md_type_in(b->k->r->g, n->in[2])->shape.dim[0];
    md_ir at[] = {md_idivc(e, md_imulc(e, p->at[0], groups), x->dim[0]), p->at[1]};
    if (groups == 1) at[0] = md_i64(e, 0);
    md_point statistics = md_point_of(2, at, p->lane_axis, p->lanes, p->mask);
    if (p->lane_axis != 1) {  // one channel for all lanes
      statistics = md_point_of(2, at, -1, 1, NULL);
    }
    md_ir mean =
        md_splat(e, md_body_value(b, n->in[2], &statistics), p->lane_axis == 1 ? 1 : p->lanes);
    md_ir away = md_fsub(e, md_body_value(b, n->in[1], p), mean);
    term[1] = md_fmul(e, term[0], md_convert(e, away, type));
  }
}

void md_reduce_store(md_body *b, const md_node *n, int64_t count, const md_point *p,
                     const md_ir *total) {
  md_emit *e = &b->k->e;
  md_ir per = md_const_like(e, total[0], 1 / (double)count);
  if (n->op == MD_OP_moments) {
    md_ir mean = md_fmul(e, total[0], per);
    md_ir var = md_fsub(e, md_fmul(e, total[1], per), md_fmul(e, mean, mean));
    md_body_store(b, n->out, p, mean);
    md_body_store(b, n->out + 1, p, md_fmax(e, var, md_const_like(e, var, 0)));
  } else if (n->op == MD_OP_batch_norm_sums) {
    md_ir var = md_convert(e, md_body_value(b, n->in[3], p), e->f64);
    md_ir eps = md_const_like(e, var, n->attr.f.value);
    md_ir scale = md_fdiv(e, per, md_sqrt_of(e, md_fadd(e, var, eps)));
    md_body_store(b, n->out, p, md_fmul(e, total[0], per));
    md_body_store(b, n->out + 1, p, md_fmul(e, total[1], scale));
  } else {
    md_body_store(b, n->out, p, total[0]);
  }
}
