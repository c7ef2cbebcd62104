// SPDX-License-Identifier: Apache-2.0
// Convolutions and both of their gradients in any shape, of all element types.
#include "tests/unit/against_interpreter.h"
#include "tests/unit/suite.h"

typedef struct Sweep {
  int n, in, out, size[3], kernel[3], stride[3], pad[3], dilation[3];
} Sweep;

static int drawn(uint64_t *key, const int *from, int num) {
  *key = md_hash_key("draw", *key);
  return from[*key % (uint64_t)num];
}

// Channels on both sides of a vector and of a tile, extents of 1 to 5, now and then a long row.
static Sweep draw_convolution(uint64_t key) {
  const int channels[] = {1, 3, 7, 16, 17, 33, 65}, rows[] = {1, 2, 3, 4, 5}, one_two[] = {1, 2};
  Sweep s = {.n = drawn(&key, one_two, 2),
             .in = drawn(&key, channels, MD_COUNT(channels)),
             .out = drawn(&key, channels, MD_COUNT(channels))};
  for (int i = 0; i < 3; i++) {
    s.kernel[i] = drawn(&key, (const int[]){1, 2, 3, i == 2 ? 5 : 1}, 4);
    s.stride[i] = drawn(&key, (const int[]){1, 1, 2}, 3);
    s.dilation[i] = drawn(&key, (const int[]){1, 1, 2}, 3);
    int reach = (s.kernel[i] - 1) * s.dilation[i];
    s.pad[i] = drawn(&key, (const int[]){0, reach / 2, reach}, 3);
    s.size[i] = drawn(&key, rows, 5) + MD_MAX(reach - 2 * s.pad[i], 0);
  }
  if (key % 3 == 0) s.size[2] += drawn(&key, (const int[]){9, 24, 31}, 3);
  return s;
}

static void put_axes(md_text *t, const int *x) { md_put(t, "[%d,%d,%d]", x[0], x[1], x[2]); }

static void put_convolution(md_text *t, const Sweep *s) {
  md_put(t, "stride=");
  put_axes(t, s->stride);
  md_put(t, ", pad=");
  put_axes(t, s->pad);
  md_put(t, ", dilation=");
  put_axes(t, s->dilation);
}

static void size_results(const Sweep *s, int out[3]) {
  for (int k = 0; k < 3; k++) {
    int reach = (s->kernel[k] - 1) * s->dilation[k];
    out[k] = (s->size[k] + 2 * s->pad[k] - reach - 1) / s->stride[k] + 1;
  }
}

// Operands are multiples of 1/64 that bf16 holds, and the sums are short: all three are exact. What maxima of one
// element stand before and behind lies in blocks of channels; a first convolution reads a few channels as they are.
static void check_in(const char *of, Sweep s, bool blocks) {
  const char *pool = " {kernel=[1,1,1]}\n";
  int out[3];
  size_results(&s, out);
  md_text t = {0};
  md_put(&t, "graph @g(%%ix: %s[%d,%d,%d,%d,%d], %%w: %s[%d,%d,%d,%d,%d], ", of, s.n, s.in,
         s.size[0], s.size[1], s.size[2], of, s.out, s.in, s.kernel[0], s.kernel[1], s.kernel[2]);
  md_put(&t, "%%idy: %s[%d,%d,%d,%d,%d]) {\n", of, s.n, s.out, out[0], out[1], out[2]);
  bool first = s.in <= 4;
  if (blocks) md_put(&t, "  %%dy, %%ya = max_pool3d %%idy%s", pool);
  if (blocks && !first) md_put(&t, "  %%x, %%xa = max_pool3d %%ix%s", pool);
  const char *x = blocks && !first ? "x" : "ix", *dy = blocks ? "dy" : "idy";
  md_put(&t, "  %%y = conv3d %%%s, %%w {", x);
  put_convolution(&t, &s);
  md_put(&t, "}\n  %%dx = conv3d_dgrad %%%s, %%w {", dy);
  put_convolution(&t, &s);
  md_put(&t, ", shape=[%d,%d,%d,%d,%d]}\n  %%dw = conv3d_wgrad %%%s, %%%s {", s.n, s.in, s.size[0],
         s.size[1], s.size[2], dy, x);
  put_convolution(&t, &s);
  md_put(&t, ", shape=[%d,%d,%d,%d,%d]}\n", s.out, s.in, s.kernel[0], s.kernel[1], s.kernel[2]);
  if (blocks)
    md_put(&t, "  %%a, %%aa = max_pool3d %%y%s  %%b, %%ba = max_pool3d %%dx%s", pool, pool);
  md_put(&t, "  return %s, %%dw\n}\n", blocks ? "%a, %b" : "%y, %dx");
  check_everywhere(t.s, 0, 1);
  md_text_free(&t);
}

static void check_shape(const char *of, Sweep s) { check_in(of, s, false); }

static void check_in_blocks(const Sweep *s, int num) {
  for (int i = 0; i < 2 * num; i++) check_in(i % 2 ? "bf16" : "f32", s[i / 2], true);
}

static void check_shapes(const char *of, int first) {
  for (int i = first; i < first + 12; i++) check_shape(of, draw_convolution((uint64_t)i));
}

// A megabyte of weights: their gradient is made in groups of output or of input channels.
static void check_large(const char *of, Sweep s) {
  for (int i = 0; i < 3; i++) {
    s.stride[i] = s.dilation[i] = 1;
    s.pad[i] = s.kernel[i] / 2;
  }
  check_shape(of, s);
}

START_TEST(convolutions_of_f32_are_exact) { check_shapes("f32", 0); }
END_TEST
START_TEST(more_convolutions_of_f32_are_exact) { check_shapes("f32", 12); }
END_TEST
START_TEST(convolutions_of_bf16_are_exact) { check_shapes("bf16", 0); }
END_TEST
START_TEST(more_convolutions_of_bf16_are_exact) { check_shapes("bf16", 12); }
END_TEST
START_TEST(convolutions_of_f64_are_exact) { check_shapes("f64", 24); }
END_TEST
// The input channels come in chunks, and the last has fewer.
START_TEST(many_weights_of_f32_are_exact) {
  check_large("f32",
              (Sweep){.n = 1, .in = 240, .out = 128, .size = {3, 13, 12}, .kernel = {1, 3, 4}});
  check_large("f32",
              (Sweep){.n = 2, .in = 320, .out = 144, .size = {2, 7, 5}, .kernel = {1, 3, 2}});
}
END_TEST
START_TEST(many_weights_of_bf16_are_exact) {
  check_large("bf16",
              (Sweep){.n = 2, .in = 1040, .out = 128, .size = {3, 5, 3}, .kernel = {2, 1, 1}});
}
END_TEST

// The first convolution forms the sum and stores it for the second and for the outside. Frames beyond
// the ends are no elements of it; channels come in chunks, pixels in tiles of two sizes.
static void check_formed(const char *of) {
  const Sweep formed[] = {
      {.n = 2, .in = 7, .out = 5, .size = {3, 5, 3}, .kernel = {1}, .dilation = {1}},
      {.n = 2, .in = 17, .out = 33, .size = {5, 7, 5}, .kernel = {3}, .dilation = {1}},
      {.n = 1, .in = 33, .out = 16, .size = {1, 3, 3}, .kernel = {3}, .dilation = {1}},
      {.n = 1, .in = 3, .out = 7, .size = {4, 9, 11}, .kernel = {5}, .dilation = {2}},
      {.n = 1, .in = 16, .out = 3, .size = {2, 29, 31}, .kernel = {3}, .dilation = {1}},
      {.n = 1, .in = 2041, .out = 3, .size = {3, 5, 7}, .kernel = {3}, .dilation = {1}},
  };
  for (int i = 0; i < MD_COUNT(formed); i++) {
    const Sweep *s = &formed[i];
    char x[80];
    snprintf(x, sizeof x, "%s[%d,%d,%d,%d,%d]", of, s->n, s->in, s->size[0], s->size[1],
             s->size[2]);
    md_text t = {0};
    md_put(&t, "graph @g(%%x: %s, %%y: %s, %%w: %s[%d,%d,%d,1,1], %%u: %s[5,%d,1,1,1]) {\n", x, x,
           of, s->out, s->in, s->kernel[0], of, s->in);
    md_put(&t, "  %%s = add %%x, %%y\n  %%r = relu %%s\n");
    md_put(&t, "  %%p = conv3d %%r, %%w {pad=[%d,0,0], dilation=[%d,1,1]}\n",
           s->kernel[0] / 2 * s->dilation[0], s->dilation[0]);
    md_put(&t, "  %%q = conv3d %%r, %%u {stride=[1,2,2]}\n  return %%p, %%q, %%r\n}\n");
    check_everywhere(t.s, 0, 1);
    md_text_free(&t);
  }
}

START_TEST(sums_of_f32_are_formed_and_stored_once) { check_formed("f32"); }
END_TEST
START_TEST(sums_of_bf16_are_formed_and_stored_once) { check_formed("bf16"); }
END_TEST
START_TEST(sums_of_f64_are_formed_and_stored_once) { check_formed("f64"); }
END_TEST

// Rows of up to three pixels take four blocks of channels, here of seven or six, whose sums are added up beside.
START_TEST(rows_of_few_pixels_are_exact) {
  for (int width = 1; width <= 3; width++) {
    md_text t = {0};
    md_put(&t, "graph @g(%%x: bf16[2,33,3,5,%d], %%w: bf16[%d,33,1,3,3]) {\n", width,
           width % 2 ? 112 : 92);
    md_put(&t, "  %%p = conv3d %%x, %%w {pad=[0,1,1]}\n  %%r = relu %%p\n");
    md_put(&t,
           "  %%f = cast %%r {to=f32}\n  %%s = sum %%f {axes=[0,2,3,4]}\n  return %%p, %%s\n}\n");
    check_everywhere(t.s, 0, 1);
    md_text_free(&t);
  }
}
END_TEST

// Data gradients of a stride, whose results of all residues lie side by side before an epilogue: a list of pixels behind
// strided frames, residues of unequal size, without taps, in chunks of channels, of three a side.
START_TEST(residues_are_exact) {
  const Sweep strided[] = {
      {2, 4, 3, {6, 6, 1}, {5, 1, 1}, {2, 1, 1}, {2, 0, 0}, {1, 1, 1}},
      {2, 17, 33, {3, 7, 6}, {3, 3, 3}, {1, 2, 2}, {1, 1, 1}, {1, 1, 1}},
      {1, 33, 16, {2, 9, 11}, {1, 1, 1}, {1, 2, 2}, {0, 0, 0}, {1, 1, 1}},
      {1, 7, 2041, {3, 6, 5}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}, {1, 1, 1}},
      {2, 8, 20, {5, 8, 7}, {3, 2, 4}, {2, 3, 3}, {1, 0, 2}, {1, 1, 1}},
  };
  for (int i = 0; i < 2 * MD_COUNT(strided); i++) {
    Sweep s = strided[i / 2];
    const char *of = i % 2 ? "bf16" : "f32";
    int y[3];
    size_results(&s, y);
    md_text t = {0};
    md_put(&t, "graph @g(%%dy: %s[%d,%d,%d,%d,%d], %%w: %s[%d,%d,%d,%d,%d]) {\n", of, s.n, s.out,
           y[0], y[1], y[2], of, s.out, s.in, s.kernel[0], s.kernel[1], s.kernel[2]);
    md_put(&t, "  %%dx = conv3d_dgrad %%dy, %%w {");
    put_convolution(&t, &s);
    md_put(&t, ", shape=[%d,%d,%d,%d,%d]}\n  %%r = relu %%dx\n  %%f = cast %%r {to=f32}\n", s.n,
           s.in, s.size[0], s.size[1], s.size[2]);
    md_put(&t, "  %%s = sum %%f {axes=[0,2,3,4]}\n  return %%r, %%s\n}\n");
    check_everywhere(t.s, 0, 1);
    md_text_free(&t);
  }
}
END_TEST

// Half a register's lanes hold all channels, its other half further ones, taps of a row of a channel, or pixels: numbers
// of all of these that do not fill the last.
START_TEST(halves_of_registers_are_exact) {
  const Sweep few[] = {
      {2, 1, 8, {5, 9, 11}, {5, 5, 5}, {1, 2, 2}, {2, 2, 2}, {1, 1, 1}},
      {1, 3, 7, {2, 6, 13}, {1, 3, 4}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
      {1, 2, 5, {2, 5, 15}, {1, 2, 7}, {1, 1, 3}, {0, 0, 3}, {1, 1, 1}},
      {1, 4, 3, {1, 4, 12}, {1, 1, 6}, {1, 1, 1}, {0, 0, 1}, {1, 1, 2}},
      {1, 2, 8, {3, 4, 9}, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}},
      {2, 7, 6, {3, 5, 7}, {3, 3, 1}, {1, 1, 1}, {1, 1, 0}, {1, 1, 1}},
      {9, 5, 8, {4, 6, 6}, {3, 3, 3}, {1, 1, 1}, {0, 0, 1}, {1, 1, 1}},
  };
  check_in_blocks(few, MD_COUNT(few));
}
END_TEST

// Lists of pixels that lie in blocks of channels are multiplied where they are: of one tile and of several, the last of
// them shorter; all channels at once, or in chunks.
START_TEST(lists_in_place_are_exact) {
  const Sweep list[] = {
      {3, 32, 33, {2, 5, 7}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}},
      {2, 16, 48, {4, 29, 31}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}},
      {1, 1040, 32, {3, 7, 13}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}},
      {1, 48, 8, {1, 3, 5}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}},
  };
  check_in_blocks(list, MD_COUNT(list));
}
END_TEST

// Results of more than half of the last cache, in whole lines, are stored past it; those of an epilogue are not.
static bool stores_lines(const char *text, const char *cpu) {
  md_text ir = {0};
  md_cpu_options o = {.no_cache = true, .no_code = true, .cpu = cpu, .llvm_ir = &ir};
  md_program *p = compiled(text, &(Setup){.level = 2, .cpu = cpu}, &o);
  bool found = strstr(ir.s, "!nontemporal") != NULL;
  ck_assert(found == (strstr(ir.s, "fence seq_cst") != NULL));
  md_program_destroy(p);
  md_text_free(&ir);
  return found;
}

START_TEST(large_results_pass_the_cache) {
  const char *form =
      "graph @g(%%x: f32[1,2,1,%d,512], %%w: f32[16,2,1,1,1]) {\n"
      "  %%y = conv3d %%x, %%w\n%s"
      "  %%m, %%i = max_pool3d %%%s {kernel=[1,4,4], stride=[1,4,4]}\n  return %%m\n}\n";
  char large[512], small[512], epilogue[512];
  snprintf(large, sizeof large, form, 520, "", "y");
  snprintf(small, sizeof small, form, 8, "", "y");
  snprintf(epilogue, sizeof epilogue, form, 520, "  %r = relu %y\n", "r");
  ck_assert(stores_lines(large, "avx512"));
  ck_assert(!stores_lines(large, "avx2"));  // half a line
  ck_assert(!stores_lines(small, "avx512"));
  ck_assert(!stores_lines(epilogue, "avx512"));
  check_targets(large, &(Setup){.level = 2, .steps = 1});
}
END_TEST

SUITE_MAIN("cpu_conv", convolutions_of_f32_are_exact, more_convolutions_of_f32_are_exact,
           convolutions_of_bf16_are_exact, more_convolutions_of_bf16_are_exact,
           convolutions_of_f64_are_exact, many_weights_of_f32_are_exact,
           many_weights_of_bf16_are_exact, residues_are_exact, halves_of_registers_are_exact,
           lists_in_place_are_exact, sums_of_f32_are_formed_and_stored_once,
           sums_of_bf16_are_formed_and_stored_once, rows_of_few_pixels_are_exact,
           sums_of_f64_are_formed_and_stored_once, large_results_pass_the_cache)
