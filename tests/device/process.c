// SPDX-License-Identifier: Apache-2.0
#include "tests/device/process.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS = 300 };

static char folder[] = "/tmp/modist_test_XXXXXX";

bool process_enter(const char *modistc, const char *stand_ins) {
  MD_ASSERT(mkdtemp(folder) && chdir(folder) == 0, "no folder");
  char *targets[] = {(char *)(uintptr_t)modistc, "targets", NULL}, path[600];
  process_run(targets);
  md_text said = process_read("said");
  bool has_nvrtc = strstr(said.s, "NVRTC 1") != NULL;
  md_text_free(&said);
  snprintf(path, sizeof path, "%s/libnvrtc_double.so", stand_ins);
  setenv("MODIST_NVRTC", path, 1);
  setenv("LD_LIBRARY_PATH", stand_ins, 1);
  // Texts and cubins belong together: NVRTC's double keeps a text before there is a cubin.
  const char *all_kept = getenv("MODIST_TEST_KEPT");
  if (all_kept) snprintf(path, sizeof path, "%s/stand_in", all_kept);
  else snprintf(path, sizeof path, "%s", folder);
  setenv("MODIST_CACHE", path, 1);
  setenv("MODIST_STAND_IN_TEXTS", path, 1);
  setenv("MODIST_STAND_IN_LOG", "log", 1);
  setenv("NO_COLOR", "1", 1);
  return has_nvrtc;
}

void process_leave(void) {
  char command[60];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  MD_ASSERT(chdir("/") == 0 && system(command) == 0, "%s", command);
}

int process_run(char *const argv[]) {
  unlink("log");
  pid_t child = fork();
  if (child == 0) {
    int out = open("said", O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (out < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0) _exit(127);
    alarm(SECONDS);
    execv(argv[0], argv);
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : PROCESS_SIGNAL + WTERMSIG(status);
}

int process_run_with(char *const argv[], const char *fault) {
  setenv("MODIST_STAND_IN_FAULT", fault, 1);
  int code = process_run(argv);
  unsetenv("MODIST_STAND_IN_FAULT");
  return code;
}

md_text process_results(const md_text *said, bool is_exact) {
  md_text t = {0};
  for (const char *s = said->s; *s;) {
    int len = (int)strcspn(s, "\n");
    char line[400];
    snprintf(line, sizeof line, "%.*s", len, s);
    const char *mean = strstr(line, "mean ");
    if (strstr(line, " xxh3 ") && is_exact) md_put(&t, "%s\n", line);
    else if (strstr(line, " xxh3 ") && mean) md_put(&t, "%.*s\n", (int)(mean - line) + 10, line);
    s += len + (s[len] == '\n');
  }
  md_put(&t, "%s", "");
  return t;
}

md_text process_read(const char *path) {
  md_text t = {0};
  char part[4096];
  FILE *f = fopen(path, "r");
  while (f && !feof(f) && !ferror(f)) md_put_bytes(&t, part, fread(part, 1, sizeof part, f));
  if (f) fclose(f);
  md_put(&t, "%s", "");
  return t;
}

bool process_leaks(const md_text *log) { return strstr(log->s, "leak: ") != NULL; }

int process_calls(const md_text *log, Call **calls) {
  Call *all = NULL, call;
  int num = 0, cap = 0;
  for (const char *s = log->s; *s; s += strcspn(s, "\n") + (strchr(s, '\n') != NULL)) {
    const char *name = s + strspn(s, "0123456789");  // "12 cuInit", then perhaps an error
    if (name == s || strncmp(name, " cu", 3) != 0) continue;
    snprintf(call.name, sizeof call.name, "%.*s", (int)strcspn(name + 1, " \n"), name + 1);
    const char *place = s + strcspn(s, "@\n");
    call.place = *place == '@' ? strtoull(place + 1, NULL, 16) : 0;
    MD_PUSH(all, num, cap, call);
  }
  *calls = all;
  return num;
}
