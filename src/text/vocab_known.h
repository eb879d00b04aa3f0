/* SPDX-License-Identifier: Apache-2.0
 *
 * vocab_known.h - what llama.cpp concludes from the texts of tokens, because GGUF files do not say
 * it: special ids, which tokens are control tokens after all, which ids end a text. */
#ifndef NB_TEXT_VOCAB_KNOWN_H
#define NB_TEXT_VOCAB_KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/vocab.h"

enum { NB_KNOWN_MAX = 64 };

struct nb_vocab_known {
    int32_t id[NB_KNOWN_MAX];            /* of each known text; -1: not in the vocabulary */
    int32_t special[NB_VOCAB_N_SPECIAL]; /* keys, else defaults, else by text; -1: none */
};

bool nb_vocab_is(const struct nb_vocab *v, const char *model);

/* no_bos: the pre-tokenizer leaves the bos id without a default. */
void nb_vocab_find_known(struct nb_vocab_known *k, const struct nb_vocab *v, bool no_bos);

/* types: [v->n], as the file has them; changed where llama.cpp changes them. */
void nb_vocab_force_types(const struct nb_vocab_known *k, int32_t *types);

#endif
