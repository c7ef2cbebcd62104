// SPDX-License-Identifier: Apache-2.0
// modist_rt: runs an artefact where there is no compiler.
#include "runtime/exec/exec.h"

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
    "                        any name). Others are random: floats in [-1, 1), bytes in 0..255,\n"
    "                        other integers 0 or 1\n"
    "  --output=NAME=F.npy   writes a result or state to a file after the last step\n"
    "  --memory-limit=BYTES  refuse to run with more (1400M, 1.4G)\n"
    "  --check-nan           stop at the first region that makes a NaN or an infinity\n"
    "  --times               time of each region\n"
    "  --trace=FILE          spans for ui.perfetto.dev\n"
    "  --inspect             describe the file as JSON; load no code\n"
    "  --check               prove the file whole and sound, for whatever machine; load no code\n"
    "  --version, -h, --help\n"
    "Exit codes: 0 ok, 1 failure, 2 usage, 4 wrong machine, 5 bad file, 6 memory, 7 NaN.\n";

typedef struct binding {
  const char *name, *value;
} binding;

typedef struct request {
  const char *artefact, *trace;
  int64_t steps;
  md_exec_options exec;
  bool wants_times, wants_inspect, wants_check;
  binding *input, *output;
  int num_input, cap_input, num_output, cap_output;
} request;

enum {
  STEPS = 256,
  DEVICE,
  THREADS,
  SEED,
  INPUT,
  OUTPUT,
  LIMIT,
  CHECK_NAN,
  TIMES,
  TRACE,
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
  *b = (binding){text, equals + 1};
  return true;
}

// The file that a binding names: @FILE or FILE.npy; NULL: it names none.
static const char *file_of(const binding *b) {
  size_t len = strlen(b->value);
  if (b->value[0] == '@') return b->value + 1;
  return len > 4 && !strcmp(b->value + len - 4, ".npy") ? b->value : NULL;
}

static bool parse_option(request *r, int option, char *arg, md_diags *d) {
  int64_t n;
  int index;
  binding b = {"", ""};
  switch (option) {
  case DEVICE: r->exec.device = arg; return md_device_parse(arg, &index, d);
  case STEPS: return parse_number(arg, 1, INT32_MAX, &r->steps, d);
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
  case TRACE: r->trace = arg; return true;
  case CHECK_NAN: r->exec.check_nan = true; return true;
  case TIMES: r->wants_times = r->exec.time = true; return true;
  case INSPECT: r->wants_inspect = true; return true;
  case CHECK: r->wants_check = true; return true;
  default: return false;
  }
}

static bool parse_line(request *r, int argc, char **argv, md_diags *d) {
  opterr = 0;
  for (int c; (c = getopt_long(argc, argv, ":h", options, NULL)) != -1;) {
    if (c == ':') return misused(d, "option '%s' needs a value", argv[optind - 1]);
    if (c == '?') return misused(d, "option '%s' is not known", argv[optind - 1]);
    if (c == 'h' || c == VERSION) {
      fputs(c == 'h' ? usage : "modist_rt " MODIST_VERSION "\n", stdout);
      exit(EXIT_SUCCESS);
    }
    if (!parse_option(r, c, optarg, d)) return false;
  }
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
  const char **names = calloc((size_t)num + 1, sizeof *names);
  if (!names) md_out_of_memory((size_t)num * sizeof *names);
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

// What was not given is new in each step.
static void draw_inputs(md_exec *e, const request *r, int64_t step) {
  const md_program *p = md_exec_program(e);
  for (int i = 0; i < p->num_inputs; i++) {
    const md_spec *s = &p->input[i];
    if (find_binding(r->input, r->num_input, s->name)) continue;
    md_fill_input(s->name, s->dtype, md_spec_elements(s), r->exec.seed + (uint64_t)step,
                  md_exec_input(e, s->name, NULL));
  }
}

// Says why there is no copy of a result or state in the host's memory. False.
static bool unread(md_exec *e, const char *name, md_diags *d) {
  return md_exec_is_alive(e, d) &&
         md_error(d, E0802, MD_NOWHERE, "no memory for a copy of '%s'", name);
}

static bool print_results(md_exec *e, md_diags *d) {
  const md_program *p = md_exec_program(e);
  for (int i = 0; i < p->num_results; i++) {
    const md_spec *s = &p->result[i];
    const void *at = md_exec_result(e, s->name, NULL);
    if (!at) return unread(e, s->name, d);
    int64_t n = md_spec_elements(s);
    char type[MD_SPEC_CHARS], digest[33];
    printf("%s %s", s->name, md_spec_text(s, type));
    if (n == 1) {
      printf(" = %.9g", md_element_load(s->dtype, at, 0));
    } else {
      double sum = 0, low = NAN, high = NAN;  // of the numbers: fmin and fmax pass over NaN
      int64_t num_nan = 0;
      for (int64_t k = 0; k < n; k++) {
        double x = md_element_load(s->dtype, at, k);
        sum += x;
        low = fmin(low, x);
        high = fmax(high, x);
        num_nan += isnan(x) != 0;
      }
      printf(" mean %.6g min %.6g max %.6g", sum / (double)n, low, high);
      if (num_nan) printf(" (%" PRId64 " of %" PRId64 " are NaN)", num_nan, n);
    }
    printf(" xxh3 %s\n", md_digest_text(md_digest_of(at, (size_t)s->bytes), digest));
  }
  return true;
}

static bool write_outputs(md_exec *e, const request *r, md_diags *d) {
  const md_program *p = md_exec_program(e);
  for (int i = 0; i < r->num_output; i++) {
    const md_spec *s = NULL;
    const void *at = md_exec_result(e, r->output[i].name, &s);
    if (!s) at = md_exec_view_state(e, r->output[i].name, &s);
    if (!s) return unknown(e, r->output[i].name, p->result, p->num_results, d);
    if (!at) return unread(e, r->output[i].name, d);
    if (!md_npy_write(file_of(&r->output[i]), s, at, d)) return false;
  }
  return true;
}

static int compare_ns(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static void print_steps(int64_t *ns, int64_t n) {
  int64_t middle = n / 2;
  qsort(ns, (size_t)n, sizeof *ns, compare_ns);
  printf("%" PRId64 " steps: median %.3f ms, min %.3f, max %.3f\n", n, (double)ns[middle] / 1e6,
         (double)ns[0] / 1e6, (double)ns[n - 1] / 1e6);
}

static void print_memory(const md_exec *e) {
  char plan[MD_FLOAT_CHARS], grown[MD_FLOAT_CHARS];
  printf("memory %s planned on %s, %s more resident than before\n",
         md_bytes_text((double)md_exec_bytes(e), plan), md_exec_device(e),
         md_bytes_text((double)md_exec_grown(e), grown));
}

static void print_times(md_exec *e) {
  const md_program *p = md_exec_program(e);
  const md_launch_time *t = md_exec_times(e);
  int first, num = md_exec_launches(e, &first);
  int64_t total = 0;
  for (int i = first; i < first + num; i++) total += t[i].total_ns;
  printf("%10s %10s %6s %9s %8s  %s\n", "mean us", "min us", "share", "GFLOP/s", "GB/s", "region");
  for (int i = first; i < first + num; i++) {
    double mean = (double)t[i].total_ns / (double)MD_MAX(t[i].calls, 1),
           least = (double)MD_MAX(t[i].min_ns, 1);
    printf("%10.1f %10.1f %5.1f%% %9.1f %8.1f  %s\n", mean / 1e3, least / 1e3,
           100 * (double)t[i].total_ns / (double)MD_MAX(total, 1), p->launch[i].flops / least,
           p->launch[i].bytes / least, p->launch[i].name);
  }
}

static bool run_steps(md_exec *e, const request *r, md_diags *d) {
  int64_t *ns = calloc((size_t)r->steps, sizeof *ns);
  if (!ns) md_out_of_memory((size_t)r->steps * sizeof *ns);
  bool ok = true;
  for (int64_t i = 0; i < r->steps && ok; i++) {
    draw_inputs(e, r, i);
    int64_t start = md_now_ns();
    ok = md_exec_step(e, d);
    ns[i] = md_now_ns() - start;
  }
  ok = ok && print_results(e, d);
  if (ok) {
    print_steps(ns, r->steps);
    print_memory(e);
    if (r->wants_times) print_times(e);
  }
  free(ns);
  return ok && write_outputs(e, r, d);
}

static void run(const request *r, md_diags *d) {
  md_program *p = md_program_load(r->artefact, d);
  md_exec *e = p ? md_exec_create(p, &r->exec, d) : NULL;
  md_trace *t = r->trace ? md_trace_create() : NULL;
  if (e && t) md_exec_set_trace(e, t);
  if (e && set_inputs(e, r, d)) {
    run_steps(e, r, d);
    if (t) md_trace_save(t, r->trace, d);  // also of a step that failed
  }
  md_exec_destroy(e);
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
    else run(&r, d);
  }
  if (fflush(stdout) || ferror(stdout))
    md_error(d, E0801, MD_NOWHERE, "standard output cannot be written");
  md_diags_print(d, stderr, isatty(STDERR_FILENO) && !getenv("NO_COLOR"));
  int status = (int)md_diags_status(d);
  free(r.input);
  free(r.output);
  md_diags_destroy(d);
  return status;
}
