// SPDX-License-Identifier: Apache-2.0
// The back end that runs the text of CUDA kernels on the host. It is no part of an installation: it needs
// a compiler and the sources, so it is a module that the tests are built with, beside this program or
// where MODIST_SIMT says.
#include "modistc/verify_golden.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *module_path(char own[512]) {
  const char *given = getenv("MODIST_SIMT");
  if (given && *given) return given;
  ssize_t len = readlink("/proc/self/exe", own, 400);
  own[MD_MAX(len, 0)] = 0;
  for (int i = 0; i < 2 && strrchr(own, '/'); i++) *strrchr(own, '/') = 0;
  strcat(own, "/tests/simt/modist_simt.so");
  return own;
}

static bool missing(const char *path, const char *why, md_diags *d) {
  char clean[512];
  md_error(d, E0446, MD_NOWHERE, "CUDA text cannot be run on the host: %s",
           md_clean(why, clean, sizeof clean));
  md_note(d, MD_NOWHERE, "the module is looked for at %s", md_clean(path, clean, sizeof clean));
  md_hint(d, "build modist with its tests (-DMODIST_TESTS=ON) and CUDA, or set "
             "MODIST_SIMT=/path/to/modist_simt.so");
  return false;
}

static bool is_arch(const char *arch, md_cuda_arch *to) {
  char target[80];
  snprintf(target, sizeof target, "cuda:%s", arch);
  md_diags *d = md_diags_create();  // its words are about targets, of which there may be several
  bool ok = !strchr(arch, ',') && md_cuda_targets(target, to, 1, d) == 1;
  md_diags_destroy(d);
  return ok;
}

bool md_verify_simt(const char *arch, md_verify_simt_options *o, md_verify_backend *to,
                    md_diags *d) {
  char own[512], clean[80];
  if (!is_arch(arch, &o->arch)) {
    md_error(d, E0441, MD_NOWHERE, "--arch is '%s', which is no architecture of CUDA devices here",
             md_clean(arch, clean, sizeof clean));
    md_hint(d, "'modistc targets' lists them: sm_80, sm_90a and others");
    return false;
  }
  const char *path = module_path(own);
  // Kernels are opened behind it and call back: what it shows is for all.
  void *lib = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  if (!lib) return missing(path, dlerror(), d);
  void *symbol = dlsym(lib, "md_simt_backend");
  md_verify_module module;
  memcpy(&module, &symbol, sizeof module);
  if (!symbol || !module(MODIST_VERSION, to))
    return missing(path, "the module is of another version of modist", d);
  to->ctx = o;
  return true;
}
