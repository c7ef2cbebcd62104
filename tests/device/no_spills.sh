#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# no_spills.sh MODISTC MODIST_RT FP32_TARGETS BF16_TARGETS MODEL...: compiles the training steps; what did not spill is
# kept in MODIST_TEST_KEPT by the digest of all that it depends on. A kernel that spills fails the compilation
# (E0444) and is never kept; the artefact is then checked as a GPU machine would, and has at most 20 MB a target.
set -u
modistc=$1 rt=$2 fp32=$3 bf16=$4
shift 4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$modistc" doctor | grep -q 'NVRTC.*[0-9]' || { echo "no NVRTC here"; exit 77; }
export MODIST_CACHE="${MODIST_TEST_KEPT:-$work}/no_spills"
mkdir -m 700 -p "$MODIST_CACHE"
failed=0
for model in "$@"; do
  for precision in fp32 bf16; do
    eval "targets=\$$precision"
    "$modistc" compile "$model" --precision=$precision --target="$targets" --no-ptx \
      -o "$work/step.mdx" && "$rt" --check "$work/step.mdx" || failed=1
    num=$(echo "$targets" | tr , '\n' | wc -l) bytes=$(wc -c <"$work/step.mdx")
    [ "$bytes" -le $((num * 20000000)) ] || { echo "FAILED: $model has $bytes bytes"; failed=1; }
  done
done
exit $failed
