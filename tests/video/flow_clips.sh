#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every real clip gets its maps, and a second run keeps them all.
#   flow_clips.sh MODISTC FOLDER      exit 77: the folder is not there
set -eu
[ -f "$2/manifest.csv" ] || { echo "no clips in $2: skipped"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$1" dataset flow "$2" -o "$work/maps" | tee "$work/first"
"$1" dataset flow "$2" -o "$work/maps" | tee "$work/second"
clips=$(($(wc -l <"$2/manifest.csv") - 1))
grep -q "^$clips of $clips videos .* $clips made, 0 kept, 0 failed" "$work/first"
grep -q "^$clips of $clips videos .* 0 made, $clips kept, 0 failed" "$work/second"
[ "$(find "$work/maps" -name '*.mmap1' | wc -l)" = "$clips" ] && [ ! -e "$work/maps/quarantine.txt" ]
