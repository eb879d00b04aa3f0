#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_floats.py - what torch and compressed-tensors make of seeded numbers on the grids E4M3 and E2M1.

Writes floats.txt beside this file. Made with torch 2.13.0 (CPU) and compressed-tensors 0.20.0:

    cast e4m3 N SHA256            N f32 bit patterns (NaN left out), clamped to 448, cast by torch
    cast e8m0 N SHA256            N non-negative f32 patterns, clamped to 2^127, cast by torch
    SCHEME ROWS COLS GLOBAL SHA256(codes) SHA256(scales)
                                  a matrix by calculate_qparams and quantize; codes one byte each (E2M1: 0..15),
                                  scales f32, E8M0 bytes or E4M3 bytes; GLOBAL f32 bits in hex, or -

The numbers come from the generator of numbers() below, which test_floats.c repeats."""

import hashlib
import os

import numpy as np
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam

HERE = os.path.dirname(os.path.abspath(__file__))
PATTERNS = 1 << 20
SHAPES = ((1, 32), (3, 96), (22, 160), (130, 288), (257, 192))
SCHEMES = {
    "tensor": dict(num_bits=8, strategy="tensor"),
    "channel": dict(num_bits=8, strategy="channel"),
    "block": dict(num_bits=8, strategy="block", block_structure=[128, 128]),
    "nvfp4": dict(num_bits=4, strategy="tensor_group", group_size=16, scale_dtype=torch.float8_e4m3fn),
    "mxfp4": dict(num_bits=4, strategy="group", group_size=32, scale_dtype=torch.uint8),
    "mxfp8": dict(num_bits=8, strategy="group", group_size=32, scale_dtype=torch.uint8),
}
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])


def numbers(count, seed):
    out, x = np.empty(count, np.uint32), seed
    for i in range(count):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = x
    return out


def matrix(rows, cols):
    """Magnitudes over 16 powers of two; rows of zeros, tiny rows, rows that begin with zeros."""
    x = numbers(2 * rows * cols, rows * 1000 + cols).reshape(rows, cols, 2)
    v = ((x[..., 0] >> 8).astype(np.float64) - 2**23) / 2**24 * 2.0 ** ((x[..., 1] >> 28).astype(np.float64) - 10)
    v[3::11] = 0
    v[5::11] *= 2.0**-60
    v[7::11, :32] = 0
    return torch.from_numpy(v.astype(np.float32) + np.float32(0))


def sha(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def extremes(w, args):
    """Smallest and largest weight of each group, in the shape of the scales."""
    if args.strategy == "tensor":
        return w.min().reshape(1), w.max().reshape(1)
    height, width = {"channel": (1, w.shape[1]), "block": (128, 128)}.get(args.strategy, (1, args.group_size))
    rows, cols = -(-w.shape[0] // height), -(-w.shape[1] // width)
    tiles = [[w[r * height:(r + 1) * height, c * width:(c + 1) * width] for c in range(cols)] for r in range(rows)]
    return tuple(torch.stack([torch.stack([f(t) for t in row]) for row in tiles]) for f in (torch.min, torch.max))


def encode(w, settings):
    args = QuantizationArgs(type="float", symmetric=True, **settings)
    glob = generate_gparam(w.min(), w.max()) if args.strategy == "tensor_group" else None
    low, high = extremes(w, args)
    scale, _ = calculate_qparams(low, high, args, glob)
    q = quantize(w, scale.float(), None, args, global_scale=glob)
    if args.num_bits == 8:
        codes = q.to(torch.float8_e4m3fn).view(torch.uint8)
    else:
        codes = ((q.abs()[..., None] == E2M1).int().argmax(-1) | torch.signbit(q).int() << 3).to(torch.uint8)
    if args.scale_dtype == torch.uint8:
        scales = (torch.log2(scale.double()) + 127).to(torch.uint8)
    elif args.scale_dtype is not None:
        scales = scale.to(args.scale_dtype).view(torch.uint8)
    else:
        scales = scale.float()
    bits = "-" if glob is None else f"{glob.view(torch.int32).item() & 0xFFFFFFFF:08x}"
    return f"{bits} {sha(codes.numpy())} {sha(scales.numpy())}"


def main():
    lines = []
    u = numbers(PATTERNS, 1)
    f = torch.from_numpy(u[(u & 0x7FFFFFFF) <= 0x7F800000].view(np.float32).copy())
    code = f.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)
    lines.append(f"cast e4m3 {len(f)} {sha(code.numpy())}")
    f = torch.from_numpy(u[u < 0x7F800000].view(np.float32).copy())
    lines.append(f"cast e8m0 {len(f)} {sha(f.clamp(max=2.0**127).to(torch.float8_e8m0fnu).view(torch.uint8).numpy())}")
    for rows, cols in SHAPES:
        w = matrix(rows, cols)
        for name, settings in SCHEMES.items():
            lines.append(f"{name} {rows} {cols} {encode(w, settings)}")
    with open(os.path.join(HERE, "floats.txt"), "w") as out:
        out.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
