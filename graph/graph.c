// SPDX-License-Identifier: Apache-2.0
// The graph as data: arrays of nodes and values, an index of the names that the outside knows
// (inputs, states, results), what crosses the border of a region, and the digest. Nodes lie in the
// graph's arena and never move. The arrays grow; that of values inside the arena, so that a type
// which somebody still points at stays readable.
#include "graph/graph.h"

#include <stdlib.h>
#include <string.h>

typedef struct name_entry {
  const char *name;  // NULL: free
  md_name_kind kind;
  md_val val;
} name_entry;

// Open addressing; at most half full.
struct md_names {
  name_entry *entry;
  size_t num, cap;  // cap: a power of two
};

static size_t name_slot(const struct md_names *t, md_name_kind kind, const char *name) {
  size_t i = (size_t)md_digest_of(name, strlen(name)).lo + (size_t)kind;
  for (;; i++) {
    const name_entry *e = &t->entry[i & (t->cap - 1)];
    if (!e->name || (e->kind == kind && !strcmp(e->name, name))) return i & (t->cap - 1);
  }
}

static void names_grow(struct md_names *t, md_arena *a) {
  struct md_names old = *t;
  t->cap = old.cap ? 2 * old.cap : 64;
  t->entry = MD_NEW_ARRAY(a, name_entry, t->cap);
  for (size_t i = 0; i < old.cap; i++)
    if (old.entry[i].name)
      t->entry[name_slot(t, old.entry[i].kind, old.entry[i].name)] = old.entry[i];
}

static md_val name_find(const md_graph *g, md_name_kind kind, const char *name) {
  if (!g->names->cap) return MD_NONE;
  const name_entry *e = &g->names->entry[name_slot(g->names, kind, name)];
  return e->name ? e->val : MD_NONE;
}

static int compare_vals(const void *a, const void *b) {
  md_val x = *(const md_val *)a, y = *(const md_val *)b;
  return (x > y) - (x < y);
}

static void hash_int(md_text *t, int64_t x) { md_put_bytes(t, (const char *)&x, sizeof x); }

static void hash_name(md_text *t, const char *name) {
  hash_int(t, (int64_t)strlen(name));
  md_put_bytes(t, name, strlen(name));
}

static void hash_node(md_text *t, const md_graph *g, const md_node *n) {
  hash_int(t, n->op);
  hash_int(t, n->region);
  hash_int(t, n->num_in);
  for (int i = 0; i < n->num_in; i++) hash_int(t, n->in[i]);
  for (int i = 0; i < md_op_num_attr(n->op); i++) {
    const md_attr_spec *a = md_op_attr(n->op, i);
    if (a->type != MD_AT_NAME) {
      md_put_bytes(t, (const char *)&n->attr.word[a->word], (size_t)a->num_words * 8);
      continue;
    }
    const char *name;
    memcpy(&name, &n->attr.word[a->word], sizeof name);
    hash_name(t, name ? name : "");
  }
  if (n->op == MD_OP_state) hash_name(t, n->name);
  hash_int(t, n->num_out);
  for (int i = 0; i < n->num_out; i++) {
    const md_value *v = &g->value[n->out + (md_val)i];
    hash_int(t, v->type.dtype);
    hash_int(t, v->type.block);
    hash_int(t, v->type.shape.rank);
    for (int k = 0; k < v->type.shape.rank; k++) hash_int(t, v->type.shape.dim[k]);
    hash_int(t, v->offset);
    hash_int(t, v->storage);
  }
}

md_graph *md_graph_create(const char *name) {
  md_arena *a = md_arena_create();
  md_graph *g = MD_NEW(a, md_graph);
  *g = (md_graph){.arena = a, .name = md_strdup(a, name), .arena_bytes = -1};
  g->names = MD_NEW(a, struct md_names);
  // Values and regions count from 1.
  g->cap_values = 64;
  g->value = MD_NEW_ARRAY(a, md_value, g->cap_values);
  g->value[0].offset = -1;
  g->region = md_grow(NULL, &g->cap_regions, sizeof *g->region);
  g->region[0] = (md_region){0};
  return g;
}

void md_graph_destroy(md_graph *g) {
  if (!g) return;
  free(g->node);
  free(g->result);
  free(g->update);
  free(g->region);
  md_arena_destroy(g->arena);
}

const md_type *md_type_in(const md_graph *g, md_val v) {
  MD_ASSERT(v != MD_NONE && v <= (md_val)g->num_values, "no value %u in graph %s", v, g->name);
  return &g->value[v].type;
}

const md_node *md_def(const md_graph *g, md_val v) {
  MD_ASSERT(v != MD_NONE && v <= (md_val)g->num_values, "no value %u in graph %s", v, g->name);
  return g->value[v].node;
}

md_val md_find_state(const md_graph *g, const char *name) {
  return name_find(g, MD_NAME_STATE, name);
}

md_val md_find_input(const md_graph *g, const char *name) {
  return name_find(g, MD_NAME_INPUT, name);
}

md_val md_find_result(const md_graph *g, const char *name) {
  return name_find(g, MD_NAME_RESULT, name);
}

bool md_name_valid(const char *name) {
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
  if (!name || !*name || !strchr(letters, *name)) return false;
  size_t len = strlen(name);
  return len <= MD_MAX_NAME &&
         strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789.$-") == len;
}

bool md_name_add(md_graph *g, md_name_kind kind, const char *name, md_val v) {
  struct md_names *t = g->names;
  if (2 * (t->num + 1) > t->cap) names_grow(t, g->arena);
  name_entry *e = &t->entry[name_slot(t, kind, name)];
  if (e->name) return false;
  *e = (name_entry){.name = md_strdup(g->arena, name), .kind = kind, .val = v};
  t->num++;
  return true;
}

int md_region_inputs(const md_graph *g, int region, md_arena *a, md_val **vals) {
  const md_region *r = &g->region[region];
  int num = 0, max = 0;
  for (int i = 0; i < r->num; i++) max += g->node[r->first + i]->num_in;
  md_val *v = MD_NEW_ARRAY(a, md_val, max + 1);
  for (int i = 0; i < r->num; i++) {
    const md_node *n = g->node[r->first + i];
    for (int k = 0; k < n->num_in; k++)
      if (n->in[k] != MD_NONE && md_def(g, n->in[k])->region != region) v[num++] = n->in[k];
  }
  qsort(v, (size_t)num, sizeof *v, compare_vals);
  int kept = 0;
  for (int i = 0; i < num; i++)
    if (!i || v[i] != v[i - 1]) v[kept++] = v[i];
  *vals = v;
  return kept;
}

// A value is visible outside when it has more readers than the region itself.
int md_region_outputs(const md_graph *g, int region, md_arena *a, md_val **vals) {
  const md_region *r = &g->region[region];
  const md_node *last = g->node[r->first + r->num - 1];
  md_val begin = g->node[r->first]->out, end = last->out + (md_val)last->num_out;
  int *inside = MD_NEW_ARRAY(a, int, end - begin);
  for (int i = 0; i < r->num; i++) {
    const md_node *n = g->node[r->first + i];
    for (int k = 0; k < n->num_in; k++)
      if (n->in[k] >= begin && n->in[k] < end) inside[n->in[k] - begin]++;
  }
  int num = 0;
  *vals = MD_NEW_ARRAY(a, md_val, end - begin);
  for (md_val v = begin; v < end; v++)
    if (g->value[v].uses > inside[v - begin]) (*vals)[num++] = v;
  return num;
}

// Everything that decides what the graph computes and how it is laid out. Not in it: names other
// than those of states, and where the user wrote what.
md_digest md_graph_digest(const md_graph *g) {
  md_text t = {0};
  hash_int(&t, g->num_nodes);
  for (int i = 0; i < g->num_nodes; i++) hash_node(&t, g, g->node[i]);
  hash_int(&t, g->num_results);
  for (int i = 0; i < g->num_results; i++) hash_int(&t, g->result[i].val);
  hash_int(&t, g->num_updates);
  for (int i = 0; i < g->num_updates; i++) {
    hash_int(&t, g->update[i].state);
    hash_int(&t, g->update[i].val);
  }
  hash_int(&t, g->arena_bytes);
  md_digest d = md_digest_of(t.s, t.len);
  md_text_free(&t);
  return d;
}
