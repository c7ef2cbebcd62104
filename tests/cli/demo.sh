#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tools/demo.sh on a folder of one's own, with everything real but installing and building: a broken
# video does not end it, FOLDER is meant from where one stands, and nothing of one's own is deleted.
#   demo.sh SOURCE_FOLDER BIN_FOLDER
set -eu
source=$(cd "$1" && pwd) bin=$(cd "$2" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/tree/tools" "$work/tree/build" "$work/fake"
cp "$source/tools/demo.sh" "$source/tools/scores.sh" "$work/tree/tools"
ln -s "$source/configs" "$work/tree/configs"
ln -s "$bin" "$work/tree/build/bin"
: >"$work/tree/tools/deps.sh"
echo '#!/bin/sh' >"$work/fake/cmake"
chmod +x "$work/fake/cmake"
PATH=$work/fake:$PATH
export PATH LC_ALL=C MODIST_CACHE="$work/cache"
fail() {
  echo "$*"
  cat "$work/out"
  exit 1
}

cd "$work"
mkdir my
"$bin/modistc" dataset shapes -o my/videos --videos=3 --size=32 --seconds=1 -q
echo "this is text" >my/videos/broken.mp4
cd my
sh ../tree/tools/demo.sh videos >"$work/out" 2>&1 || fail "ended with $?"
[ -s "$work/tree/build/demo/run/weights.safetensors" ] || fail "no weights"
grep -q '<polyline' "$work/tree/build/demo/picture.svg" || fail "no curves"
[ "$(grep -c '<image' "$work/tree/build/demo/picture.svg")" = 3 ] || fail "not three videos in the picture"

mkdir "$work/tree/build/demo/own"
cp videos/*0.mp4 "$work/tree/build/demo/own"
for folder in nowhere ../tree/build/demo/own --help; do
  code=0
  sh ../tree/tools/demo.sh "$folder" >"$work/out" 2>&1 || code=$?
  [ $code = 2 ] || fail "$folder: exit $code"
done
[ -s "$(echo "$work"/tree/build/demo/own/*0.mp4)" ] || fail "a video of one's own is gone"

# mini.sh, called again, judges again what it has learnt before.
PATH=$bin:$PATH
for time in first second; do
  sh -euc '. "$0/tools/scores.sh"; judge "$@"' "$source" "$work/tree/build/demo/run" videos/videos.csv \
    videos/videos.csv >"$work/out" 2>&1 || fail "judged for the $time time: $?"
done
