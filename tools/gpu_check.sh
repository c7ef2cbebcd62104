#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# For a developer on a machine with an NVIDIA GPU: runs the CUDA kernels of the slice against the host's results,
# asks the driver what the tests ask its stand-in (if they are built), and makes and runs the bundle
# (tools/gpu_bundle.sh), with the peer benchmark where a Python with torch is there. Results go to
# bench/results/<device>/.
#   sh tools/gpu_check.sh [--budget=20m] options are those of the bundle's run.sh
#   MODIST_LAUNCHER=FILE                 a launcher built elsewhere, instead of building one
#   MODIST_BUNDLE=DIR                    a bundle made elsewhere, instead of making one
#   MODIST_REFERENCE=DIR                 folder that holds reference/bench_torch.py (../shared)
#   PYTHON=python3                       a Python with torch
# Exit code: 0 all well, 1 something is wrong, 4 there is no GPU.
set -u
cd "$(dirname "$0")/.." || exit 1
MODIST_SOURCE=$PWD
export MODIST_SOURCE
python=${PYTHON:-python3}
MODIST_REFERENCE=$(cd "${MODIST_REFERENCE:-../shared}" 2>/dev/null && pwd) || MODIST_REFERENCE=
export MODIST_REFERENCE
launcher=${MODIST_LAUNCHER:-build/tests/device/device_launcher}

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

bundle=${MODIST_BUNDLE:-build/gpu_bundle}
if [ -z "${MODIST_BUNDLE:-}" ]; then
  cmake --build build --target modistc modist_rt_carried device_dumps device_make_dumps && sh tools/gpu_bundle.sh ||
    { echo "gpu_check: the bundle cannot be made; MODIST_BUNDLE names one made elsewhere" >&2; exit 1; }
fi
sh "$bundle/run.sh" --out="$out/bundle" "$@" || failed=1
exit $failed
