/* SPDX-License-Identifier: Apache-2.0
 *
 * specials.h - tokens of a GGUF vocabulary that are cut out of the text before the model sees it.
 *
 * Not the rule of added.h: the longest token of all goes first, over the whole text, then the next;
 * what is left between them is text. */
#ifndef NB_TEXT_SPECIALS_H
#define NB_TEXT_SPECIALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "text/trie.h"

struct nb_special {
    const char *text; /* borrowed, not empty */
    uint32_t bytes;
    int32_t id;
    bool always;         /* also where specials are ordinary text (user-defined tokens) */
    bool lstrip, rstrip; /* takes ASCII white space before or behind it along */
    int32_t shorter;     /* index of the longest token that its text begins with; -1: none */
};

struct nb_specials {
    struct nb_special *tokens; /* [n] longest first, then by id */
    size_t n;
    struct nb_trie trie;
};

/* tokens: [n] in any order, copied, texts borrowed and unique. NB_E_SPEC for texts beyond any use.
 */
int nb_specials_init(struct nb_specials *s, const struct nb_special *tokens, size_t n,
                     const char *what, struct nb_err *err);
void nb_specials_release(struct nb_specials *s);

/* One piece, never empty: a token (id >= 0), or text at s[start..end) (id -1). */
typedef int (*nb_special_piece_fn)(void *ctx, int32_t id, size_t start, size_t end,
                                   struct nb_err *err);

struct nb_special_cut {
    const struct nb_specials *specials;
    bool plain; /* only tokens that are `always` are cut out */
    nb_special_piece_fn take;
    void *ctx;
};

/* Cuts s[0..n), pieces in order. */
int nb_specials_cut(const struct nb_special_cut *cut, const char *s, size_t n, struct nb_err *err);

#endif
