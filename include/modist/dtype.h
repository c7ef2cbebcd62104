// SPDX-License-Identifier: Apache-2.0
// Element types of tensors.
#ifndef MODIST_DTYPE_H
#define MODIST_DTYPE_H

typedef enum md_dtype {
  MD_NO_DTYPE,
  MD_F32,
  MD_BF16,
  MD_F64,
  MD_I32,
  MD_I64,
  MD_U8,
  MD_BOOL,
  MD_NUM_DTYPES
} md_dtype;

#endif
