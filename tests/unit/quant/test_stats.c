/* SPDX-License-Identifier: Apache-2.0
 *
 * test_stats.c - sums over tokens against plain loops, in whatever portions the tokens come. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/rng.h"
#include "layer.h"

enum { K = 70, M = 1500 };

static void test_sums_equal_plain_loops(void **state)
{
    (void)state;
    struct layer l = layer_make(41, 8, K, M, 2);
    struct nb_err err = {0};
    struct nb_stats s;
    struct nb_rng rng;
    nb_rng_init(&rng, 5);
    float *fp = nb_alloc(M * K, sizeof *fp);
    for (int i = 0; i < M * K; i++) fp[i] = l.x[i] + 0.1f * (float)nb_rng_normal(&rng);
    assert_int_equal(nb_stats_init(&s, K, NB_STATS_CROSS | NB_STATS_ABS, &err), 0);
    static const int64_t cuts[] = {0, 1, 1101, M}; /* one is more than a slice of the cross term */
    for (int i = 0; i < 3; i++) {
        const int64_t at = cuts[i] * K;
        const struct nb_stats_input in = {l.x + at, fp + at, cuts[i + 1] - cuts[i]};
        assert_int_equal(nb_stats_add(&s, l.be, &in, &err), 0);
    }
    nb_stats_finish(&s);
    assert_int_equal(s.n_tokens, M);
    for (int i = 0; i < K; i++) {
        double sum = 0;
        for (int t = 0; t < M; t++) sum += fabsf(l.x[t * K + i]);
        assert_true(fabs(s.abs_sum[i] - sum) <= 1e-9 * sum);
        for (int j = 0; j < K; j++) {
            double h = 0, d = 0, size = 0;
            for (int t = 0; t < M; t++) {
                h += (double)l.x[t * K + i] * l.x[t * K + j];
                d += ((double)fp[t * K + i] - l.x[t * K + i]) * l.x[t * K + j];
                size += fabs((double)l.x[t * K + i] * l.x[t * K + j]);
            }
            assert_true(fabs(s.h[i * K + j] - h) <= 1e-5 * size);
            assert_true(fabs(s.d[i * K + j] - d) <= 1e-5 * size);
        }
    }
    nb_stats_release(&s);
    nb_free(fp);
    layer_release(&l);
}

static void test_output_loss_equals_outputs(void **state)
{
    (void)state;
    struct layer l = layer_make(42, 200, K, M, 2); /* more rows than are worked at once */
    float *q = nb_alloc((size_t)(l.rows * K), sizeof *q);
    for (int64_t i = 0; i < l.rows * K; i++) q[i] = rintf(l.w[i] * 64.0f) / 64.0f;
    struct nb_fmat qm = {.data = q, .rows = l.rows, .cols = K, .ld = K};
    double sum = 0;
    for (int64_t r = 0; r < l.rows; r++) {
        for (int t = 0; t < M; t++) {
            double d = 0;
            for (int j = 0; j < K; j++)
                d += ((double)l.w[r * K + j] - q[r * K + j]) * l.x[t * K + j];
            sum += d * d;
        }
    }
    const double loss = nb_output_loss(&l.mat, &qm, &l.stats, l.be);
    assert_true(fabs(loss - sum / M) < 1e-5 * loss);
    nb_free(q);
    layer_release(&l);
}

static void test_too_large_is_an_error(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct nb_stats s;
    assert_int_equal(nb_stats_init(&s, INT64_C(1) << 33, 0, &err), NB_E_NOMEM);
    assert_string_equal(err.text, "no memory for the statistics of 8589934592 columns");
    assert_null(s.h);
}

/* Around the mean: the covariance, and with two streams the covariance of their difference. The shift of the bias
 * makes the mean of what Q gives equal to what W gave. */
static void test_means_left_to_the_bias(void **state)
{
    (void)state;
    enum { COLS = 24, ROWS = 10, TOKENS = 300 };
    struct layer l = layer_make(9, ROWS, COLS, TOKENS, 2);
    struct nb_err err = {0};
    struct nb_stats s;
    float *fp = nb_xalloc(TOKENS * COLS * sizeof *fp);
    for (int i = 0; i < TOKENS * COLS; i++) {
        l.x[i] += 0.5f * (float)(i % COLS % 5);
        fp[i] = 1.1f * l.x[i] + 0.01f * (float)(i % 7);
    }
    assert_int_equal(nb_stats_init(&s, COLS, NB_STATS_CROSS | NB_STATS_SUM, &err), 0);
    assert_int_equal(nb_stats_add(&s, l.be, &(struct nb_stats_input){l.x, fp, TOKENS}, &err), 0);
    nb_stats_finish(&s);
    nb_stats_centre(&s);
    double mean[COLS] = {0}, mean_fp[COLS] = {0};
    for (int i = 0; i < TOKENS * COLS; i++) {
        mean[i % COLS] += (double)l.x[i] / TOKENS;
        mean_fp[i % COLS] += (double)fp[i] / TOKENS;
    }
    for (int i = 0; i < COLS; i++) {
        for (int j = 0; j < COLS; j++) {
            double h = 0, d = 0, size = 0;
            for (int t = 0; t < TOKENS; t++) {
                const double a = l.x[t * COLS + i] - mean[i], b = l.x[t * COLS + j] - mean[j];
                h += a * b;
                d += (fp[t * COLS + i] - mean_fp[i] - a) * b;
                size += fabs((double)l.x[t * COLS + i] * l.x[t * COLS + j]);
            }
            assert_true(fabs(s.h[i * COLS + j] - h) < 1e-5 * size);
            assert_true(fabs(s.d[i * COLS + j] - d) < 1e-5 * size);
        }
    }
    const struct nb_solve_opts opts = layer_opts(2, false, COLS, NB_EFFORT_FAST);
    struct nb_qmat q;
    struct nb_arena arena;
    nb_arena_init(&arena);
    layer_solve(&l, "rtn", &opts, &q, &arena);
    double shift[ROWS];
    const struct nb_bias_job job = {&s, &l.mat, &q, l.be};
    assert_int_equal(nb_stats_bias(&job, shift, &err), 0);
    for (int n = 0; n < ROWS; n++) {
        float row[COLS];
        double want = 0;
        nb_qmat_dequant_row(&q, n, row);
        for (int j = 0; j < COLS; j++) want += l.w[n * COLS + j] * mean_fp[j] - row[j] * mean[j];
        assert_true(fabs(shift[n] - want) < 1e-5 * (1.0 + fabs(want)));
        assert_true(fabs(shift[n]) > 1e-6);
    }
    nb_arena_release(&arena);
    nb_stats_release(&s);
    nb_free(fp);
    layer_release(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_equal_plain_loops),
        cmocka_unit_test(test_output_loss_equals_outputs),
        cmocka_unit_test(test_means_left_to_the_bias),
        cmocka_unit_test(test_too_large_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
