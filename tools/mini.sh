#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The miniature experiment (docs/mini.md): MoDist with each of its three motion inputs, and RGB alone with
# twice the steps, three seeds each; then how well the motions can be read from what each has learnt.
# Needs build/bin/modistc (`sh tools/demo.sh`) and some 25 minutes on two cores. Goes on where it stopped.
#   sh tools/mini.sh DIR [SPLIT [option of train...]]      SPLIT: tune (usual) or test
set -eu
if [ $# -lt 1 ]; then
  echo "usage: sh tools/mini.sh DIR [SPLIT [option of train...]]" >&2
  exit 2
fi
mkdir -p "$1"
out=$(cd "$1" && pwd) split=${2:-tune} videos=240
[ "$split" = test ] && videos=960
shift $(($# > 1 ? 2 : 1))
cd "$(dirname "$0")/.."
PATH=$PWD/build/bin:$PATH
. tools/scores.sh

train=$out/videos/train.csv asked=$out/videos/$split.csv
[ -f "$train" ] || shown modistc dataset mini -o "$out/videos" --size=64
[ -f "$asked" ] || shown modistc dataset mini -o "$out/videos" --size=64 --split="$split" --videos=$videos
for kind in edge flow; do
  shown modistc dataset flow "$train" -o "$out/$kind" --kind=$kind --lag=3 --clamp=20
done

# learn RUN SEED OPTION...: trains it, if the same run is not there yet. `done` is what a whole run leaves.
learn() {
  dir=$out/$1-$2 name=$1 seed=$2
  shift 2
  [ "$(cat "$dir/done" 2>/dev/null)" = "$*." ] && return
  case $name in
    edge) set -- -c configs/mini_modist.yaml "data.maps=$out/edge" "$@" ;;
    flow) set -- -c configs/mini_modist.yaml "data.maps=$out/flow" mclip.input=flow mclip.gamma=0 "$@" ;;
    diff) set -- -c configs/mini_modist.yaml mclip.input=diff mclip.gamma=0 "$@" ;;
    rgb) set -- -c configs/mini_rgb.yaml epochs=88 "$@" ;;
  esac
  shown modistc train "$@" "data.train=$train" "run.dir=$dir" run.seed="$seed" run.log_every=110 --overwrite
}
for run in edge rgb diff flow; do
  for seed in 0 1 2; do
    learn $run $seed "$@"
    echo "$*." >"$out/$run-$seed/done"
    judge "$out/$run-$seed" "$train" "$asked"
  done
done

echo
echo "+- is the standard error over the videos; below, of the mean over the seeds"
echo "run  seed    L_v    L_m     vm     mv   probe, of $(($(wc -l <"$asked"))) videos of $split      k-NN"
for run in edge rgb diff flow; do
  for seed in 0 1 2; do
    dir=$out/$run-$seed
    printf '%-4s %4s' $run $seed
    for name in v m vm mv; do printf ' %6s' "$(term "$dir" $name)"; done
    printf '   %5s +- %s %%' $(cat "$dir/probe")
    printf '   %5s +- %s %%\n' $(cat "$dir/knn")
  done
  cat "$out/$run"-[012]/probe | awk -v run=$run '
    { x[NR] = $1; sum += $1 }
    END { mean = sum / NR
          for (i = 1; i <= NR; i++) square += (x[i] - mean) ^ 2
          printf "%-4s mean of %d seeds %18s %5.1f +- %.1f %%\n", run, NR, "", mean,
                 sqrt(square / (NR - 1) / NR) }'
done
shown modistc plot "$out/edge-0" "$out/rgb-0" "--videos=$train" "--maps=$out/edge" -o "$out/picture.svg" --rows=8
