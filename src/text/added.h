/* SPDX-License-Identifier: Apache-2.0
 *
 * added.h - added tokens: found in the text before the model sees it.
 *
 * Tokens that are not `normalized` are looked for in the text as written, the others, in normalized
 * form, in what the normalizer makes of the rest. Leftmost match first, longest among those. */
#ifndef NB_TEXT_ADDED_H
#define NB_TEXT_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "text/bpe.h"
#include "text/hash.h"
#include "text/normalizer.h"
#include "text/trie.h"

struct nb_added_token {
    const char *text; /* as in the file */
    uint32_t bytes;
    const char *form; /* what is looked for and decoded: text, or its normalized form */
    uint32_t form_bytes;
    int32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
};

struct nb_added {
    struct nb_arena arena;
    struct nb_added_token *tokens;
    size_t n;
    struct nb_strmap by_text; /* -> index in tokens */
    struct nb_trie raw, normalized;
    int32_t max_id; /* -1: no tokens */
};

/* tokens: the file's "added_tokens" (NULL or null: none). Ids are given as the reference gives
 * them: the model's own id if it knows the text, else the next free number; the "id" in the file is
 * not asked. */
int nb_added_init(struct nb_added *a, const json_t *tokens, const struct nb_bpe *model,
                  const struct nb_normalizer *normalizer, const char *what, struct nb_err *err);
void nb_added_release(struct nb_added *a);

/* One piece: a token (not NULL), or text at s[start..end). Pieces may be empty. */
typedef int (*nb_piece_fn)(void *ctx, const struct nb_added_token *token, size_t start, size_t end,
                           struct nb_err *err);

struct nb_cut {
    const struct nb_added *added;
    const struct nb_trie *trie; /* raw or normalized */
    bool plain;                 /* special tokens are ordinary text */
    nb_piece_fn take;
    void *ctx;
};

/* Cuts s[0..n) at the tokens of one trie, in order. */
int nb_added_split(const struct nb_cut *cut, const char *s, size_t n, struct nb_err *err);

#endif
