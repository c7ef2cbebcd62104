#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Formats the C sources in place. --check only names the files that differ, and exits 1.
set -eu
cd "$(dirname "$0")/.."
format=${CLANG_FORMAT:-clang-format-19}
files=$(find base graph passes codegen runtime models api modistc include tests examples tools \
  -name '*.[ch]' 2>/dev/null | sort)
if [ "${1:-}" != --check ]; then
  # shellcheck disable=SC2086
  exec "$format" -i $files
fi
differ=0
for f in $files; do
  "$format" "$f" | cmp -s - "$f" || { echo "$f: not formatted (tools/format.sh)"; differ=1; }
done
exit $differ
