/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb.c - bitsandbytes' numbers in plain C: what every level must give to the byte. One lane at a time. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "base/half.h"
#include "numeric/cpu/bnb_levels.h"
#include "numeric/cpu/bnb_limits.h"
#include "numeric/elems.h"

enum { LANES = 1 };
typedef float VF;
typedef int VI;

static inline VF v_set(float x)
{
    return x;
}

static inline VF v_load(const float *p)
{
    return *p;
}

static inline void v_store(float *p, VF x)
{
    *p = x;
}

static inline void v_store_codes(uint8_t *p, VI code)
{
    *p = (uint8_t)code;
}

static inline VF v_inverse(VF scale)
{
    return fabsf(scale) < 1e-38f ? 1.0f / 1e-38f : 1.0f / scale;
}

/* Half to even, |x| < 2^22. */
static inline float nearest_whole(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23 */
    const float r = x + magic;
    return r - magic;
}

static inline VI nf4_code(VF x)
{
    int code = 0;
    for (int i = 0; i < 15; i++) code += x > nb_bnb_nf4_limits[i];
    return code;
}

static inline VF nf4_level(VI code)
{
    return nb_nf4_values[code];
}

static inline VI fp4_code(VF x)
{
    int rank = 0;
    for (int i = 0; i < 7; i++) rank += fabsf(x) > nb_bnb_fp4_limits[i];
    return nb_bnb_fp4_codes[rank] + (x < 0.0f ? 8 : 0);
}

static inline VF fp4_level(VI code)
{
    return nb_fp4_values[code];
}

static inline VI int8_code(VF x)
{
    x = x > -127.0f ? x : -127.0f;
    x = x < 127.0f ? x : 127.0f;
    return (int)nearest_whole(x) + 128;
}

static inline VF int8_level(VI code)
{
    return (float)(code - 128);
}

static uint32_t top(const float *w, int64_t n)
{
    uint32_t most = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = nb_f32_bits(w[i]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    return most;
}

static void halves(const float *w, int64_t n, float factor, uint8_t *code)
{
    for (int64_t i = 0; i < n; i++) {
        const float half = nb_f16_to_f32(nb_f32_to_f16(w[i]));
        code[i] = (uint8_t)((int)nearest_whole(half * factor) + 128);
    }
}

#define LEVEL nb_bnb_generic
#define LEVEL_NAME "generic"
#include "numeric/cpu/bnb_tmpl.h"
