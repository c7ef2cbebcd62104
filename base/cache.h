// SPDX-License-Identifier: Apache-2.0
// Compiled code, and plans of cuDNN, on disk. The key is the digest of everything that they depend on: text,
// options, version of the compiler.
#ifndef BASE_CACHE_H
#define BASE_CACHE_H

#include "base/base.h"

// False: not there or damaged. *data is malloc'ed.
bool md_cache_read(md_digest key, char **data, size_t *bytes);
void md_cache_write(md_digest key, const char *data, size_t bytes);  // failures are only logged

#endif
