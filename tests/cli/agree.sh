#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two commands that are asked the same say the same: random inputs do not depend on who draws them,
# and a memory limit means the same bytes everywhere.
#   agree.sh BIN_FOLDER
set -eu
bin=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
PATH=$bin:$PATH
export PATH LC_ALL=C MODIST_CACHE="$work/cache"
failed=0
wrong() {
  echo "$*"
  failed=1
}

# Every kind of element, and a result that is an updated state, which costs a copy beside the arena.
cat >all.mdg <<'END'
graph @all(%f: f32[5,3], %i: i32[4], %l: i64[4], %u: u8[7], %b: bool[9]) {
  %s = state @s {init=normal, b=1} : f32[5,3]
  %n = add %s, %f
  %old = mul %s, %f
  update @s = %n
  return %f, %i, %l, %u, %b, %n, %old, %s
}
END
modistc compile all.mdg -q -o all.mdx
names="f i l u b n old s"
ours='' theirs=''
for n in $names; do ours="$ours -o $n=ours_$n.npy" theirs="$theirs --output=$n=@theirs_$n.npy"; done
for steps in 1 2; do
  modistc run all.mdx -q --seed=3 --steps=$steps $ours
  modist_rt all.mdx --seed=3 --steps=$steps $theirs >/dev/null
  for n in $names; do cmp "ours_$n.npy" "theirs_$n.npy" || wrong "'$n' differs after $steps steps"; done
  cp ours_f.npy f_$steps.npy
done
! cmp -s f_1.npy f_2.npy || wrong "the second step has the inputs of the first"

# Labels are drawn inside of what every model has: a NaN would be a disagreement.
modistc run modist-tiny model.mode=supervised model.classes=3 batch=4 --verify >out 2>&1 ||
  wrong "supervised: $(cat out)"

# Upwards by an eighth: compile, run and modist_rt change their mind at the same limit.
limit=64 refused=0 allowed=0
while [ $limit -lt 4000000 ]; do
  codes=
  for command in "modistc compile all.mdg -q" "modistc run all.mdg -q" "modistc run all.mdx -q" \
    "modist_rt all.mdx"; do
    code=0
    $command --memory-limit=$limit >/dev/null 2>err || code=$?
    codes="$codes $code"
  done
  case $codes in
    ' 0 0 0 0') allowed=$((allowed + 1)) ;;
    ' 6 6 6 6') refused=$((refused + 1)) ;;
    *) wrong "limit of $limit bytes: exit codes$codes" ;;
  esac
  [ $allowed -lt 2 ] || break
  limit=$((limit + limit / 8))
done
[ $refused -gt 0 ] && [ $allowed -gt 0 ] || wrong "no limit was both kept and broken"
exit $failed
