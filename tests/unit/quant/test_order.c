/* SPDX-License-Identifier: Apache-2.0
 *
 * test_order.c - visiting orders, and what they do to the pivots of the factor. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "layer.h"

static void assert_permutation(const int32_t *at, int64_t n)
{
    bool seen[1024] = {false};
    for (int64_t i = 0; i < n; i++) {
        assert_in_range(at[i], 0, n - 1);
        assert_false(seen[at[i]]);
        seen[at[i]] = true;
    }
}

/* Positions are visited from the last to the first. */
static void test_orders_by_hand(void **state)
{
    (void)state;
    const double diag[7] = {1, 5, 3, 9, 2, 2, 8};
    static const int32_t none[7] = {6, 5, 4, 3, 2, 1, 0};
    static const int32_t by_diag[7] = {0, 5, 4, 2,
                                       1, 6, 3}; /* 3 6 1 2 4 5 0 from behind; 4 before 5 */
    static const int32_t grouped[7] = {6, 0, 2, 1,
                                       5, 4, 3}; /* group 1 (9), group 0 (5), the short one last */
    int32_t at[7];
    struct nb_err err = {0};
    assert_int_equal(nb_order_make(at, NB_ORDER_NONE, diag, 7, 3, &err), 0);
    assert_memory_equal(at, none, sizeof none);
    assert_int_equal(nb_order_make(at, NB_ORDER_STATIC, diag, 7, 3, &err), 0);
    assert_memory_equal(at, by_diag, sizeof by_diag);
    assert_int_equal(nb_order_make(at, NB_ORDER_GROUP, diag, 7, 3, &err), 0);
    assert_memory_equal(at, grouped, sizeof grouped);
}

/* Cholesky with pivoting, one column at a time, in f64. */
static void plain_pivoting(int32_t *at, const float *h, int64_t n)
{
    double *a = nb_alloc((size_t)(n * n), sizeof *a);
    bool gone[1024] = {false};
    for (int64_t i = 0; i < n * n; i++) a[i] = h[i];
    for (int64_t t = 0; t < n; t++) {
        int64_t c = -1;
        for (int64_t i = 0; i < n; i++) {
            if (!gone[i] && (c < 0 || a[i * n + i] < a[c * n + c])) c = i;
        }
        gone[c] = true;
        at[t] = (int32_t)c;
        for (int64_t i = 0; i < n; i++) {
            const double by = gone[i] ? 0.0 : a[i * n + c] / a[c * n + c];
            for (int64_t j = 0; j < n; j++) a[i * n + j] -= by * a[c * n + j];
        }
    }
    nb_free(a);
}

static double sum_of_pivots(struct layer *l, const int32_t *order)
{
    struct nb_err err = {0};
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct nb_hessian h;
    assert_int_equal(nb_hessian_init(&h, &l->stats, &err), 0);
    struct nb_factor f = {.n = l->cols, .be = l->be, .damp = 0.01};
    f.at = nb_arena_alloc(&arena, (size_t)l->cols, sizeof *f.at);
    for (int64_t i = 0; i < l->cols; i++) f.at[i] = order[i];
    assert_int_equal(nb_factor_init(&f, &h, 64, &arena, &err), 0);
    double sum = 0;
    for (int64_t i = 0; i < l->cols; i++) sum += f.pivot[i];
    nb_hessian_release(&h);
    nb_arena_release(&arena);
    return sum;
}

static void test_pivoted_order_evens_out_the_pivots(void **state)
{
    (void)state;
    struct layer l = layer_make(31, 16, 200, 2000, 2);
    const int64_t k = l.cols;
    struct nb_err err = {0};
    float *h = nb_alloc((size_t)(k * k), sizeof *h);
    double *diag = nb_alloc((size_t)k, sizeof *diag), mean = 0;
    for (int64_t j = 0; j < k; j++)
        mean += diag[j] = l.stats.h[j * k + j] / (double)l.stats.n_tokens / (double)k;
    for (int64_t i = 0; i < k * k; i++) h[i] = (float)(l.stats.h[i] / (double)l.stats.n_tokens);
    for (int64_t j = 0; j < k; j++) h[j * k + j] += (float)(0.01 * mean);
    int32_t pivoted[200], plain[200], by_diag[200], none[200];
    assert_int_equal(nb_order_pivoted(pivoted, h, k, k, l.be, &err), 0);
    assert_permutation(pivoted, k);
    plain_pivoting(plain, h, k);
    int differ = 0; /* in f32 two columns that are nearly alike may change places */
    for (int64_t i = 0; i < k; i++) differ += pivoted[i] != plain[i];
    assert_true(differ <= 6);
    assert_int_equal(nb_order_make(by_diag, NB_ORDER_STATIC, diag, k, 64, &err), 0);
    assert_int_equal(nb_order_make(none, NB_ORDER_NONE, diag, k, 64, &err), 0);
    assert_permutation(by_diag, k);
    const double a = sum_of_pivots(&l, pivoted), b = sum_of_pivots(&l, by_diag),
                 c = sum_of_pivots(&l, none);
    assert_true(a < b);
    assert_true(b < c);
    nb_free(h);
    nb_free(diag);
    layer_release(&l);
}

static void test_names(void **state)
{
    (void)state;
    static const char *const names[] = {"auto", "none", "static", "group", "pivoted", "dynamic"};
    for (int o = NB_ORDER_AUTO; o <= NB_ORDER_DYNAMIC; o++) {
        assert_string_equal(nb_order_name((enum nb_act_order)o), names[o]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_orders_by_hand),
        cmocka_unit_test(test_pivoted_order_evens_out_the_pivots),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
