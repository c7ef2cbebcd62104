// SPDX-License-Identifier: Apache-2.0
// tune: which way to make each convolution is fastest on a device, and whether cuDNN is faster there than that. Ways
// are measured in a step whose kernels have launches of their own; cuDNN in the step that users get, which is made
// of the ways that were found, as its launches do less for each convolution.
#include "modistc/compile.h"

#include "base/file.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const md_option tune_options[] = {
    {"config", 'c', "FILE", "settings of the model; key=value arguments override them"},
    {"device", 0, "NAME", "cuda:N, a GPU that must be there (default: cuda:0, or else no device)"},
    {"target", 't', "TARGET",
     "of a model: cuda:h200 and so on, as compile has it (default: what the device is)"},
    {"output", 'o', "FILE", "write the records there ('-': standard output), not to the cache"},
    {"budget", 0, "TIME", "for all measurements, about: 10m (default), 90s"},
    {"rounds", 0, "N", "steps with each way at most, 3 or more (7)"},
    {"trials", 0, "N", "other ways of each convolution at most, of a model (8)"},
    {"no-cache", 0, NULL, "neither read nor write the cache of compiled kernels"},
    MD_PASS_OPTIONS,
    {0}};
static const md_option_rule tune_rules[] = {
    {":*.mdx", MD_PASS_NAMES " target trials no-cache config", "an artefact is compiled already",
     "give it to 'modistc compile ... --trials'"},
    {0}};

// --- the program

typedef struct Order {
  md_cli *cli;
  const char *target;       // NULL: what the device is
  const md_records *known;  // its ways, as users get them; NULL: all ways as trials
  const md_gpu_device *device;
  int file;
} Order;

static md_program *compile(const Order *from, const char *target) {
  md_cli *cli = from->cli;
  md_pass_options passes;
  int64_t trials = MD_CUDA_TRIALS;
  if (!md_source_passes(cli, &passes) || !md_cli_int(cli, "trials", 1, MD_CUDA_WAYS, &trials) ||
      !md_cuda_facts(target, &passes.facts, cli->diags))
    return NULL;
  md_cuda_options o = {.targets = target, .no_ptx = true, .no_cache = md_cli_has(cli, "no-cache")};
  if (from->known) {
    o.how = (md_cuda_how){.records = from->known, .device = from->device->name};
    passes.memory = md_cuda_memory(&o, 0);
  } else {
    o.how = (md_cuda_how){.is_apart = true, .trials = (int)trials};
  }
  md_graph *g = md_source_graph(cli, cli->arg[0]);
  if (g) g = md_run_passes(g, &passes, NULL, cli->diags);
  if (!g) return NULL;
  md_cuda_report r = {.arena = cli->arena};
  md_program *p = md_cuda_program(g, &o, &r, cli->diags);
  if (p) md_compile_predict(target, NULL, p, &r);
  md_graph_destroy(g);
  return p;
}

static md_status compile_to_file(void *ctx) {
  const Order *o = ctx;
  md_diags *d = o->cli->diags;
  char own[32];
  md_text bytes = {0};
  md_diags_clear(d);  // what is there, the parent tells
  bool ok = (o->target || md_cuda_target_for(o->device->sm, own, sizeof own, d)) &&
            md_cuda_is_loaded_by(o->device->driver, d);
  md_program *p = ok ? compile(o, o->target ? o->target : own) : NULL;
  if (p && md_program_write(p, &bytes, d) && !md_write_all(o->file, bytes.s, bytes.len))
    md_error(d, E0802, MD_NOWHERE, "no memory for the program");
  md_program_destroy(p);
  md_text_free(&bytes);
  md_diags_print(d, stderr, md_likes_color(STDERR_FILENO));
  return md_diags_status(d);
}

// In a process of its own: NVRTC uses the driver, and who has used it cannot fork another process that does.
static md_program *compile_apart(md_cli *cli, const md_gpu_device *device,
                                 const md_records *known) {
  Order o = {.cli = cli,
             .target = md_cli_get(cli, "target"),
             .known = known,
             .device = device,
             .file = memfd_create("modist-trials", MFD_CLOEXEC)};
  int child = o.file < 0 ? -1 : md_apart(compile_to_file, &o);
  int how = child < 0 ? 0 : md_apart_wait(child, NULL);
  md_program *p = NULL;
  if (how > 0) md_told(cli->diags, (md_status)how);
  else if (child < 0 || how < 0)
    md_error(cli->diags, E0802, MD_NOWHERE, "the process that compiles %s %d",
             child < 0 ? "is not there: error" : "was ended by signal", child < 0 ? errno : -how);
  else p = md_program_load(md_format(cli->arena, "/proc/self/fd/%d", o.file), cli->diags);
  if (p) p->path = NULL;
  if (o.file >= 0) close(o.file);
  return p;
}

// Who names a device wants it measured: a prediction would be something else.
static bool has_device(md_cli *cli, const char *device, md_gpu_device *found, md_gpu_lack *lack,
                       bool *is_there) {
  int index;
  if (!md_device_parse(device, &index, cli->diags)) return false;
  if (index < 0)
    return md_error(cli->diags, E0401, MD_NOWHERE,
                    "--device is '%s', but CUDA programs alone have trials", device);
  *is_there = md_gpu_ask(index, found, lack);
  return *is_there || !md_cli_get(cli, "device") || md_driver_unusable(NULL, lack, cli->diags);
}

static bool is_artefact(const char *what) {
  size_t len = strlen(what);
  return len > 4 && strcmp(what + len - 4, ".mdx") == 0;
}

static md_program *program_of(md_cli *cli, bool is_there, const md_gpu_device *device,
                              const char *why) {
  const char *what = cli->arg[0], *target = md_cli_get(cli, "target");
  if (is_artefact(what))
    return md_source_takes_no_settings(cli, what) ? md_program_load(what, cli->diags) : NULL;
  if (is_there) return compile_apart(cli, device, NULL);
  if (target) return compile(&(Order){.cli = cli}, target);
  md_error(cli->diags, E0635, MD_NOWHERE, "which device is to be tuned for? %s", why);
  md_hint(cli->diags, "--target=cuda:h200 ranks the ways by the cost model, without a device");
  return NULL;
}

// --- the run

static bool set_inputs(void *ctx, md_exec *e, md_diags *d) {
  (void)ctx, (void)d;
  const md_program *p = md_exec_program(e);
  for (int i = 0; i < p->num_inputs; i++)
    md_tune_input(&p->input[i], 0, md_exec_input(e, p->input[i].name, NULL));
  return true;
}

static void tell(void *ctx, int step, int of) {
  const md_cli *cli = ctx;
  if (cli->quiet || !isatty(STDERR_FILENO)) return;
  fprintf(stderr, "\rtune  %d of %d steps%s", step, of, step == of ? "\n" : "");
}

static bool budget_of(md_cli *cli, double *seconds) {
  const char *text = md_cli_get(cli, "budget");
  *seconds = MD_TUNE_SECONDS;
  if (!text) return true;
  size_t len = strlen(text);
  double unit = len && text[len - 1] == 'm' ? 60 : 1;
  char number[32];
  snprintf(number, sizeof number, "%.*s", (int)MD_MIN(len ? len - 1 : 0, sizeof number - 1), text);
  bool has_unit = len > 1 && (text[len - 1] == 'm' || text[len - 1] == 's');
  if (has_unit && md_parse_float(number, seconds) && *seconds > 0 && isfinite(*seconds)) {
    *seconds *= unit;
    return true;
  }
  char clean[80];
  return md_error(cli->diags, E0401, MD_NOWHERE,
                  "--budget is '%s', but takes minutes or seconds: 10m, 90s",
                  md_clean(text, clean, sizeof clean));
}

// --- what was found

static void show_ways(const md_record *x, FILE *to) {
  char name[60];
  md_clean(x->region, name, sizeof name);
  for (int k = 0; k < x->num_ways; k++)
    if (x->way[k].failed)
      fprintf(to, "failed  %-22s %s: %s\n", x->way[k].way, name, x->way[k].failed);
  if (strcmp(x->own, x->best) != 0)
    fprintf(to, "%-40s %-22s %9.1f us  %-22s %9.1f us\n", name, x->own, x->own_us, x->best,
            x->best_us);
}

static void show(const md_cli *cli, const md_records *r, FILE *to) {
  for (int i = 0; i < r->num && !cli->quiet; i++) show_ways(&r->row[i], to);
  char text[MD_RECORDS_CHARS], clocks[MD_CLOCKS_CHARS];
  fprintf(to, "%s: %s\n", r->num && r->row[0].is_predicted ? "predicted" : "measured",
          md_records_text(r, text));
  if (r->num && !r->row[0].is_predicted && !cli->quiet)
    fprintf(to, "clocks: %s\n", md_clocks_text(r->row[0].clocks, clocks));
}

static bool write_records(md_cli *cli, const md_records *r) {
  const char *path = md_cli_get(cli, "output");
  if (path) return md_records_save(r, path, cli->diags);
  bool is_predicted = r->num && r->row[0].is_predicted;
  return is_predicted || md_records_keep(r, cli->diags);
}

// Of an artefact both at once, as it is; of a model one after the other.
static bool measure(md_cli *cli, const md_program *p, md_tune_options o,
                    const md_gpu_device *device, md_records *found) {
  int64_t start = md_now_ns();
  if (is_artefact(cli->arg[0])) o.exec.engine = MD_ENGINE_FASTEST;
  bool ok = md_tune(p, &o, found, cli->diags);
  if (!ok || is_artefact(cli->arg[0]) || !md_tune_cudnn()) return ok;
  md_records *known = md_records_kept(cli->diags);
  for (int i = 0; i < found->num; i++) MD_PUSH(known->row, known->num, known->cap, found->row[i]);
  md_program *joined = compile_apart(cli, device, known);
  o.exec.engine = MD_ENGINE_FASTEST;
  o.seconds -= (double)(md_now_ns() - start) / 1e9;
  ok = joined && (!joined->num_convs || md_tune(joined, &o, found, cli->diags));
  md_program_destroy(joined);
  md_records_destroy(known);
  return ok;
}

static bool tune(md_cli *cli, const md_program *p, const md_tune_options *o,
                 const md_gpu_device *device, bool is_there, const char *why) {
  md_records *found = md_records_create();
  if (!is_there) {
    md_warning(cli->diags, MD_NOWHERE,
               "nothing is measured, the cost model ranks: there is no device (%s)", why);
    md_hint(cli->diags, "nothing is kept: 'modistc compile' takes what was measured alone");
  }
  bool ok = is_there ? measure(cli, p, *o, device, found) : md_tune_predicted(p, found, cli->diags);
  const char *path = md_cli_get(cli, "output");
  bool is_kept =
      (ok || found->num) && write_records(cli, found);  // even of a run that has ended early
  if (is_kept) show(cli, found, path && strcmp(path, "-") == 0 ? stderr : stdout);
  md_records_destroy(found);
  return ok && is_kept;
}

static md_status run(md_cli *cli) {
  int64_t rounds = MD_TUNE_ROUNDS;
  const char *device = md_cli_get(cli, "device");
  md_gpu_device found;
  md_gpu_lack lack = {.code = MD_NO_CODE};
  bool is_there = false;
  md_tune_options o = {.exec = {.device = device ? device : "cuda:0"},
                       .set_inputs = set_inputs,
                       .told = tell,
                       .ctx = cli};
  if (!md_cli_args(cli, 1, 64,
                   "takes an artefact with trials, a model, a graph text or a plug-in") ||
      !md_cli_int(cli, "rounds", MD_TUNE_LEAST_ROUNDS, 1000, &rounds) ||
      !budget_of(cli, &o.seconds) || !has_device(cli, o.exec.device, &found, &lack, &is_there))
    return md_diags_status(cli->diags);
  o.rounds = (int)rounds;
  md_program *p = NULL;
  if (md_cli_may_write(cli, "output")) p = program_of(cli, is_there, &found, lack.why);
  bool ok = p && tune(cli, p, &o, &found, is_there, lack.why);
  md_program_destroy(p);
  return ok ? MD_OK : md_diags_status(cli->diags);
}

static const char *const examples[] = {
    "modistc tune modist-r3d50 batch=64 --precision=bf16",
    "modistc compile modist-r3d50 batch=64 --precision=bf16 -t cuda:h200 --trials -o trials.mdx",
    "modistc tune trials.mdx --budget=5m -o h200.jsonl", "modistc cache import h200.jsonl", NULL};
const md_command md_cmd_tune = {
    .name = "tune",
    .group = "Compile and run",
    .usage = "ARTEFACT.mdx|MODEL|GRAPH.mdg|PLUGIN.so [key=value ...] [options]",
    .doc = "find the fastest way to make each convolution on a GPU, and where cuDNN is faster",
    .examples = examples,
    .options = tune_options,
    .rules = tune_rules,
    .run = run};
