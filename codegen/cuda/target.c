// SPDX-License-Identifier: Apache-2.0
// CUDA targets by name, and what passes ask of them. Compiling for a machine that is not here is the
// normal case, so the list does not depend on what is installed.
#include "codegen/cuda/gen.h"

#include <string.h>

// What NVRTC 13 compiles for. `suffix`: the name with `a` too.
static const struct {
  int sm;
  bool suffix;
} archs[] = {
    {75, false}, {80, false}, {86, false}, {87, false}, {88, false}, {89, false},
    {90, true},  {100, true}, {103, true}, {110, true}, {120, true}, {121, true},
};

enum {
  MAX_DEVICES = 32,
  SHARED_BYTES =
      99 << 10,  // that a block may have on every device from sm_80 on: cubins run on later ones
};

static void nearest(const char *target, md_diags *d) {
  char text[2 * MD_COUNT(archs) + MAX_DEVICES][24];
  const char *name[2 * MD_COUNT(archs) + MAX_DEVICES];
  int num = 0;
  md_text all = {0};
  for (int i = 0; i < MD_COUNT(archs); i++) {
    for (int a = 0; a <= archs[i].suffix; a++) {
      snprintf(text[num], sizeof text[num], "cuda:sm_%d%s", archs[i].sm, a ? "a" : "");
      name[num] = text[num];
      md_put(&all, "%s%s", num ? ", " : "", text[num] + 5);
      num++;
    }
  }
  for (int i = 0; i < md_cuda_num_devices(); i++) {
    const char *device = md_cuda_device_at(i)->name;
    snprintf(text[num], sizeof text[num], "cuda:%s", device);
    name[num] = text[num];
    num++;
    md_put(&all, ", %s", device);
  }
  int sm;
  const char *best = md_nearest(target, name, num);
  if (sscanf(target, "cuda:sm_%d", &sm) == 1 && sm >= 10 && sm < archs[0].sm)
    md_hint(d, "the lowest is --target=cuda:sm_%d, the first that NVRTC 13 compiles for",
            archs[0].sm);
  else if (best) md_hint(d, "did you mean --target=%s?", best);
  else md_hint(d, "CUDA targets are cuda: and one of %s", all.s);
  md_text_free(&all);
}

bool md_cuda_parse(const char *target, md_cuda_arch *arch, md_diags *d) {
  static const char prefix[] = "cuda:sm_";
  size_t len = strlen(prefix);
  if (!strncmp(target, prefix, len)) {
    for (int i = 0; i < MD_COUNT(archs); i++) {
      char name[16];
      snprintf(name, sizeof name, "%d", archs[i].sm);
      size_t digits = strlen(name);
      if (strncmp(target + len, name, digits) != 0) continue;
      const char *rest = target + len + digits;
      *arch = (md_cuda_arch){.sm = archs[i].sm, .suffix = *rest};
      if (!*rest || (archs[i].suffix && !strcmp(rest, "a"))) return true;
    }
  }
  const md_cuda_spec *device = strncmp(target, "cuda:", 5) ? NULL : md_cuda_device(target + 5);
  if (device) {
    *arch = device->arch;
    return true;
  }
  char clean[80];
  md_error(d, E0441, MD_NOWHERE, "unknown target '%s'", md_clean(target, clean, sizeof clean));
  nearest(target, d);
  return false;
}

int md_cuda_num_archs(void) { return MD_COUNT(archs); }

md_cuda_arch md_cuda_arch_at(int i, bool *has_suffix) {
  *has_suffix = archs[i].suffix;
  return (md_cuda_arch){.sm = archs[i].sm};
}

int md_cuda_targets(const char *list, md_cuda_arch *arch, int max, md_diags *d) {
  int num = 0;
  for (const char *s = list;; s++) {
    size_t len = strcspn(s, ",");
    char one[80];
    snprintf(one, sizeof one, "%.*s", (int)MD_MIN(len, sizeof one - 1), s);
    if (num == max) return md_error(d, E0441, MD_NOWHERE, "more than %d targets", max);
    char whole[90];  // only the first needs its "cuda:"
    snprintf(whole, sizeof whole, "%s%s", num && strncmp(one, "cuda:", 5) ? "cuda:" : "", one);
    if (!md_cuda_parse(whole, &arch[num], d)) return 0;
    for (int i = 0; i < num; i++) {
      if (arch[i].sm != arch[num].sm || arch[i].suffix != arch[num].suffix) continue;
      return md_error(d, E0441, MD_NOWHERE, "target '%s' stands twice", one);
    }
    num++;
    s += len;
    if (!*s) return num;
  }
}

const md_cuda_spec *md_cuda_named_device(const char *list, int sm) {
  for (const char *s = list; *s; s += strcspn(s, ",") + (s[strcspn(s, ",")] == ',')) {
    const char *name = strncmp(s, "cuda:", 5) ? s : s + 5;
    char one[40];
    snprintf(one, sizeof one, "%.*s", (int)MD_MIN(strcspn(name, ","), sizeof one - 1), name);
    const md_cuda_spec *device = md_cuda_device(one);
    if (device && device->arch.sm == sm) return device;
  }
  return NULL;
}

int md_cu_shared_limit(const md_cu_work *w) {
  return (int)MD_MIN(md_gpu_shared_limit(w->arch.sm), SHARED_BYTES);
}

static bool have_wgmma(const md_cuda_arch *arch, int num) {
  for (int i = 0; i < num; i++)
    if (!md_cuda_has_wgmma(arch[i])) return false;
  return true;
}

// Steps in the time of a byte: 7 multiply-adds on H200, 5 on A100 and B200, of which about half are left beside
// what the walk does anyway.
enum { AGAIN_WORK = 3 };

// Channels last, rounded up to the 16 bytes of bf16 that one load takes. Two gradients of one region share
// what they load. By wgmma both are made together where one side has 64 channels (conv_wgmma_twin.c).
//
// A step of 128 pixels and 64 terms whose source is formed in place (conv_wgmma.c) takes about 900 issue
// slots of each scheduler, counted in its code: 460 to form, 200 to copy, the rest to multiply. wgmma is busy
// for four cycles a column: with 256 columns that hides it all, whatever the taps. With 128, or 64 (whose
// operands take 440 cycles), some 400 are left over for each tap. A kernel that stores what is formed takes
// 1600 cycles for it, a multiprocessor's share of memory: less than nine taps cost.
bool md_cuda_facts(const char *target, md_target_facts *facts, md_diags *d) {
  md_cuda_arch arch[MD_CUDA_TARGETS];
  int num = md_cuda_targets(target, arch, MD_CUDA_TARGETS, d);
  if (!num) return false;
  bool wgmma = have_wgmma(arch, num);
  *facts = (md_target_facts){.channel_block = 8,
                             .channels_last = true,
                             .packs_weights = true,
                             .taps_formed = wgmma ? MD_CU_TAPS_FORMED : INT64_MAX,
                             .stored_wgrad = wgmma ? MD_CU_WGMMA_LEAST : 0,
                             .twin_weights = MD_CU_TWIN_WEIGHTS,
                             .twin_side = wgmma ? MD_CU_WGMMA_LEAST : 0,
                             .pairs = true,
                             .moves_values = true,
                             .few_channels = MD_CU_FEW_CHANNELS,
                             .again_work = AGAIN_WORK,
                             .max_prologue = 4,
                             .alignment = 256};
  return true;
}

// Code runs on its own major version from its own minor one on; the best of it knows more instructions.
bool md_cuda_target_for(int sm, char *target, int size, md_diags *d) {
  int best = -1;
  for (int i = 0; i < MD_COUNT(archs); i++)
    if (archs[i].sm / 10 == sm / 10 && archs[i].sm <= sm) best = i;
  if (best < 0) {
    md_error(d, E0441, MD_NOWHERE, "no target is known for a device of sm_%d", sm);
    md_hint(d, "'modistc targets' lists them; an artefact with PTX runs on later devices");
    return false;
  }
  bool is_same = archs[best].sm == sm;
  snprintf(target, (size_t)size, "cuda:sm_%d%s", archs[best].sm,
           is_same && archs[best].suffix ? "a" : "");
  return true;
}

bool md_cuda_is_loaded_by(int driver, md_diags *d) {
  int major, minor;
  if (!md_nvrtc_version(&major, &minor, d)) return false;
  if (md_gpu_loads(driver, major)) return true;
  md_error(d, E0646, MD_NOWHERE,
           "the driver here speaks CUDA %d.%d and does not load what NVRTC %d.%d compiles",
           driver / 1000, driver % 1000 / 10, major, minor);
  md_hint(d,
          "install a newer driver (580 or newer for CUDA 13), or let MODIST_NVRTC name the "
          "libnvrtc.so of CUDA %d",
          driver / 1000);
  return false;
}
