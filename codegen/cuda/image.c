// SPDX-License-Identifier: Apache-2.0
// Filters of pictures. They are separable, so each axis is a pass of its own: a thread for an element
// of the pass's result, which mixes a few elements of its source along the axis. The first source is
// the operand, passes between leave their results in the workspace. Where elements come from, and
// weights, are computed in double as the interpreter does (spec §14). A blur makes both of its axes tile
// by tile, what lies between in shared memory.
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
  md_cu_mark m = md_cu_open_elements(&p->k, md_elements(&p->to.shape), false, &blocks);
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
  md_cu_mark m = md_cu_open_elements(k, p->from.shape.dim[0], false, &blocks);
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

enum { TILE_COLUMNS = 32, LEAST_ROWS = 32, FEW_LAID_OUT = 64, MOST_LAID_OUT = 128 };

// Rows of a tile: what it lays out has size - 1 more. 0: too few, or neighbours do not lie side by side.
static int64_t tile_rows(const Pass *p) {
  const md_graph *g = p->w->r->g;
  if (md_type_in(g, p->node->in[0])->block || md_type_in(g, p->node->out)->block) return 0;
  int64_t around = p->node->attr.blur.size - 1;
  for (int64_t num = FEW_LAID_OUT; num <= MOST_LAID_OUT; num *= 2)
    if (num - around >= LEAST_ROWS) return num - around;
  return 0;
}

// Names "h0", the tile's first row, "w", the thread's column, and the picture's index on all other axes.
static md_cu_spot put_tile(Pass *p, int64_t rows) {
  md_cu_kernel *k = &p->k;
  const md_shape *x = &p->from.shape;
  int h = x->rank - 2, w = x->rank - 1;
  const char *type = md_cu_index_type(k);
  int64_t across = md_ceil_div(x->dim[w], TILE_COLUMNS), down = md_ceil_div(x->dim[h], rows);
  md_cu_line(k, NULL, "const %s w = (%s)(tile %% %lld) * %d + column;", type, type,
             (long long)across, TILE_COLUMNS);
  md_cu_line(k, NULL, "const %s h0 = (%s)(tile / %lld %% %lld) * %lld;", type, type,
             (long long)across, (long long)down, (long long)rows);
  md_cu_spot s = {.shape = x};
  s.at[w] = "w";
  int64_t div = across * down;
  for (int i = h - 1; i >= 0; i--) {
    s.at[i] = x->dim[i] == 1 ? "0" : md_cu_digit(k, "tile", div, i ? x->dim[i] : 0);
    div *= x->dim[i];
  }
  return s;
}

// "for (the thread's rows i of num, if it has a column) {"
static md_cu_mark open_rows(Pass *p, const char *num) {
  md_cu_kernel *k = &p->k;
  return md_cu_open(k, NULL, "for (int i = row; i < %s && w < %lld; i += %d) {", num,
                    (long long)p->from.shape.dim[p->from.shape.rank - 1],
                    MD_CU_THREADS / TILE_COLUMNS);
}

// Rows as the second axis meets them: those outside are reflected here.
static void lay_out_rows(Pass *p, md_cu_spot s) {
  md_cu_kernel *k = &p->k;
  const char *type = md_cu_index_type(k);
  long long size = (long long)p->node->attr.blur.size;
  p->axis = s.shape->rank - 1;
  long long high = (long long)s.shape->dim[p->axis - 1];
  md_cu_mark m = open_rows(p, md_format(p->a, "num + %lld", size - 1));
  md_cu_line(k, NULL, "const %s y = h0 + i - %lld;", type, size / 2);
  md_cu_line(k, NULL, "const %s h = y < 0 ? -y : y < %lld ? y : %lld - y;", type, high,
             2 * (high - 1));
  s.at[p->axis - 1] = "h";
  md_cu_line(k, NULL, "%s sum = 0;", p->type_name);
  mix_blur(p, &s);
  md_cu_line(k, NULL, "rows[i * %d + column] = sum;", TILE_COLUMNS);
  md_cu_close(k, m);
}

static void mix_rows(Pass *p, md_cu_spot s) {
  md_cu_kernel *k = &p->k;
  long long size = (long long)p->node->attr.blur.size;
  const char *weights = md_cu_workspace(k, p->weights, weight_bytes(p), p->type_name, false);
  md_cu_mark m = open_rows(p, "num");
  md_cu_line(k, NULL, "%s sum = 0;", p->type_name);
  md_cu_mark taps = md_cu_open(k, NULL, "for (int j = 0; j < %lld; j++) {", size);
  md_cu_line(k, NULL, "sum += %s[%s * %lld + j] * rows[(i + j) * %d + column];", weights,
             md_cu_axis(k, &s, 0), size, TILE_COLUMNS);
  md_cu_close(k, taps);
  s.at[s.shape->rank - 2] = md_cu_name(k, "h0 + i");
  md_cu_store(k, p->node->out, &s, "sum");
  md_cu_close(k, m);
}

static void blur_tiles(Pass *p, int64_t rows) {
  md_cu_kernel *k = &p->k;
  const md_shape *x = &p->from.shape;
  int64_t high = x->dim[x->rank - 2], wide = x->dim[x->rank - 1];
  int64_t tiles =
      md_elements(x) / (high * wide) * md_ceil_div(high, rows) * md_ceil_div(wide, TILE_COLUMNS);
  int64_t blocks = MD_MIN(tiles, MD_CU_BLOCKS);
  md_cu_begin(k, p->w, "blur of tiles");
  k->shared_bytes = (int)((rows + p->node->attr.blur.size - 1) * TILE_COLUMNS *
                          (p->type == MD_CU_DOUBLE ? 8 : 4));
  md_cu_line(k, NULL, "MD_SHARED(shared);");
  md_cu_line(k, "[row][column]", "%s *const rows = (%s *)shared;", p->type_name, p->type_name);
  md_cu_line(k, NULL, "const int column = md_thread() %% %d, row = md_thread() / %d;", TILE_COLUMNS,
             TILE_COLUMNS);
  md_cu_mark m = md_cu_open(k, NULL, "for (int tile = md_block(); tile < %s; tile += %s) {",
                            md_cu_count(k, "tiles", tiles), md_cu_count(k, "stride", blocks));
  md_cu_spot s = put_tile(p, rows);
  md_cu_line(k, NULL, "const int num = %lld - h0 < %lld ? (int)(%lld - h0) : %lld;",
             (long long)high, (long long)rows, (long long)high, (long long)rows);
  lay_out_rows(p, s);
  md_cu_line(k, NULL, "md_sync();");
  mix_rows(p, s);
  md_cu_line(k, NULL, "md_sync();");
  md_cu_close(k, m);
  md_cu_end(k, blocks);
}

void md_cu_blur(md_cu_work *w, const md_node *n) {
  Pass p = pass_of(w, n);
  p.weights = md_cu_reserve(w, weight_bytes(&p));
  weigh(&p);
  int64_t rows = tile_rows(&p);
  if (rows) {
    blur_tiles(&p, rows);
    return;
  }
  for (int i = 1; i <= 2; i++) {
    p.axis = p.from.shape.rank - i;
    p.to = target(&p, &p.from.shape, i == 2);
    run(&p, "blur along an axis", mix_blur);
    p.from = p.to;
  }
}
