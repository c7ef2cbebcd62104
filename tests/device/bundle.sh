#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The bundle for a GPU machine, made and run here on a GPU that the stand-in plays: all well, no GPU, another
# GPU, a spent budget, a peer that is not there, cuDNN in several places, values and kernels that are wrong; and
# tools/gpu_check.sh, which runs it.
#   bundle.sh SOURCE_FOLDER BUILD_FOLDER STAND_IN_FOLDER
set -u
here=$(cd "$(dirname "$0")" && pwd)
source=$1 build=$2 stand_in=$3
modistc=$build/bin/modistc
. "$here/enter.sh"
kept=${MODIST_TEST_KEPT:-$work}/stand_in
keep_in "$kept" "$kept"
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
cat >"$work/ring.mdg" <<'E'
graph @ring(%k: f32[4,8], %x: f32[4,8,1,2,2], %w: f32[8,8,1,1,1], %w2: f32[8,8,1,1,1]) {
  %bank = state @bank {init=unit_rows} : f32[9,8]
  %ptr = state @ptr {init=fill, a=7} : i32[1]
  %next = bank_push %bank, %k, %ptr
  %np = ring_next %ptr {push=4, size=9}
  %one = conv3d %x, %w
  %two = conv3d %one, %w2
  update @bank = %next
  update @ptr = %np
  return %next, %np, %one, %two
}
E
cat >"$work/block.mdg" <<'E'
graph @block(%x: f32[1,8,1,6,6]) {
  %w0 = state @w0 {init=normal, b=0.3} : f32[16,8,1,1,1]
  %w1 = state @w1 {init=normal, b=0.1} : f32[16,16,1,3,3]
  %g = state @g {init=ones} : f32[16]
  %b = state @b : f32[16]
  %a = conv3d %x, %w0
  %m, %v = moments %a
  %n = batch_norm %a, %g, %b, %m, %v {batch_stats=true}
  %r = relu %n
  %y = conv3d %r, %w1 {pad=[0,1,1]}
  %t = sum %y
  return %t
}
E
cat >"$work/plan" <<E
op ring fp32 2 cuda:sm_80 $work/ring.mdg
copy copy
fused block_res3_b1 fp32 2 cuda:sm_80 $work/block.mdg --no-ptx
part infonce_b2 fp32 2 cuda:sm_80 $work/product.mdg --no-ptx
check contrast fp32 2 cuda:sm_80,cuda:sm_90a $source/examples/graphs/contrast.mdg
check tiny_bf16 bf16 1 cuda:sm_80 $tiny
check tiny_f32 fp32 4 cuda:sm_80 $tiny
full tiny_full bf16 1 cuda:sm_80 $tiny
bench r3d50_b4 fp32 3 cuda:sm_80 $tiny
tune tuned fp32 20 cuda:sm_80 $work/product.mdg --no-ptx
check elsewhere fp32 1 cuda:sm_120 $source/examples/graphs/contrast.mdg
conv convs fp32 2 cuda:sm_80 $work/convs.mdg
peer r3d50_b4 eager 60
peer r3d50_b4 compile 60
E
wants 0 "modist_rt needs" sh "$source/tools/gpu_bundle.sh" --plan="$work/plan" --build="$build" -o "$work/bundle"
if unzip -l "$work/bundle/tiny_f32.mdx" | grep -qE '\.(cubin|ptx)$'; then wrong "a kernel in an artefact"; fi
# A result's layers are those before it; f32: 8 sqrt(n) / 2^24. What rounding to bf16 does is measured.
for line in 'one=ring/one.npy,6.743e-07' 'two=ring/two.npy,9.537e-07' 'next=ring/next.npy,4.768e-07'; do
  grep -qx -- "--expect=$line" "$work/bundle/ring.args" || wrong "$line, not $(cat "$work/bundle/ring.args")"
done
awk -F, '/=loss=/ { bad += $2 <= 1e-5 || $2 >= 0.2; n++ } /bank.ptr=/ { bad += $2 != 0; n++ }
  END { exit !(n == 2 && !bad) }' "$work/bundle/tiny_bf16.args" || wrong "in bf16: $(cat "$work/bundle/tiny_bf16.args")"
# Of a whole step the loss alone, with what two seeds tell, but 8 eps at least.
awk -F, '/=loss=/ { ok = $2 >= 0.03125 && $2 < 0.2 } END { exit !(ok && NR == 2) }' "$work/bundle/tiny_full.args" ||
  wrong "of a whole step: $(cat "$work/bundle/tiny_full.args")"
ptx_in() { unzip -p "$work/bundle/$1.mdx" manifest.json | grep -q ptx; }
if ptx_in tiny_full || ! ptx_in tiny_bf16; then wrong "PTX of a whole step, or none of others"; fi
# The plan that is carried: a check replays its graph, and of a batch of 64 the peer's captured modes come first.
plan=$source/tools/gpu_bundle/plan.txt
awk '$1 == "check" && $4 >= 4 { n++ } END { exit !n }' "$plan" || wrong "no check of four steps in $plan"
modes=$(awk '$1 == "peer" && $2 == "r3d50_b64" { printf "%s ", $3 }' "$plan")
case $modes in *cudagraph\ *compile-max-autotune-cudagraph\ *eager\ *) ;; *) wrong "modes: $modes" ;; esac
for mode in $modes; do grep -q "\"$mode\"" "$source/tools/gpu_bundle/peer.py" || wrong "peer.py has no $mode"; done
[ "$(find "$work/bundle/kernels" -name 'c*.z' | wc -l)" -gt 20 ] || wrong "no folder of kernels"
wants 2 "sh tools/gpu_bundle.sh" sh "$source/tools/gpu_bundle.sh" --plans
mkdir "$work/mine"
echo mine >"$work/mine/file"
wants 1 "is not empty and holds no bundle" sh "$source/tools/gpu_bundle.sh" --build="$build" -o "$work/mine"
[ "$(cat "$work/mine/file")" = mine ] || wrong "a folder of somebody is gone"
# A bundle gives way to a new one, what else is in its folder does not.
mkdir "$work/old"
cp "$build/bin/modist_rt_carried" "$work/old/modist_rt"
touch "$work/old/run.sh" "$work/old/was.mdx" "$work/old/was.args" "$work/old/mine"
echo 'check was fp32 1 -' >"$work/old/plan.txt"
echo 'copy copy' >"$work/plan.copy"
wants 0 "modist_rt needs" sh "$source/tools/gpu_bundle.sh" --plan="$work/plan.copy" --build="$build" -o "$work/old"
[ "$(cd "$work/old" && echo *)" = "commit kinds.sh mine modist_rt peer.py plan.txt rows.sh run.sh" ] || wrong "$(ls "$work/old")"
truncate -s 60000000 "$work/old/mine"
wants 1 "more than 60 MB: a plan with less" \
  sh "$source/tools/gpu_bundle.sh" --plan="$work/plan.copy" --build="$build" -o "$work/old"
"$modistc" compile "$work/product.mdg" --target=cuda:sm_80 --no-ptx -q -o "$work/plain.mdx" || wrong "no plain product"
"$build/bin/modistc" compile "$source/examples/graphs/contrast.mdg" --target=cuda:sm_120 --no-ptx -q \
  -o "$work/bundle/elsewhere.mdx" || wrong "no PTX"
printf 'graph @none(%%x: f32[4,8]) {\n  %%y = log %%x\n  return %%y\n}\n' >"$work/none.mdg"
"$modistc" compile "$work/none.mdg" --target=cuda:sm_80 --no-ptx -q -o "$work/bundle/none_b1.mdx" || wrong "no NaN"

# What would prove nothing is not made: values that are not finite, none at all, tolerances of no graph.
made_of() {
  echo "$3" >"$work/plan.bad"
  wants 1 "$2" sh "$source/tools/gpu_bundle.sh" --plan="$work/plan.bad" --build="$1" -o "$work/bad"
}
sed 's/%y/%loss_y/' "$work/none.mdg" >"$work/loss.mdg"
made_of "$build" "what is expected is not finite: $work/bad/none/y.npy" "op none fp32 1 cuda:sm_80 $work/none.mdg"
made_of "$build" "nothing is expected of loss" "check loss fp32 1 cuda:sm_80 $work/loss.mdg"
mkdir -p "$work/half/bin"
ln -s "$build/bin/modist_rt_carried" "$work/half/bin"
printf '#!/bin/sh\ncase "$*" in *--emit=fused*) echo "half of it" >&2; exit 1 ;; esac\nexec %s "$@"\n' \
  "$modistc" >"$work/half/bin/modistc"
chmod +x "$work/half/bin/modistc"
for kind in op check; do made_of "$work/half" "half of it" "$kind ring fp32 2 cuda:sm_80 $work/ring.mdg"; done
cd "$work/bundle" || exit 1

# The machine that it is carried to has neither a compiler nor a cache.
unset MODIST_NVRTC MODIST_CACHE
wants 4 "verdict: NO GPU" sh run.sh
wants 4 "there is no CUDA device here: libcuda.so.1" sh run.sh
[ ! -e results ] || wrong "results without a GPU"
for budget in much 20 m 1e9m 999999s; do wants 2 "--budget is '$budget'" sh run.sh --budget=$budget; done
export LD_LIBRARY_PATH="$stand_in"
wants 4 "verdict: NO GPU" env MODIST_STAND_IN_DEVICES=0 sh run.sh

wants 0 "verdict: WELL AS FAR AS IT RAN: 12 passed, 0 wrong, 5 not run" sh run.sh
for text in "tuned                            tuned             -          -  1 products, " \
  "cuda:0, Stand-in GPU (sm_80), driver of CUDA" "tiny_f32                         ok" \
  "r3d50_b4                         timed" "within 25 % of what was predicted for NVIDIA A100 SXM 80 GB: " "none of it runs on Stand-in GPU" \
  "convs                            ok                -          -  2 values" "convs.regions                    timed" \
  "convs.cudnn                      not run           -          -  block_res3_b1_apart.mdx: error[E0637]" \
  "ring                             ok                -          -  4 values" "tiny_bf16                        ok" \
  "copy                             timed             -          -  " "block_res3_b1_apart              timed" \
  "infonce_b2.regions               timed" "r3d50_b4.gaps                    timed" "tuned.before                     timed" \
  "tuned.after                      timed" "tuned.agree                      ok                -          -  losses of a second step: " \
  "block_res3_b1.agree              ok                -          -  losses: " "tiny_full                        ok" "the same with the better ways of " \
  "must: gaps in the step           unknown                         at most 0.03" \
  "torch_b4_compile                 not run           -          -  no torch with CUDA in "; do
  grep -qF "$text" results/table.txt || { wrong "no '$text' in:"; cat results/table.txt results/*.log; }
done
if command -v python3 >/dev/null; then
  # The peer's marks stand behind what keeps the device busy while its work is issued, as ours do.
  python3 -B - <<'E' || wrong "peer.py"
import sys, time, types
from unittest.mock import MagicMock
sys.path.insert(0, ".")
torch, log = MagicMock(), []
torch.nn.Module = object
sys.modules.update({"torch": torch, "torch.nn": torch.nn, "torch.nn.functional": torch.nn.functional})
import peer
class Event:
    record = lambda self: log.append("mark")
    synchronize = lambda self: log.append("wait")
    elapsed_time = lambda self, end: 2.0
torch.cuda.Event = lambda enable_timing: Event()
torch.cuda._sleep.side_effect = lambda cycles: log.append("ahead" if cycles > 2e6 else "behind")
def work():
    log.append("work")
    time.sleep(0.001)
for mode, want in (("compile", None), ("compile-max-autotune-cudagraph", "max-autotune-no-cudagraphs")):
    peer.Run(types.SimpleNamespace(precision="bf16", layout="contiguous", mode=mode)).compiled(work)
    assert torch.compile.call_args.kwargs["mode"] == want, mode
assert peer.milliseconds(types.SimpleNamespace(device="cuda"), work, 2) == [2.0, 2.0], log
assert log == ["work"] + 2 * ["ahead", "mark", "work", "mark", "wait"], log
assert len(peer.milliseconds(types.SimpleNamespace(device="cpu"), work, 2)) == 2
E
  for file in results/*.json; do
    [ ! -s "$file" ] || python3 -m json.tool "$file" >/dev/null || wrong "$file"
  done
fi
if git -C "$source" rev-parse HEAD >/dev/null 2>&1; then
  grep -q "modist of commit $(git -C "$source" rev-parse --short=12 HEAD)" results/table.txt || wrong "no commit"
fi
grep -q '"verdict": "WELL AS FAR AS IT RAN"' results/summary.json || wrong "summary.json"
grep -qF '"cudnn": {"convolutions": 0, "time_over_ours": null}' results/summary.json || wrong "a time of cuDNN"
grep -q '"regions": \[' results/r3d50_b4.regions.json || wrong "no regions"
wants 1 "verdict: NOTHING RAN: 0 passed, 0 wrong, 14 not run" sh run.sh --budget=0s
# Ways of the same that do not agree are wrong, and one that says nothing does not agree.
agreed() {
  (. ./rows.sh && . ./kinds.sh && out=$work/agreed && mkdir -p "$out" && printf '   "value": %s,\n' 10 >"$out/a.json" &&
    printf '   "max": %s\n' "$1" >"$out/b.json" && agree x.agree losses a b)
}
agreed 10.3 | grep -q '^x.agree  *ok .* losses: 10 10.3; they may differ by 0.03125 of it' || wrong "$(agreed 10.3)"
for value in 10.4 9.6 -10 ''; do agreed "$value" | grep -q '^x.agree  *WRONG .* losses: 10' || wrong "$value: $(agreed "$value")"; done
# A must is met by all that it is to be compared with, or partly.
musts_of() { # musts_of TIMED CONVS CUDNN: the rows of a plan with a step, of the times, of the convolutions'
  (. ./rows.sh && out=$work/musts && rm -rf "$out" && mkdir "$out" && cd "$out" && touch memory.part gaps.part near.part
    printf 'peer r3d50_b64 %s 9\n' eager compile >plan.txt && echo 'bench r3d50_b64 bf16 1 -' >>plan.txt
    printf "$1" >timed.part && printf "$2" >convs.part && printf "$3" >cudnn.part && musts
    cp musts.part "$work/musts.json")
}
must_be() { musts_of "$2" "$3" "$4" | grep -qE "^must: $1\$" || wrong "no '$1' in: $(musts_of "$2" "$3" "$4")"; }
step='r3d50_b64 modist 10\nr3d50_b64 eager 30\n' all='r3d50_b64 compile 20\n'
must_be 'step over torch +partly +3.000 +at least 1.5, by torch eager; without torch_b64_compile' "$step" '' ''
grep -q '"state": "partly", "by": "torch eager", "without": "torch_b64_compile"' "$work/musts.json" || wrong "$(cat "$work/musts.json")"
must_be 'step over torch +met +2.000 +at least 1.5, by torch compile' "$step$all" '' ''
must_be 'step over torch +missed +1.000 +at least 1.5, by torch compile' "$step$(echo "$all" | sed s/20/10/)" '' ''
must_be 'step over torch +unknown +at least 1.5; without torch_b64_eager, torch_b64_compile, r3d50_b64' '' '' ''
convs='convolutions over cuDNN'
must_be "$convs +partly +1.000 +at least 0.9, by cuDNN in modist; without cuDNN in torch" '' '' 'rest 2 0\n'
must_be "$convs +missed +0.8 +at least 0.9, by cuDNN in torch, the worse of two: the other is 1.000" '' '0.8\n' 'rest 2 0\n'
must_be "$convs +met +1.000 +at least 0.9, by cuDNN in modist, the worse of two: the other is 1.2" '' '1.2\n' 'rest 2 0\n'
must_be "$convs +partly +1.2 +at least 0.9, by cuDNN in torch; without cuDNN in modist" '' '1.2\n' ''
must_be "$convs +unknown +at least 0.9; without cuDNN in modist, cuDNN in torch" '' '' ''

# A tuned step is made of the ways that are better, and is right. Here the product has another way than its own.
tuned() {
  sed "s|\"best\": *\"[^\"]*\"|\"best\": \"$1\"|" results/tuned.jsonl >ways.jsonl
  ./modist_rt tuned.mdx --seed=1 --steps=3 --tuned=ways.jsonl --output=y=y.npy --json
}
way=$(sed -n 's/.*"way": *"\([^"]*\)".*/\1/p' results/tuned.jsonl | head -n 1)
[ -n "$way" ] || wrong "no way: $(cat results/tuned.jsonl)"
./modist_rt tuned.mdx --seed=1 --steps=3 --output=y=own.npy >/dev/null
wants 0 '"tuned": 1' tuned "$way"
wants 0 "1 values are as expected" ./modist_rt tuned.mdx --seed=1 --steps=3 --tuned=ways.jsonl --expect=y=own.npy,1e-6
# It has the way's kernels, in the first step and in the graph of the later ones; the own step does not.
symbols() { "$modistc" inspect "$1" --format=json | sed -n 's/.*"symbol": "\(.*\)",/\1/p' | sort; }
symbols "$work/plain.mdx" >"$work/plain.txt"
met=0
for symbol in $(symbols tuned.mdx | comm -13 "$work/plain.txt" -); do
  for run in 1 2; do
    MODIST_STAND_IN_BAD="$symbol:$run:719" ./modist_rt tuned.mdx --steps=3 --tuned=ways.jsonl >/dev/null 2>&1 || met=$((met + 1))
  done
  wants 0 "3 steps" env MODIST_STAND_IN_BAD="$symbol:1:719" ./modist_rt tuned.mdx --steps=3
done
[ "$met" -ge 2 ] || wrong "kernels of the way did not run: $met"
wants 0 '"tuned": 0' tuned "a way that is none"
# Another device's records say nothing of this one.
tuned "$way" >/dev/null
sed 's|"device": *"[^"]*"|"device": "Other GPU"|' ways.jsonl >others.jsonl
wants 0 '"tuned": 0' ./modist_rt tuned.mdx --seed=1 --steps=3 --tuned=others.jsonl --json
wants 2 "has no trials" ./modist_rt contrast.mdx --tuned=ways.jsonl
wants 2 "--tuned is of whole steps" ./modist_rt tuned.mdx --tuned=ways.jsonl --times
wants 2 "--rates takes no artefact" ./modist_rt tuned.mdx --rates
for option in --seed=1 --steps=2 --times --check --engine=cudnn --memory-limit=1G --input=x=1 --expect=x=x.npy --tune=x; do
  wants 2 "--rates takes --device and --json only" ./modist_rt --rates --json $option
done
wants 2 "--rates is of a GPU" ./modist_rt --rates --device=cpu
wants 1 "cuMemcpyDtoDAsync on cuda:0, Stand-in GPU (sm_80) fails with 700" \
  env MODIST_STAND_IN_FAULT=cuMemcpyDtoDAsync_v2:3:700 ./modist_rt --rates

# What is made of times: two kernels bound by memory, of which one reaches 85 % of 1000 GB/s, one that computes and
# one that is over at once; 0.5 ms of a step of 10 ms that no kernel fills.
cat >times.json <<'E'
   "name": "a", "min_us": 100, "flops": 1
E
for times in '1000 1 9.0e8' '1000 1 5.0e8' '7000 9.0e11 1.0e8' '500 1 1.0e3'; do
  # shellcheck disable=SC2086
  printf '      "min_us": %s,\n      "flops": %s,\n      "bytes": %s\n' $times
done >times.json
printf '  "convolutions": [\n      "min_us": 5,\n' >>times.json
made() { (. ./rows.sh && "$@"); }
[ "$(made memory_bound times.json 1000)" = "2 2000.0 0.700 1" ] || wrong "memory: $(made memory_bound times.json 1000)"
[ "$(made gaps_of times.json 10 50)" = "0.500 0.050 0.070" ] || wrong "gaps: $(made gaps_of times.json 10 50)"
# What the budget cuts off is not wrong, whatever it was to have; what is late by itself is.
judged() { (. ./rows.sh && out=$work/judged && mkdir -p "$out" && : >"$out/x.log" && limit=$1 asked=$2 && judge x 124); }
judged 120 150 | grep -q '^x  *not run .* the budget is used up' || wrong "$(judged 120 150)"
judged 150 150 | grep -q '^x  *WRONG .* no end within 150 s' || wrong "$(judged 150 150)"
echo 'tune tuned fp32 20 -' >plan.tune
mv plan.txt plan.all
mv plan.tune plan.txt
echo 'op ring fp32 2 -' >>plan.txt
wants 0 "s for it" sh run.sh --budget=95s --out=short
# Three ways, where the step that is timed has an artefact of its own.
cp tuned.mdx tune_product.mdx
cp "$work/plain.mdx" product.mdx
printf '%s\n' 'tune tune_product fp32 10 -' 'op ring fp32 2 -' >plan.txt
wants 0 "verdict: ALL WELL: 3 passed" sh run.sh --out=three
grep -q '^tune_product.agree  *ok .* second step: [0-9.]* [0-9.]* [0-9.]*; they may' three/table.txt || wrong "$(cat three/table.txt)"
mv plan.all plan.txt

# The same steps of a peer: three modes that run, one that hangs, one that fails and one that says nothing.
cat >python <<'E'
#!/bin/sh
ms() { printf '{\n "torch": "2",\n "median_ms": %s,\n "min_ms": %s\n}\n' "$1" "${2:-7.5}"; }
case "$*" in
  '-c import torch'*) ;;
  'peer.py step --mode=eager --batch=4') ms 16.25 ;;
  'peer.py step --mode=compile --batch=4') ms 8.0 ;;
  'peer.py step --mode=cudagraph --batch=4') ms 10 ;;
  'peer.py block --site=res3 --mode=eager --batch=1') ms 1e6 ;;
  'peer.py infonce --mode=eager --batch=2') ms 0.0001 1e6 ;;
  'peer.py conv --mode=eager --batch=8') printf '{\n "what": "conv",\n "dw": 1e6,\n "y": 1e6\n}\n' ;;
  *'--mode=hangs'*) sleep 60 ;;
  *'--mode=nothing'*) ;;
  *) exit 7 ;;
esac
E
chmod +x python
for mode in eager hangs compile fails nothing cudagraph; do echo "peer r3d50_b4 $mode 1"; done >plan.txt
echo 'bench r3d50_b4 fp32 1 -' >>plan.txt
echo 'bench r3d50_b4 fp32 1 -' >plan.ours
wants 4 "NO GPU" env MODIST_STAND_IN_DEVICES=0 sh run.sh
mkdir from  # whatever folder it is called from
cp python from/snake
wants 0 "verdict: WELL AS FAR AS IT RAN: 1 passed, 0 wrong, 3 not run" \
  sh -c 'cd from && PYTHON=./snake sh ../run.sh --out=../results'
for row in 'torch_b4_compile  *timed  *8.0  *500.0  the peer' 'torch_b4_hangs  *not run .* no end within 1 s' \
  'torch_b4_fails  *not run .* exit code 7, see torch_b4_fails.log' 'torch_b4_nothing  *not run .* no time in ' \
  'r3d50_b4  *x[0-9.]* .* times as fast as torch compile, the best of: eager, compile, cudagraph'; do
  grep -q "^$row" results/table.txt || { wrong "no row '$row' in:"; cat results/table.txt; }
done
awk -F'[ ",:]+' '/"peer_ms"/ { for (i = 1; i < NF; i++) x[$i] = $(i + 1) }
  END { exit !(x["peer_ms"] == 8 && x["speedup"] > 0 &&
    (x["speedup"] * x["median_ms"] - 8) ^ 2 <= (6e-4 * x["median_ms"]) ^ 2) }' \
  results/summary.json || { wrong "speed-up"; cat results/summary.json; }
# Parts of a step, blocks and convolutions have peers of their own, and decide about what is wanted.
printf '%s\n' 'part infonce_b2 fp32 2 -' 'peer infonce_b2 eager 60' 'fused block_res3_b1 fp32 2 -' \
  'peer block_res3_b1 eager 60' 'conv convs fp32 2 -' 'peer convs eager 60' >plan.txt
sed -i 's/convs/conv_r3d50/' plan.txt
cp convs.mdx conv_r3d50.mdx
cp convs.args conv_r3d50.args
wants 0 "verdict: ALL WELL" env PYTHON="$PWD/python" MODIST_CUDNN="$stand_in/libstand_in_cudnn.so" sh run.sh
for row in 'must: InfoNCE over torch  *met ' 'block_res3_b1_apart.cudnn.agree  *ok .* losses: ' \
  'must: fused over unfused  *[a-z]* ' \
  'must: convolutions over cuDNN  *[a-z]* .* by cuDNN in modist, the worse of two: the other is [0-9.e+]*$' \
  'block_res3_b1_apart.cudnn  *timed .* unfused; cuDNN 9.19.0: 2 convolutions' 'block_res3_b1  *x[0-9.]* .* the best of: cudnn, eager' \
  'torch_conv_r3d50_eager  *timed  *2000000.000 .* 2 convolutions of R3D-50: x'; do
  grep -q "^$row" results/table.txt || { wrong "no row '$row' in:"; cat results/table.txt; }
done
grep -q '"what": "InfoNCE over torch", "least": 5, "is": [0-9.e+]*, "state": "met"' results/summary.json || wrong "musts"
mv plan.ours plan.txt
wants 0 "verdict: ALL WELL: 1 passed, 0 wrong, 0 not run" sh run.sh
! grep -q '"peer_ms"' results/summary.json || wrong "a speed-up over nobody"
echo --input=lr=1e30 >r3d50_b4.args
echo 'bench r3d50_b4 fp32 3 -' >plan.txt
wants 1 "a result is not finite, see r3d50_b4.json" sh run.sh

# cuDNN where MODIST_CUDNN says, and then that of a Python; one that refuses, one that fails, one that computes
# something else.
printf 'conv %s fp32 2 -\n' conv_r3d50 convs >plan.txt
cudnn="$stand_in/libstand_in_cudnn.so"
ln -s "$cudnn" "$stand_in/libcudnn_graph.so.9" from
wants 0 "verdict: ALL WELL: 4 passed, 0 wrong, 0 not run" \
  sh -c "cd from && MODIST_CUDNN=./libstand_in_cudnn.so sh ../run.sh --out=../results"
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
wants 0 "0 wrong, 1 not run" env MODIST_CACHE=/dev/null MODIST_CUDNN="$cudnn" MODIST_STAND_IN_CUDNN_RANDOM=2 sh run.sh
grep -q "cuDNN refuses every convolution" results/table.txt || wrong "not why it refuses"
wants 0 "geometric mean of 1 convolutions" env MODIST_CACHE=/dev/null MODIST_CUDNN="$cudnn" MODIST_STAND_IN_CUDNN_WITHOUT=11 sh run.sh
wants 1 "conv_r3d50.cudnn                 WRONG" \
  env MODIST_CACHE=/dev/null MODIST_CUDNN="$cudnn" MODIST_STAND_IN_CUDNN_FAULT=cudnnBackendExecute:1:5000 sh run.sh
wants 1 "conv_r3d50.cudnn                 WRONG" env MODIST_CACHE=/dev/null MODIST_CUDNN="$cudnn" MODIST_STAND_IN_CUDNN_OFF=1 sh run.sh
grep -q "is expected: off by" results/table.txt || wrong "not what is wrong"

# instead CASES: a program of which something else comes than it would say, by cases of its arguments
mv modist_rt rt
instead() {
  printf '#!/bin/sh\ncase "$*" in\n%s\nesac\nexec ./rt "$@"\n' "$1" >modist_rt
  chmod +x modist_rt
}
has_row() { grep -q "^$1" results/table.txt || wrong "no row '$1' in: $(cat results/table.txt)"; }

# cuDNN that ends the process is none.
instead '*--engine=cudnn*) kill -ABRT $$ ;;'
wants 0 "1 passed, 0 wrong, 1 not run" sh run.sh
has_row 'conv_r3d50.cudnn  *not run .*cuDNN ended the process'

# A program that the budget cuts off is not wrong.
instead '*--steps=7*) exec sleep 60 ;;'
echo 'check contrast fp32 7 -' >plan.txt
wants 1 "verdict: NOTHING RAN: 0 passed, 0 wrong, 1 not run" sh run.sh --budget=06s

# Of a driver that refuses code only some excuse a program: where others run, it is wrong. Whatever says no number of
# expected values, neither.
printf '%s\n' 'op ring fp32 2 -' 'check contrast fp32 2 -' 'check elsewhere fp32 1 -' >plan.txt
for driver in 12090 13000; do
  instead "*contrast.mdx*) export MODIST_STAND_IN_FAULT=cuLibraryLoadData:1:209 MODIST_STAND_IN_DRIVER=$driver ;;"
  wants 1 "verdict: WRONG: 1 passed, 1 wrong, 1 not run" sh run.sh
  has_row 'contrast  *WRONG .*error\[E06[45][26]\]: cuLibraryLoadData on .* fails with 209'
  has_row 'elsewhere  *not run .*error\[E0633\]'
done
mv rt modist_rt
echo 'check contrast fp32 2 -' >plan.txt
mv contrast.args kept.args
wants 1 "contrast                         WRONG             -          -  nothing is expected of it: contrast.args" sh run.sh
: >contrast.args
wants 1 "verdict: WRONG: 0 passed, 1 wrong, 0 not run" sh run.sh
mv kept.args contrast.args
mv modist_rt rt

# Numbers that are none have no time, whoever makes them, in whatever shape.
instead ''
echo 'bench none_b1 fp32 1 -' >plan.txt
wants 1 "none_b1                          WRONG             -          -  a result is not finite, see none_b1.json" sh run.sh
not_finite() { # not_finite ROW CASE
  instead "$2) shift; exec ./rt none_b1.mdx --json \$(case \"\$*\" in *--times*) echo --times ;; esac) ;;"
  wants 1 "verdict: WRONG: ${3:-1} passed, 1 wrong, 0 not run" sh run.sh
  has_row "$1  *WRONG .* a result is not finite, see $1.json"
}
export MODIST_CUDNN="$cudnn"
echo 'fused block_res3_b1 fp32 2 -' >plan.txt
not_finite block_res3_b1_apart '*_apart.mdx*'
not_finite block_res3_b1_apart.cudnn '*_apart.mdx*--engine=cudnn*' 2
echo 'bench r3d50_b4 fp32 1 -' >plan.txt
echo --input=lr=0.001 >r3d50_b4.args
not_finite r3d50_b4.regions '*--times*'
echo 'conv conv_r3d50 fp32 2 -' >plan.txt
not_finite conv_r3d50.regions '*--times*'
echo 'tune tuned fp32 20 -' >plan.txt
echo 'op ring fp32 2 -' >>plan.txt
# The step before and behind tuning.
not_tuned() {
  instead "$2"
  wants 1 "verdict: WRONG: ${4:-2} passed, 1 wrong, 0 not run" sh run.sh
  has_row "$1  *WRONG .* $3"
}
not_tuned tuned.after '*tuned.mdx*--tuned*) exec ./rt none_b1.mdx --json ;;' "a result is not finite, see tuned.after.json"
not_tuned tuned.agree '*tuned.mdx*--steps=2*--tuned*) exec ./rt contrast.mdx --json ;;' "losses of a second step: .* which differ by more than"
not_tuned tuned.before '*tuned.mdx*--tuned*) ;; *tuned.mdx*--steps=20*) exec ./rt none_b1.mdx --json ;;' "a result is not finite" 3
not_tuned tuned.before '*tuned.mdx*--tuned*) ;; *tuned.mdx*--steps=20*) echo "it fails" >&2; exit 1 ;;' "it fails" 3
mv rt modist_rt
export MODIST_CUDNN=/nowhere

# A device of another kind, a value that is not what it should be, a kernel that fails.
echo 'check contrast fp32 2 -' >plan.txt
wants 0 "verdict: ALL WELL: 1 passed, 0 wrong, 0 not run" sh run.sh --out=again
wants 0 "(cuda:sm_90a)" env MODIST_STAND_IN_SM=90 sh run.sh
wants 1 "verdict: WRONG: 0 passed, 1 wrong" env MODIST_STAND_IN_FAULT=kernel:9:719 sh run.sh
sed -i 's/,[0-9.e-]*$/,0/' contrast.args
printf '\1' | dd of=contrast/dx.npy bs=1 seek=1000 conv=notrunc 2>/dev/null
wants 1 "is expected: off by" sh run.sh
grep -q '"wrong": 1' results/summary.json || wrong "summary.json"

# No tolerance is for an integer: the ring's place, which is 6, as 7.
echo 'op ring fp32 2 -' >plan.txt
sed -i '/=np=/s/,[0-9.e-]*$/,1/' ring.args
wants 0 "verdict: ALL WELL: 1 passed" sh run.sh
printf '\7' | dd of=ring/np.npy bs=1 seek=128 conv=notrunc 2>/dev/null
wants 1 "np is 6, but 7 is expected" sh run.sh

# The developer's way: the launcher tells the device's name, the bundle is one that was made before.
mkdir -p "$work/repo/tools" "$work/repo/bin"
cp "$source/tools/gpu_check.sh" "$work/repo/tools"
ln -s "$source/tests" "$work/repo"  # the stand-in's machine
cat >"$work/repo/bin/launcher" <<'E'
#!/bin/sh
[ -z "${NO_GPU:-}" ] || { echo "there is no device"; exit 4; }
case $* in --name) echo Stand-in ;; *) echo "slice is well"; exit "${SLICE:-0}" ;; esac
E
chmod +x "$work/repo/bin/launcher"
echo 'check contrast fp32 2 -' >plan.txt
printf '\0' | dd of=contrast/dx.npy bs=1 seek=1000 conv=notrunc 2>/dev/null
sed -i 's/,0$/,1/' contrast.args
cd "$work/repo/bin" || exit 1
here_too() { env MODIST_LAUNCHER=./launcher MODIST_BUNDLE=../../bundle "$@" sh ../tools/gpu_check.sh --budget=60s; }
wants 0 "verdict: ALL WELL: 1 passed" here_too
for file in slice.txt bundle/table.txt bundle/summary.json; do
  [ -s "../bench/results/Stand-in/$file" ] || wrong "no $file: $(find .. -type f)"
done
wants 1 "slice is well" here_too SLICE=1
wants 4 "there is no device" here_too NO_GPU=1
wants 1 "verdict: WRONG" here_too MODIST_STAND_IN_FAULT=kernel:9:719
wants 1 "there is no folder '/nowhere'" here_too MODIST_BUNDLE=/nowhere

echo "$failed failed"
[ $failed = 0 ]
