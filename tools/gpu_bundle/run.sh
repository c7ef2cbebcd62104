#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checks and times modist on an NVIDIA GPU. Needs the driver; for the peer, a Python with torch.
#   sh run.sh [--budget=20m] [--out=DIR]
#     --budget=20m             minutes (m) or seconds (s) for everything; what does not fit is listed as not run
#     --out=DIR                where results go (results)
#   MODIST_REFERENCE=DIR       folder that holds reference/bench_torch.py
#   PYTHON=python3             a Python with torch
# Results: DIR/table.txt, DIR/summary.json, DIR/*.json (of each run), DIR/*.log (what was said).
# Exit code: 0 all well, 1 something is wrong, 2 usage, 4 there is no GPU that can be used.
set -u
budget=20m out=results
for arg; do
  case $arg in
    --budget=*) budget=${arg#*=} ;;
    --out=*) out=${arg#*=} ;;
    *) sed -n '4,7s/^# *//p' "$0" >&2; exit 2 ;;
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
begin=$(date +%s) failed=0 left_out=0 passed=0
left() { echo $((budget - $(date +%s) + begin)); }
# bounded COMMAND...: within what is left of the budget
bounded() { timeout -k 10 "$(($(left) > 0 ? $(left) : 1))" "$@"; }

# A program that runs tells which GPU there is; it runs again below.
code=4 probe=
for name in $(sed -n 's/^[a-z]* \([^ ]*\) .*/\1/p' plan.txt); do
  probe=$(bounded ./modist_rt "$name.mdx" --json 2>&1)
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
field() { sed -n "s/^ *\"$2\": \"\{0,1\}\([^\",]*.*[^\",]\)\"\{0,1\},\{0,1\}\$/\1/p" "$1" 2>/dev/null | head -n 1; }
echo "$probe" >"$out/probe.json"
device=$(field "$out/probe.json" device)
device=${device:-a GPU that ran nothing}
driver=$(field "$out/probe.json" driver_cuda)

say() { printf '%-26s %-8s %10s %10s  %s\n' "$1" "$2" "$3" "$4" "$5" | sed 's/ *$//' | tee -a "$out/table.txt"; }
# row NAME STATE MS VIDEOS NOTE
row() {
  say "$1" "$2" "${3:--}" "${4:--}" "$5"
  note=$(printf %s "$5" | sed 's/\\/\\\\/g; s/"/\\"/g' | tr '\n\t' '  ')
  printf '%s  {"name": "%s", "state": "%s", "median_ms": %s, "videos_per_s": %s, "note": "%s"}' \
    "$comma" "$1" "$2" "${3:-null}" "${4:-null}" "$note" >>"$out/rows.part"
  comma=',
'
}
comma='' && : >"$out/rows.part"
videos() { awk -v ms="$1" -v b="$2" 'BEGIN { if (ms > 0) printf "%.1f", b / ms * 1e3 }'; }
reason() { head -n 1 "$1" | cut -c1-200; }

# has_time NAME: else the row says so
has_time() {
  [ "$(left)" -gt 0 ] && return
  row "$1" "not run" "" "" "the budget is used up"
  left_out=$((left_out + 1))
  return 1
}
# judge NAME CODE: the row of a program that did not end with 0
judge() {
  case $2 in
    4) row "$1" "not run" "" "" "$(reason "$out/$1.log")"; left_out=$((left_out + 1)) ;;
    124 | 137) row "$1" WRONG "" "" "no end within the budget"; failed=$((failed + 1)) ;;
    *) row "$1" WRONG "" "" "$(reason "$out/$1.log")"; failed=$((failed + 1)) ;;
  esac
}
# program NAME STEPS OPTION...
program() {
  name=$1 steps=$2
  shift 2
  # shellcheck disable=SC2046  # one argument a line, without blanks
  bounded ./modist_rt "$name.mdx" --seed=1 --steps="$steps" --json "$@" $(cat "$name.args" 2>/dev/null)
}

check() {
  program "$1" "$2" >"$out/$1.json" 2>"$out/$1.log"
  code=$?
  if [ $code != 0 ]; then judge "$1" $code; return; fi
  num=$(grep -c '^--expect' "$1.args")
  row "$1" ok "" "" "$num values are as expected ($(field "$out/$1.json" code))"
  passed=$((passed + 1))
}

bench() {
  batch=${1##*_b}
  program "$1" "$2" >"$out/$1.json" 2>"$out/$1.log"
  code=$?
  if [ $code != 0 ]; then judge "$1" $code; return; fi
  ms=$(field "$out/$1.json" median_ms)
  bytes=$(field "$out/$1.json" planned_bytes)
  row "$1" timed "$(printf %.3f "$ms")" "$(videos "$ms" "$batch")" "$((bytes / 1048576)) MiB ($(field "$out/$1.json" code))"
  passed=$((passed + 1))
  # Kernel by kernel: which region takes how long. Not the time of a step.
  if [ "$(left)" -gt 0 ]; then program "$1" 5 --times >"$out/$1.regions.json" 2>>"$out/$1.log" || failed=$((failed + 1)); fi
}

# The same step in PyTorch, of r3d50 alone.
peer() {
  name=torch_b$1_$2
  has_time "$name" || return 0
  PYTHONPATH=$reference bounded "$python" -m reference.bench_torch --what step --device cuda --dtype bf16 \
    --layout channels_last_3d --mode "$2" --batch "$1" --iters 20 --cudnn-benchmark \
    >"$out/$name.json" 2>"$out/$name.log"
  code=$?
  if [ $code != 0 ]; then
    row "$name" "not run" "" "" "exit code $code, see $name.log"
    left_out=$((left_out + 1))
    return
  fi
  ms=$(sed -n 's/.*"step": {"median_ms": \([0-9.]*\).*/\1/p' "$out/$name.json")
  row "$name" timed "$ms" "$(videos "$ms" "$1")" "the peer"
}

echo "$device, driver of CUDA ${driver:-unknown}, budget $budget s" | tee -a "$out/table.txt"
say name state ms/step videos/s note
while read -r kind name _ steps _; do
  has_time "$name" && $kind "$name" "$steps"
done <plan.txt

batches=$(sed -n 's/^bench r3d50_b\([0-9]*\) .*/\1/p' plan.txt)
if [ -z "$batches" ]; then :
elif [ ! -f "$reference/reference/bench_torch.py" ]; then
  row torch "not run" "" "" "no reference/bench_torch.py in '$reference' (MODIST_REFERENCE)"
  left_out=$((left_out + 1))
elif ! "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  row torch "not run" "" "" "no torch with CUDA in $python (PYTHON)"
  left_out=$((left_out + 1))
else
  for mode in eager compile compile-max-autotune; do
    for batch in $batches; do peer "$batch" $mode; done
  done
fi

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
  printf '\n]}\n'
} >"$out/summary.json"
rm -f "$out/rows.part" "$out/probe.json"
find "$out" -name '*.log' -empty -exec rm -f {} +
echo "verdict: $verdict: $passed passed, $failed wrong, $left_out not run" | tee -a "$out/table.txt"
[ $failed = 0 ] && [ $passed -gt 0 ]
