#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tuning on a GPU that the stand-in plays: ways are measured and compared, those that fail or are wrong are named
# and left out, and the compiler takes what was found.
#   tune.sh MODISTC MODIST_RT STAND_IN_FOLDER
set -u
here=$(cd "$(dirname "$0")" && pwd)
modistc=$1 rt=$2 stand_in=$3
. "$here/enter.sh"
keep_in "$work/cache" "$work/texts"
export MODIST_CUDNN=/nowhere # cudnn.sh has one
on_gpu() { env LD_LIBRARY_PATH="$stand_in" "$@"; }
lines() { [ "$(grep -c "$2" "$3")" = "$1" ] || wrong "$3 has not $1 lines with '$2': $(cat "$3")"; }

cat >step.mdg <<'Y'
graph @step(%x: f32[2,8,2,6,6]) {
  %w = state @w {init=normal, b=0.1} : f32[16,8,1,3,3]
  %v = state @v {init=normal, b=0.1} : f32[16,16,1,3,3]
  %a = conv3d %x, %w {pad=[0,1,1]}
  %r = relu %a
  %b = conv3d %r, %v {pad=[0,1,1]}
  return %b
}
Y
"$modistc" compile step.mdg -t cuda:sm_90 --no-ptx -q -o plain.mdx || exit 1
"$modistc" compile step.mdg -t cuda:sm_90 --no-ptx --trials -q -o trials.mdx || exit 1
"$modistc" compile step.mdg -q -o cpu.mdx || exit 1
"$rt" cpu.mdx --output=b=b.npy >/dev/null || exit 1

# --- what is measured
wants 0 "2 products, 6 other ways of them, 0 failed" on_gpu "$rt" trials.mdx --tune=found.jsonl
lines 2 '"checked":true' found.jsonl
lines 2 '"device":"Stand-in GPU","by":"device"' found.jsonl
[ "$(grep -o '"us":' found.jsonl | wc -l)" = 6 ] || wrong "not every way has a time: $(cat found.jsonl)"
# Trials are not part of a step.
wants 0 "1 values are as expected" on_gpu "$rt" trials.mdx --expect=b=b.npy,1e-5

# Beside it, behind a cold and a warm L2 cache: three rounds of four ways, where each of two launches of two products
# runs once and thrice, and the cache is driven out 2 * 4 times; and a step of own ways first.
[ "$(grep -o '"cold_us":' found.jsonl | wc -l)" = 6 ] || wrong "not every way has a cold time: $(cat found.jsonl)"
[ "$(grep -o '"warm_us":' found.jsonl | wc -l)" = 6 ] || wrong "not every way has a warm time: $(cat found.jsonl)"
lines 2 '"own_cold_us":[0-9.]*,"own_warm_us":[0-9.]*,' found.jsonl
counted() { # counted CALL BUDGET
  rm -f log
  wants 0 "6 other ways of them, 0 failed" on_gpu env MODIST_STAND_IN_LOG="$work/log" \
    "$modistc" tune trials.mdx -o few.jsonl --rounds=3 --budget="$2"
  num=$(grep -c " $1\$" log)
}
counted cuMemsetD8Async 300s && all=$num
counted cuMemsetD8Async 0.001s
[ $((all - num)) = $((3 * 4 * 2 + 2)) ] || wrong "the cache is driven out $((all - num)) times"
lines 0 cold_us few.jsonl # there was no time for them
lines 2 '"own_us"' few.jsonl
counted cuLaunchKernel 300s && all=$num
counted cuLaunchKernel 0.001s
[ $((all - num)) = $((3 * 4 * 4 * (1 + 3) + 4)) ] || wrong "a cold and a warm cache take $((all - num)) launches"
# What fails there costs nothing else.
beside() {
  wants 0 "6 other ways of them, 0 failed" on_gpu env "$1" "$rt" trials.mdx --tune=beside.jsonl
  ! grep "leak: " "$work/out" || wrong "$1: something was not given back"
  [ "$(grep -o '"us":' beside.jsonl | wc -l)" = 6 ] || wrong "$1: not every way has a time: $(cat beside.jsonl)"
}
beside MODIST_STAND_IN_FAULT=cuMemAlloc_v2:2:2
lines 0 cold_us beside.jsonl

# --- clocks: while a step runs, by NVML; without it their peaks
lines 2 '"clocks":{"driver":"CUDA 13.0","peak_sm_mhz":\[1000,1000\],"peak_memory_mhz":\[1000,1000\],"looks":0,' found.jsonl
wants 0 "clocks: not watched (libnvidia-ml.so.1: " on_gpu "$rt" trials.mdx --tune=found.jsonl
with_nvml() { env LD_LIBRARY_PATH="$stand_in:$stand_in/nvml" "$@"; }
wants 0 "clocks: SM 1500 MHz, memory 2600 MHz" with_nvml "$modistc" tune trials.mdx -o clocks.jsonl
grep "held\|leak: " out && wrong "the device did not hold itself back, and NVML was shut down"
# 7 rounds and 3 cold and warm ones of 4 ways, and the first step of those.
lines 2 '"clocks":{"driver":"580.65.06","sm_mhz":\[1500,1500\],"memory_mhz":\[2600,2600\],"looks":53,"throttled":0}' clocks.jsonl
slow() {
  with_nvml env MODIST_STAND_IN_NVML_SM=1500,1395,1980 MODIST_STAND_IN_NVML_REASONS=0x1,0x4,0x20 \
    MODIST_STAND_IN_NVML_FAULT="${fault:-}" "$modistc" tune trials.mdx
}
wants 0 "warning: Stand-in GPU held itself back in 35 of 53 steps that were measured: power limit, heat" slow
wants 0 "clocks: SM 1395 to 1980 MHz, memory 2600 MHz; held back in 35 of 53 steps: power limit, heat" slow
key=$(sed -n '1s/.*"key":"\([0-9a-f]*\)".*/\1/p' found.jsonl)
wants 0 "Stand-in GPU, driver 580.65.06" "$modistc" cache explain "$key"
wants 0 "clocks    SM 1395 to 1980 MHz, memory 2600 MHz; held back in 35 of 53 steps" "$modistc" cache explain "$key"
wants 0 "in a step    L2 cold    L2 warm" "$modistc" cache explain "$key"
"$modistc" cache import clocks.jsonl -q && "$modistc" cache export again.jsonl -q
cmp -s clocks.jsonl again.jsonl || wrong "clocks do not come back: $(cat again.jsonl)"
sed 's/"sm_mhz":\[1500,1500\]/"sm_mhz":[1500,1499]/' clocks.jsonl >bad.jsonl
wants 5 "error[E0650]: 'sm_mhz' is missing or is not the least and the largest number of MHz" "$modistc" cache import bad.jsonl
# A look that takes long is no part of what a step is said to take, on which the next look waits.
slow="1500,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0"
wants 0 "clocks: SM 1500 MHz" with_nvml env MODIST_STAND_IN_NVML_SLOW=$slow MODIST_LOG=exec=debug "$modistc" tune trials.mdx
awk '/a step takes [0-9.]* ms/ { n++; bad += $(NF - 1) >= 1500 } END { exit !(n && !bad) }' out || wrong "a look is in a step: $(cat out)"
# A library that fails is as good as none.
for fault in nvmlInit_v2:1:999 nvmlDeviceGetHandleByPciBusId_v2:1:6; do
  wants 0 "clocks: not watched (${fault%%:*} fails with ${fault##*:}, " slow
done
fault=nvmlDeviceGetClockInfo:3:999
wants 0 "of 52 steps" slow
unset fault
wants 0 "removed 12 records" "$modistc" cache prune
"$modistc" cache prune --records >/dev/null

# A kernel that only a trial has.
symbols() { "$modistc" inspect "$1" --format=json | sed -n 's/.*"symbol": "\(.*\)",/\1/p' | sort; }
symbols plain.mdx >plain.txt
mkdir wrong
cp -R texts/. wrong
for symbol in $(symbols trials.mdx | comm -13 plain.txt -); do
  file=$(grep -l "$symbol(" wrong/* 2>/dev/null | head -n 1)
  if [ -n "$file" ] && grep -q 'acc\[x\]\[y\]' "$file"; then break; fi
done
[ -n "$file" ] || wrong "no kernel of a trial is found among the texts"

# --- a way that fails, or does not end, in whatever process: it is named, and all others are measured
tune() {
  wants 0 "$1" on_gpu env "$2" MODIST_STAND_IN_ONCE="$work/once" "$rt" trials.mdx --tune=failed.jsonl
  ! grep "leak: " "$work/out" || wrong "$2: something was not given back"
}
timed() { [ "$(grep -o '"us":' failed.jsonl | wc -l)" = "$1" ] || wrong "not $1 ways have a time: $(cat failed.jsonl)"; }
bad() {
  tune "1 failed" MODIST_STAND_IN_BAD="$symbol:$1"
  lines 1 "\"failed\":\"$2" failed.jsonl
  lines 2 '"checked":true' failed.jsonl
  timed 5
}
bad 1:700 "region 'conv3d.[ab]': .* on cuda:0, Stand-in GPU (sm_90) fails with 700"
bad 1:hang "it did not end within"
bad 1:801 "region 'conv3d.[ab]': .* fails with 801"
# One that does so in a round, and behind itself alone. What fails with others only takes them along.
bad 2:719 "cuEventSynchronize on .* fails with 719"
bad 2:hang "it did not end within"
tune "2 failed" MODIST_STAND_IN_BAD="$symbol:3:719"
lines 2 '"failed":"a step with it and others fails: ' failed.jsonl
timed 4
# One that does so behind a cold or a warm L2 cache only: the time in the step decides.
beside MODIST_STAND_IN_BAD="$symbol:12:hang"
# A call that fails once, in the first process: if a way made it, that is left out. Else, as when a result is
# copied for comparison, the step is done again.
once() {
  : >once
  tune "$1 failed" MODIST_STAND_IN_FAULT="$2"
  [ ! -e once ] || wrong "$2 never came"
  timed $((6 - $1))
}
once 1 kernel:8:719
once 1 cuLaunchKernel:8:701
once 1 cuMemsetD8Async:2:1
lines 1 "\"failed\":\"cuMemsetD8Async on .* fails with 1, " failed.jsonl
for fault in kernel:1:719 kernel:60:719 cuLaunchKernel:61:719 cuMemcpyDtoHAsync_v2:2:700; do once 0 $fault; done
# The step itself fails: that ends it.
wants 1 "a step fails with every way left out" on_gpu env MODIST_STAND_IN_FAULT=kernel:1:719 "$rt" trials.mdx --tune=no.jsonl
[ ! -e no.jsonl ] || wrong "records of nothing"

# A way that is wrong, by a term more.
cp "$file" right
mutant() {
  sed "$1" right >"$file"
  cmp -s right "$file" && wrong "nothing is changed by $1"
  find wrong -name "*.so" -exec rm {} +
  wants 0 "1 failed" on_gpu env MODIST_STAND_IN_TEXTS="$work/wrong" "$rt" trials.mdx --tune=wrong.jsonl
  lines 1 "\"failed\":\"'.*' is off by" wrong.jsonl
}
mutant 's/stage\[row \* \([0-9]*\) + col + z\] = sum/stage[row * \1 + col + z] = 1.0f + sum/'
mutant 's/if (p < pixels && first < [0-9]*) {/if (p < 0) {/'  # what it does not write was there before

# --- what the compiler makes of it. Ways whose times are known here in advance: a record by hand.
wants 0 "0 records" "$modistc" cache ls
wants 4 "2 of 2 products have no record" "$modistc" compile step.mdg -t cuda:sm_90 --tune=require -o t.mdx
wants 0 "measured: 2 products, 6 other ways" on_gpu "$modistc" tune trials.mdx --rounds=3
wants 0 "tuning: 2 records" "$modistc" cache ls
wants 0 "measured: 2 products" on_gpu "$modistc" tune step.mdg -t cuda:sm_90 --rounds=3 --trials=2
"$modistc" cache prune --records >/dev/null
sed 's/"own_us":[^,]*,\(.*\)"best":"[^"]*","best_us":[^,]*/"own_us":9,\1"best":"fma 32x8 0","best_us":3/' \
  found.jsonl >hand.jsonl
wants 0 "took 2 records" "$modistc" cache import hand.jsonl
wants 0 "66.7 %" "$modistc" cache ls
wants 0 "of 2 products another way is the best" "$modistc" cache stat
key=$(sed -n '1s/.*"key":"\([0-9a-f]*\)".*/\1/p' hand.jsonl)
wants 0 "  the best" "$modistc" cache explain "$key"
wants 0 "tuning: 0 records" "$modistc" cache ls --device=h200
wants 0 "wrote 2 records" "$modistc" cache export again.jsonl --device=stand-ingpu
cmp -s hand.jsonl again.jsonl || wrong "what is exported is not what was imported"
compile() { "$modistc" compile step.mdg -t cuda:sm_90 --no-ptx "$@"; }
wants 0 "tuned   2 of 2 products by records of Stand-in GPU, 2 of them other than untuned" compile --tune=require -o tuned.mdx
wants 0 "1 values are as expected" on_gpu "$rt" tuned.mdx --expect=b=b.npy,1e-5
symbols tuned.mdx | cmp -s - plain.txt && wrong "the tuned program has the same kernels"
compile --tune=off -q -o off.mdx
cmp -s off.mdx plain.mdx || wrong "--tune=off heeds records"
compile --trials -q -o trials2.mdx
cmp -s trials.mdx trials2.mdx || wrong "trials depend on records"
# Another compiler's code has other times.
export MODIST_STAND_IN_NVRTC=13.9
wants 4 "2 of 2 products have no record" compile --tune=require -o t.mdx
unset MODIST_STAND_IN_NVRTC
# An architecture alone has the records of whatever device; of two it is not for us to choose.
sed '1!d; s/Stand-in GPU/Other GPU/' hand.jsonl >other.jsonl
"$modistc" cache import other.jsonl -q
wants 4 "the records for cuda:sm_90 are of 2 devices: Other GPU, Stand-in GPU" compile --tune=require -o t.mdx
wants 0 "tuned   2 of 2 products by records of Other GPU, Stand-in GPU, 2 of them" compile -o t.mdx
sed 's/Stand-in GPU/Other GPU/' hand.jsonl >other.jsonl
"$modistc" cache import other.jsonl -q
wants 0 "by records of Other GPU, 2 of them" compile --tune=require -o t.mdx
# On the device itself a step takes them, too.
"$modistc" cache prune --records >/dev/null
wants 0 "measured: 2 products" on_gpu "$modistc" tune step.mdg --device=cuda:0 --rounds=3
sed -i 's/"best":"[^"]*","best_us":[^,]*/"best":"fma 32x8 0","best_us":3/' cache/tuning.jsonl
wants 0 "tuned: 2 of 2 products by records, 2 other than untuned" \
  on_gpu "$modistc" run step.mdg --device=cuda:0 --log=exec
wants 0 "launches" on_gpu "$modistc" run step.mdg --device=cuda:0 --log=exec --deterministic
! grep tuned: out || wrong "--deterministic heeds records"

# --- a signal ends the time there is, and what was measured counts
stopped() { # stopped SIGNAL COMMAND...: it comes when 100 kernels have run
  signal=$1
  shift
  : >log
  env LD_LIBRARY_PATH="$stand_in" MODIST_STAND_IN_LOG="$work/log" "$@" >said 2>&1 &
  while [ "$(grep -c ' cuLaunchKernel$' log)" -lt 100 ] && kill -0 $! 2>/dev/null; do sleep 0.1; done
  kill -"$signal" $!
  wait $!
  code=$?
  [ $code = 75 ] || wrong "$*: exit code $code: $(cat said)"
  grep -q "warning: stopped by signal" said || wrong "$*: $(cat said)"
}
stopped TERM "$modistc" tune trials.mdx -o stopped.jsonl --rounds=900
lines 2 '"checked":true' stopped.jsonl
grep -q "measured: 2 products, 6 other ways of them, 0 failed" said || wrong "what was measured is not told: $(cat said)"
stopped HUP "$rt" trials.mdx --tune=stopped.jsonl
lines 2 '"own_us"' stopped.jsonl

# --- without a device the cost model ranks, and nothing is kept
wants 0 "nothing is measured, the cost model ranks" "$modistc" tune step.mdg -t cuda:h200
wants 0 '"by":"prediction"' "$modistc" tune step.mdg -t cuda:h200 -o - -q
"$modistc" tune step.mdg -t cuda:h200 -o predicted.jsonl -q >/dev/null 2>&1
wants 5 "only what was measured is kept" "$modistc" cache import predicted.jsonl
wants 4 "which device is to be tuned for?" "$modistc" tune step.mdg

# Who names a device wants it measured.
wants 4 "error[E0642]: there is no device cuda:5: the driver shows 1" \
  on_gpu "$modistc" tune step.mdg -t cuda:sm_90 --device=cuda:5
wants 4 "error[E0642]" on_gpu "$modistc" tune trials.mdx --device=cuda:5
wants 4 "error[E0635]" "$modistc" tune step.mdg -t cuda:sm_90 --device=cuda:0

# --- what a user can get wrong
wants 2 "has nothing that is to be tried on Stand-in GPU" on_gpu "$rt" plain.mdx --tune=none.jsonl
wants 2 "has nothing that is to be tried on the CPU" "$rt" cpu.mdx --device=cpu --tune=none.jsonl
wants 2 "--tune takes --device, --seed" "$rt" trials.mdx --tune=none.jsonl --json
wants 2 "--tune takes --device, --seed" "$rt" trials.mdx --tune=none.jsonl --memory-limit=1G
wants 2 "--tune takes --device, --seed" "$rt" trials.mdx --tune=none.jsonl --threads=1
wants 2 "--budget is of --tune" "$rt" trials.mdx --budget=3
wants 1 "E0801" on_gpu "$rt" trials.mdx --tune=nowhere/none.jsonl
wants 2 "--budget is '10'" "$modistc" tune trials.mdx --budget=10
wants 2 "--device is 'cpu'" "$modistc" tune trials.mdx --device=cpu
wants 2 "--trials would do nothing" "$modistc" compile step.mdg --trials
wants 2 "nothing is kept under 'zz'" "$modistc" cache explain zz
echo '{"key": 7}' >bad.jsonl
wants 5 "bad.jsonl:1: error[E0650]: 'key' is missing or is not a text" "$modistc" cache import bad.jsonl
printf '\n{"key"\n' >bad.jsonl
wants 5 "bad.jsonl, line 2" "$modistc" cache import bad.jsonl
printf '{"key": "\\u009b31mx"}\n' >bad.jsonl  # which begins a terminal's command, too
wants 5 "is not a text without control characters" "$modistc" cache import bad.jsonl
printf '{"key": "\\u001b]0;x"}\n' >bad.jsonl
wants 5 "is not a text without control characters" "$modistc" cache import bad.jsonl
# Damaged lines stop nobody; a line that was cut off does not spoil the next one.
printf '{"key": ' >>cache/tuning.jsonl
wants 0 "1 lines are no records of tuning and are left out" compile -q -o damaged.mdx
"$modistc" cache import hand.jsonl -q 2>/dev/null
wants 0 "1 lines are no records" compile --tune=require -q -o damaged.mdx
# Names of devices are words, not pieces of them.
"$modistc" cache prune --records >/dev/null
for device in "NVIDIA L40S" "NVIDIA H200 NVL" "NVIDIA GeForce RTX 4090"; do
  sed "s/Stand-in GPU/$device/; s/cuda:sm_90/cuda:sm_89/" hand.jsonl >named.jsonl
  "$modistc" cache import named.jsonl -q
done
wants 0 "tuning: 6 records" "$modistc" cache ls
wants 0 "tuning: 0 records" "$modistc" cache ls --device=l4
wants 0 "tuning: 2 records" "$modistc" cache ls --device=l40s
wants 0 "tuning: 2 records" "$modistc" cache ls --device=rtx4090
wants 0 "wrote 6 records" "$modistc" cache export all.jsonl

[ $failed = 0 ] && echo "tuning: all well"
[ $failed = 0 ]
