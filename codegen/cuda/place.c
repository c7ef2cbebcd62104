// SPDX-License-Identifier: Apache-2.0
// Where an element of a result comes from, as text. A place knows its row-major index or its index on
// each axis; the other form is derived when it is needed, so a chain of pointwise nodes and reshapes
// keeps one index, and a per-channel operand costs one division.
#include "codegen/cuda/gen.h"

#include <stdlib.h>
#include <string.h>

struct md_cu_named {
  const char *text;
  md_cu_ix name;
};

// --- indices

md_cu_ix md_cu_number(md_cu_kernel *k, int64_t x) {
  const char *wide = x > INT32_MAX ? "ll" : "";
  return md_format(k->w->arena, "%lld%s", (long long)x, wide);
}

static bool is_number(md_cu_ix x) { return *x >= '0' && *x <= '9'; }

bool md_cu_known(md_cu_ix x, int64_t *number) {
  *number = is_number(x) ? strtoll(x, NULL, 10) : 0;
  return is_number(x);
}

md_cu_ix md_cu_name(md_cu_kernel *k, const char *text) {
  for (int i = 0; i < k->now.num_named; i++)
    if (!strcmp(k->now.named[i].text, text)) return k->now.named[i].name;
  if (k->now.num_named == k->now.cap_named) {
    int cap = MD_MAX(32, 2 * k->now.cap_named);
    struct md_cu_named *named = MD_NEW_ARRAY(k->w->arena, struct md_cu_named, cap);
    if (k->now.num_named) memcpy(named, k->now.named, sizeof *named * (size_t)k->now.num_named);
    k->now.named = named;
    k->now.cap_named = cap;
  }
  md_cu_ix name = md_format(k->w->arena, "i%d", k->num_index++);
  md_cu_line(k, NULL, "const %s %s = %s;", md_cu_index_type(k), name, text);
  k->now.named[k->now.num_named++] = (struct md_cu_named){text, name};
  return name;
}

bool md_cu_is_named(const md_cu_kernel *k, md_cu_ix x) {
  for (int i = 0; i < k->now.num_named; i++)
    if (!strcmp(k->now.named[i].name, x)) return true;
  return false;
}

md_cu_ix md_cu_linear(md_cu_kernel *k, int n, const md_cu_ix *ix, const int64_t *by, int64_t plus) {
  md_text t = {0};
  int terms = 0;
  md_cu_ix only = NULL;
  for (int i = 0; i < n; i++) {
    if (by[i] == 0) continue;
    if (is_number(ix[i])) {
      plus += strtoll(ix[i], NULL, 10) * by[i];
      continue;
    }
    int64_t size = by[i] < 0 ? -by[i] : by[i];
    md_put(&t, "%s%s", terms ? by[i] < 0 ? " - " : " + " : by[i] < 0 ? "-" : "", ix[i]);
    if (size != 1) md_put(&t, " * %s", md_cu_number(k, size));
    only = by[i] == 1 ? ix[i] : NULL;
    terms++;
  }
  if (!terms) {
    md_text_free(&t);
    return md_cu_number(k, plus);
  }
  if (plus) md_put(&t, " %c %s", plus < 0 ? '-' : '+', md_cu_number(k, plus < 0 ? -plus : plus));
  md_cu_ix r = terms == 1 && only && !plus ? only : md_cu_name(k, md_strdup(k->w->arena, t.s));
  md_text_free(&t);
  return r;
}

md_cu_ix md_cu_digit(md_cu_kernel *k, md_cu_ix x, int64_t div, int64_t mod) {
  if (mod == 1) return "0";
  if (is_number(x)) {
    int64_t v = strtoll(x, NULL, 10) / div;
    return md_cu_number(k, mod ? v % mod : v);
  }
  if (div == 1 && !mod) return x;
  const char *text = x;
  if (div != 1) text = md_format(k->w->arena, "%s / %s", text, md_cu_number(k, div));
  if (mod) text = md_format(k->w->arena, "%s %% %s", text, md_cu_number(k, mod));
  return md_cu_name(k, text);
}

// --- places

md_cu_spot md_cu_spot_flat(const md_shape *s, md_cu_ix flat) {
  return (md_cu_spot){.shape = s, .flat = flat};
}

md_cu_spot md_cu_spot_memory(md_cu_kernel *k, const md_type *t, md_cu_ix e) {
  if (!t->block) return md_cu_spot_flat(&t->shape, e);
  int64_t channels = t->shape.dim[1];
  md_cu_spot s = {.shape = &t->shape, .pixel = md_cu_digit(k, e, channels, 0)};
  s.at[1] = md_cu_digit(k, e, 1, channels);
  return s;
}

// From the row-major index, or from that over all axes but channels.
md_cu_ix md_cu_axis(md_cu_kernel *k, md_cu_spot *s, int axis) {
  if (s->at[axis]) return s->at[axis];
  int64_t inner = 1, outer = 1, dim = s->shape->dim[axis];
  for (int i = 0; i < s->shape->rank; i++) {
    if (i == axis || (!s->flat && i == 1)) continue;
    if (i < axis) outer *= s->shape->dim[i];
    else inner *= s->shape->dim[i];
  }
  md_cu_ix from = s->flat ? s->flat : s->pixel;
  s->at[axis] = md_cu_digit(k, from, inner, dim == 1 ? 1 : outer == 1 ? 0 : dim);
  return s->at[axis];
}

md_cu_spot md_cu_spot_moved(md_cu_kernel *k, md_cu_spot *s, const md_shape *in, int axis,
                            md_cu_ix at) {
  md_cu_spot r = {.shape = in};
  for (int i = 0; i < in->rank; i++) r.at[i] = i == axis ? at : md_cu_axis(k, s, i);
  return r;
}

md_cu_ix md_cu_flat(md_cu_kernel *k, md_cu_spot *s) {
  if (s->flat) return s->flat;
  int64_t by[MD_MAX_RANK], stride = 1;
  for (int i = s->shape->rank - 1; i >= 0; i--) {
    md_cu_axis(k, s, i);
    by[i] = s->shape->dim[i] == 1 ? 0 : stride;
    stride *= s->shape->dim[i];
  }
  s->flat = md_cu_linear(k, s->shape->rank, s->at, by, 0);
  return s->flat;
}

bool md_cu_spot_equal(const md_cu_spot *a, const md_cu_spot *b) {
  if (a->flat && b->flat) return !strcmp(a->flat, b->flat);
  if (a->pixel && b->pixel && !strcmp(a->pixel, b->pixel)) return !strcmp(a->at[1], b->at[1]);
  if (a->shape->rank != b->shape->rank) return false;
  for (int i = 0; i < a->shape->rank; i++)
    if (!a->at[i] || !b->at[i] || strcmp(a->at[i], b->at[i]) != 0) return false;
  return true;
}

// Axis j of `in` is axis from[j] of s; -1, or an axis of size 1: index 0.
static md_cu_spot pick_axes(md_cu_kernel *k, md_cu_spot *s, const md_shape *in, const int *from) {
  md_cu_spot r = {.shape = in};
  bool same = s->shape->rank == in->rank;
  for (int j = 0; same && j < in->rank; j++) same = from[j] == j && in->dim[j] == s->shape->dim[j];
  if (same) {
    r = *s;
    r.shape = in;
    return r;
  }
  for (int j = 0; j < in->rank; j++)
    r.at[j] = from[j] < 0 || in->dim[j] == 1 ? "0" : md_cu_axis(k, s, from[j]);
  return r;
}

// --- operands of pointwise nodes: lettered axes of the row

static int axis_named(const md_operand_spec *spec, int rank, const char *letter) {
  for (int i = 0; i < spec->num_axes && i < rank; i++)
    if (!strcmp(spec->axis[i], letter)) return i;
  return -1;
}

md_cu_spot md_cu_spot_operand(md_cu_kernel *k, const md_node *n, int i, md_cu_spot *s) {
  const md_graph *g = k->w->r->g;
  const md_shape *in = &md_type_in(g, n->in[i])->shape;
  int from[MD_MAX_RANK] = {0}, group = -1;
  bool by_element = md_op_num_out(n->op) == 0;  // the result's type comes from a function
  for (int j = 0; j < in->rank; j++) {
    if (by_element) {
      from[j] = j;
      continue;
    }
    const md_operand_spec *si = md_op_in(n->op, i), *so = md_op_out(n->op, 0);
    bool star = j >= si->num_axes - 1 && !strcmp(si->axis[si->num_axes - 1], "*");
    const char *letter = star ? "*" : si->axis[j];
    from[j] =
        star ? so->num_axes - 1 + (j - (si->num_axes - 1)) : axis_named(so, s->shape->rank, letter);
    if (from[j] < 0 && !strcmp(letter, "g")) group = j;
  }
  md_cu_spot r = pick_axes(k, s, in, from);
  if (group < 0 || in->dim[group] == 1) return r;
  // Sample n of N belongs to group n * G / N; groups divide the samples.
  r.at[group] = md_cu_digit(k, md_cu_axis(k, s, 0), s->shape->dim[0] / in->dim[group], 0);
  return r;
}

// --- views

md_cu_spot md_cu_spot_view(md_cu_kernel *k, const md_node *n, md_cu_spot *s) {
  const md_shape *in = &md_type_in(k->w->r->g, n->in[0])->shape;
  int from[MD_MAX_RANK] = {0};
  if (n->op == MD_OP_reshape) return md_cu_spot_flat(in, md_cu_flat(k, s));
  if (n->op == MD_OP_broadcast || n->op == MD_OP_transpose) {
    for (int j = 0; j < in->rank; j++) {
      if (n->op == MD_OP_broadcast) from[j] = (int)n->attr.shape.axes.d[j];
      else from[n->attr.axes.axes.d[j]] = j;
    }
    return pick_axes(k, s, in, from);
  }
  MD_ASSERT(n->op == MD_OP_slice || n->op == MD_OP_flip, "view %s", md_ops[n->op].name);
  md_cu_spot r = {.shape = in};
  for (int j = 0; j < in->rank; j++) r.at[j] = md_cu_axis(k, s, j);
  int axis = (int)n->attr.slice.axis;
  bool flip = n->op == MD_OP_flip;
  int64_t by = flip ? -1 : 1, plus = flip ? in->dim[axis] - 1 : n->attr.slice.start;
  if (flip && axis == in->rank - 1 && md_cu_is_lane(k, r.at[axis])) {
    r.at[axis] = md_cu_mirrored(k, in->dim[axis]);
    return r;
  }
  if (!flip && axis == 0 && plus && !md_cu_is_of_state(k->w->r, in))
    r.at[0] = md_cu_name(k, md_format(k->w->arena, "%s + %s", r.at[0], md_cu_told(k, plus)));
  else r.at[axis] = md_cu_linear(k, 1, &r.at[axis], &by, plus);
  return r;
}

// --- memory

md_cu_ix md_cu_offset(md_cu_kernel *k, const md_type *t, md_cu_spot *s) {
  if (t->block == 0) return md_cu_flat(k, s);
  if (s->pixel && t->block >= t->shape.dim[1])
    return md_cu_linear(k, 2, (md_cu_ix[]){s->pixel, s->at[1]}, (int64_t[]){t->block, 1}, 0);
  int rank = t->shape.rank, num = 0;
  int64_t block = t->block, stride = block;
  md_cu_ix ix[MD_MAX_RANK + 1];
  int64_t by[MD_MAX_RANK + 1];
  for (int i = rank - 1; i >= 2; i--) {
    ix[num] = md_cu_axis(k, s, i);
    by[num++] = stride;
    stride *= t->shape.dim[i];
  }
  md_cu_ix channel = md_cu_axis(k, s, 1);
  bool one_block = block >= t->shape.dim[1];
  ix[num] = one_block ? "0" : md_cu_digit(k, channel, block, 0);
  by[num++] = stride;
  stride *= md_ceil_div(t->shape.dim[1], block);
  ix[num] = md_cu_axis(k, s, 0);
  by[num++] = stride;
  ix[num] = one_block ? channel : md_cu_digit(k, channel, 1, block);
  by[num++] = 1;
  return md_cu_linear(k, num, ix, by, 0);
}
