// SPDX-License-Identifier: Apache-2.0
// Reads a golden set, runs its cases on a back end and judges every output by the rule of its row:
//   exact     equal, once rounded to the row's type
//   elem      |got - want| <= atol + rtol |want| everywhere
//   l2        ||got - want|| <= l2_tol ||want||
// Large outputs are stored as samples (flat index j*7919 mod n, j = 0..511) and norm. A case fails
// when a row does, but also when it has an input, attribute or output that is not understood, or
// nothing to judge.
#include "modistc/verify_golden.h"

#include "base/file.h"
#include "passes/passes.h"
#include "runtime/train/train.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_MANIFEST ((int64_t)256 << 20)
enum { NUM_SAMPLES = 512, SAMPLE_STEP = 7919, MAX_FILES = 256 };

typedef struct golden_set {
  const md_verify_options *o;
  md_diags *d;
  md_arena *arena;
  const md_tree *manifest;
  const char *file_name[MAX_FILES];
  md_safetensors *file[MAX_FILES];
  int num_files;
} golden_set;

typedef struct tally {
  int passed, failed, skipped;
} tally;

// --- a case from its row of the manifest

static md_safetensors *open_file(golden_set *s, const char *name, md_diags *d) {
  for (int i = 0; i < s->num_files; i++)
    if (!strcmp(s->file_name[i], name)) return s->file[i];
  if (strchr(name, '/') || s->num_files == MAX_FILES) {
    md_error(d, E0602, MD_NOWHERE, "the manifest names a file outside of its folder, or too many");
    return NULL;
  }
  md_safetensors *f = md_safetensors_read(md_format(s->arena, "%s/%s", s->o->dir, name), d);
  if (!f) return NULL;
  s->file_name[s->num_files] = name;
  s->file[s->num_files++] = f;
  return f;
}

static bool type_from(const md_st_tensor *t, md_type *type) {
  const char *why;
  *type = (md_type){.dtype = t->dtype, .shape.rank = MD_MAX(t->rank, 1), .shape.dim = {1}};
  if (t->rank > MD_MAX_RANK) return false;
  for (int i = 0; i < t->rank; i++) type->shape.dim[i] = t->dim[i];
  return md_shape_check(&type->shape, &why);
}

static bool read_row(md_case *c, const md_tree *from, const md_safetensors *file,
                     md_case_row *row) {
  const char *key = md_tree_str(md_tree_get(from, "key"));
  const char *kind = md_tree_str(md_tree_get(from, "kind"));
  const char *check = md_tree_str(md_tree_get(from, "check"));
  const md_tree *shape = md_tree_get(from, "shape");
  md_type type;
  row->role = md_tree_str(md_tree_get(from, "role"));
  row->data = key ? md_safetensors_find(file, key) : NULL;
  if (!row->role || !kind || !row->data || !shape || !type_from(row->data, &type))
    return md_error(c->diags, E0602, MD_NOWHERE, "%s: row %s is not complete", c->name,
                    key ? key : "?");
  bool fits = shape->num == row->data->rank;
  for (int i = 0; fits && i < shape->num; i++) fits = shape->item[i].i == row->data->dim[i];
  if (!fits)
    return md_error(c->diags, E0602, MD_NOWHERE, "%s: row %s has another shape than its tensor",
                    c->name, key);
  if (check && strcmp(check, "l2") != 0 && strcmp(check, "elem") != 0)
    return md_error(c->diags, E0602, MD_NOWHERE, "%s: row %s has an unknown check '%s'", c->name,
                    key, check);
  row->is_input = !strcmp(kind, "input");
  row->exact = md_tree_true(md_tree_get(from, "exact"));
  row->by_l2 = check && !strcmp(check, "l2");
  md_tree_float(md_tree_get(from, "rtol"), &row->rtol);
  md_tree_float(md_tree_get(from, "atol"), &row->atol);
  md_tree_float(md_tree_get(from, "l2_tol"), &row->l2_tol);
  if (!row->is_input) return true;
  row->value = md_tensor_create(type);
  if (!row->value) md_out_of_memory((size_t)md_type_bytes(&type));
  md_tensor_read(row->value, row->data->data);
  return true;
}

// center + scale * unit in f32, as the generator writes it.
static bool generate_row(md_case *c, const md_tree *from, md_case_row *row) {
  const char *name = md_tree_str(md_tree_get(from, "name"));
  const md_tree *shape = md_tree_get(from, "shape");
  int64_t seed;
  double scale, center;
  md_type type = {.dtype = MD_F32};
  const char *why;
  if (!name || !md_case_int(c, from, "seed", &seed) || !md_case_float(c, from, "scale", &scale) ||
      !md_case_float(c, from, "center", &center))
    return md_error(c->diags, E0602, MD_NOWHERE, "%s: input %s cannot be generated", c->name,
                    from->key);
  for (int i = 0; shape && i < shape->num && i < MD_MAX_RANK; i++)
    type.shape.dim[type.shape.rank++] = shape->item[i].i;
  if (!md_shape_check(&type.shape, &why))
    return md_error(c->diags, E0602, MD_NOWHERE, "%s: input %s: %s", c->name, from->key, why);
  *row = (md_case_row){.role = from->key, .is_input = true, .value = md_tensor_create(type)};
  if (!row->value) md_out_of_memory((size_t)md_type_bytes(&type));
  uint64_t key = md_hash_key(name, (uint64_t)seed);
  int64_t n = md_elements(&type.shape);
  for (int64_t i = 0; i < n; i++) {
    float scaled = (float)md_hash_unit(key, (uint64_t)i) * (float)scale;
    row->value->f[i] = (double)((float)center + scaled);
  }
  return true;
}

static bool read_case(golden_set *s, const md_tree *from, md_case *c) {
  const char *file_name = md_tree_str(md_tree_get(from, "file"));
  const md_tree *rows = md_tree_get(from, "tensors"), *made = md_tree_get(from, "generated");
  c->config = md_tree_get(from, "config");
  if (!file_name || !rows || rows->kind != MD_JSON_LIST)
    return md_error(c->diags, E0602, MD_NOWHERE, "%s: the case is not complete", c->name);
  const md_safetensors *file = open_file(s, file_name, c->diags);
  if (!file) return false;
  int num_made = made ? made->num : 0;
  c->row = MD_NEW_ARRAY(c->arena, md_case_row, rows->num + num_made);
  for (int i = 0; i < rows->num; i++)
    if (!read_row(c, &rows->item[i], file, &c->row[c->num_rows++])) return false;
  for (int i = 0; i < num_made; i++)
    if (!generate_row(c, &made->item[i], &c->row[c->num_rows++])) return false;
  return true;
}

// Attributes at any depth that nobody has read would be conditions that nobody keeps.
static bool all_read(md_case *c, const md_tree *t) {
  bool ok = true;
  for (int i = 0; t && i < t->num; i++) {
    const md_tree *item = &t->item[i];
    bool read = t->kind != MD_JSON_MAP;
    for (int k = 0; k < c->num_read && !read; k++) read = c->read[k] == item;
    if (!read)
      md_error(c->diags, E0602, MD_NOWHERE, "%s: attribute %s is not understood", c->name,
               item->key);
    ok = read && all_read(c, item) && ok;
  }
  return ok;
}

static void free_case(md_case *c) {
  for (int i = 0; i < c->num_rows; i++) md_tensor_destroy(c->row[i].value);
  for (int i = 0; i < c->num_outputs; i++) md_tensor_destroy(c->output[i].value);
  free(c->output);
  free(c->read);
  if (c->run) c->backend->destroy(c->run);
  md_graph_destroy(c->g);
}

// --- the judge

// How far a row is from its reference: 1 is the edge of what is allowed.
typedef struct verdict {
  bool ok;
  double worst;
  char text[160];
} verdict;

static double element(const md_tensor *t, int64_t i) { return t->f ? t->f[i] : (double)t->i[i]; }

static bool ends_with(const char *s, const char *end) {
  size_t n = strlen(s), m = strlen(end);
  return n > m && !strcmp(s + n - m, end);
}

// The values that the row stores: the output itself, its samples, or its norm. malloc'ed.
static double *stored_values(md_case *c, const char *role, int64_t *num, char *why, size_t size) {
  md_case_output *y = md_case_output_of(c, role);
  bool samples = !y && ends_with(role, "_samples"), norm = !y && ends_with(role, "_l2");
  if (samples || norm)
    y = md_case_output_of(c, md_format(c->arena, "%.*s", (int)(strrchr(role, '_') - role), role));
  if (!y) {
    snprintf(why, size, "the output is not understood");
    return NULL;
  }
  int64_t n = md_elements(&y->value->type.shape);
  *num = norm ? 1 : samples ? MD_MIN(n, NUM_SAMPLES) : n;
  double *out = md_calloc((size_t)*num, sizeof *out);
  if (norm) {
    for (int64_t i = 0; i < n; i++) out[0] += element(y->value, i) * element(y->value, i);
    out[0] = sqrt(out[0]);
  } else {
    for (int64_t i = 0; i < *num; i++)
      out[i] = element(y->value, samples && n > NUM_SAMPLES ? i * SAMPLE_STEP % n : i);
  }
  return out;
}

static void judge_l2(const md_case_row *row, const double *got, const md_tensor *want, int64_t n,
                     verdict *v) {
  double away = 0, size = 0;
  for (int64_t i = 0; i < n; i++) {
    double w = element(want, i);
    away += (got[i] - w) * (got[i] - w);
    size += w * w;
  }
  double l2 = sqrt(away) / fmax(sqrt(size), 1e-30);
  v->worst = l2 / row->l2_tol;
  v->ok = l2 <= row->l2_tol;
  snprintf(v->text, sizeof v->text, "relative L2 distance %.3g, allowed %.3g", l2, row->l2_tol);
}

static void judge_elements(const md_case_row *row, const double *got, const md_tensor *want,
                           int64_t n, verdict *v) {
  v->ok = true;
  for (int64_t i = 0; i < n; i++) {
    double w = element(want, i), g = got[i];
    if (row->exact && want->type.dtype == MD_F32) g = (double)(float)g;
    if (isnan(w) && isnan(g)) continue;
    double allowed = row->exact ? 0 : row->atol + row->rtol * fabs(w), away = fabs(g - w);
    // An infinite reference allows for nothing but itself; NaN is never near.
    double part = g == w ? 0 : allowed > 0 && isfinite(w) ? away / allowed : INFINITY;
    if (isnan(part)) part = INFINITY;
    if (part <= v->worst) continue;
    v->worst = part;
    v->ok = v->ok && part <= 1;
    snprintf(v->text, sizeof v->text, "element %lld is %.9g, expected %.9g, allowed %.3g",
             (long long)i, g, w, allowed);
  }
}

// In f32 the sign of some ReLU of a full-size network in training falls by rounding, and moves gradients
// by percents: correct implementations differ there. Such rows are judged by their L2 tolerance, as
// the set's own text says; in f64 they are judged element by element.
static bool falls_by_rounding(const md_case *c, const md_case_row *row) {
  if (c->backend->in_f64 || strcmp(c->op, "net") != 0 || strncmp(row->role, "grad/", 5) != 0)
    return false;
  const md_tree *sampled = md_tree_get(c->config, "sampled");
  return sampled && md_tree_true(sampled) && row->l2_tol > 0;
}

static verdict judge(md_case *c, const md_case_row *row) {
  verdict v = {0};
  md_type type;
  int64_t n;
  double *got = stored_values(c, row->role, &n, v.text, sizeof v.text);
  if (!got) return v;
  type_from(row->data, &type);  // was so when the case was read
  if (md_elements(&type.shape) != n) {
    snprintf(v.text, sizeof v.text, "has %lld elements, expected %lld", (long long)n,
             (long long)md_elements(&type.shape));
    free(got);
    return v;
  }
  md_tensor *want = md_tensor_create(type);
  if (!want) md_out_of_memory((size_t)md_type_bytes(&type));
  md_tensor_read(want, row->data->data);
  if (row->by_l2 || falls_by_rounding(c, row)) judge_l2(row, got, want, n, &v);
  else judge_elements(row, got, want, n, &v);
  md_tensor_destroy(want);
  free(got);
  return v;
}

// In f32 a trajectory is chaotic: only its first step is judged there.
static bool is_judged(const md_case *c, const md_case_row *row) {
  if (c->backend->in_f64 || strcmp(c->op, "modist_train") != 0) return true;
  return !strncmp(row->role, "step0/", 6) || !strncmp(row->role, "after_step0/", 12) ||
         !strcmp(row->role, "losses/0");
}

// --- the report

typedef struct report {
  const md_verify_options *o;
  md_json json;
} report;

static void report_case(report *r, const md_case *c, const char *status, int rows, double worst,
                        const char *worst_at, double seconds, const char *text) {
  if (r->o->json) {
    md_json *j = &r->json;
    md_json_begin(j, '{');
    j->compact = true;
    md_json_key(j, "case");
    md_json_str(j, c->name);
    md_json_key(j, "op");
    md_json_str(j, c->op);
    md_json_key(j, "status");
    md_json_str(j, status);
    md_json_key(j, "rows");
    md_json_int(j, rows);
    md_json_key(j, "worst");
    md_json_float(j, worst);
    md_json_key(j, "seconds");
    md_json_float(j, seconds);
    if (*text) {
      md_json_key(j, "text");
      md_json_str(j, text);
    }
    md_json_end(j, '}');
    j->compact = false;
    return;
  }
  fprintf(r->o->out, "%-4s  %-40s", status, c->name);
  if (c->too_many_flops > 0)
    fprintf(r->o->out, "  %.3g GFLOP are too many for %s", c->too_many_flops / 1e9,
            c->backend->name);
  else if (!strcmp(status, "skip")) fprintf(r->o->out, "  %s is not an op of this version", c->op);
  else
    fprintf(r->o->out, "  %4d rows  worst %-8.2g of its tolerance, %s  %.2f s", rows, worst,
            worst_at, seconds);
  fprintf(r->o->out, "\n%s", text);
}

static void judge_case(report *r, md_case *c, bool ran, double seconds, tally *t) {
  md_text text = {0};
  int rows = 0, bad = ran ? 0 : 1;
  double worst = 0;
  const char *worst_at = "-";
  if (!ran) md_put(&text, "%s", md_diags_text(c->diags));
  for (int i = 0; ran && i < c->num_rows; i++) {
    const md_case_row *row = &c->row[i];
    if (row->is_input && !row->used) {
      md_put(&text, "      %s: the input is not understood\n", row->role);
      bad++;
    }
    if (row->is_input) continue;
    verdict v = judge(c, row);
    bool judged = is_judged(c, row);
    rows += judged;
    if (judged && v.worst >= worst) worst = v.worst, worst_at = row->role;
    if (v.ok && !r->o->verbose) continue;
    const char *what = v.ok ? "" : judged ? "FAIL " : "not judged in f32: ";
    md_put(&text, "      %s%s: %s\n", what, row->role, *v.text ? v.text : "equal");
    bad += judged && !v.ok;
  }
  if (ran && !rows) {
    md_put(&text, "      the case has no output to judge\n");
    bad++;
  }
  if (bad) t->failed++;
  else t->passed++;
  report_case(r, c, bad ? "FAIL" : "pass", rows, worst, worst_at, seconds, text.s ? text.s : "");
  md_text_free(&text);
}

static const md_case_kind *kind_of(const char *op) {
  for (int i = 0; i < md_num_case_kinds; i++)
    if (!strcmp(md_case_kinds[i].op, op)) return &md_case_kinds[i];
  return NULL;
}

static void run_case(golden_set *s, report *r, const md_tree *from, tally *t) {
  md_case c = {.name = md_tree_str(md_tree_get(from, "name")),
               .op = md_tree_str(md_tree_get(from, "op")),
               .backend = s->o->backend};
  if (!c.name || !c.op) {
    md_error(s->d, E0602, MD_IN_FILE("manifest.json"), "a case has no name or op");
    return;
  }
  if (s->o->only && regexec(s->o->only, c.name, 0, NULL, 0) != 0) return;
  const md_case_kind *kind = kind_of(c.op);
  if (!kind) {
    t->skipped++;
    report_case(r, &c, "skip", 0, 0, "-", 0, "");
    return;
  }
  c.arena = md_arena_create();
  c.diags = md_diags_create();
  c.g = md_graph_create("golden");
  md_builder_init(&c.b, c.g, c.diags);
  int64_t start = md_now_ns();
  bool ran = read_case(s, from, &c) && kind->run(&c) && all_read(&c, c.config);
  if (c.too_many_flops > 0) {
    t->skipped++;
    report_case(r, &c, "skip", 0, 0, "-", 0, "");
  } else {
    judge_case(r, &c, ran, (double)(md_now_ns() - start) * 1e-9, t);
  }
  fflush(s->o->out);
  free_case(&c);
  md_diags_destroy(c.diags);
  md_arena_destroy(c.arena);
}

static bool read_manifest(golden_set *s) {
  const char *path = md_format(s->arena, "%s/manifest.json", s->o->dir);
  char *text;
  size_t len;
  if (!md_file_read(path, MAX_MANIFEST, E0602, s->d, &text, &len)) return false;
  s->manifest = md_json_read(path, text, len, E0602, s->arena, s->d);
  free(text);
  if (!s->manifest) return false;
  const char *format = md_tree_str(md_tree_get(s->manifest, "format"));
  const md_tree *cases = md_tree_get(s->manifest, "cases");
  if (!format || strcmp(format, "modist-golden-1") != 0)
    return md_error(s->d, E0602, MD_IN_FILE(path), "not of format modist-golden-1");
  if (!cases || cases->kind != MD_JSON_LIST)
    return md_error(s->d, E0602, MD_IN_FILE(path), "has no list of cases");
  return true;
}

// --- the interpreter as a back end, in f64

typedef struct interp_run {
  md_graph *g;
  md_interp *in;
} interp_run;

static void interp_destroy(void *run) {
  interp_run *r = run;
  md_interp_destroy(r->in);
  md_graph_destroy(r->g);
  free(r);
}

// Only gradients are expanded: the meaning, not what passes make of it.
static void *interp_create(void *ctx, md_graph *g, md_diags *d) {
  (void)ctx;
  md_pass_options o = md_pass_defaults();
  o.level = 0;
  g = md_run_passes(g, &o, NULL, d);
  if (!g) return NULL;
  interp_run *r = md_calloc(1, sizeof *r);
  *r = (interp_run){.g = g, .in = md_interp_create(g, false)};
  if (r->in) return r;
  md_error(d, E0802, MD_NOWHERE, "no memory for the inputs and states of graph %s", g->name);
  md_graph_destroy(g);
  free(r);
  return NULL;
}

static bool same_kind(const md_tensor *x, const md_tensor *y) {
  return !x->f == !y->f && md_elements(&x->type.shape) == md_elements(&y->type.shape);
}

static bool copy_tensor(md_tensor *to, const md_tensor *from) {
  if (!to || !from || !same_kind(to, from)) return false;
  size_t n = (size_t)md_elements(&to->type.shape);
  if (to->f) memcpy(to->f, from->f, n * sizeof *to->f);
  else memcpy(to->i, from->i, n * sizeof *to->i);
  return true;
}

static bool interp_put(void *run, const char *name, const md_tensor *from) {
  interp_run *r = run;
  md_tensor *to = md_interp_input(r->in, name);
  return copy_tensor(to ? to : md_interp_state(r->in, name), from);
}

static bool interp_step(void *run, md_diags *d) {
  return md_interp_step(((interp_run *)run)->in, d);
}

static bool interp_get(void *run, const char *name, md_tensor *to) {
  interp_run *r = run;
  md_val v = md_find_result(r->g, name);
  return copy_tensor(to, v != MD_NONE ? md_interp_value(r->in, v) : md_interp_state(r->in, name));
}

const md_verify_backend md_verify_interp = {.name = "interp",
                                            .in_f64 = true,
                                            .create = interp_create,
                                            .destroy = interp_destroy,
                                            .put = interp_put,
                                            .step = interp_step,
                                            .get = interp_get};

// --- what the cases use

const char *md_case_name(md_case *c, const char *role) {
  char *name = md_strdup(c->arena, role);
  for (char *p = name; *p; p++)
    if (*p == '/') *p = '.';
  return name;
}

md_case_row *md_case_find(md_case *c, const char *role) {
  for (int i = 0; i < c->num_rows; i++)
    if (!strcmp(c->row[i].role, role)) return &c->row[i];
  return NULL;
}

bool md_case_has(const md_case *c, const char *role) {
  for (int i = 0; i < c->num_rows; i++)
    if (!strcmp(c->row[i].role, role)) return true;
  return false;
}

md_val md_case_input(md_case *c, const char *role) {
  md_case_row *row = md_case_find(c, role);
  if (!row || !row->is_input) {
    if (!c->b.failed)
      md_error(c->diags, E0602, MD_NOWHERE, "%s: input %s is missing", c->name, role);
    c->b.failed = true;
    return MD_NONE;
  }
  row->used = row->is_node = true;
  return md_input(&c->b, md_case_name(c, role), row->value->type);
}

void md_case_result(md_case *c, const char *role, md_val v) {
  if (v == MD_NONE || c->b.failed) return;  // the builder has reported it
  md_case_output y = {.role = role, .name = md_case_name(c, role)};
  y.value = md_tensor_create(*md_type_in(c->g, v));
  if (!y.value) md_out_of_memory((size_t)md_type_bytes(md_type_in(c->g, v)));
  md_return(&c->b, y.name, v);
  MD_PUSH(c->output, c->num_outputs, c->cap_outputs, y);
}

md_case_output *md_case_output_of(md_case *c, const char *role) {
  for (int i = 0; i < c->num_outputs; i++)
    if (!strcmp(c->output[i].role, role)) return &c->output[i];
  return NULL;
}

// Before gradients are expanded: they triple it.
static bool is_small_enough(md_case *c, const md_graph *g) {
  double flops = 0;
  for (int i = 0; i < g->num_nodes; i++) {
    md_cost cost = {0};
    md_node_cost(g, g->node[i], &cost);
    flops += cost.flops;
  }
  if (c->backend->most_flops <= 0 || flops <= c->backend->most_flops) return true;
  c->too_many_flops = flops;
  return false;
}

bool md_case_start(md_case *c, md_graph *g) {
  if (c->b.failed) return false;
  if (!g) {
    g = c->g;
    c->g = NULL;
  }
  if (!is_small_enough(c, g)) {
    md_graph_destroy(g);
    return false;
  }
  c->state = MD_NEW_ARRAY(c->arena, md_case_state, g->num_nodes);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op == MD_OP_state)
      c->state[c->num_states++] =
          (md_case_state){md_strdup(c->arena, n->name), *md_type_in(g, n->out)};
  }
  c->run = c->backend->create(c->backend->ctx, g, c->diags);
  for (int i = 0; c->run && i < c->num_rows; i++) {
    const md_case_row *row = &c->row[i];
    if (row->is_node && !md_case_put(c, md_case_name(c, row->role), row->value)) return false;
  }
  return c->run != NULL;
}

bool md_case_put(md_case *c, const char *name, const md_tensor *value) {
  return c->backend->put(c->run, name, value) ||
         md_error(c->diags, E0602, MD_NOWHERE, "%s: %s does not fit the graph", c->name, name);
}

bool md_case_step(md_case *c) { return c->backend->step(c->run, c->diags); }

md_case_output *md_case_take(md_case *c, const char *role, const char *name, md_type type) {
  md_case_output y = {.role = role, .name = name, .value = md_tensor_create(type)};
  if (!y.value) md_out_of_memory((size_t)md_type_bytes(&type));
  MD_PUSH(c->output, c->num_outputs, c->cap_outputs, y);
  if (c->backend->get(c->run, name, y.value)) return &c->output[c->num_outputs - 1];
  md_error(c->diags, E0602, MD_NOWHERE, "%s: no result %s", c->name, name);
  return NULL;
}

bool md_case_fetch(md_case *c) {
  for (int i = 0; i < c->num_outputs; i++)
    if (!c->backend->get(c->run, c->output[i].name, c->output[i].value))
      return md_error(c->diags, E0602, MD_NOWHERE, "%s: no result %s", c->name, c->output[i].name);
  return true;
}

bool md_case_run(md_case *c) {
  return md_case_start(c, NULL) && md_case_step(c) && md_case_fetch(c);
}

static bool no_attr(md_case *c, const char *key, const char *what) {
  return md_error(c->diags, E0602, MD_NOWHERE, "%s: attribute %s is not %s", c->name, key, what);
}

const md_tree *md_case_attr(md_case *c, const md_tree *map, const char *key) {
  const md_tree *t = md_tree_get(map, key);
  if (t) MD_PUSH(c->read, c->num_read, c->cap_read, t);
  return t;
}

bool md_case_int(md_case *c, const md_tree *map, const char *key, int64_t *out) {
  return md_tree_int(md_case_attr(c, map, key), out) || no_attr(c, key, "an integer");
}

bool md_case_float(md_case *c, const md_tree *map, const char *key, double *out) {
  return md_tree_float(md_case_attr(c, map, key), out) || no_attr(c, key, "a number");
}

bool md_case_bool(md_case *c, const md_tree *map, const char *key, bool *out) {
  const md_tree *t = md_case_attr(c, map, key);
  if (!t || t->kind != MD_JSON_BOOL) return no_attr(c, key, "true or false");
  *out = md_tree_true(t);
  return true;
}

int md_case_word(md_case *c, const md_tree *map, const char *key, const char *const *words) {
  const char *word = md_tree_str(md_case_attr(c, map, key));
  md_text list = {0};
  for (int i = 0; words[i]; i++) {
    if (word && !strcmp(word, words[i])) {
      md_text_free(&list);
      return i;
    }
    md_put(&list, "%s'%s'", i ? " or " : "", words[i]);
  }
  no_attr(c, key, list.s);
  md_text_free(&list);
  return -1;
}

bool md_case_says(md_case *c, const char *key, bool is_so) {
  bool said = false;
  if (!md_case_bool(c, c->config, key, &said)) return false;
  return said == is_so || no_attr(c, key, "what the tensors of the case say");
}

bool md_case_sampled(md_case *c) {
  bool sampled = false;
  for (int i = 0; i < c->num_rows; i++) sampled = sampled || ends_with(c->row[i].role, "_samples");
  return !md_tree_get(c->config, "sampled") || md_case_says(c, "sampled", sampled);
}

bool md_case_positive(md_case *c, const md_tree *map, const char *key, double *out) {
  double x;
  if (!md_case_float(c, map, key, &x)) return false;
  if (!(x > 0)) return no_attr(c, key, "above 0");
  *out = x;
  return true;
}

bool md_case_dim3(md_case *c, const char *key, int64_t front, md_dim3 *out) {
  const md_tree *list = md_case_attr(c, c->config, key);
  if (!list || list->kind != MD_JSON_LIST || list->num < 1 || list->num > 3)
    return no_attr(c, key, "a list of at most three integers");
  *out = D3(front, front, front);
  for (int i = 0; i < list->num; i++)
    if (!md_tree_int(&list->item[i], &out->d[3 - list->num + i]))
      return no_attr(c, key, "a list of at most three integers");
  return true;
}

const md_tree *md_case_rates(md_case *c) {
  const md_tree *rates = md_case_attr(c, c->config, "lr_per_step");
  md_schedule s = {0};
  if (!rates || rates->kind != MD_JSON_LIST) {
    no_attr(c, "lr_per_step", "a list");
    return NULL;
  }
  if (!md_case_float(c, c->config, "base_lr", &s.base) ||
      !md_case_float(c, c->config, "total_steps", &s.epochs) ||
      !md_case_float(c, c->config, "warmup", &s.warmup) ||
      !md_case_float(c, c->config, "warmup_start", &s.warm0))
    return NULL;
  // A step of the case is an epoch of the schedule. Both sides are a handful of operations in f64.
  for (int t = 0; t < rates->num; t++) {
    double rate = NAN, want = md_lr_at(&s, t);
    md_tree_float(&rates->item[t], &rate);
    if (fabs(rate - want) <= 64 * DBL_EPSILON * s.base) continue;
    no_attr(c, "lr_per_step", "what its schedule gives");
    return NULL;
  }
  return rates;
}

void md_case_gradients(md_case *c, md_val y, int n, const char *const *role, const md_val *val) {
  md_val gy = md_case_input(c, "gy");
  md_val loss = md_sum(&c->b, md_mul(&c->b, y, gy), (md_dims){0});
  md_val d = md_gradient(&c->b, loss, val, n);
  for (int i = 0; i < n; i++)
    md_case_result(c, md_format(c->arena, "d%s", role[i]), md_result_of(&c->b, d, i));
}

md_status md_verify_golden(const md_verify_options *o, md_diags *d) {
  golden_set s = {.o = o, .d = d, .arena = md_arena_create()};
  report r = {.o = o};
  tally t = {0};
  bool read = read_manifest(&s);
  const md_tree *cases = read ? md_tree_get(s.manifest, "cases") : NULL;
  if (read && o->json) {
    md_json_begin(&r.json, '{');
    md_json_put_str(&r.json, "schema", "modist.verify/1");
    md_json_key(&r.json, "backend");
    md_json_str(&r.json, o->backend->name);
    md_json_key(&r.json, "cases");
    md_json_begin(&r.json, '[');
  }
  for (int i = 0; cases && i < cases->num; i++) run_case(&s, &r, &cases->item[i], &t);
  if (read && o->json) {
    md_json_end(&r.json, ']');
    const char *const key[] = {"passed", "failed", "skipped"};
    const int count[] = {t.passed, t.failed, t.skipped};
    for (int i = 0; i < 3; i++) {
      md_json_key(&r.json, key[i]);
      md_json_int(&r.json, count[i]);
    }
    md_json_end(&r.json, '}');
    fprintf(o->out, "%s\n", r.json.out.s);
    md_text_free(&r.json.out);
  } else if (read) {
    fprintf(o->out, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped);
  }
  for (int i = 0; i < s.num_files; i++) md_safetensors_destroy(s.file[i]);
  md_arena_destroy(s.arena);
  if (read && t.passed + t.failed + t.skipped == 0 && !md_diags_errors(d)) {
    if (o->only) md_error(d, E0401, MD_NOWHERE, "no case of the golden set matches the filter");
    else md_error(d, E0602, MD_NOWHERE, "the golden set has no cases");
    if (o->only) md_hint(d, "without it every case runs and is listed by name");
  }
  if (t.failed)
    md_error(d, E0701, MD_NOWHERE, "%d golden cases fail on %s", t.failed, o->backend->name);
  return md_diags_errors(d) ? md_diags_status(d) : MD_OK;
}
