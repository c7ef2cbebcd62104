#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Convolutions by the stand-in for cuDNN in place of our kernels: what they compute, which ones it takes over, and
# what is said where it cannot.
#   cudnn.sh MODISTC MODIST_RT STAND_IN_FOLDER
set -u
here=$(cd "$(dirname "$0")" && pwd)
modistc=$1 rt=$2 stand_in=$3
. "$here/enter.sh"
keep_in "$work/cache" "$work/texts"
export LD_LIBRARY_PATH="$stand_in" MODIST_CUDNN="$stand_in/libstand_in_cudnn.so"

# flops_of FILE: sum of the rows of times; predictions repeat some
flops_of() { awk -F': ' '/"predicted":/ { exit } /"flops":/ { sum += $2 } END { printf "%.0f\n", sum }' "$1"; }

# Plain ones in both layouts and all directions, and %q, which relu follows.
cat >f32.mdg <<'E'
graph @net(%x: f32[2,6,3,7,6], %w: f32[10,6,1,3,3], %dy: f32[2,10,3,7,6],
           %x2: f32[1,16,3,9,8], %w2: f32[24,16,3,3,3], %dy2: f32[1,24,3,5,4]) {
  %r = relu %x
  %y = conv3d %r, %w {pad=[0,1,1]}
  %dx = conv3d_dgrad %dy, %w {pad=[0,1,1], shape=[2,6,3,7,6]}
  %dw = conv3d_wgrad %dy, %r {pad=[0,1,1], shape=[10,6,1,3,3]}
  %y2 = conv3d %x2, %w2 {stride=[1,2,2], pad=[1,1,1]}
  %dx2 = conv3d_dgrad %dy2, %w2 {stride=[1,2,2], pad=[1,1,1], shape=[1,16,3,9,8]}
  %dw2 = conv3d_wgrad %dy2, %x2 {stride=[1,2,2], pad=[1,1,1], shape=[24,16,3,3,3]}
  %q = conv3d %r, %w {pad=[0,2,2], dilation=[1,2,2]}
  %s = relu %q
  return %y, %dx, %dw, %y2, %dx2, %dw2, %s
}
E
sed 's/f32/bf16/g' f32.mdg >bf16.mdg

# Results are roundings of one sum: two of bf16, or in f32 those of a sum of at most 648 products, like a random
# walk (tests/tolerance.h).
names='y dx dw y2 dx2 dw2 s'
for type in f32 bf16; do
  tolerance=1.3e-5
  [ $type = f32 ] || tolerance=0.0079
  "$modistc" compile $type.mdg -o cpu.mdx -q || exit 1
  "$modistc" compile $type.mdg --target=cuda:sm_80,cuda:sm_90a --no-ptx --apart -o $type.mdx -q || exit 1
  outputs='' expected=''
  for name in $names; do
    outputs="$outputs --output=$name=$type.$name.npy"
    expected="$expected --expect=$name=$type.$name.npy,$tolerance"
  done
  # shellcheck disable=SC2086
  "$rt" cpu.mdx $outputs >/dev/null || exit 1
  for sm in 80 90; do
    # shellcheck disable=SC2086
    wants 0 "7 values are as expected" env MODIST_STAND_IN_SM=$sm "$rt" $type.mdx $expected --engine=cudnn --steps=3
    grep -q "engine cuDNN 9.19.0: 7 convolutions in place of 20 of 21 launches" out || wrong "$type for sm_$sm: $(cat out)"
    ! grep -q warning out || wrong "a warning: $(cat out)"
  done
  # shellcheck disable=SC2086
  wants 0 "7 values are as expected" "$rt" $type.mdx $expected --engine=cudnn --steps=2 --times --check-nan
done
for order in at-once copies-first others-first; do
  # shellcheck disable=SC2086
  wants 0 "7 values are as expected" env MODIST_STAND_IN_ORDER=$order "$rt" bf16.mdx $expected --engine=cudnn --steps=3
done
# shellcheck disable=SC2086
wants 0 "7 values are as expected" "$rt" bf16.mdx $expected --engine=modist
! grep -q cuDNN out || wrong "cuDNN, unasked"
wants 0 '"engine": "cuDNN 9.19.0: 7 convolutions in place of 20 of 21 launches"' \
  "$rt" f32.mdx --engine=cudnn --times --json
[ "$(grep -c '"conv_us":' out)" = 7 ] || wrong "times of convolutions"
[ "$(grep -c '"cuDNN"' out)" = 7 ] || wrong "a convolution by cuDNN is one row"
[ "$(grep -c '"region":' out)" = 15 ] || wrong "rows of times"
flops_of out >flops.cudnn
! grep -q '"predicted' out || wrong "predictions for cuDNN"
wants 0 '"kind": "weights"' "$rt" f32.mdx --times --json
[ "$(grep -c '"conv_us":' out)" = 7 ] || wrong "times of our convolutions"
flops_of out >flops.ours
[ -s flops.ours ] && cmp -s flops.ours flops.cudnn || wrong "the work of convolutions: $(cat flops.ours flops.cudnn)"

# Each is checked by the interpreter.
wants 0 "verified 7 regions" "$modistc" run f32.mdg --device=cuda:0 --engine=cudnn --verify
wants 0 "verified 7 regions" "$modistc" run bf16.mdg --device=cuda:0 --engine=cudnn --verify
wants 0 "cuDNN 9.19.0: 7 convolutions" "$modistc" run f32.mdg --device=cuda:0 --engine=cudnn
wants 0 "cuDNN 9.19.0: 7 convolutions" "$modistc" run f32.mdx --engine=cudnn

# With launches that are joined, fewer stand alone; weights that were packed for others stay so.
"$modistc" compile f32.mdg --target=cuda:sm_80 --no-ptx -o joined.mdx -q || exit 1
expected=$(for name in $names; do echo "--expect=$name=f32.$name.npy,1.3e-5"; done)
# shellcheck disable=SC2086
wants 0 "7 values are as expected" env MODIST_STAND_IN_SM=80 "$rt" joined.mdx $expected --engine=cudnn --steps=3
grep -q "engine cuDNN 9.19.0: 3 convolutions in place of 3 of 10 launches" out || wrong "joined: $(cat out)"

# %q is none, as its weights are a constant; %y is one where its weights lie at a place
# of the graph's, which joined launches move. %u is updated over itself.
cat >some.mdg <<'E'
graph @some(%x: f32[2,12,3,7,6], %w: f32[12,12,1,3,3], %b: f32[12], %dy: f32[2,12,3,7,6]) {
  %u = state @u {init=normal, b=1} : f32[12,12,1,1,1]
  %c = constant {value=0.5} : f32[12,12,1,1,1]
  %v = add %w, %w
  %y = conv3d %x, %v {pad=[0,1,1]}
  %z = conv3d %x, %w, %b {pad=[0,1,1]}
  %p = conv3d %x, %u
  %q = conv3d %x, %c
  %gu = conv3d_wgrad %dy, %x {shape=[12,12,1,1,1]}
  %dx = conv3d_dgrad %dy, %u {shape=[2,12,3,7,6]}
  %nu = add %u, %gu
  update @u = %nu
  return %y, %z, %p, %dx, %q
}
E
"$modistc" compile some.mdg -o cpu.mdx -q || exit 1
outputs='' expected=''
for name in y z p dx q u; do
  outputs="$outputs --output=$name=some.$name.npy"
  expected="$expected --expect=$name=some.$name.npy,1.3e-5"
done
# shellcheck disable=SC2086
"$rt" cpu.mdx $outputs --steps=3 >/dev/null || exit 1
while read -r num options; do
  # shellcheck disable=SC2086
  "$modistc" compile some.mdg --target=cuda:sm_90 --no-ptx $options -o some.mdx -q || exit 1
  # shellcheck disable=SC2086
  wants 0 "6 values are as expected" "$rt" some.mdx $expected --engine=cudnn --steps=3
  grep -q "engine cuDNN 9.19.0: $num convolutions" out || wrong "$options: $(cat out)"
done <<'E'
3
3 -O1
4 --apart
5 -O1 --apart
E

# --- what cuDNN fuses: batch norm, a sum, relu in front, stored or not; moments, or bias, a sum, relu behind; weights cast
cat >fused.mdg <<'E'
graph @fused(%x: bf16[2,16,3,7,6], %w: f32[16,16,1,3,3], %g: f32[16], %b: f32[16], %r: bf16[2,16,3,7,6],
             %w1: f32[32,16,1,1,1], %w2: f32[20,32,1,1,1], %g2: f32[32], %b2: f32[32], %bias: bf16[32],
             %dy: bf16[2,32,3,7,6], %q: bf16[2,32,3,7,6]) {
  %wb = cast %w {to=bf16}
  %c = conv3d %x, %wb {pad=[0,1,1]}
  %cf = cast %c {to=f32}
  %mean, %var = moments %cf
  %n2 = batch_norm %cf, %g, %b, %mean, %var {batch_stats=true}
  %rf = cast %r {to=f32}
  %s = add %n2, %rf
  %y2 = relu %s
  %z2 = cast %y2 {to=bf16}
  %wb1 = cast %w1 {to=bf16}
  %c2 = conv3d %z2, %wb1
  %cf2 = cast %c2 {to=f32}
  %mean2, %var2 = moments %cf2
  %n3 = batch_norm %cf2, %g2, %b2, %mean2, %var2 {batch_stats=true}
  %y3 = relu %n3
  %z3 = cast %y3 {to=bf16}
  %wb2 = cast %w2 {to=bf16}
  %c3 = conv3d %z3, %wb2
  %cf3 = cast %c3 {to=f32}
  %mean3, %var3 = moments %cf3
  %bc = conv3d %x, %wb1, %bias
  %ba = add %bc, %q
  %br = relu %ba
  %dx = conv3d_dgrad %dy, %wb1 {shape=[2,16,3,7,6]}
  return %c, %mean, %var, %z2, %c2, %mean2, %var2, %c3, %mean3, %var3, %br, %dx
}
E
sed 's/bf16/f32/g' fused.mdg >fused32.mdg
for net in fused fused32; do
  "$modistc" compile $net.mdg --target=cuda:sm_80,cuda:sm_90a --no-ptx --apart -o $net.mdx -q || exit 1
  wants 0 "cuDNN 9.19.0: 5 convolutions" "$rt" $net.mdx --engine=cudnn --steps=3
  # The interpreter judges each region.
  wants 0 "verified 5 regions" "$modistc" run $net.mdg --device=cuda:0 --engine=cudnn --verify --no-cache
  grep -q "cuDNN 9.19.0: 5 convolutions in place of" out || wrong "$net: $(cat out)"
  wants 3 "error" env MODIST_STAND_IN_CUDNN_OFF=1 "$modistc" run $net.mdg --device=cuda:0 --engine=cudnn --verify --no-cache
done
# The net as a whole, against the CPU.
"$modistc" compile fused32.mdg -o cpu32.mdx -q || exit 1
outputs='' expected=''
for name in c mean var z2 c2 mean2 var2 c3 mean3 var3 br dx; do
  outputs="$outputs --output=$name=fused.$name.npy"
  expected="$expected --expect=$name=fused.$name.npy,1.3e-5"
done
# shellcheck disable=SC2086
"$rt" cpu32.mdx $outputs >/dev/null || exit 1
# shellcheck disable=SC2086
wants 0 "12 values are as expected" "$rt" fused32.mdx $expected --engine=cudnn --steps=3
# Where cuDNN does not fuse (arithmetic, 13; sums, 14), our kernels do.
for kind in 13 14; do
  # shellcheck disable=SC2086
  wants 0 "12 values are as expected" env MODIST_CACHE=/dev/null MODIST_STAND_IN_CUDNN_WITHOUT=$kind "$rt" fused32.mdx $expected --engine=cudnn
  grep -q "cuDNN refuses [1-4] of 5 convolutions" out || wrong "$kind: $(cat out)"
done

# --- plans are kept, with the version, for the device, and made anew where cuDNN does not take them
plans() {  # plans NUM [VARIABLE=VALUE]...: a run has NUM plans made
  num=$1
  shift
  rm -f plans.log
  # shellcheck disable=SC2086
  wants 0 "12 values are as expected" env MODIST_CACHE="$work/plans" MODIST_STAND_IN_CUDNN_LOG="$work/plans.log" "$@" \
    "$rt" fused32.mdx $expected --engine=cudnn
  made=$(grep -c "the choice of an engine" plans.log)
  [ "$made" = "$num" ] || wrong "$made plans were made, not $num: $*"
}
mkdir -m 700 plans
plans 11
plans 0
plans 11 MODIST_STAND_IN_CUDNN_VERSION=92000
plans 0 MODIST_STAND_IN_CUDNN_VERSION=92000
plans 11 MODIST_STAND_IN_CUDNN_STALE=1
plans 0
plans 11 MODIST_STAND_IN_CUDNN_DEVICE=another
wants 0 "cache: 33 objects" env MODIST_CACHE="$work/plans" "$modistc" cache ls
key=$(basename "$(ls plans/*.o | sed 1q)" .o)
wants 0 "object  $key" env MODIST_CACHE="$work/plans" "$modistc" cache explain "$key"
for f in plans/*.o; do printf damaged >"$f"; done
plans 11
wants 0 "removed 33 objects" env MODIST_CACHE="$work/plans" "$modistc" cache prune
plans 11
plans 11 MODIST_CACHE=/dev/null

# --- the faster ones: of a tiny convolution cuDNN's stand-in makes short work, and not where it is told to sleep
cat >tiny.mdg <<'E'
graph @tiny(%x: f32[1,8,1,2,2], %w: f32[8,8,1,1,1]) {
  %y = conv3d %x, %w
  return %y
}
E
"$modistc" compile tiny.mdg --target=cuda:sm_90 --no-ptx --apart -o tiny.mdx -q || exit 1
# fastest MADE RUNS TEXT [VARIABLE=VALUE]...: a step of $net says TEXT, so many plans are made, and run so many times
net=tiny
fastest() {
  plans=$1 runs=$2 text=$3
  shift 3
  rm -f fastest.log
  wants 0 "$text" env MODIST_STAND_IN_CUDNN_LOG="$work/fastest.log" "$@" "$rt" $net.mdx --engine=fastest
  made=$(grep -c "the choice of an engine" fastest.log) ran=$(grep -c " cudnnBackendExecute " fastest.log)
  [ "$made" = "$plans" ] && [ "$ran" = "$runs" ] || wrong "$made plans and $ran runs, not $plans and $runs: $*"
}
theirs="1 convolution in place of 2 of 2 launches, the faster ones of 1"
ours="0 convolutions in place of 0 of 2 launches, the faster ones of 1"
nothing=MODIST_CACHE=/dev/null slow=MODIST_STAND_IN_CUDNN_SLOW=20
export MODIST_CACHE="$work/engines"
mkdir -m 700 engines
# Tried in eight rounds, and run in the step where it is faster.
fastest 1 9 "$theirs" $nothing
fastest 1 8 "$ours" $nothing $slow
# A workspace that nobody needs is given back.
planned() { env "$@" --json | sed -n 's/.*"planned_bytes": \([0-9]*\),/\1/p'; }
[ "$(planned $nothing $slow "$rt" tiny.mdx --engine=fastest)" = "$(planned "$rt" tiny.mdx)" ] ||
  wrong "a workspace for nothing"
wants 0 "tuning: 0 records" "$modistc" cache ls
wants 0 "the faster ones of 3" "$modistc" run f32.mdg --device=cuda:0 --engine=fastest --no-cache
wants 0 "tuning: 0 records" "$modistc" cache ls

# What was found is a record, and the next run obeys it without trials, whatever is faster now.
fastest 1 9 "$theirs"
wants 0 "tuning: 1 records, of 1 products another way is the best" "$modistc" cache stat
fastest 0 1 "$theirs, 1 by records" $slow
wants 0 "$theirs, 1 by records" "$modistc" run tiny.mdx --engine=fastest
key=$(sed -n 's/.*"key":"\([0-9a-f]*\)".*/\1/p' engines/tuning.jsonl)
wants 0 "cuDNN 9.19.0 " "$modistc" cache explain "$key"
"$modistc" cache export theirs.jsonl -q
sed 's/"best":"[^"]*"/"best":"modist"/' theirs.jsonl >ours.jsonl
"$modistc" cache import ours.jsonl -q
fastest 0 0 "$ours, 1 by records"
wants 0 "removed 1 records" "$modistc" cache prune
fastest 0 0 "$ours, 1 by records" MODIST_STAND_IN_CUDNN_NO_PLAN=1  # nobody asks for one
# It is of this version, device and code alone.
fastest 1 9 "$theirs" MODIST_STAND_IN_CUDNN_VERSION=92000
fastest 0 1 "$theirs, 1 by records" MODIST_STAND_IN_CUDNN_VERSION=92000
fastest 1 9 "$theirs" MODIST_STAND_IN_CUDNN_DEVICE=another
fastest 0 0 "$ours, 1 by records"
wants 0 "tuning: 3 records" "$modistc" cache ls
sed 's/"device":"[^"]*"/"device":"Other GPU"/' ours.jsonl >other.jsonl
"$modistc" cache prune --records >/dev/null
"$modistc" cache import other.jsonl -q
fastest 1 9 "$theirs"
# Where nothing can be kept, nothing is said.
chmod 500 engines
if [ ! -w engines ]; then
  rm -f engines/tuning.jsonl
  fastest 0 9 "$theirs"
fi
chmod 700 engines
"$modistc" cache prune --records >/dev/null
# shellcheck disable=SC2086
wants 0 "12 values are as expected" "$rt" fused32.mdx $expected --engine=fastest --steps=3
grep -q "the faster ones of 5$" out || wrong "fastest: $(cat out)"
# shellcheck disable=SC2086
wants 0 "12 values are as expected" "$rt" fused32.mdx $expected --engine=fastest --steps=3
grep -q "the faster ones of 5, 5 by records" out || wrong "fastest by records: $(cat out)"
wants 0 "the faster ones of 7" "$modistc" run f32.mdx --engine=fastest
wants 0 "warning: our kernels alone, as cuDNN cannot be used" env MODIST_CUDNN=/nowhere "$rt" tiny.mdx --engine=fastest
wants 0 "warning: region 'conv3d.y' stays with our kernels" \
  env $nothing MODIST_STAND_IN_CUDNN_FAULT=cudnnBackendExecute:3:5000 "$rt" tiny.mdx --engine=fastest

# --- tuning measures it within the step, and records it
"$modistc" cache prune --records >/dev/null
wants 0 "measured: 1 convolutions by cuDNN, too, 0 failed; 1 are faster so" "$modistc" tune tiny.mdx
! grep -q "leak: " out || wrong "tune: something is not given back"
grep -q '"own":"modist","own_us":[0-9.]*,"own_cold_us":.*"best":"cuDNN 9.19.0",.*"checked":true,"ways":\[{"way":"cuDNN 9.19.0","us":[0-9.]*,"cold_us":[0-9.]*,"warm_us":[0-9.]*}\],"clocks":{' \
  engines/tuning.jsonl || wrong "no record of an engine: $(cat engines/tuning.jsonl)"
fastest 0 1 "$theirs, 1 by records" $slow
wants 0 "0 are faster so" env $slow "$modistc" tune tiny.mdx --rounds=3 --budget=1s
fastest 0 0 "$ours, 1 by records"
# A plan that fails, or is wrong, is recorded and left out.
failing() {
  "$modistc" cache prune --records >/dev/null
  wants 0 "1 convolutions by cuDNN, too, 1 failed; 0 are faster so" env "$1" "$modistc" tune tiny.mdx
  grep -q "\"best\":\"modist\".*\"failed\":\"$2" engines/tuning.jsonl || wrong "$1: $(cat engines/tuning.jsonl)"
  fastest 0 0 "$ours, 1 by records"
}
failing MODIST_STAND_IN_CUDNN_FAULT=cudnnBackendExecute:1:5000 "region 'conv3d.y': cuDNN on cuda:0, .* fails: cudnnBackendExecute: 5000"
failing MODIST_STAND_IN_CUDNN_FAULT=cudnnBackendExecute:2:5000 "region 'conv3d.y': cuDNN on cuda:0, .* fails: cudnnBackendExecute: 5000"
failing MODIST_STAND_IN_CUDNN_FAULT=cudnnBackendExecute:5:5000 "a step with it and others fails: region 'conv3d.y': cuDNN"
failing MODIST_STAND_IN_CUDNN_OFF=1 "'y' is off by"
# What cuDNN has no plan for is no record; without cuDNN all is as ever.
"$modistc" cache prune --records >/dev/null
wants 0 "measured: 0 products" env MODIST_CACHE="$work/plans" MODIST_STAND_IN_CUDNN_NO_PLAN=1 "$modistc" tune tiny.mdx
wants 2 "tiny has nothing that is to be tried" env MODIST_CUDNN=/nowhere "$modistc" tune tiny.mdx
wants 0 "measured: 5 convolutions by cuDNN, too, 0 failed" env MODIST_STAND_IN_CUDNN_WITHOUT=12 "$modistc" tune f32.mdx --rounds=3
wants 0 "tuning: 5 records" "$modistc" cache ls
# Of equal ones one is measured, for all.
sed 's/%w:/%x2: f32[1,8,1,2,2], %w:/; s/return/%z = conv3d %x2, %w\n  return %z,/' tiny.mdg >twice.mdg
"$modistc" compile twice.mdg --target=cuda:sm_90 --no-ptx --apart -o twice.mdx -q || exit 1
wants 0 "measured: 1 convolutions by cuDNN, too, 0 failed" "$modistc" tune twice.mdx --rounds=3
wants 0 "the faster ones of 2, 2 by records" "$rt" twice.mdx --engine=fastest
# Roundings of cuDNN are no mistakes: gradients for weights that are f32 beside bf16.
cat >wide.mdg <<'E'
graph @wide(%x: bf16[2,16,3,7,6], %dy: bf16[2,32,3,7,6]) {
  %dw = conv3d_wgrad %dy, %x {shape=[32,16,1,1,1]}
  %w = cast %dw {to=f32}
  return %w
}
E
"$modistc" compile wide.mdg --target=cuda:sm_90 --no-ptx --apart -o wide.mdx -q || exit 1
wants 0 "measured: 1 convolutions by cuDNN, too, 0 failed" "$modistc" tune wide.mdx --rounds=3
# Of a model, in the step that users get.
for net in f32 bf16; do
  wants 0 "convolutions by cuDNN, too, 0 failed" "$modistc" tune $net.mdg --rounds=3 --trials=1
  grep -q "warning" out && wrong "tune $net.mdg: $(cat out)"
  num=$(sed -n 's/.*; \([0-9]*\) convolutions by cuDNN.*/\1/p' out)
  wants 0 "the faster ones of $num, $num by records" "$modistc" run $net.mdg --device=cuda:0 --engine=fastest
done
"$modistc" compile tiny.mdg --target=cuda:sm_90 --no-ptx --trials -o trials.mdx -q || exit 1
wants 0 "1 products, " "$rt" trials.mdx --tune=found.jsonl
[ "$(grep -c '"own":"modist"' found.jsonl)" = 0 ] || wrong "cuDNN, unasked: $(cat found.jsonl)"
wants 0 "; 1 convolutions by cuDNN, too, 0 failed" "$rt" trials.mdx --tune=found.jsonl --engine=fastest
[ "$(grep -c '"own":"modist"' found.jsonl)" = 1 ] || wrong "no record of an engine: $(cat found.jsonl)"
wants 2 "--tune takes --device, --seed" "$rt" trials.mdx --tune=found.jsonl --engine=cudnn
# Another way of ours is another record.
way=$(sed -n '1s/.*"ways":\[{"way":"\([^"]*\)".*/\1/p' found.jsonl)
sed "1s/\"best\":\"[^\"]*\"/\"best\":\"$way\"/" found.jsonl >hand.jsonl
"$modistc" cache prune --records >/dev/null
"$modistc" cache import hand.jsonl -q
net=tiny
fastest 1 1 "$theirs, 1 by records"
wants 0 "tuned   1 of 1 products by records of Stand-in GPU, 1 of them" \
  "$modistc" compile tiny.mdg --target=cuda:sm_90 --no-ptx --apart -o other.mdx
net=other
fastest 0 9 "$theirs"
fastest 0 1 "$theirs, 1 by records"
export MODIST_CACHE="$work/cache"

# As a baseline: convolutions alone.
for precision in fp32 bf16; do
  wants 0 "cudnn       " "$modistc" bench --op conv3d:n1c8t2h8w8o8k1x3x3s1x2x2 --direction=all --device=cuda:0 \
    --baseline=cudnn --precision=$precision --rounds=2 --warmup=0
  [ "$(grep -c '^  cudnn .* ms .*x.* 9.19.0, 1 convolution in place of [0-9]* of [0-9]* launches' out)" = 3 ] ||
    wrong "bench: $(cat out)"
done
wants 0 '"version": "9.19.0"' "$modistc" bench --op conv3d:c8t2h8w8o8k1 --device=cuda:0 --baseline=cudnn -n 1 --warmup=0 --format=json
wants 0 "unmeasured: error[E0638]: --engine=cudnn would do nothing: no convolution" \
  "$modistc" bench --op matmul:m8n8k8 --device=cuda:0 --baseline=cudnn -n 1 --warmup=0
wants 0 "unmeasured: error[E0637]" env MODIST_CUDNN=/nowhere \
  "$modistc" bench --op conv3d:c8t2h8w8o8k1 --device=cuda:0 --baseline=cudnn -n 1 --warmup=0
wants 0 '"note": "1 convolution in place of ' \
  "$modistc" bench --op conv3d:c8t2h8w8o8k1 --device=cuda:0 --baseline=cudnn -n 1 --warmup=0 --format=json
wants 2 "error[E0401]: --baseline=cudnn: 'f32.mdg' is more than a convolution" \
  "$modistc" bench step f32.mdg --device=cuda:0 --baseline=cudnn
wants 2 "--baseline would do nothing: cuDNN computes on a GPU" "$modistc" bench conv --baseline=cudnn

# --- what it cannot take over stays with our kernels
expected=$(for name in $names; do echo "--expect=$name=f32.$name.npy,1.3e-5"; done)
# shellcheck disable=SC2086
export MODIST_CACHE=/dev/null  # plans are made, not found
wants 0 "7 values are as expected" env MODIST_STAND_IN_CUDNN_WITHOUT=12 "$rt" f32.mdx $expected --engine=cudnn
grep -q "cuDNN refuses 2 of 7 convolutions, which our kernels do; region 'conv3d_dgrad.dx': no engine" out ||
  wrong "no warning: $(cat out)"
wants 2 "--engine=cudnn would do nothing: cuDNN refuses every convolution" \
  env MODIST_STAND_IN_CUDNN_RANDOM=2 "$rt" f32.mdx --engine=cudnn
wants 2 "gives the same bits in every run" env MODIST_STAND_IN_CUDNN_RANDOM=2 "$rt" bf16.mdx --engine=cudnn
printf 'graph @plain(%%x: f32[5,130]) {\n  %%a = exp %%x\n  return %%a\n}\n' >plain.mdg
env MODIST_CACHE="$work/cache" "$modistc" compile plain.mdg --target=cuda:sm_80 -o plain.mdx -q || exit 1
wants 2 "hint: modistc compile --apart gives every kernel a launch of its own" "$rt" plain.mdx --engine=cudnn

# --- no cuDNN, an old one, one that fails, no memory for it
wants 4 "error[E0637]: --engine=cudnn: cuDNN cannot be used: /nowhere" env MODIST_CUDNN=/nowhere "$rt" f32.mdx --engine=cudnn
wants 4 "is cuDNN 9.14, and 9.15 is the least" env MODIST_STAND_IN_CUDNN_VERSION=91400 "$rt" f32.mdx --engine=cudnn
wants 0 "cuDNN     not usable" env MODIST_CUDNN=/nowhere "$modistc" doctor
wants 0 "cuDNN     9.19.0 from" "$modistc" doctor
mkdir bare  # its part is there, and broken, also where the loader looks: cuDNN ends the process then
ln -s "$MODIST_CUDNN" bare/libcudnn.so.9
: >bare/libcudnn_graph.so.9
bare="env MODIST_CUDNN=$work/bare/libcudnn.so.9 LD_LIBRARY_PATH=$work/bare:$stand_in"
wants 4 "bare/libcudnn_graph.so.9: file too short, which libcudnn.so.9 needs" $bare "$rt" f32.mdx --engine=cudnn
wants 0 "cuDNN     not usable" $bare "$modistc" doctor
wants 4 "cudnnCreate: 1001" env MODIST_STAND_IN_CUDNN_FAULT=cudnnCreate:1:1001 "$rt" f32.mdx --engine=cudnn
for n in 1 7; do  # in the first step, issued one by one
  wants 1 "error[E0639]: region 'conv3d" \
    env MODIST_STAND_IN_CUDNN_FAULT=cudnnBackendExecute:$n:5000 "$rt" f32.mdx --engine=cudnn --steps=3
done
grep -qF "cudnnBackendExecute: 5000, CUDNN_STATUS_EXECUTION_FAILED (as MODIST" out || wrong "its words: $(cat out)"
# In the second step, which is captured: then steps are issued as the first one was, unless that fails, too.
for n in 8 14; do
  # shellcheck disable=SC2086
  wants 0 "7 values are as expected" env MODIST_STAND_IN_LOG="$work/log$n" \
    MODIST_STAND_IN_CUDNN_FAULT=cudnnBackendExecute:$n:5000 "$rt" f32.mdx $expected --engine=cudnn --steps=3
  [ "$(grep -c 'warning: cuDNN cannot be captured as a CUDA graph' out)" = 1 ] || wrong "no warning: $(cat out)"
  [ "$(grep -c cuGraphLaunch "log$n")" = 0 ] || wrong "a graph all the same"
done
# shellcheck disable=SC2086
wants 0 "7 values are as expected" env MODIST_STAND_IN_FAULT=cuStreamEndCapture:1:901 "$rt" f32.mdx $expected --engine=cudnn --steps=3
wants 1 "error[E0647]" env MODIST_STAND_IN_FAULT=cuStreamEndCapture:1:901 "$rt" f32.mdx --steps=3
# Where cuDNN is open and has nothing left to do, it is not to blame.
wants 1 "error[E0647]" env MODIST_STAND_IN_CUDNN_SLOW=200 MODIST_STAND_IN_FAULT=cuStreamEndCapture:1:901 \
  "$rt" tiny.mdx --engine=fastest --steps=3
wants 1 "cuStreamEndCapture failed with 700" env MODIST_STAND_IN_FAULT=cuStreamEndCapture:1:700 "$rt" f32.mdx --engine=cudnn --steps=3
# Plans do with less where the workspace is not given in one piece, and cuDNN's kernels need memory, too.
# shellcheck disable=SC2086
wants 0 "7 values are as expected" env MODIST_STAND_IN_FAULT=cuMemAlloc_v2:2:2 "$rt" f32.mdx $expected --engine=cudnn
grep -q "region 'conv3d_dgrad.dx': a plan needs 1.5 KiB of workspace, and 1000 B are left" out || wrong "$(cat out)"
wants 2 "a plan needs 1000 B of workspace, and 0 B are left" \
  env MODIST_STAND_IN_MEMORY=512M "$rt" f32.mdx --engine=cudnn
bytes=$(planned "$rt" f32.mdx)
wants 2 "a plan needs 1000 B of workspace, and 999 B are left" "$rt" f32.mdx --engine=cudnn --memory-limit=$((bytes + 999))
wants 0 "cuDNN refuses 4 of 7 convolutions" "$rt" f32.mdx --engine=cudnn --memory-limit=$((bytes + 1000))
grep -q "region 'conv3d_dgrad.dx': a plan needs 1.5 KiB of workspace, and 1000 B are left" out || wrong "$(cat out)"
wants 0 "cuDNN 9.19.0: 5 conv" "$rt" f32.mdx --engine=cudnn --memory-limit=$((bytes + 1500))
wants 0 "cuDNN 9.19.0: 7 conv" "$rt" f32.mdx --engine=cudnn --memory-limit=$((bytes + 2000))
# Every run takes the same ones, or none: a limit makes them smaller, what is free does not.
fixed() {
  code=$1 text=$2
  shift 2
  wants "$code" "$text" env "$@" "$rt" f32.mdx --engine=cudnn --deterministic $limit
}
limit=--memory-limit=$((bytes + 2000))
fixed 0 "cuDNN 9.19.0: 7 conv"
fixed 6 "cuDNN's plans need 2.0 KiB of workspace, which cuda:0, Stand-in GPU (sm_90) does not have in one piece" \
  MODIST_STAND_IN_FAULT=cuMemAlloc_v2:2:2
limit=--memory-limit=$((bytes + 1500))
fixed 0 "cuDNN 9.19.0: 5 conv"
limit=
fixed 6 "cuDNN's plans need 2.0 KiB of workspace, and cuda:0, Stand-in GPU (sm_90) has 0 B left" MODIST_STAND_IN_MEMORY=512M
mkdir -m 700 unsteady
fixed 1 "--deterministic takes the plan that cuDNN chooses first, which fails: " \
  MODIST_CACHE="$work/unsteady" MODIST_STAND_IN_CUDNN_FAULT=cudnnBackendFinalize:8:5000
wants 0 "cuDNN 9.19.0: 7 conv" env MODIST_CACHE="$work/unsteady" MODIST_STAND_IN_CUDNN_FAULT=cudnnBackendFinalize:8:5000 \
  "$rt" f32.mdx --engine=cudnn
# A plan that was taken for want of memory is not kept.
mkdir -m 700 short
wants 0 "cuDNN 9.19.0: 7 conv" env MODIST_CACHE="$work/short" "$rt" f32.mdx --engine=cudnn --memory-limit=$((bytes + 1900))
[ "$(planned MODIST_CACHE="$work/short" "$rt" f32.mdx --engine=cudnn)" -ge $((bytes + 2000)) ] || wrong "the second plan was kept"

# --- where there is nothing for it
wants 2 "would do nothing: the CPU runs the program" "$rt" cpu.mdx --engine=cudnn
wants 2 "--deterministic and --engine=fastest exclude one another" "$rt" f32.mdx --engine=fastest --deterministic
wants 2 "there is no engine 'cublas'; it is modist, cudnn or fastest" "$rt" f32.mdx --engine=cublas
wants 2 "--engine would do nothing: the CPU runs the program" "$modistc" run f32.mdg --engine=cudnn

echo "$failed failed"
[ $failed = 0 ]
