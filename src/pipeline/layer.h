/* SPDX-License-Identifier: Apache-2.0
 *
 * layer.h - the working copy of one decoder layer while it is quantized. Internal to pipeline/. */
#ifndef NB_PIPELINE_LAYER_H
#define NB_PIPELINE_LAYER_H

#include "pipeline/run.h"

/* f32 copies of the layer's linears. They start as the source's weights, are changed by transforms, and
 * become the dequantized weights as each linear is solved; `engine` multiplies by them all the time. */
struct nb_layer_work {
    int64_t index;
    struct nb_layer *engine;
    struct nb_layer *engine_fp;        /* source weights, for the float stream; or NULL */
    float *w[NB_MAX_LINEARS];          /* [N,K] */
    float *bias[NB_MAX_LINEARS];       /* [N] or NULL */
    bool norm_changed[NB_INPUT_COUNT]; /* a fold went into this input's norm */
    bool bias_changed[NB_MAX_LINEARS];
    float *fold[NB_INPUT_COUNT]; /* [K] this input was divided by it; NULL: it was not */
};

struct nb_fmat nb_layer_work_matrix(const struct nb_layer_work *w, const struct nb_arch *arch,
                                    int i);

/* (Re)loads linear i from the source as f32 and puts it in force. */
int nb_layer_work_load_linear(struct nb_run *r, struct nb_layer_work *w, int i, struct nb_err *err);

/* Runs one step for every chunk of the quantized stream (and the float one), leaving the input in r->x
 * (r->x_fp), and adds to stats when it is not NULL. */
int nb_layer_work_step(struct nb_run *r, struct nb_layer_work *w, enum nb_input input,
                       struct nb_stats *stats, struct nb_err *err);

/* transform.c: AWQ scales searched on the float layer, folded, checked. */
int nb_transform_awq(struct nb_run *r, struct nb_layer_work *w, struct nb_err *err);

#endif
