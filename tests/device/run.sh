#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Programs on a GPU that the stand-in plays: what they say when something fails, training that goes from
# the CPU to it and back, and what becomes of a run when the device dies.
#   run.sh TEST_RUN MODISTC MODIST_RT STAND_IN_FOLDER
set -u
here=$(cd "$(dirname "$0")" && pwd)
test_run=$1 modistc=$2 rt=$3 stand_in=$4 config="$here/../../configs/modist_tiny.yaml"
. "$here/enter.sh"
kept=${MODIST_TEST_KEPT:-$work}/stand_in
keep_in "$kept" "$kept"
export LD_LIBRARY_PATH="$stand_in"
fault() { fault=$1; shift; wants "$1" "$2" env MODIST_STAND_IN_FAULT="$fault" "$rt" step.mdx --steps=3 $3; }

CK_FORK=yes "$test_run" || failed=$((failed + 1))

cat >step.mdg <<'Y'
graph @step(%x: f32[5,130], %g: f32[130]) {
  %w = state @w {init=normal, b=1} : f32[130]
  %a = exp %x
  %s = sum %a {axes=[0]}
  %w2 = add %w, %s
  %m = mul %w2, %g
  update @w = %m
  return %a, %m
}
Y
"$modistc" compile step.mdg --target=cuda:sm_90 -o step.mdx -q || exit 1
"$modistc" compile step.mdg -o cpu.mdx -q || exit 1

# --- it runs, and on which device
# Without a state nothing waits before the first inputs are sent. Allowed are 8 roundings (tests/tolerance.h).
printf 'graph @plain(%%x: f32[5,130]) {\n  %%a = exp %%x\n  return %%a\n}\n' >plain.mdg
"$modistc" compile plain.mdg --target=cuda:sm_90 -o plain.mdx -q || exit 1
"$modistc" run plain.mdg -q -o a=a.npy || exit 1
wants 0 "1 values are as expected" "$rt" plain.mdx --expect=a=a.npy,4.8e-7
wants 3 "is expected: off by" "$rt" plain.mdx --seed=1 --expect=a=a.npy,4.8e-7
wants 0 "planned on cuda:0, Stand-in GPU (sm_90)" "$rt" step.mdx --steps=3
wants 0 "planned on cuda:1, Stand-in GPU" env MODIST_STAND_IN_DEVICES=2 "$rt" step.mdx --device=cuda:1
wants 0 "  sum" "$rt" step.mdx --steps=3 --times
wants 0 "predicted for NVIDIA H200 SXM: " "$rt" step.mdx --steps=3 --times
wants 0 '"within_25_percent": ' "$rt" step.mdx --steps=3 --times --json
symbol=$("$modistc" inspect step.mdx --format=json | sed -n 's/.*"symbol": "\(.*\)",/\1/p' | head -n 1)
wants 0 "  $symbol  " "$rt" step.mdx --times
wants 0 "\"$symbol\"" "$rt" step.mdx --times --json
# PTX is for devices that nobody knew.
wants 0 '"regions": [' env MODIST_STAND_IN_SM=120 "$rt" step.mdx --times --json
! grep -q predicted out || { echo "FAILED: predicted for no device"; failed=$((failed + 1)); }
wants 0 "m f32[130]" env MODIST_STAND_IN_SM=120 "$rt" step.mdx
wants 0 "on cuda:0, Stand-in GPU" "$modistc" run step.mdx --steps=3
wants 0 "verified 2 regions" "$modistc" run step.mdg --device=cuda:0 --verify
"$rt" step.mdx --steps=3 --trace=trace.json >/dev/null
grep -q '"cat":"launch"' trace.json || { echo "FAILED: no launch in the trace"; failed=$((failed + 1)); }

# A source that TMA copies: its tensor map is made when the artefact is loaded. Allowed are four roundings to bf16.
cat >windows.mdg <<'Y'
graph @windows(%x: bf16[5,8,1,9,11], %w0: bf16[64,8,1,1,1], %w: bf16[136,64,1,3,3]) {
  %a = conv3d %x, %w0
  %y = conv3d %a, %w {pad=[0,1,1], stride=[1,2,1]}
  %z = cast %y {to=f32}
  return %z
}
Y
"$modistc" compile windows.mdg --target=cuda:sm_90a --no-ptx -o windows.mdx -q || exit 1
"$modistc" run windows.mdg -q -o z=z.npy || exit 1
wants 0 "1 values are as expected" env MODIST_STAND_IN_LOG="$work/maps" "$rt" windows.mdx --steps=2 --expect=z=z.npy,8e-3
[ "$(grep -c cuTensorMapEncodeIm2col maps)" = 1 ] || wrong "no tensor map, or several"
wants 1 "'conv3d.y': cuTensorMapEncodeIm2col on" env MODIST_STAND_IN_FAULT=cuTensorMapEncodeIm2col:1:801 "$rt" windows.mdx

# A trace shows inputs on their way beside the launches: each but the first go out before the wait for a step.
MODIST_STAND_IN_LOG="$work/traced" "$rt" step.mdx --steps=3 --trace=trace.json >/dev/null
sent=$(awk '/HtoDAsync/ { is_sent = runs } /cuLaunchKernel/ { runs = 1; is_sent = 0 }
  /cuEventSynchronize/ && is_sent { n++; is_sent = 0 } END { print n + 0 }' traced)
[ "$sent" = 2 ] || { echo "FAILED: inputs were sent $sent times beside a step"; failed=$((failed + 1)); }
in_trace() {
  n=$(grep -o "$2" trace.json | wc -l)
  [ "$n" = "$1" ] || { echo "FAILED: $n times '$2' in the trace, not $1"; failed=$((failed + 1)); }
}
in_trace 3 '"cat":"send","ph":"X","ts":[0-9.]*,"dur":[0-9.]*,"pid":1,"tid":10002}'
in_trace 6 '"cat":"launch","ph":"X","ts":[0-9.]*,"dur":[0-9.]*,"pid":1,"tid":10001}'
in_trace 1 '"name":"inputs on their way"'
wants 0 "runs CUDA programs" "$modistc" doctor
wants 0 "yes: cuda:0, Stand-in GPU" "$modistc" targets
without=cuLibraryLoadData
wants 0 "m f32[130]" env MODIST_STAND_IN_WITHOUT=$without "$rt" step.mdx --steps=3

wants 0 "device   cuda:0, Stand-in GPU (sm_90)" \
  "$modistc" bench --op conv3d:n1c8t2h8w8o8k1x3x3 --device=cuda:0 --rounds=2 --warmup=0

# What is timed is issued while a call of the host holds up the stream, and nothing is made between launches.
MODIST_STAND_IN_LOG="$work/timed" "$rt" step.mdx --steps=2 --times >/dev/null
held=$(awk '/cuLaunchHostFunc/ { is_held = 1 } /cuEventSynchronize/ { is_held = 0 } /cuLaunchKernel/ { n += is_held; runs = 1 }
  /cuEventCreate/ && runs { n -= 100 } END { print n + 0 }' timed)
[ "$held" = 4 ] || { echo "FAILED: $held launches behind a hold"; failed=$((failed + 1)); }

# The inputs of the last step are sent while the one before runs: before the second wait, of which the first
# is for its own inputs.
MODIST_STAND_IN_LOG="$work/sends" "$rt" step.mdx --steps=3 >/dev/null
sent=$(awk '/cuGraphLaunch/ { waits = 2 } /cuEventSynchronize/ { waits-- } waits > 0 && /HtoDAsync/ { n++ } END { print n + 0 }' sends)
[ "$sent" = 1 ] || { echo "FAILED: inputs were sent $sent times beside a graph"; failed=$((failed + 1)); }

# --- the wrong device
wants 2 "there is no device 'gpu'" "$rt" step.mdx --device=gpu
wants 4 "error[E0642]: there is no device cuda:3: the driver shows 1" "$rt" step.mdx --device=cuda:3
wants 4 "error[E0642]" "$modistc" run step.mdg --device=cuda:3
wants 4 "does not run on the CPU" "$rt" step.mdx --device=cpu
wants 4 "does not run on a GPU" "$rt" cpu.mdx --device=cuda:0
wants 2 "--cpu would do nothing: it is of the CPU" "$modistc" run step.mdg --device=cuda --cpu=avx2

# --- a dry run needs the device to know which it is, and no more: its facts are those of its name
dry="train -c $config --dry-run --device=cuda"
wants 0 "4.0 GiB on cuda:0, Stand-in GPU (sm_90): room for" "$modistc" $dry
wants 0 "predicted for NVIDIA H200 SXM" "$modistc" $dry
wants 0 "predicted for NVIDIA H100 SXM" env MODIST_STAND_IN_NAME="NVIDIA H100 80GB HBM3" "$modistc" $dry
wants 0 "predicted for NVIDIA GeForce RTX 4090" env MODIST_STAND_IN_SM=89 MODIST_STAND_IN_NAME="NVIDIA GeForce RTX 4090" "$modistc" $dry
# A name that another one begins with is not that device.
wants 0 "predicted for NVIDIA GeForce RTX 4090" env MODIST_STAND_IN_SM=89 MODIST_STAND_IN_NAME="NVIDIA L40S" "$modistc" $dry
wants 0 "predicted for NVIDIA A100" env MODIST_NVRTC=/nowhere MODIST_STAND_IN_SM=80 "$modistc" $dry
wants 0 "not estimated: no device of cuda:sm_87 is described" env MODIST_STAND_IN_SM=87 "$modistc" $dry
wants 6 "error[E0643]: program 'step' needs" env MODIST_STAND_IN_MEMORY=1M "$modistc" $dry
wants 4 "error[E0642]" "$modistc" $dry:3
wants 4 "error[E0635]" env MODIST_STAND_IN_DEVICES=0 "$modistc" $dry

# --- the wrong driver
wants 4 "error[E0641]: the CUDA driver here is too old: it speaks CUDA 11.8, and 12.0 is the least" \
  env MODIST_STAND_IN_DRIVER=11080 "$rt" step.mdx
wants 4 "has no cuGraphUpload of CUDA 12.0" env MODIST_STAND_IN_WITHOUT=cuGraphUpload "$rt" step.mdx
wants 4 "there is no CUDA device here: the driver is there, but it sees no device" \
  env MODIST_STAND_IN_DEVICES=0 "$modistc" run step.mdg --device=cuda:0
wants 4 "MODIST_NVRTC names /nowhere" env MODIST_NVRTC=/nowhere "$modistc" run step.mdg --device=cuda:0

# --- a driver that is too old for what NVRTC compiles is told before anything is compiled
between() { env MODIST_STAND_IN_DRIVER=12040 MODIST_STAND_IN_NVRTC="$@"; }
new="error[E0646]: the driver here speaks CUDA 12.4 and does not load what NVRTC 13.1 compiles"
for command in run tune; do wants 4 "$new" between 13.1 "$modistc" $command step.mdg --device=cuda:0; done
wants 4 "hint: install a newer driver" between 13.1 "$modistc" run step.mdg --device=cuda:0
wants 0 "on cuda:0" between 12.9 "$modistc" run step.mdg --device=cuda:0
wants 0 "driver    CUDA 12.4: does not load what this NVRTC compiles" between 13.1 "$modistc" doctor
wants 0 "MODIST_NVRTC name the libnvrtc.so of CUDA 12" between 13.1 "$modistc" doctor
wants 0 "driver    CUDA 12.4: runs CUDA programs" between 12.9 "$modistc" doctor
wants 0 "driver    CUDA 12.4: runs CUDA programs" env MODIST_STAND_IN_DRIVER=12040 MODIST_NVRTC=/nowhere "$modistc" doctor

# --- memory
wants 6 "error[E0803]: program 'step' needs" "$rt" step.mdx --memory-limit=4000
wants 6 "4.0 KiB are free on cuda:0, Stand-in GPU (sm_90)" env MODIST_STAND_IN_MEMORY=4096 "$rt" step.mdx
fault cuMemAlloc_v2:1:2 6 "did not give it: CUDA_ERROR_OUT_OF_MEMORY (out of memory)" ""
wants 6 "note: arena" env MODIST_STAND_IN_FAULT=cuMemAlloc_v2:1:2 "$rt" step.mdx
# What the driver takes besides has its place beside the plan; what it locks is the host's.
for call in cuStreamCreate cuEventCreate cuLibraryLoadData cuGraphInstantiateWithFlags; do
  fault $call:1:2 6 "error[E0643]: " ""
  fault $call:1:2 6 "note: the plan of program 'step' takes 12.0 KiB of memory: arena " ""
  fault $call:1:2 6 "hint: nvidia-smi shows" ""
done
wants 6 "error[E0643]: cuMemAlloc on" env MODIST_STAND_IN_FAULT=cuMemAlloc_v2:1:2 "$rt" --rates
fault cuMemHostAlloc:1:2 6 "error[E0802]: inputs of program 'step' need 3.5 KiB of the host's memory" ""
fault cuMemHostAlloc:2:2 6 "error[E0802]: results of program 'step' need" ""
fault cuMemHostAlloc:1:2 6 "cuMemHostAlloc fails with 2, CUDA_ERROR_OUT_OF_MEMORY (out of memory)" ""
fault cuMemHostAlloc:1:2 6 "of the container (cgroup) or of locked memory (ulimit -l)" ""

# --- code that the driver does not take
# By an old driver because it is too new; by one that knows its CUDA because it is bad, which is no fault of the machine.
old() { fault=$1; shift; wants "$1" "$2" env MODIST_STAND_IN_DRIVER=12090 MODIST_STAND_IN_FAULT="$fault" "$rt" step.mdx; }
for error in 200 209 218; do
  fault cuLibraryLoadData:1:$error 1 "error[E0652]: cuLibraryLoadData on cuda:0, Stand-in GPU (sm_90) fails with $error" ""
  fault cuLibraryLoadData:1:$error 1 "hint: the code is for this device" ""
  old cuLibraryLoadData:1:$error 4 "error[E0646]: cuLibraryLoadData on cuda:0, Stand-in GPU (sm_90) fails with $error"
  old cuLibraryLoadData:1:$error 4 "hint: a newer driver takes it"
done
fault cuLibraryGetKernel:1:209 1 "error[E0652]" ""  # where drivers look at it
fault cuKernelGetFunction:1:218 1 "error[E0652]" ""
fault cuLibraryLoadData:1:222 4 "error[E0646]" ""
fault cuLibraryLoadData:1:221 4 "hint: the driver lacks its compiler" ""
fault cuLibraryLoadData:1:222 4 "hint: a newer driver takes it" ""

wants 1 "CUDA_ERROR_INVALID_PTX (a PTX JIT compilation failed)" \
  env MODIST_STAND_IN_SM=120 MODIST_STAND_IN_FAULT=cuLibraryLoadData:1:218 "$rt" step.mdx

# --- a launch that is refused, kernels that fail: in the first step, in the graph, one by one
fault cuLaunchKernel:2:701 1 "region 'mul.m': cuLaunchKernel on cuda:0" ""
fault kernel:1:700 1 "error[E0645]: cuEventSynchronize" ""
fault kernel:5:719 1 "CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure)" ""
fault kernel:5:719 1 "hint: --check-nan runs kernels one by one" ""
fault kernel:4:719 1 "region 'mul.m': cuEventSynchronize" --check-nan
fault kernel:5:214 1 "error[E0644]" ""
fault cuGraphInstantiateWithFlags:1:801 1 "error[E0647]: cuGraphInstantiate on" ""
fault kernel:5:226 1 "error[E0644]" ""
fault kernel:5:721 1 "error[E0645]" ""
for error in 810 911; do
  fault cuGraphLaunch:1:$error 1 "error[E0647]" ""
  fault cuGraphLaunch:1:$error 1 "hint: start again from the last checkpoint" ""
done

# --- training: from the CPU to the GPU and back; states are the same bytes wherever they are
"$modistc" dataset shapes -o videos -q || exit 1
# The settings of test_train_cuda, so that the kernels are the same.
set -- -c "$config" data.train=videos batch=2 clip.frames=2 mclip.frames=2 bank.size=8 epochs=4 run.tensorboard=false -q
"$modistc" train "$@" run.dir=a --max-steps=2 || wrong "no training on the CPU"
wants 4 "$new" between 13.1 "$modistc" train "$@" run.dir=no --device=cuda:0
cp a/weights.safetensors first
wants 0 "not bit for bit" "$modistc" train --resume run.dir=a --device=cuda:0 --max-steps=2 -q
wants 0 "" "$modistc" train --resume run.dir=a --max-steps=2 -q
cmp first a/weights.safetensors || { echo "FAILED: states changed on the way"; failed=$((failed + 1)); }
wants 0 "" env MODIST_STAND_IN_LOG="$work/log" "$modistc" train --resume run.dir=a --device=cuda:0 --max-steps=5 -q
! grep ' spins$' log || { echo "FAILED: a core is kept busy by waiting"; failed=$((failed + 1)); }
[ "$(grep -c cuGraphLaunch log)" = 2 ] || { echo "FAILED: not one graph a step"; failed=$((failed + 1)); }
wants 0 "" "$modistc" train --resume run.dir=a --max-steps=6 -q
# Once more on another device of the same kind: the same bits.
"$modistc" train "$@" run.dir=d --device=cuda:0 --max-steps=2 && mv d other || wrong "no training on cuda:0"
MODIST_STAND_IN_DEVICES=2 "$modistc" train "$@" run.dir=d --device=cuda:1 --max-steps=2 || wrong "no training on cuda:1"
cmp other/weights.safetensors d/weights.safetensors || wrong "devices differ"

"$modistc" train "$@" run.dir=c --device=cuda:0 --max-steps=3 --trace=trace.json || wrong "no training with a trace"
in_trace 3 '"name":"wait for data"'
in_trace 3 '"name":"fill inputs"'
in_trace 3 '"name":"wait for the GPU"'
in_trace 3 '"cat":"send"'
# Each batch but the first comes while the GPU works.
order=$(grep -o '"name":"\(fill inputs\|wait for the GPU\)"' trace.json | sed 's/.*"\(....\).*/\1/' | tr '\n' ' ')
[ "$order" = "fill fill wait fill wait wait " ] || { echo "FAILED: batches do not come ahead: $order"; failed=$((failed + 1)); }

# --- what was learnt, read on the GPU; what is wrong is told as everywhere
wants 0 "wrote features.npy [" "$modistc" features a/weights.safetensors videos -o features --device=cuda:0
ls videos/*.mp4 | awk '{ print $0 "," NR % 2 }' >list.csv
wants 0 "knn    top-1 100.0 %" \
  "$modistc" eval knn list.csv list.csv --weights=a/weights.safetensors --k=1 --device=cuda:0
f="features a/weights.safetensors videos -o none --device"
wants 4 "error[E0642]: there is no device cuda:3" "$modistc" $f=cuda:3
wants 2 "there is no device 'gpu'" "$modistc" $f=gpu
wants 4 "error[E0635]: there is no CUDA device here" env MODIST_STAND_IN_DEVICES=0 "$modistc" $f=cuda
wants 4 "error[E0641]" env MODIST_STAND_IN_DRIVER=11080 "$modistc" $f=cuda
wants 4 "MODIST_NVRTC names /nowhere" env MODIST_NVRTC=/nowhere "$modistc" $f=cuda
wants 6 "error[E0643]" env MODIST_STAND_IN_MEMORY=65536 "$modistc" $f=cuda
wants 2 "--cpu would do nothing: it is of the CPU" "$modistc" $f=cuda --cpu=avx2
[ ! -e none ] || { echo "FAILED: features without a device"; failed=$((failed + 1)); }

# --- a device that dies in the third step: what was saved stays, nothing else is written
wants 1 "error[E0645]" env MODIST_STAND_IN_FAULT=kernel:$(($(grep -c cuLaunchKernel log) + 10)):719 \
  "$modistc" train "$@" run.dir=b run.checkpoint_every=1 --device=cuda:0 --max-steps=5
[ "$(ls b/checkpoints | tail -n 1)" = step-00000002.safetensors ] || { ls b/checkpoints; failed=$((failed + 1)); }
[ ! -e b/weights.safetensors ] || { echo "FAILED: weights of a dead device"; failed=$((failed + 1)); }
"$modistc" train --resume run.dir=b --device=cuda:0 --max-steps=3 -q || wrong "it does not go on"

echo "$failed failed"
[ $failed = 0 ]
