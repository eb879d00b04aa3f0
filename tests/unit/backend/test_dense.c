/* SPDX-License-Identifier: Apache-2.0
 *
 * test_dense.c - general products, Hessian sums and cross sums against f64, and over thread
 * counts. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "make.h"

static void sum_tokens(struct nb_backend *be, const struct nb_token_sum *sum)
{
    struct nb_err err = {0};
    assert_int_equal(
        sum->b ? nb_cross_accumulate(be, sum, &err) : nb_syrk_accumulate(be, sum, &err), 0);
}

static void check_gemm(struct made *made, struct nb_rng *rng, struct nb_gemm g)
{
    int64_t a_rows = g.ta ? g.k : g.m, b_rows = g.tb ? g.n : g.k;
    g.lda = (g.ta ? g.m : g.k) + 2;
    g.ldb = (g.tb ? g.k : g.n) + 1;
    g.ldc = g.n + 3;
    float *a = make_normal(rng, (size_t)(a_rows * g.lda)),
          *b = make_normal(rng, (size_t)(b_rows * g.ldb));
    float *c = make_normal(rng, (size_t)(g.m * g.ldc)),
          *old = nb_alloc((size_t)(g.m * g.ldc), sizeof *old);
    memcpy(old, c, (size_t)(g.m * g.ldc) * sizeof *c);
    g.a = a;
    g.b = b;
    g.c = c;
    nb_gemm_run(made->be, &g);
    for (int64_t i = 0; i < g.m; i++) {
        for (int64_t j = 0; j < g.ldc; j++) {
            double was = old[i * g.ldc + j];
            if (j >= g.n) {
                assert_true(c[i * g.ldc + j] == old[i * g.ldc + j]);
                continue;
            }
            double sum = 0, size = 0;
            for (int64_t t = 0; t < g.k; t++) {
                double v = (double)(g.ta ? a[t * g.lda + i] : a[i * g.lda + t]) *
                           (g.tb ? b[j * g.ldb + t] : b[t * g.ldb + j]);
                sum += v;
                size += fabs(v);
            }
            sum = g.alpha * sum + (g.accumulate ? was : 0);
            size = fabs((double)g.alpha) * size + fabs(was);
            assert_true(fabs(c[i * g.ldc + j] - sum) <= 2 * (double)(g.k + 2) * 0x1p-24 * size);
        }
    }
    nb_free(a);
    nb_free(b);
    nb_free(c);
    nb_free(old);
}

static void test_gemm(void **state)
{
    (void)state;
    static const float alphas[] = {1, -1, 0.37f, 0};
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        struct made made = make_backend(levels[l], 3);
        for (int trial = 0; trial < 64; trial++) {
            struct nb_gemm g = {.ta = trial & 1,
                                .tb = trial >> 1 & 1,
                                .accumulate = trial >> 2 & 1,
                                .alpha = alphas[trial >> 3 & 3],
                                .m = 1 + (int64_t)nb_rng_below(&rng, 200),
                                .n = 1 + (int64_t)nb_rng_below(&rng, 70),
                                .k = 1 + (int64_t)nb_rng_below(&rng, 300)};
            check_gemm(&made, &rng, g);
        }
        check_gemm(&made, &rng, (struct nb_gemm){.alpha = 1, .m = 3, .n = 300, .k = 0});
        make_release(&made);
    }
}

enum { M = 2100, K = 290, LD = 301 };

static void test_syrk(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 2);
    float *x = make_normal(&rng, (size_t)M * LD);
    double *want = nb_calloc((size_t)K * K, sizeof *want), *h = nb_alloc((size_t)K * K, sizeof *h);
    double *first = nb_alloc((size_t)K * K, sizeof *first);
    for (int64_t m = 0; m < M; m++) {
        for (int64_t i = 0; i < K; i++) {
            for (int64_t j = i; j < K; j++)
                want[i * K + j] += (double)x[m * LD + i] * x[m * LD + j];
        }
    }
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        for (int threads = 1; threads <= 5; threads += 2) {
            struct made made = make_backend(levels[l], threads);
            for (int64_t i = 0; i < (int64_t)K * K; i++) h[i] = 0.5;
            sum_tokens(made.be, &(struct nb_token_sum){h, x, NULL, M, LD, K});
            for (int64_t i = 0; i < K; i++) {
                for (int64_t j = 0; j < K; j++) {
                    if (j < i)
                        assert_true(h[i * K + j] == 0.5); /* the lower triangle is not ours */
                    else assert_true(fabs(h[i * K + j] - 0.5 - want[i * K + j]) < 2e-5 * M);
                }
            }
            if (threads == 1) memcpy(first, h, (size_t)K * K * sizeof *h);
            assert_memory_equal(first, h, (size_t)K * K * sizeof *h);
            /* Two calls are the sum of both. */
            sum_tokens(made.be, &(struct nb_token_sum){h, x, NULL, 1, LD, K});
            assert_true(fabs(h[K + 1] - first[K + 1] - (double)x[1] * x[1]) < 1e-5);
            make_release(&made);
        }
    }
    nb_free(x);
    nb_free(want);
    nb_free(h);
    nb_free(first);
}

/* With bf16 products the sums are those of the rounded values. */
static void test_syrk_bf16(void **state)
{
    (void)state;
    enum { TOKENS = 515 };
    struct made made = make_backend(NULL, 2);
    if (!nb_backend_has_bf16(made.be)) {
        make_release(&made);
        skip();
    }
    struct nb_rng rng;
    nb_rng_init(&rng, 4);
    float *x = make_normal(&rng, (size_t)TOKENS * LD),
          *rounded = nb_alloc((size_t)TOKENS * LD, sizeof *rounded);
    double *h = nb_calloc((size_t)K * K, sizeof *h), *want = nb_calloc((size_t)K * K, sizeof *want);
    for (int64_t i = 0; i < (int64_t)TOKENS * LD; i++) rounded[i] = nb_round_to(x[i], NB_BF16);
    sum_tokens(made.be, &(struct nb_token_sum){want, rounded, NULL, TOKENS, LD, K});
    nb_backend_set_precision(made.be, NB_PRECISION_BF16);
    sum_tokens(made.be, &(struct nb_token_sum){h, x, NULL, TOKENS, LD, K});
    for (int64_t i = 0; i < K; i++) {
        for (int64_t j = i; j < K; j++)
            assert_true(fabs(h[i * K + j] - want[i * K + j]) < 1e-5 * TOKENS);
    }
    make_release(&made);
    nb_free(x);
    nb_free(rounded);
    nb_free(h);
    nb_free(want);
}

static void test_cross(void **state)
{
    (void)state;
    enum { TOKENS = 300 };
    struct nb_rng rng;
    nb_rng_init(&rng, 3);
    float *a = make_normal(&rng, (size_t)TOKENS * K), *b = make_normal(&rng, (size_t)TOKENS * K);
    double *want = nb_calloc((size_t)K * K, sizeof *want), *d = nb_alloc((size_t)K * K, sizeof *d);
    for (int64_t m = 0; m < TOKENS; m++) {
        for (int64_t i = 0; i < K; i++) {
            for (int64_t j = 0; j < K; j++) want[i * K + j] += (double)a[m * K + i] * b[m * K + j];
        }
    }
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        struct made made = make_backend(levels[l], 2);
        for (int64_t i = 0; i < (int64_t)K * K; i++) d[i] = -1;
        sum_tokens(made.be, &(struct nb_token_sum){d, a, b, TOKENS, K, K});
        for (int64_t i = 0; i < (int64_t)K * K; i++) assert_true(fabs(d[i] + 1 - want[i]) < 2e-3);
        make_release(&made);
    }
    nb_free(a);
    nb_free(b);
    nb_free(want);
    nb_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm),
        cmocka_unit_test(test_syrk),
        cmocka_unit_test(test_syrk_bf16),
        cmocka_unit_test(test_cross),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
