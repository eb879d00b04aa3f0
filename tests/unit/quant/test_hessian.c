/* SPDX-License-Identifier: Apache-2.0
 *
 * test_hessian.c - condensed statistics give what the sums give, in whatever order linears are solved. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "layer.h"

enum { ROWS = 40, COLS = 192 };

static void solve(struct layer *l, const struct nb_solve_opts *opts, const char *solver,
                  struct nb_qmat *q, struct nb_arena *arena)
{
    struct nb_err err = {0};
    struct nb_solve_report report;
    const struct nb_solve_job job = {&l->mat, &l->stats, opts, l->be};
    assert_int_equal(nb_solver_find(solver)->solve(q, &job, arena, &report, &err), 0);
    assert_true(report.loss <= report.loss_rtn);
}

static void assert_same(const struct nb_qmat *a, const struct nb_qmat *b)
{
    const size_t planes = (size_t)(a->rows * a->n_groups) * sizeof(float);
    assert_memory_equal(a->codes, b->codes, (size_t)(a->rows * a->cols));
    assert_memory_equal(a->scale.value, b->scale.value, planes);
    assert_int_equal(!a->col_group, !b->col_group);
    if (a->col_group) assert_memory_equal(a->col_group, b->col_group, COLS * sizeof(int32_t));
}

/* Each linear twice, with others that want another order in between. */
static void test_linears_may_share(void **state)
{
    (void)state;
    static const struct {
        const char *solver;
        enum nb_act_order order;
        int64_t group;
    } linears[] = {{"gptq", NB_ORDER_AUTO, 64},   {"gptq", NB_ORDER_DYNAMIC, 64},
                   {"rtn", NB_ORDER_NONE, 64},    {"gptq", NB_ORDER_DYNAMIC, 64},
                   {"gptq", NB_ORDER_STATIC, 32}, {"gptq", NB_ORDER_GROUP, 96},
                   {"gptq", NB_ORDER_AUTO, 64},   {"gptq", NB_ORDER_STATIC, 32}};
    struct layer raw = layer_make(7, ROWS, COLS, COLS * 5, 2),
                 shared = layer_make(7, ROWS, COLS, COLS * 5, 2);
    struct nb_err err = {0};
    assert_int_equal(nb_stats_condense(&shared.stats, &err), 0);
    assert_null(shared.stats.h);
    assert_true(nb_stats_are_finite(&shared.stats));
    for (size_t i = 0; i < sizeof linears / sizeof *linears; i++) {
        struct nb_solve_opts opts = layer_opts(4, true, linears[i].group, NB_EFFORT_NORMAL);
        opts.order = linears[i].order;
        struct nb_arena arena;
        nb_arena_init(&arena);
        struct nb_qmat a, b;
        solve(&raw, &opts, linears[i].solver, &a, &arena);
        solve(&shared, &opts, linears[i].solver, &b, &arena);
        assert_same(&a, &b);
        nb_arena_release(&arena);
    }
    layer_release(&raw);
    layer_release(&shared);
}

static void test_condensed_sums_keep_their_loss(void **state)
{
    (void)state;
    struct layer l = layer_make(8, ROWS, COLS, COLS * 5, 1);
    struct nb_err err = {0};
    float *zero = nb_calloc(ROWS * COLS, sizeof *zero);
    const struct nb_fmat q = {zero, ROWS, COLS, COLS};
    const double before = nb_output_loss(&l.mat, &q, &l.stats, l.be);
    assert_int_equal(nb_stats_condense(&l.stats, &err), 0);
    nb_hessian_damp(l.stats.hessian, 3.0);
    assert_true(nb_output_loss(&l.mat, &q, &l.stats, l.be) == before);
    nb_free(zero);
    layer_release(&l);
}

static void test_permuting_back(void **state)
{
    (void)state;
    enum { K = 17 };
    struct layer l = layer_make(9, 16, K, 200, 1);
    struct nb_err err = {0};
    struct nb_hessian h;
    assert_int_equal(nb_hessian_init(&h, &l.stats, &err), 0);
    float before[K * K];
    memcpy(before, h.h, sizeof before);
    int32_t column[K], back[K];
    for (int32_t j = 0; j < K; j++) column[j] = j * 5 % K;
    column[3] = 6 * 5 % K; /* one long cycle and some short ones */
    column[6] = 3 * 5 % K;
    for (int32_t j = 0; j < K; j++) back[column[j]] = j;
    assert_int_equal(nb_hessian_permute(&h, column, &err), 0);
    for (int i = 0; i < K; i++) {
        assert_true(h.diag[i] == l.stats.h[column[i] * K + column[i]] / (double)l.stats.n_tokens);
        for (int j = 0; j < K; j++)
            assert_true(h.h[i * K + j] == before[column[i] * K + column[j]]);
    }
    assert_int_equal(nb_hessian_permute(&h, back, &err), 0);
    assert_memory_equal(h.h, before, sizeof before);
    nb_hessian_release(&h);
    layer_release(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linears_may_share),
        cmocka_unit_test(test_condensed_sums_keep_their_loss),
        cmocka_unit_test(test_permuting_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
