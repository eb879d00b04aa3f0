/* SPDX-License-Identifier: Apache-2.0
 *
 * act.h - rows of x rounded to the numbers that a linear asks for, as many at a time as memory holds. */
#ifndef NB_BACKEND_ACT_H
#define NB_BACKEND_ACT_H

#include "backend/kernels.h"

/* Whether the rule has all it needs; NB_E_SPEC names what is missing. */
int nb_act_check(const struct nb_act_rule *rule, const char *name, struct nb_err *err);
/* Memory for inputs of `cols` columns; nothing runs meanwhile. NB_E_NOMEM. */
int nb_act_reserve(struct nb_backend *be, int64_t cols, const char *name, struct nb_err *err);

struct nb_act_input {
    struct nb_backend *be;
    struct nb_act_rule rule;
    bool
        codes; /* as int8 and scales, for kernels that take codes; else as floats of the same values */
    const float *x;
    int64_t m, k, ldx;
    /* set by nb_act_begin */
    int64_t at_once; /* rows that nb_act_rows can make; at least 64 */
    float amax;      /* NB_ACT_FP8_TENSOR: of all of x */
    int64_t n_outliers;
};

/* Looks at the whole input, where the rule asks for that. */
void nb_act_begin(struct nb_act_input *in);

struct nb_act_rows { /* valid until the next call */
    const float *x;  /* [rows, k], ld k; or */
    struct nb_codes codes;
};
/* Rows [first, first + rows) of the input, rows <= at_once. */
struct nb_act_rows nb_act_make_rows(const struct nb_act_input *in, int64_t first, int64_t rows);

#endif
