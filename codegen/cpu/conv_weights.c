// SPDX-License-Identifier: Apache-2.0
// The gradient of weights, dw[o,i,t,h,w], on its way to memory, where elements along o lie far apart: sums have their
// lanes along o.
#include "codegen/cpu/conv.h"
#include "codegen/cpu/parts.h"

static int64_t taps_of(const md_conv *c) { return c->kernel[0] * c->kernel[1] * c->kernel[2]; }

static void store(const md_conv *c, const md_point *p, md_ir sum) {
  md_body body;
  md_body_init(&body, c->k);
  md_finish_set(&body, c->w, sum);
  md_finish_store(&body, p);
}

// As many sums as a vector has lanes make whole lines: those of a block of input channels, taps and all.
static void store_lines(const md_conv *c, md_ir ob, md_ir ib, md_weight_of *of, const void *ctx) {
  md_emit *e = &c->k->e;
  int64_t taps = taps_of(c);
  md_loop j = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->lanes * taps), c->lanes, "j");
  md_ir line[64];
  for (int l = 0; l < c->lanes; l++) {
    md_ir at = md_iaddc(e, j.i, l);
    line[l] = of(ctx, ob, ib, md_imodc(e, at, taps), md_idivc(e, at, taps));
  }
  md_turn_lanes(e, line, c->lanes);
  for (int l = 0; l < c->lanes; l++) {
    md_ir at[5] = {md_iaddc(e, md_imulc(e, ob, c->lanes), l),
                   md_iadd(e, md_imulc(e, ib, c->lanes * taps), j.i)};
    md_point p = md_point_of(5, at, 1, c->lanes, NULL);
    p.tail = 1;
    store(c, &p, line[l]);
  }
  md_loop_end(e, &j);
}

void md_store_weights(const md_conv *c, md_ir ob, md_ir ib, md_weight_of *of, const void *ctx) {
  md_emit *e = &c->k->e;
  bool whole = c->src_c % c->lanes == 0 && c->dst_c % c->lanes == 0;
  if (whole && !md_type_in(c->k->r->g, c->w)->block) {
    store_lines(c, ob, ib, of, ctx);
    return;
  }
  md_ir mask = md_channel_mask(e, c->dst_c, ob, c->lanes);
  md_ir channel = md_imulc(e, ib, c->lanes), lanes = md_i64(e, c->lanes);
  md_ir rows = md_imin(e, md_isub(e, md_i64(e, c->src_c), channel), lanes);
  md_loop row = md_loop_begin(e, md_i64(e, 0), rows, 1, "i");
  md_loop tap = md_loop_begin(e, md_i64(e, 0), md_i64(e, taps_of(c)), 1, "tap");
  md_ir at[5] = {md_imulc(e, ob, c->lanes), md_iadd(e, channel, row.i),
                 md_idivc(e, tap.i, c->kernel[1] * c->kernel[2]),
                 md_imodc(e, md_idivc(e, tap.i, c->kernel[2]), c->kernel[1]),
                 md_imodc(e, tap.i, c->kernel[2])};
  md_point p = md_point_of(5, at, 0, c->lanes, mask);
  store(c, &p, of(ctx, ob, ib, tap.i, row.i));
  md_loop_end(e, &tap);
  md_loop_end(e, &row);
}
