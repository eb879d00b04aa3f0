/* SPDX-License-Identifier: Apache-2.0
 *
 * hessian.h - H / n_tokens in f32 with its factor, shared by all linears of an input; private to this folder. */
#ifndef NB_QUANT_HESSIAN_H
#define NB_QUANT_HESSIAN_H

#include "quant/problem.h"

struct nb_factor_wish {
    enum nb_act_order order; /* NONE, STATIC, GROUP or PIVOTED */
    double damp;             /* start damping, share of the mean diagonal */
    int64_t group;           /* columns of a group: for GROUP and for the ladder */
    bool permuted;           /* h stands in the order of desc_act */
};

struct nb_hessian {
    int64_t k, n_tokens;
    float *h;           /* [K,K]; its diagonal as nb_hessian_damp left it */
    double *diag, mean; /* [K] undamped diagonal and its mean */
    struct nb_factor f; /* after nb_hessian_factor */
    struct nb_factor_wish wish;
    bool factored;
    void *block; /* [K,K] f64 of storage: h, then half */
    float *half; /* [K,K] the factor's, or scratch before there is one */
    float *line; /* [K] scratch */
    int32_t *at; /* of f */
};

/* A copy of the sums; release with nb_hessian_release. NB_E_NOMEM. */
int nb_hessian_init(struct nb_hessian *h, const struct nb_stats *stats, struct nb_err *err);
void nb_hessian_release(struct nb_hessian *h);
/* What condensed statistics share, or a copy made in *own (release it in any case). */
int nb_hessian_of(struct nb_hessian **out, struct nb_hessian *own, const struct nb_stats *stats,
                  struct nb_err *err);
/* Sets the diagonal to its plain value plus add; returns h. */
const float *nb_hessian_damp(struct nb_hessian *h, double add);
/* h and diag to the order column[j] (storage column of the new column j), in place. Drops nothing that the
 * inverse permutation does not bring back; a factor made before is in the other order. NB_E_NOMEM. */
int nb_hessian_permute(struct nb_hessian *h, const int32_t *column, struct nb_err *err);
/* f as wished, unless it is there already. NB_E_NUMERIC, NB_E_NOMEM. */
int nb_hessian_factor(struct nb_hessian *h, const struct nb_factor_wish *wish,
                      struct nb_backend *be, struct nb_err *err);
/* at[position] for the wish. scratch [K,K] is used by PIVOTED only, and h's diagonal is damped then. */
int nb_hessian_order(int32_t *at, struct nb_hessian *h, const struct nb_factor_wish *wish,
                     float *scratch, struct nb_backend *be, struct nb_err *err);

#endif
