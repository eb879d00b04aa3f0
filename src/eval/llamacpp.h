/* SPDX-License-Identifier: Apache-2.0
 *
 * llamacpp.h - sums over positions and the statistics that llama.cpp prints from them. Internal to eval/. */
#ifndef NB_EVAL_LLAMACPP_H
#define NB_EVAL_LLAMACPP_H

#include "core/result.h"
#include "eval/row.h"

struct nb_eval_moments {
    int64_t n, n_same;
    double nll, nll2, base, base2, nll_base, kld, kld2, dp, dp2,
        dp4; /* sums and sums of products */
};

void nb_eval_moments_add(struct nb_eval_moments *m, const struct nb_eval_row *row);

/* kld, dp: [m->n] values of each position; they are sorted. m->n > 0. */
void nb_eval_moments_finish(const struct nb_eval_moments *m, float *kld, float *dp,
                            struct nb_llamacpp_result *out);

#endif
