// SPDX-License-Identifier: Apache-2.0
// What a CUDA program says of a tensor that TMA copies windows of: it survives a manifest, and what no tensor map
// can say, or what would be read beyond the tensor, is refused before a driver is asked.
#include "tests/unit/edited_manifest.h"
#include "tests/unit/suite.h"

#include <string.h>

// One launch, which takes windows of 3 x 3 of an input bf16 [2][1][9][8][64], with a stride of two on the height.
static md_program *program(void) {
  md_program *p = md_program_create("net");
  md_arena *a = p->arena;
  p->target = "cuda:sm_90a";
  p->input = MD_NEW_ARRAY(a, md_spec, p->num_inputs = 1);
  p->input[0] = (md_spec){
      .name = "x", .dtype = MD_BF16, .rank = 5, .dim = {2, 64, 1, 9, 8}, .bytes = 2 * 2 * 64 * 72};
  md_windows *w = MD_NEW_ARRAY(a, md_windows, 1);
  *w = (md_windows){.dim = {64, 8, 9, 1, 2},
                    .first = {-1, -1, 0},
                    .last = {-1, -1, 0},
                    .step = {1, 2, 1},
                    .channels = 64,
                    .pixels = 128};
  p->arg = MD_NEW_ARRAY(a, md_arg, p->num_args = 1);
  p->arg[0] = (md_arg){.space = MD_IN_INPUT, .bytes = p->input[0].bytes, .name = "x", .windows = w};
  p->launch = MD_NEW_ARRAY(a, md_launch, p->num_launches = 1);
  p->phase = MD_NEW_ARRAY(a, md_phase, p->num_phases = 1);
  p->launch[0] = (md_launch){.name = "conv3d", .num_phases = 1, .num_args = 1};
  p->phase[0] = (md_phase){.symbol = "k", .items = 1, .threads = 512};
  p->variant = MD_NEW_ARRAY(a, md_gpu_variant, p->num_variants = 1);
  p->kernel = MD_NEW_ARRAY(a, md_gpu_kernel, p->num_kernels = 1);
  p->variant[0] = (md_gpu_variant){.target = "cuda:sm_90a", .num_launches = 1, .num_kernels = 1};
  p->kernel[0] = (md_gpu_kernel){.symbol = "k", .member = "k.cubin"};
  return p;
}

START_TEST(a_manifest_keeps_them) {
  md_diags *d = md_diags_create();
  md_program *p = program(), *back = read_edited(program(), "{", "{", d);
  ck_assert_msg(back != NULL, "%s", md_diags_text(d));
  ck_assert_ptr_nonnull(back->arg[0].windows);
  ck_assert_mem_eq(back->arg[0].windows, p->arg[0].windows, sizeof *p->arg[0].windows);
  md_program_destroy(p);
  md_program_destroy(back);
  md_diags_destroy(d);
}
END_TEST

START_TEST(what_no_map_can_say_is_refused) {
  static const char none[] = "no tensor map can say which windows of 'x' there are";
  static const struct {
    const char *from, *to, *text;
  } edits[] = {
      {"\"of\":[64,8,9,1,2]", "\"of\":[64,8,9,1,3]", none},  // beyond the tensor
      {"\"of\":[64,8,9,1,2]", "\"of\":[60,8,9,1,2]", none},  // pixels are no multiples of 16 bytes
      {"\"of\":[64,8,9,1,2]", "\"of\":[64,8,0,1,2]", none},
      {"\"of\":[64,8,9,1,2]", "\"of\":[64,8,9,4611686018427387904,4]", none},
      {"\"of\":[64,8,9,1,2]", "\"of\":[64,8,9,1]", "'of' is missing or is not a list of 5 numbers"},
      {"\"first\":[-1,-1,0]", "\"first\":[-1,-17,0]", none},
      {"\"first\":[-1,-1,0]", "\"first\":[16,-1,0]", none},
      {"\"last\":[-1,-1,0]", "\"last\":[-1,-1,16]", none},
      {"\"last\":[-1,-1,0]", "\"last\":[-17,-1,0]", none},
      {"\"step\":[1,2,1]", "\"step\":[1,0,1]", none},
      {"\"step\":[1,2,1]", "\"step\":[1,9,1]", none},
      {"\"channels\":64", "\"channels\":32", none},
      {"\"channels\":64", "\"channels\":65",
       "'channels' is missing or is not a number in its range"},
      {"\"pixels\":128", "\"pixels\":0", none},
      {"\"pixels\":128", "\"pixels\":1025", "'pixels' is missing or is not a number in its range"},
      {"\"offset\":0,\"bytes\":18432", "\"offset\":8,\"bytes\":18424", none},
      {"\"windows\":{", "\"windows\":1,\"w\":{", "'windows' is missing or is not an object"},
  };
  md_diags *d = md_diags_create();
  for (int i = 0; i < MD_COUNT(edits); i++) {
    md_diags_clear(d);
    ck_assert_msg(!read_edited(program(), edits[i].from, edits[i].to, d), "edit %d was accepted",
                  i);
    ck_assert_int_eq(md_diags_errors(d), 1);
    ck_assert_msg(strstr(md_diags_text(d), edits[i].text), "want '%s' in '%s'", edits[i].text,
                  md_diags_text(d));
  }
  md_diags_destroy(d);
}
END_TEST

START_TEST(no_cpu_takes_them) {
  md_diags *d = md_diags_create();
  md_program *p = program();
  p->num_variants = p->num_kernels = 0;
  p->phase[0].threads = 0;
  p->target = "cpu:x86-64";
  ck_assert(!md_program_check(p, d));
  ck_assert_msg(strstr(md_diags_text(d), "no tensor map can say"), "%s", md_diags_text(d));
  md_program_destroy(p);
  md_diags_destroy(d);
}
END_TEST

SUITE_MAIN("windows", a_manifest_keeps_them, what_no_map_can_say_is_refused, no_cpu_takes_them)
