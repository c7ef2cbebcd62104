#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Benchmarks say how to measure each line again, and that works; reports can be compared. No time is
# looked at.
#   bench.sh SOURCE_FOLDER BIN_FOLDER
set -eu
source=$(cd "$1" && pwd) bin=$(cd "$2" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
PATH=$bin:$PATH
export PATH LC_ALL=C NO_COLOR=1 MODIST_CACHE="$work/cache"
failed=0
wrong() {
  echo "$*"
  failed=1
}

# try LINES ARGUMENTS...: so many lines, each with a reproducer that measures one line.
try() {
  want=$1
  shift
  modistc bench "$@" -n 1 --warmup=0 >table || wrong "bench $*: exit $?"
  sed -n 's/^  repro: //p' table >repros
  [ "$(wc -l <repros)" = "$want" ] || { wrong "bench $*: not $want lines"; cat table; }
  [ "$(grep -c 'GFLOP/s' table)" -ge "$want" ] || wrong "bench $*: no rates"
  head -n 3 repros >some
  tail -n 1 repros >>some
  while IFS= read -r repro; do
    sh -c "$repro" >again || wrong "exit $?: $repro"
    [ "$(grep -c '^  repro: ' again)" = 1 ] || wrong "not one line: $repro"
  done <some
}
small='--sweep n=1 --sweep h=8 --sweep w=8 --sweep c=8 --sweep o=8'
try 6 --op=matmul:m4n4k4 --direction=all --sweep m=4,8
try 2 --op conv3d:c3h9w9o4k3p0 --sweep k=1x3x3,3 --sweep t=3 --baseline=unfused,interp
# shellcheck disable=SC2086
try 41 conv $small
# shellcheck disable=SC2086
try 5 fused $small
try 2 infonce --sweep q=2 --sweep r=64,70
try 2 step modist-tiny clip.size=16 --sweep batch=1,2 --baseline=unfused --threads=1
try 1 train-mini batch=2
grep -q '^train-mini batch=2$' table || wrong "train-mini does not name its settings"

# The miniature experiment's step is that of its settings file.
settings=$(sed 's/.* step \(modist-mini .*\) batch=2 .*/\1/' repros)
# shellcheck disable=SC2086
modistc compile $settings --emit=graph >ours
modistc compile modist-mini -c "$source/configs/mini_modist.yaml" --emit=graph >theirs
cmp ours theirs || wrong "train-mini is not configs/mini_modist.yaml: $settings"

modistc bench roof | grep -q 'GFLOP/s in f32.* GB/s read' || wrong "roof tells no rates"
modistc bench --op matmul:m4n4k4 --direction=all -n 5 --format=json -o report.json
modistc bench compare report.json report.json >same || wrong "a report differs from itself"
[ "$(grep -c ' noise$' same)" = 3 ] || wrong "a report is not noise beside itself"
modistc bench --op matmul:m4n4k4 --direction=all -n 5 --format=csv >lines.csv
[ "$(grep -c '^matmul:m4n4k4 .*,fused,5,' lines.csv)" = 3 ] || wrong "the CSV lacks lines"
exit $failed
