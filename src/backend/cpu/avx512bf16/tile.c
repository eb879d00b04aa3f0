/* SPDX-License-Identifier: Apache-2.0
 *
 * tile.c - the AVX-512 tile over pairs of bf16: the same registers, twice the products per
 * instruction; and packing straight into pairs. A float of a panel is a container of 32 bits: two
 * bf16 of neighbouring k. */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/avx512/transpose.h"
#include "backend/cpu/avx512bf16/level.h"

static inline __attribute__((always_inline)) __m512 dot_pairs(__m512 a, __m512 b, __m512 c)
{
    __m512bh x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return _mm512_dpbf16_ps(c, x, y);
}

#define T_ARGS nb_tile_f32
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
#include "backend/cpu/tile_tmpl.h"

/* 32 bf16: those of lo, then those of hi. */
static inline __attribute__((always_inline)) __m512i round_two(__m512 lo, __m512 hi)
{
    __m512bh h = _mm512_cvtne2ps_pbh(hi, lo);
    __m512i i;
    memcpy(&i, &h, sizeof i);
    return i;
}

/* n (at most 32) elements of `type` at src as 16 pairs, 0 beyond. */
static inline __attribute__((always_inline)) __m512 load_pairs(const void *src, enum nb_dtype type,
                                                               int n)
{
    const __mmask32 mask = (__mmask32)(n < 32 ? (1u << n) - 1u : 0xffffffffu);
    __m512i pairs;
    if (type == NB_BF16) {
        pairs = _mm512_maskz_loadu_epi16(mask, src);
    } else if (type == NB_F16) {
        __m512i half = _mm512_maskz_loadu_epi16(mask, src);
        pairs = round_two(_mm512_cvtph_ps(_mm512_castsi512_si256(half)),
                          _mm512_cvtph_ps(_mm512_extracti64x4_epi64(half, 1)));
    } else {
        pairs = round_two(_mm512_maskz_loadu_ps((__mmask16)mask, src),
                          _mm512_maskz_loadu_ps((__mmask16)(mask >> 16), (const float *)src + 16));
    }
    return _mm512_castsi512_ps(pairs);
}

/* As pack16 of the f32 panels, 32 elements of k at a time. */
static inline __attribute__((always_inline)) void pack16(const struct nb_pack *p, int r0,
                                                         enum nb_dtype type)
{
    const int64_t size = type == NB_F32 ? 4 : 2, step = p->ld * size;
    const int rows = p->rows - r0 < 16 ? p->rows - r0 : 16, w = p->w;
    const unsigned char *src = (const unsigned char *)p->src + (rows > 0 ? r0 * step : 0);
    float *dst = p->dst + r0;
    for (int64_t k0 = 0; k0 < p->k; k0 += 32, dst += 16 * w) {
        int n = p->k - k0 < 32 ? (int)(p->k - k0) : 32, pairs = (n + 1) / 2;
        __m512 r[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            r[i] = i < rows ? load_pairs(src + i * step + k0 * size, type, n) : _mm512_setzero_ps();
        }
        nb_transpose16(r);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i < pairs) _mm512_storeu_ps(dst + i * w, r[i]);
        }
    }
}

static void pack_rows_bf16(const struct nb_pack *p)
{
    for (int r = 0; r < p->w; r += 16) {
        switch (p->type) {
        case NB_F32: pack16(p, r, NB_F32); break;
        case NB_F16: pack16(p, r, NB_F16); break;
        default: pack16(p, r, NB_BF16); break;
        }
    }
}

static void pack_cols_bf16(const struct nb_pack *p)
{
    static const unsigned short weave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                             21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                             11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i order = _mm512_loadu_si512(weave);
    for (int r0 = 0; r0 < p->w; r0 += 16) {
        const int rows = p->rows - r0;
        const __mmask16 mask = (__mmask16)(rows >= 16 ? 0xffffu
                                           : rows > 0 ? (1u << rows) - 1u
                                                      : 0u);
        const float *src = (const float *)p->src + r0;
        float *dst = p->dst + r0;
        for (int64_t kk = 0; kk < p->k; kk += 2, src += 2 * p->ld, dst += p->w) {
            __m512 lo = _mm512_maskz_loadu_ps(mask, src);
            __m512 hi = _mm512_maskz_loadu_ps(kk + 1 < p->k ? mask : 0, src + p->ld);
            __m512i pairs = _mm512_permutexvar_epi16(order, round_two(lo, hi));
            _mm512_storeu_ps(dst, _mm512_castsi512_ps(pairs));
        }
    }
}

void nb_avx512bf16_tiles(struct nb_cpu_ops *ops)
{
    ops->tile_bf16 = tile_bf16_14x32;
    ops->pack_rows_bf16 = pack_rows_bf16;
    ops->pack_cols_bf16 = pack_cols_bf16;
}
