#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what modist needs from Debian 12. Nothing missing: says so and touches no network.
# Without root: prints the command and exits 4. Optional, and not installed: graphviz.
set -eu

packages="
build-essential check clang-19 clang-format-19 clang-tidy-19 cmake ffmpeg libavcodec-dev
libavformat-dev libavutil-dev libclang-rt-19-dev libfyaml-dev libjansson-dev libswscale-dev
libxxhash-dev lld-19 llvm-19-dev llvm-19-tools locales ninja-build pkg-config zlib1g-dev"

if ! command -v dpkg-query >/dev/null; then
  echo "tools/deps.sh: this is not Debian (no dpkg-query); install by hand:" $packages >&2
  exit 4
fi

missing=""
for p in $packages; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
if [ -z "$missing" ]; then
  echo "deps: all $(echo $packages | wc -w) packages are installed"
  exit 0
fi

echo "deps: missing:$missing"
if [ "$(id -u)" != 0 ]; then
  echo "deps: not root; this is what to run:"
  echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing"
  exit 4
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends $missing
