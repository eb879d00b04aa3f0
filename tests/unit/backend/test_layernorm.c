/* SPDX-License-Identifier: Apache-2.0
 *
 * test_layernorm.c - LayerNorm against its definition in f64, at rows of any width; in place; the same bits
 * whatever the number of threads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "make.h"

enum { M = 700 };

static void check_row(const struct nb_norm *norm, const float *y, const float *x)
{
    const double d = (double)norm->d;
    double mean = 0, var = 0;
    for (int64_t j = 0; j < norm->d; j++) mean += (double)x[j] / d;
    for (int64_t j = 0; j < norm->d; j++) var += pow((double)x[j] - mean, 2) / d;
    for (int64_t j = 0; j < norm->d; j++) {
        double want = ((double)x[j] - mean) / sqrt(var + norm->eps);
        want = want * (double)norm->weight[j] + (double)norm->bias[j];
        assert_true(fabs((double)y[j] - want) < 1e-6 * (1 + fabs(want)));
    }
}

static void check_width(int64_t d)
{
    struct nb_rng rng;
    nb_rng_init(&rng, 5);
    const size_t n = (size_t)(M * d), bytes = n * sizeof(float);
    float *x = make_normal(&rng, n), *w = make_normal(&rng, (size_t)d),
          *b = make_normal(&rng, (size_t)d), *y = nb_alloc(n, sizeof *y),
          *other = nb_alloc(n, sizeof *y);
    for (size_t i = 0; i < n; i++) x[i] += 100; /* a mean far from 0 */
    const struct nb_norm norm = {.weight = w, .d = d, .eps = 1e-5, .bias = b};
    struct made one = make_backend(NULL, 1), three = make_backend("generic", 3);
    nb_layernorm(one.be, &norm, y, x, M);
    for (int64_t i = 0; i < M; i++) check_row(&norm, y + i * d, x + i * d);
    nb_layernorm(three.be, &norm, other, x, M);
    assert_memory_equal(other, y, bytes);
    nb_layernorm(three.be, &norm, x, x, M);
    assert_memory_equal(x, y, bytes);
    nb_layernorm(one.be, &norm, x, x, 0);
    assert_memory_equal(x, y, bytes);
    make_release(&one);
    make_release(&three);
    nb_free(x);
    nb_free(w);
    nb_free(b);
    nb_free(y);
    nb_free(other);
}

static void test_widths(void **state)
{
    (void)state;
    static const int64_t widths[] = {1, 3, 64, 1023};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) check_width(widths[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_widths)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
