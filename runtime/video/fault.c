// SPDX-License-Identifier: Apache-2.0
// Faults are values, as worker threads meet them; here one becomes a diagnostic.
#include "runtime/video/video.h"

void md_fault_report(const md_fault *f, const char *path, md_diags *d) {
  md_error(d, f->code, MD_IN_FILE(path), "%s", f->text);
  if (*f->hint) md_hint(d, "%s", f->hint);
}
