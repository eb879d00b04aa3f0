#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""floats.py NIBBLE MODEL TEXT [--transformers] -- QUANTIZE OPTIONS

Small-float folders against load_floats.py. One layer of MODEL must give its logits and perplexity. In the whole model
rounded activations amplify last bits: a value at a tie goes the other way, and the next layers see it. So it must be as
near to the reference as that is to itself with last bits changed, and where nothing is amplified, as near as one layer.
Exit 0 pass, 1 fail, 77 skip; the last stdout line says why.
"""

import argparse
import importlib.util
import json
import os
import shutil
import sys
import tempfile

from roundtrip import HERE, PEER_COSINE, PEER_PPL_RATIO, WINDOW, WINDOWS, command

APART = 2.5        # distance to the reference, in units of its own to itself
PPL_APART = 0.5    # what noise of distance d may do to a perplexity of so few windows: this times sqrt(d)


def first_layer(model, out):
    """MODEL cut after its first layer."""
    from safetensors.torch import load_file, save_file
    os.makedirs(out)
    tensors = {}
    for name in os.listdir(model):
        if name.endswith(".safetensors"):
            tensors.update(load_file(os.path.join(model, name)))
        elif name.startswith("tokenizer"):
            shutil.copy(os.path.join(model, name), out)
    with open(os.path.join(model, "config.json")) as f:
        config = json.load(f)
    config["num_hidden_layers"] = 1
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:1]
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f)
    tensors = {n: t for n, t in tensors.items() if ".layers." not in n or ".layers.0." in n}
    save_file(tensors, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    return out


def compare(args, model, out, options, more):
    command([args.nibble, "quantize", model, "-o", out, "--no-gate", "--json", *options])
    text, logits = [out, "--text", args.text, "--window", str(WINDOW)], out + ".st"
    ours = command([args.nibble, "eval", *text, "--limit", str(WINDOWS), "--json"])
    command([args.nibble, "eval", *text, "--limit", "1", "--json", "--dump-logits", logits])
    theirs = command([sys.executable, os.path.join(HERE, "load_floats.py"), model, out, "--text", args.text, "--windows",
                      str(WINDOWS), "--window", str(WINDOW), "--nibble-logits", logits, *more])
    return ours["ppl"], theirs


def main():
    cut = sys.argv.index("--")
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("nibble")
    p.add_argument("model")
    p.add_argument("text")
    p.add_argument("--transformers", action="store_true")
    args = p.parse_args(sys.argv[1:cut])
    options = sys.argv[cut + 1:]
    missing = [m for m in ("torch", "transformers", "tokenizers", "safetensors") if importlib.util.find_spec(m) is None]
    if missing:
        print(f"python has no {', '.join(missing)}")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as scratch:
        one = first_layer(args.model, os.path.join(scratch, "float"))
        ppl, peer = compare(args, one, os.path.join(scratch, "one"), options, [])
        checks = {f"one layer: cosine {peer['cosine']}": peer["cosine"] >= PEER_COSINE,
                  f"ppl {ppl:.3f} = {peer['ppl']:.3f}": abs(ppl / peer["ppl"] - 1) < PEER_PPL_RATIO}
        ppl, peer = compare(args, args.model, os.path.join(scratch, "all"), options,
                            ["--transformers"] if args.transformers else [])
        own = 1 - peer["self_cosine"]
        checks[f"{peer['modules']} linears: cosine {peer['cosine']}, of the reference to itself {peer['self_cosine']}"] = \
            1 - peer["cosine"] <= max(APART * own, 1 - PEER_COSINE)
        checks[f"ppl {ppl:.4f} = {peer['ppl']:.4f}"] = \
            abs(ppl / peer["ppl"] - 1) < PEER_PPL_RATIO + PPL_APART * max(own, 0) ** 0.5
        if args.transformers:
            checks[f"transformers reads {peer['transformers_equal']} weights as we do"] = peer["transformers_equal"] > 0
    print("; ".join(("" if good else "WRONG: ") + what for what, good in checks.items()))
    sys.exit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()
