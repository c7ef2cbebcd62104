#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes build/gpu_bundle/: all that a machine with an NVIDIA GPU and its driver needs to check and time modist's
# training steps. Copy it there, then: sh run.sh. Needs a build (modistc, modist_rt_carried) and NVRTC, no GPU.
#   sh tools/gpu_bundle.sh [--plan=FILE] [--build=DIR] [-o DIR]
#     --plan=FILE   what it holds (tools/gpu_bundle/plan.txt)
#     --build=DIR   where modist was built (build)
#     -o DIR        where to put it (build/gpu_bundle)
# Expected values are those of the CPU, from the same graph, seed and precision.
set -eu
cd "$(dirname "$0")/.."
parts=$PWD/tools/gpu_bundle plan=$PWD/tools/gpu_bundle/plan.txt build=$PWD/build out=$PWD/build/gpu_bundle
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac; }
while [ $# -gt 0 ]; do
  case $1 in
    --plan=*) plan=$(absolute "${1#*=}") ;;
    --build=*) build=$(absolute "${1#*=}") ;;
    -o) out=$(absolute "${2:?}"); shift ;;
    *) sed -n '5,8s/^# *//p' "$0" >&2; exit 2 ;;
  esac
  shift
done
trials=8  # other ways of each convolution, as `modistc compile --trials` makes
modistc=$build/bin/modistc rt=$build/bin/modist_rt_carried
if [ ! -x "$modistc" ] || [ ! -x "$rt" ]; then
  echo "gpu_bundle: no modistc and modist_rt_carried in $build/bin: cmake --build $build" >&2
  exit 1
fi
rm -rf "$out"
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$rt" "$out/modist_rt"
cp "$parts/run.sh" "$parts/rows.sh" "$out"
grep -E '^(dumps|check|conv|bench|tune|peer) ' "$plan" >"$out/plan.txt"
cd "$parts"  # graphs of the plan are here

# Layers that an error goes through: operations that sum up many products.
layers() { "$modistc" compile "$@" --emit=fused -o - -q | grep -cE '= (conv3d|matmul|max_pool3d|avg_pool3d|nce_lse)[a-z_0-9]* '; }

# Roundings of n layers add up like a random walk: 8 eps sqrt(n) of the largest value. In f32 states of the whole
# step are compared. There a unit whose input is closer to zero than the error e is switched by it: with a share e
# of the units wrong, gradients are off by sqrt(e) (tests/simt/test_step.c). In bf16 that would allow anything:
# the forward pass and kernels alone are compared.
tolerance() {
  awk -v n="$2" -v f32="$([ "$1" = fp32 ] && echo 1 || echo 0)" 'BEGIN {
    e = 8 * sqrt(n) / 2 ^ (f32 ? 24 : 8); printf "%.4g\n", f32 ? sqrt(e) : e }'
}

# Names of an artefact's inputs, states or results.
names() { "$rt" "$2" --inspect | awk -v list="\"$1\": [" '
  index($0, list) { inside = 1 } inside && /^  \]/ { exit }
  inside && /^      "name":/ { gsub(/[",]/, "", $2); print $2 }'; }

# Values that are compared. Not those that a small error can change by much: a part of the loss may be the small
# difference of large numbers, a deviation that of equal ones, and a count of best matches jumps.
compared() {
  names results "$2" | grep -vE '^(loss|std|top1)_' || true
  names states "$2" | grep -E "^(bank\.$([ "$1" = fp32 ] && echo '|sgd\.'))" || true
}

expectations() {
  name=$1 precision=$2 steps=$3
  shift 3
  cpu=$work/cpu.mdx
  # Direct convolutions: filtered ones round more than the tolerance is for.
  "$modistc" compile "$@" --precision="$precision" --target=cpu:native,-winograd -o "$cpu" -q
  tolerance=$(tolerance "$precision" "$(layers "$@" --precision="$precision")")
  mkdir "$out/$name"
  set -- --steps="$steps" --seed=1
  if names inputs "$cpu" | grep -qx lr; then set -- "$@" --input=lr=0.001; fi
  for value in $(compared "$precision" "$cpu"); do
    set -- "$@" "--output=$value=$out/$name/$value.npy"
    echo "--expect=$value=$name/$value.npy,$tolerance" >>"$out/$name.args"
  done
  "$rt" "$cpu" "$@" >/dev/null
}

dumps() {
  tests=$build/tests/device
  [ -x "$tests/device_make_dumps" ] || { echo "gpu_bundle: $build was made without tests: no dumps" >&2; exit 1; }
  mkdir "$out/$1"
  "$tests/device_make_dumps" "$out/$1"
  cp "$tests/device_dumps" "$out/$1"
}

while read -r kind name precision steps targets what; do
  [ "$kind" != peer ] || continue
  echo "gpu_bundle: $kind $name"
  if [ "$kind" = dumps ]; then dumps "$name"; continue; fi
  apart=
  [ "$kind" != conv ] || apart=--apart  # what cuDNN is to do has launches of its own
  if [ "$kind" = tune ]; then what="$what --trials=$trials"; fi
  # shellcheck disable=SC2086  # a model and its settings
  "$modistc" compile $what --precision="$precision" --target="$targets" $apart --share-kernels -o "$out/$name.mdx" -q
  "$rt" --check "$out/$name.mdx" >/dev/null
  if names inputs "$out/$name.mdx" | grep -qx lr; then echo "--input=lr=0.001" >"$out/$name.args"; fi
  case $kind in bench | tune) continue ;; esac
  # shellcheck disable=SC2086
  expectations "$name" "$precision" "$steps" $what
done <"$out/plan.txt"

size=$(du -sk --apparent-size "$out" | cut -f1)
echo "gpu_bundle: $out, $((size / 1024)) MiB. modist_rt needs:"
ldd "$rt" | sed 's/ *(0x.*//; s/ => .*//; s/^[[:space:]]*/  /'
[ "$size" -le 61440 ] || { echo "gpu_bundle: more than 60 MiB: a plan with less" >&2; exit 1; }
