/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gate.c - tolerances as typed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cli/gate.h"

static void test_parse(void **state)
{
    (void)state;
    struct nb_tolerance t;
    char text[160];
    assert_int_equal(nb_tolerance_parse("ratio=1.02,kld=0.05,top=0.9", &t, NULL), 0);
    assert_true(t.ppl_ratio == 1.02 && t.kld_mean == 0.05 && t.same_top == 0.9);
    nb_tolerance_describe(&t, text, sizeof text);
    assert_string_equal(
        text, "perplexity ratio <= 1.02, mean KL divergence <= 0.05, same top token >= 0.9");
    assert_int_equal(nb_tolerance_parse("kld=0.05", &t, NULL), 0);
    assert_true(isnan(t.ppl_ratio) && isnan(t.same_top) && t.kld_mean == 0.05);
    nb_tolerance_default(&t);
    nb_tolerance_describe(&t, text, sizeof text);
    assert_string_equal(text, "perplexity ratio <= 1.05");
}

static void test_refused(void **state)
{
    (void)state;
    const char *wrong[] = {"",        "ratio",     "ratio=", "ratio=x", "ratio=1.05,",
                           "speed=3", "ratio=nan", "kld=-1", "top=1.5", "ratio=1.05 ",
                           ",ratio=1"};
    struct nb_tolerance t;
    struct nb_err err;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(nb_tolerance_parse(wrong[i], &t, &err), NB_E_USAGE);
        assert_string_equal(err.hint, "example: --gate ratio=1.05,kld=0.1,top=0.8");
    }
    nb_tolerance_parse("ratio=1.05,speed=3", &t, &err);
    assert_string_equal(err.text, "option '--gate': 'speed=3' is not a tolerance");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
