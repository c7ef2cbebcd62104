// SPDX-License-Identifier: Apache-2.0
// Every call of a run of modist_rt on the driver's stand-in fails once, with each of several errors; and a
// call of each kind with every error that driver_errors.def knows. The run must say so in the driver's words
// and end with the code that is documented, unless its results are those of a run without a fault; it must not
// crash, and what it took from the driver it gives back.
//   test_driver_faults MODISTC MODIST_RT FOLDER_OF_THE_STAND_INS
#include "tests/device/process.h"

#include "base/diag.h"

#include <stdlib.h>
#include <string.h>

static const char step[] =
    "graph @step(%x: f32[5,130], %g: f32[130]) {\n  %w = state @w {init=normal, b=1} : f32[130]\n"
    "  %k = constant {value=1.5} : bf16[7]\n  %a = exp %x\n  %s = sum %a {axes=[0]}\n"
    "  %w2 = add %w, %s\n  %m = mul %w2, %g\n  update @w = %m\n  return %a, %k, %w\n}\n";

// As docs/cuda.md has them.
static const struct {
  int error;
  const char *name;
  int code;
} faults[] = {
    {719, "CUDA_ERROR_LAUNCH_FAILED", 1},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", 1},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", 6},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", 1},
};
enum { TOO_OLD = 4, NOTHING_TO_READ = 1, SKIPPED = 77 };

static int failed, harmless;

static bool begins(const char *text, const char *with) {
  return !strncmp(text, with, strlen(with));
}

// What a fault at this call has to come to; NULL: it is so.
static const char *wrong(const char *call, int fault, int code, const md_text *said,
                         const md_text *results, const md_text *log) {
  bool is_search = begins(call, "cuGetProcAddress");
  md_text now = process_results(said, true);
  bool is_same = !strcmp(now.s, results->s);
  md_text_free(&now);
  if (process_leaks(log)) return "something is not given back";
  if (code == 0) return is_same ? NULL : "the results are others, and nothing was said";
  int wanted = is_search                         ? TOO_OLD
               : strstr(said->s, "error[E0648]") ? NOTHING_TO_READ
                                                 : faults[fault].code;
  if (code != wanted) return "another exit code";
  if (is_search) return strstr(said->s, "has no cu") ? NULL : "the function is not named";
  return strstr(said->s, faults[fault].name) ? NULL : "the driver's words are missing";
}

static void try(char *const argv[], const char *call, int n, int fault, const md_text *results) {
  char text[60];
  snprintf(text, sizeof text, "any:%d:%d", n, faults[fault].error);
  int code = process_run_with(argv, text);
  md_text said = process_read("said"), log = process_read("log");
  const char *why = wrong(call, fault, code, &said, results, &log);
  harmless += !code && !why;
  if (why) printf("FAILED %s with %s: %s; exit code %d\n%s", call, text, why, code, said.s);
  failed += why != NULL;
  md_text_free(&said);
  md_text_free(&log);
}

static void sweep(char *const argv[], int num_faults) {
  int code = process_run(argv);
  md_text said = process_read("said"), log = process_read("log"),
          results = process_results(&said, true);
  bool ok = code == 0 && !process_leaks(&log);
  if (!ok) printf("FAILED without a fault: exit code %d\n%s%s", code, said.s, log.s);
  failed += !ok;
  Call *call;
  int num = process_calls(&log, &call);
  harmless = 0;
  for (int n = 0; n < num; n++)
    for (int f = 0; f < num_faults; f++) try(argv, call[n].name, n + 1, f, &results);
  printf("%d calls, each with %d errors; %d without consequence\n", num, num_faults, harmless);
  free(call);
  md_text_free(&said);
  md_text_free(&log);
  md_text_free(&results);
}

// --- every error that means something

static const struct {
  int error;
  const char *name;
  md_code code;
} known[] = {
#define ERROR(number, name, code, is_fatal, hint) {number, "CUDA_ERROR_" #name, code},
#include "runtime/exec/driver_errors.def"
#undef ERROR
};

// Code that was loaded is no news to a driver that speaks its CUDA: then it is bad.
static md_code code_of(int row, const char *call) {
  return known[row].code == E0646 && known[row].error <= 218 && strcmp(call, "cuInit") != 0
             ? E0652
             : known[row].code;
}

static void know(char *const argv[], const char *call, int row) {
  char fault[60], wanted[20];
  md_code_row means = md_codes[code_of(row, call)];
  snprintf(fault, sizeof fault, "%s:1:%d", call, known[row].error);
  snprintf(wanted, sizeof wanted, "error[%s]", means.name);
  int code = process_run_with(argv, fault);
  md_text said = process_read("said"), log = process_read("log");
  const char *first = strstr(said.s, "error[");
  bool ok = code == (int)means.status && first && begins(first, wanted) &&
            strstr(said.s, known[row].name) && strstr(said.s, "hint: ") && !process_leaks(&log);
  if (!ok) printf("FAILED %s: wanted %s, exit code %d\n%s", fault, wanted, code, said.s);
  failed += !ok;
  md_text_free(&said);
  md_text_free(&log);
}

static void every_known_error(char *const argv[]) {
  static const char *const kinds[] = {"cuInit", "cuMemAlloc_v2", "cuLaunchKernel",
                                      "cuEventSynchronize", "cuGraphLaunch"};
  for (int i = 0; i < MD_COUNT(kinds); i++)
    for (int row = 0; row < MD_COUNT(known); row++) know(argv, kinds[i], row);
  printf("%d calls, each with %d errors that are known\n", MD_COUNT(kinds), MD_COUNT(known));
}

int main(int argc, char **argv) {
  MD_ASSERT(argc == 4, "test_driver_faults MODISTC MODIST_RT FOLDER");
  char *compile[] = {argv[1], "compile",  "step.mdg", "--target=cuda:sm_90", "--no-ptx", "-q",
                     "-o",    "step.mdx", NULL};
  char *plain[] = {argv[2], "step.mdx", "--device=cuda:0", "--steps=3", NULL};
  char *timed[] = {argv[2],       "step.mdx", "--device=cuda:0", "--steps=2",
                   "--check-nan", "--times",  "--trace=t.json",  NULL};
  bool has_nvrtc = process_enter(argv[1], argv[3]);
  if (has_nvrtc) {
    FILE *f = fopen("step.mdg", "w");
    MD_ASSERT(f && fputs(step, f) >= 0 && fclose(f) == 0, "no graph");
    MD_ASSERT(process_run(compile) == 0, "%s", process_read("said").s);
    sweep(plain, MD_COUNT(faults));
    every_known_error(plain);
    sweep(timed, 2);
    setenv("MODIST_STAND_IN_WITHOUT", "cuLibraryLoadData", 1);  // an older driver: modules
    sweep(plain, 1);
  }
  process_leave();
  printf(has_nvrtc ? "%d failed\n" : "skipped: no NVRTC\n", failed);
  return has_nvrtc ? failed != 0 : SKIPPED;
}
