/* SPDX-License-Identifier: Apache-2.0
 *
 * trie.c - see trie.h. */
#include "text/trie.h"

#include "base/mem.h"

static bool add_node(struct nb_trie *t)
{
    if (!nb_grow((void **)&t->token, &t->capacity, t->n_nodes, sizeof *t->token)) return false;
    t->token[t->n_nodes++] = -1;
    return true;
}

bool nb_trie_init(struct nb_trie *t)
{
    *t = (struct nb_trie){0};
    return nb_pairmap_init(&t->edges, 0) && add_node(t);
}

void nb_trie_release(struct nb_trie *t)
{
    nb_pairmap_release(&t->edges);
    nb_free(t->token);
    *t = (struct nb_trie){0};
}

bool nb_trie_add(struct nb_trie *t, const char *text, size_t bytes, uint32_t *end)
{
    uint32_t node = 0;
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        const struct nb_pair_entry *e = nb_pairmap_get(&t->edges, node, c);
        if (e) {
            node = e->first;
            continue;
        }
        uint32_t child = (uint32_t)t->n_nodes;
        if (!add_node(t) || !nb_pairmap_put(&t->edges, node, c, child, 0)) return false;
        node = child;
    }
    t->first[(unsigned char)text[0]] = true;
    *end = node;
    return true;
}

int32_t nb_trie_longest(const struct nb_trie *t, const char *s, size_t n, size_t *bytes)
{
    int32_t best = -1;
    uint32_t node = 0;
    if (n == 0 || !t->first[(unsigned char)s[0]]) return -1;
    for (size_t i = 0; i < n; i++) {
        const struct nb_pair_entry *e = nb_pairmap_get(&t->edges, node, (unsigned char)s[i]);
        if (!e) break;
        node = e->first;
        if (t->token[node] < 0) continue;
        best = t->token[node];
        *bytes = i + 1;
    }
    return best;
}
