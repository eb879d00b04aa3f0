#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""eval_reference.py - perplexity, and KL divergence to another model, in torch float32.

MODEL and --against are HF folders, float or quantized (GPTQ, AWQ gemm; see quantized_reader.py): the
weights are widened or dequantized to float32 and run by transformers, eager attention. Protocol
`windows`: the text is tokenized once without special tokens, cut into disjoint windows, the tail is
dropped, the first token of each window is not scored; log-softmax in float32, sums in float64.

Prints one JSON line per MODEL (several share the reference's pass): ppl, tokens, windows; with
--against also kld (mean over scored positions of KL(against || MODEL), nats), kld_se (standard error,
windows as the unit), same_top (percent) and ppl_against. --dump FILE writes ids and logits of the
first window, as `nibble eval --dump-logits` does.
"""

import argparse
import json
import math
import os
import sys
import time

import numpy as np
import torch
from quantized_reader import read_model


def stack_experts(weights, config):
    """Experts one by one, under whichever names, as the stacks that transformers 5 has in memory."""
    experts = getattr(config, "num_local_experts", 0) or getattr(config, "num_experts", 0) or 0
    names = (("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2"))
    weights = {k.replace(".block_sparse_moe.", ".mlp."): v for k, v in weights.items()}

    def take(layer, expert, part):
        prefix = f"model.layers.{layer}.mlp.experts.{expert}."
        return next((weights.pop(f"{prefix}{n}.weight") for n in names[part] if f"{prefix}{n}.weight" in weights), None)

    for layer in range(config.num_hidden_layers if experts else 0):
        parts = [[take(layer, e, p) for e in range(experts)] for p in range(3)]
        if parts[0][0] is None:
            continue
        prefix = f"model.layers.{layer}.mlp.experts."
        weights[prefix + "gate_up_proj"] = np.stack([np.concatenate(gu) for gu in zip(parts[0], parts[1])])
        weights[prefix + "down_proj"] = np.stack(parts[2])
    return weights


def load_float32(folder):
    """A transformers model in float32 with the folder's (dequantized) weights, every tensor accounted for."""
    from transformers import AutoConfig, AutoModelForCausalLM
    values, weights, packed = read_model(folder)
    for key in ("dtype", "torch_dtype", "_name_or_path"):
        values.pop(key, None)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    if any(".mlp.experts.gate_up_proj" in k for k in model.state_dict()):  # gptqmodel takes the stacks apart
        weights = stack_experts(weights, config)
    for name, module in model.named_modules():  # packed weights are [out, in], those of Conv1D [in, out]
        key = name + ".weight"
        if type(module).__name__ == "Conv1D" and key in weights and name in packed:
            weights[key] = np.array(weights[key]).T
    missing, extra = model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in weights.items()}, strict=False)
    if config.tie_word_embeddings:
        missing = [m for m in missing if m != "lm_head.weight"]
        model.tie_weights()
    if missing or extra:
        raise SystemExit(f"{folder}: missing {missing[:4]}, unknown {extra[:4]}")
    return model


def token_windows(tokenizer, text, window, limit):
    from tokenizers import Tokenizer
    with open(text, encoding="utf-8", newline="") as f:
        ids = Tokenizer.from_file(tokenizer).encode(f.read(), add_special_tokens=False).ids
    count = len(ids) // window
    count = min(count, limit) if limit else count
    if not count:
        raise SystemExit(f"{text}: {len(ids)} tokens are less than one window of {window}")
    return torch.tensor(ids[:count * window], dtype=torch.long).reshape(count, window)


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=ids[None], use_cache=False).logits[0].float()


def compare(logits, base_logits, ids):
    """Per-window sums over the scored positions: nll, base nll, kl, same top."""
    logp = torch.log_softmax(logits[:-1], -1)
    nll = -logp.gather(1, ids[1:, None]).double().sum().item()
    if base_logits is None:
        return nll, 0.0, 0.0, 0
    base = torch.log_softmax(base_logits[:-1], -1)
    kl = torch.linalg.vecdot(base.exp(), base - logp).double().sum().item()
    same = (logp.argmax(-1) == base.argmax(-1)).sum().item()
    return nll, -base.gather(1, ids[1:, None]).double().sum().item(), kl, same


def summary(folder, sums, window, with_base):
    nll, base_nll, kl, same = (np.array(c, dtype=np.float64) for c in zip(*sums))
    scored = len(sums) * (window - 1)
    out = {"model": os.path.basename(os.path.normpath(folder)), "ppl": round(math.exp(nll.sum() / scored), 5),
           "tokens": scored, "windows": len(sums)}
    if with_base:
        per_window = kl / (window - 1)
        out.update(ppl_against=round(math.exp(base_nll.sum() / scored), 5), kld=round(kl.sum() / scored, 6),
                   kld_se=round(per_window.std(ddof=1) / math.sqrt(len(sums)), 6) if len(sums) > 1 else None,
                   same_top=round(100 * same.sum() / scored, 2))
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", nargs="+")
    p.add_argument("--text", required=True)
    p.add_argument("--window", type=int, default=1024)
    p.add_argument("--limit", type=int, default=0, help="first N windows only")
    p.add_argument("--against", help="reference model, normally the float original")
    p.add_argument("--tokenizer", help="tokenizer.json (default: the one in MODEL, else in --against)")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--dump", help="write the first window's ids and the (first) model's logits here")
    args = p.parse_args()
    torch.set_num_threads(args.threads)

    places = [args.tokenizer] if args.tokenizer else \
        [os.path.join(d, "tokenizer.json") for d in (args.model[0], args.against) if d]
    tokenizer = next((t for t in places if os.path.exists(t)), places[0])
    rows = token_windows(tokenizer, args.text, args.window, args.limit)
    models = [load_float32(folder) for folder in args.model]
    base = load_float32(args.against) if args.against else None

    begin, sums = time.time(), [[] for _ in models]
    for i, ids in enumerate(rows):
        base_logits = logits_of(base, ids) if base else None
        for j, model in enumerate(models):
            logits = logits_of(model, ids)
            if i == j == 0 and args.dump:
                from safetensors.torch import save_file
                save_file({"ids": ids.contiguous(), "logits": logits.contiguous()}, args.dump)
            sums[j].append(compare(logits, base_logits, ids))
        if (i + 1) % 10 == 0:       # a killed run leaves what it knew
            for folder, s in zip(args.model, sums):
                print("so far", json.dumps(summary(folder, s, args.window, base is not None)), file=sys.stderr, flush=True)
    seconds = round(time.time() - begin, 1)
    for folder, s in zip(args.model, sums):
        print(json.dumps({**summary(folder, s, args.window, base is not None), "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
