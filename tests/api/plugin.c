// SPDX-License-Identifier: Apache-2.0
// A plug-in as the book says; -D makes one mistake of it.
#include "modist/modist.h"

#ifndef NO_ABI
MODIST_API extern const int modist_plugin_abi;
#ifdef OTHER_ABI
const int modist_plugin_abi = 999;
#else
const int modist_plugin_abi = MODIST_ABI_VERSION;
#endif
#endif

#ifdef UNDEFINED
int nobody_has_this(void);
#endif

#ifndef NO_ENTRY
MODIST_API void modist_plugin_declare(modist_graph *g);
void modist_plugin_declare(modist_graph *g) {
  modist_val x = modist_input(g, "x", MD_F32, 2, (int64_t[]){4, 8});
#if defined(BAD_GRAPH)
  modist_val y = modist_op(g, "rellu", &x, 1, NULL);
#elif defined(UNDEFINED)
  modist_val y = modist_op(g, nobody_has_this() ? "relu" : "exp", &x, 1, NULL);
#else
  modist_val y = modist_op(g, "relu", &x, 1, NULL);
#endif
#ifdef NO_RESULT
  (void)y;
#else
  modist_return(g, "y", y);
#endif
}
#endif
