#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""transformers_ppl.py - time transformers' own float32 perplexity run (sdpa attention, one window a time).

Protocol `windows` as in tests/interop/eval_reference.py, but the way a user of transformers would
write it: from_pretrained in float32, log-softmax in float32. forward_s covers forward and loss only.
"""

import argparse
import json
import math
import os
import time

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

p = argparse.ArgumentParser(description=__doc__)
p.add_argument("model")
p.add_argument("--text", required=True)
p.add_argument("--window", type=int, default=1024)
p.add_argument("--threads", type=int, default=1)
args = p.parse_args()
torch.set_num_threads(args.threads)

model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
with open(args.text, encoding="utf-8", newline="") as f:
    ids = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json")).encode(f.read(), add_special_tokens=False).ids
rows = torch.tensor(ids[:len(ids) // args.window * args.window]).reshape(-1, args.window)
with torch.no_grad():
    model(input_ids=rows[:1], use_cache=False)
    begin, total = time.time(), 0.0
    for row in rows:
        logits = model(input_ids=row[None], use_cache=False).logits[0]
        total += torch.nn.functional.cross_entropy(logits[:-1], row[1:], reduction="sum").item()
    seconds = time.time() - begin
scored = len(rows) * (args.window - 1)
print(json.dumps({"ppl": round(math.exp(total / scored), 5), "tokens": scored, "forward_s": round(seconds, 2),
                  "tokens_per_s": round(rows.numel() / seconds)}))
