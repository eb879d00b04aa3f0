/* SPDX-License-Identifier: Apache-2.0
 *
 * test_rotate.c - rotations are orthogonal, flat, repeatable, and refused where there is none. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "layer.h"

/* Rows of R: what becomes of unit vectors. All entries are +-1 / sqrt(n), rows are orthogonal. */
static void check(int64_t n)
{
    struct nb_rotation r;
    struct nb_err err = {0};
    if (nb_rotation_init(&r, n, 7, &err)) fail_msg("%s", err.text);
    double *m = nb_calloc((size_t)(n * n), sizeof *m), *scratch = nb_alloc((size_t)n, sizeof *m);
    for (int64_t i = 0; i < n; i++) {
        m[i * n + i] = 1.0;
        nb_rotation_apply(&r, m + i * n, scratch);
        for (int64_t j = 0; j < n; j++)
            assert_true(fabs(fabs(m[i * n + j]) - 1.0 / sqrt((double)n)) < 1e-12);
    }
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k <= i; k++) {
            double dot = 0;
            for (int64_t j = 0; j < n; j++) dot += m[i * n + j] * m[k * n + j];
            assert_true(fabs(dot - (i == k ? 1.0 : 0.0)) < 1e-12);
        }
    }
    nb_free(m);
    nb_free(scratch);
    nb_rotation_release(&r);
}

static void test_orthogonal(void **state)
{
    (void)state;
    static const int64_t sizes[] = {1,  2,  4,  64, 128, 12,  24,  20,  28,
                                    36, 44, 60, 76, 96,  144, 288, 320, 448};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) check(sizes[i]);
}

/* Widths of models people have. */
static void test_known_widths(void **state)
{
    (void)state;
    static const int64_t widths[] = {576,  768,  896,  960,  1024, 1152, 1280, 1536, 2048,
                                     2304, 2560, 2880, 3072, 3584, 4096, 5120, 6144, 6656,
                                     7168, 8192, 80,   96,   112,  160,  192,  256};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        struct nb_rotation r;
        struct nb_err err = {0};
        if (nb_rotation_init(&r, widths[i], 1, &err)) fail_msg("%s", err.text);
        double sum = 0;
        double *x = nb_calloc((size_t)widths[i], sizeof *x),
               *s = nb_alloc((size_t)widths[i], sizeof *s);
        x[widths[i] / 3] = 1.0;
        nb_rotation_apply(&r, x, s);
        for (int64_t j = 0; j < widths[i]; j++) sum += x[j] * x[j];
        assert_true(fabs(sum - 1.0) < 1e-12);
        nb_free(x);
        nb_free(s);
        nb_rotation_release(&r);
    }
}

static void test_seeds_differ_and_repeat(void **state)
{
    (void)state;
    struct nb_rotation a, b, c;
    struct nb_err err = {0};
    assert_int_equal(nb_rotation_init(&a, 64, 1, &err), 0);
    assert_int_equal(nb_rotation_init(&b, 64, 1, &err), 0);
    assert_int_equal(nb_rotation_init(&c, 64, 2, &err), 0);
    assert_memory_equal(a.sign, b.sign, 64 * sizeof *a.sign);
    assert_memory_not_equal(a.sign, c.sign, 64 * sizeof *a.sign);
    nb_rotation_release(&a);
    nb_rotation_release(&b);
    nb_rotation_release(&c);
}

static void test_sizes_without_one(void **state)
{
    (void)state;
    static const int64_t sizes[] = {0, 3, 6, 90, 7 * 2, 92 / 2};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct nb_rotation r;
        struct nb_err err = {0};
        assert_int_equal(nb_rotation_init(&r, sizes[i], 1, &err), NB_E_SPEC);
        assert_non_null(strstr(err.text, "no Hadamard matrix"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orthogonal),
        cmocka_unit_test(test_known_widths),
        cmocka_unit_test(test_seeds_differ_and_repeat),
        cmocka_unit_test(test_sizes_without_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
