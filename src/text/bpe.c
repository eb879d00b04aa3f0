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

#include "text/ids.h"
#include "text/unicode.h"

#define NONE UINT32_MAX /* no neighbour */

struct nb_bpe_symbol {
    int32_t id; /* -1: merged into its left neighbour */
    uint32_t prev, next;
};

void nb_bpe_run_release(struct nb_bpe_run *run)
{
    nb_free(run->symbols);
    nb_free(run->heap.items);
    nb_word_cache_release(&run->cache);
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

/* ---- merging ----
 *
 * The heap holds rank << 32 | position of the left symbol. */

/* Pushes the merge of the symbol at pos with its right neighbour, if there is one. */
static bool offer(const struct nb_bpe *b, struct nb_bpe_run *run, uint32_t pos)
{
    if (pos == NONE) return true;
    const struct nb_bpe_symbol *s = &run->symbols[pos];
    if (s->next == NONE) return true;
    const struct nb_pair_entry *e =
        nb_pairmap_get(&b->merges, (uint32_t)s->id, (uint32_t)run->symbols[s->next].id);
    return !e || nb_heap_push(&run->heap, (uint64_t)e->first << 32 | pos);
}

static bool merge_all(const struct nb_bpe *b, struct nb_bpe_run *run)
{
    run->heap.n = 0;
    for (size_t i = 0; i + 1 < run->n_symbols; i++) {
        if (!offer(b, run, (uint32_t)i)) return false;
    }
    while (run->heap.n) {
        uint64_t merge = nb_heap_pop(&run->heap);
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

/* The token of a symbol. A text that merges pass through without being a token is spelled: a token
 * of its own for each byte, nothing where there is none. */
static int put(const struct nb_bpe *b, int32_t id, struct nb_ids *ids, struct nb_err *err)
{
    if ((size_t)id < b->n_real) return nb_ids_add(ids, id, err);
    const struct nb_token *t = &b->tokens[id];
    int rc = 0;
    for (uint32_t i = 0; i < t->bytes && !rc; i++) {
        int32_t one = nb_strmap_get(&b->vocab, t->text + i, 1);
        if (one >= 0 && (size_t)one < b->n_real) rc = nb_ids_add(ids, one, err);
    }
    return rc;
}

int nb_bpe_encode(const struct nb_bpe *b, struct nb_bpe_run *run, const char *word, size_t n,
                  struct nb_ids *ids, struct nb_err *err)
{
    if (n >= NONE) {
        return nb_fail(err, NB_E_FORMAT, "tokenizer: a word of %zu bytes, at most %u are accepted",
                       n, NONE - 1);
    }
    struct nb_cached_word *slot = nb_word_cache_slot(&run->cache, word, n);
    size_t n_known, first = ids->n;
    const int32_t *known = nb_word_cache_get(slot, word, n, &n_known);
    int rc = 0;
    if (known) {
        for (size_t i = 0; i < n_known && !rc; i++) rc = nb_ids_add(ids, known[i], err);
        return rc;
    }
    if (b->ignore_merges) {
        int32_t id = nb_strmap_get(&b->vocab, word, n);
        if (id >= 0 && (size_t)id < b->n_real) return nb_ids_add(ids, id, err);
    }
    rc = load_symbols(b, run, word, n, err);
    if (rc) return rc;
    if (!merge_all(b, run)) return out_of_memory(n, err);
    for (size_t i = 0; i < run->n_symbols && !rc; i++) {
        if (run->symbols[i].id >= 0) rc = put(b, run->symbols[i].id, ids, err);
    }
    /* A word may have no ids at all; then there may be no list yet. */
    if (!rc && ids->n > first) nb_word_cache_put(slot, word, n, ids->data + first, ids->n - first);
    return rc;
}
