/* SPDX-License-Identifier: Apache-2.0
 *
 * quant.c - decoding and rounding to few bits, AVX-512. */
#include <immintrin.h>

#include "backend/cpu/avx512/level.h"

static inline __attribute__((always_inline)) __m512 round_half(__m512 x)
{
    const __m512i infinity = _mm512_set1_epi32(0x7f800000), size = _mm512_set1_epi32(0x7fffffff);
    __m512 v = _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    __m512i bits = _mm512_and_si512(_mm512_castps_si512(v), size);
    return _mm512_mask_mov_ps(v, _mm512_cmpeq_epi32_mask(bits, infinity), x);
}

#define V __m512
#define VI __m512i
#define V_LANES 16
#define V_LOAD(p) _mm512_loadu_ps(p)
#define V_STORE(p, v) _mm512_storeu_ps(p, v)
#define V_SET1(x) _mm512_set1_ps(x)
#define V_ADD(a, b) _mm512_add_ps(a, b)
#define V_SUB(a, b) _mm512_sub_ps(a, b)
#define V_MUL(a, b) _mm512_mul_ps(a, b)
#define V_DIV(a, b) _mm512_div_ps(a, b)
#define V_MIN(a, b) _mm512_min_ps(b, a)
#define V_MAX(a, b) _mm512_max_ps(b, a)
#define V_BITS(v) _mm512_castps_si512(v)
#define V_FROM_BITS(v) _mm512_castsi512_ps(v)
#define V_TO_I32(v) _mm512_cvtps_epi32(v)
#define V_ROUND_F16(v) round_half(v)
#define VI_LOAD(p) _mm512_loadu_si512(p)
#define VI_SET1(x) _mm512_set1_epi32(x)
#define VI_AND(a, b) _mm512_and_si512(a, b)
#define VI_OR(a, b) _mm512_or_si512(a, b)
#define VI_ADD(a, b) _mm512_add_epi32(a, b)
#define VI_SUB(a, b) _mm512_sub_epi32(a, b)
#define VI_MUL(a, b) _mm512_mullo_epi32(a, b)
#define VI_MAX(a, b) _mm512_max_epi32(a, b)
#define VI_TO_F32(v) _mm512_cvtepi32_ps(v)
#define VI_ZERO_WHERE_GREATER(v, last) _mm512_maskz_mov_epi32(_mm512_cmple_epi32_mask(v, last), v)
#define VI_TOP(v) _mm512_reduce_max_epi32(v)
#define STORE_I8(p, v) _mm_storeu_si128((void *)(p), _mm512_cvtsepi32_epi8(v))
#include "backend/cpu/quant_tmpl.h"

static void lookup16(float *dst, const uint8_t *code, int64_t n, const float *table, float scale)
{
    const __m512 values = _mm512_loadu_ps(table), s = _mm512_set1_ps(scale);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m512i c = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(code + i)));
        _mm512_storeu_ps(dst + i, _mm512_mul_ps(_mm512_permutexvar_ps(c, values), s));
    }
    for (; i < n; i++) dst[i] = table[code[i]] * scale;
}

/* The bits of a code are those of an F16 of a 256th of its value. */
static void decode_e4m3(float *dst, const uint8_t *code, int64_t n, float scale)
{
    const __m256i size = _mm256_set1_epi16(0x7f), sign = _mm256_set1_epi16(0x80);
    const __m512 s = _mm512_set1_ps(scale), raise = _mm512_set1_ps(256.0f);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m256i c = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(code + i)));
        __m256i a = _mm256_and_si256(c, size), nan = _mm256_cmpeq_epi16(a, size);
        __m256i h = _mm256_or_si256(_mm256_slli_epi16(a, 7),
                                    _mm256_slli_epi16(_mm256_and_si256(c, sign), 8));
        h = _mm256_or_si256(h, _mm256_and_si256(nan, _mm256_set1_epi16(0x7e00)));
        __m512 v = _mm512_mul_ps(_mm512_cvtph_ps(h), raise);
        _mm512_storeu_ps(dst + i, _mm512_mul_ps(v, s));
    }
    for (; i < n; i++) dst[i] = nb_e4m3_to_f32(code[i]) * scale;
}

static int32_t sum_i8(const int8_t *x, int64_t n)
{
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i sums = _mm512_setzero_si512();
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) { /* pairs of bytes stay within 16 bits */
        __m512i pairs = _mm512_maddubs_epi16(ones, _mm512_loadu_si512(x + i));
        sums = _mm512_add_epi32(sums, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
    int32_t sum = _mm512_reduce_add_epi32(sums);
    for (; i < n; i++) sum += x[i];
    return sum;
}

static void widen_u8(uint16_t *dst, const uint8_t *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i c = _mm256_loadu_si256((const void *)(src + i));
        _mm512_storeu_si512(dst + i, _mm512_cvtepu8_epi16(c));
    }
    for (; i < n; i++) dst[i] = src[i];
}

static void widen_i8(int16_t *dst, const int8_t *src, int64_t n)
{
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i c = _mm256_loadu_si256((const void *)(src + i));
        _mm512_storeu_si512(dst + i, _mm512_cvtepi8_epi16(c));
    }
    for (; i < n; i++) dst[i] = src[i];
}

void nb_avx512_quant(struct nb_cpu_ops *ops)
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
