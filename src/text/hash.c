/* SPDX-License-Identifier: Apache-2.0
 *
 * hash.c - see hash.h. */
#include "text/hash.h"

#include <string.h>

#include "base/mem.h"

/* The finalizer of SplitMix64 (Steele et al. 2014): every input bit reaches every output bit. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t nb_hash_bytes(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        h = mix(h ^ w);
    }
    uint64_t tail = 0;
    for (size_t i = 0; i < n; i++) tail |= (uint64_t)p[i] << (8 * i);
    return mix(h ^ tail);
}

static size_t capacity_for(size_t expected)
{
    size_t c = 16;
    while (c < expected * 2 && c <= SIZE_MAX / 4) c *= 2;
    return c;
}

bool nb_strmap_init(struct nb_strmap *m, size_t expected)
{
    *m = (struct nb_strmap){.capacity = capacity_for(expected)};
    m->slots = nb_calloc(m->capacity, sizeof *m->slots);
    return m->slots != NULL;
}

void nb_strmap_release(struct nb_strmap *m)
{
    nb_free(m->slots);
    *m = (struct nb_strmap){0};
}

static struct nb_strmap_entry *str_slot(const struct nb_strmap *m, const char *text, size_t bytes)
{
    size_t i = (size_t)nb_hash_bytes(text, bytes) & (m->capacity - 1);
    for (;; i = (i + 1) & (m->capacity - 1)) {
        struct nb_strmap_entry *e = &m->slots[i];
        if (!e->text || (e->bytes == bytes && memcmp(e->text, text, bytes) == 0)) return e;
    }
}

bool nb_strmap_put(struct nb_strmap *m, const char *text, size_t bytes, int32_t id)
{
    if (bytes > UINT32_MAX) return false;
    if ((m->n + 1) * 2 > m->capacity) {
        struct nb_strmap larger;
        if (!nb_strmap_init(&larger, m->capacity)) return false;
        for (size_t i = 0; i < m->capacity; i++) {
            const struct nb_strmap_entry *e = &m->slots[i];
            if (e->text) *str_slot(&larger, e->text, e->bytes) = *e;
        }
        larger.n = m->n;
        nb_free(m->slots);
        *m = larger;
    }
    struct nb_strmap_entry *e = str_slot(m, text, bytes);
    if (!e->text) m->n++;
    *e = (struct nb_strmap_entry){text, (uint32_t)bytes, id};
    return true;
}

int32_t nb_strmap_get(const struct nb_strmap *m, const char *text, size_t bytes)
{
    if (!m->slots) return -1;
    const struct nb_strmap_entry *e = str_slot(m, text, bytes);
    return e->text ? e->id : -1;
}

bool nb_pairmap_init(struct nb_pairmap *m, size_t expected)
{
    *m = (struct nb_pairmap){.capacity = capacity_for(expected)};
    m->slots = nb_alloc(m->capacity, sizeof *m->slots);
    if (m->slots) memset(m->slots, 0xff, m->capacity * sizeof *m->slots);
    return m->slots != NULL;
}

void nb_pairmap_release(struct nb_pairmap *m)
{
    nb_free(m->slots);
    *m = (struct nb_pairmap){0};
}

static struct nb_pair_entry *pair_slot(const struct nb_pairmap *m, uint32_t a, uint32_t b)
{
    size_t i = (size_t)mix((uint64_t)a << 32 | b) & (m->capacity - 1);
    for (;; i = (i + 1) & (m->capacity - 1)) {
        struct nb_pair_entry *e = &m->slots[i];
        if (e->first == UINT32_MAX || (e->a == a && e->b == b)) return e;
    }
}

bool nb_pairmap_put(struct nb_pairmap *m, uint32_t a, uint32_t b, uint32_t first, uint32_t second)
{
    if ((m->n + 1) * 2 > m->capacity) {
        struct nb_pairmap larger;
        if (!nb_pairmap_init(&larger, m->capacity)) return false;
        for (size_t i = 0; i < m->capacity; i++) {
            const struct nb_pair_entry *e = &m->slots[i];
            if (e->first != UINT32_MAX) *pair_slot(&larger, e->a, e->b) = *e;
        }
        larger.n = m->n;
        nb_free(m->slots);
        *m = larger;
    }
    struct nb_pair_entry *e = pair_slot(m, a, b);
    if (e->first == UINT32_MAX) m->n++;
    *e = (struct nb_pair_entry){a, b, first, second};
    return true;
}

const struct nb_pair_entry *nb_pairmap_get(const struct nb_pairmap *m, uint32_t a, uint32_t b)
{
    if (!m->slots) return NULL;
    const struct nb_pair_entry *e = pair_slot(m, a, b);
    return e->first == UINT32_MAX ? NULL : e;
}
