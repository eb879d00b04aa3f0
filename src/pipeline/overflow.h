/* SPDX-License-Identifier: Apache-2.0
 *
 * overflow.h - numbers beyond float16 are named while the model is made, since engines that compute in it turn
 * them into infinities and then into NaN. Internal to pipeline/. */
#ifndef NB_PIPELINE_OVERFLOW_H
#define NB_PIPELINE_OVERFLOW_H

#include "pipeline/run.h"

/* The larger of `before` and the largest magnitude of x[0..n); NaN counts as infinite. */
float nb_overflow_largest(const float *x, int64_t n, float before);
/* Warns, and notes it in the report, when activations in layer `layer` reach beyond float16. input NB_INPUT_COUNT: the
 * residual stream as the layer leaves it. */
void nb_overflow_activations(struct nb_run *r, int64_t layer, enum nb_input input, float largest);
/* The same for the scales of a linear: beyond float16, or clipped to its largest number. */
void nb_overflow_scales(struct nb_run *r, const struct nb_module_spec *m, const struct nb_qmat *q);

#endif
