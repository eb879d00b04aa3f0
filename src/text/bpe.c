/* SPDX-License-Identifier: Apache-2.0
 *
 * bpe.c - encodes one word by merging its symbols, lowest rank first, leftmost among equals.
 *
 * Symbols form a linked list inside one array; a candidate merge names the position of its left
 * symbol. An entry that no longer fits its symbols (a neighbour was merged away) is skipped when
 * popped.
 *
 * Source: Sennrich et al., arXiv:1508.07909, in the form the reference package gives it: unknown
 * characters, byte fallback and fused unknowns follow its order of emission exactly. */
#include "text/bpe.h"

#include <string.h>

#include "text/ids.h"
#include "text/unicode.h"

enum { CACHE_SLOTS = 4096, CACHE_WORD_BYTES = 40, CACHE_IDS = 12, CACHE_AFTER_WORDS = 256 };

#define NONE UINT32_MAX /* no neighbour */

struct nb_bpe_symbol {
    int32_t id; /* -1: merged into its left neighbour */
    uint32_t prev, next;
};

struct nb_bpe_cached {
    uint8_t bytes, n_ids; /* bytes 0: free */
    char word[CACHE_WORD_BYTES];
    int32_t ids[CACHE_IDS];
};

void nb_bpe_run_release(struct nb_bpe_run *run)
{
    nb_free(run->symbols);
    nb_free(run->heap);
    nb_free(run->cache);
    *run = (struct nb_bpe_run){0};
}

/* ---- symbols ---- */

static bool add_symbol(struct nb_bpe_run *run, int32_t id)
{
    if (!nb_grow((void **)&run->symbols, &run->symbol_capacity, run->n_symbols,
                 sizeof *run->symbols)) {
        return false;
    }
    uint32_t i = (uint32_t)run->n_symbols++;
    run->symbols[i] = (struct nb_bpe_symbol){id, i ? i - 1 : NONE, NONE};
    if (i) run->symbols[i - 1].next = i;
    return true;
}

/* The byte tokens of one character; false when one of them is missing. */
static bool has_bytes(const struct nb_bpe *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (b->byte_ids[(unsigned char)s[i]] < 0) return false;
    }
    return true;
}

static int out_of_memory(size_t n, struct nb_err *err)
{
    return nb_fail(err, NB_E_NOMEM, "tokenizer: no memory to merge a word of %zu bytes", n);
}

/* Characters to symbols. An unknown character waits until a known one follows, so that neighbours
 * can be fused; byte tokens do not end the wait (as in the reference). */
static int load_symbols(const struct nb_bpe *b, struct nb_bpe_run *run, const char *word, size_t n,
                        struct nb_err *err)
{
    run->n_symbols = 0;
    bool unknown = false;
    for (size_t i = 0, len; i < n; i += len) {
        len = nb_utf8_length((unsigned char)word[i]);
        int32_t id = nb_strmap_get(&b->vocab, word + i, len);
        if (id >= 0) {
            if (unknown && !add_symbol(run, b->unk_id)) return out_of_memory(n, err);
            unknown = false;
            if (!add_symbol(run, id)) return out_of_memory(n, err);
            continue;
        }
        if (b->byte_fallback && has_bytes(b, word + i, len)) {
            for (size_t k = 0; k < len; k++) {
                if (!add_symbol(run, b->byte_ids[(unsigned char)word[i + k]]))
                    return out_of_memory(n, err);
            }
            continue;
        }
        if (!b->unk_token) continue;
        if (b->unk_id < 0) {
            return nb_fail(err, NB_E_FORMAT,
                           "tokenizer: unk_token '%.64s' is not in the vocabulary", b->unk_token);
        }
        if (unknown && !b->fuse_unk && !add_symbol(run, b->unk_id)) return out_of_memory(n, err);
        unknown = true;
    }
    if (unknown && !add_symbol(run, b->unk_id)) return out_of_memory(n, err);
    return 0;
}

/* ---- heap of candidate merges: rank << 32 | position of the left symbol, smallest on top ---- */

enum { WAYS = 4 }; /* a flat heap misses the cache less often */

static bool heap_push(struct nb_bpe_run *run, uint64_t merge)
{
    if (!nb_grow((void **)&run->heap, &run->heap_capacity, run->n_heap, sizeof *run->heap))
        return false;
    size_t i = run->n_heap++;
    while (i > 0) {
        size_t up = (i - 1) / WAYS;
        if (run->heap[up] <= merge) break;
        run->heap[i] = run->heap[up];
        i = up;
    }
    run->heap[i] = merge;
    return true;
}

static uint64_t heap_pop(struct nb_bpe_run *run)
{
    uint64_t *h = run->heap, top = h[0], last = h[--run->n_heap];
    size_t n = run->n_heap, i = 0;
    for (size_t down; (down = WAYS * i + 1) < n; i = down) {
        size_t end = down + WAYS < n ? down + WAYS : n;
        for (size_t k = down + 1; k < end; k++) {
            if (h[k] < h[down]) down = k;
        }
        if (h[down] >= last) break;
        h[i] = h[down];
    }
    h[i] = last;
    return top;
}

/* Pushes the merge of the symbol at pos with its right neighbour, if there is one. */
static bool offer(const struct nb_bpe *b, struct nb_bpe_run *run, uint32_t pos)
{
    if (pos == NONE) return true;
    const struct nb_bpe_symbol *s = &run->symbols[pos];
    if (s->next == NONE) return true;
    const struct nb_pair_entry *e =
        nb_pairmap_get(&b->merges, (uint32_t)s->id, (uint32_t)run->symbols[s->next].id);
    return !e || heap_push(run, (uint64_t)e->first << 32 | pos);
}

static bool merge_all(const struct nb_bpe *b, struct nb_bpe_run *run)
{
    run->n_heap = 0;
    for (size_t i = 0; i + 1 < run->n_symbols; i++) {
        if (!offer(b, run, (uint32_t)i)) return false;
    }
    while (run->n_heap) {
        uint64_t merge = heap_pop(run);
        uint32_t pos = (uint32_t)merge;
        struct nb_bpe_symbol *left = &run->symbols[pos];
        if (left->id < 0 || left->next == NONE) continue;
        struct nb_bpe_symbol *right = &run->symbols[left->next];
        const struct nb_pair_entry *e =
            nb_pairmap_get(&b->merges, (uint32_t)left->id, (uint32_t)right->id);
        if (!e || e->first != (uint32_t)(merge >> 32)) continue; /* a rank belongs to one pair */
        left->id = (int32_t)e->second;
        left->next = right->next;
        right->id = -1;
        if (left->next != NONE) run->symbols[left->next].prev = pos;
        if (!offer(b, run, left->prev) || !offer(b, run, pos)) return false;
    }
    return true;
}

/* ---- cache of short words ---- */

static struct nb_bpe_cached *cache_slot(struct nb_bpe_run *run, const char *word, size_t n)
{
    if (n > CACHE_WORD_BYTES) return NULL;
    if (!run->cache) { /* a short text is done before a table would pay */
        if (run->n_words++ < CACHE_AFTER_WORDS) return NULL;
        run->cache = nb_calloc(CACHE_SLOTS, sizeof *run->cache);
        if (!run->cache) return NULL;
    }
    return &run->cache[nb_hash_bytes(word, n) % CACHE_SLOTS];
}

static void cache_fill(struct nb_bpe_cached *c, const char *word, size_t n, const int32_t *ids,
                       size_t n_ids)
{
    if (!c || n_ids == 0 || n_ids > CACHE_IDS) return;
    c->bytes = (uint8_t)n;
    c->n_ids = (uint8_t)n_ids;
    memcpy(c->word, word, n);
    memcpy(c->ids, ids, n_ids * sizeof *ids);
}

int nb_bpe_encode(const struct nb_bpe *b, struct nb_bpe_run *run, const char *word, size_t n,
                  struct nb_ids *ids, struct nb_err *err)
{
    if (n >= NONE) {
        return nb_fail(err, NB_E_FORMAT, "tokenizer: a word of %zu bytes, at most %u are accepted",
                       n, NONE - 1);
    }
    struct nb_bpe_cached *c = cache_slot(run, word, n);
    int rc = 0;
    if (c && c->bytes == n && memcmp(c->word, word, n) == 0) {
        for (size_t i = 0; i < c->n_ids && !rc; i++) rc = nb_ids_add(ids, c->ids[i], err);
        return rc;
    }
    if (b->ignore_merges) {
        int32_t id = nb_strmap_get(&b->vocab, word, n);
        if (id >= 0) return nb_ids_add(ids, id, err);
    }
    rc = load_symbols(b, run, word, n, err);
    if (rc) return rc;
    if (!merge_all(b, run)) return out_of_memory(n, err);
    size_t first = ids->n;
    for (size_t i = 0; i < run->n_symbols && !rc; i++) {
        if (run->symbols[i].id >= 0) rc = nb_ids_add(ids, run->symbols[i].id, err);
    }
    /* A word may have no ids at all; then there may be no list yet. */
    if (!rc && ids->n > first) cache_fill(c, word, n, ids->data + first, ids->n - first);
    return rc;
}
