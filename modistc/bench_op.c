// SPDX-License-Identifier: Apache-2.0
// Benchmarks of single ops: one that --op describes, convolutions of R3D-50 at 8 x 224 x 224 (spec 16)
// alone and within their block, InfoNCE, the motion network. Each is a list of problems, so that each
// line can be measured again by --op.
#include "modistc/bench.h"

#include <string.h>

enum { MAX_OPS = 16 };

static const char *const words[] = {"forward", "dgrad", "wgrad", "both"};
static const char *const titles[] = {"forward", "data gradient", "weight gradient",
                                     "forward and backward"};

typedef struct Layer {
  const char *name, *sizes;
} Layer;
// Batch 2, f32; the padding is half the kernel.
static const Layer layers[] = {
    {"conv1", "n2c3t8h224w224o64k5x7x7s1x2x2"},    {"res2 a 1x1x1", "n2c256t8h56w56o64"},
    {"res2 b 1x3x3", "n2c64t8h56w56o64k1x3x3"},    {"res2 c 1x1x1", "n2c64t8h56w56o256"},
    {"res3 a 1x1x1", "n2c512t8h28w28o128"},        {"res3 b /2", "n2c128t8h56w56o128k1x3x3s1x2x2"},
    {"res3 b 1x3x3", "n2c128t8h28w28o128k1x3x3"},  {"res3 c 1x1x1", "n2c128t8h28w28o512"},
    {"res4 a 3x1x1", "n2c1024t8h14w14o256k3x1x1"}, {"res4 b 1x3x3", "n2c256t8h14w14o256k1x3x3"},
    {"res4 c 1x1x1", "n2c256t8h14w14o1024"},       {"res5 a 3x1x1", "n2c2048t8h7w7o512k3x1x1"},
    {"res5 b 1x3x3", "n2c512t8h7w7o512k1x3x3"},    {"res5 c 1x1x1", "n2c512t8h7w7o2048"}};
// Of the motion network, at 16 x 224 x 224.
static const Layer motion_layers[] = {{"motion res2 b 1x3x3", "n2c8t16h56w56o8k1x3x3"},
                                      {"motion res3 a 1x1x1", "n2c64t16h28w28o16"},
                                      {"motion res3 b 1x3x3", "n2c16t16h28w28o16k1x3x3"},
                                      {"motion res4 b 1x3x3", "n2c32t16h14w14o32k1x3x3"},
                                      {"motion res5 b 1x3x3", "n2c64t16h7w7o64k1x3x3"}};

// --- one problem, in one direction, with the values of the sweeps

typedef struct Job {
  const md_bench_op *op;
  md_problem problem;
  md_direction way;
} Job;

static md_graph *make(void *ctx, md_diags *d) {
  const Job *j = ctx;
  return j->op->make(&j->problem, j->way, d);
}

// "conv3d forward n=2 k=1,3,3 ...", as the peer's program takes it.
static void put_task(const Job *j, md_text *to) {
  md_put(to, "%s %s", j->problem.op->name, words[j->way]);
  for (int i = 0; i < MD_PROBLEM_KEYS && j->problem.op->key[i].letter; i++) {
    const md_problem_key *k = &j->problem.op->key[i];
    md_put(to, " %c=", k->letter);
    for (int x = 0; x < k->axes; x++)
      md_put(to, "%s%lld", x ? "," : "", (long long)j->problem.size[i][x]);
  }
}

// `title`: name of the line; NULL: the problem itself.
static bool measure(md_bench *b, const Job *job, const char *title) {
  md_text problem = {0}, args = {0}, task = {0};
  put_task(job, &task);
  md_problem_print(&job->problem, &problem);
  md_put(&args, "--op %s --direction=%s", problem.s, words[job->way]);
  if (b->unfused && !md_cli_has(b->cli, "baseline")) md_put(&args, " --baseline=unfused");
  md_bench_job m = {.what = title ? title
                                  : md_format(b->cli->arena, "%s %s", problem.s, words[job->way]),
                    .args = args.s,
                    .make = make,
                    .ctx = (void *)job,
                    .only = job->op->only,
                    .torch = task.s};
  bool ok = md_bench_measure(b, &m);
  md_text_free(&problem);
  md_text_free(&args);
  md_text_free(&task);
  return ok;
}

// Every combination of the sweeps.
static bool measure_swept(md_bench *b, Job job, const char *title) {
  md_bench_sweeps s;
  if (!md_bench_sweeps_read(b->cli, &s)) return false;
  do {
    const char *full = title;
    for (int i = 0; i < s.num; i++) {
      const char *key = s.sweep[i].key, *value = md_bench_sweeps_value(&s, i);
      if (!md_problem_set(&job.problem, "--sweep", key, value, b->cli->diags)) return false;
      if (title) full = md_format(b->cli->arena, "%s %s=%s", full, key, value);
    }
    if (!measure(b, &job, full)) return false;
  } while (md_bench_sweeps_next(&s));
  return true;
}

static bool parse(md_bench *b, const char *where, const char *text, Job *job) {
  const md_problem_op *ops[MAX_OPS] = {0};
  MD_ASSERT(md_num_bench_ops <= MAX_OPS, "more ops than expected");
  for (int i = 0; i < md_num_bench_ops; i++) ops[i] = &md_bench_ops[i].problem;
  if (!md_problem_parse(where, text, ops, md_num_bench_ops, &job->problem, b->cli->diags))
    return false;
  for (int i = 0; i < md_num_bench_ops; i++)
    if (ops[i] == job->problem.op) job->op = &md_bench_ops[i];
  return true;
}

// Ours to get right.
static Job job_of(md_bench *b, const char *op, const char *sizes, md_direction way) {
  Job job = {.way = way};
  bool ok = parse(b, op, md_format(b->cli->arena, "%s:%s", op, sizes), &job);
  MD_ASSERT(ok, "problem %s:%s", op, sizes);
  return job;
}

// --- subjects

// Which directions --direction asks for: one, all that the op has, or its preset.
static bool ways_of(md_bench *b, const md_bench_op *op, bool *want) {
  const char *text = md_cli_get(b->cli, "direction");
  static const char *const choices[] = {"forward", "dgrad", "wgrad", "both", "all", NULL};
  int choice = md_cli_choice(b->cli, "direction", choices, -2);
  if (choice == -1) return false;
  for (int i = 0; i < MD_NUM_DIRECTIONS; i++) want[i] = op->goes[i] && (choice == 4 || choice == i);
  if (choice == -2) want[op->preset] = true;
  if (choice < 0 || choice == 4 || op->goes[choice]) return true;
  md_text list = {0};
  for (int i = 0; i < MD_NUM_DIRECTIONS; i++)
    if (op->goes[i]) md_put(&list, "%s%s", list.len ? ", " : "", words[i]);
  md_error(b->cli->diags, E0401, MD_NOWHERE, "--direction=%s: %s has no such direction", text,
           op->problem.name);
  md_hint(b->cli->diags, "directions of %s: %s", op->problem.name, list.s);
  md_text_free(&list);
  return false;
}

bool md_bench_one_op(md_bench *b) {
  Job job = {0};
  bool want[MD_NUM_DIRECTIONS];
  if (!parse(b, "--op", md_cli_get(b->cli, "op"), &job) || !ways_of(b, job.op, want)) return false;
  for (int i = 0; i < MD_NUM_DIRECTIONS; i++) {
    job.way = (md_direction)i;
    if (want[i] && !measure_swept(b, job, NULL)) return false;
  }
  return true;
}

bool md_bench_convs(md_bench *b) {
  for (int i = 0; i < MD_COUNT(layers); i++) {
    for (md_direction way = MD_FORWARD; way <= MD_WGRAD; way++) {
      if (way == MD_DGRAD && i == 0) continue;  // nobody needs the gradient of the clip
      const char *title = md_format(b->cli->arena, "%s %s", layers[i].name, titles[way]);
      if (!measure_swept(b, job_of(b, "conv3d", layers[i].sizes, way), title)) return false;
    }
  }
  return true;
}

static bool measure_block(md_bench *b, const Layer *l) {
  const char *title = md_format(b->cli->arena, "%s + BN + ReLU, %s", l->name, titles[MD_BOTH]);
  return measure_swept(b, job_of(b, "bottleneck", l->sizes, MD_BOTH), title);
}

bool md_bench_fused(md_bench *b) {
  static const int some[] = {2, 4, 6, 9, 12};
  b->unfused = true;
  for (int i = 0; i < MD_COUNT(some); i++)
    if (!measure_block(b, &layers[some[i]])) return false;
  for (int i = 0; i < MD_COUNT(motion_layers); i++)
    if (!measure_block(b, &motion_layers[i])) return false;
  return true;
}

// The bank of the paper, at a large and at a small batch.
bool md_bench_infonce(md_bench *b) {
  static const char *const sizes[] = {"q64r65536d128", "q8r65536d128"};
  int num = md_cli_has(b->cli, "sweep") ? 1 : MD_COUNT(sizes);
  for (int i = 0; i < num; i++)
    if (!measure_swept(b, job_of(b, "infonce", sizes[i], MD_BOTH), NULL)) return false;
  return true;
}

bool md_bench_motion(md_bench *b) {
  return measure_swept(b, job_of(b, "motion", "n2t16h224w224", MD_BOTH), NULL);
}
