/* SPDX-License-Identifier: Apache-2.0
 *
 * levels.h - every level of this machine as an operator table, random operands, guarded buffers. */
#ifndef NB_TESTS_KERNELS_LEVELS_H
#define NB_TESTS_KERNELS_LEVELS_H

#include <stdint.h>

#include "backend/cpu/ops.h"
#include "base/rng.h"

enum { MAX_LEVELS = 4 };

struct level {
    const char *name;
    struct nb_cpu_ops ops;
};

/* generic first; levels that the machine lacks are left out. Returns how many. */
int levels_get(struct level out[MAX_LEVELS]);

/* n floats between two guard zones; ends exactly at a page that faults when read. */
float *guarded_new(size_t n);
void guarded_check(const float *p,
                   size_t n); /* fails the test when a guard byte before p changed */
void guarded_free(float *p, size_t n);

void fill_normal(struct nb_rng *rng, float *x, size_t n, float scale);
/* The same values rounded to `type` and stored so at dst. */
void store_as(void *dst, float *x, enum nb_dtype type, size_t n);

#endif
