/* SPDX-License-Identifier: Apache-2.0
 *
 * test_decide.c - verdicts follow the interval, and the worst tolerance decides. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "eval/eval.h"

static struct nb_eval_result result(double ratio, double half)
{
    struct nb_eval_result r = {.has_compare = true};
    r.compare = (struct nb_compare_result){.ppl_ratio = ratio,
                                           .ppl_ratio_lo = ratio - half,
                                           .ppl_ratio_hi = ratio + half,
                                           .kld_mean = 0.05,
                                           .kld_stderr = 0.001,
                                           .same_top = 0.9,
                                           .same_top_stderr = 0.01};
    return r;
}

static enum nb_verdict verdict(struct nb_eval_result r, double ratio, double kld, double top)
{
    struct nb_tolerance tol = {ratio, kld, top};
    nb_eval_decide(&r, &tol);
    assert_int_not_equal(strlen(r.verdict_text), 0);
    return r.verdict;
}

static void test_ratio(void **state)
{
    (void)state;
    assert_int_equal(verdict(result(1.02, 0.01), 1.05, NAN, NAN), NB_VERDICT_PASS);
    assert_int_equal(verdict(result(1.04, 0.01), 1.05, NAN, NAN), NB_VERDICT_PASS);
    assert_int_equal(verdict(result(1.045, 0.01), 1.05, NAN, NAN), NB_VERDICT_UNDECIDED);
    assert_int_equal(verdict(result(1.055, 0.01), 1.05, NAN, NAN), NB_VERDICT_UNDECIDED);
    assert_int_equal(verdict(result(1.065, 0.01), 1.05, NAN, NAN), NB_VERDICT_FAIL);
    /* one window: a good point estimate is not enough */
    assert_int_equal(verdict(result(1.0, NAN), 1.05, NAN, NAN), NB_VERDICT_UNDECIDED);
    assert_int_equal(verdict(result(NAN, NAN), 1.05, NAN, NAN), NB_VERDICT_FAIL);
    assert_int_equal(verdict(result(INFINITY, NAN), 1.05, NAN, NAN), NB_VERDICT_FAIL);
}

static void test_others(void **state)
{
    (void)state;
    struct nb_eval_result r = result(1.0, 0.001);
    assert_int_equal(verdict(r, NAN, 0.06, NAN), NB_VERDICT_PASS);
    assert_int_equal(verdict(r, NAN, 0.0505, NAN), NB_VERDICT_UNDECIDED);
    assert_int_equal(verdict(r, NAN, 0.04, NAN), NB_VERDICT_FAIL);
    assert_int_equal(verdict(r, NAN, NAN, 0.85), NB_VERDICT_PASS);
    assert_int_equal(verdict(r, NAN, NAN, 0.89), NB_VERDICT_UNDECIDED);
    assert_int_equal(verdict(r, NAN, NAN, 0.95), NB_VERDICT_FAIL);
}

static void test_worst_decides(void **state)
{
    (void)state;
    struct nb_eval_result r = result(1.0, 0.001);
    struct nb_tolerance tol = {1.05, 0.04, 0.89};
    nb_eval_decide(&r, &tol);
    assert_int_equal(r.verdict, NB_VERDICT_FAIL);
    assert_non_null(strstr(r.verdict_text, "KL divergence"));
    tol.kld_mean = 0.06;
    nb_eval_decide(&r, &tol);
    assert_int_equal(r.verdict, NB_VERDICT_UNDECIDED);
    assert_non_null(strstr(r.verdict_text, "same top"));
}

static void test_nothing_asked(void **state)
{
    (void)state;
    assert_int_equal(verdict(result(9, 1), NAN, NAN, NAN), NB_VERDICT_SKIPPED);
    struct nb_eval_result alone = {.has_compare = false};
    assert_int_equal(verdict(alone, 1.05, NAN, NAN), NB_VERDICT_SKIPPED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ratio),
        cmocka_unit_test(test_others),
        cmocka_unit_test(test_worst_decides),
        cmocka_unit_test(test_nothing_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
