#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make.py LLAMA_QUANTIZE [OUT_DIR]: which tensor gets which type, asked of llama-quantize itself.

Each model is a GGUF of header and holes (no weights), made with the `gguf` package; llama-quantize --dry-run
then names the type of every tensor. One JSON file per family is written:

  {"tool": ..., "models": [{"name", "arch", "n_layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab",
                            "tied", "types": {PRESET: TABLE}}]}
  PRESET   "Q4_K_M", with " imatrix" behind it when an importance matrix is given, or with options as they are typed
  TABLE    "default TYPE|NAME TYPE|blk.ROLE TYPE:LAYERS,TYPE:LAYERS": what is not listed has the default type; layers
           are ranges and single numbers joined by '+'. Norms and biases are F32 always and are left out.
           "=": as without the matrix.

Made with llama.cpp's source as packaged in llama-cpp-python 0.3.36 and gguf 0.17 or later."""
import json
import os
import re
import subprocess
import sys
import tempfile

import gguf
import numpy as np

PRESETS = ("Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_0 Q4_1 Q4_K_S Q4_K_M Q5_0 Q5_1 Q5_K_S Q5_K_M Q6_K Q8_0 IQ4_NL IQ4_XS "
           "F16 BF16 TQ1_0 TQ2_0").split()
NEED_MATRIX = "Q2_K_S IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ3_XXS IQ3_XS IQ3_S IQ3_M".split()
OPTIONS = [
    "Q4_K_M --output-tensor-type q8_0",
    "Q4_K_M --token-embedding-type q5_0",
    "Q4_K_M --leave-output-tensor",
    "Q4_K_M --pure",
    "Q2_K --pure",
    "Q3_K_M --output-tensor-type q5_K --token-embedding-type q3_K",
    "Q4_K_M --tensor-type attn_v=q8_0",
    r"Q4_K_S --tensor-type blk\.[0-3]\.ffn_down=q6_K --tensor-type ffn_(up|gate)=iq4_nl",
]
# name, layers, hidden, heads, kv heads, head dim, ffn, tied
SHAPES = [
    ("12-gqa1-tied", 12, 256, 4, 4, 64, 768, True),
    ("22-gqa4", 22, 256, 8, 2, 32, 768, False),
    ("32-gqa4-tied", 32, 256, 8, 2, 32, 512, True),
    ("32-gqa8", 32, 512, 8, 1, 64, 768, False),
    ("80-gqa8", 80, 256, 8, 1, 32, 512, False),
    ("80-gqa1-tied", 80, 256, 4, 4, 64, 512, True),
    ("24-rows896-tied", 24, 896, 14, 2, 64, 4864, True),
    ("12-rows896", 12, 896, 14, 14, 64, 1120, False),
    ("6-rows1000", 6, 256, 4, 1, 64, 1000, False),
]
FAMILIES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma2": "gemma2", "gemma3": "gemma3"}
ROLES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
VOCAB = 288


def write_model(path, arch, shape):
    _, layers, hidden, heads, kv, head_dim, ffn, tied = shape
    w = gguf.GGUFWriter(path, arch)
    w.add_context_length(1024)
    w.add_embedding_length(hidden)
    w.add_block_count(layers)
    w.add_feed_forward_length(ffn)
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_rope_dimension_count(head_dim)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_vocab_size(VOCAB)
    if arch.startswith("gemma"):
        w.add_sliding_window(512)
        if arch == "gemma2":
            w.add_attn_logit_softcapping(50.0)
            w.add_final_logit_softcapping(30.0)
    size = 0

    def info(name, dims, half):
        nonlocal size
        n = int(np.prod(dims))
        kind = np.dtype(np.float16 if half else np.float32)
        w.add_tensor_info(name, dims, kind, n * kind.itemsize)
        size += (n * kind.itemsize + 31) // 32 * 32

    info("token_embd.weight", (VOCAB, hidden), True)
    if not tied:
        info("output.weight", (VOCAB, hidden), True)
    info("output_norm.weight", (hidden,), False)
    inputs = {"attn_output": heads * head_dim, "ffn_down": ffn}
    outputs = {"attn_q": heads * head_dim, "attn_k": kv * head_dim, "attn_v": kv * head_dim, "ffn_gate": ffn, "ffn_up": ffn}
    for i in range(layers):
        for role in ROLES:
            info(f"blk.{i}.{role}.weight", (outputs.get(role, hidden), inputs.get(role, hidden)), True)
        for norm in ("attn_norm", "ffn_norm"):
            info(f"blk.{i}.{norm}.weight", (hidden,), False)
        if arch == "qwen2":
            for role in ROLES[:3]:
                info(f"blk.{i}.{role}.bias", (outputs[role],), False)
        if arch in ("qwen3", "gemma3"):
            for role in ROLES[:2]:
                info(f"blk.{i}.{role}_norm.weight", (head_dim,), False)
        if arch.startswith("gemma"):
            for norm in ("post_attention_norm", "post_ffw_norm"):
                info(f"blk.{i}.{norm}.weight", (hidden,), False)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    w.close()
    at = (os.path.getsize(path) + 31) // 32 * 32
    os.truncate(path, at + size)


LINE = re.compile(r"\[ *\d+/ *\d+\] (\S+) +- \[.*\], type = +(\w+), size = .*?(?:\((\w+)\))?$")


def ask(tool, model, preset, matrix, options):
    command = [tool, "--dry-run", *options, *(["--imatrix", matrix] if matrix else []), model, preset, "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    types = {}
    for line in (done.stdout + done.stderr).splitlines():
        m = LINE.search(line)
        if m:
            types[m[1]] = (m[3] or m[2]).upper()
    if done.returncode or not types:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return types


def ranges(layers):
    out, start = [], None
    for i, n in enumerate(layers):
        if start is None:
            start = n
        if i + 1 == len(layers) or layers[i + 1] != n + 1:
            out.append(str(n) if n == start else f"{start}-{n}")
            start = None
    return "+".join(out)


def table(types):
    weights = {n: t for n, t in types.items() if n.endswith(".weight") and "norm" not in n}
    rest = {n: t for n, t in types.items() if n not in weights}
    assert set(rest.values()) == {"F32"}, rest
    counts = {}
    for t in weights.values():
        counts[t] = counts.get(t, 0) + 1
    default = max(sorted(counts), key=lambda t: counts[t])
    out = [f"default {default}"]
    for name in ("token_embd", "output"):
        t = weights.get(name + ".weight")
        if t and t != default:
            out.append(f"{name} {t}")
    for role in ROLES:
        by_type = {}
        for name, t in weights.items():
            m = re.fullmatch(r"blk\.(\d+)\." + role + r"\.weight", name)
            if m and t != default:
                by_type.setdefault(t, []).append(int(m[1]))
        if by_type:
            out.append(f"blk.{role} " + ",".join(f"{t}:{ranges(sorted(l))}" for t, l in sorted(by_type.items())))
    return "|".join(out)


def write_matrix(path):
    """The smallest importance matrix (.dat): one entry that no tensor has. Its presence is what counts."""
    with open(path, "wb") as f:
        name = b"none"
        f.write((1).to_bytes(4, "little") + len(name).to_bytes(4, "little") + name)
        f.write((1).to_bytes(4, "little") + (1).to_bytes(4, "little") + b"\0\0\x80\x3f")


def main():
    tool = sys.argv[1]
    out = sys.argv[2] if len(sys.argv) > 2 else os.path.dirname(os.path.abspath(__file__))
    with tempfile.TemporaryDirectory() as tmp:
        matrix, path = os.path.join(tmp, "none.dat"), os.path.join(tmp, "model.gguf")
        write_matrix(matrix)
        for family, arch in FAMILIES.items():
            models = []
            for shape in SHAPES:
                name, layers, hidden, heads, kv, head_dim, ffn, tied = shape
                if family.startswith("gemma") and not tied:
                    shape = shape[:7] + (True,)  # the architecture has no output tensor of its own
                if family == "mistral" and name != "32-gqa8":
                    continue
                write_model(path, arch, shape)
                types = {}
                for preset in PRESETS:
                    types[preset] = table(ask(tool, path, preset, None, []))
                for preset in PRESETS + NEED_MATRIX:
                    if preset not in ("F16", "BF16", "TQ1_0", "TQ2_0"):
                        types[preset + " imatrix"] = table(ask(tool, path, preset, matrix, []))
                for line in OPTIONS:
                    preset, *options = line.split()
                    types[line] = table(ask(tool, path, preset, None, options))
                for key in [k for k in types if k.endswith(" imatrix")]:  # the matrix changed nothing: say it once
                    if types[key] == types.get(key[:-8]):
                        types[key] = "="
                models.append({"name": name, "arch": arch, "n_layers": layers, "hidden": hidden, "heads": heads,
                               "kv_heads": kv, "head_dim": head_dim, "ffn": ffn, "vocab": VOCAB, "tied": shape[7],
                               "types": types})
                print(family, name, flush=True)
            with open(os.path.join(out, family + ".json"), "w") as f:
                f.write('{"tool": "llama-quantize of llama-cpp-python 0.3.36", "models": [\n')
                f.write(",\n".join(json.dumps(m, separators=(",", ":")) for m in models))
                f.write("\n]}\n")


main()
