#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every test: installs what is missing, builds, tests, and prints where the time went.
#   sh tools/test.sh          everything but `slow`
#   sh tools/test.sh --all    everything
# The last line is "N passed, N failed, N skipped"; the exit code is 1 when something failed.
set -u
cd "$(dirname "$0")/.." || exit 1
exclude='^slow$'
case ${1:-} in
  '') ;;
  --all) exclude='^$' ;;
  *) echo "usage: sh tools/test.sh [--all]" >&2; exit 2 ;;
esac

passed=0 failed=0 skipped=0 table="" log=""
jobs=$(nproc)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# part <name> <command>...: runs it, and keeps its seconds and its verdict ($ok) for the table.
part() {
  name=$1
  shift
  echo "== $name"
  start=$(date +%s)
  ok=yes
  "$@" || ok=no
  table="$table$(printf '%-34s %6d s   %s' "$name" $(($(date +%s) - start)) "$ok")
"
}

# A part that counts as one test.
check() {
  part "$@"
  if [ $ok = yes ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    log="$log  $1
"
  fi
}

# suite <name> <preset's folder> <ctest options>...: each ctest test counts.
suite() {
  name=$1 dir=$2
  shift 2
  xml=$work/result.xml
  rm -f "$xml"
  part "$name" ctest --test-dir "$dir" --output-on-failure --no-tests=error -j "$jobs" \
    --output-junit "$xml" "$@"
  if [ ! -s "$xml" ]; then
    failed=$((failed + 1))
    log="$log  $name: nothing ran
"
    return
  fi
  all=$(grep -c '<testcase ' "$xml")
  run=$(grep -c '<testcase .*status="run"' "$xml")
  skip=$(grep -c 'message="SKIP_RETURN_CODE' "$xml")
  # What is neither run nor skipped by its own word could not be started: a failure.
  passed=$((passed + run))
  skipped=$((skipped + skip))
  failed=$((failed + all - run - skip))
  log="$log$(sed -n 's/.*<testcase name="\([^"]*\)".*status="fail".*/  '"$dir"': \1 (repeat: ctest --test-dir '"$dir"' --output-on-failure -R ^\1$)/p' "$xml")
"
}

# Warnings fail here, though not in a user's own build.
build() { cmake --preset "$1" -DMODIST_WERROR=ON && cmake --build --preset "$1"; }

part "dependencies" sh tools/deps.sh
if [ $ok = no ]; then
  echo "0 passed, 1 failed, 0 skipped"
  exit 1
fi

# Where tools/deps.sh found nothing for AArch64, the tests that need this are skipped.
[ -d /usr/local/aarch64-linux-gnu ] && check "build aarch64" build aarch64
check "build release" build release
[ $ok = yes ] && suite "tests (release)" build -LE "$exclude"
check "build dev (sanitizers)" build dev
[ $ok = yes ] && suite "tests (dev)" build-dev -L '^(unit|ir|errors)$' -LE "$exclude"
check "direction of includes" sh tools/check_includes.sh
check "format" sh tools/format.sh --check
# Of the build above.
[ -f build/compile_commands.json ] && check "clang-tidy" sh tools/tidy.sh

echo
echo "budget"
printf '%s' "$table"
if [ $failed -gt 0 ]; then
  echo "failed:"
  printf '%s' "$log" | grep -v '^$'
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
