// SPDX-License-Identifier: Apache-2.0
// Graph text to graphs, line by line through the builder, so that every check of meaning is the
// builder's. A wrong line is reported, its results are known from then on as "no value", and
// reading goes on with the next line that looks like one. docs/graph.md has the grammar.
#include "graph/read.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_GRAPHS = 4096, SCRATCH_KEPT = 1 << 20 };

// Type and place of a value, as written behind ':'.
typedef struct placed {
  md_type type;
  md_token at;
  int64_t offset;
  md_token state;
} placed;

// `at @name`, which may stand above the state: found when the graph is complete.
typedef struct late {
  md_val val;
  md_token state;
} late;

typedef struct parser {
  md_reader r;
  md_graph *g;
  md_builder b;
  md_symbols values, states;
  late *late;
  int num_late, cap_late;
  int block;   // '{' open where lines stand
  int region;  // `block` inside of the region at hand; 0: outside
  int region_lines;
  bool has_returned;
  // The node at hand.
  md_op op;
  md_attr attr;
  md_token op_word, state, last;  // `last` before the types
  md_token result[MD_MAX_OUT];
  placed type[MD_MAX_OUT];
  md_val in[MD_MAX_IN];
  md_parts parts;
  int num_results, num_types, num_in;
  bool has_bad_in;  // an operand that an earlier mistake left without a value
} parser;

// --- Words and symbols

static bool read_name(parser *p, md_tok_kind kind, const char *what, md_token *out) {
  md_reader *r = &p->r;
  if (r->tok.kind != kind) return md_unexpected(r, what);
  int len = r->tok.len - (kind != MD_TOK_WORD);
  if (len > MD_MAX_NAME)
    return md_read_error(r, E0102, &r->tok, "name of %d characters; %d is the limit", len,
                         MD_MAX_NAME);
  *out = md_take(r);
  return true;
}

static bool is_number(const md_token *value) { return value->s[1] >= '0' && value->s[1] <= '9'; }

// What the builder reports from here on belongs to the text from `first` to `last`.
static void set_place(parser *p, const md_token *first, const md_token *last) {
  md_place at = md_span(&p->r, first, last);
  at.file = p->b.place.file;  // the graph's own copy
  p->b.place = at;
  p->b.failed = false;
}

// The builder has reported what it did not like.
static bool builder_ok(parser *p) {
  if (p->b.failed) p->r.errors++;
  return !p->b.failed;
}

static void hint_near(parser *p, const md_symbols *among, const md_token *t) {
  const char *near = md_symbols_nearest(among, t->s + 1, t->len - 1, p->r.scratch);
  if (near) md_hint(p->r.diags, "did you mean %c%s?", *t->s, near);
}

// A value that a mistake left at MD_NONE may still come.
static void define(parser *p, const md_token *t, md_val val) {
  md_symbol *known = md_symbols_find(&p->values, t->s + 1, t->len - 1);
  if (!known) md_symbols_add(&p->values, t->s + 1, t->len - 1, val);
  else if (known->val == MD_NONE) known->val = val;
}

// MD_NONE after a mistake, here or where the value should have been made.
static md_val find_value(parser *p, const md_token *t) {
  const md_symbol *known = md_symbols_find(&p->values, t->s + 1, t->len - 1);
  if (known) return known->val;
  md_read_error(&p->r, E0104, t, "no value %.*s above this line", t->len, t->s);
  hint_near(p, &p->values, t);
  define(p, t, MD_NONE);  // told once
  return MD_NONE;
}

static md_val find_state(parser *p, const md_token *t) {
  const md_symbol *known = md_symbols_find(&p->states, t->s + 1, t->len - 1);
  if (known) return known->val;
  md_read_error(&p->r, E0106, t, "no state %.*s in graph @%s", t->len, t->s, p->g->name);
  hint_near(p, &p->states, t);
  md_symbols_add(&p->states, t->s + 1, t->len - 1, MD_NONE);
  return MD_NONE;
}

static bool check_new(parser *p, const md_token *t) {
  const md_symbol *known = md_symbols_find(&p->values, t->s + 1, t->len - 1);
  if (!known || known->val == MD_NONE) return true;
  md_read_error(&p->r, E0105, t, "value %.*s is already defined", t->len, t->s);
  md_note(p->r.diags, md_def(p->g, known->val)->place, "the first one is here");
  return false;
}

// --- What a line may end with

// A line break, or the brace that closes the block.
static bool end_line(parser *p) {
  if (p->r.tok.starts_line || md_is_punct(&p->r, '}')) return true;
  return md_unexpected(&p->r, "the end of the line");
}

// To the next line that begins like a statement, or to the '}' that closes the block.
static void skip_line(parser *p) {
  md_reader *r = &p->r;
  for (; r->tok.kind != MD_TOK_END; md_take(r)) {
    if (md_is_punct(r, '}') && (r->braces == p->block || r->tok.starts_line)) break;
    if (!r->tok.starts_line) continue;
    if (r->tok.kind == MD_TOK_VALUE || md_is_word(r, "region") || md_is_word(r, "update")) break;
    if (md_is_word(r, "return") || md_is_word(r, "graph")) break;
  }
  r->braces = p->block;
}

// f32[2,3].c8 at 4096
static bool read_placed(parser *p, placed *t) {
  md_reader *r = &p->r;
  *t = (placed){.at = r->tok, .offset = -1};
  if (!md_read_type(r, &t->type)) return false;
  if (r->last.line == t->at.line) t->at.len = r->last.col + r->last.len - t->at.col;
  if (r->tok.starts_line || !md_is_word(r, "at")) return true;
  md_take(r);
  if (r->tok.kind == MD_TOK_AT) return read_name(p, MD_TOK_AT, "a state", &t->state);
  md_token number = r->tok;
  if (!md_read_int(r, "an offset in bytes or @state", &t->offset)) return false;
  return t->offset >= 0 || md_read_error(r, E0103, &number, "an offset is not negative");
}

// Gives the value what only the text knows: name, layout, place. Numbers are names until the graph
// is complete, so that the builder's messages say what the text says.
static void finish_value(parser *p, md_val v, const md_token *name, const placed *t) {
  md_value *value = &p->g->value[v];
  value->name = md_strndup(p->g->arena, name->s + 1, (size_t)name->len - 1);
  define(p, name, v);
  if (!t) return;
  value->type.block = t->type.block;
  value->offset = t->offset;
  late item = {v, t->state};
  if (t->state.s) MD_PUSH(p->late, p->num_late, p->cap_late, item);
}

// --- Nodes

static bool read_operands(parser *p) {
  md_reader *r = &p->r;
  md_op op = p->op;
  p->num_in = 0;
  p->has_bad_in = false;
  if (r->tok.starts_line) return true;
  if (r->tok.kind != MD_TOK_VALUE && !md_is_word(r, "_")) return true;
  do {
    md_token t = r->tok;
    md_val v = MD_NONE;
    if (p->num_in == MD_MAX_IN)
      return md_read_error(r, E0102, &t, "a node has at most %d operands", MD_MAX_IN);
    if (md_is_word(r, "_")) {
      int i = MD_MIN(p->num_in, md_op_num_in(op) - 1);
      if (i < 0 || !md_op_in(op, i)->optional)
        return md_read_error(r, E0117, &t, "operand %s of %s cannot be absent",
                             i < 0 ? "0" : md_op_in(op, i)->name, md_ops[op].name);
      md_take(r);
    } else {
      if (!read_name(p, MD_TOK_VALUE, "an operand", &t)) return false;
      v = find_value(p, &t);
      p->has_bad_in |= v == MD_NONE;
    }
    p->parts.in[p->num_in] = md_token_place(r, &t);
    p->in[p->num_in++] = v;
  } while (md_accept(r, ','));
  return true;
}

static bool read_op(parser *p) {
  md_reader *r = &p->r;
  p->op_word = r->tok;
  if (r->tok.kind != MD_TOK_WORD) return md_unexpected(r, "an op");
  const char *name = md_token_text(r, &r->tok);
  p->op = md_op_from(name);
  if (p->op == MD_OP_input)
    return md_read_error(r, E0121, &r->tok, "inputs are parameters of the graph, not lines");
  if (p->op != MD_OP_none) return md_take(r), true;
  md_read_error(r, E0301, &r->tok, "no op '%s'", name);
  const char *near = md_op_nearest(name);
  if (near) md_hint(r->diags, "did you mean %s?", near);
  else md_hint(r->diags, "`modistc ops` lists all ops");
  return false;
}

static bool read_results(parser *p) {
  md_reader *r = &p->r;
  p->num_results = 0;
  do {
    md_token name;
    if (p->num_results == MD_MAX_OUT)
      return md_read_error(r, E0102, &r->tok, "a node has at most %d results", MD_MAX_OUT);
    if (!read_name(p, MD_TOK_VALUE, "a value such as %x", &name)) return false;
    if (!check_new(p, &name)) return false;
    for (int i = 0; i < p->num_results; i++)
      if (p->result[i].len == name.len && !memcmp(p->result[i].s, name.s, (size_t)name.len))
        return md_read_error(r, E0105, &name, "value %.*s stands twice", name.len, name.s);
    p->result[p->num_results++] = name;
  } while (md_accept(r, ','));
  return true;
}

static bool read_types(parser *p) {
  md_reader *r = &p->r;
  p->num_types = 0;
  if (!md_accept(r, ':')) return true;
  do {
    if (p->num_types == MD_MAX_OUT)
      return md_read_error(r, E0102, &r->tok, "a node has at most %d results", MD_MAX_OUT);
    if (!read_placed(p, &p->type[p->num_types++])) return false;
  } while (md_accept(r, ','));
  return true;
}

// %a, %b = op %x, %y {attributes} : type, type
static bool read_node(parser *p) {
  md_reader *r = &p->r;
  p->attr = (md_attr){0};
  memset(p->parts.attr, 0, sizeof p->parts.attr);
  if (!read_results(p) || !md_expect(r, '=') || !read_op(p)) return false;
  if (p->op == MD_OP_state && !read_name(p, MD_TOK_AT, "the name of the state, @name", &p->state))
    return false;
  if (!read_operands(p)) return false;
  if (md_is_punct(r, '{') && !md_read_attrs(r, p->op, p->g->arena, &p->attr, p->parts.attr))
    return false;
  p->last = r->last;
  return read_types(p) && end_line(p);
}

static md_val build(parser *p) {
  const md_token *name = &p->state;
  if (p->op == MD_OP_constant) return md_constant(&p->b, p->type[0].type, p->attr.value.value);
  if (p->op != MD_OP_state) return md_add_node(&p->b, p->op, p->in, p->num_in, &p->attr);
  md_val v = md_state(&p->b, md_token_text(&p->r, name), p->type[0].type, &p->attr.state);
  if (v != MD_NONE && !md_symbols_find(&p->states, name->s + 1, name->len - 1))
    md_symbols_add(&p->states, name->s + 1, name->len - 1, v);
  return v;
}

// The line reads well: the node, and its results against what the text says of them.
static void make_node(parser *p) {
  md_reader *r = &p->r;
  const char *op = md_ops[p->op].name;
  if (md_ops[p->op].role == MD_LEAF && p->num_types != 1) {
    md_read_error(r, E0114, &p->op_word, "%s needs a type, such as : f32[2,3]", op);
    return;
  }
  if (p->has_bad_in) return;
  set_place(p, &p->op_word, &p->last);
  p->b.parts = &p->parts;
  md_val v = build(p);
  p->b.parts = NULL;
  if (!builder_ok(p)) return;
  int made = md_def(p->g, v)->num_out;
  if (p->num_results != made || (p->num_types && p->num_types != made)) {
    bool is_name = p->num_results != made;
    const md_token *at = is_name ? &p->result[0] : &p->type[0].at;
    int given = is_name ? p->num_results : p->num_types;
    md_read_error(r, E0116, at, "%s has %d result%s, but is given %d %s%s", op, made,
                  made == 1 ? "" : "s", given, is_name ? "name" : "type", given == 1 ? "" : "s");
    return;
  }
  for (int i = 0; i < made; i++) {
    placed *t = p->num_types ? &p->type[i] : NULL;
    md_type is = p->g->value[v + (md_val)i].type, said = t ? t->type : is;
    said.block = is.block = 0;
    if (!md_type_equal(&said, &is)) {
      md_read_error(r, E0115, &t->at, "%.*s is said to be %s, but %s makes %s", p->result[i].len,
                    p->result[i].s, md_type_text(&said, r->scratch), op,
                    md_type_text(&is, r->scratch));
      t = NULL;
    }
    finish_value(p, v + (md_val)i, &p->result[i], t);
  }
}

static bool read_param(parser *p) {
  md_reader *r = &p->r;
  md_token name;
  placed t;
  p->num_results = 0;
  if (!read_name(p, MD_TOK_VALUE, "a parameter such as %x: f32[2,3]", &name)) return false;
  p->result[p->num_results++] = name;
  if (!check_new(p, &name)) return false;
  if (is_number(&name))
    return md_read_error(r, E0101, &name, "a parameter has a name, not a number");
  if (!md_is_punct(r, ':'))
    return md_read_error(r, E0114, &name, "parameter %.*s has no type", name.len, name.s);
  md_take(r);
  if (!read_placed(p, &t)) return false;
  set_place(p, &name, &name);
  md_val v = md_input(&p->b, md_token_text(r, &name), t.type);
  if (!builder_ok(p)) return false;
  finish_value(p, v, &name, &t);
  return md_is_punct(r, ',') || md_is_punct(r, ')') || md_unexpected(r, "',' or ')'");
}

// To the comma behind a wrong parameter, or the end of the list. False: there is none.
static bool skip_param(parser *p) {
  md_reader *r = &p->r;
  for (int depth = 0; r->tok.kind != MD_TOK_END && !md_is_punct(r, '{'); md_take(r)) {
    depth += md_is_punct(r, '[') - md_is_punct(r, ']');
    if (md_is_punct(r, ')') || (depth <= 0 && md_is_punct(r, ','))) return true;
  }
  return false;
}

static bool read_params(parser *p) {
  md_reader *r = &p->r;
  if (!md_expect(r, '(')) return false;
  if (md_accept(r, ')')) return true;
  do {
    if (!read_param(p)) {
      if (p->num_results) define(p, &p->result[0], MD_NONE);
      if (!skip_param(p)) return false;
    }
  } while (md_accept(r, ','));
  return md_expect(r, ')');
}

// --- The other lines

static bool read_region(parser *p) {
  md_reader *r = &p->r;
  md_token word = md_take(r), name;
  bool ok = !p->region || md_read_error(r, E0118, &word, "a region holds no other region");
  ok = ok && read_name(p, MD_TOK_AT, "the name of the region, @name", &name);
  while (!md_is_punct(r, '{') && !r->tok.starts_line) {
    if (ok) ok = md_unexpected(r, "'{'");
    md_take(r);
  }
  if (!md_is_punct(r, '{')) return ok ? md_unexpected(r, "'{'") : false;
  md_take(r);
  p->block++;
  if (p->region) return true;  // reported; its '}' will do no harm
  p->region = p->block;
  p->region_lines = 0;
  set_place(p, &word, ok ? &name : &word);
  if (ok) {
    md_region_begin(&p->b, md_token_text(r, &name));
    builder_ok(p);
  }
  return true;
}

static void close_region(parser *p) {
  if (!p->region_lines) md_read_error(&p->r, E0118, &p->r.tok, "the region holds no node");
  if (p->b.region) md_region_end(&p->b);
  p->region = 0;
}

static bool read_update(parser *p) {
  md_reader *r = &p->r;
  md_token word = md_take(r), state, value;
  if (p->region) return md_read_error(r, E0118, &word, "updates stand outside of regions");
  if (!read_name(p, MD_TOK_AT, "the name of a state, @name", &state)) return false;
  if (!md_expect(r, '=')) return false;
  if (!read_name(p, MD_TOK_VALUE, "a value such as %x", &value)) return false;
  md_val to = find_state(p, &state), from = find_value(p, &value);
  if (to != MD_NONE && from != MD_NONE) {
    set_place(p, &word, &value);
    md_update_state(&p->b, to, from);
    builder_ok(p);
  }
  return end_line(p);
}

static bool read_return(parser *p) {
  md_reader *r = &p->r;
  md_token word = md_take(r), name, value;
  if (p->region) return md_read_error(r, E0118, &word, "the return stands outside of regions");
  p->has_returned = true;
  do {
    bool is_named = r->tok.kind == MD_TOK_WORD && !r->tok.starts_line;
    if (is_named && !(read_name(p, MD_TOK_WORD, "a name", &name) && md_expect(r, '=')))
      return false;
    if (!read_name(p, MD_TOK_VALUE, "a value such as %x", &value)) return false;
    md_val v = find_value(p, &value);
    if (!is_named && is_number(&value)) {
      md_read_error(r, E0119, &value, "result %.*s has no name", value.len, value.s);
      md_hint(r->diags, "name=%.*s", value.len, value.s);
    } else if (v != MD_NONE) {
      set_place(p, is_named ? &name : &value, &value);
      md_return(&p->b, md_token_text(r, is_named ? &name : &value), v);
      builder_ok(p);
    }
  } while (md_accept(r, ','));
  return end_line(p);
}

static bool read_line(parser *p) {
  md_reader *r = &p->r;
  if (p->has_returned) {
    p->has_returned = false;  // told once
    return md_unexpected_start(r, "'}' behind the return");
  }
  if (md_is_word(r, "region")) return read_region(p);
  if (md_is_word(r, "update")) return read_update(p);
  if (md_is_word(r, "return")) return read_return(p);
  if (r->tok.kind != MD_TOK_VALUE)
    return md_unexpected_start(r, "%value =, region, update, return or '}'");
  p->region_lines++;
  bool ok = read_node(p);
  if (ok) make_node(p);
  for (int i = 0; i < p->num_results; i++) define(p, &p->result[i], MD_NONE);  // unless it is there
  return ok;
}

// --- Graphs

static void read_body(parser *p) {
  md_reader *r = &p->r;
  p->block = r->braces;
  p->region = 0;
  p->has_returned = false;
  while (r->tok.kind != MD_TOK_END && r->errors < MD_MAX_ERRORS) {
    if (md_arena_bytes(r->scratch) > SCRATCH_KEPT) md_arena_reset(r->scratch);
    if (md_is_word(r, "graph") && r->tok.starts_line) break;  // a '}' was forgotten
    if (!md_is_punct(r, '}')) {
      const char *line = r->tok.s;
      if (read_line(p)) continue;
      if (r->tok.s == line) md_take(r);
      skip_line(p);
      continue;
    }
    if (p->region == p->block) close_region(p);
    else if (!p->region) break;
    p->block--;
    md_take(r);
  }
  if (r->errors == MD_MAX_ERRORS || md_accept(r, '}')) return;
  md_unexpected_start(r, "'}'");
}

static bool read_header(parser *p) {
  md_reader *r = &p->r;
  if (!read_params(p)) return false;
  if (!md_is_word(r, "arena")) return md_expect(r, '{');
  md_take(r);
  md_token number = r->tok;
  if (!md_read_int(r, "the size of the arena in bytes", &p->g->arena_bytes)) return false;
  if (p->g->arena_bytes < 0) return md_read_error(r, E0103, &number, "a size is not negative");
  return md_expect(r, '{');
}

static void drop_numbers(md_graph *g) {
  for (int v = 1; v <= g->num_values; v++)
    if (!md_name_valid(g->value[v].name)) g->value[v].name = NULL;
}

static void find_late_states(parser *p) {
  for (int i = 0; i < p->num_late; i++)
    p->g->value[p->late[i].val].storage = find_state(p, &p->late[i].state);
  p->num_late = 0;
}

static void check_graph_name(parser *p, md_symbols *graphs, const md_token *name) {
  if (md_symbols_find(graphs, name->s + 1, name->len - 1))
    md_read_error(&p->r, E0105, name, "graph %.*s is already defined", name->len, name->s);
  else md_symbols_add(graphs, name->s + 1, name->len - 1, MD_NONE);
}

// The word `graph` is next. The graph belongs to the caller, complete or not.
static md_graph *read_graph(parser *p, md_symbols *graphs) {
  md_reader *r = &p->r;
  md_token word = md_take(r), name;
  int errors = r->errors;
  bool has_name = read_name(p, MD_TOK_AT, "the name of the graph, @name", &name);
  if (has_name) check_graph_name(p, graphs, &name);
  p->g = md_graph_create(has_name ? md_token_text(r, &name) : "?");
  md_builder_init(&p->b, p->g, r->diags);
  p->b.place.file = md_strdup(p->g->arena, r->file);
  bool has_body = read_header(p);
  while (!has_body && r->tok.kind != MD_TOK_END) {
    if (md_is_word(r, "graph") && r->tok.starts_line) break;
    has_body = md_accept(r, '{');
    if (!has_body) md_take(r);
  }
  if (has_body) read_body(p);
  find_late_states(p);
  set_place(p, &word, has_name ? &name : &word);
  drop_numbers(p->g);
  if (r->errors == errors && !md_graph_verify(p->g, r->diags)) r->errors++;
  md_symbols_free(&p->values);
  md_symbols_free(&p->states);
  return p->g;
}

static void skip_to_graph(md_reader *r) {
  while (r->tok.kind != MD_TOK_END && !(md_is_word(r, "graph") && r->tok.starts_line)) md_take(r);
}

md_graph **md_parse_graphs(const char *file, const char *text, size_t len, md_arena *a, int *num,
                           md_diags *d) {
  md_arena *scratch = md_arena_create();
  parser *p = md_calloc(1, sizeof *p);
  md_reader *r = &p->r;
  md_symbols graphs = {0};
  md_graph **found = NULL;
  int num_found = 0, cap = 0;
  md_reader_init(r, file, text, len, scratch, d);
  while (r->tok.kind != MD_TOK_END && r->errors < MD_MAX_ERRORS) {
    if (num_found == MAX_GRAPHS) {
      md_read_error(r, E0102, &r->tok, "a text has at most %d graphs", MAX_GRAPHS);
      break;
    }
    if (!md_is_word(r, "graph")) {
      md_unexpected_start(r, "graph");
      skip_to_graph(r);
      continue;
    }
    r->braces = 0;
    md_graph *g = read_graph(p, &graphs);
    MD_PUSH(found, num_found, cap, g);
  }
  if (!num_found && !r->errors) {
    md_error(d, E0101, MD_IN_FILE(file), "no graph in the text");
    r->errors++;
  }
  md_graph **graph = NULL;
  if (!r->errors) {
    graph = MD_NEW_ARRAY(a, md_graph *, num_found);
    memcpy(graph, found, (size_t)num_found * sizeof *graph);
    *num = num_found;
  }
  for (int i = 0; r->errors && i < num_found; i++) md_graph_destroy(found[i]);
  free(found);
  free(p->late);
  free(p);
  md_symbols_free(&graphs);
  md_arena_destroy(scratch);
  return graph;
}

md_graph *md_parse_graph(const char *file, const char *text, size_t len, md_diags *d) {
  md_arena *a = md_arena_create();
  int num = 0;
  md_graph **graphs = md_parse_graphs(file, text, len, a, &num, d), *g = NULL;
  if (num == 1) {
    g = graphs[0];
  } else if (graphs) {
    md_error(d, E0120, MD_IN_FILE(file), "one graph is needed, but the text has %d", num);
    for (int i = 0; i < num; i++) md_graph_destroy(graphs[i]);
  }
  md_arena_destroy(a);
  return g;
}
