#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""make_safetensors.py - file images and what the reference implementation says to them.

Writes safetensors/cases.txt beside this file: one line per image, "ok N" (N tensors), "refused", or "stricter"
(the reference takes it, we refuse on purpose), a tab, the image in hex. Made with safetensors 0.8.0; needs only
that package. Images: hand-written ones for each rule, then seeded random changes of a good file."""

import os
import random
import struct

from safetensors import deserialize

HERE = os.path.dirname(os.path.abspath(__file__))
GOOD = ('{"__metadata__":{"format":"pt"},"b":{"dtype":"I32","shape":[1,2],"data_offsets":[0,8]},'
        '"a":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]}}')


def image(header, data=b""):
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header)) + header + data


def entry(shape="[4]", offsets="[0,4]", dtype='"U8"', more=""):
    return '{"a":{"dtype":%s,"shape":%s,"data_offsets":%s%s}}' % (dtype, shape, offsets, more)


def hand_written():
    four = b"\1\2\3\4"
    yield image(GOOD, bytes(12))
    yield image(GOOD + "   ", bytes(12))
    yield image(" \n\t" + GOOD, bytes(12))
    yield image(GOOD, bytes(11))
    yield image(GOOD, bytes(13))
    yield b""
    yield bytes(7)
    yield image("")
    yield image("{}")
    yield image("{}", four)
    yield image("[]")
    yield image("{} {}")
    yield image("{}\0")
    yield image("null")
    yield struct.pack("<Q", 2**63) + b"{}"
    yield struct.pack("<Q", 100_000_001) + b"{}"
    yield struct.pack("<Q", 3) + b"{}"
    for header in (entry(), entry(shape="[]", offsets="[0,1]"), entry(shape="[2,2]"), entry(shape="[2,0,3]", offsets="[0,0]"),
                   entry(shape="[1e0]"), entry(shape="[4.0]"), entry(shape="[-4]"), entry(shape="[-0]", offsets="[0,0]"),
                   entry(shape='["4"]'), entry(shape="4"), entry(shape="null"), entry(offsets="[0,5]"), entry(offsets="[4,0]"),
                   entry(offsets="[1,4]"), entry(offsets="[0]"), entry(offsets="[0,4,4]"), entry(offsets="[-0,4]"),
                   entry(dtype="7"), entry(dtype='"u8"'), entry(dtype='"I33"'), entry(dtype="null"),
                   entry(shape="[18446744073709551615,2]"), entry(shape="[4294967296,4294967296]"),
                   entry(shape="[18446744073709551616]"), entry(shape="[9223372036854775808,0]", offsets="[0,0]"),
                   '{"a":{}}', '{"a":null}', '{"a":[]}', '{"a":{"dtype":"U8","shape":[4]}}',
                   '{"a":{"dtype":"U8","data_offsets":[0,4]}}', '{"a":{"shape":[4],"data_offsets":[0,4]}}',
                   '{"__metadata__":{"x":1}}', '{"__metadata__":{}}', '{"__metadata__":null}', '{"__metadata__":[]}',
                   '{"__metadata__":{"x":null}}', '{"__metadata__":{"x":{}}}'):
        used = 0 if '"a"' not in header or "0,0]" in header else 1 if "[0,1]" in header else 4
        yield image(header, four[:used])
    for dtype, bits in (("BOOL", 8), ("F4", 4), ("F6_E2M3", 6), ("F6_E3M2", 6), ("U8", 8), ("I8", 8), ("F8_E5M2", 8),
                        ("F8_E4M3", 8), ("F8_E8M0", 8), ("F8_E4M3FNUZ", 8), ("F8_E5M2FNUZ", 8), ("I16", 16), ("U16", 16),
                        ("F16", 16), ("BF16", 16), ("I32", 32), ("U32", 32), ("F32", 32), ("C64", 64), ("F64", 64),
                        ("I64", 64), ("U64", 64)):
        for n in (3, 4):
            size = n * bits // 8
            yield image(entry(shape="[%d]" % n, offsets="[0,%d]" % size, dtype='"%s"' % dtype), bytes(size))
    # names
    yield image('{"":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', four)
    yield image('{"\\u00e9\\ud83d\\ude00":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', four)
    yield image('{"\\ud83d":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', four)
    yield image(b'{"\xff":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', four)
    yield image(b'{"\xc0\x80":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', four)
    # order, holes, overlaps, empty tensors
    two = '{"a":{"dtype":"U8","shape":[%d],"data_offsets":%s},"b":{"dtype":"U8","shape":[%d],"data_offsets":%s}}'
    for a, x, b, y in ((2, "[0,2]", 2, "[2,4]"), (2, "[2,4]", 2, "[0,2]"), (2, "[0,2]", 2, "[1,3]"), (2, "[0,2]", 2, "[0,2]"),
                       (1, "[0,1]", 2, "[2,4]"), (4, "[0,4]", 0, "[4,4]"), (4, "[0,4]", 0, "[0,0]"), (4, "[0,4]", 0, "[2,2]"),
                       (2, "[0,2]", 2, "[4,6]")):
        yield image(two % (a, x, b, y), four)
    # stricter on purpose
    yield image('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', four)
    yield image(entry(more=',"more":1'), four)
    yield image(entry(shape="[1,1,1,1,1,1,1,1,4]"), four)
    yield image(entry(shape="[1,1,1,1,1,1,1,4]"), four)
    yield image('{"\\u0000":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', four)


def random_changes():
    rng = random.Random(1)
    good = image(GOOD, bytes(range(12)))
    tokens = [b"0", b"1", b"8", b"12", b"-1", b'"', b",", b"[", b"]", b"{", b"}", b":", b"\\", b" ", b"1e0", b"U8", b"a", b"b"]
    for _ in range(160):
        x = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(8, len(x))
            what = rng.randrange(4)
            if what == 0:
                x[at] = rng.randrange(256)
            elif what == 1:
                del x[at:at + rng.randint(1, 3)]
            else:
                t = rng.choice(tokens)
                x[at:at + (len(t) if what == 2 else 0)] = t
        if rng.randrange(3):  # most of the time the length of the header stays right
            x[:8] = struct.pack("<Q", max(0, len(x) - 8 - 12))
        yield bytes(x)


STRICTER = ("more", "1,1,1,1,1,1,1,1,4", "[9223372036854775808,0]", "\\u0000")


def verdict(x):
    try:
        n = len(deserialize(x))
    except Exception:
        return "refused"
    keys = x.count(b'"dtype"') - n
    if keys or any(s.encode() in x for s in STRICTER):
        return "stricter"
    return "ok %d" % n


def main():
    os.makedirs(os.path.join(HERE, "safetensors"), exist_ok=True)
    with open(os.path.join(HERE, "safetensors", "cases.txt"), "w") as f:
        seen = set()
        for x in list(hand_written()) + list(random_changes()):
            if x not in seen:
                f.write("%s\t%s\n" % (verdict(x), x.hex()))
            seen.add(x)


main()
