// SPDX-License-Identifier: Apache-2.0
// The functions of cuDNN that modist calls, as far as it calls them. A descriptor is a list of attributes;
// what a finished one needs is checked. Two engines offer themselves for a convolution: one whose results
// differ from run to run (MODIST_STAND_IN_CUDNN_RANDOM, 1, of them; MODIST_STAND_IN_CUDNN_NOTE, 4, says it),
// then one that is sound; and for gradients of weights a third, as sound, in less workspace. A plan's JSON is its operations, which MODIST_STAND_IN_CUDNN_STALE does not take back.
#include "tests/device/stand_in_cudnn/stand_in_cudnn.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ATTRIBUTES = 12, MAX_ENGINES = 3, SMALL_ENGINE = 2, SMALL_BYTES = 1800 };
enum {  // CUDNN_BACKEND_*_DESCRIPTOR
  POINTWISE = 0,
  CONVOLUTION = 1,
  ENGINE = 2,
  CONFIG = 3,
  HEURISTIC = 4,
  PLAN = 5,
  TO_Y = 10,
  TO_W = 11,
  TO_X = 12,
  POINTWISE_OP = 13,
  SUMS = 14,
  GRAPH = 15,
  PACK = 16,
  TENSOR = 17,
  DEVICE = 38
};

typedef struct Attribute {
  int name, type;
  int64_t num;
  char *bytes;
} Attribute;
typedef struct Descriptor {
  int kind, num;
  bool is_finished;
  int number;                // of a configuration or engine
  struct Descriptor *graph;  // that a heuristic was asked about
  Job *job;                  // of a plan
  Attribute *attribute;
} Descriptor;

// cuDNN, too, ends the process where its part is not there.
CUDNN(size_t) cudnnGetVersion(void) {
  void *part = dlopen("libcudnn_graph.so.9", RTLD_NOW | RTLD_NOLOAD);
  if (!part) abort();
  dlclose(part);
  return (size_t)strtol(cudnn_setting("VERSION", "91900"), NULL, 10);
}
CUDNN(const char *) cudnnGetErrorString(int status) {
  return status == BAD_PARAM            ? "CUDNN_STATUS_BAD_PARAM"
         : status == NOT_SUPPORTED_HERE ? "CUDNN_STATUS_NOT_SUPPORTED"
                                        : "CUDNN_STATUS_EXECUTION_FAILED";
}
CUDNN(void) cudnnGetLastErrorString(char *text, size_t size) {
  snprintf(text, size, "%s", cudnn_words());
}

// A function of the stand-in driver's own; NULL: the driver is another one.
static void *of_driver(const char *name) {
  void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  void *symbol = driver ? dlsym(driver, name) : NULL;
  if (driver) dlclose(driver);
  return symbol;
}

// --- handles: the stream

CUDNN(int) cudnnCreate(void **handle) {
  int status = cudnn_call(__func__);
  if (status) return status;
  *handle = calloc(1, sizeof(void *));
  MD_ASSERT(*handle, "out of memory");
  cudnn_alive(1);
  return 0;
}

CUDNN(int) cudnnDestroy(void *handle) {
  int status = cudnn_call(__func__);
  free(handle);
  cudnn_alive(-1);
  return status;
}

CUDNN(int) cudnnSetStream(void *handle, void *stream) {
  int (*keep)(void), status = cudnn_call(__func__);
  if (status) return status;
  *(void **)handle = stream;
  void *symbol = of_driver("cuStandInKeep");
  memcpy(&keep, &symbol, sizeof keep);
  if (keep) keep();
  return 0;
}

// --- attributes

static int64_t bytes_of(int type) {
  switch (type) {
  case 2:             // a truth value
  case 24: return 1;  // a character
  case 0:             // a handle
  case 3:             // an integer
  case 6:             // a pointer
  case 15: return 8;  // a descriptor
  default: return 4;  // f32, and words of an enumeration
  }
}

static const void *find(const Descriptor *d, int name) {
  for (int i = 0; d && i < d->num; i++)
    if (d->attribute[i].name == name) return d->attribute[i].bytes;
  return NULL;
}

static int64_t num_of(const Descriptor *d, int name) {
  for (int i = 0; d && i < d->num; i++)
    if (d->attribute[i].name == name) return d->attribute[i].num;
  return 0;
}

static Descriptor *descriptor_of(const Descriptor *d, int name) {
  Descriptor *of = NULL;
  const void *at = find(d, name);
  if (at) memcpy(&of, at, sizeof of);
  return of;
}

CUDNN(int) cudnnBackendCreateDescriptor(int kind, void **to) {
  int status = cudnn_call(__func__);
  if (status) return status;
  Descriptor *d = calloc(1, sizeof *d);
  MD_ASSERT(d, "out of memory");
  d->kind = kind;
  d->attribute = calloc(MAX_ATTRIBUTES, sizeof *d->attribute);
  MD_ASSERT(d->attribute, "out of memory");
  cudnn_alive(1);
  *to = d;
  return 0;
}

CUDNN(int) cudnnBackendDestroyDescriptor(void *at) {
  int status = cudnn_call(__func__);
  Descriptor *d = at;
  for (int i = 0; i < d->num; i++) free(d->attribute[i].bytes);
  free(d->attribute);
  free(d->job);
  free(d);
  cudnn_alive(-1);
  return status;
}

CUDNN(int)
cudnnBackendSetAttribute(void *to, int name, int type, int64_t num, const void *values) {
  int status = cudnn_call(__func__);
  Descriptor *d = to;
  if (status) return status;
  if (d->is_finished) return cudnn_refuse(BAD_PARAM, "it is finished");
  if (num < 1 || d->num == MAX_ATTRIBUTES)
    return cudnn_refuse(BAD_PARAM, "%lld values", (long long)num);
  Attribute *a = &d->attribute[d->num++];
  *a = (Attribute){.name = name, .type = type, .num = num};
  a->bytes = md_malloc((size_t)(num * bytes_of(type)));
  memcpy(a->bytes, values, (size_t)(num * bytes_of(type)));
  return 0;
}

// --- what a finished descriptor has

static int lacks(const Descriptor *d) {
  static const struct {
    int kind, attribute[8];
  } rows[] = {
      {CONVOLUTION, {100, 101, 102, 103, 104, 105, 106}},
      {TO_Y, {700, 701, 702, 703, 704, 705}},
      {TO_X, {706, 707, 708, 709, 710, 711}},
      {TO_W, {712, 713, 714, 715, 716, 717}},
      {POINTWISE, {1}},
      {POINTWISE_OP, {750, 751, 753}},
      {SUMS, {770, 771, 772, 773, 774}},
      {GRAPH, {801}},
      {HEURISTIC, {200, 201}},
      {TENSOR, {900, 901, 902, 903, 906}},
      {PACK, {1000, 1001, 1003}},
  };
  for (int i = 0; i < MD_COUNT(rows); i++)
    for (int k = 0; rows[i].kind == d->kind && rows[i].attribute[k]; k++)
      if (!find(d, rows[i].attribute[k])) return rows[i].attribute[k];
  return 0;
}

// --- plans

static bool is_set(const Descriptor *d, int name) {
  const char *yes = find(d, name);
  return yes && *yes;
}

static int tensor_of(Job *j, const Descriptor *operation, int name) {
  const Descriptor *d = descriptor_of(operation, name);
  if (!d) return -1;
  Tensor t = {.is_bf16 = *(const int *)find(d, 901) == 9,
              .is_nowhere = is_set(d, 907),
              .is_by_value = is_set(d, 908)};
  memcpy(&t.id, find(d, 906), sizeof t.id);
  for (int i = 0; i < j->num_tensors; i++)
    if (j->tensor[i].id == t.id) return i;
  memcpy(t.dim, find(d, 902), sizeof t.dim);
  memcpy(t.stride, find(d, 903), sizeof t.stride);
  MD_ASSERT(j->num_tensors < MAX_TENSORS, "too many tensors");
  j->tensor[j->num_tensors] = t;
  return j->num_tensors++;
}

static void add_op(Job *j, const Descriptor *d) {
  static const int names[3][4] = {{702, 704, 703, 705}, {708, 710, 709, 711}, {714, 716, 715, 717}};
  MD_ASSERT(j->num_ops < MAX_OPS, "too many operations");
  Op *o = &j->op[j->num_ops++];
  if (d->kind == POINTWISE_OP) {
    *o = (Op){.kind = OP_POINTWISE, .mode = *(const int *)find(descriptor_of(d, 750), 0)};
    o->x = tensor_of(j, d, 751), o->b = tensor_of(j, d, 752), o->y = tensor_of(j, d, 753);
  } else if (d->kind == SUMS) {
    *o = (Op){.kind = OP_SUMS};
    o->x = tensor_of(j, d, 772), o->y = tensor_of(j, d, 773), o->b = tensor_of(j, d, 774);
  } else {
    *o = (Op){.kind = OP_CONV,
              .mode = d->kind == TO_Y   ? FORWARD
                      : d->kind == TO_X ? TO_SOURCE
                                        : TO_WEIGHTS};
    const int *name = names[o->mode];
    const Descriptor *c = descriptor_of(d, name[0]);
    memcpy(o->dilation, find(c, 102), sizeof o->dilation);
    memcpy(o->stride, find(c, 103), sizeof o->stride);
    memcpy(o->pad, find(c, 105), sizeof o->pad);
    o->x = tensor_of(j, d, name[1]), o->b = tensor_of(j, d, name[2]),
    o->y = tensor_of(j, d, name[3]);
  }
}

static bool is_operation(const Descriptor *d) { return d->kind >= TO_Y && d->kind <= SUMS; }

static const Descriptor *operation_of(const Descriptor *graph, int i) {
  Descriptor *d;
  memcpy(&d, (const char *)find(graph, 801) + (size_t)i * sizeof d, sizeof d);
  return d;
}

static int64_t workspace_of(const Job *j) {
  static const int64_t of[3] = {1000, 1500, 2000};
  for (int i = 0; i < j->num_ops; i++)
    if (j->op[i].kind == OP_CONV) return of[j->op[i].mode];
  return 256;
}

static Job *job_of(const Descriptor *config) {
  const Descriptor *graph = config->graph;
  Job *j = md_calloc(1, sizeof *j);
  for (int i = 0; i < num_of(graph, 801); i++) add_op(j, operation_of(graph, i));
  j->workspace_bytes = config->number == SMALL_ENGINE ? SMALL_BYTES : workspace_of(j);
  return j;
}

#define JSON_BEGIN "{\"stand_in\": \""

// The job as JSON, malloc'ed.
static char *json_of(const Job *j, int64_t *num) {
  const unsigned char *byte = (const unsigned char *)j;
  md_text text = {0};
  md_put(&text, "%s", JSON_BEGIN);
  for (size_t i = 0; i < sizeof *j; i++) md_put(&text, "%02x", byte[i]);
  md_put(&text, "\"}");
  *num = (int64_t)text.len;
  return text.s;
}

// NULL: it is no such text.
static Job *job_of_json(const Descriptor *plan) {
  const char *text = find(plan, 405);
  size_t begin = strlen(JSON_BEGIN), len = (size_t)num_of(plan, 405);
  if (*cudnn_setting("STALE", "") || len != begin + 2 * sizeof(Job) + 2 ||
      memcmp(text, JSON_BEGIN, begin) != 0)
    return NULL;
  Job *j = md_calloc(1, sizeof *j);
  for (size_t i = 0; i < sizeof *j; i++) {
    const char hex[3] = {text[begin + 2 * i], text[begin + 2 * i + 1], 0};
    ((unsigned char *)j)[i] = (unsigned char)strtol(hex, NULL, 16);
  }
  return j;
}

static int finish_plan(Descriptor *d) {
  if (!find(d, 400) && !find(d, 407)) return cudnn_refuse(BAD_PARAM, "a plan for no device");
  if (*cudnn_setting("NO_PLAN", ""))
    return cudnn_refuse(NOT_SUPPORTED_HERE, "as MODIST_STAND_IN_CUDNN_NO_PLAN says");
  if (find(d, 401)) d->job = job_of(descriptor_of(d, 401));
  else if (find(d, 405)) d->job = job_of_json(d);
  return d->job ? 0 : cudnn_refuse(BAD_PARAM, "this is no plan");
}

static int check_operation(const Descriptor *d) {
  Job j = {0};
  add_op(&j, d);
  return op_is_sound(&j, &j.op[0]) ? 0 : cudnn_refuse(BAD_PARAM, "the sizes do not fit together");
}

CUDNN(int) cudnnBackendFinalize(void *at) {
  int status = cudnn_call(__func__);
  Descriptor *d = at;
  if (status) return status;
  int missing = lacks(d);
  if (missing) return cudnn_refuse(BAD_PARAM, "attribute %d is missing", missing);
  if (d->kind == DEVICE && !find(d, 2701) && !find(d, 2702))
    return cudnn_refuse(BAD_PARAM, "which device?");
  if (is_operation(d)) status = check_operation(d);
  if (d->kind == PLAN) status = finish_plan(d);
  if (d->kind == HEURISTIC) d->graph = descriptor_of(d, 201);
  d->is_finished = !status;
  return status;
}

// --- what descriptors say

// Engines for a kind of operation that MODIST_STAND_IN_CUDNN_WITHOUT names are not there: "12".
static int num_engines(const Descriptor *graph) {
  int num = SMALL_ENGINE;
  for (int i = 0; i < num_of(graph, 801); i++) {
    int kind = operation_of(graph, i)->kind;
    if (kind == atoi(cudnn_setting("WITHOUT", "0"))) return 0;
    if (kind == TO_W) num = MAX_ENGINES;
  }
  return num;
}

static int get_text(const char *text, int64_t len, int64_t room, int64_t *num, void *values) {
  *num = room ? MD_MIN(room, len) : len;
  if (room) memcpy(values, text, (size_t)*num);
  return 0;
}

static int get_json(const Descriptor *plan, int64_t room, int64_t *num, void *values) {
  int64_t len;
  char *text = json_of(plan->job, &len);
  get_text(text, len, room, num, values);
  free(text);
  return 0;
}

static int get_described(const Descriptor *d, int64_t room, int64_t *num, void *values) {
  const char *here = cudnn_setting("DEVICE", "stand-in"), *text = find(d, 2702);
  return get_text(text ? text : here, text ? num_of(d, 2702) : (int64_t)strlen(here), room, num,
                  values);
}

static int get_configs(const Descriptor *h, int64_t room, int64_t *num, void *values) {
  Descriptor *config[MAX_ENGINES];
  if (!room) cudnn_note("the choice of an engine");
  *num = num_engines(h->graph);
  if (!room) return 0;
  memcpy(config, values, sizeof config[0] * (size_t)MD_MIN(room, MAX_ENGINES));
  *num = MD_MIN(*num, room);
  for (int i = 0; i < *num; i++) {
    config[i]->number = i;
    config[i]->graph = h->graph;
    config[i]->is_finished = true;
  }
  return 0;
}

static int get_engine(const Descriptor *config, int64_t *num, void *values) {
  Descriptor *engine;
  memcpy(&engine, values, sizeof engine);
  engine->number = config->number;
  *num = 1;
  return 0;
}

CUDNN(int)
cudnnBackendGetAttribute(void *from, int name, int type, int64_t room, int64_t *num, void *values) {
  int status = cudnn_call(__func__), note = atoi(cudnn_setting("NOTE", "4"));
  const Descriptor *d = from;
  (void)type;
  if (status) return status;
  switch (name) {
  case 202: return get_configs(d, room, num, values);
  case 300: return get_engine(d, num, values);
  case 402:
    *num = 1;
    memcpy(values, &d->job->workspace_bytes, sizeof d->job->workspace_bytes);
    return 0;
  case 405: return get_json(d, room, num, values);
  case 2702: return get_described(d, room, num, values);
  case 1303:
    *num = MD_MIN(d->number, 1) <
           atoi(cudnn_setting("RANDOM", "1"));  // the small one as its neighbour
    if (*num && room) memcpy(values, &note, sizeof note);
    return 0;
  default: return cudnn_refuse(NOT_SUPPORTED_HERE, "attribute %d", name);
  }
}

// --- running a plan, by the stand-in driver

// False: the pack does not have it.
static bool find_tensor(const Descriptor *pack, Tensor *t) {
  const char *ids = find(pack, 1000), *at = find(pack, 1001);
  for (int64_t i = 0; i < num_of(pack, 1000); i++) {
    int64_t id;
    memcpy(&id, ids + i * 8, sizeof id);
    if (id != t->id) continue;
    memcpy(&t->at, at + i * 8, sizeof t->at);
    if (t->is_by_value) memcpy(&t->value, (const void *)(uintptr_t)t->at, sizeof t->value);
    return true;
  }
  return false;
}

typedef int Work(void *stream, StandInWork *work, const void *data, size_t bytes);

CUDNN(int) cudnnBackendExecute(void *handle, void *plan, void *pack) {
  int status = cudnn_call(__func__);
  if (status) return status;
  Job j = *((const Descriptor *)plan)->job;
  for (int i = 0; i < j.num_tensors; i++)
    if (!j.tensor[i].is_nowhere && !find_tensor(pack, &j.tensor[i]))
      return cudnn_refuse(BAD_PARAM, "tensor %lld has no address", (long long)j.tensor[i].id);
  memcpy(&j.workspace, find(pack, 1003), sizeof j.workspace);
  void *symbol = of_driver("cuStandInWork");
  Work *work;
  memcpy(&work, &symbol, sizeof work);
  if (!work) return cudnn_refuse(DRIVER_FAILED, "there is no stand-in for the driver");
  int error = work(*(void **)handle, job_run, &j, sizeof j);
  return error ? cudnn_refuse(DRIVER_FAILED, "the driver says %d", error) : 0;
}
