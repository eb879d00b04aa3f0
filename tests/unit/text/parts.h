/* SPDX-License-Identifier: Apache-2.0
 *
 * parts.h - running one part of a tokenizer.json in tests, and refusing bad ones. */
#ifndef TESTS_UNIT_TEXT_PARTS_H
#define TESTS_UNIT_TEXT_PARTS_H

#include <stddef.h>

#include "base/err.h"
#include "base/json.h"
#include "base/strbuf.h"

/* Makes the part, runs it on a text and puts what comes out into out (init by the callee). */
typedef int (*part_run_fn)(const json_t *part, const char *text, struct nb_strbuf *out,
                           struct nb_err *err);

/* The part written as JSON, on one text; fails unless the result is `want`. */
void part_gives(part_run_fn run, const char *json, const char *text, const char *want);

struct part_refusal {
    const char *part; /* JSON */
    int status;
    const char *text; /* the message, or how it begins */
};

/* Each part is refused so. */
void part_refuses(part_run_fn run, const struct part_refusal *cases, size_t n);

#endif
