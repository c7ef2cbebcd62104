// SPDX-License-Identifier: Apache-2.0
// What the driver's errors mean for a person: which code, whether anything can be done afterwards, and
// what to do. The numbers are those of CUresult in cuda.h.
#include "runtime/exec/driver.h"

#include <string.h>

#define NEWER "a newer driver takes it (580 or newer for CUDA 13); so does code by an older NVRTC"
#define BAD_CODE "the code is for this device, and not too new for its driver: please report it"
#define ONE_BY_ONE "--check-nan runs kernels one by one and names the region"
#define FROM_CHECKPOINT "start again from the last checkpoint"

enum { INVALID_IMAGE = 200, NO_BINARY = 209, INVALID_PTX = 218 };
static const struct {
  int error;
  md_code code;
  bool is_fatal;  // the process has to end, says cuda.h, or the context is gone
  const char *hint;
} rows[] = {
    {MD_CUDA_OUT_OF_MEMORY, E0643, false, "nvidia-smi shows which processes hold memory"},
    {MD_CUDA_STUB, E0635, false, "the toolkit's stand-in is found before the driver's library"},
    {35, E0641, false, NEWER},                                        // INSUFFICIENT_DRIVER
    {46, E0647, false, "another process has the device for itself"},  // DEVICE_UNAVAILABLE
    {MD_CUDA_NO_DEVICE, E0635, false, "CUDA_VISIBLE_DEVICES may hide it"},
    {101, E0642, false, "'modistc doctor' lists the devices"},  // INVALID_DEVICE
    {INVALID_IMAGE, E0646, false, NEWER},
    {NO_BINARY, E0646, false, NEWER},
    {214, E0644, true, "'nvidia-smi -q -d ECC' counts such errors; " FROM_CHECKPOINT},
    {INVALID_PTX, E0646, false, NEWER},
    {220, E0644, true, FROM_CHECKPOINT},  // NVLINK_UNCORRECTABLE
    {221, E0646, false, "the driver lacks its compiler: libnvidia-ptxjitcompiler.so.1"},
    {222, E0646, false, NEWER},  // UNSUPPORTED_PTX_VERSION
    {223, E0646, false, "CUDA_DISABLE_PTX_JIT forbids it; compile for the device itself"},
    {226, E0644, true, FROM_CHECKPOINT},                               // CONTAINED
    {700, E0645, true, ONE_BY_ONE},                                    // ILLEGAL_ADDRESS
    {701, E0645, false, "compile the program for the device itself"},  // LAUNCH_OUT_OF_RESOURCES
    {702, E0645, true, "a device that also shows a screen ends kernels after some seconds"},
    {709, E0645, true, FROM_CHECKPOINT},  // CONTEXT_IS_DESTROYED
    {710, E0645, true, ONE_BY_ONE},       // ASSERT
    {714, E0645, true, ONE_BY_ONE},       // HARDWARE_STACK_ERROR
    {715, E0645, true, ONE_BY_ONE},       // ILLEGAL_INSTRUCTION
    {716, E0645, true, ONE_BY_ONE},       // MISALIGNED_ADDRESS
    {717, E0645, true, ONE_BY_ONE},       // INVALID_ADDRESS_SPACE
    {718, E0645, true, ONE_BY_ONE},       // INVALID_PC
    {719, E0645, true, ONE_BY_ONE},       // LAUNCH_FAILED
    {721, E0645, true, ONE_BY_ONE},       // TENSOR_MEMORY_LEAK
    {803, E0641, false, "the kernel module and the library are of different versions: reboot"},
    {804, E0641, false, NEWER},           // COMPAT_NOT_SUPPORTED_ON_DEVICE
    {810, E0647, true, FROM_CHECKPOINT},  // MPS_CLIENT_TERMINATED
    {911, E0647, true, FROM_CHECKPOINT},  // EXTERNAL_DEVICE
    {999, E0647, true, FROM_CHECKPOINT},  // UNKNOWN
};

// What is loaded was chosen for the device. A driver that knows its CUDA refuses it only where it is bad; any that
// speaks 13.0 takes the cubins of all 13.x, and tells PTX of a later one by an error of its own.
enum { CUDA_OF_CODE = 13000 };
static bool is_bad_code(const md_driver *v, int error) {
  int version = 0;
  return (error == INVALID_IMAGE || error == NO_BINARY || error == INVALID_PTX) &&
         !v->cuDriverGetVersion(&version) && version >= CUDA_OF_CODE;
}

static int row_of(int error) {
  for (int i = 0; i < MD_COUNT(rows); i++)
    if (rows[i].error == error) return i;
  return -1;
}

bool md_driver_is_fatal(int error) { return row_of(error) >= 0 && rows[row_of(error)].is_fatal; }

char *md_driver_words(const md_driver *v, int error, char buf[MD_DRIVER_WORDS]) {
  const char *name = NULL, *text = NULL;
  char clean_name[80], clean[120];
  if (v->cuGetErrorName(error, &name)) name = NULL;
  if (v->cuGetErrorString(error, &text)) text = NULL;
  snprintf(buf, MD_DRIVER_WORDS, "%s (%s)",
           md_clean(name ? name : "an error without a name", clean_name, sizeof clean_name),
           md_clean(text ? text : "no reason given", clean, sizeof clean));
  return buf;
}

bool md_driver_failed(const md_driver *v, const md_driver_task *t, int error, md_diags *d) {
  int row = row_of(error);
  bool is_bad = is_bad_code(v, error);
  md_code code = is_bad ? E0652 : row < 0 ? E0647 : rows[row].code;
  char words[MD_DRIVER_WORDS], region[300] = "";
  if (t->region) snprintf(region, sizeof region, "region '%s': ", t->region);
  md_place at = t->p->path ? MD_IN_FILE(t->p->path) : MD_NOWHERE;
  md_error(d, code, at, "%s%s on %s fails with %d, %s", region, t->call, t->device, error,
           md_driver_words(v, error, words));
  if (t->log && *t->log) {
    char clean[400];
    md_note(d, MD_NOWHERE, "%s", md_clean(t->log, clean, sizeof clean));
  }
  const char *hint = is_bad ? BAD_CODE : row < 0 ? NULL : rows[row].hint;
  if (hint == NULL) return false;
  if (t->region && !strcmp(hint, ONE_BY_ONE)) hint = FROM_CHECKPOINT;
  md_hint(d, "%s", hint);
  return false;
}

bool md_driver_unusable(const char *path, md_code code, const char *why, md_diags *d) {
  md_place at = path ? MD_IN_FILE(path) : MD_NOWHERE;
  switch (code) {
  case E0642:
    md_error(d, code, at, "%s", why);
    md_hint(d, "'modistc doctor' lists the devices; CUDA_VISIBLE_DEVICES hides some");
    return false;
  case E0641:
    md_error(d, code, at, "the CUDA driver here is too old: %s", why);
    md_hint(d, "code of CUDA 13 needs a driver of the 580 branch or newer");
    return false;
  default:
    md_error(d, code, at, "%sthere is no CUDA device here: %s",
             path ? "the file is whole, but " : "", why);
    md_hint(d, "the driver is NVIDIA's (580 or newer for CUDA 13)%s%s%s",
            path ? "; 'modist_rt --check " : "", path ? path : "", path ? "' needs none" : "");
    return false;
  }
}
