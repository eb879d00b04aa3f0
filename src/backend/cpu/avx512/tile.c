/* SPDX-License-Identifier: Apache-2.0
 *
 * tile.c - AVX-512 tiles (14 x 32 f32, 14 x 16 f64) and the packing of their panels. */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/avx512/level.h"

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
#include "backend/cpu/tile_simd.h"
#undef T_REAL
#undef T_VEC
#undef T_LANES
#undef T_NAME
#undef T_BODY
#undef T_LOAD
#undef T_STORE
#undef T_SET1
#undef T_ZERO
#undef T_FMA
#undef T_ADD

#define T_REAL double
#define T_VEC __m512d
#define T_LANES 8
#define T_NAME tile_f64_14x16
#define T_BODY tile_f64_body
#define T_LOAD(p) _mm512_loadu_pd(p)
#define T_STORE(p, v) _mm512_storeu_pd(p, v)
#define T_SET1(x) _mm512_set1_pd(x)
#define T_ZERO() _mm512_setzero_pd()
#define T_FMA(a, b, c) _mm512_fmadd_pd(a, b, c)
#define T_ADD(a, b) _mm512_add_pd(a, b)
#include "backend/cpu/tile_simd.h"

enum { MR = 14, NR = 32 };

/* n (at most 16) elements of `type` at src as f32, 0 beyond. */
static inline __attribute__((always_inline)) __m512 load_some(const void *src, enum nb_dtype type, __mmask16 mask)
{
    if (type == NB_F32) return _mm512_maskz_loadu_ps(mask, src);
    __m256i half = _mm256_maskz_loadu_epi16(mask, src);
    if (type == NB_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* 16 rows of 16 to columns: r[i] lane j becomes r[j] lane i. */
static inline __attribute__((always_inline)) void transpose16(__m512 r[16])
{
    __m512 t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) { /* pairs of rows, 32-bit interleave */
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) { /* fours of rows, 64-bit interleave */
        __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]);
        __m512d c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* r[4g + i]: quarter q holds column 4q + i of rows 4g .. 4g+3 */
        t[i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88);
        t[4 + i] = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
        t[8 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88);
        t[12 + i] = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0x88);
        r[8 + i] = _mm512_shuffle_f32x4(t[i], t[8 + i], 0xdd);
        r[4 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0x88);
        r[12 + i] = _mm512_shuffle_f32x4(t[4 + i], t[12 + i], 0xdd);
    }
}

/* 16 rows (rows of them real) at once. Stores are 16 wide and follow rising k: when w is 14, the next column
 * overwrites the surplus of the last, and NB_PACK_SLACK covers the end. */
static inline __attribute__((always_inline)) void pack16(float *dst, int w, const unsigned char *src,
                                                         enum nb_dtype type, int64_t ld_bytes, int rows, int64_t k)
{
    const int64_t size = type == NB_F32 ? 4 : 2;
    for (int64_t k0 = 0; k0 < k; k0 += 16) {
        int n = k - k0 < 16 ? (int)(k - k0) : 16;
        __mmask16 mask = (__mmask16)((1u << n) - 1u);
        __m512 r[16];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            r[i] = i < rows ? load_some(src + i * ld_bytes + k0 * size, type, mask) : _mm512_setzero_ps();
        }
        transpose16(r);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i < n) _mm512_storeu_ps(dst + (k0 + i) * w, r[i]);
        }
    }
}

static void pack_rows_any(float *dst, int w, const unsigned char *src, enum nb_dtype type, int64_t ld_bytes,
                          int rows, int64_t k)
{
    switch (type) {
    case NB_F32: pack16(dst, w, src, NB_F32, ld_bytes, rows, k); break;
    case NB_F16: pack16(dst, w, src, NB_F16, ld_bytes, rows, k); break;
    default: pack16(dst, w, src, NB_BF16, ld_bytes, rows, k); break;
    }
}

static void pack_rows_f32(float *dst, int w, const void *src, enum nb_dtype type, int64_t ld, int rows, int64_t k)
{
    int64_t ld_bytes = ld * (type == NB_F32 ? 4 : 2);
    for (int r = 0; r < w; r += 16) {
        int n = rows - r < 0 ? 0 : rows - r < 16 ? rows - r : 16;
        pack_rows_any(dst + r, w, (const unsigned char *)src + (n ? r * ld_bytes : 0), type, ld_bytes, n, k);
    }
}

static void pack_cols_f32(float *dst, int w, const float *src, int64_t ld, int rows, int64_t k)
{
    __mmask16 lo = (__mmask16)(rows >= 16 ? 0xffffu : (1u << rows) - 1u);
    __mmask16 hi = (__mmask16)(rows > 16 ? (1u << (rows - 16)) - 1u : 0u);
    for (int64_t kk = 0; kk < k; kk++, src += ld, dst += w) {
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

static void pack_rows_f64(double *dst, int w, const double *src, int64_t ld, int rows, int64_t k)
{
    for (int r0 = 0; r0 < w; r0 += 8) {
        int n = rows - r0 < 0 ? 0 : rows - r0 < 8 ? rows - r0 : 8;
        __mmask8 keep = (__mmask8)(w - r0 < 8 ? (1u << (w - r0)) - 1u : 0xffu);
        for (int64_t k0 = 0; k0 < k; k0 += 8) {
            int left = k - k0 < 8 ? (int)(k - k0) : 8;
            __mmask8 mask = (__mmask8)((1u << left) - 1u);
            __m512d r[8];
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                r[i] = i < n ? _mm512_maskz_loadu_pd(mask, src + (r0 + i) * ld + k0) : _mm512_setzero_pd();
            }
            transpose8(r);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                if (i < left) _mm512_mask_storeu_pd(dst + (k0 + i) * w + r0, keep, r[i]);
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
    ops->mr64 = MR;
    ops->nr64 = NR / 2;
    ops->tile_f64 = tile_f64_14x16;
    ops->pack_rows_f64 = pack_rows_f64;
}
