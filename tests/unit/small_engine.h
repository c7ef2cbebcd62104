// SPDX-License-Identifier: Apache-2.0
// A network so small that each byte of its checkpoint, and each call of a save, can be tried.
#ifndef TESTS_UNIT_SMALL_ENGINE_H
#define TESTS_UNIT_SMALL_ENGINE_H

#include "runtime/train/train.h"

#include <check.h>
#include <string.h>

static const char small[] = "graph @small(%x: f32[3]) {\n"
                            "  %vw = state @v.w {init=normal, a=0.0, b=1.0} : f32[3]\n"
                            "  %mw = state @m.w {init=normal, a=0.0, b=1.0} : f32[2,3]\n"
                            "  %n = state @n {init=fill, a=7.0} : i32[1]\n"
                            "  %y = mul %x, %vw : f32[3]\n"
                            "  update @v.w = %y\n"
                            "  return %y\n"
                            "}\n";

static inline md_engine *engine_of(const char *text, uint64_t seed) {
  md_diags *d = md_diags_create();
  md_graph *g = md_parse_graph("test.mdg", text, strlen(text), d);
  ck_assert_msg(g != NULL, "%s", md_diags_text(d));
  md_engine_options o = {.backend = MD_BACKEND_INTERP, .passes = md_pass_defaults(), .seed = seed};
  md_engine *e = md_engine_create(g, &o, d);
  ck_assert_msg(e != NULL, "%s", md_diags_text(d));
  md_diags_destroy(d);
  return e;
}

#endif
