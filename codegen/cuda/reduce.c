// SPDX-License-Identifier: Apache-2.0
// Walks over an index space: values stored element by element, and reductions that ride along. Sums
// are gathered in double: variance as E[x^2] - E[x]^2 needs the digits. Orders are fixed, so results
// are the same in every run:
//   few terms or many results   a thread adds up a result, one term after another
//   else                        a block adds up a part of a result: its threads stride over the terms,
//                               then a tree over lanes and a row over warps; parts lie in the
//                               workspace, and a second kernel joins them in order, in the same two ways
#include "codegen/cuda/gen.h"

enum {
  FEW_TERMS = 32,  // of a result: a thread of its own
  MANY_RESULTS = 1 << 14,
  PART_TERMS = 4096,  // of a block, at least
  WANTED_BLOCKS = 512,
  MAX_QUANTITIES = 2,  // that a reduction adds up
};

typedef struct Reduction {
  md_cu_work *w;
  md_cu_kernel k;
  const md_cu_nest *n;
  int64_t results, terms, parts, part_steps;
  int64_t steps;  // of a result: terms, or lines of eight neighbours
  bool by_line;
  // What follows from the batch, if samples come first: the results, or the terms of each.
  bool results_told, terms_told;
  int num_sums;   // of all reductions
  int64_t place;  // of the parts in the workspace: [result][part][sum] of double
} Reduction;

int md_cu_num_sums(const md_node *n) {
  return n->op == MD_OP_moments || n->op == MD_OP_batch_norm_sums ? 2 : 1;
}

static const char *neutral(const md_node *n) {
  return n->op == MD_OP_max ? "-(double)MD_INF" : "0.0";
}

void md_cu_add_term(md_cu_kernel *k, const md_node *n, const char *to, const char *term) {
  if (n->op == MD_OP_max) md_cu_line(k, NULL, "%s = md_maxd(%s, %s);", to, to, term);
  else md_cu_line(k, NULL, "%s += %s;", to, term);
}

// --- elements

bool md_cu_has_channels(const md_shape *shape, const md_shape *s) {
  bool good = s->rank == shape->rank && s->rank > 2 && shape->dim[1] == 1 && s->dim[1] > 1 &&
              s->dim[1] <= MD_CU_FEW_CHANNELS;
  for (int i = 0; good && i < s->rank; i++) good = i == 1 || s->dim[i] == shape->dim[i];
  return good;
}

int md_cu_num_channels(const md_cu_nest *n, const md_shape *s) {
  return md_cu_has_channels(n->shape, s) ? (int)s->dim[1] : 1;
}

md_cu_spot md_cu_channel_of(md_cu_kernel *k, md_cu_spot *s, const md_shape *stored, int i) {
  if (!md_cu_has_channels(s->shape, stored)) return *s;
  return md_cu_spot_moved(k, s, stored, 1, md_cu_number(k, i));
}

// All loads come before the first store: a result may lie over an operand, index by index.
static void store_values(md_cu_kernel *k, const md_cu_nest *n, md_cu_spot *s) {
  const char **text =
      MD_NEW_ARRAY(k->w->arena, const char *, n->num_stores *MD_CU_FEW_CHANNELS + 1);
  for (int i = 0, made = 0; i < n->num_stores; i++) {
    const md_shape *stored = &md_type_in(k->w->r->g, n->store[i])->shape;
    for (int c = 0; c < md_cu_num_channels(n, stored); c++) {
      md_cu_spot at = md_cu_channel_of(k, s, stored, c);
      md_cu_term t = md_cu_value(k, n->store[i], &at);
      text[made++] = md_cu_as(k->w->arena, &t, t.type);
    }
  }
  for (int i = 0, made = 0; i < n->num_stores; i++) {
    const md_shape *stored = &md_type_in(k->w->r->g, n->store[i])->shape;
    for (int c = 0; c < md_cu_num_channels(n, stored); c++) {
      md_cu_spot at = md_cu_channel_of(k, s, stored, c);
      md_cu_store(k, n->store[i], &at, text[made++]);
    }
  }
}

void md_cu_walk(md_cu_work *w, const md_cu_nest *n) {
  if (md_cu_vector_walk(w, n) || md_cu_line_walk(w, n)) return;
  md_cu_kernel k;
  md_cu_begin(&k, w, "walk");
  int64_t blocks;
  bool is_fixed = md_cu_is_of_state(w->r, n->shape);
  md_cu_mark m = md_cu_open_elements(&k, md_elements(n->shape), is_fixed, &blocks);
  md_type order = {.shape = *n->shape};
  for (int i = 0; i < n->num_stores; i++)
    order.block = MD_MAX(order.block, md_type_in(w->r->g, n->store[i])->block);
  md_cu_spot s = md_cu_spot_memory(&k, &order, "e");
  store_values(&k, n, &s);
  md_cu_close(&k, m);
  k.is_told = !is_fixed;
  md_cu_end(&k, blocks);
}

// --- where term j of result r lies

typedef struct Run {
  int first, last;
  bool kept;
  int64_t size;
} Run;  // axes first..last of the walk

static bool is_kept(const md_cu_nest *n, int axis) {
  return n->channels ? axis == 1 : (n->kept >> axis & 1) != 0;
}

// Neighbouring axes of one kind, so that an index is cut where it must be. Samples stand alone where
// they form groups.
static int find_runs(const md_cu_nest *n, Run run[MD_MAX_RANK]) {
  int num = 0;
  for (int i = 0; i < n->shape->rank; i++) {
    bool alone = n->channels && i == 1;
    if (num && run[num - 1].kept == is_kept(n, i) && !alone && !(n->groups > 1 && i == 1)) {
      run[num - 1].last = i;
      run[num - 1].size *= n->shape->dim[i];
    } else {
      run[num++] = (Run){i, i, is_kept(n, i), n->shape->dim[i]};
    }
  }
  if (n->groups > 1) run[0].size /= n->groups;
  return num;
}

// Indices of the kept runs are digits of `result`, those of the others digits of `term`.
static md_cu_spot spot_of(md_cu_kernel *k, const md_cu_nest *n, md_cu_ix result, md_cu_ix term) {
  Run run[MD_MAX_RANK] = {{0}};
  md_cu_ix ix[MD_MAX_RANK];
  int64_t by[MD_MAX_RANK], of_kept = 1, of_term = 1, stride = 1, left[2] = {1, 1};
  int num = find_runs(n, run);
  md_cu_spot s = {.shape = n->shape};
  for (int i = 0; i < num; i++) left[run[i].kept] *= run[i].size;
  for (int i = num - 1; i >= 0; i--) {
    int64_t *of = run[i].kept ? &of_kept : &of_term;
    bool top = *of * run[i].size == left[run[i].kept] && !(run[i].kept && n->groups > 1);
    ix[i] = md_cu_digit(k, run[i].kept ? result : term, *of,
                        run[i].size == 1 ? 1
                        : top            ? 0
                                         : run[i].size);
    *of *= run[i].size;
    by[i] = stride;
    for (int a = run[i].first; a <= run[i].last; a++) stride *= n->shape->dim[a];
  }
  if (n->groups > 1) {  // sample = group * samples of a group + its number there
    md_cu_ix group = md_cu_digit(k, result, n->shape->dim[1], 0);
    const char *samples = md_cu_extent(k, "samples", run[0].size);
    ix[0] = md_cu_name(k, md_format(k->w->arena, "%s * %s + %s", group, samples, ix[0]));
  }
  for (int i = 0; i < num; i++)
    if (run[i].first == run[i].last) s.at[run[i].first] = ix[i];
  s.flat = md_cu_linear(k, num, ix, by, 0);
  return s;
}

// --- sums of one result

static md_cu_spot result_spot(const md_cu_kernel *k, const md_node *n, md_cu_ix result) {
  return md_cu_spot_flat(&md_type_in(k->w->r->g, n->out)->shape, result);
}

static void declare_sums(Reduction *r) {
  for (int i = 0, sum = 0; i < r->n->num_reduces; i++)
    for (int q = 0; q < md_cu_num_sums(r->n->reduce[i]); q++, sum++)
      md_cu_line(&r->k, NULL, "double s%d = %s;", sum, neutral(r->n->reduce[i]));
}

// What batch_norm_sums needs of the result's own place stands before the loop over terms.
static void prefetch(Reduction *r, md_cu_ix result) {
  for (int i = 0; i < r->n->num_reduces; i++) {
    const md_node *n = r->n->reduce[i];
    if (n->op != MD_OP_batch_norm_sums) continue;
    md_cu_spot s = result_spot(&r->k, n, result);
    md_cu_value(&r->k, n->in[2], &s);
  }
}

static void add_terms(Reduction *r, md_cu_spot *s, md_cu_ix result) {
  md_cu_kernel *k = &r->k;
  md_arena *a = r->w->arena;
  for (int i = 0, sum = 0; i < r->n->num_reduces; i++) {
    const md_node *n = r->n->reduce[i];
    md_cu_term x = md_cu_value(k, n->in[0], s);
    const char *first = md_cu_as(a, &x, MD_CU_DOUBLE), *second = NULL;
    if (n->op == MD_OP_moments) {
      second = md_format(a, "%s * %s", first, first);
    } else if (n->op == MD_OP_batch_norm_sums) {
      md_cu_spot at = result_spot(k, n, result), full = *s;
      md_cu_term mean = md_cu_value(k, n->in[2], &at), y = md_cu_value(k, n->in[1], &full);
      second = md_format(a, "%s * (double)(%s - %s)", first, md_cu_as(a, &y, y.type),
                         md_cu_as(a, &mean, mean.type));
    }
    md_cu_add_term(k, n, md_format(a, "s%d", sum++), first);
    if (second) md_cu_add_term(k, n, md_format(a, "s%d", sum++), second);
  }
}

static void store_double(md_cu_kernel *k, md_val v, md_cu_ix result, const char *text) {
  const md_type *t = md_type_in(k->w->r->g, v);
  md_cu_spot s = md_cu_spot_flat(&t->shape, result);
  md_cu_store(k, v, &s, md_cu_from_double(k, v, text));
}

// Factors are exact to the last digit of a double.
void md_cu_put_results(md_cu_kernel *k, const md_cu_nest *nest, const char *per, md_cu_ix result) {
  md_arena *a = k->w->arena;
  for (int i = 0, sum = 0; i < nest->num_reduces; i++) {
    const md_node *n = nest->reduce[i];
    const char *x = md_format(a, "s%d", sum), *y = md_format(a, "s%d", sum + 1);
    sum += md_cu_num_sums(n);
    if (n->op == MD_OP_moments) {
      const char *mean = md_format(a, "%s / %s", x, per);
      store_double(k, n->out, result, mean);
      store_double(k, n->out + 1, result,
                   md_format(a, "md_maxd(%s / %s - %s * (%s), 0.0)", y, per, mean, mean));
    } else if (n->op == MD_OP_batch_norm_sums) {
      md_cu_spot s = result_spot(k, n, result);
      md_cu_term var = md_cu_value(k, n->in[3], &s);
      char eps[MD_FLOAT_CHARS];
      md_float_text(n->attr.f.value, eps);
      store_double(k, n->out, result, md_format(a, "%s / %s", x, per));
      store_double(k, n->out + 1, result,
                   md_format(a, "%s / %s / md_sqrtd(%s + (double)%s)", y, per,
                             md_cu_as(a, &var, MD_CU_DOUBLE), eps));
    } else {
      store_double(k, n->out, result, x);
    }
  }
}

// A count, or a number where the batch changes nothing.
static const char *told(Reduction *r, bool is_told, const char *name, int64_t value) {
  return is_told ? md_cu_extent(&r->k, name, value) : md_cu_number(&r->k, value);
}

static const char *results_of(Reduction *r) {
  return told(r, r->results_told, "results", r->results);
}
static const char *terms_of(Reduction *r) { return told(r, r->terms_told, "terms", r->terms); }
static const char *steps_of(Reduction *r) {
  return r->by_line ? told(r, r->terms_told, "lines", r->steps) : terms_of(r);
}
static const char *turn_of(Reduction *r) {
  return told(r, r->results_told || r->terms_told, "turn", r->part_steps);
}
static const char *parts_of(Reduction *r) {
  return told(r, r->results_told || r->terms_told, "parts", r->parts);
}

static const char *divisor_of(Reduction *r) {
  if (!r->terms_told) return md_format(r->w->arena, "%lld.0", (long long)r->terms);
  return md_format(r->w->arena, "(double)%s", terms_of(r));
}

static void put_results(Reduction *r, md_cu_ix result) {
  bool divides = false;
  for (int i = 0; i < r->n->num_reduces; i++) divides |= md_cu_num_sums(r->n->reduce[i]) > 1;
  md_cu_put_results(&r->k, r->n, divides ? divisor_of(r) : "", result);
}

// --- a thread for a result

static void by_thread(Reduction *r) {
  md_cu_kernel *k = &r->k;
  md_cu_begin(k, r->w, "a thread for each result");
  const char *type = md_cu_index_type(k), *id = r->w->wide ? "(md_i64)md_block()" : "md_block()";
  md_cu_line(k, NULL, "const %s e = %s * %d + md_thread();", type, id, MD_CU_THREADS);
  md_cu_mark m = md_cu_open(k, NULL, "if (e < %s) {", results_of(r));
  declare_sums(r);
  prefetch(r, "e");
  md_cu_mark loop = md_cu_open(k, NULL, "for (%s j = 0; j < %s; j++) {", type, terms_of(r));
  md_cu_spot s = spot_of(k, r->n, "e", "j");
  store_values(k, r->n, &s);
  add_terms(r, &s, "e");
  md_cu_close(k, loop);
  put_results(r, "e");
  md_cu_close(k, m);
  k->is_told = r->results_told;
  md_cu_end(k, md_ceil_div(r->results, MD_CU_THREADS));
}

// --- a block for a part of a result

// s0, s1, ... of the threads -> those of thread 0.
static md_cu_mark join_threads(Reduction *r) {
  md_cu_kernel *k = &r->k;
  int sum = 0;
  md_cu_mark m = md_cu_open(k, "over lanes", "for (int o = 16; o > 0; o >>= 1) {");
  for (int i = 0; i < r->n->num_reduces; i++)
    for (int q = 0; q < md_cu_num_sums(r->n->reduce[i]); q++, sum++) {
      md_cu_line(k, NULL, "const double u%d = md_shfl_xor_d(s%d, o);", sum, sum);
      md_cu_add_term(k, r->n->reduce[i], md_format(r->w->arena, "s%d", sum),
                     md_format(r->w->arena, "u%d", sum));
    }
  md_cu_close(k, m);
  k->shared_bytes = MD_CU_WARPS * r->num_sums * 8;
  md_cu_line(k, "[warp][sum]", "double *const sums = (double *)shared;");
  m = md_cu_open(k, NULL, "if (md_thread() %% 32 == 0) {");
  for (int i = 0; i < r->num_sums; i++)
    md_cu_line(k, NULL, "sums[md_thread() / 32 * %d + %d] = s%d;", r->num_sums, i, i);
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_sync();");
  m = md_cu_open(k, "over warps", "if (md_thread() == 0) {");
  md_cu_mark loop = md_cu_open(k, NULL, "for (int j = 1; j < %d; j++) {", MD_CU_WARPS);
  sum = 0;
  for (int i = 0; i < r->n->num_reduces; i++)
    for (int q = 0; q < md_cu_num_sums(r->n->reduce[i]); q++, sum++)
      md_cu_add_term(k, r->n->reduce[i], md_format(r->w->arena, "s%d", sum),
                     md_format(r->w->arena, "sums[j * %d + %d]", r->num_sums, sum));
  md_cu_close(k, loop);
  return m;
}

static int64_t parts_bytes(const Reduction *r) { return r->results * r->parts * r->num_sums * 8; }

// What step number `step` of a result adds and stores.
static void put_step(Reduction *r, md_cu_lanes *l, md_cu_ix result, md_cu_ix step) {
  md_cu_kernel *k = &r->k;
  if (!r->by_line) {
    md_cu_spot s = spot_of(k, r->n, result, step);
    store_values(k, r->n, &s);
    add_terms(r, &s, result);
    return;
  }
  md_shape lines = *r->n->shape;
  int last = lines.rank - 1;
  lines.dim[last] /= MD_CU_LANES;
  md_cu_nest of_lines = *r->n;
  of_lines.shape = &lines;
  md_cu_spot s = spot_of(k, &of_lines, result, step);
  const char *type = md_cu_index_type(k);
  md_cu_line(k, NULL, "const %s first = %s * %d;", type, md_cu_axis(k, &s, last), MD_CU_LANES);
  for (int i = 0; i < last; i++)
    if (lines.dim[i] != 1) md_cu_line(k, NULL, "const %s x%d = %s;", type, i, md_cu_axis(k, &s, i));
  md_cu_put_line(k, r->n, l);
}

static void by_block(Reduction *r) {
  md_cu_kernel *k = &r->k;
  md_cu_lanes l;
  md_cu_begin(k, r->w,
              r->parts > 1 ? "a block for each part of a result" : "a block for each result");
  const char *type = md_cu_index_type(k);
  md_cu_line(k, NULL, "MD_SHARED(shared);");
  bool split = r->parts > 1;
  const char *result = r->results > 1 ? "r" : "0", *parts = split ? parts_of(r) : NULL;
  if (r->results > 1)
    md_cu_line(k, "result", "const int r = md_block()%s;",
               split ? md_format(r->w->arena, " / %s", parts) : "");
  if (split)
    md_cu_line(k, NULL, "const int part = md_block()%s;",
               r->results > 1 ? md_format(r->w->arena, " %% %s", parts) : "");
  declare_sums(r);
  if (r->by_line) md_cu_line_texts(k, r->n, &l);
  else prefetch(r, result);
  const char *step = r->by_line ? "line" : "j";
  md_cu_mark loop;
  if (split) {
    const char *turn = turn_of(r), *steps = steps_of(r);
    md_cu_line(k, NULL, "const %s begin = (%s)part * %s;", type, type, turn);
    md_cu_line(k, NULL, "const %s end = begin + %s < %s ? begin + %s : %s;", type, turn, steps,
               turn, steps);
    loop = md_cu_open(k, NULL, "for (%s %s = begin + md_thread(); %s < end; %s += %d) {", type,
                      step, step, step, MD_CU_THREADS);
  } else {
    loop = md_cu_open(k, NULL, "for (%s %s = md_thread(); %s < %s; %s += %d) {", type, step, step,
                      steps_of(r), step, MD_CU_THREADS);
  }
  put_step(r, &l, result, step);
  md_cu_close(k, loop);
  md_cu_mark first = join_threads(r);
  if (split) {
    const char *to = md_cu_workspace(k, r->place, parts_bytes(r), "double", true);
    for (int i = 0; i < r->num_sums; i++)
      md_cu_line(k, NULL, "%s[md_block() * %d + %d] = s%d;", to, r->num_sums, i, i);
  } else {
    put_results(r, result);
  }
  md_cu_close(k, first);
  k->is_told = r->results_told || (split && r->terms_told);
  md_cu_end(k, r->results * r->parts);
}

// s0, s1, ... += part j of result r.
static void add_part(Reduction *r) {
  md_cu_kernel *k = &r->k;
  const char *from = md_cu_workspace(k, r->place, parts_bytes(r), "double", false);
  for (int i = 0, sum = 0; i < r->n->num_reduces; i++)
    for (int q = 0; q < md_cu_num_sums(r->n->reduce[i]); q++, sum++)
      md_cu_add_term(k, r->n->reduce[i], md_format(r->w->arena, "s%d", sum),
                     md_format(r->w->arena, "%s[(r * %s + j) * %d + %d]", from, parts_of(r),
                               r->num_sums, sum));
}

// A thread for a result: its parts in order. Many parts: a block.
static void merge(Reduction *r) {
  md_cu_kernel *k = &r->k;
  bool by_block = r->parts > FEW_TERMS;
  md_cu_begin(k, r->w, by_block ? "merge of many parts" : "merge of the parts");
  if (by_block) {
    md_cu_line(k, NULL, "MD_SHARED(shared);");
    md_cu_line(k, "result", "const int r = md_block();");
  } else {
    md_cu_line(k, "result", "const int r = md_block() * %d + md_thread();", MD_CU_THREADS);
    md_cu_line(k, NULL, "if (r >= %s) return;", results_of(r));
  }
  declare_sums(r);
  const char *from = by_block ? "md_thread()" : "0";
  md_cu_mark loop = md_cu_open(k, NULL, "for (int j = %s; j < %s; j += %d) {", from, parts_of(r),
                               by_block ? MD_CU_THREADS : 1);
  add_part(r);
  md_cu_close(k, loop);
  if (by_block) {
    md_cu_mark first = join_threads(r);
    put_results(r, "r");
    md_cu_close(k, first);
  } else {
    put_results(r, "r");
  }
  k->is_told = r->results_told;
  md_cu_end(k, by_block ? r->results : md_ceil_div(r->results, MD_CU_THREADS));
}

static Reduction reduction_of(md_cu_work *w, const md_cu_nest *n) {
  Reduction r = {.w = w, .n = n, .parts = 1};
  r.results = md_elements(&md_type_in(w->r->g, n->reduce[0]->out)->shape);
  r.terms = md_elements(n->shape) / r.results;
  bool told = n->shape->rank > 0 && !md_cu_is_of_state(w->r, n->shape);
  r.results_told = told && is_kept(n, 0);
  r.terms_told = told && !is_kept(n, 0);
  for (int i = 0; i < n->num_reduces; i++) r.num_sums += md_cu_num_sums(n->reduce[i]);
  return r;
}

// One quantity each, added up along the last axis; there is a line for each thread.
static bool sums_lines(md_cu_work *w, const md_cu_nest *n, int64_t terms) {
  if (n->channels || n->groups > 1 || is_kept(n, n->shape->rank - 1)) return false;
  if (terms < MD_CU_THREADS * MD_CU_LANES) return false;
  for (int i = 0; i < n->num_reduces; i++)
    if (md_cu_num_sums(n->reduce[i]) != 1) return false;
  return md_cu_is_of_lines(w, n);
}

void md_cu_reduce(md_cu_work *w, const md_cu_nest *n) {
  if (md_cu_vector_walk(w, n)) return;
  Reduction r = reduction_of(w, n);
  // Neighbouring results are neighbours in memory: then threads of their own read well.
  bool last_kept = is_kept(n, n->shape->rank - 1);
  if (r.terms <= FEW_TERMS || (last_kept && r.results >= MANY_RESULTS)) {
    by_thread(&r);
    return;
  }
  r.by_line = sums_lines(w, n, r.terms);
  r.steps = r.by_line ? r.terms / MD_CU_LANES : r.terms;
  int64_t wanted = md_ceil_div(WANTED_BLOCKS, r.results);
  r.parts = MD_MAX(MD_MIN(wanted, r.terms / PART_TERMS), 1);
  r.part_steps = md_ceil_div(r.steps, r.parts);
  r.parts = md_ceil_div(r.steps, r.part_steps);
  if (r.parts > 1) r.place = md_cu_reserve(w, parts_bytes(&r));
  by_block(&r);
  if (r.parts > 1) merge(&r);
}
