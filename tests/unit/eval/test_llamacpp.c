/* SPDX-License-Identifier: Apache-2.0
 *
 * test_llamacpp.c - llama.cpp's statistics of a pair, against plain loops in double precision. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval/llamacpp.h"

enum { V = 37, N = 201 };

static void near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.12g is not %.12g", a, b);
}

static float draw(uint32_t *seed, float scale)
{
    *seed = *seed * 1664525u + 1013904223u;
    return ((float)(*seed >> 8) / 0x1p24F - 0.5F) * scale;
}

static void log_softmax(const float *x, double *out)
{
    double sum = 0;
    for (int i = 0; i < V; i++) sum += exp((double)x[i]);
    for (int i = 0; i < V; i++) out[i] = (double)x[i] - log(sum);
}

static void test_row(void **state)
{
    (void)state;
    uint32_t seed = 3;
    for (int round = 0; round < 50; round++) {
        float a[V], b[V];
        double la[V], lb[V], kld = 0;
        for (int i = 0; i < V; i++) {
            a[i] = draw(&seed, 10);
            b[i] = a[i] + draw(&seed, 2);
        }
        b[5] = -30; /* below the threshold: does not count */
        a[5] = 20;  /* although the model is sure of it */
        log_softmax(a, la);
        log_softmax(b, lb);
        for (int i = 0; i < V; i++) {
            if (lb[i] > -16) kld += exp(lb[i]) * (lb[i] - la[i]);
        }
        struct nb_eval_row r;
        nb_eval_row_log_softmax(b, V);
        nb_eval_row_llamacpp(&r, a, b, V, 11);
        near(r.kld, kld, 1e-5);
        near(r.nll, -la[11], 2e-6);
        near(r.nll_base, -lb[11], 2e-6);
        near((double)r.dp, exp(la[11]) - exp(lb[11]), 1e-6);
        assert_false(r.same_top);
    }
}

/* Equal rows: no difference, and the first of several largest values is the top. */
static void test_equal_rows(void **state)
{
    (void)state;
    float a[V] = {0}, b[V] = {0};
    a[3] = a[30] = b[3] = 2;
    b[30] = 2;
    struct nb_eval_row r;
    nb_eval_row_log_softmax(b, V);
    nb_eval_row_llamacpp(&r, a, b, V, 0);
    near(r.kld, 0, 1e-6);
    near((double)r.dp, 0, 1e-8);
    assert_true(r.same_top);
    a[30] = 3;
    nb_eval_row_llamacpp(&r, a, b, V, 0);
    assert_false(r.same_top);
    float max, log_sum;
    nb_eval_row_sum(a, V, &max, &log_sum);
    near((double)max, 3, 0);
    near((double)log_sum, log(1 + exp(-1) + (V - 2) * exp(-3)), 1e-6);
}

struct sample {
    double a[N], b[N], kld[N], dp[N];
    int same[N];
};

static void make_sample(struct sample *s)
{
    uint32_t seed = 9;
    for (int i = 0; i < N; i++) {
        s->b[i] = (double)(3 + draw(&seed, 4));
        s->a[i] = s->b[i] + (double)draw(&seed, 0.5F) + 0.02;
        s->kld[i] = (double)fabsf(draw(&seed, 0.1F));
        s->dp[i] = (double)(float)(exp(-s->a[i]) - exp(-s->b[i]));
        s->same[i] = i % 7 != 0;
    }
}

static void run(const struct sample *s, int n, struct nb_llamacpp_result *out)
{
    struct nb_eval_moments m = {0};
    float kld[N], dp[N];
    for (int i = 0; i < n; i++) {
        struct nb_eval_row r = {.nll = s->a[i],
                                .nll_base = s->b[i],
                                .kld = s->kld[i],
                                .dp = (float)s->dp[i],
                                .same_top = s->same[i] != 0};
        nb_eval_moments_add(&m, &r);
        kld[i] = (float)s->kld[i];
        dp[i] = (float)s->dp[i];
    }
    memset(out, 0, sizeof *out);
    nb_eval_moments_finish(&m, kld, dp, out);
}

static double mean(const double *x)
{
    double sum = 0;
    for (int i = 0; i < N; i++) sum += x[i];
    return sum / N;
}

/* Covariance of two means. */
static double covariance(const double *x, const double *y)
{
    double mx = mean(x), my = mean(y), sum = 0;
    for (int i = 0; i < N; i++) sum += (x[i] - mx) * (y[i] - my);
    return sum / N / (N - 1);
}

static void test_statistics(void **state)
{
    (void)state;
    static struct sample s;
    struct nb_llamacpp_result r;
    make_sample(&s);
    run(&s, N, &r);
    double ppl = exp(mean(s.a)), base = exp(mean(s.b)), d[N], d2[N], same[N];
    for (int i = 0; i < N; i++) {
        d[i] = s.a[i] - s.b[i];
        d2[i] = s.dp[i] * s.dp[i];
        same[i] = s.same[i];
    }
    double error_a = sqrt(covariance(s.a, s.a)), error_b = sqrt(covariance(s.b, s.b));
    double ratio_error = sqrt(covariance(d, d)), both = covariance(s.a, s.b);
    near(r.ppl.value, ppl, 1e-9);
    near(r.ppl.error, ppl * error_a, 1e-9);
    near(r.ppl_base.value, base, 1e-9);
    near(r.ppl_base.error, base * error_b, 1e-9);
    near(r.correlation, both / (error_a * error_b), 1e-9);
    near(r.ln_ratio.value, mean(d), 1e-12);
    near(r.ln_ratio.error, ratio_error, 1e-9);
    near(r.ratio.value, ppl / base, 1e-12);
    near(r.ratio.error, ppl / base * ratio_error, 1e-9);
    near(r.difference.value, ppl - base, 1e-9);
    double square =
        ppl * ppl * error_a * error_a + base * base * error_b * error_b - 2 * ppl * base * both;
    near(r.difference.error, sqrt(square), 1e-8);
    near(r.kld.value, mean(s.kld), 1e-12);
    near(r.kld.error, sqrt(covariance(s.kld, s.kld)), 1e-12);
    near(r.dp.value, mean(s.dp), 1e-12);
    near(r.dp.error, sqrt(covariance(s.dp, s.dp)), 1e-12);
    near(r.dp_rms.value, sqrt(mean(d2)), 1e-12);
    near(r.dp_rms.error, 0.5 / sqrt(mean(d2)) * sqrt(covariance(d2, d2)), 1e-12);
    near(r.same_top.value, mean(same), 1e-12);
    near(r.same_top.error, sqrt(mean(same) * (1 - mean(same)) / (N - 1)), 1e-12);
}

/* Values 0, 1, ... 200: quantile q is 200 q. */
static void test_quantiles(void **state)
{
    (void)state;
    static struct sample s;
    struct nb_llamacpp_result r;
    for (int i = 0; i < N; i++) {
        s.kld[i] = (i * 7) % N;
        s.dp[i] = -s.kld[i];
    }
    run(&s, N, &r);
    assert_true(r.has_quantiles);
    for (int i = 0; i < NB_LLAMACPP_KLD_LEVELS; i++)
        near(r.kld_quantiles[i], 200 * nb_llamacpp_kld_levels[i], 1e-4);
    for (int i = 0; i < NB_LLAMACPP_DP_LEVELS; i++)
        near(r.dp_quantiles[i], 200 * nb_llamacpp_dp_levels[i] - 200, 1e-4);
    run(&s, 100, &r); /* an even number: the median is between two */
    assert_true(r.has_quantiles);
    float sorted[100];
    for (int i = 0; i < 100; i++) sorted[i] = (float)s.kld[i];
    for (int i = 0; i < 100; i++) {
        for (int j = i + 1; j < 100; j++) {
            if (sorted[j] < sorted[i]) {
                float swap = sorted[i];
                sorted[i] = sorted[j];
                sorted[j] = swap;
            }
        }
    }
    near(r.kld_quantiles[5], (double)(sorted[49] + sorted[50]) / 2, 1e-6);
    run(&s, 99, &r);
    assert_false(r.has_quantiles);
}

/* Too few, or equal, positions: errors are zero and not NaN. */
static void test_degenerate(void **state)
{
    (void)state;
    static struct sample s;
    struct nb_llamacpp_result r;
    make_sample(&s);
    run(&s, 1, &r);
    near(r.ppl.error, 0, 0);
    near(r.kld.error, 0, 0);
    near(r.same_top.error, 0, 0);
    near(r.ratio.value, exp(s.a[0] - s.b[0]), 1e-9);
    memcpy(s.a, s.b, sizeof s.a);
    memset(s.dp, 0, sizeof s.dp);
    run(&s, N, &r);
    near(r.ln_ratio.value, 0, 1e-12);
    near(r.ln_ratio.error, 0, 1e-7);
    near(r.correlation, 1, 1e-9);
    near(r.dp_rms.value, 0, 0);
    near(r.dp_rms.error, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row),        cmocka_unit_test(test_equal_rows),
        cmocka_unit_test(test_statistics), cmocka_unit_test(test_quantiles),
        cmocka_unit_test(test_degenerate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
