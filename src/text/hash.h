/* SPDX-License-Identifier: Apache-2.0
 *
 * hash.h - the two hash tables of a tokenizer: text -> id, and a pair of 32-bit numbers -> two
 * values.
 *
 * Open addressing, at most half full, filled once while the file is read and read only from then
 * on. */
#ifndef NB_TEXT_HASH_H
#define NB_TEXT_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint64_t nb_hash_bytes(const void *data, size_t n);

struct nb_strmap_entry {
    const char *text; /* borrowed; NULL: free slot */
    uint32_t bytes;
    int32_t id;
};

struct nb_strmap {
    struct nb_strmap_entry *slots;
    size_t n, capacity; /* capacity: power of two */
};

bool nb_strmap_init(struct nb_strmap *m, size_t expected); /* false: out of memory */
void nb_strmap_release(struct nb_strmap *m);
/* Inserts or replaces; text is borrowed and must outlive the map. False: out of memory. */
bool nb_strmap_put(struct nb_strmap *m, const char *text, size_t bytes, int32_t id);
int32_t nb_strmap_get(const struct nb_strmap *m, const char *text, size_t bytes); /* -1: absent */

struct nb_pair_entry {
    uint32_t a, b;          /* key */
    uint32_t first, second; /* value; first == UINT32_MAX: free slot */
};

struct nb_pairmap {
    struct nb_pair_entry *slots;
    size_t n, capacity;
};

bool nb_pairmap_init(struct nb_pairmap *m, size_t expected);
void nb_pairmap_release(struct nb_pairmap *m);
/* Inserts or replaces; first must be below UINT32_MAX. False: out of memory. */
bool nb_pairmap_put(struct nb_pairmap *m, uint32_t a, uint32_t b, uint32_t first, uint32_t second);
const struct nb_pair_entry *nb_pairmap_get(const struct nb_pairmap *m, uint32_t a, uint32_t b);

#endif
