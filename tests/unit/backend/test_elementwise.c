/* SPDX-License-Identifier: Apache-2.0
 *
 * test_elementwise.c - rows and pieces land where they belong, whatever the number of threads. The
 * values themselves are tested slot by slot in tests/kernels. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "make.h"

enum { M = 700, D = 96 };

static void test_rmsnorm(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    float *x = make_normal(&rng, M * D), *w = make_normal(&rng, D), *y = nb_alloc(M * D, sizeof *y);
    for (int threads = 1; threads <= 3; threads += 2) {
        struct made made = make_backend(NULL, threads);
        nb_rmsnorm(made.be, &(struct nb_norm){.weight = w, .d = D, .eps = 1e-5}, y, x, M);
        for (int i = 0; i < M; i++) {
            double sum = 0;
            for (int j = 0; j < D; j++) sum += (double)x[i * D + j] * x[i * D + j];
            for (int j = 0; j < D; j++) {
                double want = w[j] * x[i * D + j] / sqrt(sum / D + 1e-5);
                assert_true(fabs(y[i * D + j] - want) <= 2e-6 * fabs(want));
            }
        }
        make_release(&made);
    }
    nb_free(x);
    nb_free(w);
    nb_free(y);
}

static void test_rope(void **state)
{
    (void)state;
    enum { HEADS = 3, HEAD = 20, LD = HEADS * HEAD + 4 };
    struct nb_rng rng;
    nb_rng_init(&rng, 2);
    float *x = make_normal(&rng, M * LD), *old = nb_alloc(M * LD, sizeof *old);
    float *c = make_normal(&rng, M * HEAD / 2), *s = make_normal(&rng, M * HEAD / 2);
    memcpy(old, x, M * LD * sizeof *x);
    struct made made = make_backend(NULL, 3);
    nb_rope_apply(made.be, &(struct nb_rope_rows){x, M, LD, HEADS, HEAD, c, s, 0});
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < LD; j++) {
            int head = j / HEAD, t = j % HEAD, half = HEAD / 2;
            if (head >= HEADS) {
                assert_true(x[i * LD + j] == old[i * LD + j]);
                continue;
            }
            int first = i * LD + head * HEAD + t % half;
            double a = old[first], b = old[first + half], cos_t = c[i * half + t % half],
                   sin_t = s[i * half + t % half];
            double want = t < half ? a * cos_t - b * sin_t : b * cos_t + a * sin_t;
            assert_true(fabs(x[i * LD + j] - want) < 1e-5);
        }
    }
    make_release(&made);
    nb_free(x);
    nb_free(old);
    nb_free(c);
    nb_free(s);
}

static void test_softcap(void **state)
{
    (void)state;
    const int64_t n = 100003;
    struct nb_rng rng;
    nb_rng_init(&rng, 4);
    float *x = make_normal(&rng, (size_t)n + 1), *old = nb_alloc((size_t)n + 1, sizeof *old);
    for (int64_t i = 0; i < n; i++) x[i] *= 40;
    memcpy(old, x, (size_t)(n + 1) * sizeof *x);
    struct made made = make_backend(NULL, 3);
    nb_softcap(made.be, x, n, 30);
    for (int64_t i = 0; i < n; i++) {
        double want = 30 * tanh((double)old[i] / 30);
        assert_true(fabs((double)x[i] - want) <= 1e-6 * fabs(want));
    }
    assert_true(x[n] == old[n]);
    make_release(&made);
    nb_free(x);
    nb_free(old);
}

static void test_act_add(void **state)
{
    (void)state;
    const int64_t n = 100003;
    struct nb_rng rng;
    nb_rng_init(&rng, 3);
    float *g = make_normal(&rng, (size_t)n), *u = make_normal(&rng, (size_t)n),
          *y = nb_alloc((size_t)n, sizeof *y);
    struct made made = make_backend(NULL, 2);
    nb_gated_act(made.be, y, g, u, n, NB_ACT_FN_SILU);
    for (int64_t i = 0; i < n; i++) {
        double want = g[i] / (1 + exp(-(double)g[i])) * u[i];
        assert_true(fabs(y[i] - want) <= 1e-6 * fabs(want));
    }
    nb_gated_act(made.be, y, g, u, n, NB_ACT_FN_RELU);
    for (int64_t i = 0; i < n; i++) assert_true(y[i] == (g[i] > 0 ? g[i] : 0.0f) * u[i]);
    memcpy(y, g, (size_t)n * sizeof *y);
    nb_residual_add(made.be, y, u, n);
    for (int64_t i = 0; i < n; i++) assert_true(y[i] == g[i] + u[i]);
    make_release(&made);
    nb_free(g);
    nb_free(u);
    nb_free(y);
}

static void test_logsumexp(void **state)
{
    (void)state;
    enum { ROWS = 90, N = 1000, LD = 1003 };
    struct nb_rng rng;
    nb_rng_init(&rng, 4);
    float *x = make_normal(&rng, ROWS * LD);
    double out[ROWS];
    struct made made = make_backend(NULL, 2);
    nb_logsumexp(made.be, out, x, ROWS, N, LD);
    for (int i = 0; i < ROWS; i++) {
        double sum = 0;
        for (int j = 0; j < N; j++) sum += exp((double)x[i * LD + j]);
        assert_true(fabs(out[i] - log(sum)) < 1e-6);
    }
    make_release(&made);
    nb_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm),   cmocka_unit_test(test_rope),
        cmocka_unit_test(test_act_add),   cmocka_unit_test(test_softcap),
        cmocka_unit_test(test_logsumexp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
