#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""golden_reader.py CHECKPOINTS_DIR - quantized_reader.py must give the peers' own dequantized weights, bit for bit.

It is the judge of our folders, so it is judged first, on files that gptqmodel and autoawq wrote.
"""

import os
import sys

import numpy as np
from quantized_reader import read_model, read_safetensors


def main():
    root, wrong, count = sys.argv[1], [], 0
    for name in sorted(os.listdir(root)):
        _, weights, _ = read_model(os.path.join(root, name))
        for key, want in read_safetensors(os.path.join(root, name, "expected.safetensors")).items():
            if key.endswith(".weight"):
                count += 1
                if not np.array_equal(weights[key], want):
                    wrong.append(f"{name} {key}")
    print(f"{count} matrices read" + (", wrong: " + "; ".join(wrong) if wrong else ""))
    sys.exit(1 if wrong or not count else 0)


if __name__ == "__main__":
    main()
