#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what modist needs from Debian 12. Nothing missing: says so and touches no network.
# Without root: prints the commands and exits 4. Optional, and not installed: graphviz.
set -eu

packages="
build-essential check clang-19 clang-format-19 clang-tidy-19 cmake ffmpeg gcc-aarch64-linux-gnu
libavcodec-dev libavformat-dev libavutil-dev libc6-dev-arm64-cross libclang-rt-19-dev libfyaml-dev
libjansson-dev libswscale-dev libxxhash-dev lld-19 llvm-19-dev llvm-19-tools locales ninja-build
pkg-config qemu-user zlib1g-dev"
# What modist_rt links, for AArch64. Unpacked and not installed: dpkg wants libc of both
# architectures in equal versions, which would upgrade half of the system.
arm_root=/usr/local/aarch64-linux-gnu
arm_packages="libjansson-dev libxxhash-dev zlib1g-dev"

if ! command -v dpkg-query >/dev/null; then
  echo "tools/deps.sh: this is not Debian (no dpkg-query); install by hand:" $packages >&2
  exit 4
fi

missing=""
for p in $packages; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
arm_missing=""
for p in $arm_packages; do
  ls "$arm_root/usr/share/doc/$p" >/dev/null 2>&1 || arm_missing="$arm_missing $p"
done
if [ -z "$missing$arm_missing" ]; then
  echo "deps: all $(echo $packages $arm_packages | wc -w) packages are there"
  exit 0
fi

[ -z "$missing" ] || echo "deps: missing:$missing"
[ -z "$arm_missing" ] || echo "deps: missing for AArch64:$arm_missing"
if [ "$(id -u)" != 0 ]; then
  echo "deps: not root; this is what to run:"
  [ -z "$missing" ] ||
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing"
  [ -z "$arm_missing" ] || echo "  sudo sh tools/deps.sh"
  exit 4
fi
export DEBIAN_FRONTEND=noninteractive
if [ -n "$missing" ]; then
  apt-get update -q
  apt-get install -y -q --no-install-recommends $missing
fi

# Lists of packages of its own, so that the system's stay as they are.
unpack_arm() {
  apt="apt-get -q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
    -o Dir::State::lists=$1/lists -o Dir::State::status=/dev/null -o Dir::Cache=$1/cache"
  mkdir -p "$1/lists/partial" "$1/cache/archives/partial" && $apt update &&
    (cd "$1" && $apt download $arm_missing) || return 1
  for file in "$1"/*.deb; do dpkg-deb -x "$file" "$arm_root" || return 1; done
  rm -f "$arm_root"/usr/lib/aarch64-linux-gnu/*.so  # links to what is not there
}
if [ -n "$arm_missing" ]; then
  state=$(mktemp -d)
  unpack_arm "$state" || echo "deps: without them the tests for AArch64 are skipped"
  rm -r "$state"
fi
