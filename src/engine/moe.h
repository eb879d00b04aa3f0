/* SPDX-License-Identifier: Apache-2.0
 *
 * moe.h - layers with experts; inside engine/ only. */
#ifndef NB_ENGINE_MOE_H
#define NB_ENGINE_MOE_H

#include "engine/layer.h"

/* What nb_moe_pass needs of a pass's scratch, per token; 0: no layer has experts. */
int64_t nb_moe_scratch_floats(const struct nb_arch *a);
/* Router and shared expert's gate; nothing for a layer without experts. */
int nb_moe_load(struct nb_layer *l, const struct nb_model *model, struct nb_err *err);
void nb_moe_release(struct nb_layer *l);
/* y [t, hidden] = what the experts give for x [t, hidden]. Allocates nothing. */
void nb_moe_pass(struct nb_layer *l, const struct nb_pass *p, const float *x, float *y);

static inline void nb_moe_add(float *y, const float *x, float weight, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] += weight * x[i];
}

#endif
