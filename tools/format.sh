#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Formats the C sources in place. --check only tells which ones differ, and exits 1.
set -eu
cd "$(dirname "$0")/.."
format=${CLANG_FORMAT:-clang-format-19}
mode=-i
[ "${1:-}" = --check ] && mode="--dry-run --Werror"
find base graph passes codegen runtime models modistc include tests examples tools \
  -name '*.[ch]' 2>/dev/null | sort | xargs $format $mode
