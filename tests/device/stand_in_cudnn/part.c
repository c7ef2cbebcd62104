// SPDX-License-Identifier: Apache-2.0
// The part that the stand-in for cuDNN looks for, which has nothing in it.
extern const int cudnn_part;
const int cudnn_part = 9;
