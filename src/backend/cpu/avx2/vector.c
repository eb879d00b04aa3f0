/* SPDX-License-Identifier: Apache-2.0
 *
 * vector.c - AVX2 forms of the operators beside the matrix products. */
#include <immintrin.h>

#include "backend/cpu/avx2/level.h"
#include "base/half.h"

static inline __attribute__((always_inline)) __m256 load_as(const void *p, enum nb_dtype type)
{
    if (type == NB_F32) return _mm256_loadu_ps(p);
    __m128i half = _mm_loadu_si128(p);
    if (type == NB_F16) return _mm256_cvtph_ps(half);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* p 2^n in two factors, each a normal number: 2^n alone leaves the range before the product
 * does. */
static inline __attribute__((always_inline)) __m256 pow2(__m256 p, __m256 n)
{
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
    __m256i rest = _mm256_sub_epi32(whole, half);
    p = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)));
    return _mm256_mul_ps(p,
                         _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23)));
}

static inline __attribute__((always_inline)) float sum8(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

static inline __attribute__((always_inline)) float top8(__m256 v)
{
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}

static inline __attribute__((always_inline)) __m256i first_lanes(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

#define V __m256
#define V_LANES 8
#define V_LOAD(p) _mm256_loadu_ps(p)
#define V_STORE(p, v) _mm256_storeu_ps(p, v)
#define V_LOAD_PART(p, n) _mm256_maskload_ps(p, first_lanes(n))
#define V_STORE_PART(p, v, n) _mm256_maskstore_ps(p, first_lanes(n), v)
#define V_SET1(x) _mm256_set1_ps(x)
#define V_ADD(a, b) _mm256_add_ps(a, b)
#define V_SUB(a, b) _mm256_sub_ps(a, b)
#define V_MUL(a, b) _mm256_mul_ps(a, b)
#define V_DIV(a, b) _mm256_div_ps(a, b)
#define V_MIN(a, b) _mm256_min_ps(b, a) /* NaN in a stays */
#define V_MAX(a, b) _mm256_max_ps(b, a)
#define V_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define V_FNMA(a, b, c) _mm256_fnmadd_ps(a, b, c)
#define V_ROUND(x) _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define V_POW2(p, n) pow2(p, n)
#define V_SUM(v) sum8(v)
#define V_TOP(v) top8(v)
#define V_ZERO_WHERE_EQUAL(v, w) _mm256_andnot_ps(_mm256_cmp_ps(v, w, _CMP_EQ_OQ), v)
#define V_LOAD_AS(p, type) load_as(p, type)
#define V_LOAD_U8(p) _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(p))))
#include "backend/cpu/vector_tmpl.h"

static void unpack_u4(uint8_t *code, const uint8_t *src, int64_t n)
{
    const __m256i low = _mm256_set1_epi16(0x0f0f);
    int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i two = _mm256_cvtepu8_epi16(_mm_loadu_si128((const void *)(src + i / 2)));
        two = _mm256_or_si256(
            two, _mm256_slli_epi16(two, 4)); /* byte 0: low nibble below, byte 1: high */
        _mm256_storeu_si256((void *)(code + i), _mm256_and_si256(two, low));
    }
    for (; i < n; i++) code[i] = (i & 1) ? src[i / 2] >> 4 : src[i / 2] & 15;
}

void nb_avx2_vectors(struct nb_cpu_ops *ops)
{
    ops->vector_name = "avx2";
    ops->dot = dot;
    ops->dequant_u8 = dequant_u8;
    ops->unpack_u4 = unpack_u4;
    ops->rmsnorm = rmsnorm;
    ops->rope = rope;
    ops->act[0] = act_silu;
    ops->act[2] = act_gelu_tanh;
    ops->act[3] = act_relu;
    ops->add = add;
    ops->add_f64 = add_f64;
    ops->softcap = softcap;
    ops->logsumexp = logsumexp;
    ops->exp_sum = exp_sum;
    ops->softmax = softmax;
    ops->scale = scale;
}

void nb_cpu_ops_avx2(struct nb_cpu_ops *ops)
{
    nb_avx2_tiles(ops);
    nb_avx2_vectors(ops);
    nb_avx2_quant(ops);
}
