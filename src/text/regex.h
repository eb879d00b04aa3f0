/* SPDX-License-Identifier: Apache-2.0
 *
 * regex.h - the patterns of tokenizer.json, found one after another in a text.
 *
 * The files are written for Oniguruma (Ruby syntax). A pattern is rewritten to mean the same in
 * PCRE2; what cannot be is refused by name. A regex is read only after nb_regex_new; what changes
 * while matching lives in a struct nb_matcher, one per thread. */
#ifndef NB_TEXT_REGEX_H
#define NB_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/json.h"
#include "base/strbuf.h"

struct nb_regex;
struct nb_matcher;

/* literal: the pattern is plain text. An empty pattern is refused. */
int nb_regex_new(struct nb_regex **out, const char *pattern, size_t bytes, bool literal,
                 const char *what, struct nb_err *err);
/* From {"String": "..."} or {"Regex": "..."} under `key` of a part. */
int nb_regex_from_json(struct nb_regex **out, const json_t *part, const char *key, const char *what,
                       struct nb_err *err);
void nb_regex_free(struct nb_regex *re);

struct nb_matcher *nb_matcher_new(void); /* NULL: out of memory */
void nb_matcher_free(struct nb_matcher *m);

struct nb_regex_iter {     /* zero it before the first call */
    size_t next;           /* where the search goes on */
    size_t last_match_end; /* an empty match here does not count */
    bool matched;
    size_t start, end; /* the match found */
};
/* The next match in the valid UTF-8 text s[0..n). 1: found, 0: no more, < 0: error (the pattern
 * needs more steps or memory than we allow). Empty matches are found, but not right behind another
 * match. */
int nb_regex_next(const struct nb_regex *re, struct nb_matcher *m, const char *s, size_t n,
                  struct nb_regex_iter *it, struct nb_err *err);

/* Appends to out the PCRE2 pattern that means the same (compiled with UTF, UCP and MULTILINE,
 * newline LF). NB_E_SPEC names the construct that has no counterpart. */
int nb_regex_translate(struct nb_strbuf *out, const char *pattern, size_t bytes, const char *what,
                       struct nb_err *err);

#endif
