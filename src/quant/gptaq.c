/* SPDX-License-Identifier: Apache-2.0
 *
 * gptaq.c - move the target so that a layer also repairs what earlier quantized layers did to its input.
 *
 * The layer sees x_q where the float model saw x_fp. With D = sum (x_fp - x_q) x_q^T, the error
 * |Q x_q - W x_fp|^2 + damp |Q - W|^2 is least at W + W D H^-1 (H damped), and differs by a constant from the
 * usual quadratic form around that matrix. So the whole solver runs unchanged on a shifted target.
 *
 * Source: arXiv:2504.02692 for the objective. Ours differs: the paper corrects column by column on the way,
 * using only columns still to come; here the optimum is taken at once, and local search sees it too. The
 * factor alpha is the paper's damping of the correction; D is noisier than H, so H is damped more here. */
#include <inttypes.h>

#include "quant/problem.h"

static const double EXTRA_DAMP = 0.05; /* share of the mean diagonal */

struct shift {
    const struct nb_problem *p;
    double *inverse; /* [K,K] lower: inverse of the Cholesky factor of H */
    float *square;   /* [K,K] D, then that inverse */
    float *a, *b;    /* [padded, K] */
};

/* a = W D / n_tokens * alpha */
static void cross(struct shift *s, const struct nb_stats *stats, double alpha)
{
    const struct nb_problem *p = s->p;
    const int64_t k = p->cols;
    const double scale = alpha / (double)stats->n_tokens;
    for (int64_t i = 0; i < k; i++) {
        const double *row = stats->d + (p->column ? p->column[i] : i) * k;
        for (int64_t j = 0; j < k; j++)
            s->square[i * k + j] = (float)(row[p->column ? p->column[j] : j] * scale);
    }
    nb_gemm_run(p->be, &(struct nb_gemm){.m = p->padded,
                                         .n = k,
                                         .k = k,
                                         .alpha = 1.0f,
                                         .a = p->w,
                                         .b = s->square,
                                         .c = s->a,
                                         .lda = k,
                                         .ldb = k,
                                         .ldc = k});
}

/* w += a H^-1, H^-1 = M^-T M^-1 */
static void solve(struct shift *s)
{
    const struct nb_problem *p = s->p;
    const int64_t k = p->cols;
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j < k; j++)
            s->square[i * k + j] = j <= i ? (float)s->inverse[i * k + j] : 0.0f;
    }
    nb_gemm_run(p->be, &(struct nb_gemm){.tb = true,
                                         .m = p->padded,
                                         .n = k,
                                         .k = k,
                                         .alpha = 1.0f,
                                         .a = s->a,
                                         .b = s->square,
                                         .c = s->b,
                                         .lda = k,
                                         .ldb = k,
                                         .ldc = k});
    nb_gemm_run(p->be, &(struct nb_gemm){.accumulate = true,
                                         .m = p->padded,
                                         .n = k,
                                         .k = k,
                                         .alpha = 1.0f,
                                         .a = s->b,
                                         .b = s->square,
                                         .c = p->own,
                                         .lda = k,
                                         .ldb = k,
                                         .ldc = k});
}

int nb_gptaq_shift(struct nb_problem *p, const struct nb_stats *stats, double alpha,
                   struct nb_err *err)
{
    const size_t k = (size_t)p->cols, n = (size_t)p->padded * k;
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct shift s = {.p = p};
    s.inverse = nb_arena_alloc(&arena, k * k, sizeof *s.inverse);
    s.square = nb_arena_alloc(&arena, k * k, sizeof *s.square);
    s.a = nb_arena_alloc(&arena, n, sizeof *s.a);
    s.b = nb_arena_alloc(&arena, n, sizeof *s.b);
    int rc = arena.failed
                 ? nb_fail(err, NB_E_NOMEM,
                           "no memory for the shifted target of %" PRId64 " columns", p->cols)
                 : 0;
    double mean = 0;
    for (size_t i = 0; i < k; i++) mean += p->h[i * k + i] / (double)k;
    for (size_t i = 0; !rc && i < k * k; i++) s.inverse[i] = p->h[i];
    for (size_t i = 0; !rc && i < k; i++) s.inverse[i * k + i] += EXTRA_DAMP * mean;
    if (!rc && nb_cholesky_run(p->be, s.inverse, p->cols, p->cols)) {
        rc = nb_fail(err, NB_E_NUMERIC, "the Hessian of %" PRId64 " columns is not positive",
                     p->cols);
    }
    if (!rc) {
        nb_tri_inverse_f64(s.inverse, p->cols, p->cols);
        cross(&s, stats, alpha);
        solve(&s);
    }
    nb_arena_release(&arena);
    return rc;
}
