/* SPDX-License-Identifier: Apache-2.0
 *
 * decode_tmpl.h - blocks to f32, once per level: plain loops of 16 or 32 elements that compilers vectorize.
 *
 * Included by a level's file with lookup16(table, code, n, out): out[i] = table[code[i]], n a multiple of 16.
 * Every operation is rounded on its own, in the order of the specification (section 4). */
#include "numeric/block_layout.h"

/* A loop unrolled before it is vectorized stays scalar. */
#define KEEP_LOOP _Pragma("GCC unroll 1")

static inline float half_at(const unsigned char *b)
{
    return nb_f16_to_f32((uint16_t)(b[0] | b[1] << 8));
}

static inline void low_nibbles(const unsigned char *qs, int n, uint8_t *code)
{
    KEEP_LOOP
    for (int i = 0; i < n; i++) code[i] = qs[i] & 15;
}

static inline void high_nibbles(const unsigned char *qs, int n, uint8_t *code)
{
    KEEP_LOOP
    for (int i = 0; i < n; i++) code[i] = qs[i] >> 4;
}

/* out = (code - zero) * d */
static inline void scaled(const uint8_t *code, int n, int zero, float d, float *out)
{
    KEEP_LOOP
    for (int i = 0; i < n; i++) out[i] = (float)(code[i] - zero) * d;
}

/* out = code * d - m */
static inline void shifted(const uint8_t *code, int n, float d, float m, float *out)
{
    KEEP_LOOP
    for (int i = 0; i < n; i++) out[i] = (float)code[i] * d - m;
}

/* 32 codes of 4 bits, first half in the low nibbles; with qh a fifth bit each. */
static inline void nibbles32(const unsigned char *qs, const unsigned char *qh, uint8_t code[32])
{
    low_nibbles(qs, 16, code);
    high_nibbles(qs, 16, code + 16);
    if (!qh) return;
    const uint32_t bits =
        qh[0] | (uint32_t)qh[1] << 8 | (uint32_t)qh[2] << 16 | (uint32_t)qh[3] << 24;
    KEEP_LOOP
    for (int i = 0; i < 32; i++) code[i] = (uint8_t)(code[i] | (bits >> i & 1u) << 4);
}

static void decode_q4_0(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 32, b += 18) {
        uint8_t code[32];
        nibbles32(b + 2, NULL, code);
        scaled(code, 32, 8, half_at(b), out + i);
    }
}

static void decode_q4_1(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 32, b += 20) {
        uint8_t code[32];
        nibbles32(b + 4, NULL, code);
        shifted(code, 32, half_at(b), -half_at(b + 2), out + i);
    }
}

static void decode_q5_0(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 32, b += 22) {
        uint8_t code[32];
        nibbles32(b + 6, b + 2, code);
        scaled(code, 32, 16, half_at(b), out + i);
    }
}

static void decode_q5_1(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 32, b += 24) {
        uint8_t code[32];
        nibbles32(b + 8, b + 4, code);
        shifted(code, 32, half_at(b), -half_at(b + 2), out + i);
    }
}

static void decode_q8_0(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 32, b += 34) {
        const int8_t *q = (const int8_t *)(b + 2);
        const float d = half_at(b);
        for (int k = 0; k < 32; k++) out[i + k] = (float)q[k] * d;
    }
}

static void decode_q2_k(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 84) {
        const float d = half_at(b + 80), dmin = half_at(b + 82);
        for (int k = 0; k < 16; k++) { /* 16 elements from 16k on */
            const unsigned char *qs = b + 16 + 32 * (k / 8) + 16 * (k & 1);
            uint8_t code[16];
            KEEP_LOOP
            for (int r = 0; r < 16; r++) code[r] = qs[r] >> 2 * (k / 2 % 4) & 3;
            shifted(code, 16, d * (float)(b[k] & 15), dmin * (float)(b[k] >> 4), out + i + 16 * k);
        }
    }
}

static void decode_q3_k(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 110) {
        const float d = half_at(b + 108);
        for (int k = 0; k < 16; k++) {
            const unsigned char *qs = b + 32 + 32 * (k / 8) + 16 * (k & 1);
            const unsigned char *high = b + 16 * (k & 1);
            uint8_t code[16];
            KEEP_LOOP
            for (int r = 0; r < 16; r++)
                code[r] = (uint8_t)((qs[r] >> 2 * (k / 2 % 4) & 3) | (high[r] >> k / 2 & 1) << 2);
            scaled(code, 16, 4, d * (float)nb_block_q3_scale(b + 96, k), out + i + 16 * k);
        }
    }
}

static void decode_q4_k(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 144) {
        const float d = half_at(b), dmin = half_at(b + 2);
        for (int j = 0; j < 8; j++) {
            const unsigned char *qs = b + 16 + 32 * (j / 2);
            const struct nb_scale_min s = nb_block_scale_min(b + 4, j);
            const float t = d * (float)s.scale, m = dmin * (float)s.min;
            uint8_t code[32];
            if (j & 1) high_nibbles(qs, 32, code);
            else low_nibbles(qs, 32, code);
            shifted(code, 32, t, m, out + i + 32 * j);
        }
    }
}

static void decode_q5_k(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 176) {
        const float d = half_at(b), dmin = half_at(b + 2);
        for (int j = 0; j < 8; j++) {
            const unsigned char *qs = b + 48 + 32 * (j / 2), *high = b + 16;
            const struct nb_scale_min s = nb_block_scale_min(b + 4, j);
            const float t = d * (float)s.scale, m = dmin * (float)s.min;
            uint8_t code[32];
            if (j & 1) high_nibbles(qs, 32, code);
            else low_nibbles(qs, 32, code);
            for (int r = 0; r < 32; r++) code[r] = (uint8_t)(code[r] | (high[r] >> j & 1) << 4);
            shifted(code, 32, t, m, out + i + 32 * j);
        }
    }
}

static void decode_q6_k(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 210) {
        const int8_t *scale = (const int8_t *)(b + 192);
        const float d = half_at(b + 208);
        for (int j = 0; j < 8; j++) { /* 32 elements from 32j on */
            const unsigned char *low = b + 64 * (j / 4) + 32 * (j & 1),
                                *high = b + 128 + 32 * (j / 4);
            uint8_t code[32];
            if (j & 2) high_nibbles(low, 32, code);
            else low_nibbles(low, 32, code);
            for (int r = 0; r < 32; r++)
                code[r] = (uint8_t)(code[r] | (high[r] >> 2 * (j % 4) & 3) << 4);
            scaled(code, 16, 32, d * (float)scale[2 * j], out + i + 32 * j);
            scaled(code + 16, 16, 32, d * (float)scale[2 * j + 1], out + i + 32 * j + 16);
        }
    }
}

/* 32 codes into a table of 16 values, first half in the low nibbles. */
static inline void table32(const int8_t table[16], const unsigned char *qs, float d, float *out)
{
    uint8_t code[32];
    int8_t value[32];
    nibbles32(qs, NULL, code);
    lookup16(table, code, 32, value);
    KEEP_LOOP
    for (int i = 0; i < 32; i++) out[i] = (float)value[i] * d;
}

static void decode_iq4_nl(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 32, b += 18)
        table32(nb_block_iq4_values, b + 2, half_at(b), out + i);
}

static void decode_iq4_xs(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 256, b += 136) {
        const float d = half_at(b);
        for (int j = 0; j < 8; j++) {
            const float t = d * (float)nb_block_iq4_xs_scale(b, j);
            table32(nb_block_iq4_values, b + 8 + 16 * j, t, out + i + 32 * j);
        }
    }
}

static void decode_mxfp4(const void *blocks, float *out, int64_t n)
{
    const unsigned char *b = blocks;
    for (int64_t i = 0; i < n; i += 32, b += 17)
        table32(nb_block_fp4_values, b + 1, nb_block_e8m0_half(b[0]), out + i);
}
