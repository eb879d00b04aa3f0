/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb.c - bitsandbytes' numbers with AVX2: 8 lanes, thresholds counted one after another. */
#include <immintrin.h>
#include <stddef.h>
#include <string.h>

#include "numeric/cpu/bnb_levels.h"
#include "numeric/cpu/bnb_limits.h"
#include "numeric/elems.h"

enum { LANES = 8 };
typedef __m256 VF;
typedef __m256i VI;

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

static inline void v_store_codes(uint8_t *p, VI code)
{
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
    _mm_storel_epi64((__m128i *)(void *)p, _mm_packus_epi16(words, words));
}

static inline VF v_abs(VF x)
{
    return _mm256_andnot_ps(v_set(-0.0f), x);
}

static inline VF v_inverse(VF scale)
{
    const VF tiny = _mm256_cmp_ps(v_abs(scale), v_set(1e-38f), _CMP_LT_OQ);
    return v_set(1.0f) / _mm256_blendv_ps(scale, v_set(1e-38f), tiny);
}

/* How many of the n limits lie below x. */
static inline VI rank_of(VF x, const float *limits, int n)
{
    VI rank = _mm256_setzero_si256();
    for (int i = 0; i < n; i++) {
        const VF above = _mm256_cmp_ps(x, v_set(limits[i]), _CMP_GT_OQ);
        rank = _mm256_sub_epi32(rank, _mm256_castps_si256(above));
    }
    return rank;
}

/* table[code] of 16 floats. */
static inline VF lookup(const float *table, VI code)
{
    const VF low = _mm256_permutevar8x32_ps(v_load(table), code);
    const VF high = _mm256_permutevar8x32_ps(v_load(table + 8), code);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)));
}

static inline VI nf4_code(VF x)
{
    return rank_of(x, nb_bnb_nf4_limits, 15);
}

static inline VF nf4_level(VI code)
{
    return lookup(nb_nf4_values, code);
}

static inline VI fp4_code(VF x)
{
    const VI codes =
        _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)nb_bnb_fp4_codes));
    const VI code = _mm256_permutevar8x32_epi32(codes, rank_of(v_abs(x), nb_bnb_fp4_limits, 7));
    const VF negative = _mm256_cmp_ps(x, v_set(0.0f), _CMP_LT_OQ);
    return _mm256_add_epi32(code,
                            _mm256_and_si256(_mm256_castps_si256(negative), _mm256_set1_epi32(8)));
}

static inline VF fp4_level(VI code)
{
    return lookup(nb_fp4_values, code);
}

static inline VI int8_code(VF x)
{
    x = _mm256_min_ps(_mm256_max_ps(x, v_set(-127.0f)), v_set(127.0f));
    return _mm256_add_epi32(_mm256_cvtps_epi32(x), _mm256_set1_epi32(128));
}

static inline VF int8_level(VI code)
{
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(code, _mm256_set1_epi32(128)));
}

static uint32_t top(const float *w, int64_t n)
{
    const VI magnitude = _mm256_set1_epi32(0x7fffffff);
    VI most = _mm256_setzero_si256();
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const VI bits = _mm256_loadu_si256((const __m256i *)(const void *)(w + i));
        most = _mm256_max_epi32(most, _mm256_and_si256(bits, magnitude));
    }
    uint32_t lane[LANES], best = 0;
    _mm256_storeu_si256((__m256i *)(void *)lane, most);
    for (int k = 0; k < LANES; k++) best = lane[k] > best ? lane[k] : best;
    for (; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, w + i, sizeof bits);
        bits &= 0x7fffffffu;
        best = bits > best ? bits : best;
    }
    return best;
}

static inline void halves_step(const float *w, VF factor, uint8_t *code)
{
    const __m128i half = _mm256_cvtps_ph(v_load(w), _MM_FROUND_TO_NEAREST_INT);
    const VI q = _mm256_cvtps_epi32(_mm256_cvtph_ps(half) * factor);
    v_store_codes(code, _mm256_add_epi32(q, _mm256_set1_epi32(128)));
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

#define LEVEL nb_bnb_avx2
#define LEVEL_NAME "avx2"
#include "numeric/cpu/bnb_tmpl.h"
