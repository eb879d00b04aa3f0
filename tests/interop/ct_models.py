#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Do transformers and compressed-tensors load what nibble writes, and nibble what they write, with the same answers?

usage: ct_models.py NIBBLE MODEL TEXT [CASE...]     cases: the names in CASES (default: all)

nibble quantizes MODEL (or converts a folder of another format), transformers loads the folder on the CPU in float32 and
the library decompresses it; then the library compresses and saves MODEL under the same config, and nibble reads that.
Judged are the mean cosine of the logits over the positions of the first window and the perplexity of two windows.

Inputs of int8 are rounded by a hook as kernels do it, by amax / 127 (the library's own simulation divides by 127.5).
Rounded inputs amplify the last bits from layer to layer, so the model is also run with its products in float64: two
right answers are no nearer than that one and itself. Zero points are decompressed while loading: 0.20 cannot load its
own packed ones otherwise."""
import json
import math
import os
import subprocess
import sys
import tempfile

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationStatus, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams, is_module_quantized
from eval_reference import logits_of, token_windows
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

WINDOW, WINDOWS = 512, 2
COSINE, PPL_RATIO = 0.9999, 2e-3
CT = ["--format", "compressed-tensors", "--method", "rtn", "--effort", "fast"]
# name: how nibble makes it; through which format, if it converts
CASES = {
    "w4a16": (["--scheme", "W4A16", *CT], None),
    "w4a16-asym-g64": (["--scheme", "W4A16", "-g", "64", "--asym", *CT], None),
    "w8a16-channel": (["--scheme", "W8A16", "-g", "-1", *CT], None),
    "w3a16-g32": (["--scheme", "W3A16", "-g", "32", *CT], None),
    "mixed-bits": (["--scheme", "W4A16", "--bits-for", "*.down_proj=8", *CT], None),
    "w8a8": (["--scheme", "W8A8", *CT], None),
    "from-gptq": (["-w", "4", "-g", "128", "--sym", "--format", "gptq", "--method", "rtn", "--effort", "fast"], "gptq"),
    "from-awq": (["-w", "4", "-g", "64", "--format", "awq", "--method", "awq", "--samples", "4", "--seqlen", "128"], "awq"),
}


def nibble(program, *arguments):
    done = subprocess.run([program, *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    assert not done.returncode, f"nibble {arguments[0]}: {(done.stderr or done.stdout).strip()[-300:]}"
    return next(json.loads(line) for line in reversed(done.stdout.splitlines()) if line.startswith("{"))


def quantization_config(folder):
    with open(os.path.join(folder, "config.json")) as f:
        return json.load(f)["quantization_config"]


def round_inputs(module, args):
    x = args[0]
    scale = x.abs().amax(-1, keepdim=True) / 127
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return ((x / scale).round().clamp(-127, 127) * scale, *args[1:])


def load(folder, ids, double=False):
    """The model, decompressed, with inputs rounded where the config says so."""
    groups = quantization_config(folder)["config_groups"].values()
    zeros = any(not g["weights"]["symmetric"] for g in groups)
    more = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if zeros else {}
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype=torch.float32, **more).eval()
    with torch.no_grad():
        model(input_ids=ids[None, :2])
    quantized = [m for m in model.modules() if is_module_quantized(m)]
    assert zeros or quantized, f"{folder}: the library found no quantized linear"
    for m in quantized:
        m.quantization_enabled = False
        if m.quantization_scheme.input_activations:
            m.register_forward_pre_hook(round_inputs)
    return (model.double() if double else model), any(g["input_activations"] for g in groups)


def logits(model, ids):
    return logits_of(model, ids).double()


def cosine_of(a, b):
    return torch.nn.functional.cosine_similarity(a, b, dim=-1).mean().item()


def judge(program, folder, rows, text, scratch):
    """Perplexities and logits of both; returns (what to say, good)."""
    dump = os.path.join(scratch, "logits.safetensors")
    ours = nibble(program, "eval", folder, "--text", text, "--window", str(WINDOW), "--limit", str(WINDOWS))
    nibble(program, "eval", folder, "--text", text, "--window", str(WINDOW), "--limit", "1", "--dump-logits", dump)
    model, rounded = load(folder, rows[0])
    theirs = [logits(model, ids) for ids in rows]
    total = sum(torch.nn.functional.cross_entropy(x[:-1], ids[1:], reduction="sum").item() for x, ids in zip(theirs, rows))
    ppl = math.exp(total / (len(rows) * (WINDOW - 1)))
    mine = load_file(dump)
    assert torch.equal(mine["ids"], rows[0]), "tokens differ"
    cosine, ratio = cosine_of(mine["logits"].double(), theirs[0]), abs(ours["ppl"] / ppl - 1)
    need, most, said = COSINE, PPL_RATIO, ""
    if rounded:
        model, _ = load(folder, rows[0], double=True)
        again = logits(model, rows[0])
        self_cosine = cosine_of(again, theirs[0])
        a, b = (math.exp(torch.nn.functional.cross_entropy(x[:-1], rows[0][1:]).item()) for x in (again, theirs[0]))
        need, most = min(COSINE, 1 - 2 * (1 - self_cosine)), max(PPL_RATIO, 2 * abs(a / b - 1))
        said = f", the peer in float64 {self_cosine:.7f} ppl ratio {a / b:.5f}"
    return f"ppl {ours['ppl']:.4f} peer {ppl:.4f}, cosine {cosine:.7f}{said}", cosine >= need and ratio <= most


def extremes(w, args):
    if args.strategy == "channel":
        return w.amin(1, keepdim=True), w.amax(1, keepdim=True)
    groups = w.reshape(w.shape[0], -1, args.group_size)
    return groups.amin(-1), groups.amax(-1)


def compress(float_model, config, out):
    """The library's own folder of MODEL under the config that nibble wrote, scales from minima and maxima."""
    config = {k: v for k, v in config.items() if k != "quantization_status"}
    model = AutoModelForCausalLM.from_pretrained(float_model, dtype=torch.float32)
    apply_quantization_config(model, QuantizationConfig(**config, quantization_status=QuantizationStatus.FROZEN))
    for module in model.modules():
        if is_module_quantized(module):
            low, high = extremes(module.weight.detach(), module.quantization_scheme.weights)
            scale, zero = calculate_qparams(low, high, module.quantization_scheme.weights)
            module.weight_scale.data, module.weight_zero_point.data = scale, zero.to(module.weight_zero_point.dtype)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(out)
    compressor.update_config(out)
    with open(os.path.join(float_model, "tokenizer.json"), "rb") as f, open(os.path.join(out, "tokenizer.json"), "wb") as g:
        g.write(f.read())


def run(program, float_model, text, case):
    options, source = CASES[case]
    rows = token_windows(os.path.join(float_model, "tokenizer.json"), text, WINDOW, WINDOWS)
    with tempfile.TemporaryDirectory() as scratch:
        first, ours, theirs = (os.path.join(scratch, n) for n in ("first", "ours", "theirs"))
        nibble(program, "quantize", float_model, "-o", first if source else ours, "--no-gate", *options)
        if source:
            nibble(program, "convert", first, "-o", ours, "--format", "compressed-tensors")
        written = judge(program, ours, rows, text, scratch)
        compress(float_model, quantization_config(ours), theirs)
        read = judge(program, theirs, rows, text, scratch)
    print(f"{'' if written[1] and read[1] else 'WRONG: '}{case}: written: {written[0]}; read: {read[0]}")
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
