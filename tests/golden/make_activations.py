#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_activations.py - inputs of linears as bitsandbytes and compressed-tensors round them.

Writes activations.safetensors beside this file. Made with torch 2.13.0 (CPU), bitsandbytes 0.50.2 and
compressed-tensors 0.20.0:

    x                      [7, 96] f32, from numbers(): some values near and above 6, a row of zeros
    fp8_token, fp8_group, fp8_tensor, nvfp4, mxfp4, mxfp8    x after fake_quantize, f32; global_scale [1] of nvfp4;
                           groups of 16 (nvfp4) and 32
    int8.codes, int8.scb   a weight [11, 96] by int8_vectorwise_quant
    int8.y6, int8.y0       x times it by MatMul8bitLt (f32 x), thresholds 6 and 0; int8.one: row 1 of x alone, 6"""

import os

import bitsandbytes as bnb  # noqa: F401 (registers its operators)
import numpy as np
import torch
from bitsandbytes.autograd._functions import MatMul8bitLt, MatmulLtState
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils.helpers import compute_dynamic_scales_and_zp
from safetensors.torch import save_file

ARGS = {
    "fp8_token": dict(num_bits=8, strategy="token"),
    "fp8_group": dict(num_bits=8, strategy="group", group_size=32),
    "fp8_tensor": dict(num_bits=8, strategy="tensor"),
    "nvfp4": dict(num_bits=4, strategy="tensor_group", group_size=16, scale_dtype=torch.float8_e4m3fn),
    "mxfp4": dict(num_bits=4, strategy="group", group_size=32, scale_dtype=torch.uint8),
    "mxfp8": dict(num_bits=8, strategy="group", group_size=32, scale_dtype=torch.uint8),
}


def numbers(rows, cols, seed):
    out, x = np.empty((rows, cols), np.float64), seed
    for i in range(rows * cols):
        x = (x * 1664525 + 1013904223) & 0xFFFFFFFF
        out.flat[i] = (x >> 8) / 2**24 * 2 - 1
    return out


def make_x():
    x = numbers(7, 96, 1) * np.exp2(np.rint(numbers(7, 96, 2) * 3))
    x[4] = 0
    x[0, 17], x[3, 40], x[5, 41] = 6.0, -11.3, 5.999
    x[2, 17], x[6, 90] = 5.9985, 70.0
    return torch.from_numpy(x.astype(np.float32))


def fake(x, name, global_scale):
    args = QuantizationArgs(type="float", symmetric=True, dynamic=True, **ARGS[name])
    x = x.unsqueeze(0)  # [batch, token, column]: with two dimensions "token" would be one scale for all
    scale, zero = compute_dynamic_scales_and_zp(x, args, None, global_scale=global_scale)
    return fake_quantize(x, scale, zero, args, global_scale=global_scale).squeeze(0).float().contiguous()


def llm_int8(x, codes, scb, threshold):
    state = MatmulLtState()
    state.CB, state.SCB, state.threshold = codes, scb, threshold
    state.has_fp16_weights = state.is_training = False
    return MatMul8bitLt.apply(x, codes, None, None, state).contiguous()


def main():
    x = make_x()
    out = {"x": x, "global_scale": torch.tensor([448 * 6 / 70.0], dtype=torch.float32)}
    for name in ARGS:
        out[name] = fake(x, name, out["global_scale"] if name == "nvfp4" else None)
    w = torch.from_numpy(numbers(11, 96, 3).astype(np.float32))
    codes, scb, _ = torch.ops.bitsandbytes.int8_vectorwise_quant(w.half(), 0.0)
    out.update({"int8.codes": codes, "int8.scb": scb})
    out["int8.y6"] = llm_int8(x, codes, scb, 6.0)
    out["int8.y0"] = llm_int8(x, codes, scb, 0.0)
    out["int8.one"] = llm_int8(x[1:2].contiguous(), codes, scb, 6.0)
    save_file(out, os.path.join(os.path.dirname(os.path.abspath(__file__)), "activations.safetensors"))


if __name__ == "__main__":
    main()
