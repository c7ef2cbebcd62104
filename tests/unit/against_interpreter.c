// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/against_interpreter.h"

#include "tests/tolerance.h"

md_graph *parse(const char *text) {
  md_diags *d = md_diags_create();
  md_graph *g = md_parse_graph("test.mdg", text, strlen(text), d);
  ck_assert_msg(g != NULL, "%s\n%s", md_diags_text(d), text);
  md_diags_destroy(d);
  return g;
}

md_program *compiled(const char *text, const Setup *s, const md_cpu_options *options) {
  md_diags *d = md_diags_create();
  md_cpu_options here = {.cpu = s->cpu, .no_cache = true};
  if (!options) options = &here;
  const md_cpu *cpu = md_cpu_find(options->cpu, !options->no_code, d);
  ck_assert_msg(cpu != NULL, "%s", md_diags_text(d));
  md_pass_options o = md_pass_defaults();
  o.level = s->level;
  o.passes = s->passes;
  o.verify_each = true;
  o.facts = md_cpu_facts(cpu);
  md_graph *g = md_run_passes(parse(text), &o, NULL, d);
  ck_assert_msg(g != NULL, "%s\n%s", md_diags_text(d), text);
  md_program *p = md_cpu_compile(g, options, NULL, d);
  ck_assert_msg(p != NULL && md_program_check(p, d), "%s\n%s", md_diags_text(d), text);
  md_graph_destroy(g);
  md_diags_destroy(d);
  return p;
}

// Multiples of 1/64 of size 1/4 .. 7/4: exact in every float type. Integers are -3 .. 7: rows outside
// of tables, labels outside of classes, the empty id -2 among them. A learning rate is small.
void fill(md_tensor *t, const char *name, int seed) {
  uint64_t key = md_hash_key(name, (uint64_t)seed);
  int64_t n = md_elements(&t->type.shape);
  bool is_rate = !strcmp(name, "lr");
  for (int64_t i = 0; i < n; i++) {
    uint64_t h = md_hash_at(key, (uint64_t)i);
    if (is_rate) t->f[i] = 0x1p-6;
    else if (t->f) t->f[i] = (double)(16 + h % 97) / 64 * (h >> 40 & 1 ? -1 : 1);
    else if (t->type.dtype == MD_BOOL) t->i[i] = (int64_t)(h & 1);
    else if (t->type.dtype == MD_U8) t->i[i] = (int64_t)(h & 255);
    else t->i[i] = (int64_t)(h % 11) - 3;
  }
}

static double root_mean_square(const md_tensor *t) {
  int64_t n = md_elements(&t->type.shape), num = 0;
  double sum = 0;
  for (int64_t i = 0; i < n; i++) {
    if (!isfinite(t->f[i])) continue;
    sum += t->f[i] * t->f[i];
    num++;
  }
  return num ? sqrt(sum / (double)num) : 0;
}

void compare(const char *what, const md_tensor *want, const void *memory, const Setup *s,
             const char *text) {
  md_tensor *got = md_tensor_create(want->type);
  md_tensor_read(got, memory);
  int64_t n = md_elements(&want->type.shape);
  double rms = want->f ? root_mean_square(want) : 0;
  // What is bf16 anywhere may be on the way to a result of f32.
  md_dtype rounded = strstr(text, "bf16") ? MD_BF16 : want->type.dtype;
  for (int64_t i = 0; i < n; i++) {
    // Check writes a message for each assertion, so that one for each element would take most of the time.
    if (want->i) {
      if (got->i[i] == want->i[i]) continue;
      ck_abort_msg("%s[%lld]: %lld, not %lld (%s, level %d)\n%.2000s", what, (long long)i,
                   (long long)got->i[i], (long long)want->i[i], s->cpu ? s->cpu : "native",
                   s->level, text);
    }
    double a = got->f[i], b = want->f[i];
    double allowed = 0;
    if (s->length) allowed = md_tolerance(rounded, MD_MAX(s->length, 4), fabs(b) + rms + 0.25);
    if (isnan(b) ? isnan(a) : a == b || fabs(a - b) <= allowed) continue;
    ck_abort_msg("%s[%lld]: %.9g, not %.9g (allowed %.2g; %s, level %d)\n%.2000s", what,
                 (long long)i, a, b, allowed, s->cpu ? s->cpu : "native", s->level, text);
  }
  md_tensor_destroy(got);
}

md_exec *executor(const md_program *p, int threads) {
  md_diags *d = md_diags_create();
  md_exec *e = md_exec_create(p, &(md_exec_options){.threads = threads, .seed = 7}, d);
  ck_assert_msg(e != NULL, "%s", md_diags_text(d));
  md_diags_destroy(d);
  return e;
}

static void step(md_exec *const e[2], md_diags *d) {
  for (int i = 0; i < 2; i++) ck_assert_msg(md_exec_step(e[i], d), "%s", md_diags_text(d));
}

// Inputs, and states before the first step.
static void feed(const md_program *p, md_interp *in, md_exec *const e[2], int at, const Setup *s) {
  for (int i = 0; i < p->num_inputs; i++) {
    md_tensor *t = md_interp_input(in, p->input[i].name);
    fill(t, p->input[i].name, at);
    for (int k = 0; k < 2; k++) md_tensor_write(t, md_exec_input(e[k], p->input[i].name, NULL));
  }
  for (int i = 0; at == 0 && i < p->num_states; i++) {
    md_tensor *t = md_interp_state(in, p->state[i].name);
    if (s->from_rules) {
      md_tensor_read(t, md_exec_state(e[0], p->state[i].name, NULL));
      continue;
    }
    fill(t, p->state[i].name, 99);
    for (int k = 0; k < 2; k++) md_tensor_write(t, md_exec_state(e[k], p->state[i].name, NULL));
  }
}

CpuName cpu_name(const Setup *s, const char *cpu) {
  CpuName name;
  bool direct = !s->length && !strchr(cpu, ',');
  snprintf(name.s, sizeof name.s, "%s%s", cpu, direct ? ",-winograd" : "");
  return name;
}

void check_text(const char *text, const Setup *setup) {
  if (is_elsewhere()) {
    check_elsewhere(text, setup);
    return;
  }
  CpuName cpu = cpu_name(setup, setup->cpu ? setup->cpu : "native");
  Setup on = *setup, *s = &on;
  on.cpu = cpu.s;
  md_graph *plain = parse(text);
  md_program *p = compiled(text, s, NULL);
  md_diags *d = md_diags_create();
  md_exec *const e[2] = {executor(p, 1), executor(p, 2)};
  md_interp *in = md_interp_create(plain, !s->length);
  for (int at = 0; at < MD_MAX(s->steps, 1); at++) {
    feed(p, in, e, at, s);
    ck_assert_msg(md_interp_step(in, d), "%s", md_diags_text(d));
    step(e, d);
    for (int i = 0; i < plain->num_results; i++) {
      const char *name = p->result[i].name;
      const void *one = md_exec_result(e[0], name, NULL), *two = md_exec_result(e[1], name, NULL);
      ck_assert_msg(!memcmp(one, two, (size_t)p->result[i].bytes),
                    "%s depends on the number of threads\n%s", name, text);
      compare(name, md_interp_value(in, plain->result[i].val), one, s, text);
    }
    for (int i = 0; i < p->num_states; i++) {
      const char *name = p->state[i].name;
      const void *one = md_exec_state(e[0], name, NULL), *two = md_exec_state(e[1], name, NULL);
      ck_assert_msg(!memcmp(one, two, (size_t)p->state[i].bytes),
                    "%s depends on the number of threads\n%s", name, text);
      compare(name, md_interp_state(in, name), one, s, text);
    }
  }
  md_interp_destroy(in);
  md_exec_destroy(e[0]);
  md_exec_destroy(e[1]);
  md_program_destroy(p);
  md_graph_destroy(plain);
  md_diags_destroy(d);
}

void check_targets(const char *text, const Setup *s) {
  Setup on = *s;
  for (int i = 0; i < md_cpu_count(); i++) {
    if (!md_cpu_runs_here(md_cpu_at(i)) && !is_elsewhere()) continue;
    on.cpu = md_cpu_at(i)->name;
    check_text(text, &on);
    if (is_elsewhere()) break;
  }
}

void check_everywhere(const char *text, int64_t length, int steps) {
  check_targets(text, &(Setup){.level = 2, .steps = steps, .length = length});
  for (int level = 0; level < 2 && !is_elsewhere(); level++)
    check_text(text, &(Setup){.level = level, .steps = steps, .length = length});
}
