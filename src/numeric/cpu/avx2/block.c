/* SPDX-License-Identifier: Apache-2.0
 *
 * block.c - blocks with AVX2: 8 lanes. */
#include <immintrin.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "numeric/block_layout.h"
#include "numeric/cpu/levels.h"

static inline void lookup16(const int8_t table[16], const uint8_t *code, int n, int8_t *out)
{
    const __m128i values = _mm_loadu_si128((const __m128i *)(const void *)table);
    for (int i = 0; i < n; i += 16) {
        const __m128i at = _mm_loadu_si128((const __m128i *)(const void *)(code + i));
        _mm_storeu_si128((__m128i *)(void *)(out + i), _mm_shuffle_epi8(values, at));
    }
}

enum { LANES = 8 };
typedef __m256 VF;
typedef __m256 VM;

static inline VF v_set(float x)
{
    return _mm256_set1_ps(x);
}

static inline VF v_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

static inline void v_store(float *p, VF x)
{
    _mm256_storeu_ps(p, x);
}

static inline VF v_sqrt(VF x)
{
    return _mm256_sqrt_ps(x);
}

static inline VF v_min(VF a, VF b)
{
    return _mm256_min_ps(a, b);
}

static inline VF v_max(VF a, VF b)
{
    return _mm256_max_ps(a, b);
}

static inline VF v_abs(VF x)
{
    return _mm256_andnot_ps(v_set(-0.0f), x);
}

static inline VM v_less(VF a, VF b)
{
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}

static inline VM m_and(VM a, VM b)
{
    return _mm256_and_ps(a, b);
}

static inline VM m_or(VM a, VM b)
{
    return _mm256_or_ps(a, b);
}

static inline bool m_any(VM m)
{
    return _mm256_movemask_ps(m) != 0;
}

static inline VF v_pick(VM m, VF a, VF b)
{
    return _mm256_blendv_ps(b, a, m);
}

static inline VF v_level(VF x, int lo, int hi)
{
    const __m256i bits = _mm256_castps_si256(x + v_set(12582912.0f));
    __m256i l = _mm256_and_si256(bits, _mm256_set1_epi32(0x007fffff));
    l = _mm256_sub_epi32(l, _mm256_set1_epi32(0x00400000));
    l = _mm256_max_epi32(l, _mm256_set1_epi32(lo));
    return _mm256_cvtepi32_ps(_mm256_min_epi32(l, _mm256_set1_epi32(hi)));
}

#define LEVEL nb_block_avx2
#define LEVEL_NAME "avx2"
#include "numeric/cpu/decode_tmpl.h"
#include "numeric/cpu/search_tmpl.h"

#include "numeric/cpu/encode_tmpl.h"

#include "numeric/cpu/encode_k_tmpl.h"

#include "numeric/cpu/level_tmpl.h"
