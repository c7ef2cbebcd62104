#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Two commands that are asked the same say the same: random inputs do not depend on who draws them,
# a memory limit means the same bytes everywhere, and batch=max is the last batch that fits.
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
expected='' json=$(modist_rt all.mdx --seed=3 --steps=2 --json --times)
for n in $names; do expected="$expected --expect=$n=ours_$n.npy"; done
modist_rt all.mdx --seed=3 --steps=2 $expected >out || wrong "not as expected"
for digest in $(sed -n 's/.* xxh3 //p' out); do
  case $json in *"\"xxh3\": \"$digest\""*) ;; *) wrong "no result $digest in $json" ;; esac
done
case $json in *'"regions": ['*) ;; *) wrong "no times in $json" ;; esac
cmp f_1.npy f_2.npy || wrong "the second step does not have the inputs of the first"

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

# batch=max with what follows: the batch it names fits as it is, and the next one that falls into as
# many groups does not.
largest() {
  groups=$1 limit=$2
  shift 2
  more="$* --emit=report --report=summary,memory"
  modistc compile modist-tiny bn.groups=$groups batch=max --memory-limit=$limit $more >out 2>&1 || {
    wrong "batch=max $*: $(cat out)"
    return
  }
  batch=$(sed -nE 's/^batch +([0-9]+) needs .* would need .*/\1/p' out)
  grep -q "; $((${batch:-0} + groups)) would need" out || wrong "batch=max $*: $(cat out)"
  for b in ${batch:-1} $((${batch:-1} + groups)); do
    code=0
    modistc compile modist-tiny bn.groups=$groups batch=$b --memory-limit=$limit $more \
      --disable-pass=recompute >given 2>&1 || code=$?
    case $code/$b in
      0/"$batch") sed 1,2d out >asked; sed 1d given | cmp -s - asked || wrong "batch=$b $*: $(cat given)" ;;
      6/"$batch" | 0/*) wrong "batch=$b $*: exit code $code, but batch=max says $batch" ;;
      6/*) ;;
      *) wrong "batch=$b $*: $(cat given)" ;;
    esac
  done
}
for limit in 5M 6M 7M; do largest 1 $limit; done
largest 2 7M --precision=bf16
if modistc targets | grep -q sm_80; then
  largest 1 5M --target=cuda:sm_80
  largest 4 9M --target=cuda:h200 --precision=bf16
fi
# A dry run predicts what a report does: that rounds milliseconds to three digits behind the point.
if modistc targets | grep -q h200; then
  for more in "" --precision=bf16; do
    a=$(modistc compile modist-tiny $more --target=cuda:h200 --emit=report --report=roofline |
      sed -n 's/^  step: \([0-9.]*\) ms.*/\1/p')
    b=$(modistc train model.name=modist-tiny $more --target=cuda:h200 --dry-run |
      sed -n 's/^time *compute *\([0-9.e-]*\) s.*/\1/p')
    awk "BEGIN { d = $a - 1000 * $b; exit !($a > 0 && d * d < 0.001 * 0.001) }" || wrong "predicted: $a ms, $b s"
  done
  # A device that is described by a file is the device.
  modistc targets --spec=h200 >h200.yaml
  modistc train --dry-run --target=cuda:h200 >by_name
  modistc train --dry-run --target=cuda:sm_90a --target-spec=h200.yaml >by_file
  cmp by_name by_file || wrong "a description is not the device"
  # There is room for whole groups of batch norm, or for none.
  room() {
    sed "s/^memory_bytes: [0-9]*/memory_bytes: $1/" h200.yaml >small.yaml
    modistc train --dry-run --target=cuda:sm_90a --target-spec=small.yaml model.name=modist-tiny batch=8 bn.groups=4 \
      bank.size=16384 2>/dev/null | sed -n 's/^ *there is .*: //p'
  }
  for bytes in 20000000 21000000 22000000 23000000; do
    most=$(room $bytes)
    [ "$most" = "room for a batch of about $((${most##* } / 4 * 4))" ] || wrong "$bytes bytes: $most"
  done
  [ "$(room 1000000)" = "the states alone do not fit" ] || wrong "of states: $(room 1000000)"
fi
# A plan has the sizes of the program.
if modistc targets | grep -q 'NVRTC [0-9]'; then
  modistc compile all.mdg --target=cuda:sm_80 -o gpu.mdx 2>&1 | grep ^memory >made
  modistc compile all.mdg --target=cuda:sm_80 --emit=report --report=memory >planned
  cmp made planned || wrong "plan: $(cat planned), program: $(cat made)"
fi
exit $failed
