#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# elsewhere.sh RUNNER PROGRAM [argument]...: runs PROGRAM with the variables that name another
# machine: AArch64, which qemu plays. Exit code 77: it is not there.
set -eu
runner=$1
shift
if ! command -v qemu-aarch64 >/dev/null; then
  echo "skipped: no qemu-aarch64; apt-get install qemu-user"
  exit 77
fi
if [ ! -x "$runner" ]; then
  echo "skipped: no $runner; cmake --preset aarch64 && cmake --build --preset aarch64"
  exit 77
fi
MODIST_TEST_CPU=aarch64
MODIST_TEST_RT="qemu-aarch64 -L /usr/aarch64-linux-gnu $runner"
export MODIST_TEST_CPU MODIST_TEST_RT
exec "$@"
