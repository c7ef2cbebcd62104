# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2034,SC2154
# Read by run.sh: a function for each kind of line of the plan, which takes the fields behind the kind. Needs
# rows.sh, $out, $python.
row_limit=90  # seconds of a program of ours; a mode of the peer has its own in the plan

# By what share a loss in bf16 may differ between ways that sum up in another order: 8 eps (tests/tolerance.h). It is
# a mean of so many values that their roundings leave less than one of them has, in a second step as well: the CPU in
# bf16 is 0.001 % and then 0.04 % off f32 for R3D-50 at a batch of 8, with lr=0 the second loss is 41 % off.
loss_tolerance=0.03125

# program NAME STEPS OPTION...
program() {
  name=$1 steps=$2
  shift 2
  # shellcheck disable=SC2046  # one argument a line, without blanks
  bounded $row_limit ./modist_rt "$name.mdx" --seed=1 --steps="$steps" --json "$@" $(cat "$name.args" 2>/dev/null)
}

# ran_as ROW NAME STEPS OPTION...: NAME as ROW: ROW.json and ROW.log; else a row says why not
ran_as() {
  as=$1
  shift
  program "$@" >"$out/$as.json" 2>"$out/$as.log"
  code=$?
  [ $code = 0 ] || judge "$as" $code
  return $code
}

# ran NAME STEPS OPTION...
ran() { ran_as "$1" "$@"; }

# is_finite NAME: else its row says so
is_finite() {
  grep -Eq '"(value|mean|min|max)": null|"nan": [1-9]' "$out/$1.json" || return 0
  is_wrong "$1" "a result is not finite, see $1.json"
  return 1
}

check() {
  has_time "$1" && ran "$1" "$3" || return 0
  num=$(grep -c '^--expect=' "$1.args" 2>/dev/null)
  if [ "${num:-0}" = 0 ]; then
    is_wrong "$1" "nothing is expected of it: $1.args"
    return
  fi
  row "$1" ok "" "" "$num values are as expected ($(field "$out/$1.json" code))"
  passed=$((passed + 1))
}

op() { check "$@"; }
full() { check "$@"; }

# agree ROW WHAT RUN...: what several runs have as their first result, a loss, is that of the first run but for the
# tolerance
agree() {
  as=$1 what=$2 values=
  shift 2
  for run; do
    values="$values $(sed -n 's/^ *"\(value\|max\)": \([-0-9.e+]*\),*$/\2/p' "$out/$run.json" | head -n 1)"
  done
  # shellcheck disable=SC2086  # numbers
  if echo $values | awk -v by="$loss_tolerance" -v num=$# '{
      bad = NF != num
      for (i = 2; i <= NF; i++) bad += ($i - $1) ^ 2 > (by * $1) ^ 2
      exit bad > 0 }'; then
    row "$as" ok "" "" "$what:$values; they may differ by $loss_tolerance of it"
    passed=$((passed + 1))
  else
    is_wrong "$as" "$what:$values, which differ by more than $loss_tolerance of it"
  fi
}

# dumps NAME: what single instructions leave in registers
dumps() {
  has_time "$1" || return 0
  bounded $row_limit "./$1/device_dumps" "$1" >"$out/$1.txt" 2>"$out/$1.log"
  code=$?
  case $code in
    0) ;;
    4) not_run "$1" "$(tail -n 1 "$out/$1.txt")"; return ;;  # none of them is for the device
    *) judge "$1" $code; return ;;
  esac
  row "$1" ok "" "" "$(tail -n 1 "$out/$1.txt")"
  passed=$((passed + 1))
}

# Kernel by kernel: which region takes how long, and how far that is from what was predicted. The sum is not
# the time of a step.
regions() {
  has_time "$1.regions" && ran_as "$1.regions" "$1" "${2:-5}" --times && is_finite "$1.regions" || return 1
  file=$out/$1.regions.json note=
  near=$(field "$file" within_25_percent)
  if [ -n "$near" ]; then
    of=$(field "$file" of)
    note="$near of $of within 25 % of what was predicted for $(field "$file" for): $(field "$file" step_us | milli) ms"
  fi
  # shellcheck disable=SC2046  # two numbers
  set -- "$1" $(sum_of_regions "$file")
  row "$1.regions" timed "$(echo "$2" | milli)" "" "$note"
}

# has_cudnn NAME: else the row of NAME.cudnn says why not; it is looked for once
has_cudnn() {
  if [ -z "${no_cudnn+known}" ]; then
    no_cudnn=
    program "$1" 1 --engine=cudnn >/dev/null 2>"$out/$1.cudnn.log"
    case $? in
      4) take_cudnn_of_python || no_cudnn=$(reason "$out/$1.cudnn.log") ;;
      134) no_cudnn="cuDNN ended the process" ;;
    esac
  fi
  [ -z "$no_cudnn" ] || not_run "$1.cudnn" "$no_cudnn"
  [ -z "$no_cudnn" ]
}

# Nothing but cuDNN's own rows minds it.
take_cudnn_of_python() {
  [ -z "${MODIST_CUDNN:-}" ] || return 1
  folder=$("$python" -c 'import nvidia.cudnn; print(list(nvidia.cudnn.__path__)[0])' 2>/dev/null)
  [ -f "$folder/lib/libcudnn.so.9" ] && export MODIST_CUDNN="$folder/lib/libcudnn.so.9"
}

# by_cudnn NAME STEPS: NAME.cudnn.json; else a row says why not
by_cudnn() {
  program "$1" "$2" --engine=cudnn >"$out/$1.cudnn.json" 2>"$out/$1.cudnn.log"
  code=$?
  [ $code != 0 ] || return 0
  if grep -q 'error\[E0638\]' "$out/$1.cudnn.log"; then  # it refuses all of them
    not_run "$1.cudnn" "$(reason "$out/$1.cudnn.log")"
  else
    judge "$1.cudnn" $code
  fi
  return 1
}

# The same convolutions by cuDNN, and how long each took by either.
cudnn() {
  has_time "$1.cudnn" && has_cudnn "$1" && by_cudnn "$1" "$2" || return 0
  row "$1.cudnn" ok "" "" "$num values are as expected; $(field "$out/$1.cudnn.json" engine)"
  passed=$((passed + 1))
  has_time "$1.cudnn.regions" && ran_as "$1.cudnn.regions" "$1" 5 --engine=cudnn --times &&
    is_finite "$1.cudnn.regions" || return 0
  [ "$1" != conv_r3d50 ] || against_cudnn "$out/$1.regions.json" "$out/$1.cudnn.regions.json" >>"$out/cudnn.part"
}

conv() {
  before=$passed
  check "$@"
  [ "$passed" -gt "$before" ] || return 0
  regions "$1" && cudnn "$1" "$3"
}

# What bounds the kernels of a step, and what lies between them: the copies of the device and the cost of a mark are
# those of a row `copy` before it.
step_of_kernels() {
  near_predicted "$out/$1.regions.json" >>"$out/near.part"
  [ -n "${copy_rate:-}" ] || return 0
  # shellcheck disable=SC2046  # numbers, or nothing
  set -- "$1" "$2" $(memory_bound "$out/$1.regions.json" "$copy_rate")
  if [ $# = 6 ]; then
    row "$1.memory" timed "$(echo "$4" | milli)" "" \
      "$3 kernels bound by memory, $5 of a copy's rate; $6 of them 0.85 or more"
    echo "$1 $5" >>"$out/memory.part"
  fi
  # shellcheck disable=SC2046
  set -- "$1" "$2" $(gaps_of "$out/$1.regions.json" "$2" "$mark_us")
  row "$1.gaps" timed "$3" "" "between kernels of the step's graph: $4 of it, or $5 when marks take their part of each"
  echo "$1 $5" >>"$out/gaps.part"
}

bench() {
  has_time "$1" && ran "$1" "$3" && is_finite "$1" || return 0
  ms=$(field "$out/$1.json" median_ms)
  bytes=$(field "$out/$1.json" planned_bytes)
  row "$1" timed "$(printf %.3f "$ms")" "$(videos "$ms" "${1##*_b}")" \
    "$((bytes / 1048576)) MiB ($(field "$out/$1.json" code))"
  timed "$1" modist "$ms"
  passed=$((passed + 1))
  regions "$1" && step_of_kernels "$1" "$ms"
}

# Too short for the host's clock: the sum of the regions, each with the marks around it.
part() {
  has_time "$1" && ran "$1" 1 && is_finite "$1" && regions "$1" "$3" || return 0
  # shellcheck disable=SC2046  # two numbers
  set -- "$1" $(sum_of_regions "$out/$1.regions.json")
  timed "$1" modist "$(echo "$2" | milli)"
  passed=$((passed + 1))
}

# The fused program, and convolutions, norms and ReLUs by themselves: all of them ours, or convolutions by cuDNN.
fused() {
  has_time "$1" && ran "$1" "$3" && is_finite "$1" || return 0
  ms=$(field "$out/$1.json" median_ms)
  row "$1" timed "$(printf %.3f "$ms")" "$(videos "$ms" "${1##*_b}")" "($(field "$out/$1.json" code))"
  timed "$1" modist "$ms"
  passed=$((passed + 1))
  has_time "${1}_apart" && ran "${1}_apart" "$3" && is_finite "${1}_apart" || return 0
  row "${1}_apart" timed "$(field "$out/${1}_apart.json" median_ms | fixed)" "" "unfused"
  agree "$1.agree" losses "$1" "${1}_apart"
  has_time "${1}_apart.cudnn" && has_cudnn "${1}_apart" && by_cudnn "${1}_apart" "$3" &&
    is_finite "${1}_apart.cudnn" || return 0
  ms=$(field "$out/${1}_apart.cudnn.json" median_ms)
  row "${1}_apart.cudnn" timed "$(printf %.3f "$ms")" "" "unfused; $(field "$out/${1}_apart.cudnn.json" engine)"
  timed "$1" cudnn "$ms"
  agree "${1}_apart.cudnn.agree" losses "$1" "${1}_apart.cudnn"
}

# What times are held against.
copy() {
  has_time "$1" || return 0
  bounded $row_limit ./modist_rt --rates --json >"$out/$1.json" 2>"$out/$1.log"
  code=$?
  if [ $code != 0 ]; then judge "$1" $code; return; fi
  copy_rate=$(field "$out/$1.json" copy_gb_s) mark_us=$(field "$out/$1.json" mark_us)
  row "$1" timed "" "" "$(printf '%.1f GB/s read and written by a copy on the device; %.2f us between two marks' "$copy_rate" "$mark_us")"
}

# NAME.jsonl is for `modistc cache import`. What it is worth here: the step of the same program with the ways that it
# names, before and after.
tune() {
  has_time "$1" || return 0
  seconds=$3 spare=$(($(left) - row_limit))
  [ "$spare" -ge "$seconds" ] || seconds=$spare
  if [ "$seconds" -lt 10 ]; then
    not_run "$1" "the budget leaves $spare s for it"
    return
  fi
  # shellcheck disable=SC2046  # one argument a line, without blanks
  bounded $((seconds + row_limit)) ./modist_rt "$1.mdx" --seed=1 --tune="$out/$1.jsonl" --budget="$seconds" \
    $(cat "$1.args" 2>/dev/null) >"$out/$1.txt" 2>"$out/$1.log"
  code=$?
  if [ $code != 0 ]; then judge "$1" $code; return; fi
  row "$1" tuned "" "" "$(cat "$out/$1.txt")"
  passed=$((passed + 1))
  if has_time "$1.before" && ran_as "$1.before" "$1" 20 && is_finite "$1.before"; then
    row "$1.before" timed "$(field "$out/$1.before.json" median_ms | fixed)" "" "its step, every kernel with a launch"
  fi
  has_time "$1.after" && ran_as "$1.after" "$1" 20 --tuned="$out/$1.jsonl" && is_finite "$1.after" || return 0
  agree_when_tuned "$1"
  row "$1.after" timed "$(field "$out/$1.after.json" median_ms | fixed)" "" \
    "the same with the better ways of $(field "$out/$1.after.json" tuned) products"
}

# agree_when_tuned tune_r3d50_b64: the loss of the second step, with its own kernels, with the ways that are better,
# and by the program that is timed, which has joint launches. The first step goes call by call, the second is a graph.
agree_when_tuned() {
  has_time "$1.agree" && ran_as "$1.own" "$1" 2 && ran_as "$1.tuned" "$1" 2 --tuned="$out/$1.jsonl" || return 0
  timed_as=${1#tune_}
  if [ "$timed_as" = "$1" ] || [ ! -f "$timed_as.mdx" ]; then
    agree "$1.agree" "losses of a second step" "$1.own" "$1.tuned"
  elif ran_as "$timed_as.two" "$timed_as" 2; then
    agree "$1.agree" "losses of a second step" "$timed_as.two" "$1.own" "$1.tuned"
  fi
}

# has_peer NAME: else the row says what is missing, which is looked for once
has_peer() {
  if [ -z "${no_peer+known}" ]; then
    no_peer=
    bounded $row_limit "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null ||
      no_peer="no torch with CUDA in $python (PYTHON)"
  fi
  [ -z "$no_peer" ] || not_run "$1" "$no_peer"
  [ -z "$no_peer" ]
}

# what_peer NAME: what peer.py is to do for it
what_peer() {
  case $1 in
    infonce_*) echo infonce ;;
    block_*) what=${1#block_}; echo "block --site=${what%%_*}" ;;
    conv_*) echo conv ;;
    *) echo step ;;
  esac
}

# peer r3d50_b64 MODE SECONDS: the same in PyTorch. Convolutions are those of a batch of 8.
peer() {
  name=torch_${1#r3d50_}_$2 batch=8
  case $1 in *_b*) batch=${1##*_b} ;; esac
  has_time "$name" && has_peer "$name" || return 0
  # shellcheck disable=SC2046  # words
  bounded "$3" "$python" peer.py $(what_peer "$1") --mode="$2" --batch="$batch" >"$out/$name.json" 2>"$out/$name.log"
  code=$?
  case $code in
    0) ;;
    124 | 137) not_run "$name" "no end within $limit s"; return ;;
    *) not_run "$name" "exit code $code, see $name.log"; return ;;
  esac
  case $1 in conv_*) convs_of_peer "$1" "$name"; return ;; esac
  # As ours: the fastest of a part, the median of steps.
  which=median_ms
  case $1 in infonce_*) which=min_ms ;; esac
  ms=$(field "$out/$name.json" $which)
  if [ -z "$ms" ]; then not_run "$name" "no time in $name.json"; return; fi
  row "$name" timed "$ms" "$(videos "$ms" "$batch")" "the peer"
  timed "$1" "$2" "$ms"
}

# convs_of_peer conv_r3d50 torch_conv_r3d50_eager
convs_of_peer() {
  # shellcheck disable=SC2046  # three numbers, or nothing
  set -- "$2" $(against_peer "$out/$1.regions.json" "$out/$2.json")
  if [ $# != 4 ]; then not_run "$1" "nothing of ours to compare it with"; return; fi
  row "$1" timed "$4" "" "$2 convolutions of R3D-50: x$3 the time of ours, geometric mean"
  echo "$3" >"$out/convs.part"
}
