/* SPDX-License-Identifier: Apache-2.0
 *
 * pretokenizer.h - the pre_tokenizer part: cuts normalized text into the words that the model sees.
 *
 * Stages run depth first: a word that stage i cuts off goes through stage i+1 at once, so memory
 * stays with the text and not with the number of words. */
#ifndef NB_TEXT_PRETOKENIZER_H
#define NB_TEXT_PRETOKENIZER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/json.h"
#include "base/strbuf.h"
#include "text/part.h"
#include "text/regex.h"

struct nb_pre_stage;

struct nb_pretokenizer {
    struct nb_pre_stage *stages;
    size_t n;
};

/* part: the file's "pre_tokenizer" (NULL or null: one word). NB_E_SPEC refuses by name. */
int nb_pretokenizer_init(struct nb_pretokenizer *p, const json_t *part, const char *what,
                         struct nb_err *err);
/* Patterns, each isolating its matches in the pieces so far, then bytes as characters. */
int nb_pretokenizer_init_patterns(struct nb_pretokenizer *p, const char *const *patterns, size_t n,
                                  const char *what, struct nb_err *err);
void nb_pretokenizer_release(struct nb_pretokenizer *p);

/* Takes one word (n > 0, valid only during the call). */
typedef int (*nb_word_fn)(void *ctx, const char *word, size_t n, struct nb_err *err);

struct nb_pre_run { /* one thread's run; zero it, set the first four fields, release at the end */
    const struct nb_pretokenizer *pre;
    struct nb_matcher *matcher;
    nb_word_fn take;
    void *ctx;
    struct nb_strbuf text[NB_PARTS_MAX], word[NB_PARTS_MAX];
};

/* at_start: s begins where the original text begins (Metaspace "first" asks). */
int nb_pretokenizer_run(struct nb_pre_run *run, const char *s, size_t n, bool at_start,
                        struct nb_err *err);
void nb_pre_run_release(struct nb_pre_run *run);

#endif
