# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2034,SC2154
# Read by run.sh: time, and the rows of the table. Needs $budget (seconds), $begin, $out.
failed=0 left_out=0 passed=0 comma=

left() { echo $((budget - $(date +%s) + begin)); }

# bounded SECONDS COMMAND...: nor longer than what is left of the budget
bounded() {
  limit=$1 rest=$(left)
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

# has_time NAME: else the row says so
has_time() {
  [ "$(left)" -gt 0 ] && return
  not_run "$1" "the budget is used up"
  return 1
}

videos() { awk -v ms="$1" -v b="$2" 'BEGIN { if (ms > 0) printf "%.1f", b / ms * 1e3 }'; }
reason() { head -n 1 "$1" | cut -c1-200; }

# judge NAME CODE: the row of a program that did not end with 0
judge() {
  why=$(reason "$out/$1.log")
  case $2 in
    4) not_run "$1" "$why"; return ;;
    124 | 137)
      if [ "$limit" -lt "$row_limit" ]; then
        not_run "$1" "the budget is used up"
        return
      fi
      why="no end within $limit s"
      ;;
  esac
  row "$1" WRONG "" "" "$why"
  failed=$((failed + 1))
}

# timed NAME WHO MS: a step of NAME, for the comparison
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
    say "$name" "x$ratio" "" "" "times as fast as torch $mode, the best of: $modes"
    printf '%s  {"name": "%s", "median_ms": %s, "peer": "%s", "peer_ms": %s, "speedup": %s, "modes": "%s"}' \
      "$comma" "$name" "$ours" "$mode" "$peer" "$ratio" "$modes" >>"$out/speedups.part"
    comma=',
'
  done
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
