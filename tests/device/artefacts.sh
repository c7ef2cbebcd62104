#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# CUDA artefacts from the outside: made without a GPU, proven sound, and what modist_rt says of them on
# machines with and without a driver and a device. A stand-in plays the driver.
#   artefacts.sh MODISTC MODIST_RT STAND_IN_FOLDER
set -u
here=$(cd "$(dirname "$0")" && pwd)
modistc=$1 rt=$2 stand_in=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LC_ALL=C NO_COLOR=1 MODIST_CACHE="$work/cache"
unset LD_LIBRARY_PATH
mkdir -m 700 "$work/cache"
cd "$work" || exit 1
. "$here/wants.sh"

cat >step.mdg <<'X'
graph @step(%x: f32[5,130], %g: f32[130], %i: i32[5]) {
  %w = state @w {init=normal, b=1} : f32[130]
  %k = constant {value=1.5} : bf16[7]
  %a = exp %x
  %s = sum %a {axes=[0]}
  %w2 = add %w, %s
  %m = mul %w2, %g
  update @w = %m
  return %a, %k, %w
}
X
if ! "$modistc" targets | grep -q 'NVRTC [0-9]'; then
  echo "skipped: no NVRTC"
  exit 77
fi

# --- made and sound
wants 0 "kernels" "$modistc" compile step.mdg --target=cuda:sm_80,cuda:sm_90a -o step.mdx
wants 0 "0 from cache" "$modistc" compile step.mdg --target=cuda:sm_80,cuda:sm_90a -o again.mdx --no-cache
cmp step.mdx again.mdx || failed=$((failed + 1))
wants 0 "step is sound: cuda:sm_80,cuda:sm_90a,cuda:compute_80" "$rt" --check step.mdx
wants 0 "code     cuda:sm_90a:" "$modistc" inspect step.mdx
wants 0 '"target": "cuda:compute_80"' "$modistc" inspect --format=json step.mdx
wants 0 "No errors detected" unzip -t step.mdx
"$modistc" compile step.mdg --target=cuda:sm_80 --no-ptx -o bare.mdx -q || failed=$((failed + 1))
wants 0 "sound: cuda:sm_80," "$rt" --check bare.mdx
wants 0 "from cache" "$modistc" compile step.mdg --target=cuda:sm_80 -j 1

# --- what launches should take stands in the artefact, for the device that is meant, and none for PTX
predicted() { unzip -p "$1" manifest.json | sed -n 's/.*"predicted_for": "\(.*\)",$/\1/p' | tr '\n' ';'; }
[ "$(predicted step.mdx)" = "NVIDIA A100 SXM 80 GB;NVIDIA H200 SXM;" ] || wrong "predicted for $(predicted step.mdx)"
"$modistc" compile step.mdg --target=cuda:h100 -o h100.mdx -q || wrong "h100"
[ "$(predicted h100.mdx)" = "NVIDIA H100 SXM;" ] || wrong "predicted for $(predicted h100.mdx)"

# --- kernels that artefacts of one folder share
mkdir shared
sed 's/\[5/[6/g' step.mdg >step6.mdg
wants 0 "wrote shared/step.mdx" "$modistc" compile step.mdg --target=cuda:sm_80 --share-kernels -o shared/step.mdx
files() { find shared/kernels -type f | wc -l; }
first=$(files)
[ "$first" -gt 2 ] || wrong "$first kernels"
[ "$(unzip -l shared/step.mdx | grep -cE 'cubin|ptx')" = 0 ] || wrong "kernels in the artefact, too"
find shared/kernels -type f -name 'c*.z' | sort | xargs cksum >before
"$modistc" compile step6.mdg --target=cuda:sm_80 --share-kernels -o shared/step6.mdx -q || wrong "step6"
both=$(files)
[ "$both" -lt $((2 * first)) ] || wrong "batches share nothing: $first files, then $both"
# shellcheck disable=SC2046  # a name a word
cksum $(awk '{ print $3 }' before) | cmp - before || wrong "kernels that were there are others now"
for batch in '' 6; do
  wants 0 "step is sound: cuda:sm_80,cuda:compute_80" "$rt" --check shared/step$batch.mdx
  "$modistc" compile step$batch.mdg --target=cuda:sm_80 -o alone$batch.mdx -q || wrong "alone$batch"
  "$modistc" inspect --format=json alone$batch.mdx | grep -vE '"(deflated|shared|bytes)":|"manifest.json"' >alone.json
  "$modistc" inspect --format=json shared/step$batch.mdx | grep -vE '"(deflated|shared|bytes)":|"manifest.json"' |
    cmp - alone.json || wrong "step$batch.mdx is another program"
done
wants 0 "kernels/ " "$modistc" inspect shared/step.mdx
wants 0 '"shared": true' "$rt" --inspect shared/step.mdx
kernel=$(unzip -p shared/step.mdx manifest.json | sed -n 's/.*"name":"\(c[0-9a-f]*.cubin\)".*/\1/p' | head -n 1)
cp "shared/kernels/$kernel.z" kept
rm "shared/kernels/$kernel.z"
for how in "$rt --check" "$rt" "$rt --inspect" "$modistc inspect" "$modistc run"; do
  # shellcheck disable=SC2086  # a program and its option
  wants 5 "error[E0649]: kernel '$kernel' is not in the artefact, and there is no 'shared/kernels/$kernel.z'" $how shared/step.mdx
done
wants 5 "copy the folder 'kernels' along with the artefact" "$rt" shared/step.mdx
printf x >>"shared/kernels/$kernel.z"
wants 5 "shared/kernels/$kernel.z: error[E0630]: shared kernel is damaged" "$rt" --check shared/step.mdx
cp kept "shared/kernels/$kernel.z"
printf '\377\377' | dd of="shared/kernels/$kernel.z" bs=1 seek=200 conv=notrunc 2>/dev/null
wants 5 "shared/kernels/$kernel.z: error[E0630]: shared kernel is damaged" "$rt" --check shared/step.mdx
"$modistc" compile step.mdg --target=cuda:sm_80 --share-kernels -o shared/step.mdx -q || wrong "made anew"
cmp kept "shared/kernels/$kernel.z" || wrong "a damaged kernel stays"
wants 0 "sound" "$rt" --check shared/step.mdx
mkdir moved
cp shared/step.mdx moved
wants 5 "there is no 'moved/kernels/c" "$rt" --check moved/step.mdx
cp -r shared/kernels moved
wants 0 "sound" "$rt" --check moved/step.mdx
wants 2 "--share-kernels would do nothing: nothing is written" "$modistc" compile step.mdg --target=cuda:sm_80 --share-kernels
wants 2 "--share-kernels would do nothing: standard output" \
  "$modistc" compile step.mdg --target=cuda:sm_80 --share-kernels -o -
wants 2 "--share-kernels would do nothing: the target is the CPU" "$modistc" compile step.mdg --share-kernels -o x.mdx

# --- reports
wants 0 "predicted" "$modistc" compile step.mdg --target=cuda:h100 --emit=report --report=roofline
wants 0 "on NVIDIA H100 SXM" "$modistc" compile step.mdg --target=cuda:h100 --emit=report
wants 0 "--target-spec=FILE predicts times" \
  "$modistc" compile step.mdg --target=cuda:sm_87 --emit=report --report=kernels
"$modistc" targets --spec=l4 >own.yaml
sed -i 's/^title: .*/title: "my own"/' own.yaml
wants 0 "on my own: 58 multiprocessors" \
  "$modistc" compile step.mdg --target=cuda:sm_89 --target-spec=own.yaml --emit=report
"$modistc" compile step.mdg --target=cuda:sm_89 --target-spec=own.yaml -o own.mdx -q || wrong "own"
[ "$(predicted own.mdx)" = "my own;" ] || wrong "predicted for $(predicted own.mdx)"
sed 's/i: i32\[5\]/ids: i32[5]/' step.mdg >videos.mdg
wants 0 "videos/s" "$modistc" compile videos.mdg --target=cuda:sm_80 --emit=report

# --- no driver, a stand-in for one, no device, a device for none of the targets, one that would do
wants 4 "there is no CUDA device here: libcuda.so.1" "$rt" step.mdx
wants 4 "'modist_rt --check step.mdx' needs none" "$rt" step.mdx
export LD_LIBRARY_PATH=$stand_in
wants 4 "cuInit fails with 34, CUDA_ERROR_STUB_LIBRARY (CUDA driver is a stub library)" env MODIST_STAND_IN_FAULT=cuInit:1:34 "$rt" step.mdx
# What keeps a driver from starting, and what to do; who only wants to know whether there is a device goes on.
starts() { error=$1; shift; wants "$1" "$2" env MODIST_STAND_IN_FAULT=cuInit:1:$error "$rt" step.mdx; }
starts 35 4 "error[E0641]: the CUDA driver here cannot be used: cuInit fails with 35, CUDA_ERROR_INSUFFICIENT_DRIVER"
starts 35 4 "hint: the kernel module is older than libcuda.so.1"
starts 100 4 "error[E0635]: the file is whole, but there is no CUDA device here: cuInit fails with 100"
starts 100 4 "hint: CUDA_VISIBLE_DEVICES may hide it"
starts 304 1 "hint: the files /dev/nvidia* have to be there"
starts 802 4 "error[E0635]: the file is whole, but there is no CUDA device here: cuInit fails with 802"
starts 802 4 "need nvidia-fabricmanager of the driver's version"
starts 803 4 "error[E0641]: the CUDA driver here cannot be used: cuInit fails with 803"
starts 803 4 "are of different versions: reboot; 'modist_rt --check step.mdx' needs none"
starts 804 4 "hint: CUDA's compatibility package (cuda/compat) is not for this device"
starts 999 1 "error[E0647]: the CUDA driver here cannot be used: cuInit fails with 999, CUDA_ERROR_UNKNOWN"
starts 999 1 "nvidia-uvm may not be loaded: 'nvidia-modprobe -u' or a reboot loads it"
starts 3 1 "hint: 'nvidia-smi' shows whether the driver works"
wants 6 "cuDeviceGetCount fails with 2" env MODIST_STAND_IN_FAULT=cuDeviceGetCount:1:2 "$rt" step.mdx
off=MODIST_STAND_IN_FAULT=cuInit:1:803
for text in "driver    not usable" "cuInit fails with 803" "of different versions: reboot"; do wants 0 "$text" env $off "$modistc" doctor; done
wants 0 "no: compile only" env $off "$modistc" targets
wants 0 "sees no device" env MODIST_STAND_IN_DEVICES=0 "$modistc" targets
wants 4 "which device is to be tuned for? cuInit fails with 803" env $off "$modistc" tune step.mdg
wants 4 "of different versions: reboot" env $off "$modistc" tune step.mdg --device=cuda:0
wants 4 "sees no device" env MODIST_STAND_IN_DEVICES=0 "$rt" step.mdx
wants 4 "artefact is for cuda:sm_80, and none of it runs on Stand-in GPU (sm_90)" "$rt" bare.mdx
wants 4 "modistc compile ... --target=cuda:sm_90 -o bare.mdx" "$rt" bare.mdx
full=MODIST_STAND_IN_FAULT=cuMemAlloc_v2:1:2  # the last thing before it would run
wants 6 "Stand-in GPU (sm_86) did not give it" env $full MODIST_STAND_IN_SM=86 "$rt" bare.mdx
wants 4 "none of it runs on Stand-in GPU (sm_75)" env MODIST_STAND_IN_SM=75 "$rt" step.mdx
wants 6 "Stand-in GPU (sm_120) did not give it" env $full MODIST_STAND_IN_SM=120 "$rt" step.mdx
wants 0 "Stand-in GPU (sm_90)" "$modistc" doctor
wants 0 "NVML      of driver 580.65.06: tune" env LD_LIBRARY_PATH="$stand_in:$stand_in/nvml" "$modistc" doctor
fails=MODIST_STAND_IN_NVML_FAULT=nvmlInit_v2:1:6
wants 0 "nvmlInit_v2 fails with 6" env $fails LD_LIBRARY_PATH="$stand_in:$stand_in/nvml" "$modistc" doctor
mkdir bad && echo none >bad/libnccl.so.2
wants 0 "NCCL      not usable: several GPUs would need it" env LD_LIBRARY_PATH="$work/bad" "$modistc" doctor
wants 0 "bad/libnccl.so.2: " env LD_LIBRARY_PATH="$work/bad" "$modistc" doctor
wants 0 "NCCL      2.27.3 from $stand_in/nccl/libnccl.so.2: nothing" env LD_LIBRARY_PATH="$stand_in/nccl" "$modistc" doctor
wants 0 "sound" env MODIST_STAND_IN_FAULT=cuInit:1:100 "$rt" --check step.mdx
unset LD_LIBRARY_PATH

# --- damaged files are found before the driver is looked for
head -c 3000 step.mdx >cut.mdx
wants 5 "artefact is damaged" "$rt" cut.mdx
wants 5 "artefact is damaged" "$rt" --check cut.mdx
{ head -c 9000 step.mdx; printf '\377\377'; tail -c +9003 step.mdx; } >changed.mdx
wants 5 "artefact is damaged" "$rt" changed.mdx

# --- NVRTC
wants 4 "MODIST_NVRTC names /nowhere/libnvrtc.so" \
  env MODIST_NVRTC=/nowhere/libnvrtc.so "$modistc" compile step.mdg --target=cuda:sm_80 -o x.mdx
# What else may be there, found or not, and what follows.
for line in '^NCCL .*a run has one GPU$' '^NVML .*tune knows no clocks' \
  '^ *libnvidia-ml.so.1: cannot open' '^NVDEC .*libnvcuvid.so.1.*decode' '^CUDA_HOME .*/none$'; do
  CUDA_HOME=/none "$modistc" doctor | grep -q "$line" || wrong "doctor does not say $line"
done
wants 0 "NVRTC     not found" env MODIST_NVRTC=/nowhere/libnvrtc.so "$modistc" doctor
wants 0 "no NVRTC here: text only" env MODIST_NVRTC=/nowhere/libnvrtc.so "$modistc" targets
[ ! -e x.mdx ] || failed=$((failed + 1))

echo "$failed failed"
[ $failed = 0 ]
