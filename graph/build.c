// SPDX-License-Identifier: Apache-2.0
// The builder: the only way nodes come to be, so every node has been through the inference of
// infer.c, names are unique, and readers are counted. Sticky: the first error sets `failed`, then
// everything returns MD_NONE in silence, and a model contains no checks.
#include "graph/graph.h"

#include <stdarg.h>
#include <string.h>

static md_val give_up(md_builder *b) {
  b->failed = true;
  return MD_NONE;
}

// "scope.name" in the graph's arena; NULL: reported.
static const char *scoped_name(md_builder *b, const char *what, const char *name) {
  const char *full = name && b->scope[0] ? md_format(b->g->arena, "%s.%s", b->scope, name)
                     : name              ? md_strdup(b->g->arena, name)
                                         : NULL;
  if (md_name_valid(full)) return full;
  char clean[MD_MAX_NAME + 1];
  if (!full) md_error(b->diags, E0308, b->place, "%s has no name", what);
  else
    md_error(b->diags, E0308, b->place, "%s name '%s' is not a name", what,
             md_clean(full, clean, sizeof clean));
  md_hint(b->diags, "a name is a letter or _, then letters, digits and _ . $ -, at most %d in all",
          MD_MAX_NAME);
  b->failed = true;
  return NULL;
}

// Claims a name; false: reported.
static bool claim_name(md_builder *b, md_name_kind kind, const char *what, const char *name,
                       md_val v) {
  if (md_name_add(b->g, kind, name, v)) return true;
  md_error(b->diags, E0308, b->place, "%s name '%s' is already taken", what, name);
  b->failed = true;
  return false;
}

static bool has_room(md_builder *b) {
  if (b->g->num_nodes < MD_MAX_NODES) return true;
  md_error(b->diags, E0307, b->place, "graph %s has more than %d nodes", b->g->name, MD_MAX_NODES);
  b->failed = true;
  return false;
}

// A known value, else reported.
static bool check_value(md_builder *b, const char *what, md_val v) {
  if (v != MD_NONE && v <= (md_val)b->g->num_values) return true;
  md_error(b->diags, E0310, b->place, "%s: value %u is none of the graph's, which are 1 to %d",
           what, v, b->g->num_values);
  b->failed = true;
  return false;
}

// Words of the row, zero ones replaced by their defaults; everything else becomes zero, so that
// attributes compare and hash as bytes.
static md_attr with_defaults(md_op op, const md_attr *from) {
  md_attr to = {0};
  for (int i = 0; i < md_op_num_attr(op); i++) {
    const md_attr_spec *a = md_op_attr(op, i);
    int64_t num_dims = from && a->type == MD_AT_DIMS ? from->word[a->word] : MD_MAX_RANK;
    for (int k = a->word; k < a->word + a->num_words; k++) {
      if (k > a->word && k - a->word > num_dims) continue;  // beyond the end of a short list
      if (a->type == MD_AT_FLOAT)
        to.real[k] = from && from->real[k] != 0 ? from->real[k] : a->preset;
      else to.word[k] = from && from->word[k] != 0 ? from->word[k] : (int64_t)a->preset;
    }
  }
  return to;
}

static void intern_names(md_arena *arena, md_op op, md_attr *attr) {
  for (int i = 0; i < md_op_num_attr(op); i++) {
    const md_attr_spec *a = md_op_attr(op, i);
    const char *name;
    memcpy(&name, &attr->word[a->word], sizeof name);
    if (a->type != MD_AT_NAME || !name) continue;
    name = md_strdup(arena, name);
    memcpy(&attr->word[a->word], &name, sizeof name);
  }
}

static void push_value(md_graph *g, md_value v) {
  if (g->num_values + 1 == g->cap_values) {
    md_value *grown = MD_NEW_ARRAY(g->arena, md_value, 2 * (size_t)g->cap_values);
    memcpy(grown, g->value, (size_t)g->cap_values * sizeof *grown);
    g->value = grown;
    g->cap_values *= 2;
  }
  g->value[++g->num_values] = v;
}

// Takes the node that passed inference into the graph.
static md_val append(md_builder *b, const md_node *from, const md_infer *f) {
  md_graph *g = b->g;
  md_node *n = MD_NEW(g->arena, md_node);
  *n = *from;
  n->index = g->num_nodes;
  n->out = (md_val)g->num_values + 1;
  n->num_out = f->num_out;
  n->region = b->region;
  n->place = b->place;
  intern_names(g->arena, n->op, &n->attr);
  // Absent optional operands at the end read as MD_NONE even where num_in does not count them.
  md_val *in = MD_NEW_ARRAY(g->arena, md_val, MD_MAX(n->num_in, md_op_num_in(n->op)) + 1);
  for (int i = 0; i < n->num_in; i++) {
    in[i] = from->in[i];
    if (in[i] != MD_NONE) g->value[in[i]].uses++;
  }
  n->in = in;
  for (int i = 0; i < f->num_out; i++)
    push_value(g,
               (md_value){.type = f->out[i], .node = n, .name = i ? NULL : n->name, .offset = -1});
  MD_PUSH(g->node, g->num_nodes, g->cap_nodes, n);
  return n->out;
}

static md_val add_leaf(md_builder *b, md_op op, const char *name, md_type type,
                       const md_attr *attr) {
  if (b->failed || !has_room(b)) return MD_NONE;
  md_node n = {.op = op, .attr = with_defaults(op, attr)};
  if (name || op != MD_OP_constant) {
    n.name = scoped_name(b, md_ops[op].name, name);
    if (!n.name) return MD_NONE;
  }
  md_infer f;
  f.g = b->g;
  f.node = &n;
  f.out[0] = type;
  f.num_out = 1;
  f.diags = b->diags;
  f.place = b->place;
  f.parts = b->parts;
  if (!md_infer_node(&f)) return give_up(b);
  md_name_kind kind = op == MD_OP_input ? MD_NAME_INPUT : MD_NAME_STATE;
  if (n.name && !claim_name(b, kind, md_ops[op].name, n.name, (md_val)b->g->num_values + 1))
    return MD_NONE;
  return append(b, &n, &f);
}

void md_builder_init(md_builder *b, md_graph *g, md_diags *diags) {
  *b = (md_builder){.g = g, .diags = diags};
}

int md_scope_push(md_builder *b, const char *fmt, ...) {
  int mark = (int)strlen(b->scope);
  char *end = b->scope + mark;
  size_t room = sizeof b->scope - (size_t)mark;
  int len = snprintf(end, room, mark ? "." : "");
  va_list args;
  va_start(args, fmt);
  if (len >= 0 && (size_t)len < room) len += vsnprintf(end + len, room - (size_t)len, fmt, args);
  va_end(args);
  if ((size_t)len < room) return mark;
  *end = '\0';
  if (!b->failed)
    md_error(b->diags, E0308, b->place,
             "scopes within scopes make a name of more than %d characters", MD_MAX_NAME);
  b->failed = true;
  return mark;
}

void md_scope_pop(md_builder *b, int mark) {
  MD_ASSERT(mark >= 0 && mark <= (int)strlen(b->scope), "scope %s has no mark %d", b->scope, mark);
  b->scope[mark] = '\0';
}

md_val md_add_node(md_builder *b, md_op op, const md_val *in, int num_in, const md_attr *attr) {
  if (b->failed || !has_room(b)) return MD_NONE;
  if ((int)op <= MD_OP_none || (int)op >= MD_NUM_OPS) {
    md_error(b->diags, E0301, b->place, "op %d is not in the op table", (int)op);
    return give_up(b);
  }
  if (md_ops[op].role == MD_LEAF) {
    md_error(b->diags, E0311, b->place, "%s: its type must be declared", md_ops[op].name);
    md_hint(b->diags, "use md_input, md_state or md_constant");
    return give_up(b);
  }
  md_node n = {.op = op, .in = in, .num_in = num_in, .attr = with_defaults(op, attr)};
  while (n.num_in > 0 && n.num_in <= md_op_num_in(op) && in[n.num_in - 1] == MD_NONE &&
         md_op_in(op, n.num_in - 1)->optional)
    n.num_in--;
  md_infer f;
  f.g = b->g;
  f.node = &n;
  f.diags = b->diags;
  f.place = b->place;
  f.parts = b->parts;
  return md_infer_node(&f) ? append(b, &n, &f) : give_up(b);
}

md_val md_input(md_builder *b, const char *name, md_type type) {
  return add_leaf(b, MD_OP_input, name, type, NULL);
}

md_val md_state(md_builder *b, const char *name, md_type type, const md_state_attr *init) {
  md_attr a = {0};
  if (init) a.state = *init;
  return add_leaf(b, MD_OP_state, name, type, &a);
}

md_val md_constant(md_builder *b, md_type type, double value) {
  md_attr a = {0};
  a.value.value = value;
  return add_leaf(b, MD_OP_constant, NULL, type, &a);
}

void md_update_state(md_builder *b, md_val state, md_val val) {
  md_graph *g = b->g;
  if (b->failed || !check_value(b, "update", state) || !check_value(b, "update", val)) return;
  const md_node *s = g->value[state].node;
  const md_type *old = &g->value[state].type, *new = &g->value[val].type;
  b->failed = true;
  if (s->op != MD_OP_state) {
    md_error(b->diags, E0309, b->place, "update: value %u is made by %s; only a state is updated",
             state, md_ops[s->op].name);
  } else if (!md_type_equal(old, new)) {
    md_error(b->diags, E0309, b->place, "update: state %s is %s, but its next value is %s", s->name,
             md_type_text(old, g->arena), md_type_text(new, g->arena));
  } else if (!md_name_add(g, MD_NAME_UPDATE, s->name, val)) {
    md_error(b->diags, E0309, b->place, "update: state %s has an update already", s->name);
  } else {
    b->failed = false;
    md_update u = {.state = state, .val = val};
    MD_PUSH(g->update, g->num_updates, g->cap_updates, u);
    g->value[val].uses++;
  }
}

void md_return(md_builder *b, const char *name, md_val val) {
  md_graph *g = b->g;
  if (b->failed || !check_value(b, "return", val)) return;
  if (!name) name = g->value[val].name;
  if (!md_name_valid(name)) {
    char clean[MD_MAX_NAME + 1];
    md_error(b->diags, E0308, b->place,
             name ? "result name '%s' is not a name" : "a result has no name%s",
             name ? md_clean(name, clean, sizeof clean) : "");
    b->failed = true;
    return;
  }
  if (g->num_results == MD_MAX_NODES) {
    md_error(b->diags, E0307, b->place, "graph %s has more than %d results", g->name, MD_MAX_NODES);
    b->failed = true;
    return;
  }
  if (!claim_name(b, MD_NAME_RESULT, "result", name, val)) return;
  md_result r = {.name = md_strdup(g->arena, name), .val = val};
  MD_PUSH(g->result, g->num_results, g->cap_results, r);
  g->value[val].uses++;
}

void md_set_name(md_builder *b, md_val v, const char *name) {
  if (b->failed || !check_value(b, "name", v)) return;
  const char *full = scoped_name(b, "value", name);
  if (!full) return;
  const md_node *n = b->g->value[v].node;
  if (n->op == MD_OP_input && strcmp(n->name, full) != 0) {
    md_error(b->diags, E0308, b->place, "input %s cannot be called %s", n->name, full);
    b->failed = true;
    return;
  }
  b->g->value[v].name = full;
}

md_shape md_shape_of(const md_builder *b, md_val v) {
  if (v == MD_NONE || v > (md_val)b->g->num_values) return (md_shape){0};
  return b->g->value[v].type.shape;
}

md_dtype md_dtype_of(const md_builder *b, md_val v) {
  if (v == MD_NONE || v > (md_val)b->g->num_values) return MD_NO_DTYPE;
  return b->g->value[v].type.dtype;
}

md_val md_result_of(const md_builder *b, md_val v, int i) {
  if (v == MD_NONE || v > (md_val)b->g->num_values) return MD_NONE;
  const md_node *n = b->g->value[v].node;
  return v == n->out && i >= 0 && i < n->num_out ? v + (md_val)i : MD_NONE;
}

int md_region_begin(md_builder *b, const char *name) {
  md_graph *g = b->g;
  if (b->failed) return 0;
  if (!md_name_valid(name) || b->region) {
    md_error(b->diags, E0313, b->place,
             b->region ? "a region inside of a region" : "a region has no valid name");
    b->failed = true;
    return 0;
  }
  md_region r = {.name = md_strdup(g->arena, name), .first = g->num_nodes};
  int num = g->num_regions + 1;
  MD_PUSH(g->region, num, g->cap_regions, r);
  g->num_regions = num - 1;
  return b->region = g->num_regions;
}

void md_region_end(md_builder *b) {
  md_graph *g = b->g;
  if (!b->region) return;
  md_region *r = &g->region[b->region];
  r->num = g->num_nodes - r->first;
  if (!r->num) g->num_regions--;
  b->region = 0;
}
