#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Copies the smallest cases of each op of a golden set into tests/golden (maintainers only).

    python3 tools/golden_subset.py FULL_SET tests/golden
"""
import json, os, struct, sys

LIMIT = 3 * 1024 * 1024  # bytes of the copy
PER_OP = {"conv3d": 8, "batch_norm": 4, "conv_bn_relu": 4, "max_pool3d": 3, "info_nce": 7,
          "augment": 7, "net": 1, "modist_train": 1}
FIRST = ("modist_train", "net", "classifier", "frame_difference", "conv_bn_relu", "conv2d")


def read(path):
    with open(path, "rb") as f:
        size = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(size))
        data = f.read()
    header.pop("__metadata__", None)
    return {k: (v, data[v["data_offsets"][0]:v["data_offsets"][1]]) for k, v in header.items()}


def main(source, target):
    manifest = json.load(open(os.path.join(source, "manifest.json")))
    files = {name: read(os.path.join(source, name)) for name in manifest["files"]}
    for case in manifest["cases"]:  # of a training run, keep inputs, first step and losses
        if case["op"] == "modist_train":
            case["tensors"] = [t for t in case["tensors"] if t["kind"] == "input"
                               or t["role"].startswith(("step0/", "losses/"))]
    weight = lambda c: sum(len(files[c["file"]][t["key"]][1]) for t in c["tensors"]
                           if t["key"] in files[c["file"]])
    chosen, total = [], 0
    smallest = {}
    for case in manifest["cases"]:
        smallest[case["op"]] = min(weight(case), smallest.get(case["op"], 1 << 60))
    for op in sorted(smallest, key=lambda op: (op not in FIRST, smallest[op])):
        cases = sorted((c for c in manifest["cases"] if c["op"] == op), key=weight)
        for case in cases[:PER_OP.get(op, 2)]:
            if total + weight(case) > LIMIT * 0.86:
                continue
            total += weight(case)
            chosen.append(case)
    header, blob = {}, b""
    for case in chosen:
        for tensor in case["tensors"]:
            entry = files[case["file"]].get(tensor["key"])
            if entry is None:
                continue
            info, data = entry
            header[tensor["key"]] = {"dtype": info["dtype"], "shape": info["shape"],
                                     "data_offsets": [len(blob), len(blob) + len(data)]}
            blob += data
        case["file"] = "cases.safetensors"
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(target, exist_ok=True)
    with open(os.path.join(target, "cases.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + blob)
    top = {k: v for k, v in manifest.items() if k not in ("cases", "files")}
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in chosen)
    head = json.dumps(dict(top, files=["cases.safetensors"]), separators=(",", ":"))[:-1]
    with open(os.path.join(target, "manifest.json"), "w") as f:
        f.write(head + ',"cases":[\n' + lines + "\n]}\n")
    print(len(chosen), "cases,", os.path.getsize(os.path.join(target, "cases.safetensors")), "bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
