// SPDX-License-Identifier: Apache-2.0
// A graph after its passes -> a module: kernel text and launches, region by region; and the module as
// text that stands alone, PTX or a cubin.
#include "codegen/cuda/gen.h"
#include "codegen/cuda/names.h"

#include <stdlib.h>

// `w`: what all regions share.
static void add_region(md_cu_work w, const md_graph *g, int region, const md_node *n,
                       const md_cuda_how *how) {
  md_cuda_module *m = w.module;
  w.r = md_region_view_of(g, region, n, w.arena);
  w.wide = md_cu_is_wide(w.r);
  if (!w.r->num_nodes) return;
  const char *why = md_cu_refuse(w.r, m->arena);
  if (why) {
    md_cuda_refusal refusal = {.region = region, .why = why};
    const char *name = region > 0 ? g->region[region].name : md_ops[n->op].name;
    refusal.name = md_strdup(m->arena, name ? name : "");
    MD_PUSH(m->refused, m->num_refused, m->cap_refused, refusal);
    return;
  }
  if (how->records || how->trials) md_cu_choose(&w, how);
  else md_cu_region_kernels(&w);
}

// The workspace of launches that are tried is theirs alone.
static void make_room_for_trials(md_cuda_module *m) {
  for (int i = 0; i < m->num_sites; i++) {
    for (int t = 0; t < m->site[i].num_trials; t++) {
      const md_cuda_trial *trial = &m->site[i].trial[t];
      for (int l = 0; l < trial->num_launches; l++)
        for (int k = 0; k < trial->launch[l].num_args; k++) {
          const md_cuda_arg *a = &trial->launch[l].arg[k];
          if (a->val == MD_NONE)
            m->workspace_bytes = MD_MAX(m->workspace_bytes, a->workspace + a->bytes);
        }
    }
  }
}

// Regions, and the nodes that lie in none, in the graph's order.
md_cuda_module *md_cuda_generate(const md_graph *g, md_cuda_arch arch, const md_cuda_how *how,
                                 md_diags *d) {
  (void)d;
  static const md_cuda_how plain = {0};
  if (!how) how = &plain;
  MD_ASSERT(!how->trials || how->is_apart, "trials are of regions whose launches stand apart");
  md_cuda_module *m = md_calloc(1, sizeof *m);
  m->arena = md_arena_create();
  md_arena *scratch = md_arena_create();
  md_cu_names names = {0};
  md_cu_work shared = {.arch = arch, .arena = scratch, .module = m, .names = &names};
  shared.printer = md_printer_create(g);
  md_put(&m->text,
         "// Made by modist for sm_%d%.1s. Shapes are numbers in the text, but for the batch; md_ "
         "names are the "
         "prelude's.\n",
         arch.sm, arch.suffix ? &arch.suffix : "");
  for (int i = 0; i < g->num_nodes;) {
    const md_node *n = g->node[i];
    i += n->region > 0 ? g->region[n->region].num : 1;
    if (n->region == 0 && md_ops[n->op].role == MD_LEAF) continue;
    add_region(shared, g, n->region, n, how);
    md_arena_reset(scratch);
  }
  md_printer_destroy(shared.printer);
  free(names.text);
  md_arena_destroy(scratch);
  if (how->is_apart) md_cu_list(m, NULL, 0);
  else md_cu_join(m, g);
  md_cu_share_workspace(m);
  make_room_for_trials(m);
  return m;
}

void md_cuda_module_free(md_cuda_module *m) {
  if (!m) return;
  md_text_free(&m->text);
  free(m->launch);
  free(m->kernel);
  free(m->refused);
  free(m->site);
  free(m->place);
  md_arena_destroy(m->arena);
  free(m);
}

// Names of regions come from the user.
static const char *clean_name(const char *name, char buf[100]) {
  int len = 0;
  for (const char *s = name; *s && len < 99; s++) {
    bool ok = (*s >= '0' && *s <= '9') || (*s >= 'A' && *s <= 'Z') || (*s >= 'a' && *s <= 'z') ||
              *s == '.' || *s == '-' || *s == '+' || *s == ' ';
    buf[len++] = ok ? *s : '_';
  }
  buf[len] = '\0';
  return buf;
}

static void put_launches(const md_cuda_module *m, const md_graph *g, md_text *to) {
  char name[100];
  md_put(to, "\n// Launches, in order: %d of %d kernels; workspace %lld bytes\n", m->num_launches,
         m->num_kernels, (long long)m->workspace_bytes);
  for (int i = 0; i < m->num_launches; i++) {
    const md_cuda_launch *l = &m->launch[i];
    const char *region = l->region > 0 ? g->region[l->region].name : NULL;
    md_put(to, "//   %s<<<%lld, %d, %d>>>  region %d %s\n", l->kernel, (long long)l->blocks,
           l->threads, l->shared_bytes, l->region, clean_name(region ? region : "", name));
  }
  for (int i = 0; i < m->num_refused; i++)
    md_put(to, "// MISSING region %d %s: %s\n", m->refused[i].region,
           clean_name(m->refused[i].name, name), m->refused[i].why);
}

// Text that stands alone: it brings the prelude, unless another one came first.
static void put_text(const md_cuda_module *m, const md_graph *g, md_cuda_arch arch, md_text *to) {
  md_put(to, "#ifndef MD_PRELUDE_H\n%s#endif\n\n", md_cuda_prelude(arch));
  md_put_bytes(to, m->text.s, m->text.len);
  put_launches(m, g, to);
}

enum { MAX_NAMED = 12 };

bool md_cuda_is_complete(const md_cuda_module *m, const md_graph *g, md_diags *d) {
  char name[100];
  if (!m->num_refused) return true;
  md_error(d, E0440, MD_NOWHERE, "%d of %d regions have no CUDA kernel yet", m->num_refused,
           MD_MAX(g->num_regions, m->num_refused));
  for (int i = 0; i < m->num_refused && i < MAX_NAMED; i++)
    md_note(d, MD_NOWHERE, "region %d %s: %s", m->refused[i].region,
            clean_name(m->refused[i].name, name), m->refused[i].why);
  if (m->num_refused > MAX_NAMED) md_note(d, MD_NOWHERE, "and %d more", m->num_refused - MAX_NAMED);
  md_hint(d, "--emit=cuda shows the kernels that are there; --target=cpu compiles everything");
  return false;
}

bool md_cuda_compile(const md_graph *g, const char *target, md_cuda_emit what, md_text *out,
                     md_diags *d) {
  md_cuda_arch arch;
  md_target_facts facts;
  if (!md_cuda_parse(target, &arch, d) || !md_cuda_facts(target, &facts, d)) return false;
  if (!md_regions_check(g, &facts, d)) return false;
  md_cuda_module *m = md_cuda_generate(g, arch, NULL, d);
  if (!m) return false;
  bool ok = true;
  if (m->num_refused && (what != MD_CUDA_TEXT || !m->num_launches)) {
    ok = md_cuda_is_complete(m, g, d);
  } else if (what == MD_CUDA_TEXT) {
    put_text(m, g, arch, out);
  } else {
    md_cubin cubin;
    ok = md_nvrtc_compile(m->text.s, "modist.cu", arch, what == MD_CUDA_PTX, &cubin, d);
    if (ok) md_put_bytes(out, cubin.data, cubin.bytes);
    free(cubin.data);
    free(cubin.log);
  }
  md_cuda_module_free(m);
  return ok;
}
