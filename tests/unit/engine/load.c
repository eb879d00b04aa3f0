/* SPDX-License-Identifier: Apache-2.0
 *
 * load.c - see load.h. */
#include "load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "support/folder.h"

struct loaded load_golden(const char *name, int threads)
{
    struct nb_err err = {0};
    struct loaded l = {.pool = nb_pool_new(threads, &err)};
    char relative[256];
    snprintf(relative, sizeof relative, "tests/golden/models/%s", name);
    char *path = source_path(relative);
    assert_non_null(l.pool);
    if (nb_backend_new(&l.be, l.pool, NULL, &err) || nb_model_open(&l.model, path, &err) ||
        nb_engine_new(&l.engine, l.model, l.be, &err)) {
        fail_msg("%s", err.text);
    }
    free(path);
    return l;
}

void load_release(struct loaded *l)
{
    nb_engine_free(l->engine);
    nb_model_close(l->model);
    nb_backend_free(l->be);
    nb_pool_free(l->pool);
}

float *load_floats(int64_t n)
{
    float *x = nb_calloc((size_t)n, sizeof *x);
    assert_non_null(x);
    return x;
}
