#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_bnb.py - tiny checkpoints that transformers and bitsandbytes quantize and write themselves.

usage: make_bnb.py     bitsandbytes 0.50.2, transformers 5.23.0, torch 2.13.0 (CPU)

Writes beside this file bnb/source.safetensors, the BF16 linears of a random one-layer Qwen2 (hidden 80, intermediate
104: blocks of 64 weights run across the ends of rows), and for each of CASES bnb/<name>/: config.json and
model.safetensors as save_pretrained leaves them, and expected.safetensors with two linears dequantized to F32 by
bitsandbytes' own code. One output of k_proj is all zeros, and so is one block of v_proj.
FP4 codes of zero are the CPU build's: 8 for small positive weights, 0 for small negative ones.
vectors.json holds the hashes of bitsandbytes.functional on the generator of checkpoint formats, section 8.2."""
import hashlib
import json
import os
import shutil
import tempfile

import numpy as np
import torch
import bitsandbytes.functional as F
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Qwen2Config

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bnb")
LINEARS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
           "mlp.up_proj", "mlp.down_proj"]
CASES = {
    "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "nf4-double": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                       bnb_4bit_quant_storage="bfloat16", bnb_4bit_compute_dtype="bfloat16"),
    "fp4-double": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=True),
    "int8": dict(load_in_8bit=True, llm_int8_threshold=5.5),
}


def float_model():
    torch.manual_seed(5)
    config = Qwen2Config(hidden_size=80, intermediate_size=104, num_hidden_layers=1, num_attention_heads=4,
                         num_key_value_heads=2, vocab_size=32, max_position_embeddings=64, tie_word_embeddings=False,
                         initializer_range=0.08)
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    layer = model.model.layers[0]
    with torch.no_grad():
        layer.self_attn.k_proj.weight[3] = 0
        layer.self_attn.v_proj.weight.view(-1)[128:192] = 0
        layer.mlp.down_proj.weight[1, 2] = 1.5
    return model


def dequantized(module):
    if hasattr(module.weight, "quant_state"):
        # The portable code: the AVX-512 kernel of 0.50.2 takes the wrong absmax where blocks run across rows.
        state, absmax = module.weight.quant_state, module.weight.quant_state.absmax
        if state.nested:
            absmax = F.dequantize_blockwise(absmax, state.state2) + state.offset
        data = module.weight.data.view(torch.uint8).reshape(-1)
        return _dequantize_4bit_compute(data, absmax, state.code, state.blocksize, state.shape, torch.float32)
    return module.weight.data.float() * (module.weight.SCB / 127).unsqueeze(1)


def write_case(name, options, folder):
    model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=BitsAndBytesConfig(**options),
                                                 dtype=torch.bfloat16, device_map="cpu")
    out = os.path.join(HERE, name)
    shutil.rmtree(out, ignore_errors=True)
    model.save_pretrained(out)
    for extra in set(os.listdir(out)) - {"config.json", "model.safetensors"}:
        os.remove(os.path.join(out, extra))
    config = json.load(open(os.path.join(out, "config.json")))
    config.pop("_name_or_path", None)
    json.dump(config, open(os.path.join(out, "config.json"), "w"), indent=2)
    modules = dict(model.named_modules())
    expected = {f"model.layers.0.{p}.weight": dequantized(modules[f"model.layers.0.{p}"]).contiguous()
                for p in ("self_attn.v_proj", "mlp.down_proj")}
    save_file(expected, os.path.join(out, "expected.safetensors"))


def vectors():
    x, w = 2024, []
    for _ in range(4096):
        x = (x * 1664525 + 1013904223) % 2**32
        w.append(((x >> 8) - 2**23) / 2**24)
    w = torch.tensor(w, dtype=torch.float32)
    sha = lambda t: hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest()
    out = {}
    for quant in ("nf4", "fp4"):
        codes, plain = F.quantize_4bit(w, blocksize=64, quant_type=quant)
        _, nested = F.quantize_4bit(w, blocksize=64, quant_type=quant, compress_statistics=True)
        out[quant] = dict(codes=sha(codes), absmax=sha(plain.absmax), nested_codes=sha(nested.absmax),
                          nested_absmax=nested.state2.absmax.numpy().view(np.uint32).tolist(),
                          offset=nested.offset.item())
    return out


def main():
    torch.set_num_threads(1)
    os.makedirs(HERE, exist_ok=True)
    model = float_model()
    state = model.state_dict()
    save_file({f"model.layers.0.{p}.weight": state[f"model.layers.0.{p}.weight"].contiguous() for p in LINEARS},
              os.path.join(HERE, "source.safetensors"))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        for name, options in CASES.items():
            write_case(name, options, folder)
    json.dump(vectors(), open(os.path.join(HERE, "vectors.json"), "w"), indent=1)


if __name__ == "__main__":
    main()
