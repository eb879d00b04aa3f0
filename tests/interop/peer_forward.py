# SPDX-License-Identifier: Apache-2.0
"""peer_forward.py - run a quantized folder with gptqmodel on the CPU and compare (load_gptq, load_awq).

gptqmodel's plain torch kernels compute in f16 or bf16 only, so agreement with nibble's float32 logits
is close but not exact: what is judged is top-1 agreement and cosine per position, and perplexity.
"""

import argparse
import json
import math
import os
import sys
import time

import torch
from eval_reference import load_float32, logits_of, token_windows


def main(description, backend_name, kernel_name):
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("float_model", help="float original: tokenizer, and its logits for the first window")
    p.add_argument("quant_dir")
    p.add_argument("--text", required=True)
    p.add_argument("--windows", type=int, default=4)
    p.add_argument("--window", type=int, default=1024)
    p.add_argument("--nibble-logits", help="file of `nibble eval QUANT_DIR --dump-logits`")
    p.add_argument("--dtype", choices=["float16", "bfloat16"], default="float16")
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    json_out, sys.stdout = sys.stdout, sys.stderr      # the peer prints on stdout

    from gptqmodel import BACKEND, GPTQModel
    begin = time.time()
    loaded = GPTQModel.load(args.quant_dir, device="cpu", backend=BACKEND[backend_name], dtype=getattr(torch, args.dtype))
    model = loaded.model.eval()
    kernels = sorted({type(m).__name__ for m in model.modules() if hasattr(m, "qweight")})
    if kernels != [kernel_name]:
        raise SystemExit(f"the peer chose {kernels}, wanted {kernel_name}")
    load_s = time.time() - begin

    rows = token_windows(os.path.join(args.float_model, "tokenizer.json"), args.text, args.window, args.windows)
    first, total, begin = None, 0.0, time.time()
    for ids in rows:
        logits = logits_of(model, ids)
        first = logits if first is None else first
        total += torch.nn.functional.cross_entropy(logits[:-1].double(), ids[1:], reduction="sum").item()
    out = {"kernel": kernel_name, "dtype": args.dtype, "windows": len(rows), "load_s": round(load_s, 1),
           "forward_s": round(time.time() - begin, 1), "ppl": round(math.exp(total / (len(rows) * (args.window - 1))), 5)}
    base = logits_of(load_float32(args.float_model), rows[0])
    out["top1_float"] = round((first.argmax(-1) == base.argmax(-1)).double().mean().item(), 5)
    if args.nibble_logits:
        from safetensors.torch import load_file
        ours = load_file(args.nibble_logits)
        if not torch.equal(ours["ids"], rows[0][:len(ours["ids"])]):
            raise SystemExit("nibble's ids are not the first window's: tokenization or windows differ")
        mine, theirs = ours["logits"].double(), first[:len(ours["ids"])].double()
        cosine = torch.nn.functional.cosine_similarity(mine, theirs, dim=-1)
        out.update(top1=round((mine.argmax(-1) == theirs.argmax(-1)).double().mean().item(), 5),
                   cosine=round(cosine.mean().item(), 7), cosine_min=round(cosine.min().item(), 7),
                   max_diff=round((mine - theirs).abs().max().item(), 4))
    print(json.dumps(out), file=json_out, flush=True)
