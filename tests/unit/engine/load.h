/* SPDX-License-Identifier: Apache-2.0
 *
 * load.h - a golden model with backend and engine, for the tests of this folder. */
#ifndef NB_TESTS_UNIT_ENGINE_LOAD_H
#define NB_TESTS_UNIT_ENGINE_LOAD_H

#include "base/mem.h"
#include "engine/engine.h"

struct loaded {
    struct nb_pool *pool;
    struct nb_backend *be;
    struct nb_model *model;
    struct nb_engine *engine;
};

/* name: a folder of tests/golden/models. */
struct loaded load_golden(const char *name, int threads);
void load_release(struct loaded *l);
float *load_floats(int64_t n); /* nb_free */

#endif
