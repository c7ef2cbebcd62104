#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The full MoDist step, modist and PyTorch in turn on the same machine; writes one JSON file.

    tools/bench_peer.py --python=PYTHON_WITH_TORCH --reference=DIR -o bench/results/NAME/step.json

PYTHON needs torch, torchvision and safetensors; DIR holds reference/bench_torch.py. Every round runs
each program once in a process of its own, ours first in even rounds, after warm-up steps that do
not count. The ratio is of the medians; nothing else should run meanwhile.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys


def cpu_name():
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def run(command, **kw):
    done = subprocess.run(command, capture_output=True, text=True, **kw)
    if done.returncode:
        sys.exit(f"bench_peer: {command[0]} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout)


def ours(a):
    out = run([a.modistc, "bench", "step", "modist-r3d50", f"batch={a.batch}", f"--threads={a.threads}",
               "--rounds=1", "--warmup=2", "--format=json"])
    return out["rows"][0]["fused"]["median_ms"]


def peer(a):
    out = run([a.python, "-m", "reference.bench_torch", "--what", "step", "--batch", str(a.batch),
               "--threads", str(a.threads), "--dtype", "fp32", "--mode", a.mode,
               "--layout", "channels_last_3d", "--fold2d", "--iters", "1", "--warmup", "2"],
              cwd=a.reference)
    a.torch, a.peer_rss = out["torch"], out["step"]["peak_rss_mb"]
    return out["step"]["median_ms"]


def spread(ms):
    return {"median_ms": statistics.median(ms), "min_ms": min(ms), "max_ms": max(ms), "all_ms": ms}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--python", required=True, help="a Python with torch")
    p.add_argument("--reference", required=True, help="folder that holds reference/bench_torch.py")
    p.add_argument("--modistc", default="build/bin/modistc")
    p.add_argument("--mode", default="eager", help="of torch: eager, compile, ...")
    p.add_argument("--batch", type=int, default=2)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("-o", "--output", required=True)
    a = p.parse_args()
    a.python = os.path.abspath(a.python)
    times = {ours: [], peer: []}
    for i in range(a.rounds):
        for who in (ours, peer) if i % 2 == 0 else (peer, ours):
            times[who].append(who(a))
            print(f"round {i + 1} {who.__name__}: {times[who][-1]:.0f} ms", file=sys.stderr, flush=True)
    result = {"schema": "modist.peer/1", "cpu": cpu_name(), "threads": a.threads, "batch": a.batch,
              "dtype": "f32", "modist": spread(times[ours]), "torch": spread(times[peer]),
              "torch_version": a.torch, "torch_mode": a.mode, "torch_peak_rss_mb": a.peer_rss,
              "ratio_of_medians": statistics.median(times[peer]) / statistics.median(times[ours])}
    os.makedirs(os.path.dirname(a.output) or ".", exist_ok=True)
    with open(a.output, "w") as f:
        json.dump(result, f, indent=1)
        f.write("\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
