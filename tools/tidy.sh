#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# clang-tidy, warnings are errors; .clang-tidy says which. Needs the build in build/.
#   sh tools/tidy.sh          the code that meets the outside first: files, settings, videos, artefacts, API
#   sh tools/tidy.sh --all    every file: minutes, so before a release
set -eu
cd "$(dirname "$0")/.."
which='/(base|api|runtime/exec|runtime/video|runtime/train)/[a-z_]*\.c$'
case ${1:-} in
  '') ;;
  --all) which='\.c$' ;;
  *) echo "usage: sh tools/tidy.sh [--all]" >&2; exit 2 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ok=yes
run-clang-tidy-19 -p build -quiet -j "$(nproc)" "$PWD$which" >"$work/out" 2>"$work/err" || ok=no
grep -vE '^\[|^$|^[0-9]+ warnings? (generated|treated as errors?)' "$work/out" || true
files=$(grep -cE '^\[ *[0-9]+/[0-9]+\]' "$work/out" || true)
[ "$files" -gt 0 ] || { cat "$work/err"; echo "clang-tidy saw no file"; exit 1; }
echo "clang-tidy: $files files"
[ $ok = yes ]
