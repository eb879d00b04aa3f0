/* SPDX-License-Identifier: Apache-2.0
 *
 * encodings.h - the encodings of this folder, for its table; everyone else asks nb_numeric_for. */
#ifndef NB_NUMERIC_ENCODINGS_H
#define NB_NUMERIC_ENCODINGS_H

#include "numeric/numeric.h"

extern const struct nb_numeric nb_numeric_int;
extern const struct nb_numeric nb_numeric_bnb4, nb_numeric_bnb8;
extern const struct nb_numeric nb_numeric_float, nb_numeric_nvfp4;

/* int_fit.c: the fit of nb_numeric_int. */
void nb_int_fit(const struct nb_grid_opts *opts, const float *w, const float *u, int64_t n,
                struct nb_group_params *out);

/* x rounded half to even, for |x| < 2^22: exact, and a form that compilers vectorize on any machine. */
static inline float nb_int_rne(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23 */
    float r = x + magic;
    return r - magic;
}

/* Integer code of w minus zero, kept as a float: rne(w / scale) in [lo, hi]. The bound on the quotient
 * keeps nb_int_rne exact; it also sends NaN to lo. */
static inline float nb_int_level(float quotient, float lo, float hi)
{
    float x = quotient > lo ? quotient : lo;
    x = x < hi ? x : hi;
    return nb_int_rne(x);
}

#endif
