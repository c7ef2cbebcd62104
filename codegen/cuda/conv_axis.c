// SPDX-License-Identifier: Apache-2.0
// Where the elements of a convolution lie, axis by axis. The gradient for the source of a strided
// convolution falls apart by the residue of the place: for each, the taps that reach it are every
// so-manyth, and what they meet lies side by side. So no product with zero is formed.
#include "codegen/cuda/conv.h"

#include <string.h>

md_cu_map md_cu_map_forward(const md_region_view *r, const md_node *n) {
  bool weights = n->op == MD_OP_conv3d_wgrad;
  const md_shape *src = &md_type_in(r->g, n->in[weights ? 1 : 0])->shape;
  const md_shape *dst = &md_type_in(r->g, weights ? n->in[0] : n->out)->shape;
  const md_shape *kernel = &md_type_in(r->g, weights ? n->out : n->in[1])->shape;
  const md_conv3d_attr *attr = &n->attr.conv3d;
  md_cu_map to;
  for (int a = 0; a < 3; a++)
    to.axis[a] = (md_cu_axis_map){.num = dst->dim[2 + a],
                                  .out_step = 1,
                                  .taps = kernel->dim[2 + a],
                                  .tap_step = 1,
                                  .from_q = attr->stride.d[a],
                                  .from_m = attr->dilation.d[a],
                                  .from0 = -attr->pad.d[a],
                                  .size = src->dim[2 + a]};
  return to;
}

static int64_t gcd(int64_t a, int64_t b) { return b ? gcd(b, a % b) : a; }

// Place x = residue + q * stride of dx meets tap k where x + pad - k * dilation is a multiple of the
// stride; from the first such tap on it is every (stride / gcd)th.
static md_cu_axis_map backward_axis(int64_t places, int64_t size, int64_t taps, int64_t stride,
                                    int64_t pad, int64_t dilation, int64_t residue) {
  md_cu_axis_map m = {.num = residue < places ? md_ceil_div(places - residue, stride) : 0,
                      .out0 = residue,
                      .out_step = stride,
                      .tap_step = stride / gcd(dilation, stride),
                      .from_q = 1,
                      .size = size};
  int64_t first = 0;
  while (first < taps && (residue + pad - first * dilation) % stride != 0) first++;
  if (first == taps) return m;
  m.taps = md_ceil_div(taps - first, m.tap_step);
  m.tap0 = first;
  m.from0 = (residue + pad - first * dilation) / stride;
  m.from_m = -(m.tap_step * dilation / stride);
  return m;
}

bool md_cu_map_backward(const md_region_view *r, const md_node *n, const int64_t residue[3],
                        md_cu_map *to) {
  const md_shape *src = &md_type_in(r->g, n->in[0])->shape;
  const md_shape *dst = &md_type_in(r->g, n->out)->shape;
  const md_shape *kernel = &md_type_in(r->g, n->in[1])->shape;
  const md_conv3d_attr *attr = &n->attr.conv3d;
  for (int a = 0; a < 3; a++)
    to->axis[a] = backward_axis(dst->dim[2 + a], src->dim[2 + a], kernel->dim[2 + a],
                                attr->stride.d[a], attr->pad.d[a], attr->dilation.d[a], residue[a]);
  return md_cu_map_places(to) > 0;
}

int64_t md_cu_map_places(const md_cu_map *a) {
  return a->axis[0].num * a->axis[1].num * a->axis[2].num;
}

int64_t md_cu_map_taps(const md_cu_map *a) {
  return a->axis[0].taps * a->axis[1].taps * a->axis[2].taps;
}

bool md_cu_map_is_identity(const md_cu_map *a) {
  for (int i = 0; i < 3; i++) {
    const md_cu_axis_map *m = &a->axis[i];
    if (m->taps != 1 || m->from_q != 1 || m->from0 || m->size != m->num || m->out_step != 1)
      return false;
  }
  return true;
}

int64_t md_cu_groups(const md_region_view *r) {
  int64_t groups = 1;
  for (int i = 0; i < r->num_nodes; i++) {
    const md_node *n = r->node[i];
    if (n->op == MD_OP_moments) groups = MD_MAX(groups, md_type_in(r->g, n->out)->shape.dim[0]);
    for (int k = 0; k < n->num_in + n->num_out; k++) {
      const md_operand_spec *spec = NULL;
      md_val v = k < n->num_in ? n->in[k] : n->out + (md_val)(k - n->num_in);
      if (v == MD_NONE || md_op_num_out(n->op) == 0) continue;
      spec = k < n->num_in ? md_op_in(n->op, k) : md_op_out(n->op, k - n->num_in);
      if (spec && spec->num_axes == 2 && !strcmp(spec->axis[0], "g"))
        groups = MD_MAX(groups, md_type_in(r->g, v)->shape.dim[0]);
    }
  }
  return groups;
}
