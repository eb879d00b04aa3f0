/* SPDX-License-Identifier: Apache-2.0
 *
 * test_interval.c - t quantiles, cluster means and quantiles against independent values. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "eval/interval.h"

static void near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.17g is not %.17g", a, b);
}

/* By numeric integration of the density and bisection. */
static void test_t(void **state)
{
    (void)state;
    const struct {
        int64_t df;
        double t;
    } cases[] = {{1, 12.7062047}, {2, 4.3026527},   {10, 2.2281389},  {11, 2.2009852},
                 {12, 2.1788128}, {15, 2.1314495},  {20, 2.0859634},  {30, 2.0422725},
                 {65, 1.9971379}, {165, 1.9744456}, {1000, 1.9623391}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        near(nb_eval_t975(cases[i].df), cases[i].t, 2e-5);
    }
    assert_true(isnan(nb_eval_t975(0)));
}

static void test_cluster_mean(void **state)
{
    (void)state;
    /* equal weights: the sample standard deviation over sqrt(n): sd of 1 2 3 6 is sqrt(14/3) */
    const double sum[4] = {10, 20, 30, 60}, weight[4] = {10, 10, 10, 10};
    struct nb_eval_mean m = nb_eval_cluster_mean(sum, weight, 4);
    near(m.mean, 3, 1e-15);
    near(m.stderr_, sqrt(14.0 / 3 / 4), 1e-15);
    /* unequal: ratio estimator by hand. mean = 12/6 = 2; residuals 4-2, 8-10: 2, -2... */
    const double sum2[2] = {4, 8}, weight2[2] = {1, 5};
    m = nb_eval_cluster_mean(sum2, weight2, 2);
    near(m.mean, 2, 1e-15);
    near(m.stderr_, sqrt(2.0 * (4 + 4)) / 6, 1e-15);
    m = nb_eval_cluster_mean(sum, weight, 1);
    near(m.mean, 1, 1e-15);
    assert_true(isnan(m.stderr_));
}

static void test_quantile(void **state)
{
    (void)state;
    float x[] = {4, 1, 3, 2};
    nb_eval_sort(x, 4);
    near(nb_eval_quantile(x, 4, 0), 1, 0);
    near(nb_eval_quantile(x, 4, 0.5), 2.5, 0);
    near(nb_eval_quantile(x, 4, 0.9), 3.7, 1e-12);
    near(nb_eval_quantile(x, 4, 1), 4, 0);
    near(nb_eval_quantile(x, 1, 0.99), 1, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_t),
        cmocka_unit_test(test_cluster_mean),
        cmocka_unit_test(test_quantile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
