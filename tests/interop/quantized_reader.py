# SPDX-License-Identifier: Apache-2.0
"""quantized_reader.py - reads an HF folder, float or quantized (GPTQ, AWQ gemm), into float32 numpy arrays.

Written from the description of the formats alone, with numpy and json only, so that it shares no code
with nibble or with the tools whose files it reads. Slow and plain on purpose; strict: what it does not
understand is an error. No idea of architectures or of torch.

GPTQ   qweight I32 [in*b/32, out]: column n is one little-endian stream of b-bit codes along the inputs.
       qzeros  I32 [G, out*b/32]: row g is such a stream along the outputs; "gptq" stores zero - 1,
       "gptq_v2" the zero itself. w[n,k] = scales[g_idx[k], n] * (code - zero).
AWQ    qweight I32 [in, out/8], qzeros I32 [in/gs, out/8], eight outputs to a word in nibble order
       0 2 4 6 1 3 5 7, zeros stored as they are. w[n,k] = scales[k/gs, n] * (code - zero).
"""

import json
import os
import re

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
          "I8": "i1", "U8": "u1", "BOOL": "?"}
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
CONSTANT = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}


class FormatError(Exception):
    pass


def widen_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def read_safetensors(path):
    """name -> array; BF16 is widened to float32, every other dtype is kept."""
    data = np.memmap(path, dtype=np.uint8, mode="r")
    size = int(data[:8].view("<u8")[0])
    header = json.loads(bytes(data[8:8 + size]))
    header.pop("__metadata__", None)
    out, expected = {}, 0
    for name, entry in sorted(header.items(), key=lambda e: e[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        if begin != expected:
            raise FormatError(f"{path}: {name} begins at {begin}, expected {expected}")
        expected = end
        raw = np.frombuffer(bytes(data[8 + size + begin:8 + size + end]), dtype=DTYPES[entry["dtype"]])
        array = raw.reshape(entry["shape"])
        out[name] = widen_bf16(array) if entry["dtype"] == "BF16" else array
    if 8 + size + expected != len(data):
        raise FormatError(f"{path}: {len(data) - 8 - size - expected} bytes after the last tensor")
    return out


def read_tensors(folder):
    index = os.path.join(folder, "model.safetensors.index.json")
    if not os.path.exists(index):
        return read_safetensors(os.path.join(folder, "model.safetensors"))
    with open(index) as f:
        weight_map = json.load(f)["weight_map"]
    out = {}
    for shard in sorted(set(weight_map.values())):
        for name, array in read_safetensors(os.path.join(folder, shard)).items():
            if weight_map.get(name) != shard:
                raise FormatError(f"{folder}: {name} is in {shard}, the index says {weight_map.get(name)}")
            out[name] = array
    if set(out) != set(weight_map):
        raise FormatError(f"{folder}: index and shards differ: {sorted(set(out) ^ set(weight_map))[:4]}")
    return out


def read_config(folder):
    """(config.json, quantization config or None); a sidecar must agree with config.json."""
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    quant = config.get("quantization_config")
    for sidecar in ("quantize_config.json", "quant_config.json"):
        path = os.path.join(folder, sidecar)
        if quant is None and os.path.exists(path):
            with open(path) as f:
                quant = json.load(f)
    return config, quant


def unpack_stream(words, bits, axis):
    """b-bit fields of the little-endian bit streams that run along `axis` of a word matrix."""
    words = np.ascontiguousarray(np.moveaxis(words, axis, 0)).view(np.uint32).astype(np.uint64)
    count = words.shape[0] * 32 // bits
    position = np.arange(count) * bits
    low, shift = position // 32, (position % 32).astype(np.uint64)
    high = np.minimum(low + 1, words.shape[0] - 1)
    shape = (count,) + (1,) * (words.ndim - 1)
    pair = words[low] | (words[high] << np.uint64(32))
    return np.moveaxis(((pair >> shift.reshape(shape)) & np.uint64(2**bits - 1)).astype(np.int64), 0, axis)


def unpack_awq(words):
    words = np.ascontiguousarray(words).view(np.uint32)
    out = np.empty(words.shape + (8,), np.int64)
    for nibble, position in enumerate(AWQ_ORDER):
        out[..., position] = (words >> np.uint32(4 * nibble)) & np.uint32(15)
    return out.reshape(words.shape[0], -1)


def scale_values(array):
    scale = array.astype(np.float32)
    if not np.isfinite(scale).all():
        raise FormatError("a scale is not finite")
    return scale


def module_settings(quant, module):
    """Settings after `dynamic`: first rule whose pattern matches at the start of the name; None = dense."""
    settings = {k: v for k, v in quant.items() if k != "dynamic"}
    rules = list((quant.get("dynamic") or {}).items())
    for pattern, override in sorted(rules, key=lambda r: not r[0].startswith("-:")):
        body = pattern[2:] if pattern[:2] in ("-:", "+:") else pattern
        if re.match(body, module):
            return None if pattern.startswith("-:") else {**settings, **(override or {})}
    return settings


def gptq_zeros(words, bits, settings, module):
    fmt = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    if fmt not in ("gptq", "gptq_v2"):
        raise FormatError(f"{module}: unknown checkpoint_format {fmt}")
    if fmt == "gptq":
        maker = str((settings.get("meta") or {}).get("quantizer", ""))
        if "gptqmodel" in maker and bits in CONSTANT:
            words = np.ascontiguousarray(words).view(np.uint32) + np.uint32(CONSTANT[bits])
            zeros = unpack_stream(words, bits, 1)
        else:
            zeros = (unpack_stream(words, bits, 1) + 1) & (2**bits - 1)
    else:
        zeros = unpack_stream(words, bits, 1)
    if settings.get("sym", True) and not (zeros == 2 ** (bits - 1)).all():
        raise FormatError(f"{module}: sym is true, format {fmt}, but zeros are {np.unique(zeros)[:8]}")
    return zeros


def dequantize_gptq(tensors, module, settings):
    bits = settings["bits"]
    qweight, qzeros = tensors[module + ".qweight"], tensors[module + ".qzeros"]
    scales, g_idx = scale_values(tensors[module + ".scales"]), tensors[module + ".g_idx"]
    inputs, outputs, groups = len(g_idx), qweight.shape[1], scales.shape[0]
    size = settings["group_size"] if settings["group_size"] > 0 else inputs
    want = {"qweight": (inputs * bits // 32, outputs), "qzeros": (groups, outputs * bits // 32),
            "scales": (-(-inputs // size), outputs)}
    for name, shape in want.items():
        if tensors[f"{module}.{name}"].shape != shape:
            raise FormatError(f"{module}.{name}: shape {tensors[f'{module}.{name}'].shape}, expected {shape}")
    if g_idx.min() < 0 or g_idx.max() >= groups:
        raise FormatError(f"{module}.g_idx: out of range")
    sequential = (g_idx == np.arange(inputs) // size).all()
    if not settings.get("desc_act", False) and not sequential:
        raise FormatError(f"{module}: desc_act is false but g_idx is not k / group_size")
    codes = unpack_stream(qweight, bits, 0)
    zeros = gptq_zeros(qzeros, bits, settings, module)
    return np.ascontiguousarray(((codes - zeros[g_idx]).astype(np.float32) * scales[g_idx]).T)


def dequantize_awq(tensors, module, settings):
    bits = settings.get("bits", settings.get("w_bit"))
    size = settings.get("group_size", settings.get("q_group_size"))
    version = str(settings.get("version") or settings.get("format") or "gemm").lower()
    if bits != 4 or version != "gemm":
        raise FormatError(f"{module}: awq {bits} bits, version {version}: only 4 bits, gemm")
    codes, zeros = unpack_awq(tensors[module + ".qweight"]), unpack_awq(tensors[module + ".qzeros"])
    scales = scale_values(tensors[module + ".scales"])
    inputs, outputs = codes.shape
    if zeros.shape != (inputs // size, outputs) or scales.shape != zeros.shape:
        raise FormatError(f"{module}: codes {codes.shape}, zeros {zeros.shape}, scales {scales.shape}, group {size}")
    group = np.arange(inputs) // size
    return np.ascontiguousarray(((codes - zeros[group]).astype(np.float32) * scales[group]).T)


def read_model(folder):
    """(config without quantization_config, {name: float32 array}, {module: bits} of what was quantized)."""
    config, quant = read_config(folder)
    config.pop("quantization_config", None)
    tensors = read_tensors(folder)
    modules = sorted(n[:-len(".qweight")] for n in tensors if n.endswith(".qweight"))
    if modules and quant is None:
        raise FormatError(f"{folder}: packed tensors but no quantization config")
    method = (quant or {}).get("quant_method") or (quant or {}).get("method")
    if quant is not None and method not in ("gptq", "awq"):
        raise FormatError(f"{folder}: quant_method {method} is not read here")
    out, used, bits = {}, set(), {}
    for module in modules:
        settings = module_settings(quant, module)
        if settings is None:
            raise FormatError(f"{module}: packed, but `dynamic` says it is not quantized")
        dequantize = dequantize_gptq if method == "gptq" else dequantize_awq
        out[module + ".weight"] = dequantize(tensors, module, settings)
        bits[module] = settings.get("bits", settings.get("w_bit"))
        used |= {f"{module}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx")}
    for name, array in tensors.items():
        if name in used:
            continue
        if name in out:
            raise FormatError(f"{name}: present both packed and dense")
        if array.dtype.kind != "f":
            raise FormatError(f"{name}: {array.dtype} outside a quantized module")
        out[name] = array.astype(np.float32)
    return config, out, bits
