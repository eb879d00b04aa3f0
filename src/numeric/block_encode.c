/* SPDX-License-Identifier: Apache-2.0
 *
 * block_encode.c - encoders: those of the levels behind one name each, and the types that are plain rounding and
 * seldom written. Source: GGUF specification, section 5.2. */
#include "numeric/block_encode.h"

#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "numeric/block_layout.h"
#include "numeric/cpu/levels.h"

void nb_block_encode_q4_0(const float *x, const float *importance, int64_t n, void *out)
{
    nb_block_level()->encode[NB_BLOCK_Q4_0](x, importance, n, out);
}

void nb_block_encode_q4_1(const float *x, const float *importance, int64_t n, void *out)
{
    nb_block_level()->encode[NB_BLOCK_Q4_1](x, importance, n, out);
}

void nb_block_encode_q5_0(const float *x, const float *importance, int64_t n, void *out)
{
    nb_block_level()->encode[NB_BLOCK_Q5_0](x, importance, n, out);
}

void nb_block_encode_q5_1(const float *x, const float *importance, int64_t n, void *out)
{
    nb_block_level()->encode[NB_BLOCK_Q5_1](x, importance, n, out);
}

void nb_block_encode_q8_0(const float *x, const float *importance, int64_t n, void *out)
{
    nb_block_level()->encode[NB_BLOCK_Q8_0](x, importance, n, out);
}

void nb_block_encode_q2_k(const float *x, const float *importance, int64_t n, void *out)
{
    nb_block_level()->encode[NB_BLOCK_Q2_K](x, importance, n, out);
}

void nb_block_encode_q3_k(const float *x, const float *importance, int64_t n, void *out)
{
    nb_block_level()->encode[NB_BLOCK_Q3_K](x, importance, n, out);
}

void nb_block_encode_q4_k(const float *x, const float *importance, int64_t n, void *out)
{
    nb_block_level()->encode[NB_BLOCK_Q4_K](x, importance, n, out);
}

void nb_block_encode_q5_k(const float *x, const float *importance, int64_t n, void *out)
{
    nb_block_level()->encode[NB_BLOCK_Q5_K](x, importance, n, out);
}

void nb_block_encode_q6_k(const float *x, const float *importance, int64_t n, void *out)
{
    nb_block_level()->encode[NB_BLOCK_Q6_K](x, importance, n, out);
}

void nb_block_encode_iq4_nl(const float *x, const float *importance, int64_t n, void *out)
{
    nb_block_level()->encode[NB_BLOCK_IQ4_NL](x, importance, n, out);
}

void nb_block_encode_iq4_xs(const float *x, const float *importance, int64_t n, void *out)
{
    nb_block_level()->encode[NB_BLOCK_IQ4_XS](x, importance, n, out);
}

void nb_block_encode_mxfp4(const float *x, const float *importance, int64_t n, void *out)
{
    nb_block_level()->encode[NB_BLOCK_MXFP4](x, importance, n, out);
}

void nb_block_encode_f32(const float *x, const float *importance, int64_t n, void *out)
{
    (void)importance;
    nb_from_f32(out, x, NB_F32, (size_t)n);
}

void nb_block_encode_f16(const float *x, const float *importance, int64_t n, void *out)
{
    (void)importance;
    nb_from_f32(out, x, NB_F16, (size_t)n);
}

void nb_block_encode_bf16(const float *x, const float *importance, int64_t n, void *out)
{
    (void)importance;
    nb_from_f32(out, x, NB_BF16, (size_t)n);
}

static float largest_magnitude(const float *x, int n)
{
    float top = 0.0f;
    for (int i = 0; i < n; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    return top;
}

void nb_block_encode_q8_1(const float *x, const float *importance, int64_t n, void *out)
{
    unsigned char *b = out;
    (void)importance;
    for (int64_t i = 0; i < n; i += 32, b += 36) {
        const float d = largest_magnitude(x + i, 32) / 127.0f;
        const float id = d != 0.0f ? 1.0f / d : 0.0f;
        int sum = 0;
        for (int k = 0; k < 32; k++) {
            const int q = nb_block_round_away(x[i + k] * id, 127.0f);
            sum += q;
            b[4 + k] = (unsigned char)q;
        }
        nb_block_put_half(b, nb_f32_to_f16(d));
        nb_block_put_half(b + 2, nb_f32_to_f16((float)sum * d));
    }
}

/* The largest magnitude gets code -127 or 127 against its sign; sums of 16 codes follow the codes. */
void nb_block_encode_q8_k(const float *x, const float *importance, int64_t n, void *out)
{
    unsigned char *b = out;
    (void)importance;
    for (int64_t i = 0; i < n; i += 256, b += 292) {
        float top = 0.0f, extreme = 0.0f;
        for (int k = 0; k < 256; k++) {
            if (!(fabsf(x[i + k]) > top)) continue;
            top = fabsf(x[i + k]);
            extreme = x[i + k];
        }
        memset(b, 0, 292);
        if (top == 0.0f) continue;
        const float inverse = -127.0f / extreme, d = 1.0f / inverse;
        memcpy(b, &d, sizeof d);
        for (int k = 0; k < 16; k++) {
            int sum = 0;
            for (int r = 0; r < 16; r++) {
                int q = nb_block_nearest_int(inverse * x[i + 16 * k + r]);
                if (q > 127) q = 127;
                sum += q;
                b[4 + 16 * k + r] = (unsigned char)q;
            }
            nb_block_put_half(b + 260 + 2 * k, (uint16_t)sum);
        }
    }
}

/* Unsigned e4m3 of x, half up in the fourth bit, at most 448; denormals downward from x * 512 + 0.5. */
static unsigned e4m3(float x)
{
    if (!(x > 0.0f)) return 0;
    if (x > 448.0f) x = 448.0f;
    const uint32_t bits = nb_f32_bits(x);
    int e = (int)(bits >> 23) - 127 + 7;
    if (e <= 0) {
        int m = (int)(x * 512.0f + 0.5f);
        return (unsigned)(m > 7 ? 7 : m);
    }
    if (e >= 15) return 0x7e;
    unsigned m = (bits >> 20 & 7u) + (bits >> 19 & 1u);
    if (m > 7) {
        m = 0;
        if (++e >= 15) return 0x7e;
    }
    return (unsigned)e << 3 | m;
}

static unsigned nearest_fp4(float x, float d)
{
    unsigned best = 0;
    float least = fabsf((float)nb_block_fp4_values[0] * d - x);
    for (unsigned k = 1; k < 16; k++) {
        const float e = fabsf((float)nb_block_fp4_values[k] * d - x);
        if (e < least) {
            best = k;
            least = e;
        }
    }
    return best;
}

void nb_block_encode_nvfp4(const float *x, const float *importance, int64_t n, void *out)
{
    unsigned char *b = out;
    (void)importance;
    for (int64_t i = 0; i < n; i += 64, b += 36) {
        for (int s = 0; s < 4; s++) {
            const float *v = x + i + 16 * s;
            const unsigned scale = e4m3(largest_magnitude(v, 16) / 6.0f);
            const float d = nb_block_e4m3_half(scale);
            b[s] = (unsigned char)scale;
            for (int r = 0; r < 8; r++)
                b[4 + 8 * s + r] =
                    (unsigned char)(nearest_fp4(v[r], d) | nearest_fp4(v[r + 8], d) << 4);
        }
    }
}

void nb_block_encode_q1_0(const float *x, const float *importance, int64_t n, void *out)
{
    unsigned char *b = out;
    (void)importance;
    for (int64_t i = 0; i < n; i += 128, b += 18) {
        float sum = 0.0f;
        for (int k = 0; k < 128; k++) sum += fabsf(x[i + k]);
        memset(b, 0, 18);
        nb_block_put_half(b, nb_f32_to_f16(sum / 128.0f));
        for (int k = 0; k < 128; k++)
            b[2 + k / 8] = (unsigned char)(b[2 + k / 8] | (x[i + k] >= 0.0f) << k % 8);
    }
}

/* -1, 0 or 1 times the largest magnitude, as 0 .. 2. */
static unsigned third(float x, float id)
{
    return (unsigned)(nb_block_round_away(x * id, 1.0f) + 1);
}

void nb_block_encode_q2_0(const float *x, const float *importance, int64_t n, void *out)
{
    unsigned char *b = out;
    (void)importance;
    for (int64_t i = 0; i < n; i += 64, b += 18) {
        const float d = largest_magnitude(x + i, 64), id = d != 0.0f ? 1.0f / d : 0.0f;
        memset(b, 0, 18);
        nb_block_put_half(b, nb_f32_to_f16(d));
        for (int k = 0; k < 64; k++)
            b[2 + k / 4] = (unsigned char)(b[2 + k / 4] | third(x[i + k], id) << 2 * (k % 4));
    }
}

/* Base-3 digits of elements digit * count + byte; the byte is their fraction rounded up. */
static void put_ternary(unsigned char *bytes, int count, int digits, const float *x, float id)
{
    for (int m = 0; m < count; m++) {
        unsigned v = 0;
        for (int k = 0; k < 5; k++) v = v * 3 + (k < digits ? third(x[k * count + m], id) : 0);
        bytes[m] = (unsigned char)((v * 256 + 242) / 243);
    }
}

void nb_block_encode_tq1_0(const float *x, const float *importance, int64_t n, void *out)
{
    unsigned char *b = out;
    (void)importance;
    for (int64_t i = 0; i < n; i += 256, b += 54) {
        const float d = largest_magnitude(x + i, 256), id = d != 0.0f ? 1.0f / d : 0.0f;
        put_ternary(b, 32, 5, x + i, id);
        put_ternary(b + 32, 16, 5, x + i + 160, id);
        put_ternary(b + 48, 4, 4, x + i + 240, id);
        nb_block_put_half(b + 52, nb_f32_to_f16(d));
    }
}

void nb_block_encode_tq2_0(const float *x, const float *importance, int64_t n, void *out)
{
    unsigned char *b = out;
    (void)importance;
    for (int64_t i = 0; i < n; i += 256, b += 66) {
        const float d = largest_magnitude(x + i, 256), id = d != 0.0f ? 1.0f / d : 0.0f;
        memset(b, 0, 64);
        for (int k = 0; k < 256; k++) {
            unsigned char *q = b + 32 * (k / 128) + k % 32;
            *q = (unsigned char)(*q | third(x[i + k], id) << 2 * (k % 128 / 32));
        }
        nb_block_put_half(b + 64, nb_f32_to_f16(d));
    }
}
