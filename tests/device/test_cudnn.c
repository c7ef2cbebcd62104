// SPDX-License-Identifier: Apache-2.0
// Plans of convolutions by cuDNN, made for an H200 that is not here, where there is a cuDNN; and what is said
// where there is none, an old one, or one that refuses.
//   test_cudnn [STAND_IN_CUDNN]    with it: what is said
#include "runtime/exec/cudnn.h"

#include "base/file.h"
#include "tests/unit/suite.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SKIPPED = 77 };

// As cuDNN describes a device; values of the data sheet.
static const char h200[] =
    "{\"deviceVer\": 900, \"driverVer\": 13000, \"maxGridSize\": [2147483647, 65535, 65535], "
    "\"maxBlockSize\": [1024, 1024, 64], \"regsPerBlock\": 65536, \"multiProcessorCount\": 132, "
    "\"smClockRateKHz\": 1980000, \"memClockRateKHz\": 3201000, \"l2CacheSize\": 62914560, "
    "\"warpSize\": 32, \"maxSharedMemoryPerBlock\": 49152, \"maxSharedMemoryPerBlockOptin\": "
    "232448, "
    "\"reservedSharedMemoryPerBlock\": 1024, \"maxRegistersPerSM\": 65536, \"pciDeviceId\": 0, "
    "\"maxCtasPerSM\": 32, \"maxThreadsPerBlock\": 1024, \"maxThreadsPerSM\": 2048, "
    "\"isTccDriver\": 0, \"supportCoopLaunch\": 1, \"cudaDeviceId\": 0, "
    "\"totalGlobalMem\": 150000000000, \"major\": 9, \"minor\": 0, \"deviceName\": \"NVIDIA "
    "H200\"}";

static const char *stand_in;  // path of the library
static char why[MD_CUDNN_WORDS];

// --- convolutions

typedef struct Shape {
  int64_t n, in, out, size[3], kernel[3], stride[3], dilation;
} Shape;
static const Shape shapes[] = {
    {4, 64, 64, {8, 56, 56}, {1, 3, 3}, {1, 1, 1}, 1},
    {4, 256, 64, {8, 56, 56}, {1, 1, 1}, {1, 1, 1}, 1},
    {4, 1024, 256, {8, 14, 14}, {3, 1, 1}, {1, 1, 1}, 1},
    {4, 128, 128, {8, 56, 56}, {1, 3, 3}, {1, 2, 2}, 1},
    {2, 16, 24, {4, 14, 13}, {3, 3, 3}, {2, 2, 2}, 1},
    {2, 16, 16, {4, 14, 14}, {1, 3, 3}, {1, 1, 1}, 2},
    {2, 3, 64, {8, 112, 112}, {5, 7, 7}, {1, 2, 2}, 1},  // the first of a network
};

// Strides, channels last (rounded up to `block`) or row-major (block 0).
static md_conv_tensor tensor(md_dtype t, int64_t n, int64_t c, const int64_t size[3], int block) {
  int64_t pitch = block ? md_round_up(c, block) : 1, area = size[0] * size[1] * size[2];
  return (md_conv_tensor){t,
                          {n, c, size[0], size[1], size[2]},
                          {area * (block ? pitch : c), block ? 1 : area, size[1] * size[2] * pitch,
                           size[2] * pitch, pitch}};
}

static md_conv conv(const Shape *s, md_conv_kind kind, md_dtype t, int block) {
  md_conv v = {.kind = kind};
  int64_t out[3];
  for (int i = 0; i < 3; i++) {
    v.stride[i] = s->stride[i];
    v.dilation[i] = s->dilation;
    v.pad[i] = s->kernel[i] / 2 * s->dilation;
    out[i] = (s->size[i] + 2 * v.pad[i] - (s->kernel[i] - 1) * s->dilation - 1) / s->stride[i] + 1;
  }
  v.x = tensor(t, s->n, s->in, s->size, block);
  v.w = tensor(t, s->out, s->in, s->kernel, 0);
  v.y = tensor(t, s->n, s->out, out, block);
  return v;
}

// --- cuDNN itself

START_TEST(every_convolution_has_a_plan) {
  int num = 0;
  md_cudnn *c = md_cudnn_open_offline(h200, why);
  ck_assert_msg(c != NULL, "%s", why);
  ck_assert_int_ge(md_cudnn_version(c), MD_CUDNN_LEAST);
  for (int i = 0; i < MD_COUNT(shapes); i++) {
    for (int kind = 0; kind < MD_NUM_CONVS; kind++) {
      for (int form = 0; form < 4; form++) {
        md_conv v = conv(&shapes[i], (md_conv_kind)kind, form % 2 ? MD_BF16 : MD_F32,
                         form < 2           ? 0
                         : shapes[i].in % 8 ? 8
                                            : 1);
        md_cudnn_conv *p = md_cudnn_conv_create(c, &v, INT64_MAX, why);
        ck_assert_msg(p != NULL, "shape %d, kind %d, form %d: %s", i, kind, form, why);
        ck_assert_int_ge(md_cudnn_conv_bytes(p), 0);
        md_cudnn_conv_destroy(p);
        num++;
      }
    }
  }
  printf("%d plans of cuDNN %d\n", num, md_cudnn_version(c));
  md_cudnn_close(c);
}
END_TEST

// What stands around a convolution: batch norm and relu in front, a second term, stored or not; moments, or bias,
// a rest and relu behind; f32 weights.
typedef struct Fused {
  const char *name;
  bool norm, add, add_norm, formed, bias, rest, relu, moments, cast;
} Fused;
static const Fused fused[] = {
    {.name = "moments", .moments = true, .cast = true},
    {.name = "norm, relu", .norm = true},
    {.name = "norm, relu; moments", .norm = true, .moments = true, .cast = true},
    {.name = "norm, relu, stored; moments", .norm = true, .formed = true, .moments = true},
    {.name = "norm, add, relu, stored; moments",
     .norm = true,
     .add = true,
     .formed = true,
     .moments = true,
     .cast = true},
    {.name = "norm, norm, add, relu, stored; moments",
     .norm = true,
     .add = true,
     .add_norm = true,
     .formed = true,
     .moments = true,
     .cast = true},
    {.name = "norm, norm, add, relu; moments",
     .norm = true,
     .add = true,
     .add_norm = true,
     .moments = true},
    {.name = "bias, relu", .bias = true, .relu = true},
    {.name = "bias, rest, relu", .bias = true, .rest = true, .relu = true, .cast = true},
    {.name = "relu", .relu = true},
};

static md_conv fuse(const Shape *s, const Fused *f) {
  md_conv v = conv(s, MD_CONV_FORWARD, MD_BF16, s->in % 8 ? 8 : 1);
  const md_conv_tensor number = {.dtype = MD_F32};
  for (int i = 0; i < 4; i++) {
    if (f->norm) v.part[MD_CONV_GAMMA + i] = number;
    if (f->add_norm) v.part[MD_CONV_ADD_GAMMA + i] = number;
  }
  if (f->add) v.part[MD_CONV_ADD] = v.x;
  if (f->formed) v.part[MD_CONV_FORMED] = v.x;
  if (f->bias) v.part[MD_CONV_BIAS] = number;
  if (f->rest) v.part[MD_CONV_REST] = v.y;
  if (f->moments) v.part[MD_CONV_MEAN] = v.part[MD_CONV_VAR] = number;
  if (f->cast) v.w.dtype = MD_F32;
  v.fused =
      (md_conv_fused){.relu_before = f->norm, .relu_behind = f->relu, .eps = 1e-5, .add_eps = 1e-5};
  return v;
}

// Engines that fuse are compiled when a plan is made, and load what they have compiled: without a driver, or what
// says yes as one, there are none. A conv of three channels has no norm in front.
START_TEST(what_is_fused_has_a_plan_where_there_is_a_driver) {
  bool has_driver = getenv("MODIST_ANY_DRIVER") != NULL;
  const int some[] = {1, 0, 2, 3, 6};
  int num = 0;
  md_cudnn *c = md_cudnn_open_offline(h200, why);
  ck_assert_msg(c != NULL, "%s", why);
  md_cudnn_keep_plans(c);
  for (int i = 0; i < (has_driver ? MD_COUNT(some) : 1); i++) {
    for (int k = 0; k < MD_COUNT(fused); k++) {
      const Shape *s = &shapes[some[i]];
      if (s->in % 8 && fused[k].norm) continue;
      md_conv v = fuse(s, &fused[k]);
      md_cudnn_conv *p = md_cudnn_conv_create(c, &v, INT64_MAX, why);
      if (p) num++;
      ck_assert_msg((p != NULL) == has_driver, "shape %d, %s: %s", some[i], fused[k].name, why);
      ck_assert(p || strstr(why, "no engine is for such a convolution"));
      md_cudnn_conv_destroy(p);
    }
  }
  printf("%d plans of what is fused\n", num);
  md_cudnn_close(c);
}
END_TEST

// How many files the cache has, and which: one that is written again is another one.
static int files_of_cache(uint64_t *which) {
  int num = 0;
  md_arena *a = md_arena_create();
  DIR *d = opendir(md_cache_dir(a));
  ck_assert(d != NULL);
  *which = 0;
  for (struct dirent *e; (e = readdir(d));) {
    num++;
    *which += (uint64_t)e->d_ino;
  }
  closedir(d);
  md_arena_destroy(a);
  return num;
}

// Of the stand-in, too.
START_TEST(plans_are_kept_and_found) {
  char folder[] = "/tmp/modist_plans_XXXXXX", command[60];
  ck_assert(mkdtemp(folder) != NULL);
  setenv("MODIST_CACHE", folder, 1);
  if (stand_in) setenv("MODIST_CUDNN", stand_in, 1);
  md_cudnn *c = md_cudnn_open_offline(h200, why);
  ck_assert_msg(c != NULL, "%s", why);
  md_cudnn_keep_plans(c);
  ck_assert(md_cudnn_described(c) != NULL);
  int64_t bytes[2] = {0, 0};
  uint64_t files[2];
  md_text plans[2] = {{0}, {0}};
  int num[2], empty = files_of_cache(&files[0]);
  for (int round = 0; round < 2; round++) {
    for (int kind = 0; kind < MD_NUM_CONVS; kind++) {
      md_conv v = conv(&shapes[3], (md_conv_kind)kind, MD_BF16, 1);
      md_cudnn_conv *p = md_cudnn_conv_create(c, &v, INT64_MAX, why);
      ck_assert_msg(p != NULL, "kind %d, round %d: %s", kind, round, why);
      bytes[round] += md_cudnn_conv_bytes(p);
      md_cudnn_conv_plans(p, &plans[round]);
      md_cudnn_conv_destroy(p);
    }
    num[round] = files_of_cache(&files[round]);
  }
  snprintf(command, sizeof command, "rm -rf %s", folder);
  ck_assert_int_eq(system(command), 0);
  ck_assert_int_ge(num[0], empty + MD_NUM_CONVS);
  ck_assert_int_eq(num[0], num[1]);
  ck_assert(files[0] == files[1]);
  ck_assert_int_eq(bytes[0], bytes[1]);
  ck_assert_str_eq(plans[0].s, plans[1].s);
  for (int i = 0; i < 2; i++) md_text_free(&plans[i]);
  md_cudnn_close(c);
}
END_TEST

START_TEST(what_cudnn_refuses_has_its_reason) {
  md_cudnn *c = md_cudnn_open_offline(h200, why);
  ck_assert_msg(c != NULL, "%s", why);
  md_conv v = conv(&shapes[0], MD_CONV_WEIGHTS, MD_BF16, 1);
  v.w.dtype = MD_F32;  // cast behind it, for which there are no plans without a driver
  md_cudnn_conv *cast = md_cudnn_conv_create(c, &v, INT64_MAX, why);
  ck_assert((cast != NULL) == (getenv("MODIST_ANY_DRIVER") != NULL));
  if (!cast) ck_assert_str_eq(why, "no engine is for such a convolution");
  md_cudnn_conv_destroy(cast);
  v = conv(&shapes[0], MD_CONV_FORWARD, MD_BF16, 1);
  v.y.dim[4]++;
  ck_assert(!md_cudnn_conv_create(c, &v, INT64_MAX, why));
  ck_assert_msg(strstr(why, "CUDNN_STATUS_") != NULL, "%s", why);
  v = conv(&shapes[0], MD_CONV_FORWARD, MD_BF16, 1);  // and it goes on
  md_cudnn_conv *p = md_cudnn_conv_create(c, &v, INT64_MAX, why);
  ck_assert_msg(p != NULL, "%s", why);
  md_cudnn_conv_destroy(p);
  md_cudnn_close(c);
}
END_TEST

START_TEST(a_device_must_be_described) {
  ck_assert(!md_cudnn_open_offline("{\"deviceVer\": 900}", why));
  ck_assert_msg(strstr(why, "the description of a device: ") != NULL, "%s", why);
}
END_TEST

START_TEST(without_a_device_there_is_no_handle) {
  md_cudnn *c = md_cudnn_open(NULL, why);
  md_cudnn_close(c);
  ck_assert_msg(c || strstr(why, "cudnnCreate: ") != NULL, "%s", why);
}
END_TEST

// --- libraries that cannot be used

static void expect_unusable(int version, const char *text) {
  int found;
  const char *path;
  ck_assert(!md_cudnn_find(&found, &path, why));
  ck_assert_int_eq(found, version);
  ck_assert_msg(strstr(why, text) != NULL, "%s", why);
  ck_assert(!md_cudnn_open_offline(h200, why));
  ck_assert_msg(strstr(why, text) != NULL, "%s", why);
}

START_TEST(a_missing_library_is_named) {
  setenv("MODIST_CUDNN", "/nowhere/libcudnn.so.9", 1);
  expect_unusable(0, "/nowhere/libcudnn.so.9: cannot open");
  ck_assert_msg(strstr(why, "(MODIST_CUDNN names it)") != NULL, "%s", why);
}
END_TEST

START_TEST(an_old_library_is_refused) {
  setenv("MODIST_CUDNN", stand_in, 1);
  setenv("MODIST_STAND_IN_CUDNN_VERSION", "91002", 1);
  expect_unusable(91002, "is cuDNN 9.10, and 9.15 is the least");
}
END_TEST

START_TEST(an_older_major_version_is_refused) {
  setenv("MODIST_CUDNN", stand_in, 1);
  setenv("MODIST_STAND_IN_CUDNN_VERSION", "8902", 1);
  expect_unusable(8902, "is cuDNN 8.9, and 9.15 is the least");
}
END_TEST

START_TEST(a_later_major_version_is_refused) {
  setenv("MODIST_CUDNN", stand_in, 1);
  setenv("MODIST_STAND_IN_CUDNN_VERSION", "100100", 1);
  expect_unusable(100100, "is cuDNN 10.1, and only 9 is known here");
}
END_TEST

START_TEST(another_library_is_no_cudnn) {
  setenv("MODIST_CUDNN", "libm.so.6", 1);
  expect_unusable(0, "has no cudnnGetVersion");
}
END_TEST

// --- the stand-in

START_TEST(an_engine_of_random_results_is_passed_over) {
  setenv("MODIST_CUDNN", stand_in, 1);
  md_conv v = conv(&shapes[4], MD_CONV_FORWARD, MD_F32, 0);
  md_cudnn *c = md_cudnn_open_offline(h200, why);
  ck_assert_msg(c != NULL, "%s", why);
  md_cudnn_conv *p = md_cudnn_conv_create(c, &v, INT64_MAX, why);  // the second engine
  ck_assert_msg(p != NULL, "%s", why);
  md_cudnn_conv_destroy(p);
  setenv("MODIST_STAND_IN_CUDNN_RANDOM", "2", 1);
  ck_assert(!md_cudnn_conv_create(c, &v, INT64_MAX, why));
  ck_assert_str_eq(why,
                   "no engine gives the same bits in every run and adds plain products of f32");
  md_cudnn_close(c);
}
END_TEST

// Tensor cores, inputs and sums of fewer bits, FFT, random order, Winograd, and how NaN goes through.
START_TEST(what_engines_round_away_is_minded) {
  static const bool is_good[2][10] = {{[9] = true},
                                      {[0] = true, [3] = true, [5] = true, true, true, true, true}};
  char note[12];
  setenv("MODIST_CUDNN", stand_in, 1);
  setenv("MODIST_STAND_IN_CUDNN_RANDOM", "2", 1);
  md_cudnn *c = md_cudnn_open_offline(h200, why);
  for (int i = 0; i < 20; i++) {
    md_conv v = conv(&shapes[4], MD_CONV_FORWARD, i < 10 ? MD_F32 : MD_BF16, 0);
    snprintf(note, sizeof note, "%d", i % 10);
    setenv("MODIST_STAND_IN_CUDNN_NOTE", note, 1);
    md_cudnn_conv *p = md_cudnn_conv_create(c, &v, INT64_MAX, why);
    ck_assert_msg((p != NULL) == is_good[i / 10][i % 10], "note %d: %s", i, why);
    md_cudnn_conv_destroy(p);
  }
  md_cudnn_close(c);
}
END_TEST

START_TEST(a_plan_that_needs_too_much_is_passed_over) {
  setenv("MODIST_CUDNN", stand_in, 1);
  md_conv v = conv(&shapes[4], MD_CONV_DATA, MD_F32, 0);
  md_cudnn *c = md_cudnn_open_offline(h200, why);
  md_cudnn_conv *p = md_cudnn_conv_create(c, &v, 1500, why);
  ck_assert_msg(p != NULL, "%s", why);
  ck_assert_int_eq(md_cudnn_conv_bytes(p), 1500);
  md_cudnn_conv_destroy(p);
  ck_assert(!md_cudnn_conv_create(c, &v, 1000, why));
  ck_assert_str_eq(why, "a plan needs 1.5 KiB of workspace, and 1000 B are left");
  md_cudnn_close(c);
}
END_TEST

START_TEST(a_later_engine_that_needs_less_is_taken) {
  static const struct {
    int64_t room, bytes;
  } rows[] = {{2000, 2000}, {1999, 1800}, {1800, 1800}};
  setenv("MODIST_CUDNN", stand_in, 1);
  md_conv v = conv(&shapes[4], MD_CONV_WEIGHTS, MD_F32, 0);
  md_cudnn *c = md_cudnn_open_offline(h200, why);
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_cudnn_conv *p = md_cudnn_conv_create(c, &v, rows[i].room, why);
    ck_assert_msg(p != NULL, "%s", why);
    ck_assert_int_eq(md_cudnn_conv_bytes(p), rows[i].bytes);
    md_cudnn_conv_destroy(p);
  }
  ck_assert(!md_cudnn_conv_create(c, &v, 1799, why));
  ck_assert_msg(strstr(why, "a plan needs 2.0 KiB of workspace") != NULL, "%s", why);
  md_cudnn_close(c);
}
END_TEST

// Though an engine before it does not suit.
START_TEST(a_plan_that_fails_is_told) {
  setenv("MODIST_CUDNN", stand_in, 1);
  setenv("MODIST_STAND_IN_CUDNN_NO_PLAN", "1", 1);
  md_conv v = conv(&shapes[4], MD_CONV_FORWARD, MD_F32, 0);
  md_cudnn *c = md_cudnn_open_offline(h200, why);
  ck_assert(!md_cudnn_conv_create(c, &v, INT64_MAX, why));
  ck_assert_str_eq(why, "a plan: 3000, CUDNN_STATUS_NOT_SUPPORTED "
                        "(as MODIST_STAND_IN_CUDNN_NO_PLAN says)");
  md_cudnn_close(c);
}
END_TEST

START_TEST(no_engine_at_all_is_said) {
  setenv("MODIST_CUDNN", stand_in, 1);
  setenv("MODIST_STAND_IN_CUDNN_WITHOUT", "10", 1);
  md_conv v = conv(&shapes[4], MD_CONV_FORWARD, MD_F32, 0);
  md_cudnn *c = md_cudnn_open_offline(h200, why);
  ck_assert(!md_cudnn_conv_create(c, &v, INT64_MAX, why));
  ck_assert_str_eq(why, "no engine is for such a convolution");
  md_cudnn_close(c);
}
END_TEST

// A plan, made, bound and dropped; false: with the reason.
static bool use(void) {
  md_conv v = conv(&shapes[4], MD_CONV_DATA, MD_F32, 0);
  char at[3];
  md_conv_places places = {.x = &at[0], .w = &at[1], .y = &at[2]};
  md_cudnn *c = md_cudnn_open_offline(h200, why);
  md_cudnn_conv *p = c ? md_cudnn_conv_create(c, &v, INT64_MAX, why) : NULL;
  bool ok = p && md_cudnn_conv_bind(p, &places, why);
  md_cudnn_conv_destroy(p);
  md_cudnn_close(c);
  return ok;
}

// The stand-in aborts where a descriptor is not given back.
START_TEST(every_call_may_fail) {
  char fault[60];
  setenv("MODIST_CUDNN", stand_in, 1);
  ck_assert_msg(use(), "%s", why);
  int num = 0, harmless = 0;
  for (int n = 1; n < 400; n++) {
    pid_t child = fork();
    if (child == 0) {
      snprintf(fault, sizeof fault, "any:%d:5000", n);
      setenv("MODIST_STAND_IN_CUDNN_FAULT", fault, 1);
      bool ok = use();
      bool is_told = ok || strstr(why, "5000, CUDNN_STATUS_EXECUTION_FAILED (as MODIST_STAND");
      exit(!is_told ? 1 : ok ? 2 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) != 1, "call %d: status %d", n, status);
    num += WEXITSTATUS(status) == 0;
    harmless += WEXITSTATUS(status) == 2;
  }
  printf("%d calls whose failure is told, %d without consequence or not made\n", num, harmless);
  ck_assert_int_gt(num, 40);
}
END_TEST

static bool has_cudnn(void) {
  int status = 0;
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    int version;
    const char *path;
    bool found = md_cudnn_find(&version, &path, why);
    if (!found) printf("skipped: no cuDNN: %s\n", why);
    exit(!found);
  }
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv) {
  const TTest *const own[] = {a_missing_library_is_named,
                              an_old_library_is_refused,
                              an_older_major_version_is_refused,
                              a_later_major_version_is_refused,
                              another_library_is_no_cudnn,
                              an_engine_of_random_results_is_passed_over,
                              what_engines_round_away_is_minded,
                              a_plan_that_needs_too_much_is_passed_over,
                              a_later_engine_that_needs_less_is_taken,
                              plans_are_kept_and_found,
                              a_plan_that_fails_is_told,
                              no_engine_at_all_is_said,
                              every_call_may_fail};
  const TTest *const real[] = {
      every_convolution_has_a_plan, what_is_fused_has_a_plan_where_there_is_a_driver,
      plans_are_kept_and_found,     what_cudnn_refuses_has_its_reason,
      a_device_must_be_described,   without_a_device_there_is_no_handle};
  if (argc > 1) stand_in = argv[1];
  if (stand_in) return run_suite("stand-in", own, MD_COUNT(own));
  return has_cudnn() ? run_suite("cuDNN", real, MD_COUNT(real)) : SKIPPED;
}
