// SPDX-License-Identifier: Apache-2.0
// The only file that speaks to cuDNN: opens it, from MODIST_CUDNN or the usual places, and makes its calls.
// Its functions are declared here: building modist needs no CUDA.
#include "runtime/exec/cudnn.h"

#include "base/log.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libcudnn.so.9"
#define PART "libcudnn_graph.so.9"

// Attributes and kinds that this file needs; cudnn_graph.c and cudnn_plan.c have others.
enum { DEVICEPROP = 38, DEVICEPROP_HANDLE = 2701, DEVICEPROP_JSON = 2702, A_HANDLE = 0 };

typedef struct Calls {
#define CALL(result, name, parameters) result(*name) parameters;
#include "runtime/exec/cudnn_calls.def"
#undef CALL
} Calls;

static const struct {
  const char *name;
  size_t at;
} calls[] = {
#define CALL(result, name, parameters) {#name, offsetof(Calls, name)},
#include "runtime/exec/cudnn_calls.def"
#undef CALL
};

static struct {
  pthread_once_t once;
  Calls call;
  bool is_usable;
  int version;
  char path[512], why[MD_CUDNN_WORDS];
} library = {.once = PTHREAD_ONCE_INIT};

struct md_cudnn {
  const Calls *call;
  void *handle;            // NULL: offline
  md_cudnn_making device;  // NULL: the handle's
  char *described;         // NULL: plans are not kept
  int failures;
};

// --- opening

static void *open_library(void) {
  static const char *const folders[] = {"lib64", "lib"};
  const char *roots[] = {getenv("CUDA_HOME"), getenv("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"};
  const char *own = getenv("MODIST_CUDNN");
  char path[600], first[300];
  if (own && *own) {
    void *lib = dlopen(own, RTLD_NOW | RTLD_LOCAL);
    const char *text = lib ? "" : dlerror();
    snprintf(library.why, sizeof library.why, "%s (MODIST_CUDNN names it)", text ? text : own);
    return lib;
  }
  void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (lib) return lib;
  const char *text = dlerror();
  snprintf(first, sizeof first, "%s", text ? text : LIBRARY ": not found");
  for (int r = 0; r < MD_COUNT(roots); r++) {
    for (int f = 0; roots[r] && *roots[r] && f < MD_COUNT(folders); f++) {
      snprintf(path, sizeof path, "%s/%s/" LIBRARY, roots[r], folders[f]);
      if ((lib = dlopen(path, RTLD_NOW | RTLD_LOCAL))) return lib;
    }
  }
  snprintf(library.why, sizeof library.why,
           "%s; nor is it in lib64 or lib of CUDA_HOME, CUDA_PATH, /usr/local/cuda and /opt/cuda",
           first);
  return NULL;
}

static bool find_calls(void *lib) {
  for (int i = 0; i < MD_COUNT(calls); i++) {
    void *symbol = dlsym(lib, calls[i].name);
    memcpy((char *)&library.call + calls[i].at, &symbol, sizeof symbol);
    if (symbol) continue;
    snprintf(library.why, sizeof library.why, "%s has no %s, which cuDNN 9.%d has", library.path,
             calls[i].name, MD_CUDNN_LEAST / 100 % 100);
    return false;
  }
  return true;
}

// cuDNN ends the process in its first call where it does not find this part, which lies beside it.
static bool open_part(void) {
  const char *end = strrchr(library.path, '/');
  char path[600];
  snprintf(path, sizeof path, "%.*s" PART, end ? (int)(end + 1 - library.path) : 0, library.path);
  if (dlopen(path, RTLD_NOW | RTLD_LOCAL)) return true;
  const char *text = dlerror();
  snprintf(library.why, sizeof library.why, "%s, which " LIBRARY " needs", text ? text : path);
  return dlopen(PART, RTLD_NOW | RTLD_LOCAL) != NULL;
}

static void open_once(void) {
  void *lib = open_library();
  if (!lib) return;
  Dl_info info;
  void *symbol = dlsym(lib, "cudnnGetVersion");
  bool is_known = symbol && dladdr(symbol, &info) && info.dli_fname;
  snprintf(library.path, sizeof library.path, "%s", is_known ? info.dli_fname : LIBRARY);
  if (symbol) {
    if (!open_part()) return;
    memcpy(&library.call.cudnnGetVersion, &symbol, sizeof symbol);
    library.version = (int)library.call.cudnnGetVersion();
  }
  int v = library.version;
  if (symbol && (v < MD_CUDNN_LEAST || v >= MD_CUDNN_BEYOND)) {
    int unit = v < 10000 ? 1000 : 10000;  // 8.9.2 is 8902, 9.1.0 is 90100
    snprintf(library.why, sizeof library.why, "%s is cuDNN %d.%d, and %s", library.path, v / unit,
             v % unit / 100,
             v < MD_CUDNN_LEAST ? "9.15 is the least: convolutions of video in bf16 are wrong or "
                                  "refused before"
                                : "only 9 is known here");
    return;
  }
  library.is_usable = find_calls(lib);
}

bool md_cudnn_find(int *version, const char **path, char *why) {
  pthread_once(&library.once, open_once);
  *version = library.version;
  *path = *library.path ? library.path : NULL;
  if (!library.is_usable) md_clean(library.why, why, MD_CUDNN_WORDS);
  return library.is_usable;
}

// --- calls

// "plan: CUDNN_STATUS_NOT_SUPPORTED (No valid engine)". False.
static bool failed(const Calls *v, const char *what, int status, char *why) {
  char words[400] = "", clean[400], name[80];
  v->cudnnGetLastErrorString(words, sizeof words);
  words[sizeof words - 1] = '\0';
  const char *text = v->cudnnGetErrorString(status);
  md_clean(text ? text : "an error without a name", name, sizeof name);
  md_clean(words, clean, sizeof clean);
  snprintf(why, MD_CUDNN_WORDS, "%s: %d, %s%s%s%s", what, status, name, *clean ? " (" : "", clean,
           *clean ? ")" : "");
  return false;
}

enum { NOT_SUPPORTED = 3 };  // of CUDNN_STATUS_*, in thousands

static bool did(md_cudnn_making *m, const char *what, int status) {
  if (status) m->has_failed = true;
  m->is_unsupported |= status / 1000 == NOT_SUPPORTED;
  return !status || failed(m->c->call, what, status, m->why);
}

void *md_cudnn_make(md_cudnn_making *m, int kind, const char *name) {
  void *d = NULL;
  if (m->has_failed) return NULL;
  MD_ASSERT(m->num < MD_CUDNN_MADE, "too many descriptors");
  if (!did(m, name, m->c->call->cudnnBackendCreateDescriptor(kind, &d))) return NULL;
  return m->made[m->num++] = d;
}

void md_cudnn_set(md_cudnn_making *m, void *to, int attribute, int type, int64_t num,
                  const void *values) {
  char what[40];
  if (m->has_failed) return;
  int status = m->c->call->cudnnBackendSetAttribute(to, attribute, type, num, values);
  snprintf(what, sizeof what, "attribute %d", attribute);
  did(m, what, status);
}

int64_t md_cudnn_get(md_cudnn_making *m, void *from, int attribute, int type, int64_t room,
                     void *values) {
  char what[40];
  int64_t num = 0;
  if (m->has_failed) return 0;
  int status = m->c->call->cudnnBackendGetAttribute(from, attribute, type, room, &num, values);
  snprintf(what, sizeof what, "attribute %d", attribute);
  return did(m, what, status) ? num : 0;
}

void md_cudnn_finish(md_cudnn_making *m, void *d, const char *name) {
  if (!m->has_failed) did(m, name, m->c->call->cudnnBackendFinalize(d));
}

void md_cudnn_drop(md_cudnn_making *m) {
  while (m->num > 0) m->c->call->cudnnBackendDestroyDescriptor(m->made[--m->num]);
}

bool md_cudnn_execute(const md_cudnn *c, void *plan, void *values, char *why) {
  int status = c->call->cudnnBackendExecute(c->handle, plan, values);
  return !status || failed(c->call, "cudnnBackendExecute", status, why);
}

// --- what plans are made for

static md_cudnn *create(char *why) {
  int version;
  const char *path;
  if (!md_cudnn_find(&version, &path, why)) return NULL;
  md_cudnn *c = md_calloc(1, sizeof *c);
  c->call = &library.call;
  return c;
}

md_cudnn *md_cudnn_open(void *stream, char *why) {
  md_cudnn *c = create(why);
  if (!c) return NULL;
  int status = c->call->cudnnCreate(&c->handle);
  if (status) {
    failed(c->call, "cudnnCreate", status, why);
    c->handle = NULL;
  } else if ((status = c->call->cudnnSetStream(c->handle, stream))) {
    failed(c->call, "cudnnSetStream", status, why);
  }
  if (!status) return c;
  md_cudnn_close(c);
  return NULL;
}

md_cudnn *md_cudnn_open_offline(const char *device, char *why) {
  md_cudnn *c = create(why);
  if (!c) return NULL;
  md_cudnn_making *m = &c->device;
  *m = (md_cudnn_making){.c = c, .why = why};
  void *d = md_cudnn_make(m, DEVICEPROP, "a device");
  md_cudnn_set(m, d, DEVICEPROP_JSON, MD_CUDNN_CHARS, (int64_t)strlen(device), device);
  md_cudnn_finish(m, d, "the description of a device");
  m->why = NULL;  // it is the caller's
  if (!m->has_failed) return c;
  md_cudnn_close(c);
  return NULL;
}

// Of the device that was described, or of the handle's.
void md_cudnn_keep_plans(md_cudnn *c) {
  char why[MD_CUDNN_WORDS] = "";
  md_cudnn_making of_handle = {.c = c, .why = why}, *m = &of_handle;
  void *d = md_cudnn_device(c);
  if (!d) {
    d = md_cudnn_make(m, DEVICEPROP, "a device");
    md_cudnn_set(m, d, DEVICEPROP_HANDLE, A_HANDLE, 1, &c->handle);
    md_cudnn_finish(m, d, "the description of a device");
  }
  int64_t num = md_cudnn_get(m, d, DEVICEPROP_JSON, MD_CUDNN_CHARS, 0, NULL);
  c->described = md_calloc((size_t)num + 1, 1);
  if (num) num = md_cudnn_get(m, d, DEVICEPROP_JSON, MD_CUDNN_CHARS, num, c->described);
  if (!num || m->has_failed) {
    md_log(MD_LOG_CACHE, MD_LEVEL_INFO, "plans of cuDNN are not kept: %s", why);
    free(c->described);
    c->described = NULL;
  }
  md_cudnn_drop(m);
}

void md_cudnn_close(md_cudnn *c) {
  if (!c) return;
  free(c->described);
  md_cudnn_drop(&c->device);
  if (c->handle) c->call->cudnnDestroy(c->handle);
  free(c);
}

char *md_cudnn_name(int v, char buf[32]) {
  snprintf(buf, 32, "cuDNN %d.%d.%d", v / 10000, v % 10000 / 100, v % 100);
  return buf;
}

int md_cudnn_version(const md_cudnn *c) { return (int)c->call->cudnnGetVersion(); }
void *md_cudnn_handle(const md_cudnn *c) { return c->handle; }
const char *md_cudnn_described(const md_cudnn *c) { return c->described; }
void *md_cudnn_device(const md_cudnn *c) { return c->device.num ? c->device.made[0] : NULL; }

int md_cudnn_failures(const md_cudnn *c) { return c->failures; }
void md_cudnn_count_failure(md_cudnn *c) { c->failures++; }
