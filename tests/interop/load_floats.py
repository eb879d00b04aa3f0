#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""load_floats.py - a plain torch reference for small-float folders (fp8, NVFP4, MXFP4, MXFP8) that no CPU loader runs.

Weights and activations are rounded as the formats' own documentation says, products are float32. It shares no code
with nibble. Prints the same JSON line as load_gptq.py, and self_cosine: this reference against itself with
norm weights a few units in the last place off, for the first window. Rounded activations amplify the last bits from layer to layer, so
that is how near two right answers can be. With --transformers the weights that transformers' dequantizing fp8 loader
makes of the folder must be ours rounded to its type; blocks only.

    fp8   W = e4m3 * weight_scale_inv[n/128, k/128], inputs per token and 128 columns; or W = e4m3 * weight_scale,
          inputs per token, or by input_scale when activation_scheme is static
    compressed-tensors   float-quantized: e4m3 * weight_scale; nvfp4-pack-quantized: two e2m1 per byte, low first,
          * weight_scale (e4m3) / weight_global_scale; mxfp4-pack-quantized, mxfp8-quantized: * 2^(weight_scale - 127)
"""

import argparse
import json
import math
import os
import sys
import time

import torch
from eval_reference import logits_of, token_windows
from safetensors.torch import load_file

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def e4m3(x):
    return x.clamp(-448, 448).to(torch.float8_e4m3fn).float()


def e2m1(x):
    """Nearest, ties to the even code: the midpoints below which a magnitude falls."""
    steps = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    a = x.abs()[..., None]
    up = torch.where(torch.arange(7) % 2 == 1, a >= steps, a > steps).sum(-1)
    return torch.where(x < 0, -E2M1[up], E2M1[up])


def expand(scale, shape):
    """One value per weight from one per tensor, row, group or block."""
    if scale.numel() == 1:
        return scale.reshape(1, 1).expand(shape)
    rows, cols = scale.shape
    height = 128 if rows != shape[0] else 1
    width = 128 if height == 128 or (cols > 1 and shape[1] // cols >= 128) else -(-shape[1] // cols)
    return scale.repeat_interleave(height, 0)[:shape[0]].repeat_interleave(width, 1)[:, :shape[1]]


def power(scale):
    return torch.exp2(scale.float() - 127) if scale.dtype == torch.uint8 else scale.float()


def weight_of(t, path):
    if path + ".weight_packed" in t:
        p = t[path + ".weight_packed"]
        codes = torch.stack([p & 15, p >> 4], -1).reshape(p.shape[0], -1)
        scale = power(t[path + ".weight_scale"])
        if path + ".weight_global_scale" in t:
            scale = scale / t[path + ".weight_global_scale"]
        return E2M1[codes.long()] * expand(scale, codes.shape)
    w = t[path + ".weight"].float()
    return w * expand(power(t[path + (".weight_scale_inv" if path + ".weight_scale_inv" in t else ".weight_scale")]), w.shape)


def grouped(x, size, to):
    return to(x.reshape(*x.shape[:-1], -1, size)).reshape(x.shape)


def scaled(x, top, cast):
    s = x.abs().amax(-1, keepdim=True) / top
    return torch.where(s > 0, cast(x / torch.where(s > 0, s, 1.0)) * s, 0.0)


def mx(x, top_exponent, cast):
    u = x.abs().amax(-1, keepdim=True).view(torch.int32)
    s = torch.exp2(((u + (1 << 21) >> 23) - 127 - top_exponent).clamp(min=-127).float())
    return cast(x / s) * s


def nvfp4(x, glob):
    s = e4m3(glob * (x.abs().amax(-1, keepdim=True) / 6))
    s = torch.where(s == 0, 0.125, s) / glob
    return e2m1(x / s) * s


def input_rule(quant, t, path):
    """What happens to the input of the linear at path before the product."""
    if quant["quant_method"] == "fp8":
        if quant.get("weight_block_size"):
            return lambda x: grouped(x, 128, lambda g: scaled(g, 448, e4m3))
        args = {"num_bits": 8, "strategy": "token", "dynamic": quant["activation_scheme"] == "dynamic"}
    else:
        groups = list(quant["config_groups"].values())
        assert len(groups) == 1, "one group is read here"
        args = groups[0].get("input_activations")
        if args is None:
            return lambda x: x
    if not args["dynamic"]:
        s = t[path + ".input_scale"].reshape(1)
        return lambda x: e4m3(x / s) * s
    if args["num_bits"] == 4 and args["dynamic"] == "local":
        glob = t[path + ".input_global_scale"].reshape(1)
        return lambda x: grouped(x, 16, lambda g: nvfp4(g, glob))
    if args["strategy"] == "group" and args["group_size"] == 32:
        top, cast = (2, e2m1) if args["num_bits"] == 4 else (8, e4m3)
        return lambda x: grouped(x, 32, lambda g: mx(g, top, cast))
    if args["strategy"] == "group":
        return lambda x: grouped(x, args["group_size"], lambda g: scaled(g, 448, e4m3))
    if args["strategy"] == "tensor":
        return lambda x: scaled(x.reshape(-1), 448, e4m3).reshape(x.shape)
    return lambda x: scaled(x, 448, e4m3)


def tensors_of(folder):
    out = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".safetensors"):
            out.update(load_file(os.path.join(folder, name)))
    return out


def load(folder):
    """(float32 model with the rounded weights and inputs, modules so treated)."""
    from transformers import AutoConfig, AutoModelForCausalLM
    t = tensors_of(folder)
    config = AutoConfig.from_pretrained(folder)
    quant = config.quantization_config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    paths = sorted({n.rsplit(".", 1)[0] for n in t if n.endswith((".weight_scale", ".weight_scale_inv"))})
    state = {n: v.float() for n, v in t.items() if n.rsplit(".", 1)[0] not in paths or n.endswith(".bias")}
    state = {n: v for n, v in state.items() if not n.endswith((".k_scale", ".v_scale"))}
    state.update({p + ".weight": weight_of(t, p) for p in paths})
    missing, extra = model.load_state_dict(state, strict=False)
    assert not extra and set(missing) <= {"lm_head.weight"}, (missing, extra)
    model.tie_weights()
    for p in paths:
        rule = input_rule(quant, t, p)
        model.get_submodule(p).register_forward_pre_hook(
            lambda _, args, rule=rule: (rule(args[0].float()).to(args[0].dtype),))
    return model, paths


def check_transformers(folder, model, paths):
    from transformers import AutoModelForCausalLM
    peer = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu")
    for p in paths:
        theirs = peer.get_submodule(p).weight
        if not torch.equal(theirs, model.get_submodule(p).weight.to(theirs.dtype)):
            raise SystemExit(f"transformers reads other weights than we do: {p}")
    return len(paths)


def nudged(model):
    torch.manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.mul_(1 + 5e-7 * torch.randn_like(p))
    return model


def ppl_of(logits, rows):
    total = sum(torch.nn.functional.cross_entropy(x[:-1].double(), ids[1:], reduction="sum").item()
                for x, ids in zip(logits, rows))
    return math.exp(total / sum(len(ids) - 1 for ids in rows))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("float_model", help="for its tokenizer")
    p.add_argument("quant_dir")
    p.add_argument("--text", required=True)
    p.add_argument("--windows", type=int, default=4)
    p.add_argument("--window", type=int, default=1024)
    p.add_argument("--nibble-logits", help="file of `nibble eval QUANT_DIR --dump-logits`")
    p.add_argument("--transformers", action="store_true")
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    begin = time.time()
    model, paths = load(args.quant_dir)
    out = {"kernel": "torch float32", "modules": len(paths), "windows": args.windows}
    if args.transformers:
        out["transformers_equal"] = check_transformers(args.quant_dir, model, paths)
    rows = token_windows(os.path.join(args.float_model, "tokenizer.json"), args.text, args.window, args.windows)
    all_logits = [logits_of(model, ids) for ids in rows]
    again = logits_of(nudged(model), rows[0])
    same = torch.nn.functional.cosine_similarity(again.double(), all_logits[0].double(), dim=-1)
    out.update(ppl=round(ppl_of(all_logits, rows), 5), self_cosine=round(same.mean().item(), 7),
               seconds=round(time.time() - begin, 1))
    if args.nibble_logits:
        ours = load_file(args.nibble_logits)
        if not torch.equal(ours["ids"], rows[0][:len(ours["ids"])]):
            raise SystemExit("nibble's ids are not the first window's: tokenization or windows differ")
        mine, theirs = ours["logits"].double(), all_logits[0][:len(ours["ids"])].double()
        cosine = torch.nn.functional.cosine_similarity(mine, theirs, dim=-1)
        out.update(top1=round((mine.argmax(-1) == theirs.argmax(-1)).double().mean().item(), 5),
                   cosine=round(cosine.mean().item(), 7), cosine_min=round(cosine.min().item(), 7),
                   max_diff=round((mine - theirs).abs().max().item(), 4))
    print(json.dumps(out), flush=True)


if __name__ == "__main__":
    sys.exit(main())
