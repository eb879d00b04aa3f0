/* SPDX-License-Identifier: Apache-2.0
 *
 * test_scales.c - scales that rows share, scales that a file holds in its own way, two levels. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "layer.h"
#include "numeric/elems.h"

struct parts {
    struct nb_arena arena;
    struct nb_problem p;
    struct nb_solution s;
};

static void set_up(struct parts *a, struct layer *l, const struct nb_solve_opts *opts)
{
    struct nb_err err = {0};
    nb_arena_init(&a->arena);
    const struct nb_solve_job job = {&l->mat, NULL, opts, l->be};
    if (nb_problem_init(&a->p, &job, NULL, &a->arena, &err)) fail_msg("%s", err.text);
    assert_int_equal(nb_solution_init(&a->s, &a->p, &a->arena, &err), 0);
}

static float amax(const struct layer *l, int64_t r0, int64_t r1, int64_t j0, int64_t j1)
{
    float most = 0.0f;
    for (int64_t r = r0; r < r1; r++) {
        for (int64_t j = j0; j < j1; j++) most = fmaxf(most, fabsf(l->w[r * l->cols + j]));
    }
    return most;
}

/* 37 rows in blocks of 16, 100 columns in groups of 64: each scale is that of the block's largest weight, in the
 * solution and in the matrix handed out. */
static void test_rows_share_the_largest(void **state)
{
    (void)state;
    struct layer l = layer_make(61, 37, 100, 50, 2);
    const struct nb_solve_opts opts = {.grid = {.spec = {.elem = nb_elem_e4m3,
                                                         .group_rows = 16,
                                                         .group_cols = 64,
                                                         .scale_dtype = NB_F32}}};
    struct parts a;
    struct nb_err err = {0};
    struct nb_qmat q;
    set_up(&a, &l, &opts);
    assert_true(nb_scales_are_shared(&a.p));
    nb_fit_groups(&a.p, &a.s);
    assert_int_equal(nb_round_nearest(&a.p, &a.s, &err), 0);
    assert_int_equal(nb_scales_export(&a.p, &a.s, &q, &a.arena, &err), 0);
    assert_int_equal(nb_solution_export(&a.p, &a.s, &q, &a.arena, &err), 0);
    assert_int_equal(nb_qmat_planes(&q), 6);
    for (int64_t r = 0; r < a.p.padded; r++) {
        const int64_t r0 = (r < 37 ? r : 36) / 16 * 16, r1 = r0 + 16 < 37 ? r0 + 16 : 37;
        for (int64_t g = 0; g < 2; g++) {
            const float want = amax(&l, r0, r1, g * 64, g ? 100 : 64) / 448.0f;
            assert_true(a.s.scale[g * a.p.padded + r] == want);
            assert_true(q.scale.value[r0 / 16 * 2 + g] == want);
        }
    }
    /* No code saturates then, so no weight is off by more than half a step of its binade. */
    float row[100];
    for (int64_t r = 0; r < 37; r++) {
        nb_qmat_dequant_row(&q, r, row);
        for (int64_t j = 0; j < 100; j++) {
            const float w = l.w[r * 100 + j];
            const float tiny = q.scale.value[r / 16 * 2 + j / 64] * 0x1p-10f;
            assert_true(fabsf(row[j] - w) <= fabsf(w) / 16.0f * 1.001f + tiny);
        }
    }
    nb_arena_release(&a.arena);
    layer_release(&l);
}

static void test_stored_scales(void **state)
{
    (void)state;
    struct layer l = layer_make(62, 16, 32, 50, 1);
    struct nb_solve_opts opts = {.grid = {.spec = {.elem = nb_elem_e2m1,
                                                   .group_rows = 1,
                                                   .group_cols = 32,
                                                   .scale_dtype = NB_F8_E8M0}}};
    struct parts a;
    set_up(&a, &l, &opts);
    assert_false(nb_scales_are_fine(&a.p));
    static const float near[][2] = {{1.0f, 1.0f},       {1.49f, 1.0f},     {1.5f, 2.0f},
                                    {0.37f, 0.25f},     {0.376f, 0.5f},    {0x1p-120f, 0x1p-120f},
                                    {0x1.7p9f, 0x1p9f}, {0x1p99f, 0x1p99f}};
    for (size_t i = 0; i < sizeof near / sizeof *near; i++)
        assert_true(nb_scale_store(&a.p, near[i][0]) == near[i][1]);
    nb_arena_release(&a.arena);

    /* LLM.int8 keeps 127 times the scale: what comes back must be what was kept. */
    opts.grid.spec = (struct nb_qspec){.elem = {.kind = NB_ELEM_INT, .bits = 8, .vec = 1},
                                       .group_rows = 1,
                                       .group_cols = -1,
                                       .scale_dtype = NB_F32,
                                       .zero = NB_ZERO_CODE,
                                       .symmetric = true,
                                       .zero_implied = true,
                                       .act = NB_ACT_INT8_OUTLIER};
    set_up(&a, &l, &opts);
    for (int i = 1; i < 2000; i++) {
        const float s = nb_scale_store(&a.p, 0.0013f * (float)i);
        assert_true(fabsf(s - 0.0013f * (float)i) < 1e-6f * s);
        assert_true(s == (s * 127.0f) / 127.0f);
    }
    nb_arena_release(&a.arena);
    layer_release(&l);
}

/* The scales of the solution are those that the codes and super-scales of the matrix mean. */
static void test_two_levels_settle(void **state)
{
    (void)state;
    struct layer l = layer_make(63, 40, 128, 50, 1);
    const struct nb_solve_opts opts = {.grid = {.spec = {.elem = nb_elem_nf4,
                                                         .group_rows = 1,
                                                         .group_cols = 32,
                                                         .flat = true,
                                                         .scale_dtype = NB_F32,
                                                         .super_groups = 256,
                                                         .super_flat = true,
                                                         .scale_bits = 8,
                                                         .scale_table = nb_dynamic_map}}};
    struct parts a;
    struct nb_err err = {0};
    struct nb_qmat q;
    set_up(&a, &l, &opts);
    nb_fit_groups(&a.p, &a.s);
    const float free_scale = a.s.scale[0];
    assert_int_equal(nb_scales_export(&a.p, &a.s, &q, &a.arena, &err), 0);
    assert_true(fabsf(a.s.scale[0] - free_scale) < 0.05f * free_scale);
    int moved = 0;
    for (int64_t r = 0; r < 40; r++) {
        for (int64_t g = 0; g < 4; g++) {
            const int64_t at = r * 4 + g;
            const float value = q.scale.super[0] * nb_dynamic_map[q.scale.codes[at]];
            assert_true(a.s.scale[g * a.p.padded + r] == value + q.scale.offset);
            moved += a.s.scale[g * a.p.padded + r] != amax(&l, r, r + 1, g * 32, g * 32 + 32);
        }
    }
    assert_true(moved > 100);
    nb_arena_release(&a.arena);
    layer_release(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_share_the_largest),
        cmocka_unit_test(test_stored_scales),
        cmocka_unit_test(test_two_levels_settle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
