/* SPDX-License-Identifier: Apache-2.0
 *
 * wordcache.h - ids of recently seen short words; one thread's. */
#ifndef NB_TEXT_WORDCACHE_H
#define NB_TEXT_WORDCACHE_H

#include <stddef.h>
#include <stdint.h>

struct nb_cached_word;

struct nb_word_cache { /* zero it */
    struct nb_cached_word *slots;
    size_t n_words;
};
void nb_word_cache_release(struct nb_word_cache *c);

/* Where the word stands or may be put; NULL: it is too long or the cache does not pay yet. */
struct nb_cached_word *nb_word_cache_slot(struct nb_word_cache *c, const char *word, size_t n);

/* The ids if the slot (or NULL) holds just this word; else NULL. */
const int32_t *nb_word_cache_get(const struct nb_cached_word *slot, const char *word, size_t n,
                                 size_t *n_ids);

/* Puts the word there; does nothing for NULL, no ids or too many of them. */
void nb_word_cache_put(struct nb_cached_word *slot, const char *word, size_t n, const int32_t *ids,
                       size_t n_ids);

#endif
