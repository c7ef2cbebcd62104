// SPDX-License-Identifier: Apache-2.0
// Failures without a handle to keep their text, and option structs of other versions.
#include "api/internal.h"

#include <string.h>

// Who gets no handle has nowhere else to read the text from; one text a thread, as errno.
static _Thread_local char last[4096];

int modist_abi_version(void) { return MODIST_ABI_VERSION; }

const char *modist_version(void) { return MODIST_VERSION; }

const char *modist_last_error(void) { return last; }

md_status md_api_fail(md_diags *d) {
  MD_ASSERT(md_diags_errors(d), "failed without a reason");
  snprintf(last, sizeof last, "%s", md_diags_text(d));
  md_status status = md_diags_status(d);
  md_diags_destroy(d);
  return status;
}

bool md_api_options(void *own, size_t own_size, const void *given, const char *what, md_diags *d) {
  if (!given) return true;
  size_t size;
  memcpy(&size, given, sizeof size);
  if (size < sizeof size) {
    md_error(d, E0407, MD_NOWHERE, "%s: struct_size is %zu", what, size);
    md_hint(d, "%s o = {.struct_size = sizeof o};", what);
    return false;
  }
  const unsigned char *bytes = given;
  for (size_t i = own_size; i < size; i++) {
    if (!bytes[i]) continue;
    md_error(d, E0407, MD_NOWHERE, "%s: a setting beyond the %zu bytes that this library knows",
             what, own_size);
    md_hint(d, "the program was built for a newer modist than %s", MODIST_VERSION);
    return false;
  }
  memcpy(own, given, MD_MIN(size, own_size));
  return true;
}
