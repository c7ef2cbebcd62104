// SPDX-License-Identifier: Apache-2.0
// What a convolution fetches into L2 while it multiplies, so that memory is busy then: what the next tile packs, and
// what an epilogue reads. A few lines at a time, as a processor drops what is asked for in bursts.
#include "codegen/cpu/conv.h"
#include "codegen/cpu/parts.h"
#include "codegen/cpu/place.h"

void md_fetch_pixel(const md_conv *c, const md_dense *d, md_val src, md_ir n, md_ir block,
                    const md_ir m0[3], md_ir pixel) {
  const md_region_view *r = c->k->r;
  md_emit *e = &c->k->e;
  const md_shape *shape = &md_type_in(r->g, src)->shape;
  md_ir at[5] = {n, md_imulc(e, block, c->lanes)};
  for (int i = 0; i < 2; i++) at[2 + i] = md_iaddc(e, md_imulc(e, m0[i], d->in_step[i]), d->lo[i]);
  at[4] = pixel;
  md_point p = md_pixel_point(c, d, at, NULL);
  md_spot spot = md_spot_of(&p);
  for (int i = 0; i < r->num_inputs; i++) {
    const md_type *t = md_type_in(r->g, r->input[i]);
    if (!t->block || !md_shape_equal(&t->shape, shape)) continue;
    md_index x = md_spot_offset(e, t, &spot);
    md_prefetch(e, t->dtype, md_kernel_arg(c->k, r->input[i]), x.base);
  }
}

// A share of what the next item packs; w: the register tile's first pixel. In a block of its own: among the products
// LLVM would run out of registers.
static void fetch_ahead(const md_item *s, md_ir sb, md_ir w, int64_t pixels, int blocks,
                        md_ir block) {
  const md_conv *c = s->c;
  md_emit *e = &c->k->e;
  int64_t share = md_ceil_div(pixels * blocks, c->dst_blocks);
  md_ir from = md_imulc(e, md_idivc(e, block, blocks), share);
  md_ir is_next = md_ilt(e, s->next_n, md_i64(e, c->n));
  md_ir is_left = md_ilt(e, from, md_i64(e, pixels));
  md_if f = md_if_begin(e, LLVMBuildAnd(e->b, is_next, is_left, ""), "ahead");
  md_ir first = md_iadd(e, md_iadd(e, s->next_m0[2], w), from);
  for (int64_t i = 0; i < share; i++)
    md_fetch_pixel(c, s->d, c->src, s->next_n, sb, s->next_m0, md_iaddc(e, first, i));
  md_if_end(e, &f);
}

bool md_reads_results(const md_conv *c, const md_dense *d) {
  const md_region_view *r = c->k->r;
  const md_shape *shape = &md_type_in(r->g, c->dst)->shape;
  if (d->tail > 2 || c->dst_blocks < c->src_blocks) return false;
  for (int i = 0; i < r->num_nodes; i++) {
    const md_node *n = r->node[i];
    for (int k = 0; k < n->num_in && md_in_epilogue(r, n); k++) {
      md_val v = n->in[k];
      if (v && !md_inner(r, v) && md_shape_equal(&md_type_in(r->g, v)->shape, shape)) return true;
    }
  }
  return false;
}

// What the epilogue reads at the register tile's own places, a share of it for each source block. Its condition next to
// never fails, but keeps LLVM from joining the block with the products.
static void fetch_results(const md_item *s, md_ir sb, md_ir w, int64_t pixels, int blocks,
                          md_ir block) {
  const md_conv *c = s->c;
  md_emit *e = &c->k->e;
  int64_t share = md_ceil_div(pixels * blocks, c->src_blocks);
  md_if f = md_if_begin(e, md_ilt(e, s->next_n, md_i64(e, c->n)), "results");
  for (int64_t i = 0; i < share; i++) {
    md_ir line = md_iaddc(e, md_imulc(e, sb, share), i);
    md_ir pixel = md_iadd(e, md_iadd(e, s->m0[2], w), md_imodc(e, line, pixels));
    md_fetch_pixel(c, s->d, c->dst, s->n, md_iadd(e, block, md_idivc(e, line, pixels)), s->m0,
                   pixel);
  }
  md_if_end(e, &f);
}

void md_item_fetch(const md_item *s, md_ir sb, md_ir w, int64_t pixels, int blocks, md_ir block) {
  if (s->fetches_results)
    fetch_results(s, md_iadd(&s->c->k->e, s->first, sb), w, pixels, blocks, block);
  if (s->d->ahead) fetch_ahead(s, sb, w, pixels, blocks, block);
}
