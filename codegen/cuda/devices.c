// SPDX-License-Identifier: Apache-2.0
// Devices as rows of facts. Rates are those of NVIDIA's own papers: peak, dense, at the boost clock. Limits
// of multiprocessors and blocks come from the table of compute capabilities in the CUDA C++ programming
// guide. `modistc targets --spec=NAME` prints a row as a file to start from.
#include "codegen/cuda/cuda.h"

#include <string.h>

#define KIB(n) ((double)(n) * 1024)
#define MIB(n) ((double)(n) * 1024 * 1024)
#define GIB(n) ((double)(n) * 1024 * 1024 * 1024)

// Multiprocessors of one generation: registers, threads, blocks, shared bytes of it and of a block.
#define SM_80                                                                  \
  .registers = 65536, .threads = 2048, .blocks = 32, .shared_bytes = KIB(164), \
  .block_shared_bytes = KIB(163)
#define SM_86                                                                  \
  .registers = 65536, .threads = 1536, .blocks = 16, .shared_bytes = KIB(100), \
  .block_shared_bytes = KIB(99)
#define SM_89                                                                  \
  .registers = 65536, .threads = 1536, .blocks = 24, .shared_bytes = KIB(100), \
  .block_shared_bytes = KIB(99)
#define SM_90                                                                  \
  .registers = 65536, .threads = 2048, .blocks = 32, .shared_bytes = KIB(228), \
  .block_shared_bytes = KIB(227)
#define SM_120 SM_89

// clang-format off
static const md_cuda_spec devices[] = {
    {.name = "a100", .title = "NVIDIA A100 SXM 80 GB", .arch = {80, 0}, .sms = 108, .clock_mhz = 1410, SM_80,
     .l2_bytes = MIB(40), .memory_bytes = 80e9, .bandwidth = 2.039e12, .fma_flops = 19.5e12, .tensor_flops = 312e12,
     .source = "NVIDIA A100 Tensor Core GPU data sheet (80 GB SXM); NVIDIA A100 Tensor Core GPU Architecture, table 4"},
    {.name = "rtx3090", .title = "NVIDIA GeForce RTX 3090", .arch = {86, 0}, .sms = 82, .clock_mhz = 1695, SM_86,
     .l2_bytes = MIB(6), .memory_bytes = GIB(24), .bandwidth = 936e9, .fma_flops = 35.6e12, .tensor_flops = 71e12,
     .source = "NVIDIA Ampere GA102 GPU Architecture, appendix A"},
    {.name = "l4", .title = "NVIDIA L4", .arch = {89, 0}, .sms = 58, .clock_mhz = 2040, SM_89,
     .l2_bytes = MIB(48), .memory_bytes = GIB(24), .bandwidth = 300e9, .fma_flops = 30.3e12, .tensor_flops = 121e12,
     .source = "NVIDIA L4 Tensor Core GPU data sheet (half of its figures with sparsity) and product brief"},
    {.name = "rtx4090", .title = "NVIDIA GeForce RTX 4090", .arch = {89, 0}, .sms = 128, .clock_mhz = 2520, SM_89,
     .l2_bytes = MIB(72), .memory_bytes = GIB(24), .bandwidth = 1008e9, .fma_flops = 82.6e12, .tensor_flops = 165.2e12,
     .source = "NVIDIA Ada GPU Architecture, appendix A"},
    {.name = "h100", .title = "NVIDIA H100 SXM", .arch = {90, 'a'}, .sms = 132, .clock_mhz = 1980, SM_90,
     .l2_bytes = MIB(50), .memory_bytes = 80e9, .bandwidth = 3.35e12, .fma_flops = 67e12, .tensor_flops = 989.5e12,
     .source = "NVIDIA H100 Tensor Core GPU data sheet (half of its figures with sparsity); H100 Architecture, table 2"},
    {.name = "h200", .title = "NVIDIA H200 SXM", .arch = {90, 'a'}, .sms = 132, .clock_mhz = 1980, SM_90,
     .l2_bytes = MIB(50), .memory_bytes = 141e9, .bandwidth = 4.8e12, .fma_flops = 67e12, .tensor_flops = 989.5e12,
     .source = "NVIDIA H200 Tensor Core GPU data sheet (half of its figures with sparsity); chip as of the H100"},
    {.name = "b200", .title = "NVIDIA B200 SXM", .arch = {100, 'a'}, .sms = 148, .clock_mhz = 1965, SM_90,
     .l2_bytes = MIB(126), .memory_bytes = 180e9, .bandwidth = 8e12, .fma_flops = 75e12, .tensor_flops = 2250e12,
     .source = "NVIDIA HGX B200 data sheet (an eighth; half of its figures with sparsity); multiprocessors, clock and L2 "
               "as devices report them"},
    {.name = "rtx5090", .title = "NVIDIA GeForce RTX 5090", .arch = {120, 0}, .sms = 170, .clock_mhz = 2407, SM_120,
     .l2_bytes = MIB(96), .memory_bytes = GIB(32), .bandwidth = 1792e9, .fma_flops = 104.8e12, .tensor_flops = 209.5e12,
     .source = "NVIDIA RTX Blackwell GPU Architecture, appendix A"},
};
// clang-format on

int md_cuda_num_devices(void) { return MD_COUNT(devices); }
const md_cuda_spec *md_cuda_device_at(int i) { return &devices[i]; }

const md_cuda_spec *md_cuda_device(const char *name) {
  for (int i = 0; i < MD_COUNT(devices); i++)
    if (!strcmp(devices[i].name, name)) return &devices[i];
  return NULL;
}

const md_cuda_spec *md_cuda_device_of(md_cuda_arch arch) {
  const md_cuda_spec *best = NULL;
  for (int i = 0; i < MD_COUNT(devices); i++) {
    const md_cuda_spec *s = &devices[i];
    if (s->arch.sm == arch.sm && (!best || s->bandwidth > best->bandwidth)) best = s;
  }
  return best;
}
