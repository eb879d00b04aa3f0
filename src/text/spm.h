/* SPDX-License-Identifier: Apache-2.0
 *
 * spm.h - the model "llama": neighbours are joined while their text is a token, the best score
 * first.
 *
 * As bpe.h, but what may be joined follows from the vocabulary alone. O(n log n). */
#ifndef NB_TEXT_SPM_H
#define NB_TEXT_SPM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "text/bpe.h"
#include "text/heap.h"
#include "text/tokenizer.h"
#include "text/wordcache.h"

struct nb_spm {
    const struct nb_bpe *texts; /* vocab, tokens, byte_ids, unk_id; borrowed */
    uint32_t *order;            /* [n_ids] by falling score: a smaller number is joined earlier */
    size_t longest;             /* bytes of the longest token */
    bool by_words; /* no token crosses the begin of a word (U+2581): words can be taken singly */
};

/* scores: [texts->n_ids], NULL: all equal. NB_E_FORMAT for a score that is not a number. */
int nb_spm_init(struct nb_spm *m, const struct nb_bpe *texts, const float *scores, const char *what,
                struct nb_err *err);
void nb_spm_release(struct nb_spm *m);

struct nb_spm_symbol;

struct nb_spm_run { /* scratch of one thread; zero it, release at the end */
    struct nb_spm_symbol *symbols;
    size_t n_symbols, capacity;
    struct nb_heap heap;
    struct nb_word_cache cache;
};
void nb_spm_run_release(struct nb_spm_run *run);

/* Appends the ids of valid UTF-8 in which spaces are U+2581 already. NB_E_NOMEM; NB_E_FORMAT when a
 * character is neither a token nor made of byte tokens and there is no unknown token. */
int nb_spm_encode(const struct nb_spm *m, struct nb_spm_run *run, const char *s, size_t n,
                  struct nb_ids *ids, struct nb_err *err);

#endif
