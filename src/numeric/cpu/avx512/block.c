/* SPDX-License-Identifier: Apache-2.0
 *
 * block.c - blocks with AVX-512: 16 lanes. */
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

enum { LANES = 16 };
typedef __m512 VF;
typedef __mmask16 VM;

static inline VF v_set(float x)
{
    return _mm512_set1_ps(x);
}

static inline VF v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

static inline void v_store(float *p, VF x)
{
    _mm512_storeu_ps(p, x);
}

static inline VF v_sqrt(VF x)
{
    return _mm512_sqrt_ps(x);
}

static inline VF v_min(VF a, VF b)
{
    return _mm512_min_ps(a, b);
}

static inline VF v_max(VF a, VF b)
{
    return _mm512_max_ps(a, b);
}

static inline VF v_abs(VF x)
{
    return _mm512_abs_ps(x);
}

static inline VM v_less(VF a, VF b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}

static inline VM m_and(VM a, VM b)
{
    return a & b;
}

static inline VM m_or(VM a, VM b)
{
    return a | b;
}

static inline bool m_any(VM m)
{
    return m != 0;
}

static inline VF v_pick(VM m, VF a, VF b)
{
    return _mm512_mask_mov_ps(b, m, a);
}

static inline VF v_level(VF x, int lo, int hi)
{
    const __m512i bits = _mm512_castps_si512(x + v_set(12582912.0f));
    __m512i l = _mm512_and_si512(bits, _mm512_set1_epi32(0x007fffff));
    l = _mm512_sub_epi32(l, _mm512_set1_epi32(0x00400000));
    l = _mm512_max_epi32(l, _mm512_set1_epi32(lo));
    return _mm512_cvtepi32_ps(_mm512_min_epi32(l, _mm512_set1_epi32(hi)));
}

#define LEVEL nb_block_avx512
#define LEVEL_NAME "avx512"
#include "numeric/cpu/decode_tmpl.h"
#include "numeric/cpu/search_tmpl.h"

#include "numeric/cpu/encode_tmpl.h"

#include "numeric/cpu/encode_k_tmpl.h"

#include "numeric/cpu/level_tmpl.h"
