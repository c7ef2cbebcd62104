// SPDX-License-Identifier: Apache-2.0
// What is measured, as text: the problem of one op (--op), and lists of values (--sweep).
//   problem = OP ":" (KEY size)...                conv3d:n2c64t8h56w56o64k1x3x3
//   size    = number ("x" number)*                one for each axis, or one for all
//   sweep   = KEY "=" item ("," item)*            n=1,4..64*2
//   item    = value | first ".." last [("+" | "*") step]
#ifndef MODISTC_BENCH_SPEC_H
#define MODISTC_BENCH_SPEC_H

#include "base/diag.h"

enum { MD_PROBLEM_KEYS = 10, MD_PROBLEM_AXES = 3, MD_PROBLEM_MOST = 1 << 24 };

// In place of a preset: the size must be given; or the op derives it where it is not.
enum { MD_SIZE_NEEDED = -1, MD_SIZE_DERIVED = -2 };
typedef struct md_problem_key {
  char letter;
  int axes;
  int64_t preset;  // of every axis
  int64_t least;
  const char *doc;
} md_problem_key;
typedef struct md_problem_op {
  const char *name, *example;
  md_problem_key key[MD_PROBLEM_KEYS];  // ended by {0}
} md_problem_op;
typedef struct md_problem {
  const md_problem_op *op;
  int64_t size[MD_PROBLEM_KEYS][MD_PROBLEM_AXES];
} md_problem;

// `where` names the text in messages: "--op". False: reported.
bool md_problem_parse(const char *where, const char *text, const md_problem_op *const *ops,
                      int num_ops, md_problem *p, md_diags *d);
// Gives one key the size that `text` says.
bool md_problem_set(md_problem *p, const char *where, const char *key, const char *text,
                    md_diags *d);
const int64_t *md_problem_size(const md_problem *p, char letter);  // [axes]
void md_problem_print(const md_problem *p, md_text *to);           // what was preset is left out

typedef struct md_sweep {
  const char *key;
  const char **value;
  int num;
} md_sweep;
enum { MD_SWEEP_VALUES = 64 };
bool md_sweep_parse(const char *where, const char *text, md_arena *a, md_sweep *s, md_diags *d);

#endif
