// SPDX-License-Identifier: Apache-2.0
// Diagnostics: what a user did wrong, where, and the next step.
//
//   k400.yaml:14:3: error[E0203]: unknown key 'optim.momentum_coef'
//      14 |   momentum_coef: 0.999
//         |   ^~~~~~~~~~~~~
//      hint: did you mean 'optim.momentum'?
#ifndef BASE_DIAG_H
#define BASE_DIAG_H

#include "base/base.h"

// Every code is one row of codes.def: number, status it leads to, title, explanation.
typedef enum md_code {
  MD_NO_CODE,
#define CODE(id, status, title, text) id,
#include "base/codes.def"
#undef CODE
  MD_NUM_CODES
} md_code;
typedef struct md_code_row {
  const char *name;
  md_status status;
  const char *title, *text;
} md_code_row;
extern const md_code_row md_codes[MD_NUM_CODES];

// A place in a text or file. line 0: the whole file. file NULL: no place at all.
typedef struct md_place {
  const char *file;
  int line, col, len;
} md_place;
#define MD_NOWHERE ((md_place){0})
#define MD_IN_FILE(path) ((md_place){.file = (path)})

typedef struct md_diags md_diags;
md_diags *md_diags_create(void);
void md_diags_destroy(md_diags *d);
// The text behind `file`, for carets. Copied.
void md_diags_source(md_diags *d, const char *file, const char *text, size_t len);

// After MD_MAX_ERRORS errors the rest is only counted. `d` may be NULL: then nothing is recorded.
enum { MD_MAX_ERRORS = 20 };
// Always returns false, so that a check can end in `return md_error(...)`.
bool md_error(md_diags *d, md_code code, md_place at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void md_warning(md_diags *d, md_place at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
// Both belong to the error or warning before them.
void md_note(md_diags *d, md_place at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void md_hint(md_diags *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// An error that another process has printed already: it counts, and has no text here.
bool md_told(md_diags *d, md_status status);

int md_diags_errors(const md_diags *d);
int md_diags_warnings(const md_diags *d);
md_status md_diags_status(const md_diags *d);  // of the first error; MD_OK without one
md_code md_diags_code(const md_diags *d);      // the same; MD_NO_CODE
const char *md_diags_text(const md_diags *d);  // all of it, as printed, without colour
// The first line of it, without place and code: to be a part of another message.
void md_diags_reason(const md_diags *d, char *to, size_t size);
void md_diags_print(const md_diags *d, FILE *to, bool color);
bool md_likes_color(int fd);  // a terminal, and nobody said otherwise: NO_COLOR, CLICOLOR_FORCE
void md_diags_clear(md_diags *d);

#endif
