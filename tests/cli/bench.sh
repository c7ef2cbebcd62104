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
  sed -n '1p;$p' repros | uniq >some
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
try 10 fused $small
try 2 infonce --sweep q=2 --sweep r=64,70
try 2 motion --sweep t=1,2 --sweep h=16 --sweep w=16 --sweep n=1
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

# Predicted times: a row for each kind of kernel, and their sum. The machine's own rates where it runs the
# target, else those of the target.
modistc bench step modist-tiny clip.size=16 -n 1 --warmup=0 --predict --roofline=step.svg >table
sed -n '/kernels, fastest calls/,/^    all /p' table | sed 1d >kinds
awk '$1 == "all" { n = $2; m = $3; p = $4; next }
     { kn += $(NF-4); km += $(NF-3); kp += $(NF-2) }
     END { exit !(NR > 3 && n == kn && n > 100 && km > 0.99 * m && km < 1.01 * m && kp > 0.99 * p && kp < 1.01 * p) }' kinds ||
  { wrong "kinds of kernels do not add up"; cat kinds; }
sed -n '/the longest/,/^  repro/p' table | sed '1d;$d' >longest
awk '{ ms = $(NF-3); if (NR > 1 && ms > last) exit 1; last = ms } END { exit NR != 10 }' longest ||
  { wrong "the longest kernels are not ten, in order"; cat longest; }
# The picture: a dot for each kernel that computes anything, as large as its time; shares that make up the whole.
sed -n 's/.* r="\([0-9.]*\)" .*<title>.*: \([0-9.]*\) ms, .*/\1 \2/p' step.svg >dots
awk -v all="$(awk '$1 == "all" { print $3 }' kinds)" '
  { r = 60 * sqrt($2 / all); off = $1 - (r < 1.5 ? 1.5 : r)
    if (off * off > (0.06 + 0.0005 * r / 2 / $2) ^ 2) exit 1 }  # of rounding
  END { exit NR < 100 }' dots || { wrong "dots are not as large as their times"; head dots; }
sed -n 's/.*<text [^>]*>[^<]*, \([0-9]*\)%<.*/\1/p' step.svg | awk '{ n += $1 } END { exit n < 97 || n > 103 }' ||
  wrong "shares of the picture do not add up"
[ "$(grep -c '<polyline' step.svg)" = 1 ] || wrong "f32 has not one roof"
modistc bench step modist-tiny clip.size=16 -n 1 --warmup=0 --predict --format=json >predicted.json
[ "$(grep -c '"predicted_ms":' predicted.json)" = "$(awk '$1 == "all" { print $2 }' kinds)" ] ||
  wrong "the JSON has not every kernel"
for target in cpu cpu:aarch64; do
  modistc compile modist-tiny --target=$target --emit=report --report=kernels --no-cache >report.txt
  awk '$1 == "all" { all = $3; exit } / [0-9.]+$/ && NF > 6 { sum += $NF; n++ }
       END { exit !(n > 100 && all > 0 && sum > 0.99 * all && sum < 1.01 * all) }' report.txt ||
    wrong "$target: predictions do not add up"
  grep '^rates' report.txt >>rates
done
sed -n 1p rates | grep -q '^rates  *measured here for .* GFLOP/s in f32.* GB/s$' || wrong "not measured: $(cat rates)"
sed -n 2p rates | grep -q '^rates  *nominal for .* of aarch64: .* GFLOP/s in f32, 50 GB/s$' || wrong "not nominal: $(cat rates)"

# The peer is a program that answers each line with a time; where it is not there the report says why.
mkdir -p peer/reference
touch peer/reference/bench_torch.py
answer() {
  { echo '#!/bin/sh'; echo "$2"; } >"$1"
  chmod +x "$1"
}
answer steady 'echo ready 9.9; while read -r line; do echo 1000000; done'
answer asked 'shift 2; echo "$@" >asked; echo ready 9.9; while read -r line; do echo 1; done'
answer brief 'echo ready 9.9; read -r line; echo 5; echo "Killed: no memory" >&2'
answer absent 'echo Traceback >&2; echo "ModuleNotFoundError: no torch" >&2; exit 1'
answer odd 'echo hello'
answer words 'echo ready 9.9; while read -r line; do echo soon; done'
# told TEXT ARGUMENTS...: the report of a small op beside the peer has this text.
told() {
  text=$1
  shift
  modistc bench --op matmul:m4n4k4 -n 3 --warmup=0 --baseline=torch "$@" >table || wrong "torch $*: exit $?"
  grep -q '^  fused .*GFLOP' table || wrong "torch $*: nothing of ours"
  grep -qF "$text" table || { wrong "torch $*: not told: $text"; cat table; }
}
told 'torch    unmeasured: --torch-reference=DIR is not given'
told 'unmeasured: nowhere/reference/bench_torch.py: No such file' --torch-reference=nowhere
told '/nowhere: No such file or directory' --torch-reference=peer --torch-python=./nowhere
told 'unmeasured: ModuleNotFoundError: no torch' --torch-reference=peer --torch-python=./absent
told 'unmeasured: the program does not answer as expected' --torch-reference=peer --torch-python=./odd
told 'unmeasured: Killed: no memory' --torch-reference=peer --torch-python=./brief
told "unmeasured: it answered 'soon'" --torch-reference=peer --torch-python=./words
told 'version 9.9' --torch-reference=peer --torch-python=./steady
grep -q '^  torch  *1000000 ms .* n=3 ' table || wrong "three rounds of the peer are not counted"
modistc bench step modist-tiny clip.size=16 -n 1 --warmup=0 --baseline=torch --torch-reference=peer \
  --torch-python=./steady >table
grep -q 'unmeasured: the peer has nothing like it' table || wrong "the peer has another step"
modistc bench step modist-r3d50 batch=1 clip.size=32 -n 1 --warmup=0 --baseline=torch --precision=bf16 \
  --torch-reference=peer --torch-python=./asked >table
sizes='batch=1 visual_frames=8 visual_size=32 motion_frames=16 motion_size=224 bank=65536'
grep -q "^bf16 step both $sizes threads=" peer/asked || wrong "the peer is asked for $(cat peer/asked)"
modistc bench train-mini batch=2 -n 1 --warmup=0 --baseline=torch --torch-reference=peer --torch-python=./asked >table
sizes='batch=2 visual_frames=8 visual_size=32 motion_frames=8 motion_size=32 bank=192'
grep -q "^fp32 mini both $sizes threads=" peer/asked || wrong "the peer is asked for $(cat peer/asked)"
grep -q ' compile=0$' peer/asked || wrong "the peer is compiled"
rm peer/asked
sh -c "$(sed -n 's/^  repro: //p' table | sed 's/PYTHON/.\/asked/; s/DIR/peer/')" >again
grep -q "^fp32 mini both $sizes threads=" peer/asked || wrong "the reproducer does not ask the peer for the same"
modistc bench train-mini batch=2 bank.size=96 opt.lr=1 -n 1 --warmup=0 --baseline=torch --torch-reference=peer \
  --torch-python=./steady >table
grep -q 'unmeasured: the peer has nothing like it' table || wrong "the peer has other settings"
modistc bench motion --sweep n=1 --sweep t=2 --sweep h=16 --sweep w=32 -n 1 --warmup=0 --baseline=torch \
  --torch-reference=peer --torch-python=./asked >table
grep -q "^fp32 motion both n=1 t=2 h=16 w=32 threads=" peer/asked || wrong "the peer is asked for $(cat peer/asked)"
modistc bench --op infonce:q4r64d16 -n 1 --warmup=0 --baseline=torch --torch-compile --torch-reference=peer \
  --torch-python=./asked >table
grep -q ' compile=1$' peer/asked || wrong "the peer is not compiled"
modistc bench --op matmul:m4n4k4 -n 3 --baseline=torch --torch-reference=peer --torch-python=./steady \
  --format=json >peer.json
grep -q '"version": "9.9"' peer.json || wrong "the JSON lacks the peer's version"
grep -q -e '--torch-reference=DIR --torch-python=PYTHON' peer.json || wrong "the report says where the peer lies here"
exit $failed
