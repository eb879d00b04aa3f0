/* SPDX-License-Identifier: Apache-2.0
 *
 * bitpack.h - codes as a little-endian stream of b-bit fields in 32-bit words.
 *
 * Field i takes bits i*b .. i*b+b-1 of a bit string whose bit p is bit p%32 of word p/32. For b = 3, 5, 6, 7
 * fields cross words; 32 fields fill exactly b words. Word t of the stream stands at words + t*stride, so
 * that a stream may run down a column. Source: checkpoint formats, section 0. */
#ifndef NB_CHECKPOINT_BITPACK_H
#define NB_CHECKPOINT_BITPACK_H

#include <stddef.h>
#include <stdint.h>

/* Words that n fields take; the last one is padded with zeros at the top. */
static inline size_t nb_bits_words(size_t n, int bits)
{
    return (n * (size_t)bits + 31) / 32;
}

/* words: as in a file, any alignment; stride in words. bits 1..8. codes[0..n) receives one code each. */
void nb_bits_unpack(uint8_t *codes, const void *words, size_t stride, int bits, size_t n);

/* codes must be below 2^bits. Writes nb_bits_words(n, bits) words. */
void nb_bits_pack(uint32_t *words, size_t stride, const uint8_t *codes, int bits, size_t n);

#endif
