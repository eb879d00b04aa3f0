/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gptq.c - identities of error-compensated rounding (algorithms, section 14), its ladder, its threads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "layer.h"

static void assert_same_codes(const struct nb_qmat *a, const struct nb_qmat *b)
{
    const size_t planes = (size_t)(a->rows * a->n_groups) * sizeof(float);
    assert_memory_equal(a->codes, b->codes, (size_t)(a->rows * a->cols));
    assert_memory_equal(a->scale.value, b->scale.value, planes);
    assert_memory_equal(a->zero.value, b->zero.value, planes);
}

static void set_diagonal(struct layer *l, double (*value)(int64_t))
{
    double *h = nb_calloc((size_t)(l->cols * l->cols), sizeof *h);
    for (int64_t j = 0; j < l->cols; j++) h[j * l->cols + j] = value(j);
    layer_set_h(l, h);
    nb_free(h);
}

static double one(int64_t j)
{
    (void)j;
    return 1.0;
}

static double uneven(int64_t j)
{
    return 0.1 + (double)(j * 37 % 101);
}

/* (a) and (g): nothing to hand on when inputs are independent, whatever the damping. */
static void test_diagonal_h_is_plain_rounding(void **state)
{
    (void)state;
    struct layer l = layer_make(1, 20, 96, 400, 1);
    double (*diagonals[])(int64_t) = {one, uneven};
    static const double damps[] = {0.01, 0.2, 1.0};
    for (int d = 0; d < 2; d++) {
        set_diagonal(&l, diagonals[d]);
        for (int i = 0; i < 3; i++) {
            for (int order = NB_ORDER_NONE; order <= NB_ORDER_PIVOTED; order++) {
                struct nb_solve_opts opts = layer_opts(4, i & 1, 32, NB_EFFORT_FAST);
                struct nb_qmat a, b;
                struct nb_arena arena;
                nb_arena_init(&arena);
                opts.grid.clip = NB_CLIP_NONE;
                opts.damp = damps[i];
                opts.order = (enum nb_act_order)order;
                layer_solve(&l, "gptq", &opts, &a, &arena);
                layer_solve(&l, "rtn", &opts, &b, &arena);
                assert_same_codes(&a, &b);
                nb_arena_release(&arena);
            }
        }
    }
    layer_release(&l);
}

/* (b): weights that the grid holds exactly come back. */
static void test_weights_on_the_grid_come_back(void **state)
{
    (void)state;
    struct layer l = layer_make(2, 16, 64, 400, 1);
    for (int64_t r = 0; r < l.rows; r++) {
        for (int64_t j = 0; j < l.cols; j++) {
            const int64_t level = j % 32 == 0 ? 0 : j % 32 == 1 ? 255 : (r * 31 + j * 17) % 256;
            l.w[r * l.cols + j] = 0.0078125f * (float)(level - 100);
        }
    }
    struct nb_solve_opts opts = layer_opts(8, false, 32, NB_EFFORT_NORMAL);
    struct nb_qmat q;
    struct nb_arena arena;
    nb_arena_init(&arena);
    layer_solve(&l, "gptq", &opts, &q, &arena);
    float row[64];
    for (int64_t r = 0; r < l.rows; r++) {
        nb_qmat_dequant_row(&q, r, row);
        assert_memory_equal(row, l.w + r * l.cols, sizeof row);
    }
    nb_arena_release(&arena);
    layer_release(&l);
}

struct parts { /* one pass by hand */
    struct nb_arena arena;
    struct nb_hessian h;
    struct nb_problem p;
    struct nb_factor f;
    struct nb_solution s;
};

static void set_up_parts(struct parts *a, struct layer *l, const struct nb_solve_opts *opts,
                         enum nb_act_order order, double damp)
{
    struct nb_err err = {0};
    assert_int_equal(nb_hessian_init(&a->h, &l->stats, &err), 0);
    nb_arena_init(&a->arena);
    a->f = (struct nb_factor){.n = l->cols, .be = l->be, .damp = damp};
    a->f.at = nb_arena_alloc(&a->arena, (size_t)l->cols, sizeof *a->f.at);
    const int64_t group = opts->grid.spec.group_cols;
    assert_int_equal(nb_order_make(a->f.at, order, a->h.diag, l->cols, group, &err), 0);
    assert_int_equal(nb_factor_init(&a->f, &a->h, group, &a->arena, &err), 0);
    assert_int_equal(nb_problem_init(&a->p, &(struct nb_solve_job){&l->mat, &l->stats, opts, l->be},
                                     NULL, &a->arena, &err),
                     0);
    nb_problem_set_h(&a->p, &a->h, damp * a->h.mean);
    assert_int_equal(nb_solution_init(&a->s, &a->p, &a->arena, &err), 0);
}

/* (c): what the pass adds up on its way is the damped loss. */
static void test_loss_of_the_pass_is_the_trace(void **state)
{
    (void)state;
    struct layer l = layer_make(3, 37, 300, 2000, 2);
    static const int64_t groups[] = {32, 100, 128, 300};
    for (int g = 0; g < 4; g++) {
        for (int order = NB_ORDER_NONE; order <= NB_ORDER_GROUP; order++) {
            for (int fit = 0; fit < 2; fit++) {
                if (fit && order == NB_ORDER_STATIC) continue;
                const struct nb_solve_opts opts = layer_opts(3, true, groups[g], NB_EFFORT_FAST);
                struct parts a;
                struct nb_err err = {0};
                set_up_parts(&a, &l, &opts, (enum nb_act_order)order, 0.01);
                if (!fit) nb_fit_groups(&a.p, &a.s);
                assert_int_equal(nb_pass_run(&a.p, &a.f, fit, &a.s, &err), 0);
                const double on_the_way = nb_solution_loss(&a.p, &a.s);
                assert_int_equal(nb_solution_measure(&a.p, &a.s, &err), 0);
                const double trace = nb_solution_loss(&a.p, &a.s);
                assert_true(fabs(on_the_way - trace) < 1e-4 * trace);
                assert_true(nb_solution_plain(&a.p, &a.s) < trace);
                nb_hessian_release(&a.h);
                nb_arena_release(&a.arena);
            }
        }
    }
    layer_release(&l);
}

/* The textbook form: inverse, its upper Cholesky factor, one column after the other. Independent of factor.c
 * and pass.c in everything but the rounding. */
static void textbook(const struct layer *l, const struct nb_problem *p,
                     const struct nb_solution *params, double damp, uint8_t *code)
{
    const int64_t k = l->cols;
    double *h = nb_alloc((size_t)(k * k), sizeof *h),
           *inv = nb_calloc((size_t)(k * k), sizeof *inv);
    double *u = nb_calloc((size_t)(k * k), sizeof *u), *w = nb_alloc((size_t)k, sizeof *w),
           mean = 0;
    for (int64_t i = 0; i < k * k; i++) h[i] = l->stats.h[i] / (double)l->stats.n_tokens;
    for (int64_t i = 0; i < k; i++) mean += h[i * k + i] / (double)k;
    for (int64_t i = 0; i < k; i++) {
        h[i * k + i] += damp * mean;
        inv[i * k + i] = 1.0;
    }
    for (int64_t i = 0; i < k; i++) { /* Gauss-Jordan */
        const double d = h[i * k + i];
        for (int64_t j = 0; j < k; j++) {
            h[i * k + j] /= d;
            inv[i * k + j] /= d;
        }
        for (int64_t r = 0; r < k; r++) {
            const double c = h[r * k + i];
            if (r == i || c == 0.0) continue;
            for (int64_t j = 0; j < k; j++) {
                h[r * k + j] -= c * h[i * k + j];
                inv[r * k + j] -= c * inv[i * k + j];
            }
        }
    }
    for (int64_t i = 0; i < k; i++) { /* inv = U^T U */
        for (int64_t j = i; j < k; j++) {
            double s = inv[i * k + j];
            for (int64_t t = 0; t < i; t++) s -= u[t * k + i] * u[t * k + j];
            u[i * k + j] = j == i ? sqrt(s) : s / u[i * k + i];
        }
    }
    for (int64_t r = 0; r < l->rows; r++) {
        for (int64_t j = 0; j < k; j++) w[j] = l->w[r * k + j];
        for (int64_t i = 0; i < k; i++) {
            const int64_t plane = i / p->group * p->padded + r;
            const struct nb_group_params g = {.scale = params->scale[plane],
                                              .zero = params->zero[plane]};
            code[r * k + i] = (uint8_t)p->numeric->nearest(&p->spec, (float)w[i], &g);
            const double e =
                (w[i] - p->numeric->value(&p->spec, code[r * k + i], &g)) / u[i * k + i];
            for (int64_t j = i; j < k; j++) w[j] -= e * u[i * k + j];
        }
    }
    nb_free(h);
    nb_free(inv);
    nb_free(u);
    nb_free(w);
}

static void test_pass_equals_the_textbook_form(void **state)
{
    (void)state;
    struct layer l = layer_make(4, 24, 160, 1000, 1);
    const struct nb_solve_opts opts = layer_opts(4, false, 40, NB_EFFORT_FAST);
    struct parts a;
    struct nb_err err = {0};
    set_up_parts(&a, &l, &opts, NB_ORDER_NONE, 0.05);
    nb_fit_groups(&a.p, &a.s);
    assert_int_equal(nb_pass_run(&a.p, &a.f, false, &a.s, &err), 0);
    uint8_t *code = nb_alloc((size_t)(l.rows * l.cols), 1);
    textbook(&l, &a.p, &a.s, 0.05, code);
    int64_t different_rows = 0; /* a tie that falls the other way changes the rest of its row */
    for (int64_t r = 0; r < l.rows; r++) {
        different_rows += memcmp(code + r * l.cols, a.s.code + r * l.cols, (size_t)l.cols) != 0;
    }
    assert_true(different_rows <= 1);
    nb_free(code);
    nb_hessian_release(&a.h);
    nb_arena_release(&a.arena);
    layer_release(&l);
}

/* (d): with one group per row, columns have no place of their own. */
static void test_permuted_columns_give_permuted_codes(void **state)
{
    (void)state;
    struct layer l = layer_make(5, 16, 90, 600, 1), m = layer_make(5, 16, 90, 600, 1);
    const int64_t k = l.cols;
    for (int64_t i = 0; i < k; i++) {
        const int64_t from_i = i * 7 % k; /* 7 and 90 have no common divisor */
        for (int64_t j = 0; j < k; j++) m.stats.h[i * k + j] = l.stats.h[from_i * k + j * 7 % k];
        for (int64_t r = 0; r < l.rows; r++) m.w[r * k + i] = l.w[r * k + from_i];
    }
    static const enum nb_act_order orders[] = {NB_ORDER_STATIC, NB_ORDER_PIVOTED};
    for (int o = 0; o < 2; o++) {
        struct nb_solve_opts opts = layer_opts(4, true, -1, NB_EFFORT_FAST);
        struct nb_qmat a, b;
        struct nb_arena arena;
        nb_arena_init(&arena);
        opts.order = orders[o];
        opts.grid.clip = NB_CLIP_NONE;
        layer_solve(&l, "gptq", &opts, &a, &arena);
        layer_solve(&m, "gptq", &opts, &b, &arena);
        for (int64_t r = 0; r < l.rows; r++) {
            for (int64_t i = 0; i < k; i++)
                assert_int_equal(b.codes[r * k + i], a.codes[r * k + i * 7 % k]);
        }
        nb_arena_release(&arena);
    }
    layer_release(&l);
    layer_release(&m);
}

static void test_desc_act_records_its_groups(void **state)
{
    (void)state;
    struct layer l = layer_make(6, 16, 128, 800, 1);
    struct nb_solve_opts opts = layer_opts(4, true, 32, NB_EFFORT_NORMAL);
    opts.order = NB_ORDER_DYNAMIC;
    struct nb_qmat q;
    struct nb_arena arena;
    nb_arena_init(&arena);
    const struct nb_solve_report report = layer_solve(&l, "gptq", &opts, &q, &arena);
    assert_int_equal(report.order, NB_ORDER_DYNAMIC);
    assert_non_null(q.col_group);
    int members[4] = {0};
    for (int64_t j = 0; j < l.cols; j++) members[q.col_group[j]]++;
    for (int g = 0; g < 4; g++) assert_int_equal(members[g], 32);
    for (int64_t i = 0; i < l.cols; i++) { /* stronger columns are in earlier groups */
        for (int64_t j = 0; j < l.cols; j++) {
            if (q.col_group[i] >= q.col_group[j]) continue;
            assert_true(l.stats.h[i * l.cols + i] >= l.stats.h[j * l.cols + j]);
        }
    }
    assert_true(report.loss < report.loss_rtn);
    nb_arena_release(&arena);
    layer_release(&l);
}

static const char *rung_for(struct layer *l, double *h, double *damp)
{
    static char rung[24];
    const struct nb_solve_opts opts = layer_opts(4, true, 32, NB_EFFORT_NORMAL);
    struct nb_qmat q;
    struct nb_arena arena;
    nb_arena_init(&arena);
    layer_set_h(l, h);
    const struct nb_solve_report report = layer_solve(l, "gptq", &opts, &q, &arena);
    memcpy(rung, report.ladder, sizeof rung);
    *damp = report.damp;
    nb_arena_release(&arena);
    return rung;
}

/* h starts as a sound matrix; each rung gets the damage that the one above cannot bear. */
static void test_ladder(void **state)
{
    (void)state;
    struct layer l = layer_make(7, 16, 96, 800, 1);
    const int64_t k = l.cols;
    double *h = nb_calloc((size_t)(k * k), sizeof *h), damp;
    for (int64_t i = 0; i < k; i++) h[i * k + i] = 1.0;
    assert_string_equal(rung_for(&l, h, &damp), "cholesky");
    assert_true(damp == 0.01);
    h[1] = h[k] = 1.2; /* least eigenvalue -0.2: damping .01, .03, .09, .27 */
    assert_string_equal(rung_for(&l, h, &damp), "damped");
    assert_true(damp > 0.2 && damp < 0.3);
    h[1] = h[k] = 0.5;
    h[40] = h[40 * k] = 5.0; /* between groups 0 and 1 */
    assert_string_equal(rung_for(&l, h, &damp), "block-diagonal");
    h[1] = h[k] = 5.0; /* inside group 0 */
    assert_string_equal(rung_for(&l, h, &damp), "diagonal");
    for (int64_t i = 0; i < k; i++) h[i * k + i] = 0.0;
    assert_string_equal(rung_for(&l, h, &damp), "rtn");
    h[3] = NAN;
    h[3 * k + 3] = NAN;
    assert_string_equal(rung_for(&l, h, &damp), "rtn");
    nb_free(h);
    layer_release(&l);
}

static void test_damping_follows_the_tokens(void **state)
{
    (void)state;
    static const struct {
        int64_t tokens;
        double damp;
        const char *rung;
    } cases[] = {{288, 0.01, "cholesky"}, {287, 0.05, "cholesky"}, {96, 0.05, "cholesky"},
                 {95, 0.2, "cholesky"},   {12, 0.2, "cholesky"},   {11, 0.0, "rtn"}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct layer l = layer_make(8, 16, 96, cases[c].tokens, 1);
        const struct nb_solve_opts opts = layer_opts(4, true, 32, NB_EFFORT_BEST);
        struct nb_qmat q;
        struct nb_arena arena;
        nb_arena_init(&arena);
        const struct nb_solve_report report = layer_solve(&l, "gptq", &opts, &q, &arena);
        assert_string_equal(report.ladder, cases[c].rung);
        assert_true(report.damp == cases[c].damp);
        assert_true(report.loss <= report.loss_rtn);
        nb_arena_release(&arena);
        layer_release(&l);
    }
}

/* Columns the calibration text never used keep their nearest codes. */
static void test_dead_columns_are_rounded_to_nearest(void **state)
{
    (void)state;
    struct layer l = layer_make(9, 16, 96, 800, 1);
    static const int64_t dead[] = {0, 17, 95};
    for (int d = 0; d < 3; d++) {
        for (int64_t j = 0; j < l.cols; j++)
            l.stats.h[dead[d] * l.cols + j] = l.stats.h[j * l.cols + dead[d]] = 0.0;
    }
    const struct nb_solve_opts opts = layer_opts(4, true, 32, NB_EFFORT_NORMAL);
    struct nb_qmat q;
    struct nb_arena arena;
    nb_arena_init(&arena);
    layer_solve(&l, "gptq", &opts, &q, &arena);
    for (int d = 0; d < 3; d++) {
        for (int64_t r = 0; r < l.rows; r++) {
            const int64_t i = nb_qmat_plane_index(&q, r, dead[d]);
            const struct nb_group_params p = {.scale = q.scale.value[i], .zero = q.zero.value[i]};
            const unsigned nearest =
                nb_numeric_for(&q.spec)->nearest(&q.spec, l.w[r * l.cols + dead[d]], &p);
            assert_int_equal(q.codes[r * l.cols + dead[d]], nearest);
        }
    }
    nb_arena_release(&arena);
    layer_release(&l);
}

static void test_threads_do_not_change_a_bit(void **state)
{
    (void)state;
    static const int threads[] = {1, 2, 3, 7};
    static const enum nb_act_order orders[] = {NB_ORDER_AUTO, NB_ORDER_DYNAMIC};
    for (int o = 0; o < 2; o++) {
        struct nb_qmat q[4];
        struct nb_arena arena;
        nb_arena_init(&arena);
        for (int t = 0; t < 4; t++) {
            struct layer l = layer_make(10, 150, 320, 1500, threads[t]);
            struct nb_solve_opts opts = layer_opts(4, false, 64, NB_EFFORT_BEST);
            opts.order = orders[o];
            layer_solve(&l, "gptq", &opts, &q[t], &arena);
            if (t) assert_same_codes(&q[0], &q[t]);
            layer_release(&l);
        }
        nb_arena_release(&arena);
    }
}

static void row_losses(const struct layer *l, const struct nb_qmat *q, double *loss)
{
    const int64_t k = l->cols;
    float *e = nb_alloc((size_t)k, sizeof *e);
    for (int64_t r = 0; r < l->rows; r++) {
        loss[r] = 0;
        nb_qmat_dequant_row(q, r, e);
        for (int64_t j = 0; j < k; j++) e[j] = l->w[r * k + j] - e[j];
        for (int64_t i = 0; i < k; i++) {
            for (int64_t j = 0; j < k; j++) loss[r] += e[i] * l->stats.h[i * k + j] * e[j];
        }
    }
    nb_free(e);
}

/* Heavy damping minimizes something else; still no row may pay for it. */
static void test_no_row_is_worse_than_plain_rounding(void **state)
{
    (void)state;
    struct layer l = layer_make(12, 100, 24, 400, 1);
    struct nb_solve_opts opts = layer_opts(2, true, 8, NB_EFFORT_FAST);
    opts.damp = 1.0;
    struct nb_qmat q, plain;
    struct nb_arena arena;
    nb_arena_init(&arena);
    layer_solve(&l, "gptq", &opts, &q, &arena);
    layer_solve(&l, "rtn", &opts, &plain, &arena);
    double loss[100], rtn[100];
    row_losses(&l, &q, loss);
    row_losses(&l, &plain, rtn);
    for (int r = 0; r < 100; r++) assert_true(loss[r] <= rtn[r] * (1.0 + 1e-5));
    nb_arena_release(&arena);
    layer_release(&l);
}

/* A shifted target repairs what the input already lost: |Q x_q - W x_fp|^2 falls. */
static void test_gptaq_lowers_the_error_to_the_float_stream(void **state)
{
    (void)state;
    struct layer l = layer_make(11, 32, 96, 4000, 1);
    const int64_t k = l.cols;
    struct nb_err err = {0};
    struct nb_stats stats;
    float *fp = nb_alloc((size_t)(l.tokens * k), sizeof *fp);
    for (int64_t t = 0; t < l.tokens; t++) { /* channels that leaked into their neighbours */
        for (int64_t j = 0; j < k; j++)
            fp[t * k + j] = l.x[t * k + j] + 0.2f * l.x[t * k + (j + 1) % k];
    }
    assert_int_equal(nb_stats_init(&stats, k, NB_STATS_CROSS, &err), 0);
    const struct nb_stats_input in = {l.x, fp, l.tokens};
    assert_int_equal(nb_stats_add(&stats, l.be, &in, &err), 0);
    nb_stats_finish(&stats);
    double error[2];
    for (int on = 0; on < 2; on++) {
        struct nb_solve_opts opts = layer_opts(4, true, 32, NB_EFFORT_FAST);
        struct nb_qmat q;
        struct nb_solve_report report;
        struct nb_arena arena;
        nb_arena_init(&arena);
        opts.gptaq_alpha = on;
        assert_int_equal(
            nb_solver_find("gptq")->solve(&q, &(struct nb_solve_job){&l.mat, &stats, &opts, l.be},
                                          &arena, &report, &err),
            0);
        float row[96];
        error[on] = 0;
        for (int64_t r = 0; r < l.rows; r++) {
            nb_qmat_dequant_row(&q, r, row);
            for (int64_t t = 0; t < l.tokens; t++) {
                double d = 0;
                for (int64_t j = 0; j < k; j++)
                    d += row[j] * l.x[t * k + j] - l.w[r * k + j] * fp[t * k + j];
                error[on] += d * d;
            }
        }
        nb_arena_release(&arena);
    }
    assert_true(error[1] < 0.2 * error[0]);
    nb_stats_release(&stats);
    nb_free(fp);
    layer_release(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_diagonal_h_is_plain_rounding),
        cmocka_unit_test(test_weights_on_the_grid_come_back),
        cmocka_unit_test(test_loss_of_the_pass_is_the_trace),
        cmocka_unit_test(test_pass_equals_the_textbook_form),
        cmocka_unit_test(test_permuted_columns_give_permuted_codes),
        cmocka_unit_test(test_desc_act_records_its_groups),
        cmocka_unit_test(test_ladder),
        cmocka_unit_test(test_damping_follows_the_tokens),
        cmocka_unit_test(test_dead_columns_are_rounded_to_nearest),
        cmocka_unit_test(test_threads_do_not_change_a_bit),
        cmocka_unit_test(test_no_row_is_worse_than_plain_rounding),
        cmocka_unit_test(test_gptaq_lowers_the_error_to_the_float_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
