/* SPDX-License-Identifier: Apache-2.0
 *
 * block_decode.c - decoders: those of the levels behind one name each, and the rare types, which have one plain
 * form. Source: GGUF specification, section 4.1. */
#include <string.h>

#include "core/dtype.h"
#include "numeric/block_codec.h"
#include "numeric/block_layout.h"

static inline float half_at(const unsigned char *b)
{
    return nb_f16_to_f32(nb_block_get_half(b));
}

void nb_block_decode_f32(const void *blocks, float *out, int64_t n)
{
    nb_to_f32(out, blocks, NB_F32, (size_t)n);
}

void nb_block_decode_f16(const void *blocks, float *out, int64_t n)
{
    nb_to_f32(out, blocks, NB_F16, (size_t)n);
}

void nb_block_decode_bf16(const void *blocks, float *out, int64_t n)
{
    nb_to_f32(out, blocks, NB_BF16, (size_t)n);
}

void nb_block_decode_q4_0(const void *blocks, float *out, int64_t n)
{
    nb_block_level()->decode[NB_BLOCK_Q4_0](blocks, out, n);
}

void nb_block_decode_q4_1(const void *blocks, float *out, int64_t n)
{
    nb_block_level()->decode[NB_BLOCK_Q4_1](blocks, out, n);
}

void nb_block_decode_q5_0(const void *blocks, float *out, int64_t n)
{
    nb_block_level()->decode[NB_BLOCK_Q5_0](blocks, out, n);
}

void nb_block_decode_q5_1(const void *blocks, float *out, int64_t n)
{
    nb_block_level()->decode[NB_BLOCK_Q5_1](blocks, out, n);
}

void nb_block_decode_q8_0(const void *blocks, float *out, int64_t n)
{
    nb_block_level()->decode[NB_BLOCK_Q8_0](blocks, out, n);
}

void nb_block_decode_q2_k(const void *blocks, float *out, int64_t n)
{
    nb_block_level()->decode[NB_BLOCK_Q2_K](blocks, out, n);
}

void nb_block_decode_q3_k(const void *blocks, float *out, int64_t n)
{
    nb_block_level()->decode[NB_BLOCK_Q3_K](blocks, out, n);
}

void nb_block_decode_q4_k(const void *blocks, float *out, int64_t n)
{
    nb_block_level()->decode[NB_BLOCK_Q4_K](blocks, out, n);
}

void nb_block_decode_q5_k(const void *blocks, float *out, int64_t n)
{
    nb_block_level()->decode[NB_BLOCK_Q5_K](blocks, out, n);
}

void nb_block_decode_q6_k(const void *blocks, float *out, int64_t n)
{
    nb_block_level()->decode[NB_BLOCK_Q6_K](blocks, out, n);
}

void nb_block_decode_iq4_nl(const void *blocks, float *out, int64_t n)
{
    nb_block_level()->decode[NB_BLOCK_IQ4_NL](blocks, out, n);
}

void nb_block_decode_iq4_xs(const void *blocks, float *out, int64_t n)
{
    nb_block_level()->decode[NB_BLOCK_IQ4_XS](blocks, out, n);
}

void nb_block_decode_mxfp4(const void *blocks, float *out, int64_t n)
{
    nb_block_level()->decode[NB_BLOCK_MXFP4](blocks, out, n);
}

void nb_block_decode_q8_1(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 32, b += 36) {
        const int8_t *q = (const int8_t *)(b + 4);
        const float d = half_at(b);
        for (int k = 0; k < 32; k++) out[i + k] = (float)q[k] * d;
    }
}

void nb_block_decode_q8_k(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 292) {
        const int8_t *q = (const int8_t *)(b + 4);
        float d;
        memcpy(&d, b, sizeof d);
        for (int k = 0; k < 256; k++) out[i + k] = d * (float)q[k];
    }
}

void nb_block_decode_nvfp4(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 64, b += 36) {
        for (int s = 0; s < 4; s++) {
            const unsigned char *qs = b + 4 + 8 * s;
            const float d = nb_block_e4m3_half(b[s]);
            for (int r = 0; r < 8; r++) {
                out[i + 16 * s + r] = d * (float)nb_block_fp4_values[qs[r] & 15];
                out[i + 16 * s + 8 + r] = d * (float)nb_block_fp4_values[qs[r] >> 4];
            }
        }
    }
}

void nb_block_decode_q1_0(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 128, b += 18) {
        const float d = half_at(b);
        for (int k = 0; k < 128; k++) out[i + k] = b[2 + k / 8] >> k % 8 & 1 ? d : -d;
    }
}

void nb_block_decode_q2_0(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 64, b += 18) {
        const float d = half_at(b);
        for (int k = 0; k < 64; k++)
            out[i + k] = (float)((b[2 + k / 4] >> 2 * (k % 4) & 3) - 1) * d;
    }
}

/* count bytes of base-3 digits: element digit * count + byte; the byte is the fraction 0.d0d1d2.. in base 3,
 * times 256. */
static void ternary(const unsigned char *bytes, int count, int digits, float d, float *out)
{
    static const unsigned power[5] = {1, 3, 9, 27, 81};
    for (int k = 0; k < digits; k++) {
        for (int m = 0; m < count; m++) {
            const unsigned t = bytes[m] * power[k] & 255u;
            out[k * count + m] = (float)((int)(t * 3 >> 8) - 1) * d;
        }
    }
}

void nb_block_decode_tq1_0(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 54) {
        const float d = half_at(b + 52);
        ternary(b, 32, 5, d, out + i);
        ternary(b + 32, 16, 5, d, out + i + 160);
        ternary(b + 48, 4, 4, d, out + i + 240);
    }
}

void nb_block_decode_tq2_0(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 66) {
        const float d = half_at(b + 64);
        for (int k = 0; k < 256; k++) {
            const int q = b[32 * (k / 128) + k % 32] >> 2 * (k % 128 / 32) & 3;
            out[i + k] = (float)(q - 1) * d;
        }
    }
}
