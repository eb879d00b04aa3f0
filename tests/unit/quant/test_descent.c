/* SPDX-License-Identifier: Apache-2.0
 *
 * test_descent.c - local search: never up, ends where no single move helps, beams find what greedy misses. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "layer.h"

struct start {
    struct layer l;
    struct nb_solve_opts opts;
    struct nb_arena arena;
    struct nb_hessian h;
    struct nb_problem p;
    struct nb_factor f;
    struct nb_solution s;
    double *before; /* [padded] losses at the start */
};

static void set_up(struct start *a, int bits, bool sym, int64_t group, int64_t cols)
{
    struct nb_err err = {0};
    a->l = layer_make(21, 40, cols, cols * 6, 2);
    a->opts = layer_opts(bits, sym, group, NB_EFFORT_BEST);
    nb_arena_init(&a->arena);
    assert_int_equal(nb_hessian_init(&a->h, &a->l.stats, &err), 0);
    assert_int_equal(
        nb_problem_init(&a->p, &(struct nb_solve_job){&a->l.mat, &a->l.stats, &a->opts, a->l.be},
                        NULL, &a->arena, &err),
        0);
    nb_problem_set_h(&a->p, &a->h, 0.01 * a->h.mean);
    a->f = (struct nb_factor){.n = cols, .be = a->l.be, .damp = 0.01};
    a->f.at = nb_arena_alloc(&a->arena, (size_t)cols, sizeof *a->f.at);
    assert_int_equal(nb_order_pivoted(a->f.at, a->p.h, cols, cols, a->l.be, &err), 0);
    assert_int_equal(nb_factor_init(&a->f, &a->h, a->p.group, &a->arena, &err), 0);
    assert_int_equal(nb_solution_init(&a->s, &a->p, &a->arena, &err), 0);
    nb_fit_groups(&a->p, &a->s);
    assert_int_equal(nb_round_nearest(&a->p, &a->s, &err), 0);
    a->before = nb_arena_alloc(&a->arena, (size_t)a->p.padded, sizeof *a->before);
    memcpy(a->before, a->s.loss, (size_t)a->p.padded * sizeof *a->before);
}

static void tear_down(struct start *a)
{
    nb_hessian_release(&a->h);
    nb_arena_release(&a->arena);
    layer_release(&a->l);
}

static void assert_no_row_rose(const struct start *a)
{
    for (int64_t r = 0; r < a->p.rows; r++)
        assert_true(a->s.loss[r] <= a->before[r] * (1.0 + 1e-6));
}

/* Every single change of a code, each loss from scratch. */
static void assert_no_single_move_helps(const struct start *a)
{
    const int64_t k = a->p.cols;
    float *e = nb_alloc((size_t)(a->p.padded * k), sizeof *e);
    nb_solution_error(&a->p, &a->s, e);
    const unsigned codes = 1u << a->p.spec.elem.bits;
    for (int64_t r = 0; r < a->p.rows; r++) {
        for (int64_t j = 0; j < k; j++) {
            double g = 0;
            for (int64_t i = 0; i < k; i++) g += (double)e[r * k + i] * a->p.h[i * k + j];
            const double h = a->p.h[j * k + j],
                         scale = a->s.scale[j / a->p.group * a->p.padded + r];
            for (unsigned c = 0; c < codes; c++) {
                const double by =
                    scale * ((double)c - a->s.code[r * k + j]); /* error moves by -by */
                const double change = by * (by * h - 2.0 * g);
                assert_true(change >= -1e-5 * a->s.loss[r]);
            }
        }
    }
    nb_free(e);
}

static void test_descent_ends_where_no_code_helps(void **state)
{
    (void)state;
    static const struct {
        int bits;
        bool sym;
        int64_t group, cols;
    } cases[] = {{4, true, 32, 96}, {3, false, 40, 100}, {2, true, 64, 64}, {8, false, 50, 120}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct start a;
        struct nb_err err = {0};
        set_up(&a, cases[c].bits, cases[c].sym, cases[c].group, cases[c].cols);
        const double start = nb_solution_loss(&a.p, &a.s);
        assert_int_equal(nb_descend(&a.p, &a.s, 100, NB_DESCENT_CODES, &err), 0);
        assert_no_row_rose(&a);
        assert_no_single_move_helps(&a);
        assert_true(nb_solution_loss(&a.p, &a.s) < 0.8 * start);
        tear_down(&a);
    }
}

/* One sweep by plain loops in f64: column after column, the nearest code to where the row's loss is least. */
static void plain_sweep(const struct start *a, int64_t r, uint8_t *code)
{
    const int64_t k = a->p.cols;
    double *e = nb_alloc((size_t)k, sizeof *e);
    for (int64_t j = 0; j < k; j++) {
        const int64_t plane = j / a->p.group * a->p.padded + r;
        code[j] = a->s.code[r * k + j];
        e[j] = a->p.w[r * k + j] - a->s.scale[plane] * ((double)code[j] - a->s.zero[plane]);
    }
    for (int64_t j = 0; j < k; j++) {
        const int64_t plane = j / a->p.group * a->p.padded + r;
        const struct nb_group_params g = {.scale = a->s.scale[plane], .zero = a->s.zero[plane]};
        double grad = 0;
        for (int64_t i = 0; i < k; i++) grad += e[i] * a->p.h[i * k + j];
        const double target = a->p.w[r * k + j] - e[j] + grad / a->p.h[j * k + j];
        code[j] = (uint8_t)a->p.numeric->nearest(&a->p.spec, (float)target, &g);
        e[j] = a->p.w[r * k + j] - g.scale * ((double)code[j] - g.zero);
    }
    nb_free(e);
}

static void test_one_sweep_equals_plain_loops(void **state)
{
    (void)state;
    struct start a;
    struct nb_err err = {0};
    set_up(&a, 4, false, 40, 100);
    uint8_t *code = nb_alloc((size_t)(a.p.rows * 100), 1);
    for (int64_t r = 0; r < a.p.rows; r++) plain_sweep(&a, r, code + r * 100);
    assert_int_equal(nb_descend(&a.p, &a.s, 1, NB_DESCENT_CODES, &err), 0);
    int64_t different_rows = 0; /* a near tie may fall the other way in f32 */
    for (int64_t r = 0; r < a.p.rows; r++) {
        different_rows += memcmp(code + r * 100, a.s.code + r * 100, 100) != 0;
    }
    assert_true(different_rows <= 1);
    nb_free(code);
    tear_down(&a);
}

/* Best scales below the least that is stored: the step ends at the border, on the right side. */
static void test_scales_at_the_least_stored_one(void **state)
{
    (void)state;
    struct start a;
    struct nb_err err = {0};
    set_up(&a, 4, true, 32, 96);
    for (int64_t i = 0; i < a.p.padded * 96; i++)
        a.p.own[i] *= 1e-3f; /* best scales lie below the least, 1e-5 */
    for (int64_t i = 0; i < a.p.padded * a.p.n_groups; i++) a.s.scale[i] = -1.1e-5f;
    assert_int_equal(nb_round_nearest(&a.p, &a.s, &err), 0);
    memcpy(a.before, a.s.loss, (size_t)a.p.padded * sizeof *a.before);
    assert_int_equal(nb_descend(&a.p, &a.s, 3, NB_DESCENT_SCALES, &err), 0);
    assert_no_row_rose(&a);
    tear_down(&a);
}

static void test_scales_bring_more(void **state)
{
    (void)state;
    struct start a, b;
    struct nb_err err = {0};
    set_up(&a, 4, true, 32, 96);
    set_up(&b, 4, true, 32, 96);
    assert_int_equal(nb_descend(&a.p, &a.s, 6, NB_DESCENT_CODES, &err), 0);
    assert_int_equal(nb_descend(&b.p, &b.s, 6, NB_DESCENT_BOTH, &err), 0);
    assert_no_row_rose(&b);
    assert_true(nb_solution_loss(&b.p, &b.s) < nb_solution_loss(&a.p, &a.s));
    for (int64_t i = 0; i < b.p.padded * b.p.n_groups; i++) {
        assert_true(b.s.scale[i] == nb_round_to(b.s.scale[i], NB_F16));
    }
    tear_down(&a);
    tear_down(&b);
}

/* The loss at the optimum of all scales of a row, by the linear system of algorithms, 10.3. */
static double optimum_of_scales(const struct start *a, int64_t r)
{
    enum { MOST = 8 };
    const int64_t k = a->p.cols, n = a->p.n_groups;
    double m[MOST][MOST + 1] = {{0}}, rest = 0;
    float *level = nb_alloc((size_t)k, sizeof *level);
    for (int64_t j = 0; j < k; j++)
        level[j] = (float)a->s.code[r * k + j] - a->s.zero[j / a->p.group * a->p.padded + r];
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j < k; j++) {
            const double h = a->p.h[i * k + j], w = a->p.w[r * k + j];
            m[i / a->p.group][j / a->p.group] += level[i] * h * level[j];
            m[i / a->p.group][n] += level[i] * h * w;
            rest += a->p.w[r * k + i] * h * w;
        }
    }
    double b[MOST], s[MOST];
    for (int64_t i = 0; i < n; i++) b[i] = m[i][n];
    for (int64_t i = 0; i < n; i++) {
        for (int64_t t = 0; t < n; t++) {
            const double c = t == i ? 0.0 : m[t][i] / m[i][i];
            for (int64_t j = i; j <= n && t != i; j++) m[t][j] -= c * m[i][j];
        }
    }
    for (int64_t i = 0; i < n; i++) {
        s[i] = m[i][n] / m[i][i];
        rest -= b[i] * s[i];
    }
    nb_free(level);
    return rest;
}

/* With no code left to change, steps of single scales must reach the joint optimum but for the cast. */
static void test_scale_steps_reach_the_joint_optimum(void **state)
{
    (void)state;
    struct start a;
    struct nb_err err = {0};
    set_up(&a, 4, false, 16, 96);
    assert_int_equal(nb_descend(&a.p, &a.s, 200, NB_DESCENT_BOTH, &err), 0);
    for (int64_t r = 0; r < a.p.rows; r++) {
        const double best = optimum_of_scales(&a, r);
        assert_true(a.s.loss[r] >= best * (1.0 - 1e-4));
        assert_true(a.s.loss[r] <= best * 1.003);
    }
    tear_down(&a);
}

static void test_beam_of_one_is_the_pass(void **state)
{
    (void)state;
    struct start a, b;
    struct nb_err err = {0};
    set_up(&a, 4, true, 40, 300);
    set_up(&b, 4, true, 40, 300);
    assert_int_equal(nb_pass_run(&a.p, &a.f, false, &a.s, &err), 0);
    assert_int_equal(nb_beam_pass(&b.p, &b.f, 1, &b.s, &err), 0);
    int64_t different_rows = 0; /* sums in another order: a near tie may fall the other way */
    for (int64_t r = 0; r < a.p.rows; r++) {
        different_rows += memcmp(a.s.code + r * 300, b.s.code + r * 300, 300) != 0;
    }
    assert_true(different_rows <= 2);
    tear_down(&a);
    tear_down(&b);
}

static void test_wider_beams_find_better_rows(void **state)
{
    (void)state;
    double last = INFINITY;
    static const int widths[] = {1, 4, 16, 1000}; /* the last is cut to what there is room for */
    for (int i = 0; i < 4; i++) {
        struct start a;
        struct nb_err err = {0};
        set_up(&a, 3, false, 40, 200);
        assert_int_equal(nb_beam_pass(&a.p, &a.f, widths[i], &a.s, &err), 0);
        const double on_the_way = nb_solution_loss(&a.p, &a.s);
        assert_int_equal(nb_solution_measure(&a.p, &a.s, &err), 0);
        const double loss = nb_solution_loss(&a.p, &a.s);
        assert_true(fabs(loss - on_the_way) < 1e-4 * loss);
        assert_true(loss < 0.99 * last);
        last = loss;
        tear_down(&a);
    }
}

/* 2 bits and 8 columns: all 4^8 rows can be tried. A beam that is wide enough must find the best. */
static void test_beam_finds_the_optimum_of_a_tiny_row(void **state)
{
    (void)state;
    enum { K = 8 };
    struct start a;
    struct nb_err err = {0};
    set_up(&a, 2, false, K, K);
    assert_int_equal(nb_beam_pass(&a.p, &a.f, NB_MOST_BEAM, &a.s, &err), 0);
    for (int64_t r = 0; r < 4; r++) {
        double best = INFINITY;
        for (unsigned all = 0; all < 1u << (2 * K); all++) {
            double e[K], loss = 0;
            for (int j = 0; j < K; j++) {
                e[j] =
                    a.p.w[r * K + j] - a.s.scale[r] * ((float)(all >> (2 * j) & 3u) - a.s.zero[r]);
            }
            for (int i = 0; i < K; i++) {
                for (int j = 0; j < K; j++) loss += e[i] * a.p.h[i * K + j] * e[j];
            }
            best = fmin(best, loss);
        }
        assert_true(a.s.loss[r] <= best * (1.0 + 1e-4));
    }
    tear_down(&a);
}

static void test_block_beam_goes_on_where_descent_ends(void **state)
{
    (void)state;
    static const int64_t cols[] = {64, 128, 200, 330}; /* less than a block, one, odd cuts */
    for (int i = 0; i < 4; i++) {
        struct start a;
        struct nb_err err = {0};
        set_up(&a, 4, true, 32, cols[i]);
        assert_int_equal(nb_descend(&a.p, &a.s, 50, NB_DESCENT_CODES, &err), 0);
        const double settled = nb_solution_loss(&a.p, &a.s);
        memcpy(a.before, a.s.loss, (size_t)a.p.padded * sizeof *a.before);
        assert_int_equal(nb_beam_descend(&a.p, &a.s, 8, 2, &err), 0);
        assert_no_row_rose(&a);
        assert_true(nb_solution_loss(&a.p, &a.s) < 0.99 * settled);
        tear_down(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_descent_ends_where_no_code_helps),
        cmocka_unit_test(test_one_sweep_equals_plain_loops),
        cmocka_unit_test(test_scales_at_the_least_stored_one),
        cmocka_unit_test(test_scales_bring_more),
        cmocka_unit_test(test_scale_steps_reach_the_joint_optimum),
        cmocka_unit_test(test_beam_of_one_is_the_pass),
        cmocka_unit_test(test_wider_beams_find_better_rows),
        cmocka_unit_test(test_beam_finds_the_optimum_of_a_tiny_row),
        cmocka_unit_test(test_block_beam_goes_on_where_descent_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
