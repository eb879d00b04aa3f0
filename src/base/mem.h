/* SPDX-License-Identifier: Apache-2.0
 *
 * mem.h - overflow-safe sizes, aligned blocks, and an arena that frees everything at once.
 *
 * Sizes that come from a file or a request go through nb_mul/nb_add before they reach an allocator.
 * Only small fixed-size allocations use nb_xalloc, which aborts. */
#ifndef NB_BASE_MEM_H
#define NB_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* *out = a op b; false (and *out untouched) when the result does not fit size_t. */
bool nb_mul(size_t a, size_t b, size_t *out);
bool nb_add(size_t a, size_t b, size_t *out);

/* 64-byte aligned, not cleared; NULL when out of memory or when n*size overflows. Free with nb_free. */
void *nb_alloc(size_t n, size_t size);
void *nb_calloc(size_t n, size_t size); /* cleared */
/* Grows or shrinks a block of nb_alloc keeping min(old,new) bytes; NULL leaves the old block alive. */
void *nb_realloc(void *p, size_t old_bytes, size_t new_bytes);
void nb_free(void *p);

void *nb_xalloc(size_t bytes);   /* small, cleared, aborts when out of memory; nb_free */
char *nb_xstrdup(const char *s); /* nb_free */

/* Grows an array of n elements so that one more fits; doubles. False: out of memory, nothing moved. */
bool nb_grow(void **array, size_t *capacity, size_t n, size_t element_bytes);

struct nb_arena_block;

/* Bump allocator. A failed request sets `failed` (sticky) and returns NULL, so a building phase checks once. */
struct nb_arena {
    struct nb_arena_block *head;
    size_t used_bytes; /* sum of requests, each rounded up to 64, since init or reset */
    bool failed;
};

void nb_arena_init(struct nb_arena *a);
void *nb_arena_alloc(struct nb_arena *a, size_t n, size_t size); /* 64-byte aligned, not cleared */
void *nb_arena_calloc(struct nb_arena *a, size_t n, size_t size);
char *nb_arena_strdup(struct nb_arena *a, const char *s);
char *nb_arena_printf(struct nb_arena *a, const char *fmt, ...) NB_PRINTF(2, 3);
void nb_arena_reset(struct nb_arena *a);   /* keeps the largest block */
void nb_arena_release(struct nb_arena *a); /* frees all */

#endif
