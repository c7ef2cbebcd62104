// SPDX-License-Identifier: Apache-2.0
// Sums over pixels, of each channel. Each block leaves those of its tiles as a part:
//
//   [group][column of tiles][part][sum][channel of the column]   of double
//
// Of FAN blocks the last to be done adds up their parts; so does, of those, the last again, and makes
// the results. What is added to what is fixed, whoever does it: sums do not depend on the order of blocks.
#include "codegen/cuda/conv.h"

enum { FAN = 32 };

// What is left of the parts after the first round; 0: it is the only one.
static int64_t rounds_of(int64_t parts) { return parts > FAN ? md_ceil_div(parts, FAN) : 0; }

static int64_t columns_of(const md_cu_finish *f, const md_cu_tile *t) {
  return md_ceil_div(f->shape->dim[1], t->n);
}

static int cells_of(const md_cu_finish *f, const md_cu_tile *t) { return f->num_sums * t->n; }

static int64_t parts_bytes(const md_cu_finish *f, const md_cu_tile *t) {
  int64_t rows = f->parts + rounds_of(f->parts);
  return f->groups * columns_of(f, t) * rows * cells_of(f, t) * 8;
}

static int64_t tickets_of(const md_cu_finish *f, const md_cu_tile *t) {
  return f->groups * columns_of(f, t) * (rounds_of(f->parts) + 1);
}

static void clear_tickets(md_cu_work *w, int64_t place, int64_t num) {
  md_cu_kernel k;
  md_cu_begin(&k, w, "tickets of blocks");
  k.is_early = true;
  const char *to = md_cu_workspace(&k, place, num * 4, "md_u32", true);
  md_cu_line(&k, NULL, "for (int e = md_thread(); e < %s; e += %d) %s[e] = 0;",
             md_cu_count(&k, "tickets", num), MD_CU_THREADS, to);
  md_cu_end(&k, 1);
}

void md_cu_sums_place(md_cu_work *w, md_cu_finish *f, const md_cu_tile *t, int64_t parts) {
  f->parts = parts;
  if (!f->num_sums) return;
  f->place = md_cu_reserve(w, parts_bytes(f, t));
  f->tickets = md_cu_reserve(w, tickets_of(f, t) * 4);
  clear_tickets(w, f->tickets, tickets_of(f, t));
  for (int i = 0; i < f->num_reduces; i++)
    for (int j = 0; j < f->reduce[i]->num_out; j++) md_cu_place(w, f->reduce[i]->out + (md_val)j);
}

// --- in the kernel

void md_cu_put_sums(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t) {
  if (f->num_sums)
    md_cu_line(k, NULL, "for (int e = md_thread(); e < %d; e += %d) sums[e] = 0.0;", cells_of(f, t),
               MD_CU_THREADS);
}

static md_cu_mark open_cells(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t) {
  return md_cu_open(k, NULL, "for (int e = md_thread(); e < %d; e += %d) {", cells_of(f, t),
                    MD_CU_THREADS);
}

// "if (the block is the last of `num`) {". What the block has left is in memory before, what the others
// have left is seen then. A thread asks for all; the sums' own place is free for the answer.
static md_cu_mark open_last(md_cu_kernel *k, const char *ticket, const char *num) {
  md_cu_line(k, NULL, "%s", k->sync);
  md_cu_line(k, NULL, "if (md_thread() == 0) *(int *)sums = md_last(%s, %s);", ticket, num);
  md_cu_line(k, NULL, "%s", k->sync);
  const char *last = md_format(k->w->arena, "last%d", k->num_value++);
  md_cu_line(k, NULL, "const int %s = *(int *)sums;", last);
  md_cu_line(k, NULL, "%s", k->sync);
  return md_cu_open(k, NULL, "if (%s) {", last);
}

// Rows first .. end - 1 of the parts, in order -> `to`.
static void put_row_sums(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t,
                         const char *first, const char *end, const char *to) {
  md_cu_mark m = open_cells(k, f, t);
  md_cu_line(k, NULL, "double sum = 0.0;");
  md_cu_line(k, NULL, "for (int j = %s; j < %s; j++) sum += parts[j * %d + e];", first, end,
             cells_of(f, t));
  md_cu_line(k, NULL, "%s = sum;", to);
  md_cu_close(k, m);
}

static const char *terms_of(md_cu_kernel *k, const md_cu_finish *f) {
  bool divides = false;
  for (int i = 0; i < f->num_reduces; i++) divides |= f->reduce[i]->op != MD_OP_sum;
  int64_t terms = md_elements(f->shape) / f->shape->dim[1] / f->groups;
  return divides ? md_format(k->w->arena, "(double)%s", md_cu_count(k, "terms", terms)) : "";
}

static void put_results(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t) {
  md_cu_nest n = {.shape = f->shape,
                  .channels = true,
                  .groups = f->groups,
                  .reduce = f->reduce,
                  .num_reduces = f->num_reduces};
  md_cu_line(k, NULL, "%s", k->sync);
  md_cu_mark m = md_cu_open(k, NULL, "if (md_thread() < %d && n0 + md_thread() < %lld) {", t->n,
                            (long long)f->shape->dim[1]);
  md_cu_line(k, NULL, "const int r = group * %lld + n0 + md_thread();",
             (long long)f->shape->dim[1]);
  for (int i = 0; i < f->num_sums; i++)
    md_cu_line(k, NULL, "const double s%d = sums[%d + md_thread()];", i, i * t->n);
  md_cu_put_results(k, &n, terms_of(k, f), "r");
  md_cu_close(k, m);
}

void md_cu_put_parts(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t,
                     const char *part) {
  if (!f->num_sums) return;
  md_arena *a = k->w->arena;
  bool rounds = rounds_of(f->parts) > 0;
  long long cells = cells_of(f, t);
  const char *all_parts = md_cu_count(k, "all_parts", f->parts);
  md_cu_workspace(k, f->place, parts_bytes(f, t), "double", false);
  const char *all = md_cu_workspace(k, f->place, parts_bytes(f, t), "double", true);
  md_cu_workspace(k, f->tickets, tickets_of(f, t) * 4, "md_u32", false);
  const char *tickets = md_cu_workspace(k, f->tickets, tickets_of(f, t) * 4, "md_u32", true);
  md_cu_line(k, NULL, "const int one = %s;", part);
  md_cu_line(k, "of tiles", "const int column = group * %lld + n0 / %d;",
             (long long)columns_of(f, t), t->n);
  if (rounds) md_cu_line(k, NULL, "const int rounds = (%s + %d) / %d;", all_parts, FAN - 1, FAN);
  md_cu_line(k, NULL, "double *const parts = %s + column * (%s) * %lld;", all,
             rounds ? md_format(a, "%s + rounds", all_parts) : all_parts, cells);
  md_cu_mark m = open_cells(k, f, t);
  md_cu_line(k, NULL, "parts[one * %lld + e] = sums[e];", cells);
  md_cu_close(k, m);
  const char *ticket = md_format(a, rounds ? "%s + column * (rounds + 1)" : "%s + column", tickets);
  md_cu_mark last = {0};
  if (rounds) {
    md_cu_line(k, NULL, "const int first = one / %d * %d;", FAN, FAN);
    md_cu_line(k, NULL, "const int end = first + %d < %s ? first + %d : %s;", FAN, all_parts, FAN,
               all_parts);
    last = open_last(k, md_format(a, "%s + one / %d", ticket, FAN), "end - first");
    put_row_sums(k, f, t, "first", "end",
                 md_format(a, "parts[(%s + one / %d) * %lld + e]", all_parts, FAN, cells));
  }
  md_cu_mark all_done = rounds ? open_last(k, md_format(a, "%s + rounds", ticket), "rounds")
                               : open_last(k, ticket, all_parts);
  put_row_sums(k, f, t, rounds ? all_parts : "0",
               rounds ? md_format(a, "%s + rounds", all_parts) : all_parts, "sums[e]");
  put_results(k, f, t);
  md_cu_close(k, all_done);
  if (rounds) md_cu_close(k, last);
}
