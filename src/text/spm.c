/* SPDX-License-Identifier: Apache-2.0
 *
 * spm.c - see spm.h.
 *
 * Symbols form a linked list inside one array; each knows the token it would make with its right
 * neighbour. An entry of the heap that no longer fits that token is skipped when popped. Text is
 * taken word by word where no token can cross a word's begin: joins in different words do not
 * touch, so the ids are the same and the heap stays small.
 *
 * Source: SentencePiece's BPE (Kudo and Richardson, arXiv:1808.06226) in the form that llama.cpp
 * gives it: any token's text may be joined, whatever its type; bytes where there is no token. */
#include "text/spm.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "text/ids.h"
#include "text/unicode.h"

#define NONE UINT32_MAX /* no neighbour */

struct nb_spm_symbol {
    uint32_t start, bytes; /* bytes 0: joined to its left neighbour */
    uint32_t prev, next;
    int32_t joined; /* token of this symbol and the next; -1: none */
};

static const char mark[] = "\xe2\x96\x81"; /* U+2581 */
enum { MARK = 3 };

/* Where the next word of s[from..n) begins behind its first character: at a mark behind another
 * character; n if there is none. */
static size_t next_word(const char *s, size_t n, size_t from)
{
    for (size_t i = from + 1; i + MARK <= n;) {
        const char *hit = memchr(s + i, mark[0], n - i);
        if (!hit) return n;
        i = (size_t)(hit - s);
        if (i + MARK > n) return n;
        bool behind_mark = i >= from + MARK && memcmp(s + i - MARK, mark, MARK) == 0;
        if (!behind_mark && memcmp(s + i, mark, MARK) == 0) return i;
        i++;
    }
    return n;
}

int nb_spm_init(struct nb_spm *m, const struct nb_bpe *texts, const float *scores, const char *what,
                struct nb_err *err)
{
    *m = (struct nb_spm){.texts = texts, .by_words = true};
    m->order = nb_calloc(texts->n_ids, sizeof *m->order);
    if (!m->order) return nb_fail(err, NB_E_NOMEM, "%s: no memory for the scores", what);
    for (size_t i = 0; i < texts->n_ids; i++) {
        const struct nb_token *t = &texts->tokens[i];
        if (t->bytes > m->longest) m->longest = t->bytes;
        if (next_word(t->text, t->bytes, 0) < t->bytes) m->by_words = false;
        if (!scores) continue;
        if (isnan(scores[i])) {
            nb_spm_release(m);
            return nb_fail(err, NB_E_FORMAT, "%s: the score of token %zu is not a number", what, i);
        }
        float score = scores[i] + 0.0f; /* -0 and 0 are one score */
        uint32_t bits;
        memcpy(&bits, &score, sizeof bits);
        uint32_t rising = bits >> 31 ? ~bits : bits | 1u << 31;
        m->order[i] = ~rising;
    }
    return 0;
}

void nb_spm_release(struct nb_spm *m)
{
    nb_free(m->order);
    *m = (struct nb_spm){0};
}

void nb_spm_run_release(struct nb_spm_run *run)
{
    nb_free(run->symbols);
    nb_free(run->heap.items);
    nb_word_cache_release(&run->cache);
    *run = (struct nb_spm_run){0};
}

/* ---- one word ---- */

static int out_of_memory(size_t n, struct nb_err *err)
{
    return nb_fail(err, NB_E_NOMEM, "tokenizer: no memory to merge a word of %zu bytes", n);
}

static bool load_symbols(struct nb_spm_run *run, const char *s, size_t n)
{
    run->n_symbols = 0;
    for (size_t i = 0, len; i < n; i += len) {
        len = nb_utf8_length((unsigned char)s[i]);
        if (!nb_grow((void **)&run->symbols, &run->capacity, run->n_symbols, sizeof *run->symbols))
            return false;
        uint32_t k = (uint32_t)run->n_symbols++;
        run->symbols[k] =
            (struct nb_spm_symbol){(uint32_t)i, (uint32_t)len, k ? k - 1 : NONE, NONE, -1};
        if (k) run->symbols[k - 1].next = k;
    }
    return true;
}

/* Finds what the symbol at pos makes with its right neighbour and pushes it. */
static bool offer(const struct nb_spm *m, struct nb_spm_run *run, const char *s, uint32_t pos)
{
    if (pos == NONE) return true;
    struct nb_spm_symbol *left = &run->symbols[pos];
    left->joined = -1;
    if (left->next == NONE) return true;
    size_t bytes = (size_t)left->bytes + run->symbols[left->next].bytes;
    if (bytes > m->longest) return true;
    left->joined = nb_strmap_get(&m->texts->vocab, s + left->start, bytes);
    if (left->joined < 0) return true;
    return nb_heap_push(&run->heap, (uint64_t)m->order[left->joined] << 32 | pos);
}

static bool join_all(const struct nb_spm *m, struct nb_spm_run *run, const char *s)
{
    run->heap.n = 0;
    for (size_t i = 0; i + 1 < run->n_symbols; i++) {
        if (!offer(m, run, s, (uint32_t)i)) return false;
    }
    while (run->heap.n) {
        uint64_t entry = nb_heap_pop(&run->heap);
        uint32_t pos = (uint32_t)entry;
        struct nb_spm_symbol *left = &run->symbols[pos];
        if (left->bytes == 0 || left->joined < 0) continue;
        if (m->order[left->joined] != (uint32_t)(entry >> 32)) continue;
        struct nb_spm_symbol *right = &run->symbols[left->next];
        left->bytes += right->bytes;
        left->next = right->next;
        right->bytes = 0;
        if (left->next != NONE) run->symbols[left->next].prev = pos;
        if (!offer(m, run, s, left->prev) || !offer(m, run, s, pos)) return false;
    }
    return true;
}

/* A character without a token: its bytes. */
static int put_bytes(const struct nb_bpe *texts, const char *s, size_t n, struct nb_ids *ids,
                     struct nb_err *err)
{
    for (size_t i = 0; i < n; i++) {
        unsigned byte = (unsigned char)s[i];
        int32_t id = texts->byte_ids[byte];
        if (id < 0) id = nb_strmap_get(&texts->vocab, s + i, 1);
        if (id < 0) id = texts->unk_id;
        if (id < 0) {
            return nb_fail(err, NB_E_FORMAT,
                           "tokenizer: byte 0x%02X has no token and there is no unknown token",
                           byte);
        }
        int rc = nb_ids_add(ids, id, err);
        if (rc) return rc;
    }
    return 0;
}

static int encode_word(const struct nb_spm *m, struct nb_spm_run *run, const char *s, size_t n,
                       struct nb_ids *ids, struct nb_err *err)
{
    struct nb_cached_word *slot = nb_word_cache_slot(&run->cache, s, n);
    size_t n_known, first = ids->n;
    const int32_t *known = nb_word_cache_get(slot, s, n, &n_known);
    int rc = 0;
    if (known) {
        for (size_t i = 0; i < n_known && !rc; i++) rc = nb_ids_add(ids, known[i], err);
        return rc;
    }
    if (!load_symbols(run, s, n) || !join_all(m, run, s)) return out_of_memory(n, err);
    for (uint32_t i = 0; i != NONE && !rc; i = run->symbols[i].next) {
        const struct nb_spm_symbol *y = &run->symbols[i];
        int32_t id = nb_strmap_get(&m->texts->vocab, s + y->start, y->bytes);
        rc = id >= 0 ? nb_ids_add(ids, id, err)
                     : put_bytes(m->texts, s + y->start, y->bytes, ids, err);
    }
    if (!rc) nb_word_cache_put(slot, s, n, ids->data + first, ids->n - first);
    return rc;
}

int nb_spm_encode(const struct nb_spm *m, struct nb_spm_run *run, const char *s, size_t n,
                  struct nb_ids *ids, struct nb_err *err)
{
    if (n >= NONE) {
        return nb_fail(err, NB_E_FORMAT, "tokenizer: a text of %zu bytes, at most %u are accepted",
                       n, NONE - 1);
    }
    int rc = 0;
    for (size_t i = 0, end; i < n && !rc; i = end) {
        end = m->by_words ? next_word(s, n, i) : n;
        rc = encode_word(m, run, s + i, end - i, ids, err);
    }
    return rc;
}
