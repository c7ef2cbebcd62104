// SPDX-License-Identifier: Apache-2.0
// Which device runs a program: the one that the caller names, else the first that the program is for.
#include "runtime/exec/device.h"

#include <string.h>

const char *const md_conv_engine_names[MD_NUM_ENGINES + 1] = {"modist", "cudnn", "fastest", NULL};

bool md_conv_engine_suits(md_conv_engine e, bool deterministic, md_diags *d) {
  if (!deterministic || e != MD_ENGINE_FASTEST) return true;
  md_error(d, E0401, MD_NOWHERE,
           "--deterministic and --engine=fastest exclude one another: times differ from run to "
           "run, and who "
           "is faster with them");
  md_hint(d, "--engine=modist and --engine=cudnn do the same in every run");
  return false;
}

bool md_device_parse(const char *text, int *index, md_diags *d) {
  static const char gpu[] = "cuda";
  int64_t n = 0;
  *index = -1;
  if (!strcmp(text, "cpu")) return true;
  if (!strncmp(text, gpu, strlen(gpu))) {
    const char *rest = text + strlen(gpu);
    bool is_number = *rest == ':' && rest[1] >= '0' && rest[1] <= '9';
    if (!*rest || (is_number && md_parse_int(rest + 1, &n) && n < 1024)) {
      *index = (int)n;
      return true;
    }
  }
  char clean[80];
  md_error(d, E0401, MD_NOWHERE, "there is no device '%s'", md_clean(text, clean, sizeof clean));
  md_hint(d, "devices are cpu and cuda:N, N = 0 for the first; 'modistc doctor' lists them");
  return false;
}

md_device *md_device_open(const md_program *p, const md_exec_options *o, md_pool *pool,
                          md_diags *d) {
  int index = p->num_variants ? 0 : -1;
  if (o->device && !md_device_parse(o->device, &index, d)) return NULL;
  md_place at = p->path ? MD_IN_FILE(p->path) : MD_NOWHERE;
  char target[256];
  md_clean(p->target, target, sizeof target);
  if (index < 0 && p->num_variants) {
    md_error(d, E0633, at, "program '%s' is for %s and does not run on the CPU", p->name, target);
    md_hint(d, "--device=cuda:0, or compile it for --target=%s", md_machine_target());
    return NULL;
  }
  if (index >= 0 && !p->num_variants) {
    md_error(d, E0633, at, "program '%s' is for %s and does not run on a GPU", p->name, target);
    md_hint(d, "--device=cpu, or compile it for --target=cuda:sm_NN; 'modistc targets' lists them");
    return NULL;
  }
  if (index < 0 && o->engine != MD_ENGINE_MODIST) {
    md_error(d, E0638, at, "--engine=%s would do nothing: the CPU runs the program",
             md_conv_engine_names[o->engine]);
    md_hint(d, "leave it out, or compile for a GPU and add --device=cuda:0");
    return NULL;
  }
  return index < 0 ? md_device_open_cpu(p, o, pool, d) : md_device_open_cuda(p, o, index, d);
}
