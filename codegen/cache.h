// SPDX-License-Identifier: Apache-2.0
// Compiled code on disk, for all back ends. The key is the digest of everything that the code depends
// on: text, options, version of the compiler.
#ifndef CODEGEN_CACHE_H
#define CODEGEN_CACHE_H

#include "base/base.h"

// False: not there or damaged. *data is malloc'ed.
bool md_cache_read(md_digest key, char **data, size_t *bytes);
void md_cache_write(md_digest key, const char *data, size_t bytes);  // failures are only logged

#endif
