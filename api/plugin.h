// SPDX-License-Identifier: Apache-2.0
// Plug-ins: shared objects that declare a graph through the public API (docs/plugins.md).
#ifndef API_PLUGIN_H
#define API_PLUGIN_H

#include "graph/graph.h"

// Loads the plug-in at `path`, checks its ABI version, lets it declare its graph, unloads it.
// NULL: reported (E0403 to E0406).
md_graph *md_plugin_graph(const char *path, md_diags *d);

#endif
