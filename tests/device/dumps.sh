#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Dumps of single instructions in a bundle: made, carried and run on a GPU that the stand-in plays. On the fiber
# machine they are the golden files, so each device has all that it takes; a golden file that says something else,
# one that is cut off, code that is missing and a kernel that fails are seen.
#   dumps.sh SOURCE_FOLDER BUILD_FOLDER STAND_IN_FOLDER
set -u
here=$(cd "$(dirname "$0")" && pwd)
source=$1 build=$2 stand_in=$3
modistc=$build/bin/modistc
. "$here/enter.sh"
kept=${MODIST_TEST_KEPT:-$work}/stand_in
keep_in "$kept" "$kept"
cat >plan <<E2
dumps dumps
check contrast fp32 1 cuda:sm_80,cuda:sm_90a $source/examples/graphs/contrast.mdg
E2
wants 0 "gpu_bundle: dumps dumps" sh "$source/tools/gpu_bundle.sh" --plan="$work/plan" --build="$build" -o "$work/bundle"
cd bundle || exit 1
size=$(du -sk --apparent-size dumps | cut -f1)
[ "$size" -le 2048 ] || wrong "dumps have $size KiB"

# The machine that it is carried to has neither a compiler nor a cache, and no library but the system's.
unset MODIST_NVRTC MODIST_CACHE
if ldd dumps/device_dumps | grep -vE 'lib(c|m|asan|ubsan|gcc_s|pthread|dl|rt|resolv)\.so|linux-vdso|ld-linux'; then
  wrong "device_dumps needs a library"
fi
export LD_LIBRARY_PATH="$stand_in"
on() { sm=$1; shift; env MODIST_STAND_IN_SM="$sm" "$@"; }
wants 4 "no GPU here" env MODIST_STAND_IN_DEVICES=0 dumps/device_dumps dumps
wants 2 "no list.txt" dumps/device_dumps nowhere

# Every dump, and what each device has of them.
golden=$(find "$source/tests/simt/dumps" -name '*.txt' | wc -l)
plain=$(grep -c '^MD_KERNEL' "$source/tests/simt/kernels/dumps.cu")
[ "$plain" -gt 6 ] && [ "$golden" -gt $((plain + 8)) ] || wrong "$plain plain dumps, $golden golden files"
wants 0 "$golden of $golden dumps are as golden files have them, 0 are not for sm_90" on 90 dumps/device_dumps dumps
for sm in 80 89 120; do
  wants 0 "$plain of $plain dumps are as golden files have them, $((golden - plain)) are not for sm_$sm" \
    on $sm dumps/device_dumps dumps
done
wants 0 "mma                  compute_80" on 120 dumps/device_dumps dumps
wants 0 "mma                  sm_90a" on 90 dumps/device_dumps dumps
wants 4 "mma                  no code for the device" on 75 dumps/device_dumps dumps
wants 0 "$golden of $golden dumps" on 90 env MODIST_STAND_IN_CHECK=1 dumps/device_dumps dumps

# altered NAME SED: the row says which dumps differ, the log what differs, where a golden file is otherwise.
altered() {
  cp "dumps/$1.txt" golden
  sed "$2" golden >"dumps/$1.txt"
  cmp -s golden "dumps/$1.txt" && wrong "$1.txt was not altered"
  wants 1 "verdict: WRONG: 1 passed, 1 wrong" on 90 sh run.sh
  grep -qE "^dumps +WRONG +- +-  1 of $golden dumps differ: $1\$" results/table.txt || wrong "$(cat results/table.txt)"
  grep -qF "$3" results/dumps.log || wrong "no '$3' in: $(cat results/dumps.log)"
  mv golden "dumps/$1.txt"
}
wants 0 "verdict: ALL WELL: 2 passed, 0 wrong, 0 not run" on 90 sh run.sh
grep -qE "^dumps +ok +- +-  $golden of $golden dumps are as golden files have them" results/table.txt ||
  wrong "no row of dumps in: $(cat results/table.txt)"
first() { sed -n "s/^$2: \([0-9a-f]*\) .*/\1/p" "dumps/$1.txt"; }
altered mma '9s/: ......../: 12345678/' "mma: word 0 of thread 8 is $(first mma 8), but 12345678 in the golden file"
altered wgmma256t '128s/ [0-9a-f]*$//' "wgmma256t: the golden file breaks off"
altered wgmma64 '128d' "wgmma64: the golden file breaks off at thread 127"
altered shfl_xor '$a 32: 00000000' "shfl_xor: the golden file has more than 32 threads"
altered tma2_edge '1s/ 00000000/ 00000001/' "tma2_edge: word"
altered tma_im2col '$d' "tma_im2col: the golden file breaks off at thread 31"
mv dumps/to_bf16.sm_90a away
wants 1 "1 of $golden dumps differ: to_bf16" on 90 dumps/device_dumps dumps
mv away dumps/to_bf16.sm_90a
wants 1 "unspecified launch failure" on 90 env MODIST_STAND_IN_FAULT=kernel:3:719 dumps/device_dumps dumps

echo "$failed failed"
[ $failed = 0 ]
