/* SPDX-License-Identifier: Apache-2.0
 *
 * tile.c - AVX2 tiles (6 x 16 f32, 6 x 8 f64) and the packing of their panels. */
#include <immintrin.h>
#include <string.h>

#include "backend/cpu/avx2/level.h"

#define T_ARGS nb_tile_f32
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
#include "backend/cpu/tile_tmpl.h"

#define T_ARGS nb_tile_f64
#define T_REAL double
#define T_VEC __m256d
#define T_LANES 4
#define T_MR 6
#define T_NV 2
#define T_NAME tile_f64_6x8
#define T_BODY tile_f64_body
#define T_LOAD(p) _mm256_loadu_pd(p)
#define T_STORE(p, v) _mm256_storeu_pd(p, v)
#define T_SET1(x) _mm256_set1_pd(x)
#define T_ZERO() _mm256_setzero_pd()
#define T_FMA(a, b, c) _mm256_fmadd_pd(a, b, c)
#define T_ADD(a, b) _mm256_add_pd(a, b)
#include "backend/cpu/tile_tmpl.h"

/* Pairs of 16 bits; |sum of two products| stays far below 2^31. */
static inline __attribute__((always_inline)) __m256 add_pairs(__m256 a, __m256 b, __m256 c)
{
    __m256i two = _mm256_madd_epi16(_mm256_castps_si256(a), _mm256_castps_si256(b));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(c), two));
}

#define T_ARGS nb_tile_f32
#define T_REAL float
#define T_VEC __m256
#define T_LANES 8
#define T_MR 6
#define T_NV 2
#define T_NAME tile_i8_6x16
#define T_BODY tile_i8_body
#define T_LOAD(p) _mm256_loadu_ps(p)
#define T_STORE(p, v) _mm256_storeu_ps(p, v)
#define T_SET1(x) _mm256_set1_ps(x)
#define T_ZERO() _mm256_setzero_ps()
#define T_FMA(a, b, c) add_pairs(a, b, c)
#define T_ADD(a, b)                                                                                \
    _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_castps_si256(b)))
#include "backend/cpu/tile_tmpl.h"

enum { MR = 6, NR = 16 };

/* 8 elements of `type` as f32, the first n of them real. */
static inline __attribute__((always_inline)) __m256 load_some(const void *src, enum nb_dtype type,
                                                              int n)
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

/* Rows r0 .. r0+7 of the panel, as far as there are any. Stores are 8 wide and follow rising k:
 * when w is 6, the next column overwrites the surplus of the last, and NB_PACK_SLACK covers the
 * end. */
static inline __attribute__((always_inline)) void pack8(const struct nb_pack *p, int r0,
                                                        enum nb_dtype type)
{
    const int64_t size = type == NB_F32 ? 4 : 2;
    const int rows = p->rows - r0 < 8 ? p->rows - r0 : 8;
    for (int64_t k0 = 0; k0 < p->k; k0 += 8) {
        int n = p->k - k0 < 8 ? (int)(p->k - k0) : 8;
        __m256 r[8];
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            r[i] = i < rows
                       ? load_some((const unsigned char *)p->src + ((r0 + i) * p->ld + k0) * size,
                                   type, n)
                       : _mm256_setzero_ps();
        }
        transpose8(r);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            if (i < n) _mm256_storeu_ps(p->dst + (k0 + i) * p->w + r0, r[i]);
        }
    }
}

static void pack_rows_f32(const struct nb_pack *p)
{
    for (int r = 0; r < p->w; r += 8) {
        switch (p->type) {
        case NB_F32: pack8(p, r, NB_F32); break;
        case NB_F16: pack8(p, r, NB_F16); break;
        default: pack8(p, r, NB_BF16); break;
        }
    }
}

static void pack_cols_f32(const struct nb_pack *p)
{
    const float *src = p->src;
    float *dst = p->dst;
    if (p->rows < p->w) memset(dst, 0, (size_t)(p->k * p->w) * sizeof *dst);
    for (int64_t kk = 0; kk < p->k; kk++, src += p->ld, dst += p->w) {
        int r = 0;
        for (; r + 8 <= p->rows; r += 8) _mm256_storeu_ps(dst + r, _mm256_loadu_ps(src + r));
        for (; r < p->rows; r++) dst[r] = src[r];
    }
}

static void pack_rows_f64(const struct nb_pack_f64 *p)
{
    if (p->rows < p->w) memset(p->dst, 0, (size_t)(p->k * p->w) * sizeof *p->dst);
    for (int r = 0; r < p->rows; r++) {
        for (int64_t kk = 0; kk < p->k; kk++) p->dst[kk * p->w + r] = p->src[r * p->ld + kk];
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
    ops->code_k = 2;
    ops->tile_i8 = tile_i8_6x16;
    ops->mr64 = MR;
    ops->nr64 = NR / 2;
    ops->tile_f64 = tile_f64_6x8;
    ops->pack_rows_f64 = pack_rows_f64;
}
