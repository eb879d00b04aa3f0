/* SPDX-License-Identifier: Apache-2.0
 *
 * trie.h - texts to be found at a place of a longer text: each ends at a node, which bears the
 * number its owner gave it. */
#ifndef NB_TEXT_TRIE_H
#define NB_TEXT_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/hash.h"

struct nb_trie {
    struct nb_pairmap edges; /* (node, byte) -> child */
    int32_t *token;          /* [n_nodes] number of the text that ends here, -1: none */
    size_t n_nodes, capacity;
    bool first[256]; /* bytes that a text begins with */
};

bool nb_trie_init(struct nb_trie *t); /* false: out of memory; release all the same */
void nb_trie_release(struct nb_trie *t);

/* Walks text (bytes > 0) in, making nodes. *end: the node where it ends; the caller sets its token.
 * False: out of memory. */
bool nb_trie_add(struct nb_trie *t, const char *text, size_t bytes, uint32_t *end);

/* Number of the longest text that s[0..n) begins with, and its length; -1: none. */
int32_t nb_trie_longest(const struct nb_trie *t, const char *s, size_t n, size_t *bytes);

#endif
