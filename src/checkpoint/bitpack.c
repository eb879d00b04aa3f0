/* SPDX-License-Identifier: Apache-2.0
 *
 * bitpack.c - see bitpack.h. Works in blocks of 32 fields, which are `bits` whole words. */
#include "checkpoint/bitpack.h"

#include <assert.h>
#include <string.h>

enum { BLOCK = 32 };

static uint32_t load(const void *words, size_t i)
{
    uint32_t w;
    memcpy(&w, (const unsigned char *)words + 4 * i, 4);
    return w;
}

void nb_bits_unpack(uint8_t *codes, const void *words, size_t stride, int bits, size_t n)
{
    assert(bits >= 1 && bits <= 8);
    const uint32_t mask = (1u << bits) - 1;
    for (size_t i = 0, at = 0; i < n; i += BLOCK) {
        size_t fields = n - i < BLOCK ? n - i : BLOCK;
        size_t n_words = nb_bits_words(fields, bits);
        uint64_t window = 0;
        int have = 0;
        size_t next = 0;
        for (size_t k = 0; k < fields; k++) {
            if (have < bits) {
                window |= (uint64_t)load(words, (at + next++) * stride) << have;
                have += 32;
            }
            codes[i + k] = (uint8_t)(window & mask);
            window >>= bits;
            have -= bits;
        }
        at += n_words;
    }
}

void nb_bits_pack(uint32_t *words, size_t stride, const uint8_t *codes, int bits, size_t n)
{
    assert(bits >= 1 && bits <= 8);
    uint64_t window = 0;
    int have = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        assert(codes[i] < 1u << bits);
        window |= (uint64_t)codes[i] << have;
        have += bits;
        if (have >= 32) {
            words[at++ * stride] = (uint32_t)window;
            window >>= 32;
            have -= 32;
        }
    }
    if (have) words[at * stride] = (uint32_t)window;
}
