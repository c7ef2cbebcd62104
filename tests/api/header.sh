#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The public headers are C++ too. Without a C++ compiler, which nothing else needs: skipped (77).
#   header.sh INCLUDE_FOLDER
set -eu
command -v c++ >/dev/null || exit 77
for header in dtype status modist; do
  echo "#include <modist/$header.h>" |
    c++ -x c++ -std=c++11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I "$1" -
done
