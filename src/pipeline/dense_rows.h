/* SPDX-License-Identifier: Apache-2.0
 *
 * dense_rows.h - a weight of any kind into a planned file as floats. Internal to pipeline/. */
#ifndef NB_PIPELINE_DENSE_ROWS_H
#define NB_PIPELINE_DENSE_ROWS_H

#include "base/err.h"
#include "base/pool.h"
#include "container/safetensors.h"
#include "core/weight.h"

struct nb_dense_rows {
    struct nb_st_writer *writer;
    struct nb_pool *pool;
    enum nb_dtype dtype; /* F16, BF16, F32: what `name` was planned with */
};

/* A few megabytes of rows at a time are decoded over the pool and written. */
int nb_dense_rows_put(const struct nb_dense_rows *d, const char *name, const struct nb_weight *w,
                      struct nb_err *err);

#endif
