/* SPDX-License-Identifier: Apache-2.0
 *
 * layer.h - the working copy of one decoder layer while it is quantized. Internal to pipeline/. */
#ifndef NB_PIPELINE_LAYER_H
#define NB_PIPELINE_LAYER_H

#include "pipeline/run.h"

/* f32 copies of the layer's linears; those of experts come and go one expert at a time. They start as the source's weights, are changed by transforms, and
 * become the dequantized weights as each linear is solved; `engine` multiplies by them all the time. */
struct nb_layer_work {
    int64_t index;
    struct nb_layer *engine;
    struct nb_layer *engine_fp; /* source weights, for the float stream; or NULL */
    const struct nb_arch_linear *linears;
    int n_linears;
    float **w;                         /* [n_linears] of [N,K] */
    float **bias;                      /* [n_linears] of [N], or NULL */
    bool *bias_changed;                /* [n_linears] */
    bool norm_changed[NB_INPUT_COUNT]; /* a fold went into this input's norm */
    float *fold[NB_INPUT_COUNT];       /* [K] this input was divided by it; NULL: it was not */
    int fused_first; /* of the linears whose common largest magnitude is fused_amax; -1: none yet */
    float fused_amax;
};

struct nb_fmat nb_layer_work_matrix(const struct nb_layer_work *w, int i);

/* (Re)loads linear i from the source as f32 and puts it in force. */
int nb_layer_work_load_linear(struct nb_run *r, struct nb_layer_work *w, int i, struct nb_err *err);
/* Frees the copy; the layer must not multiply by it any more. */
void nb_layer_work_drop_linear(struct nb_layer_work *w, int i);

/* Solves linear i if it is to be quantized: its tensors are written, its copy becomes what they mean, and it
 * is reported. stats NULL though the recipe calibrates: the activations were not finite, so only rounding is
 * left. */
int nb_layer_work_solve(struct nb_run *r, struct nb_layer_work *w, int i,
                        const struct nb_stats *stats, struct nb_err *err);
void nb_layer_work_warn_nonfinite(struct nb_run *r, const struct nb_layer_work *w,
                                  const char *linear);

/* Runs one step for every chunk of the quantized stream (and the float one), leaving the input in r->x
 * (r->x_fp), and adds to stats when it is not NULL. */
int nb_layer_work_step(struct nb_run *r, struct nb_layer_work *w, enum nb_input input,
                       struct nb_stats *stats, struct nb_err *err);

/* experts.c: the MLPs of a layer with experts, its MLP input being in r->x (and r->x_fp). With `more` what
 * they give is added to the residual streams. */
int nb_run_experts(struct nb_run *r, struct nb_layer_work *w, bool more, struct nb_err *err);

/* Largest magnitude of linear i and of those that engines fuse with it (q, k, v; gate, up), when a scale of its spec
 * is for the whole matrix: fused matrices need equal ones. 0: no such scale. To be asked in the order in which
 * linears are solved, the first before it is. */
float nb_layer_fused_amax(struct nb_run *r, struct nb_layer_work *w, int i);

/* plain.c: layers that nothing is run for */
struct nb_plain {
    float *w; /* [largest linear] */
    struct nb_arena arena, source;
};
bool nb_run_layer_is_plain(const struct nb_run *r);
int nb_plain_open(struct nb_plain *p, const struct nb_arch *arch,
                  struct nb_err *err); /* close in any case */
void nb_plain_close(struct nb_plain *p);
int nb_run_layer_plain(struct nb_run *r, struct nb_plain *p, int64_t layer, struct nb_err *err);

/* bias.c: do the linears of an input leave the outputs' mean to their biases? Then linear i's gains what its codes
 * lose, as the file will hold it. */
bool nb_bias_takes_mean(const struct nb_run *r, const struct nb_layer_work *w, enum nb_input input);
int nb_bias_correct(struct nb_run *r, struct nb_layer_work *w, int i, const struct nb_bias_job *job,
                    struct nb_err *err);

/* transform.c, transform_smooth.c: AWQ or SmoothQuant scales searched on the float layer, folded, checked. */
int nb_transform_awq(struct nb_run *r, struct nb_layer_work *w, struct nb_err *err);
int nb_transform_smooth(struct nb_run *r, struct nb_layer_work *w, struct nb_err *err);

#endif
