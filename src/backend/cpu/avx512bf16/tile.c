/* SPDX-License-Identifier: Apache-2.0
 *
 * tile.c - the AVX-512 tile over pairs of bf16: the same registers, twice the products per instruction. */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/avx512bf16/level.h"

/* A float here is a container of 32 bits: two bf16 of neighbouring k. */
static inline __attribute__((always_inline)) __m512 dot_pairs(__m512 a, __m512 b, __m512 c)
{
    __m512bh x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return _mm512_dpbf16_ps(c, x, y);
}

#define T_REAL float
#define T_VEC __m512
#define T_LANES 16
#define T_MR 14
#define T_NV 2
#define T_NAME tile_bf16_14x32
#define T_BODY tile_bf16_body
#define T_LOAD(p) _mm512_loadu_ps(p)
#define T_STORE(p, v) _mm512_storeu_ps(p, v)
#define T_SET1(x) _mm512_set1_ps(x)
#define T_ZERO() _mm512_setzero_ps()
#define T_FMA(a, b, c) dot_pairs(a, b, c)
#define T_ADD(a, b) _mm512_add_ps(a, b)
#include "backend/cpu/tile_simd.h"

static inline __attribute__((always_inline)) __m512i bf16_of(__m512 x)
{
    __m256bh h = _mm512_cvtneps_pbh(x);
    __m256i i;
    memcpy(&i, &h, sizeof i);
    return _mm512_cvtepu16_epi32(i);
}

/* In place: pair p comes from rows 2p and 2p + 1, so reads stay ahead of writes. */
static void pair_bf16(float *panel, int w, int64_t k)
{
    for (int64_t p = 0; 2 * p < k; p++) {
        for (int r = 0; r < w; r += 16) {
            __mmask16 keep = (__mmask16)(w - r < 16 ? (1u << (w - r)) - 1u : 0xffffu);
            __m512i lo = bf16_of(_mm512_maskz_loadu_ps(keep, panel + 2 * p * w + r));
            __m512i hi = _mm512_setzero_si512();
            if (2 * p + 1 < k) hi = bf16_of(_mm512_maskz_loadu_ps(keep, panel + (2 * p + 1) * w + r));
            _mm512_mask_storeu_epi32(panel + p * w + r, keep, _mm512_or_si512(lo, _mm512_slli_epi32(hi, 16)));
        }
    }
}

void nb_avx512bf16_tiles(struct nb_cpu_ops *ops)
{
    ops->tile_bf16 = tile_bf16_14x32;
    ops->pair_bf16 = pair_bf16;
}
