#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes build/gpu_bundle/: all that a machine with an NVIDIA GPU and its driver needs to check and time modist's
# training steps. Copy it there, then: sh run.sh. Needs a build (modistc, modist_rt_carried) and NVRTC, no GPU.
#   sh tools/gpu_bundle.sh [--plan=FILE] [--build=DIR] [-o DIR]
#     --plan=FILE   what it holds (tools/gpu_bundle/plan.txt)
#     --build=DIR   where modist was built (build)
#     -o DIR        where to put it (build/gpu_bundle): a new or empty folder, or an older bundle
# Expected values come from the same graph and seed, by the interpreter (op) or the CPU.
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
# What a bundle has is removed, and nothing else; a folder of something else is left alone.
if [ -f "$out/plan.txt" ] && [ -f "$out/modist_rt" ] && [ -f "$out/run.sh" ]; then
  awk '{ print $2 }' "$out/plan.txt" | while read -r name; do
    case $name in */* | .* | '') continue ;; esac
    rm -rf "${out:?}/$name" "$out/$name.mdx" "$out/$name.args" "$out/${name}_apart.mdx"
  done
  rm -rf "$out/kernels"
  (cd "$out" && rm -f modist_rt run.sh rows.sh kinds.sh peer.py plan.txt commit)
elif [ -e "$out" ] && [ -n "$(ls -A "$out" 2>&1)" ]; then
  echo "gpu_bundle: $out is not empty and holds no bundle: -o another folder" >&2
  exit 1
fi
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$rt" "$out/modist_rt"
cp "$parts/run.sh" "$parts/rows.sh" "$parts/kinds.sh" "$parts/peer.py" "$out"
{ git rev-parse --short=12 HEAD && git diff --quiet HEAD -- || echo changed; } 2>/dev/null | tr '\n' ' ' >"$out/commit"
grep -E '^(dumps|op|check|full|conv|bench|part|fused|copy|tune|peer) ' "$plan" >"$out/plan.txt"
cd "$parts"  # graphs of the plan are here

# "result y 3": the layers that an error goes through on its way to a result or a state, operations that sum up many
# products. Layers beside that way do not count.
layers() {
  "$modistc" compile "$@" --emit=fused -o "$work/fused.mdg" -q
  awk '
    function deepest(text,  most) {
      for (most = 0; match(text, /%[A-Za-z0-9_.$-]+/); text = substr(text, RSTART + RLENGTH))
        if (deep[substr(text, RSTART, RLENGTH)] > most) most = deep[substr(text, RSTART, RLENGTH)]
      return most
    }
    $1 == "return" {
      sub(/^ *return /, "")
      for (n = split($0, result, ", "); n; n--) {
        name = of = result[n]
        sub(/=.*/, "", name)
        sub(/^%/, "", name)
        sub(/.*=/, "", of)
        print "result", name, deep[of] + 0
      }
    }
    $1 == "update" { print "state", substr($2, 2), deep[$4] + 0 }
    $1 ~ /^%/ {
      at = index($0, " = ")
      most = deepest(substr($0, at)) + (substr($0, at + 3) ~ /^(conv3d|matmul|max_pool3d|avg_pool3d|nce_lse)/)
      for (n = split(substr($0, 1, at - 1), value, /[ ,]+/); n; n--) deep[value[n]] = most
    }' "$work/fused.mdg"
}

# Roundings of n layers add up like a random walk: 8 eps sqrt(n) of the largest value. A unit whose input is closer
# to zero than the error e is switched by it: with a share e of the units wrong, gradients, and what follows from
# them in a later step, are off by sqrt(e) (tests/simt/test_step.c).
#   tolerance PRECISION LAYERS [sqrt]
tolerance() {
  awk -v f32="$([ "$1" = fp32 ] && echo 1 || echo 0)" -v n="$2" -v root="${3:-}" 'BEGIN {
    e = 8 * sqrt(n > 1 ? n : 1) / 2 ^ (f32 ? 24 : 8)
    printf "%.4g\n", root ? sqrt(e) : e }'
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

# expect NAME VALUE TOLERANCE: a line of NAME.args
expect() { echo "--expect=$2=$1/$2.npy,$3" >>"$out/$1.args"; }

# Values by the interpreter: in f32 that of the graph as it is written, in bf16 of what the passes make of it,
# which says where values are rounded.
by_interpreter() {
  name=$1 precision=$2 steps=$3
  shift 3
  layers "$@" --precision="$precision" >"$work/layers"
  passes=
  [ "$precision" = fp32 ] || passes=--opt-level=2
  set -- "$@" --backend=interp --precision="$precision" ${passes:+"$passes"} --steps="$steps" --seed=1
  while read -r what value deep; do
    [ "$what" = result ] || continue
    set -- "$@" "--output=$value=$out/$name/$value.npy"
    expect "$name" "$value" "$(tolerance "$precision" $((steps * deep)))"
  done <"$work/layers"
  "$modistc" run "$@" -q >/dev/null
}

# on_cpu PRECISION SEED STEPS OPTION...: runs $work/PRECISION.mdx
on_cpu() {
  cpu=$work/$1.mdx seed=$2 steps=$3
  shift 3
  if names inputs "$cpu" | grep -qx lr; then set -- "$@" --input=lr=0.001; fi
  "$rt" "$cpu" --seed="$seed" --steps="$steps" "$@"
}

# Values by the CPU, from direct convolutions: filtered ones round more than the tolerance is for.
for_cpu() {
  precision=$1
  shift
  "$modistc" compile "$@" --precision="$precision" --target=cpu:native,-winograd -o "$work/$precision.mdx" -q
}

by_cpu() {
  name=$1 precision=$2 steps=$3
  shift 3
  for_cpu "$precision" "$@"
  layers "$@" --precision="$precision" >"$work/layers"
  set --
  for value in $(compared "$precision" "$work/$precision.mdx"); do
    set -- "$@" "--output=$value=$out/$name/$value.npy"
    root=
    case $steps.$value in *.sgd.*) root=sqrt ;; 1.*) ;; *) root=sqrt ;; esac
    expect "$name" "$value" "$(tolerance "$precision" \
      $((steps * $(awk -v name="$value" '$2 == name { n = $3 } END { print n + 0 }' "$work/layers"))) $root)"
  done
  on_cpu "$precision" 1 "$steps" "$@" >/dev/null
}

# A whole step in bf16 has hundreds of roundings, and a bound for all of them says nothing. So the CPU tells what
# they do: values are those of f32, and a device in bf16 may be four times as far from them as the CPU is in bf16
# at the most, with the inputs of four seeds. What is an integer must be equal.
#   by_cpu_in_both VALUES SEEDS LEAST NAME PRECISION STEPS OPTION...
# VALUES: an expression for their names. LEAST: for one number, which with few seeds may be close by chance.
by_cpu_in_both() {
  values=$1 seeds=$2 least=$3 name=$4
  shift 6
  for_cpu fp32 "$@"
  for_cpu bf16 "$@"
  for value in $(compared bf16 "$work/bf16.mdx" | grep "$values"); do
    off=0
    for seed in $seeds; do
      on_cpu fp32 "$seed" 1 "--output=$value=$out/$name/$value.npy" >/dev/null
      off=$(on_cpu bf16 "$seed" 1 "--expect=$value=$out/$name/$value.npy" 2>&1 >/dev/null | awk -v off="$off" '
        match($0, /off by [^,]*/) { by = substr($0, RSTART + 7, RLENGTH - 7) }
        match($0, /of the largest, .*/) { size = substr($0, RSTART + 16) }
        END { if (size > 0 && by / size > off) off = by / size; print off }')
    done
    expect "$name" "$value" "$(awk -v off="$off" -v least="$least" 'BEGIN {
      printf "%.4g", (4 * off > least ? 4 * off : least) }')"
  done
}

# A file of f32 with NaN or an infinity, an exponent of all ones, says nothing of what is beside it.
is_finite() {
  head -c 128 "$1" | grep -aq "'<f4'" || return 0
  header=$((10 + $(od -An -tu2 -j8 -N2 "$1")))
  ! od -An -v -tx4 -w4 -j"$header" "$1" | grep -Eq '^ *[7f]f[89a-f]'
}

# prove NAME: something is expected of it, and only what is finite
prove() {
  if ! grep -q '^--expect=' "$out/$1.args" 2>/dev/null; then
    echo "gpu_bundle: nothing is expected of $1" >&2
    exit 1
  fi
  for file in "$out/$1"/*.npy; do
    is_finite "$file" || { echo "gpu_bundle: what is expected is not finite: $file" >&2; exit 1; }
  done
}

expectations() {
  mkdir -p "$out/$2"
  case $1.$3 in
    op.*) shift && by_interpreter "$@" ;;
    check.bf16) shift && by_cpu_in_both . "4 3 2 1" 0 "$@" ;;
    full.*) shift && by_cpu_in_both '^loss$' 1 "$(tolerance bf16 1)" "$@" ;;
    *) shift && by_cpu "$@" ;;
  esac
}

dumps() {
  tests=$build/tests/device
  [ -x "$tests/device_make_dumps" ] || { echo "gpu_bundle: $build was made without tests: no dumps" >&2; exit 1; }
  mkdir "$out/$1"
  "$tests/device_make_dumps" "$out/$1"
  cp "$tests/device_dumps" "$out/$1"
}

while read -r kind name precision steps targets what; do
  case $kind in peer | copy) continue ;; esac
  echo "gpu_bundle: $kind $name"
  if [ "$kind" = dumps ]; then dumps "$name"; continue; fi
  for_cuda=
  case $kind in
    conv) for_cuda=--apart ;;   # what cuDNN is to do has launches of its own
    full) for_cuda=--no-ptx ;;  # that of hundreds of kernels
  esac
  if [ "$kind" = tune ]; then what="$what --trials=$trials"; fi
  # shellcheck disable=SC2086  # a model and its settings
  "$modistc" compile $what --precision="$precision" --target="$targets" $for_cuda --share-kernels -o "$out/$name.mdx" -q
  "$rt" --check "$out/$name.mdx" >/dev/null
  if names inputs "$out/$name.mdx" | grep -qx lr; then echo "--input=lr=0.001" >"$out/$name.args"; fi
  case $kind in
    op | check | full | conv)
      # shellcheck disable=SC2086
      expectations "$kind" "$name" "$precision" "$steps" $what
      prove "$name"
      ;;
    fused)
      # The same, convolutions by themselves and walks of norm and ReLU between them: what cuDNN does a part of.
      # shellcheck disable=SC2086
      "$modistc" compile $what --precision="$precision" --target="$targets" --disable-pass=fuse-conv-bn-relu \
        --apart --share-kernels -o "$out/${name}_apart.mdx" -q
      "$rt" --check "$out/${name}_apart.mdx" >/dev/null
      ;;
  esac
done <"$out/plan.txt"

size=$(du -sb "$out" | cut -f1)
echo "gpu_bundle: $out, $(((size + 999999) / 1000000)) MB. modist_rt needs:"
ldd "$rt" | sed 's/ *(0x.*//; s/ => .*//; s/^[[:space:]]*/  /'
[ "$size" -le 60000000 ] || { echo "gpu_bundle: more than 60 MB: a plan with less" >&2; exit 1; }
