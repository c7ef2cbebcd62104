// SPDX-License-Identifier: Apache-2.0
// A compiled step as data, and the check that comes before anybody follows one of its numbers. It
// may come from a file: every index, size and sum is looked at with checked arithmetic, so that a
// checked program names only memory that the executor will own.
#include "runtime/exec/exec.h"

#include "base/init.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum {
  MAX_COUNT = 1 << 20,  // of inputs, states, results, launches, phases, arguments, copies
  MAX_NAME = 255,
  MAX_HOPS = 8,  // of a state that copies a state that copies ...
};
#define MAX_BYTES ((int64_t)1 << 46)  // of a buffer: sums of a few stay far from overflow

const char *const md_space_names[MD_NUM_SPACES] = {"arena", "state", "input", "result",
                                                   "workspace"};

const char *const md_conv_kind_names[MD_NUM_CONVS] = {"forward", "data", "weights"};
const char *const md_conv_part_names[MD_NUM_CONV_PARTS] = {
    "add",      "gamma",   "beta",   "norm_mean", "norm_var", "add_gamma", "add_beta",
    "add_mean", "add_var", "formed", "bias",      "rest",     "mean",      "var"};

typedef struct check {
  const md_program *p;
  md_diags *d;
} check;

static bool bad(const check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool bad(const check *c, const char *fmt, ...) {
  char text[512], clean[512];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  md_place at = c->p->path ? MD_IN_FILE(c->p->path) : MD_NOWHERE;
  return md_error(c->d, E0632, at, "program: %s", md_clean(text, clean, sizeof clean));
}

static bool name_is_fine(const char *s) { return s && *s && strnlen(s, MAX_NAME + 1) <= MAX_NAME; }

static bool symbol_is_fine(const char *s) {
  if (!name_is_fine(s)) return false;
  return strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == strlen(s);
}

// Bytes of a tensor, blocks of channels padded; -1: impossible.
static int64_t tensor_bytes(md_dtype t, int rank, const int64_t *dim, int block) {
  int64_t bytes = md_dtype_size(t);
  if (bytes == 0 || rank < 0 || rank > MD_SPEC_RANK) return -1;
  if (block < 0 || block > 4096 || (block > 0 && rank < 2)) return -1;
  for (int i = 0; i < rank; i++) {
    if (dim[i] < 1 || dim[i] > MAX_BYTES) return -1;
    int64_t n = block > 0 && i == 1 ? md_round_up(dim[i], block) : dim[i];
    if (!md_mul_size(bytes, n, &bytes) || bytes > MAX_BYTES) return -1;
  }
  return bytes;
}

static bool check_count(const check *c, const char *what, int num, const void *rows) {
  if (num < 0 || num > MAX_COUNT)
    return bad(c, "%d %s; 0 to %d are possible", num, what, MAX_COUNT);
  return num == 0 || rows || bad(c, "%d %s are announced, but there are none", num, what);
}

static bool check_bytes(const check *c, const char *what, int64_t bytes) {
  return (bytes >= 0 && bytes <= MAX_BYTES) || bad(c, "%s of %lld bytes; 0 to %lld are possible",
                                                   what, (long long)bytes, (long long)MAX_BYTES);
}

static int compare_names(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool check_specs(const check *c, const char *what, const md_spec *specs, int num) {
  const char **names = md_calloc((size_t)num + 1, sizeof *names);
  bool ok = true;
  for (int i = 0; i < num && ok; i++) {
    const md_spec *s = &specs[i];
    names[i] = s->name;
    if (!name_is_fine(s->name)) {
      ok = bad(c, "%s %d has no name of 1 to %d characters", what, i, MAX_NAME);
      break;
    }
    int64_t bytes = tensor_bytes(s->dtype, s->rank, s->dim, 0);
    if (bytes < 0) ok = bad(c, "%s '%s' has no possible type", what, s->name);
    else if (bytes != s->bytes)
      ok = bad(c, "%s '%s' has %lld bytes, but its type needs %lld", what, s->name,
               (long long)s->bytes, (long long)bytes);
  }
  if (ok) qsort(names, (size_t)num, sizeof *names, compare_names);
  for (int i = 1; i < num && ok; i++)
    if (!strcmp(names[i - 1], names[i])) ok = bad(c, "two %ss are named '%s'", what, names[i]);
  free(names);
  return ok;
}

// The states whose values are given by a rule; a copy leads to one of them, with equal shapes.
static bool check_init(const check *c, const md_spec *s) {
  if (s->init < MD_INIT_zeros || s->init > MD_INIT_copy)
    return bad(c, "state '%s' has an unknown init %d", s->name, s->init);
  if (!isfinite(s->a) || !isfinite(s->b))
    return bad(c, "state '%s' is initialised with a number that is not finite", s->name);
  if (s->init == MD_INIT_unit_rows && s->rank == 0)
    return bad(c, "state '%s' is to have rows of norm 1, but is a scalar", s->name);
  const md_spec *at = s;
  for (int hops = 0; at->init == MD_INIT_copy; hops++) {
    const md_spec *from = md_program_state(c->p, at->from);
    if (!from) return bad(c, "state '%s' copies a state that is not there", at->name);
    if (hops == MAX_HOPS)
      return bad(c, "state '%s' is a copy of a copy, more than %d deep", s->name, MAX_HOPS);
    at = from;
  }
  bool same = at->rank == s->rank;
  for (int i = 0; same && i < s->rank; i++) same = at->dim[i] == s->dim[i];
  return same || bad(c, "state '%s' copies '%s', which has another shape", s->name, at->name);
}

// Bytes of the space that an argument points into; -1: there is no such space.
static int64_t space_bytes(const md_program *p, const md_arg *a) {
  switch (a->space) {
  case MD_IN_ARENA: return p->arena_bytes;
  case MD_IN_WORKSPACE: return p->workspace_bytes;
  case MD_IN_STATE:
    return a->index >= 0 && a->index < p->num_states ? p->state[a->index].bytes : -1;
  case MD_IN_INPUT:
    return a->index >= 0 && a->index < p->num_inputs ? p->input[a->index].bytes : -1;
  case MD_IN_RESULT:
    if (a->index < 0 || a->index >= p->num_results) return -1;
    return p->result_at[a->index].space == MD_IN_RESULT ? p->result[a->index].bytes : -1;
  case MD_NUM_SPACES: break;
  }
  return -1;
}

// What a driver would refuse, or a kernel read beyond the tensor.
static bool windows_are_fine(const check *c, const md_arg *a) {
  const md_windows *w = a->windows;
  int64_t bytes = 2;
  bool ok = c->p->num_variants > 0 && !a->write && w->channels == MD_WINDOW_CHANNELS &&
            w->pixels >= 1 && w->pixels <= MD_WINDOW_PIXELS && a->offset % 16 == 0;
  for (int i = 0; ok && i < MD_COUNT(w->dim); i++)
    ok = w->dim[i] >= 1 && md_mul_size(bytes, w->dim[i], &bytes);
  ok = ok && w->dim[0] % 8 == 0 && bytes <= a->bytes;
  for (int i = 0; ok && i < 3; i++)
    ok = w->first[i] >= MD_WINDOW_FIRST && w->first[i] <= MD_WINDOW_LAST &&
         w->last[i] >= MD_WINDOW_FIRST && w->last[i] <= MD_WINDOW_LAST && w->step[i] >= 1 &&
         w->step[i] <= MD_WINDOW_STEP;
  return ok;
}

static bool check_arg(const check *c, const char *where, const md_arg *a) {
  const char *name = a->name ? a->name : "(no name)";
  int64_t room = space_bytes(c->p, a), end;
  if (room < 0) return bad(c, "%s: '%s' lies in memory that does not exist", where, name);
  if (!md_add_size(a->offset, a->bytes, &end) || end > room)
    return bad(c, "%s: '%s' reaches beyond the %s (%lld bytes at %lld of %lld)", where, name,
               md_space_names[a->space], (long long)a->bytes, (long long)a->offset,
               (long long)room);
  if (a->write && a->space == MD_IN_INPUT)
    return bad(c, "%s: '%s' writes to an input", where, name);
  if (a->windows && !windows_are_fine(c, a))
    return bad(c, "%s: no tensor map can say which windows of '%s' there are", where, name);
  if (a->dtype == MD_NO_DTYPE) return true;
  int64_t bytes = tensor_bytes(a->dtype, a->rank, a->dim, a->block);
  if (bytes < 0) return bad(c, "%s: '%s' has no possible type", where, name);
  if (bytes > a->bytes)
    return bad(c, "%s: '%s' has %lld bytes, but its type needs %lld", where, name,
               (long long)a->bytes, (long long)bytes);
  if (a->offset % md_dtype_size(a->dtype))
    return bad(c, "%s: '%s' is not aligned to its elements", where, name);
  return true;
}

// A result is read row-major, as its spec says.
static bool check_result(const check *c, int i) {
  const md_spec *s = &c->p->result[i];
  const md_arg *a = &c->p->result_at[i];
  char where[MAX_NAME + 16];
  snprintf(where, sizeof where, "result '%s'", s->name);
  if (!check_arg(c, where, a)) return false;
  if (a->space == MD_IN_RESULT && a->index != i)
    return bad(c, "%s lies in the buffer of another result", where);
  if (a->space == MD_IN_WORKSPACE) return bad(c, "%s lies in the workspace", where);
  bool same = a->bytes == s->bytes && a->dtype == s->dtype && a->block == 0 && a->rank == s->rank;
  for (int k = 0; same && k < s->rank; k++) same = a->dim[k] == s->dim[k];
  return same || bad(c, "%s has another type or layout where it lies", where);
}

static bool check_launch(const check *c, const md_launch *l) {
  const md_program *p = c->p;
  if (!name_is_fine(l->name)) return bad(c, "a launch has no name of 1 to %d characters", MAX_NAME);
  if (l->first_phase < 0 || l->num_phases < 1 || l->num_phases > p->num_phases - l->first_phase)
    return bad(c, "launch '%s': phases %d+%d of %d", l->name, l->first_phase, l->num_phases,
               p->num_phases);
  if (l->first_arg < 0 || l->num_args < 0 || l->num_args > p->num_args - l->first_arg)
    return bad(c, "launch '%s': arguments %d+%d of %d", l->name, l->first_arg, l->num_args,
               p->num_args);
  if (l->first_count < 0 || l->num_counts < 0 || l->num_counts > p->num_counts - l->first_count)
    return bad(c, "launch '%s': counts %d+%d of %d", l->name, l->first_count, l->num_counts,
               p->num_counts);
  if (l->num_counts && !p->num_variants)
    return bad(c, "launch '%s' has counts, which no CPU takes", l->name);
  for (int i = 0; i < l->num_counts; i++)
    if (p->count[l->first_count + i] < 0 || p->count[l->first_count + i] > INT32_MAX)
      return bad(c, "launch '%s': count %d is out of range", l->name, i);
  if (!(l->flops >= 0) || !(l->bytes >= 0) || isinf(l->flops) || isinf(l->bytes))
    return bad(c, "launch '%s': its cost is no number", l->name);
  char where[MAX_NAME + 16];
  snprintf(where, sizeof where, "launch '%s'", l->name);
  for (int i = 0; i < l->num_args; i++)
    if (!check_arg(c, where, &p->arg[l->first_arg + i])) return false;
  return true;
}

static bool check_phase(const check *c, const md_phase *f) {
  bool is_cuda = c->p->num_variants > 0;
  if (!symbol_is_fine(f->symbol))
    return bad(c, "symbol '%.80s' is not made of A-Z a-z 0-9 _", f->symbol ? f->symbol : "");
  if (f->items < 1 || f->items > MD_MAX_ITEMS)
    return bad(c, "symbol '%s' has %lld items", f->symbol, (long long)f->items);
  if (is_cuda ? f->threads < 1 || f->threads > 1024 : f->threads != 0)
    return bad(c, "symbol '%s' has %lld blocks of %d threads", f->symbol, (long long)f->items,
               f->threads);
  return check_bytes(c, "scratch memory", f->scratch_bytes) &&
         check_bytes(c, "shared memory", f->shared_bytes);
}

static bool is_key(const char *s) {
  return s && strlen(s) == 32 && strspn(s, "0123456789abcdef") == 32;
}

// Trials of one product are neighbours and name the same launches of the step, behind those of products
// before. Their own launches follow one another behind the step.
static bool check_trials(const check *c, const md_gpu_variant *v) {
  int end = v->first_launch + v->num_launches, next = end, free_from = v->first_launch;
  const md_gpu_trial *before = NULL;
  for (int i = 0; i < v->num_trials; i++) {
    const md_gpu_trial *t = &c->p->trial[v->first_trial + i];
    bool same = before && t->replaced == before->replaced &&
                t->num_replaced == before->num_replaced && !strcmp(t->key, before->key);
    bool ok = is_key(t->key) && name_is_fine(t->way) && name_is_fine(t->own) &&
              (same || t->replaced >= free_from) && t->num_replaced >= 1 &&
              t->replaced <= end - t->num_replaced && t->first_launch == next &&
              t->num_launches >= 1 && t->num_launches <= end + v->num_tried - next;
    if (!ok) return bad(c, "target '%s': trial %d is of launches that there are not", v->target, i);
    next += t->num_launches;
    free_from = t->replaced + t->num_replaced;
    before = t;
  }
  return next == end + v->num_tried ||
         bad(c, "target '%s': %d launches to be tried", v->target, v->num_tried);
}

// Variants share neither kernels nor, but for the very same ones, launches; each launch is a kernel.
static bool check_variant(const check *c, const md_gpu_variant *v) {
  const md_program *p = c->p;
  int sm;
  char suffix;
  bool is_ptx;
  if (!v->target || !md_gpu_target(v->target, &sm, &suffix, &is_ptx))
    return bad(c, "'%.80s' is no CUDA target", v->target ? v->target : "");
  if (v->first_launch < 0 || v->num_launches < 0 ||
      v->num_launches > p->num_launches - v->first_launch)
    return bad(c, "target '%s': launches %d+%d of %d", v->target, v->first_launch, v->num_launches,
               p->num_launches);
  if (v->first_kernel < 0 || v->num_kernels < 0 ||
      v->num_kernels > p->num_kernels - v->first_kernel)
    return bad(c, "target '%s': kernels %d+%d of %d", v->target, v->first_kernel, v->num_kernels,
               p->num_kernels);
  if (v->workspace_bytes < 0 || v->workspace_bytes > p->workspace_bytes)
    return bad(c, "target '%s' has a workspace of its own", v->target);
  if (v->num_tried < 0 || v->num_tried > p->num_launches - v->first_launch - v->num_launches)
    return bad(c, "target '%s': %d launches to be tried", v->target, v->num_tried);
  if (v->first_trial < 0 || v->num_trials < 0 || v->num_trials > p->num_trials - v->first_trial)
    return bad(c, "target '%s': trials %d+%d of %d", v->target, v->first_trial, v->num_trials,
               p->num_trials);
  if (!check_trials(c, v)) return false;
  for (int i = v->first_launch; i < v->first_launch + v->num_launches + v->num_tried; i++)
    if (p->launch[i].num_phases != 1)
      return bad(c, "launch '%s' is not one kernel", p->launch[i].name);
  for (int i = v->first_kernel; i < v->first_kernel + v->num_kernels; i++)
    if (!symbol_is_fine(p->kernel[i].symbol) || !name_is_fine(p->kernel[i].member))
      return bad(c, "kernel %d of target '%s' has no name", i - v->first_kernel, v->target);
  return true;
}

// A tensor of five axes that another engine is to read or to write.
static bool check_operand(const check *c, const char *where, const md_arg *a, bool is_result) {
  bool is_ours = a->space != MD_IN_WORKSPACE && a->write == is_result && a->rank == 5 &&
                 (a->dtype == MD_F32 || a->dtype == MD_BF16) && a->offset % 16 == 0 &&
                 (a->block == 0 || a->block >= a->dim[1]);
  return check_arg(c, where, a) && (is_ours || bad(c, "%s: not as an engine takes it", where));
}

static bool check_axis(const md_conv_group *g, int i) {
  int64_t window, room;
  if (g->stride[i] < 1 || g->dilation[i] < 1 || g->pad[i] < 0 || g->pad[i] > INT32_MAX ||
      g->stride[i] > INT32_MAX || g->dilation[i] > INT32_MAX || g->x.dim[2 + i] > INT32_MAX ||
      !md_mul_size(g->w.dim[2 + i] - 1, g->dilation[i], &window))
    return false;
  room = g->x.dim[2 + i] + 2 * g->pad[i] - 1;
  return window <= room && g->y.dim[2 + i] == (room - window) / g->stride[i] + 1;
}

bool md_conv_is_fused(const md_conv_group *g) {
  bool is = g->fused.relu_before || g->fused.relu_behind;
  for (int i = 0; i < MD_NUM_CONV_PARTS; i++) is |= g->part[i].rank != 0;
  return is;
}

// A number for each channel of `of`.
static bool is_by_channel(const md_arg *a, const md_arg *of, bool is_bias) {
  return (a->dtype == MD_F32 || (is_bias && a->dtype == MD_BF16)) && !a->block &&
         a->offset % 16 == 0 && a->space != MD_IN_WORKSPACE &&
         ((a->rank == 1 && a->dim[0] == of->dim[1]) ||
          (a->rank == 2 && a->dim[0] == 1 && a->dim[1] == of->dim[1]));
}

static bool has_all(const md_conv_group *g, md_conv_part from, md_conv_part to) {
  for (int i = (int)from + 1; i <= (int)to; i++)
    if (!g->part[i].rank != !g->part[from].rank) return false;
  return true;
}

static bool check_part(const check *c, const md_conv_group *g, int i) {
  const md_arg *a = &g->part[i];
  const char *name = md_conv_part_names[i];
  bool is_image = i == MD_CONV_ADD || i == MD_CONV_FORMED || i == MD_CONV_REST;
  bool is_result = i == MD_CONV_FORMED || i == MD_CONV_MEAN || i == MD_CONV_VAR;
  const md_arg *of = i >= MD_CONV_BIAS ? &g->y : &g->x;
  if (is_image)
    return check_operand(c, name, a, is_result) &&
           (!memcmp(a->dim, of->dim, 5 * sizeof *a->dim) ||
            bad(c, "%s: it has not the sizes of %s", name, of == &g->y ? "y" : "x"));
  return check_arg(c, name, a) &&
         ((is_by_channel(a, of, i == MD_CONV_BIAS) && a->write == is_result) ||
          bad(c, "%s: not a number for each channel, as an engine takes it", name));
}

static bool check_fused(const check *c, const char *where, const md_conv_group *g) {
  bool forms = g->fused.relu_before || g->part[MD_CONV_GAMMA].rank || g->part[MD_CONV_ADD].rank;
  for (int i = 0; i < MD_NUM_CONV_PARTS; i++)
    if (g->part[i].rank && !check_part(c, g, i)) return false;
  bool ok = has_all(g, MD_CONV_GAMMA, MD_CONV_NORM_VAR) &&
            has_all(g, MD_CONV_ADD_GAMMA, MD_CONV_ADD_VAR) &&
            has_all(g, MD_CONV_MEAN, MD_CONV_VAR) &&
            (g->part[MD_CONV_ADD].rank || !g->part[MD_CONV_ADD_GAMMA].rank) &&
            (forms || !g->part[MD_CONV_FORMED].rank);
  return ok || bad(c, "%s: a part of what is fused is missing", where);
}

// Groups come in the order of their launches, and each lies within the launches of every variant that has
// its first.
static bool check_conv(const check *c, int number) {
  const md_program *p = c->p;
  const md_conv_group *g = &p->conv[number];
  int least = number ? g[-1].first_launch + g[-1].num_launches : 0;
  char where[60];
  snprintf(where, sizeof where, "convolution %d", number);
  if (g->kind < 0 || g->kind >= MD_NUM_CONVS || g->first_launch < least || g->num_launches < 1 ||
      g->num_launches > p->num_launches - g->first_launch)
    return bad(c, "%s: launches %d+%d of %d", where, g->first_launch, g->num_launches,
               p->num_launches);
  bool has_variant = false;
  for (int i = 0; i < p->num_variants; i++) {
    const md_gpu_variant *v = &p->variant[i];
    int end = v->first_launch + v->num_launches;
    if (g->first_launch < v->first_launch || g->first_launch >= end) continue;
    has_variant = true;
    if (g->first_launch + g->num_launches > end)
      return bad(c, "%s goes beyond the launches of '%s'", where, v->target);
  }
  if (!has_variant) return bad(c, "%s is of no target", where);
  if (md_conv_is_fused(g) && g->kind != MD_CONV_FORWARD)
    return bad(c, "%s: only forward ones are fused", where);
  if (!check_operand(c, where, &g->x, g->kind == MD_CONV_DATA) ||
      !check_operand(c, where, &g->w, g->kind == MD_CONV_WEIGHTS) ||
      !check_operand(c, where, &g->y, g->kind == MD_CONV_FORWARD))
    return false;
  if (g->w.block) return bad(c, "%s: weights in blocks, which no engine takes", where);
  if (md_conv_is_fused(g) && !check_fused(c, where, g)) return false;
  bool ok = g->x.dim[0] == g->y.dim[0] && g->x.dim[1] == g->w.dim[1] && g->y.dim[1] == g->w.dim[0];
  for (int i = 0; i < 3; i++) ok = ok && check_axis(g, i);
  return ok || bad(c, "%s: its sizes do not fit together", where);
}

// All or nothing needs that no copy reads what another copy writes.
static bool check_copies(const check *c) {
  const md_program *p = c->p;
  bool *is_target = md_calloc((size_t)p->num_states + 1, sizeof *is_target), ok = true;
  for (int i = 0; i < p->num_copies && ok; i++) {
    const md_copy *k = &p->copy[i];
    if (k->state < 0 || k->state >= p->num_states) {
      ok = bad(c, "copy %d goes to state %d of %d", i, k->state, p->num_states);
      break;
    }
    const md_spec *s = &p->state[k->state];
    char where[MAX_NAME + 16];
    snprintf(where, sizeof where, "update of '%s'", s->name);
    ok = check_arg(c, where, &k->src);
    if (ok && k->src.bytes != s->bytes)
      ok = bad(c, "%s: %lld bytes for a state of %lld", where, (long long)k->src.bytes,
               (long long)s->bytes);
    if (ok && is_target[k->state]) ok = bad(c, "state '%s' is updated twice", s->name);
    is_target[k->state] = true;
  }
  for (int i = 0; i < p->num_copies && ok; i++) {
    const md_copy *k = &p->copy[i];
    if (k->src.space == MD_IN_STATE && is_target[k->src.index])
      ok = bad(c, "update of '%s' reads a state that is updated too", p->state[k->state].name);
  }
  free(is_target);
  return ok;
}

int64_t md_spec_elements(const md_spec *s) {
  int64_t n = 1;
  for (int i = 0; i < s->rank; i++) n *= s->dim[i];
  return n;
}

char *md_spec_text(const md_spec *s, char buf[MD_SPEC_CHARS]) {
  int n = snprintf(buf, MD_SPEC_CHARS, "%s[", md_dtype_name(s->dtype));
  for (int i = 0; i < s->rank; i++)
    n += snprintf(buf + n, MD_SPEC_CHARS - (size_t)n, i ? ",%lld" : "%lld", (long long)s->dim[i]);
  snprintf(buf + n, MD_SPEC_CHARS - (size_t)n, "]");
  return buf;
}

const md_spec *md_program_state(const md_program *p, const char *name) {
  for (int i = 0; name && i < p->num_states; i++)
    if (!strcmp(p->state[i].name, name)) return &p->state[i];
  return NULL;
}

md_program *md_program_create(const char *name) {
  md_arena *a = md_arena_create();
  md_program *p = MD_NEW(a, md_program);
  p->arena = a;
  p->name = md_strdup(a, name);
  return p;
}

void md_program_destroy(md_program *p) {
  if (!p) return;
  if (p->code_free) p->code_free(p->code);
  md_arena_destroy(p->arena);
}

bool md_program_check(const md_program *p, md_diags *d) {
  const check *c = &(check){p, d};
  if (!name_is_fine(p->name)) return bad(c, "it has no name of 1 to %d characters", MAX_NAME);
  if (!name_is_fine(p->target)) return bad(c, "it has no target");
  if (!check_count(c, "inputs", p->num_inputs, p->input) ||
      !check_count(c, "states", p->num_states, p->state) ||
      !check_count(c, "results", p->num_results, p->result) ||
      !check_count(c, "places of results", p->num_results, p->result_at) ||
      !check_count(c, "launches", p->num_launches, p->launch) ||
      !check_count(c, "phases", p->num_phases, p->phase) ||
      !check_count(c, "arguments", p->num_args, p->arg) ||
      !check_count(c, "counts", p->num_counts, p->count) ||
      !check_count(c, "copies", p->num_copies, p->copy) ||
      !check_count(c, "convolutions", p->num_convs, p->conv) ||
      !check_count(c, "targets", p->num_variants, p->variant) ||
      !check_count(c, "kernels", p->num_kernels, p->kernel) ||
      !check_count(c, "trials", p->num_trials, p->trial) ||
      !check_bytes(c, "an arena", p->arena_bytes) ||
      !check_bytes(c, "a workspace", p->workspace_bytes) ||
      !check_specs(c, "input", p->input, p->num_inputs) ||
      !check_specs(c, "state", p->state, p->num_states) ||
      !check_specs(c, "result", p->result, p->num_results))
    return false;
  for (int i = 0; i < p->num_states; i++)
    if (!check_init(c, &p->state[i])) return false;
  for (int i = 0; i < p->num_results; i++)
    if (!check_result(c, i)) return false;
  for (int i = 0; i < p->num_phases; i++)
    if (!check_phase(c, &p->phase[i])) return false;
  for (int i = 0; i < p->num_launches; i++)
    if (!check_launch(c, &p->launch[i])) return false;
  for (int i = 0; i < p->num_variants; i++)
    if (!check_variant(c, &p->variant[i])) return false;
  for (int i = 0; i < p->num_convs; i++)
    if (!check_conv(c, i)) return false;
  return check_copies(c);
}
