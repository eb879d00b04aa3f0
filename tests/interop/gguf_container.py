#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""gguf_container.py REWRITE [MODEL.gguf...] - our GGUF reader and writer against the Python package gguf.

REWRITE is the program of gguf_rewrite.c. The package writes a file with every value type and many tensor types; we
read it and write it again: the bytes must be the same. Then the package reads what we write, whole and split, and
must find the same metadata and tensors; so it must for each MODEL. Written with gguf 0.19.
"""

import os
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFReader, GGUFValueType as Value, GGUFWriter

SCALARS = [
    ("u8", 200, Value.UINT8),
    ("i8", -100, Value.INT8),
    ("u16", 60000, Value.UINT16),
    ("i16", -30000, Value.INT16),
    ("u32", 4000000000, Value.UINT32),
    ("i32", -2000000000, Value.INT32),
    ("f32", 1e-5, Value.FLOAT32),
    ("flag", True, Value.BOOL),
    ("text", "a line\nand \u20ac", Value.STRING),
    ("empty.text", "", Value.STRING),
    ("u64", 2**64 - 1, Value.UINT64),
    ("i64", -(2**63), Value.INT64),
    ("f64", 0.1, Value.FLOAT64),
]
ARRAYS = [
    ("tokens", ["<s>", "", "\u2581the", "<0x0A>"], Value.STRING),
    ("scores", [0.0, -1.5, -1000.0], Value.FLOAT32),
    ("token_type", [1, 3, -6], Value.INT32),
    ("flags", [True, False], Value.BOOL),
    ("bytes", [0, 255], Value.UINT8),
    ("longs", [-1, 2**62], Value.INT64),
]


def write_sample(path):
    w = GGUFWriter(path, "llama")
    for key, value, kind in SCALARS:
        w.add_key_value(key, value, kind)
    for key, value, kind in ARRAYS:
        w.add_key_value(key, value, Value.ARRAY, kind)
    rng = np.random.default_rng(4)
    w.add_tensor("f32", rng.standard_normal((3, 5)).astype(np.float32))
    w.add_tensor("f16.odd", rng.standard_normal(7).astype(np.float16))
    w.add_tensor("i8", np.arange(11, dtype=np.int8))
    w.add_tensor("four.dims", rng.standard_normal((2, 3, 4, 5)).astype(np.float32))
    for kind, (elements, size) in gguf.GGML_QUANT_SIZES.items():
        if elements == 1 or kind == Type.Q8_1:  # run-time type; the package has its old size of 40 bytes
            continue
        blocks = rng.integers(0, 256, (2, 3 * size), dtype=np.uint8)
        w.add_tensor(f"blk.0.{kind.name}.weight", blocks, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def same_field(a, b):
    return a.types == b.types and len(a.data) == len(b.data) and all(
        np.array_equal(a.parts[i], b.parts[j]) for i, j in zip(a.data, b.data)
    )


def compare(source, parts):
    """The package's view of source equals its view of our parts; returns the number of tensors."""
    want, seen = GGUFReader(source), {}
    for number, path in enumerate(parts):
        got = GGUFReader(path)
        fields = {k: f for k, f in got.fields.items() if not k.startswith("GGUF.")}
        if len(parts) > 1:
            keys = [fields.pop(k).contents() for k in ("split.no", "split.count", "split.tensors.count")]
            assert keys == [number, len(parts), len(want.tensors)], f"{path}: split keys {keys}"
        if number == 0:
            expected = {
                k: f for k, f in want.fields.items()
                if not k.startswith(("GGUF.", "split.")) and k != "general.alignment"
            }
            assert list(fields) == list(expected), f"{path}: other keys"
            for key in expected:
                assert same_field(fields[key], expected[key]), f"{path}: {key} differs"
        else:
            assert not fields, f"{path}: metadata {list(fields)}"
        for t in got.tensors:
            assert t.name not in seen, f"{t.name} twice"
            seen[t.name] = t
    assert list(seen) == [t.name for t in want.tensors], f"{parts[0]}: other tensors"
    for t in want.tensors:
        mine = seen[t.name]
        assert mine.tensor_type == t.tensor_type, t.name
        assert list(mine.shape) == list(t.shape), t.name
        assert np.array_equal(mine.data.view(np.uint8), t.data.view(np.uint8)), f"{t.name}: other data"
    return len(seen)


def rewrite(program, source, target, *limit):
    out = subprocess.run([program, source, target, *map(str, limit)], check=True, text=True, capture_output=True)
    return out.stdout.splitlines()


def main():
    program, models, tensors, files = sys.argv[1], sys.argv[2:], 0, 0
    with tempfile.TemporaryDirectory(dir=os.environ.get("NB_TEST_TMP")) as folder:
        sample, copy = os.path.join(folder, "sample.gguf"), os.path.join(folder, "copy.gguf")
        write_sample(sample)
        rewrite(program, sample, copy)
        with open(sample, "rb") as a, open(copy, "rb") as b:
            assert a.read() == b.read(), "the copy of the package's file has other bytes"
        os.remove(copy)
        for source in [sample] + models:
            for limit in (0, 1 + os.path.getsize(source) // 3):
                parts = rewrite(program, source, copy, limit)
                assert (len(parts) > 2) == (limit > 0), f"{source}: {len(parts)} parts"
                tensors += compare(source, parts)
                files += len(parts)
                for path in parts:
                    os.remove(path)
    print(f"same bytes as the package writes; {tensors} tensors in {files} files read back by it")


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, subprocess.CalledProcessError) as e:
        print(getattr(e, "stderr", None) or e)
        sys.exit(1)
