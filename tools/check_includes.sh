#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Includes point one way, foreign headers have one door each, every header compiles alone, every folder
# of code says in its README.md what it is.
#   base < graph < {models, passes};  base < runtime/exec < codegen (which may use graph and passes);
#   all of these < runtime/{video,train} < api < modistc
set -eu
cd "$(dirname "$0")/.."
CC=${CC:-cc}
folders=""
for f in base graph passes codegen runtime models api modistc include examples tests; do
  [ -d "$f" ] && folders="$folders $f"
done
files=$(find $folders -name '*.[ch]' | sort)

# shellcheck disable=SC2086
awk '
  function folder_of(path) { sub(/\/[^\/]*$/, "", path); return path }
  function complain(text) { printf "%s:%d: %s\n", FILENAME, FNR, text; bad = 1 }
  # Inner folders of tests may include everything, and their own helpers by bare name.
  function is_test(path) { return path ~ /^(tests|examples)(\/|$)/ }
  BEGIN {
    may["include/modist"] = ""
    may["base"] = ""
    may["graph"] = "base"
    may["models"] = may["passes"] = "base graph"
    may["runtime/exec"] = "base"
    may["codegen"] = "base graph passes runtime/exec"
    may["codegen/cpu"] = may["codegen/cuda"] = may["codegen"] " codegen"
    may["runtime/video"] = may["codegen/cpu"] " codegen/cpu codegen/cuda models"
    may["runtime/train"] = may["runtime/video"] " runtime/video"
    may["api"] = may["runtime/train"] " runtime/train"
    may["modistc"] = may["api"] " api"
    # Foreign headers: a pattern, and a folder where any file may include it ("" = one file).
    door["^llvm-c/"] = "codegen/cpu"
    door["^check\\.h$"] = "tests/unit"
    door["^lib(av|sw)[a-z]*/"] = "runtime/video"
    door["^libfyaml\\.h$"] = door["^jansson\\.h$"] = ""
    door["^xxhash\\.h$"] = door["^zlib\\.h$"] = door["^mpi\\.h$"] = ""
  }
  FNR == 1 {
    folder = folder_of(FILENAME)
    own = FILENAME
    sub(/\.c$/, ".h", own)
    has_own = own != FILENAME && (getline line < own) > 0
    close(own)
    seen = 0
    if (!is_test(folder) && !(folder in may)) complain("folder " folder " has no row in tools/check_includes.sh")
  }
  /^[ \t]*#[ \t]*include/ {
    path = $0
    sub(/^[^"<]*["<]/, "", path)
    sub(/[">].*/, "", path)
    if (!seen++ && has_own && path != own) complain("own header \"" own "\" comes first")
    if ($0 ~ /</) {
      if (path ~ /^(cuda|cudnn|nccl|nvrtc)[a-zA-Z_]*\.h$/)
        complain("<" path ">: no CUDA header is needed to build; declare what dlopen finds")
      for (p in door) {
        if (path !~ p) continue
        if (is_test(folder) && (door[p] == "" || p ~ /^.lib/)) continue
        if (door[p] != "" && folder != door[p]) complain("<" path "> only inside " door[p])
        if (door[p] == "" && p in opened && opened[p] != FILENAME)
          complain("<" path "> is already spoken to by " opened[p])
        opened[p] = FILENAME
      }
      next
    }
    if (is_test(folder)) next
    if (path !~ /\//) { complain("\"" path "\": include by path from the root"); next }
    target = folder_of(path)
    if (target == "modist" || target == folder) next
    ok = 0
    n = split(may[folder], list, " ")
    for (i = 1; i <= n; i++) if (list[i] == target) ok = 1
    if (!ok) complain(folder " may not include " target " (" path ")")
  }
  END { exit bad }
' $files || status=1

flags="-std=c17 -D_GNU_SOURCE -DMODIST_HAVE_CUDA=1 -DMODIST_HAVE_MPI=0 -I. -Iinclude"
flags="$flags -Wall -Wextra -Wpedantic -Werror -Wno-unused-function"
if llvm=$(llvm-config-19 --includedir 2>/dev/null); then flags="$flags -isystem $llvm"; fi
for f in $(echo "$files" | grep -Ev '^(include|tests/[^/]*|examples/[^/]*)/' | xargs -n1 dirname | sort -u); do
  [ -s "$f/README.md" ] || { echo "$f: has no README.md"; status=1; }
done
headers=0
for h in $(echo "$files" | grep '\.h$'); do
  headers=$((headers + 1))
  echo "#include \"$h\"" | $CC $flags -I"$(dirname "$h")" -x c -fsyntax-only - ||
    { echo "$h: does not compile alone"; status=1; }
done
[ "${status:-0}" = 0 ] && echo "includes: $(echo "$files" | wc -l) files, $headers headers compile alone"
exit "${status:-0}"
