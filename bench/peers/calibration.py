# SPDX-License-Identifier: Apache-2.0
"""calibration.py - what all peer scripts share: options, calibration tokens, the closing report line.

Protocol: the text is tokenized once, whole, without special tokens, and cut into contiguous windows
from its start; every tool gets the same token ids.
"""

import argparse
import json
import os
import time

STARTED = time.time()


def options(description, **extra):
    p = argparse.ArgumentParser(description=description)
    p.add_argument("model")
    p.add_argument("out", help="folder to write the checkpoint to")
    p.add_argument("--text", required=True)
    p.add_argument("--windows", type=int, default=128)
    p.add_argument("--window", type=int, default=512)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--bits", type=int, default=4)
    p.add_argument("--group", type=int, default=128)
    for name, settings in extra.items():
        p.add_argument("--" + name.replace("_", "-"), **settings)
    args = p.parse_args()
    import torch
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    return args


def windows(args):
    """[[int]*window]*windows from the start of the text."""
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
    with open(args.text, encoding="utf-8") as f:
        ids = tok.encode(f.read(), add_special_tokens=False).ids
    count = min(args.windows, len(ids) // args.window)
    if count < args.windows:
        raise SystemExit(f"{args.text}: {len(ids)} tokens give only {count} windows of {args.window}")
    return [ids[i * args.window:(i + 1) * args.window] for i in range(count)]


def report(quantize_seconds, **more):
    """Last line of stdout: seconds of the tool's own work, apart from imports, loading and saving."""
    print(json.dumps({"quantize_s": round(quantize_seconds, 1), "process_s": round(time.time() - STARTED, 1), **more}),
          flush=True)
