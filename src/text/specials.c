/* SPDX-License-Identifier: Apache-2.0
 *
 * specials.c - see specials.h.
 *
 * A place where a token begins is a candidate: (token, place), tokens numbered in the order they
 * are looked for. The smallest candidate is taken if its bytes are free; if only its end is taken,
 * the next shorter token at the place becomes one. Whatever was taken before is at least as long,
 * so a candidate's two ends tell whether it is free. One token after another over the whole text,
 * as llama.cpp does it, gives the same pieces.
 *
 * Source: tokenizer_st_partition in llama.cpp's src/llama-vocab.cpp. Among tokens of one length its
 * order is that of an unstable sort; ours is by id. */
#include "text/specials.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/heap.h"

enum { TOKEN_MAX_BYTES = 4096, ALL_MAX_BYTES = 16 * 1024 * 1024 };

static int no_memory(const char *what, struct nb_err *err)
{
    return nb_fail(err, NB_E_NOMEM, "%s: no memory for the special tokens", what);
}

static int compare_tokens(const void *a, const void *b)
{
    const struct nb_special *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes > y->bytes ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static bool build_trie(struct nb_specials *s)
{
    for (size_t i = 0; i < s->n; i++) {
        uint32_t end;
        if (!nb_trie_add(&s->trie, s->tokens[i].text, s->tokens[i].bytes, &end)) return false;
        s->trie.token[end] = (int32_t)i;
    }
    for (size_t i = 0; i < s->n; i++) {
        struct nb_special *t = &s->tokens[i];
        size_t bytes;
        t->shorter = nb_trie_longest(&s->trie, t->text, t->bytes - 1, &bytes);
    }
    return true;
}

int nb_specials_init(struct nb_specials *s, const struct nb_special *tokens, size_t n,
                     const char *what, struct nb_err *err)
{
    *s = (struct nb_specials){.n = n};
    size_t all = 0;
    for (size_t i = 0; i < n; i++) {
        all += tokens[i].bytes;
        if (tokens[i].bytes > TOKEN_MAX_BYTES || all > ALL_MAX_BYTES) {
            return nb_fail(err, NB_E_SPEC,
                           "%s: special token %d has %u bytes, special tokens up to it %zu; at most"
                           " %d and %d are accepted",
                           what, tokens[i].id, tokens[i].bytes, all, TOKEN_MAX_BYTES,
                           ALL_MAX_BYTES);
        }
    }
    s->tokens = nb_alloc(n ? n : 1, sizeof *s->tokens);
    if (!nb_trie_init(&s->trie) || !s->tokens) {
        nb_specials_release(s);
        return no_memory(what, err);
    }
    if (n) memcpy(s->tokens, tokens, n * sizeof *tokens);
    qsort(s->tokens, n, sizeof *s->tokens, compare_tokens);
    if (!build_trie(s)) {
        nb_specials_release(s);
        return no_memory(what, err);
    }
    return 0;
}

void nb_specials_release(struct nb_specials *s)
{
    nb_trie_release(&s->trie);
    nb_free(s->tokens);
    *s = (struct nb_specials){0};
}

/* ---- cutting ---- */

enum { FREE, TOKEN, DROPPED };

struct taken {
    uint32_t start, token;
};

struct cutting {
    const struct nb_special_cut *cut;
    const char *s;
    size_t n;
    struct nb_heap candidates; /* token << 32 | start */
    uint8_t *state;            /* [n] of a byte */
    struct taken *taken;
    size_t n_taken, capacity;
};

/* The token, or the longest shorter one, that is looked for at all. */
static int32_t allowed(const struct nb_special_cut *cut, int32_t token)
{
    while (token >= 0 && cut->plain && !cut->specials->tokens[token].always)
        token = cut->specials->tokens[token].shorter;
    return token;
}

static bool offer(struct cutting *c, int32_t token, size_t start)
{
    token = allowed(c->cut, token);
    return token < 0 || nb_heap_push(&c->candidates, (uint64_t)token << 32 | start);
}

static bool collect(struct cutting *c)
{
    for (size_t i = 0; i < c->n; i++) {
        size_t bytes;
        int32_t token = nb_trie_longest(&c->cut->specials->trie, c->s + i, c->n - i, &bytes);
        if (token >= 0 && !offer(c, token, i)) return false;
    }
    return true;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool take(struct cutting *c, uint32_t token, uint32_t start)
{
    const struct nb_special *t = &c->cut->specials->tokens[token];
    if (!nb_grow((void **)&c->taken, &c->capacity, c->n_taken, sizeof *c->taken)) return false;
    c->taken[c->n_taken++] = (struct taken){start, token};
    size_t end = (size_t)start + t->bytes;
    memset(c->state + start, TOKEN, t->bytes);
    for (size_t i = start; t->lstrip && i > 0 && !c->state[i - 1] && is_space(c->s[i - 1]); i--)
        c->state[i - 1] = DROPPED;
    for (size_t i = end; t->rstrip && i < c->n && !c->state[i] && is_space(c->s[i]); i++)
        c->state[i] = DROPPED;
    return true;
}

static bool take_all(struct cutting *c)
{
    while (c->candidates.n) {
        uint64_t candidate = nb_heap_pop(&c->candidates);
        uint32_t token = (uint32_t)(candidate >> 32), start = (uint32_t)candidate;
        const struct nb_special *t = &c->cut->specials->tokens[token];
        if (c->state[start] != FREE) continue;
        bool free = c->state[start + t->bytes - 1] == FREE;
        if (!(free ? take(c, token, start) : offer(c, t->shorter, start))) return false;
    }
    return true;
}

static int compare_taken(const void *a, const void *b)
{
    const struct taken *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

static int hand_on(struct cutting *c, struct nb_err *err)
{
    const struct nb_special_cut *cut = c->cut;
    if (c->n_taken) qsort(c->taken, c->n_taken, sizeof *c->taken, compare_taken);
    size_t at = 0;
    int rc = 0;
    for (size_t i = 0; i <= c->n_taken && !rc; i++) {
        size_t stop = i < c->n_taken ? c->taken[i].start : c->n, end = stop;
        while (at < end && c->state[at] == DROPPED) at++;
        while (at < end && c->state[end - 1] == DROPPED) end--;
        if (at < end) rc = cut->take(cut->ctx, -1, at, end, err);
        if (rc || i == c->n_taken) break;
        const struct nb_special *t = &cut->specials->tokens[c->taken[i].token];
        at = stop + t->bytes;
        rc = cut->take(cut->ctx, t->id, stop, at, err);
    }
    return rc;
}

int nb_specials_cut(const struct nb_special_cut *cut, const char *s, size_t n, struct nb_err *err)
{
    if (n == 0) return 0;
    if (n > UINT32_MAX) {
        return nb_fail(err, NB_E_FORMAT, "tokenizer: a text of %zu bytes, at most %u are accepted",
                       n, UINT32_MAX);
    }
    struct cutting c = {.cut = cut, .s = s, .n = n};
    int rc = 0;
    bool ok = collect(&c);
    if (ok && c.candidates.n == 0) {
        rc = cut->take(cut->ctx, -1, 0, n, err);
    } else {
        c.state = ok ? nb_calloc(n, 1) : NULL;
        ok = c.state && take_all(&c);
        rc = ok ? hand_on(&c, err)
                : nb_fail(err, NB_E_NOMEM, "tokenizer: no memory to cut %zu bytes of text", n);
    }
    nb_free(c.candidates.items);
    nb_free(c.state);
    nb_free(c.taken);
    return rc;
}
