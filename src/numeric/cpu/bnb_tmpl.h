/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb_tmpl.h - what a level's file has in common with the others: the three kinds and the entry. Included with VF,
 * VI, LANES, the v_* functions and nf4_code, nf4_level, fp4_code, fp4_level, int8_code, int8_level, halves,
 * top defined; LEVEL and LEVEL_NAME name the entry. */

enum { SUMS = NB_BNB_LANES / LANES };

/* The partial sums in one fixed order. */
static inline float total_of(const VF sum[SUMS])
{
    float acc[NB_BNB_LANES], s[4];
    for (int k = 0; k < SUMS; k++) v_store(acc + k * LANES, sum[k]);
    for (int i = 0; i < 4; i++) s[i] = (acc[i] + acc[i + 4]) + (acc[i + 8] + acc[i + 12]);
    return (s[0] + s[2]) + (s[1] + s[3]);
}

/* Fewer than LANES of them. */
static inline void copy_floats(float *out, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n && i < NB_BNB_LANES; i++) out[i] = x[i];
}

static inline void copy_codes(uint8_t *out, const uint8_t *x, int64_t n)
{
    for (int64_t i = 0; i < n && i < NB_BNB_LANES; i++) out[i] = x[i];
}

#define OF(name) nf4_##name
#include "numeric/cpu/bnb_kind_tmpl.h"
#undef OF
#define OF(name) fp4_##name
#include "numeric/cpu/bnb_kind_tmpl.h"
#undef OF
#define OF(name) int8_##name
#include "numeric/cpu/bnb_kind_tmpl.h"
#undef OF

const struct nb_bnb_level LEVEL = {
    .name = LEVEL_NAME,
    .top = top,
    .halves = halves,
    .round = {[NB_BNB_NF4] = nf4_round, [NB_BNB_FP4] = fp4_round, [NB_BNB_INT8] = int8_round},
    .lanes = {[NB_BNB_NF4] = nf4_lanes, [NB_BNB_FP4] = fp4_lanes, [NB_BNB_INT8] = int8_lanes},
    .error = {[NB_BNB_NF4] = nf4_error, [NB_BNB_FP4] = fp4_error, [NB_BNB_INT8] = int8_error},
    .moments =
        {[NB_BNB_NF4] = nf4_moments, [NB_BNB_FP4] = fp4_moments, [NB_BNB_INT8] = int8_moments},
};
