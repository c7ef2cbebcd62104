// SPDX-License-Identifier: Apache-2.0
// The driver's stand-in is as strict as a driver, and more: each misuse has its error.
#include "tests/device/stand_in_fixture.h"

#include <pthread.h>

// The second row of a tensor from its element `first` on, by way of shared memory.
static const char map_text[] = "MD_KERNEL(32) kmap(MD_TMAP(map), md_bf16 *a1, int first) {\n"
                               "  MD_SHARED(shared);\n"
                               "  md_u64 *const bar = (md_u64 *)(shared + 1024);\n"
                               "  if (md_thread() == 0) {\n"
                               "    md_bar_init(bar, 1);\n"
                               "    md_bar_fence();\n"
                               "    md_bar_expect(bar, 64);\n"
                               "    md_tma2(shared, &map, bar, first, 1);\n"
                               "  }\n"
                               "  md_sync();\n"
                               "  md_bar_wait(bar, 0);\n"
                               "  a1[md_thread()] = ((const md_bf16 *)shared)[md_thread()];\n}\n";
static const char map_ptx[] =
    ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry "
    "kmap(\n.param .align 64 .b8 kmap_param_0[128],\n"
    ".param .u64 kmap_param_1,\n.param .u32 kmap_param_2\n)\n.maxntid 32, 1, 1\n{\nret;\n}\n";

START_TEST(nothing_works_before_cuInit) {
  int count;
  is(cuDeviceGetCount(&count), NOT_INITIALIZED);
  is(cuDevicePrimaryCtxRetain(&context, 0), NOT_INITIALIZED);
  is(cuInit(1), INVALID_VALUE);
}
END_TEST

START_TEST(functions_are_found_by_the_names_without_versions) {
  void *function;
  int status;
  works(cuGetProcAddress_v2("cuMemAlloc", &function, 12000, 0, &status));
  int (*alloc)(Address *, size_t) = cuMemAlloc_v2;
  ck_assert_mem_eq(&function, &alloc, sizeof alloc);
  works(cuGetProcAddress_v2("cuNoSuchThing", &function, 12000, 0, &status));
  is(status, SYMBOL_NOT_FOUND);
  is(function == NULL, true);
}
END_TEST

START_TEST(functions_can_be_left_out) {
  void *function;
  int status;
  works(cuGetProcAddress_v2("cuMemAlloc_v2", &function, 12000, 0, &status));
  ck_assert(!function && status == SYMBOL_NOT_FOUND);
  setenv("MODIST_STAND_IN_WITHOUT", "cuLibraryLoadData,cuMemAlloc", 1);
  works(cuGetProcAddress_v2("cuMemAlloc", &function, 12000, 0, &status));
  ck_assert(!function && status == SYMBOL_NOT_FOUND);
  works(cuGetProcAddress_v2("cuMemAllocHost", &function, 12000, 0, &status));
  ck_assert(function && !status);
  unsetenv("MODIST_STAND_IN_WITHOUT");
}
END_TEST

START_TEST(the_device_is_what_the_environment_says) {
  char name[40];
  int major, minor, shared, device;
  size_t bytes;
  works(cuInit(0));
  setenv("MODIST_STAND_IN_SM", "86", 1);
  setenv("MODIST_STAND_IN_NAME", "Mine", 1);
  setenv("MODIST_STAND_IN_MEMORY", "1000000", 1);
  setenv("MODIST_STAND_IN_DEVICES", "2", 1);
  works(cuDeviceGet(&device, 1));
  works(cuDeviceGetName(name, sizeof name, device));
  ck_assert_str_eq(name, "Mine");
  works(cuDeviceGetAttribute(&major, 75, device));
  works(cuDeviceGetAttribute(&minor, 76, device));
  works(cuDeviceGetAttribute(&shared, 97, device));
  ck_assert(major == 8 && minor == 6 && shared == 99 << 10);
  works(cuDeviceTotalMem_v2(&bytes, device));
  ck_assert_uint_eq(bytes, 1000000);
  is(cuDeviceGet(&device, 2), INVALID_DEVICE);
  is(cuDeviceGetAttribute(&major, 9999, 0), INVALID_VALUE);
  start();
  Address at;
  is(cuMemAlloc_v2(&at, 1000001), OUT_OF_MEMORY);
  finish();
  unsetenv("MODIST_STAND_IN_SM");
  unsetenv("MODIST_STAND_IN_NAME");
  unsetenv("MODIST_STAND_IN_MEMORY");
  unsetenv("MODIST_STAND_IN_DEVICES");
}
END_TEST

static void *allocate(void *to) {
  Address at;
  *(int *)to = cuMemAlloc_v2(&at, BYTES);
  return NULL;
}

START_TEST(calls_need_a_context_that_is_current_in_their_thread) {
  start();
  pthread_t thread;
  int error = 0;
  ck_assert_int_eq(pthread_create(&thread, NULL, allocate, &error), 0);
  pthread_join(thread, NULL);
  ck_assert_int_eq(error, INVALID_CONTEXT);
  works(cuCtxSetCurrent(NULL));
  Address at;
  is(cuMemAlloc_v2(&at, BYTES), INVALID_CONTEXT);
  works(cuCtxSetCurrent(context));
  at = memory(BYTES);
  works(cuCtxSetCurrent(NULL));
  is(cuMemFree_v2(at), INVALID_CONTEXT);
  works(cuCtxSetCurrent(context));
  works(cuMemFree_v2(at));
  finish();
  is(cuMemAlloc_v2(&at, BYTES), CONTEXT_IS_DESTROYED);
  is(cuDevicePrimaryCtxRelease_v2(0), INVALID_CONTEXT);
}
END_TEST

START_TEST(things_of_one_context_are_not_taken_in_another) {
  setenv("MODIST_STAND_IN_DEVICES", "2", 1);
  start_with_arrays();
  void *other, *event;
  works(cuEventCreate(&event, 0));
  works(cuDevicePrimaryCtxRetain(&other, 1));
  works(cuCtxSetCurrent(other));
  is(cuStreamSynchronize(stream), INVALID_HANDLE);
  is(cuEventRecord(event, NULL), INVALID_HANDLE);
  is(cuMemcpyHtoD_v2(a, x, BYTES), INVALID_VALUE);
  works(cuDevicePrimaryCtxRelease_v2(1));
  works(cuCtxSetCurrent(context));
  works(cuEventDestroy_v2(event));
  finish_with_arrays();
  unsetenv("MODIST_STAND_IN_DEVICES");
}
END_TEST

START_TEST(handles_that_are_none_or_are_gone_are_refused) {
  start();
  void *s, *e, *none = &s;
  is(cuCtxSetCurrent(none), INVALID_CONTEXT);
  works(cuStreamCreate(&s, 0));
  works(cuStreamDestroy_v2(s));
  is(cuStreamDestroy_v2(s), INVALID_HANDLE);
  is(cuStreamSynchronize(s), INVALID_HANDLE);
  is(launch(0, 0, s), INVALID_HANDLE);
  works(cuEventCreate(&e, 0));
  is(cuEventDestroy_v2(stream), INVALID_HANDLE);
  works(cuEventDestroy_v2(e));
  is(cuEventRecord(e, stream), INVALID_HANDLE);
  is(cuStreamSynchronize(none), INVALID_HANDLE);
  is(cuGraphLaunch(none, stream), INVALID_HANDLE);
  is(cuGraphDestroy(none), INVALID_HANDLE);
  is(cuLibraryUnload(none), INVALID_HANDLE);
  is(cuModuleUnload(library), INVALID_HANDLE);
  works(cuModuleLoadData(&s, twice_ptx));
  works(cuModuleGetFunction(&e, s, "ktwice"));
  works(cuModuleUnload(s));
  is(cuFuncSetAttribute(e, FUNC_CARVEOUT, 0), INVALID_HANDLE);
  is(cuKernelGetFunction(&e, twice), INVALID_HANDLE);
  finish();
}
END_TEST

START_TEST(memory_is_freed_once_and_where_it_begins) {
  start();
  Address at = memory(BYTES);
  void *host;
  is(cuMemFree_v2(at + 4), INVALID_VALUE);
  works(cuMemFree_v2(at));
  is(cuMemFree_v2(at), INVALID_VALUE);
  is(cuMemAlloc_v2(&at, 0), INVALID_VALUE);
  works(cuMemHostAlloc(&host, BYTES, 0));
  is(cuMemFreeHost((char *)host + 4), INVALID_VALUE);
  works(cuMemFreeHost(host));
  is(cuMemFreeHost(host), INVALID_VALUE);
  finish();
}
END_TEST

START_TEST(copies_and_fills_stay_inside_memory) {
  start_with_arrays();
  float plain[NUM];
  Address gone = memory(BYTES);
  works(cuMemFree_v2(gone));
  works(cuMemcpyHtoDAsync_v2(a, x, BYTES, stream));
  is(cuMemcpyHtoDAsync_v2(a, x, BYTES + 1, stream), INVALID_VALUE);
  is(cuMemcpyHtoDAsync_v2(a + 4, x, BYTES, stream), INVALID_VALUE);
  is(cuMemcpyHtoDAsync_v2(a - 4, x, BYTES, stream), INVALID_VALUE);
  is(cuMemcpyHtoDAsync_v2(a, x + 1, BYTES, stream), INVALID_VALUE);
  is(cuMemcpyHtoDAsync_v2(gone, x, BYTES, stream), INVALID_VALUE);
  is(cuMemcpyHtoDAsync_v2((Address)(uintptr_t)y, x, BYTES, stream), INVALID_VALUE);
  is(cuMemcpyHtoDAsync_v2(a, NULL, BYTES, stream), INVALID_VALUE);
  is(cuMemcpyDtoHAsync_v2((void *)(uintptr_t)b, a, BYTES, stream), INVALID_VALUE);
  is(cuMemcpyDtoDAsync_v2(b, a + 8, BYTES, stream), INVALID_VALUE);
  is(cuMemcpyDtoH_v2(plain, b + BYTES, 4), INVALID_VALUE);
  works(cuMemcpyDtoH_v2(plain, b, BYTES));
  ck_assert(plain[0] != plain[0]);  // new memory is full of NaN
  is(cuMemsetD8Async(a, 0, BYTES + 1, stream), INVALID_VALUE);
  is(cuMemsetD32Async(a + 2, 0, 1, stream), INVALID_VALUE);
  works(cuMemsetD32Async(a, 0x3f800000, NUM, stream));
  works(cuMemcpyDtoHAsync_v2(plain, a, BYTES, stream));
  ck_assert(plain[0] == 1 && plain[63] == 1);
  finish_with_arrays();
}
END_TEST

START_TEST(a_launch_fits_its_kernel) {
  start_with_arrays();
  void *args[] = {&a, &b}, *none;
  is(cuLaunchKernel(twice, 0, 1, 1, 64, 1, 1, 0, stream, args, NULL), INVALID_VALUE);
  is(cuLaunchKernel(twice, 1, 1, 1, 0, 1, 1, 0, stream, args, NULL), INVALID_VALUE);
  is(cuLaunchKernel(twice, 1, 1, 1, 2048, 1, 1, 0, stream, args, NULL), INVALID_VALUE);
  is(cuLaunchKernel(twice, 1, 1, 1, 128, 1, 1, 0, stream, args, NULL), LAUNCH_OUT_OF_RESOURCES);
  is(cuLaunchKernel(twice, 1, 70000, 1, 64, 1, 1, 0, stream, args, NULL), INVALID_VALUE);
  is(cuLaunchKernel(twice, 1, 1, 1, 64, 1, 1, 49153, stream, args, NULL), INVALID_VALUE);
  is(cuFuncSetAttribute(twice, FUNC_MAX_DYNAMIC_SHARED, (227 << 10) + 1), INVALID_VALUE);
  works(cuFuncSetAttribute(twice, FUNC_MAX_DYNAMIC_SHARED, 49153));
  works(cuMemcpyHtoDAsync_v2(a, x, BYTES, stream));
  works(cuLaunchKernel(twice, 1, 1, 1, 64, 1, 1, 49153, stream, args, NULL));
  is(cuLibraryGetKernel(&none, library, "kthrice"), NOT_FOUND);
  finish_with_arrays();
}
END_TEST

START_TEST(a_launch_has_a_kernel_and_all_of_its_arguments) {
  start_with_arrays();
  void *args[] = {&a, &b}, *one[] = {&a, NULL};
  is(cuLaunchKernel(twice, 1, 1, 1, 64, 1, 1, 0, stream, one, NULL), INVALID_VALUE);
  is(cuLaunchKernel(twice, 1, 1, 1, 64, 1, 1, 0, stream, NULL, NULL), INVALID_VALUE);
  is(cuLaunchKernel(library, 1, 1, 1, 64, 1, 1, 0, stream, args, NULL), INVALID_HANDLE);
  finish_with_arrays();
}
END_TEST

START_TEST(launches_take_attributes_that_ask_for_nothing_special) {
  start_with_arrays();
  void *args[] = {&a, &b};
  LaunchAttribute attribute = {.id = 6, .of.value = 1};  // programmatic serialization
  LaunchConfig c = {1, 1, 1, 64, 1, 1, 0, stream, &attribute, 1};
  works(cuMemcpyHtoDAsync_v2(a, x, BYTES, stream));
  works(cuLaunchKernelEx(&c, twice, args, NULL));
  works(cuMemcpyDtoHAsync_v2(y, b, BYTES, stream));
  works(cuStreamSynchronize(stream));
  ck_assert(y[1] == 2);
  attribute = (LaunchAttribute){.id = 4, .of.cluster = {2, 1, 1}};
  is(cuLaunchKernelEx(&c, twice, args, NULL), INVALID_CLUSTER_SIZE);  // one block
  finish_with_arrays();
}
END_TEST

START_TEST(clusters_are_more_than_the_stand_in_can_do) {
  start_with_arrays();
  void *args[] = {&a, &b};
  LaunchAttribute attribute = {.id = 4, .of.cluster = {2, 1, 1}};
  LaunchConfig c = {2, 1, 1, 64, 1, 1, 0, stream, &attribute, 1};
  is(cuLaunchKernelEx(&c, twice, args, NULL), NOT_SUPPORTED);
  finish_with_arrays();
}
END_TEST

START_TEST(a_function_says_what_it_needs) {
  start();
  void *module, *f, *none;
  size_t offset, bytes;
  int value;
  works(cuModuleLoadData(&module, twice_ptx));
  works(cuModuleGetFunction(&f, module, "ktwice"));
  is(cuModuleGetFunction(&none, module, "kthrice"), NOT_FOUND);
  works(cuFuncGetAttribute(&value, FUNC_MAX_THREADS, f));
  ck_assert_int_eq(value, 64);
  works(cuFuncGetAttribute(&value, FUNC_MAX_DYNAMIC_SHARED, f));
  ck_assert_int_eq(value, 48 << 10);
  is(cuFuncGetAttribute(&value, 99, f), INVALID_VALUE);
  is(cuFuncSetAttribute(f, FUNC_MAX_THREADS, 64), INVALID_VALUE);
  works(cuFuncGetParamInfo(f, 1, &offset, &bytes));
  ck_assert(offset == 8 && bytes == 8);
  is(cuFuncGetParamInfo(f, 2, &offset, &bytes), INVALID_VALUE);
  works(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, f, 64, 0));
  ck_assert_int_eq(value, 32);
  works(cuFuncSetAttribute(f, FUNC_MAX_DYNAMIC_SHARED, 100 << 10));
  works(cuOccupancyMaxActiveBlocksPerMultiprocessor(&value, f, 64, 100 << 10));
  ck_assert_int_eq(value, 2);
  works(cuModuleUnload(module));
  finish();
}
END_TEST

// Code of a library is looked at when a kernel is asked for, or made a function.
static int use(const char *ptx) {
  void *lib, *kernel, *function;
  works(load(&lib, ptx));
  int error = cuLibraryGetKernel(&kernel, lib, "ktwice");
  if (!error) error = cuKernelGetFunction(&function, kernel);
  works(cuLibraryUnload(lib));
  return error;
}

START_TEST(code_is_for_the_device_and_whole) {
  start();
  void *lib;
  is(load(&lib, NULL), INVALID_VALUE);
  is(use(".version 8.0\n.target sm_120\n.address_size 64\n"), NO_BINARY_FOR_GPU);
  is(use("this is no code\n"), INVALID_PTX);
  is(cuModuleLoadData(&lib, "this is no code\n"), INVALID_PTX);
  finish();
}
END_TEST

START_TEST(a_tensor_map_names_memory_and_kernels_copy_by_it) {
  start_with_arrays();
  void *lib;
  works(load(&lib, map_ptx));
  void *f = function_of(lib, "kmap");
  _Alignas(64) unsigned char map[128];
  uint64_t dim[] = {32, 4}, stride[] = {64}, far[] = {128}, odd[] = {72};
  unsigned box[] = {32, 1}, wide[] = {32, 257}, step[] = {1, 1};
  void *at = (void *)(uintptr_t)a;
  uint16_t row[128];
  for (int i = 0; i < 128; i++) row[i] = (uint16_t)i;
  works(cuMemcpyHtoD_v2(a, row, BYTES));
  is(cuTensorMapEncodeTiled(map, 7, 2, at, dim, stride, box, step, 0, 0, 0, 0), NOT_SUPPORTED);
  is(cuTensorMapEncodeTiled(map, 9, 2, at, dim, far, box, step, 0, 0, 0, 0), INVALID_VALUE);
  is(cuTensorMapEncodeTiled(map, 9, 2, at, dim, odd, box, step, 0, 0, 0, 0), INVALID_VALUE);
  is(cuTensorMapEncodeTiled(map, 9, 2, at, dim, stride, wide, step, 0, 0, 0, 0), INVALID_VALUE);
  is(cuTensorMapEncodeTiled(map, 9, 2, x, dim, stride, box, step, 0, 0, 0, 0), INVALID_VALUE);
  works(cuTensorMapEncodeTiled(map, 9, 2, at, dim, stride, box, step, 0, 0, 0, 0));
  int first = 8;
  void *args[] = {map, &b, &first};
  works(cuLaunchKernel(f, 1, 1, 1, 32, 1, 1, 2048, stream, args, NULL));
  works(cuStreamSynchronize(stream));
  works(cuMemcpyDtoH_v2(row, b, 64));
  ck_assert(row[0] == 40 && row[23] == 63 && row[24] == 0);  // row 1 from 8 on; zero beyond
  works(cuLibraryUnload(lib));
  finish_with_arrays();
}
END_TEST

START_TEST(windows_of_tensor_maps_are_within_limits) {
  start_with_arrays();
  _Alignas(64) unsigned char map[128];
  uint64_t dim[] = {8, 2, 2, 2, 2}, stride[] = {16, 32, 64, 128};
  int lower[] = {-1, -1, -1}, upper[] = {-1, -1, -1}, far[] = {-1, -17, -1};
  unsigned step[] = {1, 1, 1, 1, 1}, steep[] = {1, 9, 1, 1, 1};
  void *at = (void *)(uintptr_t)a;
  works(cuTensorMapEncodeIm2col(map, 9, 5, at, dim, stride, lower, upper, 8, 64, step, 0, 0, 0, 0));
  is(cuTensorMapEncodeIm2col(map, 9, 5, at, dim, stride, far, upper, 8, 64, step, 0, 0, 0, 0),
     INVALID_VALUE);
  is(cuTensorMapEncodeIm2col(map, 9, 5, at, dim, stride, lower, upper, 8, 1025, step, 0, 0, 0, 0),
     INVALID_VALUE);
  is(cuTensorMapEncodeIm2col(map, 9, 5, at, dim, stride, lower, upper, 4, 64, step, 0, 0, 0, 0),
     INVALID_VALUE);
  is(cuTensorMapEncodeIm2col(map, 9, 5, at, dim, stride, lower, upper, 8, 64, steep, 0, 0, 0, 0),
     INVALID_VALUE);
  is(cuTensorMapEncodeIm2col(map, 9, 2, at, dim, stride, lower, upper, 8, 64, step, 0, 0, 0, 0),
     INVALID_VALUE);
  finish_with_arrays();
}
END_TEST

int main(void) {
  const TTest *const tests[] = {nothing_works_before_cuInit,
                                functions_are_found_by_the_names_without_versions,
                                calls_need_a_context_that_is_current_in_their_thread,
                                memory_is_freed_once_and_where_it_begins,
                                a_launch_fits_its_kernel,
                                launches_take_attributes_that_ask_for_nothing_special,
                                a_function_says_what_it_needs,
                                code_is_for_the_device_and_whole,
                                windows_of_tensor_maps_are_within_limits,
                                NULL};
  const TTest *const alone[] = {functions_can_be_left_out,
                                the_device_is_what_the_environment_says,
                                things_of_one_context_are_not_taken_in_another,
                                handles_that_are_none_or_are_gone_are_refused,
                                copies_and_fills_stay_inside_memory,
                                a_launch_has_a_kernel_and_all_of_its_arguments,
                                clusters_are_more_than_the_stand_in_can_do,
                                a_tensor_map_names_memory_and_kernels_copy_by_it,
                                NULL};
  const char *const texts[] = {"kmap", map_text, NULL};
  return run_with_texts("stand-in", tests, alone, texts);
}
