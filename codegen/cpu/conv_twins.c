// SPDX-License-Identifier: Apache-2.0
// Both gradients of a 1x1x1 convolution of stride 1, which read the same dy:
//
//     dx[p, i] = sum over o of dy[p, o] * w[o, i]        dw[o, i] = sum over p of dy[p, o] * x[p, i]
//
// An item walks over tiles of pixels. Of each it packs dy and x once (prologues applied), adds to its own part of
// dw as conv_wgrad.c does, and makes dx with what follows it as conv_dense.c does: what that reads of x is in
// cache by then. A last phase adds the parts in order.
//
// Of few channels both gradients are bound by what they read. With many, where they multiply all the time, the
// pass (facts twin_weights) leaves them apart.
#include "codegen/cpu/conv.h"

enum { ITEMS = 16, MAX_PIXELS = 128, MIN_PIXELS = 14, MIN_TILES = 8 };

const char *md_twins_refuse(const md_region_view *r) {
  const md_node *d = r->anchor, *w = r->twin;
  if (!w) return "";
  const md_shape *kernel = &md_type_in(r->g, w->out)->shape;
  bool plain = md_elements(kernel) == kernel->dim[0] * kernel->dim[1] &&
               md_shape_equal(&md_type_in(r->g, w->in[1])->shape, &md_type_in(r->g, d->out)->shape);
  for (int i = 0; i < 3; i++)
    plain = plain && d->attr.conv3d.stride.d[i] == 1 && d->attr.conv3d.pad.d[i] == 0 &&
            w->attr.conv3d.stride.d[i] == 1 && w->attr.conv3d.pad.d[i] == 0;
  if (!plain) return "its two gradients are not those of a 1x1x1 convolution of stride 1";
  return md_read_inside(r, w->out) ? "something follows the weight gradient" : NULL;
}

// A divisor of the pixels, so that all tiles are alike. Small ones, each fetched while the one before is multiplied,
// which leave most of L2 to what is fetched and to dw.
static void choose_tile(const md_conv *c, md_dense *d) {
  int64_t pixels = d->grid[2], each = (c->src_c + c->dst_c) * c->bytes;
  int64_t most = MD_MIN(c->k->e.cpu->l2_bytes * 3 / 8 / each, MAX_PIXELS);
  most = MD_MIN(most, pixels * c->n / MIN_TILES);
  d->tile[2] = MD_MAX(MD_MIN(pixels, most), 1);
  while (pixels % d->tile[2]) d->tile[2]--;
  if (d->tile[2] < MIN_PIXELS) {
    d->tile[2] = MD_MIN(MIN_PIXELS, pixels);
    while (pixels % d->tile[2]) d->tile[2]++;
  }
  md_set_window(d);
  d->chunk = c->src_blocks;
  d->ahead = false;
}

// The tile of number `index` among those of all samples.
static md_item item_of(const md_conv *c, const md_dense *d, md_sums *sums, md_ir index) {
  md_emit *e = &c->k->e;
  int64_t tiles = md_dense_tiles(d);
  md_ir next = md_iaddc(e, index, 1);
  md_item s = {.c = c,
               .d = d,
               .num = 1,
               .sums = sums,
               .n = md_idivc(e, index, tiles),
               .part = md_imodc(e, index, tiles),
               .first = md_i64(e, 0),
               .blocks = md_i64(e, c->src_blocks),
               .window = c->k->scratch,
               .next_n = md_idivc(e, next, tiles)};
  for (int i = 0; i < 3; i++) {
    s.tile[i] = d->tile[i];
    s.extent[i] = md_i64(e, d->tile[i]);
    s.m0[i] = s.next_m0[i] = md_i64(e, 0);
  }
  s.m0[2] = md_imulc(e, s.part, d->tile[2]);
  s.next_m0[2] = md_imulc(e, md_imodc(e, next, tiles), d->tile[2]);
  return s;
}

// An item: `each` tiles, one after another.
static void emit_items(const md_conv *c, const md_dense *d, md_wgrad *w, md_sums *sums,
                       int64_t weights, int64_t splits, int64_t each) {
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  int64_t window = md_round_up(md_window_bytes(c, d) * c->src_blocks, 64);
  md_phase_begin(k, "both", splits, window + md_wgrad_bytes(w));
  md_wgrad_begin(w, k->item, md_at(e, MD_U8, k->scratch, md_i64(e, window)));
  md_ir first = md_imulc(e, k->item, each);
  md_ir last = md_imin(e, md_iaddc(e, first, each), md_i64(e, md_dense_tiles(d) * c->n));
  md_loop tile = md_loop_begin(e, first, last, 1, "tile");
  md_item s = item_of(c, d, sums, tile.i);
  s.panels = md_workspace(k, weights);
  md_pack_window(c, d, c->src, c->src_c, s.first, s.blocks, s.n, s.m0, s.tile, s.window, NULL);
  md_wgrad_pack(w, s.window, s.n, s.m0, s.next_n, s.next_m0);
  md_wgrad_add(w);
  md_in_pairs(e, c->dst_blocks, md_item_group, &s);
  md_loop_end(e, &tile);
  md_phase_end(k);
}

void md_emit_conv_twins(md_kernel *k) {
  const md_region_view *both = k->r;
  const md_node *dgrad = both->anchor;
  md_conv c = md_conv_of(k, dgrad->in[0], dgrad->in[1], dgrad->out);
  md_conv_parts p;
  md_conv_split(&c, &p);
  md_dense d = p.from;
  choose_tile(&c, &d);
  int64_t each, splits = md_split_items(md_dense_tiles(&d) * c.n, ITEMS, &each);
  k->r = md_region_view_of(both->g, 0, both->twin, k->arena);
  const md_region_view *alone = k->r;
  md_wgrad *w = md_wgrad_create(k, &d, splits);
  k->r = both;
  int64_t bytes = c.dst_blocks * md_panel_cells(&c) * md_dtype_size(c.cell);
  int64_t weights = md_workspace_reserve(k, bytes);
  md_sums *sums = md_sums_create(k, md_dense_tiles(&d), 2);
  md_pack_panels(&c, weights);
  emit_items(&c, &d, w, sums, weights, splits, each);
  k->r = alone;
  md_wgrad_merge(w);
  k->r = both;
  md_sums_finish(sums);
}
