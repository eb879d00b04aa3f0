/* SPDX-License-Identifier: Apache-2.0
 *
 * normalizer.h - the normalizer part: text to text, before added tokens marked `normalized` are looked for. */
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

/* Replaces *out by the normalized s[0..n); scratch is a second buffer that the steps swap with. */
int nb_normalizer_run(const struct nb_normalizer *z, const char *s, size_t n, struct nb_matcher *m,
                      struct nb_strbuf *out, struct nb_strbuf *scratch, struct nb_err *err);

#endif
