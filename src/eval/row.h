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
    float dp;             /* p(target) - p_base(target); nb_eval_row_llamacpp only */
    bool same_top;        /* most likely token agrees; ties go to the lower id */
    bool flip;            /* base was sure (p > 0.9) and the top token changed */
};

/* logits [v] f32; target in [0, v). Sums in f64; results depend on v and the values only. */
void nb_eval_row_one(struct nb_eval_row *out, const float *logits, int64_t v, int32_t target);
/* logits of the model and of base, same vocabulary. */
void nb_eval_row_pair(struct nb_eval_row *out, const float *logits, const float *base, int64_t v,
                      int32_t target);

/* llama.cpp's definitions: log_base [v] are log-probabilities, perhaps rounded so that they do not add up to one;
 * only entries above -16 count; single precision but for the sums. kld may fall below zero by rounding. flip
 * stays as in nb_eval_row_pair. Source: gguf, section 7.3. */
void nb_eval_row_llamacpp(struct nb_eval_row *out, const float *logits, const float *log_base,
                          int64_t v, int32_t target);
/* Largest logit and log(sum of exp(logit - largest)), single precision. */
void nb_eval_row_sum(const float *logits, int64_t v, float *max, float *log_sum);
/* Logits to log-probabilities, in place. */
void nb_eval_row_log_softmax(float *logits, int64_t v);

#endif
