#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What a report says of the step of R3D-50 on an H200 is what an independent model of it says, the script roofline.py,
# which counts from the paper's table of layers: FLOPs within 2 %, bytes within 10 %. docs/cuda.md has what differs.
#   roofline.sh BIN_FOLDER ROOFLINE
set -eu
bin=$(cd "$1" && pwd)
if [ ! -f "$2" ] || ! command -v python3 >/dev/null; then
  echo "skipped: no $2, or no python3"
  exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LC_ALL=C MODIST_CACHE="$work/cache" MODIST_NVRTC=/nowhere
if ! "$bin/modistc" targets | grep -q h200; then
  echo "skipped: no CUDA targets"
  exit 77
fi
failed=0

# near WHAT PERCENT OURS THEIRS
near() {
  awk -v what="$1" -v p="$2" -v a="${3:-0}" -v b="${4:-0}" 'BEGIN {
    off = b > 0 ? 100 * (a / b - 1) : 0
    printf "%s: %g here, %g there, %+.2f %%\n", what, a, b, off
    exit !(a > 0 && b > 0 && off <= p && off >= -p) }' || failed=1
}

ours=$("$bin/modistc" compile modist-r3d50 batch=64 --precision=bf16 -t cuda:h200 --emit=report --report=summary |
  sed -nE 's/^graph .* ([0-9.]+) GFLOP and ([0-9.]+) MB a step$/\1 \2/p')
theirs=$(python3 "$2" --batch 64 | awk '/^== fused/ { fused = 1 } fused && /^total/ { print $2, $3 * 1000; exit }')
near GFLOP 2 "${ours% *}" "${theirs% *}"
near MB 10 "${ours#* }" "${theirs#* }"
exit $failed
