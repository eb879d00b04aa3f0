/* SPDX-License-Identifier: Apache-2.0
 *
 * row.h - one position: from a row of logits to what is counted. Internal to eval/. */
#ifndef NB_EVAL_ROW_H
#define NB_EVAL_ROW_H

#include <stdbool.h>
#include <stdint.h>

struct nb_eval_row {
    double nll, nll_base; /* -log p(target), nats; not finite when a logit is not */
    double kld;           /* KL(base || model), nats */
    bool same_top;        /* most likely token agrees; ties go to the lower id */
    bool flip;            /* base was sure (p > 0.9) and the top token changed */
};

/* logits [v] f32; target in [0, v). Sums in f64; results depend on v and the values only. */
void nb_eval_row_one(struct nb_eval_row *out, const float *logits, int64_t v, int32_t target);
/* logits of the model and of base, same vocabulary. */
void nb_eval_row_pair(struct nb_eval_row *out, const float *logits, const float *base, int64_t v,
                      int32_t target);

#endif
