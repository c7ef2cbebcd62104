#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Wrong command lines: exit code and everything on stderr, as cases.txt says, and no file left behind.
#   run.sh BIN_FOLDER PLUGIN_FOLDER             judges
#   run.sh BIN_FOLDER PLUGIN_FOLDER --update    writes what happens into cases.txt, to be read
# A block of cases.txt is `$ command`, `exit N`, the lines of stderr; blocks are separated by a blank
# line. Commands run in a folder of their own with the files that `prepare` makes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$1" && pwd) plugins=$(cd "$2" && pwd) mode=${3:-judge}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PATH=$bin:$PATH
export PATH LC_ALL=C NO_COLOR=1 MODIST_CACHE="$work/cache"
unset MODIST_LOG MODIST_LLD MODIST_NVRTC XDG_CACHE_HOME CLICOLOR_FORCE || true
mkdir "$work/box" "$work/cache"
chmod 700 "$work/cache"

# A report of one line: file, schema, machine, line, samples.
report() {
  printf '{"schema": "modist.%s", "machine": {"cpu": "%s", "instructions": "avx2", "threads": 2},\n "rows": [{"what": "%s", "fused": {"samples_ms": [%s]}}]}\n' \
    "$2" "$3" "$4" "$5" >"$1"
}

prepare() {
  printf 'graph @g(%%x: f32[4,8]) {\n  %%y = relu %%x\n  return %%y\n}\n' >good.mdg
  printf 'graph @g(%%x: f32[4,8]) {\n  %%y = rellu %%x\n  return %%y\n}\n' >op.mdg
  printf 'graph @g(%%x: f32[4,8]) {\n  %%y = log %%x\n  return %%y\n}\n' >log.mdg
  for last in 'sum %l' 'sub %l, %l'; do
    printf 'graph @g(%%q: f32[2,4], %%bank: f32[3,4]) {\n  %%ids = constant {value=1} : i32[2]\n  %%none = constant {value=-2} : i32[3]\n  %%l, %%t, %%mean = nce_lse %%q, %%ids, %%bank, %%none\n  %%m = %s\n  return %%l, %%m\n}\n' "$last" >"bank_${last%% *}.mdg"
  done
  printf 'graph @g(%%x: f32[4,8]) {\n  %%y = affine %%x {scale=0.5}\n  return %%y\n}\n' >half.mdg
  printf 'graph @g(%%x: f32[4,8]) {\n  return %%x\n}\n' >same.mdg
  printf 'graph @g(%%x: f32[16], %%y: f32[16]) {\n  %%a = broadcast %%x {shape=[64,16], axes=[1]}\n  %%b = broadcast %%y {shape=[64,16], axes=[1]}\n  %%c = transpose %%b {axes=[1,0]}\n  %%t = sum %%c\n  %%u = sum %%a\n  return %%t, %%u\n}\n' >again.mdg
  printf 'graph @g(%%x: f32[1,8,1,2,2]) {\n  %%a = relu %%x : f32[1,8,1,2,2].c8\n  %%b = exp %%a\n  return %%b\n}\n' >block.mdg
  printf 'graph @g(%%x: f32[1,8,1,2,2].c4) {\n  %%y = relu %%x\n  return %%y\n}\n' >blocked_input.mdg
  printf 'graph @g(%%d: f32[1,4,2,2,2], %%w: f32[4,4,1,1,1]) {\n  %%x = conv3d_dgrad %%d, %%w {stride=[5,5,5], shape=[1,4,6,6,6]}\n  %%y = relu %%x\n  return %%y\n}\n' >stride.mdg
  printf 'graph @g(%%d: f32[1,4,1,2,2], %%w: f32[4,4,1,1,1], %%x: f32[1,4,1,2,2]) {\n  region @r {\n    %%dx = conv3d_dgrad %%d, %%w {shape=[1,4,1,2,2]}\n    %%dw = conv3d_wgrad %%d, %%x {shape=[4,4,1,1,1]}\n  }\n  return %%dx, %%dw\n}\n' >twins.mdg
  printf 'graph @g(%%x: f32[1,1,1,131072]) {\n  %%y = resize %%x {size=[131072,1]}\n  return %%y\n}\n' >resize.mdg
  # 2^60 ways lead from the last value to the first.
  awk 'BEGIN {
    print "graph @g(%x: f32[4,4]) {\n  region @r {\n    %m = matmul %x, %x\n    %v0 = add %x, %x"
    for (i = 1; i < 60; i++) printf "    %%v%d = add %%v%d, %%v%d\n", i, i - 1, i - 1
    print "  }\n  return %m, %v59\n}" }' >ways.mdg
  : >empty.mdg
  printf '\177ELF\002\001\001\000\033[31m' >binary.mdg
  : >empty.mdx
  echo hello >text.mdx
  echo hello >text.so
  echo hello >file
  echo hello >weights.safetensors
  printf 'batch: 4\nbatch: 8\n' >twice.yaml
  printf 'batsh: 4\n' >unknown.yaml
  printf 'batch: four\n' >word.yaml
  printf 'a: [\n' >broken.yaml
  printf 'model: {name: modist-mini}\n' >mini.yaml
  printf 'not a number\n' >x.npy
  report fast.json bench/2 A line 1,1.1,1.2,1.3,1.4
  report slow.json bench/2 A line 2,2.1,2.2,2.3,2.4
  report near.json bench/2 A line 1,1.15,1.25,1.35,9
  report few.json bench/2 A line 2,2,2
  report elsewhere.json bench/2 B line 1,1.1,1.2,1.3,1.4
  report other.json bench/2 A another 1,2
  report escape.json bench/2 A 'a\u001b[31m' 1,2
  report zero.json bench/2 A line 1,0
  report nothing.json bench/2 A line ''
  report old.json bench/1 A line 1
  row='{"what": "%s", "fused": {"samples_ms": [1,2]}}'
  for rows in 'many c a b' 'twice b a b'; do
    set -- $rows
    printf "{\"schema\": \"modist.bench/2\", \"rows\": [$row,$row,$row]}\n" "$2" "$3" "$4" >"$1.json"
  done
  printf "{\"schema\": \"modist.bench/2\", \"rows\": [$row,$row,$row]}\n" b c d >others.json
  printf '{"rows": []}\n' >noschema.json
  printf '{"schema": "modist.bench/2"}\n' >norows.json
  mkdir folder empty_videos
  modistc compile good.mdg -q -o good.mdx
  modistc compile good.mdg -q --emit=fused -o dump.mdg
  head -c 2000 good.mdx >cut.mdx
  { head -c 1000 good.mdx; printf '\377'; tail -c +1002 good.mdx; } >changed.mdx
  cp "$plugins"/*.so .
}

cd "$work/box"
prepare
files=$(find . | sort)
total=0 failed=0 command=
: >"$work/expected"
: >"$work/new"

finish_case() {
  [ -n "$command" ] || return 0
  total=$((total + 1))
  code=0
  sh -c "$command" >"$work/stdout" 2>"$work/stderr" </dev/null || code=$?
  { printf '$ %s\nexit %s\n' "$command" "$code"; cat "$work/stderr"; } >"$work/actual"
  { cat "$work/actual"; echo; } >>"$work/new"
  if [ "$(find . | sort)" != "$files" ]; then
    echo "$command: left files behind:"
    find . | sort | { echo "$files" | diff - /dev/fd/3 || true; } 3<&0
    failed=$((failed + 1))
  elif [ "$mode" = judge ] && ! diff "$work/expected" "$work/actual" >"$work/diff"; then
    echo "$command:"
    cat "$work/diff"
    failed=$((failed + 1))
  fi
  command=
  : >"$work/expected"
}

while IFS= read -r line; do
  case $line in
    '#'*) [ "$mode" = judge ] || printf '%s\n' "$line" >>"$work/new" ;;
    '$ '*) finish_case; command=${line#??}; printf '%s\n' "$line" >"$work/expected" ;;
    '') finish_case ;;
    *) printf '%s\n' "$line" >>"$work/expected" ;;
  esac
done <"$here/cases.txt"
finish_case
if [ "$mode" = --update ]; then cp "$work/new" "$here/cases.txt"; fi

# Numbers are written and read the same way whatever the locale.
mkdir "$work/locales"
if localedef --no-archive -i de_DE -f UTF-8 "$work/locales/de_DE.UTF-8" 2>/dev/null; then
  total=$((total + 1))
  modistc compile half.mdg --emit=graph >"$work/c"
  grep -q 'scale=0.5' "$work/c" || failed=$((failed + 1))
  # glibc itself loses a few bytes when it reads LOCPATH.
  ASAN_OPTIONS=detect_leaks=0 LOCPATH=$work/locales LC_ALL=de_DE.UTF-8 \
    modistc compile half.mdg --emit=graph >"$work/de" || true
  cmp "$work/c" "$work/de" || failed=$((failed + 1))
else
  echo "no sources of locale de_DE (apt-get install locales): not tried"
fi
echo "$total command lines, $failed wrong"
[ "$failed" = 0 ] && [ "$total" -gt 40 ]
