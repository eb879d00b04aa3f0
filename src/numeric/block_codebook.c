/* SPDX-License-Identifier: Apache-2.0
 *
 * block_codebook.c - decode the codebook types (256 elements per block).
 *
 *   IQ2_XXS d f16, per 32: u8 index[4], u32 = 4 x 7 bits of signs | scale in the top 4
 *   IQ2_XS  d f16, u16[32] = 9 bits of index | 7 of signs, scales[8]: 4 bits per 16
 *   IQ2_S   d f16, index[32], signs[32], high[8]: 2 bits of index each, scales[8]: 4 bits per 16
 *   IQ3_XXS d f16, index[64] of 4 values, u32 per 32 as in IQ2_XXS
 *   IQ3_S   d f16, index[64], high[8]: 1 bit of index each, signs[32], scales[4]: 4 bits per 32
 *   IQ1_S   d f16, index[32], u16 per 32 = 4 x 3 bits of index | 3 of scale | sign of the shift
 *   IQ1_M   index[32], high[16]: 3 bits of index | sign of the shift, per 8; u16[4] = 4 x 3 bits of scale,
 *           per 16, | 4 bits of d
 *
 * Seven stored signs stand for eight: their product is positive. Values of a vector lie on a small
 * grid, kept as 2 or 3 bits (block_codebook_tables.c) and computed from them.
 * Source: GGUF specification, section 4; the package gguf defines the values. */
#include "numeric/block_codebook.h"

#include "base/half.h"
#include "numeric/block_layout.h"

static inline float half_at(const unsigned char *b)
{
    return nb_f16_to_f32(nb_block_get_half(b));
}

static inline unsigned u16_at(const unsigned char *b)
{
    return (unsigned)b[0] | (unsigned)b[1] << 8;
}

static inline uint32_t u32_at(const unsigned char *b)
{
    return (uint32_t)u16_at(b) | (uint32_t)u16_at(b + 2) << 16;
}

/* All eight signs of seven. */
static inline unsigned eight_signs(uint32_t seven)
{
    unsigned s = seven & 127u, parity = s ^ s >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    return s | (parity & 1u) << 7;
}

static inline float signed_value(float v, unsigned signs, int i)
{
    return nb_f32_from_bits(nb_f32_bits(v) ^ (uint32_t)(signs >> i & 1u) << 31);
}

/* Eight values of a 2-bit vector: 8, 25, 43. */
static inline void iq2_vector(unsigned vector, unsigned signs, float d, float *out)
{
    for (int i = 0; i < 8; i++) {
        int v = (int)(vector >> 2 * i & 3u);
        out[i] = signed_value(d * (float)(8 + 17 * v + (v >> 1)), signs, i);
    }
}

/* Four values of a 3-bit vector: 4, 12, 20 ... 52, 62. */
static inline void iq3_vector(unsigned vector, unsigned signs, float d, float *out)
{
    for (int i = 0; i < 4; i++) {
        int v = (int)(vector >> 3 * i & 7u);
        out[i] = signed_value(d * (float)(4 + 8 * v + (v == 7) * 2), signs, i);
    }
}

static inline void iq3_s_vector(unsigned vector, unsigned signs, float d, float *out)
{
    for (int i = 0; i < 4; i++) {
        int v = (int)(vector >> 3 * i & 7u);
        out[i] = signed_value(d * (float)(1 + 2 * v), signs, i);
    }
}

static inline void iq1_vector(unsigned vector, float shift, float d, float *out)
{
    for (int i = 0; i < 8; i++) out[i] = d * ((float)((int)(vector >> 2 * i & 3u) - 1) + shift);
}

void nb_block_decode_iq2_xxs(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 66) {
        const float d = half_at(b);
        for (int j = 0; j < 8; j++) {
            const unsigned char *index = b + 2 + 8 * j;
            const uint32_t rest = u32_at(index + 4);
            const float t = d * (0.5f + (float)(rest >> 28)) * 0.25f;
            for (int v = 0; v < 4; v++) {
                iq2_vector(nb_block_iq2_xxs_grid[index[v]], eight_signs(rest >> 7 * v), t,
                           out + i + 32 * j + 8 * v);
            }
        }
    }
}

void nb_block_decode_iq2_xs(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 74) {
        const float d = half_at(b);
        for (int v = 0; v < 32; v++) {
            const unsigned code = u16_at(b + 2 + 2 * v);
            const unsigned scale = b[66 + v / 4] >> 4 * (v / 2 & 1) & 15u;
            iq2_vector(nb_block_iq2_xs_grid[code & 511u], eight_signs(code >> 9),
                       d * (0.5f + (float)scale) * 0.25f, out + i + 8 * v);
        }
    }
}

void nb_block_decode_iq2_s(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 82) {
        const float d = half_at(b);
        for (int v = 0; v < 32; v++) {
            const unsigned high = b[66 + v / 4] >> 2 * (v % 4) & 3u;
            const unsigned scale = b[74 + v / 4] >> 4 * (v / 2 & 1) & 15u;
            iq2_vector(nb_block_iq2_s_grid[b[2 + v] | high << 8], b[34 + v],
                       d * (0.5f + (float)scale) * 0.25f, out + i + 8 * v);
        }
    }
}

void nb_block_decode_iq3_xxs(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 98) {
        const float d = half_at(b);
        for (int j = 0; j < 8; j++) {
            const uint32_t rest = u32_at(b + 66 + 4 * j);
            const float t = d * (0.5f + (float)(rest >> 28)) * 0.5f;
            for (int v = 0; v < 8; v++) {
                iq3_vector(nb_block_iq3_xxs_grid[b[2 + 8 * j + v]],
                           eight_signs(rest >> 7 * (v / 2)) >> 4 * (v & 1), t,
                           out + i + 32 * j + 4 * v);
            }
        }
    }
}

void nb_block_decode_iq3_s(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 110) {
        const float d = half_at(b);
        for (int v = 0; v < 64; v++) {
            const unsigned high = b[66 + v / 8] >> v % 8 & 1u;
            const unsigned scale = b[106 + v / 16] >> 4 * (v / 8 & 1) & 15u;
            iq3_s_vector(nb_block_iq3_s_grid[b[2 + v] | high << 8],
                         b[74 + v / 2] >> 4 * (v & 1) & 15u, d * (float)(1 + 2 * scale),
                         out + i + 4 * v);
        }
    }
}

void nb_block_decode_iq1_s(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 50) {
        const float d = half_at(b);
        for (int v = 0; v < 32; v++) {
            const unsigned rest = u16_at(b + 34 + 2 * (v / 4));
            iq1_vector(nb_block_iq1_grid[b[2 + v] | (rest >> 3 * (v % 4) & 7u) << 8],
                       rest & 0x8000u ? -0.125f : 0.125f, d * (float)(2 * (rest >> 12 & 7u) + 1),
                       out + i + 8 * v);
        }
    }
}

void nb_block_decode_iq1_m(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 56) {
        const unsigned char *scales = b + 48;
        const unsigned d_bits = (unsigned)scales[1] >> 4 | (scales[3] & 0xf0u) |
                                (scales[5] & 0xf0u) << 4 | (scales[7] & 0xf0u) << 8;
        const float d = nb_f16_to_f32((uint16_t)d_bits);
        for (int v = 0; v < 32; v++) {
            const unsigned high = b[32 + v / 2] >> 4 * (v & 1);
            const unsigned scale = u16_at(scales + 2 * (v / 8)) >> 3 * (v / 2 % 4) & 7u;
            iq1_vector(nb_block_iq1_grid[b[v] | (high & 7u) << 8], high & 8u ? -0.125f : 0.125f,
                       d * (float)(2 * scale + 1), out + i + 8 * v);
        }
    }
}
