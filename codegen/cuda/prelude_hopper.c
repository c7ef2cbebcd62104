// SPDX-License-Identifier: Apache-2.0
// The device prelude of sm_90a: mbarriers, TMA, wgmma (md_cuda_has_wgmma). For other targets the names do
// not exist, and NVRTC refuses a kernel that uses them.
//
// Threads that bring operands and warpgroups (4 warps, the first a multiple of 4) that multiply go through a
// ring of stages in shared memory (conv_ring.c):
//   one thread  md_bar_init(full[s], who brings), md_bar_init(empty[s], who multiplies); md_bar_fence();
//               all: md_sync()
//   some bring  md_bar_wait(empty[s], parity ^ 1); md_cp_async... md_cp_arrive(full[s]), or stores and
//               md_bar_arrive(full[s]), or one thread md_bar_expect(full[s], bytes); md_bulk_load(.., full[s])
//               or md_tma_im2col(.., full[s], ..)
//   others      md_bar_wait(full[s], parity); md_fence_async(); md_wgmma_fence(); md_wgmma...;
//               md_wgmma_commit(); md_wgmma_wait(1); md_bar_arrive(empty[of the step before])
// parity is the lowest bit of how often the ring has been gone round. md_tma2 and operands in registers
// have no generator yet; tests prove what the host makes of them.
//
//   md_bar_init, _arrive, _expect, _wait   bar: md_u64 in shared memory; expect arrives as well
//   md_cp_arrive(bar)                      arrives when all that the thread copies by md_cp_async has landed
//   MD_NO_UNROLL                           the loop behind it stays one
//   md_sync_part(id, threads)              a barrier of some warps; id 1 .. 15
//   MD_TMAP(m), md_tmap_acquire(m)         an argument that is a tensor map; of one in memory: before this thread
//                                          uses it
//   md_tma2, md_tma_im2col                 a box of it to shared memory, aligned to 1024 bytes. im2col:
//                                          c w h d n of the first pixel's window, which may begin before the
//                                          tensor, and w h d in it
//   md_bulk_load(shared, p, bytes, bar)    16 n bytes from p on, aligned to 16, to shared memory; counts as TMA
//   md_fence_async()                       what this thread stored, or learned of at a barrier, may be read by
//                                          wgmma: by its own from here on, by others' after a barrier
//   md_desc128(p), md_desc(p, lead, stride)  operands of 16 elements in k: rows of 128 bytes, swizzled as
//                                          TMA does it, 16 elements on are 32 bytes on; or 8 rows of 16
//                                          bytes in a piece, `lead` bytes to the next in k, `stride` in rows
//   md_wgmma64, 128, 256 (c, a, b)         c (64 x n) += a b^T: a thread's c has n / 2 floats: 4 j + e is
//                                          row 16 warp + lane / 4 + e / 2 * 8, column 8 j + lane % 4 * 2 + e % 2
//   md_desc128t(p, lead)                   operands that lie across: lines of 64 rows for one element in k,
//                                          swizzled alike, 1024 bytes for eight; 16 elements on are 2048
//                                          bytes on, `lead` bytes to the next 64 rows
//   md_wgmma64t, 128t, 256t                of such, both
//   md_wgmma64r, 128r, 256r                a: 4 registers, as those of md_mma, of the warp's 16 rows
//   md_wgmma_ready(c, num)                 c is to be in registers here: after a wait and before c is touched,
//                                          and after that and before the md_wgmma_fence() of the next wgmma
//   md_regs_inc, md_regs_dec(num)          registers of this warpgroup's threads from now on
#include "codegen/cuda/prelude.h"

#define SHARED "(md_u32)__cvta_generic_to_shared("

static const char text[] =
    "typedef struct __align__(64) md_tmap { unsigned char x[128]; } md_tmap;\n"
    "#define MD_TMAP(name) const __grid_constant__ md_tmap name\n"
    "#define MD_NO_UNROLL _Pragma(\"unroll 1\")\n"
    "#define md_sync_part(id, threads) \\\n"
    "  asm volatile(\"bar.sync %0, %1;\" :: \"r\"(id), \"r\"(threads) : \"memory\")\n"
    "MD_DEV_ float md_max_(float a, float b) {\n"
    "  float r;\n"
    "  asm(\"max.NaN.f32 %0, %1, %2;\" : \"=f\"(r) : \"f\"(a), \"f\"(b));\n"
    "  return r;\n"
    "}\n"
    "#define md_max(a, b) md_max_((a), (b))\n"
    "MD_DEV_ void md_bar_init(md_u64 *bar, int count) {\n"
    "  asm volatile(\"mbarrier.init.shared::cta.b64 [%0], %1;\"\n"
    "               :: \"r\"(" SHARED "bar)), \"r\"(count) : \"memory\");\n"
    "}\n"
    "#define md_bar_fence() asm volatile(\"fence.mbarrier_init.release.cluster;\" ::: \"memory\")\n"
    "MD_DEV_ void md_bar_arrive(md_u64 *bar) {\n"
    "  asm volatile(\"{ .reg .b64 s; mbarrier.arrive.shared::cta.b64 s, [%0]; }\"\n"
    "               :: \"r\"(" SHARED "bar)) : \"memory\");\n"
    "}\n"
    "MD_DEV_ void md_cp_arrive(md_u64 *bar) {\n"
    "  asm volatile(\"cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];\"\n"
    "               :: \"r\"(" SHARED "bar)) : \"memory\");\n"
    "}\n"
    "MD_DEV_ void md_bar_expect(md_u64 *bar, int bytes) {\n"
    "  asm volatile(\"{ .reg .b64 s; mbarrier.arrive.expect_tx.shared::cta.b64 s, [%0], %1; }\"\n"
    "               :: \"r\"(" SHARED "bar)), \"r\"(bytes) : \"memory\");\n"
    "}\n"
    "MD_DEV_ void md_bar_wait(md_u64 *bar, int parity) {\n"
    "  md_u32 done;\n"
    "  do {\n"
    "    asm volatile(\"{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; \"\n"
    "                 \"selp.u32 %0, 1, 0, p; }\"\n"
    "                 : \"=r\"(done) : \"r\"(" SHARED "bar)), \"r\"(parity) : \"memory\");\n"
    "  } while (!done);\n"
    "}\n"
    "#define md_fence_async() asm volatile(\"fence.proxy.async.shared::cta;\" ::: \"memory\")\n"
    "MD_DEV_ void md_bulk_load(void *shared, const void *p, int bytes, md_u64 *bar) {\n"
    "  asm volatile(\"cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes \"\n"
    "               \"[%0], [%1], %2, [%3];\"\n"
    "               :: \"r\"(" SHARED
    "shared)), \"l\"(__cvta_generic_to_global(p)), \"r\"(bytes),\n"
    "                  \"r\"(" SHARED "bar)) : \"memory\");\n"
    "}\n"
    "MD_DEV_ void md_tmap_acquire(const md_tmap *map) {\n"
    "  asm volatile(\"fence.proxy.tensormap::generic.acquire.gpu [%0], 128;\" :: \"l\"(map) : "
    "\"memory\");\n"
    "}\n"
    "MD_DEV_ void md_tma2(void *shared, const md_tmap *map, md_u64 *bar, int x, int y) {\n"
    "  asm volatile(\"cp.async.bulk.tensor.2d.shared::cluster.global.tile\"\n"
    "               \".mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];\"\n"
    "               :: \"r\"(" SHARED "shared)), \"l\"(map), \"r\"(" SHARED "bar)),\n"
    "                  \"r\"(x), \"r\"(y) : \"memory\");\n"
    "}\n"
    "MD_DEV_ void md_tma_im2col(void *shared, const md_tmap *map, md_u64 *bar, int c, int w, int "
    "h,\n"
    "                           int d, int n, int ow, int oh, int od) {\n"
    "  asm volatile(\"cp.async.bulk.tensor.5d.shared::cluster.global.im2col\"\n"
    "               \".mbarrier::complete_tx::bytes \"\n"
    "               \"[%0], [%1, {%3, %4, %5, %6, %7}], [%2], {%8, %9, %10};\"\n"
    "               :: \"r\"(" SHARED "shared)), \"l\"(map), \"r\"(" SHARED "bar)),\n"
    "                  \"r\"(c), \"r\"(w), \"r\"(h), \"r\"(d), \"r\"(n), \"h\"((unsigned "
    "short)ow),\n"
    "                  \"h\"((unsigned short)oh), \"h\"((unsigned short)od) : \"memory\");\n"
    "}\n"
    "MD_DEV_ md_u64 md_desc128(const void *p) {\n"
    "  return (md_u64)(" SHARED "p) >> 4 & 0x3fff) | 1ull << 16 | 64ull << 32 | 1ull << 62;\n"
    "}\n"
    "MD_DEV_ md_u64 md_desc128t(const void *p, int lead) {\n"
    "  return (md_u64)(" SHARED "p) >> 4 & 0x3fff) | (md_u64)(lead >> 4) << 16 |\n"
    "         64ull << 32 | 1ull << 62;\n"
    "}\n"
    "MD_DEV_ md_u64 md_desc(const void *p, int lead, int stride) {\n"
    "  return (md_u64)(" SHARED "p) >> 4 & 0x3fff) | (md_u64)(lead >> 4) << 16 |\n"
    "         (md_u64)(stride >> 4) << 32;\n"
    "}\n";

static const char groups[] =
    "#define md_wgmma_fence() asm volatile(\"wgmma.fence.sync.aligned;\" ::: \"memory\")\n"
    "#define md_wgmma_commit() asm volatile(\"wgmma.commit_group.sync.aligned;\" ::: \"memory\")\n"
    "#ifdef MD_ONE_BY_ONE_\n"
    "#define md_wgmma_wait(groups) \\\n"
    "  asm volatile(\"wgmma.wait_group.sync.aligned 0;\" ::: \"memory\")\n"
    "#else\n"
    "#define md_wgmma_wait(groups) \\\n"
    "  asm volatile(\"wgmma.wait_group.sync.aligned %0;\" :: \"n\"(groups) : \"memory\")\n"
    "#endif\n"
    "#define md_wgmma_ready(c, num) \\\n"
    "  MD_UNROLL for (int i_ = 0; i_ < (num); i_++) asm volatile(\"\" : \"+f\"((c)[i_]) :: "
    "\"memory\")\n"
    "#define md_regs_inc(num) asm volatile(\"setmaxnreg.inc.sync.aligned.u32 %0;\" :: \"n\"(num))\n"
    "#define md_regs_dec(num) asm volatile(\"setmaxnreg.dec.sync.aligned.u32 %0;\" :: "
    "\"n\"(num))\n";

typedef enum Form { LINES, REGISTERS, ACROSS } Form;  // of the operands

// One function for each width, with all its registers by number.
static void put_wgmma(md_text *to, int n, Form form) {
  static const char *const letter[] = {"", "r", "t"};
  bool a_in_registers = form == REGISTERS;
  int num = n / 2, next = num + (a_in_registers ? 4 : 1);
  md_put(to, "MD_DEV_ void md_wgmma%d%s(float *c, %s a, md_u64 b) {\n", n, letter[form],
         a_in_registers ? "const md_u32 *" : "md_u64");
  md_put(to, "  asm volatile(\"wgmma.mma_async.sync.aligned.m64n%dk16.f32.bf16.bf16 {", n);
  for (int i = 0; i < num; i++) md_put(to, "%s%%%d", i ? ", " : "", i);
  if (a_in_registers) md_put(to, "}, {%%%d, %%%d, %%%d, %%%d}", num, num + 1, num + 2, num + 3);
  else md_put(to, "}, %%%d", num);
  static const char *const lies[] = {", 0, 0", ", 0", ", 1, 1"};
  md_put(to, ", %%%d, 1, 1, 1%s;\"\n    : ", next, lies[form]);
  for (int i = 0; i < num; i++)
    md_put(to, "%s%s\"+f\"(c[%d])", i ? "," : "", !i ? "" : i % 8 ? " " : "\n      ", i);
  if (a_in_registers) md_put(to, "\n    : \"r\"(a[0]), \"r\"(a[1]), \"r\"(a[2]), \"r\"(a[3])");
  else md_put(to, "\n    : \"l\"(a)");
  md_put(to, ", \"l\"(b));\n}\n");
}

void md_cu_prelude_hopper(md_text *to) {
  md_put(to, "%s%s", text, groups);
  for (int n = 64; n <= 256; n *= 2)
    for (int f = LINES; f <= ACROSS; f++) put_wgmma(to, n, (Form)f);
}
