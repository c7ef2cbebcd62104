// SPDX-License-Identifier: Apache-2.0
// The functions of cuDNN that modist calls, as far as it calls them. A descriptor is a list of attributes;
// what a finished one needs is checked. Two engines offer themselves for a convolution: one whose results
// differ from run to run (MODIST_STAND_IN_CUDNN_RANDOM, 1, of them; MODIST_STAND_IN_CUDNN_NOTE, 4, says it),
// then one that is sound.
#include "tests/device/stand_in_cudnn/stand_in_cudnn.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ATTRIBUTES = 12, ROOM = 4096 };
enum {  // CUDNN_BACKEND_*_DESCRIPTOR
  CONVOLUTION = 1,
  ENGINE = 2,
  CONFIG = 3,
  HEURISTIC = 4,
  PLAN = 5,
  TO_Y = 10,
  TO_W = 11,
  TO_X = 12,
  GRAPH = 15,
  PACK = 16,
  TENSOR = 17,
  DEVICE = 38
};

typedef struct Attribute {
  int name, type;
  int64_t num;
  char bytes[ROOM];
} Attribute;
typedef struct Descriptor {
  int kind, num;
  bool is_finished;
  int number;                // of a configuration or engine
  struct Descriptor *graph;  // that a heuristic was asked about
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
  free(d->attribute);
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
  if (num < 1 || num * bytes_of(type) > ROOM || d->num == MAX_ATTRIBUTES)
    return cudnn_refuse(BAD_PARAM, "%lld values", (long long)num);
  Attribute *a = &d->attribute[d->num++];
  *a = (Attribute){.name = name, .type = type, .num = num};
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
      {GRAPH, {801}},
      {HEURISTIC, {200, 201}},
      {PLAN, {401}},
      {TENSOR, {900, 901, 902, 903, 906}},
      {PACK, {1000, 1001, 1003}},
      {DEVICE, {2702}},
  };
  for (int i = 0; i < MD_COUNT(rows); i++)
    for (int k = 0; rows[i].kind == d->kind && rows[i].attribute[k]; k++)
      if (!find(d, rows[i].attribute[k])) return rows[i].attribute[k];
  return 0;
}

static Tensor tensor_of(const Descriptor *operation, int name) {
  const Descriptor *d = descriptor_of(operation, name);
  Tensor t = {.is_bf16 = *(const int *)find(d, 901) == 9};
  memcpy(t.dim, find(d, 902), sizeof t.dim);
  memcpy(t.stride, find(d, 903), sizeof t.stride);
  return t;
}

static Job job_of(const Descriptor *operation) {
  Job j = {.direction = operation->kind == TO_Y   ? FORWARD
                        : operation->kind == TO_X ? TO_SOURCE
                                                  : TO_WEIGHTS};
  static const int names[3][4] = {{702, 704, 703, 705}, {708, 710, 709, 711}, {714, 716, 715, 717}};
  const int *name = names[j.direction];
  const Descriptor *c = descriptor_of(operation, name[0]);
  memcpy(j.dilation, find(c, 102), sizeof j.dilation);
  memcpy(j.stride, find(c, 103), sizeof j.stride);
  memcpy(j.pad, find(c, 105), sizeof j.pad);
  j.x = tensor_of(operation, name[1]);
  j.w = tensor_of(operation, name[2]);
  j.y = tensor_of(operation, name[3]);
  return j;
}

CUDNN(int) cudnnBackendFinalize(void *at) {
  int status = cudnn_call(__func__);
  Descriptor *d = at;
  if (status) return status;
  int missing = lacks(d);
  if (missing) return cudnn_refuse(BAD_PARAM, "attribute %d is missing", missing);
  if (d->kind == TO_Y || d->kind == TO_X || d->kind == TO_W) {
    Job j = job_of(d);
    if (!job_is_sound(&j)) return cudnn_refuse(BAD_PARAM, "the sizes do not fit together");
  }
  if (d->kind == PLAN && !find(d, 400) && !find(d, 407))
    return cudnn_refuse(BAD_PARAM, "a plan for no device");
  if (d->kind == PLAN && *cudnn_setting("NO_PLAN", ""))
    return cudnn_refuse(NOT_SUPPORTED_HERE, "as MODIST_STAND_IN_CUDNN_NO_PLAN says");
  if (d->kind == HEURISTIC) d->graph = descriptor_of(d, 201);
  d->is_finished = true;
  return 0;
}

// --- what descriptors say

// Engines for a kind of operation that MODIST_STAND_IN_CUDNN_WITHOUT names are not there: "12".
static int num_engines(const Descriptor *graph) {
  const Descriptor *operation = descriptor_of(graph, 801);
  return operation->kind == atoi(cudnn_setting("WITHOUT", "0")) ? 0 : 2;
}

static int64_t workspace_of(const Descriptor *graph) {
  int kind = descriptor_of(graph, 801)->kind;
  return kind == TO_Y ? 1000 : kind == TO_X ? 1500 : 2000;
}

static int get_configs(const Descriptor *h, int64_t room, int64_t *num, void *values) {
  Descriptor *config[2];
  *num = num_engines(h->graph);
  if (!room) return 0;
  memcpy(config, values, sizeof config[0] * (size_t)MD_MIN(room, 2));
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
  int64_t bytes;
  (void)type;
  if (status) return status;
  switch (name) {
  case 202: return get_configs(d, room, num, values);
  case 300: return get_engine(d, num, values);
  case 402:
    *num = 1;
    bytes = workspace_of(descriptor_of(d, 401)->graph);
    memcpy(values, &bytes, sizeof bytes);
    return 0;
  case 1303:
    *num = d->number < atoi(cudnn_setting("RANDOM", "1"));
    if (*num && room) memcpy(values, &note, sizeof note);
    return 0;
  default: return cudnn_refuse(NOT_SUPPORTED_HERE, "attribute %d", name);
  }
}

// --- running a plan, by the stand-in driver

static Address address_of(const Descriptor *pack, const Descriptor *tensor) {
  int64_t id, ids[3];
  Address at[3];
  memcpy(&id, find(tensor, 906), sizeof id);
  memcpy(ids, find(pack, 1000), sizeof ids);
  memcpy(at, find(pack, 1001), sizeof at);
  for (int i = 0; i < 3; i++)
    if (ids[i] == id) return at[i];
  return 0;
}

typedef int Work(void *stream, StandInWork *work, const void *data, size_t bytes);

CUDNN(int) cudnnBackendExecute(void *handle, void *plan, void *pack) {
  int status = cudnn_call(__func__);
  if (status) return status;
  const Descriptor *graph = descriptor_of(plan, 401)->graph, *operation = descriptor_of(graph, 801);
  static const int names[3][3] = {{704, 703, 705}, {710, 709, 711}, {716, 715, 717}};
  Job j = job_of(operation);
  const int *name = names[j.direction];
  j.x.at = address_of(pack, descriptor_of(operation, name[0]));
  j.w.at = address_of(pack, descriptor_of(operation, name[1]));
  j.y.at = address_of(pack, descriptor_of(operation, name[2]));
  j.workspace_bytes = workspace_of(graph);
  memcpy(&j.workspace, find(pack, 1003), sizeof j.workspace);
  void *symbol = of_driver("cuStandInWork");
  Work *work;
  memcpy(&work, &symbol, sizeof work);
  if (!work) return cudnn_refuse(DRIVER_FAILED, "there is no stand-in for the driver");
  int error = work(*(void **)handle, job_run, &j, sizeof j);
  return error ? cudnn_refuse(DRIVER_FAILED, "the driver says %d", error) : 0;
}
