// SPDX-License-Identifier: Apache-2.0
// Code as the driver takes it: a cubin or PTX, of which the kernels' names and facts are read. What
// runs is the text that it was made of (kernels.c).
#include "tests/device/stand_in/stand_in.h"

#include <elf.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KERNELS = 4096, USUAL_SHARED = 48 << 10, IN_CONTEXT = NEEDS_INIT | NEEDS_CONTEXT };

// The driver is not told the size.
static size_t elf_bytes(const void *image) {
  Elf64_Ehdr head;
  memcpy(&head, image, sizeof head);
  size_t end = (size_t)head.e_shoff + (size_t)head.e_shnum * sizeof(Elf64_Shdr);
  for (int i = 0; i < head.e_shnum; i++) {
    Elf64_Shdr s;
    memcpy(&s, (const char *)image + head.e_shoff + (size_t)i * sizeof s, sizeof s);
    if (s.sh_type != SHT_NOBITS) end = MD_MAX(end, (size_t)(s.sh_offset + s.sh_size));
  }
  return end;
}

// A cubin runs on its own major architecture, PTX on all from its own on.
static bool runs_here(int sm, bool is_ptx) {
  int here = device_sm();
  return is_ptx ? sm <= here : sm / 10 == here / 10 && sm <= here;
}

static Image *image_of(const void *code) {
  md_kernel_facts *facts = calloc(MAX_KERNELS, sizeof *facts);
  Image *image = calloc(1, sizeof *image);
  MD_ASSERT(facts && image, "out of memory");
  bool is_ptx = memcmp(code, ELFMAG, SELFMAG) != 0;
  const char *why = NULL;
  int sm = 0;
  int num = is_ptx ? md_ptx_read(code, strlen(code), facts, MAX_KERNELS, &sm, &why)
                   : md_cubin_read(code, elf_bytes(code), facts, MAX_KERNELS, &sm, &why);
  if (num < 0) image->error = refuse(is_ptx ? INVALID_PTX : INVALID_IMAGE, "%s", why);
  else if (!runs_here(sm, is_ptx)) image->error = refuse(NO_BINARY_FOR_GPU, "it is for sm_%d", sm);
  image->num = image->error ? 0 : num;
  image->kernel = calloc((size_t)image->num + 1, sizeof *image->kernel);
  MD_ASSERT(image->kernel, "out of memory");
  for (int i = 0; i < image->num; i++)
    image->kernel[i] = (Kernel){.facts = facts[i],
                                .sm = sm,
                                .is_ptx = is_ptx,
                                .dynamic_shared = USUAL_SHARED - facts[i].shared_bytes};
  free(facts);
  return image;
}

static void unload(Image *image) {
  for (int i = 0; i < image->num; i++) {
    const Kernel *k = &image->kernel[i];
    if (k->kernel) handle_drop(A_KERNEL, k->kernel);
    if (k->function) handle_drop(A_FUNCTION, k->function);
  }
  free(image->kernel);
  free(image);
}

// Of an image that may be none; NULL: *error.
static Kernel *kernel_named(const Image *image, const char *name, int *error) {
  for (int i = 0; image && i < image->num; i++)
    if (!strcmp(image->kernel[i].facts.name, name)) return &image->kernel[i];
  if (!image) *error = refuse(INVALID_HANDLE, "it is no code");
  else *error = image->error ? image->error : refuse(NOT_FOUND, "%s", name);
  return NULL;
}

// Modules are loaded at once.
static int load_module(void **module, const void *code) {
  if (!code) return refuse(INVALID_VALUE, "no image");
  Image *image = image_of(code);
  int error = image->error;
  if (error) unload(image);
  else *module = handle_new(A_MODULE, image);
  return error;
}

static void *function_of(Kernel *k) {
  if (!k->function) k->function = handle_new(A_FUNCTION, k);
  return k->function;
}

Kernel *kernel_find(const void *handle) {
  Kernel *k = handle_find(A_FUNCTION, handle);
  return k ? k : handle_find(A_KERNEL, handle);
}

// --- libraries, which need no context. Code that is of no use shows where a kernel is asked for.

API cuLibraryLoadData(void **library, const void *code, int *jit_options, void **jit_values,
                      unsigned num_jit, int *options, void **values, unsigned num_options) {
  int error = call_begin(__func__, NEEDS_INIT | UNSAFE);
  (void)jit_options, (void)jit_values, (void)num_jit, (void)options, (void)values;
  (void)num_options;
  if (!error && context_current()) error = context_check();
  if (!error && !code) error = refuse(INVALID_VALUE, "no image");
  if (!error) *library = handle_new(A_LIBRARY, image_of(code));
  return call_end(error);
}

API cuLibraryGetKernel(void **kernel, void *library, const char *name) {
  int error = call_begin(__func__, NEEDS_INIT);
  Kernel *k = error ? NULL : kernel_named(handle_find(A_LIBRARY, library), name, &error);
  if (k && !k->kernel) k->kernel = handle_new(A_KERNEL, k);
  if (k) *kernel = k->kernel;
  return call_end(error);
}

API cuKernelGetFunction(void **function, void *kernel) {
  int error = call_begin(__func__, IN_CONTEXT);
  Kernel *k = handle_find(A_KERNEL, kernel);
  if (!error && k) *function = function_of(k);
  return call_end(error || k ? error : refuse(INVALID_HANDLE, "it is no kernel"));
}

API cuLibraryUnload(void *library) {
  int error = call_begin(__func__, NEEDS_INIT | UNSAFE);
  if (!call_releases(error)) return call_end(error);
  Image *image = handle_find(A_LIBRARY, library);
  if (!image) return call_end(error ? error : refuse(INVALID_HANDLE, "it is no library"));
  handle_drop(A_LIBRARY, library);
  unload(image);
  return call_end(error);
}

// --- modules

API cuModuleLoadDataEx(void **module, const void *code, unsigned num_options, int *options,
                       void **values) {
  int error = call_begin(__func__, IN_CONTEXT | UNSAFE);
  (void)num_options, (void)options, (void)values;
  return call_end(error ? error : load_module(module, code));
}

API cuModuleLoadData(void **module, const void *code) {
  int error = call_begin(__func__, IN_CONTEXT | UNSAFE);
  return call_end(error ? error : load_module(module, code));
}

API cuModuleGetFunction(void **function, void *module, const char *name) {
  int error = call_begin(__func__, IN_CONTEXT);
  Kernel *k = error ? NULL : kernel_named(handle_find(A_MODULE, module), name, &error);
  if (k) *function = function_of(k);
  return call_end(error);
}

API cuModuleUnload(void *module) {
  int error = call_begin(__func__, IN_CONTEXT | UNSAFE);
  if (!call_releases(error)) return call_end(error);
  Image *image = handle_find(A_MODULE, module);
  if (!image) return call_end(error ? error : refuse(INVALID_HANDLE, "it is no module"));
  handle_drop(A_MODULE, module);
  unload(image);
  return call_end(error);
}

// --- functions

static Kernel *function_find(const void *function, int *error) {
  Kernel *k = kernel_find(function);
  if (!k) *error = refuse(INVALID_HANDLE, "it is no function");
  return k;
}

static int get_attribute(int *value, int attribute, const void *function) {
  int error = 0;
  const Kernel *k = function_find(function, &error);
  if (!k) return error;
  switch (attribute) {
  case FUNC_MAX_THREADS: *value = k->facts.max_threads; return 0;
  case FUNC_SHARED_BYTES: *value = k->facts.shared_bytes; return 0;
  case FUNC_LOCAL_BYTES: *value = k->facts.frame_bytes; return 0;
  case FUNC_REGISTERS: *value = k->facts.registers; return 0;
  case FUNC_PTX_VERSION:
  case FUNC_BINARY_VERSION: *value = k->sm; return 0;
  case FUNC_MAX_DYNAMIC_SHARED: *value = k->dynamic_shared; return 0;
  default: return refuse(INVALID_VALUE, "attribute %d", attribute);
  }
}

API cuFuncGetAttribute(int *value, int attribute, void *function) {
  int error = call_begin(__func__, IN_CONTEXT);
  return call_end(error ? error : get_attribute(value, attribute, function));
}

static int set_attribute(const void *function, int attribute, int value) {
  int error = 0;
  Kernel *k = function_find(function, &error);
  if (!k) return error;
  if (attribute == FUNC_CARVEOUT) return 0;
  if (attribute != FUNC_MAX_DYNAMIC_SHARED)
    return refuse(INVALID_VALUE, "attribute %d cannot be set", attribute);
  int64_t most = device_shared_limit() - k->facts.shared_bytes;
  if (value < 0 || value > most)
    return refuse(INVALID_VALUE, "%d bytes where %lld can be", value, (long long)most);
  k->dynamic_shared = value;
  return 0;
}

API cuFuncSetAttribute(void *function, int attribute, int value) {
  int error = call_begin(__func__, IN_CONTEXT);
  return call_end(error ? error : set_attribute(function, attribute, value));
}

static int get_param(const void *function, size_t index, size_t *offset, size_t *bytes) {
  int error = 0;
  const Kernel *k = function_find(function, &error);
  if (!k) return error;
  const Source *s = kernel_source(k->facts.name);
  if (index >= (size_t)s->num) return refuse(INVALID_VALUE, "it has %d parameters", s->num);
  *offset = (size_t)s->param[index].offset;
  if (bytes) *bytes = (size_t)s->param[index].bytes;
  return 0;
}

API cuFuncGetParamInfo(void *function, size_t index, size_t *offset, size_t *bytes) {
  int error = call_begin(__func__, IN_CONTEXT);
  return call_end(error ? error : get_param(function, index, offset, bytes));
}

static int occupancy(int *blocks, const void *function, int threads, size_t shared_bytes) {
  int error = 0;
  const Kernel *k = function_find(function, &error);
  if (!k) return error;
  if (threads < 1) return refuse(INVALID_VALUE, "%d threads", threads);
  int64_t shared = (int64_t)shared_bytes + k->facts.shared_bytes + MD_RESERVED_SHARED;
  int64_t by_threads = 2048 / threads;
  int64_t by_shared = (device_shared_limit() + MD_RESERVED_SHARED) / shared;
  int64_t by_registers = 65536 / MD_MAX((int64_t)k->facts.registers * threads, 1);
  *blocks = (int)MD_MIN(MD_MIN(by_threads, 32), MD_MIN(by_shared, by_registers));
  return 0;
}

API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads,
                                                size_t shared_bytes) {
  int error = call_begin(__func__, IN_CONTEXT);
  return call_end(error ? error : occupancy(blocks, function, threads, shared_bytes));
}
