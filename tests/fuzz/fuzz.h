// SPDX-License-Identifier: Apache-2.0
// A fuzz target: one function that takes any bytes, and inputs to begin with. The same source is
// linked with libFuzzer or with fuzz_main.c.
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void fuzz_seeds(void (*add)(const char *s, size_t len));

#endif
