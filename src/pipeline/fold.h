/* SPDX-License-Identifier: Apache-2.0
 *
 * fold.h - column scales of one layer folded into what produces its inputs; what transforms that search such
 * scales share. Internal to pipeline/. */
#ifndef NB_PIPELINE_FOLD_H
#define NB_PIPELINE_FOLD_H

#include "pipeline/layer.h"

/* The float layer with room to run chunks of the stream through it without touching the stream, and the scales
 * found. All are found before any is applied (algorithms, section 4.3). */
struct nb_fold_run {
    float *s[NB_MAX_FOLDS]; /* [K] or NULL: not folded */
    float *h, *x, *y;       /* one chunk each */
    float *before;          /* output of the first chunk of the float layer */
    float *norms[NB_INPUT_COUNT], *norm_biases[NB_INPUT_COUNT]; /* as loaded; NULL: there is none */
};

/* Called with each input of a chunk: x [rows, nb_input_width(input)]. */
struct nb_fold_visitor {
    int (*visit)(void *ctx, enum nb_input input, const float *x, int64_t rows, struct nb_err *err);
    void *ctx;
    int64_t chunks; /* this many, evenly spread, are enough; 0: all */
};

/* Zeroed before; release in any case. NB_E_NOMEM. */
int nb_fold_init(struct nb_fold_run *f, struct nb_run *r, struct nb_layer_work *w,
                 struct nb_err *err);
void nb_fold_release(struct nb_fold_run *f);
/* Chunks of the stream through the float layer. NB_E_INTERRUPTED. */
int nb_fold_gather(struct nb_fold_run *f, struct nb_run *r, struct nb_layer_work *w,
                   const struct nb_fold_visitor *v, struct nb_err *err);
/* May fold i of the architecture be used: no linear that stays as it is in the source would change. */
bool nb_fold_allowed(const struct nb_run *r, const struct nb_layer_work *w, int i);
/* The matrices that read the input of fold i, and the spec of the last of them in *opts. Returns how many. */
int nb_fold_matrices(const struct nb_run *r, const struct nb_layer_work *w, int i,
                     struct nb_fmat mats[NB_MAX_LINEARS], struct nb_solve_opts *opts);
/* Folds f->s, whose memory goes over to w; checks that the float function did not move, or puts everything back
 * with a warning that names `what`; rounds changed biases to the file's type. */
int nb_fold_apply(struct nb_fold_run *f, struct nb_run *r, struct nb_layer_work *w,
                  const char *what, struct nb_err *err);

#endif
