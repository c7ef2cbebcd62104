// SPDX-License-Identifier: Apache-2.0
// inspect, targets, doctor, cache: what a file is, what this machine has.
#include "modistc/modistc.h"

#include "base/file.h"
#include "base/safetensors.h"
#include "codegen/cpu/cpu.h"
#include "codegen/cuda/cuda.h"
#include "runtime/video/video.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool inspect_safetensors(md_cli *cli, const char *path) {
  md_safetensors *s = md_safetensors_read(path, cli->diags);
  if (!s) return false;
  char clean[256];
  for (int i = 0; i < s->num_meta; i++)
    printf("# %s: %s\n", s->meta[i].key, md_clean(s->meta[i].value, clean, sizeof clean));
  for (int i = 0; i < s->num; i++) {
    const md_st_tensor *t = &s->tensor[i];
    printf("%-48s %-5s [", md_clean(t->name, clean, sizeof clean), md_dtype_name(t->dtype));
    for (int j = 0; j < t->rank; j++) printf("%s%lld", j ? "," : "", (long long)t->dim[j]);
    puts("]");
  }
  md_safetensors_destroy(s);
  return true;
}

static md_status run_inspect(md_cli *cli) {
  if (!md_cli_args(cli, 1, 1, "takes an artefact (.mdx) or a safetensors file"))
    return MD_ERR_USAGE;
  const char *path = cli->arg[0];
  size_t len = strlen(path);
  if (len > 4 && strcmp(path + len - 4, ".mdx") == 0) {
    md_json j = {0};
    bool ok = md_artefact_inspect(path, &j, cli->diags);
    if (ok) puts(j.out.s);
    md_text_free(&j.out);
    return ok ? MD_OK : md_diags_status(cli->diags);
  }
  return inspect_safetensors(cli, path) ? MD_OK : md_diags_status(cli->diags);
}
const md_command md_cmd_inspect = {.name = "inspect",
                                   .group = "Compile and run",
                                   .usage = "FILE",
                                   .doc = "what an artefact or a safetensors file holds",
                                   .run = run_inspect};

static md_status run_targets(md_cli *cli) {
  if (!md_cli_args(cli, 0, 0, "takes no argument")) return MD_ERR_USAGE;
  printf("%-20s %-28s %s\n", "target", "code", "here");
  const md_cpu *native = md_cpu_native();
  for (int i = md_cpu_count() - 1; i >= 0; i--) {
    const md_cpu *c = md_cpu_at(i);
    char code[64];
    snprintf(code, sizeof code, "LLVM %s, %d lanes", c->llvm_cpu, c->lanes);
    printf("cpu --cpu=%-10s %-28s %s\n", c->name, code,
           c == native                 ? "yes (default)"
           : c->level <= native->level ? "yes"
                                       : "no");
  }
  int major, minor, sm[64];
  md_diags *quiet = md_diags_create();
  if (md_nvrtc_version(&major, &minor, quiet)) {
    int num = md_nvrtc_archs(sm, MD_COUNT(sm), quiet);
    for (int i = 0; i < num; i++)
      printf("cuda:sm_%-12d NVRTC %d.%d%20s compile only\n", sm[i], major, minor, "");
  } else {
    puts("cuda                 no NVRTC found (MODIST_NVRTC=/path/to/libnvrtc.so)");
  }
  md_diags_destroy(quiet);
  return MD_OK;
}
const md_command md_cmd_targets = {.name = "targets",
                                   .group = "Discovery",
                                   .usage = "",
                                   .doc = "list what can be compiled for, with the text to paste",
                                   .run = run_targets};

static md_status run_doctor(md_cli *cli) {
  printf("modist %s, artefact ABI %d\n", MODIST_VERSION, MD_ABI_VERSION);
  char llvm[32], ffmpeg[64];
  md_cpu_llvm_version(llvm, sizeof llvm);
  md_video_library_version(ffmpeg, sizeof ffmpeg);
  printf("LLVM      %s\nFFmpeg    %s\n", llvm, ffmpeg);
  int major, minor;
  md_diags *quiet = md_diags_create();
  if (md_nvrtc_version(&major, &minor, quiet)) printf("NVRTC     %d.%d\n", major, minor);
  else puts("NVRTC     not found");
  md_diags_destroy(quiet);
  const md_cpu *cpu = md_cpu_native();
  printf("CPU       %s: %d lanes, %d registers; %ld cores\n", cpu->name, cpu->lanes, cpu->registers,
         sysconf(_SC_NPROCESSORS_ONLN));
  const char *cache = md_cache_dir(cli->arena);
  printf("cache     %s\n", cache ? cache : "off: no folder of your own to keep it in");
  static const char *const variables[][2] = {{"MODIST_LOG", "log topics"},
                                             {"MODIST_CACHE", "cache folder"},
                                             {"MODIST_NVRTC", "path of NVRTC"},
                                             {"MODIST_LLD", "path of ld.lld"},
                                             {"SOURCE_DATE_EPOCH", "time stamp inside artefacts"},
                                             {"NO_COLOR", "no colour"}};
  for (int i = 0; i < MD_COUNT(variables); i++) {
    const char *v = getenv(variables[i][0]);
    printf("%-18s %-28s %s\n", variables[i][0], variables[i][1], v ? v : "-");
  }
  return MD_OK;
}
const md_command md_cmd_doctor = {
    .name = "doctor",
    .group = "Discovery",
    .usage = "",
    .doc = "versions, processor, cache, variables: to paste into a report",
    .run = run_doctor};

// Objects of the cache are files of its folder; nothing else is touched.
static md_status run_cache(md_cli *cli) {
  static const char *const verbs[] = {"ls", "prune"};
  if (!md_cli_args(cli, 1, 1, "takes ls or prune")) return MD_ERR_USAGE;
  bool prune = strcmp(cli->arg[0], verbs[1]) == 0;
  if (!prune && strcmp(cli->arg[0], verbs[0]) != 0) {
    md_error(cli->diags, E0401, MD_NOWHERE, "modistc cache: '%s' is neither ls nor prune",
             cli->arg[0]);
    return MD_ERR_USAGE;
  }
  const char *dir = md_cache_dir(cli->arena);
  DIR *d = dir ? opendir(dir) : NULL;
  int64_t files = 0, bytes = 0;
  for (struct dirent *e; d && (e = readdir(d));) {
    size_t len = strlen(e->d_name);
    if (len < 3 || strcmp(e->d_name + len - 2, ".o") != 0) continue;
    const char *path = md_format(cli->arena, "%s/%s", dir, e->d_name);
    struct stat s;
    if (lstat(path, &s) != 0 || !S_ISREG(s.st_mode)) continue;
    files++;
    bytes += s.st_size;
    if (prune) unlink(path);
  }
  if (d) closedir(d);
  char text[MD_FLOAT_CHARS];
  printf("%s %lld objects, %s in %s\n", prune ? "removed" : "cache:", (long long)files,
         md_bytes_text((double)bytes, text), dir ? dir : "-");
  return MD_OK;
}
const md_command md_cmd_cache = {.name = "cache",
                                 .group = "Compile and run",
                                 .usage = "ls|prune",
                                 .doc = "the compiled kernels kept on disk",
                                 .run = run_cache};
