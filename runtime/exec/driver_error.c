// SPDX-License-Identifier: Apache-2.0
// What the driver's errors mean for a person: which code, whether anything can be done afterwards, and
// what to do. What each of them is, driver_errors.def says.
#include "runtime/exec/device.h"
#include "runtime/exec/driver.h"

#include <string.h>

#define NEWER "a newer driver takes it (580 or newer for CUDA 13); so does code by an older NVRTC"
#define BAD_CODE "the code is for this device, and not too new for its driver: please report it"
#define ONE_BY_ONE "--check-nan runs kernels one by one and names the region"
#define FROM_CHECKPOINT "start again from the last checkpoint"
static const char no_start[] = "'nvidia-smi' shows whether the driver works; nvidia-uvm may not be "
                               "loaded: 'nvidia-modprobe -u' or a reboot loads it";

enum { INVALID_IMAGE = 200, NO_BINARY = 209, INVALID_PTX = 218 };
static const struct {
  int error;
  md_code code;
  bool is_fatal;
  const char *hint;
} rows[] = {
#define ERROR(number, name, code, is_fatal, hint) {number, code, is_fatal, hint},
#include "runtime/exec/driver_errors.def"
#undef ERROR
};

// One that speaks 13.0 takes the cubins of all 13.x and before, and tells PTX of a later one by an error of its own.
bool md_gpu_loads(int driver, int cuda_major) { return driver / 1000 >= cuda_major; }

// What is loaded was chosen for the device. A driver that knows its CUDA refuses it only where it is bad.
enum { CUDA_OF_CODE = 13 };
static bool is_bad_code(const md_driver *v, int error) {
  int version = 0;
  return (error == INVALID_IMAGE || error == NO_BINARY || error == INVALID_PTX) &&
         !v->cuDriverGetVersion(&version) && md_gpu_loads(version, CUDA_OF_CODE);
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
  if (code == E0643) md_demand_tell(t->p, d);
  const char *hint = is_bad ? BAD_CODE : row < 0 ? NULL : rows[row].hint;
  if (hint == NULL) return false;
  if (t->region && !strcmp(hint, ONE_BY_ONE)) hint = FROM_CHECKPOINT;
  md_hint(d, "%s", hint);
  return false;
}

// An error that would end a context has none to end yet: the driver itself does not work.
const char *md_gpu_lack_hint(const md_gpu_lack *l) {
  int row = row_of(l->error);
  if (l->error) return row < 0 || rows[row].is_fatal ? no_start : rows[row].hint;
  switch (l->code) {
  case E0642: return "'modistc doctor' lists the devices; CUDA_VISIBLE_DEVICES hides some";
  case E0641: return "code of CUDA 13 needs a driver of the 580 branch or newer";
  default: return "the driver is NVIDIA's (580 or newer for CUDA 13)";
  }
}

md_code md_driver_start_failed(const md_driver *v, const char *call, int error, md_gpu_lack *l) {
  char words[MD_DRIVER_WORDS];
  int row = row_of(error);
  l->error = error;
  snprintf(l->why, sizeof l->why, "%s fails with %d, %s", call, error,
           md_driver_words(v, error, words));
  return l->code = row < 0 ? E0647 : rows[row].code;
}

bool md_driver_unusable(const char *path, const md_gpu_lack *l, md_diags *d) {
  const char *what = l->code == E0642   ? ""
                     : l->code == E0635 ? "there is no CUDA device here: "
                     : l->error         ? "the CUDA driver here cannot be used: "
                                        : "the CUDA driver here is too old: ";
  md_error(d, l->code, path ? MD_IN_FILE(path) : MD_NOWHERE, "%s%s%s",
           path && l->code == E0635 ? "the file is whole, but " : "", what, l->why);
  bool tells_of_check = path && l->code != E0642;
  md_hint(d, "%s%s%s%s", md_gpu_lack_hint(l), tells_of_check ? "; 'modist_rt --check " : "",
          tells_of_check ? path : "", tells_of_check ? "' needs none" : "");
  return false;
}
