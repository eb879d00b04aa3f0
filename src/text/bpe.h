/* SPDX-License-Identifier: Apache-2.0
 *
 * bpe.h - the model part: byte-pair encoding of one word.
 *
 * Merges are looked up in a hash table of (left, right) -> (rank, id) and taken from a heap by
 * (rank, position), so a word of n symbols costs O(n log n) whatever it looks like. */
#ifndef NB_TEXT_BPE_H
#define NB_TEXT_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "text/hash.h"
#include "text/heap.h"
#include "text/tokenizer.h"
#include "text/wordcache.h"

struct nb_token {
    const char *text; /* NUL-terminated; NULL: no token has this id */
    uint32_t bytes;
};

struct nb_bpe {
    struct nb_arena arena;    /* token texts */
    struct nb_strmap vocab;   /* text -> id */
    struct nb_token *tokens;  /* [n_ids] id -> text */
    size_t n_ids;             /* largest id + 1 */
    size_t n_real;            /* ids from here on: texts that merges pass through, no tokens */
    struct nb_pairmap merges; /* (left id, right id) -> (rank, merged id) */
    bool byte_fallback, fuse_unk, ignore_merges;
    char *unk_token;       /* NULL: none; in arena */
    int32_t unk_id;        /* -1: not in the vocabulary */
    int32_t byte_ids[256]; /* of "<0x00>".."<0xFF>"; -1: absent */
};

/* model: the file's "model". NB_E_SPEC names a model that is not BPE or an option we lack. */
int nb_bpe_init(struct nb_bpe *b, const json_t *model, const char *what, struct nb_err *err);
void nb_bpe_release(struct nb_bpe *b);

struct nb_bpe_symbol;

struct nb_bpe_run { /* scratch of one thread; zero it, release at the end */
    struct nb_bpe_symbol *symbols;
    size_t n_symbols, symbol_capacity;
    struct nb_heap heap;
    struct nb_word_cache cache;
};
void nb_bpe_run_release(struct nb_bpe_run *run);

/* Appends the ids of one word. NB_E_NOMEM; NB_E_FORMAT when unk_token is needed but not in the
 * vocabulary. */
int nb_bpe_encode(const struct nb_bpe *b, struct nb_bpe_run *run, const char *word, size_t n,
                  struct nb_ids *ids, struct nb_err *err);

#endif
