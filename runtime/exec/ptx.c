// SPDX-License-Identifier: Apache-2.0
// Kernels of PTX text, as far as a launch must know them: target, names, parameters, most threads.
//
//   .target sm_80
//   .visible .entry k1f(
//   	.param .u64 k1f_param_0,
//   	.param .u64 k1f_param_1
//   )
//   .maxntid 256, 1, 1
#include "runtime/exec/cubin.h"

#include <string.h>

typedef struct line {
  const char *s;
  size_t len;
} line;

// The next line without the blanks around it; false: there is none.
static bool next_line(const char **at, const char *end, line *l) {
  if (*at == end) return false;
  const char *stop = memchr(*at, '\n', (size_t)(end - *at));
  if (!stop) stop = end;
  const char *s = *at, *e = stop;
  while (s < e && (*s == ' ' || *s == '\t')) s++;
  while (e > s && (e[-1] == ' ' || e[-1] == '\t' || e[-1] == '\r')) e--;
  *l = (line){s, (size_t)(e - s)};
  *at = stop < end ? stop + 1 : end;
  return true;
}

static bool begins(line *l, const char *word) {
  size_t len = strlen(word);
  if (l->len < len || memcmp(l->s, word, len) != 0) return false;
  l->s += len;
  l->len -= len;
  return true;
}

// The number at the start of the line, at most 6 digits; -1: there is none.
static int take_number(line *l) {
  int x = 0, digits = 0;
  while (digits < 6 && l->len && *l->s >= '0' && *l->s <= '9') {
    x = 10 * x + (*l->s++ - '0');
    l->len--;
    digits++;
  }
  return digits ? x : -1;
}

static bool begin_kernel(md_kernel_facts *k, line l) {
  size_t len = 0;
  while (len < l.len && l.s[len] != '(' && l.s[len] != ' ') len++;
  if (len == 0 || len >= sizeof k->name) return false;
  *k = (md_kernel_facts){.registers = 0};
  memcpy(k->name, l.s, len);
  return true;
}

int md_ptx_read(const char *text, size_t bytes, md_kernel_facts *k, int max, int *sm,
                const char **why) {
  const char *at = text, *end = text + bytes;
  int num = 0;
  bool in_params = false;
  *sm = 0;
  *why = NULL;
  if (memchr(text, 0, bytes)) *why = "it is no text";
  for (line l; !*why && next_line(&at, end, &l);) {
    if (begins(&l, ".target sm_")) {
      *sm = take_number(&l);
    } else if (begins(&l, ".visible .entry ")) {
      if (num == max || !begin_kernel(&k[num], l)) *why = "it has a kernel without a name";
      else num++;
      in_params = true;
    } else if (in_params && begins(&l, ".param .u64 ")) {
      k[num - 1].param_bytes += 8;
    } else if (in_params && l.len == 1 && *l.s == ')') {
      in_params = false;
    } else if (num && begins(&l, ".maxntid ")) {
      k[num - 1].max_threads = take_number(&l);
    }
  }
  if (!*why && *sm <= 0) *why = "it names no target";
  return *why ? -1 : num;
}
