/* SPDX-License-Identifier: Apache-2.0
 *
 * backend.c - making a backend: choose a level, take scratch for every thread, check that it
 * computes. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/features.h"
#include "backend/internal.h"
#include "backend/selfcheck.h"
#include "base/mem.h"

enum { FACTOR_FLOATS = NB_FACTOR_BLOCK * NB_FACTOR_BLOCK };

static bool make_scratch(struct nb_scratch *s)
{
    const size_t a = (size_t)(NB_BLOCK_M + NB_TILE_MAX_MR) * NB_BLOCK_K + NB_PACK_SLACK;
    const size_t b = (size_t)NB_BLOCK_N * NB_BLOCK_K + NB_PACK_SLACK;
    const size_t rows = NB_DOT_MAX_K + NB_PACK_SLACK, tile = NB_TILE_MAX_MR * NB_TILE_MAX_NR;
    s->all_floats = a + b + rows + tile;
    if (s->all_floats < NB_SCRATCH_MIN_FLOATS) s->all_floats = NB_SCRATCH_MIN_FLOATS;
    s->all = nb_alloc(s->all_floats, sizeof *s->all);
    if (!s->all) return false;
    s->a = s->all;
    s->b = s->a + a;
    s->rows = s->b + b;
    s->tile = s->rows + rows;
    return true;
}

static int make(struct nb_backend *be, const char *cpu, struct nb_err *err)
{
    int rc = nb_cpu_choose(&be->features, cpu, err);
    if (rc) return rc;
    nb_cpu_ops_init(&be->ops, be->features);
    int threads = nb_pool_threads(be->pool);
    be->scratch = nb_calloc((size_t)threads, sizeof *be->scratch);
    be->factor = nb_alloc(FACTOR_FLOATS, sizeof *be->factor);
    bool made = be->scratch && be->factor;
    for (int i = 0; made && i < threads; i++) made = make_scratch(&be->scratch[i]);
    if (!made) return nb_fail(err, NB_E_NOMEM, "no memory for the scratch of %d threads", threads);
    return nb_backend_selfcheck(be, err);
}

int nb_backend_new(struct nb_backend **out, struct nb_pool *pool, const char *cpu,
                   struct nb_err *err)
{
    if (!cpu || !*cpu) cpu = getenv("NB_CPU");
    struct nb_backend *be = nb_xalloc(sizeof *be);
    be->pool = pool;
    int rc = make(be, cpu, err);
    if (rc) {
        nb_backend_free(be);
        be = NULL;
    }
    *out = be;
    return rc;
}

void nb_backend_free(struct nb_backend *be)
{
    if (!be) return;
    for (int i = 0; be->scratch && i < nb_pool_threads(be->pool); i++) nb_free(be->scratch[i].all);
    nb_free(be->scratch);
    nb_free(be->factor);
    nb_free(be->act.data);
    nb_free(be);
}

bool nb_backend_has_bf16(const struct nb_backend *be)
{
    return be->ops.tile_bf16 != NULL;
}

enum nb_precision nb_backend_set_precision(struct nb_backend *be, enum nb_precision precision)
{
    assert(precision == NB_PRECISION_F32 || nb_backend_has_bf16(be));
    enum nb_precision before = be->precision;
    be->precision = precision;
    return before;
}

struct nb_pool *nb_backend_pool(const struct nb_backend *be)
{
    return be->pool;
}

struct nb_pool *nb_backend_pool_for(const struct nb_backend *be, int64_t macs)
{
    return macs < NB_PIECE_MIN_MACS ? NULL : be->pool;
}

void nb_backend_describe(const struct nb_backend *be, char *out, size_t bytes)
{
    char features[96];
    nb_cpu_describe(be->features, features, sizeof features);
    snprintf(out, bytes, "cpu (%s), f32 tiles %s %dx%d, vectors %s, %d threads", features,
             be->ops.tile_name, be->ops.mr, be->ops.nr, be->ops.vector_name,
             nb_pool_threads(be->pool));
}
