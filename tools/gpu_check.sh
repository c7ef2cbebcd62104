#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# For a developer on a machine with an NVIDIA GPU: runs the CUDA kernels of the slice against the host's results,
# asks the driver what the tests ask its stand-in (if they are built), and makes and runs the bundle
# (tools/gpu_bundle.sh), with the peer benchmark where a Python with torch is there. Results go to
# bench/results/<device>/.
#   sh tools/gpu_check.sh [--budget=20m] options are those of the bundle's run.sh
#   MODIST_LAUNCHER=FILE                 a launcher built elsewhere, instead of building one
#   MODIST_BUNDLE=DIR                    a bundle made elsewhere, instead of making one
#   PYTHON=python3, MODIST_CUDNN=FILE    a Python with torch; libcudnn.so.9 (see run.sh)
# Exit code: 0 all well, 1 something is wrong, 4 there is no GPU.
set -u
# Paths hold in another folder, too; a bare name is looked up in PATH.
absolute() { case $1 in /* | '') echo "$1" ;; */*) echo "$PWD/$1" ;; *) echo "$1" ;; esac; }
python=$(absolute "${PYTHON:-python3}")
launcher=$(absolute "${MODIST_LAUNCHER:-}")
bundle=$(cd "${MODIST_BUNDLE:-/nowhere}" 2>/dev/null && pwd)
if [ -n "${MODIST_BUNDLE:-}" ] && [ -z "$bundle" ]; then
  echo "gpu_check: there is no folder '$MODIST_BUNDLE' (MODIST_BUNDLE)" >&2
  exit 1
fi
if [ -n "${MODIST_CUDNN:-}" ]; then MODIST_CUDNN=$(absolute "$MODIST_CUDNN") && export MODIST_CUDNN; fi
cd "$(dirname "$0")/.." || exit 1
MODIST_SOURCE=$PWD
export MODIST_SOURCE PYTHON="$python"
launcher=${launcher:-$PWD/build/tests/device/device_launcher}

if [ -z "${MODIST_LAUNCHER:-}" ]; then
  { [ -f build/build.ninja ] || cmake --preset release; } && cmake --build build --target device_launcher ||
    { echo "gpu_check: the launcher cannot be built; MODIST_LAUNCHER names one built elsewhere" >&2; exit 1; }
fi

name=$("$launcher" --name)
code=$?
if [ $code != 0 ]; then
  echo "gpu_check: $name"
  exit $code
fi
out=bench/results/$name
mkdir -p "$out"
echo "gpu_check: $name, results in $out"

# NVRTC comes with the toolkit, or with torch.
if [ -z "${MODIST_NVRTC:-}" ]; then
  for f in /usr/local/cuda/lib64/libnvrtc.so.1[23] \
    $("$python" -c 'import nvidia, glob
for p in nvidia.__path__: print(*glob.glob(p + "/*/lib/libnvrtc.so.1[23]"))' 2>/dev/null); do
    if [ -f "$f" ]; then MODIST_NVRTC=$f; export MODIST_NVRTC; break; fi
  done
fi

failed=0
"$launcher" >"$out/slice.txt" 2>&1
code=$?
cat "$out/slice.txt"
[ $code = 0 ] || failed=1

# What the driver answers otherwise than its stand-in. Differences are for a person to look at.
driver=$(ldconfig -p | sed -n 's/.*libcuda\.so\.1 .*=> *//p' | head -n 1)
for test in test_stand_in test_stand_in_faults test_stand_in_order; do
  [ -x "build/tests/device/$test" ] && [ -n "$driver" ] || continue
  echo "== $test"
  MODIST_REAL_DRIVER=1 LD_LIBRARY_PATH=$(dirname "$driver") CK_FORK=yes "build/tests/device/$test"
done >"$out/driver.txt" 2>&1
cat "$out/driver.txt"

if [ -z "$bundle" ]; then
  bundle=$PWD/build/gpu_bundle
  cmake --build build --target modistc modist_rt_carried device_dumps device_make_dumps && sh tools/gpu_bundle.sh ||
    { echo "gpu_check: the bundle cannot be made; MODIST_BUNDLE names one made elsewhere" >&2; exit 1; }
fi
sh "$bundle/run.sh" --out="$PWD/$out/bundle" "$@" || failed=1
exit $failed
