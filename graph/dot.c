// SPDX-License-Identifier: Apache-2.0
// A graph as Graphviz text: states are boxes, parameters ellipses, operations rounded boxes, results
// double ellipses; regions are clusters, edges carry types. Identifiers are ours (n12, r3); what a
// user named stands in quotes, and the alphabet of names holds nothing to escape.
#include "graph/graph.h"

static void put_node(md_text *to, const md_graph *g, const md_node *n) {
  const md_value *first = &g->value[n->out];
  const char *name = n->name ? n->name : first->name, *op = md_ops[n->op].name;
  const char *look = n->op == MD_OP_state   ? "shape=box, style=filled, fillcolor=lightyellow"
                     : n->op == MD_OP_input ? "shape=ellipse"
                                            : "shape=box, style=rounded";
  if (name) md_put(to, "n%d [label=\"%s\\n%s\", %s];\n", n->index, name, op, look);
  else md_put(to, "n%d [label=\"%s\", %s];\n", n->index, op, look);
}

static void put_edge(md_text *to, const md_graph *g, md_arena *a, md_val from, const char *to_name,
                     const char *look) {
  md_put(to, "  n%d -> %s [label=\"%s\"%s];\n", md_def(g, from)->index, to_name,
         md_type_text(md_type_in(g, from), a), look);
}

void md_graph_dot(const md_graph *g, md_text *to) {
  md_arena *a = md_arena_create();
  md_put(to, "digraph \"%s\" {\n  rankdir=TB;\n  node [fontname=\"sans-serif\"];\n", g->name);
  int region = 0;
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (region && n->region != region) md_put(to, "  }\n");
    if (n->region && n->region != region)
      md_put(to, "  subgraph cluster_r%d {\n    label=\"%s\";\n", n->region,
             g->region[n->region].name ? g->region[n->region].name : "");
    region = n->region;
    md_put(to, region ? "    " : "  ");
    put_node(to, g, n);
  }
  if (region) md_put(to, "  }\n");
  for (int i = 0; i < g->num_results; i++)
    md_put(to, "  r%d [label=\"%s\", shape=ellipse, peripheries=2];\n", i, g->result[i].name);
  for (int i = 0; i < g->num_nodes; i++)
    for (int k = 0; k < g->node[i]->num_in; k++)
      if (g->node[i]->in[k] != MD_NONE)
        put_edge(to, g, a, g->node[i]->in[k], md_format(a, "n%d", i), "");
  for (int i = 0; i < g->num_updates; i++)
    put_edge(to, g, a, g->update[i].val, md_format(a, "n%d", md_def(g, g->update[i].state)->index),
             ", style=dashed, constraint=false");
  for (int i = 0; i < g->num_results; i++)
    put_edge(to, g, a, g->result[i].val, md_format(a, "r%d", i), "");
  md_put(to, "}\n");
  md_arena_destroy(a);
}
