// SPDX-License-Identifier: Apache-2.0
// What modist_rt says after the last step: for people, or as JSON.
#ifndef RUNTIME_EXEC_RT_REPORT_H
#define RUNTIME_EXEC_RT_REPORT_H

#include "runtime/exec/exec.h"

typedef struct rt_steps {
  int64_t num, median_ns, min_ns, max_ns;
  int taken;  // of how many products a better way is taken; < 0: nobody asked
} rt_steps;
rt_steps rt_summarise(int64_t *ns, int64_t n);  // sorts

// False, reported: a result cannot be read from the device.
bool rt_print(md_exec *e, rt_steps s, bool times, md_diags *d);
// One object: program, device, steps, memory, results and, with `times`, regions.
bool rt_print_json(md_exec *e, rt_steps s, bool times, md_diags *d);
// --- rt_times.c: the times of regions, beside those that were predicted
void rt_print_times(const md_exec *e);
void rt_put_times(
    md_json *j,
    const md_exec *e);  // "regions" and, where there are any, "convolutions" and "predicted"

// Says why there is no copy of a result or state in the host's memory. False.
bool rt_unread(md_exec *e, const char *name, md_diags *d);

// --- rt_rates.c: what a device does at most. False: reported.
bool rt_rates(const char *device, bool json, md_diags *d);

// Trials; the records go to a file. False: reported.
bool rt_tune(const md_program *p, const md_tune_options *o, const char *path, md_diags *d);

#endif
