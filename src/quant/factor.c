/* SPDX-License-Identifier: Apache-2.0
 *
 * factor.c - the triangular factor of H that tells how far a column's error moves the columns after it.
 *
 * With the columns in reverse order of their visit, H = M M^T (M lower) gives loss = sum over positions i of
 * (sum over j >= i of (w - q)_j M_ji)^2: position i, visited after all j > i, is rounded at the target that
 * makes its own term least, and what is left of it is M_ii^2 (target - q)^2. That is GPTQ without an
 * inverse, the form of LDLQ; one Cholesky factorization instead of an inverse and a second one.
 *
 * Source: arXiv:2210.17323 (GPTQ), arXiv:2307.13304 (LDLQ and its equivalence); algorithms, 3.2 and 3.5. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "quant/problem.h"

double nb_damp_for_tokens(int64_t n_tokens, int64_t k)
{
    if (n_tokens >= 3 * k) return 0.01;
    return n_tokens >= k ? 0.05 : 0.2;
}

enum reach { WHOLE, BLOCKS, DIAGONAL };

struct span_of_h { /* which entries of H take part */
    enum reach reach;
    int64_t block;
};

static inline int64_t storage(const struct nb_factor *f, const int32_t *column, int64_t i)
{
    return column ? column[f->at[i]] : f->at[i];
}

/* a [n,n], lower triangle: H / n_tokens in position order, with damp added; entries out of reach are 0. */
static void gather(const struct nb_factor *f, const struct nb_stats *stats, const int32_t *column,
                   const struct span_of_h *span, double add, double *a)
{
    const double scale = 1.0 / (double)stats->n_tokens;
    for (int64_t i = 0; i < f->n; i++) {
        const double *row = stats->h + storage(f, column, i) * f->n;
        for (int64_t j = 0; j <= i; j++) {
            bool keep = span->reach == WHOLE || i == j ||
                        (span->reach == BLOCKS && f->at[i] / span->block == f->at[j] / span->block);
            a[i * f->n + j] = keep ? row[storage(f, column, j)] * scale : 0.0;
        }
        a[i * f->n + i] += add;
    }
}

static bool diagonal_is_finite(const double *a, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(a[i * n + i]) || !(a[i * n + i] > 0.0)) return false;
    }
    return true;
}

static bool factorize(struct nb_factor *f, const struct nb_stats *stats, const int32_t *column,
                      int64_t block, double *a)
{
    double mean = 0;
    for (int64_t i = 0; i < f->n; i++) mean += stats->h[i * f->n + i];
    mean /= (double)f->n * (double)stats->n_tokens;
    if (!(mean > 0.0) || !isfinite(mean)) return false;

    static const char *const rungs[] = {"damped", "block-diagonal", "diagonal"};
    const double start = f->damp;
    for (enum reach reach = WHOLE; reach <= DIAGONAL; reach++) {
        for (f->damp = start; f->damp <= 1.0; f->damp *= 3.0) {
            gather(f, stats, column, &(struct span_of_h){reach, block}, f->damp * mean, a);
            f->rung = reach == WHOLE && f->damp == start ? "cholesky" : rungs[reach];
            f->block = reach == WHOLE ? f->n : reach == BLOCKS ? block : 1;
            int64_t bad =
                f->be ? nb_cholesky_run(f->be, a, f->n, f->n) : nb_cholesky_f64(a, f->n, f->n);
            if (!bad && diagonal_is_finite(a, f->n)) return true;
        }
    }
    return false;
}

int nb_factor_init(struct nb_factor *f, const struct nb_stats *stats, const int32_t *column,
                   int64_t block, struct nb_arena *arena, struct nb_err *err)
{
    const int64_t n = f->n;
    size_t nn;
    double *a = nb_mul((size_t)n, (size_t)n, &nn) ? nb_arena_alloc(arena, nn, sizeof *a) : NULL;
    f->pivot = nb_arena_alloc(arena, (size_t)n, sizeof *f->pivot);
    if (!a || !f->pivot) {
        return nb_fail(err, NB_E_NOMEM, "no memory to factor a Hessian of %" PRId64 " columns", n);
    }
    if (!factorize(f, stats, column, block, a)) {
        return nb_fail(err, NB_E_NUMERIC,
                       "the Hessian of %" PRId64 " columns is not positive or not finite", n);
    }
    /* Converted to f32 where it stands: row by row, and a row only moves towards the front. */
    double *inverse = nb_arena_alloc(arena, (size_t)n, sizeof *inverse);
    float *line = nb_arena_calloc(arena, (size_t)n, sizeof *line);
    if (!inverse || !line) return nb_fail(err, NB_E_NOMEM, "no memory to factor a Hessian");
    for (int64_t i = 0; i < n; i++) {
        f->pivot[i] = (float)(a[i * n + i] * a[i * n + i]);
        inverse[i] = 1.0 / a[i * n + i];
    }
    f->feedback = (float *)a;
    f->spare = f->feedback + nn; /* f32 takes half the place */
    for (int64_t j = 0; j < n; j++) {
        for (int64_t i = 0; i < j; i++) line[i] = (float)(a[j * n + i] * inverse[i]);
        memcpy((char *)a + (size_t)j * (size_t)n * sizeof *line, line, (size_t)n * sizeof *line);
    }
    return 0;
}
