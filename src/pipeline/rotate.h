/* SPDX-License-Identifier: Apache-2.0
 *
 * rotate.h - the source rotated before anything else (R1 over the residual stream, R2 over the heads of values), as a
 * float model of its own in the work folder. Internal to pipeline/. */
#ifndef NB_PIPELINE_ROTATE_H
#define NB_PIPELINE_ROTATE_H

#include "pipeline/run.h"

/* NB_E_SPEC with the reason when the function of this architecture would change. */
int nb_rotate_check(const struct nb_model *model, struct nb_err *err);
/* Makes `dir` (tensors and config.json) if it is not there yet and opens it: the same function of tokens, other
 * weights, norms of one, the head on its own. Deterministic. */
int nb_rotate_model(const struct nb_run *r, const char *dir, struct nb_model **out,
                    struct nb_err *err);

#endif
