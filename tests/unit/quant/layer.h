/* SPDX-License-Identifier: Apache-2.0
 *
 * layer.h - random layers to quantize: weights, correlated inputs, their statistics. */
#ifndef TESTS_UNIT_QUANT_LAYER_H
#define TESTS_UNIT_QUANT_LAYER_H

#include "quant/hessian.h"

struct layer {
    struct nb_pool *pool;
    struct nb_backend *be;
    int64_t rows, cols, tokens;
    float *w;              /* [rows, cols] */
    float *x;              /* [tokens, cols] */
    struct nb_fmat mat;    /* of w */
    struct nb_stats stats; /* of x */
    double *truth;         /* [cols, cols] true covariance of the inputs */
};

/* Inputs as in algorithms, section 14: log-normal channel scales, 1 % of channels 8 times larger, power-law
 * latent factors and an independent part. The weights and the covariance depend on seed, rows and cols only. */
struct layer layer_make(uint64_t seed, int64_t rows, int64_t cols, int64_t tokens, int threads);
void layer_release(struct layer *l);
/* Statistics of one's own: h [cols, cols] f64, taken as n_tokens times what the solver shall see. */
void layer_set_h(struct layer *l, const double *h);

struct nb_qspec layer_spec(int bits, bool sym, int64_t group);
struct nb_solve_opts layer_opts(int bits, bool sym, int64_t group, enum nb_effort effort);

/* Solves, checks that what came out is well-formed and that the report tells the truth. */
struct nb_solve_report layer_solve(struct layer *l, const char *solver,
                                   const struct nb_solve_opts *opts, struct nb_qmat *q,
                                   struct nb_arena *arena);
/* tr(dW C dW^T) with the true covariance C. */
double layer_true_loss(const struct layer *l, const struct nb_qmat *q);

#endif
