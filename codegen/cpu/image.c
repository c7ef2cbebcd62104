// SPDX-License-Identifier: Apache-2.0
// Pictures. Filters are separable, so each axis is a pass of its own: a walk over the pass's result
// that mixes a few elements of its source along the axis. The first source is the operand (with its
// prologue), passes between leave floats in the workspace, the last runs the epilogue. Axes other
// than the last go first, where lanes run along the last axis and taps are the same for all of them.
#include "codegen/cpu/parts.h"

#include <math.h>

// What a pass reads: the operand of the anchor, or a row-major buffer in the workspace.
typedef struct Source {
  md_kernel *k;
  md_val val;
  int64_t place;
  md_dtype dtype;
  md_shape shape;
} Source;

// Source at p; indices of the lanes may start anywhere.
static md_ir source_at(const Source *s, const md_point *p) {
  md_kernel *k = s->k;
  md_emit *e = &k->e;
  if (s->val) {
    md_body b;
    md_body_init(&b, k);
    return md_body_value(&b, s->val, p);
  }
  md_ir from = md_workspace(k, s->place), off = md_flat_offset(e, &s->shape, p->at);
  if (p->lanes == 1 || p->lane_axis == s->shape.rank - 1)
    return md_load(e, s->dtype, from, off, p->lanes, p->mask);
  int64_t step = 1;
  for (int i = p->lane_axis + 1; i < s->shape.rank; i++) step *= s->shape.dim[i];
  md_ir all = md_iadd(e, md_splat(e, off, p->lanes), md_iota(e, e->i64, p->lanes, 0, step));
  return md_gather(e, s->dtype, from, all, p->mask);
}

// Source where the index on the last axis, the lane axis, is `index` <lanes x i64>.
static md_ir source_gather(const Source *s, const md_point *p, md_ir index) {
  md_kernel *k = s->k;
  md_emit *e = &k->e;
  md_point one = *p;
  int last = p->rank - 1;
  if (!s->val) {
    one.at[last] = md_i64(e, 0);
    md_ir line = md_flat_offset(e, &s->shape, one.at);
    md_ir all = md_iadd(e, md_splat(e, line, p->lanes), index);
    return md_gather(e, s->dtype, md_workspace(k, s->place), all, p->mask);
  }
  md_ir r = LLVMGetPoison(md_lanes_type(md_compute_type(e, s->dtype), p->lanes));
  one.lanes = 1;
  one.lane_axis = -1;
  one.mask = NULL;
  for (int i = 0; i < p->lanes; i++) {
    one.at[last] = md_get_lane(e, index, i);
    md_body b;
    md_body_init(&b, k);
    r = md_set_lane(e, r, i, md_body_value(&b, s->val, &one));
  }
  return r;
}

static Source operand_source(md_kernel *k, md_val v) {
  const md_type *t = md_type_in(k->r->g, v);
  return (Source){k, v, 0, md_wide_dtype(t->dtype), t->shape};
}

static Source buffer_source(md_kernel *k, md_dtype dtype, const md_shape *s) {
  int64_t bytes = md_elements(s) * md_dtype_size(dtype);
  return (Source){k, MD_NONE, md_workspace_reserve(k, bytes), dtype, *s};
}

// A pass: `mix` gives the element of the result at p.
typedef struct Pass Pass;
typedef md_ir Mix(const Pass *pass, const md_point *p);
struct Pass {
  md_kernel *k;
  Mix *mix;
  Source from;
  const Source *to;  // NULL: the anchor's result
  int axis;
  const void *filter;
};

static void finish(md_kernel *k, md_ir value, const md_point *p) {
  md_body b;
  md_body_init(&b, k);
  md_finish_set(&b, k->r->anchor->out, value);
  md_finish_store(&b, p);
}

static void put_mixed(void *ctx, const md_point *p) {
  const Pass *pass = ctx;
  md_emit *e = &pass->k->e;
  md_ir v = pass->mix(pass, p);
  if (!pass->to) {
    finish(pass->k, v, p);
    return;
  }
  md_ir off = md_flat_offset(e, &pass->to->shape, p->at);
  md_store(e, pass->to->dtype, md_workspace(pass->k, pass->to->place), off, v, p->mask);
}

static void emit_pass(Pass *pass, const char *what) {
  md_type t = *md_type_in(pass->k->r->g, pass->k->r->anchor->out);
  if (pass->to) t = (md_type){.dtype = pass->to->dtype, .shape = pass->to->shape};
  md_walk w = md_walk_of(pass->k, &t);
  md_walk_phase(pass->k, what, &w, put_mixed, pass);
}

// --- resize

// Element o of the result mixes `num` elements from first[o] on; weight[t * size + o].
typedef struct Taps {
  int64_t num, size, in;
  md_ir first, weight;
  md_dtype dtype;
} Taps;

// As op_image.c has it (spec §14).
static int64_t linear_taps(int64_t at, int64_t in, int64_t out, bool align_corners,
                           double *weight) {
  double src = ((double)at + 0.5) * (double)in / (double)out - 0.5;
  if (align_corners) src = out > 1 ? (double)at * (double)(in - 1) / (double)(out - 1) : 0;
  src = fmin(fmax(src, 0), (double)(in - 1));
  int64_t first = MD_MIN((int64_t)src, in - 1);
  weight[1] = src - (double)first;
  weight[0] = 1 - weight[1];
  return first;
}

static int64_t triangle_taps(int64_t at, int64_t in, int64_t out, int64_t *num, double *weight) {
  double scale = (double)in / (double)out, width = fmax(scale, 1);
  double centre = ((double)at + 0.5) * scale, total = 0;
  int64_t first = MD_MAX((int64_t)(centre - width + 0.5), 0);
  int64_t last = MD_MIN((int64_t)(centre + width + 0.5), in);
  for (int64_t j = first; j < last; j++) {
    double away = fabs((double)j - centre + 0.5) / width;
    weight[j - first] = away < 1 ? 1 - away : 0;
    total += weight[j - first];
  }
  *num = last - first;
  for (int64_t j = 0; j < *num; j++) weight[j] /= total;
  return first;
}

static md_ir table(md_kernel *k, LLVMTypeRef type, md_ir *value, int64_t num, const char *name) {
  md_ir array = LLVMConstArray2(type, value, (uint64_t)num);
  md_ir g = LLVMAddGlobal(k->e.mod, LLVMTypeOf(array), name);
  LLVMSetInitializer(g, array);
  LLVMSetGlobalConstant(g, true);
  LLVMSetLinkage(g, LLVMPrivateLinkage);
  return g;
}

static Taps taps_of(md_kernel *k, const md_resize_attr *a, int64_t in, int64_t out,
                    md_dtype dtype) {
  md_emit *e = &k->e;
  // A triangle is 2 max(in/out, 1) wide and may touch one element more.
  int64_t room = a->antialias ? 2 * md_ceil_div(MD_MAX(in, out), out) + 2 : 2;
  LLVMTypeRef type = md_compute_type(e, dtype);
  double *weight = MD_NEW_ARRAY(k->arena, double, out *room);
  md_ir *first = MD_NEW_ARRAY(k->arena, md_ir, out);
  int64_t most = a->antialias ? 0 : 2;
  for (int64_t o = 0; o < out; o++) {
    int64_t num = 2, from = a->antialias
                                ? triangle_taps(o, in, out, &num, &weight[o * room])
                                : linear_taps(o, in, out, a->align_corners != 0, &weight[o * room]);
    most = MD_MAX(most, num);
    first[o] = md_i32(e, (int32_t)from);
  }
  md_ir *all = MD_NEW_ARRAY(k->arena, md_ir, out * most);
  for (int64_t t = 0; t < most; t++)
    for (int64_t o = 0; o < out; o++) all[t * out + o] = md_const(e, type, 1, weight[o * room + t]);
  return (Taps){most,
                out,
                in,
                table(k, e->i32, first, out, "first"),
                table(k, type, all, out * most, "weight"),
                dtype};
}

static md_ir mix_taps(const Pass *pass, const md_point *p) {
  md_emit *e = &pass->k->e;
  const Taps *taps = pass->filter;
  bool along = p->lane_axis == pass->axis;
  int lanes = along ? p->lanes : 1;
  md_ir o = p->at[pass->axis], mask = along ? p->mask : NULL;
  md_ir first = md_convert(e, md_load(e, MD_I32, taps->first, o, lanes, mask), e->i64);
  md_ir last = md_const_like(e, first, (double)(taps->in - 1));
  LLVMTypeRef type = md_compute_type(e, taps->dtype);
  md_var sum = md_var_new(e, md_lanes_type(type, p->lanes), NULL, "sum");
  md_set(e, sum, md_zero(sum.type));
  md_loop t = md_loop_begin(e, md_i64(e, 0), md_i64(e, taps->num), 1, "tap");
  md_ir off = md_iadd(e, md_imulc(e, t.i, taps->size), o);
  md_ir weight = md_load(e, taps->dtype, taps->weight, off, lanes, mask);
  // Taps behind the last have weight 0.
  md_ir index = md_imin(e, md_iadd(e, first, md_splat(e, t.i, lanes)), last), x;
  if (along && lanes > 1) {
    x = source_gather(&pass->from, p, index);
  } else {
    md_point q = *p;
    q.at[pass->axis] = index;
    x = source_at(&pass->from, &q);
    weight = md_splat(e, weight, p->lanes);
  }
  md_set(e, sum, md_fma(e, md_convert(e, x, type), weight, md_get(e, sum)));
  md_loop_end(e, &t);
  return md_get(e, sum);
}

static void emit_resize(md_kernel *k) {
  const md_node *n = k->r->anchor;
  const md_resize_attr *a = &n->attr.resize;
  md_finish_kept(k);
  Source from = operand_source(k, n->in[0]);
  int order[MD_MAX_RANK], num = md_resize_order(&from.shape, a, order);
  for (int i = 0; i < num; i++) {
    int axis = order[i];
    md_shape s = from.shape;
    s.dim[axis] = a->size.d[axis - s.rank + num];
    Taps taps = taps_of(k, a, from.shape.dim[axis], s.dim[axis], from.dtype);
    Source to = {0};
    if (i + 1 < num) to = buffer_source(k, from.dtype, &s);
    Pass pass = {k, mix_taps, from, i + 1 < num ? &to : NULL, axis, &taps};
    emit_pass(&pass, "resize");
    from = to;
  }
}

// --- blur

typedef struct Blur {
  int64_t size, place;
  md_dtype dtype;
} Blur;  // weights [sample][size]

static int64_t num_samples(const md_kernel *k) {
  return md_type_in(k->r->g, k->r->anchor->in[0])->shape.dim[0];
}

static md_ir gauss(md_emit *e, md_ir sigma, md_ir tap, int64_t size) {
  md_ir away = md_convert(e, md_iaddc(e, tap, -(size / 2)), e->f64),
        one = md_const_like(e, sigma, 1);
  md_ir zero = md_const_like(e, sigma, 0);
  md_ir some = md_flt(e, zero, sigma), x = md_fdiv(e, away, md_select(e, some, sigma, one));
  md_ir y = md_exp_of(e, md_fmul(e, md_fmul(e, x, x), md_const_like(e, x, -0.5)));
  md_ir centre = md_ieq(e, tap, md_i64(e, size / 2));
  return md_select(e, some, y, md_select(e, centre, one, zero));
}

static Blur blur_weights(md_kernel *k) {
  md_emit *e = &k->e;
  const md_node *n = k->r->anchor;
  Blur w = {.size = n->attr.blur.size};
  w.dtype = md_wide_dtype(md_type_in(k->r->g, n->in[0])->dtype);
  w.place = md_workspace_reserve(k, num_samples(k) * w.size * md_dtype_size(w.dtype));
  md_phase_begin(k, "weights", num_samples(k), 0);
  md_ir sample = k->item;
  md_body b;
  md_body_init(&b, k);
  md_point p = md_point_of(1, &sample, -1, 1, NULL);
  md_ir sigma = md_convert(e, md_body_value(&b, n->in[1], &p), e->f64);
  md_var total = md_var_new(e, e->f64, NULL, "total");
  md_set(e, total, md_const(e, e->f64, 1, 0));
  md_loop t = md_loop_begin(e, md_i64(e, 0), md_i64(e, w.size), 1, "tap");
  md_set(e, total, md_fadd(e, md_get(e, total), gauss(e, sigma, t.i, w.size)));
  md_loop_end(e, &t);
  t = md_loop_begin(e, md_i64(e, 0), md_i64(e, w.size), 1, "tap");
  md_ir y = md_fdiv(e, gauss(e, sigma, t.i, w.size), md_get(e, total));
  md_store(e, w.dtype, md_workspace(k, w.place), md_iadd(e, md_imulc(e, k->item, w.size), t.i), y,
           NULL);
  md_loop_end(e, &t);
  md_phase_end(k);
  return w;
}

// Mirrored at the border without repeating its element; scalar or vector.
static md_ir reflected(md_emit *e, md_ir i, int64_t n) {
  md_ir zero = md_zero(LLVMTypeOf(i)), end = md_const_like(e, i, (double)n);
  md_ir low = md_select(e, md_ilt(e, i, zero), md_isub(e, zero, i), i);
  md_ir mirrored = md_isub(e, md_const_like(e, i, (double)(2 * (n - 1))), i);
  return md_select(e, md_ilt(e, i, end), low, mirrored);
}

// Sum over the taps; `inside`: the whole window of a vector along the axis lies in the picture.
static void blur_taps(const Pass *pass, const md_point *p, md_var sum, bool along, bool inside) {
  md_emit *e = &pass->k->e;
  const Blur *w = pass->filter;
  int64_t size = pass->from.shape.dim[pass->axis];
  md_loop t = md_loop_begin(e, md_i64(e, 0), md_i64(e, w->size), 1, "tap");
  md_ir at = md_iadd(e, md_iaddc(e, p->at[pass->axis], -(w->size / 2)), t.i), x;
  md_point q = *p;
  q.at[pass->axis] = at;
  if (along && !inside) {
    md_ir all = md_iadd(e, md_splat(e, at, p->lanes), md_iota(e, e->i64, p->lanes, 0, 1));
    x = source_gather(&pass->from, p, reflected(e, all, size));
  } else {
    if (!along) q.at[pass->axis] = reflected(e, at, size);
    x = source_at(&pass->from, &q);
  }
  md_ir off = md_iadd(e, md_imulc(e, p->at[0], w->size), t.i);
  md_ir weight = md_load(e, w->dtype, md_workspace(pass->k, w->place), off, 1, NULL);
  x = md_convert(e, x, md_compute_type(e, w->dtype));
  md_set(e, sum, md_fma(e, x, md_splat(e, weight, p->lanes), md_get(e, sum)));
  md_loop_end(e, &t);
}

static md_ir mix_blur(const Pass *pass, const md_point *p) {
  md_emit *e = &pass->k->e;
  const Blur *w = pass->filter;
  bool along = p->lane_axis == pass->axis && p->lanes > 1;
  md_var sum = md_var_new(e, md_lanes_type(md_compute_type(e, w->dtype), p->lanes), NULL, "sum");
  md_set(e, sum, md_zero(sum.type));
  if (!along) {
    blur_taps(pass, p, sum, false, false);
    return md_get(e, sum);
  }
  int64_t half = w->size / 2, end = pass->from.shape.dim[pass->axis] - half - p->lanes;
  md_ir at = p->at[pass->axis];
  md_ir inside =
      LLVMBuildAnd(e->b, md_ilt(e, md_i64(e, half - 1), at), md_ilt(e, at, md_i64(e, end + 1)), "");
  md_if f = md_if_begin(e, inside, "inside");
  blur_taps(pass, p, sum, true, true);
  md_if_else(e, &f);
  blur_taps(pass, p, sum, true, false);
  md_if_end(e, &f);
  return md_get(e, sum);
}

static void emit_blur(md_kernel *k) {
  md_finish_kept(k);
  Blur w = blur_weights(k);
  Source x = operand_source(k, k->r->anchor->in[0]);
  int rank = x.shape.rank;
  Source half = buffer_source(k, x.dtype, &x.shape);
  Pass rows = {k, mix_blur, x, &half, rank - 2, &w};
  emit_pass(&rows, "blur_h");
  Pass columns = {k, mix_blur, half, NULL, rank - 1, &w};
  emit_pass(&columns, "blur_w");
}

// --- luma

static md_ir luma(md_kernel *k, const md_point *p) {
  md_emit *e = &k->e;
  const double *factor = k->r->anchor->attr.real;
  md_body b;
  md_body_init(&b, k);
  md_ir sum = NULL;
  for (int c = 0; c < 3; c++) {
    md_point q = *p;
    q.at[1] = md_i64(e, c);
    md_ir x = md_body_value(&b, k->r->anchor->in[0], &q);
    md_ir y = md_fmul(e, x, md_const_like(e, x, factor[c]));
    sum = sum ? md_fadd(e, sum, y) : y;
  }
  return sum;
}

// Lanes are channels: one number for all of them.
static void put_luma(void *ctx, const md_point *p) {
  md_kernel *k = ctx;
  md_point one = *p;
  one.lanes = 1;
  one.lane_axis = -1;
  one.mask = NULL;
  finish(k, md_splat(&k->e, luma(k, &one), p->lanes), p);
}

static void put_three(void *ctx, const md_point *p) {
  md_kernel *k = ctx;
  md_ir y = luma(k, p);
  for (int c = 0; c < 3; c++) {
    md_point q = *p;
    q.at[1] = md_i64(&k->e, c);
    finish(k, y, &q);
  }
}

static void emit_grayscale(md_kernel *k) {
  md_finish_kept(k);
  md_type t = *md_type_in(k->r->g, k->r->anchor->out);
  bool lanes_are_channels = t.block || t.shape.rank == 2;
  if (!lanes_are_channels) t.shape.dim[1] = 1;
  md_walk w = md_walk_of(k, &t);
  md_walk_phase(k, "luma", &w, lanes_are_channels ? put_luma : put_three, k);
}

// --- differences of frames

static void put_difference(void *ctx, const md_point *p) {
  md_kernel *k = ctx;
  md_emit *e = &k->e;
  md_val x = k->r->anchor->in[0];
  md_point next = *p;
  next.at[2] = md_iaddc(e, p->at[2], 1);
  md_body b;
  md_body_init(&b, k);
  md_ir d = md_fsub(e, md_body_value(&b, x, &next), md_body_value(&b, x, p));
  if (!k->r->anchor->attr.i.value) d = md_intrinsic(e, "llvm.fabs", &d, 1, LLVMTypeOf(d));
  finish(k, d, p);
}

static void emit_difference(md_kernel *k) {
  md_finish_kept(k);
  md_walk w = md_walk_of(k, md_type_in(k->r->g, k->r->anchor->out));
  md_walk_phase(k, "difference", &w, put_difference, k);
}

// --- rows of the table

static const char *refuse_op(const md_region_view *r, const md_cpu *cpu, md_op op) {
  if (!r->anchor || r->anchor->op != op) return "";
  return md_finish_refuse(r, cpu, false);
}
static const char *refuse_resize(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_resize);
}
static const char *refuse_blur(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_gaussian_blur);
}
static const char *refuse_grayscale(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_grayscale);
}
static const char *refuse_difference(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_frame_difference);
}

const md_lowering md_image_rows[] = {
    {"resize by axes", refuse_resize, emit_resize},
    {"blur by axes", refuse_blur, emit_blur},
    {"grayscale", refuse_grayscale, emit_grayscale},
    {"frame difference", refuse_difference, emit_difference},
    {0},
};
