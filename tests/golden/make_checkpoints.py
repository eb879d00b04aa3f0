#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_checkpoints.py - tiny quantized checkpoints written by gptqmodel and autoawq themselves.

Writes checkpoints/<name>/ beside this file: the peer's own config.json, quantize_config.json and
model.safetensors, untouched but for paths in config.json, and expected.safetensors with

    <module>.weight  F32 [out,in]   two linears dequantized by the peer's own code (scales widened to f32
                                    first: the peers multiply in f16, which would round the product)
    ids              I64 [T]
    logits           F32 [T,V]      transformers in float32, eager attention, with every quantized linear
                                    replaced by the peer's dequantized weight (the peers' kernels have no f32)

Run it twice, once with each peer's interpreter; a group of names only needs its own packages:
    make_checkpoints.py gptq   gptqmodel 7.7.0, transformers 5.23.0, torch 2.13.0 (CPU)
    make_checkpoints.py awq    autoawq 0.2.9 mended (.clone() in _compute_best_scale), transformers 4.51.3
Both peers quantize the tiny model through their ordinary entry points (quantize, save); nothing is packed here.

The float model is a random Qwen2 (q/k/v bias, tied head) with hidden 128, intermediate 192, two layers
(one for the 8-bit file, for size), seeded; row 0 of gate_proj is made positive, so that an asymmetric
grid gets zero point 0 there and v1's "zero minus one" underflows. What each name pins down:
  gptq-sym-g32          v1, zero words 0x77777777, sequential g_idx (the tool's default order, GAR)
  gptq-act-g32          desc_act: g_idx is not monotonic
  gptq-asym-v2-g32      gptq_v2, true zeros
  gptq-asym-v1-g32      gptq, zeros minus one; gptqmodel subtracts 0x11111111 from whole words, so zero
                        point 0 borrows from the next field
  gptq-8bit-g64         8 bits
  gptq-3bit-g32         3 bits: codes that straddle words
  gptq-dynamic-g32      `dynamic`: o_proj of layer 0 left float, down_proj 8 bits at group 64
  awq-g32, awq-g64      gemm, asymmetric
"""

import json
import os
import re
import shutil
import sys
import tempfile
import zlib

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2Config

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENS, CALIBRATION, WINDOW = 32, 64, 64

GPTQ = {
    "gptq-sym-g32": (2, dict(bits=4, group_size=32)),
    "gptq-act-g32": (1, dict(bits=4, group_size=32, desc_act=True)),
    "gptq-asym-v2-g32": (1, dict(bits=4, group_size=32, sym=False, format="gptq_v2")),
    "gptq-asym-v1-g32": (1, dict(bits=4, group_size=32, sym=False, format="gptq")),
    "gptq-8bit-g64": (1, dict(bits=8, group_size=64)),
    "gptq-3bit-g32": (1, dict(bits=3, group_size=32)),
    "gptq-dynamic-g32": (2, dict(bits=4, group_size=32, dynamic={
        r"-:.*\.0\.self_attn\.o_proj": {}, r"+:.*\.down_proj": {"bits": 8, "group_size": 64}})),
}
AWQ = {"awq-g32": (2, 32), "awq-g64": (1, 64)}


def random_array(key, shape):
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def float_model(folder, layers):
    """The seeded float model, f16, saved to `folder`."""
    config = Qwen2Config(vocab_size=128, hidden_size=128, intermediate_size=192, num_hidden_layers=layers,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                         rms_norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            z = random_array(name, tuple(p.shape))
            if name.endswith("bias"):
                z = 0.3 * z
            elif "norm" in name:
                z = 1 + 0.3 * z
            elif "embed" in name:
                z = 0.25 * z
            else:
                z = z / np.sqrt(p.shape[1])
                if name.endswith("gate_proj.weight"):
                    z[0] = z[0].abs()
            p.copy_(z)
    model.to(torch.float16).save_pretrained(folder)


def token_rows(count, length, seed):
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.integers(0, 128, (count, length)).tolist()


def quantize_gptq(source, out, settings):
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
    model = GPTQModel.load(source, QuantizeConfig(offload_to_disk=False, **settings), device="cpu",
                           backend=BACKEND.TORCH, dtype=torch.float16)
    rows = [{"input_ids": torch.tensor([r]), "attention_mask": torch.ones(1, len(r), dtype=torch.long)}
            for r in token_rows(CALIBRATION, WINDOW, 1)]
    model.quantize(rows, batch_size=1, backend=BACKEND.TORCH)
    model.save(out)


def dequantized_gptq(folder):
    """module -> F32 [out,in] by TorchLinear.dequantize_weight of the loaded checkpoint."""
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    model = GPTQModel.load(folder, device="cpu", backend=BACKEND.TORCH, dtype=torch.float16)
    out = {}
    for name, module in model.model.named_modules():
        if isinstance(module, TorchLinear):
            module.scales = module.scales.float()
            out[name] = module.dequantize_weight().float().T.contiguous()
    return out


def quantize_awq(source, out, group):
    from awq import AutoAWQForCausalLM
    model = AutoAWQForCausalLM.from_pretrained(source, torch_dtype=torch.float32, device_map="cpu", use_cache=False)
    model.quantize(None, quant_config={"zero_point": True, "q_group_size": group, "w_bit": 4, "version": "GEMM"},
                   calib_data=token_rows(CALIBRATION, WINDOW, 1), max_calib_samples=CALIBRATION,
                   max_calib_seq_len=WINDOW)
    model.save_quantized(out)


def dequantized_awq(folder):
    """module -> F32 [out,in] by autoawq's dequantize_gemm."""
    from awq.utils.packing_utils import dequantize_gemm
    with open(os.path.join(folder, "config.json")) as f:
        group = json.load(f)["quantization_config"]["group_size"]
    t = load_file(os.path.join(folder, "model.safetensors"))
    return {n[:-8]: dequantize_gemm(t[n], t[n[:-8] + ".qzeros"], t[n[:-8] + ".scales"].float(), 4, group).T.contiguous()
            for n in t if n.endswith(".qweight")}


def reference_logits(folder, weights, ids):
    """Float32 logits: the checkpoint's dense tensors plus the dequantized weights."""
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    config.pop("quantization_config")
    for key in ("dtype", "torch_dtype"):
        config.pop(key, None)
    model = AutoModelForCausalLM.from_config(Qwen2Config(**config), attn_implementation="eager").float().eval()
    dense = {k: v.float() for k, v in load_file(os.path.join(folder, "model.safetensors")).items()
             if not re.search(r"\.(qweight|qzeros|scales|g_idx)$", k)}
    missing, extra = model.load_state_dict({**dense, **{k + ".weight": v for k, v in weights.items()}}, strict=False)
    assert not extra and set(missing) <= {"lm_head.weight"}, (missing, extra)
    model.tie_weights()
    with torch.no_grad():
        return model(input_ids=ids[None], use_cache=False).logits[0].contiguous()


def keep_only(folder):
    """Drop side files; remove paths of the machine that made it from config.json."""
    for name in os.listdir(folder):
        if name not in ("config.json", "quantize_config.json", "model.safetensors"):
            os.remove(os.path.join(folder, name))
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        config = json.load(f)
    if config.pop("_name_or_path", None) is not None:
        with open(path, "w") as f:
            json.dump(config, f, indent=2)
            f.write("\n")
    for name in ("config.json", "quantize_config.json"):
        if os.path.exists(os.path.join(folder, name)):
            with open(os.path.join(folder, name)) as f:
                assert not re.search(r'"/\w', f.read()), f"{name} holds a path"


def make(name, layers, quantize, dequantized, versions):
    folder = os.path.join(HERE, "checkpoints", name)
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)          # gptqmodel leaves logs/ in the current folder
        float_model(os.path.join(scratch, "float"), layers)
        quantize(os.path.join(scratch, "float"), os.path.join(scratch, "out"))
        shutil.copytree(os.path.join(scratch, "out"), folder)
        os.chdir(HERE)
    keep_only(folder)
    weights = dequantized(folder)
    ids = torch.tensor(token_rows(1, TOKENS, 2)[0])
    picked = ["model.layers.0.self_attn.k_proj", f"model.layers.{layers - 1}.mlp.down_proj"]
    logits = reference_logits(folder, weights, ids)
    save_file({**{p + ".weight": weights[p] for p in picked}, "ids": ids, "logits": logits},
              os.path.join(folder, "expected.safetensors"), metadata={"made_with": versions})
    for f in os.listdir(folder):
        os.chmod(os.path.join(folder, f), 0o644)
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{name:20s} {size / 1000:6.1f} kB  {len(weights)} quantized  logits rms {logits.pow(2).mean().sqrt():.3f}",
          flush=True)


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    base = f"transformers {transformers.__version__}, torch {torch.__version__}, float32"
    for which in sys.argv[1:]:
        if which == "gptq":
            import gptqmodel
            for name, (layers, settings) in GPTQ.items():
                make(name, layers, lambda s, o, c=settings: quantize_gptq(s, o, c), dequantized_gptq,
                     f"gptqmodel {gptqmodel.__version__}, {base}")
        elif which == "awq":
            import awq
            for name, (layers, group) in AWQ.items():
                make(name, layers, lambda s, o, g=group: quantize_awq(s, o, g), dequantized_awq,
                     f"autoawq {awq.__version__} mended, {base}")
        else:
            sys.exit(f"make_checkpoints.py: unknown group '{which}' (gptq, awq)")


if __name__ == "__main__":
    main()
