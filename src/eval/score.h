/* SPDX-License-Identifier: Apache-2.0
 *
 * score.h - from hidden states to counts: tiles of logits, rows, sums per cluster. Internal to eval/.
 *
 * [T, vocabulary] is never whole. Rows are scored in fixed pieces over the pool and added up in their
 * order, so threads change no digit. */
#ifndef NB_EVAL_SCORE_H
#define NB_EVAL_SCORE_H

#include "base/pool.h"
#include "eval/eval.h"
#include "eval/llamacpp.h"
#include "eval/logits.h"
#include "eval/row.h"

struct nb_eval_head { /* who turns hidden states into logits */
    void *ctx;
    int64_t hidden_size, vocabulary;
    void (*logits)(void *ctx, const float *hidden, int64_t m, float *out);
    const struct nb_eval_logits
        *file; /* in its place: rows read from a file, hidden states are not looked at */
};

struct nb_eval_counts { /* per cluster, [n_clusters] each */
    double *weight, *nll, *nll_base, *rows, *kld, *same_top;
};

struct nb_eval_score {
    const struct nb_eval_plan *plan;
    struct nb_eval_head head, base;
    bool paired, llamacpp; /* is there a base; is it compared by llama.cpp's definitions */
    struct nb_pool *pool;
    struct nb_eval_logits_out *save; /* set after init: the model's logits go there too; or NULL */
    unsigned char *saved;            /* [max_rows] rows of that file */
    int64_t max_rows;                /* of a tile */
    float *logits, *logits_base;     /* [max_rows, vocabulary] */
    struct nb_eval_row *rows;        /* [max_rows] */
    int64_t tile_rows;               /* of the tile at hand */
    int64_t segment, first_row;      /* where it lies in the plan */
    const int32_t *targets;
    struct nb_eval_counts counts;
    double *count_memory;
    float *kld, *dp; /* every scored position; dp for llamacpp only */
    struct nb_eval_moments moments;
    int64_t n_rows, n_same, n_flips;
    double nll, weight, nll_squares; /* running sums */
};

/* base NULL: one model only. NB_E_SPEC when the vocabularies differ. Release also after an error. */
int nb_eval_score_init(struct nb_eval_score *s, const struct nb_eval_plan *plan,
                       const struct nb_eval_head *head, const struct nb_eval_head *base,
                       struct nb_pool *pool, struct nb_err *err);
/* The model's logits are also written to `out`; before the first segment. */
int nb_eval_score_save(struct nb_eval_score *s, struct nb_eval_logits_out *out, struct nb_err *err);
/* Hidden states [n - 1, hidden_size] of segment `index` by the model and, with a base, by it. */
int nb_eval_score_segment(struct nb_eval_score *s, int64_t index, const float *hidden,
                          const float *hidden_base, struct nb_err *err);
/* `done` segments are scored; the callback hears of it. */
void nb_eval_score_report(const struct nb_eval_score *s, int64_t done,
                          const struct nb_progress *progress);
void nb_eval_score_finish(struct nb_eval_score *s, struct nb_eval_result *out);
void nb_eval_score_release(struct nb_eval_score *s);

/* Tokens of the longest segment that are fed. */
int64_t nb_eval_longest(const struct nb_eval_plan *plan);

#endif
