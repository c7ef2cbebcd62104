// SPDX-License-Identifier: Apache-2.0
// MoDist trains through the driver's stand-in, from the command line: its losses are those of the CPU, a
// run that goes on from a checkpoint ends bit for bit where one without a stop does, and whatever call
// fails, the run says so and leaves checkpoints from which it goes on.
//   test_train_cuda MODISTC FOLDER_OF_THE_STAND_INS CONFIG [places]   only: calls of every place fail
#include "models/models.h"
#include "tests/device/process.h"
#include "tests/tolerance.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STEPS = 3, NO_CHECKPOINT = 5, SKIPPED = 77 };

static const char *modistc, *config;
static int failed;

static void check(bool ok, const char *claim, const char *of) {
  if (ok) return;
  md_text said = process_read("said");
  printf("FAILED %s: %s\n%s\n", of, claim, said.s);
  md_text_free(&said);
  failed++;
}

// --- runs: the same data and settings, `steps` of them from whatever the folder has

typedef struct Line {
  char text[200];
} Line;

static const char *engine = "-q";  // or --engine=NAME, with what is said of it

static int train(const char *folder, const char *device, int steps, const char *fault) {
  char dir[100], on[60], most[60], file[600];
  snprintf(dir, sizeof dir, "run.dir=%s", folder);
  snprintf(on, sizeof on, "--device=%s", device);
  snprintf(most, sizeof most, "--max-steps=%d", steps);
  snprintf(file, sizeof file, "--config=%s", config);
  char *begin[] = {(char *)(uintptr_t)modistc,
                   "train",
                   (char *)(uintptr_t)engine,
                   dir,
                   on,
                   most,
                   file,
                   "data.train=videos",
                   "clip.frames=2",
                   "mclip.frames=2",
                   "batch=2",
                   "bank.size=8",
                   "epochs=4",
                   "run.checkpoint_every=1",
                   "run.tensorboard=false",
                   NULL};
  char *go_on[] = {begin[0], "train", begin[2], dir, on, most, "--resume", NULL};
  char **argv = access(folder, F_OK) == 0 ? go_on : begin;
  return fault ? process_run_with(argv, fault) : process_run(argv);
}

static void losses_of(const char *folder, double loss[STEPS]) {
  char path[100];
  snprintf(path, sizeof path, "%s/log.jsonl", folder);
  md_text log = process_read(path);
  const char *at = log.s;
  for (int i = 0; i < STEPS; i++) {
    at = strstr(at, "\"loss\":");
    loss[i] = at ? strtod(at + 7, NULL) : NAN;
    at = at ? at + 7 : log.s + log.len;
  }
  md_text_free(&log);
}

// The arrays of the weights, without the head that has the settings.
static md_text arrays_of(const char *folder) {
  char path[100];
  snprintf(path, sizeof path, "%s/weights.safetensors", folder);
  md_text file = process_read(path), arrays = {0};
  uint64_t head = 0;
  if (file.len > sizeof head) memcpy(&head, file.s, sizeof head);
  if (head && head + 8 < file.len) md_put_bytes(&arrays, file.s + 8 + head, file.len - 8 - head);
  md_text_free(&file);
  return arrays;
}

static bool same_weights(const char *a, const char *b) {
  md_text x = arrays_of(a), y = arrays_of(b);
  bool same = x.len > 0 && x.len == y.len && !memcmp(x.s, y.s, x.len);
  md_text_free(&x);
  md_text_free(&y);
  return same;
}

static bool leaks(void) {
  md_text log = process_read("log");
  bool yes = process_leaks(&log);
  md_text_free(&log);
  return yes;
}

// --- claims

// test_step says why this is the error of a step.
static double tolerance_of_a_step(void) {
  md_step s = md_step_defaults();
  md_model_from("modist-tiny")->fill(&s);
  md_graph *g = md_step_graph(&s, NULL);
  int64_t layers = 0;
  for (int i = 0; i < g->num_nodes; i++) layers += md_ops[g->node[i]->op].role == MD_ANCHOR;
  md_graph_destroy(g);
  return sqrt(md_tolerance(MD_F32, layers, 1));
}

static void losses_are_those_of_the_cpu(void) {
  double cpu[STEPS], gpu[STEPS], tolerance = tolerance_of_a_step();
  check(train("cpu", "cpu", STEPS, NULL) == 0, "it trains", "cpu");
  check(train("gpu", "cuda:0", STEPS, NULL) == 0 && !leaks(), "it trains, and gives all back",
        "cuda:0");
  losses_of("cpu", cpu);
  losses_of("gpu", gpu);
  for (int i = 0; i < STEPS; i++) {
    printf("step %d: loss %.7g on the CPU, %.7g on the GPU\n", i + 1, cpu[i], gpu[i]);
    check(fabs(cpu[i] - gpu[i]) <= tolerance * fabs(cpu[i]), "its losses are those of the CPU",
          "cuda:0");
  }
}

// --- what was learnt, read on either device

static bool same_text(const char *a, const char *b) {
  md_text x = process_read(a), y = process_read(b);
  bool same = x.len > 0 && x.len == y.len && !memcmp(x.s, y.s, x.len);
  md_text_free(&x);
  md_text_free(&y);
  return same;
}

static int features(const char *weights_of, const char *device, md_dtype precision, const char *out,
                    const char *fault) {
  char weights[100], on[60], to[100], in[40];
  snprintf(weights, sizeof weights, "%s/weights.safetensors", weights_of);
  snprintf(on, sizeof on, "--device=%s", device);
  snprintf(to, sizeof to, "--output=%s", out);
  snprintf(in, sizeof in, "--precision=%s", precision == MD_BF16 ? "bf16" : "fp32");
  char *argv[] = {
      (char *)(uintptr_t)modistc, "features", weights, "videos", on, to, in, "-q", NULL};
  return fault ? process_run_with(argv, fault) : process_run(argv);
}

// Each node adds the roundings of its operations to what it got, and one more where it is stored in
// fewer bits: a random walk. It passes a relative error on.
static double tolerance_of_features(md_dtype precision) {
  md_step s = md_step_defaults();
  md_model_from("modist-tiny")->fill(&s);
  md_graph *g = md_features_graph(&s, NULL);
  double steps = 0;
  for (int i = 0; i < g->num_nodes; i++) {
    md_cost c = {0};
    md_node_cost(g, g->node[i], &c);
    if (c.flops > 0) steps += c.flops / (double)md_elements(&md_type_in(g, g->node[i]->out)->shape);
  }
  double stored = precision == MD_BF16 ? md_tolerance(MD_BF16, g->num_nodes, 1) : 0;
  md_graph_destroy(g);
  return stored + md_tolerance(MD_F32, (int64_t)steps, 1);
}

enum { NPY_HEAD = 128 };  // of a small array, in bytes
static void check_features(const char *a, const char *b, double tolerance) {
  char path[2][100];
  snprintf(path[0], sizeof path[0], "%s/features.npy", a);
  snprintf(path[1], sizeof path[1], "%s/features.npy", b);
  md_text x = process_read(path[0]), y = process_read(path[1]);
  double size = 0, off = 0;
  for (size_t at = NPY_HEAD; at + 4 <= x.len && x.len == y.len; at += 4) {
    float u, v;
    memcpy(&u, x.s + at, 4);
    memcpy(&v, y.s + at, 4);
    size = fmax(size, fabs((double)u));
    off = fmax(off, fabs((double)u - v));
  }
  printf("%s, %s: off by %.2g of %.3g, %.2g allowed\n", a, b, off, size, tolerance * size);
  check(size > 0 && off <= tolerance * size, "features are those of the CPU", b);
  md_text_free(&x);
  md_text_free(&y);
}

static void check_on_both(const char *from, md_dtype precision) {
  char on_cpu[40], on_gpu[40];
  snprintf(on_cpu, sizeof on_cpu, "%s-%d-cpu", from, (int)precision);
  snprintf(on_gpu, sizeof on_gpu, "%s-%d-gpu", from, (int)precision);
  check(features(from, "cpu", precision, on_cpu, NULL) == 0, "it has features", on_cpu);
  check(features(from, "cuda:0", precision, on_gpu, NULL) == 0 && !leaks(),
        "it has features, and gives all back", on_gpu);
  check_features(on_cpu, on_gpu, tolerance_of_features(precision));
}

static void checkpoints_of_either_device_are_read_on_either(void) {
  check_on_both("cpu", MD_F32);
  check_on_both("gpu", MD_F32);
  check_on_both("gpu", MD_BF16);
}

static void features_do_not_depend_on_the_order_of_work(void) {
  char before[60];
  snprintf(before, sizeof before, "gpu-%d-gpu/features.npy", (int)MD_F32);
  setenv("MODIST_STAND_IN_CHECK", "1", 1);
  setenv("MODIST_STAND_IN_ORDER", "at-once", 1);
  check(features("gpu", "cuda:0", MD_F32, "at-once-too", NULL) == 0, "it has features", "at-once");
  check(same_text(before, "at-once-too/features.npy"), "they are the same", "at-once");
  unsetenv("MODIST_STAND_IN_ORDER");
  unsetenv("MODIST_STAND_IN_CHECK");
}

static void a_device_that_fails_leaves_no_features(void) {
  static const char *const faults[] = {"cuMemAlloc_v2:1:2", "kernel:10:719", "kernel:60:700",
                                       "cuMemcpyDtoHAsync_v2:2:46"};
  for (int i = 0; i < MD_COUNT(faults); i++) {
    int code = features("gpu", "cuda:0", MD_F32, "none", faults[i]);
    md_text said = process_read("said");
    check(code > 0 && code < PROCESS_SIGNAL && strstr(said.s, "CUDA_ERROR_"),
          "it has the driver's words", faults[i]);
    check(!leaks(), "all is given back", faults[i]);
    check(access("none", F_OK) != 0, "nothing is written", faults[i]);
    md_text_free(&said);
  }
}

static void no_order_of_work_changes_the_weights(void) {
  static const char *const orders[] = {"at-once", "copies-first", "others-first"};
  for (int i = 0; i < MD_COUNT(orders); i++) {
    setenv("MODIST_STAND_IN_ORDER", orders[i], 1);
    check(train(orders[i], "cuda:0", STEPS, NULL) == 0, "it trains", orders[i]);
    check(same_weights("gpu", orders[i]), "the weights are the same", orders[i]);
  }
  unsetenv("MODIST_STAND_IN_ORDER");
}

static void the_checker_sees_nothing_wrong(void) {
  setenv("MODIST_STAND_IN_CHECK", "1", 1);
  check(train("checked", "cuda:0", STEPS, NULL) == 0, "it trains", "under the checker");
  check(same_weights("gpu", "checked"), "the weights are the same", "under the checker");
  unsetenv("MODIST_STAND_IN_CHECK");
}

// Whoever does a convolution, its roundings are another's, no more.
static void cudnn_trains_as_well(void) {
  static const char *const engines[] = {"--engine=cudnn", "--engine=fastest"};
  double cpu[STEPS], gpu[STEPS], tolerance = tolerance_of_a_step();
  losses_of("cpu", cpu);
  for (int i = 0; i < MD_COUNT(engines); i++) {
    engine = engines[i];
    check(train(engines[i] + 2, "cuda:0", STEPS, NULL) == 0, "it trains", engine);
    md_text said = process_read("said");
    check(strstr(said.s, "cuDNN 9.19.0: ") != NULL, "cuDNN takes part", engine);
    losses_of(engines[i] + 2, gpu);
    for (int k = 0; k < STEPS; k++)
      check(fabs(cpu[k] - gpu[k]) <= tolerance * fabs(cpu[k]), "its losses are those of the CPU",
            engine);
    md_text_free(&said);
  }
  engine = "-q";
}

// The digest of what runs stands at the end of what the step was.
static void another_engine_is_told_whole(void) {
  check(train("engine=cudnn", "cuda:0", STEPS + 1, NULL) == 0, "it goes on", "with our kernels");
  md_text said = process_read("said");
  const char *then = strstr(said.s, "note: then cuda:"),
             *now = then ? strstr(then, ", now ") : NULL;
  const char *last = now;
  while (last && last > then && last[-1] != ' ') last--;
  check(now && now - last == 32, "the step that was has its digest", said.s);
  md_text_free(&said);
}

// Records that name other ways than untuned ones: those that the cost model ranks where there is no device, as if
// they had been measured on one. In a cache of their own.
static bool keep_records(const char *driver) {
  char file[600];
  snprintf(file, sizeof file, "--config=%s", config);
  char *tune[] = {(char *)(uintptr_t)modistc,
                  "tune",
                  "modist-tiny",
                  file,
                  "clip.frames=2",
                  "mclip.frames=2",
                  "batch=2",
                  "bank.size=8",
                  "-t",
                  "cuda:sm_90a",
                  "-o",
                  "ranked.jsonl",
                  "-q",
                  NULL};
  char *import[] = {(char *)(uintptr_t)modistc, "cache", "import", "tuned.jsonl", NULL};
  static const char measured[] =
      "sed 's/\"by\":\"prediction\"/\"by\":\"device\"/; s/NVIDIA H200 SXM/Stand-in GPU/; "
      "s/\"best\":\"[^\"]*\",\\(.*\"ways\":.{\"way\":\\(\"[^\"]*\"\\)\\)/\"best\":\\2,\\1/' "
      "ranked.jsonl >tuned.jsonl";
  unsetenv("LD_LIBRARY_PATH");
  bool ok = process_run(tune) == 0;
  setenv("LD_LIBRARY_PATH", driver, 1);
  return ok && system(measured) == 0 && process_run(import) == 0;
}

static void records_have_a_say_unless_all_is_deterministic(const char *driver) {
  static const char another[] = "compiled in another way";
  check(train("untuned", "cuda:0", 1, NULL) == 0, "it trains", "without records");
  MD_ASSERT(mkdir("records", 0700) == 0, "no folder");
  setenv("MODIST_CACHE", "records", 1);
  setenv("MODIST_STAND_IN_TEXTS", "records", 1);
  check(keep_records(driver), "there are records", "records");
  engine = "--deterministic";
  check(train("untuned", "cuda:0", 2, NULL) == 0, "it goes on", engine);
  md_text said = process_read("said");
  check(!strstr(said.s, another), "the step is the same", engine);
  md_text_free(&said);
  engine = "-q";
  check(train("untuned", "cuda:0", STEPS, NULL) == 0, "it goes on", "with records");
  said = process_read("said");
  check(strstr(said.s, another) != NULL, "it says that the step is another one", "records");
  md_text_free(&said);
}

static void a_run_goes_on_bit_for_bit(void) {
  check(train("parts", "cuda:0", 1, NULL) == 0, "it trains", "the first step");
  check(train("parts", "cuda:0", STEPS, NULL) == 0, "it goes on", "the rest");
  check(same_weights("gpu", "parts"), "the weights are those of a run without a stop", "the rest");
}

// Where a run may fail: a call, and which of them, in hundredths of how many there are.
static const struct {
  const char *call;
  int at, error;
} places[] = {
    {"cuDevicePrimaryCtxRetain", 0, 46},
    {"cuLibraryLoadData", 50, 200},
    {"cuMemAlloc_v2", 0, 2},
    {"cuMemHostAlloc", 99, 2},
    {"cuLaunchKernel", 10, 719},
    {"cuMemcpyDtoHAsync_v2", 20, 46},
    {"cuStreamBeginCapture_v2", 0, 46},
    {"cuLaunchKernel", 90, 46},
    {"cuStreamEndCapture", 0, 46},
    {"cuGraphInstantiateWithFlags", 0, 2},
    {"cuGraphLaunch", 99, 719},
    {"cuEventSynchronize", 99, 700},
    {"kernel", 80, 700},
    {"cuEventSynchronize", 60, 214},
    {"cuMemcpyDtoHAsync_v2", 99, 46},
    {"cuMemFree_v2", 0, 46},
};

static int num_of(const char *name, const Call *call, int num) {
  if (!strcmp(name, "kernel")) name = "cuLaunchKernel";  // as many, at the least
  int found = 0;
  for (int i = 0; i < num; i++) found += !strcmp(call[i].name, name);
  return found;
}

// From the newest checkpoint, or it says that there is none, and there is none.
static void go_on(const char *fault) {
  int code = train("hurt", "cuda:0", STEPS, NULL);
  if (code == NO_CHECKPOINT) {
    check(access("hurt/checkpoints/step-00000001.safetensors", F_OK) != 0,
          "what it left is a whole checkpoint", fault);
    return;
  }
  check(code == 0, "it goes on", fault);
  check(same_weights("gpu", "hurt"), "it ends where a run without a fault does", fault);
}

static void fail_with(const char *fault) {
  MD_ASSERT(system("rm -rf hurt") == 0, "a folder stays");
  int code = train("hurt", "cuda:0", STEPS, fault);
  md_text said = process_read("said");
  check(code < PROCESS_SIGNAL, "it does not crash", fault);
  check(!leaks(), "all is given back", fault);
  bool is_told = strstr(said.s, "CUDA_ERROR_") || strstr(said.s, "has no cu");
  if (code) check(is_told, "it has the driver's words", fault);
  printf("%s: exit code %d\n", fault, code);
  md_text_free(&said);
  if (code) go_on(fault);
  else check(same_weights("gpu", "hurt"), "it says so, or the weights are the same", fault);
}

static void chosen_calls_fail(const Call *call, int num) {
  for (int i = 0; i < MD_COUNT(places); i++) {
    char fault[100];
    int last = num_of(places[i].call, call, num) - 1;
    snprintf(fault, sizeof fault, "%s:%d:%d", places[i].call, 1 + last * places[i].at / 100,
             places[i].error);
    fail_with(fault);
  }
}

// The first and the last call of each place of the program, where a place is all that has led to the call:
// calls of one place between them, those of a kernel after another, say nothing else.
static void calls_of_every_place_fail(const Call *call, int num) {
  static const int errors[] = {719, 46, 2};
  int num_faults = 0, num_places = 0;
  for (int i = 0; i < num; i++) {
    bool is_first = true, is_last = true;
    int of_name = 1;
    for (int k = 0; k < i; k++) {
      of_name += !strcmp(call[k].name, call[i].name);
      is_first &= call[k].place != call[i].place;
    }
    for (int k = i + 1; k < num && is_last; k++) is_last = call[k].place != call[i].place;
    num_places += is_first;
    if (!is_first && !is_last) continue;
    char fault[100];
    snprintf(fault, sizeof fault, "%s:%d:%d", call[i].name, of_name,
             errors[num_faults++ % MD_COUNT(errors)]);
    fail_with(fault);
  }
  check(num_places > 1, "the log says where calls are made", "places");
  printf("%d calls from %d places, %d faults\n", num, num_places, num_faults);
}

int main(int argc, char **argv) {
  bool everywhere = argc == 5 && !strcmp(argv[4], "places");
  MD_ASSERT(argc == 4 || everywhere, "test_train_cuda MODISTC FOLDER CONFIG [places]");
  modistc = argv[1];
  config = argv[3];
  char *videos[] = {argv[1],      "dataset",   "shapes",      "-o", "videos",
                    "--videos=4", "--size=32", "--seconds=1", "-q", NULL};
  bool has_nvrtc = process_enter(argv[1], argv[2]);
  char cudnn[600];
  snprintf(cudnn, sizeof cudnn, "%s/libstand_in_cudnn.so", argv[2]);
  setenv("MODIST_CUDNN", cudnn, 1);
  if (everywhere) setenv("MODIST_STAND_IN_PLACES", "1", 1);
  if (has_nvrtc) {
    MD_ASSERT(process_run(videos) == 0, "no videos");
    losses_are_those_of_the_cpu();
    md_text log = process_read("log");
    Call *call;
    int num = process_calls(&log, &call);
    unsetenv("MODIST_STAND_IN_PLACES");
    if (everywhere) {
      calls_of_every_place_fail(call, num);
    } else {
      checkpoints_of_either_device_are_read_on_either();
      features_do_not_depend_on_the_order_of_work();
      a_device_that_fails_leaves_no_features();
      no_order_of_work_changes_the_weights();
      the_checker_sees_nothing_wrong();
      a_run_goes_on_bit_for_bit();
      cudnn_trains_as_well();
      another_engine_is_told_whole();
      chosen_calls_fail(call, num);
      records_have_a_say_unless_all_is_deterministic(argv[2]);  // the last, with a cache of its own
    }
    free(call);
    md_text_free(&log);
  }
  process_leave();
  printf(has_nvrtc ? "%d failed\n" : "skipped: no NVRTC\n", failed);
  return has_nvrtc ? failed != 0 : SKIPPED;
}
