#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the step of R3D-50 may take at most on an H200, at a batch of 64 in bf16, as it is planned: bytes, launches,
# memory and predicted time. Planning needs neither a GPU nor NVRTC.
#   limits.sh BIN_FOLDER
set -eu
bin=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
PATH=$bin:$PATH
export PATH LC_ALL=C MODIST_CACHE="$work/cache" MODIST_NVRTC=/nowhere
if ! modistc targets | grep -q h200; then
  echo "skipped: no CUDA targets"
  exit 77
fi
modistc compile modist-r3d50 batch=64 --precision=bf16 -t cuda:h200 --emit=report --report=summary,memory,roofline >report
failed=0

# at_most WHAT LIMIT VALUE: VALUE is there, and no more than LIMIT
at_most() {
  echo "$1: ${3:-nothing} of $2"
  awk "BEGIN { exit !(${3:-0} > 0 && ${3:-0} <= $2) }" || failed=1
}

# bytes TEXT...: sizes such as "19.0 GiB", added up
bytes() {
  echo "$*" | awk '{ for (i = 1; i < NF; i += 2) sum += $i * 1024 ^ (index("KMGT", substr($(i + 1), 1, 1)))
    printf "%.0f\n", sum }'
}

at_most "GB that are moved" 215 "$(sed -nE 's/^graph .* ([0-9.]+) MB a step$/\1/p' report | awk '{ print $1 / 1e3 }')"
at_most "launches" 500 "$(sed -nE 's/^cuda:sm_90a: ([0-9]+) launches .*/\1/p' report)"
# Inputs are on the device twice.
memory=$(sed -nE 's/^memory  arena ([^(]*) \(.*, states ([^,]*), inputs ([^,]*), workspace ([^;]*);.*/\1 \2 \3 \3 \4/p' report)
at_most "bytes of planned memory" 26e9 "$(bytes "$memory")"
# What a roofline takes for fused kernels at 75 % of 790 TFLOP/s, 90 % of 4.3 TB/s and 2 us a launch (../shared/gpu.md).
at_most "predicted ms" 69.8 "$(sed -nE 's/^  step: ([0-9.]+) ms predicted.*/\1/p' report)"
[ $failed = 0 ] || cat report
exit $failed
