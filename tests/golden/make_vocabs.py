#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Golden vectors for GGUF vocabularies: what llama.cpp's own llama-tokenize makes of the corpus of
make_tokenizers.py with the tokenizers of that script, written as GGUF by gguf-py, and with each pre-tokenizer name.

usage: make_vocabs.py LLAMA_TOKENIZE [OUT]        (default: vocabs/ beside this file)

Made with llama.cpp as vendored by llama-cpp-python 0.3.36, gguf 0.19, tokenizers 0.23.3, Python 3.11. OUT holds
  base.json        a byte-level tokenizer.json whose merges know no word ends, so that each cut shows in the ids
  expected.json    {"families", "rules", "variants"}. Digests have four hexadecimal digits per text, the begin
                   of the sha256 of its ids as little-endian int32. Texts of one byte repeated are left out.
                   families: per tokenizer.json {"pre", "ids": special tokens recognised, "plain": as text,
                   "with": with BOS and EOS}; rules: per name the digests of "ids" with base.json, of 8
                   texts joined by a line feed each; variants: of llama2.json, see variants() here and in test_vocabs.c
"""
import copy
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile

import gguf

import make_tokenizers as mt

HERE = os.path.dirname(os.path.abspath(__file__))
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
PRE = {"gpt2": "gpt-2", "llama3": "llama-bpe", "qwen2": "qwen2", "cl100k": "dbrx", "tekken": "tekken",
       "deepseek3": "deepseek-v3", "llama2": "default", "mistral3": "default", "gemma": "default"}
BOS_EOS = {"llama3": ("<|begin_of_text|>", "<|end_of_text|>"), "tekken": ("<s>", "</s>"), "llama2": ("<s>", "</s>"),
           "mistral3": ("<s>", "</s>"), "gemma": ("<bos>", "</s>")}
RULES = """llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe chatglm-bpe glm4
glm5 minicpm5 qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan solar-open grok-2 kormo f2llmv2 bailingmoe bailingmoe2
llada-moe qwen35 ufakzeka laguna gpt-2 phi-2 gigachat mpt olmo jais trillion granite-docling exaone4 a.x-4.0 mellum
modern-bert roberta-bpe jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code smollm starcoder refact command-r
codeshell exaone minerva-7b mellum2 tekken gpt-4o llama4 kanana2 talkie minimax-m2 deepseek-llm deepseek-coder
deepseek-v3 hunyuan-dense joyai-llm hy_v4 spark2_5 seed-coder exaone-moe jais-2 falcon poro-chat bloom
gpt3-finnish viking chameleon granite-embed-multi-97m youtu default""".split()


def base():
    """Merges over whole lines: no cut is made before the merges are learnt."""
    pre = mt.byte_level(regex=False)
    vocab, merges = mt.train_byte_level(pre, 1100)
    return mt.assemble(vocab, merges, [mt.added(x) for x in ("<|endoftext|>", "<s>", "[INST]")],
                       pre=mt.byte_level(), decoder=mt.BYTE_DECODER)


def special_id(spec, text):
    return next(t["id"] for t in spec["added_tokens"] if t["content"] == text)


def to_vocab(name, spec):
    """The rules of the specification, for the tokenizers here: no holes, no texts that must be guessed."""
    model = spec["model"]
    spm = model["byte_fallback"]
    by_id = {i: t for t, i in model["vocab"].items()}
    added = {t["id"]: t for t in spec["added_tokens"]}
    tokens, types = [], []
    for i in range(max([*by_id, *added]) + 1):
        text, kind = by_id[i] if i in by_id else added[i]["content"], NORMAL
        if spm and text == model["unk_token"]:
            kind = UNKNOWN
        elif spm and len(text) == 6 and text.startswith("<0x"):
            kind = BYTE
        elif i in added:
            kind = CONTROL if added[i]["special"] else USER
            if kind == USER:
                text = text.replace("\u2581", " ")
        tokens.append(text)
        types.append(kind)
    v = {"model": "llama" if spm else "gpt2", "pre": PRE[name], "tokens": tokens, "types": types, "name": name,
         "special": {}, "flags": {}}
    merges = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
    if spm:
        scores = [-1e6] * len(tokens)
        for rank, (a, b) in enumerate(merges):
            i = model["vocab"][a + b]
            scores[i] = max(scores[i], -float(rank))
        v["scores"] = scores
        v["flags"]["add_space_prefix"] = name != "gemma"
    else:
        v["merges"] = [a + " " + b for a, b in merges]
    if name in BOS_EOS:
        v["special"] = {"bos_token_id": special_id(spec, BOS_EOS[name][0]),
                        "eos_token_id": special_id(spec, BOS_EOS[name][1])}
    v["flags"]["add_bos_token"] = name in BOS_EOS
    v["flags"]["add_eos_token"] = name == "mistral3"
    return v


def write_gguf(path, v):
    w = gguf.GGUFWriter(path, "llama")
    w.add_name(v["name"])
    for add, value in ((w.add_context_length, 64), (w.add_embedding_length, 32), (w.add_block_count, 1),
                       (w.add_feed_forward_length, 32), (w.add_head_count, 1), (w.add_layer_norm_rms_eps, 1e-5)):
        add(value)
    w.add_tokenizer_model(v["model"])
    w.add_tokenizer_pre(v["pre"])
    w.add_token_list(v["tokens"])
    w.add_token_types(v["types"])
    if "scores" in v:
        w.add_token_scores(v["scores"])
    if "merges" in v:
        w.add_token_merges(v["merges"])
    for key, value in v["special"].items():
        w.add_uint32("tokenizer.ggml." + key, value)
    for key, value in v["flags"].items():
        w.add_bool("tokenizer.ggml." + key, value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def digest(ids):
    return hashlib.sha256(struct.pack("<%di" % len(ids), *ids)).hexdigest()[:4]


class Peer:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def ids(self, model, text, *options):
        path = os.path.join(self.folder, "text")
        with open(path, "wb") as f:
            f.write(text.encode())
        if not text:
            # The tool takes no empty text; what is added to it shows at the ends of another.
            return None
        out = subprocess.run([self.program, "-m", model, "-f", path, "--no-escape", "--ids", "--log-disable", *options],
                             capture_output=True, check=True).stdout
        return json.loads(out)

    def digests(self, v, texts, *options):
        model = os.path.join(self.folder, "vocab.gguf")
        write_gguf(model, v)
        out = []
        for text in texts:
            ids = self.ids(model, text, *options)
            out.append("----" if ids is None else digest(ids))
        return "".join(out)


def variants(llama2):
    """Of llama2.json: other scores and rules. The same in test_vocabs.c."""
    out = {}
    for name in ("equal", "random", "no-prefix", "phi3", "nested"):
        out[name] = copy.deepcopy(llama2)
    n = len(llama2["tokens"])
    out["equal"]["scores"] = [-1000.0] * n
    state, scores = 1, []
    for _ in range(n):
        state = (state * 1103515245 + 12345) % 2**31
        scores.append(float(state // 65536 % 50))
    out["random"]["scores"] = scores
    out["no-prefix"]["flags"]["add_space_prefix"] = False
    out["phi3"]["name"] = "My Phi-3 mini"
    out["phi3"]["tokens"][n - 1] = "<|endoftext|>"  # llama.cpp wants one in such a model
    out["phi3"]["types"][n - 1] = CONTROL
    # User-defined tokens that overlap each other and the texts around them.
    for i, text in zip(range(n - 6, n), ("the the", "he t", "ab", "abc", " a", "\n\n")):
        if text not in out["nested"]["tokens"]:
            out["nested"]["tokens"][i] = text
        out["nested"]["types"][out["nested"]["tokens"].index(text)] = USER
    return out


def main():
    program = sys.argv[1]
    out = sys.argv[2] if len(sys.argv) > 2 else os.path.join(HERE, "vocabs")
    with open(os.path.join(HERE, "tokenizers", "corpus.json"), encoding="ascii") as f:
        texts = [t for t in json.load(f) if isinstance(t, str)]
    joined = ["\n".join(texts[i:i + 8]) for i in range(0, len(texts), 8)]
    families = {}
    for name in PRE:
        with open(os.path.join(HERE, "tokenizers", name + ".json"), encoding="ascii") as f:
            families[name] = to_vocab(name, json.load(f))
    result = {"families": {}, "rules": {}, "variants": {}}
    base_spec = base()
    PRE["base"] = "gpt-2"
    base_vocab = to_vocab("base", base_spec)
    with tempfile.TemporaryDirectory() as folder:
        peer = Peer(program, folder)
        for name, v in families.items():
            result["families"][name] = {"pre": v["pre"], "ids": peer.digests(v, texts, "--no-bos"),
                                        "plain": peer.digests(v, texts, "--no-bos", "--no-parse-special"),
                                        "with": peer.digests(v, texts)}
            print(name, flush=True)
        for name, v in variants(families["llama2"]).items():
            result["variants"][name] = peer.digests(v, texts, "--no-bos")
            print(name, flush=True)
        seen = {}
        for name in RULES:
            v = dict(base_vocab, pre=name, flags={"add_bos_token": False, "add_eos_token": False})
            result["rules"][name] = peer.digests(v, joined)
            seen.setdefault(result["rules"][name], []).append(name)
            print(name, flush=True)
        # Names that cut alike share one row.
        result["rules"] = {" ".join(names): digests for digests, names in seen.items()}
    os.makedirs(out, exist_ok=True)
    mt.write(os.path.join(out, "base.json"), base_spec)
    mt.write(os.path.join(out, "expected.json"), result)


if __name__ == "__main__":
    main()
