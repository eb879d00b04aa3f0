/* SPDX-License-Identifier: Apache-2.0
 *
 * test_row.c - one row of logits against closed forms. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "eval/row.h"

enum { V = 37 }; /* no multiple of the lanes */

static void near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.17g is not %.17g", a, b);
}

/* Uniform logits: -log p = log V whatever the level. */
static void test_uniform(void **state)
{
    (void)state;
    const float levels[] = {0, 1000, -1000, 3.25f};
    for (size_t l = 0; l < 4; l++) {
        float x[V];
        struct nb_eval_row r;
        for (int i = 0; i < V; i++) x[i] = levels[l];
        nb_eval_row_one(&r, x, V, 5);
        near(r.nll, log(V), 1e-14);
    }
}

/* p_i proportional to 2^-i: the sum is 2 - 2^(1-V). */
static void test_geometric(void **state)
{
    (void)state;
    float x[V];
    struct nb_eval_row r;
    for (int i = 0; i < V; i++) x[i] = (float)(-i * log(2.0));
    nb_eval_row_one(&r, x, V, 3);
    near(r.nll, 3 * log(2.0) + log(2 - pow(2, 1 - V)), 1e-6); /* the logits are rounded to f32 */
}

/* Against libm in long double, over the whole range of exponents. */
static void test_against_libm(void **state)
{
    (void)state;
    enum { N = 4097 };
    static float x[N];
    struct nb_eval_row r;
    uint32_t seed = 1;
    for (int round = 0; round < 20; round++) {
        long double sum = 0;
        float scale = (float)(round + 1) * 2;
        for (int i = 0; i < N; i++) {
            seed = seed * 1664525u + 1013904223u;
            x[i] = ((float)(seed >> 8) / 0x1p24f - 0.5f) * scale;
        }
        for (int i = 0; i < N; i++) sum += expl((long double)x[i]);
        nb_eval_row_one(&r, x, N, round);
        near(r.nll, (double)(logl(sum) - (long double)x[round]), 1e-12);
    }
}

/* KL(p || q) with p = (1/2, 1/4, 1/8, 1/8), q uniform: (2 - 7/4) log 2. */
static void test_divergence(void **state)
{
    (void)state;
    const double p[4] = {0.5, 0.25, 0.125, 0.125};
    float base[4], model[4] = {7, 7, 7, 7};
    for (int i = 0; i < 4; i++) base[i] = (float)log2(p[i]) * 0.69314718f - 40;
    struct nb_eval_row r;
    nb_eval_row_pair(&r, model, base, 4, 2);
    near(r.kld, 0.25 * log(2.0), 1e-6);
    near(r.nll, log(4), 1e-12);
    near(r.nll_base, log(8), 1e-5);
    assert_true(r.same_top); /* the tie goes to the lower id */
    assert_false(r.flip);
    /* a skewed model tells the directions apart */
    const double q[4] = {0.125, 0.125, 0.25, 0.5};
    for (int i = 0; i < 4; i++) model[i] = (float)log(q[i]);
    double expected = 0;
    for (int i = 0; i < 4; i++) expected += p[i] * log(p[i] / q[i]);
    nb_eval_row_pair(&r, model, base, 4, 0);
    near(r.kld, expected, 1e-5);
    assert_false(r.same_top);
}

static void test_equal_rows(void **state)
{
    (void)state;
    float a[V], b[V];
    struct nb_eval_row r;
    for (int i = 0; i < V; i++) a[i] = b[i] = (float)sin(i) * 9;
    nb_eval_row_pair(&r, a, b, V, 1);
    assert_true(r.kld == 0);
    assert_true(r.nll == r.nll_base);
    assert_true(r.same_top);
    for (int i = 0; i < V; i++) b[i] = a[i] + 64; /* a constant changes nothing */
    nb_eval_row_pair(&r, a, b, V, 1);
    near(r.kld, 0, 1e-6); /* a + 64 is rounded to f32 */
}

/* Tiny divergences do not drown: second order p d^2 / 2 for a small change d of one logit. */
static void test_small_divergence(void **state)
{
    (void)state;
    float a[64] = {0}, b[64] = {0};
    struct nb_eval_row r;
    a[5] = 0x1p-10f;
    nb_eval_row_pair(&r, a, b, 64, 5);
    double d = 0x1p-10, p = 1.0 / 64;
    double exact =
        log(1 + p * (exp(d) - 1)) - p * d; /* log sum of q over p, minus p times the shift */
    near(r.kld / exact, 1, 1e-6);
}

static void test_flip(void **state)
{
    (void)state;
    float base[4] = {0, 4, 0, 0}, model[4] = {5, 4, 0, 0};
    struct nb_eval_row r;
    nb_eval_row_pair(&r, model, base, 4, 0);
    assert_false(r.same_top);
    assert_true(r.flip); /* p = 0.948 */
    base[1] = 3;         /* p = 0.870 */
    nb_eval_row_pair(&r, model, base, 4, 0);
    assert_false(r.flip);
}

static void test_not_finite(void **state)
{
    (void)state;
    for (int at = 0; at < V; at++) {
        float a[V] = {0}, b[V] = {0};
        struct nb_eval_row r;
        a[at] = NAN;
        nb_eval_row_one(&r, a, V, 3);
        assert_false(isfinite(r.nll));
        nb_eval_row_pair(&r, a, b, V, 3);
        assert_false(isfinite(r.nll));
        nb_eval_row_pair(&r, b, a, V, 3);
        assert_false(isfinite(r.nll_base));
        a[at] = INFINITY;
        nb_eval_row_one(&r, a, V, 3);
        assert_false(isfinite(r.nll));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uniform),      cmocka_unit_test(test_geometric),
        cmocka_unit_test(test_against_libm), cmocka_unit_test(test_divergence),
        cmocka_unit_test(test_equal_rows),   cmocka_unit_test(test_small_divergence),
        cmocka_unit_test(test_flip),         cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
