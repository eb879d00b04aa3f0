#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_ct.py - tiny checkpoints compressed by the compressed-tensors library itself.

Writes ct/<name>/ beside this file: config.json and model.safetensors as the library makes them, and
expected.safetensors with two linears dequantized by the library's own decompress (scales widened to f32 first: it
multiplies in the scale's type, which would round the product):

    <module>.weight  F32 [out,in]

Made with compressed-tensors 0.20.0, transformers 5.23.0, torch 2.13.0 (CPU). The float model is a random Qwen2 (hidden
64, intermediate 96, one layer, tied head), bf16, seeded. Scales come from the minima and maxima of each group by the
library's calculate_qparams; those of static inputs are made up. Two files the library no longer writes are rewritten
from what it wrote: the packing of 3 bits of before May 2026 (w3a16-old) and actorder group (w4a16-order).
"""

import json
import os
import shutil
import sys
import zlib

import numpy as np
import torch
from compressed_tensors.compressors import BaseCompressor, ModelCompressor
from compressed_tensors.quantization import (QuantizationConfig, QuantizationStatus, apply_quantization_config)
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam, is_module_quantized
from safetensors.torch import load_file, save, save_file
from transformers import AutoModelForCausalLM, Qwen2Config

HERE = os.path.dirname(os.path.abspath(__file__))
PICKED = ["model.layers.0.self_attn.k_proj", "model.layers.0.mlp.down_proj"]


def args(bits, kind="int", **more):
    return {"num_bits": bits, "type": kind, "symmetric": True, "dynamic": False, **more}


def group(weights, inputs=None, targets=("Linear",)):
    return {"targets": list(targets), "weights": weights, "input_activations": inputs}


TOKEN8 = args(8, strategy="token") | {"dynamic": True}
SCHEMES = {
    "w4a16-g32": group(args(4, strategy="group", group_size=32, actorder="static")),
    "w4a16-asym": group(args(4, strategy="group", group_size=32) | {"symmetric": False}),
    "w4a16-channel": group(args(4, strategy="channel")),
    "w3a16": group(args(3, strategy="group", group_size=32) | {"symmetric": False}),
    "w2a16": group(args(2, strategy="group", group_size=32)),
    "w8a16-asym": group(args(8, strategy="channel") | {"symmetric": False}),
    "w8a8": group(args(8, strategy="channel"), TOKEN8),
    "w8a8-asym-static": group(args(8, strategy="tensor") | {"symmetric": False}, args(8, strategy="tensor")),
    "w4a8": group(args(4, strategy="group", group_size=32), TOKEN8),
    "fp8": group(args(8, "float", strategy="tensor"), args(8, "float", strategy="tensor")),
    "fp8-dynamic": group(args(8, "float", strategy="channel"), args(8, "float", strategy="token") | {"dynamic": True}),
    "fp8-block": group(args(8, "float", strategy="block", block_structure=[32, 32]),
                       args(8, "float", strategy="group", group_size=32) | {"dynamic": True}),
    "fp8-weights": group(args(8, "float", strategy="channel")),
    "nvfp4": {"NVFP4": ["Linear"]},
    "nvfp4a16": {"NVFP4A16": ["Linear"]},
    "mxfp4": {"MXFP4": ["Linear"]},
    "mxfp8": {"MXFP8": ["Linear"]},
    "mixed": {"attention": group(args(8, "float", strategy="channel"), args(8, "float", strategy="token") | {"dynamic": True},
                                 [r"re:.*self_attn\.(q|k|v)_proj$"]),
              "rest": group(args(4, strategy="group", group_size=32), None, ["Linear"])},
}
REWRITTEN = {"w3a16-old": "w3a16", "w4a16-order": "w4a16-asym"}


def random_array(key, shape):
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def float_model():
    config = Qwen2Config(vocab_size=64, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-6, tie_word_embeddings=True,
                         bos_token_id=0, eos_token_id=0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            z = random_array(name, tuple(p.shape))
            p.copy_(1 + 0.3 * z if "norm" in name else z * 0.2 if p.dim() == 1 or "embed" in name else z / np.sqrt(p.shape[1]))
    return model.to(torch.bfloat16)


def extremes(w, a):
    """Minimum and maximum of each of the groups that share a scale, in the scale's shape."""
    s, n, k = a.strategy, w.shape[0], w.shape[1]
    if s == "tensor":
        return w.min().reshape(1), w.max().reshape(1)
    if s == "channel":
        return w.amin(1, keepdim=True), w.amax(1, keepdim=True)
    if s == "block":
        r, c = a.block_structure
        rows, cols = -(-n // r), -(-k // c)
        pad = torch.nn.functional.pad(w, (0, cols * c - k, 0, rows * r - n))
        blocks = pad.reshape(rows, r, cols, c)
        return blocks.amin((1, 3)), blocks.amax((1, 3))
    groups = w.reshape(n, k // a.group_size, a.group_size)
    return groups.amin(-1), groups.amax(-1)


def set_scales(name, module):
    scheme, w = module.quantization_scheme, module.weight.detach()
    low, high = extremes(w, scheme.weights)
    if hasattr(module, "weight_global_scale"):
        module.weight_global_scale.data = generate_gparam(w.min().reshape(1), w.max().reshape(1)).float()
        scale, zero = calculate_qparams(low, high, scheme.weights, global_scale=module.weight_global_scale.data)
    else:
        scale, zero = calculate_qparams(low, high, scheme.weights)
    module.weight_scale.data = scale.to(module.weight_scale.dtype) if not hasattr(module, "weight_global_scale") else scale
    if hasattr(module, "weight_zero_point"):
        module.weight_zero_point.data = zero.to(module.weight_zero_point.dtype)
    made_up = 0.02 + zlib.crc32(name.encode()) % 100 / 1000
    if hasattr(module, "input_scale"):
        module.input_scale.data = torch.tensor([made_up], dtype=module.input_scale.dtype)
    if hasattr(module, "input_global_scale"):
        module.input_global_scale.data = torch.tensor([made_up * 1000], dtype=torch.float32)


def tidy(folder):
    for name in os.listdir(folder):
        if name not in ("config.json", "model.safetensors"):
            os.remove(os.path.join(folder, name))
        else:
            os.chmod(os.path.join(folder, name), 0o644)


def widen(state):
    return {k: v.float() if k in ("weight_scale", "input_scale") and v.dtype in (torch.bfloat16, torch.float16) else v
            for k, v in state.items()}


def expected(folder, schemes):
    tensors = load_file(os.path.join(folder, "model.safetensors"))
    out = {}
    for path in PICKED:
        scheme = schemes[path]
        state = {k[len(path) + 1:]: v for k, v in tensors.items() if k.startswith(path + ".") and not k.endswith(".bias")}
        if "global_scale" in " ".join(state) or scheme.format.startswith("mx"):
            out[path + ".weight"] = by_hand(state, scheme)
        else:
            compressor = BaseCompressor.get_value_from_registry(scheme.format)
            out[path + ".weight"] = compressor.decompress(widen(state), scheme)["weight"].float().contiguous()
    save_file(out, os.path.join(folder, "expected.safetensors"),
              metadata={"made_with": "compressed-tensors 0.20.0, torch " + torch.__version__})


def by_hand(state, scheme):
    """The library multiplies these in bf16; its own unpacking, in f32."""
    from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
    if "weight_packed" in state:
        packed = state["weight_packed"]
        value = unpack_fp4_from_uint8(packed, packed.shape[0], packed.shape[1] * 2, torch.float32)
    else:
        value = state["weight"].float()
    scale = state["weight_scale"]
    scale = torch.exp2(scale.float() - 127) if scale.dtype == torch.uint8 else scale.float() / state["weight_global_scale"]
    return (value.reshape(*scale.shape, -1) * scale[..., None]).reshape(value.shape).contiguous()


def make(name, groups):
    folder = os.path.join(HERE, "ct", name)
    shutil.rmtree(folder, ignore_errors=True)
    model = float_model()
    config = QuantizationConfig(config_groups=groups if "targets" not in groups else {"group_0": groups},
                                ignore=["lm_head"], quantization_status=QuantizationStatus.FROZEN)
    if name == "fp8":
        config.kv_cache_scheme = config.config_groups["group_0"].input_activations
    apply_quantization_config(model, config)
    for path, module in model.named_modules():
        if is_module_quantized(module) and getattr(module.quantization_scheme, "weights", None):
            set_scales(path, module)
        elif name == "fp8" and path.endswith("self_attn"):
            module.k_scale.data, module.v_scale.data = torch.tensor([0.04]), torch.tensor([0.05])
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    schemes = {p: m.quantization_scheme for p, m in model.named_modules() if is_module_quantized(m)}
    model.save_pretrained(folder)
    compressor.update_config(folder)
    tidy(folder)
    expected(folder, {p: s for p, s in schemes.items()})
    report(name, folder)


def rewrite(name, source):
    """From what the library wrote: other words, or columns in another order, that mean the same weights."""
    folder, base = os.path.join(HERE, "ct", name), os.path.join(HERE, "ct", source)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    tensors = load_file(os.path.join(base, "model.safetensors"))
    want = load_file(os.path.join(base, "expected.safetensors"))
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
    for key in [k for k in tensors if k.endswith(".weight_packed")]:
        path = key[:-len(".weight_packed")]
        n, k = tensors[path + ".weight_shape"].tolist()
        bits = 3 if name == "w3a16-old" else 4
        codes = unpack_from_int32(tensors[key], bits, torch.Size([n, k]))
        if name == "w3a16-old":
            groups = tensors[path + ".weight_scale"].shape[1]
            zeros = unpack_from_int32(tensors[path + ".weight_zero_point"], bits, torch.Size([n, groups]), packed_dim=0)
            tensors[key] = old_words(codes)
            tensors[path + ".weight_zero_point"] = old_words(zeros.T).T.contiguous()
        else:
            order = torch.from_numpy(np.random.Generator(np.random.PCG64(k)).permutation(k))
            tensors[key] = pack_to_int32(codes[:, order].contiguous(), bits)
            tensors[path + ".weight_g_idx"] = (torch.arange(k) // 32)[order].to(torch.int32)
            if path + ".weight" in want:
                want[path + ".weight"] = want[path + ".weight"][:, order].contiguous()
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    save_file(want, os.path.join(folder, "expected.safetensors"), metadata={"made_with": "rewritten from " + source})
    if name == "w4a16-order":
        path = os.path.join(folder, "config.json")
        with open(path) as f:
            config = json.load(f)
        for g in config["quantization_config"]["config_groups"].values():
            g["weights"]["actorder"] = "group"
        with open(path, "w") as f:
            json.dump(config, f, indent=2)
            f.write("\n")
    report(name, folder)


def old_words(codes):
    """Whole fields only: 10 of 3 bits to a word."""
    u = (codes.numpy().astype(np.int64) + 4).astype(np.uint32)
    words = np.zeros((u.shape[0], -(-u.shape[1] // 10)), np.uint32)
    for k in range(u.shape[1]):
        words[:, k // 10] |= u[:, k] << np.uint32(3 * (k % 10))
    return torch.from_numpy(words.view(np.int32).copy())


def corpus(name):
    """One linear of the file as an input of tests/fuzz/fuzz_ct.c: the config on a line, then its tensors as "p"."""
    folder = os.path.join(HERE, "ct", name)
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)["quantization_config"]
    for g in config["config_groups"].values():
        g["targets"] = ["p" if t.startswith("re:") else t for t in g["targets"]]
    tensors = load_file(os.path.join(folder, "model.safetensors"))
    mine = {"p" + k[len(PICKED[0]):]: v for k, v in tensors.items()
            if k.startswith(PICKED[0] + ".") and not k.endswith(".bias")}
    out = os.path.join(HERE, "..", "fuzz", "corpus", "ct")
    os.makedirs(out, exist_ok=True)
    with open(os.path.join(out, name), "wb") as f:
        f.write(json.dumps(config, separators=(",", ":")).encode() + b"\n" + save(mine))


def report(name, folder):
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{name:18s} {size / 1000:6.1f} kB", flush=True)


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for name in sys.argv[1:] or [*SCHEMES, *REWRITTEN]:
        if name in SCHEMES:
            make(name, SCHEMES[name])
        else:
            rewrite(name, REWRITTEN[name])
        corpus(name)


if __name__ == "__main__":
    main()
