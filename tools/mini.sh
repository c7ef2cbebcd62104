#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The miniature experiment (docs/mini.md): MoDist and RGB-only on made videos of eight motions, with the
# same settings; then how well the motions can be read from what each has learnt. build/bin/modistc is
# there after `sh tools/demo.sh`.
#   sh tools/mini.sh DIR [SPLIT [STEPS]]    SPLIT: tune (usual) or test; STEPS: fewer, to try it out
set -eu
cd "$(dirname "$0")/.."
if [ $# -lt 1 ]; then
  echo "usage: sh tools/mini.sh DIR [SPLIT [STEPS]]" >&2
  exit 2
fi
out=$1 split=${2:-tune} steps=${3:-440}
PATH=$PWD/build/bin:$PATH
shown() {
  echo
  echo "\$ $*"
  "$@"
}

mkdir -p "$out"
for part in train "$split"; do
  [ -f "$out/videos/$part.csv" ] || shown modistc dataset mini -o "$out/videos" --split="$part"
done
for mode in modist rgb; do
  shown modistc train -c configs/mini_$mode.yaml "data.train=$out/videos/train.csv" \
    "run.dir=$out/$mode" --max-steps="$steps"
  shown modistc eval probe "$out/videos/train.csv" "$out/videos/$split.csv" \
    --weights="$out/$mode/weights.safetensors" --to-end --confusion
  shown modistc eval knn "$out/videos/train.csv" "$out/videos/$split.csv" \
    --weights="$out/$mode/weights.safetensors" --to-end
done
shown modistc plot "$out/modist" "$out/rgb" -o "$out/losses.svg"
