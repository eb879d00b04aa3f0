/* SPDX-License-Identifier: Apache-2.0
 *
 * tile.c - the AVX-512 tile over fours of bytes: the same registers, four times the products per
 * instruction. */
#include <immintrin.h>

#include "backend/cpu/avx512vnni/level.h"

static inline __attribute__((always_inline)) __m512 add_fours(__m512 a, __m512 b, __m512 c)
{
    return _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_castps_si512(c), _mm512_castps_si512(b),
                                                   _mm512_castps_si512(a)));
}

#define T_ARGS nb_tile_f32
#define T_REAL float
#define T_VEC __m512
#define T_LANES 16
#define T_MR 14
#define T_NV 2
#define T_NAME tile_i8_14x32
#define T_BODY tile_i8_body
#define T_LOAD(p) _mm512_loadu_ps(p)
#define T_STORE(p, v) _mm512_storeu_ps(p, v)
#define T_SET1(x) _mm512_set1_ps(x)
#define T_ZERO() _mm512_setzero_ps()
#define T_FMA(a, b, c) add_fours(a, b, c)
#define T_ADD(a, b)                                                                                \
    _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)))
#include "backend/cpu/tile_tmpl.h"

void nb_avx512vnni_tiles(struct nb_cpu_ops *ops)
{
    ops->code_k = 4;
    ops->tile_i8 = tile_i8_14x32;
}
