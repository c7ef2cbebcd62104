// SPDX-License-Identifier: Apache-2.0
// A plug-in: a small network that modistc can compile as if it were one of its own.
//   cc -shared -fPIC $(pkg-config --cflags modist) small_net.c -o small_net.so
//   modistc run ./small_net.so
#include <modist/modist.h>

// modistc asks for the version before it calls anything.
MODIST_API extern const int modist_plugin_abi;
const int modist_plugin_abi = MODIST_ABI_VERSION;

static modist_val layer(modist_graph *g, modist_val x, const char *name, int64_t width,
                        const char *attrs) {
  int64_t dim[5] = {width, modist_dim(g, x, 1), 1, 3, 3};
  modist_val w = modist_state(g, name, MD_F32, 5, dim, "init=normal, b=0.1");
  modist_val y = modist_op(g, "conv3d", (modist_val[]){x, w}, 2, attrs);
  return modist_op(g, "relu", &y, 1, NULL);
}

MODIST_API void modist_plugin_declare(modist_graph *g);
void modist_plugin_declare(modist_graph *g) {
  modist_val x = modist_input(g, "x", MD_F32, 5, (int64_t[]){2, 3, 4, 32, 32});
  modist_val y = layer(g, x, "conv1.w", 16, "stride=[1,2,2], pad=[0,1,1]");
  y = layer(g, y, "conv2.w", 32, "stride=[1,2,2], pad=[0,1,1]");
  y = modist_op(g, "avg_pool3d", &y, 1, "kernel=[4,8,8], stride=[4,8,8]");
  modist_return(g, "features", y);
}
