// SPDX-License-Identifier: Apache-2.0
// modist's programs as processes that meet the doubles of NVRTC and of the driver, in a folder of their
// own that is the current one.
#ifndef TESTS_DEVICE_PROCESS_H
#define TESTS_DEVICE_PROCESS_H

#include "base/base.h"

// A new folder with everything that is kept between processes. False: there is no NVRTC.
bool process_enter(const char *modistc, const char *stand_ins);
void process_leave(void);  // removes it
enum { PROCESS_SIGNAL = 128 };
// Its words go to the file `said`, calls of the driver to `log`. The exit code, or PROCESS_SIGNAL and more.
int process_run(char *const argv[]);
// The same while MODIST_STAND_IN_FAULT says so.
int process_run_with(char *const argv[], const char *fault);
// Lines with a digest in what modist_rt said: its results. Not exact: without the digest, as far as sums in
// another order agree.
md_text process_results(const md_text *said, bool is_exact);
md_text process_read(const char *path);  // empty when it is not there
bool process_leaks(const md_text *log);  // something was not given back
// The calls in a log, in order. malloc'ed.
typedef struct Call {
  char name[64];
  uint64_t place;  // where it was made, if the log says that; else 0
} Call;
int process_calls(const md_text *log, Call **calls);

#endif
