#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_bnb.py - the corpus of fuzz_bnb: sound linears of 4 x 24 in blocks of 32, by the formats document, section 4.

No package but the tables of a file that bitsandbytes wrote (tests/golden/bnb): the dynamic map is taken from there."""
import json
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "golden", "bnb")
OUT = os.path.join(HERE, "corpus", "bnb")
ROWS, COLS, BLOCKS = 4, 24, 3


def golden(case, ending):
    with open(os.path.join(GOLDEN, case, "model.safetensors"), "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        header, data = json.loads(f.read(n)), f.read()
    entry = next(v for k, v in sorted(header.items()) if k.endswith(ending))
    return data[slice(*entry["data_offsets"])]


def safetensors(tensors):
    header, data = {}, b""
    for name, (dtype, shape, raw) in tensors.items():
        header["p" + name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def four_bit(quant, nested, storage):
    state = {"quant_type": quant, "blocksize": 32, "dtype": "float32", "shape": [ROWS, COLS]}
    absmax = struct.pack("<3f", 1.0, 0.25, 0.5)
    if nested:
        state.update(nested_blocksize=256, nested_dtype="float32", nested_offset=0.5)
    blob = json.dumps(state).encode()
    codes = bytes(17 * i % 256 for i in range(ROWS * COLS // 2))
    width = {"U8": 1, "BF16": 2, "F16": 2, "F32": 4}[storage]
    out = {".weight": (storage, [len(codes) // width, 1], codes),
           ".weight.absmax": ("U8", [BLOCKS], bytes([255, 90, 127])) if nested else ("F32", [BLOCKS], absmax),
           ".weight.quant_map": ("F32", [16], golden("fp4-double" if quant == "fp4" else "nf4", ".weight.quant_map")),
           ".weight.quant_state.bitsandbytes__" + quant: ("U8", [len(blob)], blob)}
    if nested:
        out[".weight.nested_absmax"] = ("F32", [1], struct.pack("<f", 0.5))
        out[".weight.nested_quant_map"] = ("F32", [256], golden("nf4-double", ".weight.nested_quant_map"))
    # what is aligned to fewer bytes stands last
    return dict(sorted(out.items(), key=lambda kv: -{"U8": 1, "BF16": 2, "F16": 2, "F32": 4}[kv[1][0]]))


def eight_bit():
    return {".SCB": ("F32", [ROWS], struct.pack("<4f", 1, 2, 0, 4)),
            ".weight": ("I8", [ROWS, COLS], bytes((37 * i) % 255 - 127 & 255 for i in range(ROWS * COLS))),
            ".weight_format": ("U8", [], b"\0")}


def main():
    os.makedirs(OUT, exist_ok=True)
    four, eight = b'{"load_in_4bit": true}\n', b'{"load_in_8bit": true, "llm_int8_threshold": 6.0}\n'
    for name, config, tensors in (("nf4", four, four_bit("nf4", False, "U8")), ("nf4-double", four, four_bit("nf4", True, "BF16")),
                                  ("fp4", four, four_bit("fp4", False, "F32")), ("int8", eight, eight_bit())):
        with open(os.path.join(OUT, name), "wb") as f:
            f.write(config + safetensors(tensors))


if __name__ == "__main__":
    main()
