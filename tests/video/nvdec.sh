#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Whoever decodes the videos, a run learns the same: data.decode without a GPU, and with a double of its
# decoder that takes all files, none, or fails on the way.
#   nvdec.sh MODISTC NVDEC_DOUBLE CONFIG
set -u
modistc=$1 double=$2 config=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export LC_ALL=C NO_COLOR=1 MODIST_CACHE="$work/cache"
failed=0
wrong() {
  failed=$((failed + 1))
  echo "FAILED $*"
  sed 's/^/  /' out
}

"$modistc" dataset shapes -o videos --videos=5 --size=34 --seconds=2 -q || exit 1
# Frames of one are damaged: the GPU would not tell, the CPU does.
cp videos/shapes_0001.mkv videos/hurt.mkv
printf 'no part of a video, but of something else' | dd of=videos/hurt.mkv bs=1 conv=notrunc 2>/dev/null \
  seek=$(($(wc -c <videos/hurt.mkv) / 2))

# What a driver has for decoding, and FFmpeg opens; the double needs none of it.
mkdir driver
ln -s "$double" driver/libnvcuvid.so.1
driver="$work/driver"

# train NAME DECODE BEHAVIOUR WORKERS: three steps; the arrays of the weights go to NAME.
train() {
  preload=$double path=$driver
  [ "$3" = none ] && preload='' path=''
  env MODIST_NVDEC_DOUBLE="$3" LD_PRELOAD="$preload" LD_LIBRARY_PATH="$path" "$modistc" train -c "$config" data.train=videos \
    data.decode=$2 data.workers=$4 batch=3 epochs=3 run.tensorboard=false run.dir=run --overwrite >out 2>&1 ||
    wrong "$1: exit code $?"
  # Behind 8 bytes with the length of the head, which has the settings, and that.
  head=$(od -An -tu8 -N8 run/weights.safetensors)
  tail -c +$((head + 9)) run/weights.safetensors >$1
  [ -s $1 ] || wrong "$1: no weights"
  [ $1 = cpu ] || cmp cpu $1 || wrong "$1: not the same weights"
}
says() { grep -qF -- "$1" out || wrong "no '$1' in"; }
says_not() { ! grep -qF -- "$1" out || wrong "'$1' in"; }

train cpu cpu none 2
says_not "GPU"
says_not "; 0 damaged"
if ! "$modistc" doctor | grep -q '^cuda:0'; then
  train none nvdec none 2
  says "warning: FFmpeg has no decoder on GPU 0: "
  says "; the CPU does it"
  train silent auto none 2
  says_not "GPU"
else # A real one: these videos are of a codec that leaves it some freedom, so the weights are only looked at.
  # Of less than 48 pixels it decodes none.
  "$modistc" dataset shapes -o larger --videos=5 --size=128 --seconds=2 -q || exit 1
  "$modistc" train -c "$config" data.train=larger data.decode=nvdec batch=3 epochs=3 run.tensorboard=false \
    run.dir=real >out 2>&1 || wrong "on a real GPU: exit code $?"
  if ldconfig -p | grep -q libnvcuvid; then says "frames were decoded by the GPU"
  else says "warning: FFmpeg has no decoder on GPU 0: libnvcuvid.so.1: "; fi
fi
train refused nvdec refuses 2
says "warning: GPU 0 does not decode some mpeg4 video, by its profile or size; the CPU does it"
[ "$(grep -c 'GPU 0' out)" = 1 ] || wrong "told more than once"
# Of colours that are not 4:2:0, which a GPU would make so without a word, none goes there.
if command -v ffmpeg >/dev/null; then
  mkdir pale && ffmpeg -v error -f lavfi -i testsrc=size=64x64:duration=2:rate=25 -pix_fmt yuvj422p -c:v mjpeg pale/a.mkv
  MODIST_NVDEC_DOUBLE=decodes LD_PRELOAD="$double" LD_LIBRARY_PATH="$driver" "$modistc" bench loader pale data.decode=nvdec \
    >out 2>&1 || wrong "4:2:2: exit code $?"
  says "GPU 0 does not decode mjpeg video in yuvj422p; the CPU does it"
fi
train silently auto refuses 1
says_not "GPU"
train decoded auto decodes 2
says "frames were decoded by the GPU"
# Only what somebody looks at is fetched.
awk '/^double: / { n++; few = $2 > 0 && $2 < $4 } END { exit !(n == 1 && few) }' out || wrong "frames that nobody wants, or none"
train alone auto decodes 0
driver=$work train bare nvdec decodes 1
says "warning: FFmpeg has no decoder on GPU 0: libnvcuvid.so.1: "
says_not "double: "
for n in 0 1 40; do train "lost$n" auto fails:$n 2; done
given_up="warning: GPU 0 does not decode anything any more: 8 files in a row failed; the CPU does it"
train lost nvdec fails:200 1
says "$given_up"
says "frames were decoded by the GPU"
# Each file is given back after its first frame: what was decoded of it counts for nothing.
train halves nvdec every:2 1
says "$given_up"
says_not "frames were decoded by the GPU"
# Most files fail, but never so many in a row.
train some nvdec every:70 1
says_not "in a row"
says "frames were decoded by the GPU"
for n in 1 2 40; do
  train "sent$n" nvdec sends:$n 1
  says "$given_up"
done
train shut nvdec shut 1
says "$given_up"

# A dry run measures the CPU, and what it could not measure it does not know.
plan() {
  env MODIST_NVDEC_DOUBLE=$1 LD_PRELOAD="$double" LD_LIBRARY_PATH="$driver" "$modistc" train -c "$config" data.train=videos data.decode=nvdec \
    batch=3 --dry-run >out 2>&1 || wrong "a plan: exit code $?"
}
plan decodes
says "s a step of one worker by the CPU ("
says ", bound by "
plan blind
says "decoding          not known: no sample could be decoded"
says_not ", bound by "

echo "$failed failed"
[ $failed = 0 ]
