# SPDX-License-Identifier: Apache-2.0
"""Golden values of GGUF block types from the Python package gguf (0.19.0; pip install gguf).

  make_blocks.py            prints the `random` lines of tests/golden/blocks/reference.txt
  make_blocks.py --tables   prints src/numeric/block_codebook_tables.c

A `random` line is the SHA-256 of the f32 values of 64 blocks whose bytes come from the generator of section 9.1
of the GGUF specification (seed 2024, one draw per byte, bits 24-31), with f16 scales set to 0x2c00 and 0x3000.
The other lines of reference.txt are the tables of sections 9.2, 9.4 and 9.5, which the reference library gave.
"""
import hashlib
import sys

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

BLOCKS = 64
# Offsets of f16 scales in a block, the second one being a minimum.
HALVES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64],
    "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "IQ1_S": [0], "IQ1_M": [],
}


def blocks(name, size):
    state, out = 2024, np.zeros(BLOCKS * size, np.uint8)
    for i in range(len(out)):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = state >> 24
    out = out.reshape(BLOCKS, size)
    for at, high in zip(HALVES[name], (0x2C, 0x30)):
        out[:, at], out[:, at + 1] = 0, high
    if name == "IQ1_M":  # 0x2c00 in the top nibbles of four words
        for at, nibble in zip((49, 51, 53, 55), (0x0, 0x0, 0xC, 0x2)):
            out[:, at] = out[:, at] & 0x0F | nibble << 4
    return out


def random_lines():
    for name in HALVES:
        kind = GGMLQuantizationType[name]
        values = quants.dequantize(blocks(name, GGML_QUANT_SIZES[kind][1]), kind).astype("<f4")
        values = values + np.float32(0)  # no -0.0
        print("random", name, hashlib.sha256(values.tobytes()).hexdigest())


def tables():
    print("""/* SPDX-License-Identifier: Apache-2.0
 *
 * block_codebook_tables.c - the vectors of the codebook types, first value in the low bits. They are part of
 * the file format: GGUF specification, section 4. Written by tests/golden/make_blocks.py --tables. */
#include "numeric/block_codebook.h\"""")
    for name, kind, text in (
        ("iq2_xxs", quants.IQ2_XXS, "2 bits per value: 8, 25, 43"),
        ("iq2_xs", quants.IQ2_XS, "2 bits per value: 8, 25, 43"),
        ("iq2_s", quants.IQ2_S, "2 bits per value: 8, 25, 43"),
        ("iq3_xxs", quants.IQ3_XXS, "3 bits per value: 4, 12, 20, 28, 36, 44, 52, 62"),
        ("iq3_s", quants.IQ3_S, "3 bits per value: 1, 3, 5 ... 15"),
        ("iq1", quants.IQ1_S, "2 bits per value: -1, 0, 1"),
    ):
        kind.init_grid()
        values = np.array(kind.grid_map, np.float32)
        bits = 2 if len(values) < 5 else 3
        codes = np.searchsorted(values, kind.grid.reshape(kind.grid_shape))
        packed = [sum(int(v) << bits * i for i, v in enumerate(row)) for row in codes]
        print(f"\n/* {text} */\nconst uint16_t nb_block_{name}_grid[{len(packed)}] = {{")
        for i in range(0, len(packed), 12):
            print("    " + " ".join(f"0x{v:04x}," for v in packed[i : i + 12]))
        print("};")


if __name__ == "__main__":
    tables() if "--tables" in sys.argv else random_lines()
