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

# judge RUN TRAIN TEST: leaves RUN/probe and RUN/knn, percent of the videos of TEST that are named rightly and
# its standard error. Features are computed once for both; those of an earlier call may be of other weights.
judge() {
  rm -rf "$1/known" "$1/asked"
  modistc features "$1/weights.safetensors" "$2" -o "$1/known" --to-end -q
  modistc features "$1/weights.safetensors" "$3" -o "$1/asked" --to-end -q
  for method in probe knn; do
    modistc eval $method "$1/known" "$1/asked" --format=json >"$1/$method.json"
    top1=$(percent top1 <"$1/$method.json") error=$(percent standard_error <"$1/$method.json")
    [ -n "$top1" ] && [ -n "$error" ] || { echo "no score in $1/$method.json" >&2; return 1; }
    echo "$top1 $error" >"$1/$method"
  done
}
