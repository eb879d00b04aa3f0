/* SPDX-License-Identifier: Apache-2.0
 *
 * make.c - see make.h. */
#include "make.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

const char *const *make_levels(void)
{
    static const char *const all[] = {"generic", "avx2", "avx512", ""}; /* last: all there is */
    static const char *have[5];
    int n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct nb_backend *be;
        struct nb_err err;
        int rc = nb_backend_new(&be, NULL, all[i], &err);
        nb_backend_free(be);
        if (rc == NB_E_SPEC) continue;
        assert_int_equal(rc, 0);
        have[n++] = all[i];
    }
    have[n] = NULL;
    return have;
}

struct made make_backend(const char *level, int threads)
{
    struct nb_err err = {0};
    struct made m = {.pool = nb_pool_new(threads, &err)};
    assert_non_null(m.pool);
    if (nb_backend_new(&m.be, m.pool, level, &err)) fail_msg("%s", err.text);
    return m;
}

void make_release(struct made *m)
{
    nb_backend_free(m->be);
    nb_pool_free(m->pool);
}

float *make_normal(struct nb_rng *rng, size_t n)
{
    float *x = nb_alloc(n, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = (float)nb_rng_normal(rng);
    return x;
}

struct nb_weight make_weight(float *values, int64_t rows, int64_t cols, enum nb_dtype type,
                             void **storage)
{
    const size_t n = (size_t)(rows * cols), bytes = n * (size_t)nb_dtype_bits(type) / 8;
    *storage = nb_alloc(bytes, 1);
    assert_non_null(*storage);
    for (size_t i = 0; i < n; i++) values[i] = nb_round_to(values[i], type);
    assert_true(nb_from_f32(*storage, values, type, n));
    struct nb_weight w = {.name = "test", .rows = rows, .cols = cols};
    w.dense = (struct nb_tensor){.name = "test", .dtype = type, .rank = 2, .shape = {rows, cols}};
    w.dense.data = (struct nb_span){.data = *storage, .bytes = bytes};
    return w;
}

struct nb_qmat *make_qmat(struct nb_rng *rng, struct nb_arena *arena, int64_t rows, int64_t cols,
                          struct make_grid grid)
{
    const int bits = grid.bits;
    const enum nb_zero zero = grid.zero;
    const enum make_grouping grouping = grid.grouping;
    struct nb_err err = {0};
    struct nb_qspec spec = {.elem = {.kind = NB_ELEM_INT, .bits = bits, .vec = 1},
                            .group_rows = 1,
                            .group_cols = 16,
                            .scale_dtype = NB_F16,
                            .zero = zero};
    if (grouping == MAKE_PER_CHANNEL) spec.group_cols = 0;
    if (grouping == MAKE_BLOCKS) spec.group_rows = 8;
    struct nb_qmat *q = nb_arena_calloc(arena, 1, sizeof *q);
    if (nb_qmat_init(q, &spec, rows, cols, arena, &err)) fail_msg("%s", err.text);
    for (int64_t i = 0; i < rows * cols; i++) q->codes[i] = (uint8_t)nb_rng_below(rng, 1u << bits);
    int64_t planes = (rows + q->spec.group_rows - 1) / q->spec.group_rows * q->n_groups;
    for (int64_t i = 0; i < planes; i++) {
        q->scale.value[i] = (float)nb_rng_normal(rng) * 0.1f;
        if (q->zero.value) {
            q->zero.value[i] = zero == NB_ZERO_CODE ? (float)nb_rng_below(rng, 1u << bits)
                                                    : (float)nb_rng_normal(rng);
        }
    }
    if (grouping == MAKE_ACT_ORDER) {
        int32_t *group = nb_arena_alloc(arena, (size_t)cols, sizeof *group);
        for (int64_t k = 0; k < cols; k++)
            group[k] = (int32_t)nb_rng_below(rng, (uint64_t)q->n_groups);
        q->col_group = group;
    }
    return q;
}
