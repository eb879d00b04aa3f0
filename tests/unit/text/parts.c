/* SPDX-License-Identifier: Apache-2.0
 *
 * parts.c - see parts.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "unit/text/parts.h"

static int run_json(part_run_fn run, const char *json, const char *text, struct nb_strbuf *out,
                    struct nb_err *err)
{
    json_t *part = nb_json_parse(json, strlen(json), 64, "part", err);
    assert_non_null(part);
    int rc = run(part, text, out, err);
    json_decref(part);
    return rc;
}

void part_gives(part_run_fn run, const char *json, const char *text, const char *want)
{
    struct nb_err err;
    struct nb_strbuf out;
    if (run_json(run, json, text, &out, &err)) fail_msg("%s", err.text);
    assert_string_equal(nb_strbuf_cstr(&out), want);
    nb_strbuf_release(&out);
}

void part_refuses(part_run_fn run, const struct part_refusal *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct nb_err err;
        struct nb_strbuf out;
        assert_int_equal(run_json(run, cases[i].part, "x", &out, &err), cases[i].status);
        if (strncmp(err.text, cases[i].text, strlen(cases[i].text)) != 0) fail_msg("%s", err.text);
        nb_strbuf_release(&out);
    }
}
