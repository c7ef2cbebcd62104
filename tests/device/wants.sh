# SPDX-License-Identifier: Apache-2.0
# Read by the scripts of this folder: wants CODE TEXT COMMAND... looks at an exit code and a part of what is
# said; `failed` counts what is wrong. Needs a folder $work.
failed=0

wrong() {
  failed=$((failed + 1))
  echo "FAILED $*"
}

wants() {
  code=$1 text=$2
  shift 2
  "$@" >"$work/out" 2>&1
  is=$?
  if [ $is = "$code" ] && grep -qF -- "$text" "$work/out"; then return; fi
  wrong "$*: wanted exit $code and '$text', but exit $is and:"
  sed 's/^/  /' "$work/out"
}
