// SPDX-License-Identifier: Apache-2.0
// A stand-in for NCCL, libnccl.so.2, in a folder of its own, that only says which version it is.
__attribute__((visibility("default"))) int ncclGetVersion(int *version);

int ncclGetVersion(int *version) {
  *version = 22703;  // 2.27.3
  return 0;
}
