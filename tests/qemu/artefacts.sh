#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# artefacts.sh BIN: an artefact runs on the machine that it is for, and says why not on another.
set -eu
bin=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

# refused <exit code> <text> <command>...
refused() {
  code=0 want=$2
  expected=$1
  shift 2
  "$@" >said 2>&1 || code=$?
  if [ $code != "$expected" ] || ! grep -qF "$want" said; then
    echo "$*: exit $code, not $expected with '$want':"
    cat said
    exit 1
  fi
}

"$bin/modistc" compile -q modist-tiny --target=cpu:aarch64 -o arm.mdx
"$bin/modistc" compile -q modist-tiny --target=cpu:x86-64 -o x86.mdx
"$bin/modist_rt" arm.mdx --inspect | grep -F '"target": "cpu:aarch64+armv8-a"' >/dev/null
$MODIST_TEST_RT arm.mdx --steps=2 >there
"$bin/modist_rt" x86.mdx --steps=2 >here
# Names, shapes and how many: the numbers are compared in test_cpu_nets.
sed -n 's/ = .*//p' there >there.names
sed -n 's/ = .*//p' here | diff - there.names
grep -q '^loss f32' there.names

refused 4 "it is code for AArch64, and this machine is x86-64" "$bin/modist_rt" arm.mdx
refused 4 "hint: modistc compile ... --target=cpu:host -o arm.mdx" "$bin/modistc" run arm.mdx
refused 4 "it is code for x86-64, and this machine is AArch64" $MODIST_TEST_RT x86.mdx
refused 4 "hint: modistc compile ... --target=cpu:aarch64 -o x86.mdx" $MODIST_TEST_RT x86.mdx
refused 4 "this machine cannot run code for cpu 'aarch64'" \
  "$bin/modistc" run modist-tiny --cpu=aarch64
