#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""roundtrip.py NIBBLE MODEL TEXT [--loader load_gptq|load_awq|none] [-- QUANTIZE OPTIONS]

Quantizes MODEL with nibble (no options: evaluates it as it is), then asks two independent judges about
the folder: eval_reference.py (numpy reader + torch float32) must give nibble's perplexity and logits,
and the peer's loader must give nibble's logits as far as 16-bit arithmetic goes.
Exit 0 pass, 1 fail, 77 skip; the last stdout line says why.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from quantized_reader import read_safetensors

HERE = os.path.dirname(os.path.abspath(__file__))
WINDOW, WINDOWS = 512, 2
PPL_RATIO, REFERENCE_COSINE = 1e-4, 0.999999    # float32 against float32
PEER_PPL_RATIO, PEER_TOP1, PEER_COSINE = 2e-3, 0.98, 0.9999    # against f16 arithmetic


def command(argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        print(f"{os.path.basename(argv[0])} {' '.join(argv[1:3])}: exit {done.returncode}: {tail}")
        sys.exit(1)
    return next(json.loads(line) for line in reversed(done.stdout.splitlines()) if line.startswith("{"))


def main():
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("nibble")
    p.add_argument("model")
    p.add_argument("text")
    p.add_argument("--loader", default="none", choices=["none", "load_gptq", "load_awq"])
    args = p.parse_args(sys.argv[1:cut])
    options = sys.argv[cut + 1:]
    needed = ["torch", "transformers", "tokenizers", "safetensors"] + (["gptqmodel"] if args.loader != "none" else [])
    missing = [m for m in needed if importlib.util.find_spec(m) is None]
    if missing:
        print(f"python has no {', '.join(missing)}")
        sys.exit(77)

    with tempfile.TemporaryDirectory() as scratch:
        folder = args.model
        if options:
            folder = os.path.join(scratch, "out")
            command([args.nibble, "quantize", args.model, "-o", folder, "--no-gate", "--json", *options])
        logits = os.path.join(scratch, "logits.safetensors")
        text = [folder, "--text", args.text, "--window", str(WINDOW), "--limit", str(WINDOWS)]
        ours = command([args.nibble, "eval", *text, "--json"])
        command([args.nibble, "eval", *text[:-1], "1", "--json", "--dump-logits", logits])
        dump = os.path.join(scratch, "reference.safetensors")
        reference = command([sys.executable, os.path.join(HERE, "eval_reference.py"), *text, "--dump", dump, "--threads", "2",
                             "--tokenizer", os.path.join(args.model, "tokenizer.json")])
        a, b = (read_safetensors(f) for f in (logits, dump))
        a64, b64 = a["logits"].astype(np.float64), b["logits"].astype(np.float64)
        cosine = ((a64 * b64).sum(-1) / np.sqrt((a64**2).sum(-1) * (b64**2).sum(-1))).min()
        checks = {"ids equal": np.array_equal(a["ids"], b["ids"]),
                  f"ppl {ours['ppl']:.5f} = {reference['ppl']:.5f}": abs(ours["ppl"] / reference["ppl"] - 1) < PPL_RATIO,
                  f"cosine {cosine:.8f}, largest difference {np.abs(a64 - b64).max():.2g}": cosine > REFERENCE_COSINE}
        if args.loader != "none":
            peer = command([sys.executable, os.path.join(HERE, args.loader + ".py"), args.model, folder, "--text", args.text,
                            "--windows", str(WINDOWS), "--window", str(WINDOW), "--nibble-logits", logits])
            checks[f"peer ppl {peer['ppl']:.5f}"] = abs(ours["ppl"] / peer["ppl"] - 1) < PEER_PPL_RATIO
            checks[f"peer top-1 {peer['top1']}, cosine {peer['cosine']}"] = \
                peer["top1"] >= PEER_TOP1 and peer["cosine"] >= PEER_COSINE
    print("; ".join(("" if good else "WRONG: ") + what for what, good in checks.items()))
    sys.exit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()
