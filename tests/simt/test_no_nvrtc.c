// SPDX-License-Identifier: Apache-2.0
// Where NVRTC is looked for, and what is said when it is nowhere: this program's dlopen finds nothing, on a machine
// that has it, too.
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "codegen/cuda/cuda.h"

static md_text asked;
static int failed;

__attribute__((visibility("default"))) void *dlopen(const char *name, int flags) {
  (void)flags;
  md_put(&asked, "%s\n", name);
  return NULL;
}

__attribute__((visibility("default"))) char *dlerror(void) {
  static char why[] = "it is not here";
  return why;
}

static void check(bool ok, const char *claim, const char *seen) {
  if (!ok) printf("FAILED %s\n%s\n", claim, seen ? seen : "");
  failed += !ok;
}

// Of each folder of a root all names are tried.
static void put_root(md_text *to, const char *root) {
  static const char *const folders[] = {"lib64", "lib", "targets/x86_64-linux/lib"};
  for (int i = 0; i < MD_COUNT(folders); i++)
    for (const char *const *name = (const char *const[]){".13", ".12", "", NULL}; *name; name++)
      md_put(to, "%s/%s/libnvrtc.so%s\n", root, folders[i], *name);
}

int main(void) {
  md_text expected = {0};
  md_diags *d = md_diags_create();
  int major, minor;
  unsetenv("MODIST_NVRTC");
  setenv("CUDA_HOME", "/a/home", 1);
  setenv("CUDA_PATH", "", 1);
  check(
      !md_nvrtc_version(&major, &minor, d) && md_diags_status(d) == MD_ERR_MISSING &&
          strstr(
              md_diags_text(d),
              "error[E0442]: NVRTC cannot be opened: it is not here\n"
              "   note: looked for libnvrtc.so.13, .so.12 and .so where the loader looks, then in "
              "lib64, lib and targets/x86_64-linux/lib of CUDA_HOME, CUDA_PATH, "
              "/usr/local/cuda and /opt/cuda\n"
              "   hint: install CUDA 12 or 13, or set MODIST_NVRTC=/path/to/libnvrtc.so\n"),
      "the message says where it was looked for", md_diags_text(d));
  md_put(&expected, "libnvrtc.so.13\nlibnvrtc.so.12\nlibnvrtc.so\n");
  put_root(&expected, "/a/home");
  put_root(&expected, "/usr/local/cuda");
  put_root(&expected, "/opt/cuda");
  check(!strcmp(asked.s ? asked.s : "", expected.s), "and there it was looked for", asked.s);
  md_text_free(&expected);
  md_text_free(&asked);
  md_diags_destroy(d);
  printf("%d failed\n", failed);
  return failed != 0;
}
