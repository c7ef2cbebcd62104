// SPDX-License-Identifier: Apache-2.0
// Data movement: concatenation, padding, rows by index, the ring of the memory bank. And `gradient`,
// which stands for the nodes that pass autodiff puts in its place.
#include "graph/op_functions.h"

bool concat_shape(md_infer *f) {
  int64_t axis = f->node->attr.i.value;
  md_shape y = *md_in(f, 0);
  if (!axis_fits(f, axis, &y)) return false;
  for (int i = 1; i < f->node->num_in; i++) {
    const md_shape *x = md_in(f, i);
    if (x->rank != y.rank)
      return md_reject(f, "$%d has %d axes, but $0 has %d", i, x->rank, y.rank);
    for (int a = 0; a < y.rank; a++) {
      if (a != axis && x->dim[a] != y.dim[a])
        return md_reject(f, "axis %d of $%d is %lld, but %lld in $0", a, i, (long long)x->dim[a],
                         (long long)y.dim[a]);
    }
    y.dim[axis] += x->dim[axis];
  }
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

void concat_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  int axis = (int)y->attr.i.value;
  int64_t start = 0;
  for (int i = 0; i < y->num_in; i++) {
    int64_t size = md_shape_of(b, y->in[i]).dim[axis];
    d[i] = md_slice(b, dy[0], axis, start, size);
    start += size;
  }
}

void concat_eval(md_eval *e) {
  int axis = (int)e->node->attr.i.value;
  split to = split_at(&e->out[0]->type.shape, axis);
  int64_t start = 0;
  for (int k = 0; k < e->node->num_in; k++) {
    split from = split_at(&e->in[k]->type.shape, axis);
    int64_t run = from.size * from.inner;
    for (int64_t o = 0; o < from.outer; o++)
      for (int64_t i = 0; i < run; i++)
        copy_element(e->out[0], (o * to.size + start) * to.inner + i, e->in[k], o * run + i);
    start += from.size;
  }
}

// Attributes axis, before, after stand where slice has axis, start, size.
typedef struct padding {
  int axis;
  int64_t before, after;
} padding;

static padding padding_of(const md_node *n) {
  return (padding){(int)n->attr.word[0], n->attr.word[1], n->attr.word[2]};
}

bool pad_shape(md_infer *f) {
  md_shape y = *md_in(f, 0);
  padding p = padding_of(f->node);
  if (!axis_fits(f, f->node->attr.word[0], &y)) return false;
  y.dim[p.axis] += p.before + p.after;
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

void pad_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  padding p = padding_of(y);
  d[0] = md_slice(b, dy[0], p.axis, p.before, md_shape_of(b, y->in[0]).dim[p.axis]);
}

void pad_eval(md_eval *e) {
  padding p = padding_of(e->node);
  split from = split_at(&e->in[0]->type.shape, p.axis),
        to = split_at(&e->out[0]->type.shape, p.axis);
  int64_t run = from.size * from.inner;
  for (int64_t o = 0; o < from.outer; o++)
    for (int64_t i = 0; i < run; i++)
      copy_element(e->out[0], (o * to.size + p.before) * to.inner + i, e->in[0], o * run + i);
}

bool gather_rows_shape(md_infer *f) {
  md_shape y = *md_in(f, 0);
  y.dim[0] = md_in(f, 1)->dim[0];
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

void gather_rows_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  md_attr rows = {.word = {md_shape_of(b, y->in[0]).dim[0]}};
  d[0] = md_add_node(b, MD_OP_scatter_rows, (md_val[]){dy[0], y->in[1]}, 2, &rows);
}

void gather_rows_eval(md_eval *e) {
  int64_t n = e->in[0]->type.shape.dim[0], len = elements_from(&e->in[0]->type.shape, 1);
  for (int64_t r = 0; r < e->in[1]->type.shape.dim[0]; r++) {
    int64_t from = wrapped(e->in[1]->i[r], n);
    for (int64_t i = 0; i < len; i++)
      copy_element(e->out[0], r * len + i, e->in[0], from * len + i);
  }
}

bool scatter_rows_shape(md_infer *f) {
  md_shape y = *md_in(f, 0);
  if (md_in(f, 1)->dim[0] != y.dim[0])
    return md_reject(f, "$0 has %lld rows, but $1 has %lld indices", (long long)y.dim[0],
                     (long long)md_in(f, 1)->dim[0]);
  y.dim[0] = f->node->attr.i.value;
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

void scatter_rows_eval(md_eval *e) {
  int64_t n = e->out[0]->type.shape.dim[0], len = elements_from(&e->in[0]->type.shape, 1);
  for (int64_t r = 0; r < e->in[1]->type.shape.dim[0]; r++) {
    int64_t to = wrapped(e->in[1]->i[r], n);
    for (int64_t i = 0; i < len; i++) e->out[0]->f[to * len + i] += e->in[0]->f[r * len + i];
  }
}

// A batch longer than the ring overwrites its own first rows, as pushing one by one would.
void bank_push_eval(md_eval *e) {
  const md_shape *bank = &e->in[0]->type.shape;
  int64_t len = elements_from(bank, 1), ptr = wrapped(e->in[2]->i[0], bank->dim[0]);
  for (int64_t i = 0; i < bank->dim[0] * len; i++) copy_element(e->out[0], i, e->in[0], i);
  for (int64_t r = 0; r < e->in[1]->type.shape.dim[0]; r++) {
    int64_t to = (ptr + r) % bank->dim[0];
    for (int64_t i = 0; i < len; i++) copy_element(e->out[0], to * len + i, e->in[1], r * len + i);
  }
}

void ring_next_eval(md_eval *e) {
  int64_t push = e->node->attr.word[0], size = e->node->attr.word[1];
  e->out[0]->i[0] = (wrapped(e->in[0]->i[0], size) + push % size) % size;
}

bool gradient_shape(md_infer *f) {
  int num = f->node->num_in - 1;
  if (num < 1) return md_reject(f, "names no value after the loss");
  for (int i = 0; i < num; i++) set_result(f, i, md_in_dtype(f, i + 1), md_in(f, i + 1));
  return true;
}

void gradient_eval(md_eval *e) {
  MD_ASSERT(false, "node %d: gradient is not executable, pass autodiff expands it", e->node->index);
}
