// SPDX-License-Identifier: Apache-2.0
// Filters of pictures. They are separable, so each axis is a pass of its own: a thread for an element
// of the pass's result, which mixes a few elements of its source along the axis. The first source is
// the operand, passes between leave their results in the workspace. Where elements come from, and
// weights, are computed in double as the interpreter does (spec §14).
#include "codegen/cuda/gen.h"

// The operand, or a row-major buffer in the workspace.
typedef struct Source {
  md_val val;  // MD_NONE: a buffer
  int64_t place;
  md_shape shape;
} Source;

typedef struct Pass {
  md_cu_kernel k;
  md_cu_work *w;
  md_arena *a;
  const md_node *node;
  md_cu_type type;
  const char *type_name;
  int axis;
  Source from, to;  // to.val: the node's result
  int64_t weights;  // of a blur: [sample][tap] in the workspace
} Pass;

static Pass pass_of(md_cu_work *w, const md_node *n) {
  const md_type *t = md_type_in(w->r->g, n->out);
  Pass p = {.w = w, .a = w->arena, .node = n, .type = md_cu_compute_type(t->dtype)};
  p.type_name = md_cu_type_name(p.type);
  p.from = (Source){.val = n->in[0], .shape = md_type_in(w->r->g, n->in[0])->shape};
  return p;
}

static int64_t bytes_of(const Pass *p, const md_shape *s) {
  return md_elements(s) * (p->type == MD_CU_DOUBLE ? 8 : 4);
}

// Where the last pass goes is the node's result; others get a buffer.
static Source target(Pass *p, const md_shape *s, bool last) {
  Source to = {.val = last ? p->node->out : MD_NONE, .shape = *s};
  if (!last) to.place = md_cu_reserve(p->w, bytes_of(p, s));
  return to;
}

// The source's element for the result at s, `at` along the axis.
static const char *element(Pass *p, md_cu_spot *s, md_cu_ix at) {
  md_cu_spot in = md_cu_spot_moved(&p->k, s, &p->from.shape, p->axis, at);
  if (p->from.val) return md_cu_value_as(&p->k, p->from.val, &in, p->type);
  const char *from =
      md_cu_workspace(&p->k, p->from.place, bytes_of(p, &p->from.shape), p->type_name, false);
  return md_format(p->a, "%s[%s]", from, md_cu_flat(&p->k, &in));
}

static void put(Pass *p, md_cu_spot *s, const char *text) {
  if (p->to.val) {
    md_cu_store(&p->k, p->to.val, s, text);
    return;
  }
  const char *to =
      md_cu_workspace(&p->k, p->to.place, bytes_of(p, &p->to.shape), p->type_name, true);
  md_cu_line(&p->k, NULL, "%s[%s] = %s;", to, md_cu_flat(&p->k, s), text);
}

// One pass; `mix` makes `sum`, the result at the place.
static void run(Pass *p, const char *what, void (*mix)(Pass *p, md_cu_spot *s)) {
  int64_t blocks;
  md_cu_begin(&p->k, p->w, what);
  md_cu_mark m = md_cu_open_elements(&p->k, md_elements(&p->to.shape), &blocks);
  md_type order = {.shape = p->to.shape};
  if (p->to.val) order = *md_type_in(p->w->r->g, p->to.val);
  md_cu_spot s = md_cu_spot_memory(&p->k, &order, "e");
  for (int i = 0; i < p->to.shape.rank; i++) md_cu_axis(&p->k, &s, i);
  md_cu_line(&p->k, NULL, "%s sum = 0;", p->type_name);
  mix(p, &s);
  put(p, &s, "sum");
  md_cu_close(&p->k, m);
  md_cu_end(&p->k, blocks);
}

// --- resize

static void mix_linear(Pass *p, md_cu_spot *s) {
  md_cu_kernel *k = &p->k;
  long long in = (long long)p->from.shape.dim[p->axis], out = (long long)p->to.shape.dim[p->axis];
  const char *at = md_cu_axis(k, s, p->axis);
  if (!p->node->attr.resize.align_corners)
    md_cu_line(k, NULL, "const double from = ((double)%s + 0.5) * %lld.0 / %lld.0 - 0.5;", at, in,
               out);
  else if (out > 1)
    md_cu_line(k, NULL, "const double from = (double)%s * %lld.0 / %lld.0;", at, in - 1, out - 1);
  else md_cu_line(k, NULL, "const double from = 0.0;");
  md_cu_line(k, NULL, "const double src = from < 0.0 ? 0.0 : from > %lld.0 ? %lld.0 : from;",
             in - 1, in - 1);
  md_cu_line(k, NULL, "const int first = (int)src;");
  md_cu_line(k, NULL, "const double weight = src - (double)first;");
  md_cu_line(k, NULL, "sum = (%s)(1.0 - weight) * %s;", p->type_name, element(p, s, "first"));
  md_cu_mark m = md_cu_open(k, NULL, "if (first + 1 < %lld) {", in);
  md_cu_ix next = md_cu_name(k, "first + 1");
  md_cu_line(k, NULL, "sum += (%s)weight * %s;", p->type_name, element(p, s, next));
  md_cu_close(k, m);
}

// A triangle as wide as the scale when shrinking, cut at the border and normalised.
static void mix_triangle(Pass *p, md_cu_spot *s) {
  md_cu_kernel *k = &p->k;
  long long in = (long long)p->from.shape.dim[p->axis], out = (long long)p->to.shape.dim[p->axis];
  const char *scale = md_format(p->a, "(%lld.0 / %lld.0)", in, out);
  const char *width = in > out ? scale : "1.0";
  md_cu_line(k, NULL, "const double centre = ((double)%s + 0.5) * %s;", md_cu_axis(k, s, p->axis),
             scale);
  md_cu_line(k, NULL, "const double low = centre - %s + 0.5, high = centre + %s + 0.5;", width,
             width);
  md_cu_line(k, NULL, "const int first = low < 0.0 ? 0 : (int)low;");
  md_cu_line(k, NULL, "const int last = high < %lld.0 ? (int)high : %lld;", in, in);
  md_cu_line(k, NULL, "double total = 0.0;");
  md_cu_mark m = md_cu_open(k, NULL, "for (int j = first; j < last; j++) {");
  md_cu_line(k, NULL, "const double away = md_absd((double)j - centre + 0.5) / %s;", width);
  md_cu_line(k, NULL, "const double weight = away < 1.0 ? 1.0 - away : 0.0;");
  md_cu_line(k, NULL, "total += weight;");
  md_cu_line(k, NULL, "sum += (%s)weight * %s;", p->type_name, element(p, s, "j"));
  md_cu_close(k, m);
  md_cu_line(k, NULL, "sum = sum / (%s)total;", p->type_name);
}

void md_cu_resize(md_cu_work *w, const md_node *n) {
  const md_resize_attr *a = &n->attr.resize;
  Pass p = pass_of(w, n);
  int order[MD_MAX_RANK], num = md_resize_order(&p.from.shape, a, order);
  for (int i = 0; i < num; i++) {
    md_shape s = p.from.shape;
    p.axis = order[i];
    s.dim[p.axis] = a->size.d[p.axis - s.rank + num];
    p.to = target(&p, &s, i + 1 == num);
    run(&p, "resize along an axis", a->antialias ? mix_triangle : mix_linear);
    p.from = p.to;
  }
}

// --- blur

static int64_t weight_bytes(const Pass *p) {
  return p->from.shape.dim[0] * p->node->attr.blur.size * (p->type == MD_CU_DOUBLE ? 8 : 4);
}

// A thread for a sample. A sigma of 0 copies.
static void weigh(Pass *p) {
  md_cu_kernel *k = &p->k;
  int64_t blocks;
  long long size = (long long)p->node->attr.blur.size;
  md_cu_begin(k, p->w, "weights of the blur");
  md_cu_mark m = md_cu_open_elements(k, p->from.shape.dim[0], &blocks);
  const char *to = md_cu_workspace(k, p->weights, weight_bytes(p), p->type_name, true);
  md_cu_spot s = {.shape = &md_type_in(p->w->r->g, p->node->in[1])->shape, .at = {"e"}};
  md_cu_line(k, NULL, "const double sigma = %s;",
             md_cu_value_as(k, p->node->in[1], &s, MD_CU_DOUBLE));
  md_cu_line(k, NULL, "double total = 0.0;");
  for (int normal = 0; normal < 2; normal++) {
    md_cu_mark loop = md_cu_open(k, NULL, "for (int j = 0; j < %lld; j++) {", size);
    md_cu_line(k, NULL, "const double away = (double)(j - %lld);", size / 2);
    md_cu_line(k, NULL, "const double x = sigma > 0.0 ? away / sigma : 0.0;");
    md_cu_line(k, NULL,
               "const double y = sigma > 0.0 || away == 0.0 ? md_expd(-0.5 * x * x) : 0.0;");
    if (normal) md_cu_line(k, NULL, "%s[e * %lld + j] = (%s)(y / total);", to, size, p->type_name);
    else md_cu_line(k, NULL, "total += y;");
    md_cu_close(k, loop);
  }
  md_cu_close(k, m);
  md_cu_end(k, blocks);
}

// The border is reflected without its edge.
static void mix_blur(Pass *p, md_cu_spot *s) {
  md_cu_kernel *k = &p->k;
  long long size = (long long)p->node->attr.blur.size, in = (long long)p->from.shape.dim[p->axis];
  const char *weights = md_cu_workspace(k, p->weights, weight_bytes(p), p->type_name, false);
  const char *type = md_cu_index_type(k);
  md_cu_mark m = md_cu_open(k, NULL, "for (int j = 0; j < %lld; j++) {", size);
  md_cu_line(k, NULL, "const %s at = %s + j - %lld;", type, md_cu_axis(k, s, p->axis), size / 2);
  md_cu_line(k, NULL, "const %s inside = at < 0 ? -at : at < %lld ? at : %lld - at;", type, in,
             2 * (in - 1));
  md_cu_line(k, NULL, "sum += %s[%s * %lld + j] * %s;", weights, md_cu_axis(k, s, 0), size,
             element(p, s, "inside"));
  md_cu_close(k, m);
}

void md_cu_blur(md_cu_work *w, const md_node *n) {
  Pass p = pass_of(w, n);
  p.weights = md_cu_reserve(w, weight_bytes(&p));
  weigh(&p);
  for (int i = 1; i <= 2; i++) {
    p.axis = p.from.shape.rank - i;
    p.to = target(&p, &p.from.shape, i == 2);
    run(&p, "blur along an axis", mix_blur);
    p.from = p.to;
  }
}
