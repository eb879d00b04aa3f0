/* SPDX-License-Identifier: Apache-2.0
 *
 * sensitivity.h - how much the model's output suffers when one part of it is quantized, for each scheme
 * that part could get. Internal to pipeline/. */
#ifndef NB_PIPELINE_SENSITIVITY_H
#define NB_PIPELINE_SENSITIVITY_H

#include "pipeline/run.h"

enum { NB_MAX_CANDIDATES = 32 };

struct nb_candidate { /* one scheme */
    struct nb_qspec spec;
    bool is_float; /* as in the source */
};

/* A unit is the quantized linears of a layer that share an input: engines fuse these, so they share one scheme too.
 * Unit of (layer, input): layer * NB_INPUT_COUNT + input. */
struct nb_sensitivity {
    struct nb_candidate candidate[NB_MAX_CANDIDATES];
    size_t n_candidates, n_units;
    double *kld;     /* [n_units * n_candidates] nats per token; NaN: the unit cannot have it */
    uint64_t *bytes; /* of its tensors in the file */
    double *bits;    /* the same in bits of codes, scales and zeros alone */
    double *weights; /* [n_units] how many it has; 0: nothing is quantized in it */
};

/* Lists the candidates of the run's container and method that fit the options, fills bytes, bits and weights, and
 * sets kld to 0 or NaN. Release in any case. */
int nb_sensitivity_init(struct nb_sensitivity *s, const struct nb_run *r, struct nb_err *err);
void nb_sensitivity_release(struct nb_sensitivity *s);

/* Fills kld by one pass over the float model, from the calibration windows. For each unit the loss
 * tr(dW H dW^T) of every candidate is computed, and the KL divergence of the whole model is measured with the
 * unit in one of them; the others follow in proportion to their losses. The sum over units predicts the whole.
 * NB_E_NUMERIC when activations are not finite, NB_E_INTERRUPTED, NB_E_NOMEM. */
int nb_sensitivity_measure(struct nb_sensitivity *s, struct nb_run *r, struct nb_err *err);

#endif
