/* SPDX-License-Identifier: Apache-2.0
 *
 * heap.h - a queue of 64-bit numbers, smallest first.
 *
 * Users put an order into the upper half and a position into the lower, so that equal orders come
 * from left to right. Inline: merging spends its time here. */
#ifndef NB_TEXT_HEAP_H
#define NB_TEXT_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"

struct nb_heap { /* zero it; nb_free(items) at the end */
    uint64_t *items;
    size_t n, capacity;
};

enum { NB_HEAP_WAYS = 4 }; /* a flat heap misses the cache less often */

/* False: out of memory. */
static inline bool nb_heap_push(struct nb_heap *h, uint64_t item)
{
    if (!nb_grow((void **)&h->items, &h->capacity, h->n, sizeof *h->items)) return false;
    size_t i = h->n++;
    while (i > 0) {
        size_t up = (i - 1) / NB_HEAP_WAYS;
        if (h->items[up] <= item) break;
        h->items[i] = h->items[up];
        i = up;
    }
    h->items[i] = item;
    return true;
}

/* The smallest; n > 0. */
static inline uint64_t nb_heap_pop(struct nb_heap *heap)
{
    uint64_t *h = heap->items, top = h[0], last = h[--heap->n];
    size_t n = heap->n, i = 0;
    for (size_t down; (down = NB_HEAP_WAYS * i + 1) < n; i = down) {
        size_t end = down + NB_HEAP_WAYS < n ? down + NB_HEAP_WAYS : n;
        for (size_t k = down + 1; k < end; k++) {
            if (h[k] < h[down]) down = k;
        }
        if (h[down] >= last) break;
        h[i] = h[down];
    }
    h[i] = last;
    return top;
}

#endif
