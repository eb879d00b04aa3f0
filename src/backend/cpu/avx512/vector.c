/* SPDX-License-Identifier: Apache-2.0
 *
 * vector.c - AVX-512 forms of the operators beside the matrix products. */
#include <immintrin.h>

#include "backend/cpu/avx512/level.h"
#include "base/half.h"

static inline __attribute__((always_inline)) __m512 load_as(const void *p, enum nb_dtype type)
{
    if (type == NB_F32) return _mm512_loadu_ps(p);
    __m256i half = _mm256_loadu_si256(p);
    if (type == NB_F16) return _mm512_cvtph_ps(half);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

#define V __m512
#define V_LANES 16
#define V_LOAD(p) _mm512_loadu_ps(p)
#define V_STORE(p, v) _mm512_storeu_ps(p, v)
#define V_LOAD_PART(p, n) _mm512_maskz_loadu_ps((__mmask16)((1u << (n)) - 1u), p)
#define V_STORE_PART(p, v, n) _mm512_mask_storeu_ps(p, (__mmask16)((1u << (n)) - 1u), v)
#define V_SET1(x) _mm512_set1_ps(x)
#define V_ADD(a, b) _mm512_add_ps(a, b)
#define V_SUB(a, b) _mm512_sub_ps(a, b)
#define V_MUL(a, b) _mm512_mul_ps(a, b)
#define V_DIV(a, b) _mm512_div_ps(a, b)
#define V_MIN(a, b) _mm512_min_ps(b, a) /* NaN in a stays */
#define V_MAX(a, b) _mm512_max_ps(b, a)
#define V_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define V_FNMA(a, b, c) _mm512_fnmadd_ps(a, b, c)
#define V_ROUND(x) _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define V_POW2(p, n) _mm512_scalef_ps(p, n)
#define V_SUM(v) _mm512_reduce_add_ps(v)
#define V_TOP(v) _mm512_reduce_max_ps(v)
#define V_ZERO_WHERE_EQUAL(v, w)                                                                   \
    _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, w, _CMP_EQ_OQ), _mm512_setzero_ps())
#define V_LOAD_AS(p, type) load_as(p, type)
#define V_LOAD_U8(p) _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(p))))
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

void nb_avx512_vectors(struct nb_cpu_ops *ops)
{
    ops->vector_name = "avx512";
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

void nb_cpu_ops_avx512(struct nb_cpu_ops *ops)
{
    nb_avx512_tiles(ops);
    nb_avx512_vectors(ops);
    nb_avx512_quant(ops);
}
