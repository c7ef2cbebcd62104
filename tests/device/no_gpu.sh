#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# no_gpu.sh LAUNCHER: without a GPU the launcher says so and exits 4; with one this is skipped.
out=$("$1" --name)
code=$?
echo "$out"
[ $code = 0 ] && exit 77
case $out in
  "no GPU here: "*) [ $code = 4 ] ;;
  *) exit 1 ;;
esac
