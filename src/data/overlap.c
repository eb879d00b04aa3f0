/* SPDX-License-Identifier: Apache-2.0
 *
 * overlap.c - how much of one text stands in another: shared 13-grams of tokens (GPT-3's measure of
 * contamination, Brown et al., arXiv:2005.14165, appendix C). */
#include "base/mem.h"
#include "data/data.h"
#include "text/hash.h"

enum { GRAM = 13 };

static int64_t grams_per_window(const struct nb_windows *w)
{
    return w->seqlen < GRAM ? 0 : w->seqlen - GRAM + 1;
}

/* Grams are compared by a 64-bit hash, which also is the key of the table. */
static uint64_t gram_hash(const struct nb_windows *w, int64_t window, int64_t at)
{
    return nb_hash_bytes(w->ids + window * w->seqlen + at, GRAM * sizeof *w->ids);
}

int nb_ngram_overlap(const struct nb_windows *a, const struct nb_windows *b, double *share,
                     struct nb_err *err)
{
    *share = 0;
    int64_t in_a = grams_per_window(a), in_b = grams_per_window(b);
    if (in_a * a->n_windows == 0 || in_b * b->n_windows == 0) return 0;
    struct nb_pairmap seen;
    int64_t n_shared = 0;
    bool ok = nb_pairmap_init(&seen, (size_t)(in_a * a->n_windows));
    for (int64_t w = 0; ok && w < a->n_windows; w++) {
        for (int64_t i = 0; ok && i < in_a; i++) {
            uint64_t h = gram_hash(a, w, i);
            ok = nb_pairmap_put(&seen, (uint32_t)(h >> 32), (uint32_t)h, 0, 0);
        }
    }
    for (int64_t w = 0; ok && w < b->n_windows; w++) {
        for (int64_t i = 0; i < in_b; i++) {
            uint64_t h = gram_hash(b, w, i);
            n_shared += nb_pairmap_get(&seen, (uint32_t)(h >> 32), (uint32_t)h) != NULL;
        }
    }
    nb_pairmap_release(&seen);
    if (!ok)
        return nb_fail(err, NB_E_NOMEM, "no memory to compare calibration and evaluation text");
    *share = (double)n_shared / (double)(in_b * b->n_windows);
    return 0;
}
