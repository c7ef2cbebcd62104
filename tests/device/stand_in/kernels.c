// SPDX-License-Identifier: Apache-2.0
// Kernels that run. MODIST_STAND_IN_TEXTS is a folder with the text of each, NAME.cu, which the double
// of NVRTC wrote when it compiled it. When the first of them is to run, the host's compiler makes code
// of all that are loaded, and the build folder keeps it for other processes. MODIST_STAND_IN_CHECK=1
// has the checker look at every access. MODIST_STAND_IN_BAD=NAME:N:ERROR is a kernel that fails from its
// N-th run in a process on, NAME:N:hang one that does not end.
#include "tests/device/stand_in/stand_in.h"

#include <ctype.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/simt/simt.h"

enum { MAX_MAPS = 16 };  // of a launch

static Source **sources;
static int num, cap;
static simt_code **codes;  // as long as the process
static int num_codes, cap_codes;

static const char *folder(void) {
  const char *path = setting("TEXTS", NULL);
  MD_ASSERT(path, "a kernel is to run, but MODIST_STAND_IN_TEXTS names no folder of texts");
  return path;
}

static char *read_text(const char *name) {
  char path[600];
  snprintf(path, sizeof path, "%s/%s.cu", folder(), name);
  FILE *f = fopen(path, "r");
  MD_ASSERT(f, "there is no %s: NVRTC's double was not asked for this kernel", path);
  md_text text = {0};
  char line[4096];
  while (fgets(line, sizeof line, f)) md_put(&text, "%s", line);
  fclose(f);
  return text.s;
}

// --- parameters, from "const float *MD_RESTRICT a0", "MD_TMAP(a1)", "md_i64 a2"

static int number_bytes(const char *type) {
  static const struct {
    const char *type;
    int bytes;
  } known[] = {{"int", 4},    {"float", 4},  {"md_u32", 4}, {"md_i64", 8},
               {"md_u64", 8}, {"double", 8}, {"md_u8", 1},  {"md_bf16", 2}};
  for (int i = 0; i < MD_COUNT(known); i++)
    if (!strcmp(type, known[i].type)) return known[i].bytes;
  MD_ASSERT(false, "a parameter of type '%s'", type);
  return 0;
}

static void add_param(Source *s, const char *text, size_t len) {
  char all[160];
  snprintf(all, sizeof all, "%.*s", (int)len, text);
  Param p = {.kind = strstr(all, "MD_TMAP(") ? A_MAP : strchr(all, '*') ? A_POINTER : A_NUMBER};
  if (p.kind != A_MAP) {
    char *restricted = strstr(all, "MD_RESTRICT");
    size_t end = strlen(all);
    while (end && (isalnum((unsigned char)all[end - 1]) || all[end - 1] == '_')) end--;
    if (restricted) end = (size_t)(restricted - all);
    while (end && all[end - 1] == ' ') end--;
    snprintf(p.type, sizeof p.type, "%.*s", (int)end, all);
  } else {
    snprintf(p.type, sizeof p.type, "md_tmap");
  }
  p.bytes = p.kind == A_MAP ? 128 : p.kind == A_POINTER ? 8 : number_bytes(p.type);
  int align = p.kind == A_MAP ? 64 : p.bytes;
  p.offset = (int)md_round_up(s->bytes, align);
  s->bytes = p.offset + p.bytes;
  MD_PUSH(s->param, s->num, s->cap, p);
}

static void read_params(Source *s) {
  char head[100];
  snprintf(head, sizeof head, " %s(", s->name);
  const char *at = strstr(s->text, head);
  MD_ASSERT(at, "the text of %s has no such kernel", s->name);
  at += strlen(head);
  int depth = 0;
  for (const char *from = at; depth >= 0; at++) {
    MD_ASSERT(*at, "the parameters of %s do not end", s->name);
    depth += (*at == '(') - (*at == ')');
    if ((*at != ',' || depth) && depth >= 0) continue;
    while (from < at && isspace((unsigned char)*from)) from++;
    if (from < at) add_param(s, from, (size_t)(at - from));
    from = at + 1;
  }
}

static Source *source_of(const char *name) {
  for (int i = 0; i < num; i++)
    if (!strcmp(sources[i]->name, name)) return sources[i];
  Source *s = calloc(1, sizeof *s);
  MD_ASSERT(s, "out of memory");
  snprintf(s->name, sizeof s->name, "%s", name);
  s->text = read_text(name);
  read_params(s);
  MD_PUSH(sources, num, cap, s);
  return s;
}

const Source *kernel_source(const char *name) { return source_of(name); }

// --- code

static void put_entry(md_text *to, const Source *s) {
  md_put(to,
         "void %s_call(void *const *arg);\n__attribute__((no_sanitize(\"thread\"))) void "
         "%s_call(void *const *arg) {\n  (void)arg;\n  %s(",
         s->name, s->name, s->name);
  for (int i = 0; i < s->num; i++)
    md_put(to, "%s*(%s *)arg[%d]", i ? ", " : "", s->param[i].type, i);
  md_put(to, ");\n}\n");
}

// All kernels of what is loaded, in its order, so that the compiler is called once for a program.
static void put_loaded(Kind kind, md_text *to) {
  const char *made_by;
  const Image *image;
  for (int i = 0; (image = handle_next(kind, &i, &made_by));) {
    for (int k = 0; k < image->num; k++) {
      Source *s = source_of(image->kernel[k].facts.name);
      if (s->is_put) continue;
      s->is_put = true;
      simt_put_kernel(to, s->text);
      put_entry(to, s);
    }
  }
}

static void compile(void) {
  md_text all = {0};
  put_loaded(A_LIBRARY, &all);
  put_loaded(A_MODULE, &all);
  simt_code *code = simt_build_kept(all.s, NULL);
  MD_ASSERT(code, "the host's compiler refuses the kernels");
  MD_PUSH(codes, num_codes, cap_codes, code);
  md_text_free(&all);
  for (int i = 0; i < num; i++) {
    char entry[MD_KERNEL_NAME + 8];
    snprintf(entry, sizeof entry, "%s_call", sources[i]->name);
    if (sources[i]->is_put && !sources[i]->entry) sources[i]->entry = simt_entry(code, entry);
  }
}

static const Source *compiled(const char *name) {
  const Source *s = source_of(name);
  if (!s->entry) compile();
  return s;
}

// --- runs

// A map that lies in device memory, as the kernel is to see it.
static int place_map(const Source *s, const char *map, int i, simt_tmap *to) {
  Address at;
  memcpy(to, map, sizeof *to);
  memcpy(&at, &to->base, sizeof at);
  to->base = memory_at(at, 1);
  to->is_in_memory = true;
  return to->base ? 0 : refuse(ILLEGAL_ADDRESS, "%s: argument %d: a map of nothing", s->name, i);
}

static int place_arguments(const Source *s, unsigned char *values, void **arg) {
  static simt_tmap map[MAX_MAPS];  // of the one kernel that runs
  int num_maps = 0;
  for (int i = 0; i < s->num; i++) {
    arg[i] = values + s->param[i].offset;
    if (s->param[i].kind == A_NUMBER) continue;
    Address at;  // a map begins with one
    memcpy(&at, arg[i], sizeof at);
    char *memory = memory_at(at, 1);
    if (!memory) return refuse(ILLEGAL_ADDRESS, "%s: argument %d is no device memory", s->name, i);
    memcpy(arg[i], &memory, sizeof memory);
    if (strstr(s->param[i].type, "md_tmap *")) {
      MD_ASSERT(num_maps < MAX_MAPS, "%s has too many tensor maps", s->name);
      int error = place_map(s, memory, i, &map[num_maps]);
      if (error) return error;
      memory = (char *)&map[num_maps++];
      memcpy(arg[i], &memory, sizeof memory);
    }
  }
  return 0;
}

static int run(const Source *s, const Launch *l, void **arg) {
  simt_options how = {.order = order() == AT_ONCE ? SIMT_REVERSE : SIMT_FORWARD};
  simt_report r = simt_run(&(simt_launch){.kernel = s->entry,
                                          .arg = arg,
                                          .blocks = l->blocks,
                                          .threads = l->threads,
                                          .shared_bytes = l->shared_bytes},
                           how);
  const char *overrun = r.errors ? NULL : simt_overrun();
  if (overrun) snprintf(r.first, sizeof r.first, "it wrote beyond %s", overrun);
  if (!r.errors && !overrun) return 0;
  fprintf(stderr, "stand-in driver: kernel %s: %s\n", s->name, r.first);
  return refuse(overrun ? ILLEGAL_ADDRESS : LAUNCH_FAILED, "%s: %s", s->name, r.first);
}

static int bad(const char *name) {
  static int64_t runs;
  const char *text = setting("BAD", "");
  size_t len = strlen(name);
  if (strncmp(text, name, len) != 0 || text[len] != ':') return 0;
  char *how;
  long from = strtol(text + len + 1, &how, 10);
  if (++runs < from) return 0;
  while (!strcmp(how, ":hang")) pause();
  return refuse((int)strtol(how + 1, NULL, 10), "as MODIST_STAND_IN_BAD says");
}

int kernel_run(const Launch *l) {
  int error = 0;
  if (call_fault("kernel", &error)) return refuse(error, "as MODIST_STAND_IN_FAULT says");
  const Kernel *k = kernel_find(l->kernel);
  if (!k) return refuse(INVALID_PC, "the code of a kernel has been unloaded");
  if ((error = bad(k->facts.name))) return error;
  const Source *s = compiled(k->facts.name);
  _Alignas(64) unsigned char values[4096];
  void *arg[512];
  MD_ASSERT(s->bytes <= (int)sizeof values && s->num <= MD_COUNT(arg), "too many arguments");
  memcpy(values, l->args, (size_t)s->bytes);
  error = place_arguments(s, values, arg);
  return error ? error : run(s, l, arg);
}

bool launch_uses(const Launch *l, Address at, size_t bytes) {
  const Kernel *k = kernel_find(l->kernel);
  const Source *s = k ? source_of(k->facts.name) : NULL;
  for (int i = 0; s && i < s->num; i++) {
    Address x;
    if (s->param[i].kind == A_NUMBER) continue;
    memcpy(&x, l->args + s->param[i].offset, sizeof x);
    if (x - at < bytes) return true;
  }
  return false;
}

// The code of kernels is to find the fiber machine in this library, however that was opened.
__attribute__((constructor)) static void start(void) {
  dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL);
  simt_check(setting_number("CHECK", 0) != 0);
}
