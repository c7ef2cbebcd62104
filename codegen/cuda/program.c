// SPDX-License-Identifier: Apache-2.0
// A graph to a program for an artefact. Every target, and the PTX for later devices, is a variant: the
// launches that the generator makes for it, and the code of their kernels. Variants with equal launches
// share them.
#include "codegen/cuda/foreign.h"
#include "codegen/cuda/gen.h"
#include "codegen/places.h"
#include "codegen/work.h"

#include <stdlib.h>
#include <string.h>

enum { PTX_SM = 80, MAX_VARIANTS = MD_CUDA_TARGETS + 1 };

typedef struct Variant {
  md_cuda_arch arch;
  bool is_ptx;
  md_cuda_module *m;
  md_cuda_kernel *snapshot;  // kernels that make snapshots
  md_cuda_unit *unit;        // the module's kernels, then those
  int num_units;
} Variant;

typedef struct Assembly {
  const md_graph *g;
  md_arena *arena;
  md_places *places;
  Variant variant[MAX_VARIANTS];
  int num_variants;
  md_program *p;
  int cap_launches, cap_phases, cap_args, cap_counts, cap_convs, cap_trials;
} Assembly;

// --- snapshots: the copy of a state, or a constant

static const char *word_of(md_dtype t) {
  int64_t bytes = md_dtype_size(t);
  return bytes == 1 ? "md_u8" : bytes == 2 ? "md_bf16" : bytes == 4 ? "md_u32" : "md_u64";
}

static int64_t snapshot_elements(const md_graph *g, md_val v) {
  const md_type *t = md_type_in(g, v);
  return md_type_bytes(t) / md_dtype_size(t->dtype);
}

static int64_t snapshot_blocks(const md_graph *g, md_val v) {
  return MD_MIN(md_ceil_div(snapshot_elements(g, v), MD_CU_THREADS), MD_CU_BLOCKS);
}

static bool is_constant(const md_graph *g, md_val v) { return md_def(g, v)->op == MD_OP_constant; }

static md_cuda_kernel snapshot_kernel(const md_graph *g, md_val v, md_arena *a) {
  md_dtype t = md_type_in(g, v)->dtype;
  const char *word = word_of(t);
  md_text code = {0};
  if (is_constant(g, v)) {
    uint64_t bits = 0;
    md_element_store(t, &bits, 0, md_def(g, v)->attr.value.value);
    md_put(&code, "%s *a0) {\n", word);
    md_put(&code, "  const %s x = (%s)%lluull;\n", word, word, (unsigned long long)bits);
  } else {
    md_put(&code, "const %s *MD_RESTRICT a1, %s *a0) {\n", word, word);
  }
  md_put(&code, "  for (md_i64 i = (md_i64)md_block() * %d + md_thread(); i < %lld; i += %lld)\n",
         MD_CU_THREADS, (long long)snapshot_elements(g, v),
         (long long)(snapshot_blocks(g, v) * MD_CU_THREADS));
  md_put(&code, "    a0[i] = %s;\n}\n", is_constant(g, v) ? "x" : "a1[i]");
  md_cuda_kernel k;
  char hex[33];
  snprintf(k.symbol, sizeof k.symbol, "k%.16s",
           md_digest_text(md_digest_of(code.s, code.len), hex));
  k.text = md_format(a, "MD_KERNEL(%d) %s(%s", MD_CU_THREADS, k.symbol, code.s);
  md_text_free(&code);
  return k;
}

// --- code

// "region 12 conv3d.vq.s2.b0.a for sm_90a": the first that launches kernel `number`.
static const char *origin(const Assembly *s, const Variant *v, int number) {
  for (int i = 0; i < v->m->num_launches; i++) {
    int region = v->m->launch[i].region;
    if (v->m->launch[i].number != number) continue;
    const char *name = region > 0 ? s->g->region[region].name : NULL;
    return md_format(s->arena, "region %d %s for sm_%d%.1s", region, name ? name : "", v->arch.sm,
                     &v->arch.suffix);
  }
  return NULL;
}

static void add_units(const Assembly *s, Variant *v) {
  int num = s->places->num_copied, all = v->m->num_kernels + num;
  v->snapshot = MD_NEW_ARRAY(s->arena, md_cuda_kernel, num + 1);
  v->unit = MD_NEW_ARRAY(s->arena, md_cuda_unit, all + 1);
  for (int i = 0; i < num; i++)
    v->snapshot[i] = snapshot_kernel(s->g, s->places->copied[i], s->arena);
  for (int i = 0; i < all; i++) {
    const md_cuda_kernel *k =
        i < v->m->num_kernels ? &v->m->kernel[i] : &v->snapshot[i - v->m->num_kernels];
    bool is_there = false;
    for (int j = 0; j < v->num_units; j++) is_there |= !strcmp(v->unit[j].name, k->symbol);
    if (!is_there)
      v->unit[v->num_units++] =
          (md_cuda_unit){.name = k->symbol,
                         .text = k->text,
                         .what = i < v->m->num_kernels ? origin(s, v, i) : NULL,
                         .arch = v->arch,
                         .ptx = v->is_ptx};
  }
}

static md_cuda_math math_of(const char *text) {
  return strstr(text, "md_wgmma") ? MD_CUDA_WGMMA
         : strstr(text, "md_mma") ? MD_CUDA_MMA
                                  : MD_CUDA_FMA;
}

static bool compile(Assembly *s, const md_cuda_options *o, md_cuda_report *r, md_diags *d) {
  int num = 0;
  for (int i = 0; i < s->num_variants; i++) num += s->variant[i].num_units;
  md_cuda_unit *all = MD_NEW_ARRAY(s->arena, md_cuda_unit, num + 1), *to = all;
  for (int i = 0; i < s->num_variants; i++)
    for (int k = 0; k < s->variant[i].num_units; k++) *to++ = s->variant[i].unit[k];
  int64_t start = md_now_ns();
  bool ok = o->plan_only || md_cuda_units_compile(all, num, o->no_cache, o->threads, d);
  to = all;
  for (int i = 0; i < s->num_variants; i++)
    for (int k = 0; k < s->variant[i].num_units; k++) s->variant[i].unit[k] = *to++;
  if (!r) return ok;
  r->kernels = num;
  r->compile_ms = (double)(md_now_ns() - start) * 1e-6;
  r->math = r->arena ? MD_NEW_ARRAY(r->arena, md_cuda_math, num + 1) : NULL;
  for (int i = 0; i < num; i++) {
    r->cache_hits += all[i].hit;
    if (r->math) r->math[i] = math_of(all[i].text);
  }
  return ok;
}

// --- launches

static void add_arg(Assembly *s, md_arg a) {
  MD_PUSH(s->p->arg, s->p->num_args, s->cap_args, a);
  s->p->launch[s->p->num_launches - 1].num_args++;
}

static void begin_launch(Assembly *s, const char *name, int region, md_phase phase) {
  md_program *p = s->p;
  md_launch l = {.name = md_strdup(p->arena, name),
                 .region = region,
                 .first_phase = p->num_phases,
                 .num_phases = 1,
                 .first_arg = p->num_args,
                 .first_count = p->num_counts};
  phase.symbol = md_strdup(p->arena, phase.symbol);
  MD_PUSH(p->phase, p->num_phases, s->cap_phases, phase);
  MD_PUSH(p->launch, p->num_launches, s->cap_launches, l);
}

static const md_windows *kept_windows(const Assembly *s, const md_windows *from) {
  if (!from) return NULL;
  md_windows *w = MD_NEW_ARRAY(s->p->arena, md_windows, 1);
  *w = *from;
  return w;
}

static md_arg named(const Assembly *s, md_arg a, md_val v) {
  a.name = md_places_name(s->g, v, s->p->arena);
  return a;
}

static void add_snapshot(Assembly *s, const Variant *v, int i) {
  md_val x = s->places->copied[i];
  md_phase phase = {
      .symbol = v->snapshot[i].symbol, .items = snapshot_blocks(s->g, x), .threads = MD_CU_THREADS};
  begin_launch(s, "snapshot", 0, phase);
  if (!is_constant(s->g, x)) add_arg(s, named(s, md_places_arg(s->places, x, false), x));
  add_arg(s, named(s, md_places_snapshot(s->places, x, true), x));
  double bytes = (double)md_type_bytes(md_type_in(s->g, x));
  s->p->launch[s->p->num_launches - 1].bytes = is_constant(s->g, x) ? bytes : 2 * bytes;
}

// "lerp"; of a launch that stands for several: "lerp and 104 more".
static const char *launch_name(const Assembly *s, const md_cuda_launch *l) {
  const char *name = l->region > 0 ? s->g->region[l->region].name : NULL;
  if (!name || !*name) name = md_format(s->arena, "region %d", l->region);
  return l->num_parts ? md_format(s->arena, "%s and %d more", name, l->num_parts - 1) : name;
}

static void add_launch(Assembly *s, const Variant *v, const md_cuda_launch *l, int region) {
  begin_launch(s, launch_name(s, l), region,
               (md_phase){.symbol = v->m->kernel[l->number].symbol,
                          .items = l->blocks,
                          .threads = l->threads,
                          .shared_bytes = l->shared_bytes});
  for (int i = 0; i < l->num_args; i++) {
    const md_cuda_arg *a = &l->arg[i];
    md_arg to = {.space = MD_IN_WORKSPACE,
                 .offset = a->workspace,
                 .bytes = a->bytes,
                 .write = a->write,
                 .name = "workspace"};
    if (a->val != MD_NONE) to = named(s, md_places_arg(s->places, a->val, a->write), a->val);
    to.windows = kept_windows(s, a->windows);
    add_arg(s, to);
  }
  s->p->launch[s->p->num_launches - 1].num_counts = l->num_counts;
  for (int i = 0; i < l->num_counts; i++)
    MD_PUSH(s->p->count, s->p->num_counts, s->cap_counts, l->count[i]);
}

// --- costs

// What a region has to do, and what its launches have of it.
typedef struct Share {
  md_work all;
  double work, bytes;
  int num;
  int last;       // of its launches
  bool is_split;  // they do not lie together, or their results are not where the graph says
} Share;

// The launches that l stands for.
static const md_cuda_launch *parts_of(const md_cuda_launch *l, int *num) {
  *num = l->num_parts ? l->num_parts : 1;
  return l->num_parts ? l->part : l;
}

// Some part before part number `i` has its argument `arg` too: that counts once, but not where large ones of
// two regions read it, each at its own time.
static bool is_counted(const md_cuda_launch *part, int i, const md_cuda_arg *arg) {
  for (int p = 0; p < i; p++) {
    if (part[i].is_beside && part[p].region != part[i].region) continue;
    for (int k = 0; k < part[p].num_args; k++)
      if (md_cu_same_arg(&part[p].arg[k], arg)) return true;
  }
  return false;
}

// Bytes that part number `i` of a launch moves: what it reads and what it writes.
static double part_bytes(const md_graph *g, const md_cuda_launch *part, int i, md_arena *scratch) {
  const md_cuda_launch *l = &part[i];
  const md_region_view *r = l->region > 0 ? md_region_view_of(g, l->region, NULL, scratch) : NULL;
  double sum = 0;
  for (int k = 0; k < l->num_args; k++) {
    const md_cuda_arg *a = &l->arg[k];
    bool is_again = is_counted(part, i, a);
    for (int j = 0; j < k; j++) is_again |= md_cu_same_arg(&l->arg[j], a);  // as a tensor map, too
    if (is_again) continue;
    double bytes = a->val == MD_NONE || !r ? (double)a->bytes : md_work_bytes(r, a->val);
    sum += bytes * (r ? (a->read ? 1 : 0) + (a->write ? 1 : 0) : 1);
  }
  return sum;
}

// Whoever looks at a region before and after its launches needs them alone and in a row. What runs early
// does not count: it writes the workspace.
static void note_place(Share *of, const md_cuda_launch *part, int at, bool is_alone) {
  if (part->is_early) return;
  of->is_split |= !is_alone || part->is_moved || (of->last && of->last != at);
  of->last = at + 1;
}

static Share *shares_of(const Assembly *s, const md_cuda_launch *launch, int num_launches) {
  Share *share = MD_NEW_ARRAY(s->arena, Share, s->g->num_regions + 1);
  md_arena *a = md_arena_create();
  for (int i = 0, num; i < num_launches; i++) {
    const md_cuda_launch *l = parts_of(&launch[i], &num);
    for (int k = 0; k < num; k++) {
      Share *to = &share[l[k].region];
      to->bytes += part_bytes(s->g, l, k, a);
      to->work += l[k].work;
      note_place(to, &l[k], i, num == 1);
      if (!to->num++ && l[k].region > 0)
        to->all = md_work_of_region(md_region_view_of(s->g, l[k].region, NULL, a));
      md_arena_reset(a);
    }
  }
  md_arena_destroy(a);
  return share;
}

// The launches of one region share its FLOPs as they share the work, if they say that, or the bytes. A
// single one moves what the region does.
static void add_cost(const Assembly *s, const Share *share, const md_cuda_launch *part, int num,
                     md_launch *to) {
  md_arena *a = md_arena_create();
  for (int i = 0; i < num; i++) {
    const Share *of = &share[part[i].region];
    double bytes = part_bytes(s->g, part, i, a);
    bool is_whole = part[i].region > 0 && of->num == 1;
    to->bytes += is_whole ? of->all.leaf_bytes + of->all.made_bytes : bytes;
    if (of->work > 0) to->flops += of->all.flops * part[i].work / of->work;
    else if (of->bytes > 0) to->flops += of->all.flops * bytes / of->bytes;
    md_arena_reset(a);
  }
  md_arena_destroy(a);
}

static md_arg operand(const Assembly *s, md_val v, bool is_result) {
  return named(s, md_places_arg(s->places, v, is_result), v);
}

// What another engine could do. `first`: the program's number of the module's first launch.
static void add_convs(Assembly *s, const Variant *v, int first) {
  int num;
  const md_foreign_conv *all = md_cu_foreign_convs(s->g, v->m, &num, s->arena);
  for (int i = 0; i < num; i++) {
    const md_foreign_conv *from = &all[i];
    const md_conv3d_attr *a = &from->node->attr.conv3d;
    md_conv_group c = {
        .first_launch = first + from->first, .num_launches = from->num, .fused = from->fused};
    c.kind = from->node->op == MD_OP_conv3d         ? MD_CONV_FORWARD
             : from->node->op == MD_OP_conv3d_dgrad ? MD_CONV_DATA
                                                    : MD_CONV_WEIGHTS;
    c.x = operand(s, from->x, c.kind == MD_CONV_DATA);
    c.w = operand(s, from->w, c.kind == MD_CONV_WEIGHTS);
    c.y = operand(s, from->y, c.kind == MD_CONV_FORWARD);
    for (int k = 0; k < MD_NUM_CONV_PARTS; k++) {
      bool is_result = k == MD_CONV_FORMED || k == MD_CONV_MEAN || k == MD_CONV_VAR;
      if (from->part[k] != MD_NONE) c.part[k] = operand(s, from->part[k], is_result);
    }
    for (int k = 0; k < 3; k++) {
      c.stride[k] = a->stride.d[k];
      c.pad[k] = a->pad.d[k];
      c.dilation[k] = a->dilation.d[k];
    }
    MD_PUSH(s->p->conv, s->p->num_convs, s->cap_convs, c);
  }
}

static void add_launches(Assembly *s, const Variant *v, const md_cuda_launch *launch,
                         int num_launches) {
  const Share *share = shares_of(s, launch, num_launches);
  for (int i = 0, num; i < num_launches; i++) {
    const md_cuda_launch *part = parts_of(&launch[i], &num);
    bool is_split = share[part->region].is_split || part->is_early;
    add_launch(s, v, &launch[i], is_split ? 0 : MD_MAX(part->region, 0));
    add_cost(s, share, part, num, &s->p->launch[s->p->num_launches - 1]);
  }
}

// --- trials

static void add_trials(Assembly *s, const Variant *from, md_gpu_variant *v) {
  md_program *p = s->p;
  char text[MD_CUDA_SCHEDULE_CHARS];
  v->first_trial = p->num_trials;
  for (int i = 0; i < from->m->num_sites; i++) {
    const md_cuda_site *site = &from->m->site[i];
    for (int k = 0; k < site->num_trials; k++) {
      const md_cuda_trial *trial = &site->trial[k];
      md_gpu_trial t = {.key = md_strdup(p->arena, site->key),
                        .way = md_strdup(p->arena, md_cuda_schedule_text(&trial->way, text)),
                        .own = md_strdup(p->arena, md_cuda_schedule_text(&site->used, text)),
                        .replaced = v->first_launch + s->places->num_copied + site->first_launch,
                        .num_replaced = site->num_launches,
                        .first_launch = p->num_launches};
      add_launches(s, from, trial->launch, trial->num_launches);
      t.num_launches = p->num_launches - t.first_launch;
      MD_PUSH(p->trial, p->num_trials, s->cap_trials, t);
    }
  }
  v->num_trials = p->num_trials - v->first_trial;
  v->num_tried = p->num_launches - v->first_launch - v->num_launches;
}

static bool same_windows(const md_windows *a, const md_windows *b) {
  return a && b ? !memcmp(a, b, sizeof *a) : a == b;
}

static bool same_arg(const md_arg *a, const md_arg *b) {
  return same_windows(a->windows, b->windows) && a->space == b->space && a->index == b->index &&
         a->offset == b->offset && a->bytes == b->bytes && a->write == b->write;
}

static bool same_launches(const md_program *p, int a, int b, int num) {
  for (int i = 0; i < num; i++) {
    const md_launch *x = &p->launch[a + i], *y = &p->launch[b + i];
    const md_phase *f = &p->phase[x->first_phase], *g = &p->phase[y->first_phase];
    if (strcmp(f->symbol, g->symbol) || f->items != g->items || f->threads != g->threads ||
        f->shared_bytes != g->shared_bytes || x->num_args != y->num_args ||
        x->num_counts != y->num_counts)
      return false;
    for (int k = 0; k < x->num_args; k++)
      if (!same_arg(&p->arg[x->first_arg + k], &p->arg[y->first_arg + k])) return false;
    for (int k = 0; k < x->num_counts; k++)
      if (p->count[x->first_count + k] != p->count[y->first_count + k]) return false;
  }
  return true;
}

// Launches that a variant before has are taken back.
static void share_launches(md_program *p, md_gpu_variant *v) {
  for (const md_gpu_variant *w = p->variant; w < v; w++) {
    if (w->num_launches != v->num_launches || w->num_trials ||
        !same_launches(p, w->first_launch, v->first_launch, v->num_launches))
      continue;
    if (v->num_launches) {
      p->num_phases = p->launch[v->first_launch].first_phase;
      p->num_args = p->launch[v->first_launch].first_arg;
      p->num_counts = p->launch[v->first_launch].first_count;
    }
    p->num_launches = v->first_launch;
    while (p->num_convs && p->conv[p->num_convs - 1].first_launch >= v->first_launch)
      p->num_convs--;
    v->first_launch = w->first_launch;
    return;
  }
}

static void add_variant(Assembly *s, const Variant *from) {
  md_program *p = s->p;
  md_gpu_variant *v = &p->variant[p->num_variants];
  *v = (md_gpu_variant){.first_launch = p->num_launches,
                        .first_kernel = p->num_kernels,
                        .num_kernels = from->num_units,
                        .workspace_bytes = from->m->workspace_bytes};
  v->target = md_format(p->arena, "cuda:%s_%d%.1s", from->is_ptx ? "compute" : "sm", from->arch.sm,
                        &from->arch.suffix);
  p->target = p->num_variants ? md_format(p->arena, "%s,%s", p->target, v->target) : v->target;
  p->workspace_bytes = MD_MAX(p->workspace_bytes, v->workspace_bytes);
  for (int i = 0; i < from->num_units; i++) {
    const md_cuda_unit *u = &from->unit[i];
    char hex[33];
    void *data = md_alloc(p->arena, u->bytes + 1);
    if (u->data) memcpy(data, u->data, u->bytes);  // a plan has none
    p->kernel[p->num_kernels++] =
        (md_gpu_kernel){.symbol = md_strdup(p->arena, u->name),
                        .member = md_format(p->arena, "c%.16s.%s",
                                            md_digest_text(md_digest_of(u->data, u->bytes), hex),
                                            from->is_ptx ? "ptx" : "cubin"),
                        .data = data,
                        .bytes = u->bytes};
  }
  for (int i = 0; i < s->places->num_copied; i++) add_snapshot(s, from, i);
  add_convs(s, from, p->num_launches);
  add_launches(s, from, from->m->launch, from->m->num_launches);
  v->num_launches = p->num_launches - v->first_launch;
  add_trials(s, from, v);
  if (!v->num_trials) share_launches(p, v);
  p->num_variants++;
}

// An array that grew becomes the arena's.
static void *keep(md_arena *a, void *rows, int num, size_t size) {
  void *kept = md_alloc(a, (size_t)num * size + 1);
  if (num) memcpy(kept, rows, (size_t)num * size);
  free(rows);
  return kept;
}

static void assemble(Assembly *s) {
  md_program *p = s->p;
  int kernels = 0;
  for (int i = 0; i < s->num_variants; i++) kernels += s->variant[i].num_units;
  p->variant = MD_NEW_ARRAY(p->arena, md_gpu_variant, s->num_variants + 1);
  p->kernel = MD_NEW_ARRAY(p->arena, md_gpu_kernel, kernels + 1);
  for (int i = 0; i < s->num_variants; i++) add_variant(s, &s->variant[i]);
  p->launch = keep(p->arena, p->launch, p->num_launches, sizeof *p->launch);
  p->phase = keep(p->arena, p->phase, p->num_phases, sizeof *p->phase);
  p->arg = keep(p->arena, p->arg, p->num_args, sizeof *p->arg);
  p->count = keep(p->arena, p->count, p->num_counts, sizeof *p->count);
  p->conv = keep(p->arena, p->conv, p->num_convs, sizeof *p->conv);
  p->trial = keep(p->arena, p->trial, p->num_trials, sizeof *p->trial);
  md_places_program(s->places, p);
}

// --- all of it

static bool generate(Assembly *s, const md_cuda_options *o, md_diags *d) {
  md_cuda_arch arch[MAX_VARIANTS];
  int num = md_cuda_targets(o->targets, arch, MD_CUDA_TARGETS, d);
  if (!num) return false;
  if (!o->no_ptx) arch[num] = (md_cuda_arch){.sm = PTX_SM};
  for (int i = 0; i < num + !o->no_ptx; i++) {
    Variant *v = &s->variant[s->num_variants++];
    *v = (Variant){.arch = arch[i], .is_ptx = i == num};
    md_cuda_how how = o->how;
    if (v->is_ptx) how.records = NULL, how.trials = 0;  // who knows for which device
    const md_cuda_spec *named = md_cuda_named_device(o->targets, arch[i].sm);
    if (!how.device && named) how.device = named->name;
    v->m = md_cuda_generate(s->g, arch[i], &how, d);
    if (!v->m || !md_cuda_is_complete(v->m, s->g, d)) return false;
    add_units(s, v);
  }
  return true;
}

static bool is_listed(const char *list, const char *name) {
  size_t len = strlen(name);
  for (const char *s = list; s; s = strstr(s, ", ") ? strstr(s, ", ") + 2 : NULL)
    if (!strncmp(s, name, len) && (!s[len] || s[len] == ',')) return true;
  return false;
}

// The devices whose records a variant's products have, each once.
static void report_devices(const md_cuda_module *m, md_cuda_report *r) {
  const char *own = NULL;
  int num = 0;
  for (int k = 0; k < m->num_sites; k++) {
    const char *by = m->site[k].known_by;
    if (!by || is_listed(own, by)) continue;
    own = own ? md_format(r->arena, "%s, %s", own, by) : md_strdup(r->arena, by);
    num++;
    if (!r->known_by) r->known_by = md_strdup(r->arena, by);
    else if (!is_listed(r->known_by, by))
      r->known_by = md_format(r->arena, "%s, %s", r->known_by, by);
  }
  r->num_devices = MD_MAX(r->num_devices, num);
}

static void report_products(const Assembly *s, md_cuda_report *r) {
  r->products = r->known = r->changed = r->num_devices = 0;
  r->unknown = r->known_by = NULL;
  for (int i = 0; i < s->num_variants; i++) {
    const md_cuda_module *m = s->variant[i].m;
    if (s->variant[i].is_ptx) continue;
    if (r->arena) report_devices(m, r);
    for (int k = 0; k < m->num_sites; k++) {
      const md_cuda_site *x = &m->site[k];
      r->products++;
      r->known += x->known_by != NULL;
      r->changed += !md_cuda_schedule_equal(&x->used, &x->own);
      if (!x->known_by && !r->unknown && r->arena) {
        const char *name = x->region > 0 ? s->g->region[x->region].name : NULL;
        r->unknown = md_strdup(r->arena, name ? name : "");
        r->unknown_for =
            md_format(r->arena, "sm_%d%.1s", s->variant[i].arch.sm, &s->variant[i].arch.suffix);
      }
    }
  }
}

md_program *md_cuda_program(const md_graph *g, const md_cuda_options *o, md_cuda_report *report,
                            md_diags *d) {
  md_target_facts facts;
  if (!md_cuda_facts(o->targets, &facts, d) || !md_regions_check(g, &facts, d)) return NULL;
  Assembly s = {.g = g, .arena = md_arena_create()};
  s.places = md_places_of(g, facts.alignment, s.arena);
  bool ok = generate(&s, o, d);
  if (ok && report) report_products(&s, report);
  ok = ok && compile(&s, o, report, d);
  if (ok) {
    s.p = md_program_create(g->name ? g->name : "graph");
    assemble(&s);
    if (o->want_graph_text) md_places_keep_text(g, s.p);
    ok = o->plan_only || (md_program_check(s.p, d) && md_gpu_code_check(s.p, d));
  }
  for (int i = 0; i < s.num_variants; i++) {
    for (int k = 0; k < s.variant[i].num_units; k++) free(s.variant[i].unit[k].data);
    md_cuda_module_free(s.variant[i].m);
  }
  md_arena_destroy(s.arena);
  if (ok) return s.p;
  md_program_destroy(s.p);
  return NULL;
}

static int64_t needs(const md_graph *planned, const md_memory_limit *limit) {
  md_cuda_options o = *(const md_cuda_options *)limit->target;
  md_diags *d = md_diags_create();  // what is wrong is reported by the compilation that follows
  o.plan_only = true;
  md_program *p = md_cuda_program(planned, &o, NULL, d);
  int64_t bytes = p ? md_program_bytes(p, limit->threads) : 0;
  md_program_destroy(p);
  md_diags_destroy(d);
  return bytes;
}

md_memory_limit md_cuda_memory(const md_cuda_options *o, int64_t bytes) {
  return (md_memory_limit){.bytes = bytes, .target = o, .needs = needs};
}
