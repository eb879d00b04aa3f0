/* SPDX-License-Identifier: Apache-2.0
 *
 * test_progress.c - callbacks are called with what was said, and may be missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/progress.h"

struct heard {
    int reports;
    struct nb_progress_event last;
    char sentence[600];
    bool stop;
};

static void on_report(void *ctx, const struct nb_progress_event *event)
{
    struct heard *h = ctx;
    h->reports++;
    h->last = *event;
}

static void on_warn(void *ctx, const char *sentence)
{
    struct heard *h = ctx;
    snprintf(h->sentence, sizeof h->sentence, "%s", sentence);
}

static bool on_stop(void *ctx)
{
    return ((struct heard *)ctx)->stop;
}

static void callbacks_hear_it(void **state)
{
    (void)state;
    struct heard h = {0};
    struct nb_progress p = {.report = on_report, .warn = on_warn, .stop = on_stop, .ctx = &h};
    struct nb_progress_event e = {
        .phase = "quantize", .item = "x", .done = 3, .total = 9, .loss = 0.5};
    nb_progress_report(&p, &e);
    assert_int_equal(h.reports, 1);
    assert_string_equal(h.last.phase, "quantize");
    assert_int_equal(h.last.done, 3);
    nb_progress_warn(&p, "%d of %s", 7, "nine");
    assert_string_equal(h.sentence, "7 of nine");
    assert_false(nb_progress_stop(&p));
    h.stop = true;
    assert_true(nb_progress_stop(&p));
}

static void missing_callbacks_are_fine(void **state)
{
    (void)state;
    struct nb_progress none = {0};
    struct nb_progress_event e = {0};
    nb_progress_report(&none, &e);
    nb_progress_warn(&none, "%s", "x");
    assert_false(nb_progress_stop(&none));
    nb_progress_report(NULL, &e);
    nb_progress_warn(NULL, "%s", "x");
    assert_false(nb_progress_stop(NULL));
}

static void warnings_are_one_clean_line(void **state)
{
    (void)state;
    struct heard h = {0};
    struct nb_progress p = {.warn = on_warn, .ctx = &h};
    nb_progress_warn(&p, "file 'a\nb\x1b[2J\xff'");
    assert_string_equal(h.sentence, "file 'a b [2J?'");
    char big[2000];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = '\0';
    nb_progress_warn(&p, "%s", big);
    assert_int_equal(strlen(h.sentence), 511);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(callbacks_hear_it),
        cmocka_unit_test(missing_callbacks_are_fine),
        cmocka_unit_test(warnings_are_one_clean_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
