/* SPDX-License-Identifier: Apache-2.0
 *
 * make.h - backends of every level and several thread counts, random operands, quantized
 * matrices. */
#ifndef NB_TESTS_UNIT_BACKEND_MAKE_H
#define NB_TESTS_UNIT_BACKEND_MAKE_H

#include "backend/backend.h"
#include "base/mem.h"
#include "base/rng.h"

struct made {
    struct nb_pool *pool;
    struct nb_backend *be;
};

/* NULL-terminated names of the levels this machine has; "generic" first. */
const char *const *make_levels(void);
struct made make_backend(const char *level, int threads);
void make_release(struct made *m);

float *make_normal(struct nb_rng *rng, size_t n); /* nb_free */

/* rows x cols weight of `type` from f32 values, which are rounded to what the type holds. *storage:
 * nb_free. */
struct nb_weight make_weight(float *values, int64_t rows, int64_t cols, enum nb_dtype type,
                             void **storage);

enum make_grouping { MAKE_GROUPS, MAKE_PER_CHANNEL, MAKE_BLOCKS, MAKE_ACT_ORDER };
struct make_grid {
    int bits;
    enum nb_zero zero;
    enum make_grouping grouping;
};
/* A random quantized matrix; memory from arena. */
struct nb_qmat *make_qmat(struct nb_rng *rng, struct nb_arena *arena, int64_t rows, int64_t cols,
                          struct make_grid grid);

#endif
