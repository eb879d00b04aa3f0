/* SPDX-License-Identifier: Apache-2.0
 *
 * vocab_write.h - shared by the two files that turn a model folder's tokenizer into a vocabulary. */
#ifndef NB_TEXT_VOCAB_WRITE_H
#define NB_TEXT_VOCAB_WRITE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "base/strbuf.h"
#include "text/added.h"
#include "text/hash.h"
#include "text/vocab.h"

struct nb_vocab_writing {
    struct nb_vocab *v;
    const struct nb_vocab_source *source;
    struct nb_tokenizer *t; /* the tokenizer.json, opened */
    struct nb_strbuf *note;
    struct nb_err *err;
    bool spm;                            /* model llama */
    bool marks_in_normalizer;            /* a Replace makes spaces to U+2581 */
    const struct nb_added_token **added; /* [v->n] the added token with this id, or NULL */
    const struct nb_pair_entry **merges; /* [n_merges] by rank */
    size_t n_merges;
};

int nb_vocab_no_memory(const struct nb_vocab_writing *w);
struct nb_span nb_vocab_copy(struct nb_vocab_writing *w, const void *text, size_t bytes);

/* Special ids, flags and the chat template; tokens are there already. */
int nb_vocab_write_specials(struct nb_vocab_writing *w);

#endif
