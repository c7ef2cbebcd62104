// SPDX-License-Identifier: Apache-2.0
// A kernel that stands for several, side by side in one grid:
//
//   blocks  0 .. 23    24 .. 39    40 ..
//           p1 twice   p2 once     ...
//
// Two that take long take turns instead, so that a device works on both at any time.
//
// Launches of one kernel share its text: a block finds out whose pointers it takes. Where a block goes
// depends on its number alone, so barriers within are met by all of its threads. Launches that have
// other blocks at another batch are told their number, too.
#include "codegen/cuda/gen.h"

#include <string.h>

typedef struct Joint {
  const md_cuda_module *m;
  const md_cuda_launch *part;
  int num;
  md_cuda_arg *arg;  // of all parts, each once
  const char **param;
  int num_args;
  int **at;        // [part][its argument]: number among them
  int64_t *count;  // of all parts, and more
  int num_counts, *first_count;
  md_text code, before;
} Joint;

static bool same_kind(const md_cuda_launch *a, const md_cuda_launch *b) {
  return a->number == b->number && a->blocks == b->blocks;
}

bool md_cu_same_arg(const md_cuda_arg *a, const md_cuda_arg *b) {
  return a->val == b->val && (a->val != MD_NONE || a->workspace == b->workspace);
}

static bool same_pointer(const md_cuda_arg *a, const md_cuda_arg *b) {
  return md_cu_same_arg(a, b) && a->windows == b->windows;
}

// "const float *": whether others write there is not known.
static const char *pointer_type(const Joint *j, const char *param) {
  return md_strndup(j->m->arena, param, (size_t)(strchr(param, '*') + 1 - param));
}

static void collect_args(Joint *j) {
  md_arena *a = j->m->arena;
  int most = 0;
  for (int p = 0; p < j->num; p++) most += j->part[p].num_args;
  j->arg = MD_NEW_ARRAY(a, md_cuda_arg, most + 1);
  j->param = MD_NEW_ARRAY(a, const char *, most + 1);
  j->at = MD_NEW_ARRAY(a, int *, j->num);
  for (int p = 0; p < j->num; p++) {
    const md_cuda_launch *l = &j->part[p];
    j->at[p] = MD_NEW_ARRAY(a, int, l->num_args + 1);
    for (int i = 0; i < l->num_args; i++) {
      int k = 0;
      while (k < j->num_args && !same_pointer(&j->arg[k], &l->arg[i])) k++;
      j->at[p][i] = k;
      if (k == j->num_args) {
        j->param[j->num_args] = pointer_type(j, j->m->kernel[l->number].param[i]);
        j->arg[j->num_args++] = l->arg[i];
      }
    }
  }
}

// No two are one: equal counts of two parts may differ at another batch.
static void collect_counts(Joint *j) {
  md_arena *a = j->m->arena;
  int num = 0;
  for (int p = 0; p < j->num; p++) num += j->part[p].num_counts + 1;
  j->count = MD_NEW_ARRAY(a, int64_t, num);
  j->first_count = MD_NEW_ARRAY(a, int, j->num);
  for (int p = 0; p < j->num; p++) {
    j->first_count[p] = j->num_counts;
    for (int i = 0; i < j->part[p].num_counts; i++) j->count[j->num_counts++] = j->part[p].count[i];
  }
}

static bool differs(const Joint *j, const int *of, int num, int i) {
  for (int p = 1; p < num; p++)
    if (j->at[of[p]][i] != j->at[of[0]][i]) return true;
  return false;
}

// xI, yI: the pointers and counts of the launch that the block belongs to. `blocks`: of each.
static void put_choice(Joint *j, const int *of, int num, const char *blocks) {
  const md_cuda_launch *l = &j->part[of[0]];
  for (int i = 0; i < l->num_args; i++)
    md_put(&j->code, "    %sx%d = a%d;\n", j->param[j->at[of[0]][i]], i, j->at[of[0]][i]);
  for (int i = 0; i < l->num_counts; i++)
    md_put(&j->code, "    md_i64 y%d = count%d;\n", i, j->first_count[of[0]] + i);
  if (num == 1) return;
  md_put(&j->code, "    switch (block / %s) {\n", blocks);
  for (int p = 1; p < num; p++) {
    md_put(&j->code, "    case %d:", p);
    for (int i = 0; i < l->num_args; i++)
      if (differs(j, of, num, i)) md_put(&j->code, " x%d = a%d;", i, j->at[of[p]][i]);
    for (int i = 0; i < l->num_counts; i++)
      md_put(&j->code, " y%d = count%d;", i, j->first_count[of[p]] + i);
    md_put(&j->code, " break;\n");
  }
  md_put(&j->code, "    }\n");
}

static void put_call(Joint *j, const md_cuda_launch *l, const char *block) {
  md_put(&j->code, "    p%s(%s", j->m->kernel[l->number].symbol + 1, block);
  for (int i = 0; i < l->num_args; i++) md_put(&j->code, ", x%d", i);
  for (int i = 0; i < l->num_counts; i++) md_put(&j->code, ", y%d", i);
  md_put(&j->code, ");\n");
}

// How many it has, as text.
static const char *blocks_of(Joint *j, const md_cuda_launch *l) {
  if (!l->is_told) return md_format(j->m->arena, "%lld", (long long)l->blocks);
  j->count[j->num_counts++] = l->blocks;
  return md_format(j->m->arena, "(int)count%d", j->num_counts - 1);
}

static bool takes_turns(const Joint *j) {
  return j->num == 2 && j->part[1].is_beside && j->part[0].region != j->part[1].region &&
         j->part[0].number != j->part[1].number;
}

static void put_turns(Joint *j) {
  const char *even = blocks_of(j, &j->part[0]), *odd = blocks_of(j, &j->part[1]);
  md_put(&j->code, "  const int even = %s, odd = %s, both = even < odd ? even : odd;\n", even, odd);
  md_put(&j->code, "  const int in_turn = md_block() < 2 * both;\n"
                   "  const int block = in_turn ? md_block() / 2 : md_block() - both;\n"
                   "  if (in_turn ? md_block() %% 2 == 0 : even > odd) {\n");
  for (int p = 0; p < 2; p++) {
    md_cu_put_function(&j->m->kernel[j->part[p].number], false, &j->before);
    put_choice(j, &p, 1, "");
    put_call(j, &j->part[p], "block");
    md_put(&j->code, p ? "  }\n" : "    return;\n  }\n  {\n");
  }
}

static void put_kind(Joint *j, const int *of, int num, bool is_last) {
  const md_cuda_launch *l = &j->part[of[0]];
  const char *blocks = md_format(j->m->arena, "%lld", (long long)l->blocks), *all = blocks;
  if (l->is_told && (num > 1 || !is_last)) {
    blocks = all = md_format(j->m->arena, "(int)count%d", j->num_counts);
    j->count[j->num_counts++] = l->blocks;
    if (num > 1) all = md_format(j->m->arena, "%s * %d", blocks, num);
  } else if (num > 1) {
    all = md_format(j->m->arena, "%lld", (long long)l->blocks * num);
  }
  md_put(&j->code, is_last ? "  {\n" : "  if (block < %s) {\n", all);
  put_choice(j, of, num, blocks);
  put_call(j, l, num == 1 ? "block" : md_format(j->m->arena, "block %% %s", blocks));
  md_put(&j->code, "%s  }\n", is_last ? "" : "    return;\n");
  if (!is_last) md_put(&j->code, "  block -= %s;\n", all);
}

// Parts of one kind together, in the order in which kinds come; their parts as functions, each once.
static void put_kinds(Joint *j) {
  md_arena *a = j->m->arena;
  bool *done = MD_NEW_ARRAY(a, bool, j->num), *written = MD_NEW_ARRAY(a, bool, j->m->num_kernels);
  int *of = MD_NEW_ARRAY(a, int, j->num), left = j->num;
  md_put(&j->code, "  int block = md_block();\n");
  for (int p = 0; p < j->num; p++) {
    if (done[p]) continue;
    int num = 0, number = j->part[p].number;
    for (int q = p; q < j->num; q++) {
      if (done[q] || !same_kind(&j->part[p], &j->part[q])) continue;
      done[q] = true;
      of[num++] = q;
    }
    if (!written[number]) md_cu_put_function(&j->m->kernel[number], false, &j->before);
    written[number] = true;
    put_kind(j, of, num, (left -= num) == 0);
  }
}

md_cuda_kernel md_cu_joint(const md_cuda_module *m, const md_cuda_launch *part, int num,
                           md_cuda_launch *l) {
  Joint j = {.m = m, .part = part, .num = num};
  collect_args(&j);
  collect_counts(&j);
  if (takes_turns(&j)) put_turns(&j);
  else put_kinds(&j);
  md_cuda_kernel k = md_cu_kernel_of(j.before.s, part[0].threads, j.num_args, j.param, j.num_counts,
                                     j.code.s, m->arena);
  k.listing = k.code;
  k.title = md_format(m->arena, "%d launches side by side\n", num);
  md_text_free(&j.code);
  md_text_free(&j.before);
  *l = (md_cuda_launch){.threads = part[0].threads,
                        .region = part[0].region,
                        .num_args = j.num_args,
                        .arg = j.arg,
                        .num_counts = j.num_counts,
                        .count = j.count,
                        .num_parts = num,
                        .part = MD_NEW_ARRAY(m->arena, md_cuda_launch, num)};
  memcpy(l->part, part, sizeof *part * (size_t)num);
  for (int p = 0; p < num; p++) {
    l->blocks += part[p].blocks;
    l->shared_bytes = MD_MAX(l->shared_bytes, part[p].shared_bytes);
  }
  return k;
}
