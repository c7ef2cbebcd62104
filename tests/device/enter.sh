# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh disable=SC2154
# Read by the scripts of this folder that run on the stand-in: a folder $work, which is the current one, and the
# double of NVRTC; without NVRTC they end here. Needs $here, $modistc, $stand_in.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export LC_ALL=C NO_COLOR=1 MODIST_NVRTC="$stand_in/libnvrtc_double.so"
unset LD_LIBRARY_PATH
if [ ! -e "$MODIST_NVRTC" ] || ! env -u MODIST_NVRTC "$modistc" targets | grep -q 'NVRTC [0-9]'; then
  echo "skipped: no NVRTC"
  exit 77
fi
. "$here/wants.sh"

# keep_in CACHE TEXTS: folders of compiled kernels, and of the texts that the stand-in runs
keep_in() {
  mkdir -m 700 -p "$1" "$2"
  export MODIST_CACHE="$1" MODIST_STAND_IN_TEXTS="$2"
}
