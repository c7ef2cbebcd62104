// SPDX-License-Identifier: Apache-2.0
// What reading and printing of graph text share: tokens, symbols, types and attributes. Internal to
// lex.c, symbols.c, attrs.c, parse.c and print.c.
#ifndef GRAPH_READ_H
#define GRAPH_READ_H

#include "graph/graph.h"

// --- symbols.c: names to values, in the order they came. The characters are borrowed.

typedef struct md_symbol {
  const char *s;
  int len;
  md_val val;
} md_symbol;
typedef struct md_symbols {
  md_symbol *item;
  int num, cap;
  int *slot, num_slots;  // open addressing; 1 + index of an item, 0: free
} md_symbols;
md_symbol *md_symbols_find(const md_symbols *n, const char *s, int len);  // NULL: not there
void md_symbols_add(md_symbols *n, const char *s, int len, md_val val);   // not there yet
const char *md_symbols_nearest(const md_symbols *n, const char *s, int len, md_arena *a);
void md_symbols_free(md_symbols *n);

// --- lex.c: text to tokens

typedef enum md_tok_kind {
  MD_TOK_END,
  MD_TOK_WORD,
  MD_TOK_NUMBER,
  MD_TOK_VALUE /* %name */,
  MD_TOK_AT /* @name */,
  MD_TOK_PUNCT,
  MD_TOK_BAD
} md_tok_kind;
typedef struct md_token {
  md_tok_kind kind;
  const char *s;  // as written, with % or @
  int len, line, col;
  bool starts_line;
} md_token;

enum { MD_MAX_TEXT = 64 << 20 };  // bytes of a text

typedef struct md_reader {
  const char *file, *pos, *end, *line_start;
  int line;
  md_token tok, last;  // the next token, and the one taken before it
  int braces;          // '{' taken and not closed
  int errors;
  md_arena *scratch;
  md_diags *diags;
} md_reader;

// Diagnostics learn the text. False when it is too long.
bool md_reader_init(md_reader *r, const char *file, const char *text, size_t len, md_arena *scratch,
                    md_diags *d);
md_token md_take(md_reader *r);
md_place md_token_place(const md_reader *r, const md_token *t);
// From `first` to `last`; `first` alone where they are on different lines.
md_place md_span(const md_reader *r, const md_token *first, const md_token *last);
char *md_token_text(const md_reader *r, const md_token *t);  // without % or @
bool md_is_punct(const md_reader *r, char c);
bool md_is_word(const md_reader *r, const char *word);
bool md_accept(md_reader *r, char c);
bool md_expect(md_reader *r, char c);  // false: reported
// "expected WHAT, found ...", at the next token. Returns false.
bool md_unexpected_start(md_reader *r, const char *what);
// The same inside of a line: at a line break the mistake is behind the last token.
bool md_unexpected(md_reader *r, const char *what);
bool md_read_error(md_reader *r, md_code code, const md_token *at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

// --- attrs.c: types and attributes

bool md_read_int(md_reader *r, const char *what, int64_t *out);
bool md_read_type(md_reader *r, md_type *t);  // f32[2,3].c8
// "{...}" of `op`; names go to `keep`. place[i]: where attribute i of the row stands; may be NULL.
bool md_read_attrs(md_reader *r, md_op op, md_arena *keep, md_attr *attr, md_place *place);

#endif
