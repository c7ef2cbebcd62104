// SPDX-License-Identifier: Apache-2.0
// The driver: which passes run, and everything around them that is no mathematics. A pass writes a
// new graph; the old one is freed afterwards, so nothing that a pass forgets can linger.
//
//   rules (`at`)   old nodes in order, the rule of each op is called (md_run_rules)
//   `run`          the pass walks by itself
//   then           updates, results and region numbers are carried over, the verifier looks
#include "passes/passes.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const md_pass *const md_passes[] = {
    &md_pass_fuse_infonce,
    &md_pass_autodiff,
    &md_pass_fold,
    &md_pass_canon,
    &md_pass_cse,
    &md_pass_dce,
    &md_pass_fold_bn,
    &md_pass_precision,
    &md_pass_fold_stride,
    &md_pass_fuse_conv_bn_relu,
    &md_pass_fuse_pointwise,
    &md_pass_regions,
    &md_pass_layout,
    &md_pass_schedule,
    &md_pass_recompute,
    &md_pass_memory,
};
const int md_num_passes = MD_COUNT(md_passes);
enum { MAX_PIPELINE = 256 };

typedef struct Pipeline {
  const md_pass *pass[MAX_PIPELINE];
  int num;
} Pipeline;

static bool unknown_pass(md_diags *d, const char *option, const char *name) {
  const char *names[MD_COUNT(md_passes)];
  md_text all = {0};
  for (int i = 0; i < md_num_passes; i++) {
    names[i] = md_passes[i]->name;
    md_put(&all, "%s%s", i ? ", " : "", names[i]);
  }
  char shown[64];
  md_error(d, E0351, MD_NOWHERE, "%s: no pass is called '%s'", option,
           md_clean(name, shown, sizeof shown));
  const char *near = md_nearest(name, names, md_num_passes);
  if (near) md_hint(d, "did you mean %s?", near);
  else md_hint(d, "passes are %s", all.s);
  md_text_free(&all);
  return false;
}

// Passes of a comma list. The empty list is the empty pipeline.
static bool parse_list(const char *option, const char *list, Pipeline *p, md_diags *d) {
  bool good = true;
  for (const char *s = list; *s;) {
    size_t len = strcspn(s, ",");
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)MD_MIN(len, sizeof name - 1), s);
    const md_pass *pass = md_pass_from(name);
    if (!pass) good = unknown_pass(d, option, name);
    else if (p->num == MAX_PIPELINE)
      return md_error(d, E0351, MD_NOWHERE, "%s: more than %d passes", option, MAX_PIPELINE);
    else p->pass[p->num++] = pass;
    s += len;
    if (*s == ',') s++;
  }
  return good;
}

static bool in_pipeline(const Pipeline *p, const md_pass *pass) {
  for (int i = 0; i < p->num; i++)
    if (p->pass[i] == pass) return true;
  return false;
}

static bool not_in_pipeline(const Pipeline *p, const char *option, const char *name, md_diags *d) {
  md_error(d, E0351, MD_NOWHERE, "%s: pass %s does not run here", option, name);
  md_text runs = {0};
  for (int i = 0; i < p->num; i++) md_put(&runs, "%s%s", i ? "," : "", p->pass[i]->name);
  md_hint(d, "what runs is %s", runs.len ? runs.s : "no pass at all");
  md_text_free(&runs);
  return false;
}

// A name that matches nothing is a mistake: silence would look like success.
static bool build_pipeline(const md_pass_options *o, Pipeline *p, md_diags *d) {
  if (!parse_list("--passes", o->passes ? o->passes : md_pipeline(o->level), p, d)) return false;
  if (o->print_after && strcmp(o->print_after, "all") != 0) {
    const md_pass *pass = md_pass_from(o->print_after);
    if (!pass) return unknown_pass(d, "--print-ir-after", o->print_after);
    if (!in_pipeline(p, pass)) return not_in_pipeline(p, "--print-ir-after", o->print_after, d);
  }
  if (!o->disable) return true;
  Pipeline off = {0};
  if (!parse_list("--disable-pass", o->disable, &off, d)) return false;
  for (int i = 0; i < off.num; i++)
    if (!in_pipeline(p, off.pass[i]))
      return not_in_pipeline(p, "--disable-pass", off.pass[i]->name, d);
  int kept = 0;
  for (int i = 0; i < p->num; i++)
    if (!in_pipeline(&off, p->pass[i])) p->pass[kept++] = p->pass[i];
  p->num = kept;
  return true;
}

// What a pass relies on; the wrong order of passes is the user's mistake.
static bool check_needs(const md_pass *pass, const md_graph *g, md_diags *d) {
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    md_role role = md_ops[n->op].role;
    if (pass->needs & MD_NEEDS_EXPANDED && role == MD_META) {
      md_error(d, E0352, n->place, "pass %s needs a graph without %s", pass->name,
               md_ops[n->op].name);
      md_hint(d, "run autodiff before it");
      return false;
    }
    if (pass->needs & MD_NEEDS_NO_REGIONS && n->region) {
      md_error(d, E0352, n->place, "pass %s needs a graph without regions", pass->name);
      md_hint(d,
              "passes that form regions come behind it; a graph that has them already, such as a "
              "dump, runs as it stands with --passes= (no pass)");
      return false;
    }
    if (pass->needs & MD_NEEDS_REGIONS && !n->region && role != MD_LEAF) {
      md_error(d, E0352, n->place, "pass %s needs every node in a region, but %s is in none",
               pass->name, md_ops[n->op].name);
      md_hint(d, "run fuse-pointwise or regions before it");
      return false;
    }
  }
  return true;
}

// Numbers regions in the order of their nodes. While a pass runs, a region's number is the index of
// its name.
static void number_regions(md_rewriter *r) {
  md_graph *g = r->b.g;
  int num = 1, last = 0;
  for (int i = 0; i < g->num_nodes; i++) {
    int id = g->node[i]->region;
    if (id && id != last) {
      md_region region = {.name = md_strdup(g->arena, r->region_name[id - 1]), .first = i};
      MD_PUSH(g->region, num, g->cap_regions, region);
    }
    last = id;
    if (!id) continue;
    g->region[num - 1].num++;
    g->node[i]->region = num - 1;
  }
  g->num_regions = num - 1;
}

static bool carry_over(md_rewriter *r) {
  const md_graph *old = r->old;
  for (int i = 0; i < old->num_updates; i++)
    md_update_state(&r->b, md_mapped(r, old->update[i].state), md_mapped(r, old->update[i].val));
  for (int i = 0; i < old->num_results; i++)
    md_return(&r->b, md_strdup(r->b.g->arena, old->result[i].name),
              md_mapped(r, old->result[i].val));
  number_regions(r);
  return !r->b.failed;
}

static md_graph *run_one(const md_pass *pass, const md_graph *g, const md_pass_options *o,
                         int64_t budget, void *own, md_arena *scratch, md_pass_report *report,
                         int *rewrites, md_diags *d) {
  md_rewriter r = {.old = g,
                   .scratch = scratch,
                   .options = o,
                   .pass = pass,
                   .budget = budget,
                   .report = report->arena,
                   .site = report->site,
                   .num_sites = report->num_sites,
                   .cap_sites = report->cap_sites,
                   .own = own};
  if (pass->required) r.budget = -1;
  md_graph *to = md_graph_create(g->name);
  md_builder_init(&r.b, to, d);
  r.map = MD_NEW_ARRAY(scratch, md_val, g->num_values + 1);
  for (int i = 1; i <= g->num_regions; i++) md_new_region(&r, "%s", g->region[i].name);
  bool good = (pass->run ? pass->run(&r) : md_run_rules(&r, pass->at, NULL)) && !r.b.failed &&
              carry_over(&r);
  free(r.region_name);
  report->site = r.site, report->num_sites = r.num_sites, report->cap_sites = r.cap_sites;
  report->saved += r.saved;
  *rewrites = r.rewrites;
  if (good) return to;
  md_graph_destroy(to);
  return NULL;
}

md_graph *md_apply(const md_rewriter *r, const md_pass *pass, const md_graph *g, void *own) {
  md_pass_report report = {.arena = md_arena_create()};
  md_arena *scratch = md_arena_create();
  int rewrites;
  md_graph *to = run_one(pass, g, r->options, -1, own, scratch, &report, &rewrites, r->b.diags);
  md_arena_destroy(scratch);
  md_pass_report_free(&report);
  return to;
}

static void print_graph(const md_graph *g, FILE *to, const char *fmt, const char *name,
                        int rewrites) {
  md_text t = {0};
  md_graph_print(g, &t);
  fprintf(to, fmt, name, rewrites);
  fwrite(t.s, 1, t.len, to);
  md_text_free(&t);
}

static bool dump(const md_graph *g, const char *dir, int number, const char *name, md_diags *d) {
  md_text t = {0}, path = {0};
  if (mkdir(dir, 0777) != 0 && errno != EEXIST)
    return md_error(d, E0801, MD_IN_FILE(dir), "cannot make this folder: %s", strerror(errno));
  md_put(&path, "%s/%02d-%s.mdg", dir, number, name);
  md_graph_print(g, &t);
  bool good = md_file_save(path.s, t.s, t.len, d);
  md_text_free(&t);
  md_text_free(&path);
  return good;
}

static bool same_graph(const md_graph *a, const md_graph *b) {
  md_text x = {0}, y = {0};
  md_graph_print(a, &x);
  md_graph_print(b, &y);
  bool same = x.len == y.len && !memcmp(x.s, y.s, x.len);
  md_text_free(&x);
  md_text_free(&y);
  return same;
}

static void print_times(const md_pass_report *report, FILE *to) {
  double total = 0;
  fprintf(to, "%-18s %10s %8s %8s %9s\n", "pass", "ms", "before", "after", "rewrites");
  for (int i = 0; i < report->num_stats; i++) {
    const md_pass_stat *s = &report->stat[i];
    fprintf(to, "%-18s %10.2f %8d %8d %9d\n", s->name, s->ms, s->before, s->after, s->rewrites);
    total += s->ms;
  }
  fprintf(to, "%-18s %10.2f\n", "total", total);
}

static void log_sites(const md_pass_report *r) {
  for (int p = 0; p < md_num_passes && md_log_on(MD_LOG_FUSION, MD_LEVEL_INFO); p++) {
    int done = 0, kept = 0;
    for (int i = 0; i < r->num_sites; i++) {
      const md_site *s = &r->site[i];
      if (strcmp(s->pass, md_passes[p]->name) != 0) continue;
      if (s->done) done++;
      else kept++;
      md_log(MD_LOG_FUSION, MD_LEVEL_DEBUG, "%s: %s %s%s%s", s->pass, s->node,
             s->done ? "done" : "kept", s->why && *s->why ? ": " : "", s->why ? s->why : "");
    }
    if (done + kept)
      md_log(MD_LOG_FUSION, MD_LEVEL_INFO, "%s: %d places done, %d kept", md_passes[p]->name, done,
             kept);
  }
}

static void log_run(const md_graph *g, const md_pass_report *r) {
  double ms = 0;
  for (int i = 0; i < r->num_stats; i++) {
    const md_pass_stat *s = &r->stat[i];
    ms += s->ms;
    md_log(MD_LOG_PASSES, MD_LEVEL_DEBUG, "%s: %d -> %d nodes, %d rewrites, %.2f ms", s->name,
           s->before, s->after, s->rewrites, s->ms);
  }
  md_log(MD_LOG_PASSES, MD_LEVEL_INFO, "%d passes made %d nodes in %d regions in %.1f ms",
         r->num_stats, g->num_nodes, g->num_regions, ms);
  log_sites(r);
  md_memory_report m;
  md_memory_of(g, &m);
  md_log(MD_LOG_MEM, MD_LEVEL_INFO,
         "arena of %lld bytes (%lld without reuse), states of %lld; peak at region %s",
         (long long)m.arena, (long long)m.without_reuse, (long long)m.states,
         m.peak_region > 0 ? g->region[m.peak_region].name : "-");
}

const md_pass *md_pass_from(const char *name) {
  for (int i = 0; i < md_num_passes; i++)
    if (!strcmp(md_passes[i]->name, name)) return md_passes[i];
  return NULL;
}

md_pass_options md_pass_defaults(void) {
  return (md_pass_options){
      .level = 2,
      .max_rewrites = -1,
      .precision = MD_F32,
      .facts = {.max_prologue = 3, .alignment = 64},
  };
}

const char *md_pipeline(int level) {
  // `regions` behind fuse-pointwise serves those who disable that: else it finds nothing to do.
  switch (level) {
  case 0: return "autodiff,dce,regions,schedule,recompute,memory";
  case 1: return "autodiff,fold,canon,cse,dce,precision,regions,layout,schedule,recompute,memory";
  default:
    return "fuse-infonce,autodiff,fold,canon,cse,dce,fold-bn,fold,canon,cse,dce,precision,"
           "fold-stride,cse,fuse-conv-bn-relu,fuse-pointwise,regions,layout,schedule,recompute,"
           "memory";
  }
}

md_graph *md_run_passes(md_graph *g, const md_pass_options *o, md_pass_report *report,
                        md_diags *d) {
  md_pass_report own = {0};
  md_pass_report *to = report ? report : &own;
  *to = (md_pass_report){.arena = md_arena_create()};
  md_arena *scratch = md_arena_create();
  FILE *print_to = o->print_to ? o->print_to : stderr;
  int64_t budget = o->max_rewrites;
  Pipeline p = {0};
  md_pass_options full = *o;
  if (full.level < 0) full.level = 2;
  bool good = build_pipeline(&full, &p, d);
  md_log(MD_LOG_GRAPH, MD_LEVEL_INFO, "%s: %d nodes, %d values, %d results",
         g->name ? g->name : "graph", g->num_nodes, g->num_values, g->num_results);
  if (good && o->dump_dir) good = dump(g, o->dump_dir, 0, "input", d);
  for (int i = 0; good && i < p.num; i++) {
    const md_pass *pass = p.pass[i];
    int64_t start = md_now_ns();
    md_pass_stat stat = {.name = pass->name, .before = g->num_nodes};
    md_graph *next = NULL;
    good = check_needs(pass, g, d) &&
           (next = run_one(pass, g, &full, budget, NULL, scratch, to, &stat.rewrites, d));
    md_arena_reset(scratch);
    if (!good) break;
    if (o->verify_each && !md_graph_verify(next, d)) {
      md_graph_dump(next);
      MD_ASSERT(false, "pass %s broke the graph:\n%s", pass->name, md_diags_text(d));
    }
    stat.after = next->num_nodes;
    stat.ms = (double)(md_now_ns() - start) * 1e-6;
    if (budget >= 0 && !pass->required) budget -= MD_MIN(budget, stat.rewrites);
    MD_PUSH(to->stat, to->num_stats, to->cap_stats, stat);
    bool all =
        o->print_after && (!strcmp(o->print_after, "all") || !strcmp(o->print_after, pass->name));
    if (all || (o->print_changed && !same_graph(g, next)))
      print_graph(next, print_to, "// after %s, %d rewrites\n", pass->name, stat.rewrites);
    if (o->dump_dir) good = dump(next, o->dump_dir, i + 1, pass->name, d);
    md_graph_destroy(g);
    g = next;
  }
  if (good) log_run(g, to);
  if (good && o->time) print_times(to, print_to);
  md_arena_destroy(scratch);
  if (!report) md_pass_report_free(&own);
  if (good) return g;
  md_graph_destroy(g);
  return NULL;
}

void md_pass_report_free(md_pass_report *r) {
  free(r->stat);
  free(r->site);
  if (r->arena) md_arena_destroy(r->arena);
  *r = (md_pass_report){0};
}
