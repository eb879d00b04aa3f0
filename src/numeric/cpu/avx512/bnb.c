/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb.c - bitsandbytes' numbers with AVX-512: 16 lanes, tables in registers. */
#include <immintrin.h>
#include <stddef.h>
#include <string.h>

#include "numeric/cpu/bnb_levels.h"
#include "numeric/cpu/bnb_limits.h"
#include "numeric/elems.h"

enum { LANES = 16 };
typedef __m512 VF;
typedef __m512i VI;

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

static inline void v_store_codes(uint8_t *p, VI code)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(code));
}

static inline VF v_inverse(VF scale)
{
    const __mmask16 tiny = _mm512_cmp_ps_mask(_mm512_abs_ps(scale), v_set(1e-38f), _CMP_LT_OQ);
    return v_set(1.0f) / _mm512_mask_blend_ps(tiny, scale, v_set(1e-38f));
}

/* One step of a search: lanes above limit[at + half - 1] go on behind it. */
static inline VI search_step(VF x, VF limits, VI at, int half)
{
    const VF limit =
        _mm512_permutexvar_ps(_mm512_add_epi32(at, _mm512_set1_epi32(half - 1)), limits);
    return _mm512_mask_add_epi32(at, _mm512_cmp_ps_mask(x, limit, _CMP_GT_OQ), at,
                                 _mm512_set1_epi32(half));
}

static inline VI nf4_code(VF x)
{
    const VF limits = _mm512_maskz_loadu_ps(0x7fff, nb_bnb_nf4_limits);
    VI at = search_step(x, limits, _mm512_setzero_si512(), 8);
    at = search_step(x, limits, at, 4);
    at = search_step(x, limits, at, 2);
    return search_step(x, limits, at, 1);
}

static inline VF nf4_level(VI code)
{
    return _mm512_permutexvar_ps(code, v_load(nb_nf4_values));
}

static inline VI fp4_code(VF x)
{
    const VF limits = _mm512_maskz_loadu_ps(0x7f, nb_bnb_fp4_limits), a = _mm512_abs_ps(x);
    const VI codes =
        _mm512_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)nb_bnb_fp4_codes));
    VI at = search_step(a, limits, _mm512_setzero_si512(), 4);
    at = search_step(a, limits, at, 2);
    at = _mm512_permutexvar_epi32(search_step(a, limits, at, 1), codes);
    const __mmask16 negative = _mm512_cmp_ps_mask(x, v_set(0.0f), _CMP_LT_OQ);
    return _mm512_mask_add_epi32(at, negative, at, _mm512_set1_epi32(8));
}

static inline VF fp4_level(VI code)
{
    return _mm512_permutexvar_ps(code, v_load(nb_fp4_values));
}

static inline VI int8_code(VF x)
{
    x = _mm512_min_ps(_mm512_max_ps(x, v_set(-127.0f)), v_set(127.0f));
    return _mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(128));
}

static inline VF int8_level(VI code)
{
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(code, _mm512_set1_epi32(128)));
}

static uint32_t top(const float *w, int64_t n)
{
    const VI magnitude = _mm512_set1_epi32(0x7fffffff);
    VI most = _mm512_setzero_si512();
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const VI bits = _mm512_loadu_si512(w + i);
        most = _mm512_max_epi32(most, _mm512_and_si512(bits, magnitude));
    }
    const __mmask16 rest = (__mmask16)((1u << (n - i)) - 1u);
    most =
        _mm512_max_epi32(most, _mm512_and_si512(_mm512_maskz_loadu_epi32(rest, w + i), magnitude));
    return (uint32_t)_mm512_reduce_max_epi32(most);
}

static inline void halves_step(const float *w, VF factor, uint8_t *code)
{
    const __m256i half = _mm512_cvtps_ph(v_load(w), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const VI q = _mm512_cvtps_epi32(_mm512_cvtph_ps(half) * factor);
    v_store_codes(code, _mm512_add_epi32(q, _mm512_set1_epi32(128)));
}

static void halves(const float *w, int64_t n, float factor, uint8_t *code)
{
    const VF by = v_set(factor);
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) halves_step(w + i, by, code + i);
    if (i == n) return;
    float in[LANES] = {0};
    uint8_t out[LANES];
    memcpy(in, w + i, sizeof *in * (size_t)(n - i));
    halves_step(in, by, out);
    memcpy(code + i, out, (size_t)(n - i));
}

#define LEVEL nb_bnb_avx512
#define LEVEL_NAME "avx512"
#include "numeric/cpu/bnb_tmpl.h"
