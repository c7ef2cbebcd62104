#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From nothing to a training MoDist in a few minutes on a CPU: installs what is missing, builds, makes
# a dozen small videos, compiles and trains the tiny model on them. What it makes lies in build/demo.
#   sh tools/demo.sh            the made videos
#   sh tools/demo.sh FOLDER     your own
set -eu
own=
if [ $# -gt 0 ]; then
  [ $# = 1 ] && own=$(cd -P -- "$1" && pwd) ||
    { echo "usage: sh tools/demo.sh [FOLDER of videos]" >&2; exit 2; }
fi
cd -P "$(dirname "$0")/.."
config=configs/modist_tiny.yaml
out=build/demo
# $out is made anew.
case $own/ in
  "$PWD/$out"/*) echo "demo.sh: $own lies in $out, which is deleted first: move it away" >&2; exit 2 ;;
esac
# shown <command>...: prints it as one would type it, then runs it.
shown() {
  echo
  echo "\$ $*"
  "$@"
}

echo "== 1. install and build"
sh tools/deps.sh
cmake --preset release > /dev/null
cmake --build --preset release --target modistc
PATH=$PWD/build/bin:$PATH

echo
echo "== 2. videos"
rm -rf "$out"
mkdir -p "$out"
videos=${own:-$out/videos}
[ -n "$own" ] || shown modistc dataset shapes -o "$videos" --videos=12 --size=96 --seconds=4
# 5: some are broken. Training takes others in their place, and says so when nothing is left.
shown modistc dataset check "$videos" || [ $? = 5 ]

echo
echo "== 3. what will run: parameters, work, memory, data"
shown modistc train -c $config "data.train=$videos" --dry-run

echo
echo "== 4. compile: which regions became one kernel, and the memory plan"
report="modistc compile modist-tiny -c $config --emit=report --report=summary,fusion,memory"
echo
echo "\$ $report"
$report > "$out/report.txt"
# The first lines of each pass; the rest is in the file.
awk '/^[^ ]/ { print; next } { if (seen[$1]++ < 6) print; else more++ }
     END { if (more) printf "  ... and %d more sites in '"$out"'/report.txt\n", more }' "$out/report.txt"

echo
echo "== 5. train: 60 steps; bank.size=64 is less than a quarter of the 480 samples seen, and"
echo "   bank.init=empty counts no random rows. Each term of the loss stands beside its chance line."
shown modistc train -c $config "data.train=$videos" "run.dir=$out/run" epochs=1000 --max-steps=60 \
  run.log_every=5

echo
echo "== 6. what it left: curves of the losses over what the networks see, in one picture; and the"
echo "   visual network alone"
shown modistc plot "$out/run" "--videos=$videos" -o "$out/picture.svg"
shown modistc export "$out/run/weights.safetensors" -o "$out/visual.safetensors"

echo
echo "Weights, log and settings are in $out/run. The same on your own folder:"
echo "  build/bin/modistc train -c $config data.train=FOLDER run.dir=runs/mine epochs=40"
echo "Does it learn what moves how? MoDist against RGB-only, several minutes (docs/mini.md):"
echo "  sh tools/mini.sh build/mini"
