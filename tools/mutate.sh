#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Do the tests of the passes notice mistakes? Plants one mistake at a time into a copy of a pass
# (build-mutate/), builds it, and runs the text and number tests of passes.
#   sh tools/mutate.sh                    all passes
#   sh tools/mutate.sh passes/canon.c     these
# Kinds: `guard` never refuses, `swap` exchanges the operands of a subtraction or quotient, `limit`
# counts one reader more. Prints KILLED or SURVIVED for each, then a figure; exits 1 when one survived.
set -eu
cd "$(dirname "$0")/.."
copy=build-mutate/src
[ $# -gt 0 ] || set -- passes/*.c

mkdir -p $copy
git ls-files | tar -cf - -T - | tar -xf - -C $copy
cmake -S $copy -B build-mutate/build -G Ninja -DCMAKE_BUILD_TYPE=Release > build-mutate/configure.log
targets="mdopt test_passes"

# check: builds and tests the copy as it is.
check() {
  cmake --build build-mutate/build --target $targets > build-mutate/build.log 2>&1 || return 2
  ctest --test-dir build-mutate/build -R '^(ir|test_passes)$' --stop-on-failure \
    > build-mutate/test.log 2>&1
}
check || { echo "mutate: the tests fail without a mistake; see build-mutate/" >&2; exit 1; }

# The sed program of a kind, to be applied to one line.
program() {
  case $1 in
    guard) printf '%s\n' 's/if (.*) return \(false\|NULL\|MD_NONE\|md_keep(\|"\)/if (0) return \1/' ;;
    swap) printf '%s\n' 's/md_\(sub\|div\)(b, \([^,()]*\), \([^,()]*\))/md_\1(b, \3, \2)/' ;;
    limit) printf '%s\n' 's/uses > 1/uses > 2/; s/uses == 1/uses <= 2/; s/uses != 1/uses > 2/' ;;
  esac
}

killed=0 survived=0
for file; do
  for kind in guard swap limit; do
    edit=$(program $kind)
    for line in $(sed -n "h; $edit; G; /^\(.*\)\n\1\$/!=" "$file"); do
      sed "$line{$edit;}" "$file" > "$copy/$file"
      code=0
      check || code=$?
      case $code in
        0) verdict=SURVIVED survived=$((survived + 1)) ;;
        2) verdict="no code" ;;
        *) verdict=KILLED killed=$((killed + 1)) ;;
      esac
      echo "$verdict  $file:$line $kind: $(sed -n "${line}s/^ *//p" "$file")"
    done
  done
  cp "$file" "$copy/$file"
done
echo "$killed killed, $survived survived"
[ $survived = 0 ]
