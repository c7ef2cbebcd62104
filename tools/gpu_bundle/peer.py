#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What modist is compared with: the same work in PyTorch. Prints JSON; needs torch, and a GPU for --device=cuda.

    peer.py step --batch=64 --mode=compile       MoDist's step: R3D-50, the motion network, keys, banks, SGD
    peer.py infonce --batch=64                   two losses that share a bank, forward and backward
    peer.py block --site=res3 --batch=32         a bottleneck of R3D-50 in training: cuDNN, batch norm, ReLU
    peer.py conv --batch=8                       the convolutions of conv_r3d50.mdg, each by itself

MODE is eager, compile or compile-max-autotune, or one of the same captured as one CUDA graph: cudagraph,
compile-cudagraph, compile-max-autotune-cudagraph. That graph has the whole work, SGD and banks, too, where those of
torch.compile's own mode max-autotune would have a network each; what is tuned is the same. Networks run in bf16 by autocast, channels last (--precision=fp32, --layout=contiguous), cuDNN
chooses its algorithms by measuring. The step follows one order: moving average, keys, queries, losses, gradients,
SGD, banks. A time is that between two events on the device, and as with modist's own times the host is ahead of the
device from the first one on: the device sleeps until the work is issued.

How it was checked: eight steps of a small copy (one block a stage, three videos, a bank of 20, f32, CPU, SGD without
Nesterov and with decay for all) agree with an independent implementation of the method in PyTorch, given the same
parameters, clips and banks: losses to 1e-5, banks to 1e-6, ids. The sizes were counted: 31,619,008 and 367,512 weights
of convolutions in the visual and the motion network, 36,130,752 and 1,162,760 parameters.
"""
import argparse
import contextlib
import json
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

TAU, MOMENTUM = 0.1, 0.999
WIDTHS, BLOCKS = (64, 128, 256, 512), (3, 4, 6, 3)
SITES = {"res2": (64, 1, 56), "res3": (128, 1, 28), "res4": (256, 3, 14), "res5": (512, 3, 7)}


# --- networks

def conv(i, o, kernel, stride=1):
    step = (1, stride, stride)
    return nn.Conv3d(i, o, kernel, step, [k // 2 for k in kernel], bias=False)


class Bottleneck(nn.Module):
    def __init__(self, i, width, kt, stride):
        super().__init__()
        o = 4 * width
        self.a, self.a_bn = conv(i, width, (kt, 1, 1)), nn.BatchNorm3d(width)
        self.b, self.b_bn = conv(width, width, (1, 3, 3), stride), nn.BatchNorm3d(width)
        self.c, self.c_bn = conv(width, o, (1, 1, 1)), nn.BatchNorm3d(o)
        self.proj = None
        if i != o or stride != 1:
            self.proj, self.proj_bn = conv(i, o, (1, 1, 1), stride), nn.BatchNorm3d(o)

    def forward(self, x):
        y = F.relu(self.a_bn(self.a(x)))
        y = F.relu(self.b_bn(self.b(y)))
        y = self.c_bn(self.c(y))
        return F.relu(y + (x if self.proj is None else self.proj_bn(self.proj(x))))


class Net(nn.Module):
    """Trunk, mean over time and space, projection. The motion network has an eighth of the channels and no kernel
    along time."""

    def __init__(self, stem, times, widths, blocks=BLOCKS, hidden=2048, embed=128):
        super().__init__()
        i = widths[0]
        self.stem, self.stem_bn = conv(3, i, stem, 2), nn.BatchNorm3d(i)
        stages = []
        for s, (width, kt) in enumerate(zip(widths, times)):
            for k in range(blocks[s]):
                stages.append(Bottleneck(i, width, kt, 2 if k == 0 and s > 0 else 1))
                i = 4 * width
        self.stages = nn.Sequential(*stages)
        self.fc1, self.fc2 = nn.Linear(i, hidden), nn.Linear(hidden, embed)

    def forward(self, x):
        x = F.relu(self.stem_bn(self.stem(x)))
        x = self.stages(F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)))
        return self.fc2(F.relu(self.fc1(x.mean((2, 3, 4)))))


def visual(**small):
    return Net((5, 7, 7), (1, 1, 3, 3), **{"widths": WIDTHS, **small})


def motion(**small):
    return Net((1, 7, 7), (1, 1, 1, 1), **{"widths": [w // 8 for w in WIDTHS], **small})


# --- losses: a query against two keys, with the negatives of one bank

def two_losses(q, k1, k2, bank, is_own):
    z = (q @ bank.t()).float() / TAU
    lse = torch.logsumexp(z.masked_fill(is_own, float("-inf")), 1)
    return sum(F.softplus(lse - (q * k).sum(1).float() / TAU).mean() for k in (k1, k2))


# --- what is timed. Each has a `run` that does the work once.

class Run:
    def __init__(self, a):
        self.a = a
        self.is_bf16 = a.precision == "bf16"
        self.dtype = torch.bfloat16 if self.is_bf16 else torch.float32
        self.format = torch.channels_last_3d if a.layout == "channels_last_3d" else torch.contiguous_format

    def cast(self):
        return torch.autocast(self.a.device, torch.bfloat16) if self.is_bf16 else contextlib.nullcontext()

    def compiled(self, f):
        if not self.a.mode.startswith("compile"):
            return f
        mode = "max-autotune-no-cudagraphs" if "max-autotune" in self.a.mode else None
        return torch.compile(f, mode=mode, dynamic=False)

    def net(self, net):
        return net.to(self.a.device, memory_format=self.format).train()

    def clip(self, *shape):
        return torch.rand(shape, device=self.a.device).to(memory_format=self.format)

    def unit(self, *shape):
        return F.normalize(torch.randn(shape, device=self.a.device))


class Step(Run):
    def __init__(self, a, visual=visual, motion=motion):
        super().__init__(a)
        n = a.batch
        self.online = [self.net(f()) for f in (visual, motion)]
        self.keys = [self.net(f()) for f in (visual, motion)]
        for net, key in zip(self.online, self.keys):
            key.load_state_dict(net.state_dict())
        self.weights = [p for net in self.online for p in net.parameters()]
        self.slow = [p.requires_grad_(False) for net in self.keys for p in net.parameters()]
        self.calls = [self.compiled(net) for net in self.online + self.keys]
        self.losses = self.compiled(two_losses)
        v, m = (n, 3, a.frames, a.size, a.size), (n, 3, 2 * a.frames, a.size, a.size)
        self.x = [self.clip(*shape) for shape in (v, m, v, m)]
        self.banks = [self.unit(a.bank, 128).to(self.dtype) for _ in range(2)]
        self.bank_ids = torch.full((a.bank,), -1, device=a.device)
        self.ids = torch.arange(n, device=a.device)
        self.at = torch.zeros(1, dtype=torch.int64, device=a.device)
        norms = [p for net in self.online for m in net.modules() if isinstance(m, nn.BatchNorm3d)
                 for p in m.parameters()]
        others = [p for p in self.weights if all(p is not n for n in norms)]
        # Norms do not decay.
        self.sgd = torch.optim.SGD([{"params": others, "weight_decay": 1e-4}, {"params": norms}], lr=1e-3,
                                   momentum=0.9, nesterov=True, fused=a.device == "cuda")

    def embed(self, i):
        with self.cast():
            return F.normalize(self.calls[i](self.x[i]).float())

    @torch.no_grad()
    def push(self, keys):
        where = (self.at + self.ids) % self.a.bank
        for bank, key in zip(self.banks, keys):
            bank.index_copy_(0, where, key.to(bank.dtype))
        self.bank_ids.index_copy_(0, where, self.ids)
        self.at.add_(self.a.batch).remainder_(self.a.bank)

    def run(self):
        with torch.no_grad():
            torch._foreach_lerp_(self.slow, self.weights, 1 - MOMENTUM)
            k = self.embed(2), self.embed(3)
        q = self.embed(0), self.embed(1)
        is_own = self.bank_ids[None] == self.ids[:, None]
        with self.cast():
            loss = sum(self.losses(q[i], *k, self.banks[i], is_own) for i in (0, 1))
        self.sgd.zero_grad(set_to_none=True)
        loss.backward()
        self.sgd.step()
        self.push(k)
        self.loss = loss.detach()


class InfoNCE(Run):
    def __init__(self, a):
        super().__init__(a)
        self.q = self.unit(a.batch, 128).requires_grad_(True)
        self.k = [self.unit(a.batch, 128) for _ in range(2)]
        self.bank = self.unit(a.bank, 128).to(self.dtype)
        self.is_own = (torch.arange(a.bank, device=a.device) == -1)[None].expand(a.batch, -1)
        self.losses = self.compiled(two_losses)

    def run(self):
        with self.cast():
            loss = self.losses(self.q, *self.k, self.bank, self.is_own)
        self.loss, = torch.autograd.grad(loss, self.q)


class Block(Run):
    """A convolution to the width of the stage, then a bottleneck of it."""

    def __init__(self, a):
        super().__init__(a)
        width, kt, size = SITES[a.site]
        net = self.net(nn.Sequential(conv(8, 4 * width, (1, 1, 1)), Bottleneck(4 * width, width, kt, 1)))
        self.weights = [p for p in net.parameters() if p.dim() == 5]
        self.call = self.compiled(net)
        self.x = self.clip(a.batch, 8, 8, size, size)

    def run(self):
        with self.cast():
            loss = self.call(self.x).float().square().mean()
        self.grads = torch.autograd.grad(loss, self.weights)


WORK = {"step": Step, "infonce": InfoNCE, "block": Block}

# Of conv_r3d50.mdg: channels, size, channels behind it, kernel, stride.
CONVS = {"s1": (3, 224, 64, (5, 7, 7), 2), "s2b": (64, 56, 64, (1, 3, 3), 1), "s2c": (64, 56, 256, (1, 1, 1), 1),
         "s2a": (256, 56, 64, (1, 1, 1), 1), "s3b0": (128, 56, 128, (1, 3, 3), 2),
         "s3b": (128, 28, 128, (1, 3, 3), 1), "s3c": (128, 28, 512, (1, 1, 1), 1),
         "s3p": (256, 56, 512, (1, 1, 1), 2), "s4a0": (512, 28, 256, (3, 1, 1), 1),
         "s4a": (1024, 14, 256, (3, 1, 1), 1), "s4b": (256, 14, 256, (1, 3, 3), 1),
         "s4c": (256, 14, 1024, (1, 1, 1), 1), "s5b0": (512, 14, 512, (1, 3, 3), 2),
         "s5b": (512, 7, 512, (1, 3, 3), 1), "s5c": (512, 7, 2048, (1, 1, 1), 1)}


def conv_ways(run, i, size, o, kernel, stride):
    """y, dx and dw, as a convolution of videos and, where no kernel spans two frames, of images."""
    a = run.a
    x = run.clip(a.batch, i, a.frames, size, size).to(run.dtype)
    w = (torch.randn(o, i, *kernel, device=a.device) * 0.05).to(run.dtype).to(memory_format=run.format)
    for is_image in (False, True)[: 1 + (kernel[0] == 1)]:
        step, pad = (1, stride, stride), [k // 2 for k in kernel]
        if is_image:
            x = x.transpose(1, 2).reshape(-1, i, size, size)
            w, step, pad = w.squeeze(2), step[1:], pad[1:]
        rest = (step, pad, [1] * len(step), False, [0] * len(step), 1)
        dy = torch.ops.aten.convolution(x, w, None, *rest)
        back = lambda mask, t=(dy, x, w), r=rest: torch.ops.aten.convolution_backward(*t, None, *r, mask)
        yield {"y": lambda t=(x, w), r=rest: torch.ops.aten.convolution(*t, None, *r),
               "dx": lambda b=back: b([True, False, False]), "dw": lambda b=back: b([False, True, False])}


# --- times

AHEAD_S, CLOCK_HZ = 0.5, 2e9  # at most; no device that is compared has a faster clock


def issue_cycles(f):
    """What the device sleeps so that f, which is run once here, is issued meanwhile."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    f()
    seconds = min(2 * (time.perf_counter() - start), AHEAD_S)
    torch.cuda.synchronize()
    return int(seconds * CLOCK_HZ)


def milliseconds(a, f, num):
    times = []
    cycles = issue_cycles(f) if a.device == "cuda" else 0
    for _ in range(num):
        if a.device == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(cycles)
            start.record()
            f()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        else:
            start = time.perf_counter()
            f()
            times.append((time.perf_counter() - start) * 1e3)
    return times


def captured(run):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def time_convs(a, said):
    run = Run(a)
    with torch.no_grad():
        for name, sizes in CONVS.items():
            best = {}
            for ways in conv_ways(run, *sizes):
                for what, f in ways.items():
                    if (what, name) == ("dx", "s1"):
                        continue  # nobody needs the gradient of the clip
                    f()
                    ms = min(milliseconds(a, f, a.iters))
                    best[what] = min(best.get(what, ms), ms)
            said.update({f"{what}_{name}": round(ms, 5) for what, ms in best.items()})


def time_work(a, said):
    work = WORK[a.what](a)
    run = captured(work.run) if a.mode.endswith("cudagraph") else work.run
    milliseconds(a, run, a.warmup)
    times = milliseconds(a, run, a.iters)
    said["median_ms"] = round(statistics.median(times), 4)
    said["min_ms"] = round(min(times), 4)
    if a.device == "cuda":
        said["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=[*WORK, "conv"])
    p.add_argument("--mode", default="eager",
                   choices=["eager", "compile", "compile-max-autotune", "cudagraph", "compile-cudagraph",
                            "compile-max-autotune-cudagraph"])
    p.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    p.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    p.add_argument("--layout", default="channels_last_3d", choices=["channels_last_3d", "contiguous"])
    p.add_argument("--site", default="res3", choices=SITES)
    for name, value in (("batch", 8), ("frames", 8), ("size", 224), ("bank", 65536), ("warmup", 3), ("iters", 20)):
        p.add_argument(f"--{name}", type=int, default=value)
    a = p.parse_args()
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    said = {"what": a.what, "mode": a.mode, "batch": a.batch, "precision": a.precision, "torch": torch.__version__,
            "cudnn": torch.backends.cudnn.version()}
    (time_convs if a.what == "conv" else time_work)(a, said)
    print(json.dumps(said, indent=1))


if __name__ == "__main__":
    main()
