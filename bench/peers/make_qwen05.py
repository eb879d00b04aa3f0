#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_qwen05.py OUT --tokenizer FOLDER - a random model with Qwen2-0.5B's layer shapes and 4 layers.

hidden 896, intermediate 4864, 14 heads, 2 key/value heads, q/k/v bias, tied head; vocabulary 8192 so
that books-11m's tokenizer fits. Normal weights of deviation 0.02, bf16, seed 0. For timing only.
"""

import argparse
import os
import shutil

import torch
from transformers import AutoModelForCausalLM, Qwen2Config

p = argparse.ArgumentParser(description=__doc__)
p.add_argument("out")
p.add_argument("--tokenizer", required=True)
args = p.parse_args()

torch.manual_seed(0)
config = Qwen2Config(vocab_size=8192, hidden_size=896, intermediate_size=4864, num_hidden_layers=4,
                     num_attention_heads=14, num_key_value_heads=2, max_position_embeddings=32768,
                     rms_norm_eps=1e-6, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
                     rope_parameters=dict(rope_type="default", rope_theta=1e6))
model = AutoModelForCausalLM.from_config(config)
with torch.no_grad():
    for name, param in model.named_parameters():
        if name.endswith("bias"):
            param.normal_(0, 0.02)
model.to(torch.bfloat16).save_pretrained(args.out)
for name in ("tokenizer.json", "tokenizer_config.json"):
    shutil.copyfile(os.path.join(args.tokenizer, name), os.path.join(args.out, name))
print(args.out)
