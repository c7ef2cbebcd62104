// SPDX-License-Identifier: Apache-2.0
// Every call of a run of modist_rt on the driver's stand-in fails once, with each of several errors. The
// run must say so in the driver's words and end with the code that is documented, unless its results are
// those of a run without a fault; it must not crash, and what it took from the driver it gives back.
//   test_driver_faults MODISTC MODIST_RT FOLDER_OF_THE_STAND_INS
#include "base/base.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char step[] =
    "graph @step(%x: f32[5,130], %g: f32[130]) {\n  %w = state @w {init=normal, b=1} : f32[130]\n"
    "  %k = constant {value=1.5} : bf16[7]\n  %a = exp %x\n  %s = sum %a {axes=[0]}\n"
    "  %w2 = add %w, %s\n  %m = mul %w2, %g\n  update @w = %m\n  return %a, %k, %w\n}\n";

// As docs/cuda.md has them; where the device is looked for, every error means that there is none.
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
enum { NO_DEVICE = 4, NOTHING_TO_READ = 1, SECONDS = 60 };

static char folder[] = "/tmp/modist_test_XXXXXX";
static int failed, harmless;

static md_text read_file(const char *name) {
  md_text t = {0};
  char line[4096];
  FILE *f = fopen(name, "r");
  while (f && fgets(line, sizeof line, f)) md_put(&t, "%s", line);
  if (f) fclose(f);
  md_put(&t, "%s", "");
  return t;
}

// Runs a program with its words in the file `said`; its exit code, or 128 and the signal.
static int run(char *const argv[]) {
  pid_t child = fork();
  if (child == 0) {
    int out = open("said", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    alarm(SECONDS);
    execv(argv[0], argv);
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Lines with a digest: the results.
static md_text results_of(const md_text *said) {
  md_text t = {0};
  for (const char *s = said->s; *s;) {
    int len = (int)strcspn(s, "\n");
    char line[400];
    snprintf(line, sizeof line, "%.*s", len, s);
    if (strstr(line, " xxh3 ")) md_put(&t, "%s\n", line);
    s += len + (s[len] == '\n');
  }
  md_put(&t, "%s", "");
  return t;
}

static bool begins(const char *text, const char *with) {
  return !strncmp(text, with, strlen(with));
}

// What a fault at this call has to come to.
static const char *wrong(const char *call, int fault, int code, const md_text *said,
                         const md_text *results, const md_text *log) {
  bool is_search = begins(call, "cuGetProcAddress") || begins(call, "cuInit") ||
                   begins(call, "cuDriverGetVersion") || begins(call, "cuDeviceGet") ||
                   begins(call, "cuDeviceTotalMem");
  md_text now = results_of(said);
  bool is_same = !strcmp(now.s, results->s);
  md_text_free(&now);
  if (strstr(log->s, "leak: ")) return "something is not given back";
  if (code == 0) return is_same ? NULL : "the results are others, and nothing was said";
  int wanted = is_search                         ? NO_DEVICE
               : strstr(said->s, "error[E0648]") ? NOTHING_TO_READ
                                                 : faults[fault].code;
  if (code != wanted) return "another exit code";
  if (begins(call, "cuGetProcAddress"))
    return strstr(said->s, "has no cu") ? NULL : "the function is not named";
  return strstr(said->s, faults[fault].name) ? NULL : "the driver's words are missing";
}

static void try(char *const argv[], const char *call, int n, int fault, const md_text *results) {
  char text[60];
  snprintf(text, sizeof text, "any:%d:%d", n, faults[fault].error);
  setenv("MODIST_STAND_IN_FAULT", text, 1);
  unlink("log");
  int code = run(argv);
  md_text said = read_file("said"), log = read_file("log");
  const char *why = wrong(call, fault, code, &said, results, &log);
  harmless += !code && !why;
  if (why) {
    printf("FAILED %s with %s: %s; exit code %d\n%s%s", call, text, why, code, said.s,
           strstr(log.s, "leak: ") ? strstr(log.s, "leak: ") : "");
    failed++;
  }
  md_text_free(&said);
  md_text_free(&log);
  unsetenv("MODIST_STAND_IN_FAULT");
}

// The names of calls, from the log of a run without faults.
static int calls_of(const md_text *log, char (**names)[64]) {
  int num = 0, cap = 0;
  for (const char *s = log->s; *s; s += strcspn(s, "\n") + 1) {
    struct name {
      char text[64];
    } name;
    int n = 0;
    if (sscanf(s, "%d %63s", &n, name.text) == 2 && n == num + 1) {
      struct name *all = (struct name *)*names;
      MD_PUSH(all, num, cap, name);
      *names = (char(*)[64])all;
    }
  }
  return num;
}

static void sweep(char *const argv[], int num_faults) {
  unlink("log");
  int code = run(argv);
  md_text said = read_file("said"), log = read_file("log"), results = results_of(&said);
  if (code || strstr(log.s, "leak: ")) {
    printf("FAILED without a fault: exit code %d\n%s%s", code, said.s, log.s);
    failed++;
  }
  char(*name)[64] = NULL;
  int num = calls_of(&log, &name);
  for (int n = 1; n <= num; n++)
    for (int f = 0; f < num_faults; f++) try(argv, name[n - 1], n, f, &results);
  printf("%d calls, each with %d errors; %d without consequence\n", num, num_faults, harmless);
  harmless = 0;
  free(name);
  md_text_free(&said);
  md_text_free(&log);
  md_text_free(&results);
}

static void set_environment(const char *stand_ins) {
  char path[600];
  snprintf(path, sizeof path, "%s/libnvrtc_double.so", stand_ins);
  setenv("MODIST_NVRTC", path, 1);
  setenv("LD_LIBRARY_PATH", stand_ins, 1);
  setenv("MODIST_CACHE", folder, 1);
  setenv("MODIST_STAND_IN_TEXTS", folder, 1);
  setenv("MODIST_STAND_IN_LOG", "log", 1);
  setenv("NO_COLOR", "1", 1);
}

int main(int argc, char **argv) {
  MD_ASSERT(argc == 4, "test_driver_faults MODISTC MODIST_RT FOLDER");
  char *doctor[] = {argv[1], "targets", NULL};
  char *compile[] = {argv[1], "compile",  "step.mdg", "--target=cuda:sm_90", "--no-ptx", "-q",
                     "-o",    "step.mdx", NULL};
  char *plain[] = {argv[2], "step.mdx", "--device=cuda:0", "--steps=3", NULL};
  char *timed[] = {argv[2],       "step.mdx", "--device=cuda:0", "--steps=2",
                   "--check-nan", "--times",  "--trace=t.json",  NULL};
  MD_ASSERT(mkdtemp(folder) && chdir(folder) == 0, "no folder");
  FILE *f = fopen("step.mdg", "w");
  MD_ASSERT(f && fputs(step, f) >= 0 && fclose(f) == 0, "no graph");
  run(doctor);
  md_text said = read_file("said");
  bool has_nvrtc = strstr(said.s, "NVRTC 1") != NULL;
  md_text_free(&said);
  set_environment(argv[3]);
  if (has_nvrtc && run(compile) != 0) {
    said = read_file("said");
    printf("FAILED to compile: %s\n", said.s);
    return EXIT_FAILURE;
  }
  if (has_nvrtc) {
    sweep(plain, MD_COUNT(faults));
    sweep(timed, 2);
  }
  char command[60];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  if (system(command) != 0) failed++;
  printf(has_nvrtc ? "%d failed\n" : "skipped: no NVRTC\n", failed);
  return has_nvrtc ? failed != 0 : 77;
}
