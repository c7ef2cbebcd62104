// SPDX-License-Identifier: Apache-2.0
// Convolution (cross-correlation, zero padding) and its two gradients. All three are one walk over
// the triples (output element, input element, weight) that meet:
//
//   y[n,o,p] = sum_ik x[n,i, p*stride + k*dilation - pad] * w[o,i,k]
//   forward  y += x*w      dgrad  dx += dy*w      wgrad  dw += dy*x
#include "graph/op_functions.h"

// Sizes of one convolution, whichever of the three tensors is the result.
typedef struct geometry {
  int64_t n, i, o;
  int64_t x[3], y[3], k[3];  // t, h, w
  md_conv3d_attr a;
} geometry;

// Sizes of the result of a convolution of x with w. Attributes and sizes are below 2^31, so nothing
// overflows.
static bool window_fits(md_infer *f, const md_shape *x, const md_shape *w, const md_conv3d_attr *a,
                        int64_t y[3]) {
  for (int i = 0; i < 3; i++) {
    int64_t window = (w->dim[2 + i] - 1) * a->dilation.d[i] + 1;
    int64_t room = x->dim[2 + i] + 2 * a->pad.d[i] - window;
    if (room < 0)
      return md_reject(f, "on axis %c a window of %lld does not fit into %lld padded elements",
                       "thw"[i], (long long)window, (long long)(x->dim[2 + i] + 2 * a->pad.d[i]));
    y[i] = room / a->stride.d[i] + 1;
  }
  return true;
}

static geometry geometry_of(const md_shape *x, const md_shape *w, const md_shape *y,
                            const md_conv3d_attr *a) {
  geometry g = {.n = x->dim[0], .i = x->dim[1], .o = w->dim[0], .a = *a};
  for (int d = 0; d < 3; d++) {
    g.x[d] = x->dim[2 + d];
    g.y[d] = y->dim[2 + d];
    g.k[d] = w->dim[2 + d];
  }
  // A 1-wide window of stride 1 without padding meets consecutive elements: h, then t, join w.
  for (int d = 2; d > 0; d--) {
    if (g.k[d] != 1 || a->stride.d[d] != 1 || a->pad.d[d] != 0) break;
    if (g.k[d - 1] != 1 || a->stride.d[d - 1] != 1 || a->pad.d[d - 1] != 0) break;
    g.x[2] *= g.x[d - 1];
    g.y[2] *= g.y[d - 1];
    g.x[d - 1] = g.y[d - 1] = 1;
  }
  return g;
}

// Result positions lo..hi-1 of axis d at which tap k reads inside of x.
static void inside(const geometry *g, int d, int64_t k, int64_t *lo, int64_t *hi) {
  int64_t stride = g->a.stride.d[d], shift = k * g->a.dilation.d[d] - g->a.pad.d[d];
  *lo = shift >= 0 ? 0 : md_ceil_div(-shift, stride);
  int64_t last = g->x[d] - 1 - shift;  // largest p*stride that still reads inside
  *hi = last < 0 ? 0 : MD_MIN(g->y[d], last / stride + 1);
}

// One weight and a row of the elements that meet it: y[0..n), x[0], x[step], ...
typedef void (*row_rule)(double *y, double *x, double *w, int64_t n, int64_t step);

static void forward_row(double *y, double *x, double *w, int64_t n, int64_t step) {
  double c = *w;
  if (step == 1) {
    for (int64_t j = 0; j < n; j++) y[j] += c * x[j];
  } else {
    for (int64_t j = 0; j < n; j++) y[j] += c * x[j * step];
  }
}

static void dgrad_row(double *dy, double *dx, double *w, int64_t n, int64_t step) {
  double c = *w;
  if (step == 1) {
    for (int64_t j = 0; j < n; j++) dx[j] += c * dy[j];
  } else {
    for (int64_t j = 0; j < n; j++) dx[j * step] += c * dy[j];
  }
}

// Four partial sums: the additions of one would wait for each other.
static void wgrad_row(double *dy, double *x, double *dw, int64_t n, int64_t step) {
  double s[4] = {0};
  int64_t j = 0;
  for (; j + 4 <= n; j += 4)
    for (int64_t k = 0; k < 4; k++) s[k] += dy[j + k] * x[(j + k) * step];
  for (; j < n; j++) s[0] += dy[j] * x[j * step];
  *dw += (s[0] + s[1]) + (s[2] + s[3]);
}

// Every tap of one (sample, output channel, input channel): rows of y, planes of x, the taps w.
static void walk_planes(const geometry *g, double *y, double *x, double *w, row_rule rule) {
  const int64_t *s = g->a.stride.d, *p = g->a.pad.d, *l = g->a.dilation.d;
  int64_t t0, t1, h0, h1, w0, w1;
  for (int64_t kt = 0; kt < g->k[0]; kt++) {
    inside(g, 0, kt, &t0, &t1);
    for (int64_t kh = 0; kh < g->k[1]; kh++) {
      inside(g, 1, kh, &h0, &h1);
      for (int64_t kw = 0; kw < g->k[2]; kw++) {
        inside(g, 2, kw, &w0, &w1);
        double *tap = &w[(kt * g->k[1] + kh) * g->k[2] + kw];
        if (w0 >= w1) continue;
        for (int64_t t = t0; t < t1; t++) {
          for (int64_t h = h0; h < h1; h++) {
            int64_t xt = t * s[0] + kt * l[0] - p[0], xh = h * s[1] + kh * l[1] - p[1];
            int64_t xw = w0 * s[2] + kw * l[2] - p[2];
            rule(&y[(t * g->y[1] + h) * g->y[2] + w0], &x[(xt * g->x[1] + xh) * g->x[2] + xw], tap,
                 w1 - w0, s[2]);
          }
        }
      }
    }
  }
}

static void walk(const geometry *g, double *y, double *x, double *w, row_rule rule) {
  int64_t y_plane = g->y[0] * g->y[1] * g->y[2], x_plane = g->x[0] * g->x[1] * g->x[2];
  int64_t taps = g->k[0] * g->k[1] * g->k[2];
  for (int64_t n = 0; n < g->n; n++)
    for (int64_t o = 0; o < g->o; o++)
      for (int64_t i = 0; i < g->i; i++)
        walk_planes(g, &y[(n * g->o + o) * y_plane], &x[(n * g->i + i) * x_plane],
                    &w[(o * g->i + i) * taps], rule);
}

// A multiply-accumulate is two FLOPs; padding is counted, as everybody does.
static void macs(const md_infer *f, const md_shape *y, const md_shape *w, md_cost *c) {
  c->flops = 2.0 * (double)md_elements(y) * (double)elements_from(w, 1);
  c->bytes = bytes_of(f);
}

static bool same_sizes(md_infer *f, const md_shape *dy, const int64_t want[3]) {
  for (int i = 0; i < 3; i++) {
    if (dy->dim[2 + i] != want[i])
      return md_reject(f, "axis %c of $0 is %lld, but the convolution makes %lld there", "thw"[i],
                       (long long)dy -> dim[2 + i], (long long)want[i]);
  }
  return true;
}

bool conv3d_shape(md_infer *f) {
  const md_shape *x = md_in(f, 0), *w = md_in(f, 1);
  md_shape y = {.rank = 5, .dim = {x->dim[0], w->dim[0]}};
  return window_fits(f, x, w, &f->node->attr.conv3d, &y.dim[2]) &&
         set_result(f, 0, md_in_dtype(f, 0), &y);
}

bool md_conv3d_stays_at_pixel(const md_graph *g, const md_node *n) {
  if (n->op != MD_OP_conv3d) return false;
  const md_conv3d_attr *a = &n->attr.conv3d;
  const md_shape *x = &md_type_in(g, n->in[0])->shape, *w = &md_type_in(g, n->in[1])->shape;
  for (int i = 0; i < 3; i++) {
    bool single = w->dim[2 + i] == 1 && a->pad.d[i] == 0;
    if (a->stride.d[i] != 1 || !(single || i == 0)) return false;
  }
  return x->dim[2] == md_type_in(g, n->out)->shape.dim[2];
}

bool md_conv3d_own_tap(const md_graph *g, const md_node *n, int64_t tap[3]) {
  if (n->op != MD_OP_conv3d) return false;
  const md_conv3d_attr *a = &n->attr.conv3d;
  const md_shape *x = &md_type_in(g, n->in[0])->shape, *w = &md_type_in(g, n->in[1])->shape;
  const md_shape *y = &md_type_in(g, n->out)->shape;
  for (int i = 0; i < 3; i++) {
    tap[i] = a->pad.d[i] / a->dilation.d[i];
    bool same = a->stride.d[i] == 1 && x->dim[2 + i] == y->dim[2 + i];
    if (!same || tap[i] * a->dilation.d[i] != a->pad.d[i] || tap[i] >= w->dim[2 + i]) return false;
  }
  return true;
}

// Serves every operand; dead-code elimination drops what nobody reads (dx of the first layer).
void conv3d_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  md_val x = y->in[0], w = y->in[1];
  d[0] = md_conv3d_dgrad(b, dy[0], w, md_shape_of(b, x), &y->attr.conv3d);
  d[1] = md_conv3d_wgrad(b, dy[0], x, md_shape_of(b, w), &y->attr.conv3d);
  if (md_type_in(b->g, w)->dtype == MD_BF16) d[1] = md_cast(b, d[1], MD_BF16);
  if (y->num_in == 3 && y->in[2] != MD_NONE) d[2] = md_sum(b, dy[0], (md_dims){4, {0, 2, 3, 4}});
}

void conv3d_cost(const md_infer *f, md_cost *c) { macs(f, &f->out[0].shape, md_in(f, 1), c); }

void conv3d_eval(md_eval *e) {
  const md_tensor *x = e->in[0], *w = e->in[1];
  const md_tensor *bias = e->node->num_in == 3 ? e->in[2] : NULL;
  md_tensor *y = e->out[0];
  geometry g = geometry_of(&x->type.shape, &w->type.shape, &y->type.shape, &e->node->attr.conv3d);
  int64_t plane = elements_from(&y->type.shape, 2);
  for (int64_t i = 0; bias && i < g.n * g.o * plane; i++) y->f[i] = bias->f[i / plane % g.o];
  walk(&g, y->f, x->f, w->f, forward_row);
}

bool conv3d_dgrad_shape(md_infer *f) {
  const md_shape *dy = md_in(f, 0), *w = md_in(f, 1);
  const md_conv3d_grad_attr *a = &f->node->attr.conv3d_grad;
  md_shape x;
  int64_t want[3];
  if (!shape_from(f, &a->shape, &x)) return false;
  if (x.rank != 5 || x.dim[0] != dy->dim[0] || x.dim[1] != w->dim[1])
    return md_reject(f, "attribute 'shape' must be [%lld,%lld,t,h,w]", (long long)dy->dim[0],
                     (long long)w->dim[1]);
  return window_fits(f, &x, w, &f->node->attr.conv3d, want) && same_sizes(f, dy, want) &&
         set_result(f, 0, md_in_dtype(f, 0), &x);
}

void conv3d_dgrad_cost(const md_infer *f, md_cost *c) { macs(f, md_in(f, 0), md_in(f, 1), c); }

void conv3d_dgrad_eval(md_eval *e) {
  const md_tensor *dy = e->in[0], *w = e->in[1];
  md_tensor *dx = e->out[0];
  geometry g = geometry_of(&dx->type.shape, &w->type.shape, &dy->type.shape, &e->node->attr.conv3d);
  walk(&g, dy->f, dx->f, w->f, dgrad_row);
}

bool conv3d_wgrad_shape(md_infer *f) {
  const md_shape *dy = md_in(f, 0), *x = md_in(f, 1);
  const md_conv3d_grad_attr *a = &f->node->attr.conv3d_grad;
  md_shape w;
  int64_t want[3];
  if (!shape_from(f, &a->shape, &w)) return false;
  if (w.rank != 5 || w.dim[0] != dy->dim[1] || w.dim[1] != x->dim[1])
    return md_reject(f, "attribute 'shape' must be [%lld,%lld,kt,kh,kw]", (long long)dy->dim[1],
                     (long long)x->dim[1]);
  md_dtype from = md_in_dtype(f, 0), to = from == MD_BF16 ? MD_F32 : from;
  return window_fits(f, x, &w, &f->node->attr.conv3d, want) && same_sizes(f, dy, want) &&
         set_result(f, 0, to, &w);
}

void conv3d_wgrad_cost(const md_infer *f, md_cost *c) { macs(f, md_in(f, 0), &f->out[0].shape, c); }

void conv3d_wgrad_eval(md_eval *e) {
  const md_tensor *dy = e->in[0], *x = e->in[1];
  md_tensor *dw = e->out[0];
  geometry g = geometry_of(&x->type.shape, &dw->type.shape, &dy->type.shape, &e->node->attr.conv3d);
  walk(&g, dy->f, x->f, dw->f, wgrad_row);
}
