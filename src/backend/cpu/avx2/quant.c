/* SPDX-License-Identifier: Apache-2.0
 *
 * quant.c - decoding and rounding to few bits, AVX2. */
#include <immintrin.h>

#include "backend/cpu/avx2/level.h"

static inline __attribute__((always_inline)) int32_t top8(__m256i v)
{
    __m128i s = _mm_max_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_max_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

static inline __attribute__((always_inline)) void store_i8(int8_t *p, __m256i v)
{
    __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64((void *)p, _mm_packs_epi16(h, h));
}

static inline __attribute__((always_inline)) __m256 round_half(__m256 x)
{
    const __m256i infinity = _mm256_set1_epi32(0x7f800000), size = _mm256_set1_epi32(0x7fffffff);
    __m256 v = _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    __m256i over = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(v), size), infinity);
    return _mm256_blendv_ps(v, x, _mm256_castsi256_ps(over));
}

#define V __m256
#define VI __m256i
#define V_LANES 8
#define V_LOAD(p) _mm256_loadu_ps(p)
#define V_STORE(p, v) _mm256_storeu_ps(p, v)
#define V_SET1(x) _mm256_set1_ps(x)
#define V_ADD(a, b) _mm256_add_ps(a, b)
#define V_SUB(a, b) _mm256_sub_ps(a, b)
#define V_MUL(a, b) _mm256_mul_ps(a, b)
#define V_DIV(a, b) _mm256_div_ps(a, b)
#define V_MIN(a, b) _mm256_min_ps(b, a)
#define V_MAX(a, b) _mm256_max_ps(b, a)
#define V_BITS(v) _mm256_castps_si256(v)
#define V_FROM_BITS(v) _mm256_castsi256_ps(v)
#define V_TO_I32(v) _mm256_cvtps_epi32(v)
#define V_ROUND_F16(v) round_half(v)
#define VI_LOAD(p) _mm256_loadu_si256((const void *)(p))
#define VI_SET1(x) _mm256_set1_epi32(x)
#define VI_AND(a, b) _mm256_and_si256(a, b)
#define VI_OR(a, b) _mm256_or_si256(a, b)
#define VI_ADD(a, b) _mm256_add_epi32(a, b)
#define VI_SUB(a, b) _mm256_sub_epi32(a, b)
#define VI_MUL(a, b) _mm256_mullo_epi32(a, b)
#define VI_MAX(a, b) _mm256_max_epi32(a, b)
#define VI_TO_F32(v) _mm256_cvtepi32_ps(v)
#define VI_ZERO_WHERE_GREATER(v, last) _mm256_andnot_si256(_mm256_cmpgt_epi32(v, last), v)
#define VI_TOP(v) top8(v)
#define STORE_I8(p, v) store_i8(p, v)
#include "backend/cpu/quant_tmpl.h"

static void lookup16(float *dst, const uint8_t *code, int64_t n, const float *table, float scale)
{
    const __m256 low = _mm256_loadu_ps(table), high = _mm256_loadu_ps(table + 8);
    const __m256 s = _mm256_set1_ps(scale);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256i c = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(code + i)));
        __m256 v =
            _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, c), _mm256_permutevar8x32_ps(high, c),
                             _mm256_castsi256_ps(_mm256_slli_epi32(c, 28)));
        _mm256_storeu_ps(dst + i, _mm256_mul_ps(v, s));
    }
    for (; i < n; i++) dst[i] = table[code[i]] * scale;
}

/* The bits of a code are those of an F16 of a 256th of its value. */
static void decode_e4m3(float *dst, const uint8_t *code, int64_t n, float scale)
{
    const __m128i size = _mm_set1_epi16(0x7f), sign = _mm_set1_epi16(0x80);
    const __m256 s = _mm256_set1_ps(scale), raise = _mm256_set1_ps(256.0f);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m128i c = _mm_cvtepu8_epi16(_mm_loadl_epi64((const void *)(code + i)));
        __m128i a = _mm_and_si128(c, size), nan = _mm_cmpeq_epi16(a, size);
        __m128i h = _mm_or_si128(_mm_slli_epi16(a, 7), _mm_slli_epi16(_mm_and_si128(c, sign), 8));
        h = _mm_or_si128(h, _mm_and_si128(nan, _mm_set1_epi16(0x7e00)));
        __m256 v = _mm256_mul_ps(_mm256_cvtph_ps(h), raise);
        _mm256_storeu_ps(dst + i, _mm256_mul_ps(v, s));
    }
    for (; i < n; i++) dst[i] = nb_e4m3_to_f32(code[i]) * scale;
}

static int32_t sum_i8(const int8_t *x, int64_t n)
{
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i sums = _mm256_setzero_si256();
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) { /* pairs of bytes stay within 16 bits */
        __m256i pairs = _mm256_maddubs_epi16(ones, _mm256_loadu_si256((const void *)(x + i)));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    int32_t sum = _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
    for (; i < n; i++) sum += x[i];
    return sum;
}

static void widen_u8(uint16_t *dst, const uint8_t *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m128i c = _mm_loadu_si128((const void *)(src + i));
        _mm256_storeu_si256((void *)(dst + i), _mm256_cvtepu8_epi16(c));
    }
    for (; i < n; i++) dst[i] = src[i];
}

static void widen_i8(int16_t *dst, const int8_t *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m128i c = _mm_loadu_si128((const void *)(src + i));
        _mm256_storeu_si256((void *)(dst + i), _mm256_cvtepi8_epi16(c));
    }
    for (; i < n; i++) dst[i] = src[i];
}

void nb_avx2_quant(struct nb_cpu_ops *ops)
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
