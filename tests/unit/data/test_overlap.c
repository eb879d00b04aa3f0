/* SPDX-License-Identifier: Apache-2.0
 *
 * test_overlap.c - the share of 13-grams, counted on texts where it is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "data/data.h"

static void share_is_exact(void **state)
{
    (void)state;
    static int32_t a[2 * 40], b[2 * 20];
    for (int i = 0; i < 80; i++) a[i] = i;
    for (int i = 0; i < 20; i++) {
        b[i] = 10 + i;       /* a stretch of a: 8 of 8 grams */
        b[20 + i] = 500 + i; /* nothing of a */
    }
    b[20 + 19] = 7;
    struct nb_windows wa = {.ids = a, .n_windows = 2, .seqlen = 40};
    struct nb_windows wb = {.ids = b, .n_windows = 2, .seqlen = 20};
    struct nb_err err;
    double share;
    assert_int_equal(nb_ngram_overlap(&wa, &wb, &share, &err), 0);
    assert_true(share == 0.5);
    assert_int_equal(nb_ngram_overlap(&wa, &wa, &share, &err), 0);
    assert_true(share == 1.0);
    assert_int_equal(nb_ngram_overlap(&wb, &wa, &share, &err), 0);
    assert_true(share == 8.0 / 56);
    struct nb_windows across = {
        .ids = a + 34, .n_windows = 1, .seqlen = 13}; /* 34..46: over the edge of a's windows */
    assert_int_equal(nb_ngram_overlap(&wa, &across, &share, &err), 0);
    assert_true(share == 0.0);
    struct nb_windows small = {.ids = a, .n_windows = 6, .seqlen = 12};
    assert_int_equal(nb_ngram_overlap(&wa, &small, &share, &err), 0);
    assert_true(share == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(share_is_exact)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
