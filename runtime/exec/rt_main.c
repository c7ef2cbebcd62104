// SPDX-License-Identifier: Apache-2.0
// modist_rt: runs an artefact where there is no compiler.
#include "runtime/exec/rt_report.h"

#include "base/file.h"

#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "Runs a compiled program (.mdx).\n"
    "Usage: modist_rt FILE.mdx [options]\n"
    "  --steps=N             steps to run (default 1)\n"
    "  --device=NAME         cpu or cuda:N (default: what the file is for; cuda:0 is the first "
    "GPU)\n"
    "  --threads=N           threads of the CPU (default: one for each core)\n"
    "  --seed=N              seed of initial states and random inputs (default 0)\n"
    "  --input=NAME=F.npy    an input from a file; NAME=NUMBER fills it (@ in front: a file of\n"
    "                        any name). Others are random, the same in every step: floats in\n"
    "                        [-1, 1), bytes in 0..255, other integers 0 or 1\n"
    "  --output=NAME=F.npy   writes a result or state to a file after the last step\n"
    "  --memory-limit=BYTES  refuse to run with more (1400M, 1.4G)\n"
    "  --expect=NAME=F.npy[,TOLERANCE]\n"
    "                        after the last step a result or state must be what the file says,\n"
    "                        but for TOLERANCE (default 0) times its largest value; integers "
    "exactly\n"
    "  --engine=NAME         modist (default), cudnn: NVIDIA's cuDNN, where it is installed, does "
    "the\n"
    "                        convolutions that it can, with what is fused with them; or fastest:\n"
    "                        those that it does faster, as records of tuning tell; what they "
    "do\n"
    "                        not tell is tried when the file is loaded, and kept\n"
    "  --deterministic       the same bits in every run: nothing that is measured has a say\n"
    "  --json                results, times and memory as JSON\n"
    "  --check-nan           stop at the first region that makes a NaN or an infinity; of a GPU "
    "all\n"
    "                        that regions write is copied to the host, which takes seconds a step\n"
    "  --times               time of each region\n"
    "  --trace=FILE          spans for ui.perfetto.dev\n"
    "  --tune=FILE.jsonl     measure other ways to make convolutions, of a file with trials, and "
    "write\n"
    "                        what was found; 'modistc cache import' takes it. With "
    "--engine=fastest\n"
    "                        cuDNN, too\n"
    "  --budget=SECONDS      of --tune, about (default 600)\n"
    "  --tuned=FILE.jsonl    of a file with trials: a step with the best ways that the file names\n"
    "  --rates               of a GPU, without a file: how fast it copies, what a mark takes\n"
    "  --inspect             describe the file as JSON; load no code\n"
    "  --check               prove the file whole and sound, for whatever machine; load no code\n"
    "  --version, -h, --help\n"
    "Exit codes: 0 ok, 1 failure, 2 usage, 3 not as expected, 4 wrong machine, 5 bad file, 6 "
    "memory,\n"
    "7 NaN, 75 --tune was stopped by a signal, and what it had measured is kept.\n";

typedef struct binding {
  const char *name, *value;
  double tolerance;  // of --expect
} binding;

typedef struct request {
  const char *artefact, *trace, *tune, *tuned;
  int64_t steps, budget;
  md_exec_options exec;
  bool wants_times, wants_json, wants_inspect, wants_check, wants_rates, steps_given;
  binding *input, *output, *expect;
  int num_input, cap_input, num_output, cap_output, num_expect, cap_expect;
} request;

enum {
  STEPS = 256,
  DEVICE,
  ENGINE,
  DETERMINISTIC,
  THREADS,
  SEED,
  INPUT,
  OUTPUT,
  EXPECT,
  JSON,
  LIMIT,
  CHECK_NAN,
  TIMES,
  TRACE,
  TUNE,
  TUNED,
  RATES,
  BUDGET,
  INSPECT,
  CHECK,
  VERSION
};
// clang-format off
static const struct option options[] = {
  {"steps", required_argument, NULL, STEPS},       {"threads", required_argument, NULL, THREADS},
  {"seed", required_argument, NULL, SEED},         {"input", required_argument, NULL, INPUT},
  {"output", required_argument, NULL, OUTPUT},     {"memory-limit", required_argument, NULL, LIMIT},
  {"check-nan", no_argument, NULL, CHECK_NAN},     {"times", no_argument, NULL, TIMES},
  {"trace", required_argument, NULL, TRACE},       {"inspect", no_argument, NULL, INSPECT},
  {"check", no_argument, NULL, CHECK},             {"version", no_argument, NULL, VERSION},
  {"device", required_argument, NULL, DEVICE},     {"help", no_argument, NULL, 'h'},
  {"expect", required_argument, NULL, EXPECT},     {"json", no_argument, NULL, JSON},
  {"engine", required_argument, NULL, ENGINE},     {"deterministic", no_argument, NULL, DETERMINISTIC},
  {"tune", required_argument, NULL, TUNE},         {"budget", required_argument, NULL, BUDGET},
  {"tuned", required_argument, NULL, TUNED},       {"rates", no_argument, NULL, RATES},
  {0},
};
// clang-format on

static bool misused(md_diags *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool misused(md_diags *d, const char *fmt, ...) {
  char text[512], shown[512];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  md_error(d, E0401, MD_NOWHERE, "%s", md_clean(text, shown, sizeof shown));
  md_hint(d, "modist_rt --help");
  return false;
}

static bool parse_number(const char *text, int64_t least, int64_t most, int64_t *out, md_diags *d) {
  return (md_parse_int(text, out) && *out >= least && *out <= most) ||
         misused(d, "'%s' is not a number in range", text);
}

// "NAME=VALUE"; the text stays with argv.
static bool parse_binding(char *text, binding *b, md_diags *d) {
  char *equals = strchr(text, '=');
  if (!equals || equals == text || !equals[1]) return misused(d, "'%s' is not NAME=VALUE", text);
  *equals = '\0';
  *b = (binding){text, equals + 1, 0};
  return true;
}

// The file that a binding names: @FILE or FILE.npy; NULL: it names none.
static const char *file_of(const binding *b) {
  size_t len = strlen(b->value);
  if (b->value[0] == '@') return b->value + 1;
  return len > 4 && !strcmp(b->value + len - 4, ".npy") ? b->value : NULL;
}

// "NAME=FILE.npy" or "NAME=FILE.npy,0.01".
static bool parse_expectation(char *text, binding *b, md_diags *d) {
  if (!parse_binding(text, b, d)) return false;
  char *comma = strrchr(b->value, ',');
  if (comma) {
    if (!md_parse_float(comma + 1, &b->tolerance) || !(b->tolerance >= 0))
      return misused(d, "'%s' is not a tolerance: a number from 0 on", comma + 1);
    *comma = '\0';
  }
  return file_of(b) || misused(d, "'%s' must be a file: NAME=FILE.npy[,TOLERANCE]", b->value);
}

static bool parse_option(request *r, int option, char *arg, md_diags *d) {
  int64_t n;
  int index;
  binding b = {"", "", 0};
  switch (option) {
  case DEVICE: r->exec.device = arg; return md_device_parse(arg, &index, d);
  case ENGINE:
    for (int i = 0; i < MD_NUM_ENGINES; i++)
      if (!strcmp(arg, md_conv_engine_names[i])) return r->exec.engine = (md_conv_engine)i, true;
    return misused(d, "--engine: there is no engine '%s'; it is modist, cudnn or fastest", arg);
  case DETERMINISTIC: return r->exec.deterministic = true;
  case STEPS: r->steps_given = true; return parse_number(arg, 1, INT32_MAX, &r->steps, d);
  case THREADS:
    if (!parse_number(arg, 1, 1024, &n, d)) return false;
    r->exec.threads = (int)n;
    return true;
  case SEED:
    if (!parse_number(arg, 0, INT64_MAX, &n, d)) return false;
    r->exec.seed = (uint64_t)n;
    return true;
  case LIMIT:
    return md_parse_bytes(arg, &r->exec.memory_limit) ||
           misused(d, "'%s' is no number of bytes such as 1400M or 1.4G", arg);
  case INPUT:
    if (!parse_binding(arg, &b, d)) return false;
    MD_PUSH(r->input, r->num_input, r->cap_input, b);
    return true;
  case OUTPUT:
    if (!parse_binding(arg, &b, d)) return false;
    if (!file_of(&b)) return misused(d, "'%s' must be a file: NAME=FILE.npy", b.value);
    MD_PUSH(r->output, r->num_output, r->cap_output, b);
    return true;
  case EXPECT:
    if (!parse_expectation(arg, &b, d)) return false;
    MD_PUSH(r->expect, r->num_expect, r->cap_expect, b);
    return true;
  case JSON: r->wants_json = true; return true;
  case TRACE: r->trace = arg; return true;
  case TUNE: r->tune = arg; return true;
  case TUNED: r->tuned = arg; return true;
  case RATES: r->wants_rates = true; return true;
  case BUDGET: return parse_number(arg, 1, INT32_MAX, &r->budget, d);
  case CHECK_NAN: r->exec.check_nan = true; return true;
  case TIMES: r->wants_times = r->exec.time = true; return true;
  case INSPECT: r->wants_inspect = true; return true;
  case CHECK: r->wants_check = true; return true;
  default: return false;
  }
}

static bool parse_line(request *r, int argc, char **argv, md_diags *d) {
  bool is_beside_rates = false;
  opterr = 0;
  for (int c; (c = getopt_long(argc, argv, ":h", options, NULL)) != -1;) {
    if (c == ':') return misused(d, "option '%s' needs a value", argv[optind - 1]);
    if (c == '?') return misused(d, "option '%s' is not known", argv[optind - 1]);
    if (c == 'h' || c == VERSION) {
      fputs(c == 'h' ? usage : "modist_rt " MODIST_VERSION "\n", stdout);
      exit(EXIT_SUCCESS);
    }
    if (!parse_option(r, c, optarg, d)) return false;
    is_beside_rates |= c != RATES && c != DEVICE && c != JSON;
  }
  if (r->wants_rates && is_beside_rates)
    return misused(d, "--rates takes --device and --json only");
  bool is_other = r->steps_given || r->wants_json || r->wants_times || r->wants_check ||
                  r->wants_inspect || r->trace || r->num_output || r->num_expect || r->tuned ||
                  r->exec.check_nan || r->exec.threads || r->exec.memory_limit ||
                  r->exec.deterministic;
  if (r->tune && (is_other || r->exec.engine == MD_ENGINE_CUDNN))
    return misused(d, "--tune takes --device, --seed, --input, --budget and --engine=fastest only");
  if (!md_conv_engine_suits(r->exec.engine, r->exec.deterministic, d)) return false;
  if (r->budget && !r->tune) return misused(d, "--budget is of --tune");
  if (!r->budget) r->budget = MD_TUNE_SECONDS;
  if (r->tuned && (r->wants_times || r->trace || r->exec.check_nan || r->exec.engine))
    return misused(d, "--tuned is of whole steps: without --times, --trace, --check-nan and cuDNN");
  if (r->wants_rates && optind < argc) return misused(d, "--rates takes no artefact");
  if (r->wants_rates) return true;
  if (optind == argc) return misused(d, "no artefact is given");
  if (optind + 1 < argc)
    return misused(d, "one artefact at a time; '%s' is too much", argv[optind + 1]);
  r->artefact = argv[optind];
  return true;
}

static const binding *find_binding(const binding *b, int num, const char *name) {
  for (int i = 0; i < num; i++)
    if (!strcmp(b[i].name, name)) return &b[i];
  return NULL;
}

static bool unknown(md_exec *e, const char *name, const md_spec *s, int num, md_diags *d) {
  const char **names = md_calloc((size_t)num + 1, sizeof *names);
  for (int i = 0; i < num; i++) names[i] = s[i].name;
  const char *near = md_nearest(name, names, num);
  free(names);
  char shown[256];
  md_error(d, E0401, MD_NOWHERE, "program '%s' has no '%s'", md_exec_program(e)->name,
           md_clean(name, shown, sizeof shown));
  if (near) md_hint(d, "did you mean '%s'?", near);
  return false;
}

static bool set_inputs(md_exec *e, const request *r, md_diags *d) {
  const md_program *p = md_exec_program(e);
  for (int i = 0; i < r->num_input; i++) {
    const binding *b = &r->input[i];
    const md_spec *s;
    double x;
    void *at = md_exec_input(e, b->name, &s);
    if (!at) return unknown(e, b->name, p->input, p->num_inputs, d);
    if (file_of(b)) {
      if (!md_npy_read(file_of(b), s, at, d)) return false;
    } else if (md_parse_float(b->value, &x)) {
      for (int64_t k = 0; k < md_spec_elements(s); k++) md_element_store(s->dtype, at, k, x);
    } else {
      return misused(d, "'%s' is neither a number nor FILE.npy", b->value);
    }
  }
  return true;
}

// What was not given is drawn once: a step is timed, not the drawing.
static void draw_inputs(md_exec *e, const request *r) {
  const md_program *p = md_exec_program(e);
  for (int i = 0; i < p->num_inputs; i++) {
    const md_spec *s = &p->input[i];
    if (find_binding(r->input, r->num_input, s->name)) continue;
    md_fill_input(s->name, s->dtype, md_spec_elements(s), r->exec.seed,
                  md_exec_input(e, s->name, NULL));
  }
}

static bool has_value(md_exec *e, const char *name, md_diags *d) {
  const md_program *p = md_exec_program(e);
  for (int i = 0; i < p->num_results; i++)
    if (!strcmp(p->result[i].name, name)) return true;
  return md_program_state(p, name) || unknown(e, name, p->result, p->num_results, d);
}

// Before anything runs: a slip in the last name must not cost the steps, or leave the first file.
static bool check_outputs(md_exec *e, const request *r, md_diags *d) {
  for (int i = 0; i < r->num_output; i++)
    if (!has_value(e, r->output[i].name, d) || !md_file_may_create(file_of(&r->output[i]), d))
      return false;
  for (int i = 0; i < r->num_expect; i++)
    if (!has_value(e, r->expect[i].name, d)) return false;
  return !r->trace || md_file_may_create(r->trace, d);
}

// A result or state as it is after the last step; NULL: reported.
static const void *find_value(md_exec *e, const char *name, const md_spec **s, md_diags *d) {
  *s = NULL;
  const void *at = md_exec_result(e, name, s);
  if (!*s) at = md_exec_view_state(e, name, s);
  if (!at) rt_unread(e, name, d);
  return at;
}

static bool write_outputs(md_exec *e, const request *r, md_diags *d) {
  for (int i = 0; i < r->num_output; i++) {
    const md_spec *s;
    const void *at = find_value(e, r->output[i].name, &s, d);
    if (!at || !md_npy_write(file_of(&r->output[i]), s, at, d)) return false;
  }
  return true;
}

// All are compared: which ones are wrong says where to look.
static bool meets_expectations(md_exec *e, const request *r, md_diags *d) {
  bool ok = true;
  for (int i = 0; i < r->num_expect; i++) {
    const binding *b = &r->expect[i];
    const md_spec *s;
    const void *at = find_value(e, b->name, &s, d);
    ok &= at && md_npy_expect(file_of(b), s, at, b->tolerance, d);
  }
  if (ok && r->num_expect && !r->wants_json) printf("%d values are as expected\n", r->num_expect);
  return ok;
}

// As in training, the inputs of the next step are sent while this one runs.
static bool run_step(md_exec *e, bool is_last, md_diags *d) {
  return md_exec_start(e, d) && (is_last || md_exec_send(e, d)) && md_exec_finish(e, d);
}

static bool run_steps(md_exec *e, const request *r, int taken, md_diags *d) {
  int64_t *ns = md_calloc((size_t)r->steps, sizeof *ns);
  bool ok = true;
  for (int64_t i = 0; i < r->steps && ok; i++) {
    int64_t start = md_now_ns();
    ok = run_step(e, i + 1 == r->steps, d);
    ns[i] = md_now_ns() - start;
  }
  if (ok) {
    rt_steps took = rt_summarise(ns, r->steps);
    took.taken = taken;
    ok = (r->wants_json ? rt_print_json : rt_print)(e, took, r->wants_times, d);
  }
  free(ns);
  return ok && write_outputs(e, r, d) && meets_expectations(e, r, d);
}

static bool set_all_inputs(void *ctx, md_exec *e, md_diags *d) {
  const request *r = ctx;
  const md_program *p = md_exec_program(e);
  for (int i = 0; i < p->num_inputs; i++)
    md_tune_input(&p->input[i], r->exec.seed, md_exec_input(e, p->input[i].name, NULL));
  return set_inputs(e, r, d);
}

static void tune(request *r, md_diags *d) {
  md_program *p = md_program_load(r->artefact, d);
  md_tune_options o = {.exec = r->exec,
                       .seconds = (double)r->budget,
                       .rounds = MD_TUNE_ROUNDS,
                       .set_inputs = set_all_inputs,
                       .ctx = r};
  if (p) rt_tune(p, &o, r->tune, d);
  md_program_destroy(p);
}

// Of the trials that a program has, those that records name. *order: of the step; the caller's to free. False:
// reported.
static bool take_ways(md_exec *e, const char *path, int **order, int *taken, md_diags *d) {
  const md_program *p = md_exec_program(e);
  const md_gpu_variant *v = md_exec_variant(e);
  if (!v || !v->num_trials)
    return md_error(d, E0448, MD_NOWHERE, "program '%s' has no trials for %s", p->name,
                    md_exec_device(e));
  md_records *known = md_records_create();
  int num;
  bool ok = md_records_read(known, path, d);
  if (ok) {
    *order = md_take_best(p, v, known, md_exec_gpu(e), &num, taken);
    md_exec_set_step(e, *order, num);
  }
  md_records_destroy(known);
  return ok;
}

static void run(const request *r, md_diags *d) {
  md_program *p = md_program_load(r->artefact, d);
  md_exec *e = p ? md_exec_create(p, &r->exec, d) : NULL;
  md_trace *t = r->trace ? md_trace_create() : NULL;
  int *order = NULL, taken = -1;
  if (e && t) md_exec_set_trace(e, t);
  if (e && (!r->tuned || take_ways(e, r->tuned, &order, &taken, d)) && set_inputs(e, r, d) &&
      check_outputs(e, r, d)) {
    draw_inputs(e, r);
    run_steps(e, r, taken, d);
    if (t) md_trace_save(t, r->trace, d);  // also of a step that failed
  }
  md_exec_destroy(e);
  free(order);
  md_trace_destroy(t);
  md_program_destroy(p);
}

static void inspect(const request *r, md_diags *d) {
  md_json j = {.compact = false};
  if (md_artefact_inspect(r->artefact, &j, d)) puts(j.out.s);
  md_text_free(&j.out);
}

// Everything but whether this machine can run it.
static void check(const request *r, md_diags *d) {
  md_program *p = md_artefact_check(r->artefact, d);
  if (!p) return;
  printf("%s is sound: %s, %d launches\n", p->name, p->target, p->num_launches);
  for (int i = 0; i < p->num_variants; i++) {
    const md_gpu_variant *v = &p->variant[i];
    char text[MD_FLOAT_CHARS];
    printf("  %-20s %5d launches of %d kernels, workspace %s\n", v->target, v->num_launches,
           v->num_kernels, md_bytes_text((double)v->workspace_bytes, text));
  }
  md_program_destroy(p);
}

int main(int argc, char **argv) {
  md_diags *d = md_diags_create();
  request r = {.steps = 1};
  if (parse_line(&r, argc, argv, d)) {
    if (r.wants_inspect) inspect(&r, d);
    else if (r.wants_check) check(&r, d);
    else if (r.wants_rates) rt_rates(r.exec.device, r.wants_json, d);
    else if (r.tune) tune(&r, d);
    else run(&r, d);
  }
  if (fflush(stdout) || ferror(stdout))
    md_error(d, E0801, MD_NOWHERE, "standard output cannot be written");
  md_diags_print(d, stderr, md_likes_color(STDERR_FILENO));
  int status = (int)md_diags_status(d);
  free(r.input);
  free(r.output);
  free(r.expect);
  md_diags_destroy(d);
  return status;
}
