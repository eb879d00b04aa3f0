/* SPDX-License-Identifier: Apache-2.0
 *
 * test_blocks.c - blocks solved: better than the reference's encoder, never worse, the same on any number of
 * threads, and the reference's own bytes where there is nothing to go by. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "layer.h"
#include "numeric/block.h"

static const char *const types[] = {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",   "Q4_0",
                                    "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "IQ4_XS"};
enum { N_TYPES = sizeof types / sizeof *types, ROWS = 21, COLS = 512 };

static unsigned char *new_bytes(const struct nb_block_type *t, int64_t rows, int64_t cols)
{
    unsigned char *out = nb_calloc((size_t)rows, nb_block_row_bytes(t, cols));
    assert_non_null(out);
    return out;
}

static unsigned char *solve(const struct layer *l, const char *type, enum nb_effort effort,
                            struct nb_solve_report *report)
{
    struct nb_err err = {0};
    struct nb_solve_opts opts = {0};
    nb_solve_opts_effort(&opts, effort);
    const struct nb_block_type *t = nb_block_find(type);
    unsigned char *out = new_bytes(t, l->rows, l->cols);
    const struct nb_solve_job job = {&l->mat, &l->stats, &opts, l->be};
    if (nb_block_solve(t, &job, out, report, &err)) fail_msg("%s: %s", type, err.text);
    return out;
}

/* What the reference writes with diag(H) as importance, or without. */
static unsigned char *reference(const struct layer *l, const char *type, bool important)
{
    struct nb_err err = {0};
    const struct nb_block_type *t = nb_block_find(type);
    unsigned char *out = new_bytes(t, l->rows, l->cols);
    float *u = nb_alloc((size_t)l->cols, sizeof *u);
    for (int64_t j = 0; j < l->cols; j++)
        u[j] = (float)(l->stats.h[j * l->cols + j] / (double)l->stats.n_tokens);
    for (int64_t r = 0; r < l->rows; r++) {
        if (nb_block_encode(t, l->w + r * l->cols, important ? u : NULL, l->cols,
                            out + (size_t)r * nb_block_row_bytes(t, l->cols), &err))
            fail_msg("%s: %s", type, err.text);
    }
    nb_free(u);
    return out;
}

/* dW C dW^T of one row, f64; C is a sum over tokens. */
static double row_loss(const struct layer *l, const char *type, const unsigned char *bytes,
                       int64_t r, const double *c)
{
    const struct nb_block_type *t = nb_block_find(type);
    const int64_t k = l->cols;
    float *e = nb_alloc((size_t)k, sizeof *e);
    t->decode(bytes + (size_t)r * nb_block_row_bytes(t, k), e, k);
    double sum = 0;
    for (int64_t j = 0; j < k; j++) e[j] = l->w[r * k + j] - e[j];
    for (int64_t i = 0; i < k; i++) {
        double line = 0;
        for (int64_t j = 0; j < k; j++) line += c[i * k + j] * e[j];
        sum += line * e[i];
    }
    nb_free(e);
    return sum;
}

static void test_better_than_the_reference_and_no_row_worse(void **state)
{
    (void)state;
    struct layer l = layer_make(31, ROWS, COLS, COLS * 6, 2);
    for (int i = 0; i < N_TYPES; i++) {
        struct nb_solve_report report;
        unsigned char *ours = solve(&l, types[i], NB_EFFORT_NORMAL, &report);
        unsigned char *theirs = reference(&l, types[i], true);
        double loss = 0, loss_reference = 0, unseen = 0, unseen_reference = 0;
        for (int64_t r = 0; r < l.rows; r++) {
            const double a = row_loss(&l, types[i], ours, r, l.stats.h) / (double)l.tokens;
            const double b = row_loss(&l, types[i], theirs, r, l.stats.h) / (double)l.tokens;
            assert_true(a <= b * (1.0 + 1e-4));
            loss += a;
            loss_reference += b;
            unseen += row_loss(&l, types[i], ours, r, l.truth);
            unseen_reference += row_loss(&l, types[i], theirs, r, l.truth);
        }
        assert_true(fabs(loss - report.loss) <= 2e-3 * loss);
        assert_true(fabs(loss_reference - report.loss_rtn) <= 2e-3 * loss_reference);
        assert_true(report.loss_zero > report.loss_rtn);
        assert_true(loss < 0.6 * loss_reference);
        assert_true(unseen < 0.75 * unseen_reference);
        assert_string_equal(report.ladder, "cholesky");
        nb_free(ours);
        nb_free(theirs);
    }
    layer_release(&l);
}

static void test_more_effort_less_loss(void **state)
{
    (void)state;
    struct layer l = layer_make(32, 32, 256, 256 * 6, 2);
    static const char *const some[] = {"Q4_K", "Q3_K", "Q4_0", "IQ4_XS"};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        struct nb_solve_report r[3];
        for (int e = NB_EFFORT_FAST; e <= NB_EFFORT_BEST; e++)
            nb_free(solve(&l, some[i], (enum nb_effort)e, &r[e]));
        assert_true(r[NB_EFFORT_NORMAL].loss < 0.99 * r[NB_EFFORT_FAST].loss);
        assert_true(r[NB_EFFORT_BEST].loss < r[NB_EFFORT_NORMAL].loss);
    }
    layer_release(&l);
}

static void test_threads_and_neighbours_do_not_matter(void **state)
{
    (void)state;
    static const int threads[] = {1, 3, 16};
    static const char *const some[] = {"Q2_K", "Q6_K", "Q5_1", "IQ4_NL"};
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        const struct nb_block_type *t = nb_block_find(some[i]);
        const size_t row_bytes = nb_block_row_bytes(t, COLS);
        unsigned char *first = NULL;
        for (size_t n = 0; n < sizeof threads / sizeof *threads; n++) {
            struct layer l = layer_make(33, 40, COLS, COLS * 4, threads[n]);
            unsigned char *out = solve(&l, some[i], NB_EFFORT_NORMAL, NULL);
            if (first) assert_memory_equal(out, first, 40 * row_bytes);
            if (!first) first = out;
            else nb_free(out);
            if (!n) { /* rows 16 .. 39 alone */
                struct layer part = l;
                part.w = part.mat.data = l.w + 16 * COLS;
                part.rows = part.mat.rows = 24;
                out = solve(&part, some[i], NB_EFFORT_NORMAL, NULL);
                assert_memory_equal(out, first + 16 * row_bytes, 24 * row_bytes);
                nb_free(out);
            }
            layer_release(&l);
        }
        nb_free(first);
    }
}

static void test_without_statistics_the_reference_bytes(void **state)
{
    (void)state;
    struct layer l = layer_make(34, 5, 256, 256, 1);
    struct nb_err err = {0};
    struct nb_solve_opts opts = {0};
    nb_solve_opts_defaults(&opts);
    const struct nb_block_type *t = nb_block_find("Q4_K");
    const size_t bytes = (size_t)l.rows * nb_block_row_bytes(t, l.cols);
    unsigned char *out = new_bytes(t, l.rows, l.cols);
    unsigned char *plain = reference(&l, "Q4_K", false);
    const struct nb_solve_job job = {&l.mat, NULL, &opts, l.be};
    struct nb_solve_report report;
    assert_int_equal(nb_block_solve(t, &job, out, &report, &err), 0);
    assert_memory_equal(out, plain, bytes);
    assert_string_equal(report.ladder, "reference");

    l.stats.n_tokens = 31; /* under one token for eight columns: only the diagonal says anything */
    unsigned char *weighted = reference(&l, "Q4_K", true);
    unsigned char *few = solve(&l, "Q4_K", NB_EFFORT_NORMAL, &report);
    assert_memory_equal(few, weighted, bytes);

    l.stats.n_tokens = 256;
    l.stats.h[3 * 256 + 3] = NAN;
    unsigned char *bad = solve(&l, "Q4_K", NB_EFFORT_NORMAL, &report);
    assert_memory_equal(bad, plain, bytes);
    nb_free(out);
    nb_free(plain);
    nb_free(weighted);
    nb_free(few);
    nb_free(bad);
    layer_release(&l);
}

static void test_a_type_without_a_grid_is_encoded(void **state)
{
    (void)state;
    struct layer l = layer_make(35, 3, 256, 1024, 1);
    assert_false(nb_block_solvable(nb_block_find("MXFP4")));
    for (int i = 0; i < N_TYPES; i++) assert_true(nb_block_solvable(nb_block_find(types[i])));
    unsigned char *out = solve(&l, "MXFP4", NB_EFFORT_NORMAL, NULL);
    unsigned char *theirs = reference(&l, "MXFP4", false);
    assert_memory_equal(out, theirs, 3 * nb_block_row_bytes(nb_block_find("MXFP4"), 256));
    nb_free(out);
    nb_free(theirs);
    layer_release(&l);
}

/* Rows of zeros, of one value, of extremes, and channels that the calibration text never used. */
static void test_odd_rows_and_dead_channels(void **state)
{
    (void)state;
    struct layer l = layer_make(36, 18, 256, 1024, 2);
    for (int64_t j = 0; j < 256; j++) {
        l.w[j] = 0.0f;
        l.w[256 + j] = 0.25f;
        l.w[512 + j] = -0.25f;
        l.w[768 + j] = j ? 0.0f : 3.0f;
        l.w[1024 + j] *= 1e-9f;
        l.w[1280 + j] *= 1e4f;
    }
    for (int64_t j = 32; j < 80; j++) {
        for (int64_t i = 0; i < 256; i++) l.stats.h[i * 256 + j] = l.stats.h[j * 256 + i] = 0.0;
    }
    for (int i = 0; i < N_TYPES; i++) {
        struct nb_solve_report report;
        unsigned char *ours = solve(&l, types[i], NB_EFFORT_BEST, &report);
        assert_true(isfinite(report.loss) && report.loss <= report.loss_rtn);
        float value[256];
        nb_block_find(types[i])->decode(ours, value, 256);
        for (int j = 0; j < 256; j++) assert_true(value[j] == 0.0f);
        for (int64_t r = 0; r < l.rows; r++) {
            nb_block_find(types[i])->decode(
                ours + (size_t)r * nb_block_row_bytes(nb_block_find(types[i]), 256), value, 256);
            for (int j = 0; j < 256; j++) assert_true(isfinite(value[j]));
        }
        nb_free(ours);
    }
    layer_release(&l);
}

static void test_errors(void **state)
{
    (void)state;
    struct layer l = layer_make(37, 20, 288, 288, 1);
    struct nb_err err = {0};
    struct nb_solve_opts opts = {0};
    nb_solve_opts_defaults(&opts);
    unsigned char out[20 * 512];
    const struct nb_solve_job job = {&l.mat, &l.stats, &opts, l.be};
    assert_int_equal(nb_block_solve(nb_block_find("Q4_K"), &job, out, NULL, &err), NB_E_SPEC);
    assert_non_null(strstr(err.text, "288"));
    assert_non_null(strstr(err.text, "256"));
    assert_int_equal(nb_block_solve(nb_block_find("Q4_0"), &job, out, NULL, &err), 0);
    l.w[17 * 288 + 5] = INFINITY;
    assert_int_equal(nb_block_solve(nb_block_find("Q4_0"), &job, out, NULL, &err), NB_E_NUMERIC);
    assert_non_null(strstr(err.text, "row 17"));
    layer_release(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_better_than_the_reference_and_no_row_worse),
        cmocka_unit_test(test_more_effort_less_loss),
        cmocka_unit_test(test_threads_and_neighbours_do_not_matter),
        cmocka_unit_test(test_without_statistics_the_reference_bytes),
        cmocka_unit_test(test_a_type_without_a_grid_is_encoded),
        cmocka_unit_test(test_odd_rows_and_dead_channels),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
