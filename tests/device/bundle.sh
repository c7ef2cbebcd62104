#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The bundle for a GPU machine, made and run here on a GPU that the stand-in plays: all well, no GPU, another
# GPU, a spent budget, a peer that is not there, cuDNN in several places, values and kernels that are wrong.
#   bundle.sh SOURCE_FOLDER BUILD_FOLDER STAND_IN_FOLDER
set -u
here=$(cd "$(dirname "$0")" && pwd)
source=$1 build=$2 stand_in=$3
modistc=$build/bin/modistc
. "$here/enter.sh"
kept=${MODIST_TEST_KEPT:-$work}/stand_in
keep_in "$kept" "$kept"
unset MODIST_REFERENCE
export MODIST_CUDNN=/nowhere MODIST_STAND_IN_SM=80

tiny="modist-tiny batch=4 clip.frames=1 mclip.frames=1 bank.size=8"
cat >"$work/convs.mdg" <<E
graph @convs(%x: f32[1,8,2,5,4], %w: f32[8,8,1,3,3], %dy: f32[1,8,2,5,4]) {
  %y = conv3d %x, %w {pad=[0,1,1]}
  %dw = conv3d_wgrad %dy, %x {pad=[0,1,1], shape=[8,8,1,3,3]}
  return %y, %dw
}
E
cat >"$work/product.mdg" <<'E'
graph @product(%x: f32[2,8,1,6,6], %w: f32[16,8,1,3,3]) {
  %y = conv3d %x, %w {pad=[0,1,1]}
  return %y
}
E
cat >"$work/plan" <<E
check contrast fp32 2 cuda:sm_80,cuda:sm_90a $source/examples/graphs/contrast.mdg
check tiny_f32 fp32 2 cuda:sm_80 $tiny
bench r3d50_b4 fp32 3 cuda:sm_80 $tiny
tune tuned fp32 20 cuda:sm_80 $work/product.mdg --no-ptx
check elsewhere fp32 1 cuda:sm_120 $source/examples/graphs/contrast.mdg
conv convs fp32 2 cuda:sm_80 $work/convs.mdg
peer r3d50_b4 eager 60
peer r3d50_b4 compile 60
E
wants 0 "modist_rt needs" sh "$source/tools/gpu_bundle.sh" --plan="$work/plan" --build="$build" -o "$work/bundle"
if unzip -l "$work/bundle/tiny_f32.mdx" | grep -qE '\.(cubin|ptx)$'; then wrong "a kernel in an artefact"; fi
[ "$(find "$work/bundle/kernels" -name 'c*.z' | wc -l)" -gt 20 ] || wrong "no folder of kernels"
wants 2 "sh tools/gpu_bundle.sh" sh "$source/tools/gpu_bundle.sh" --plans
"$build/bin/modistc" compile "$source/examples/graphs/contrast.mdg" --target=cuda:sm_120 --no-ptx -q \
  -o "$work/bundle/elsewhere.mdx" || wrong "no PTX"
cd "$work/bundle" || exit 1

# The machine that it is carried to has neither a compiler nor a cache.
unset MODIST_NVRTC MODIST_CACHE
wants 4 "verdict: NO GPU" sh run.sh
wants 4 "there is no CUDA device here: libcuda.so.1" sh run.sh
[ ! -e results ] || wrong "results without a GPU"
wants 2 "--budget is 'much'" sh run.sh --budget=much
export LD_LIBRARY_PATH="$stand_in"
wants 4 "verdict: NO GPU" env MODIST_STAND_IN_DEVICES=0 sh run.sh

wants 0 "verdict: WELL AS FAR AS IT RAN: 5 passed, 0 wrong, 4 not run" sh run.sh
for text in "tuned                            tuned             -          -  1 products, " \
  "cuda:0, Stand-in GPU (sm_80), driver of CUDA" "tiny_f32                         ok" \
  "r3d50_b4                         timed" "within 25 % of what was predicted for NVIDIA A100 SXM 80 GB: " "none of it runs on Stand-in GPU" \
  "convs                            ok                -          -  2 values" "convs.regions                    timed" \
  "convs.cudnn                      not run           -          -  convs.mdx: error[E0637]" \
  "torch_b4_compile                 not run           -          -  no reference/bench_torch.py"; do
  grep -qF "$text" results/table.txt || { wrong "no '$text' in:"; cat results/table.txt results/*.log; }
done
if command -v python3 >/dev/null; then
  for file in results/*.json; do
    [ ! -s "$file" ] || python3 -m json.tool "$file" >/dev/null || wrong "$file"
  done
fi
grep -q '"verdict": "WELL AS FAR AS IT RAN"' results/summary.json || wrong "summary.json"
grep -qF '"cudnn": {"convolutions": 0, "time_over_ours": null}' results/summary.json || wrong "a time of cuDNN"
grep -q '"regions": \[' results/r3d50_b4.regions.json || wrong "no regions"
wants 1 "verdict: NOTHING RAN: 0 passed, 0 wrong, 8 not run" sh run.sh --budget=0s

# The same steps of a peer: three modes that run, one that hangs, one that fails and one that says nothing.
mkdir -p peer/reference
: >peer/reference/bench_torch.py
cat >python <<'E'
#!/bin/sh
ms() { echo "{\"torch\": \"2\", \"step\": {\"median_ms\": $1, \"min_ms\": 7.5}}"; }
case "$*" in
  '-c import'*) ;;
  '-m reference.bench_torch --what step --device'*'--mode eager --batch 4'*) ms 16.25 ;;
  *'--mode compile --batch 4'*) ms 8.0 ;;
  *'--mode cudagraph --batch 4'*) ms 10 ;;
  *'--mode hangs'*) sleep 60 ;;
  *'--mode nothing'*) ;;
  *) exit 7 ;;
esac
E
chmod +x python
for mode in eager hangs compile fails nothing cudagraph; do echo "peer r3d50_b4 $mode 1"; done >plan.txt
echo 'bench r3d50_b4 fp32 1 -' >>plan.txt
echo 'bench r3d50_b4 fp32 1 -' >plan.ours
wants 4 "NO GPU" env MODIST_STAND_IN_DEVICES=0 sh run.sh
wants 0 "verdict: WELL AS FAR AS IT RAN: 1 passed, 0 wrong, 3 not run" \
  env MODIST_REFERENCE=peer PYTHON="$PWD/python" sh run.sh
for row in 'torch_b4_compile  *timed  *8.0  *500.0  the peer' 'torch_b4_hangs  *not run .* no end within 1 s' \
  'torch_b4_fails  *not run .* exit code 7, see torch_b4_fails.log' 'torch_b4_nothing  *not run .* no time in ' \
  'r3d50_b4  *x[0-9.]* .* times as fast as torch compile, the best of: eager, compile, cudagraph'; do
  grep -q "^$row" results/table.txt || { wrong "no row '$row' in:"; cat results/table.txt; }
done
awk -F'[ ",:]+' '/"peer_ms"/ { for (i = 1; i < NF; i++) x[$i] = $(i + 1) }
  END { exit !(x["peer_ms"] == 8 && x["speedup"] > 0 &&
    (x["speedup"] * x["median_ms"] - 8) ^ 2 <= (6e-4 * x["median_ms"]) ^ 2) }' \
  results/summary.json || { wrong "speed-up"; cat results/summary.json; }
mv plan.ours plan.txt
wants 0 "verdict: ALL WELL: 1 passed, 0 wrong, 0 not run" sh run.sh
! grep -q '"peer_ms"' results/summary.json || wrong "a speed-up over nobody"
echo --input=lr=1e30 >r3d50_b4.args
echo 'bench r3d50_b4 fp32 3 -' >plan.txt
wants 1 "a result is not finite, see r3d50_b4.json" sh run.sh

# cuDNN where MODIST_CUDNN says, and then that of a Python; one that refuses, one that fails, one that computes
# something else.
cp convs.mdx conv_r3d50.mdx
cp convs.args conv_r3d50.args
printf 'conv %s fp32 2 -\n' conv_r3d50 convs >plan.txt
cudnn="$stand_in/libstand_in_cudnn.so"
wants 0 "verdict: ALL WELL: 4 passed, 0 wrong, 0 not run" env MODIST_CUDNN="$cudnn" sh run.sh
for row in 'convs.cudnn  *ok .* 2 values are as expected; cuDNN 9.19.0: 2 convolutions in place of 4 of 4 launches' \
  'cudnn  *x[0-9.]* .* the time of cuDNN over ours, geometric mean of 2 convolutions of R3D-50'; do
  grep -q "^$row" results/table.txt || { wrong "no row '$row' in:"; cat results/table.txt; }
done
mean=$(sed -n 's/.*"cudnn": {[^}]*"time_over_ours": \([0-9.]*\).*/\1/p' results/summary.json)
awk -F'"conv_us": ' -v mean="$mean" 'NF > 1 { us[++n] = $2 + 0 }
  END { r = sqrt(us[3] / us[1] * us[4] / us[2]); exit !(n == 4 && (mean - r) ^ 2 <= (1e-3 * (1 + r)) ^ 2) }' \
  results/conv_r3d50.regions.json results/conv_r3d50.cudnn.regions.json || { wrong "geometric mean"; cat results/summary.json; }
# Convolutions of a few channels are apart.
sed '1,/"channels": 8/s/"channels": 8/"channels": 3/' results/conv_r3d50.cudnn.regions.json >first.json
(. ./rows.sh && against_cudnn results/conv_r3d50.regions.json first.json) | sort | tr '\n' ' ' |
  grep -q '^first 1 [-0-9.]* rest 1 [-0-9.]* $' || wrong "first convolutions are not apart"
echo 'conv conv_r3d50 fp32 2 -' >plan.txt
mkdir -p site/nvidia/cudnn/lib
ln -s "$cudnn" site/nvidia/cudnn/lib/libcudnn.so.9
ln -s "$stand_in/libcudnn_graph.so.9" site/nvidia/cudnn/lib
printf '#!/bin/sh\necho "$PWD/site/nvidia/cudnn"\n' >python
wants 0 "verdict: ALL WELL: 2 passed, 0 wrong, 0 not run" env -u MODIST_CUDNN PYTHON="$PWD/python" sh run.sh
wants 0 "0 wrong, 1 not run" env MODIST_CUDNN=/nowhere PYTHON="$PWD/python" sh run.sh
wants 0 "0 wrong, 1 not run" env MODIST_CUDNN="$cudnn" MODIST_STAND_IN_CUDNN_RANDOM=2 sh run.sh
grep -q "cuDNN refuses every convolution" results/table.txt || wrong "not why it refuses"
wants 0 "geometric mean of 1 convolutions" env MODIST_CUDNN="$cudnn" MODIST_STAND_IN_CUDNN_WITHOUT=11 sh run.sh
wants 1 "conv_r3d50.cudnn                 WRONG" \
  env MODIST_CUDNN="$cudnn" MODIST_STAND_IN_CUDNN_FAULT=cudnnBackendExecute:1:5000 sh run.sh
wants 1 "conv_r3d50.cudnn                 WRONG" env MODIST_CUDNN="$cudnn" MODIST_STAND_IN_CUDNN_OFF=1 sh run.sh
grep -q "is expected: off by" results/table.txt || wrong "not what is wrong"

# cuDNN that ends the process is none.
mv modist_rt rt
printf '#!/bin/sh\ncase "$*" in *--engine=cudnn*) kill -ABRT $$ ;; esac\nexec ./rt "$@"\n' >modist_rt
chmod +x modist_rt
wants 0 "1 passed, 0 wrong, 1 not run" sh run.sh
grep -q "^conv_r3d50.cudnn  *not run .*cuDNN ended the process" results/table.txt || wrong "$(cat results/table.txt)"

# A program that the budget cuts off is not wrong.
printf '#!/bin/sh\ncase "$*" in *--steps=7*) exec sleep 60 ;; esac\nexec ./rt "$@"\n' >modist_rt
chmod +x modist_rt
echo 'check contrast fp32 7 -' >plan.txt
wants 1 "verdict: NOTHING RAN: 0 passed, 0 wrong, 1 not run" sh run.sh --budget=6s
mv rt modist_rt

# A device of another kind, a value that is not what it should be, a kernel that fails.
echo 'check contrast fp32 2 -' >plan.txt
wants 0 "verdict: ALL WELL: 1 passed, 0 wrong, 0 not run" sh run.sh --out=again
wants 0 "(cuda:sm_90a)" env MODIST_STAND_IN_SM=90 sh run.sh
wants 1 "verdict: WRONG: 0 passed, 1 wrong" env MODIST_STAND_IN_FAULT=kernel:9:719 sh run.sh
sed -i 's/,[0-9.e-]*$/,0/' contrast.args
printf '\1' | dd of=contrast/dx.npy bs=1 seek=1000 conv=notrunc 2>/dev/null
wants 1 "is expected: off by" sh run.sh
grep -q '"wrong": 1' results/summary.json || wrong "summary.json"

echo "$failed failed"
[ $failed = 0 ]
