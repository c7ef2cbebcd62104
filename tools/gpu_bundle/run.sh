#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checks and times modist on an NVIDIA GPU. Needs the driver; for the peer, a Python with torch.
#   sh run.sh [--budget=20m] [--out=DIR]
#     --budget=20m             minutes (m) or seconds (s) for everything; what does not fit is listed as not run
#     --out=DIR                where results go (results)
#   MODIST_REFERENCE=DIR       folder that holds reference/bench_torch.py
#   PYTHON=python3             a Python with torch
#   MODIST_CUDNN=FILE          libcudnn.so.9; by default where the loader looks, or that of the Python
# Results: DIR/table.txt, DIR/summary.json, DIR/*.json (of each run), DIR/*.log (what was said).
# Exit code: 0 all well, 1 something is wrong, 2 usage, 4 there is no GPU that can be used.
set -u
budget=20m out=results
for arg; do
  case $arg in
    --budget=*) budget=${arg#*=} ;;
    --out=*) out=${arg#*=} ;;
    *) sed -n '4,8s/^# *//p' "$0" >&2; exit 2 ;;
  esac
done
case ${budget%[ms]} in
  '' | *[!0-9]*) echo "run.sh: --budget is '$budget', but takes minutes or seconds: 20m, 90s" >&2; exit 2 ;;
esac
case $budget in
  *s) budget=${budget%s} ;;
  *) budget=$((${budget%m} * 60)) ;;
esac
python=${PYTHON:-python3} reference=${MODIST_REFERENCE:-}
case $out in /*) ;; *) out=$PWD/$out ;; esac
case $reference in /* | '') ;; *) reference=$PWD/$reference ;; esac
cd "$(dirname "$0")" || exit 1
export LC_ALL=C NO_COLOR=1
begin=$(date +%s)
. ./rows.sh
row_limit=90  # seconds of a program of ours; a mode of the peer has its own in the plan

# A program that runs tells which GPU there is; it runs again below.
code=4 probe=
for name in $(sed -n 's/^[bc][a-z]* \([^ ]*\) .*/\1/p' plan.txt); do
  probe=$(bounded $row_limit ./modist_rt "$name.mdx" --json 2>&1)
  code=$?
  [ $code = 4 ] || break
done
if [ $code = 4 ]; then
  echo "$probe" >&2
  echo "verdict: NO GPU that can be used here; nothing was run"
  exit 4
fi
mkdir -p "$out" || exit 1
rm -f "$out/table.txt"
: >"$out/cudnn.part" && : >"$out/rows.part" && : >"$out/timed.part" && : >"$out/speedups.part" || exit 1
echo "$probe" >"$out/probe.json"
device=$(field "$out/probe.json" device)
device=${device:-a GPU that ran nothing}
driver=$(field "$out/probe.json" driver_cuda)

milli() { awk '{ printf "%.3f", $1 / 1e3 }'; }

# program NAME STEPS OPTION...
program() {
  name=$1 steps=$2
  shift 2
  # shellcheck disable=SC2046  # one argument a line, without blanks
  bounded $row_limit ./modist_rt "$name.mdx" --seed=1 --steps="$steps" --json "$@" $(cat "$name.args" 2>/dev/null)
}

# check NAME PRECISION STEPS ...: the fields of a line of the plan, as below
check() {
  has_time "$1" || return 0
  program "$1" "$3" >"$out/$1.json" 2>"$out/$1.log"
  code=$?
  if [ $code != 0 ]; then judge "$1" $code; return; fi
  num=$(grep -c '^--expect' "$1.args")
  row "$1" ok "" "" "$num values are as expected ($(field "$out/$1.json" code))"
  passed=$((passed + 1))
}

# dumps NAME: what single instructions leave in registers
dumps() {
  has_time "$1" || return 0
  bounded $row_limit "./$1/device_dumps" "$1" >"$out/$1.txt" 2>"$out/$1.log"
  code=$?
  if [ $code != 0 ]; then judge "$1" $code; return; fi
  row "$1" ok "" "" "$(tail -n 1 "$out/$1.txt")"
  passed=$((passed + 1))
}

# Kernel by kernel: which region takes how long, and how far that is from what was predicted. The sum is not
# the time of a step.
regions() {
  has_time "$1.regions" || return 0
  program "$1" 5 --times >"$out/$1.regions.json" 2>"$out/$1.regions.log"
  code=$?
  if [ $code != 0 ]; then judge "$1.regions" $code; return; fi
  file=$out/$1.regions.json note=
  near=$(field "$file" within_25_percent)
  [ -z "$near" ] || note="$near of $(field "$file" of) within 25 % of what was predicted for $(field "$file" for): \
$(field "$file" step_us | milli) ms"
  row "$1.regions" timed "$(field "$file" measured_us | milli)" "" "$note"
}

# has_cudnn NAME: else the row of NAME.cudnn says why not; it is looked for once
has_cudnn() {
  if [ -z "${no_cudnn+known}" ]; then
    no_cudnn=
    program "$1" 1 --engine=cudnn >/dev/null 2>"$out/$1.cudnn.log"
    case $? in
      4) take_cudnn_of_python || no_cudnn=$(reason "$out/$1.cudnn.log") ;;
      134) no_cudnn="cuDNN ended the process" ;;
    esac
  fi
  [ -z "$no_cudnn" ] || not_run "$1.cudnn" "$no_cudnn"
  [ -z "$no_cudnn" ]
}

# Nothing but cuDNN's own rows minds it.
take_cudnn_of_python() {
  [ -z "${MODIST_CUDNN:-}" ] || return 1
  folder=$("$python" -c 'import nvidia.cudnn; print(list(nvidia.cudnn.__path__)[0])' 2>/dev/null)
  [ -f "$folder/lib/libcudnn.so.9" ] && export MODIST_CUDNN="$folder/lib/libcudnn.so.9"
}

# The same convolutions by cuDNN, and how long each took by either.
cudnn() {
  has_time "$1.cudnn" && has_cudnn "$1" || return 0
  program "$1" "$2" --engine=cudnn >"$out/$1.cudnn.json" 2>"$out/$1.cudnn.log"
  code=$?
  case $code in
    0) ;;
    2) not_run "$1.cudnn" "$(reason "$out/$1.cudnn.log")"; return ;;  # it refuses all of them
    *) judge "$1.cudnn" $code; return ;;
  esac
  row "$1.cudnn" ok "" "" "$num values are as expected; $(field "$out/$1.cudnn.json" engine)"
  passed=$((passed + 1))
  has_time "$1.cudnn.regions" || return 0
  program "$1" 5 --engine=cudnn --times >"$out/$1.cudnn.regions.json" 2>>"$out/$1.cudnn.log"
  code=$?
  if [ $code != 0 ]; then judge "$1.cudnn" $code; return; fi
  [ "$1" != conv_r3d50 ] || against_cudnn "$out/$1.regions.json" "$out/$1.cudnn.regions.json" >>"$out/cudnn.part"
}

conv() {
  before=$passed
  check "$@"
  [ "$passed" -gt "$before" ] || return 0
  regions "$1"
  cudnn "$1" "$3"
}

bench() {
  has_time "$1" || return 0
  program "$1" "$3" >"$out/$1.json" 2>"$out/$1.log"
  code=$?
  if [ $code != 0 ]; then judge "$1" $code; return; fi
  if grep -q '"value": null' "$out/$1.json"; then
    row "$1" WRONG "" "" "a result is not finite, see $1.json"
    failed=$((failed + 1))
    return
  fi
  ms=$(field "$out/$1.json" median_ms)
  bytes=$(field "$out/$1.json" planned_bytes)
  row "$1" timed "$(printf %.3f "$ms")" "$(videos "$ms" "${1##*_b}")" \
    "$((bytes / 1048576)) MiB ($(field "$out/$1.json" code))"
  timed "$1" modist "$ms"
  passed=$((passed + 1))
  regions "$1"
}

# tune NAME PRECISION SECONDS ...: NAME.jsonl is for `modistc cache import`
tune() {
  has_time "$1" || return 0
  rest=$(left) seconds=$3
  [ "$rest" -ge "$seconds" ] || seconds=$rest
  # shellcheck disable=SC2046  # one argument a line, without blanks
  bounded $((seconds + row_limit)) ./modist_rt "$1.mdx" --seed=1 --tune="$out/$1.jsonl" --budget="$seconds" \
    $(cat "$1.args" 2>/dev/null) >"$out/$1.txt" 2>"$out/$1.log"
  code=$?
  if [ $code != 0 ]; then judge "$1" $code; return; fi
  row "$1" tuned "" "" "$(cat "$out/$1.txt")"
  passed=$((passed + 1))
}

# has_peer NAME: else the row says what is missing, which is looked for once
has_peer() {
  if [ -z "${no_peer+known}" ]; then
    no_peer=
    if [ ! -f "$reference/reference/bench_torch.py" ]; then
      no_peer="no reference/bench_torch.py in '$reference' (MODIST_REFERENCE)"
    elif ! bounded $row_limit "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
      no_peer="no torch with CUDA in $python (PYTHON)"
    fi
  fi
  [ -z "$no_peer" ] || not_run "$1" "$no_peer"
  [ -z "$no_peer" ]
}

# peer r3d50_b64 MODE SECONDS: the same step in PyTorch
peer() {
  batch=${1##*_b} name=torch_b${1##*_b}_$2
  has_time "$name" && has_peer "$name" || return 0
  PYTHONPATH=$reference bounded "$3" "$python" -m reference.bench_torch --what step --device cuda --dtype bf16 \
    --layout channels_last_3d --mode "$2" --batch "$batch" --iters 20 --cudnn-benchmark \
    >"$out/$name.json" 2>"$out/$name.log"
  code=$?
  case $code in
    0) ;;
    124 | 137) not_run "$name" "no end within $limit s"; return ;;
    *) not_run "$name" "exit code $code, see $name.log"; return ;;
  esac
  ms=$(sed -n 's/.*"step": {"median_ms": \([0-9.]*\).*/\1/p' "$out/$name.json")
  if [ -z "$ms" ]; then not_run "$name" "no time in $name.json"; return; fi
  row "$name" timed "$ms" "$(videos "$ms" "$batch")" "the peer"
  timed "$1" "$2" "$ms"
}

echo "$device, driver of CUDA ${driver:-unknown}, budget $budget s" | tee -a "$out/table.txt"
say name state ms/step videos/s note
while read -r kind line; do
  # shellcheck disable=SC2086  # a field an argument
  $kind $line </dev/null
done <plan.txt
comma=
compare
# over_cudnn WHICH WORDS: a row of the table, and an object for summary.json
over_cudnn() {
  words=$2
  # shellcheck disable=SC2046  # two numbers, or nothing
  set -- "$1" $(mean_over_cudnn "$1")
  [ $# = 1 ] || say cudnn "x$3" "" "" "the time of cuDNN over ours, geometric mean of $2 $words of R3D-50"
  printf '{"convolutions": %d, "time_over_ours": %s}' "${2:-0}" "${3:-null}" >"$out/$1.part"
}
over_cudnn rest convolutions
over_cudnn first "first convolutions"

verdict="ALL WELL"
[ $left_out = 0 ] || verdict="WELL AS FAR AS IT RAN"
[ $passed -gt 0 ] || verdict="NOTHING RAN"
[ $failed = 0 ] || verdict=WRONG
{
  printf '{"schema": "modist.gpu/1", "device": "%s", "driver_cuda": %s, "verdict": "%s",\n' \
    "$device" "${driver:-null}" "$verdict"
  printf ' "passed": %d, "wrong": %d, "not_run": %d, "seconds": %d, "rows": [\n' \
    $passed $failed $left_out $((budget - $(left)))
  cat "$out/rows.part"
  printf '\n], "speedups": [\n'
  cat "$out/speedups.part"
  printf '\n], "cudnn": %s, "cudnn_first": %s}\n' "$(cat "$out/rest.part")" "$(cat "$out/first.part")"
} >"$out/summary.json"
rm -f "$out"/*.part "$out/probe.json"
find "$out" -name '*.log' -empty -exec rm -f {} +
echo "verdict: $verdict: $passed passed, $failed wrong, $left_out not run" | tee -a "$out/table.txt"
[ $failed = 0 ] && [ $passed -gt 0 ]
