/* SPDX-License-Identifier: Apache-2.0
 *
 * weight.h - the weight of one linear, float, quantized or in blocks: y = x W^T + bias, W [rows, cols] = [N, K]. */
#ifndef NB_CORE_WEIGHT_H
#define NB_CORE_WEIGHT_H

#include "base/pool.h"
#include "core/block.h"
#include "core/qmat.h"
#include "core/tensor.h"

struct nb_weight {
    const char *name;        /* module path without ".weight", for messages */
    int64_t rows, cols;      /* N, K */
    struct nb_tensor dense;  /* F16, BF16 or F32 [N, K] when q and blocks are NULL; borrowed */
    const struct nb_qmat *q; /* or quantized; borrowed */
    struct nb_blocks blocks; /* or as a GGUF file has it */
    struct nb_tensor bias;   /* rank 1, [N]; data.data NULL when there is none */
};

/* Row n as f32, whatever the kind. */
void nb_weight_row(const struct nb_weight *w, int64_t n, float *out);
/* All rows: out [N,K]. pool NULL: in the calling thread. */
void nb_weight_rows(const struct nb_weight *w, struct nb_pool *pool, float *out);

#endif
