/* SPDX-License-Identifier: Apache-2.0
 *
 * fp8.h - E4M3FN: 1-4-3 bits, bias 7, largest 448, no infinities, NaN 0x7F and 0xFF; and E8M0 scales.
 *
 * Encoding saturates to 448 and rounds to nearest even, as every writer of such files does (checkpoint
 * formats, section 0.1). A NaN stays one. */
#ifndef NB_BASE_FP8_H
#define NB_BASE_FP8_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define NB_E4M3_MAX 448.0f

static inline uint8_t nb_f32_to_e4m3(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    const uint8_t sign = (uint8_t)(u >> 24 & 0x80u);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return sign | 0x7fu;
    if (u >= 0x43e00000u) return sign | 0x7eu; /* 448 and above */
    if (u < 0x3c800000u) {                     /* below 2^-6: multiples of 2^-9 */
        float a;
        memcpy(&a, &u, 4);
        return (uint8_t)(sign | (uint8_t)(int)rintf(a * 512.0f));
    }
    u += 0x7ffffu + (u >> 20 & 1u);
    return (uint8_t)(sign | (uint8_t)((u >> 20) - 960u));
}

static inline float nb_e4m3_to_f32(uint8_t code)
{
    const uint32_t sign = (uint32_t)(code & 0x80u) << 24, low = code & 0x7fu;
    float v;
    uint32_t u;
    if (low == 0x7fu) {
        u = 0x7fc00000u | sign;
    } else if (low < 8u) { /* subnormal */
        v = (float)low * 0x1p-9f;
        memcpy(&u, &v, 4);
        u |= sign;
    } else {
        u = ((low << 20) + (120u << 23)) | sign;
    }
    memcpy(&v, &u, 4);
    return v;
}

/* The power of two nearest to x >= 0, up from 1.5 times one on; 2^-127 and 2^127 at the ends. */
static inline uint8_t nb_f32_to_e8m0(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    if (u < 0x00800000u) return u > 0x00400000u; /* whatever is above 2^-127, as torch rounds it */
    u = (u + 0x00400000u) >> 23;
    return (uint8_t)(u < 254u ? u : 254u);
}

/* 2^(code - 127); 255 is NaN. */
static inline float nb_e8m0_to_f32(uint8_t code)
{
    return code == 255 ? NAN : ldexpf(1.0f, (int)code - 127);
}

#endif
