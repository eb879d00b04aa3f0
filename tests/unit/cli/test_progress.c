/* SPDX-License-Identifier: Apache-2.0
 *
 * test_progress.c - the progress line: what it says, and that it never wraps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cli/progress.h"

static const struct nb_progress_event event = {.phase = "quantize",
                                               .item = "model.layers.3.self_attn.q_proj",
                                               .done = 3,
                                               .total = 12,
                                               .loss = 0.00312};

static void starts(const char *text, const char *start)
{
    if (strncmp(text, start, strlen(start)) != 0)
        fail_msg("'%s' does not start with '%s'", text, start);
}

static void test_terminal(void **state)
{
    (void)state;
    struct nb_progress_line line = {0};
    char text[256];
    nb_progress_format(text, sizeof text, 120, &line, &event, 30);
    starts(
        text,
        "quantize 3/12 [##........] model.layers.3.self_attn.q_proj  loss 0.00312  0.10/s  ETA 1:30  RSS ");
    line.phase_from = 2; /* two were done by an earlier run: the rate counts one */
    nb_progress_format(text, sizeof text, 120, &line, &event, 30);
    assert_non_null(strstr(text, "0.03/s  ETA 4:30"));
}

static void test_narrow(void **state)
{
    (void)state;
    struct nb_progress_line line = {0};
    char text[256];
    for (int columns = 21; columns < 130; columns++) {
        nb_progress_format(text, sizeof text, columns, &line, &event, 30);
        assert_true((int)strlen(text) < columns);
        starts(text, "quantize 3/12 [##...");
    }
}

static void test_plain(void **state)
{
    (void)state;
    struct nb_progress_line line = {0};
    struct nb_progress_event e = event;
    char text[256];
    nb_progress_format(text, sizeof text, 0, &line, &e, 3725);
    starts(text,
           "quantize 3/12 model.layers.3.self_attn.q_proj  loss 0.00312  0.00/s  1:02:05  RSS ");
    e = (struct nb_progress_event){.phase = "gate", .loss = -1};
    nb_progress_format(text, sizeof text, 0, &line, &e, 0);
    starts(text, "gate  0:00  RSS ");
    e = (struct nb_progress_event){
        .loss = -1, .done = 9, .total = 3}; /* more done than there was */
    nb_progress_format(text, sizeof text, 80, &line, &e, 0);
    starts(text, " 3/3 [##########]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_terminal),
        cmocka_unit_test(test_narrow),
        cmocka_unit_test(test_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
