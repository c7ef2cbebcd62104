#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From nothing to networks that have learnt from videos without labels. What it makes lies in build/demo.
#   sh tools/demo.sh            made videos of eight motions: MoDist and RGB alone are trained, and asked which
#                               motion a video shows. Exit code 3: MoDist does not lead by 15 points.
#   sh tools/demo.sh FOLDER     your own videos: the tiny model, 60 steps
set -eu
own=
if [ $# -gt 0 ]; then
  [ $# = 1 ] && own=$(cd -P -- "$1" && pwd) ||
    { echo "usage: sh tools/demo.sh [FOLDER of videos]" >&2; exit 2; }
fi
cd -P "$(dirname "$0")/.."
out=build/demo
# $out is made anew.
case $own/ in
  "$PWD/$out"/*) echo "demo.sh: $own lies in $out, which is deleted first: move it away" >&2; exit 2 ;;
esac
. tools/scores.sh
number=0
heading() {
  number=$((number + 1))
  echo
  echo "== $number. $*"
}

# The first lines of each pass; the rest is in the file.
report() {
  echo
  echo "\$ $*"
  "$@" >"$out/report.txt"
  awk '/^[^ ]/ { print; next } { if (seen[$1]++ < 6) print; else more++ }
       END { if (more) printf "  ... and %d more sites in '"$out"'/report.txt\n", more }' "$out/report.txt"
}

train_on_own() {
  config=configs/modist_tiny.yaml
  heading "videos"
  # 5: some are broken. Training takes others in their place, and says so when nothing is left.
  shown modistc dataset check "$own" || [ $? = 5 ]
  heading "what will run: parameters, work, memory, data"
  shown modistc train -c $config "data.train=$own" --dry-run
  heading "compile: which regions became one kernel, and the memory plan"
  report modistc compile modist-tiny -c $config --emit=report --report=summary,fusion,memory
  heading "train: 60 steps; each term of the loss stands beside what guessing gives"
  shown modistc train -c $config "data.train=$own" "run.dir=$out/run" epochs=1000 --max-steps=60 run.log_every=5
  heading "what it left: the losses over what the networks see, in one picture; the visual network alone"
  shown modistc plot "$out/run" "--videos=$own" -o "$out/picture.svg"
  shown modistc export "$out/run/weights.safetensors" -o "$out/visual.safetensors"
  echo
  echo "Weights, log and settings are in $out/run. To go on for longer:"
  echo "  build/bin/modistc train -c $config data.train=$own run.dir=runs/mine epochs=40"
}

learn() {
  train=$out/videos/train.csv test=$out/videos/test.csv maps=$out/maps
  begin=$(date +%s)
  heading "videos of eight motions; all else is drawn anew for each: 240 to learn from, 240 to be asked about"
  shown modistc dataset mini -o "$out/videos" --videos=240 --size=64
  shown modistc dataset mini -o "$out/videos" --videos=240 --size=64 --split=test
  heading "motion, from the pixels: optical flow three frames back, and its edges"
  shown modistc dataset flow "$train" -o "$maps" --kind=edge --lag=3 --clamp=20
  heading "compile: which regions became one kernel, and the memory plan"
  report modistc compile modist-mini -c configs/mini_modist.yaml --emit=report --report=summary,fusion,memory
  heading "train without labels, with the same settings: MoDist, then RGB alone"
  for mode in modist rgb; do
    start=$(date +%s)
    shown modistc train -c configs/mini_$mode.yaml "data.train=$train" "data.maps=$maps" "run.dir=$out/$mode" \
      epochs=88 warmup=12 run.log_every=55
    echo $(($(date +%s) - start)) >"$out/$mode/seconds"
  done
  heading "which motion? A linear classifier on frozen features; guessing gives 12.5 %"
  echo "network        L_v    L_m     vm     mv   right, of $(($(wc -l <"$test"))) videos   k-NN   trained"
  for mode in modist rgb; do
    judge "$out/$mode" "$train" "$test"
    printf '%-10s' $mode
    for name in v m vm mv; do printf ' %6s' "$(term "$out/$mode" $name)"; done
    printf '   %5s +- %3s %%          %5s %%   %4s s\n' $(cat "$out/$mode/probe") \
      "$(cut -d' ' -f1 "$out/$mode/knn")" "$(cat "$out/$mode/seconds")"
  done
  heading "a picture: curves of the losses, and what the two networks see"
  shown modistc plot "$out/modist" "$out/rgb" "--videos=$train" "--maps=$maps" -o "$out/picture.svg" --rows=8
  echo
  echo "$(($(date +%s) - begin)) s of some 360 s on two cores. More runs and seeds: docs/mini.md"
  gap=$(cat "$out/modist/probe" "$out/rgb/probe" | awk '{ p[NR] = $1 } END { printf "%.1f", p[1] - p[2] }')
  echo "MoDist leads by $gap points; 15 are asked for."
  if awk -v gap="$gap" 'BEGIN { exit !(gap >= 15) }'; then return 0; fi
  echo "demo.sh: MoDist did not learn motion here" >&2
  exit 3
}

heading "install and build"
sh tools/deps.sh
cmake --preset release >/dev/null
cmake --build --preset release --target modistc
PATH=$PWD/build/bin:$PATH
rm -rf "$out"
mkdir -p "$out"
if [ -n "$own" ]; then train_on_own; else learn; fi
