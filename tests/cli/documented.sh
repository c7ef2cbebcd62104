#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the documentation says works: every file of configs/ holds valid settings, and every command
# line of modistc and modist_rt in README.md and docs/ runs, in order, on made videos. What is left
# out on purpose is named here: words that stand for something (COMMAND, CODE, `...`), comparisons of
# times, which the machine decides, and the roadmap.
# The tiny model stands in for the large ones, two steps on 48 videos for the miniature
# experiment, images of 8 x 8, once, for all convolutions of a network: they take minutes.
#   documented.sh SOURCE_FOLDER BIN_FOLDER PLUGIN_FOLDER
set -eu
source=$(cd "$1" && pwd) bin=$(cd "$2" && pwd) plugins=$(cd "$3" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/build/demo" "$work/tests"
cd "$work"
ln -s "$bin" build/bin
ln -s "$source/configs" configs
ln -s "$source/examples" examples
ln -s "$source/tests/golden" tests/golden
cp "$plugins/plugin_good.so" small_net.so
PATH=$bin:$PATH
export PATH LC_ALL=C NO_COLOR=1 MODIST_CACHE="$work/cache"
modistc dataset shapes -o FOLDER --videos=8 --size=64 --seconds=1 -q
ln -s FOLDER videos
ln -s FOLDER VIDEOS
for split in train test; do modistc dataset mini -o . --split=$split --videos=16 -q; done

total=0 failed=0
try() {
  total=$((total + 1))
  code=0
  sh -c "$1" >out 2>&1 </dev/null || code=$?
  [ $code = 0 ] && return
  failed=$((failed + 1))
  echo "exit $code: $1"
  cat out
}

for config in configs/*.yaml; do try "modistc config check -c $config"; done
[ $total -gt 0 ]

# Lines of code blocks, less prompt and comment; then commands within sentences.
for page in "$source/README.md" "$source"/docs/*.md; do
  case $page in */ROADMAP.md) continue ;; esac
  sed -nE 's/^(\$ |    (\$ )?)(build\/bin\/)?(modistc|modist_rt) /\4 /p' "$page" | sed 's/  *#.*//'
  { grep -o '`modistc [^`]*`' "$page" || true; } | tr -d '`'
done | sed -E 's/modist-r3d[0-9]+/modist-tiny/; s/train -c configs\/mini_[a-z]+\.yaml/& --max-steps=2/
  s/dataset mini -o [^;]*/& --videos=48/
  s/bench conv( |$)/bench conv --sweep n=1 --sweep h=8 --sweep w=8 -n 1 --warmup=0\1/
  s/-c (CONFIG|FILE)/-c configs\/modist_tiny.yaml/' >commands
[ "$(wc -l <commands)" -ge 15 ]
modistc targets | grep -q 'NVRTC [0-9]' || { sed -i '/cuda/d; /contrast/d' commands; echo 'no NVRTC: CUDA is left out'; }
modistc doctor | grep -q '^cuda:0' || { sed -i '/--device=cuda/d; /^modist_rt contrast/d' commands; echo 'no GPU: left out'; }
[ -e "$bin/../tests/simt/modist_simt.so" ] || { sed -i '/backend=simt/d' commands; echo 'no module that runs CUDA text: it is left out'; }
while IFS= read -r command; do
  case $command in *...* | *COMMAND* | *CODE* | *'bench compare'*) continue ;; esac
  try "$command"
done <commands
echo "$total settings and command lines, $failed fail"
[ $failed = 0 ]
