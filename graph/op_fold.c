// SPDX-License-Identifier: Apache-2.0
// Neighbours along time, height and width as channels, and back: each is the gradient of the other.
//
//   space_to_depth  y[n, ((c b0 + i) b1 + j) b2 + k, t, h, w] = x[n, c, t b0 + i - p0, h b1 + j - p1, w b2 + k - p2]
//   depth_to_space  its inverse: x from y, where y has every place of x
#include "graph/op_functions.h"

typedef struct place {
  int64_t c, at[3];
} place;

// Where an element of the folded tensor lies in the other one; perhaps outside.
static place unfolded(const md_fold_attr *a, int64_t channel, const int64_t *at) {
  place p;
  for (int i = 2; i >= 0; i--) {
    p.at[i] = at[i] * a->by.d[i] + channel % a->by.d[i] - a->before.d[i];
    channel /= a->by.d[i];
  }
  p.c = channel;
  return p;
}

static bool is_inside(const md_shape *s, const int64_t *at) {
  for (int i = 0; i < 3; i++)
    if (at[i] < 0 || at[i] >= s->dim[2 + i]) return false;
  return true;
}

static int64_t offset_of(const md_shape *s, int64_t n, int64_t c, const int64_t *at) {
  int64_t o = n * s->dim[1] + c;
  for (int i = 0; i < 3; i++) o = o * s->dim[2 + i] + at[i];
  return o;
}

bool space_to_depth_shape(md_infer *f) {
  const md_fold_attr *a = &f->node->attr.fold;
  md_shape y = *md_in(f, 0);
  int64_t channels = y.dim[1];
  for (int i = 0; i < 3; i++) {
    y.dim[2 + i] = a->size.d[i];
    if (!md_mul_size(channels, a->by.d[i], &channels) || channels >= MD_MAX_DIM)
      return md_reject(f, "the result has too many channels");
  }
  y.dim[1] = channels;
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

bool depth_to_space_shape(md_infer *f) {
  const md_fold_attr *a = &f->node->attr.fold;
  md_shape y = *md_in(f, 0);
  for (int i = 0; i < 3; i++) {
    if (y.dim[1] % a->by.d[i])
      return md_reject(f, "the channels of $0 are no multiple of `by`: %lld", (long long)y.dim[1]);
    y.dim[1] /= a->by.d[i];
    int64_t last = md_ceil_div(a->size.d[i] + a->before.d[i], a->by.d[i]);
    if (last > y.dim[2 + i])
      return md_reject(f, "axis %d of $0 has %lld places, but the result takes %lld", 2 + i,
                       (long long)y.dim[2 + i], (long long)last);
    y.dim[2 + i] = a->size.d[i];
  }
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

static md_val fold_like(md_builder *b, md_op op, const md_node *y, md_val dy) {
  md_attr a = y->attr;
  md_shape x = md_shape_of(b, y->in[0]);
  a.fold.size = D3(x.dim[2], x.dim[3], x.dim[4]);
  return md_add_node(b, op, &dy, 1, &a);
}

// The last places may not have been read at all.
void space_to_depth_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  const md_fold_attr *a = &y->attr.fold;
  md_shape x = md_shape_of(b, y->in[0]);
  md_attr back = y->attr;
  md_val v = dy[0];
  for (int i = 0; i < 3; i++)
    back.fold.size.d[i] = MD_MIN(x.dim[2 + i], a->size.d[i] * a->by.d[i] - a->before.d[i]);
  bool reads = back.fold.size.d[0] > 0 && back.fold.size.d[1] > 0 && back.fold.size.d[2] > 0;
  if (!reads) return;
  v = md_add_node(b, MD_OP_depth_to_space, &v, 1, &back);
  for (int i = 0; i < 3; i++) {
    int64_t rest = x.dim[2 + i] - back.fold.size.d[i];
    md_attr pad = {.slice = {2 + i, 0, rest}};  // as op_move.c has them
    if (rest) v = md_add_node(b, MD_OP_pad, &v, 1, &pad);
  }
  d[0] = v;
}

void depth_to_space_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = fold_like(b, MD_OP_space_to_depth, y, dy[0]);
}

void space_to_depth_eval(md_eval *e) {
  const md_fold_attr *a = &e->node->attr.fold;
  const md_shape *x = &e->in[0]->type.shape, *y = &e->out[0]->type.shape;
  int64_t o = 0, at[3];
  for (int64_t n = 0; n < y->dim[0]; n++)
    for (int64_t c = 0; c < y->dim[1]; c++)
      for (at[0] = 0; at[0] < y->dim[2]; at[0]++)
        for (at[1] = 0; at[1] < y->dim[3]; at[1]++)
          for (at[2] = 0; at[2] < y->dim[4]; at[2]++, o++) {
            place p = unfolded(a, c, at);
            e->out[0]->f[o] = is_inside(x, p.at) ? e->in[0]->f[offset_of(x, n, p.c, p.at)] : 0;
          }
}

void depth_to_space_eval(md_eval *e) {
  const md_fold_attr *a = &e->node->attr.fold;
  const md_shape *x = &e->in[0]->type.shape, *y = &e->out[0]->type.shape;
  int64_t i = 0, at[3];
  for (int64_t n = 0; n < x->dim[0]; n++)
    for (int64_t c = 0; c < x->dim[1]; c++)
      for (at[0] = 0; at[0] < x->dim[2]; at[0]++)
        for (at[1] = 0; at[1] < x->dim[3]; at[1]++)
          for (at[2] = 0; at[2] < x->dim[4]; at[2]++, i++) {
            place p = unfolded(a, c, at);
            if (is_inside(y, p.at)) e->out[0]->f[offset_of(y, n, p.c, p.at)] = e->in[0]->f[i];
          }
}
