// SPDX-License-Identifier: Apache-2.0
// Every file of tests/errors holds a graph text with mistakes and, behind it, all that the user is
// told, as comments:
//   // EXPECT: name.mdg:3:8: error[E0301]: no op 'rleu'
// The whole text is compared. `test_errors --update` writes what is told today into the files; read
// the difference before you commit it.
#include "base/file.h"
#include "graph/graph.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

static const char mark[] = "// EXPECT:";

// Length of the text before the first expectation.
static size_t input_length(const char *s, size_t len) {
  for (const char *line = s; line; line = strchr(line, '\n')) {
    line += *line == '\n';
    if (!strncmp(line, mark, sizeof mark - 1)) return (size_t)(line - s);
  }
  return len;
}

// What the user is told about the text. "RUN ONE" in it: exactly one graph is wanted.
static void tell(const char *name, const char *text, size_t len, md_text *told) {
  md_diags *d = md_diags_create();
  md_arena *a = md_arena_create();
  int num;
  bool one = memmem(text, len, "RUN ONE", 7), accepted;
  if (one) {
    md_graph *g = md_parse_graph(name, text, len, d);
    accepted = g;
    md_graph_destroy(g);
  } else {
    md_graph **g = md_parse_graphs(name, text, len, a, &num, d);
    accepted = g;
    for (int i = 0; g && i < num; i++) md_graph_destroy(g[i]);
  }
  if (accepted) md_put(told, "%s ACCEPTED\n", mark);
  if (accepted != (md_diags_errors(d) == 0)) md_put(told, "%s ACCEPTED WITH ERRORS\n", mark);
  for (const char *s = md_diags_text(d); *s;) {
    size_t line = strcspn(s, "\n");
    md_put(told, "%s%s%.*s\n", mark, line ? " " : "", (int)line, s);
    s += line + (s[line] == '\n');
  }
  md_arena_destroy(a);
  md_diags_destroy(d);
}

static bool check_file(const char *folder, const char *name, bool update, md_text *all) {
  char *s;
  size_t len;
  md_diags *d = md_diags_create();
  md_arena *a = md_arena_create();
  const char *path = md_format(a, "%s/%s", folder, name);
  if (!md_file_read(path, 1 << 20, E0101, d, &s, &len)) {
    fputs(md_diags_text(d), stderr);
    exit(1);
  }
  size_t input = input_length(s, len);
  md_text told = {0};
  tell(name, s, input, &told);
  md_put(all, "%s", told.s);
  bool same = told.len == len - input && !memcmp(told.s, s + input, told.len);
  if (!same && update) {
    md_text both = {0};
    md_put_bytes(&both, s, input);
    md_put_bytes(&both, told.s, told.len);
    if (!md_file_save(path, both.s, both.len, d)) fputs(md_diags_text(d), stderr);
    md_text_free(&both);
  } else if (!same) {
    fprintf(stderr, "%s: told was\n%s\nnot what the file expects:\n%s\n", name, told.s, s + input);
  }
  md_text_free(&told);
  md_arena_destroy(a);
  md_diags_destroy(d);
  free(s);
  return same || update;
}

static int is_case(const struct dirent *e) {
  size_t len = strlen(e->d_name);
  return len > 4 && !strcmp(e->d_name + len - 4, ".mdg");
}

// Every code of graph text is shown by a file.
static bool check_codes(const md_text *all) {
  bool ok = true;
  for (int c = MD_NO_CODE + 1; c < MD_NUM_CODES; c++) {
    if (strncmp(md_codes[c].name, "E01", 3) || strstr(all->s, md_codes[c].name)) continue;
    fprintf(stderr, "no file shows %s, %s\n", md_codes[c].name, md_codes[c].title);
    ok = false;
  }
  return ok;
}

int main(int argc, char **argv) {
  bool update = argc > 1 && !strcmp(argv[1], "--update");
  const char *source = getenv("MODIST_SOURCE");
  md_arena *a = md_arena_create();
  const char *folder = md_format(a, "%s/tests/errors", source ? source : ".");
  struct dirent **entry;
  int num = scandir(folder, &entry, is_case, alphasort), failed = 0;
  md_text all = {0};
  for (int i = 0; i < num; i++) {
    failed += !check_file(folder, entry[i]->d_name, update, &all);
    free(entry[i]);
  }
  if (num > 0) free(entry);
  printf("%d files, %d differ\n", num, failed);
  bool ok = num > 0 && !failed && check_codes(&all);
  md_text_free(&all);
  md_arena_destroy(a);
  return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
