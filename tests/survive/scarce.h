// SPDX-License-Identifier: Apache-2.0
// Memory that runs out. A program that is linked with scarce.c has an allocation fail where it asks:
// its own, ours, and those of every library, as all of them come from one malloc.
#ifndef TESTS_SURVIVE_SCARCE_H
#define TESTS_SURVIVE_SCARCE_H

void scarce_begin(int nth);  // allocation `nth` (from 1) from here on fails; 0: none
int scarce_end(void);        // allocations since then; no more of them fail

#endif
