// SPDX-License-Identifier: Apache-2.0
// What every pass does by hand: copying nodes from the old graph into the new one, telling sites,
// numbering regions, asking who reads a value.
#include "passes/passes.h"

#include <stdarg.h>
#include <string.h>

static void add_site(md_rewriter *r, const md_node *n, bool done, const char *fmt, va_list args) {
  char why[256];
  vsnprintf(why, sizeof why, fmt, args);
  const char *value = n->num_out ? md_value_text(r->old, n->out, r->report) : "";
  md_site site = {.pass = r->pass->name,
                  .node = md_format(r->report, "%s %s", md_ops[n->op].name, value),
                  .why = md_strdup(r->report, why),
                  .done = done};
  MD_PUSH(r->site, r->num_sites, r->cap_sites, site);
}

// Texts of a node live in the graph that it is copied into.
static const char *own_text(md_graph *g, const char *s) {
  return s ? md_strdup(g->arena, s) : NULL;
}

// Most nodes in a row come from one file, so the last copy of its name serves most.
void md_place_like(md_rewriter *r, const md_node *n) {
  const char *last = r->b.place.file;
  r->b.place = n->place;
  bool same = n->place.file && last && !strcmp(n->place.file, last);
  r->b.place.file = same ? last : own_text(r->b.g, n->place.file);
}

static md_val append(md_rewriter *r, const md_node *n, const md_val *in) {
  md_builder *b = &r->b;
  md_place_like(r, n);
  int before = b->g->num_nodes;
  const md_type *type = n->num_out ? md_type_in(r->old, n->out) : NULL;
  md_attr attr = n->attr;
  md_val v;
  switch (n->op) {
  case MD_OP_input: v = md_input(b, own_text(b->g, n->name), *type); break;
  case MD_OP_state:
    attr.state.from = own_text(b->g, attr.state.from);
    v = md_state(b, own_text(b->g, n->name), *type, &attr.state);
    break;
  case MD_OP_constant: v = md_constant(b, *type, attr.value.value); break;
  default: v = md_add_node(b, n->op, in, n->num_in, &attr);
  }
  if (v == MD_NONE || b->g->num_nodes == before) return v;
  b->g->node[b->g->num_nodes - 1]->region = r->region;
  for (int i = 0; i < n->num_out; i++)
    b->g->value[v + (md_val)i].type.block = md_type_in(r->old, n->out + (md_val)i)->block;
  return v;
}

void md_site_done(md_rewriter *r, const md_node *n, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  add_site(r, n, true, fmt, args);
  va_end(args);
}

void md_site_kept(md_rewriter *r, const md_node *n, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  add_site(r, n, false, fmt, args);
  va_end(args);
}

md_val md_keep(md_rewriter *r, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  add_site(r, r->at, false, fmt, args);
  va_end(args);
  return md_copy_node(r, r->at);
}

bool md_may_rewrite(const md_rewriter *r) { return r->budget < 0 || r->rewrites < r->budget; }

md_val md_mapped(const md_rewriter *r, md_val old) {
  if (old == MD_NONE) return MD_NONE;
  MD_ASSERT(r->map[old] != MD_NONE || r->b.failed, "%s: value %u is read before it is built",
            r->pass->name, (unsigned)old);
  return r->map[old];
}

md_val md_copy_with(md_rewriter *r, const md_node *n, const md_val *in) {
  md_val v = append(r, n, in);
  if (v == MD_NONE) return v;
  for (int i = 0; i < n->num_out; i++) {
    md_val from = n->out + (md_val)i, to = v + (md_val)i;
    r->map[from] = to;
    r->b.g->value[to].name = own_text(r->b.g, r->old->value[from].name);
  }
  return v;
}

md_val md_copy_node(md_rewriter *r, const md_node *n) {
  md_val few[16], *in = few;
  if (n->num_in > MD_COUNT(few)) in = MD_NEW_ARRAY(r->scratch, md_val, n->num_in);
  for (int i = 0; i < n->num_in; i++) in[i] = md_mapped(r, n->in[i]);
  return md_copy_with(r, n, in);
}

md_val md_clone_node(md_rewriter *r, const md_node *n, const md_val *in) {
  return append(r, n, in);
}

// Where the anchor `op` stands behind `v`, which only casts or folds its result; else v.
static md_val anchor_behind(const md_graph *g, md_op op, md_val v) {
  md_val made = v;
  while (md_def(g, made)->op != op && md_def(g, made)->num_in == 1) made = md_def(g, made)->in[0];
  return md_ops[op].role == MD_ANCHOR && md_def(g, made)->op == op ? made : v;
}

// Keeps the name of a result where the value that replaces it has none; an anchor's, as kernels are called after it.
static void pass_name_on(md_rewriter *r, md_val from, md_val to) {
  md_value *value = &r->b.g->value[anchor_behind(r->b.g, r->at->op, to)];
  const char *name = r->old->value[from].name;
  if (name && !value->name && md_ops[value->node->op].role != MD_LEAF)
    value->name = own_text(r->b.g, name);
}

bool md_run_rules(md_rewriter *r, const md_rule *rules, md_rule otherwise) {
  md_graph *g = r->b.g;
  for (int i = 0; i < r->old->num_nodes && !r->b.failed; i++) {
    const md_node *n = r->old->node[i];
    md_rule rule = rules[n->op] ? rules[n->op] : otherwise;
    int first = g->num_nodes;
    r->at = n;
    r->region = n->region;
    md_place_like(r, n);
    if (!rule || md_ops[n->op].role == MD_LEAF || !md_may_rewrite(r)) {
      md_copy_node(r, n);
      continue;
    }
    md_val v = rule(r, n);
    if (v == MD_NONE) return false;
    if (r->map[n->out] == v) continue;  // copied
    r->map[n->out] = v;
    r->rewrites++;
    for (int k = first; k < g->num_nodes; k++) g->node[k]->region = n->region;
    for (int k = 0; k < n->num_out; k++)
      pass_name_on(r, n->out + (md_val)k, r->map[n->out + (md_val)k]);
  }
  return !r->b.failed;
}

void md_copy_leaves(md_rewriter *r) {
  r->region = 0;
  for (int i = 0; i < r->old->num_nodes; i++)
    if (md_ops[r->old->node[i]->op].role == MD_LEAF) md_copy_node(r, r->old->node[i]);
}

void md_copy_region(md_rewriter *r, int region) {
  const md_region *g = &r->old->region[region];
  r->region = region;
  for (int i = g->first; i < g->first + g->num; i++)
    if (md_region_of(r->old->node[i]) == region) md_copy_node(r, r->old->node[i]);
}

int md_new_region(md_rewriter *r, const char *fmt, ...) {
  char name[128];
  va_list args;
  va_start(args, fmt);
  vsnprintf(name, sizeof name, fmt, args);
  va_end(args);
  MD_PUSH(r->region_name, r->num_region_names, r->cap_region_names, md_strdup(r->scratch, name));
  return r->num_region_names;
}

int md_new_region_of(md_rewriter *r, const md_node *n) {
  const md_graph *g = r->old;
  const char *name = g->value[n->out].name;
  if (!name && n->op == MD_OP_conv3d_dgrad) {
    md_val w = n->in[1];
    while (!g->value[w].name && md_def(g, w)->op == MD_OP_cast) w = md_def(g, w)->in[0];
    name = g->value[w].name;
  }
  return md_new_region(r, "%s%s%s", md_ops[n->op].name, name ? "." : "", name ? name : "");
}

md_readers md_readers_of(const md_graph *g, md_arena *a) {
  int num = g->num_values + 1;
  md_readers readers = {.first = MD_NEW_ARRAY(a, int, num + 1), .kept = MD_NEW_ARRAY(a, bool, num)};
  for (int i = 0; i < g->num_nodes; i++)
    for (int j = 0; j < g->node[i]->num_in; j++) readers.first[g->node[i]->in[j] + 1]++;
  for (int v = 0; v < num; v++) readers.first[v + 1] += readers.first[v];
  readers.reader = MD_NEW_ARRAY(a, int, readers.first[num] + 1);
  int *next = MD_NEW_ARRAY(a, int, num);
  memcpy(next, readers.first, (size_t)num * sizeof *next);
  for (int i = 0; i < g->num_nodes; i++)
    for (int j = 0; j < g->node[i]->num_in; j++) readers.reader[next[g->node[i]->in[j]]++] = i;
  for (int i = 0; i < g->num_results; i++) readers.kept[g->result[i].val] = true;
  for (int i = 0; i < g->num_updates; i++) readers.kept[g->update[i].val] = true;
  return readers;
}

const char *md_value_text(const md_graph *g, md_val v, md_arena *a) {
  const char *name = g->value[v].name;
  return name ? md_format(a, "%%%s", name) : md_format(a, "%%%u", (unsigned)v);
}
