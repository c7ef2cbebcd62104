# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2034,SC2154
# Read by run.sh: time, and the rows of the table. Needs $budget (seconds), $begin, $out.
failed=0 left_out=0 passed=0 comma='' copy_rate=''

left() { echo $((budget - $(date +%s) + begin)); }

# bounded SECONDS COMMAND...: nor longer than what is left of the budget
bounded() {
  limit=$1 asked=$1 rest=$(left)
  shift
  [ "$rest" -ge "$limit" ] || limit=$rest
  [ "$limit" -ge 1 ] || limit=1
  timeout -k 10 "$limit" "$@"
}

# field FILE NAME: the first such number or text of a JSON file with a line for each
field() { sed -n "s/^ *\"$2\": \"\{0,1\}\([^\",]*.*[^\",]\)\"\{0,1\},\{0,1\}\$/\1/p" "$1" 2>/dev/null | head -n 1; }

say() { printf '%-32s %-8s %10s %10s  %s\n' "$1" "$2" "$3" "$4" "$5" | sed 's/ *$//' | tee -a "$out/table.txt"; }

# row NAME STATE MS VIDEOS NOTE
row() {
  say "$1" "$2" "${3:--}" "${4:--}" "$5"
  note=$(printf %s "$5" | sed 's/\\/\\\\/g; s/"/\\"/g' | tr '\n\t' '  ')
  printf '%s  {"name": "%s", "state": "%s", "median_ms": %s, "videos_per_s": %s, "note": "%s"}' \
    "$comma" "$1" "$2" "${3:-null}" "${4:-null}" "$note" >>"$out/rows.part"
  comma=',
'
}

# not_run NAME WHY
not_run() {
  row "$1" "not run" "" "" "$2"
  left_out=$((left_out + 1))
}

# is_wrong NAME WHY
is_wrong() {
  row "$1" WRONG "" "" "$2"
  failed=$((failed + 1))
}

# has_time NAME: else the row says so
has_time() {
  [ "$(left)" -gt 0 ] && return
  not_run "$1" "the budget is used up"
  return 1
}

videos() { awk -v ms="$1" -v b="$2" 'BEGIN { if (ms > 0) printf "%.1f", b / ms * 1e3 }'; }
milli() { awk '{ printf "%.3f", $1 / 1e3 }'; }
fixed() { awk '{ printf "%.3f", $1 }'; }
reason() { head -n 1 "$1" | cut -c1-200; }

# judge NAME CODE: the row of a program that did not end with 0. It has run elsewhere here, so only what the device or
# the machine lacks excuses it: no code for it, no cuDNN, no such device.
judge() {
  why=$(reason "$out/$1.log")
  case $2 in
    4)
      if grep -Eq 'error\[E06(33|37|42)\]' "$out/$1.log"; then
        not_run "$1" "$why"
        return
      fi
      ;;
    124 | 137)
      if [ "$limit" -lt "$asked" ]; then
        not_run "$1" "the budget is used up"
        return
      fi
      why="no end within $limit s"
      ;;
  esac
  is_wrong "$1" "$why"
}

# timed NAME WHO MS: a step of NAME by modist, by cudnn, or by a mode of PyTorch, for the comparison
timed() { echo "$*" >>"$out/timed.part"; }

# "r3d50_b64 55.1 compile 99.2 1.80 eager, compile": ours, the best mode of the peer, how much faster ours is
# than that, and all modes that ran
comparison() {
  awk '
    $2 == "modist" { ours[$1] = $3; order[++num] = $1; next }
    { modes[$1] = modes[$1] (ran[$1]++ ? ", " : "") $2
      if (!($1 in best) || $3 < best[$1]) { best[$1] = $3; mode[$1] = $2 } }
    END { for (i = 1; i <= num; i++) { n = order[i]
      if (n in best && ours[n] > 0) printf "%s %s %s %s %.3f %s\n", n, ours[n], mode[n], best[n], best[n] / ours[n], modes[n] } }
  ' "$out/timed.part"
}

# compare: a row of the table for each, and the list for summary.json
compare() {
  comparison | while read -r name ours mode peer ratio modes; do
    who="torch $mode"
    [ "$mode" != cudnn ] || who="unfused with cuDNN"
    say "$name" "x$ratio" "" "" "times as fast as $who, the best of: $modes"
    printf '%s  {"name": "%s", "median_ms": %s, "peer": "%s", "peer_ms": %s, "speedup": %s, "modes": "%s"}' \
      "$comma" "$name" "$ours" "$mode" "$peer" "$ratio" "$modes" >>"$out/speedups.part"
    comma=',
'
  done
}

# sum_of_regions FILE: "1234.5 97": microseconds of all regions, and how many they are
sum_of_regions() {
  awk -F': |,$' '/^ *"(predicted|convolutions)": / { exit } /^ *"min_us": / { us += $2; n++ } END { print us + 0, n + 0 }' "$1"
}

# memory_bound FILE RATE: "53 31200.0 0.871 40": how many regions are bound by memory, their microseconds, the share
# of the rate (GB/s) at which they move bytes, and how many reach 85 % of it. Bound by memory: with fewer than 100
# FLOPs a byte, where an H200's tensor cores would need more than 170, and so many bytes that a launch is nothing
# beside them, 10 us of copying.
memory_bound() {
  awk -F': |,$' -v rate="$2" '
    /^ *"(predicted|convolutions)": / { exit }
    /^ *"min_us": / { us = $2 }
    /^ *"flops": / { flops = $2 }
    /^ *"bytes": / && $2 > 0 && us > 0 && flops / $2 < 100 && $2 / rate / 1e3 >= 10 {
      n++; sum += us; bytes += $2; good += $2 / us / 1e3 >= 0.85 * rate
    }
    END { if (n) printf "%d %.1f %.3f %d\n", n, sum, bytes / sum / 1e3 / rate, good }' "$1"
}

# gaps_of FILE STEP_MS MARK_US: "0.5 0.009 0.021": what is left of a step beside the sum of its kernels in ms, as a
# share of the step, and the share when marks took their part of each kernel's time: the true one is between them.
gaps_of() {
  sum_of_regions "$1" | awk -v ms="$2" -v mark="$3" '{
    printf "%.3f %.3f %.3f\n", ms - $1 / 1e3, (ms - $1 / 1e3) / ms, (ms - ($1 - $2 * mark) / 1e3) / ms }'
}

# near_predicted FILE: "98 240", the regions within 25 % of what was predicted, of all
near_predicted() {
  near=$(field "$1" within_25_percent)
  [ -z "$near" ] || echo "$near $(field "$1" of)"
}

# against_cudnn OURS.json CUDNN.json: lines "rest 42 8.1" and "first 2 3.4": how many convolutions cuDNN did, and the
# sum of the logarithms of its times over ours. The first ones, of a few channels, are apart: cuDNN is slow there.
against_cudnn() {
  awk -F': |,$' '
    /^ *"by": / { by = $2 }
    /^ *"channels": / { channels = $2 }
    /^ *"conv_us": / {
      if (FNR == NR) ours[++num] = $2
      else if (ours[++at] > 0 && $2 > 0 && by ~ /cudnn/) {
        which = channels < 8 ? "first" : "rest"
        sum[which] += log($2 / ours[at]); n[which]++
      }
    }
    END { for (which in n) printf "%s %d %.6f\n", which, n[which], sum[which] }' "$1" "$2"
}

# mean_over_cudnn WHICH: "44 1.234", from all such lines: the geometric mean of cuDNN's times over ours
mean_over_cudnn() {
  awk -v which="$1" '$1 == which { n += $2; sum += $3 } END { if (n) printf "%d %.3f\n", n, exp(sum / n) }' "$out/cudnn.part"
}

# over_cudnn WHICH WORDS: a row of the table, and an object for summary.json
over_cudnn() {
  words=$2
  # shellcheck disable=SC2046  # two numbers, or nothing
  set -- "$1" $(mean_over_cudnn "$1")
  [ $# = 1 ] || say cudnn "x$3" "" "" "the time of cuDNN over ours, geometric mean of $2 $words of R3D-50"
  printf '{"convolutions": %d, "time_over_ours": %s}' "${2:-0}" "${3:-null}" >"$out/$1.part"
}

# against_peer OURS.json PEER.json: "41 0.95 12.3": convolutions of 8 channels or more that both timed, the geometric
# mean of the peer's time over ours, and the sum of the peer's in ms
against_peer() {
  awk -F': |,$' '
    FNR == NR {
      if ($1 ~ /"region"$/) { name = $2; gsub(/"/, "", name); sub(/.*\./, "", name) }
      if ($1 ~ /"channels"$/) channels = $2
      if ($1 ~ /"conv_us"$/ && channels >= 8) ours[name] = $2
      next
    }
    { name = $1; gsub(/[" ]/, "", name) }
    ours[name] > 0 && $2 > 0 { n++; ms += $2; sum += log(1e3 * $2 / ours[name]) }
    END { if (n) printf "%d %.3f %.3f\n", n, exp(sum / n), ms }' "$1" "$2" 2>/dev/null
}

# must WHAT LEAST|MOST NUMBER IS WITHOUT BY: a row of the table, and an object for summary.json. IS may be missing.
# WITHOUT: rows that should be compared, too, and have no time; with them, what is met is so partly. BY: what decides.
must() {
  state=$(awk -v how="$2" -v at="$3" -v is="${4:-}" -v without="${5:-}" 'BEGIN {
    print is == "" ? "unknown" : !(how == "least" ? is >= at : is <= at) ? "missed" : without == "" ? "met" : "partly" }')
  say "must: $1" "$state" "${4:-}" "" "at $2 $3${6:+, by $6}${5:+; without $5}"
  printf '%s  {"what": "%s", "%s": %s, "is": %s, "state": "%s", "by": "%s", "without": "%s"}' "$comma" "$1" "$2" "$3" \
    "${4:-null}" "$state" "${6:-}" "${5:-}" >>"$out/musts.part"
  comma=',
'
}

# without PATTERN: "torch_b64_compile, ...", the rows of the plan that have no time for a comparison of such names
without() {
  awk -v pattern="$1" '
    FILENAME != "plan.txt" { has[$1, $2]; next }
    $2 !~ pattern { next }
    $1 == "peer" && !(($2, $3) in has) { of = $2; sub(/^r3d50_/, "", of); none("torch_" of "_" $3) }
    $1 ~ /^(bench|part|fused)$/ && !(($2, "modist") in has) { none($2) }
    $1 == "fused" && !(($2, "cudnn") in has) { none($2 "_apart.cudnn") }
    function none(row) { printf "%s%s", comma, row; comma = ", " }' "$out/timed.part" plan.txt
}

# speedup PATTERN: the geometric mean of ours over the best peer, of the names that match; nothing if there are none
speedup() {
  comparison | awk -v pattern="$1" '$1 ~ pattern { n++; sum += log($5) } END { if (n) printf "%.3f", exp(sum / n) }'
}

# best_mode NAME: "torch compile", the peer's fastest mode that ran
best_mode() { comparison | awk -v name="$1" '$1 == name { print "torch " $3 }'; }

# cuDNN as modist drives it takes the first plan that its heuristics name; PyTorch measures them all. Either may be
# the slower one, so the worse of both ratios counts.
over_best_cudnn() {
  # shellcheck disable=SC2046  # two numbers, or nothing
  set -- "$(set -- $(mean_over_cudnn rest) && echo "${2:-}")" "$(cat "$out/convs.part")"
  ours="cuDNN in modist" peers="cuDNN in torch"
  case $1/$2 in
    /) must "convolutions over cuDNN" least 0.9 "" "$ours, $peers" ;;
    */) must "convolutions over cuDNN" least 0.9 "$1" "$peers" "$ours" ;;
    /*) must "convolutions over cuDNN" least 0.9 "$2" "$ours" "$peers" ;;
    *)
      [ "$(awk -v one="$1" -v other="$2" 'BEGIN { print one <= other }')" = 1 ] || set -- "$2" "$1" "$peers"
      must "convolutions over cuDNN" least 0.9 "$1" "" "${3:-$ours}, the worse of two: the other is $2"
      ;;
  esac
}

# What the project wants of an H200, as far as it was measured here. It is no part of the verdict.
musts() {
  must "step over torch" least 1.5 "$(speedup '^r3d50_b64$')" "$(without '^r3d50_b64$')" "$(best_mode r3d50_b64)"
  over_best_cudnn
  must "fused over unfused" least 1.3 "$(speedup '^block_')" "$(without '^block_')"
  must "memory-bound of a copy" least 0.85 "$(sed -n 's/^r3d50_b64 //p' "$out/memory.part")"
  must "InfoNCE over torch" least 5 "$(speedup '^infonce_')" "$(without '^infonce_')"
  must "gaps in the step" most 0.03 "$(sed -n 's/^r3d50_b64 //p' "$out/gaps.part")"
  must "regions as predicted" least 1 "$(awk 'NR == 1 && $2 { printf "%.3f", $1 / $2 }' "$out/near.part")"
}
