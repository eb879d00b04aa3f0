/* SPDX-License-Identifier: Apache-2.0
 *
 * pre_names.h - the pre-tokenizers that llama.cpp knows by name (tokenizer.ggml.pre). */
#ifndef NB_TEXT_PRE_NAMES_H
#define NB_TEXT_PRE_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/span.h"
#include "base/strbuf.h"
#include "text/part.h"

enum { NB_PRE_REGEXES_MAX = 6 };

struct nb_pre_rule {
    const char *names;                     /* separated by spaces */
    const char *regex[NB_PRE_REGEXES_MAX]; /* one after another, each on the pieces so far */
    bool ignore_merges;                    /* a word that is a token is taken as it is */
    bool add_bos;                          /* what holds where the file does not say */
    bool no_bos;                           /* the default bos id is none */
};

/* name of length 0: the rule of files that name none. NULL: not known. */
const struct nb_pre_rule *nb_pre_rule_find(struct nb_span name);

/* Appends the known names, ", " between them. */
void nb_pre_rule_list(struct nb_strbuf *out);

struct nb_pre_choice {
    char name[32];          /* empty: llama.cpp has none that cuts alike */
    const char *difference; /* how its cuts differ from the file's; NULL: not at all */
    bool ignore_merges;     /* what the name brings along */
};

/* The name to write for the pre_tokenizer section of a tokenizer.json, flattened into list. One
 * with the same ignore_merges is preferred. NB_E_NOMEM. */
int nb_pre_name_choose(struct nb_pre_choice *out, const struct nb_part_list *list,
                       bool ignore_merges, const char *what, struct nb_err *err);

#endif
