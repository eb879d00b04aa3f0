#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_fp8.py - the corpus of fuzz_fp8: every form that is read, valid, for a linear of 4 x 6; numpy only."""

import json
import os
import struct

import numpy as np

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus", "fp8")
CODES = np.arange(24, dtype=np.uint8) * 5


def file_of(tensors):
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def f32(*values):
    return np.array(values, np.float32).tobytes()


def save(name, config, tensors):
    tensors = {"p.weight": ("F8_E4M3", [4, 6], CODES.tobytes()), **tensors}
    with open(os.path.join(HERE, name), "wb") as out:
        out.write(json.dumps({"quant_method": "fp8", **config}).encode() + b"\n" + file_of(tensors))


def main():
    os.makedirs(HERE, exist_ok=True)
    dynamic, blocks = {"activation_scheme": "dynamic"}, {"activation_scheme": "dynamic", "weight_block_size": [2, 4]}
    four = f32(1, 2, 0.5, 0.25)
    save("block", blocks, {"p.weight_scale_inv": ("F32", [2, 2], four)})
    save("block-e8m0", blocks, {"p.scale": ("F8_E8M0", [2, 2], bytes([127, 126, 0, 130]))})
    save("block-u8", {**blocks, "scale_fmt": "ue8m0"}, {"p.weight_scale_inv": ("U8", [2, 2], bytes([127, 126, 0, 130]))})
    save("block-bf16", {**blocks, "ignored_layers": ["lm_head"]},
         {"p.weight_scale_inv": ("BF16", [2, 2], np.array([0x3F80, 0x4000, 0x3F00, 0x3E80], np.uint16).tobytes())})
    save("tensor", dynamic, {"p.weight_scale": ("F32", [], f32(0.5))})
    save("static", {"activation_scheme": "static"},
         {"p.weight_scale": ("F32", [1], f32(0.5)), "p.input_scale": ("F32", [1], f32(0.01))})
    save("rows", dynamic, {"p.weight_scale": ("F32", [4, 1], four)})
    save("inverse", {"format": "float8_e4m3fn", "weight_scale_method": "row", "weight_scale_semantics": "inverse"},
         {"p.weight_scale_inv": ("F32", [4], f32(224, 448, 100, 1000))})
    save("bad-nan", blocks, {"p.weight_scale_inv": ("F32", [2, 2], f32(1, np.nan, 1, 1))})
    save("bad-inverse", {"format": "float8_e4m3fn"}, {"p.weight_scale_inv": ("F32", [], f32(0))})
    save("bad-both", blocks, {"p.weight_scale_inv": ("F32", [2, 2], four), "p.scale": ("F32", [2, 2], four)})
    save("patterns", {**blocks, "ignored_layers": ["re:.*gate$"], "modules_to_not_convert": ["p.q"]},
         {"p.weight_scale_inv": ("F32", [2, 2], four)})


if __name__ == "__main__":
    main()
