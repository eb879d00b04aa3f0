#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Is what nibble writes for a matrix what bitsandbytes writes for it, byte for byte?

usage: bnb_encode.py PROGRAM [COUNT]     PROGRAM: tests/bnb_encode of the build; COUNT matrices (default 1200)

NF4: codes, absmax, tables, nested codes and the quant_state text are equal to the byte, nested_offset and
nested_absmax to 1e-6 (they are equal too where torch adds in one thread, which is asked for here). LLM.int8: codes
and SCB equal. FP4: the weights that the codes mean are equal, but for weights that lie between a threshold of the
CUDA kernels, which is ours, and the midpoint that the CPU build has instead (some units in the last place away).
The last line says how many matrices and weights were compared."""
import json
import struct
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import torch
import bitsandbytes as bnb
import bitsandbytes.functional as F

NF4, FP4, INT8 = range(3)
BLOCKS = [32, 64, 128, 256, 512, 1024, 2048, 4096]
CUDA = np.array([0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333], np.float32)
CPU = np.array([1 / 384, 11 / 128, 5 / 24, 7 / 24, 5 / 12, 7 / 12, 5 / 6], np.float32)


def fill(rng, how, n, kind):
    """n weights; `how` picks what is peculiar about them."""
    x = rng.standard_normal(n).astype(np.float32)
    big = np.float32(60000.0 if kind == INT8 else 1e37)
    if how == "normal":
        return x * np.float32(10.0 ** rng.uniform(-4, 1))
    if how == "heavy":
        return rng.standard_t(3, n).astype(np.float32) * np.float32(0.02)
    if how == "bf16":
        return (x * np.float32(0.05)).view(np.uint32).__and__(0xFFFF0000).view(np.float32)
    if how == "f16":
        return (x * np.float32(0.05)).astype(np.float16).astype(np.float32)
    if how == "ties":  # midpoints of the tables, thresholds, halves of int8 steps
        book = F.get_4bit_type("nf4" if kind == NF4 else "fp4", device="cpu").sort().values.numpy()
        levels = np.concatenate([(book[1:] + book[:-1]) / 2, CUDA, -CUDA, [1, -1, 0]]).astype(np.float32)
        if kind == INT8:
            levels = np.concatenate([np.arange(-127, 127) + 0.5, [127, -127]]).astype(np.float32) / 127
        return levels[rng.integers(0, len(levels), n)] * np.float32(2.0 ** int(rng.integers(-8, 3)))
    if how == "grid":
        return rng.integers(-20, 21, n).astype(np.float32) / np.float32(2 ** int(rng.integers(0, 8)))
    if how == "zeros":
        return np.where(rng.random(n) < 0.9, np.float32(0), x * np.float32(0.1))
    if how == "zero runs":
        x[: n // 2] = 0
        x[n // 2 : n // 2 + 3] *= np.float32(-0.0)
        return x
    if how == "all zero":
        return np.zeros(n, np.float32)
    if how == "constant":
        return np.full(n, rng.choice([0.1, -0.3, 1.0, 1e-3]), np.float32)
    if how == "huge":
        return np.clip(x, -1, 1) * big
    if how == "small":
        return x * np.float32(1e-7 if kind == INT8 else 1e-36)
    if how == "denormal":
        return (x * np.float32(1e-38)) * np.float32(0.01)
    if how == "outlier":
        x *= np.float32(0.01)
        x[rng.integers(0, n)] = 30
        return x
    raise ValueError(how)


PECULIAR = ["normal", "normal", "heavy", "bf16", "f16", "ties", "ties", "grid", "zeros", "zero runs", "all zero",
            "constant", "huge", "small", "denormal", "outlier"]


def make(count):
    rng = np.random.default_rng(20261124)
    for i in range(count):
        kind = (NF4, FP4, INT8, NF4)[i % 4]
        how = PECULIAR[int(rng.integers(0, len(PECULIAR)))]
        rows, cols = int(rng.integers(1, 40)), int(rng.integers(1, 300))
        if i % 3 == 0:
            cols = int(rng.choice([32, 64, 96, 128, 288, 768]))
        if i % 100 == 7:
            rows, cols = 257, 1023
        block = BLOCKS[(i // 4) % len(BLOCKS)]
        nested = int(kind != INT8 and i % 2 == 1 and how != "huge")
        yield kind, rows, cols, block, nested, how, fill(rng, how, rows * cols, kind)


def read_output(path, matrices):
    data, at = open(path, "rb").read(), 0

    def line():
        nonlocal at
        end = data.index(b"\n", at)
        text = data[at:end].decode()
        at = end + 1
        return text

    for kind, rows, cols, *_ in matrices:
        tensors = {}
        for _ in range(int(line())):
            suffix, size = line().split()
            tensors[suffix] = data[at : at + int(size)]
            at += int(size)
        values = np.frombuffer(data, np.float32, rows * cols, at)
        at += 4 * rows * cols
        yield tensors, values
    assert at == len(data), "bytes left over"


def near(a, b):
    a, b = np.frombuffer(a, np.float32), np.frombuffer(b, np.float32)
    return np.all(np.abs(a - b) <= 1e-6 * np.abs(b))


class Compare:
    def __init__(self):
        self.weights = self.exact_nested = self.nested = self.between = 0

    def four_bit(self, name, kind, rows, cols, block, nested, w, tensors, values):
        quant = "nf4" if kind == NF4 else "fp4"
        t = torch.from_numpy(w.copy()).reshape(rows, cols)
        while block > 32 and block // 2 >= rows * cols:
            block //= 2  # a matrix below its block: any block that holds it means the same, ours names the smallest
        packed, state = F.quantize_4bit(t, blocksize=block, compress_statistics=bool(nested), quant_type=quant)
        theirs = {"." + k: v.contiguous().numpy().tobytes() for k, v in state.as_dict(packed=True).items()}
        theirs = {".weight" + k: v for k, v in theirs.items()}
        theirs[".weight"] = packed.numpy().tobytes()
        assert set(theirs) == set(tensors), f"{name}: tensors {sorted(tensors)}"
        blob = ".weight.quant_state.bitsandbytes__" + quant
        if nested:
            a, b = json.loads(tensors[blob]), json.loads(theirs[blob])
            assert abs(a.pop("nested_offset") - b["nested_offset"]) <= 1e-6 * abs(b.pop("nested_offset")), f"{name}: offset"
            assert a == b, f"{name}: {a} {b}"
            self.nested += 1
            same = tensors[blob].rstrip() == theirs[blob]
            self.exact_nested += same and tensors[".weight.nested_absmax"] == theirs[".weight.nested_absmax"]
            assert near(tensors[".weight.nested_absmax"], theirs[".weight.nested_absmax"]), f"{name}: nested_absmax"
            del theirs[blob], theirs[".weight.nested_absmax"]
        if kind == FP4:
            self.fp4(name, rows * cols, block, w, tensors, values, theirs.pop(".weight"), state)
        for key in theirs:
            assert tensors[key] == theirs[key], f"{name}: {key} differs"

    def fp4(self, name, n, block, w, tensors, values, packed, state):
        """The same weights; where not, the weight lies between the two thresholds."""
        codes = np.frombuffer(packed, np.uint8)
        codes = np.stack([codes >> 4, codes & 15], 1).reshape(-1)[:n]
        absmax = state.absmax
        if state.nested:
            absmax = F.dequantize_blockwise(absmax, state.state2) + state.offset
        absmax = np.repeat(absmax.numpy(), block)[:n]
        theirs = state.code.numpy()[codes] * absmax
        differ = np.flatnonzero(theirs != values)
        plain = np.repeat([np.abs(w[i : i + block]).max() for i in range(0, n, block)], block)[:n].astype(np.float32)
        for i in differ:
            x = np.abs(w[i]) * (np.float32(1) / plain[i])
            k = int(np.argmin(np.abs(CPU - x)))
            lo, hi = min(CUDA[k], CPU[k]), max(CUDA[k], CPU[k])
            gap = np.spacing(hi)
            assert lo - gap <= x <= hi + gap, f"{name}: weight {i} = {w[i]!r}: {values[i]!r}, theirs {theirs[i]!r}"
        self.between += len(differ)

    def eight_bit(self, name, rows, cols, w, tensors):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            p = bnb.nn.Int8Params(torch.from_numpy(w.copy()).reshape(rows, cols), requires_grad=False).to("cpu")
        assert tensors[".SCB"] == p.SCB.numpy().tobytes(), f"{name}: SCB differs"
        assert tensors[".weight"] == p.data.numpy().tobytes(), f"{name}: codes differ"
        assert tensors[".weight_format"] == b"\0", f"{name}: weight_format"


def main():
    program, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1200
    torch.set_num_threads(1)
    matrices = list(make(count))
    compare = Compare()
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/in", "wb") as f:
            for kind, rows, cols, block, nested, _, w in matrices:
                f.write(struct.pack("<5q", kind, rows, cols, block, nested) + w.astype(np.float32).tobytes())
        subprocess.run([program, folder + "/in", folder + "/out"], check=True)
        for i, (m, (tensors, values)) in enumerate(zip(matrices, read_output(folder + "/out", matrices))):
            kind, rows, cols, block, nested, how, w = m
            name = f"matrix {i} ({'NF4 FP4 INT8'.split()[kind]}, {rows} x {cols}, block {block}, nested {nested}, {how})"
            if kind == INT8:
                compare.eight_bit(name, rows, cols, w, tensors)
            else:
                compare.four_bit(name, kind, rows, cols, block, nested, w, tensors, values)
            compare.weights += rows * cols
    print(f"{count} matrices, {compare.weights} weights equal to bitsandbytes {bnb.__version__}; nested "
          f"{compare.exact_nested} of {compare.nested} equal to the bit; FP4 weights between two thresholds: {compare.between}")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as e:
        print(e)
        sys.exit(1)
