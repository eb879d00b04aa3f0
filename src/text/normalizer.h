/* SPDX-License-Identifier: Apache-2.0
 *
 * normalizer.h - the normalizer part: text to text, before added tokens marked `normalized` are
 * looked for. */
#ifndef NB_TEXT_NORMALIZER_H
#define NB_TEXT_NORMALIZER_H

#include <stddef.h>

#include "base/err.h"
#include "base/json.h"
#include "base/strbuf.h"
#include "text/regex.h"

struct nb_normalizer_step;

struct nb_normalizer {
    struct nb_normalizer_step *steps;
    size_t n;
};

/* part: the file's "normalizer" (NULL or null: the identity). NB_E_SPEC refuses by name. */
int nb_normalizer_init(struct nb_normalizer *z, const json_t *part, const char *what,
                       struct nb_err *err);
void nb_normalizer_release(struct nb_normalizer *z);

struct nb_normalizing { /* one thread's buffers; zero them, set matcher, release text and scratch */
    struct nb_matcher *matcher;
    struct nb_strbuf text;    /* the result */
    struct nb_strbuf scratch; /* what the steps swap with */
};

/* Sets run->text to the normalized s[0..n). */
int nb_normalizer_run(const struct nb_normalizer *z, struct nb_normalizing *run, const char *s,
                      size_t n, struct nb_err *err);

#endif
