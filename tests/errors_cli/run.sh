#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What users are told about mistakes in settings and on the command line. A case is a file:
#   # what it shows
#   --- a.yaml            text of a file, up to the next line with --- or $
#   $ modistc train -c a.yaml
#   exit 2
#   all that stands on standard error
# The whole text and the exit code are compared, and nothing may be written beside the given files.
# `videos` in the work folder is a set of two made videos; paths are those that the case names.
#   sh run.sh MODISTC [--update]    --update writes what is told today; read the difference.
set -u
bin=$(cd "$(dirname "$1")" && pwd)
cases=$(cd "$(dirname "$0")" && pwd)
update=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PATH=$bin:$PATH
export LC_ALL=C NO_COLOR=1 MODIST_CACHE="$work/cache"
modistc dataset shapes -o "$work/videos" --videos=2 --size=32 --seconds=1 --quiet || exit 1

failed=0 num=0
for case in "$cases"/*.case; do
  num=$((num + 1))
  dir=$work/case
  rm -rf "$dir" "$work/told" "$work/head"
  mkdir "$dir"
  ln -s ../videos "$dir/videos"
  awk -v dir="$dir" '
    /^--- / { file = dir "/" $2; printf "" > file; next }
    /^\$ /  { file = "" ; print substr($0, 3) > (dir "/../command"); exit }
    file != "" { print > file }' "$case"
  before=$(find "$dir" | sort)
  (cd "$dir" && sh ../command > ../out 2> ../err)
  code=$?
  sed '/^\$ /q' "$case" > "$work/head"
  { cat "$work/head"; echo "exit $code"; cat "$work/err"; } > "$work/told"
  if [ "$before" != "$(find "$dir" | sort)" ]; then
    echo "$(basename "$case"): left something behind:"
    find "$dir" -newer "$work/command"
    failed=$((failed + 1))
  elif cmp -s "$work/told" "$case"; then
    :
  elif [ "$update" = --update ]; then
    cp "$work/told" "$case"
  else
    echo "$(basename "$case"): not what the case expects:"
    diff "$case" "$work/told"
    failed=$((failed + 1))
  fi
done
echo "$num cases, $failed differ"
[ $failed = 0 ] && [ $num -gt 0 ]
