#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# On a machine with an NVIDIA GPU: runs the CUDA kernels of the slice against the host's results, asks
# the driver what the tests ask its stand-in (if they are built), and runs the peer benchmark where a Python
# with torch is there. Results go to bench/results/<device>/.
#   sh tools/gpu_check.sh                everything
#   MODIST_LAUNCHER=FILE                 a launcher built elsewhere, instead of building one
#   MODIST_REFERENCE=DIR                 folder that holds reference/bench_torch.py (../shared)
#   PYTHON=python3                       a Python with torch
#   BENCH_ITERS=20                       timed steps of each setting
# Exit code: 0 all well, 1 a kernel is wrong or a benchmark failed, 4 there is no GPU.
set -u
cd "$(dirname "$0")/.." || exit 1
MODIST_SOURCE=$PWD
export MODIST_SOURCE
python=${PYTHON:-python3}
reference=${MODIST_REFERENCE:-../shared}
iters=${BENCH_ITERS:-20}
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

if ! "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  echo "gpu_check: no torch with CUDA in $python: the peer benchmark is left out"
elif [ ! -f "$reference/reference/bench_torch.py" ]; then
  echo "gpu_check: no $reference/reference/bench_torch.py (MODIST_REFERENCE): the peer benchmark is left out"
else
  for mode in eager compile compile-max-autotune; do
    for batch in 8 32 64; do
      file=$out/torch_step_b${batch}_$mode.json
      echo "== torch step, batch $batch, bf16, channels_last_3d, $mode"
      if PYTHONPATH=$reference "$python" -m reference.bench_torch --what step --device cuda --dtype bf16 \
        --layout channels_last_3d --mode $mode --batch $batch --iters "$iters" --cudnn-benchmark \
        >"$file.part" 2>"$out/torch_step_b${batch}_$mode.log"; then
        mv "$file.part" "$file"
        rm -f "$out/torch_step_b${batch}_$mode.log"
        cat "$file"
      else
        rm -f "$file.part"
        echo "gpu_check: failed, see $out/torch_step_b${batch}_$mode.log"
        failed=1
      fi
    done
  done
fi
exit $failed
