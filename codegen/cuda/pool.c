// SPDX-License-Identifier: Apache-2.0
// Pooling as values: an element of the result, or of a gradient, looks through its window. A gradient
// asks the windows that cover its element, so nobody adds to what another thread adds to.
#include "codegen/cuda/gen.h"

enum { MAX_UNROLLED = 32 };  // elements of a window whose loops are unrolled

// Loops over the places of the other tensor, axes t, h, w; what they open is closed at the end.
typedef struct Window {
  md_cu_kernel *k;
  md_cu_spot at;       // there
  const char *inside;  // is it a place of the window? NULL: always
  md_cu_mark mark[7];
  int num_marks;
} Window;

// What a window leaves of each element: a variable, or one for each lane of a vector.
typedef struct Found {
  bool by_lane;
  md_cu_lanes lanes;
} Found;

static md_cu_ix open_loop(Window *v, int64_t num, bool unrolled) {
  const char *j = md_cu_counter(v->k);
  v->mark[v->num_marks++] = md_cu_open(v->k, NULL, "%sfor (int %s = 0; %s < %lld; %s++) {",
                                       unrolled ? "MD_UNROLL " : "", j, j, (long long)num, j);
  return j;
}

static void close_all(Window *v) {
  while (v->num_marks) md_cu_close(v->k, v->mark[--v->num_marks]);
}

static const char *variable(md_cu_kernel *k, const Found *f, md_cu_type type, const char *init) {
  if (!f->by_lane) return md_cu_variable(k, type, init);
  const char *name = md_format(k->w->arena, "t%d", k->num_value++), *x = init;
  md_cu_line(k, NULL, "%s %s[8] = {%s, %s, %s, %s, %s, %s, %s, %s};", md_cu_type_name(type), name,
             x, x, x, x, x, x, x, x);
  return md_format(k->w->arena, "%s[j]", name);
}

static void open_element(md_cu_kernel *k, Found *f) {
  if (f->by_lane) md_cu_open_lanes(k, &f->lanes);
}

static void close_element(md_cu_kernel *k, const Found *f) {
  if (f->by_lane) md_cu_close_lanes(k);
}

static Window window_of(md_cu_kernel *k, md_cu_spot *s, const md_shape *other) {
  Window v = {.k = k, .at = {.shape = other}};
  for (int i = 0; i < 5; i++) v.at.at[i] = md_cu_axis(k, s, i);
  return v;
}

static const char *both_hold(md_cu_kernel *k, const char *a, const char *b) {
  return a ? md_format(k->w->arena, "%s && %s", a, b) : b;
}

// Places of the operand in the window of the result at s. Padding is below the window, so each axis
// has one, and the place next to padding is in the window too: it is taken instead, so that loads wait
// for nothing and what they have in common is computed once.
static Window open_window(md_cu_kernel *k, const md_pool3d_attr *a, md_cu_spot *s,
                          const md_shape *x) {
  Window v = window_of(k, s, x);
  bool unrolled = a->kernel.d[0] * a->kernel.d[1] * a->kernel.d[2] <= MAX_UNROLLED;
  for (int i = 0; i < 3; i++) {
    md_cu_ix both[] = {v.at.at[2 + i], "0"};
    if (a->kernel.d[i] > 1) both[1] = open_loop(&v, a->kernel.d[i], unrolled);
    md_cu_ix at = md_cu_linear(k, 2, both, (int64_t[]){a->stride.d[i], 1}, -a->pad.d[i]);
    v.at.at[2 + i] = at;
    if (!a->pad.d[i]) continue;
    long long last = (long long)x->dim[2 + i] - 1;
    v.at.at[2 + i] = md_cu_name(
        k, md_format(k->w->arena, "%s < 0 ? 0 : %s > %lld ? %lld : %s", at, at, last, last, at));
    v.inside = both_hold(k, v.inside, md_format(k->w->arena, "%s == %s", at, v.at.at[2 + i]));
  }
  return v;
}

// Places o of the result whose windows hold the operand's element at s, in order: those of
//   o * stride - pad <= place < o * stride - pad + kernel
// and where there is none, one that is near, so that here, too, loads wait for nothing.
static Window open_covering(md_cu_kernel *k, const md_pool3d_attr *a, md_cu_spot *s,
                            const md_shape *y) {
  Window v = window_of(k, s, y);
  md_arena *arena = k->w->arena;
  int64_t places = 1;
  for (int i = 0; i < 3; i++) places *= md_ceil_div(a->kernel.d[i], a->stride.d[i]);
  for (int i = 0; i < 3; i++) {
    int64_t kernel = a->kernel.d[i], stride = a->stride.d[i], pad = a->pad.d[i];
    int64_t most = md_ceil_div(kernel, stride), last = s->shape->dim[2 + i] - 1 + pad;
    md_cu_ix padded = md_cu_linear(k, 1, &v.at.at[2 + i], (int64_t[]){1}, pad);
    md_cu_ix both[] = {md_cu_digit(k, padded, stride, 0), "0"};
    if (most > 1) both[1] = open_loop(&v, most, places <= MAX_UNROLLED);
    md_cu_ix o = md_cu_linear(k, 2, both, (int64_t[]){1, 1}, 1 - most);
    v.at.at[2 + i] = o;
    const char *near = o;
    if (most > 1) near = md_format(arena, "%s < 0 ? 0 : %s", o, near);
    if (last / stride >= y->dim[2 + i])
      near = md_format(arena, "%s > %lld ? %lld : %s", o, (long long)y->dim[2 + i] - 1,
                       (long long)y->dim[2 + i] - 1, near);
    if (near != o) {
      v.at.at[2 + i] = md_cu_name(k, near);
      v.inside = both_hold(k, v.inside, md_format(arena, "%s == %s", o, v.at.at[2 + i]));
    }
    if (kernel % stride)
      v.inside = both_hold(k, v.inside,
                           md_format(arena, "%s - %s * %lld < %lld", padded, o, (long long)stride,
                                     (long long)kernel));
  }
  return v;
}

// An index: the place of the operand's element x in the window of the result at y, (t*KH + h)*KW + w.
static md_cu_ix place_in_window(md_cu_kernel *k, const md_pool3d_attr *a, md_cu_spot *x,
                                md_cu_spot *y) {
  const int64_t *kernel = a->kernel.d;
  md_cu_ix tap[3];
  for (int i = 0; i < 3; i++) {
    md_cu_ix both[] = {md_cu_axis(k, x, 2 + i), md_cu_axis(k, y, 2 + i)};
    tap[i] = "0";
    if (kernel[i] > 1)
      tap[i] = md_cu_linear(k, 2, both, (int64_t[]){1, -a->stride.d[i]}, a->pad.d[i]);
  }
  return md_cu_linear(k, 3, tap, (int64_t[]){kernel[1] * kernel[2], kernel[2], 1}, 0);
}

// The first element counts whatever it is, and a NaN beats all but an earlier one. An element that
// stands for padding too is met again after all that come before it.
static void largest(md_cu_kernel *k, const md_node *n, md_cu_spot *s, Found *f,
                    const char **result) {
  md_cu_type type = md_cu_compute_type(md_type_in(k->w->r->g, n->out)->dtype);
  const char *best = variable(k, f, type, md_cu_literal(k->w->arena, type, 0));
  const char *winner = variable(k, f, MD_CU_INT, "-1");
  Window v = open_window(k, &n->attr.pool3d, s, &md_type_in(k->w->r->g, n->in[0])->shape);
  md_cu_ix place = place_in_window(k, &n->attr.pool3d, &v.at, s);
  open_element(k, f);
  const char *x = md_cu_value_as(k, n->in[0], &v.at, type);
  md_cu_mark m = md_cu_open(k, NULL, "if (%s < 0 || %s > %s || (%s != %s && %s == %s)) {", winner,
                            x, best, x, x, best, best);
  md_cu_line(k, NULL, "%s = %s;", best, x);
  md_cu_line(k, NULL, "%s = (int)%s;", winner, place);
  md_cu_close(k, m);
  close_element(k, f);
  close_all(&v);
  result[0] = best;
  result[1] = winner;
}

static void largest_grad(md_cu_kernel *k, const md_node *n, md_cu_spot *s, Found *f,
                         const char **result) {
  md_cu_type type = md_cu_compute_type(md_type_in(k->w->r->g, n->out)->dtype);
  const char *sum = variable(k, f, type, md_cu_literal(k->w->arena, type, 0));
  Window v = open_covering(k, &n->attr.pool3d, s, &md_type_in(k->w->r->g, n->in[0])->shape);
  md_cu_ix here = place_in_window(k, &n->attr.pool3d, s, &v.at);
  open_element(k, f);
  const char *winner = md_cu_value_as(k, n->in[1], &v.at, MD_CU_INT);
  const char *dy = md_cu_value_as(k, n->in[0], &v.at, type);
  const char *is_winner = md_format(k->w->arena, "%s == %s", winner, here);
  md_cu_line(k, NULL, "if (%s) %s += %s;", both_hold(k, v.inside, is_winner), sum, dy);
  close_element(k, f);
  close_all(&v);
  result[0] = sum;
}

static void mean(md_cu_kernel *k, const md_node *n, md_cu_spot *s, Found *f, const char **result) {
  const char *sum = variable(k, f, MD_CU_DOUBLE, "0.0");
  const md_shape *in = &md_type_in(k->w->r->g, n->in[0])->shape;
  Window v = n->op == MD_OP_avg_pool3d ? open_window(k, &n->attr.pool3d, s, in)
                                       : open_covering(k, &n->attr.pool3d, s, in);
  open_element(k, f);
  const char *x = md_cu_value_as(k, n->in[0], &v.at, MD_CU_DOUBLE);
  if (v.inside) md_cu_line(k, NULL, "%s += %s ? %s : 0.0;", sum, v.inside, x);
  else md_cu_line(k, NULL, "%s += %s;", sum, x);
  close_element(k, f);
  close_all(&v);
  const int64_t *kernel = n->attr.pool3d.kernel.d;
  long long count = (long long)(kernel[0] * kernel[1] * kernel[2]);
  result[0] = md_cu_from_double(k, n->out, md_format(k->w->arena, "%s / %lld.0", sum, count));
}

bool md_cu_is_pool(md_op op) {
  return op == MD_OP_max_pool3d || op == MD_OP_max_pool3d_grad || op == MD_OP_avg_pool3d ||
         op == MD_OP_avg_pool3d_grad;
}

// The caller's spot keeps no index that is named in front of its lanes.
void md_cu_pool(md_cu_kernel *k, const md_node *n, md_cu_spot s, const char **result) {
  Found f = {.by_lane = md_cu_enter_before(k, &s)};
  for (int i = 0; i < s.shape->rank; i++) md_cu_axis(k, &s, i);  // named before any branch or loop
  if (n->op == MD_OP_max_pool3d) largest(k, n, &s, &f, result);
  else if (n->op == MD_OP_max_pool3d_grad) largest_grad(k, n, &s, &f, result);
  else mean(k, n, &s, &f, result);
  if (f.by_lane) md_cu_leave_before(k);
}
