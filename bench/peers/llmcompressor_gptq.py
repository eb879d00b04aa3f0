#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""llmcompressor_gptq.py - GPTQ W4A16 sym g128 with llm-compressor 0.14.0.1 on the CPU, in float32.

OUT gets the dequantized weights as a plain float32 folder: the figures want the solver's result, and
any float engine can read it. OUT is no compressed-tensors checkpoint.
"""

import os
import time

import calibration

args = calibration.options(__doc__, order=dict(choices=["static", "group", "none"], default="static"))

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from llmcompressor import oneshot  # noqa: E402
from llmcompressor.modifiers.quantization import GPTQModifier  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast  # noqa: E402

model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
tokenizer = PreTrainedTokenizerFast(tokenizer_file=args.model + "/tokenizer.json")
rows = calibration.windows(args)
data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows]})
recipe = GPTQModifier(ignore=["lm_head"], config_groups={"group_0": {
    "targets": ["Linear"],
    "weights": {"num_bits": args.bits, "type": "int", "symmetric": True, "strategy": "group",
                "group_size": args.group, "actorder": None if args.order == "none" else args.order}}})
begin = time.time()
oneshot(model=model, tokenizer=tokenizer, dataset=data, recipe=recipe, max_seq_length=args.window,
        num_calibration_samples=args.windows)
seconds = time.time() - begin
tied = model.config.tie_word_embeddings
names = {n for n, _ in AutoModelForCausalLM.from_config(model.config).named_parameters()}
state = {k: v.float().contiguous() for k, v in model.state_dict().items()
         if k in names and not (tied and k == "lm_head.weight")}
os.makedirs(args.out, exist_ok=True)
save_file(state, os.path.join(args.out, "model.safetensors"), metadata={"format": "pt"})
model.config.quantization_config = None
config = model.config.to_dict()
config.pop("quantization_config", None)
config["dtype"] = "float32"
with open(os.path.join(args.out, "config.json"), "w") as f:
    import json
    json.dump(config, f, indent=2, default=str)
calibration.report(seconds, tool="llm-compressor", dtype="torch.float32")
