#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_models.py - tiny random float models with the logits transformers computes for them.

Writes models/<name>/ beside this file: config.json, model.safetensors (one model in shards with an
index), and expected.safetensors with

    ids     I64 [T]      token ids of one sequence, no padding
    logits  F32 [T,V]    logits of every position, one forward pass over the whole sequence

Made with transformers 5.23.0, torch 2.13.0 (CPU), safetensors 0.8, numpy 2.4; expected.safetensors
repeats the versions that were really used in its metadata. The stored weights (f32, f16, bf16) are
widened to float32, the arithmetic is float32, attention is "eager", so the values are those of plain
matrix products; a correct float32 engine agrees to about 1e-4 relative to the largest logit.

Weights come from numpy's PCG64 seeded with the model's name, one stream per parameter, so a model does
not change when another is added. They are no trained weights: scales are chosen so that attention is
far from uniform (positions and windows matter), norm weights are not 1 and biases not 0.

What the variants pin down (all checked below by "must differ" runs):
  llama2-mha-f16        old-style config (rope_theta, rope_scaling: null, torch_dtype at top level)
  llama3-gqa-bf16       old-style rope_scaling {"rope_type": "llama3"}; T > original_max_position_embeddings
  llama-bias-f32        attention_bias and mlp_bias, large rms_norm_eps; new style (rope_parameters)
  llama-rope-linear     oldest style: rope_scaling {"type": "linear"}
  llama-rope-dynamic    new style; T > max_position_embeddings. transformers takes ONE base for the
                        whole pass, from the longest position seen (T, not position+1):
                        base * ((f*T/max_pos) - (f-1)) ^ (d/(d-2)). At T <= max_pos nothing changes.
                        A later shorter pass through the same model object keeps the grown base until
                        T < max_pos; the file holds a fresh model's answer. Cached keys of an
                        incremental decode keep the base of their time, so it would give other logits.
  llama-rope-yarn       new style; factor 4, attention_factor by default 0.1*ln(4)+1 on cos and sin
  mistral-window-bf16   sliding window (key j seen by query i iff j <= i and i - j < window) < T;
                        head_dim != hidden/heads
  qwen2-tied-bf16       q/k/v bias, tied head: no lm_head.weight in the file
  qwen2-some-slide      use_sliding_window with max_window_layers 1 of 3 and no layer_types in the
                        config: layers i >= max_window_layers slide
  qwen2-layer-types     layer_types given and at odds with max_window_layers: layer_types wins
  qwen3-gqa-bf16        q/k norm over head_dim, head_dim != hidden/heads; three shards and an index
  gemma2-caps-bf16      no layer_types: even layers slide; both soft caps well inside the scores' range,
                        query_pre_attn_scalar != head_dim, norms multiply by 1 + w, four norms a layer, tied
                        head, embeddings times sqrt(hidden), which is no whole number here
  gemma2-nocap-f16      soft caps null; layer_types against the default order; one key head; untied head
  gemma3-old-bf16       rope_theta, rope_local_base_freq, rope_scaling (global layers only) and
                        sliding_window_pattern 3, no layer_types
  gemma3-types-f32      rope_parameters for each attention type, layer_types, a final soft cap,
                        attention_bias; attn_logit_softcapping is given and means nothing
  gemma3-images-bf16    a model for text and images: the text model's config one level down, its names
                        behind language_model., tensors of the other part beside it
  smollm3-nope-bf16     no_rope_layers and layer_types absent: every fourth layer is not rotated; tied head
  smollm3-listed-f32    no_rope_layers at odds with the interval, which also says which layers have the window
                        (layer_types absent); biases, untied head
  phi3-window-f16       fused qkv_proj and gate_up_proj, one window for all layers, as many key heads as heads
  phi3-long-bf16        partial_rotary_factor 0.75 beside rope_scaling of type longrope, as Phi-4-mini has it;
                        T > original_max_position_embeddings: the long factors, which differ, and the attention
                        factor from the ratio of the two lengths; tied head
  phi3-short-bf16       rope_type su, T below original_max_position_embeddings: the short factors; factor given
  olmo2-post-bf16       norms after attention and MLP only, q and k normalized over all heads, two key heads
  gpt2-tied-f16         Conv1D weights [in, out], learned positions, LayerNorm, n_inner null, tied head
  gpt2-base-bf16        names without transformer., n_inner, another activation and epsilon, masks beside the
                        weights as the first released files have them
  mixtral-bf16          8 experts under Mixtral's names, 2 of them per token, weights scaled to sum 1
  mixtral-stacked-f16   names as in memory: all experts in one tensor of each kind; a window in every layer
  qwen2-moe-bf16        a shared expert behind a sigmoid; layer 1 without experts (mlp_only_layers); windows on
                        every other layer; weights of the chosen experts not scaled
  qwen2-moe-stacked-f32 experts in one tensor of each kind; decoder_sparse_step 2, norm_topk_prob
  qwen3-moe-bf16        q/k norm, norm_topk_prob, no shared expert, 3 of 6

Usage: make_models.py [NAME...]      (default: all)
"""

import json
import os
import sys
import zlib

import numpy as np
import safetensors
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (AutoModelForCausalLM, Gemma2Config, Gemma3Config, Gemma3TextConfig, GPT2Config,
                          LlamaConfig, MistralConfig, MixtralConfig, Olmo2Config, Phi3Config, Qwen2Config,
                          Qwen2MoeConfig, Qwen3Config, Qwen3MoeConfig, SmolLM3Config)

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENS = 48

SMALL = dict(vocab_size=160, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, intermediate_size=112, rms_norm_eps=1e-5,
             tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, max_position_embeddings=256)


GEMMA = dict(tie_word_embeddings=True, rms_norm_eps=1e-6)


PHI3 = SMOLLM3 = dict(pad_token_id=0)


def rope(kind="default", theta=10000.0, **more):
    return dict(rope_type=kind, rope_theta=theta, **more)


def images_too(**settings):
    vision = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=4,
                  patch_size=2, vision_use_head=False)
    return Gemma3Config(text_config=settings, vision_config=vision, mm_tokens_per_image=1, image_token_index=1000,
                        boi_token_index=1001, eoi_token_index=1002)


def gpt2(**settings):
    own = {k: v for k, v in settings.items() if k not in SMALL}
    return GPT2Config(vocab_size=settings["vocab_size"], n_embd=64, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2,
                      **own)


def factors(first, last):
    """Six of them, as many as pairs of rotated dimensions: 0.75 * 16 / 2."""
    return [round(first + (last - first) * i / 5, 4) for i in range(6)]


# name -> (config class, settings over SMALL, stored dtype, options)
# options: old = rewrite rope/dtype keys the old way, old_rope = that rope_scaling value,
#          unprefixed = this beginning of names left out of the file, with masks beside the weights,
#          stacked = tensors saved as they are in memory,
#          drop = keys removed from config.json, set = keys written into it, shard = max shard size, tokens = T
MODELS = {
    "llama2-mha-f16": (LlamaConfig, dict(num_key_value_heads=4, intermediate_size=96, rope_parameters=rope()),
                       torch.float16, dict(old=True, old_rope=None, drop=["head_dim"])),
    "llama3-gqa-bf16": (LlamaConfig, dict(rope_parameters=rope(
        "llama3", 5000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=32)), torch.bfloat16,
        dict(old=True, old_rope=dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                     original_max_position_embeddings=32, rope_type="llama3"))),
    "llama-bias-f32": (LlamaConfig, dict(vocab_size=80, intermediate_size=72, rms_norm_eps=1e-3,
                                         attention_bias=True, mlp_bias=True, rope_parameters=rope(theta=1000.0)),
                       torch.float32, {}),
    "llama-rope-linear": (LlamaConfig, dict(rope_parameters=rope("linear", factor=3.0)), torch.float16,
                          dict(old=True, old_rope=dict(type="linear", factor=3.0))),
    "llama-rope-dynamic": (LlamaConfig, dict(max_position_embeddings=24,
                                             rope_parameters=rope("dynamic", factor=2.0)), torch.bfloat16,
                           dict(tokens=60)),
    "llama-rope-yarn": (LlamaConfig, dict(max_position_embeddings=128, rope_parameters=rope(
        "yarn", factor=4.0, original_max_position_embeddings=32)), torch.bfloat16, {}),
    "mistral-window-bf16": (MistralConfig, dict(head_dim=24, sliding_window=13, rope_parameters=rope()),
                            torch.bfloat16, {}),
    "qwen2-tied-bf16": (Qwen2Config, dict(tie_word_embeddings=True, rms_norm_eps=1e-6,
                                          rope_parameters=rope(theta=1e6)), torch.bfloat16, {}),
    "qwen2-some-slide": (Qwen2Config, dict(num_hidden_layers=3, tie_word_embeddings=True, use_sliding_window=True,
                                           sliding_window=10, max_window_layers=1, rope_parameters=rope()),
                         torch.float16, dict(old=True, old_rope=None, drop=["layer_types"])),
    "qwen2-layer-types": (Qwen2Config, dict(use_sliding_window=True, sliding_window=10, max_window_layers=28,
                                            layer_types=["sliding_attention", "full_attention"],
                                            rope_parameters=rope()), torch.bfloat16, {}),
    "qwen3-gqa-bf16": (Qwen3Config, dict(head_dim=32, rms_norm_eps=1e-6, intermediate_size=96,
                                         rope_parameters=rope(theta=1e6)), torch.bfloat16, dict(shard=90_000)),
    "gemma2-caps-bf16": (Gemma2Config, dict(GEMMA, hidden_size=72, head_dim=24, num_hidden_layers=3, sliding_window=11,
                                            query_pre_attn_scalar=20, attn_logit_softcapping=4.0,
                                            final_logit_softcapping=7.0, rope_parameters=rope()),
                         torch.bfloat16, dict(old=True, old_rope=None, drop=["layer_types"])),
    "gemma2-nocap-f16": (Gemma2Config, dict(GEMMA, num_key_value_heads=1, head_dim=16, sliding_window=9,
                                            query_pre_attn_scalar=16, attn_logit_softcapping=None,
                                            final_logit_softcapping=None, tie_word_embeddings=False,
                                            layer_types=["full_attention", "sliding_attention"],
                                            rope_parameters=rope()), torch.float16, {}),
    "gemma3-old-bf16": (Gemma3TextConfig, dict(
        GEMMA, hidden_size=80, head_dim=24, num_hidden_layers=4, sliding_window=10, query_pre_attn_scalar=24,
        sliding_window_pattern=3, rope_parameters=dict(full_attention=rope("linear", 1e6, factor=8.0),
                                                       sliding_attention=rope(theta=500.0))), torch.bfloat16,
        dict(old=True, old_rope=dict(rope_type="linear", factor=8.0),
             drop=["layer_types", "_sliding_window_pattern"], set=dict(sliding_window_pattern=3))),
    "gemma3-types-f32": (Gemma3TextConfig, dict(
        GEMMA, vocab_size=80, intermediate_size=72, head_dim=16, num_hidden_layers=3, num_key_value_heads=4,
        sliding_window=7, query_pre_attn_scalar=10, final_logit_softcapping=5.0, attention_bias=True,
        attn_logit_softcapping=3.0,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=dict(full_attention=rope(theta=20000.0), sliding_attention=rope(theta=300.0))),
        torch.float32, dict(drop=["_sliding_window_pattern"])),
    "gemma3-images-bf16": (images_too, dict(GEMMA, vocab_size=80, intermediate_size=72, head_dim=16, sliding_window=7,
                                            query_pre_attn_scalar=16, layer_types=["sliding_attention",
                                                                                   "full_attention"]),
                           torch.bfloat16, {}),
    "smollm3-nope-bf16": (SmolLM3Config, dict(SMOLLM3, num_hidden_layers=4, intermediate_size=72, tie_word_embeddings=True,
                                              rope_parameters=rope(theta=2e6)), torch.bfloat16,
                          dict(old=True, old_rope=None, drop=["layer_types", "no_rope_layers"])),
    "smollm3-listed-f32": (SmolLM3Config, dict(SMOLLM3, vocab_size=80, num_hidden_layers=3, intermediate_size=72,
                                               no_rope_layers=[0, 1, 0], attention_bias=True, mlp_bias=True,
                                               use_sliding_window=True, sliding_window=9,
                                               rope_parameters=rope(theta=1000.0)), torch.float32,
                           dict(drop=["layer_types"])),
    "phi3-window-f16": (Phi3Config, dict(PHI3, num_key_value_heads=4, intermediate_size=72, sliding_window=13,
                                         rope_parameters=rope()), torch.float16, dict(old=True, old_rope=None)),
    "phi3-long-bf16": (Phi3Config, dict(
        PHI3, tie_word_embeddings=True, original_max_position_embeddings=32, partial_rotary_factor=0.75,
        rope_parameters=rope("longrope", short_factor=factors(1.0, 1.5), long_factor=factors(1.0, 7.0),
                             partial_rotary_factor=0.75)), torch.bfloat16,
        dict(old=True, set=dict(partial_rotary_factor=0.75),
             old_rope=dict(type="longrope", short_factor=factors(1.0, 1.5), long_factor=factors(1.0, 7.0)))),
    "phi3-short-bf16": (Phi3Config, dict(
        PHI3, original_max_position_embeddings=64, rope_parameters=rope(
            "longrope", factor=2.5, short_factor=factors(1.1, 3.0) + [3.5, 4.0],
            long_factor=factors(1.0, 7.0) + [8.0, 9.0])), torch.bfloat16,
        dict(old=True, old_rope=dict(rope_type="su", factor=2.5, original_max_position_embeddings=64,
                                     short_factor=factors(1.1, 3.0) + [3.5, 4.0],
                                     long_factor=factors(1.0, 7.0) + [8.0, 9.0]))),
    "olmo2-post-bf16": (Olmo2Config, dict(rope_parameters=rope(theta=500000.0)), torch.bfloat16, {}),
    "gpt2-tied-f16": (gpt2, dict(n_positions=56), torch.float16, {}),
    "gpt2-base-bf16": (gpt2, dict(vocab_size=80, n_positions=48, n_inner=72, layer_norm_epsilon=1e-3,
                                  activation_function="gelu"), torch.bfloat16, dict(unprefixed="transformer.")),
    "mixtral-bf16": (MixtralConfig, dict(intermediate_size=48, num_local_experts=8, num_experts_per_tok=2,
                                         rope_parameters=rope(theta=1e6)), torch.bfloat16,
                     dict(old=True, old_rope=None)),
    "mixtral-stacked-f16": (MixtralConfig, dict(intermediate_size=64, num_local_experts=4, num_experts_per_tok=2,
                                                sliding_window=9, rope_parameters=rope()), torch.float16,
                            dict(stacked=True)),
    "qwen2-moe-bf16": (Qwen2MoeConfig, dict(num_hidden_layers=3, moe_intermediate_size=24, num_experts=8,
                                            shared_expert_intermediate_size=56, num_experts_per_tok=3,
                                            mlp_only_layers=[1], use_sliding_window=True, sliding_window=10,
                                            max_window_layers=3, rope_parameters=rope()), torch.bfloat16,
                       dict(drop=["layer_types"])),
    "qwen2-moe-stacked-f32": (Qwen2MoeConfig, dict(moe_intermediate_size=24, num_experts=4, qkv_bias=False,
                                                   shared_expert_intermediate_size=40, num_experts_per_tok=2,
                                                   decoder_sparse_step=2, norm_topk_prob=True,
                                                   rope_parameters=rope()), torch.float32, dict(stacked=True)),
    "qwen3-moe-bf16": (Qwen3MoeConfig, dict(head_dim=24, moe_intermediate_size=32, num_experts=6,
                                            num_experts_per_tok=3, norm_topk_prob=True, rms_norm_eps=1e-6,
                                            rope_parameters=rope(theta=1e6)), torch.bfloat16, {}),
}


def values(model, name, param):
    """Random values for one parameter; the stream depends on model and parameter name only."""
    rng = np.random.Generator(np.random.PCG64([zlib.crc32(model.encode()), zlib.crc32(name.encode())]))
    z = rng.standard_normal(tuple(param.shape))
    if name.endswith("bias"):
        z = 0.3 * z
    elif "norm" in name or ".ln_" in name:
        z = (0.0 if model.startswith("gemma") else 1.0) + 0.3 * z
    elif "embed_tokens" in name or ".wte." in name or ".wpe." in name:
        z = 0.25 * z
    elif "lm_head" in name:
        z = 2.0 / np.sqrt(param.shape[1]) * z
    elif ".c_" in name:
        z = 1.6 / np.sqrt(param.shape[0]) * z
    else:
        gain = 2.0 if ("q_proj" in name or "k_proj" in name or "qkv_proj" in name) else 1.2
        z = gain / np.sqrt(param.shape[-1]) * z
    return torch.from_numpy(z.astype(np.float32))


def forward(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(input_ids=ids[None], use_cache=False).logits[0].float().contiguous()


def rewrite_config(path, options):
    """Old-style keys where asked; the caller checks that the result still means the same."""
    with open(path) as f:
        config = json.load(f)
    for key in options.get("drop", []):
        del config[key]
    config.update(options.get("set", {}))
    if options.get("old"):
        theta = config.pop("rope_parameters")
        if "full_attention" in theta:
            config["rope_local_base_freq"] = theta["sliding_attention"]["rope_theta"]
            theta = theta["full_attention"]
        config["rope_theta"] = theta["rope_theta"]
        config["rope_scaling"] = options["old_rope"]
        config["torch_dtype"] = config.pop("dtype")
        config["transformers_version"] = "4.45.0"
    with open(path, "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")


def strip_prefix(path, prefix, config):
    tensors = {k.removeprefix(prefix): v for k, v in load_file(path).items()}
    mask = torch.tril(torch.ones(config.n_positions, config.n_positions))[None, None]
    tensors.update({f"h.{i}.attn.bias": mask.clone() for i in range(config.n_layer)})
    save_file(tensors, path, metadata={"format": "pt"})


def make(name):
    cls, settings, dtype, options = MODELS[name]
    folder = os.path.join(HERE, "models", name)
    os.makedirs(folder, exist_ok=True)
    for old in os.listdir(folder):
        os.remove(os.path.join(folder, old))

    config = cls(**{**SMALL, **settings})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for pname, param in model.named_parameters():
            param.copy_(values(name, pname, param))
    model.to(dtype).save_pretrained(folder, max_shard_size=options.get("shard", "5GB"),
                                    save_original_format=not options.get("stacked", False))
    os.remove(os.path.join(folder, "generation_config.json"))

    if "unprefixed" in options:
        strip_prefix(os.path.join(folder, "model.safetensors"), options["unprefixed"], config)

    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    ids = torch.from_numpy(rng.integers(0, config.get_text_config().vocab_size, options.get("tokens", TOKENS)))
    logits = forward(folder, ids)
    rewrite_config(os.path.join(folder, "config.json"), options)
    again = forward(folder, ids)
    assert torch.equal(logits, again), f"{name}: the rewritten config changed the model"
    assert torch.isfinite(logits).all()

    save_file({"ids": ids, "logits": logits}, os.path.join(folder, "expected.safetensors"), metadata={
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}, safetensors "
                     f"{safetensors.__version__}, float32, eager attention"})
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{name:22s} {size / 1000:6.1f} kB  T {len(ids)}  logits rms {logits.pow(2).mean().sqrt():.2f} "
          f"max {logits.abs().max():.2f}")
    for f in os.listdir(folder):
        os.chmod(os.path.join(folder, f), 0o644)
    return folder, ids, logits


# name -> config edits, one or a list, that must change the logits: proof that the vector would catch the mistake
MUST_DIFFER = {
    "llama3-gqa-bf16": dict(rope_scaling=None),
    "llama-rope-linear": dict(rope_scaling=None),
    "llama-rope-dynamic": dict(rope_parameters=rope()),
    "llama-rope-yarn": dict(rope_parameters=rope()),
    "llama2-mha-f16": dict(rope_theta=20000.0),
    "llama-bias-f32": dict(rms_norm_eps=1e-5),
    "mistral-window-bf16": dict(sliding_window=14),
    "qwen2-some-slide": dict(max_window_layers=2),
    "qwen2-layer-types": dict(layer_types=["full_attention", "sliding_attention"]),
    "qwen2-tied-bf16": dict(rope_parameters=rope(theta=10000.0)),
    "qwen3-gqa-bf16": dict(rms_norm_eps=1e-3),
    "gemma2-caps-bf16": [dict(attn_logit_softcapping=50.0), dict(final_logit_softcapping=30.0),
                         dict(query_pre_attn_scalar=24), dict(sliding_window=12),
                         dict(layer_types=["full_attention", "sliding_attention", "full_attention"])],
    "gemma2-nocap-f16": [dict(attn_logit_softcapping=50.0), dict(final_logit_softcapping=30.0),
                         dict(layer_types=["sliding_attention", "full_attention"])],
    "gemma3-old-bf16": [dict(rope_scaling=None), dict(rope_local_base_freq=1e6), dict(sliding_window_pattern=2),
                        dict(rope_theta=5e4), dict(sliding_window=11)],
    "gemma3-types-f32": [dict(final_logit_softcapping=None), dict(query_pre_attn_scalar=16),
                         dict(rope_parameters=dict(full_attention=rope(theta=20000.0),
                                                   sliding_attention=rope(theta=20000.0)))],
    "gemma3-images-bf16": [dict(text_config=dict(
        vocab_size=80, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=72, head_dim=16, query_pre_attn_scalar=16, layer_types=["full_attention"] * 2))],
    "smollm3-nope-bf16": dict(no_rope_layers=[1, 1, 1, 1]),
    "smollm3-listed-f32": [dict(no_rope_layers=[1, 1, 0]), dict(sliding_window=10),
                           dict(layer_types=["full_attention"] * 3)],
    "phi3-window-f16": dict(sliding_window=14),
    "phi3-long-bf16": [dict(original_max_position_embeddings=128), dict(max_position_embeddings=1024),
                       dict(rope_scaling=None)],
    "phi3-short-bf16": [dict(original_max_position_embeddings=40), dict(rope_scaling=None)],
    "olmo2-post-bf16": dict(rms_norm_eps=1e-3),
    "gpt2-tied-f16": dict(activation_function="relu"),
    "gpt2-base-bf16": [dict(activation_function="relu"), dict(layer_norm_epsilon=1e-5)],
    "mixtral-bf16": [dict(num_experts_per_tok=3), dict(sliding_window=13)],
    "mixtral-stacked-f16": [dict(num_experts_per_tok=1), dict(sliding_window=None)],
    "qwen2-moe-bf16": [dict(norm_topk_prob=True), dict(num_experts_per_tok=4), dict(max_window_layers=1),
                       dict(layer_types=["sliding_attention"] * 3)],
    "qwen2-moe-stacked-f32": [dict(norm_topk_prob=False), dict(num_experts_per_tok=1)],
    "qwen3-moe-bf16": [dict(norm_topk_prob=False), dict(num_experts_per_tok=2)],
}


def check_difference(name, folder, ids, logits):
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        text = f.read()
    edits = MUST_DIFFER[name]
    for edit in edits if isinstance(edits, list) else [edits]:
        try:
            with open(path, "w") as f:
                json.dump({**json.loads(text), **edit}, f)
            moved = (forward(folder, ids) - logits).abs().max().item()
        finally:
            with open(path, "w") as f:
                f.write(text)
        print(f"{'':22s} with {edit}: largest change {moved:.3g}")
        assert moved > 0.02, name


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in sys.argv[1:] or MODELS:
        check_difference(name, *make(name))


if __name__ == "__main__":
    main()
