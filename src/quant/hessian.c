/* SPDX-License-Identifier: Apache-2.0
 *
 * hessian.c - H as the solvers work with it: f32, per token, damped, and factored once for all linears that
 * share an input.
 *
 * One buffer of K x K f64, that of the sums when they may go, holds both: H in its first half, the factor in
 * the second. The order of the columns is found in the second half before the factor fills it. */
#include "quant/hessian.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { PIECE = 512 };

/* n f64 to f32 times scale; to may be the start of from's own storage. */
static void narrow(void *to, const void *from, size_t n, double scale)
{
    char *dst = to;
    const char *src = from;
    double wide[PIECE];
    float narrow[PIECE];
    for (size_t i = 0; i < n; i += PIECE) {
        const size_t m = n - i < PIECE ? n - i : PIECE;
        memcpy(wide, src + i * sizeof *wide, m * sizeof *wide);
        for (size_t j = 0; j < m; j++) narrow[j] = (float)(wide[j] * scale);
        memcpy(dst + i * sizeof *narrow, narrow, m * sizeof *narrow);
    }
}

/* h->block is allocated; from: the sums, maybe the same storage. */
static int fill(struct nb_hessian *h, const struct nb_stats *stats, const double *from,
                struct nb_err *err)
{
    const size_t k = (size_t)stats->k;
    h->k = stats->k;
    h->n_tokens = stats->n_tokens;
    h->diag = nb_alloc(k, sizeof *h->diag);
    h->line = nb_alloc(k, sizeof *h->line);
    if (!h->diag || !h->line)
        return nb_fail(err, NB_E_NOMEM, "no memory for a Hessian of %" PRId64 " columns", h->k);
    const double tokens = (double)(h->n_tokens > 0 ? h->n_tokens : 1);
    for (size_t i = 0; i < k; i++) {
        h->diag[i] = from[i * k + i] / tokens;
        h->mean += h->diag[i] / (double)k;
    }
    narrow(h->block, from, k * k, 1.0 / tokens);
    h->h = h->block;
    h->half = h->h + k * k;
    return 0;
}

int nb_hessian_init(struct nb_hessian *h, const struct nb_stats *stats, struct nb_err *err)
{
    *h = (struct nb_hessian){0};
    size_t nn;
    if (nb_mul((size_t)stats->k, (size_t)stats->k, &nn)) h->block = nb_alloc(nn, sizeof(double));
    if (!h->block)
        return nb_fail(err, NB_E_NOMEM, "no memory for a Hessian of %" PRId64 " columns", stats->k);
    int rc = fill(h, stats, stats->h, err);
    if (rc) nb_hessian_release(h);
    return rc;
}

void nb_hessian_release(struct nb_hessian *h)
{
    nb_free(h->block);
    nb_free(h->diag);
    nb_free(h->line);
    nb_free(h->at);
    nb_free(h->f.pivot);
    *h = (struct nb_hessian){0};
}

int nb_stats_condense(struct nb_stats *stats, struct nb_err *err)
{
    struct nb_hessian *h = nb_calloc(1, sizeof *h);
    if (!h)
        return nb_fail(err, NB_E_NOMEM, "no memory for a Hessian of %" PRId64 " columns", stats->k);
    h->block = stats->h;
    int rc = fill(h, stats, stats->h, err);
    if (rc) {
        h->block = NULL;
        nb_hessian_release(h);
        nb_free(h);
        return rc;
    }
    stats->h = NULL;
    stats->hessian = h;
    return 0;
}

int nb_hessian_of(struct nb_hessian **out, struct nb_hessian *own, const struct nb_stats *stats,
                  struct nb_err *err)
{
    *own = (struct nb_hessian){0};
    *out = stats->hessian ? stats->hessian : own;
    return stats->hessian ? 0 : nb_hessian_init(own, stats, err);
}

const float *nb_hessian_damp(struct nb_hessian *h, double add)
{
    for (int64_t i = 0; i < h->k; i++) h->h[i * h->k + i] = (float)(h->diag[i] + add);
    return h->h;
}

/* Rows move along the cycles of the permutation; h->line holds the first of a cycle. */
static void permute_rows(struct nb_hessian *h, const int32_t *column, bool *moved)
{
    const size_t bytes = (size_t)h->k * sizeof *h->h;
    memset(moved, 0, (size_t)h->k * sizeof *moved);
    for (int64_t first = 0; first < h->k; first++) {
        if (moved[first]) continue;
        memcpy(h->line, h->h + first * h->k, bytes);
        int64_t to = first;
        while (column[to] != first) {
            memcpy(h->h + to * h->k, h->h + column[to] * h->k, bytes);
            moved[to] = true;
            to = column[to];
        }
        memcpy(h->h + to * h->k, h->line, bytes);
        moved[to] = true;
    }
}

int nb_hessian_permute(struct nb_hessian *h, const int32_t *column, struct nb_err *err)
{
    const int64_t k = h->k;
    bool *moved = nb_alloc((size_t)k, sizeof *moved);
    double *diag = nb_alloc((size_t)k, sizeof *diag);
    if (moved && diag) {
        for (int64_t i = 0; i < k; i++) {
            float *row = h->h + i * k;
            for (int64_t j = 0; j < k; j++) h->line[j] = row[column[j]];
            memcpy(row, h->line, (size_t)k * sizeof *row);
        }
        permute_rows(h, column, moved);
        for (int64_t j = 0; j < k; j++) diag[j] = h->diag[column[j]];
        memcpy(h->diag, diag, (size_t)k * sizeof *diag);
    }
    const bool done = moved && diag;
    nb_free(moved);
    nb_free(diag);
    return done ? 0 : nb_fail(err, NB_E_NOMEM, "no memory to order %" PRId64 " columns", k);
}

static bool same_wish(const struct nb_factor_wish *a, const struct nb_factor_wish *b)
{
    return a->order == b->order && a->damp == b->damp && a->group == b->group &&
           a->permuted == b->permuted;
}

int nb_hessian_factor(struct nb_hessian *h, const struct nb_factor_wish *wish,
                      struct nb_backend *be, struct nb_err *err)
{
    if (h->factored && same_wish(&h->wish, wish)) return 0;
    h->factored = false;
    const size_t k = (size_t)h->k;
    if (!h->at) h->at = nb_alloc(k, sizeof *h->at);
    float *pivot = h->f.pivot ? h->f.pivot : nb_alloc(k, sizeof *pivot);
    h->f = (struct nb_factor){.n = h->k, .be = be, .damp = wish->damp, .pivot = pivot};
    if (!h->at || !pivot)
        return nb_fail(err, NB_E_NOMEM, "no memory to order %" PRId64 " columns", h->k);
    int rc = nb_hessian_order(h->at, h, wish, h->half, be, err);
    if (rc) return rc;
    h->f.at = h->at;
    rc = nb_factor_fill(&h->f, h, wish->group, h->half, err);
    h->wish = *wish;
    h->factored = !rc;
    return rc;
}

int nb_hessian_order(int32_t *at, struct nb_hessian *h, const struct nb_factor_wish *wish,
                     float *scratch, struct nb_backend *be, struct nb_err *err)
{
    if (wish->order != NB_ORDER_PIVOTED)
        return nb_order_make(at, wish->order, h->diag, h->k, wish->group, err);
    memcpy(scratch, nb_hessian_damp(h, wish->damp * h->mean),
           (size_t)h->k * (size_t)h->k * sizeof *scratch);
    return nb_order_pivoted_in_place(at, scratch, h->k, be, err);
}
