#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The data tools from end to end, on made videos: index, stat, check, bench loader, training from an
# index, its picture. What they say must fit together.
#   tools.sh BIN_FOLDER
set -eu
bin=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PATH=$bin:$PATH
export PATH LC_ALL=C NO_COLOR=1 MODIST_CACHE="$work/cache"
cd "$work"
need() { # what, file, pattern
  grep -q -- "$3" "$2" || { echo "$1: no '$3' in"; cat "$2"; exit 1; }
}

modistc dataset shapes -o v --videos=5 --size=32 --seconds=1 --quiet
echo "this is no video" >v/broken.mp4
mkfifo v/fifo.mp4

modistc dataset index v -o index.csv -j 3 >out 2>err
need index out 'wrote index.csv: 5 videos, 0.00 hours; 0 damaged, 2 broken'
need index err 'v/broken.mp4: warning: left out'
need index err 'v/fifo.mp4: warning: left out: is a FIFO'
[ ! -e index.csv.part ] || { echo "index.csv.part is left"; exit 1; }
[ "$(grep -c '^v/shapes_' index.csv)" = 5 ] || { echo "not 5 rows:"; cat index.csv; exit 1; }

# Stopped after two rows, and again from nothing: the same file, whatever the number of workers.
head -3 index.csv >again.csv.part
modistc dataset index v -o again.csv -j 1 -q 2>err
cmp index.csv again.csv
# A label that was written into an index stays.
sed 's/^\(v\/shapes_0001.mkv\),-1,/\1,4,/' index.csv >labels.csv
modistc dataset index v -o labels.csv -q 2>err
need labels labels.csv '^v/shapes_0001.mkv,4,'

modistc dataset stat index.csv >out
need stat out 'videos    5: 5 good'
need stat out 'too short 5'
modistc dataset stat index.csv --span=20 --format=json >out
need stat-json out '"schema": "modist.dataset.stat/1"'
need stat-json out '"too_short": 0'
modistc dataset stat v --format=csv >out
need stat-csv out '^size,32x32,5,5.000$'
need stat-csv out '^verdict,broken,2,$'

code=0
modistc dataset check v --full-decode --quarantine=bad.csv --format=csv >out 2>err || code=$?
[ "$code" = 5 ] || { echo "check: exit $code"; exit 1; }
need check out '^v/shapes_0000.mp4,good,mpeg4,32,32,30,1,0,0,$'
[ "$(wc -l <bad.csv)" = 3 ] || { echo "not 2 broken videos:"; cat bad.csv; exit 1; }
need quarantine bad.csv '^v/broken.mp4,is not a video'
modistc dataset check index.csv --format=json >out
need check-json out '"good": 5'

modistc bench loader index.csv clip.size=32 mclip.size=32 batch=2 -n 2 >out
need bench out '^16 clips of 4 samples in'
need bench out '^decode '
need bench out '^mpeg4 '
echo 'model: {name: modist-tiny}' >tiny.yaml
modistc bench loader -c tiny.yaml data.train=index.csv batch=2 data.workers=0 -n 1 --warmup=1 \
  --step-ms=1 --format=json -o bench.json
need bench-json bench.json '"schema": "modist.bench/2"'
need bench-json bench.json '"clips": 8'
need bench-json bench.json '"codec": "mpeg4"'

modistc train data.train=v run.dir=run batch=2 bank.size=4 aug.color=0.8 aug.gray=0.2 aug.blur=0.5 \
  --backend=interp --max-steps=7 epochs=4 -q 2>err
need quarantine run/quarantine.txt '^v/broken.mp4,is not a video'
modistc train data.train=labels.csv run.dir=run2 batch=2 bank.size=4 --backend=interp \
  --max-steps=2 -q 2>err
[ ! -e run2/quarantine.txt ] || { echo "an index names broken videos"; exit 1; }

# A broken video does not end a picture.
modistc dataset flow v -o maps --kind=flow --short-side=32 -q 2>err || [ $? = 5 ]
modistc plot run run2 --videos=v --maps=maps --rows=3 --frames=4 -o picture.svg >out 2>err
need plot out '^wrote picture.svg$'
need plot err '^v/broken.mp4: warning: is left out: is not a video'
need plot picture.svg '<polyline'
need plot picture.svg 'optical flow back in time (red: to the right) between frames 5/30 s apart'
[ "$(grep -c '<image' picture.svg)" = 3 ] || { echo "not 3 videos in the picture"; exit 1; }
modistc plot --videos=labels.csv --rows=2 -o sheet.svg -q
need sheet sheet.svg '>shapes_0001.mkv, label 4, a frame every'
need sheet sheet.svg 'the difference of neighbouring frames'
! grep -q '<polyline' sheet.svg || { echo "curves of no run"; exit 1; }
