// SPDX-License-Identifier: Apache-2.0
// What a CUDA program says of its convolutions, for another engine: it survives a manifest, and what does not
// fit together is refused before anybody follows it.
#include "tests/unit/edited_manifest.h"
#include "tests/unit/suite.h"

#include <string.h>

static md_arg tensor(int at, int64_t n, int64_t c, int64_t t, int64_t h, int64_t w) {
  md_arg a = {
      .space = MD_IN_INPUT, .index = at, .dtype = MD_F32, .rank = 5, .dim = {n, c, t, h, w}};
  a.bytes = 4 * n * c * t * h * w;
  return a;
}

static md_arg vector(int at, int64_t n) {
  return (md_arg){
      .space = MD_IN_INPUT, .index = at, .dtype = MD_F32, .rank = 1, .dim = {n}, .bytes = 4 * n};
}

static md_spec spec(const char *name, const md_arg *a) {
  md_spec s = {.name = name, .dtype = MD_F32, .rank = a->rank, .bytes = a->bytes};
  memcpy(s.dim, a->dim, sizeof a->dim);
  return s;
}

// Two launches, of which the first is y = x * w, with a stride of two and a hole between taps.
static md_program *program(void) {
  md_program *p = md_program_create("net");
  md_arena *a = p->arena;
  p->target = "cuda:sm_80";
  p->input = MD_NEW_ARRAY(a, md_spec, p->num_inputs = 4);
  p->result = MD_NEW_ARRAY(a, md_spec, p->num_results = 1);
  p->result_at = MD_NEW_ARRAY(a, md_arg, 1);
  p->conv = MD_NEW_ARRAY(a, md_conv_group, p->num_convs = 1);
  p->conv[0] = (md_conv_group){.num_launches = 1,
                               .x = tensor(0, 2, 8, 4, 9, 8),
                               .w = tensor(1, 16, 8, 1, 3, 3),
                               .y = tensor(0, 2, 16, 4, 4, 3),
                               .stride = {1, 2, 2},
                               .pad = {0, 1, 1},
                               .dilation = {1, 2, 2}};
  p->conv[0].y.space = MD_IN_RESULT;
  p->conv[0].y.write = true;
  p->input[0] = spec("x", &p->conv[0].x);
  p->input[1] = spec("w", &p->conv[0].w);
  md_arg by_channel = vector(2, 8), bias = vector(3, 16);
  p->input[2] = spec("of_x", &by_channel);
  p->input[3] = spec("of_y", &bias);
  p->result[0] = spec("y", &p->conv[0].y);
  p->result_at[0] = p->conv[0].y;
  p->launch = MD_NEW_ARRAY(a, md_launch, p->num_launches = 2);
  p->phase = MD_NEW_ARRAY(a, md_phase, p->num_phases = 2);
  p->arg = MD_NEW_ARRAY(a, md_arg, 1);
  for (int i = 0; i < 2; i++) {
    p->launch[i] = (md_launch){.name = i ? "rest" : "conv3d", .first_phase = i, .num_phases = 1};
    p->phase[i] = (md_phase){.symbol = "k", .items = 1, .threads = 256};
  }
  p->variant = MD_NEW_ARRAY(a, md_gpu_variant, p->num_variants = 1);
  p->kernel = MD_NEW_ARRAY(a, md_gpu_kernel, p->num_kernels = 1);
  p->variant[0] = (md_gpu_variant){.target = "cuda:sm_80", .num_launches = 2, .num_kernels = 1};
  p->kernel[0] = (md_gpu_kernel){.symbol = "k", .member = "k.cubin"};
  return p;
}

// relu(norm(x) + x), convolved, + bias, + y of another.
static void fuse(md_conv_group *g) {
  g->fused = (md_conv_fused){.relu_before = true, .eps = 0.25};
  for (int i = MD_CONV_GAMMA; i <= MD_CONV_NORM_VAR; i++) g->part[i] = vector(2, 8);
  g->part[MD_CONV_ADD] = g->x;
  g->part[MD_CONV_BIAS] = vector(3, 16);
}

static md_program *fused(void) {
  md_program *p = program();
  fuse(p->conv);
  return p;
}

// --- the check

typedef struct Wrong {
  void (*spoil)(md_conv_group *g, md_program *p);
  const char *text;
} Wrong;

// clang-format off
#define SPOIL(name, ...) static void name(md_conv_group *g, md_program *p) { (void)g, (void)p; __VA_ARGS__; }
SPOIL(no_kind, g->kind = MD_NUM_CONVS)
SPOIL(no_launch, g->num_launches = 0)
SPOIL(endless_launches, g->num_launches = INT32_MAX)
SPOIL(launch_before_all, g->first_launch = -1)
SPOIL(past_the_target, g->num_launches = 2; p->variant[0].num_launches = 1)
SPOIL(of_no_target, p->variant[0].num_launches = 0)
SPOIL(twice, p->num_convs = 2; p->conv = MD_NEW_ARRAY(p->arena, md_conv_group, 2); p->conv[0] = p->conv[1] = *g)
SPOIL(negative_count, p->num_convs = -1)
SPOIL(operand_outside, g->x.offset = 16)
SPOIL(operand_of_no_input, g->w.index = 4)
SPOIL(operand_between, g->x.offset = 4; g->x.bytes -= 4; g->x.dim[0] = 1)
SPOIL(operand_of_four_axes, g->x.rank = 4)
SPOIL(operand_of_integers, g->x.dtype = MD_I32)
SPOIL(operand_without_type, g->x.dtype = MD_NO_DTYPE)
SPOIL(operand_in_small_blocks, g->x.block = 4)
SPOIL(weights_in_blocks, g->w.block = (int)g->w.dim[1])
SPOIL(operand_that_is_written, g->y.write = false)
SPOIL(result_that_is_read, g->kind = MD_CONV_DATA)
SPOIL(other_channels, g->w.dim[1] = 4)
SPOIL(other_samples, g->y.dim[0] = 1)
SPOIL(other_size, g->y.dim[4] = 2)
SPOIL(no_stride, g->stride[1] = 0)
SPOIL(endless_stride, g->stride[0] = INT64_MAX)
SPOIL(negative_pad, g->pad[0] = -1)
SPOIL(endless_pad, g->pad[2] = INT64_MAX)
SPOIL(no_dilation, g->dilation[2] = 0)
SPOIL(endless_dilation, g->dilation[2] = INT64_MAX)
SPOIL(window_too_large, g->dilation[1] = 9)

SPOIL(gradient_that_is_fused, fuse(g); g->kind = MD_CONV_DATA)
SPOIL(half_a_norm, fuse(g); g->part[MD_CONV_BETA].rank = 0)
SPOIL(norm_of_nothing, fuse(g); g->part[MD_CONV_ADD_GAMMA] = vector(2, 8))
SPOIL(norm_of_no_sum, fuse(g); memcpy(&g->part[MD_CONV_ADD_GAMMA], &g->part[MD_CONV_GAMMA], 4 * sizeof *g->part); g->part[MD_CONV_ADD].rank = 0)
SPOIL(one_moment, g->part[MD_CONV_MEAN] = vector(3, 16); g->part[MD_CONV_MEAN].space = MD_IN_RESULT; g->part[MD_CONV_MEAN].index = 0; g->part[MD_CONV_MEAN].write = true)
SPOIL(norm_of_other_channels, fuse(g); g->part[MD_CONV_GAMMA] = vector(3, 16))
SPOIL(norm_of_integers, fuse(g); g->part[MD_CONV_GAMMA].dtype = MD_I32)
SPOIL(norm_in_bf16, fuse(g); g->part[MD_CONV_GAMMA].dtype = MD_BF16)
SPOIL(bias_that_is_written, fuse(g); g->part[MD_CONV_BIAS].write = true; g->part[MD_CONV_BIAS].space = MD_IN_RESULT; g->part[MD_CONV_BIAS].index = 0)
SPOIL(bias_outside, fuse(g); g->part[MD_CONV_BIAS].index = 4)
SPOIL(sum_of_other_sizes, fuse(g); g->part[MD_CONV_ADD].dim[0] = 1)
SPOIL(rest_of_other_sizes, fuse(g); g->part[MD_CONV_REST] = g->x)
SPOIL(stored_as_it_is, p->arena_bytes = 1 << 20; g->part[MD_CONV_FORMED] = g->x; g->part[MD_CONV_FORMED].space = MD_IN_ARENA; g->part[MD_CONV_FORMED].write = true)

static const Wrong wrong[] = {
  {gradient_that_is_fused, "convolution 0: only forward ones are fused"},
  {half_a_norm, "convolution 0: a part of what is fused is missing"},
  {norm_of_nothing, "convolution 0: a part of what is fused is missing"},
  {norm_of_no_sum, "convolution 0: a part of what is fused is missing"},
  {one_moment, "convolution 0: a part of what is fused is missing"},
  {norm_of_other_channels, "gamma: not a number for each channel, as an engine takes it"},
  {norm_of_integers, "gamma: not a number for each channel, as an engine takes it"},
  {norm_in_bf16, "gamma: not a number for each channel, as an engine takes it"},
  {bias_that_is_written, "bias: not a number for each channel, as an engine takes it"},
  {bias_outside, "'(no name)' lies in memory that does not exist"},
  {sum_of_other_sizes, "add: it has not the sizes of x"},
  {rest_of_other_sizes, "rest: it has not the sizes of y"},
  {stored_as_it_is, "convolution 0: a part of what is fused is missing"},
  {no_kind, "convolution 0: launches 0+1 of 2"},
  {no_launch, "convolution 0: launches 0+0 of 2"},
  {endless_launches, "convolution 0: launches 0+2147483647 of 2"},
  {launch_before_all, "convolution 0: launches -1+1 of 2"},
  {past_the_target, "convolution 0 goes beyond the launches of 'cuda:sm_80'"},
  {of_no_target, "convolution 0 is of no target"},
  {twice, "convolution 1: launches 0+1 of 2"},
  {negative_count, "-1 convolutions; 0 to 1048576 are possible"},
  {operand_outside, "'(no name)' reaches beyond the input"},
  {operand_of_no_input, "'(no name)' lies in memory that does not exist"},
  {operand_between, "convolution 0: not as an engine takes it"},
  {operand_of_four_axes, "convolution 0: not as an engine takes it"},
  {operand_of_integers, "convolution 0: not as an engine takes it"},
  {operand_without_type, "convolution 0: not as an engine takes it"},
  {operand_in_small_blocks, "convolution 0: not as an engine takes it"},
  {weights_in_blocks, "convolution 0: weights in blocks, which no engine takes"},
  {operand_that_is_written, "convolution 0: not as an engine takes it"},
  {result_that_is_read, "convolution 0: not as an engine takes it"},
  {other_channels, "convolution 0: its sizes do not fit together"},
  {other_samples, "convolution 0: its sizes do not fit together"},
  {other_size, "convolution 0: its sizes do not fit together"},
  {no_stride, "convolution 0: its sizes do not fit together"},
  {endless_stride, "convolution 0: its sizes do not fit together"},
  {negative_pad, "convolution 0: its sizes do not fit together"},
  {endless_pad, "convolution 0: its sizes do not fit together"},
  {no_dilation, "convolution 0: its sizes do not fit together"},
  {endless_dilation, "convolution 0: its sizes do not fit together"},
  {window_too_large, "convolution 0: its sizes do not fit together"},
};
// clang-format on

START_TEST(what_does_not_fit_is_refused) {
  md_diags *d = md_diags_create();
  md_program *good = program();
  ck_assert_msg(md_program_check(good, d), "%s", md_diags_text(d));
  fuse(good->conv);
  ck_assert_msg(md_program_check(good, d), "%s", md_diags_text(d));
  md_program_destroy(good);
  for (int i = 0; i < MD_COUNT(wrong); i++) {
    md_program *p = program();
    wrong[i].spoil(&p->conv[0], p);
    md_diags_clear(d);
    ck_assert_msg(!md_program_check(p, d), "%s", wrong[i].text);
    ck_assert_int_eq(md_diags_errors(d), 1);
    ck_assert_msg(strstr(md_diags_text(d), wrong[i].text), "want '%s' in '%s'", wrong[i].text,
                  md_diags_text(d));
    md_program_destroy(p);
  }
  md_diags_destroy(d);
}
END_TEST

// --- as a file has it

START_TEST(a_manifest_keeps_it) {
  md_diags *d = md_diags_create();
  md_program *p = fused(), *back = read_edited(fused(), "{", "{", d);
  ck_assert_msg(back != NULL, "%s", md_diags_text(d));
  ck_assert_int_eq(back->num_convs, 1);
  md_text first = {0}, again = {0};
  md_manifest_write(p, NULL, 0, &first);
  md_manifest_write(back, NULL, 0, &again);
  ck_assert_str_eq(first.s, again.s);
  md_text_free(&first);
  md_text_free(&again);
  md_program_destroy(p);
  md_program_destroy(back);
  md_diags_destroy(d);
}
END_TEST

START_TEST(a_manifest_that_is_wrong_is_refused) {
  static const struct {
    const char *from, *to, *text;
  } edits[] = {
      {"\"kind\":\"forward\"", "\"kind\":\"sideways\"", "'kind' is missing or is not a word"},
      {"\"stride\":[1,2,2]", "\"stride\":[1,2]", "'stride' is missing or is not a list of 3 num"},
      {"\"stride\":[1,2,2]", "\"stride\":[1,2,\"2\"]", "'stride' is missing or is not a list of"},
      {"\"pad\":[0,1,1],", "", "'pad' is missing or is not a list of 3 numbers"},
      {"\"pad\":[0,1,1]", "\"pad\":[0,2,1]", "its sizes do not fit together"},
      {"\"first_launch\":0,", "\"first_launch\":-1,", "'first_launch' is missing or is not a num"},
      {"\"num_launches\":1,", "", "'num_launches' is missing or is not a number"},
      {"\"convolutions\": [", "\"convolutions\": [1, ", "'convolutions' is missing or is not a l"},
      {"\"w\":{", "\"v\":{", "'w' is missing or is not an object"},
      {"\"eps\":0.25,", "", "'eps' is missing or is not a number"},
      {"\"bias\":{", "\"bias\":1,\"b\":{", "'bias' is missing or is not an object"},
      {"\"beta\":{", "\"b\":{", "a part of what is fused is missing"},
  };
  md_diags *d = md_diags_create();
  for (int i = 0; i < MD_COUNT(edits); i++) {
    md_diags_clear(d);
    ck_assert_msg(!read_edited(fused(), edits[i].from, edits[i].to, d), "edit %d was accepted", i);
    ck_assert_int_eq(md_diags_errors(d), 1);
    ck_assert_msg(strstr(md_diags_text(d), edits[i].text), "want '%s' in '%s'", edits[i].text,
                  md_diags_text(d));
  }
  md_program *p =
      read_edited(fused(), "\"convolutions\"", "\"later\"", d);  // as older files have it
  ck_assert(p && p->num_convs == 0);
  md_program_destroy(p);
  md_diags_destroy(d);
}
END_TEST

SUITE_MAIN("conv_group", what_does_not_fit_is_refused, a_manifest_keeps_it,
           a_manifest_that_is_wrong_is_refused)
