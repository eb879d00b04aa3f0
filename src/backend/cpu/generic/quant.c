/* SPDX-License-Identifier: Apache-2.0
 *
 * quant.c - decoding and rounding to few bits, in plain C. */
#include <math.h>
#include <string.h>

#include "backend/cpu/generic/level.h"
#include "base/fp8.h"
#include "base/half.h"

static void lookup16(float *dst, const uint8_t *code, int64_t n, const float *table, float scale)
{
    for (int64_t i = 0; i < n; i++) dst[i] = table[code[i]] * scale;
}

static void decode_e4m3(float *dst, const uint8_t *code, int64_t n, float scale)
{
    for (int64_t i = 0; i < n; i++) dst[i] = nb_e4m3_to_f32(code[i]) * scale;
}

/* Bits of |x| order as the numbers do, with infinity and NaN on top. */
static float amax(const float *x, int64_t n, float limit)
{
    const uint32_t end = limit > 0 ? nb_f32_bits(limit) : 0x80000000u;
    uint32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t b = nb_f32_bits(x[i]) & 0x7fffffffu;
        if (b < end && b > top) top = b;
    }
    return nb_f32_from_bits(top);
}

static void quant_i8(int8_t *dst, const float *x, int64_t n, float factor)
{
    for (int64_t i = 0; i < n; i++) {
        const float v = rintf(x[i] * factor);
        dst[i] = (int8_t)(v > -128.0f ? v < 127.0f ? v : 127.0f : -128.0f);
    }
}

static int32_t sum_i8(const int8_t *x, int64_t n)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i];
    return sum;
}

static void widen_u8(uint16_t *dst, const uint8_t *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) dst[i] = src[i];
}

static void widen_i8(int16_t *dst, const int8_t *src, int64_t n)
{
    for (int64_t i = 0; i < n; i++) dst[i] = src[i];
}

static void out_i8(const struct nb_out_i8 *o)
{
    for (int64_t j = 0; j < o->n; j++) {
        uint32_t v;
        memcpy(&v, (const unsigned char *)o->acc + j * 4, sizeof v);
        v -= o->zero ? (uint32_t)o->zero[j] * (uint32_t)o->sum : (uint32_t)o->sum;
        const float y = (float)(int32_t)v * o->scale[j] * o->x_scale;
        o->y[j] = o->add ? o->y[j] + y : y;
    }
}

/* Adding 2^(e + 23 - man) leaves no bits below 2^(e - man), e the exponent of what is rounded. */
static void round_float(float *dst, const float *x, int64_t n, const struct nb_float_grid *g)
{
    const uint32_t least = (uint32_t)(127 + g->emin) << 23, raise = (uint32_t)(23 - g->man) << 23;
    for (int64_t i = 0; i < n; i++) {
        const float t = x[i] / g->scale, size = fabsf(t) > g->max ? g->max : fabsf(t);
        if (!(size <= g->max)) {
            dst[i] = NAN;
            continue;
        }
        const uint32_t e = nb_f32_bits(size) & 0x7f800000u;
        const float shift = nb_f32_from_bits((e > least ? e : least) + raise);
        dst[i] = copysignf((size + shift) - shift, t) * g->scale;
    }
}

static void round_f16(float *dst, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float v = nb_f16_to_f32(nb_f32_to_f16(x[i]));
        dst[i] = isinf(v) ? x[i] : v;
    }
}

void nb_generic_quant(struct nb_cpu_ops *ops)
{
    ops->lookup16 = lookup16;
    ops->decode_e4m3 = decode_e4m3;
    ops->amax = amax;
    ops->quant_i8 = quant_i8;
    ops->sum_i8 = sum_i8;
    ops->widen_u8 = widen_u8;
    ops->widen_i8 = widen_i8;
    ops->out_i8 = out_i8;
    ops->round_float = round_float;
    ops->round_f16 = round_f16;
}
