// SPDX-License-Identifier: Apache-2.0
// The only file that speaks to NVRTC. It is opened when it is first asked for, from MODIST_NVRTC or
// the usual places, and its functions are declared here: building modist needs no CUDA.
#include "codegen/cuda/cuda.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct program *Program;  // nvrtcProgram

static struct Nvrtc {
  pthread_once_t once;
  void *lib;
  char why[256];  // it is not there
  int (*version)(int *, int *);
  int (*num_archs)(int *);
  int (*archs)(int *);
  int (*create)(Program *, const char *, const char *, int, const char *const *,
                const char *const *);
  int (*compile)(Program, int, const char *const *);
  int (*destroy)(Program *);
  int (*log_size)(Program, size_t *);
  int (*log)(Program, char *);
  int (*ptx_size)(Program, size_t *);
  int (*ptx)(Program, char *);
  int (*cubin_size)(Program, size_t *);
  int (*cubin)(Program, char *);
  const char *(*error_text)(int);
} nvrtc = {.once = PTHREAD_ONCE_INIT};

static void *open_any(void) {
  static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
  static const char *const folders[] = {"lib64", "lib", "targets/x86_64-linux/lib"};
  const char *roots[] = {getenv("CUDA_HOME"), getenv("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"};
  const char *own = getenv("MODIST_NVRTC");
  if (own && *own) return dlopen(own, RTLD_NOW | RTLD_LOCAL);
  for (int i = 0; i < MD_COUNT(names); i++) {
    void *lib = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (lib) return lib;
  }
  for (int r = 0; r < MD_COUNT(roots); r++) {
    for (int f = 0; roots[r] && *roots[r] && f < MD_COUNT(folders); f++) {
      for (int i = 0; i < MD_COUNT(names); i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s/%s", roots[r], folders[f], names[i]);
        void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (lib) return lib;
      }
    }
  }
  return NULL;
}

static void open_once(void) {
  nvrtc.lib = open_any();
  if (!nvrtc.lib) {
    const char *why = dlerror();
    snprintf(nvrtc.why, sizeof nvrtc.why, "%s", why ? why : "not found");
    return;
  }
  struct {
    const char *name;
    void *to;
  } symbols[] = {
      {"nvrtcVersion", &nvrtc.version},
      {"nvrtcGetNumSupportedArchs", &nvrtc.num_archs},
      {"nvrtcGetSupportedArchs", &nvrtc.archs},
      {"nvrtcCreateProgram", &nvrtc.create},
      {"nvrtcCompileProgram", &nvrtc.compile},
      {"nvrtcDestroyProgram", &nvrtc.destroy},
      {"nvrtcGetProgramLogSize", &nvrtc.log_size},
      {"nvrtcGetProgramLog", &nvrtc.log},
      {"nvrtcGetPTXSize", &nvrtc.ptx_size},
      {"nvrtcGetPTX", &nvrtc.ptx},
      {"nvrtcGetCUBINSize", &nvrtc.cubin_size},
      {"nvrtcGetCUBIN", &nvrtc.cubin},
      {"nvrtcGetErrorString", &nvrtc.error_text},
  };
  for (int i = 0; i < MD_COUNT(symbols); i++) {
    void *symbol = dlsym(nvrtc.lib, symbols[i].name);
    memcpy(symbols[i].to, &symbol, sizeof symbol);
    if (symbol) continue;
    snprintf(nvrtc.why, sizeof nvrtc.why, "%s is not in it", symbols[i].name);
    dlclose(nvrtc.lib);
    nvrtc.lib = NULL;
    return;
  }
}

const char *md_nvrtc_path(void) {
  pthread_once(&nvrtc.once, open_once);
  Dl_info info;
  void *symbol = NULL;
  memcpy(&symbol, &nvrtc.version, sizeof symbol);
  return nvrtc.lib && dladdr(symbol, &info) && info.dli_fname ? info.dli_fname : NULL;
}

static bool is_there(md_diags *d) {
  pthread_once(&nvrtc.once, open_once);
  if (nvrtc.lib) return true;
  char clean[256];
  md_error(d, E0442, MD_NOWHERE, "NVRTC cannot be opened: %s",
           md_clean(nvrtc.why, clean, sizeof clean));
  const char *own = getenv("MODIST_NVRTC");
  if (own && *own)
    md_note(d, MD_NOWHERE, "MODIST_NVRTC names %s", md_clean(own, clean, sizeof clean));
  else
    md_note(
        d, MD_NOWHERE,
        "looked for libnvrtc.so.13, .so.12 and .so where the loader looks, then in lib64, lib and "
        "targets/x86_64-linux/lib of CUDA_HOME, CUDA_PATH, /usr/local/cuda and /opt/cuda");
  md_hint(d, "install CUDA 12 or 13, or set MODIST_NVRTC=/path/to/libnvrtc.so");
  return false;
}

bool md_nvrtc_version(int *major, int *minor, md_diags *d) {
  return is_there(d) && nvrtc.version(major, minor) == 0;
}

int md_nvrtc_archs(int *sm, int max, md_diags *d) {
  int num = 0;
  if (!is_there(d) || nvrtc.num_archs(&num) != 0 || num <= 0) return 0;
  int *all = md_calloc((size_t)num, sizeof *all);
  num = nvrtc.archs(all) == 0 ? MD_MIN(num, max) : 0;
  memcpy(sm, all, sizeof *sm * (size_t)num);
  free(all);
  return num;
}

// The log has NUL bytes in the middle.
static char *read_log(Program p) {
  size_t size = 0;
  nvrtc.log_size(p, &size);
  char *log = md_calloc(size + 1, 1);
  if (size) nvrtc.log(p, log);
  for (size_t i = 0; i + 1 < size; i++)
    if (!log[i]) log[i] = '\n';
  return log;
}

// The log from its first error on: warnings before it would fill the message.
static const char *from_error(const char *log) {
  const char *error = log ? strstr(log, "error:") : NULL;
  while (error && error > log && error[-1] != '\n') error--;
  return error ? error : log;
}

static bool refused(const char *name, const char *what, int error, const char *log, md_diags *d) {
  md_error(d, E0443, MD_NOWHERE, "%s: NVRTC refuses the kernels (%s: %s)", name, what,
           nvrtc.error_text(error));
  log = from_error(log);
  for (int lines = 0; log && *log && lines < 8;) {
    size_t len = strcspn(log, "\n");
    char line[400], clean[400];
    snprintf(line, sizeof line, "%.*s", (int)MD_MIN(len, sizeof line - 1), log);
    if (len) md_note(d, MD_NOWHERE, "%s", md_clean(line, clean, sizeof clean));
    lines += len > 0;
    log += len + (log[len] == '\n');
  }
  return false;
}

// -v reports registers and spills; PTX alone never meets ptxas.
static const char *const options[] = {"--std=c++17", "-default-device", "--ptxas-options=-v"};

// ptxas rather spills a few bytes than miss the next number of blocks that fit a multiprocessor. Told a
// number of registers, it mostly takes what it needs; without its last optimisations, always so far. What
// it cannot have in flight behind one another (C7514) may run one by one: another warpgroup fills the gap.
static const char *const efforts[] = {NULL, "--maxrregcount=255", "--ptxas-options=--opt-level=1",
                                      "-DMD_ONE_BY_ONE_"};

static void put_options(md_text *to) {
  for (int i = 0; i < MD_COUNT(options); i++) md_put(to, " %s", options[i]);
  for (int i = 1; i < MD_COUNT(efforts); i++) md_put(to, " or %s", efforts[i]);
}

void md_nvrtc_describe(md_text *to) {
  int major, minor;
  md_diags *quiet = md_diags_create();
  if (md_nvrtc_version(&major, &minor, quiet)) md_put(to, "NVRTC %d.%d", major, minor);
  md_diags_destroy(quiet);
  put_options(to);
}

bool md_nvrtc_key(const char *text, md_cuda_arch arch, bool ptx, md_digest *key, md_diags *d) {
  int major, minor;
  if (!md_nvrtc_version(&major, &minor, d)) return false;
  md_text all = {0};
  md_put(&all, "NVRTC %d.%d %s_%d%.1s", major, minor, ptx ? "compute" : "sm", arch.sm,
         &arch.suffix);
  put_options(&all);
  md_put(&all, "\n%s%s", md_cuda_prelude(arch), text);
  *key = md_digest_of(all.s, all.len);
  md_text_free(&all);
  return true;
}

static bool attempt(const char *text, const char *name, md_cuda_arch arch, bool ptx, int effort,
                    md_cubin *out, md_diags *d) {
  *out = (md_cubin){0};
  md_text all = {0};
  md_put(&all, "#include \"md_prelude.h\"\n#line 1 \"%s\"\n", name);
  md_put_bytes(&all, text, strlen(text));
  const char *headers[] = {md_cuda_prelude(arch)}, *header_names[] = {"md_prelude.h"};
  char target[40], suffix[2] = {arch.suffix, 0};
  snprintf(target, sizeof target, "--gpu-architecture=%s_%d%s", ptx ? "compute" : "sm", arch.sm,
           suffix);
  const char *option[2 + MD_COUNT(options)] = {target};
  int num = 1 + MD_COUNT(options) - ptx;
  memcpy(option + 1, options, sizeof options);
  if (efforts[effort]) option[num++] = efforts[effort];
  Program p = NULL;
  char *log = NULL;
  bool ok = false;
  int error = nvrtc.create(&p, all.s, name, 1, headers, header_names);
  if (error) {
    refused(name, "nvrtcCreateProgram", error, NULL, d);
    goto out;
  }
  error = nvrtc.compile(p, num, option);
  log = read_log(p);
  if (error) {
    refused(name, target, error, log, d);
    goto out;
  }
  if (!ptx && !md_cuda_check_log(log, name, d)) goto out;
  error = ptx ? nvrtc.ptx_size(p, &out->bytes) : nvrtc.cubin_size(p, &out->bytes);
  out->data = md_malloc(out->bytes + 1);
  if (!error) error = ptx ? nvrtc.ptx(p, out->data) : nvrtc.cubin(p, out->data);
  out->data[out->bytes] = '\0';
  if (ptx && out->bytes && !out->data[out->bytes - 1]) out->bytes--;  // PTX counts its final NUL
  ok = !error || refused(name, "nvrtcGetCUBIN", error, NULL, d);
  if (ok) {
    out->log = log;
    log = NULL;
  }
out:
  if (!ok) {
    free(out->data);
    *out = (md_cubin){0};
  }
  free(log);
  md_text_free(&all);
  if (p) nvrtc.destroy(&p);
  return ok;
}

bool md_nvrtc_compile(const char *text, const char *name, md_cuda_arch arch, bool ptx,
                      md_cubin *out, md_diags *d) {
  if (!is_there(d)) return false;
  int last = ptx ? 0 : MD_COUNT(efforts) - 1;
  for (int i = 0; i < last; i++) {
    md_diags *quiet = md_diags_create();
    bool ok = attempt(text, name, arch, ptx, i, out, quiet);
    md_diags_destroy(quiet);
    if (ok) return true;
  }
  return attempt(text, name, arch, ptx, last, out, d);
}
