/* SPDX-License-Identifier: Apache-2.0
 *
 * test_blocks_descent.c - fits and local search in blocks, seen from outside: first scales no worse than the
 * reference's, losses that are true and never rise, an end where no single level helps. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "layer.h"
#include "numeric/block.h"
#include "quant/blocks.h"

enum { ROWS = 20 };

struct start {
    struct layer l;
    struct nb_solve_opts opts;
    struct nb_arena arena;
    struct nb_hessian h;
    struct nb_block_problem b;
    struct nb_block_solution s;
    double before[32]; /* losses at the start */
};

/* Scales fitted, levels rounded on their own. */
static void set_up(struct start *a, const char *type, int64_t cols)
{
    struct nb_err err = {0};
    memset(a, 0, sizeof *a);
    a->l = layer_make(41, ROWS, cols, cols * 6, 2);
    a->b.grid = nb_block_grid_find(type);
    a->opts = layer_opts(4, false, a->b.grid->sub, NB_EFFORT_NORMAL);
    nb_arena_init(&a->arena);
    const struct nb_solve_job job = {&a->l.mat, &a->l.stats, &a->opts, a->l.be};
    struct nb_problem *p = &a->b.p;
    assert_int_equal(nb_problem_init(p, &job, NULL, &a->arena, &err), 0);
    assert_int_equal(nb_hessian_init(&a->h, &a->l.stats, &err), 0);
    nb_problem_set_h(p, &a->h, 1e-3);
    p->spec.symmetric = a->b.grid->lo < 0.0f;
    p->spec.elem.bits = a->b.grid->bits;
    if (a->b.grid->table) p->spec.elem.kind = NB_ELEM_TABLE;
    p->numeric = &a->b.grid->numeric;
    a->b.n_supers = cols / nb_block_grid_super(a->b.grid);
    assert_int_equal(nb_block_solution_init(&a->s, &a->b, &a->arena, &err), 0);
    nb_block_fit(&a->b, &a->s);
    for (int64_t r = 0; r < p->padded; r++) {
        for (int64_t j = 0; j < cols; j++) {
            const int64_t at = j / p->group * p->padded + r;
            const struct nb_lane_params lane = {&a->s.s.scale[at], &a->s.s.zero[at]};
            float value;
            p->numeric->round_lanes(&p->spec, p->w + r * cols + j, 1, &lane,
                                    &a->s.s.code[r * cols + j], &value);
        }
    }
    assert_int_equal(nb_block_solution_measure(&a->b, &a->s, &err), 0);
    memcpy(a->before, a->s.s.loss, (size_t)p->padded * sizeof *a->before);
}

static void tear_down(struct start *a)
{
    nb_hessian_release(&a->h);
    nb_arena_release(&a->arena);
    layer_release(&a->l);
}

static void test_the_first_fit_is_no_worse_than_the_reference(void **state)
{
    (void)state;
    static const char *const types[] = {"Q2_K", "Q3_K", "Q4_K", "Q6_K", "Q4_0", "IQ4_XS", "Q5_1"};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        struct start a;
        struct nb_err err = {0};
        set_up(&a, types[t], 512);
        const struct nb_block_type *type = nb_block_find(types[t]);
        unsigned char bytes[2048];
        float value[512], *e = nb_alloc(32 * 512, sizeof *e);
        double ours = 0, theirs = 0;
        nb_block_solution_error(&a.b, &a.s, e);
        for (int64_t r = 0; r < ROWS; r++) {
            assert_int_equal(nb_block_encode(type, a.l.w + r * 512, a.b.p.u, 512, bytes, &err), 0);
            type->decode(bytes, value, 512);
            for (int j = 0; j < 512; j++) {
                const double off = (double)a.l.w[r * 512 + j] - (double)value[j];
                ours += (double)a.b.p.u[j] * (double)e[r * 512 + j] * (double)e[r * 512 + j];
                theirs += (double)a.b.p.u[j] * off * off;
            }
        }
        assert_true(ours <= 1.02 * theirs);
        nb_free(e);
        tear_down(&a);
    }
}

static void assert_stored(const struct start *a)
{
    const struct nb_block_grid *g = a->b.grid;
    const int64_t padded = a->b.p.padded;
    for (int64_t i = 0; i < a->b.n_supers * padded; i++) {
        assert_true(a->s.d[i] == nb_block_store(a->s.d[i]));
        assert_true(a->s.dmin[i] == nb_block_store(a->s.dmin[i]));
    }
    for (int64_t i = 0; i < a->b.p.n_groups * padded; i++) {
        const int64_t upper = i / padded / g->subs * padded + i % padded;
        assert_in_range(a->s.scale[i] - g->scale_lo, 0, g->scale_hi - g->scale_lo);
        assert_in_range(a->s.min[i], 0, g->min_hi);
        assert_true(a->s.s.scale[i] == a->s.d[upper] * (float)a->s.scale[i]);
        assert_true(a->s.s.zero[i] == a->s.dmin[upper] * (float)a->s.min[i]);
    }
}

static void assert_no_row_rose(const struct start *a)
{
    for (int64_t r = 0; r < ROWS; r++) assert_true(a->s.s.loss[r] <= a->before[r] * (1.0 + 1e-6));
}

static double total(const struct start *a)
{
    double sum = 0;
    for (int64_t r = 0; r < ROWS; r++) sum += a->s.s.loss[r];
    return sum;
}

static void test_each_part_lowers_the_loss(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        int64_t cols;
    } cases[] = {{"Q4_K", 512}, {"Q2_K", 256}, {"Q6_K", 256},  {"Q4_0", 288},
                 {"Q5_1", 96},  {"Q8_0", 64},  {"IQ4_XS", 256}};
    double gained = 0;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        double end[3];
        for (int part = 0; part < 3; part++) {
            struct start a;
            struct nb_err err = {0};
            set_up(&a, cases[c].type, cases[c].cols);
            const double start = total(&a);
            const struct nb_block_descent_opts opts = {
                .sweeps = 3, .refit = part > 0, .search = part > 1};
            assert_int_equal(nb_block_descend(&a.b, &a.s, &opts, &err), 0);
            assert_no_row_rose(&a);
            assert_stored(&a);
            end[part] = total(&a);
            assert_true(end[part] < 0.9 * start);
            assert_int_equal(nb_block_solution_measure(&a.b, &a.s, &err), 0);
            assert_true(fabs(total(&a) - end[part]) <= 1e-9 * end[part]);
            tear_down(&a);
        }
        assert_true(end[1] < end[0]);
        assert_true(end[2] < 1.05 * end[1]); /* another path: now and then to a worse end */
        gained += end[2] / end[1];
    }
    assert_true(gained < 0.92 * (double)(sizeof cases / sizeof *cases));
}

static void test_levels_end_where_none_helps(void **state)
{
    (void)state;
    static const char *const types[] = {"Q4_K", "IQ4_NL", "Q3_K"};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        struct start a;
        struct nb_err err = {0};
        set_up(&a, types[t], 256);
        const struct nb_block_descent_opts opts = {.sweeps = 100};
        assert_int_equal(nb_block_descend(&a.b, &a.s, &opts, &err), 0);
        float *e = nb_alloc(32 * 256, sizeof *e);
        nb_block_solution_error(&a.b, &a.s, e);
        const struct nb_problem *p = &a.b.p;
        for (int64_t r = 0; r < ROWS; r++) {
            for (int64_t j = 0; j < 256; j++) {
                double g = 0;
                for (int64_t i = 0; i < 256; i++) g += (double)e[r * 256 + i] * p->h[i * 256 + j];
                const int64_t at = j / p->group * p->padded + r;
                const struct nb_group_params params = {a.s.s.scale[at], a.s.s.zero[at]};
                const float here = p->w[r * 256 + j] - e[r * 256 + j];
                for (unsigned c = 0; c < 1u << a.b.grid->bits; c++) {
                    const double by =
                        (double)p->numeric->value(&p->spec, c, &params) - (double)here;
                    const double change = by * (by * p->h[j * 256 + j] - 2.0 * g);
                    assert_true(change >= -1e-5 * a.s.s.loss[r]);
                }
            }
        }
        nb_free(e);
        tear_down(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_fit_is_no_worse_than_the_reference),
        cmocka_unit_test(test_each_part_lowers_the_loss),
        cmocka_unit_test(test_levels_end_where_none_helps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
