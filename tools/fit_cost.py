#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# The table of codegen/cpu/cost.c, judged and fitted anew, from reports of `modistc bench --predict`:
#   modistc bench step modist-r3d50 batch=2 -n 5 --predict --format=json -o f32.json
#   modistc bench step modist-r3d50 batch=2 -n 5 --predict --precision=bf16 --format=json -o bf16.json
#   tools/fit_cost.py f32.json bf16.json
# Each family's row is the one with the least geometric mean error over its kernels.
import json
import math
import pathlib
import re
import sys

SOURCE = pathlib.Path(__file__).parent.parent / "codegen/cpu/cost.c"
LEAST_MS = 1e-3  # as bench_predict.c takes it


def table():
    text = SOURCE.read_text()
    start, node = (float(re.search(name + r" = ([\d.e-]+)", text)[1]) for name in ("start_s", "node_s"))
    rows = re.findall(r'\{"([^"]*)", *([\d.]+), *([\d.]+), *([\d.]+)\}', text)
    return start, node, [(r[0], tuple(map(float, r[1:]))) for r in rows]


def kernels(path):
    report = json.loads(pathlib.Path(path).read_text())
    roof, threads = report["roof"], report["machine"]["threads"]
    for row in report["rows"]:
        for k in row.get("kernels", []):
            used = min(max(k["items"], 1), threads) / threads
            rate = roof.get("bf16_gflop_per_s") if k["is_bf16"] else None
            bandwidth = roof["read_gb_per_s"] * 1e9 * used
            yield dict(k, arithmetic=k["flops"] / ((rate or roof["f32_gflop_per_s"]) * 1e9 * used),
                       memory=k["memory_bytes"] / bandwidth, cache=k["cache_bytes"] / bandwidth)


def predicted_ms(k, start, node, shares):
    parts = zip((k["arithmetic"], k["memory"], k["cache"]), shares)
    return max(1e3 * (start + node * k["nodes"] + sum(p / s for p, s in parts)), LEAST_MS)


def error(ks, start, node, shares):
    logs = [abs(math.log(k["measured_ms"] / predicted_ms(k, start, node, shares))) for k in ks]
    return math.expm1(sum(logs) / len(logs))


# From where it is, down along one share after the other, with steps that shrink.
def fit(ks, start, node, shares):
    best, step = error(ks, start, node, shares), 0.4
    while step > 0.005:
        better = False
        for i in range(3):
            for factor in (1 + step, 1 / (1 + step)):
                other = tuple(s * factor if i == j else s for j, s in enumerate(shares))
                found = error(ks, start, node, other) if 0.02 < other[i] < 10 else best
                if found < best - 1e-6:
                    best, shares, better = found, other, True
        step = step if better else step / 2
    return shares, best


def main():
    start, node, rows = table()
    all_kernels = [k for path in sys.argv[1:] for k in kernels(path)]
    left = all_kernels
    print("family                       kernels  measured ms  predicted ms  error   fitted row, its error")
    for family, shares in rows:
        ks = [k for k in left if k["lowering"].startswith(family)]
        left = [k for k in left if not k["lowering"].startswith(family)]
        if not ks:
            continue
        fitted, best = fit(ks, start, node, shares)
        print(f"{family or '(others)':28s} {len(ks):7d} {sum(k['measured_ms'] for k in ks):12.2f} "
              f"{sum(predicted_ms(k, start, node, shares) for k in ks):13.2f} {error(ks, start, node, shares):6.1%}"
              f"   {{\"{family}\", {', '.join(f'{s:.2f}' for s in fitted)}}}, {best:.1%}")


main()
