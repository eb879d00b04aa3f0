#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_rope.py - rotary frequencies that transformers computes for configs of every kind.

Writes rope.json beside this file: a list of {config, length, inv_freq, scaling, window}; config is what stands in
a config.json, length the tokens of the sequence (dynamic rope), inv_freq float32 values, window the sliding window
of each layer (0: full attention). Gemma 3 has two sets of values: local and local_scaling are those of layers with a
window. Made with transformers 5.23.0, torch 2.13.0 (CPU).
"""

import json
import os

import torch
import transformers
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gemma3.modeling_gemma3 import Gemma3RotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

HERE = os.path.dirname(os.path.abspath(__file__))

BASE = dict(vocab_size=100, hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=4096)
LONG = dict(short_factor=[1 + i / 10 for i in range(6)], long_factor=[1 + 2.5 * i for i in range(6)])
LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)

CASES = [
    (dict(model_type="llama"), 10),
    (dict(model_type="llama", rope_theta=500000.0, head_dim=24), 10),
    (dict(model_type="llama", rope_parameters=dict(rope_theta=1000.0, rope_type="default")), 10),
    (dict(model_type="llama", rope_theta=7.0, rope_parameters=dict(rope_theta=1000.0)), 10),
    (dict(model_type="llama", rope_theta=20000.0, rope_scaling=dict(type="linear", factor=2.5)), 10),
    (dict(model_type="llama", rope_scaling={}, rope_parameters=dict(rope_type="linear", factor=2)), 10),
    (dict(model_type="llama", rope_scaling=dict(type="dynamic", factor=2.0)), 4096),
    (dict(model_type="llama", rope_scaling=dict(type="dynamic", factor=2.0)), 9000),
    (dict(model_type="llama", rope_theta=500000.0,
          rope_scaling=dict(rope_type="llama3", original_max_position_embeddings=512, **LLAMA3)), 10),
    (dict(model_type="llama", rope_parameters=dict(rope_type="llama3", rope_theta=10000.0, **LLAMA3)), 10),
    (dict(model_type="llama", original_max_position_embeddings=256,
          rope_scaling=dict(rope_type="llama3", original_max_position_embeddings=512, **LLAMA3)), 10),
    (dict(model_type="qwen2", rope_theta=1e6,
          rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=1024)), 10),
    (dict(model_type="qwen2", rope_scaling=dict(type="yarn", factor=4.0, mscale=0.7, mscale_all_dim=1.0)), 10),
    (dict(model_type="qwen2", rope_scaling=dict(type="yarn", factor=4.0, mscale=0.7, beta_fast=16, beta_slow=2,
                                                truncate=False)), 10),
    (dict(model_type="qwen2", rope_scaling=dict(type="yarn", factor=None, attention_factor=1.5,
                                                original_max_position_embeddings=1024)), 10),
    (dict(model_type="qwen2", use_sliding_window=True, sliding_window=9, max_window_layers=2), 10),
    (dict(model_type="qwen2", use_sliding_window=True, max_window_layers=0), 10),
    (dict(model_type="qwen2", use_sliding_window=False, sliding_window=9, max_window_layers=0), 10),
    (dict(model_type="qwen3", use_sliding_window=True, sliding_window=9, max_window_layers=0,
          layer_types=["full_attention", "sliding_attention", "full_attention"]), 10),
    (dict(model_type="mistral"), 10),
    (dict(model_type="mistral", sliding_window=None), 10),
    (dict(model_type="mistral", sliding_window=33, head_dim=20), 10),
    (dict(model_type="llama", sliding_window=33), 10),
    (dict(model_type="gemma2", head_dim=24, rope_theta=5000.0, num_hidden_layers=5), 10),
    (dict(model_type="gemma2", head_dim=24, sliding_window=33, rope_scaling=dict(type="linear", factor=2.0),
          layer_types=["full_attention", "sliding_attention", "full_attention"]), 10),
    (dict(model_type="gemma3_text", head_dim=24, num_hidden_layers=8), 10),
    (dict(model_type="gemma3_text", head_dim=24, rope_theta=5000.0, rope_local_base_freq=300.0, num_hidden_layers=5,
          sliding_window=33, sliding_window_pattern=2, rope_scaling=dict(rope_type="linear", factor=8.0)), 10),
    (dict(model_type="gemma3_text", head_dim=24, rope_theta=5.0, rope_local_base_freq=6.0, num_hidden_layers=7,
          rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=700.0),
                               sliding_attention=dict(rope_type="default", rope_theta=800.0)),
          rope_scaling=dict(factor=4.0)), 10),
    (dict(model_type="gemma3_text", head_dim=24, rope_theta=400.0, rope_local_base_freq=600.0, num_hidden_layers=7,
          original_max_position_embeddings=256,
          rope_parameters=dict(full_attention=dict(rope_type="yarn", factor=4.0),
                               sliding_attention=dict(rope_type="llama3", **LLAMA3))), 10),
    (dict(model_type="smollm3", pad_token_id=0), 10),
    (dict(model_type="smollm3", pad_token_id=0, num_hidden_layers=8, use_sliding_window=True, sliding_window=33,
          max_window_layers=28), 10),
    (dict(model_type="phi3", pad_token_id=0, partial_rotary_factor=0.5, sliding_window=33), 10),
    (dict(model_type="phi3", pad_token_id=0, partial_rotary_factor=0.75, original_max_position_embeddings=512,
          rope_scaling=dict(type="longrope", **LONG)), 512),
    (dict(model_type="phi3", pad_token_id=0, partial_rotary_factor=0.75, original_max_position_embeddings=512,
          rope_scaling=dict(type="longrope", **LONG)), 513),
    (dict(model_type="phi3", pad_token_id=0, original_max_position_embeddings=512,
          rope_parameters=dict(rope_type="longrope", rope_theta=5000.0, partial_rotary_factor=0.75, factor=32.0,
                               original_max_position_embeddings=256, **LONG)), 400),
    (dict(model_type="phi3", pad_token_id=0, partial_rotary_factor=0.75, max_position_embeddings=8192,
          rope_scaling=dict(type="longrope", attention_factor=1.25, **LONG)), 5000),
    (dict(model_type="llama", head_dim=12, rope_scaling=dict(rope_type="longrope", factor=4.0,
                                                             original_max_position_embeddings=512, **LONG)), 600),
]


def windows(config):
    if config.model_type == "llama":
        return [0] * config.num_hidden_layers
    if config.model_type in ("mistral", "phi3"):
        return [config.sliding_window or 0] * config.num_hidden_layers
    return [config.sliding_window if t == "sliding_attention" else 0 for t in config.layer_types]


def frequencies(config, kind, length, **layer):
    if kind == "default":
        rotary = Gemma3RotaryEmbedding if layer else Phi3RotaryEmbedding  # of a whole head it is Llama's
        return rotary.compute_default_rope_parameters(config, **layer)
    if kind in ("dynamic", "longrope"):
        layer["seq_len"] = torch.tensor(length)
    return ROPE_INIT_FUNCTIONS[kind](config, None, **layer)


def values(inv_freq):
    return [float(f"{v:.9g}") for v in inv_freq.tolist()]


def main():
    transformers.logging.set_verbosity_error()
    out = []
    for more, length in CASES:
        config = {**BASE, **more}
        c = AutoConfig.for_model(**json.loads(json.dumps(config)))
        rope = c.rope_parameters
        if config["model_type"] == "gemma3_text":
            (inv_freq, scaling), (local, local_scaling) = [
                frequencies(c, rope[t]["rope_type"], length, layer_type=t)
                for t in ("full_attention", "sliding_attention")]
            more = dict(local=values(local), local_scaling=float(local_scaling))
        else:
            inv_freq, scaling = frequencies(c, rope["rope_type"], length)
            more = {}
        out.append(dict(config=config, length=length, inv_freq=values(inv_freq), scaling=float(scaling),
                        window=windows(c), **more))
    with open(os.path.join(HERE, "rope.json"), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(case) for case in out) + "\n]\n")
    print(len(out), "cases")


if __name__ == "__main__":
    main()
