/* SPDX-License-Identifier: Apache-2.0
 *
 * tile.c - AVX-512 tiles (14 x 32 f32, 14 x 16 f64) and the packing of their panels. */
#include <immintrin.h>

#include "backend/cpu/avx512/level.h"
#include "backend/cpu/avx512/transpose.h"

#define T_ARGS nb_tile_f32
#define T_REAL float
#define T_VEC __m512
#define T_LANES 16
#define T_MR 14
#define T_NV 2
#define T_NAME tile_f32_14x32
#define T_BODY tile_f32_body
#define T_LOAD(p) _mm512_loadu_ps(p)
#define T_STORE(p, v) _mm512_storeu_ps(p, v)
#define T_SET1(x) _mm512_set1_ps(x)
#define T_ZERO() _mm512_setzero_ps()
#define T_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define T_ADD(a, b) _mm512_add_ps(a, b)
#include "backend/cpu/tile_tmpl.h"

#define T_ARGS nb_tile_f64
#define T_REAL double
#define T_VEC __m512d
#define T_LANES 8
#define T_MR 14
#define T_NV 2
#define T_NAME tile_f64_14x16
#define T_BODY tile_f64_body
#define T_LOAD(p) _mm512_loadu_pd(p)
#define T_STORE(p, v) _mm512_storeu_pd(p, v)
#define T_SET1(x) _mm512_set1_pd(x)
#define T_ZERO() _mm512_setzero_pd()
#define T_FMA(a, b, c) _mm512_fmadd_pd(a, b, c)
#define T_ADD(a, b) _mm512_add_pd(a, b)
#include "backend/cpu/tile_tmpl.h"

/* Pairs of 16 bits; |sum of two products| stays far below 2^31. */
static inline __attribute__((always_inline)) __m512 add_pairs(__m512 a, __m512 b, __m512 c)
{
    __m512i two = _mm512_madd_epi16(_mm512_castps_si512(a), _mm512_castps_si512(b));
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(c), two));
}

#define T_ARGS nb_tile_f32
#define T_REAL float
#define T_VEC __m512
#define T_LANES 16
#define T_MR 14
#define T_NV 2
#define T_NAME tile_i8_14x32
#define T_BODY tile_i8_body
#define T_LOAD(p) _mm512_loadu_ps(p)
#define T_STORE(p, v) _mm512_storeu_ps(p, v)
#define T_SET1(x) _mm512_set1_ps(x)
#define T_ZERO() _mm512_setzero_ps()
#define T_FMA(a, b, c) add_pairs(a, b, c)
#define T_ADD(a, b)                                                                                \
    _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)))
#include "backend/cpu/tile_tmpl.h"

enum { MR = 14, NR = 32 };

/* n (at most 16) elements of `type` at src as f32, 0 beyond. */
static inline __attribute__((always_inline)) __m512 load_some(const void *src, enum nb_dtype type,
                                                              __mmask16 mask)
{
    if (type == NB_F32) return _mm512_maskz_loadu_ps(mask, src);
    __m256i half = _mm256_maskz_loadu_epi16(mask, src);
    if (type == NB_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Rows r0 .. r0+15 of the panel, as far as there are any. Stores are 16 wide and follow rising k:
 * when w is 14, the next column overwrites the surplus of the last, and NB_PACK_SLACK covers the
 * end. */
static inline __attribute__((always_inline)) void pack16(const struct nb_pack *p, int r0,
                                                         enum nb_dtype type)
{
    const int64_t size = type == NB_F32 ? 4 : 2, step = p->ld * size;
    const int rows = p->rows - r0 < 16 ? p->rows - r0 : 16, w = p->w;
    const unsigned char *src = (const unsigned char *)p->src + (rows > 0 ? r0 * step : 0);
    float *dst = p->dst + r0;
    for (int64_t k0 = 0; k0 < p->k; k0 += 16) {
        int n = p->k - k0 < 16 ? (int)(p->k - k0) : 16;
        __mmask16 mask = (__mmask16)((1u << n) - 1u);
        __m512 r[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            r[i] =
                i < rows ? load_some(src + i * step + k0 * size, type, mask) : _mm512_setzero_ps();
        }
        nb_transpose16(r);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i < n) _mm512_storeu_ps(dst + (k0 + i) * w, r[i]);
        }
    }
}

static void pack_rows_f32(const struct nb_pack *p)
{
    for (int r = 0; r < p->w; r += 16) {
        switch (p->type) {
        case NB_F32: pack16(p, r, NB_F32); break;
        case NB_F16: pack16(p, r, NB_F16); break;
        default: pack16(p, r, NB_BF16); break;
        }
    }
}

static void pack_cols_f32(const struct nb_pack *p)
{
    const int rows = p->rows, w = p->w;
    const float *src = p->src;
    float *dst = p->dst;
    __mmask16 lo = (__mmask16)(rows >= 16 ? 0xffffu : (1u << rows) - 1u);
    __mmask16 hi = (__mmask16)(rows > 16 ? (1u << (rows - 16)) - 1u : 0u);
    for (int64_t kk = 0; kk < p->k; kk++, src += p->ld, dst += w) {
        _mm512_storeu_ps(dst, _mm512_maskz_loadu_ps(lo, src));
        if (w > 16) _mm512_storeu_ps(dst + 16, _mm512_maskz_loadu_ps(hi, src + 16));
    }
}

/* 8 rows of 8 to columns. */
static inline __attribute__((always_inline)) void transpose8(__m512d r[8])
{
    __m512d t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_pd(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_pd(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) { /* t[2g + i]: pair q holds column 2q + i of rows 2g, 2g+1 */
        r[i] = _mm512_shuffle_f64x2(t[i], t[2 + i], 0x88);
        r[2 + i] = _mm512_shuffle_f64x2(t[i], t[2 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_f64x2(t[4 + i], t[6 + i], 0x88);
        r[6 + i] = _mm512_shuffle_f64x2(t[4 + i], t[6 + i], 0xdd);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        t[i] = _mm512_shuffle_f64x2(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_f64x2(r[i], r[4 + i], 0xdd);
        t[2 + i] = _mm512_shuffle_f64x2(r[2 + i], r[6 + i], 0x88);
        t[6 + i] = _mm512_shuffle_f64x2(r[2 + i], r[6 + i], 0xdd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) r[i] = t[i];
}

static void pack_rows_f64(const struct nb_pack_f64 *p)
{
    const int w = p->w;
    for (int r0 = 0; r0 < w; r0 += 8) {
        int n = p->rows - r0 < 0 ? 0 : p->rows - r0 < 8 ? p->rows - r0 : 8;
        __mmask8 keep = (__mmask8)(w - r0 < 8 ? (1u << (w - r0)) - 1u : 0xffu);
        for (int64_t k0 = 0; k0 < p->k; k0 += 8) {
            int left = p->k - k0 < 8 ? (int)(p->k - k0) : 8;
            __mmask8 mask = (__mmask8)((1u << left) - 1u);
            __m512d r[8];
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                r[i] = i < n ? _mm512_maskz_loadu_pd(mask, p->src + (r0 + i) * p->ld + k0)
                             : _mm512_setzero_pd();
            }
            transpose8(r);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                if (i < left) _mm512_mask_storeu_pd(p->dst + (k0 + i) * w + r0, keep, r[i]);
            }
        }
    }
}

void nb_avx512_tiles(struct nb_cpu_ops *ops)
{
    ops->tile_name = "avx512";
    ops->mr = MR;
    ops->nr = NR;
    ops->tile_f32 = tile_f32_14x32;
    ops->pack_rows_f32 = pack_rows_f32;
    ops->pack_cols_f32 = pack_cols_f32;
    ops->code_k = 2;
    ops->tile_i8 = tile_i8_14x32;
    ops->mr64 = MR;
    ops->nr64 = NR / 2;
    ops->tile_f64 = tile_f64_14x16;
    ops->pack_rows_f64 = pack_rows_f64;
}
