/* SPDX-License-Identifier: Apache-2.0
 *
 * test_solvers.c - every solver on every spec it says it supports: the result is well-formed, its report true,
 * and its output error never above that of plain rounding. A new solver is tested on arrival. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "numeric/elems.h"
#include "quant/quant.h"

enum { ROWS = 21, COLS = 144, TOKENS = 700 };

struct bench {
    struct nb_pool *pool;
    struct nb_backend *be;
    float w[ROWS * COLS], x[TOKENS * COLS];
    struct nb_fmat mat;
    struct nb_stats stats;
};

static int set_up(void **state)
{
    struct bench *b = nb_xalloc(sizeof *b);
    struct nb_err err = {0};
    struct nb_rng rng;
    nb_rng_init(&rng, 71);
    b->pool = nb_pool_new(2, &err);
    if (!b->pool || nb_backend_new(&b->be, b->pool, NULL, &err)) return -1;
    for (int i = 0; i < ROWS * COLS; i++) b->w[i] = (float)(0.05 * nb_rng_normal(&rng));
    for (int t = 0; t < TOKENS; t++) {
        float last = 0.0f;
        for (int j = 0; j < COLS; j++) { /* neighbours alike, sizes apart */
            last = 0.8f * last + 0.6f * (float)nb_rng_normal(&rng);
            b->x[t * COLS + j] = last * (float)(1 + j % 5);
        }
    }
    b->mat = (struct nb_fmat){.data = b->w, .rows = ROWS, .cols = COLS, .ld = COLS};
    if (nb_stats_init(&b->stats, COLS, NB_STATS_ABS, &err)) return -1;
    if (nb_stats_add(&b->stats, b->be, &(struct nb_stats_input){b->x, NULL, TOKENS}, &err))
        return -1;
    nb_stats_finish(&b->stats);
    *state = b;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *b = *state;
    nb_stats_release(&b->stats);
    nb_backend_free(b->be);
    nb_pool_free(b->pool);
    nb_free(b);
    return 0;
}

static double loss_of(struct bench *b, const struct nb_qmat *q)
{
    static float values[ROWS * COLS];
    for (int64_t r = 0; r < ROWS; r++) nb_qmat_dequant_row(q, r, values + r * COLS);
    for (int i = 0; i < ROWS * COLS; i++) assert_true(isfinite(values[i]));
    const struct nb_fmat qm = {.data = values, .rows = ROWS, .cols = COLS, .ld = COLS};
    return nb_output_loss(&b->mat, &qm, &b->stats, b->be);
}

/* What a file can hold. */
static void check_planes(struct nb_qmat *q, const struct nb_grid_opts *grid)
{
    const struct nb_qspec *spec = &grid->spec;
    for (int64_t i = 0; i < nb_qmat_planes(q); i++) {
        const float scale = q->scale.value[i];
        int exponent;
        assert_true(isfinite(scale) && fabsf(scale) >= 0.99e-5f);
        if (spec->scale_dtype == NB_F8_E8M0) assert_true(frexpf(scale, &exponent) == 0.5f);
        else if (!q->scale.codes) assert_true(scale == nb_round_to(scale, spec->scale_dtype));
        if (spec->zero == NB_ZERO_NONE) {
            assert_null(q->zero.value);
            continue;
        }
        assert_true(q->zero.value[i] >= (float)grid->zero_min);
        if (spec->symmetric) assert_true(q->zero.value[i] == (float)(1 << (spec->elem.bits - 1)));
    }
    if (!q->scale.codes) return;
    float *value = nb_xalloc((size_t)nb_qmat_planes(q) * sizeof *value);
    memcpy(value, q->scale.value, (size_t)nb_qmat_planes(q) * sizeof *value);
    for (int64_t g = 0; g < nb_qmat_group_rows(q); g++) nb_qmat_fill_values(q, g);
    assert_memory_equal(value, q->scale.value, (size_t)nb_qmat_planes(q) * sizeof *value);
    nb_free(value);
}

static void check(struct bench *b, const struct nb_solver *s, const struct nb_solve_opts *opts)
{
    struct nb_err err = {0};
    struct nb_solve_report report;
    struct nb_qmat q, plain;
    struct nb_arena arena;
    nb_arena_init(&arena);
    if (s->solve(&q, &(struct nb_solve_job){&b->mat, &b->stats, opts, b->be}, &arena, &report,
                 &err))
        fail_msg("%s", err.text);
    if (nb_solver_find("rtn")->solve(
            &plain, &(struct nb_solve_job){&b->mat, &b->stats, opts, b->be}, &arena, NULL, &err)) {
        fail_msg("%s", err.text);
    }
    const double loss = loss_of(b, &q), rtn = loss_of(b, &plain);
    if (opts->order != NB_ORDER_DYNAMIC)
        assert_true(loss <= rtn * (1.0 + 1e-5)); /* else other groups */
    assert_true(report.loss <= report.loss_rtn);
    assert_true(fabs(report.loss - loss) <= 1e-3 * loss);
    for (int i = 0; i < ROWS * COLS; i++) assert_true(q.codes[i] < 1u << opts->grid.spec.elem.bits);
    check_planes(&q, &opts->grid);
    nb_arena_release(&arena);
}

static void test_every_solver_on_every_spec(void **state)
{
    struct bench *b = *state;
    static const int bits[] = {2, 3, 4, 8};
    static const int64_t groups[] = {16, 48, 128, -1}; /* 128 leaves a short last group */
    static const enum nb_dtype scales[] = {NB_F16, NB_BF16, NB_F32};
    int n = 0;
    for (const struct nb_solver *const *s = nb_solvers(); *s; s++) {
        for (int i = 0; i < 4 * 4 * 2 * 3; i++, n++) {
            struct nb_solve_opts opts = {0};
            opts.grid.spec =
                (struct nb_qspec){.elem = {.kind = NB_ELEM_INT, .bits = bits[i % 4], .vec = 1},
                                  .group_rows = 1,
                                  .group_cols = groups[i / 4 % 4],
                                  .scale_dtype = scales[i / 32],
                                  .zero = NB_ZERO_CODE,
                                  .symmetric = i / 16 % 2};
            if (!(*s)->supports(&opts.grid.spec)) continue;
            nb_solve_opts_effort(&opts, (enum nb_effort)(n % 3));
            opts.order = (enum nb_act_order)(n / 3 % (NB_ORDER_DYNAMIC + 1));
            opts.grid.clip = (enum nb_clip)(n / 7 % 3);
            opts.grid.sym_range = n / 5 % 2 ? NB_SYM_FULL : NB_SYM_REFERENCE;
            opts.grid.zero_min = opts.grid.spec.symmetric ? 0 : n % 2;
            check(b, *s, &opts);
        }
    }
}

/* The number formats that are no plain integers: tables, floats, scales over several rows or of two levels. */
static size_t other_specs(struct nb_qspec *out)
{
    size_t n = 0;
    const struct nb_qspec nf4 = {.elem = nb_elem_nf4,
                                 .group_rows = 1,
                                 .group_cols = 48,
                                 .flat = true,
                                 .scale_dtype = NB_F32};
    const struct nb_qspec fp8 = {
        .elem = nb_elem_e4m3, .group_rows = 1, .group_cols = -1, .scale_dtype = NB_F32};
    const struct nb_qspec int8 = {.elem = {.kind = NB_ELEM_INT, .bits = 8, .vec = 1},
                                  .group_rows = 1,
                                  .group_cols = -1,
                                  .scale_dtype = NB_F32,
                                  .zero = NB_ZERO_CODE,
                                  .symmetric = true,
                                  .zero_implied = true};
    for (int i = 0; i < 4; i++) {
        out[n] = nf4;
        if (i % 2) out[n].elem = nb_elem_fp4;
        if (i / 2) {
            out[n].super_groups = 256;
            out[n].super_flat = true;
            out[n].scale_bits = 8;
            out[n].scale_table = nb_dynamic_map;
        }
        n++;
    }
    out[n++] = fp8;
    out[n] = fp8;
    out[n++].group_rows = INT64_MAX;
    out[n] = fp8;
    out[n].group_rows = 16;
    out[n++].group_cols = 64;
    for (int i = 0; i < 2; i++) {
        out[n] = fp8;
        if (i) out[n].elem = nb_elem_e2m1;
        out[n].group_cols = 32;
        out[n++].scale_dtype = NB_F8_E8M0;
    }
    out[n++] = (struct nb_qspec){.elem = nb_elem_e2m1,
                                 .group_rows = 1,
                                 .group_cols = 16,
                                 .scale_dtype = NB_F32,
                                 .super_groups = (int64_t)1 << 40,
                                 .super_flat = true,
                                 .super_divides = true,
                                 .scale_bits = 8,
                                 .scale_table = nb_e4m3_values};
    static const enum nb_act_kind acts[] = {NB_ACT_INT8_TOKEN, NB_ACT_INT8_STATIC,
                                            NB_ACT_INT8_OUTLIER};
    for (int i = 0; i < 3; i++) {
        out[n] = int8;
        out[n++].act = acts[i];
    }
    return n;
}

static void test_every_solver_on_other_numbers(void **state)
{
    struct bench *b = *state;
    struct nb_qspec specs[16];
    const size_t n = other_specs(specs);
    for (const struct nb_solver *const *s = nb_solvers(); *s; s++) {
        for (size_t i = 0; i < n * 3; i++) {
            struct nb_solve_opts opts = {.grid = {.spec = specs[i % n]}};
            assert_true((*s)->supports(&specs[i % n]));
            nb_solve_opts_effort(&opts, (enum nb_effort)(i / n));
            opts.grid.clip = (enum nb_clip)(i % 3);
            check(b, *s, &opts);
        }
    }
}

/* Without statistics and clipping: what the format's own tools write. */
static void test_plain_rounding_is_the_reference(void **state)
{
    struct bench *b = *state;
    struct nb_qspec specs[16];
    const size_t n = other_specs(specs);
    for (size_t i = 0; i < n; i++) {
        const struct nb_numeric *numeric = nb_numeric_for(&specs[i]);
        const struct nb_solve_opts opts = {.grid = {.spec = specs[i]}};
        struct nb_err err = {0};
        struct nb_qmat q, reference;
        struct nb_arena arena;
        nb_arena_init(&arena);
        const struct nb_solve_job job = {&b->mat, NULL, &opts, b->be};
        if (nb_solver_find("rtn")->solve(&q, &job, &arena, NULL, &err)) fail_msg("%s", err.text);
        assert_int_equal(nb_qmat_init(&reference, &specs[i], ROWS, COLS, &arena, &err), 0);
        if (numeric->encode) {
            assert_int_equal(numeric->encode(&reference, &opts.grid, b->w, b->pool, &err), 0);
            assert_memory_equal(q.codes, reference.codes, ROWS * COLS);
            assert_memory_equal(q.scale.value, reference.scale.value,
                                (size_t)nb_qmat_planes(&q) * sizeof(float));
        }
        nb_arena_release(&arena);
    }
}

/* Groups of 64 do not end with rows of 144: only the reference's rounding has them. */
static void test_groups_across_rows(void **state)
{
    struct bench *b = *state;
    struct nb_solve_opts opts = {.grid = {.spec = {.elem = nb_elem_nf4,
                                                   .group_rows = 1,
                                                   .group_cols = 64,
                                                   .flat = true,
                                                   .scale_dtype = NB_F32}}};
    nb_solve_opts_effort(&opts, NB_EFFORT_NORMAL);
    for (const struct nb_solver *const *s = nb_solvers(); *s; s++) {
        struct nb_err err = {0};
        struct nb_qmat q;
        struct nb_solve_report report;
        struct nb_arena arena;
        nb_arena_init(&arena);
        const struct nb_solve_job job = {&b->mat, &b->stats, &opts, b->be};
        const int rc = (*s)->solve(&q, &job, &arena, &report, &err);
        if ((*s)->needs_hessian) {
            assert_int_equal(rc, NB_E_SPEC);
            assert_non_null(strstr(err.text, "possible: method rtn, or groups of 16"));
        } else {
            assert_int_equal(rc, 0);
            assert_int_equal(q.n_groups, (ROWS * COLS + 63) / 64);
            const double loss = loss_of(b, &q);
            assert_true(fabs(report.loss - loss) <= 1e-3 * loss && loss < 0.02 * report.loss_zero);
        }
        nb_arena_release(&arena);
    }
}

static void test_solvers_say_what_they_are(void **state)
{
    (void)state;
    for (const struct nb_solver *const *s = nb_solvers(); *s; s++) {
        assert_ptr_equal(nb_solver_find((*s)->name), *s);
        assert_true(strlen((*s)->summary) > 10);
    }
    assert_null(nb_solver_find("no such method"));
}

static void test_a_spec_nobody_supports_is_refused(void **state)
{
    struct bench *b = *state;
    struct nb_solve_opts opts = {0};
    opts.grid.spec =
        (struct nb_qspec){.elem = {.kind = NB_ELEM_TABLE, .bits = 4, .vec = 1}, .group_cols = 16};
    for (const struct nb_solver *const *s = nb_solvers(); *s; s++) {
        struct nb_err err = {0};
        struct nb_qmat q;
        struct nb_arena arena;
        nb_arena_init(&arena);
        assert_false((*s)->supports(&opts.grid.spec));
        assert_int_equal((*s)->solve(&q, &(struct nb_solve_job){&b->mat, &b->stats, &opts, b->be},
                                     &arena, NULL, &err),
                         NB_E_SPEC);
        assert_non_null(strstr(err.text, "no number encoding for table4 g16"));
        nb_arena_release(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_solver_on_every_spec),
        cmocka_unit_test(test_every_solver_on_other_numbers),
        cmocka_unit_test(test_plain_rounding_is_the_reference),
        cmocka_unit_test(test_groups_across_rows),
        cmocka_unit_test(test_solvers_say_what_they_are),
        cmocka_unit_test(test_a_spec_nobody_supports_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
