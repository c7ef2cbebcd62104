#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The library and, for plug-ins, the program show the public API and nothing else.
#   visible.sh INCLUDE_FOLDER FILE...
set -eu
include=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# What the header declares.
cat "$include"/modist/*.h | tr '\n' ' ' | grep -o 'MODIST_API [^;(]*(' |
  sed -n 's/.*[ *]\(modist_[a-z0-9_]*\)($/\1/p' | sort >"$work/declared"
[ -s "$work/declared" ]
for file; do
  nm -D --defined-only "$file" >"$work/symbols"
  # Names that begin with '_', and data_start, are the tool chain's; 'name@VERSION' is libc's data.
  awk '{ print $3 }' "$work/symbols" | grep -vE '^_|^data_start$|@' | sort >"$work/shown"
  diff "$work/declared" "$work/shown" || { echo "$file: does not show what the header declares"; exit 1; }
done
