// SPDX-License-Identifier: Apache-2.0
// A place in a kernel's text. The text is our own: a statement a line, blanks around every operator that
// has two operands, names that are not declared again with another meaning.
#include "tests/simt/expression.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_NAMES = 256 };

// --- the expression around an operator

static bool is_assignment(const char *s) {
  return *s == '=' && s[1] != '=' && !strchr("=!<>", s[-1]);
}

static bool ends(const char *s) { return strchr(";,?:{}\n", *s) != NULL || is_assignment(s); }

Span expression_around(const char *text, int64_t at) {
  Span e = {at, at};
  for (int depth = 0; e.from > 0; e.from--) {
    const char *s = &text[e.from - 1];
    depth += strchr(")]", *s) ? 1 : strchr("([", *s) ? -1 : 0;
    if (depth < 0 || (depth == 0 && ends(s))) break;
  }
  for (int depth = 0; text[e.to]; e.to++) {
    depth += strchr("([", text[e.to]) ? 1 : strchr(")]", text[e.to]) ? -1 : 0;
    if (depth < 0 || (depth == 0 && ends(&text[e.to]))) break;
  }
  while (text[e.from] == ' ') e.from++;
  if (!strncmp(text + e.from, "return ", 7)) e.from += 7;
  return e;
}

// --- what it depends on

typedef struct Names {
  const char *kernel, *end;  // the text of the kernel that the expression is of
  char seen[MOST_NAMES][32];
  int num;
} Names;

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

// Of indices: types, what the prelude says of the thread, a part's block, and a window of shared memory.
static bool is_known(const char *name) {
  static const char *const known[] = {
      "md_thread", "md_block", "block",  "md_lane",  "md_warp", "md_lanes", "md_sync",
      "int",       "const",    "md_i64", "md_u32",   "md_u64",  "md_u8",    "md_bf16",
      "float",     "double",   "char",   "unsigned", "shared",  "for",      "if"};
  for (int i = 0; i < MD_COUNT(known); i++)
    if (!strcmp(name, known[i])) return true;
  return false;
}

static bool is_seen(Names *n, const char *name) {
  for (int i = 0; i < n->num; i++)
    if (!strcmp(n->seen[i], name)) return true;
  if (n->num < MOST_NAMES) snprintf(n->seen[n->num++], sizeof n->seen[0], "%s", name);
  return false;
}

static bool is_of_indices(Names *n, const char *from, const char *to);

// Where what is assigned ends: the last part of a for does at its bracket.
static const char *value_end(const char *s) {
  for (int depth = 0; *s && !strchr(";\n", *s); s++) {
    depth += *s == '(' ? 1 : *s == ')' ? -1 : 0;
    if (depth < 0) break;
  }
  return s;
}

// All that is ever assigned to the name. What is read through it is data where it is a pointer.
static bool is_made_of_indices(Names *n, const char *name, bool subscripted) {
  size_t len = strlen(name);
  int found = 0;
  if (is_known(name) || is_seen(n, name)) return true;
  for (const char *s = n->kernel; (s = strstr(s, name)) && s < n->end; s += len) {
    if (is_word(s[-1]) || is_word(s[len]) || s[-1] == '.') continue;
    const char *value = s + len;
    while (*value == '[') value += strcspn(value, "]") + 1;
    if (!strncmp(value, "++", 2)) continue;
    value += strspn(value, " +-*/");
    if (!is_assignment(value)) continue;
    const char *end = value_end(value);
    bool is_pointer = s > n->kernel + 8 && (s[-1] == '*' || !strncmp(s - 7, "*const ", 7));
    if ((is_pointer && subscripted) || !is_of_indices(n, value + 1, end)) return false;
    found++;
  }
  return found > 0;
}

static bool is_of_indices(Names *n, const char *from, const char *to) {
  for (const char *s = from; s < to;) {
    if (!is_word(*s)) {
      if (*s == '.') return false;  // a member, or a number that is no integer
      s++;
      continue;
    }
    const char *end = s;
    while (is_word(*end)) end++;
    char name[32];
    snprintf(name, sizeof name, "%.*s", (int)(end - s), s);
    if (!isdigit((unsigned char)*s) && !is_made_of_indices(n, name, *end == '[')) return false;
    s = end;
  }
  return true;
}

static bool begins_kernel(const char *s) {
  return !strncmp(s, "MD_KERNEL(", 10) || !strncmp(s, "MD_PART ", 8);
}

static Names names_of_kernel(const char *text, int64_t at) {
  Names n = {.kernel = text + at};
  while (n.kernel > text && !begins_kernel(n.kernel)) n.kernel--;
  n.end = strstr(text + at, "\n}\n");
  if (!n.end) n.end = text + strlen(text);
  return n;
}

bool expression_is_index(const char *text, Span e) {
  Names n = names_of_kernel(text, e.from);
  return is_of_indices(&n, text + e.from, text + e.to);
}

// --- whether it is reached

static const char *line_of(const char *text, const char *s) {
  while (s > text && s[-1] != '\n') s--;
  return s;
}

// What stands in parentheses on a line, and behind them.
static bool is_line_of_indices(const Names *kernel, const char *line, const char *end) {
  const char *open = memchr(line, '(', (size_t)(end - line));
  Names n = *kernel;
  return !open || is_of_indices(&n, open, end);
}

// No line in front of it leaves a loop or the kernel for the sake of data.
static bool is_left_by_indices(const Names *n, const char *at) {
  static const char *const leaves[] = {"break;", "continue;", "return;"};
  for (int i = 0; i < MD_COUNT(leaves); i++)
    for (const char *s = n->kernel; (s = strstr(s, leaves[i])) && s < at; s++)
      if (!is_line_of_indices(n, line_of(n->kernel, s), s)) return false;
  return true;
}

// Of the lines that are further left only those that begin a block: an else belongs to the if above it.
bool expression_is_reached_by_indices(const char *text, int64_t at) {
  Names n = names_of_kernel(text, at);
  const char *line = line_of(text, text + at), *from = text + expression_around(text, at).from;
  if (memchr(line, '?', (size_t)(text + at - line))) return false;
  size_t depth = strspn(line, " ");
  if ((!strncmp(line + depth, "if (", 4) && !is_line_of_indices(&n, line, from)) ||
      !is_left_by_indices(&n, text + at))
    return false;
  while (depth > 2 && line > n.kernel) {
    line = line_of(text, line - 1);
    size_t d = strspn(line, " ");
    bool is_else = !strncmp(line + d, "else", 4);
    if (d >= depth || line[d] == '\n' || line[d] == '}') continue;
    if (!is_line_of_indices(&n, line, line + strcspn(line, "\n"))) return false;
    depth = is_else ? d + 1 : d;
  }
  return true;
}

// The end of the block that a line is in: the first line behind it that is further left.
static const char *block_end(const char *line) {
  size_t depth = strspn(line, " ");
  const char *s = line + strcspn(line, "\n");
  while (*s && (s[1] == '\n' || strspn(s + 1, " ") >= depth)) s += 1 + strcspn(s + 1, "\n");
  return s;
}

bool expression_is_unread(const char *text, int64_t at) {
  const char *line = line_of(text, text + at);
  const char *first = line + strspn(line, " "), *name = strstr(first, " = ");
  if (strncmp(first, "const ", 6) != 0 || !name || name > text + at) return false;
  const char *end = name, *block = block_end(line);
  while (is_word(name[-1])) name--;
  size_t len = (size_t)(end - name);
  for (const char *s = end; s < block; s++)
    if (!strncmp(s, name, len) && !is_word(s[-1]) && !is_word(s[len])) return false;
  return true;
}

// --- clamps

static bool begins_with(const char *s, const char *what, size_t len) {
  if (!strncmp(s, "(int)", 5)) s += 5;
  if (!strncmp(s, what, len) && !is_word(s[len])) return true;
  char *end, *other;
  double x = strtod(s, &end), y = strtod(what, &other);
  return end > s && other == what + len && x == y;
}

bool expression_is_clamp(const char *text, int64_t at) {
  Span e = expression_around(text, at);
  const char *a = text + e.from, *b = strchr(text + at + 1, ' ') + 1, *to = text + e.to;
  size_t a_len = (size_t)(at - e.from), b_len = (size_t)(to - b);
  if (*to != '?' || to <= b) return false;
  while (b_len && b[b_len - 1] == ' ') b_len--;
  const char *then = to + 2, *otherwise = strstr(then, " : ");
  if (!otherwise) return false;
  otherwise += 3;
  return (begins_with(then, a, a_len) && begins_with(otherwise, b, b_len)) ||
         (begins_with(then, b, b_len) && begins_with(otherwise, a, a_len));
}
