/* SPDX-License-Identifier: Apache-2.0
 *
 * internal.h - the engine as its own files see it. */
#ifndef NB_ENGINE_INTERNAL_H
#define NB_ENGINE_INTERNAL_H

#include "engine/engine.h"
#include "engine/layer.h"

struct nb_engine {
    const struct nb_arch *arch;
    struct nb_backend *be;
    struct nb_weight embed, positions; /* positions: only where the architecture learns them */
    float *position_row;               /* [hidden], for one of them */
    struct nb_arena arena;             /* of a head whose rows had to be copied */
    float *norm, *norm_bias;           /* bias NULL but for a LayerNorm */
    struct nb_linear head;
    struct nb_layer **layers;
    /* of whole sequences; sessions have their own */
    struct nb_rope_table rope;
    float *buffer;
    int64_t buffer_tokens;
};

/* n tokens of a sequence, the first of them at position `first`. */
int nb_engine_embed(const struct nb_engine *e, const int32_t *ids, int64_t first, int64_t n,
                    float *h, struct nb_err *err);
void nb_engine_norm(struct nb_engine *e, float *h, int64_t n); /* the final norm, in place */
/* One layer: h is updated; x and y hold inputs, nb_pass_width per token each. */
void nb_engine_layer(struct nb_layer *l, const struct nb_pass *p, float *h, float *x, float *y);

#endif
