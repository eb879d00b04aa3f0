#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""llamacpp.py CASE ... - nibble and llama.cpp's tools on the same GGUF files must agree.

  perplexity FILE            nibble's perplexity of FILE is llama-perplexity's of FILE dequantized to F32 (no 8-bit
                             activations) within 0.1 %, and of FILE as it is within 0.6 %
  written MODEL OPTIONS...   nibble writes MODEL as GGUF with OPTIONS; llama.cpp and the Python package gguf read all
                             of it, and `perplexity` holds
  converted MODEL TYPE       nibble's file of MODEL has the tensors and metadata of llama.cpp's converter
  types MODEL PRESET         nibble gives every tensor the type that llama-quantize gives it, and the same size
  same MODEL PRESET          the file without calibration holds llama-quantize's bytes
  weighted MODEL PRESET TEXT the same for both with llama-imatrix's matrix of TEXT
  family NAME TYPE           `written` and `converted` for a tiny random model of a family (transformers makes it), and
                             the folder that nibble makes of the file has the same weights and logits
  logits MODEL               base-logits files: each tool reads the other's, both print the same figures
  tokenize FILE              the ids of a text are llama-tokenize's
  imatrix MODEL [TEXT]       importance matrices of both, in both formats: same names and counts, columns within 1e-4;
                             each tool quantizes with the other's

Environment as in the script `gguf` beside this. Exit 0 pass, 1 fail, 77 skip; the last stdout line says why."""
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile

ENV = os.environ
NIBBLE, BIN, CONVERT = ENV["NB_PROGRAM"], ENV.get("NB_PEER_LLAMACPP", ""), ENV.get("NB_PEER_CONVERT", "")
TEXT, MODEL = ENV["NB_TEXT"], ENV["NB_MODEL"]
WINDOWS = ENV.get("NB_GGUF_WINDOWS", "20")  # of fewer, 8-bit activations alone move perplexity by more than the limit
FLOAT_RATIO, ACTIVATION_RATIO = 1e-3, 6e-3
EXACT = ["-fa", "off", "-ctk", "f32", "-ctv", "f32"]  # its flash attention computes in less than f32


class Failure(Exception):
    pass


class Skip(Exception):
    pass


def run(argv):
    quiet = dict(ENV, OMP_WAIT_POLICY="passive")
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=quiet, check=False)
    if done.returncode:
        tail = " / ".join(done.stdout.strip().splitlines()[-3:])
        raise Failure(f"{os.path.basename(argv[0])} {' '.join(argv[1:4])}: exit {done.returncode}: {tail}")
    return done.stdout


def nibble(*argv):
    out = run([NIBBLE, *argv, "--json", "--quiet"])
    return next(json.loads(line) for line in reversed(out.splitlines()) if line.startswith("{"))


def peer(name, *argv):
    path = os.path.join(BIN, name)
    if not BIN or not os.access(path, os.X_OK):
        raise Skip(f"no {name} (set NB_PEER_LLAMACPP)")
    return run([path, *argv])


def peer_perplexity(model, *options):
    for _ in range(3):  # under load the tool sometimes ends without its last line
        out = peer("llama-perplexity", "-m", model, "-t", "1", *options)
        m = re.search(r"Final estimate: PPL = ([0-9.]+)", out)
        if m:
            return float(m[1])
    raise Failure("llama-perplexity printed no estimate: " + out.strip()[-200:])


def python_gguf():
    try:
        import gguf
    except ImportError as e:
        raise Skip("python has no gguf (set NB_PEER_GGUF)") from e
    return gguf


def tensors_of(path):
    return {t.name: t for t in python_gguf().GGUFReader(path).tensors}


def close(what, ours, theirs, limit):
    if not abs(ours / theirs - 1) <= limit:
        raise Failure(f"{what}: {ours:.4f}, llama.cpp {theirs:.4f}, more than {100 * limit:g} % apart")
    return f"{what} {ours:.4f} and {theirs:.4f}"


def perplexity(tmp, path):
    text = ["-f", TEXT, "-c", "512", "--chunks", WINDOWS]
    ours = nibble("eval", path, "--as", "llama.cpp", "--text", TEXT, "--limit", WINDOWS)["ppl"]
    wide = os.path.join(tmp, "wide.gguf")
    peer("llama-quantize", "--allow-requantize", path, wide, "F32", "1")
    said = close("dequantized", ours, peer_perplexity(wide, *text, *EXACT), FLOAT_RATIO)
    os.remove(wide)
    return said + "; " + close("as it is", ours, peer_perplexity(path, *text), ACTIVATION_RATIO)


def write(tmp, model, *options):
    out = os.path.join(tmp, "ours.gguf")
    if options and options[0].startswith("--type"):
        run([NIBBLE, "convert", model, "-o", out, "--overwrite", "--quiet", *options])
    else:
        run([NIBBLE, "quantize", model, "-o", out, "--overwrite", "--no-gate", "--quiet", *options])
    return out


def written(tmp, model, *options):
    out = write(tmp, model, *options)
    if not tensors_of(out):
        raise Failure("the package gguf finds no tensor")
    return perplexity(tmp, out)


def converter(tmp, model, kind):
    if not CONVERT:
        raise Skip("no converter (set NB_PEER_CONVERT)")
    out = os.path.join(tmp, f"theirs-{kind}.gguf")
    run([CONVERT, model, "--outtype", kind, "--outfile", out])
    return out


def field(f):
    value = f.contents()
    return [round(v, 6) if isinstance(v, float) else v for v in value] if isinstance(value, list) else value


# What names the file or the tool, or is a matter of taste.
FREE_KEYS = re.compile(r"general\.(name|basename|finetune|size_label|version|quantization_version|file_type|type|license.*|"
                       r"tags|languages|sampling\..*|base_model.*|author|organization|description)$|GGUF\..*")


def converted(tmp, model, kind):
    ours, theirs = write(tmp, model, "--type", kind), converter(tmp, model, kind)
    gguf = python_gguf()
    a, b = gguf.GGUFReader(ours), gguf.GGUFReader(theirs)
    ta, tb = ({t.name: t for t in r.tensors} for r in (a, b))
    if set(ta) != set(tb):
        raise Failure(f"tensors in one file only: {sorted(set(ta) ^ set(tb))[:5]}")
    for name, t in ta.items():
        u = tb[name]
        if t.tensor_type != u.tensor_type or list(t.shape) != list(u.shape):
            raise Failure(f"{name}: {t.tensor_type.name} {list(t.shape)}, converter {u.tensor_type.name} {list(u.shape)}")
        if name == "rope_freqs.weight" and abs(t.data / u.data - 1).max() < 1e-6:
            continue  # a formula in single precision, the order of whose steps is nobody's business
        if t.data.tobytes() != u.data.tobytes():
            raise Failure(f"{name}: other bytes than the converter's")
    keys = {k for k in b.fields if not FREE_KEYS.match(k)}
    if field(b.fields["tokenizer.ggml.model"]) == "gpt2":  # there it has no effect
        keys.discard("tokenizer.ggml.add_space_prefix")
    # Ours may have more: values that the reader takes by default.
    for k in sorted(keys):
        if k not in a.fields:
            raise Failure(f"key {k} is in the converter's file only")
        if a.fields[k].types != b.fields[k].types or field(a.fields[k]) != field(b.fields[k]):
            raise Failure(f"key {k}: {str(field(a.fields[k]))[:60]}, converter {str(field(b.fields[k]))[:60]}")
    return f"{len(ta)} tensors and {len(keys)} keys equal"


def quantized_pair(tmp, model, preset, *options):
    # not from F16: it rounds small bf16 values, so some blocks come out otherwise
    source, theirs = converter(tmp, model, "bf16"), os.path.join(tmp, "theirs.gguf")
    peer("llama-quantize", source, theirs, preset, "1")
    return tensors_of(write(tmp, model, "--scheme", preset, *options)), tensors_of(theirs)


def types(tmp, model, preset):
    ours, theirs = quantized_pair(tmp, model, preset, "--method", "rtn")
    wrong = [n for n in theirs if n not in ours or ours[n].tensor_type != theirs[n].tensor_type]
    if wrong or len(ours) != len(theirs):
        n = wrong[0] if wrong else "?"
        raise Failure(f"{len(wrong)} tensors of another type, first {n}")
    size = [sum(t.n_bytes for t in f.values()) for f in (ours, theirs)]
    if size[0] != size[1]:
        raise Failure(f"{size[0]} bytes of tensors, llama-quantize {size[1]}")
    return f"{len(ours)} tensors, {size[0]} bytes"


def compare_bytes(ours, theirs):
    wrong = [n for n in theirs if n not in ours or ours[n].data.tobytes() != theirs[n].data.tobytes()]
    if wrong:
        raise Failure(f"{len(wrong)} of {len(theirs)} tensors with other bytes, first {wrong[0]}")
    return f"{len(theirs)} tensors with the same bytes"


def same(tmp, model, preset):
    return compare_bytes(*quantized_pair(tmp, model, preset, "--method", "rtn"))


def weighted(tmp, model, preset, text):
    source, theirs, matrix = converter(tmp, model, "bf16"), os.path.join(tmp, "theirs.gguf"), os.path.join(tmp, "matrix.gguf")
    peer("llama-imatrix", "-m", source, "-f", text, "-c", "512", "--chunks", "8", "-t", "1", "--no-ppl", "-o", matrix)
    peer("llama-quantize", "--imatrix", matrix, source, theirs, preset, "1")
    return compare_bytes(tensors_of(write(tmp, model, "--scheme", preset, "--imatrix", matrix)), tensors_of(theirs))


# ---- tiny models ----

def tiny_model(folder, name):
    try:
        import torch
        import transformers
    except ImportError as e:
        raise Skip("python has no torch and transformers") from e
    shape = dict(vocab_size=8192, hidden_size=256, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4,
                 num_key_value_heads=2, max_position_embeddings=1024, bos_token_id=0, eos_token_id=0)
    gemma = dict(head_dim=32, sliding_window=100, query_pre_attn_scalar=32,  # GGUF has no key for another than head_dim
                  hidden_activation="gelu_pytorch_tanh")
    phi3 = dict(pad_token_id=0)

    def longrope(original):  # of 48 rotated dimensions
        return dict(tie_word_embeddings=True, max_position_embeddings=2048, original_max_position_embeddings=original,
                    rope_parameters=dict(rope_type="longrope", rope_theta=10000.0, partial_rotary_factor=0.75,
                                         original_max_position_embeddings=original,
                                         short_factor=[1 + i / 20 for i in range(24)],
                                         long_factor=[1 + i / 2 for i in range(24)]))

    base, more = {
        "llama": ("Llama", dict(tie_word_embeddings=False)),
        "llama3": ("Llama", dict(tie_word_embeddings=True, rope_scaling=dict(
            rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=256))),
        "mistral": ("Mistral", dict(sliding_window=None, tie_word_embeddings=False)),
        "qwen2": ("Qwen2", dict(tie_word_embeddings=False)),
        "qwen3": ("Qwen3", dict(head_dim=32, tie_word_embeddings=True)),
        "gemma2": ("Gemma2", dict(gemma, attn_logit_softcapping=20.0, final_logit_softcapping=5.0)),
        "gemma3": ("Gemma3", gemma),
        "smollm3": ("SmolLM3", dict(pad_token_id=0)),
        "phi3": ("Phi3", dict(phi3, tie_word_embeddings=False, original_max_position_embeddings=1024)),
        "phi3-short": ("Phi3", dict(phi3, **longrope(1024))),
        "phi3-long": ("Phi3", dict(phi3, **longrope(256))),
        "olmo2": ("Olmo2", dict(tie_word_embeddings=False)),
        "gpt2": ("GPT2", {}),
    }[name]
    if base == "GPT2":
        shape = dict(vocab_size=8192, n_embd=256, n_layer=6, n_head=4, n_positions=1024, bos_token_id=0, eos_token_id=0)
    suffix = "Text" if base == "Gemma3" else ""
    config = getattr(transformers, base + suffix + "Config")(**{**shape, **more})
    torch.manual_seed(1)
    model = getattr(transformers, base + ("LMHeadModel" if base == "GPT2" else "ForCausalLM"))(config).to(torch.bfloat16)
    with torch.no_grad():
        for key, p in model.named_parameters():  # away from the initial 0, 1 and 0.02, so that each part shows
            norm = "norm" in key or ".ln_" in key
            p.copy_(torch.randn_like(p) * 0.1 if norm or "bias" in key else torch.randn_like(p) * 0.08)
            if norm and "bias" not in key and not base.startswith("Gemma"):
                p.add_(1)
    model.save_pretrained(folder)
    for f in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(MODEL, f), folder)
    adapt_for_converter(folder, base)


def edit_json(path, change):
    with open(path, encoding="utf-8") as f:
        data = json.load(f)
    change(data)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(data, f)


def adapt_for_converter(folder, base):
    """What it needs of a Phi-3 without SentencePiece files, and of a GPT-2 from a new transformers."""
    config, tokenizer = (os.path.join(folder, f) for f in ("config.json", "tokenizer_config.json"))
    if base == "Phi3":
        edit_json(tokenizer, lambda c: c.update(tokenizer_class="GPT2Tokenizer"))
    if base == "GPT2":
        edit_json(config, lambda c: c.update(n_ctx=c["n_positions"]))


def unpacked(tmp, folder, path):
    """nibble's folder from a GGUF file has the bytes of the folder that it was made from."""
    from safetensors import safe_open
    back = os.path.join(tmp, "back")
    run([NIBBLE, "convert", path, "-o", back, "--type", "bf16", "--overwrite", "--quiet"])
    with safe_open(os.path.join(folder, "model.safetensors"), "pt") as a, \
         safe_open(os.path.join(back, "model.safetensors"), "pt") as b:
        if set(a.keys()) != set(b.keys()):
            raise Failure(f"tensors in one folder only: {sorted(set(a.keys()) ^ set(b.keys()))[:5]}")
        for name in a.keys():
            x, y = a.get_tensor(name), b.get_tensor(name)
            if x.dtype != y.dtype or x.shape != y.shape or not x.equal(y):
                raise Failure(f"{name}: other values after GGUF and back")
    same_logits(folder, back)
    return "back bit for bit"


def same_logits(folder, back):
    import torch
    import transformers
    ids = torch.arange(300)[None] * 7 % 8192
    logits = []
    for f in (folder, back):
        model = transformers.AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32).eval()
        with torch.no_grad():
            logits.append(model(input_ids=ids, use_cache=False).logits)
    apart = ((logits[0] - logits[1]).abs().max() / logits[0].abs().max()).item()
    if not apart <= 1e-5:
        raise Failure(f"transformers computes other logits from the folder made of the GGUF file: {apart:.1e}")


def family(tmp, name, kind):
    folder = os.path.join(tmp, "tiny")  # a name with phi-3 in it makes llama.cpp look for that model's tokens
    tiny_model(folder, name)
    said = written(tmp, folder, "--type", kind)
    said += "; " + unpacked(tmp, folder, os.path.join(tmp, "ours.gguf"))
    if kind == "f32" and name.startswith("gemma"):
        return said  # the converter wants SentencePiece files for them
    return said + "; " + converted(tmp, folder, kind)


# ---- base logits ----

FIGURES = {  # in llama-perplexity's table: key of our JSON, its error, scale
    r"Mean PPL\(Q\)": ("ppl", 1), r"Mean PPL\(base\)": ("ppl_base", 1), r"Mean ln\(PPL\(Q\)/PPL\(base\)\)": ("ln_ratio", 1),
    r"Mean PPL\(Q\)/PPL\(base\)": ("ratio", 1), r"Mean PPL\(Q\)-PPL\(base\)": ("difference", 1), r"Mean +KLD": ("kld", 1),
    r"Mean +Δp": ("dp", 100), r"RMS Δp": ("dp_rms", 100), "Same top p": ("same_top", 100),
}


def compare_figures(table, ours):
    for pattern, (key, scale) in FIGURES.items():
        m = re.search(pattern + r" *: +(-?[0-9.]+) ± +([0-9.]+)", table)
        if not m:
            raise Failure(f"llama-perplexity printed no '{pattern}'")
        for i, name in enumerate((key, key + "_error")):
            theirs, mine = float(m[i + 1]), scale * ours[name]
            if abs(theirs - mine) > 2e-4 * abs(theirs) + 2 * 10.0 ** -len(m[i + 1].split(".")[1]):
                raise Failure(f"{name}: {mine:.6f}, llama-perplexity {theirs:.6f}")
    for level, value in ours["kld_quantiles"].items():
        p = 100 * float(level)
        head = {"1": "Maximum", "0": "Minimum", "0.5": "Median"}.get(level, f"{p:.1f}%")
        m = re.search(r"(?m)^ *" + re.escape(head) + r" +KLD: +(-?[0-9.]+)", table)
        if not m or abs(float(m[1]) - value) > 2e-3 * abs(value) + 1e-5:
            raise Failure(f"KLD at {level}: {value:.6f}, llama-perplexity {m and m[1]}")


def logits(tmp, model):
    """The model against a copy rounded to Q4_K_M: base file by one tool, comparison by both."""
    source, small, wide = converter(tmp, model, "f32"), os.path.join(tmp, "q.gguf"), os.path.join(tmp, "w.gguf")
    peer("llama-quantize", source, small, "Q4_K_M", "1")
    peer("llama-quantize", "--allow-requantize", small, wide, "F32", "1")
    text = ["-c", "256", "-t", "1", *EXACT]
    ours, theirs = os.path.join(tmp, "ours.logits"), os.path.join(tmp, "theirs.logits")
    nibble("eval", source, "--as", "llama.cpp", "--text", TEXT, "--window", "256", "--limit", "2", "--save-logits", ours)
    peer("llama-perplexity", "-m", source, "-f", TEXT, "--chunks", "2", *text, "--kl-divergence-base", theirs)
    if os.path.getsize(ours) != os.path.getsize(theirs):
        raise Failure(f"{os.path.getsize(ours)} bytes, llama-perplexity {os.path.getsize(theirs)}")
    with open(ours, "rb") as a, open(theirs, "rb") as b:
        head = 20 + 4 * 256 * 2
        if a.read(head) != b.read(head):
            raise Failure("header or tokens differ")
    for base in (ours, theirs):
        table = peer("llama-perplexity", "-m", wide, *text, "--kl-divergence", "--kl-divergence-base", base)
        result = nibble("eval", wide, "--as", "llama.cpp", "--against-logits", base)
        compare_figures(table, result["llama_perplexity"])
    return f"KLD {result['llama_perplexity']['kld']:.6f} by both, from either file"


def tokenize(tmp, path):
    del tmp
    out = run([NIBBLE, "tokenize", path, "--text", TEXT, "--bos", "--plain", "--quiet"])
    ours = json.loads(out.splitlines()[-1])
    theirs = json.loads(peer("llama-tokenize", "-m", path, "-f", TEXT, "--ids", "--no-parse-special", "--log-disable").splitlines()[-1])
    if ours != theirs:
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        raise Failure(f"{len(ours)} ids, llama-tokenize {len(theirs)}; first difference at {at}: {ours[at:at + 4]}, {theirs[at:at + 4]}")
    return f"{len(ours)} ids"


# ---- importance matrices ----

IMATRIX_LIMIT = 1e-4  # llama-imatrix adds squares in single precision, 2e-5 off after 10000 tokens


def read_dat(path):
    with open(path, "rb") as f:
        data = f.read()
    at, out = 4, {}
    for _ in range(struct.unpack_from("<i", data)[0]):
        n = struct.unpack_from("<i", data, at)[0]
        name = data[at + 4:at + 4 + n].decode()
        calls, count = struct.unpack_from("<ii", data, at + 4 + n)
        at += 12 + n
        out[name] = [v / calls for v in struct.unpack_from(f"<{count}f", data, at)]
        at += 4 * count
    return out, struct.unpack_from("<i", data, at)[0]


def far_apart(what, ours, theirs):
    worst = 0
    for name in theirs:
        for a, b in zip(ours[name], theirs[name]):
            apart = abs(a / b - 1) if b else float(a != b)
            worst = max(worst, apart)
            if not apart <= IMATRIX_LIMIT:
                raise Failure(f"{what}: {name}: {a:.7g}, llama-imatrix {b:.7g}")
    return worst


def imatrix(tmp, model, text=TEXT):
    """One file of each format by each tool; llama-quantize reads ours, nibble reads theirs."""
    source, worst, paths = converter(tmp, model, "f32"), 0, {}
    for kind in ("gguf", "dat"):
        ours, theirs = (os.path.join(tmp, f"matrix-{who}.{kind}") for who in ("ours", "theirs"))
        nibble("imatrix", model, "-o", ours, "--text", text, "--limit", "8")
        peer("llama-imatrix", "-m", source, "-f", text, "-c", "512", "--chunks", "8", "-t", "1", "--no-ppl", *EXACT,
             "--output-format", kind, "-o", theirs)
        paths[kind] = ours, theirs
    a, b = (tensors_of(p) for p in paths["gguf"])
    if list(a) != list(b):
        raise Failure(f"gguf: entries in one file only: {sorted(set(a) ^ set(b))[:5]}")
    for name in b:
        if list(a[name].shape) != list(b[name].shape):
            raise Failure(f"gguf: {name}: {list(a[name].shape)}, llama-imatrix {list(b[name].shape)}")
        if name.endswith(".counts") and a[name].data.tobytes() != b[name].data.tobytes():
            raise Failure(f"gguf: {name} differs")
    values = [{n: t.data.ravel().tolist() for n, t in f.items()} for f in (a, b)]
    worst = max(worst, far_apart("gguf", *values))
    (a, chunks), (b, expected) = (read_dat(p) for p in paths["dat"])
    if list(a) != list(b) or chunks != expected:
        raise Failure(f"dat: {len(a)} entries, {chunks} chunks, llama-imatrix {len(b)}, {expected}")
    worst = max(worst, far_apart("dat", a, b))
    shares = []
    for kind in ("gguf", "dat"):
        made = []
        for who in (0, 1):
            made.append(tensors_of(write(tmp, model, "--scheme", "IQ4_XS", "--method", "rtn", "--imatrix", paths[kind][who])))
            made[-1] = b"".join(t.data.tobytes() for t in made[-1].values())
        shares.append(sum(x != y for x, y in zip(*made)) / len(made[0]))
        peer("llama-quantize", "--imatrix", paths[kind][0], source, os.path.join(tmp, "q.gguf"), "IQ4_XS", "1")
    if max(shares) > 1e-3:
        raise Failure(f"{100 * max(shares):.3f} % of the bytes of IQ4_XS depend on whose matrix it is")
    return f"{len(b)} entries, columns within {worst:.1e}; {100 * max(shares):.4f} % of the bytes of IQ4_XS differ"


CASES = {f.__name__: f for f in (perplexity, written, converted, types, same, weighted, family, logits, tokenize, imatrix)}


def main():
    with tempfile.TemporaryDirectory() as tmp:
        try:
            print(CASES[sys.argv[1]](tmp, *sys.argv[2:]))
        except Failure as e:
            print(e)
            return 1
        except Skip as e:
            print(e)
            return 77
    return 0


if __name__ == "__main__":
    sys.exit(main())
