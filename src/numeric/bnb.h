/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb.h - what the files of bitsandbytes' encodings share. */
#ifndef NB_NUMERIC_BNB_H
#define NB_NUMERIC_BNB_H

#include <math.h>

#include "numeric/cpu/bnb_levels.h"
#include "numeric/encodings.h"

enum { NB_BNB_PIECE = 1 << 16 }; /* weights between two turns of the pool */

enum nb_bnb_kind nb_bnb_kind_of(const struct nb_qspec *spec);

/* bitsandbytes keeps an absmax below 1e-38 from the division. */
static inline struct nb_bnb_scale nb_bnb_scale_of(float scale)
{
    return (struct nb_bnb_scale){scale, 1.0f / (fabsf(scale) < 1e-38f ? 1e-38f : scale)};
}

/* bnb.c: numeric.h's functions that are the same for all kinds. */
unsigned nb_bnb_nearest(const struct nb_qspec *spec, float w, const struct nb_group_params *p);
void nb_bnb_round_group(const struct nb_qspec *spec, const float *w, int64_t n,
                        const struct nb_group_params *p, uint8_t *code, float *value);
void nb_bnb_round_lanes(const struct nb_qspec *spec, const float *w, int64_t n,
                        const struct nb_lane_params *p, uint8_t *code, float *value);
/* NB_E_NUMERIC naming the first weight that is not finite, or whose magnitude is above most. */
int nb_bnb_refuse(const float *w, int64_t cols, int64_t n, float most, struct nb_err *err);

/* bnb_fit.c */
void nb_bnb_fit(const struct nb_grid_opts *opts, const float *w, const float *u, int64_t n,
                struct nb_group_params *out);
float nb_bnb_int8_scale(float scale); /* the nearest that a file can hold */

/* bnb_nest.c: mean in f32 in the order of torch's sum over a contiguous tensor by one thread. */
float nb_bnb_mean(const float *x, int64_t n);
/* Nested absmax: codes, super-scales and offset from q->scale.value, which becomes what they mean.
 * positive: no scale above 0 becomes 0 or less, as bitsandbytes' own may. NB_E_NUMERIC: the mean is not finite. */
int nb_bnb_nest(struct nb_qmat *q, bool positive, struct nb_pool *pool, struct nb_err *err);

#endif
