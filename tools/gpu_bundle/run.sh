#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Checks and times modist on an NVIDIA GPU. Needs the driver; for the peer, a Python with torch.
#   sh run.sh [--budget=20m] [--out=DIR]
#     --budget=20m             minutes (m) or seconds (s) for everything; what does not fit is listed as not run
#     --out=DIR                where results go (results)
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
number=${budget%[ms]}
case $number in
  "$budget" | '' | *[!0-9]* | ??????*)
    echo "run.sh: --budget is '$budget', but takes minutes or seconds: 20m, 90s" >&2
    exit 2
    ;;
esac
# Without zeros in front, which arithmetic takes for octal.
number=${number#"${number%%[!0]*}"}
number=${number:-0}
case $budget in
  *s) budget=$number ;;
  *) budget=$((number * 60)) ;;
esac
# Paths hold in another folder, too; a bare name is looked up in PATH.
absolute() { case $1 in /* | '') echo "$1" ;; */*) echo "$PWD/$1" ;; *) echo "$1" ;; esac; }
python=$(absolute "${PYTHON:-python3}")
case ${MODIST_CUDNN:-} in '') ;; *) MODIST_CUDNN=$(absolute "$MODIST_CUDNN") && export MODIST_CUDNN ;; esac
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$(dirname "$0")" || exit 1
export LC_ALL=C NO_COLOR=1
begin=$(date +%s)
. ./rows.sh
. ./kinds.sh

# A program that runs tells which GPU there is; it runs again below.
code=4 probe=
for name in $(sed -n 's/^\(op\|check\|full\|conv\|bench\|part\|fused\) \([^ ]*\) .*/\2/p' plan.txt); do
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
for part in cudnn rows timed speedups memory gaps near convs musts; do : >"$out/$part.part" || exit 1; done
echo "$probe" >"$out/probe.json"
device=$(field "$out/probe.json" device)
device=${device:-a GPU that ran nothing}
driver=$(field "$out/probe.json" driver_cuda)

commit=$(sed 's/ *$//' commit 2>/dev/null)
echo "$device, driver of CUDA ${driver:-unknown}, budget $budget s, modist of commit ${commit:-unknown}" | tee -a "$out/table.txt"
say name state ms/step videos/s note
while read -r kind line; do
  # shellcheck disable=SC2086  # a field an argument
  $kind $line </dev/null
done <plan.txt
comma=
compare
over_cudnn rest convolutions
over_cudnn first "first convolutions"
comma=
musts

verdict="ALL WELL"
[ $left_out = 0 ] || verdict="WELL AS FAR AS IT RAN"
[ $passed -gt 0 ] || verdict="NOTHING RAN"
[ $failed = 0 ] || verdict=WRONG
{
  printf '{"schema": "modist.gpu/1", "device": "%s", "driver_cuda": %s, "commit": "%s", "verdict": "%s",\n' \
    "$device" "${driver:-null}" "${commit:-unknown}" "$verdict"
  printf ' "passed": %d, "wrong": %d, "not_run": %d, "seconds": %d, "copy_gb_s": %s, "rows": [\n' \
    $passed $failed $left_out $((budget - $(left))) "${copy_rate:-null}"
  cat "$out/rows.part"
  printf '\n], "speedups": [\n'
  cat "$out/speedups.part"
  printf '\n], "musts": [\n'
  cat "$out/musts.part"
  printf '\n], "cudnn": %s, "cudnn_first": %s}\n' "$(cat "$out/rest.part")" "$(cat "$out/first.part")"
} >"$out/summary.json"
rm -f "$out"/*.part "$out/probe.json"
find "$out" -name '*.log' -empty -exec rm -f {} +
echo "verdict: $verdict: $passed passed, $failed wrong, $left_out not run" | tee -a "$out/table.txt"
[ $failed = 0 ] && [ $passed -gt 0 ]
