#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Do transformers and bitsandbytes load what nibble writes, and nibble what they write, with the same answers?

usage: bnb_models.py NIBBLE MODEL TEXT [CASE...]     cases: nf4 nf4-plain nf4-bf16 fp4 int8 (default: all)

Both directions for each case. nibble quantizes MODEL, transformers loads the folder on the CPU: mean cosine of the
logits over the positions of the first window, and perplexity of two windows. Then transformers quantizes and saves MODEL, and
nibble reads that. Where both start from the same weights the two folders hold the same bytes, which is checked too (but
FP4, whose codes of zero differ).

Linear4bit dequantizes to and computes in float32 here (the files say bfloat16), and not by the kernels for AVX512_BF16, which round absmax
to bfloat16. The inputs of MODEL's linears must be multiples of 64: where blocks run across the ends of rows, the AVX-512
dequantization of bitsandbytes 0.50.2 takes the wrong absmax."""
import json
import math
import os
import subprocess
import sys
import tempfile

import torch
import bitsandbytes as bnb
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from eval_reference import logits_of, token_windows

WINDOW, WINDOWS = 512, 2
COSINE, PPL_RATIO = 0.9999, 2e-3
CASES = {
    "nf4": (["--scheme", "NF4"], dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)),
    "nf4-plain": (["--scheme", "NF4", "--no-double-quant"], dict(load_in_4bit=True, bnb_4bit_quant_type="nf4")),
    "nf4-bf16": (["--scheme", "NF4", "--storage", "bfloat16"],
                 dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                      bnb_4bit_quant_storage="bfloat16")),
    "fp4": (["--scheme", "FP4"], dict(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=True)),
    "int8": (["--scheme", "INT8"], dict(load_in_8bit=True)),
}


def load(folder, config=None):
    options = dict(quantization_config=config) if config else {}
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype=torch.float32, **options).eval()
    packed = 0
    for m in model.modules():
        if isinstance(m, bnb.nn.Linear4bit):
            m.compute_dtype, m.compute_type_is_set, m.support_avx512bf16_for_cpu = torch.float32, True, False
            assert m.in_features % 64 == 0, f"{m.in_features} inputs are no whole blocks"
            m.weight.quant_state.dtype = torch.float32
            packed += 1
        packed += isinstance(m, bnb.nn.Linear8bitLt)
    for p in model.parameters():  # what is not packed stays in the type of the file whatever one asks for
        if not isinstance(p, (bnb.nn.Params4bit, bnb.nn.Int8Params)):
            p.data = p.data.float()
    assert packed, f"{folder}: transformers made no bitsandbytes linear of it"
    return model


def nibble(program, *arguments):
    done = subprocess.run([program, *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    assert not done.returncode, f"nibble {arguments[0]}: {(done.stderr or done.stdout).strip()[-300:]}"
    return next(json.loads(line) for line in reversed(done.stdout.splitlines()) if line.startswith("{"))


def judge(program, folder, model, rows, text, scratch):
    """Perplexities and logits of both; returns (what to say, good)."""
    dump = os.path.join(scratch, "logits.safetensors")
    ours = nibble(program, "eval", folder, "--text", text, "--window", str(WINDOW), "--limit", str(WINDOWS))
    nibble(program, "eval", folder, "--text", text, "--window", str(WINDOW), "--limit", "1", "--dump-logits", dump)
    total, first = 0.0, None
    for ids in rows:
        logits = logits_of(model, ids)
        first = logits if first is None else first
        total += torch.nn.functional.cross_entropy(logits[:-1].double(), ids[1:], reduction="sum").item()
    ppl = math.exp(total / (len(rows) * (WINDOW - 1)))
    mine = load_file(dump)
    assert torch.equal(mine["ids"], rows[0][: len(mine["ids"])]), "tokens differ"
    cosine = torch.nn.functional.cosine_similarity(mine["logits"].double(), first[: len(mine["ids"])].double(), dim=-1)
    cosine, least = cosine.mean().item(), cosine.min().item()
    good = cosine >= COSINE and abs(ours["ppl"] / ppl - 1) <= PPL_RATIO
    return f"ppl {ours['ppl']:.4f} peer {ppl:.4f}, cosine {cosine:.7f}, least {least:.7f}", good


def same_bytes(ours, theirs, fp4):
    a, b = (load_file(os.path.join(f, "model.safetensors")) for f in (ours, theirs))
    assert set(a) == set(b), f"tensors: {sorted(set(a) ^ set(b))[:4]}"
    for name in a:
        if "quant_state" in name:
            x, y = (json.loads(bytes(t.numpy())) for t in (a[name], b[name]))
            x["dtype"] = y["dtype"] = None  # transformers was asked for float32, nibble names the type of the file
            assert x == y, f"{name}: {x} {y}"
        elif name.endswith(("map", "absmax", "SCB")) or a[name].dtype == torch.int8 \
                or (name + ".absmax" in a and not fp4):
            assert torch.equal(a[name].view(torch.uint8), b[name].view(torch.uint8)), f"{name} differs"


def run(program, float_model, text, case):
    options, config = CASES[case]
    rows = token_windows(os.path.join(float_model, "tokenizer.json"), text, WINDOW, WINDOWS)
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = os.path.join(scratch, "ours"), os.path.join(scratch, "theirs")
        nibble(program, "quantize", float_model, "-o", ours, "--method", "rtn", "--clip", "none", "--no-gate", *options)
        written = judge(program, ours, load(ours), rows, text, scratch)
        model = load(float_model, BitsAndBytesConfig(**config))
        model.save_pretrained(theirs)
        with open(os.path.join(float_model, "tokenizer.json"), "rb") as f, open(os.path.join(theirs, "tokenizer.json"), "wb") as g:
            g.write(f.read())
        read = judge(program, theirs, load(theirs), rows, text, scratch)
        same_bytes(ours, theirs, case == "fp4")
    print(f"{'' if written[1] and read[1] else 'WRONG: '}{case}: written: {written[0]}; read: {read[0]}; same bytes")
    return written[1] and read[1]


def main():
    torch.set_num_threads(2)
    program, float_model, text = sys.argv[1:4]
    results = [run(program, float_model, text, case) for case in sys.argv[4:] or CASES]
    return 0 if all(results) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except AssertionError as e:
        print(e)
        sys.exit(1)
