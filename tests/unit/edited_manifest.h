// SPDX-License-Identifier: Apache-2.0
// The manifest of a program that is wrong in one place.
#ifndef TESTS_UNIT_EDITED_MANIFEST_H
#define TESTS_UNIT_EDITED_MANIFEST_H

#include "runtime/exec/exec.h"
#include "tests/unit/edited.h"

// p's manifest with `from` replaced by `to`, read back; NULL: refused. Takes p.
static md_program *read_edited(md_program *p, const char *from, const char *to, md_diags *d) {
  md_program *back = md_program_create("");
  md_text all = {0};
  md_manifest_write(p, NULL, 0, &all);
  const char *text = edited(back->arena, all.s, from, to);
  md_member m = {.name = "manifest.json", .data = text, .bytes = strlen(text)}, *members = &m;
  int num = 1;
  back->path = "net.mdx";
  bool ok = md_manifest_read(back, &members, &num, back->arena, d);
  md_program_destroy(p);
  md_text_free(&all);
  if (ok) return back;
  md_program_destroy(back);
  return NULL;
}

#endif
