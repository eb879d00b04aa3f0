/* SPDX-License-Identifier: Apache-2.0
 *
 * wordcache.c - see wordcache.h. Each word has one slot; the last one there stays. */
#include "text/wordcache.h"

#include <string.h>

#include "base/mem.h"
#include "text/hash.h"

enum { SLOTS = 4096, WORD_BYTES = 40, WORD_IDS = 12, AFTER_WORDS = 256 };

struct nb_cached_word {
    uint8_t bytes, n_ids; /* bytes 0: free */
    char word[WORD_BYTES];
    int32_t ids[WORD_IDS];
};

void nb_word_cache_release(struct nb_word_cache *c)
{
    nb_free(c->slots);
    *c = (struct nb_word_cache){0};
}

struct nb_cached_word *nb_word_cache_slot(struct nb_word_cache *c, const char *word, size_t n)
{
    if (n == 0 || n > WORD_BYTES) return NULL;
    if (!c->slots) { /* a short text is done before a table would pay */
        if (c->n_words++ < AFTER_WORDS) return NULL;
        c->slots = nb_calloc(SLOTS, sizeof *c->slots);
        if (!c->slots) return NULL;
    }
    return &c->slots[nb_hash_bytes(word, n) % SLOTS];
}

const int32_t *nb_word_cache_get(const struct nb_cached_word *slot, const char *word, size_t n,
                                 size_t *n_ids)
{
    if (!slot || slot->bytes != n || memcmp(slot->word, word, n) != 0) return NULL;
    *n_ids = slot->n_ids;
    return slot->ids;
}

void nb_word_cache_put(struct nb_cached_word *slot, const char *word, size_t n, const int32_t *ids,
                       size_t n_ids)
{
    if (!slot || n_ids == 0 || n_ids > WORD_IDS) return;
    slot->bytes = (uint8_t)n;
    slot->n_ids = (uint8_t)n_ids;
    memcpy(slot->word, word, n);
    memcpy(slot->ids, ids, n_ids * sizeof *ids);
}
