// SPDX-License-Identifier: Apache-2.0
// File calls that fail. A program that is linked with faults.c has these calls fail where it asks.
#ifndef TESTS_SURVIVE_FAULTS_H
#define TESTS_SURVIVE_FAULTS_H

// What call `nth` (from 1) does from here on: fail with an errno, or one of these.
enum { FAULT_SHORT = -1, FAULT_KILL = -2 };  // half of the bytes; SIGKILL instead of the call
void faults_begin(int nth, int fault);       // nth 0: none
int faults_end(void);                        // calls since then; no more of them fail

#endif
