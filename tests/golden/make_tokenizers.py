#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Golden vectors for src/text: small tokenizers in the configurations of the model families, and what the
reference package `tokenizers` makes of a nasty corpus with them.

usage: make_tokenizers.py [OUT [SEED N_RANDOM]]     (default: tokenizers/ beside this file; seed 1, 40)

Made with tokenizers 0.23.3, Python 3.11. OUT holds
  corpus.json          the texts; {"repeat": [s, n]} stands for s * n
  NAME.json            a tokenizer.json
  NAME.expected.json   per text its ids, or {"n", "sha256"} of the ids as little-endian int32 when there are
                       many; "before"/"after": what the template adds; "plain": ids where special tokens are
                       read as text, when they differ; "decode"/"skip": decoded text, when it differs from
                       the text; "random": [ids, decoded, decoded without special tokens]
  variants.json        {"base": tokenizer, "variants": [{"name", "patch", "ids", "rest", "random"}]}: "ids" has four
                       hexadecimal digits per text, the begin of the sha256 of its ids; "rest" likewise of the ids
                       with special tokens as text, "|", the decoded text, "|", the same without special tokens
  books.json           the bundled texts with the tokenizer of models/books-11m: count and sha256 of ids
"""
import collections
import copy
import hashlib
import json
import os
import random
import struct
import sys

import tokenizers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MANY_IDS = 400

SPECIAL_TEXTS = [
    "<|endoftext|>", "Hello<|endoftext|>world", " <|endoftext|> ", "a<|im_start|>user\nhi<|im_end|>\n",
    "<|begin_of_text|>x<|eot_id|>", "<s>", "</s>", "text<s>text</s> text", "<unk>", "a <unk> b",
    "<|endoftext", "|endoftext|>", "<<|endoftext|>>", "<|endoftext|><|endoftext|>",
    "[LS] a [LS]b  [LS]  c", "a[RS]  b [RS]\n\nc", "a [BOTH] b\t[BOTH]\tc[BOTH]d", "word sword words word.word",
    "word", "_word word_ 1word word1 (word) éword wordé word\u0301 \u200dword", "[Norm] [norm] [NORM]",
    "x[NORM]y  [Norm]z", "\ufb01 FI fi", "<mask>", "a <mask> b", "a<mask>b", "   <mask>   ", "ab abc abcd abcde",
    "[LS]", "  [LS]", "[RS]  ", "  [BOTH]  [BOTH]  ", "[LS][RS][BOTH]", "[RS] [LS]", "  word  ", "é[LS]é",
    "<0x41>", "<0xE4><0xBD>", "\u2581", "a\u2581b", "\u2581\u2581 \u2581", " \u2581", "<start_of_turn>user",
    "<bos>x<eos>", "\n\n\n", "  \n  ", "[INST] hi [/INST]",
]

WORDS = [
    "", " ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", " \n", "\n ", "\t\t x", "x \t\t", "a  b   c    d",
    "   leading", "trailing   ", "\u00a0", "a\u00a0b", "\u3000全角\u3000空格", "a\u0085b", "\u0085", "\u200b",
    "a\u200bb", "\ufeffbom", "\u2028\u2029x", "\u180e a\u180eb", "\x0b\x0c", "\x1c\x1d", "\u202f\u205f\u1680",
    "\r\n\r\n  \r\n", "line1\r\nline2\r\n\r\nline3\n\rline4", "\x00", "a\x00b", "\x00\x00\x00", "\x01\x7f",
    "I'm you're he's she'd we'll they've don't", "I'M YOU'RE HE'S SHE'D WE'LL THEY'VE DON'T", "'s 't'", "''s",
    "\u2019s don\u2019t", "'\u017f '\u212a 'LL 'Ll", "O'Neil's o'clock rock'n'roll",
    "1", "12", "123", "1234", "1234567890", "3.14159", "1,234,567.89", "0x1F", "1e-10", "v1.2.3", "½ ¼ ² ³",
    "٠١٢٣٤", "१२३", "Ⅷ ⅷ ①", "一二三", "2024-01-31T12:34:56Z", "+1 (555) 123-4567", "10% $5 €6 £7",
    "The quick brown fox jumps over the lazy dog.", "HELLO World CamelCase snake_case kebab-case SCREAMING_SNAKE",
    "antidisestablishmentarianism", "Donaudampfschifffahrtsgesellschaft", "a" * 60, "ab" * 30, "x" * 17 + " " + "y" * 33,
    "naïve café résumé", "nai\u0308ve cafe\u0301 re\u0301sume\u0301", "\u1e9b\u0323", "A\u030a \u212b \u00c5",
    "\u0041\u0301\u0327\u0316", "\u0327\u0301", "q\u0307\u0323 q\u0323\u0307", "ﬁ ﬂ ﬃ Ⅳ ㎏ ½ ™", "ＡＢＣ１２３", "ﾊﾝｶｸ",
    "İstanbul ISTANBUL ıi ß ẞ ŉ ǆ Ǆ", "ΑΒΓ αβγ ς Σ", "Привет, мир! Ёжик", "Здравствуйте", "שלום עולם", "مرحبا بالعالم",
    "السَّلَامُ عَلَيْكُمْ", "\u202eRTL\u202c", "नमस्ते दुनिया", "สวัสดีชาวโลก", "བཀྲ་ཤིས", "வணக்கம்", "မင်္ဂလာပါ",
    "你好，世界！", "我们去吃饭吧。今天是2024年1月31日", "こんにちは世界", "カタカナとひらがな漢字", "안녕하세요 세계", "\u1112\u1161\u11ab\u1100\u1173\u11af",
    "한글 \u1112\u1161\u11ab", "繁體中文測試", "𠀀𠮷𪚥", "漢\u0301", "か\u3099 が", "は\u309a ぱ",
    "😀", "😀😃😄", "👨‍👩‍👧‍👦", "👍🏽 👩🏿‍🚀", "🇩🇪🇫🇷", "❤️ ❤", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "a😀b", " 😀 ", "\u200d", "e\u200d\u0301",
    "∑∏∫√∞ ≠ ≤", "→←↑↓", "┌─┐│└┘", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚", "\ue000\uf8ff", "\ufffd", "\ufffe\uffff", "\U0010ffff", "\u0378\u0379",
    "def f(x):\n    return x**2  # comment\n", "for (int i = 0; i < n; ++i) {\n\tprintf(\"%d\\n\", a[i]);\n}\n",
    "if(a&&b||!c){d+=e->f;}", "SELECT * FROM t WHERE a='b' AND c<>\"d\";", "<div class=\"x\">&amp;</div>",
    "https://example.com/a/b?c=d&e=f#g", "user.name+tag@example.co.uk", "C:\\Users\\x\\file.txt", "/usr/lib/x86_64",
    "{\"key\": [1, 2.5, null, true], \"s\": \"\\u00e9\"}", "# Title\n\n* item\n* item\n\n```c\nint x;\n```\n", "a\\nb",
    "...", "!!!", "?!?!", "--", "---", "====", "****", "a...b", "wait... what?!", "«quote» “quote” ‘q’ „q“", "(a)[b]{c}<d>",
    "~`@#$%^&*()_+-=[]{}|;':\",./<>?", "$$$ ^^^ ``` |||", "a+b=c", "a / b", "a/b/c\n/d", " /\n/", "hello!\n\nworld", "end.\n",
    "tab\tsep\tvalues", "    four\n        eight\n\ttab", "\n\n    indented\n\n\n", "x\n   \n y", "a \n b \n c", " \t \n \t ",
    "the the the the", " the  the   the", "tHe ThE", "The\nThe", "µ μ Å K", "Ångström", "Ǆ ǅ ǆ", "ⓐⓑ 🄰", "٪ ؟ ،", "。、！？「」",
    "word\u00adhyphen", "zero\u200cwidth", "a\u0300\u0301\u0302b", "\u0300", " \u0300", "x\u20dd", "Z̸̢̛a̷l̴g̵o̶",
]

LONG = [["a", 5000], [" ", 3000], ["\n", 2000], ["ab", 2500], [" x", 1500], ["é", 2000], ["你", 1500], ["!", 3000],
        ["1", 2000], ["\u2581", 1000], ["<|endoftext|>", 300], [" \n", 1500], ["😀", 700], ["\t ", 900], ["e\u0301", 900]]

RANDOM_RANGES = [(0x20, 0x7e), (0x20, 0x7e), (0x09, 0x0d), (0xa0, 0x17f), (0x300, 0x33f), (0x370, 0x3ff), (0x400, 0x45f),
                 (0x5d0, 0x5ea), (0x621, 0x652), (0x905, 0x939), (0xe01, 0xe3a), (0x1100, 0x1112), (0x1161, 0x1175),
                 (0x2000, 0x206f), (0x2190, 0x21ff), (0x3041, 0x3096), (0x4e00, 0x9fa5), (0xac00, 0xd7a3), (0xff01, 0xff5e),
                 (0x1f300, 0x1f5ff), (0x1f600, 0x1f64f), (0x20000, 0x20100)]


def random_text(rng):
    out = []
    for _ in range(rng.randint(1, 6)):
        lo, hi = rng.choice(RANDOM_RANGES)
        run = [chr(rng.randint(lo, hi)) for _ in range(rng.randint(1, 8))]
        out.append("".join(run))
        if rng.random() < 0.3:
            out.append(rng.choice([" ", "  ", "\n", " \n", "\t", "<|endoftext|>", "<s>", "'s", "1", "."]))
    return "".join(out)


def training_lines():
    with open(os.path.join(ROOT, "data/evaluation/the-time-machine.txt"), encoding="utf-8", newline="") as f:
        text = f.read()[:60000]
    return [text] + WORDS * 2 + ["Straße über schön größer", "où été être garçon", "你好 世界 我们 今天"] * 5


# ---- the families ------------------------------------------------------------------------------

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
          r"\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
         r"\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|"
          r"\s*[\r\n]|\s+(?!\S)|\s+")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
          r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK3 = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
             r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(regex, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: regex}, "behavior": behavior, "invert": invert}


def byte_level(prefix=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


def added(content, special=True, **flags):
    t = {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": not special,
         "special": special}
    t.update(flags)
    return t


def template(before, vocab, after=()):
    pieces = [{"SpecialToken": {"id": b, "type_id": 0}} for b in before]
    pieces.append({"Sequence": {"id": "A", "type_id": 0}})
    pieces += [{"SpecialToken": {"id": a, "type_id": 0}} for a in after]
    return {"type": "TemplateProcessing", "single": pieces,
            "pair": pieces + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [vocab[t]], "tokens": [t]} for t in (*before, *after)}}


def assemble(vocab, merges, added_tokens=(), normalizer=None, pre=None, post=None, decoder=None, **options):
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    model.update(options)
    model.update(vocab=vocab, merges=merges)
    tokens, n = [], len(vocab)
    for t in added_tokens:
        t = dict(t)
        t["id"] = vocab.get(t["content"], n)
        n += t["content"] not in vocab
        tokens.append(t)
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": normalizer,
            "pre_tokenizer": pre, "post_processor": post, "decoder": decoder, "model": model}


def train_byte_level(pre, size, normalizer=None):
    base = assemble({}, [], normalizer=normalizer, pre=pre)
    t = Tokenizer.from_str(json.dumps(base))
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator(training_lines(), trainer)
    model = json.loads(t.to_str())["model"]
    return model["vocab"], [list(m) for m in model["merges"]]


def train_pieces(size, alphabet, with_spaces=False):
    """Merges over characters with U+2581 for a space, ids as SentencePiece lays them out: control, bytes, merged,
    characters. with_spaces: merges may cross word ends. No token holds a NUL: our JSON reader refuses one in a key."""
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.Replace(" ", "\u2581")
    t.pre_tokenizer = None if with_spaces else pre_tokenizers.Split("\u2581", "merged_with_next")
    lines = [piece for line in training_lines() for piece in line.replace("\0", "").split("\n")]
    # The trainer's own limit_alphabet breaks ties at random.
    counts = collections.Counter("".join(lines).replace(" ", "\u2581"))
    kept = set(sorted(counts, key=lambda c: (-counts[c], c))[:alphabet]) | {" "}
    lines = ["".join(c for c in line if c in kept) for line in lines]
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    model = json.loads(t.to_str())["model"]
    merged = ["".join(m) for m in model["merges"]]
    chars = [c for c in model["vocab"] if c not in set(merged)]
    names = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)] + list(dict.fromkeys(merged)) + chars
    vocab = {name: i for i, name in enumerate(names)}
    merges = []
    for token in dict.fromkeys(merged):  # every way to make a token, as the converters write it
        ways = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in vocab and token[i:] in vocab]
        merges += sorted(ways, key=lambda w: (vocab[w[0]], vocab[w[1]]))
    return vocab, merges


def strings(merges):
    return [" ".join(m) for m in merges]


BYTE_DECODER = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
REPLACE_SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
REPLACE_BACK = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
SP_DECODER = sequence("decoders", REPLACE_BACK, {"type": "ByteFallback"}, {"type": "Fuse"},
                      {"type": "Strip", "content": " ", "start": 1, "stop": 0})


def families():
    out = {}
    vocab, merges = train_byte_level(byte_level(), 900)
    out["gpt2"] = assemble(vocab, strings(merges), [added("<|endoftext|>")], pre=byte_level(),
                           post={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
                           decoder=BYTE_DECODER, continuing_subword_prefix="", end_of_word_suffix="")

    pre = sequence("pretokenizers", split(LLAMA3), byte_level(regex=False))
    vocab, merges = train_byte_level(pre, 900)
    n = len(vocab)
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    ids = {name: n + i for i, name in enumerate(names)}
    # Words that merges cannot make: ignore_merges finds them whole.
    vocab = dict(vocab)
    out["llama3"] = assemble(vocab, strings([m for m in merges if "".join(m) != "\u0120the"]), [added(x) for x in names],
                             pre=pre, post=sequence("processors", byte_level(True), template(names[:1], ids)),
                             decoder=BYTE_DECODER, ignore_merges=True)

    pre = sequence("pretokenizers", split(QWEN2), byte_level(regex=False))
    vocab, merges = train_byte_level(pre, 900, {"type": "NFC"})
    out["qwen2"] = assemble(vocab, merges, [added(x) for x in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] +
                            [added("<tool_call>", special=False, normalized=False)],
                            normalizer={"type": "NFC"}, pre=pre, decoder=BYTE_DECODER, post=byte_level())

    pre = sequence("pretokenizers", split(CL100K), byte_level(regex=False))
    vocab, merges = train_byte_level(pre, 700)
    out["cl100k"] = assemble(vocab, merges, [added("<|endoftext|>")], pre=pre, decoder=BYTE_DECODER)

    pre = sequence("pretokenizers", split(TEKKEN), byte_level(regex=False))
    vocab, merges = train_byte_level(pre, 700)
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    ids = {name: len(vocab) + i for i, name in enumerate(names)}
    out["tekken"] = assemble(vocab, merges, [added(x) for x in names], pre=pre, decoder=BYTE_DECODER,
                             post=template(["<s>"], ids), ignore_merges=True)

    pre = sequence("pretokenizers", split("[\r\n]"), split("\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba]+"),
                   split("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"), split("\\s+$"),
                   split("[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"), {"type": "Digits", "individual_digits": True},
                   byte_level(regex=False))
    vocab, merges = train_byte_level(pre, 700)
    out["deepseek"] = assemble(vocab, merges, [added("<|endoftext|>", normalized=True), added("<s>")], pre=pre,
                               decoder=BYTE_DECODER, normalizer=sequence("normalizers"))
    pre = sequence("pretokenizers", split(r"\p{N}{1,3}"), split("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), split(DEEPSEEK3),
                   byte_level(regex=False))
    vocab, merges = train_byte_level(pre, 700)
    out["deepseek3"] = assemble(vocab, merges, [added("<|endoftext|>")], pre=pre, decoder=BYTE_DECODER)

    vocab, merges = train_pieces(700, 90)
    control = [added(x) for x in ("<unk>", "<s>", "</s>")]
    sp = dict(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    out["llama2"] = assemble(vocab, strings(merges), control, decoder=SP_DECODER, post=template(["<s>"], vocab),
                             normalizer=sequence("normalizers", {"type": "Prepend", "prepend": "\u2581"}, REPLACE_SPACE), **sp)
    out["mistral3"] = assemble(vocab, merges, control + [added("[INST]"), added("[/INST]")], decoder=SP_DECODER,
                               pre={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False},
                               post=template(["<s>"], vocab, ["</s>"]), **sp)
    vocab, merges = train_pieces(700, 90, with_spaces=True)
    vocab = dict(vocab)
    vocab["<bos>"] = len(vocab)
    vocab["\n\n"] = len(vocab)
    vocab["\n\n\n"] = len(vocab)
    out["gemma"] = assemble(vocab, merges, control + [added("<bos>"), added("<start_of_turn>"),
                            added("\n\n", special=False, normalized=False), added("\n\n\n", special=False, normalized=False),
                            added("\u2581\u2581", special=False, normalized=False)],
                            normalizer=REPLACE_SPACE, pre=split(" ", "MergedWithPrevious", kind="String"),
                            post=template(["<bos>"], vocab),
                            decoder=sequence("decoders", REPLACE_BACK, {"type": "ByteFallback"}, {"type": "Fuse"}), **sp)
    return out


FLAGGED = [added("<|endoftext|>"), added("[LS]", lstrip=True), added("[RS]", special=False, rstrip=True, normalized=False),
           added("[BOTH]", lstrip=True, rstrip=True), added("word", special=False, single_word=True),
           added("[NORM]", special=False, normalized=True), added("fi", special=False, normalized=True),
           added("<mask>", lstrip=True, normalized=True), added("ab", special=False, normalized=False),
           added("abcd", special=False, normalized=False), added("é", special=False, normalized=True),
           added("the the", special=False, single_word=True, rstrip=True)]


def variants():
    """One base whose merges know no word ends, so that each cut shows in the ids; parts are put onto it."""
    vocab, merges = train_pieces(650, 110, with_spaces=True)
    base = assemble(vocab, merges, [added(x) for x in ("<unk>", "<s>")], unk_token="<unk>")
    m = "\u2581"
    meta = {"type": "Metaspace", "replacement": m}
    cases = []

    def case(name, **patch):
        cases.append((name, patch))

    case("nothing")
    for z in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"):
        case(z, normalizer={"type": z})
    for left, right in ((True, False), (False, True), (True, True)):
        case("Strip-%d%d" % (left, right), normalizer={"type": "Strip", "strip_left": left, "strip_right": right})
    case("Prepend", normalizer={"type": "Prepend", "prepend": "ab"})
    case("Replace-regex", normalizer={"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "})
    case("Replace-empty-match", normalizer={"type": "Replace", "pattern": {"Regex": "x*"}, "content": "-"})
    case("Replace-delete", normalizer={"type": "Replace", "pattern": {"Regex": "[aeiou]"}, "content": ""})
    case("Sequence", normalizer=sequence("normalizers", {"type": "NFKC"}, {"type": "Lowercase"}, sequence(
        "normalizers", {"type": "Strip", "strip_left": True, "strip_right": True}, REPLACE_SPACE)))
    for scheme in ("always", "first", "never"):
        for cut in (True, False):
            case("Metaspace-%s-%d" % (scheme, cut), pre_tokenizer=dict(meta, prepend_scheme=scheme, split=cut),
                 decoder=dict(meta, prepend_scheme=scheme, split=cut))
    case("Metaspace-in-Sequence", pre_tokenizer=sequence("pretokenizers", {"type": "WhitespaceSplit"},
                                                         dict(meta, prepend_scheme="always", split=True)))
    case("Metaspace-first-after-Split", pre_tokenizer=sequence("pretokenizers", split("\n", kind="String"),
                                                               dict(meta, prepend_scheme="first", split=True)))
    for b in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            case("Split-%s-%d" % (b, invert), pre_tokenizer=split("e", b, invert, "String"))
            case("Split-regex-%s-%d" % (b, invert), pre_tokenizer=split(r"\s|[a-d]+", b, invert))
            case("Split-empty-match-%s-%d" % (b, invert), pre_tokenizer=split(r" *", b, invert))
        case("Punctuation-" + b, pre_tokenizer={"type": "Punctuation", "behavior": b})
    case("Whitespace", pre_tokenizer={"type": "Whitespace"})
    case("WhitespaceSplit", pre_tokenizer={"type": "WhitespaceSplit"})
    case("Digits", pre_tokenizer={"type": "Digits", "individual_digits": False})
    case("Digits-individual", pre_tokenizer={"type": "Digits", "individual_digits": True})
    for name, regex in {
            "s": r"\s", "S": r"\S+", "w": r"\w+", "W": r"\W+", "d": r"\d+", "b": r"\b", "B": r"x\B", "h": r"\h+", "p-alpha": r"\p{Alpha}+",
            "p-alnum": r"\p{Alnum}+", "p-space": r"\p{Space}", "p-word": r"\p{Word}+", "p-upper": r"\p{Upper}", "p-not": r"\p{^L}+",
            "han": r"\p{Han}+", "hiragana": r"\p{Hiragana}", "posix": "[[:alpha:]]+", "posix-not": "[[:^digit:][:space:]]",
            "class-S": r"[^\S\n]+", "class-w": r"[\w-]+", "class-word": "[[:word:]]+", "class-range": r"[a-fx-z-]+", "class-bracket": r"[]\[^-]+", "lines": r"^.|.$", "dot": r".+", "dot-all": r"(?m:.+)",
            "caseless": r"(?i)the|ÉT|s", "caseless-k": r"(?i:k)", "interval": r"a{,3}b", "brace": r"{|}|a{", "ahead": r"\s+(?=\S)",
            "behind": r"(?<=[a-z])[A-Z]|(?<!\d)1", "atomic": r"(?>a+)b?", "possessive": r"\p{L}++|\s?+", "lazy": r"a+?|e??t", "u": r"\u00e9|\x65",
            "cats": r"\p{Lu}\p{Ll}+|\p{Pd}|\p{Sc}|\p{Letter_Number}|\p{No}", "anchors": r"\A.|.\z|.\Z", "emoji": r"\p{Emoji}+",
            "v": r"[\v\f\t]|\v", "zs": r"\p{Zs}|\p{Cc}", "group": r"(a|b)+(c)?"}.items():
        case("regex-" + name, pre_tokenizer=split(regex, "Isolated"))
    case("prefix-space", pre_tokenizer=byte_level(True, True), decoder=BYTE_DECODER)
    case("prefix-space-no-regex", pre_tokenizer=byte_level(True, False), decoder=BYTE_DECODER)
    case("ByteLevel-normalizer", normalizer={"type": "ByteLevel"}, decoder=BYTE_DECODER)
    fallback = {"model": {"byte_fallback": True, "unk_token": "<unk>"}}
    case("byte-fallback", **fallback)
    case("byte-fallback-no-unk", model={"byte_fallback": True, "unk_token": None})
    case("no-unk", model={"unk_token": None})
    case("fuse-unk", model={"fuse_unk": True})
    case("fuse-unk-some-bytes", model={"fuse_unk": True, "byte_fallback": True}, drop=["<0xC3>", "<0xE4>", "<0xF0>", "<0x0A>"])
    case("ignore-merges", model={"ignore_merges": True}, pre_tokenizer=split(" ", "MergedWithNext", kind="String"))
    case("decoder-fallback", decoder=sequence("decoders", {"type": "ByteFallback"}, {"type": "Fuse"}), **fallback)
    case("decoder-fallback-alone", decoder={"type": "ByteFallback"}, **fallback)
    case("decoder-strip", decoder=sequence("decoders", {"type": "Fuse"}, {"type": "Strip", "content": "e", "start": 2, "stop": 0}))
    case("decoder-strip-fused-end", decoder=sequence("decoders", {"type": "Fuse"}, {"type": "Replace", "pattern": {"Regex": "(e|\\s)+$"},
                                                                           "content": ""}))
    case("decoder-strip-each", decoder={"type": "Strip", "content": "e", "start": 1, "stop": 0})
    case("decoder-replace-regex", decoder={"type": "Replace", "pattern": {"Regex": "[a-e]+"}, "content": "<>"})
    case("decoder-replace-fused", decoder=sequence("decoders", {"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "th"},
                                                                         "content": "TH"}))
    case("decoder-fuse", decoder={"type": "Fuse"})
    case("decoder-nested", decoder=sequence("decoders", sequence("decoders", REPLACE_BACK), sequence("decoders", {"type": "Fuse"})))
    for name, z in {"none": None, "nfkc-lower": sequence("normalizers", {"type": "NFKC"}, {"type": "Lowercase"}),
                    "prepend": {"type": "Prepend", "prepend": m}, "nfd": {"type": "NFD"}}.items():
        case("added-" + name, normalizer=z, added_tokens=FLAGGED)
        case("added-first-" + name, normalizer=z, added_tokens=FLAGGED, pre_tokenizer=dict(meta, prepend_scheme="first", split=True))
    return base, cases


# ---- what the reference says ----------------------------------------------------------------------


def many(ids):
    if len(ids) <= MANY_IDS:
        return ids
    return {"n": len(ids), "sha256": hashlib.sha256(pack(ids)).hexdigest()}


def apply_patch(base, patch):
    t = copy.deepcopy(base)
    for key, value in patch.items():
        if key == "model":
            t["model"].update(value)
        elif key == "drop":
            for name in value:
                del t["model"]["vocab"][name]
        elif key == "added_tokens":
            tokens, n = [], len(t["model"]["vocab"])
            for a in value:
                a = dict(a, id=t["model"]["vocab"].get(a["content"], n))
                n += a["content"] not in t["model"]["vocab"]
                tokens.append(a)
            t["added_tokens"] = tokens
        else:
            t[key] = value
    return t


def random_ids(t, rng, n):
    """Ids drawn at random, mostly from the low ones, where the byte tokens are."""
    known = [i for i in range(t.get_vocab_size(with_added_tokens=True)) if t.id_to_token(i) is not None]
    out = []
    for _ in range(n):
        ids = [rng.choice(known[:300] if rng.random() < 0.7 else known) for _ in range(rng.randint(1, 14))]
        out.append([ids, t.decode(ids, skip_special_tokens=False), t.decode(ids, skip_special_tokens=True)])
    return out


def expect(spec, texts, rng, n_random):
    t = Tokenizer.from_str(json.dumps(spec))
    plain = Tokenizer.from_str(json.dumps(spec))
    plain.encode_special_tokens = True
    empty = t.encode("", add_special_tokens=True).ids
    out = {"before": [], "after": [], "ids": [], "plain": {}, "decode": {}, "skip": {}, "random": []}
    probe, probe_special = t.encode("ab", add_special_tokens=False).ids, t.encode("ab", add_special_tokens=True).ids
    for i in range(len(probe_special) - len(probe) + 1):
        if probe_special[i:i + len(probe)] == probe:
            out["before"], out["after"] = probe_special[:i], probe_special[i + len(probe):]
            break
    assert empty == out["before"] + out["after"]
    for i, text in enumerate(texts):
        ids = t.encode(text, add_special_tokens=False).ids
        assert t.encode(text, add_special_tokens=True).ids == out["before"] + ids + out["after"]
        out["ids"].append(many(ids))
        p = plain.encode(text, add_special_tokens=False).ids
        if p != ids:
            out["plain"][str(i)] = many(p)
        for key, skip in (("decode", False), ("skip", True)):
            d = t.decode(ids, skip_special_tokens=skip)
            if d != text:
                out[key][str(i)] = d if len(d) < 2000 else {"sha256": hashlib.sha256(d.encode()).hexdigest()}
    out["random"] = random_ids(t, rng, n_random)
    return out


def digest(*parts):
    return hashlib.sha256(b"|".join(parts)).hexdigest()[:4]


def pack(ids):
    return struct.pack("<%di" % len(ids), *ids)


def expect_digests(spec, texts, rng, n_random):
    t = Tokenizer.from_str(json.dumps(spec))
    plain = Tokenizer.from_str(json.dumps(spec))
    plain.encode_special_tokens = True
    out = {"ids": "", "rest": ""}
    for text in texts:
        ids = t.encode(text, add_special_tokens=False).ids
        out["ids"] += digest(pack(ids))
        out["rest"] += digest(pack(plain.encode(text, add_special_tokens=False).ids),
                              t.decode(ids, skip_special_tokens=False).encode(), t.decode(ids).encode())
    out["random"] = random_ids(t, rng, n_random)
    return out


def write(path, value):
    with open(path, "w", encoding="ascii") as f:
        json.dump(value, f, separators=(",", ":"))
        f.write("\n")
    print("%8d %s" % (os.path.getsize(path), os.path.basename(path)))


def books(out):
    t = Tokenizer.from_file(os.path.join(ROOT, "models/books-11m/tokenizer.json"))
    result = {}
    for name in ("evaluation/dubliners.txt", "evaluation/the-time-machine.txt", "calibration/treasure-island.txt"):
        with open(os.path.join(ROOT, "data", name), encoding="utf-8", newline="") as f:
            ids = t.encode(f.read(), add_special_tokens=False).ids
        result[name] = {"n": len(ids), "sha256": hashlib.sha256(pack(ids)).hexdigest()}
    write(os.path.join(out, "books.json"), result)


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "tokenizers")
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    n_random = int(sys.argv[3]) if len(sys.argv) > 3 else 40
    os.makedirs(out, exist_ok=True)
    rng = random.Random(seed)
    corpus = WORDS + SPECIAL_TEXTS + [random_text(rng) for _ in range(n_random)]
    texts = corpus + [s * n for s, n in LONG]
    write(os.path.join(out, "corpus.json"), corpus + [{"repeat": r} for r in LONG])
    for name, spec in families().items():
        write(os.path.join(out, name + ".json"), spec)
        write(os.path.join(out, name + ".expected.json"), expect(spec, texts, rng, 40))
    base, cases = variants()
    done = []
    for name, patch in cases:
        n_random = 12 if "decoder" in patch else 0
        done.append({"name": name, "patch": patch, **expect_digests(apply_patch(base, patch), corpus, rng, n_random)})
    write(os.path.join(out, "variants.json"), {"base": base, "variants": done})
    books(out)
    print("tokenizers", tokenizers.__version__)


if __name__ == "__main__":
    main()
