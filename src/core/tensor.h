/* SPDX-License-Identifier: Apache-2.0
 *
 * tensor.h - views: a named tensor inside a file, and a plain f32 matrix. Neither owns its bytes. */
#ifndef NB_CORE_TENSOR_H
#define NB_CORE_TENSOR_H

#include <stdint.h>

#include "base/span.h"
#include "core/dtype.h"

enum { NB_MAX_RANK = 8 };

struct nb_tensor {
    const char *name;
    enum nb_dtype dtype;
    int rank;
    int64_t shape[NB_MAX_RANK]; /* C order, last contiguous */
    struct nb_span data;        /* little-endian, exactly the size shape and dtype say */
};

/* Number of elements; the maker of the view has checked that it fits. */
static inline int64_t nb_tensor_count(const struct nb_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

/* f32 matrix [rows, cols], row-major, row r at data + r*ld. */
struct nb_fmat {
    float *data;
    int64_t rows, cols, ld;
};

#endif
