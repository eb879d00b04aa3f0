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

#include "quant/hessian.h"

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

/* a [n,n], lower triangle: H in position order with add on its diagonal; entries out of reach are 0. */
static void gather(const struct nb_factor *f, const struct nb_hessian *h,
                   const struct span_of_h *span, double add, float *a)
{
    for (int64_t i = 0; i < f->n; i++) {
        const float *row = h->h + f->at[i] * f->n;
        for (int64_t j = 0; j < i; j++) {
            bool keep = span->reach == WHOLE ||
                        (span->reach == BLOCKS && f->at[i] / span->block == f->at[j] / span->block);
            a[i * f->n + j] = keep ? row[f->at[j]] : 0.0f;
        }
        a[i * f->n + i] = (float)(h->diag[f->at[i]] + add);
    }
}

static bool diagonal_is_finite(const float *a, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(a[i * n + i]) || !(a[i * n + i] > 0.0f)) return false;
    }
    return true;
}

static bool factorize(struct nb_factor *f, const struct nb_hessian *h, int64_t block, float *a)
{
    if (!(h->mean > 0.0) || !isfinite(h->mean)) return false;
    static const char *const rungs[] = {"damped", "block-diagonal", "diagonal"};
    const double start = f->damp;
    for (enum reach reach = WHOLE; reach <= DIAGONAL; reach++) {
        for (f->damp = start; f->damp <= 1.0; f->damp *= 3.0) {
            gather(f, h, &(struct span_of_h){reach, block}, f->damp * h->mean, a);
            f->rung = reach == WHOLE && f->damp == start ? "cholesky" : rungs[reach];
            f->block = reach == WHOLE ? f->n : reach == BLOCKS ? block : 1;
            int64_t bad = nb_cholesky_f32_run(f->be, a, f->n, f->n);
            if (!bad && diagonal_is_finite(a, f->n)) return true;
        }
    }
    return false;
}

int nb_factor_fill(struct nb_factor *f, const struct nb_hessian *h, int64_t block, float *a,
                   struct nb_err *err)
{
    const int64_t n = f->n;
    if (!factorize(f, h, block, a)) {
        return nb_fail(err, NB_E_NUMERIC,
                       "the Hessian of %" PRId64 " columns is not positive or not finite", n);
    }
    for (int64_t i = 0; i < n; i++) h->line[i] = 1.0f / a[i * n + i];
    for (int64_t j = 0; j < n; j++) {
        float *row = a + j * n;
        f->pivot[j] = row[j] * row[j];
        for (int64_t i = 0; i < j; i++) row[i] *= h->line[i];
        for (int64_t i = j; i < n; i++) row[i] = 0.0f;
    }
    f->feedback = a;
    return 0;
}

int nb_factor_init(struct nb_factor *f, const struct nb_hessian *h, int64_t block,
                   struct nb_arena *arena, struct nb_err *err)
{
    size_t nn;
    float *a =
        nb_mul((size_t)f->n, (size_t)f->n, &nn) ? nb_arena_alloc(arena, nn, sizeof *a) : NULL;
    f->pivot = nb_arena_alloc(arena, (size_t)f->n, sizeof *f->pivot);
    if (!a || !f->pivot) {
        return nb_fail(err, NB_E_NOMEM, "no memory to factor a Hessian of %" PRId64 " columns",
                       f->n);
    }
    return nb_factor_fill(f, h, block, a, err);
}
