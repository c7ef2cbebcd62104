// SPDX-License-Identifier: Apache-2.0
// Data movement as values: what a node that picks, joins or mixes a few elements of its operands is at
// a place. Such nodes stand inside of walks like pointwise ones and need no kernel of their own.
#include "codegen/cuda/gen.h"

static md_cu_type type_of(const md_cu_kernel *k, md_val v) {
  return md_cu_compute_type(md_type_in(k->w->r->g, v)->dtype);
}

static const md_shape *shape_of(const md_cu_kernel *k, md_val v) {
  return &md_type_in(k->w->r->g, v)->shape;
}

// Operand i of n where axis `axis` of s is at `at`.
static const char *moved(md_cu_kernel *k, const md_node *n, int i, md_cu_spot *s, int axis,
                         md_cu_ix at) {
  md_cu_spot in = md_cu_spot_moved(k, s, shape_of(k, n->in[i]), axis, at);
  return md_cu_value_as(k, n->in[i], &in, type_of(k, n->out));
}

static md_cu_ix shifted(md_cu_kernel *k, md_cu_ix x, int64_t plus) {
  return md_cu_linear(k, 1, &x, (int64_t[]){1}, plus);
}

// --- pieces along an axis

// The end of a piece, and the place in the next one: samples that are joined follow from the batch.
static const char *end_of(md_cu_kernel *k, int axis, int64_t end) {
  return axis ? md_cu_number(k, end) : md_cu_told(k, end);
}

static md_cu_ix behind(md_cu_kernel *k, md_cu_ix x, int axis, int64_t start) {
  if (axis || !start) return shifted(k, x, -start);
  return md_cu_name(k, md_format(k->w->arena, "%s - %s", x, md_cu_told(k, start)));
}

static const char *concat(md_cu_kernel *k, const md_node *n, md_cu_spot *s) {
  int axis = (int)n->attr.i.value;
  md_cu_ix at = md_cu_axis(k, s, axis);
  int64_t start = 0, number;
  bool known = md_cu_known(at, &number);
  const char *to = known || n->num_in == 1 ? NULL : md_cu_variable(k, type_of(k, n->out), NULL);
  for (int i = 0; i < n->num_in; i++) {
    int64_t end = start + shape_of(k, n->in[i])->dim[axis];
    bool last = i + 1 == n->num_in;
    if (to) {
      const char *test = "else ";
      if (!last)
        test = md_format(k->w->arena, "%sif (%s < %s) ", i ? test : "", at, end_of(k, axis, end));
      md_cu_mark m = md_cu_open(k, NULL, "%s{", test);
      md_cu_line(k, NULL, "%s = %s;", to, moved(k, n, i, s, axis, behind(k, at, axis, start)));
      md_cu_close(k, m);
    } else if (last || number < end) {
      return moved(k, n, i, s, axis, shifted(k, at, -start));
    }
    start = end;
  }
  return to;
}

static const char *pad(md_cu_kernel *k, const md_node *n, md_cu_spot *s) {
  int axis = (int)n->attr.word[0];
  int64_t before = n->attr.word[1], after = n->attr.word[2];
  int64_t end = before + shape_of(k, n->in[0])->dim[axis];
  md_cu_ix at = md_cu_axis(k, s, axis);
  if (!before && !after) return moved(k, n, 0, s, axis, at);
  md_cu_type type = type_of(k, n->out);
  const char *to = md_cu_variable(k, type, md_cu_literal(k->w->arena, type, 0));
  const char *low = md_format(k->w->arena, "%s >= %s", at, md_cu_number(k, before));
  const char *high = md_format(k->w->arena, "%s < %s", at, md_cu_number(k, end));
  md_cu_mark m = md_cu_open(k, NULL, "if (%s%s%s) {", before ? low : "",
                            before && after ? " && " : "", after ? high : "");
  md_cu_line(k, NULL, "%s = %s;", to, moved(k, n, 0, s, axis, shifted(k, at, -before)));
  md_cu_close(k, m);
  return to;
}

// --- neighbours as channels

static const char *space_to_depth(md_cu_kernel *k, const md_node *n, md_cu_spot *s) {
  const md_fold_attr *a = &n->attr.fold;
  const md_shape *x = shape_of(k, n->in[0]);
  md_cu_spot in = {.shape = x, .at = {md_cu_axis(k, s, 0)}};
  md_cu_ix channel = md_cu_axis(k, s, 1);
  md_text test = {0};
  int64_t div = 1;
  for (int i = 2; i >= 0; i--) {
    int64_t by = a->by.d[i], before = a->before.d[i], size = a->size.d[i];
    md_cu_ix ix[] = {md_cu_axis(k, s, 2 + i), by == 1 ? "0" : md_cu_digit(k, channel, div, by)};
    in.at[2 + i] = md_cu_linear(k, 2, ix, (int64_t[]){by, 1}, -before);
    if (before) md_put(&test, "%s%s >= 0", test.len ? " && " : "", in.at[2 + i]);
    if (size * by - before > x->dim[2 + i])
      md_put(&test, "%s%s < %lld", test.len ? " && " : "", in.at[2 + i], (long long)x->dim[2 + i]);
    div *= by;
  }
  in.at[1] = md_cu_digit(k, channel, div, 0);
  const char *inside = test.len ? md_strdup(k->w->arena, test.s) : NULL;
  md_text_free(&test);
  md_cu_type type = type_of(k, n->out);
  if (!inside) return md_cu_value_as(k, n->in[0], &in, type);
  const char *to = md_cu_variable(k, type, md_cu_literal(k->w->arena, type, 0));
  md_cu_mark m = md_cu_open(k, NULL, "if (%s) {", inside);
  md_cu_line(k, NULL, "%s = %s;", to, md_cu_value_as(k, n->in[0], &in, type));
  md_cu_close(k, m);
  return to;
}

static const char *depth_to_space(md_cu_kernel *k, const md_node *n, md_cu_spot *s) {
  const md_fold_attr *a = &n->attr.fold;
  md_cu_spot in = {.shape = shape_of(k, n->in[0]), .at = {md_cu_axis(k, s, 0)}};
  md_cu_ix ix[4] = {md_cu_axis(k, s, 1)};
  int64_t by[4] = {a->by.d[0] * a->by.d[1] * a->by.d[2], a->by.d[1] * a->by.d[2], a->by.d[2], 1};
  for (int i = 0; i < 3; i++) {
    md_cu_ix at = shifted(k, md_cu_axis(k, s, 2 + i), a->before.d[i]);
    in.at[2 + i] = a->by.d[i] == 1 ? at : md_cu_digit(k, at, a->by.d[i], 0);
    ix[1 + i] = a->by.d[i] == 1 ? "0" : md_cu_digit(k, at, 1, a->by.d[i]);
  }
  in.at[1] = md_cu_linear(k, 4, ix, by, 0);
  return md_cu_value_as(k, n->in[0], &in, type_of(k, n->out));
}

static const char *crop(md_cu_kernel *k, const md_node *n, md_cu_spot *s) {
  int rank = s->shape->rank;
  md_cu_spot in = {.shape = shape_of(k, n->in[0])};
  for (int i = 0; i < rank; i++) in.at[i] = md_cu_axis(k, s, i);
  in.at[rank - 2] = shifted(k, in.at[rank - 2], n->attr.crop.top);
  in.at[rank - 1] = shifted(k, in.at[rank - 1], n->attr.crop.left);
  return md_cu_value_as(k, n->in[0], &in, type_of(k, n->out));
}

// --- rows by index

// Element `at` of the vector v, modulo n, as if n were added until it is not negative.
static md_cu_ix wrapped(md_cu_kernel *k, md_val v, md_cu_ix at, int64_t n) {
  if (n == 1) return "0";
  md_cu_spot s = {.shape = shape_of(k, v), .at = {at}};
  const char *x = md_cu_value_as(k, v, &s, type_of(k, v));
  const char *size = md_cu_number(k, n);
  md_cu_ix rest = md_cu_name(k, md_format(k->w->arena, "%s %% %s", x, size));
  return md_cu_name(k, md_format(k->w->arena, "%s < 0 ? %s + %s : %s", rest, rest, size, rest));
}

static const char *gather_rows(md_cu_kernel *k, const md_node *n, md_cu_spot *s) {
  md_cu_ix row = wrapped(k, n->in[1], md_cu_axis(k, s, 0), shape_of(k, n->in[0])->dim[0]);
  return moved(k, n, 0, s, 0, row);
}

// The rows that fall on this one, in order.
static const char *scatter_rows(md_cu_kernel *k, const md_node *n, md_cu_spot *s) {
  md_cu_ix row = md_cu_axis(k, s, 0);
  const char *sum = md_cu_sum(k), *j = md_cu_counter(k);
  md_cu_mark loop = md_cu_open(k, NULL, "for (int %s = 0; %s < %s; %s++) {", j, j,
                               md_cu_told(k, shape_of(k, n->in[0])->dim[0]), j);
  md_cu_mark hit =
      md_cu_open(k, NULL, "if (%s == %s) {", wrapped(k, n->in[1], j, n->attr.i.value), row);
  md_cu_line(k, NULL, "%s += (double)%s;", sum, moved(k, n, 0, s, 0, j));
  md_cu_close(k, hit);
  md_cu_close(k, loop);
  return md_cu_from_double(k, n->out, sum);
}

// --- the ring

// Row `ptr` takes the first key, and so on; a later key covers an earlier one.
static const char *bank_push(md_cu_kernel *k, const md_node *n, md_cu_spot *s) {
  int64_t size = shape_of(k, n->in[0])->dim[0], num = shape_of(k, n->in[1])->dim[0];
  md_cu_ix row = md_cu_axis(k, s, 0), both[] = {row, wrapped(k, n->in[2], "0", size)};
  md_cu_ix gap = md_cu_linear(k, 2, both, (int64_t[]){1, -1}, 0), ahead = gap;
  if (size > 1)
    ahead = md_cu_name(
        k, md_format(k->w->arena, "%s < 0 ? %s + %s : %s", gap, gap, md_cu_number(k, size), gap));
  const char *to = NULL;
  md_cu_mark m = {0};
  if (num < size) {
    to = md_cu_variable(k, type_of(k, n->out), NULL);
    m = md_cu_open(k, "pushed", "if (%s < %s) {", ahead, md_cu_told(k, num));
  }
  md_cu_ix key = ahead;
  if (num > size) {  // ahead + laps * size
    md_cu_ix laps = md_cu_name(k, md_format(k->w->arena, "(%s - %s) / %s", md_cu_number(k, num - 1),
                                            ahead, md_cu_number(k, size)));
    key = md_cu_linear(k, 2, (md_cu_ix[]){ahead, laps}, (int64_t[]){1, size}, 0);
  }
  const char *pushed = moved(k, n, 1, s, 0, key);
  if (!to) return pushed;
  md_cu_line(k, NULL, "%s = %s;", to, pushed);
  md_cu_close(k, m);
  m = md_cu_open(k, NULL, "else {");
  md_cu_line(k, NULL, "%s = %s;", to, moved(k, n, 0, s, 0, row));
  md_cu_close(k, m);
  return to;
}

// In place: a walk over the keys that stay.
void md_cu_push(md_cu_work *w, const md_node *n) {
  md_cu_kernel k;
  int64_t blocks;
  md_cu_begin(&k, w, "push into the ring");
  int64_t size = shape_of(&k, n->in[0])->dim[0], num = shape_of(&k, n->in[1])->dim[0];
  md_shape some = *shape_of(&k, n->in[1]);
  some.dim[0] = MD_MIN(num, size);
  md_cu_mark m = md_cu_open_elements(&k, md_elements(&some), false, &blocks);
  md_cu_spot s = md_cu_spot_flat(&some, "e");
  md_cu_ix key = shifted(&k, md_cu_axis(&k, &s, 0), num - some.dim[0]);
  md_cu_ix sum[] = {key, wrapped(&k, n->in[2], "0", size)};
  md_cu_ix row = md_cu_digit(&k, md_cu_linear(&k, 2, sum, (int64_t[]){1, 1}, 0), 1, size);
  const char *value = moved(&k, n, 1, &s, 0, key);
  md_cu_spot to = md_cu_spot_moved(&k, &s, shape_of(&k, n->out), 0, row);
  md_cu_store(&k, n->out, &to, value);
  md_cu_close(&k, m);
  md_cu_end(&k, blocks);
}

static const char *ring_next(md_cu_kernel *k, const md_node *n) {
  int64_t push = n->attr.word[0], size = n->attr.word[1];
  md_cu_spot s = {.shape = shape_of(k, n->in[0]), .at = {"0"}};
  const char *x = md_cu_value_as(k, n->in[0], &s, MD_CU_LONG);
  const char *text = md_format(k->w->arena, "((%s %% %lldll + %lldll) %% %lldll + %s) %% %lldll", x,
                               (long long)size, (long long)size, (long long)size,
                               md_cu_told(k, push % size), (long long)size);
  return md_format(k->w->arena, "(%s)(%s)", md_cu_type_name(type_of(k, n->out)), text);
}

// --- mixtures of a few elements

static const char *grayscale(md_cu_kernel *k, const md_node *n, md_cu_spot *s) {
  static const char *const channel[] = {"0", "1", "2"};
  md_cu_type type = type_of(k, n->out);
  const char *term[3];
  for (int i = 0; i < 3; i++)
    term[i] = md_format(k->w->arena, "%s * %s", md_cu_literal(k->w->arena, type, n->attr.real[i]),
                        moved(k, n, 0, s, 1, channel[i]));
  return md_format(k->w->arena, "(%s + %s + %s)", term[0], term[1], term[2]);
}

static const char *frame_difference(md_cu_kernel *k, const md_node *n, md_cu_spot *s) {
  md_cu_ix t = md_cu_axis(k, s, 2);
  const char *before = moved(k, n, 0, s, 2, t), *after = moved(k, n, 0, s, 2, shifted(k, t, 1));
  const char *form = n->attr.i.value ? "(%s - %s)" : "md_abs(%s - %s)";
  return md_format(k->w->arena, form, after, before);
}

void md_cu_gather(md_cu_kernel *k, const md_node *n, md_cu_spot *s, const char **result) {
  if (md_cu_is_pool(n->op)) {
    md_cu_pool(k, n, *s, result);
    return;
  }
  for (int i = 0; i < s->shape->rank; i++) md_cu_axis(k, s, i);  // named before any branch or loop
  switch (n->op) {
  case MD_OP_concat: result[0] = concat(k, n, s); break;
  case MD_OP_pad: result[0] = pad(k, n, s); break;
  case MD_OP_space_to_depth: result[0] = space_to_depth(k, n, s); break;
  case MD_OP_depth_to_space: result[0] = depth_to_space(k, n, s); break;
  case MD_OP_crop: result[0] = crop(k, n, s); break;
  case MD_OP_gather_rows: result[0] = gather_rows(k, n, s); break;
  case MD_OP_scatter_rows: result[0] = scatter_rows(k, n, s); break;
  case MD_OP_bank_push: result[0] = bank_push(k, n, s); break;
  case MD_OP_ring_next: result[0] = ring_next(k, n); break;
  case MD_OP_grayscale: result[0] = grayscale(k, n, s); break;
  default: result[0] = frame_difference(k, n, s);
  }
}
