#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the build into a temporary folder and builds the examples against that alone: once through
# the CMake package, once through pkg-config. Then runs them.
#   installed.sh BUILD_FOLDER SOURCE_FOLDER C_COMPILER
set -eu
build=$1 source=$2 cc=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { echo "== $*"; }

say install
cmake --install "$build" --prefix "$work/usr" >"$work/log" || { cat "$work/log"; exit 1; }
strange=$(cd "$work/usr/include" && find . -type f ! -path './modist/*')
[ -z "$strange" ] || { echo "installed headers beyond include/modist: $strange"; exit 1; }
cp -r "$source/examples" "$work/examples"

say find_package
cmake -S "$work/examples" -B "$work/out" -DCMAKE_PREFIX_PATH="$work/usr" -DCMAKE_C_COMPILER="$cc" \
  -DCMAKE_C_FLAGS="-Wall -Wextra -Werror" >"$work/log" && cmake --build "$work/out" >>"$work/log" ||
  { cat "$work/log"; exit 1; }

say run
cd "$work"
out/declare_and_run line.mdx
out/inspect_step
out/train_tiny 20

say pkg-config
pc=$(dirname "$(find "$work/usr" -name modist.pc)")
export PKG_CONFIG_PATH="$pc"
# shellcheck disable=SC2046
"$cc" -std=c17 -Wall -Wextra -Werror $(pkg-config --cflags modist) examples/declare_and_run.c \
  -o by_pkg_config $(pkg-config --libs modist)
LD_LIBRARY_PATH=$(pkg-config --variable=libdir modist) ./by_pkg_config line.mdx

say programs
usr/bin/modistc run line.mdx --steps=3
usr/bin/modist_rt line.mdx --steps=3
usr/bin/modistc run out/small_net.so --verify
for graph in examples/graphs/*.mdg; do usr/bin/modistc run "$graph" --verify; done
usr/bin/modistc compile out/small_net.so -o net.mdx
usr/bin/modist_rt net.mdx
echo "all examples ran"
