// SPDX-License-Identifier: Apache-2.0
// A kernel in the making: lines, arguments, names; and at its end the launch. Kernels that are equal
// but for comments are one, so identical layers of a network are compiled once.
#include "codegen/cuda/gen.h"

#include "codegen/cuda/names.h"

#include <stdarg.h>
#include <string.h>

// --- memory of the region

int64_t md_cu_reserve(md_cu_work *w, int64_t bytes) {
  md_cuda_module *m = w->module;
  md_cuda_place place = {.begin = m->workspace_bytes, .bytes = bytes};
  MD_PUSH(m->place, m->num_places, m->cap_places, place);
  m->workspace_bytes = md_round_up(place.begin + bytes, MD_CU_PLACE_ALIGN);
  return place.begin;
}

static md_cu_made *made_of(const md_cu_work *w, md_val v) {
  for (int i = 0; i < w->num_made; i++)
    if (w->made[i].val == v) return &w->made[i];
  return NULL;
}

void md_cu_place(md_cu_work *w, md_val v) {
  if (made_of(w, v)) return;
  if (w->num_made == w->cap_made) {
    int cap = MD_MAX(16, 2 * w->cap_made);
    md_cu_made *made = MD_NEW_ARRAY(w->arena, md_cu_made, cap);
    if (w->num_made) memcpy(made, w->made, sizeof *made * (size_t)w->num_made);
    w->made = made;
    w->cap_made = cap;
  }
  int64_t place = -1;
  if (!md_is_output(w->r, v)) place = md_cu_reserve(w, md_type_bytes(md_type_in(w->r->g, v)));
  w->made[w->num_made++] = (md_cu_made){.val = v, .place = place};
}

void md_cu_ready(md_cu_work *w, md_val v) { made_of(w, v)->ready = true; }

bool md_cu_is_ready(const md_cu_work *w, md_val v) {
  const md_cu_made *m = made_of(w, v);
  return m && m->ready;
}

// --- comments

// Only what cannot end a comment or continue it on the next line.
static char *clean(md_arena *a, const char *s) {
  char *t = md_strdup(a, s);
  for (char *p = t; *p; p++) {
    bool ok = (*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z') ||
              strchr(" _.,:;=+-@$%&()[]{}<>", *p);
    if (!ok) *p = '_';
  }
  return t;
}

const char *md_cu_comment(const md_cu_kernel *k, md_val v) {
  const md_graph *g = k->w->r->g;
  const md_node *n = md_def(g, v);
  const char *name = g->value[v].name ? g->value[v].name : n->name;
  if (!name) return md_format(k->w->arena, "%s %%%u", md_ops[n->op].name, (unsigned)v);
  return clean(k->w->arena, md_format(k->w->arena, "%%%s", name));
}

// --- lines

static void put_line(md_cu_kernel *k, const char *comment, const char *code) {
  md_put(&k->now.code, "%s\n", code);
  md_put(&k->now.text, "%*s%s", 2 * k->now.indent, "", code);
  if (comment) md_put(&k->now.text, "  // %s", comment);
  md_put(&k->now.text, "\n");
}

void md_cu_line(md_cu_kernel *k, const char *comment, const char *fmt, ...) {
  char buf[512];
  va_list args;
  va_start(args, fmt);
  int len = vsnprintf(buf, sizeof buf, fmt, args);
  va_end(args);
  if (len < (int)sizeof buf) {
    put_line(k, comment, buf);
    return;
  }
  char *code = md_alloc(k->w->arena, (size_t)len + 1);
  va_start(args, fmt);
  vsnprintf(code, (size_t)len + 1, fmt, args);
  va_end(args);
  put_line(k, comment, code);
}

md_cu_mark md_cu_open(md_cu_kernel *k, const char *comment, const char *fmt, ...) {
  md_cu_mark mark = {.named = k->now.num_named, .memo = k->now.num_memo};
  char code[512];
  va_list args;
  va_start(args, fmt);
  vsnprintf(code, sizeof code, fmt, args);
  va_end(args);
  put_line(k, comment, code);
  k->now.indent++;
  return mark;
}

void md_cu_close(md_cu_kernel *k, md_cu_mark mark) {
  k->now.indent--;
  put_line(k, NULL, mark.end ? mark.end : "}");
  k->now.num_named = mark.named;
  k->now.num_memo = mark.memo;
}

md_cu_mark md_cu_open_elements(md_cu_kernel *k, int64_t num, bool is_fixed, int64_t *blocks) {
  const char *type = md_cu_index_type(k);
  const char *end = is_fixed ? md_cu_number(k, num) : md_cu_extent(k, "elements", num);
  const char *first = md_format(k->w->arena, "%smd_block() * %d + md_thread()",
                                k->w->wide ? "(md_i64)" : "", MD_CU_THREADS);
  *blocks = MD_MIN(md_ceil_div(num, MD_CU_THREADS), MD_CU_BLOCKS);
  int64_t stride = *blocks * MD_CU_THREADS;
  if (stride < num) {  // each thread has one
    md_cu_line(k, NULL, "%s e = %s;", type, first);
    md_cu_mark m = md_cu_open(k, NULL, "do {");
    m.end = md_format(k->w->arena, "} while ((e += %lld) < %s);", (long long)stride, end);
    return m;
  }
  md_cu_line(k, NULL, "const %s e = %s;", type, first);
  return md_cu_open(k, NULL, "if (e < %s) {", end);
}

const char *md_cu_counter(md_cu_kernel *k) { return md_format(k->w->arena, "j%d", k->num_index++); }

const char *md_cu_index_type(const md_cu_kernel *k) { return k->w->wide ? "md_i64" : "int"; }

// --- arguments

// A copy of the first `num` of an array, with room for `cap`.
static void *with_room(md_arena *a, const void *from, int num, int cap, size_t size) {
  void *to = md_alloc_array(a, (size_t)cap, size);
  if (num) memcpy(to, from, (size_t)num * size);
  return to;
}

static const char *argument(md_cu_kernel *k, md_cuda_arg arg, const char *type) {
  int i = 0;
  while (i < k->num_args && (k->arg[i].val != arg.val || k->arg[i].workspace != arg.workspace ||
                             k->arg[i].windows != arg.windows))
    i++;
  if (i == k->num_args) {
    if (k->num_args == k->cap_args) {
      k->cap_args = MD_MAX(16, 2 * i);
      k->arg = with_room(k->w->module->arena, k->arg, i, k->cap_args, sizeof *k->arg);
      k->arg_type = with_room(k->w->arena, k->arg_type, i, k->cap_args, sizeof *k->arg_type);
    }
    k->arg[i] = arg;
    k->arg_type[i] = type;
    k->num_args++;
  }
  k->arg[i].write |= arg.write;
  k->arg[i].read |= arg.read;
  return md_format(k->w->arena, "a%d", i);
}

const char *md_cu_pointer(md_cu_kernel *k, md_val v, bool write) {
  const md_type *t = md_type_in(k->w->r->g, v);
  const md_cu_made *m = made_of(k->w, v);
  if (m && m->place >= 0)
    return md_cu_workspace(k, m->place, md_type_bytes(t), md_cu_memory_type(t->dtype), write);
  md_cuda_arg arg = {.val = v, .bytes = md_type_bytes(t), .write = write, .read = !write};
  return argument(k, arg, md_cu_memory_type(t->dtype));
}

const char *md_cu_workspace(md_cu_kernel *k, int64_t place, int64_t bytes, const char *type,
                            bool write) {
  md_cuda_arg arg = {.workspace = place, .bytes = bytes, .write = write, .read = !write};
  return argument(k, arg, type);
}

const char *md_cu_tensor_map(md_cu_kernel *k, md_val v, const md_windows *windows) {
  const md_cu_made *m = made_of(k->w, v);
  md_cuda_arg arg = {.val = v,
                     .bytes = md_type_bytes(md_type_in(k->w->r->g, v)),
                     .windows = windows,
                     .read = true};
  if (m && m->place >= 0) {
    arg.val = MD_NONE;
    arg.workspace = m->place;
  }
  return argument(k, arg, "md_tmap");
}

// Nobody else writes what this pointer reads: the loads may go through the read-only cache.
static bool is_restricted(const md_cu_kernel *k, const md_cuda_arg *arg) {
  const md_region_view *r = k->w->r;
  if (arg->write || arg->windows) return false;
  for (int i = 0; arg->val != MD_NONE && i < r->num_outputs; i++)
    if (md_shares_memory(r->g, arg->val, r->output[i])) return false;
  return true;
}

const char *md_cu_count(md_cu_kernel *k, const char *name, int64_t value) {
  int i = 0;
  while (i < k->num_counts && strcmp(k->count_name[i], name) != 0) i++;
  if (i < k->num_counts) {
    MD_ASSERT(k->count[i] == value, "'%s' is two numbers", name);
    return k->count_name[i];
  }
  MD_ASSERT(value >= 0 && value <= INT32_MAX, "'%s' does not fit into an int", name);
  k->is_told = true;
  if (i == k->cap_counts) {
    k->cap_counts = MD_MAX(8, 2 * i);
    k->count = with_room(k->w->module->arena, k->count, i, k->cap_counts, sizeof *k->count);
    k->count_name = with_room(k->w->arena, k->count_name, i, k->cap_counts, sizeof *k->count_name);
  }
  k->count[i] = value;
  k->count_name[i] = md_strdup(k->w->arena, name);
  return k->count_name[k->num_counts++];
}

const char *md_cu_extent(md_cu_kernel *k, const char *name, int64_t value) {
  return value > INT32_MAX ? md_cu_number(k, value) : md_cu_count(k, name, value);
}

// By value: two that are equal at one batch are so at any, as a rule.
static const char *count_of(md_cu_kernel *k, const char *kind, int64_t value) {
  int num = 0, len = (int)strlen(kind);
  for (int i = 0; i < k->num_counts; i++) {
    if (strncmp(k->count_name[i], kind, (size_t)len) != 0) continue;
    if (k->count[i] == value) return k->count_name[i];
    num++;
  }
  return md_cu_count(k, md_format(k->w->arena, "%s%d", kind, num), value);
}

const char *md_cu_told(md_cu_kernel *k, int64_t value) {
  return value > INT32_MAX ? md_cu_number(k, value) : count_of(k, "size", value);
}

const char *md_cu_factor(md_cu_kernel *k, double value) {
  float narrow = (float)value;
  uint32_t bits;
  memcpy(&bits, &narrow, sizeof bits);
  return md_format(k->w->arena, "md_as_float(%s)", count_of(k, "factor", bits));
}

// --- the whole kernel

void md_cu_begin(md_cu_kernel *k, md_cu_work *w, const char *what) {
  *k = (md_cu_kernel){
      .w = w, .what = what, .now.indent = 1, .threads = MD_CU_THREADS, .sync = "md_sync();"};
}

// "const float *MD_RESTRICT ", for each argument. In the module's arena.
static const char **params_of(const md_cu_kernel *k) {
  md_arena *a = k->w->module->arena;
  const char **param = MD_NEW_ARRAY(a, const char *, k->num_args + 1);
  for (int i = 0; i < k->num_args; i++)
    param[i] = md_format(a, "%s%s *%s", k->arg[i].write ? "" : "const ", k->arg_type[i],
                         is_restricted(k, &k->arg[i]) ? "MD_RESTRICT " : "");
  return param;
}

static char *title_of(const md_cu_kernel *k) {
  const md_region_view *r = k->w->r;
  md_text to = {0};
  const char *region =
      r->index > 0 && r->g->region[r->index].name ? r->g->region[r->index].name : "";
  md_put(&to, "%s of region %d %s\n", k->what, r->index, clean(k->w->arena, region));
  for (int i = 0; i < r->num_nodes; i++) {
    md_text line = {0};
    md_printer_node(k->w->printer, r->node[i], &line);
    md_put(&to, "//   %s\n", clean(k->w->arena, line.s));
    md_text_free(&line);
  }
  char *title = md_strndup(k->w->module->arena, to.s, to.len);
  md_text_free(&to);
  return title;
}

// The counts under their names, before anything else.
static const char *with_counts(const md_cu_kernel *k, const md_text *body, const char *indent) {
  md_text to = {0};
  for (int i = 0; i < k->num_counts; i++)
    md_put(&to, "%sconst int %s = (int)count%d;\n", indent, k->count_name[i], i);
  if (body->s) md_put_bytes(&to, body->s, body->len);
  const char *all = to.s ? md_strndup(k->w->module->arena, to.s, to.len) : "";
  md_text_free(&to);
  return all;
}

void md_cu_end(md_cu_kernel *k, int64_t blocks) {
  md_cuda_module *m = k->w->module;
  md_arena *a = m->arena;
  const char *code = with_counts(k, &k->now.code, "");
  md_cuda_kernel kernel =
      md_cu_kernel_of("", k->threads, k->num_args, params_of(k), k->num_counts, code, a);
  int number = md_cu_names_find(k->w->names, md_digest_of(kernel.text, strlen(kernel.text)));
  if (number == m->num_kernels) {
    kernel.title = title_of(k);
    kernel.listing = with_counts(k, &k->now.text, "  ");
    MD_PUSH(m->kernel, m->num_kernels, m->cap_kernels, kernel);
  }
  md_cuda_launch l = {.blocks = blocks,
                      .threads = k->threads,
                      .shared_bytes = k->shared_bytes,
                      .work = k->work,
                      .is_early = k->is_early,
                      .is_beside = k->is_beside,
                      .is_told = k->is_told,
                      .region = k->w->r->index,
                      .number = number,
                      .num_args = k->num_args,
                      .arg = k->arg,
                      .num_counts = k->num_counts,
                      .count = k->count};
  snprintf(l.kernel, sizeof l.kernel, "k%d", number);
  MD_PUSH(m->launch, m->num_launches, m->cap_launches, l);
  md_text_free(&k->now.text);
  md_text_free(&k->now.code);
}
