/* SPDX-License-Identifier: Apache-2.0
 *
 * half.h - f16 and bf16 to and from f32, round to nearest even; plain C, bit-exact on every machine. */
#ifndef NB_BASE_HALF_H
#define NB_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t nb_f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float nb_f32_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float nb_bf16_to_f32(uint16_t h)
{
    return nb_f32_from_bits((uint32_t)h << 16);
}

static inline uint16_t nb_f32_to_bf16(float x)
{
    uint32_t u = nb_f32_bits(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float nb_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t e = (h >> 10) & 0x1fu, m = h & 0x3ffu;
    if (e == 31) return nb_f32_from_bits(sign | 0x7f800000u | m << 13);
    if (e) return nb_f32_from_bits(sign | (e + 112u) << 23 | m << 13);
    float v = (float)m * 0x1p-24f;
    return nb_f32_from_bits(sign | nb_f32_bits(v));
}

static inline uint16_t nb_f32_to_f16(float x)
{
    uint32_t u = nb_f32_bits(x);
    uint32_t sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and more round to infinity */
    if (a < 0x38800000u) {                                   /* below 2^-14: subnormal */
        float r = nb_f32_from_bits(a) + 0.5f;                /* RNE at 2^-24 by the adder */
        return (uint16_t)(sign | (nb_f32_bits(r) - 0x3f000000u));
    }
    return (uint16_t)(sign | ((a + 0xfffu + ((a >> 13) & 1u) - 0x38000000u) >> 13));
}

#endif
