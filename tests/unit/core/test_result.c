/* SPDX-License-Identifier: Apache-2.0
 *
 * test_result.c - the words of the command line contract for a verdict. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/result.h"

static void verdict_names(void **state)
{
    (void)state;
    assert_string_equal(nb_verdict_name(NB_VERDICT_PASS), "pass");
    assert_string_equal(nb_verdict_name(NB_VERDICT_FAIL), "fail");
    assert_string_equal(nb_verdict_name(NB_VERDICT_UNDECIDED), "undecided");
    assert_string_equal(nb_verdict_name(NB_VERDICT_SKIPPED), "skipped");
    struct nb_eval_result cleared = {0};
    assert_int_equal(cleared.verdict, NB_VERDICT_SKIPPED); /* what was never measured says so */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(verdict_names)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
