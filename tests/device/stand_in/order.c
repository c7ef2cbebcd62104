// SPDX-License-Identifier: Apache-2.0
// When asynchronous work is done, by MODIST_STAND_IN_ORDER:
//   at-once       when it is issued
//   late          when somebody waits for it, and what is to be waited for: a wait that is missing shows
//   copies-first  copies as soon as their stream lets them, the rest late
//   others-first  late, but the work of all other streams comes before that which is waited for
#include "tests/device/stand_in/stand_in.h"

#include <string.h>

Order order(void) {
  static const char *const names[] = {"at-once", "late", "copies-first", "others-first"};
  const char *name = setting("ORDER", "late");
  for (int i = 0; i < MD_COUNT(names); i++)
    if (!strcmp(name, names[i])) return (Order)i;
  MD_ASSERT(false, "MODIST_STAND_IN_ORDER=%s", name);
  return LATE;
}
