// SPDX-License-Identifier: Apache-2.0
// A graph as text that parses back to the same graph: docs/graph.md, "As it is printed".
#include "graph/read.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct md_printer {
  const md_graph *g;
  md_text *to;
  md_arena *scratch;
  const char **name;  // of each value
};
typedef struct md_printer printer;

// A value's own name where it can be read back and is free, else name.2, name.3, ...
static void name_value(printer *p, md_symbols *taken, md_val v, const char *want, int *num) {
  const char *name = want;
  if (!md_name_valid(want)) {
    name = md_format(p->scratch, "%d", (*num)++);
  } else {
    for (int i = 2; md_symbols_find(taken, name, (int)strlen(name)); i++)
      name = md_format(p->scratch, "%.*s.%d", MD_MAX_NAME - 12, want, i);
    md_symbols_add(taken, name, (int)strlen(name), v);
  }
  p->name[v] = name;
}

// In the order of printing: parameters stand first.
static printer begin(const md_graph *g, md_text *to) {
  printer p = {.g = g, .to = to, .scratch = md_arena_create()};
  md_symbols taken = {0};
  int num = 0;
  p.name = MD_NEW_ARRAY(p.scratch, const char *, g->num_values + 1);
  for (int is_param = 1; is_param >= 0; is_param--)
    for (int i = 0; i < g->num_nodes; i++) {
      const md_node *n = g->node[i];
      if ((n->op == MD_OP_input) != is_param) continue;
      for (int k = 0; k < n->num_out; k++) {
        md_val v = n->out + (md_val)k;
        name_value(&p, &taken, v, is_param ? n->name : g->value[v].name, &num);
      }
    }
  md_symbols_free(&taken);
  return p;
}

static void end(printer *p) { md_arena_destroy(p->scratch); }

static void put_placed(printer *p, md_val v) {
  const md_value *value = &p->g->value[v];
  md_put(p->to, "%s", md_type_text(&value->type, p->scratch));
  if (value->storage != MD_NONE) md_put(p->to, " at @%s", md_def(p->g, value->storage)->name);
  else if (value->offset >= 0) md_put(p->to, " at %" PRId64, value->offset);
}

static bool is_float(const md_attr_spec *spec) { return spec->type == MD_AT_FLOAT; }

// A zero word means the default, and so does the default itself.
static bool is_default(const md_attr_spec *spec, const md_attr *attr) {
  const int64_t *word = &attr->word[spec->word];
  if (spec->type == MD_AT_DIMS || spec->type == MD_AT_NAME) return *word == 0;
  md_attr preset = {0};
  if (is_float(spec)) preset.real[0] = spec->preset;
  else preset.word[0] = (int64_t)spec->preset;
  for (int i = 0; i < spec->num_words; i++)
    if (word[i] != 0 && word[i] != preset.word[0]) return false;
  return true;
}

static void put_list(md_text *to, const int64_t *x, int64_t num, int64_t zero) {
  for (int64_t i = 0; i < num; i++) md_put(to, "%s%" PRId64, i ? "," : "[", x[i] ? x[i] : zero);
  md_put(to, "]");
}

static void put_attr(md_text *to, const md_attr_spec *spec, const md_attr *attr) {
  const int64_t *word = &attr->word[spec->word];
  char number[MD_FLOAT_CHARS];
  md_put(to, "%s=", spec->name);
  switch (spec->type) {
  case MD_AT_INT: md_put(to, "%" PRId64, *word); break;
  case MD_AT_FLOAT: md_put(to, "%s", md_float_text(attr->real[spec->word], number)); break;
  case MD_AT_BOOL: md_put(to, "true"); break;
  case MD_AT_DIM3: put_list(to, word, 3, (int64_t)spec->preset); break;
  case MD_AT_DIMS: put_list(to, word + 1, MD_MIN(*word, MD_MAX_RANK), 0); break;
  case MD_AT_ENUM: md_put(to, "%s", *word < spec->num_choices ? spec->choice[*word] : "?"); break;
  case MD_AT_DTYPE: md_put(to, "%s", md_dtype_name((md_dtype)*word)); break;
  case MD_AT_NAME: md_put(to, "@%s", (const char *)(intptr_t)*word); break;
  }
}

static void put_attrs(md_text *to, const md_node *n) {
  const char *before = " {";
  for (int i = 0; i < md_op_num_attr(n->op); i++) {
    const md_attr_spec *spec = md_op_attr(n->op, i);
    if (is_default(spec, &n->attr)) continue;
    md_put(to, "%s", before);
    put_attr(to, spec, &n->attr);
    before = ", ";
  }
  if (*before == ',') md_put(to, "}");
}

static void put_node(printer *p, const md_node *n) {
  md_text *to = p->to;
  if (n->op == MD_OP_input) {
    md_put(to, "%%%s: ", p->name[n->out]);
    put_placed(p, n->out);
    return;
  }
  for (int i = 0; i < n->num_out; i++)
    md_put(to, "%s%%%s", i ? ", " : "", p->name[n->out + (md_val)i]);
  md_put(to, " = %s", md_ops[n->op].name);
  if (n->op == MD_OP_state) md_put(to, " @%s", n->name);
  for (int i = 0; i < n->num_in; i++) {
    md_put(to, i ? ", " : " ");
    if (n->in[i] == MD_NONE) md_put(to, "_");
    else md_put(to, "%%%s", p->name[n->in[i]]);
  }
  put_attrs(to, n);
  for (int i = 0; i < n->num_out; i++) {
    md_put(to, i ? ", " : " : ");
    put_placed(p, n->out + (md_val)i);
  }
}

static void put_header(printer *p) {
  md_text *to = p->to;
  int num = 0;
  md_put(to, "graph @%s(", md_name_valid(p->g->name) ? p->g->name : "unnamed");
  for (int i = 0; i < p->g->num_nodes; i++) {
    if (p->g->node[i]->op != MD_OP_input) continue;
    md_put(to, num++ ? ", " : "");
    put_node(p, p->g->node[i]);
  }
  md_put(to, ")");
  if (p->g->arena_bytes >= 0) md_put(to, " arena %" PRId64, p->g->arena_bytes);
  md_put(to, " {\n");
}

static void put_nodes(printer *p) {
  const md_graph *g = p->g;
  int region = 0;
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op == MD_OP_input) continue;
    if (region && n->region != region) md_put(p->to, "  }\n");
    if (n->region && n->region != region) {
      const char *name = g->region[n->region].name;
      md_put(p->to, "  region @%s {\n", name ? name : md_format(p->scratch, "r%d", n->region));
    }
    region = n->region;
    md_put(p->to, region ? "    " : "  ");
    put_node(p, n);
    md_put(p->to, "\n");
  }
  if (region) md_put(p->to, "  }\n");
}

static void put_ends(printer *p) {
  const md_graph *g = p->g;
  md_text *to = p->to;
  for (int i = 0; i < g->num_updates; i++)
    md_put(to, "  update @%s = %%%s\n", md_def(g, g->update[i].state)->name,
           p->name[g->update[i].val]);
  for (int i = 0; i < g->num_results; i++) {
    const md_result *r = &g->result[i];
    md_put(to, i ? ", " : "  return ");
    if (strcmp(r->name, p->name[r->val])) md_put(to, "%s=", r->name);
    md_put(to, "%%%s", p->name[r->val]);
  }
  md_put(to, g->num_results ? "\n}\n" : "}\n");
}

void md_graph_print(const md_graph *g, md_text *to) {
  printer p = begin(g, to);
  put_header(&p);
  put_nodes(&p);
  put_ends(&p);
  end(&p);
}

void md_node_print(const md_graph *g, const md_node *n, md_text *to) {
  printer p = begin(g, to);
  put_node(&p, n);
  end(&p);
}

md_printer *md_printer_create(const md_graph *g) {
  printer p = begin(g, NULL);
  printer *made = MD_NEW(p.scratch, printer);
  *made = p;
  return made;
}

void md_printer_node(md_printer *p, const md_node *n, md_text *to) {
  p->to = to;
  put_node(p, n);
}

void md_printer_destroy(md_printer *p) {
  if (p) end(p);
}

void md_graph_dump(const md_graph *g) {
  md_text t = {0};
  md_graph_print(g, &t);
  fwrite(t.s, 1, t.len, stderr);
  md_text_free(&t);
}
