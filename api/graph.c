// SPDX-License-Identifier: Apache-2.0
// Declaring graphs: the builder behind opaque handles, ops and attributes by name.
#include "api/internal.h"

#include "runtime/train/config.h"

#include <stdlib.h>
#include <string.h>

modist_graph *md_api_wrap(md_graph *g, md_diags *diags) {
  modist_graph *h = md_calloc(1, sizeof *h);
  md_builder_init(&h->b, g, diags);
  h->compile = md_diags_create();
  return h;
}

md_graph *md_api_unwrap(modist_graph *h) {
  md_graph *g = h->b.failed ? NULL : h->b.g;
  if (g) h->b.g = NULL;
  modist_graph_destroy(h);
  return g;
}

md_status modist_graph_create(const char *name, modist_graph **graph) {
  *graph = NULL;
  md_diags *d = md_diags_create();
  if (!name || !md_name_valid(name)) {
    char clean[80];
    md_error(d, E0308, MD_NOWHERE, "graph name '%s' is not a name",
             md_clean(name ? name : "", clean, sizeof clean));
    md_hint(d, "a letter or _, then letters, digits and _ . $ -");
    return md_api_fail(d);
  }
  *graph = md_api_wrap(md_graph_create(name), d);
  return MD_OK;
}

md_status modist_graph_parse(const char *text, size_t len, modist_graph **graph) {
  *graph = NULL;
  md_diags *d = md_diags_create();
  md_graph *g = md_parse_graph("text", text, len, d);
  if (!g) return md_api_fail(d);
  *graph = md_api_wrap(g, d);
  return MD_OK;
}

md_status modist_step_graph(const char *model, const char *const *settings, int num_settings,
                            modist_graph **graph) {
  *graph = NULL;
  md_diags *d = md_diags_create();
  const md_model *m = model ? md_model_from(model) : NULL;
  if (!m) {
    char clean[80];
    md_error(d, E0402, MD_NOWHERE, "there is no model '%s'",
             md_clean(model ? model : "", clean, sizeof clean));
    md_model_hint(model ? model : "", d);
    return md_api_fail(d);
  }
  md_step s = md_step_defaults();
  m->fill(&s);
  // The settings are only read.
  md_config *c = md_config_load(NULL, (char *const *)settings, num_settings, d);
  md_graph *g = c && md_config_step(c, &s, d) ? md_step_graph(&s, d) : NULL;
  md_config_destroy(c);
  if (!g) return md_api_fail(d);
  *graph = md_api_wrap(g, d);
  return MD_OK;
}

void modist_graph_destroy(modist_graph *h) {
  if (!h) return;
  if (h->b.g) md_graph_destroy(h->b.g);
  md_diags_destroy(h->b.diags);
  md_diags_destroy(h->compile);
  free(h);
}

static modist_val give_up(modist_graph *h) {
  h->b.failed = true;
  return MODIST_NONE;
}

// A type of the caller's numbers; the builder checks its sizes.
static bool declared_type(modist_graph *h, const char *what, md_dtype dtype, int rank,
                          const int64_t *dim, md_type *type) {
  if (h->b.failed) return false;
  bool is_dtype = (int)dtype > MD_NO_DTYPE && (int)dtype < MD_NUM_DTYPES;
  if (is_dtype && rank >= 1 && rank <= MD_MAX_RANK) {
    *type = md_type_of(dtype, rank, dim);
    return true;
  }
  if (!is_dtype)
    md_error(h->b.diags, E0303, MD_NOWHERE, "%s: %d is no element type", what, (int)dtype);
  else
    md_error(h->b.diags, E0307, MD_NOWHERE, "%s has %d axes; a tensor has 1 to %d", what, rank,
             MD_MAX_RANK);
  h->b.failed = true;
  return false;
}

// Attributes as in the text form, without the braces. False: reported.
static bool read_attrs(modist_graph *h, md_op op, const char *attrs, md_attr *attr) {
  *attr = (md_attr){0};
  if (!attrs || !attrs[0]) return true;
  md_text braced = {0};
  md_put(&braced, "{%s}", attrs);
  bool ok = md_parse_attrs(braced.s, op, h->b.g->arena, attr, h->b.diags);
  md_text_free(&braced);
  if (!ok) h->b.failed = true;
  return ok;
}

modist_val modist_input(modist_graph *h, const char *name, md_dtype dtype, int rank,
                        const int64_t *dim) {
  md_type type;
  if (!declared_type(h, "input", dtype, rank, dim, &type)) return MODIST_NONE;
  return md_input(&h->b, name, type);
}

modist_val modist_state(modist_graph *h, const char *name, md_dtype dtype, int rank,
                        const int64_t *dim, const char *init) {
  md_type type;
  md_attr attr;
  if (!declared_type(h, "state", dtype, rank, dim, &type)) return MODIST_NONE;
  if (!read_attrs(h, MD_OP_state, init, &attr)) return MODIST_NONE;
  return md_state(&h->b, name, type, &attr.state);
}

modist_val modist_constant(modist_graph *h, md_dtype dtype, int rank, const int64_t *dim,
                           double value) {
  md_type type;
  if (!declared_type(h, "constant", dtype, rank, dim, &type)) return MODIST_NONE;
  return md_constant(&h->b, type, value);
}

static modist_val unknown_op(modist_graph *h, const char *name) {
  char clean[80];
  md_error(h->b.diags, E0301, MD_NOWHERE, "unknown op '%s'",
           md_clean(name ? name : "", clean, sizeof clean));
  const char *near = md_op_nearest(name ? name : "");
  if (near) md_hint(h->b.diags, "did you mean '%s'?", near);
  else md_hint(h->b.diags, "'modistc ops' lists the ops");
  return give_up(h);
}

modist_val modist_op(modist_graph *h, const char *name, const modist_val *in, int num_in,
                     const char *attrs) {
  if (h->b.failed) return MODIST_NONE;
  md_op op = name ? md_op_from(name) : MD_OP_none;
  if (op == MD_OP_none) return unknown_op(h, name);
  if (md_ops[op].role == MD_LEAF) {
    md_error(h->b.diags, E0311, MD_NOWHERE, "%s: its type must be declared", name);
    md_hint(h->b.diags, "use modist_%s", name);
    return give_up(h);
  }
  if (num_in < 0 || num_in > MD_MAX_IN) {
    md_error(h->b.diags, E0302, MD_NOWHERE, "%s: %d operands; a node has at most %d", name, num_in,
             MD_MAX_IN);
    return give_up(h);
  }
  md_attr attr;
  if (!read_attrs(h, op, attrs, &attr)) return MODIST_NONE;
  return md_add_node(&h->b, op, in, num_in, &attr);
}

modist_val modist_result(modist_graph *h, modist_val first, int i) {
  if (h->b.failed) return MODIST_NONE;
  const md_graph *g = h->b.g;
  bool is_first =
      first >= 1 && first <= (modist_val)g->num_values && g->value[first].node->out == first;
  if (is_first && i >= 0 && i < g->value[first].node->num_out) return md_result_of(&h->b, first, i);
  if (is_first)
    md_error(h->b.diags, E0310, MD_NOWHERE, "%s has %d result%s; there is no number %d",
             md_ops[g->value[first].node->op].name, g->value[first].node->num_out,
             g->value[first].node->num_out == 1 ? "" : "s", i);
  else md_error(h->b.diags, E0310, MD_NOWHERE, "value %u is not the first result of an op", first);
  return give_up(h);
}

void modist_update(modist_graph *h, modist_val state, modist_val value) {
  md_update_state(&h->b, state, value);
}

void modist_return(modist_graph *h, const char *name, modist_val value) {
  md_return(&h->b, name, value);
}

static const md_shape *shape_of(const modist_graph *h, modist_val v) {
  bool known = !h->b.failed && v >= 1 && v <= (modist_val)h->b.g->num_values;
  return known ? &md_type_in(h->b.g, v)->shape : NULL;
}

int modist_rank(const modist_graph *h, modist_val v) {
  const md_shape *s = shape_of(h, v);
  return s ? s->rank : 0;
}

int64_t modist_dim(const modist_graph *h, modist_val v, int axis) {
  const md_shape *s = shape_of(h, v);
  return s && axis >= 0 && axis < s->rank ? s->dim[axis] : 0;
}

md_status modist_graph_status(const modist_graph *h) { return md_diags_status(h->b.diags); }

const char *modist_graph_error(const modist_graph *h) {
  return md_diags_text(md_diags_errors(h->b.diags) ? h->b.diags : h->compile);
}

char *modist_graph_text(const modist_graph *h) {
  md_text t = {0};
  md_graph_print(h->b.g, &t);
  return t.s;
}

void modist_free(void *memory) { free(memory); }
