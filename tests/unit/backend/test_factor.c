/* SPDX-License-Identifier: Apache-2.0
 *
 * test_factor.c - Cholesky factors multiply back, bad minors are told, inverses invert; over thread
 * counts. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "make.h"

/* A positive definite matrix of n columns, lda apart, condition about 1e4; every entry of the
 * storage is set. */
static double *make_definite(struct nb_rng *rng, int64_t n, int64_t lda)
{
    double *a = nb_alloc((size_t)(n * lda), sizeof *a), *g = nb_alloc((size_t)(n * n), sizeof *g);
    assert_non_null(a);
    for (int64_t i = 0; i < n * n; i++) g[i] = nb_rng_normal(rng);
    for (int64_t i = 0; i < n * lda; i++) a[i] = 1e30; /* must stay */
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double sum = i == j ? 0.01 * (double)n : 0;
            for (int64_t k = 0; k < n; k++) sum += g[i * n + k] * g[j * n + k];
            a[i * lda + j] = sum;
        }
    }
    nb_free(g);
    return a;
}

static void check_factor(const double *l, const double *a, int64_t n, int64_t lda)
{
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < lda; j++) {
            if (j > i) {
                assert_true(l[i * lda + j] == 1e30);
                continue;
            }
            double sum = 0;
            for (int64_t k = 0; k <= j; k++) sum += l[i * lda + k] * l[j * lda + k];
            assert_true(fabs(sum - a[i * lda + j]) <= 1e-12 * a[0] * (double)n);
        }
    }
}

static void test_cholesky(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1, 2, 17, 127, 128, 129, 300};
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    const char *const *levels = make_levels();
    for (int i = 0; i < 7; i++) {
        const int64_t n = sizes[i], lda = n + 3;
        const size_t bytes = (size_t)(n * lda) * sizeof(double);
        double *a = make_definite(&rng, n, lda), *l = nb_alloc(bytes, 1),
               *first = nb_alloc(bytes, 1);
        for (int level = 0; levels[level]; level++) {
            for (int threads = 1; threads <= 3; threads++) {
                struct made made = make_backend(levels[level], threads);
                memcpy(l, a, bytes);
                assert_int_equal(nb_cholesky_run(made.be, l, n, lda), 0);
                if (threads == 1) {
                    check_factor(l, a, n, lda);
                    memcpy(first, l, bytes);
                }
                assert_memory_equal(first, l, bytes);
                make_release(&made);
            }
        }
        memcpy(l, a, bytes);
        assert_int_equal(nb_cholesky_f64(l, n, lda), 0);
        check_factor(l, a, n, lda);
        nb_free(a);
        nb_free(l);
        nb_free(first);
    }
}

/* Stored in f32: the product is off by what rounding the entries does, on all levels and thread counts. */
static void test_cholesky_in_f32(void **state)
{
    (void)state;
    enum { N = 300, LDA = N + 3 };
    struct nb_rng rng;
    nb_rng_init(&rng, 4);
    double *a = make_definite(&rng, N, LDA);
    float *l = nb_alloc(N * LDA, sizeof *l), *first = nb_alloc(N * LDA, sizeof *first);
    for (int threads = 1; threads <= 3; threads++) {
        struct made made = make_backend(NULL, threads);
        for (int i = 0; i < N * LDA; i++) l[i] = (float)a[i];
        assert_int_equal(nb_cholesky_f32_run(made.be, l, N, LDA), 0);
        if (threads == 1) memcpy(first, l, N * LDA * sizeof *l);
        assert_memory_equal(first, l, N * LDA * sizeof *l);
        make_release(&made);
    }
    for (int i = 0; i < N; i++) {
        for (int j = 0; j <= i; j++) {
            double sum = 0, size = 0;
            for (int k = 0; k <= j; k++) {
                sum += (double)l[i * LDA + k] * l[j * LDA + k];
                size += fabs((double)l[i * LDA + k] * l[j * LDA + k]);
            }
            assert_true(fabs(sum - a[i * LDA + j]) <= 4e-7 * (size + fabs(a[i * LDA + j])));
        }
        for (int j = i + 1; j < LDA; j++) assert_true(l[i * LDA + j] == 1e30f);
    }
    nb_free(a);
    nb_free(l);
    nb_free(first);
}

static void test_not_definite(void **state)
{
    (void)state;
    enum { N = 200 };
    struct nb_rng rng;
    nb_rng_init(&rng, 2);
    struct made made = make_backend(NULL, 2);
    static const int64_t bad[] = {0, 60, 127, 128, 199};
    for (int kind = 0; kind < 3; kind++) {
        for (int i = 0; i < 5; i++) {
            double *a = make_definite(&rng, N, N);
            a[bad[i] * N + bad[i]] = kind == 0 ? -1 : kind == 1 ? NAN : INFINITY;
            double *copy = nb_alloc(N * N, sizeof *copy);
            memcpy(copy, a, N * N * sizeof *a);
            assert_int_equal(nb_cholesky_run(made.be, a, N, N), bad[i] + 1);
            assert_int_equal(nb_cholesky_f64(copy, N, N), bad[i] + 1);
            nb_free(a);
            nb_free(copy);
        }
    }
    make_release(&made);
}

static void test_triangular_inverse(void **state)
{
    (void)state;
    enum { N = 90, LDA = 95 };
    struct nb_rng rng;
    nb_rng_init(&rng, 3);
    double *l = make_definite(&rng, N, LDA), *inverse = nb_alloc(N * LDA, sizeof *inverse);
    assert_int_equal(nb_cholesky_f64(l, N, LDA), 0);
    memcpy(inverse, l, N * LDA * sizeof *l);
    nb_tri_inverse_f64(inverse, N, LDA);
    for (int64_t i = 0; i < N; i++) {
        for (int64_t j = 0; j <= i; j++) {
            double sum = 0;
            for (int64_t k = j; k <= i; k++) sum += l[i * LDA + k] * inverse[k * LDA + j];
            assert_true(fabs(sum - (i == j)) < 1e-10);
        }
        for (int64_t j = i + 1; j < LDA; j++) assert_true(inverse[i * LDA + j] == 1e30);
    }
    nb_free(l);
    nb_free(inverse);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cholesky),
        cmocka_unit_test(test_cholesky_in_f32),
        cmocka_unit_test(test_not_definite),
        cmocka_unit_test(test_triangular_inverse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
