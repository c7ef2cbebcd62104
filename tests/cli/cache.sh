#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What `cache prune` takes and what it leaves: objects by when they were last used, records that others stand in for.
#   cache.sh MODISTC
set -u
modistc=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
mkdir -m 700 cache
export LC_ALL=C NO_COLOR=1 MODIST_CACHE="$work/cache"
. "$here/../device/wants.sh"

for op in relu abs neg; do
  printf 'graph @%s(%%x: f32[4,8]) {\n  %%y = %s %%x\n  return %%y\n}\n' $op $op >$op.mdg
done
make() { "$modistc" compile "$1.mdg" -q -o "$1.mdx"; }
objects() { find cache -name '*.o' | sort; }
# age DAYS FILE...: last used, and made, so many days ago
age() {
  when=$(date -d "$1 days ago" '+%Y-%m-%d %H:%M')
  shift
  [ $# = 0 ] || touch -d "$when" "$@"
}
make relu
relu=$(objects)
[ -n "$relu" ] || wrong "nothing is kept"
age 30 $relu
make abs && abs=$(objects | grep -vxF "$relu")
age 10 $abs
make neg

# --- by age: not used for so long
wants 0 "kept $(objects | wc -l) objects" "$modistc" cache prune --older=31
wants 0 "kept $(objects | grep -vcxF "$relu") objects" "$modistc" cache prune --older=29
objects | grep -qxF "$relu" && wrong "what was not used for 30 days is still there"
# To be used again makes it young.
age 30 $abs
make abs
wants 0 "removed 0 objects" "$modistc" cache prune --older=5

# --- by size: what was not used for longest goes first, and no more than must. The second use of abs is one
# that file systems do not note by themselves (relatime).
make relu
all=$(objects)
age 3 $all
for op in abs relu neg abs; do
  make $op
  sleep 0.05
done
size() { stat -c %s "$@" | awk '{ n += $1 } END { print n }'; }  # without reading them
rest=$(printf '%s\n' $all | grep -vxF "$relu")
wants 0 "removed 1 objects" "$modistc" cache prune --max-size="$(size $rest)"
[ "$(objects)" = "$rest" ] || wrong "not the least recently used went: $(objects)"
wants 0 "removed 1 objects" "$modistc" cache prune --max-size=$(($(size $rest) - 1))
[ "$(objects)" = "$abs" ] || wrong "what was used last went before others"
wants 0 "removed 0 objects" "$modistc" cache prune --max-size=1G --older=2
touch cache/other.txt
wants 0 "removed $(objects | wc -l) objects" "$modistc" cache prune
[ -e cache/other.txt ] || wrong "a file that is no object is gone"

# --- records
record() {
  printf '{"key":"%s","target":"cuda:sm_90a","device":"%s","by":"device","region":"r","own":"a","own_us":9,"best":"b","best_us":%s,"ways":[{"way":"b","us":3}]}\n' \
    "$1" "$2" "$3"
}
one=00000000000000000000000000000001 two=00000000000000000000000000000002
{ record $one "NVIDIA H200" 1; record $one "NVIDIA H100" 2; record $two "NVIDIA H200" 3; record $one "NVIDIA H200" 4; } >in.jsonl
wants 0 "took 4 records" "$modistc" cache import in.jsonl
wants 0 "tuning: 3 records" "$modistc" cache ls
"$modistc" cache export before.jsonl -q
wants 0 "removed 1 records of tuning that later ones stand in for" "$modistc" cache prune
[ "$(grep -c key cache/tuning.jsonl)" = 3 ] || wrong "lines: $(cat cache/tuning.jsonl)"
grep -q '"best_us":1,' cache/tuning.jsonl && wrong "the older record stayed"
"$modistc" cache export after.jsonl -q
cmp -s before.jsonl after.jsonl || wrong "pruning has changed what counts"
cp cache/tuning.jsonl before.jsonl
"$modistc" cache prune >/dev/null
cmp -s before.jsonl cache/tuning.jsonl || wrong "there was nothing to leave out"
# Of several that write at once, and one that prunes, nothing is lost.
for i in 1 2 3 4 5 6 7 8; do
  record "0000000000000000000000000000010$i" "NVIDIA H200" 1 >"in$i.jsonl"
  cat "in$i.jsonl" in.jsonl >"both$i.jsonl"
  "$modistc" cache import "both$i.jsonl" -q &
  "$modistc" cache prune >/dev/null &
done
wait
wants 0 "tuning: 11 records" "$modistc" cache ls
wants 0 "removed the records of tuning" "$modistc" cache prune --records
wants 0 "there were no records of tuning" "$modistc" cache prune --records

# --- what a user can get wrong
wants 2 "--older is '0'" "$modistc" cache prune --older=0
wants 2 "--max-size is 'much'" "$modistc" cache prune --max-size=much
wants 2 "--older would do nothing: only prune removes anything" "$modistc" cache ls --older=3

[ $failed = 0 ] && echo "cache: all well"
[ $failed = 0 ]
