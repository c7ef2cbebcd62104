// SPDX-License-Identifier: Apache-2.0
// Every call of cuDNN, and every call of the driver, of a run with --engine=cudnn on the stand-ins fails once,
// where plans are made, where they are kept, and where it is tried who is faster.
// The run must say so and end with a documented code, or have the results of a run without a fault; it must not
// crash, and what it took from both it gives back.
//   test_cudnn_faults MODISTC MODIST_RT FOLDER_OF_THE_STAND_INS
#include "tests/device/process.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char graph[] =
    "graph @net(%x: f32[1,8,2,5,4], %w: f32[8,8,1,3,3], %dy: f32[1,8,2,5,4]) {\n"
    "  %y = conv3d %x, %w {pad=[0,1,1]}\n  %m, %v = moments %y\n"
    "  %dw = conv3d_wgrad %dy, %x {pad=[0,1,1], shape=[8,8,1,3,3]}\n  return %y, %m, %v, %dw\n}\n";

#define CUDNN_LOG "cudnn.log"
enum { SKIPPED = 77, MOST_CALLS = 2000 };

static int failed, harmless;

// An error of the driver's own is none of cuDNN's.
static bool is_documented(const char *said, int code) {
  if (strstr(said, "driver says 719")) return false;
  static const struct {
    const char *code;
    int exit;
  } rows[] = {{"error[E0637]", 4}, {"error[E0638]", 2}, {"error[E0639]", 1}, {"error[E0802]", 6}};
  for (int i = 0; i < MD_COUNT(rows); i++)
    if (strstr(said, rows[i].code)) return code == rows[i].exit;
  return code > 0 && code < 7 && strstr(said, "error[E06") != NULL;
}

// One run; NULL: it is as it should be.
static const char *try(char *const argv[], const md_text *results, md_text *said, int *code) {
  unlink(CUDNN_LOG);
  *code = process_run(argv);
  *said = process_read("said");
  md_text log = process_read("log"), more = process_read(CUDNN_LOG),
          now = process_results(said, false);
  const char *why = NULL;
  // What cuDNN then leaves to our kernels may be rounded in another way.
  bool is_ours = strstr(said->s, "warning: cuDNN refuses") != NULL;
  bool is_fatal = strstr(said->s, "CUDA_ERROR_LAUNCH_FAILED") != NULL;
  if (process_leaks(&more) || (!is_fatal && process_leaks(&log)))
    why = "something is not given back";
  else if (*code == 0 && !is_ours && results && strcmp(now.s, results->s) != 0)
    why = "the results are others";
  else if (*code != 0 && !is_documented(said->s, *code)) why = "no documented end";
  md_text_free(&log);
  md_text_free(&more);
  md_text_free(&now);
  return why;
}

// Faults number 1, 2, ... of all calls, which are so many or more, until one is too late to be met. No results: they
// are those of one engine or of the other.
static void sweep(char *const argv[], const char *variable, int error, int least,
                  const md_text *results) {
  const char *log = strstr(variable, "CUDNN") ? CUDNN_LOG : "log";
  char fault[60];
  int num = 0;
  harmless = 0;
  for (int n = 1; n < MOST_CALLS; n++) {
    int code;
    md_text said;
    snprintf(fault, sizeof fault, "any:%d:%d", n, error);
    setenv(variable, fault, 1);
    const char *why = try(argv, results, &said, &code);
    unsetenv(variable);
    md_text calls = process_read(log);
    bool is_met = strstr(calls.s, variable) != NULL;
    if (why) printf("FAILED %s=%s: %s; exit code %d\n%s", variable, fault, why, code, said.s);
    failed += why != NULL;
    harmless += is_met && !why && !code;
    md_text_free(&said);
    md_text_free(&calls);
    if (!is_met) break;
    num++;
  }
  printf("%s: %d calls with error %d; %d without consequence\n", variable, num, error, harmless);
  failed += num < least;
}

int main(int argc, char **argv) {
  MD_ASSERT(argc == 4, "test_cudnn_faults MODISTC MODIST_RT FOLDER");
  char *compile[] = {argv[1],    "compile", "net.mdg", "--target=cuda:sm_90",
                     "--no-ptx", "--apart", "-q",      "-o",
                     "net.mdx",  NULL};
  char *run[] = {argv[2], "net.mdx", "--engine=cudnn", "--steps=3", NULL}, path[600];
  char *race[] = {argv[2], "net.mdx", "--engine=fastest", "--steps=3", NULL};
  bool has_nvrtc = process_enter(argv[1], argv[3]);
  snprintf(path, sizeof path, "%s/libstand_in_cudnn.so", argv[3]);
  setenv("MODIST_CUDNN", path, 1);
  setenv("MODIST_STAND_IN_CUDNN_LOG", CUDNN_LOG, 1);
  if (has_nvrtc) {
    FILE *f = fopen("net.mdg", "w");
    MD_ASSERT(f && fputs(graph, f) >= 0 && fclose(f) == 0, "no graph");
    MD_ASSERT(process_run(compile) == 0, "%s", process_read("said").s);
    int code;
    md_text said, none = {0};
    md_put(&none, "%s", "");
    const char *why = try(run, &none, &said, &code);
    md_text results = process_results(&said, false);
    bool is_engine = strstr(said.s, "engine cuDNN") != NULL && results.len > 0;
    if (code || !is_engine) printf("FAILED without a fault: %s\n%s", why ? why : "", said.s);
    failed += code || !is_engine;
    sweep(run, "MODIST_STAND_IN_CUDNN_FAULT", 5000, 30, &results);
    sweep(race, "MODIST_STAND_IN_CUDNN_FAULT", 5000, 10, NULL);  // by records soon
    setenv("MODIST_CACHE", "/dev/null", 1);
    sweep(run, "MODIST_STAND_IN_CUDNN_FAULT", 5000, 100, &results);
    sweep(run, "MODIST_STAND_IN_FAULT", 2, 50, &results);
    sweep(run, "MODIST_STAND_IN_FAULT", 719, 50, &results);
    sweep(race, "MODIST_STAND_IN_CUDNN_FAULT", 5000, 100, NULL);
    sweep(race, "MODIST_STAND_IN_FAULT", 719, 100, NULL);
    md_text_free(&said);
    md_text_free(&none);
    md_text_free(&results);
  }
  process_leave();
  printf(has_nvrtc ? "%d failed\n" : "skipped: no NVRTC\n", failed);
  return has_nvrtc ? failed != 0 : SKIPPED;
}
