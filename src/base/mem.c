/* SPDX-License-Identifier: Apache-2.0
 *
 * mem.c - see mem.h. */
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, ARENA_BLOCK_BYTES = 64 * 1024 };

bool nb_mul(size_t a, size_t b, size_t *out)
{
    if (b && a > SIZE_MAX / b) return false;
    *out = a * b;
    return true;
}

bool nb_add(size_t a, size_t b, size_t *out)
{
    if (a > SIZE_MAX - b) return false;
    *out = a + b;
    return true;
}

void *nb_alloc(size_t n, size_t size)
{
    size_t bytes;
    if (!nb_mul(n, size, &bytes) || bytes > PTRDIFF_MAX - ALIGN) return NULL;
    if (bytes == 0) bytes = 1;
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return aligned_alloc(ALIGN, bytes);
}

void *nb_calloc(size_t n, size_t size)
{
    void *p = nb_alloc(n, size);
    if (p) memset(p, 0, n * size);
    return p;
}

void *nb_realloc(void *p, size_t old_bytes, size_t new_bytes)
{
    void *q = nb_alloc(new_bytes, 1);
    if (!q) return NULL;
    if (p) memcpy(q, p, old_bytes < new_bytes ? old_bytes : new_bytes);
    nb_free(p);
    return q;
}

void nb_free(void *p)
{
    free(p);
}

void *nb_xalloc(size_t bytes)
{
    void *p = nb_calloc(1, bytes);
    if (!p) {
        fputs("nibble: out of memory for a small object\n", stderr);
        abort();
    }
    return p;
}

char *nb_xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = nb_xalloc(n);
    memcpy(p, s, n);
    return p;
}

bool nb_grow(void **array, size_t *capacity, size_t n, size_t element_bytes)
{
    if (n < *capacity) return true;
    size_t want = *capacity ? *capacity : 8;
    while (want <= n) {
        if (!nb_mul(want, 2, &want)) return false;
    }
    size_t bytes;
    if (!nb_mul(want, element_bytes, &bytes)) return false;
    void *p = nb_realloc(*array, *capacity * element_bytes, bytes);
    if (!p) return false;
    *array = p;
    *capacity = want;
    return true;
}

/* Header of one arena block; the payload starts at the next 64-byte boundary. */
struct nb_arena_block {
    struct nb_arena_block *next;
    size_t bytes, used;
};

static unsigned char *payload(struct nb_arena_block *b)
{
    return (unsigned char *)b + ALIGN;
}

void nb_arena_init(struct nb_arena *a)
{
    memset(a, 0, sizeof *a);
}

static struct nb_arena_block *add_block(struct nb_arena *a, size_t bytes)
{
    size_t want = bytes > ARENA_BLOCK_BYTES ? bytes : ARENA_BLOCK_BYTES, total;
    if (!nb_add(want, ALIGN, &total)) return NULL;
    struct nb_arena_block *b = nb_alloc(total, 1);
    if (!b) return NULL;
    *b = (struct nb_arena_block){.next = a->head, .bytes = want};
    a->head = b;
    return b;
}

void *nb_arena_alloc(struct nb_arena *a, size_t n, size_t size)
{
    size_t bytes;
    if (a->failed) return NULL;
    if (!nb_mul(n, size, &bytes) || bytes > PTRDIFF_MAX - ALIGN) {
        a->failed = true;
        return NULL;
    }
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    struct nb_arena_block *b = a->head;
    if (!b || b->bytes - b->used < bytes) b = add_block(a, bytes);
    if (!b) {
        a->failed = true;
        return NULL;
    }
    void *p = payload(b) + b->used;
    b->used += bytes;
    a->used_bytes += bytes;
    return p;
}

void *nb_arena_calloc(struct nb_arena *a, size_t n, size_t size)
{
    void *p = nb_arena_alloc(a, n, size);
    if (p) memset(p, 0, n * size);
    return p;
}

char *nb_arena_strdup(struct nb_arena *a, const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = nb_arena_alloc(a, n, 1);
    if (p) memcpy(p, s, n);
    return p;
}

char *nb_arena_printf(struct nb_arena *a, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n < 0) a->failed = true;
    char *p = n < 0 ? NULL : nb_arena_alloc(a, (size_t)n + 1, 1);
    if (p) vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    return p;
}

void nb_arena_reset(struct nb_arena *a)
{
    struct nb_arena_block *keep = NULL;
    for (struct nb_arena_block *b = a->head; b; b = b->next) {
        if (!keep || b->bytes > keep->bytes) keep = b;
    }
    for (struct nb_arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        if (b != keep) nb_free(b);
    }
    if (keep) {
        keep->next = NULL;
        keep->used = 0;
    }
    *a = (struct nb_arena){.head = keep};
}

void nb_arena_release(struct nb_arena *a)
{
    for (struct nb_arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        nb_free(b);
    }
    nb_arena_init(a);
}
