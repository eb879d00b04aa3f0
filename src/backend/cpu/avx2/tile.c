/* SPDX-License-Identifier: Apache-2.0
 *
 * tile.c - AVX2 tiles (6 x 16 f32, 6 x 8 f64) and the packing of their panels. */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/avx2/level.h"

#define T_REAL float
#define T_VEC __m256
#define T_LANES 8
#define T_MR 6
#define T_NV 2
#define T_NAME tile_f32_6x16
#define T_BODY tile_f32_body
#define T_LOAD(p) _mm256_loadu_ps(p)
#define T_STORE(p, v) _mm256_storeu_ps(p, v)
#define T_SET1(x) _mm256_set1_ps(x)
#define T_ZERO() _mm256_setzero_ps()
#define T_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define T_ADD(a, b) _mm256_add_ps(a, b)
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
#define T_VEC __m256d
#define T_LANES 4
#define T_NAME tile_f64_6x8
#define T_BODY tile_f64_body
#define T_LOAD(p) _mm256_loadu_pd(p)
#define T_STORE(p, v) _mm256_storeu_pd(p, v)
#define T_SET1(x) _mm256_set1_pd(x)
#define T_ZERO() _mm256_setzero_pd()
#define T_FMA(a, b, c) _mm256_fmadd_pd(a, b, c)
#define T_ADD(a, b) _mm256_add_pd(a, b)
#include "backend/cpu/tile_simd.h"

enum { MR = 6, NR = 16 };

/* 8 elements of `type` as f32, the first n of them real. */
static inline __attribute__((always_inline)) __m256 load_some(const void *src, enum nb_dtype type, int n)
{
    unsigned char buffer[32] = {0};
    if (n < 8) { /* reading past a row may leave the mapping */
        memcpy(buffer, src, (size_t)n * (type == NB_F32 ? 4 : 2));
        src = buffer;
    }
    if (type == NB_F32) return _mm256_loadu_ps(src);
    __m128i half = _mm_loadu_si128(src);
    if (type == NB_F16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* 8 rows of 8 to columns. */
static inline __attribute__((always_inline)) void transpose8(__m256 r[8])
{
    __m256 t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x20);
        t[4 + i] = _mm256_permute2f128_ps(r[i], r[4 + i], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) r[i] = t[i];
}

/* 8 rows (rows of them real) at once. Stores are 8 wide and follow rising k: when w is 6, the next column
 * overwrites the surplus of the last, and NB_PACK_SLACK covers the end. */
static inline __attribute__((always_inline)) void pack8(float *dst, int w, const unsigned char *src,
                                                        enum nb_dtype type, int64_t ld_bytes, int rows, int64_t k)
{
    const int64_t size = type == NB_F32 ? 4 : 2;
    for (int64_t k0 = 0; k0 < k; k0 += 8) {
        int n = k - k0 < 8 ? (int)(k - k0) : 8;
        __m256 r[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            r[i] = i < rows ? load_some(src + i * ld_bytes + k0 * size, type, n) : _mm256_setzero_ps();
        }
        transpose8(r);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            if (i < n) _mm256_storeu_ps(dst + (k0 + i) * w, r[i]);
        }
    }
}

static void pack_rows_any(float *dst, int w, const unsigned char *src, enum nb_dtype type, int64_t ld_bytes,
                          int rows, int64_t k)
{
    switch (type) {
    case NB_F32: pack8(dst, w, src, NB_F32, ld_bytes, rows, k); break;
    case NB_F16: pack8(dst, w, src, NB_F16, ld_bytes, rows, k); break;
    default: pack8(dst, w, src, NB_BF16, ld_bytes, rows, k); break;
    }
}

static void pack_rows_f32(float *dst, int w, const void *src, enum nb_dtype type, int64_t ld, int rows, int64_t k)
{
    int64_t ld_bytes = ld * (type == NB_F32 ? 4 : 2);
    for (int r = 0; r < w; r += 8) {
        int n = rows - r < 0 ? 0 : rows - r < 8 ? rows - r : 8;
        pack_rows_any(dst + r, w, (const unsigned char *)src + (n ? r * ld_bytes : 0), type, ld_bytes, n, k);
    }
}

static void pack_cols_f32(float *dst, int w, const float *src, int64_t ld, int rows, int64_t k)
{
    if (rows < w) memset(dst, 0, (size_t)(k * w) * sizeof *dst);
    for (int64_t kk = 0; kk < k; kk++, src += ld, dst += w) {
        int r = 0;
        for (; r + 8 <= rows; r += 8) _mm256_storeu_ps(dst + r, _mm256_loadu_ps(src + r));
        for (; r < rows; r++) dst[r] = src[r];
    }
}

static void pack_rows_f64(double *dst, int w, const double *src, int64_t ld, int rows, int64_t k)
{
    if (rows < w) memset(dst, 0, (size_t)(k * w) * sizeof *dst);
    for (int r = 0; r < rows; r++) {
        for (int64_t kk = 0; kk < k; kk++) dst[kk * w + r] = src[r * ld + kk];
    }
}

void nb_avx2_tiles(struct nb_cpu_ops *ops)
{
    ops->tile_name = "avx2";
    ops->mr = MR;
    ops->nr = NR;
    ops->tile_f32 = tile_f32_6x16;
    ops->pack_rows_f32 = pack_rows_f32;
    ops->pack_cols_f32 = pack_cols_f32;
    ops->mr64 = MR;
    ops->nr64 = NR / 2;
    ops->tile_f64 = tile_f64_6x8;
    ops->pack_rows_f64 = pack_rows_f64;
}
