// SPDX-License-Identifier: Apache-2.0
// inspect, doctor: what a file is, what this machine has.
#include "modistc/modistc.h"

#include "base/file.h"
#include "base/json_tree.h"
#include "base/safetensors.h"
#include "codegen/cpu/cpu.h"
#include "codegen/cuda/cuda.h"
#include "runtime/exec/cudnn.h"
#include "runtime/video/video.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// A text of several lines, such as the settings of a checkpoint, keeps them.
static void put_meta(md_arena *a, const md_st_meta *m) {
  char clean[256];
  printf("# %s:", md_clean(m->key, clean, sizeof clean));
  const char *indent = strchr(m->value, '\n') ? "\n#   " : " ";
  for (const char *s = m->value; *s;) {
    size_t len = strcspn(s, "\n");
    printf("%s%s", indent, md_clean(md_strndup(a, s, len), clean, sizeof clean));
    s += len + (s[len] == '\n');
  }
  putchar('\n');
}

static bool inspect_safetensors(md_cli *cli, const char *path) {
  md_safetensors *s = md_safetensors_read(path, cli->diags);
  if (!s) return false;
  char clean[256];
  for (int i = 0; i < s->num_meta; i++) put_meta(cli->arena, &s->meta[i]);
  for (int i = 0; i < s->num; i++) {
    const md_st_tensor *t = &s->tensor[i];
    printf("%-48s %-5s [", md_clean(t->name, clean, sizeof clean), md_dtype_name(t->dtype));
    for (int j = 0; j < t->rank; j++) printf("%s%lld", j ? "," : "", (long long)t->dim[j]);
    puts("]");
  }
  md_safetensors_destroy(s);
  return true;
}

static double number(const md_tree *map, const char *key) {
  double x = 0;
  md_tree_float(md_tree_get(map, key), &x);
  return x;
}

static void put_bytes(const char *what, const md_tree *map, const char *key) {
  char text[MD_FLOAT_CHARS];
  printf("%s %s", what, md_bytes_text(number(map, key), text));
}

static void put_tensors(const md_tree *artefact, const char *kind) {
  const md_tree *list = md_tree_get(artefact, kind);
  for (int i = 0; list && i < list->num; i++)
    printf("%-8s %-40s %s\n", i ? "" : kind, md_tree_str(md_tree_get(&list->item[i], "name")),
           md_tree_str(md_tree_get(&list->item[i], "type")));
}

// Code of CUDA kernels is shown with its target.
static bool is_code(const char *member) {
  const char *dot = strrchr(member, '.');
  return dot && (!strcmp(dot, ".cubin") || !strcmp(dot, ".ptx"));
}

static void put_variants(const md_tree *artefact) {
  const md_tree *list = md_tree_get(artefact, "targets");
  for (int i = 0; list && i < list->num; i++) {
    const md_tree *v = &list->item[i], *kernels = md_tree_get(v, "kernels");
    double bytes = 0;
    char text[MD_FLOAT_CHARS];
    for (int k = 0; kernels && k < kernels->num; k++) bytes += number(&kernels->item[k], "bytes");
    printf("code     %s: %.0f launches, %d kernels of %s", md_tree_str(md_tree_get(v, "target")),
           number(v, "launches"), kernels ? kernels->num : 0, md_bytes_text(bytes, text));
    put_bytes("; workspace", v, "workspace");
    puts("");
    for (int k = 0; kernels && k < kernels->num; k++) {
      const md_tree *g = &kernels->item[k];
      printf("         %-20s %-26s %4.0f threads", md_tree_str(md_tree_get(g, "symbol")),
             md_tree_str(md_tree_get(g, "member")), number(g, "threads"));
      if (number(g, "registers") > 0)
        printf(", %3.0f registers, %.0f bytes shared", number(g, "registers"), number(g, "shared"));
      puts("");
    }
  }
}

// What lies beside the artefact, as one.
static void put_shared(const md_tree *members) {
  int num = 0;
  double bytes = 0;
  char text[MD_FLOAT_CHARS];
  for (int i = 0; members && i < members->num; i++) {
    if (!md_tree_true(md_tree_get(&members->item[i], "shared"))) continue;
    bytes += number(&members->item[i], "deflated");
    num++;
  }
  if (num)
    printf("         %-16s%s in %d files beside it, shared\n", "kernels/",
           md_bytes_text(bytes, text), num);
}

// What the JSON says, for people: without the launches one by one.
static void artefact_table(const md_tree *t) {
  printf("target   %s%s\n", md_tree_str(md_tree_get(t, "target")),
         md_tree_true(md_tree_get(t, "runs_here")) ? "" : " (does not run here)");
  const md_tree *members = md_tree_get(t, "members"), *memory = md_tree_get(t, "memory");
  put_variants(t);
  for (int i = 0; members && i < members->num; i++) {
    if (is_code(md_tree_str(md_tree_get(&members->item[i], "name")))) continue;
    printf("%-8s %-16s", i ? "" : "members", md_tree_str(md_tree_get(&members->item[i], "name")));
    put_bytes("", &members->item[i], "bytes");
    puts("");
  }
  put_shared(members);
  put_bytes("memory   arena", memory, "arena");
  put_bytes(", states", memory, "states");
  put_bytes(", inputs", memory, "inputs");
  put_bytes(", workspace", memory, "workspace");
  const md_tree *launches = md_tree_get(t, "launches");
  double flops = 0;
  for (int i = 0; launches && i < launches->num; i++) flops += number(&launches->item[i], "flops");
  printf("\nlaunches %d a step, %.3f GFLOP\n", launches ? launches->num : 0, flops / 1e9);
  put_tensors(t, "inputs");
  put_tensors(t, "results");
  put_tensors(t, "states");
}

static bool inspect_artefact(md_cli *cli, const char *path, bool json) {
  md_json j = {0};
  bool ok = md_artefact_inspect(path, &j, cli->diags);
  if (ok && json) puts(j.out.s);
  const md_tree *t = NULL;
  if (ok && !json) t = md_json_read(path, j.out.s, j.out.len, E0632, cli->arena, cli->diags);
  if (t) artefact_table(t);
  md_text_free(&j.out);
  return ok && (json || t);
}

static md_status run_inspect(md_cli *cli) {
  static const char *const formats[] = {"table", "json", NULL};
  if (!md_cli_args(cli, 1, 1, "takes an artefact (.mdx) or a safetensors file"))
    return MD_ERR_USAGE;
  int format = md_cli_choice(cli, "format", formats, 0);
  if (format < 0) return MD_ERR_USAGE;
  const char *path = cli->arg[0];
  size_t len = strlen(path);
  bool is_artefact = len > 4 && strcmp(path + len - 4, ".mdx") == 0;
  bool ok = is_artefact ? inspect_artefact(cli, path, format == 1) : inspect_safetensors(cli, path);
  return ok ? MD_OK : md_diags_status(cli->diags);
}
static const md_option inspect_options[] = {
    {"format", 0, "FORM", "of artefacts: table (default) or json, which has every launch"}, {0}};
static const md_option_rule inspect_rules[] = {
    {"!:*.mdx", "format", "only artefacts (.mdx) have more than one", NULL}, {0}};
const md_command md_cmd_inspect = {.name = "inspect",
                                   .group = "Compile and run",
                                   .usage = "FILE [options]",
                                   .doc = "what an artefact or a safetensors file holds",
                                   .options = inspect_options,
                                   .rules = inspect_rules,
                                   .run = run_inspect};

// nvrtc: its major version; 0: there is none.
static void show_driver(int driver, int nvrtc) {
  printf("driver    CUDA %d.%d: ", driver / 1000, driver % 1000 / 10);
  if (md_gpu_loads(driver, nvrtc)) puts("runs CUDA programs");
  else
    printf("does not load what this NVRTC compiles: no train, run or tune on a GPU\n"
           "          install a driver of the 580 branch or newer, or let MODIST_NVRTC name the "
           "libnvrtc.so of CUDA %d\n",
           driver / 1000);
}

static void show_gpus(int nvrtc) {
  md_gpu_device device = {.count = 1};
  char text[MD_FLOAT_CHARS];
  md_gpu_lack lack;
  for (int i = 0; i < device.count; i++) {
    if (!md_gpu_find(i, &device, &lack)) {
      printf("driver    not usable: CUDA programs do not run here\n          %s\n          %s\n",
             lack.why, md_gpu_lack_hint(&lack));
      return;
    }
    if (i == 0) show_driver(device.driver, nvrtc);
    printf("cuda:%-4d %s (sm_%d), %s\n", i, device.name, device.sm,
           md_bytes_text((double)device.bytes, text));
  }
}

static void show_cudnn(void) {
  int v;
  const char *path;
  char why[MD_CUDNN_WORDS];
  if (md_cudnn_find(&v, &path, why))
    printf("cuDNN     %d.%d.%d from %s: --engine=cudnn does convolutions by it\n", v / 10000,
           v % 10000 / 100, v % 100, path);
  else printf("cuDNN     not usable: no --engine=cudnn, which nothing needs\n          %s\n", why);
}

// `enables`, where the library is there; what follows where it is not.
static void show_library(const char *name, const char *file, const char *enables,
                         const char *without) {
  void *lib = dlopen(file, RTLD_LAZY | RTLD_LOCAL);
  if (lib) printf("%-9s %s: %s\n", name, file, enables);
  else printf("%-9s not found (%s): %s\n", name, file, without);
  if (lib) dlclose(lib);
}

// "2.27.3 from /usr/lib/libnccl.so.2". False: why not.
static bool describe_nccl(char *to, size_t size) {
  int v = 0, (*version)(int *version) = NULL;
  void *lib = dlopen("libnccl.so.2", RTLD_LAZY | RTLD_LOCAL);
  const char *why = lib ? "libnccl.so.2 tells no version" : dlerror();
  void *symbol = lib ? dlsym(lib, "ncclGetVersion") : NULL;
  memcpy(&version, &symbol, sizeof version);
  Dl_info info;
  bool ok = version && !version(&v) && dladdr(symbol, &info) && info.dli_fname;
  if (ok)
    snprintf(to, size, "%d.%d.%d from %s", v / 10000, v % 10000 / 100, v % 100, info.dli_fname);
  else md_clean(why ? why : "libnccl.so.2 cannot be opened", to, size);
  if (lib) dlclose(lib);
  return ok;
}

static void show_nccl(void) {
  char text[600];
  if (describe_nccl(text, sizeof text))
    printf("NCCL      %s: nothing uses it yet, a run has one GPU\n", text);
  else
    printf("NCCL      not usable: several GPUs would need it, a run has one GPU\n          %s\n",
           text);
}

static void show_nvml(void) {
  char own[80], why[600];
  if (md_nvml_version(own, sizeof own, why, sizeof why))
    printf("NVML      of driver %s: tune keeps clocks beside its times\n", own);
  else printf("NVML      not usable: tune knows no clocks\n          %s\n", why);
}

static md_status run_doctor(md_cli *cli) {
  if (!md_cli_args(cli, 0, 0, "takes no argument")) return MD_ERR_USAGE;
  printf("modist %s, artefact ABI %d\n", MODIST_VERSION, MD_ABI_VERSION);
  char llvm[32], ffmpeg[64];
  md_cpu_llvm_version(llvm, sizeof llvm);
  md_video_library_version(ffmpeg, sizeof ffmpeg);
  printf("LLVM      %s\nFFmpeg    %s\n", llvm, ffmpeg);
  int major, minor;
  md_diags *quiet = md_diags_create();
  bool has_nvrtc = md_nvrtc_version(&major, &minor, quiet);
  if (has_nvrtc)
    printf("NVRTC     %d.%d from %s: compiles for CUDA targets\n", major, minor, md_nvrtc_path());
  else
    printf("NVRTC     not found: no PTX, cubins or artefacts for CUDA targets, text only\n%s",
           md_diags_text(quiet));
  md_diags_destroy(quiet);
  show_cudnn();
  show_nccl();
  show_library("NVDEC", "libnvcuvid.so.1", "data.decode=nvdec has the GPU decode videos",
               "the CPU decodes videos");
  show_nvml();
  show_gpus(has_nvrtc ? major : 0);
  const md_cpu *cpu = md_cpu_native();
  printf("CPU       %s: %d lanes, %d registers; %d cores\n", cpu->name, cpu->lanes, cpu->registers,
         md_pool_default());
  const char *cache = md_cache_dir(cli->arena);
  printf("cache     %s\n", cache ? cache : "off: no folder of your own to keep it in");
  static const char *const variables[][2] = {{"MODIST_LOG", "log topics"},
                                             {"MODIST_CACHE", "cache folder"},
                                             {"MODIST_NVRTC", "path of NVRTC"},
                                             {"MODIST_CUDNN", "path of cuDNN"},
                                             {"MODIST_SIMT", "path of modist_simt.so"},
                                             {"MODIST_LLD", "path of ld.lld"},
                                             {"SOURCE_DATE_EPOCH", "time stamp inside artefacts"},
                                             {"NO_COLOR", "no colour"},
                                             {"CLICOLOR_FORCE", "colour in pipes too"},
                                             {"XDG_CACHE_HOME", "where the cache folder is"},
                                             {"CUDA_HOME", "where NVRTC, cuDNN may be"},
                                             {"CUDA_PATH", "the same"}};
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
