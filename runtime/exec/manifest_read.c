// SPDX-License-Identifier: Apache-2.0
// manifest.json becomes a program. Reading is sticky: after the first mistake every getter returns a
// harmless value, and the mistake has been reported.
#include "runtime/exec/exec.h"

#include "base/init.h"
#include "base/json_tree.h"

#include <limits.h>
#include <string.h>

#define MANIFEST "manifest.json"
enum { MAX_ROWS = 1 << 20 };

typedef struct reader {
  md_program *p;
  md_diags *d;
  bool has_failed;
} reader;

static void wrong(reader *r, const char *key, const char *need) {
  if (!r->has_failed)
    md_error(r->d, E0632, MD_IN_FILE(r->p->path), MANIFEST ": '%s' is missing or is not %s", key,
             need);
  r->has_failed = true;
}

static int64_t get_int(reader *r, const md_tree *from, const char *key, int64_t max) {
  int64_t x;
  if (md_tree_int(md_tree_get(from, key), &x) && x >= 0 && x <= max) return x;
  wrong(r, key, "a number in its range");
  return 0;
}

static int64_t get_int_or_0(reader *r, const md_tree *from, const char *key, int64_t max) {
  return md_tree_get(from, key) ? get_int(r, from, key, max) : 0;
}

static double get_float(reader *r, const md_tree *from, const char *key) {
  double x = 0;
  if (!md_tree_float(md_tree_get(from, key), &x)) wrong(r, key, "a number");
  return x;
}

static const char *get_str(reader *r, const md_tree *from, const char *key) {
  const char *s = md_tree_str(md_tree_get(from, key));
  if (!s) wrong(r, key, "a text");
  return md_strdup(r->p->arena, s ? s : "");
}

static int get_word(reader *r, const md_tree *from, const char *key, const char *const *words,
                    int num) {
  const char *s = md_tree_str(md_tree_get(from, key));
  for (int i = 0; s && i < num; i++)
    if (!strcmp(s, words[i])) return i;
  wrong(r, key, "a word that is known here");
  return 0;
}

static const md_tree *get_map(reader *r, const md_tree *from, const char *key) {
  const md_tree *x = md_tree_get(from, key);
  if (x && x->kind == MD_JSON_MAP) return x;
  wrong(r, key, "an object");
  return NULL;
}

// The items of a list of objects; NULL and 0 when it is none.
static const md_tree *get_rows(reader *r, const md_tree *from, const char *key, int *num) {
  const md_tree *x = md_tree_get(from, key);
  bool ok = x && x->kind == MD_JSON_LIST && x->num <= MAX_ROWS;
  for (int i = 0; ok && i < x->num; i++) ok = x->item[i].kind == MD_JSON_MAP;
  if (!ok) wrong(r, key, "a list of objects");
  *num = ok ? x->num : 0;
  return ok ? x->item : NULL;
}

static bool parse_digest(const char *s, md_digest *out) {
  if (strlen(s) != 32 || strspn(s, "0123456789abcdef") != 32) return false;
  *out = (md_digest){0};
  for (int i = 0; i < 32; i++) {
    uint64_t digit = (uint64_t)(strchr("0123456789abcdef", s[i]) - "0123456789abcdef");
    uint64_t *half = i < 16 ? &out->hi : &out->lo;
    *half = *half << 4 | digit;
  }
  return true;
}

static md_digest get_digest(reader *r, const md_tree *from, const char *key) {
  md_digest x = {0};
  if (!parse_digest(get_str(r, from, key), &x)) wrong(r, key, "32 hexadecimal digits");
  return x;
}

static void get_type(reader *r, const md_tree *from, md_dtype *t, int *rank, int64_t *dim) {
  *t = md_dtype_from(get_str(r, from, "type"));
  if (*t == MD_NO_DTYPE) wrong(r, "type", "an element type");
  const md_tree *shape = md_tree_get(from, "shape");
  if (!shape || shape->kind != MD_JSON_LIST || shape->num > MD_SPEC_RANK) {
    wrong(r, "shape", "a list of at most 6 sizes");
    return;
  }
  *rank = shape->num;
  for (int i = 0; i < *rank; i++)
    if (!md_tree_int(&shape->item[i], &dim[i])) wrong(r, "shape", "a list of sizes");
}

// The check computes the same with care; a product that does not fit stays 0 and is refused there.
static int64_t bytes_of(const md_spec *s) {
  int64_t bytes = md_dtype_size(s->dtype);
  for (int i = 0; i < s->rank; i++)
    if (!md_mul_size(bytes, s->dim[i], &bytes)) return 0;
  return bytes;
}

static void get_spec(reader *r, const md_tree *from, md_spec *s) {
  s->name = get_str(r, from, "name");
  get_type(r, from, &s->dtype, &s->rank, s->dim);
  s->bytes = bytes_of(s);
}

static void get_state(reader *r, const md_tree *from, md_spec *s) {
  get_spec(r, from, s);
  s->init = get_word(r, from, "init", md_init_names, MD_COUNT(md_init_names));
  if (md_tree_get(from, "a")) s->a = get_float(r, from, "a");
  if (md_tree_get(from, "b")) s->b = get_float(r, from, "b");
  if (s->init == MD_INIT_copy) s->from = get_str(r, from, "from");
}

static void get_numbers(reader *r, const md_tree *from, const char *key, int64_t *x, int num) {
  const md_tree *list = md_tree_get(from, key);
  bool ok = list && list->kind == MD_JSON_LIST && list->num == num;
  for (int i = 0; ok && i < num; i++) ok = md_tree_int(&list->item[i], &x[i]);
  char need[40];
  snprintf(need, sizeof need, "a list of %d numbers", num);
  if (!ok) wrong(r, key, need);
}

static const md_windows *get_windows(reader *r, const md_tree *from) {
  if (!md_tree_get(from, "windows")) return NULL;
  md_windows *w = MD_NEW_ARRAY(r->p->arena, md_windows, 1);
  const md_tree *map = get_map(r, from, "windows");
  get_numbers(r, map, "of", w->dim, MD_COUNT(w->dim));
  get_numbers(r, map, "first", w->first, 3);
  get_numbers(r, map, "last", w->last, 3);
  get_numbers(r, map, "step", w->step, 3);
  w->channels = get_int(r, map, "channels", MD_WINDOW_CHANNELS);
  w->pixels = get_int(r, map, "pixels", MD_WINDOW_PIXELS);
  return w;
}

static void get_arg(reader *r, const md_tree *from, md_arg *a) {
  a->space = (md_space)get_word(r, from, "in", md_space_names, MD_NUM_SPACES);
  a->index = (int)get_int_or_0(r, from, "index", INT_MAX);
  a->offset = get_int(r, from, "offset", INT64_MAX);
  a->bytes = get_int(r, from, "bytes", INT64_MAX);
  a->write = md_tree_true(md_tree_get(from, "write"));
  a->may_be_left_out = md_tree_true(md_tree_get(from, "may_be_left_out"));
  a->name = md_tree_get(from, "value") ? get_str(r, from, "value") : NULL;
  a->windows = get_windows(r, from);
  if (md_tree_get(from, "type")) get_type(r, from, &a->dtype, &a->rank, a->dim);
  a->block = (int)get_int_or_0(r, from, "block", INT_MAX);
}

static const md_tree *get_counts(reader *r, const md_tree *from, int *num) {
  const md_tree *x = md_tree_get(from, "counts");
  bool ok = !x || (x->kind == MD_JSON_LIST && x->num <= MAX_ROWS);
  if (!ok) wrong(r, "counts", "a list of numbers");
  *num = ok && x ? x->num : 0;
  return *num ? x->item : NULL;
}

static void get_launches(reader *r, const md_tree *root) {
  md_program *p = r->p;
  const md_tree *rows = get_rows(r, root, "launches", &p->num_launches);
  for (int i = 0; i < p->num_launches; i++) {
    int phases, args, counts;
    get_rows(r, &rows[i], "phases", &phases);
    get_rows(r, &rows[i], "args", &args);
    get_counts(r, &rows[i], &counts);
    if (phases > MAX_ROWS - p->num_phases || args > MAX_ROWS - p->num_args ||
        counts > MAX_ROWS - p->num_counts)
      wrong(r, "launches", "short enough");
    if (r->has_failed) return;
    p->num_phases += phases;
    p->num_args += args;
    p->num_counts += counts;
  }
  p->launch = MD_NEW_ARRAY(p->arena, md_launch, p->num_launches);
  p->phase = MD_NEW_ARRAY(p->arena, md_phase, p->num_phases);
  p->arg = MD_NEW_ARRAY(p->arena, md_arg, p->num_args);
  p->count = MD_NEW_ARRAY(p->arena, int64_t, p->num_counts);
  int phase = 0, arg = 0, count = 0;
  for (int i = 0; i < p->num_launches; i++) {
    md_launch *l = &p->launch[i];
    *l = (md_launch){.first_phase = phase, .first_arg = arg, .first_count = count};
    l->name = get_str(r, &rows[i], "name");
    l->region = (int)get_int_or_0(r, &rows[i], "region", INT_MAX);
    l->flops = get_float(r, &rows[i], "flops");
    l->bytes = get_float(r, &rows[i], "bytes");
    const md_tree *phases = get_rows(r, &rows[i], "phases", &l->num_phases);
    const md_tree *args = get_rows(r, &rows[i], "args", &l->num_args);
    for (int k = 0; k < l->num_phases; k++, phase++) {
      p->phase[phase].symbol = get_str(r, &phases[k], "symbol");
      p->phase[phase].items = get_int(r, &phases[k], "items", INT64_MAX);
      p->phase[phase].scratch_bytes = get_int_or_0(r, &phases[k], "scratch", INT64_MAX);
      p->phase[phase].threads = (int)get_int_or_0(r, &phases[k], "threads", INT_MAX);
      p->phase[phase].shared_bytes = get_int_or_0(r, &phases[k], "shared", INT64_MAX);
    }
    for (int k = 0; k < l->num_args; k++, arg++) get_arg(r, &args[k], &p->arg[arg]);
    const md_tree *counts = get_counts(r, &rows[i], &l->num_counts);
    for (int k = 0; k < l->num_counts; k++, count++)
      if (!md_tree_int(&counts[k], &p->count[count])) wrong(r, "counts", "a list of numbers");
  }
}

static void get_fused(reader *r, const md_tree *from, md_conv_group *g) {
  g->fused.relu_before = md_tree_true(md_tree_get(from, "relu_before"));
  g->fused.relu_behind = md_tree_true(md_tree_get(from, "relu_behind"));
  g->fused.eps = get_float(r, from, "eps");
  g->fused.add_eps = get_float(r, from, "add_eps");
  for (int i = 0; i < MD_NUM_CONV_PARTS; i++)
    if (md_tree_get(from, md_conv_part_names[i]))
      get_arg(r, get_map(r, from, md_conv_part_names[i]), &g->part[i]);
}

// What another engine could do; older files have none.
static void get_convs(reader *r, const md_tree *root) {
  md_program *p = r->p;
  if (!md_tree_get(root, "convolutions")) return;
  const md_tree *rows = get_rows(r, root, "convolutions", &p->num_convs);
  p->conv = MD_NEW_ARRAY(p->arena, md_conv_group, p->num_convs + 1);
  for (int i = 0; i < p->num_convs; i++) {
    md_conv_group *g = &p->conv[i];
    g->first_launch = (int)get_int(r, &rows[i], "first_launch", INT_MAX);
    g->num_launches = (int)get_int(r, &rows[i], "num_launches", INT_MAX);
    g->kind = (md_conv_kind)get_word(r, &rows[i], "kind", md_conv_kind_names, MD_NUM_CONVS);
    get_numbers(r, &rows[i], "stride", g->stride, 3);
    get_numbers(r, &rows[i], "pad", g->pad, 3);
    get_numbers(r, &rows[i], "dilation", g->dilation, 3);
    get_arg(r, get_map(r, &rows[i], "x"), &g->x);
    get_arg(r, get_map(r, &rows[i], "w"), &g->w);
    get_arg(r, get_map(r, &rows[i], "y"), &g->y);
    if (md_tree_get(&rows[i], "fused")) get_fused(r, get_map(r, &rows[i], "fused"), g);
  }
}

// Before anything else is read: an older or newer file deserves to be called that.
static bool check_version(reader *r, const md_tree *root) {
  const char *format = get_str(r, root, "format");
  int64_t abi = get_int(r, root, "abi", INT64_MAX);
  if (r->has_failed) return false;
  if (!strcmp(format, MD_ARTEFACT_FORMAT) && abi == MD_ABI_VERSION) return true;
  char shown[64];
  md_error(r->d, E0631, MD_IN_FILE(r->p->path),
           "artefact has format '%s' and ABI version %lld, but '%s' and %d are needed here",
           md_clean(format, shown, sizeof shown), (long long)abi, MD_ARTEFACT_FORMAT,
           MD_ABI_VERSION);
  md_hint(r->d, "modistc compile ... -o %s", r->p->path);
  return false;
}

// Of what lies beside an artefact, which others may write, nothing else is taken: no code of the host.
static bool names_kernel(const char *name) {
  const char *dot = strrchr(name, '.');
  return dot && (!strcmp(dot, ".cubin") || !strcmp(dot, ".ptx")) &&
         md_member_name_is_fine(name, strlen(name));
}

// A member that is not in the archive. What its row asks for is bounded as an archive's members are.
static void take_shared(reader *r, md_digest want, int64_t *room, md_arena *a, md_member *m) {
  if (!names_kernel(m->name) || m->bytes < 1 || (int64_t)m->bytes > *room) {
    wrong(r, "members", "a list of what can be shared");
    return;
  }
  *room -= (int64_t)m->bytes;
  r->has_failed |= !md_kernel_read(r->p->path, want, m, a, r->d);
}

static void take_archived(reader *r, md_digest want, const md_member *row, md_member *m) {
  if (strcmp(row->name, m->name) || row->bytes != m->bytes) {
    wrong(r, "members", "what the archive holds");
    return;
  }
  md_digest is = md_digest_of(m->data, m->bytes);
  if (want.lo == is.lo && want.hi == is.hi) return;
  md_error(r->d, E0630, MD_IN_FILE(r->p->path), "artefact is damaged: the checksum of '%s' differs",
           m->name);
  r->has_failed = true;
}

// The archive holds what the manifest lists, no less and no more, unchanged; what is shared lies beside it.
static bool take_members(reader *r, const md_tree *root, md_member **members, int *num_members,
                         md_arena *a) {
  int num, archived = 1;
  int64_t room = MD_MAX_INFLATED;  // less what the archive's own members took of it
  for (int i = 0; i < *num_members; i++)
    room -= (*members)[i].deflate ? (int64_t)(*members)[i].bytes : 0;
  const md_tree *rows = get_rows(r, root, "members", &num);
  if (!r->has_failed && num > MD_MAX_MEMBERS) wrong(r, "members", "short enough");
  if (r->has_failed) return false;
  md_member *all = MD_NEW_ARRAY(a, md_member, num + 1);
  all[0] = (*members)[0];
  for (int i = 0; i < num && !r->has_failed; i++) {
    md_member *m = &all[i + 1];
    *m = (md_member){.name = md_strdup(a, get_str(r, &rows[i], "name")),
                     .bytes = (size_t)get_int(r, &rows[i], "bytes", INT64_MAX),
                     .shared = md_tree_true(md_tree_get(&rows[i], "shared"))};
    md_digest want = get_digest(r, &rows[i], "xxh3");
    if (r->has_failed) break;
    if (m->shared) {
      take_shared(r, want, &room, a, m);
    } else if (archived == *num_members) {
      wrong(r, "members", "what the archive holds");
    } else {
      md_member row = *m;
      *m = (*members)[archived++];
      take_archived(r, want, &row, m);
    }
  }
  if (!r->has_failed && archived != *num_members) wrong(r, "members", "what the archive holds");
  *members = all;
  *num_members = num + 1;
  return !r->has_failed;
}

// What each launch of a variant should take on some device, where that was predicted.
static void get_prediction(reader *r, const md_tree *from, md_gpu_variant *v) {
  if (!md_tree_get(from, "predicted_for")) return;
  v->predicted_for = get_str(r, from, "predicted_for");
  const md_tree *list = md_tree_get(from, "predicted_us");
  bool ok = list && list->kind == MD_JSON_LIST && list->num == v->num_launches + v->num_tried;
  double *us = MD_NEW_ARRAY(r->p->arena, double, ok ? list->num : 1);
  for (int i = 0; ok && i < list->num; i++)
    ok = md_tree_float(&list->item[i], &us[i]) && us[i] >= 0;
  if (!ok) wrong(r, "predicted_us", "a list of times, one for each launch");
  v->predicted_us = us;
}

// Their launches follow one another behind those of the step.
static void get_trials(reader *r, const md_tree *from, md_gpu_variant *v) {
  md_program *p = r->p;
  v->first_trial = p->num_trials;
  if (!md_tree_get(from, "trials")) return;
  const md_tree *rows = get_rows(r, from, "trials", &v->num_trials);
  for (int i = 0; i < v->num_trials; i++) {
    md_gpu_trial *t = &p->trial[p->num_trials++];
    t->key = get_str(r, &rows[i], "key");
    t->way = get_str(r, &rows[i], "way");
    t->own = get_str(r, &rows[i], "own");
    t->replaced = (int)get_int(r, &rows[i], "replaced", MAX_ROWS);
    t->num_replaced = (int)get_int(r, &rows[i], "num_replaced", MAX_ROWS);
    t->first_launch = v->first_launch + v->num_launches + v->num_tried;
    t->num_launches = (int)get_int(r, &rows[i], "num_launches", MAX_ROWS - v->num_tried);
    v->num_tried += t->num_launches;
  }
}

// The targets of a CUDA program; others have none.
static void get_variants(reader *r, const md_tree *root) {
  md_program *p = r->p;
  if (!md_tree_get(root, "targets")) return;
  const md_tree *rows = get_rows(r, root, "targets", &p->num_variants);
  int trials = 0;
  for (int i = 0; i < p->num_variants; i++) {
    int kernels, more = 0;
    get_rows(r, &rows[i], "kernels", &kernels);
    if (md_tree_get(&rows[i], "trials")) get_rows(r, &rows[i], "trials", &more);
    if (kernels > MAX_ROWS - p->num_kernels) wrong(r, "kernels", "short enough");
    if (more > MAX_ROWS - trials) wrong(r, "trials", "short enough");
    trials += more;
    if (r->has_failed) return;
    p->num_kernels += kernels;
  }
  p->variant = MD_NEW_ARRAY(p->arena, md_gpu_variant, p->num_variants);
  p->kernel = MD_NEW_ARRAY(p->arena, md_gpu_kernel, p->num_kernels);
  p->trial = MD_NEW_ARRAY(p->arena, md_gpu_trial, trials);
  for (int i = 0, kernel = 0; i < p->num_variants; i++) {
    md_gpu_variant *v = &p->variant[i];
    *v = (md_gpu_variant){.first_kernel = kernel};
    v->target = get_str(r, &rows[i], "target");
    v->first_launch = (int)get_int(r, &rows[i], "first_launch", MAX_ROWS);
    v->num_launches = (int)get_int(r, &rows[i], "num_launches", MAX_ROWS);
    v->workspace_bytes = get_int(r, &rows[i], "workspace_bytes", INT64_MAX);
    const md_tree *kernels = get_rows(r, &rows[i], "kernels", &v->num_kernels);
    for (int k = 0; k < v->num_kernels; k++, kernel++) {
      p->kernel[kernel].symbol = get_str(r, &kernels[k], "symbol");
      p->kernel[kernel].member = get_str(r, &kernels[k], "member");
    }
    get_trials(r, &rows[i], v);
    get_prediction(r, &rows[i], v);
  }
}

static void get_program(reader *r, const md_tree *root) {
  md_program *p = r->p;
  p->name = get_str(r, root, "name");
  p->target = get_str(r, root, "target");
  p->graph = get_digest(r, root, "graph");
  p->arena_bytes = get_int(r, root, "arena_bytes", INT64_MAX);
  p->workspace_bytes = get_int(r, root, "workspace_bytes", INT64_MAX);
  const md_tree *rows = get_rows(r, root, "inputs", &p->num_inputs);
  p->input = MD_NEW_ARRAY(p->arena, md_spec, p->num_inputs);
  for (int i = 0; i < p->num_inputs; i++) get_spec(r, &rows[i], &p->input[i]);
  rows = get_rows(r, root, "states", &p->num_states);
  p->state = MD_NEW_ARRAY(p->arena, md_spec, p->num_states);
  for (int i = 0; i < p->num_states; i++) get_state(r, &rows[i], &p->state[i]);
  rows = get_rows(r, root, "results", &p->num_results);
  p->result = MD_NEW_ARRAY(p->arena, md_spec, p->num_results);
  p->result_at = MD_NEW_ARRAY(p->arena, md_arg, p->num_results);
  for (int i = 0; i < p->num_results; i++) {
    get_spec(r, &rows[i], &p->result[i]);
    get_arg(r, get_map(r, &rows[i], "at"), &p->result_at[i]);
  }
  get_variants(r, root);
  get_launches(r, root);
  get_convs(r, root);
  if (r->has_failed) return;
  rows = get_rows(r, root, "copies", &p->num_copies);
  p->copy = MD_NEW_ARRAY(p->arena, md_copy, p->num_copies);
  for (int i = 0; i < p->num_copies; i++) {
    p->copy[i].state = (int)get_int(r, &rows[i], "state", INT_MAX);
    get_arg(r, get_map(r, &rows[i], "from"), &p->copy[i].src);
  }
}

bool md_manifest_read(md_program *p, md_member **members, int *num_members, md_arena *a,
                      md_diags *d) {
  reader *r = &(reader){.p = p, .d = d};
  const md_member *m = *members;
  if (strcmp(m->name, MANIFEST))
    return md_error(d, E0630, MD_IN_FILE(p->path),
                    "not an artefact: its first member is '%s', not '%s'", m->name, MANIFEST);
  md_arena *scratch = md_arena_create();
  const char *file = md_format(scratch, "%s/" MANIFEST, p->path);
  const md_tree *root = md_json_read(file, m->data, m->bytes, E0632, scratch, d);
  bool ok = root && check_version(r, root) && take_members(r, root, members, num_members, a);
  if (ok) get_program(r, root);
  ok = ok && !r->has_failed && md_program_check(p, d);
  md_arena_destroy(scratch);
  return ok;
}
