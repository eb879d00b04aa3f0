/* SPDX-License-Identifier: Apache-2.0
 *
 * block_layout.h - small facts of the block layouts that decoders, encoders and the hub share. Source: GGUF
 * specification, section 4. */
#ifndef NB_NUMERIC_BLOCK_LAYOUT_H
#define NB_NUMERIC_BLOCK_LAYOUT_H

#include <stdint.h>

#include "base/half.h"

/* Values of the 16 codes of IQ4_NL and IQ4_XS; twice those of MXFP4 and NVFP4. */
static const int8_t nb_block_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                               1,    13,   25,  38,  53,  69,  89,  113};
static const float nb_block_iq4_middle[15] = {/* between neighbours */
                                              -115.5f, -93.5f, -74.0f, -57.0f, -42.0f,
                                              -28.5f,  -16.0f, -4.5f,  7.0f,   19.0f,
                                              31.5f,   45.5f,  61.0f,  79.0f,  101.0f};
static const int8_t nb_block_fp4_values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                               0, -1, -2, -3, -4, -6, -8, -12};

/* Q4_K and Q5_K: eight pairs of 6 bits in 12 bytes s:
 *   s[0..3]  scale 0..3 | top two bits: bits 4, 5 of scale 4..7
 *   s[4..7]  min 0..3   | top two bits: bits 4, 5 of min 4..7
 *   s[8..11] low nibble: bits 0..3 of scale 4..7, high nibble: of min 4..7 */
struct nb_scale_min {
    int scale, min;
};

static inline struct nb_scale_min nb_block_scale_min(const unsigned char *s, int j)
{
    if (j < 4) return (struct nb_scale_min){s[j] & 63, s[j + 4] & 63};
    return (struct nb_scale_min){(s[j + 4] & 15) | (s[j - 4] >> 6) << 4, s[j + 4] >> 4 | (s[j] >> 6)
                                                                                             << 4};
}

static inline void nb_block_put_scale_mins(unsigned char *s, const uint8_t *scale,
                                           const uint8_t *min)
{
    for (int j = 0; j < 4; j++) {
        s[j] = (unsigned char)(scale[j] | (scale[j + 4] >> 4) << 6);
        s[j + 4] = (unsigned char)(min[j] | (min[j + 4] >> 4) << 6);
        s[j + 8] = (unsigned char)((scale[j + 4] & 15) | (min[j + 4] & 15) << 4);
    }
}

/* Q3_K: scale k of 16, -32..31, in 12 bytes s: low nibbles in s[0..7], top two bits in s[8..11]. */
static inline int nb_block_q3_scale(const unsigned char *s, int k)
{
    int low = k < 8 ? s[k] & 15 : s[k - 8] >> 4;
    return (low | (s[8 + k % 4] >> 2 * (k / 4) & 3) << 4) - 32;
}

static inline void nb_block_put_q3_scales(unsigned char *s, const uint8_t *code) /* scale + 32 */
{
    for (int k = 0; k < 8; k++) s[k] = (unsigned char)((code[k] & 15) | (code[k + 8] & 15) << 4);
    for (int k = 0; k < 4; k++)
        s[8 + k] = (unsigned char)(code[k] >> 4 | (code[k + 4] >> 4) << 2 |
                                   (code[k + 8] >> 4) << 4 | (code[k + 12] >> 4) << 6);
}

/* IQ4_XS: scale j of 8, -32..31, of block b: low nibbles in b[4..7], top two bits in u16 at b + 2. */
static inline int nb_block_iq4_xs_scale(const unsigned char *b, int j)
{
    int high = (b[2] | b[3] << 8) >> 2 * j & 3;
    return ((b[4 + j / 2] >> 4 * (j & 1) & 15) | high << 4) - 32;
}

static inline void nb_block_put_iq4_xs_scales(unsigned char *b,
                                              const uint8_t *code) /* scale + 32 */
{
    unsigned high = 0;
    for (int j = 0; j < 8; j++) high |= (unsigned)(code[j] >> 4) << 2 * j;
    b[2] = (unsigned char)(high & 255u);
    b[3] = (unsigned char)(high >> 8);
    for (int j = 0; j < 4; j++)
        b[4 + j] = (unsigned char)((code[2 * j] & 15) | (code[2 * j + 1] & 15) << 4);
}

/* MXFP4: half of 2^(e - 127), since the table of values is doubled. e = 255 is no number. */
static inline float nb_block_e8m0_half(unsigned e)
{
    if (e < 2) return nb_f32_from_bits(0x00200000u << e);
    return nb_f32_from_bits((uint32_t)(e - 1) << 23);
}

/* NVFP4: half of an unsigned e4m3 number; 0x7f counts as 0. */
static inline float nb_block_e4m3_half(unsigned x)
{
    const unsigned e = x >> 3 & 15, m = x & 7;
    if (x == 0x7f || x == 0) return 0.0f;
    if (e == 0) return (float)m * 0x1p-10f;
    return (1.0f + (float)m / 8.0f) * nb_f32_from_bits((uint32_t)(e + 119) << 23);
}

/* x rounded half to even by the adder; an integer modulo 2^23, as the reference has it. */
static inline int nb_block_nearest_int(float x)
{
    return (int)(nb_f32_bits(x + 12582912.0f) & 0x007fffffu) - 0x00400000;
}

/* x rounded half away from zero in [-most, most]; NaN gives -most. */
static inline int nb_block_round_away(float x, float most)
{
    x = x > -most ? x : -most;
    x = x < most ? x : most;
    const int whole = (int)x;
    const float rest = x - (float)whole;
    return whole + (rest >= 0.5f) - (rest <= -0.5f);
}

static inline void nb_block_put_half(unsigned char *b, uint16_t h)
{
    b[0] = (unsigned char)(h & 255);
    b[1] = (unsigned char)(h >> 8);
}

static inline uint16_t nb_block_get_half(const unsigned char *b)
{
    return (uint16_t)(b[0] | b[1] << 8);
}

#endif
