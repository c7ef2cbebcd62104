#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The miniature experiment (docs/mini.md): MoDist with each of its three motion inputs, and RGB alone with
# twice the steps, three seeds each; then how well the motions can be read from what each has learnt.
# Needs build/bin/modistc (`sh tools/demo.sh`) and some 25 minutes on two cores. Goes on where it stopped.
#   sh tools/mini.sh DIR [SPLIT [option of train...]]      SPLIT: tune (usual) or test
set -eu
cd "$(dirname "$0")/.."
if [ $# -lt 1 ]; then
  echo "usage: sh tools/mini.sh DIR [SPLIT [option of train...]]" >&2
  exit 2
fi
out=$1 split=${2:-tune} videos=240
[ "$split" = test ] && videos=960
shift $(($# > 1 ? 2 : 1))
PATH=$PWD/build/bin:$PATH
. tools/scores.sh

mkdir -p "$out"
train=$out/videos/train.csv asked=$out/videos/$split.csv
[ -f "$train" ] || shown modistc dataset mini -o "$out/videos" --size=64
[ -f "$asked" ] || shown modistc dataset mini -o "$out/videos" --size=64 --split="$split" --videos=$videos
for kind in edge flow; do
  shown modistc dataset flow "$train" -o "$out/$kind" --kind=$kind --lag=3 --clamp=20
done

# of RUN: the settings in which it differs.
of() {
  case $1 in
    edge) echo "-c configs/mini_modist.yaml data.maps=$out/edge" ;;
    flow) echo "-c configs/mini_modist.yaml data.maps=$out/flow mclip.input=flow mclip.gamma=0" ;;
    diff) echo "-c configs/mini_modist.yaml mclip.input=diff mclip.gamma=0" ;;
    rgb) echo "-c configs/mini_rgb.yaml epochs=88" ;;
  esac
}
for run in edge rgb diff flow; do
  for seed in 0 1 2; do
    dir=$out/$run-$seed
    [ -f "$dir/weights.safetensors" ] ||
      shown modistc train $(of $run) "data.train=$train" "run.dir=$dir" run.seed=$seed run.log_every=110 "$@"
    for method in probe knn; do
      score $method "$dir" "$train" "$asked" >"$dir/$method-$split"
    done
  done
done

echo
echo "run  seed    L_v    L_m     vm     mv   probe, of $(($(wc -l <"$asked"))) videos of $split      k-NN"
for run in edge rgb diff flow; do
  for seed in 0 1 2; do
    dir=$out/$run-$seed
    printf '%-4s %4s' $run $seed
    for name in v m vm mv; do printf ' %6s' "$(term "$dir" $name)"; done
    printf '   %5s +- %s %%' $(cat "$dir/probe-$split")
    printf '   %5s +- %s %%\n' $(cat "$dir/knn-$split")
  done
  cat "$out/$run"-[012]/probe-"$split" | awk -v run=$run '
    { sum += $1; square += $1 * $1 }
    END { mean = sum / NR
          printf "%-4s mean of %d seeds %18s %5.1f +- %.1f %%\n", run, NR, "", mean,
                 sqrt((square / NR - mean * mean) / (NR - 1)) }'
done
shown modistc plot "$out/edge-0" "$out/rgb-0" "--videos=$train" "--maps=$out/edge" -o "$out/picture.svg" --rows=8
