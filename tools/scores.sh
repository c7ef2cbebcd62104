# SPDX-License-Identifier: Apache-2.0
# Sourced by demo.sh and mini.sh: what they print of a run. modistc is on the PATH.

# shown <command>...: prints it as one would type it, then runs it.
shown() {
  echo
  echo "\$ $*"
  "$@"
}

# term RUN NAME: a term of the loss, mean of the last 24 steps.
term() {
  tail -n 24 "$1/log.jsonl" | awk -v key="\"loss_$2\":" '
    (at = index($0, key)) { sum += substr($0, at + length(key)); n++ }
    END { if (n) printf "%.2f", sum / n; else printf "-" }'
}

# percent NAME: of a report in JSON, which comes in.
percent() { awk -v key="\"$1\":" '(at = index($0, key)) { printf "%.1f", 100 * substr($0, at + length(key)) }'; }

# score METHOD RUN TRAIN TEST: percent of the videos that are named rightly, and its standard error.
score() {
  modistc eval "$1" "$3" "$4" --weights="$2/weights.safetensors" --to-end --format=json >"$2/$1.json"
  top1=$(percent top1 <"$2/$1.json") error=$(percent standard_error <"$2/$1.json")
  [ -n "$top1" ] && [ -n "$error" ] || { echo "no score in $2/$1.json" >&2; return 1; }
  echo "$top1 $error"
}
