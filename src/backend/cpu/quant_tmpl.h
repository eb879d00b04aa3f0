/* SPDX-License-Identifier: Apache-2.0
 *
 * quant_tmpl.h - rounding to few bits, once for every f32 vector type. Included by an ISA's quant file with V
 * (f32 vector), VI (of as many 32-bit integers), V_LANES, and V_LOAD V_STORE V_SET1 V_ADD V_SUB V_MUL V_DIV
 * V_MIN V_MAX (NaN in the first stays), V_BITS V_FROM_BITS, VI_LOAD VI_SET1 VI_AND VI_OR VI_ADD VI_SUB VI_MUL
 * VI_MAX VI_TO_F32, VI_ZERO_WHERE_GREATER(v, last), VI_TOP (horizontal), V_TO_I32 (nearest, ties to even),
 * STORE_I8(p, v) of V_LANES integers in range, V_ROUND_F16.
 *
 * Tails repeat in plain C what the vectors do, operation by operation. */
#include <math.h>
#include <string.h>

#include "base/fp8.h"
#include "base/half.h"

static float amax(const float *x, int64_t n, float limit)
{
    /* Bits of |x| are integers that order as the numbers do. */
    const uint32_t end = limit > 0 ? nb_f32_bits(limit) : 0x80000000u;
    const VI size = VI_SET1(0x7fffffff), last = VI_SET1((int32_t)(end - 1u));
    VI tops = VI_SET1(0);
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES) {
        VI b = VI_AND(V_BITS(V_LOAD(x + i)), size);
        tops = VI_MAX(tops, VI_ZERO_WHERE_GREATER(b, last));
    }
    uint32_t top = (uint32_t)VI_TOP(tops);
    for (; i < n; i++) {
        const uint32_t b = nb_f32_bits(x[i]) & 0x7fffffffu;
        if (b < end && b > top) top = b;
    }
    return nb_f32_from_bits(top);
}

static void quant_i8(int8_t *dst, const float *x, int64_t n, float factor)
{
    const V f = V_SET1(factor), least = V_SET1(-128.0f), most = V_SET1(127.0f);
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES) {
        V v = V_MAX(V_MIN(V_MUL(V_LOAD(x + i), f), most), least);
        STORE_I8(dst + i, V_TO_I32(v));
    }
    for (; i < n; i++) {
        const float v = rintf(x[i] * factor);
        dst[i] = (int8_t)(v > -128.0f ? v < 127.0f ? v : 127.0f : -128.0f);
    }
}

static void out_i8(const struct nb_out_i8 *o)
{
    const VI sum = VI_SET1(o->sum);
    const V x_scale = V_SET1(o->x_scale);
    const unsigned char *acc = o->acc;
    int64_t j = 0;
    for (; j + V_LANES <= o->n; j += V_LANES) {
        VI minus = o->zero ? VI_MUL(VI_LOAD(o->zero + j), sum) : sum;
        V y = VI_TO_F32(VI_SUB(VI_LOAD(acc + j * 4), minus));
        y = V_MUL(V_MUL(y, V_LOAD(o->scale + j)), x_scale);
        V_STORE(o->y + j, o->add ? V_ADD(V_LOAD(o->y + j), y) : y);
    }
    for (; j < o->n; j++) {
        uint32_t v;
        memcpy(&v, acc + j * 4, sizeof v);
        v -= o->zero ? (uint32_t)o->zero[j] * (uint32_t)o->sum : (uint32_t)o->sum;
        const float y = (float)(int32_t)v * o->scale[j] * o->x_scale;
        o->y[j] = o->add ? o->y[j] + y : y;
    }
}

/* Adding 2^(e + 23 - man) leaves no bits below 2^(e - man), e the exponent of what is rounded. */
static void round_float(float *dst, const float *x, int64_t n, const struct nb_float_grid *g)
{
    const uint32_t least = (uint32_t)(127 + g->emin) << 23, raise = (uint32_t)(23 - g->man) << 23;
    const VI leasts = VI_SET1((int32_t)least), raises = VI_SET1((int32_t)raise);
    const VI sign = VI_SET1(INT32_MIN), exponent = VI_SET1(0x7f800000), size = VI_SET1(0x7fffffff);
    const V scale = V_SET1(g->scale), max = V_SET1(g->max);
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES) {
        const VI t = V_BITS(V_DIV(V_LOAD(x + i), scale));
        const V a = V_MIN(V_FROM_BITS(VI_AND(t, size)), max);
        const VI e = VI_MAX(VI_AND(V_BITS(a), exponent), leasts);
        const V shift = V_FROM_BITS(VI_ADD(e, raises)), r = V_SUB(V_ADD(a, shift), shift);
        V_STORE(dst + i, V_MUL(V_FROM_BITS(VI_OR(V_BITS(r), VI_AND(t, sign))), scale));
    }
    for (; i < n; i++) {
        const float t = x[i] / g->scale, a = fabsf(t) > g->max ? g->max : fabsf(t);
        if (!(a <= g->max)) {
            dst[i] = NAN;
            continue;
        }
        const uint32_t e = nb_f32_bits(a) & 0x7f800000u;
        const float shift = nb_f32_from_bits((e > least ? e : least) + raise);
        dst[i] = copysignf((a + shift) - shift, t) * g->scale;
    }
}

static void round_f16(float *dst, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES) V_STORE(dst + i, V_ROUND_F16(V_LOAD(x + i)));
    for (; i < n; i++) {
        const float v = nb_f16_to_f32(nb_f32_to_f16(x[i]));
        dst[i] = isinf(v) ? x[i] : v;
    }
}
