/* SPDX-License-Identifier: Apache-2.0
 *
 * wikitext.h - the three forms in which WikiText's raw file is scored. Internal to eval/. */
#ifndef NB_EVAL_WIKITEXT_H
#define NB_EVAL_WIKITEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"
#include "base/strbuf.h"

/* Does the text look like a raw WikiText file: a blank line, then a title line " = Title = "? */
bool nb_wikitext_is_raw(const char *text, size_t bytes);

/* The data set's rows joined by a blank line: a blank line of the file is an empty row, every other line
 * keeps its line feed. Appends to out. */
void nb_wikitext_join_rows(const char *text, size_t bytes, struct nb_strbuf *out);

/* Splits into pages, each from its title line to the line before the next one; text before the first title
 * is a page too, blank pages are dropped. *pages: nb_free; spans into text. */
int nb_wikitext_pages(const char *text, size_t bytes, struct nb_span **pages, size_t *n,
                      struct nb_err *err);

/* The page as lm-evaluation-harness scores it: tokenization marks undone. Appends to out. */
void nb_wikitext_detokenize(const char *page, size_t bytes, struct nb_strbuf *out);

/* Pieces between runs of white space, empty ones at the ends included. */
int64_t nb_wikitext_words(const char *page, size_t bytes);

#endif
