/* SPDX-License-Identifier: Apache-2.0
 *
 * stats.c - sums over calibration tokens that the solvers live on, and the loss they define.
 *
 * Raw sums: the token count divides once, where they are used. Only one triangle of H is gathered. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "quant/hessian.h"

enum { CROSS_ROWS = 1024, SUM_COLUMNS = 64, LOSS_ROWS = 128 };

int nb_stats_init(struct nb_stats *s, int64_t k, unsigned what, struct nb_err *err)
{
    *s = (struct nb_stats){.k = k};
    const bool cross = what & NB_STATS_CROSS, sizes = what & NB_STATS_ABS,
               means = what & NB_STATS_SUM;
    size_t nn;
    if (k > 0 && nb_mul((size_t)k, (size_t)k, &nn)) {
        s->h = nb_calloc(nn, sizeof *s->h);
        if (sizes) s->abs_sum = nb_calloc((size_t)k, sizeof *s->abs_sum);
        if (means) s->sum = nb_calloc((size_t)k, sizeof *s->sum);
        if (means) s->sum_fp = nb_calloc((size_t)k, sizeof *s->sum_fp);
        if (cross) s->d = nb_calloc(nn, sizeof *s->d);
        if (cross) s->diff = nb_alloc((size_t)k * CROSS_ROWS, sizeof *s->diff);
    }
    if (s->h && (!sizes || s->abs_sum) && (!cross || (s->d && s->diff)) &&
        (!means || (s->sum && s->sum_fp)))
        return 0;
    nb_stats_release(s);
    return nb_fail(err, NB_E_NOMEM, "no memory for the statistics of %" PRId64 " columns", k);
}

void nb_stats_release(struct nb_stats *s)
{
    if (s->hessian) nb_hessian_release(s->hessian);
    nb_free(s->hessian);
    nb_free(s->h);
    nb_free(s->d);
    nb_free(s->diff);
    nb_free(s->abs_sum);
    nb_free(s->sum);
    nb_free(s->sum_fp);
    *s = (struct nb_stats){0};
}

struct sum_job {
    double *sum; /* [K] */
    const float *x;
    int64_t m, k;
    bool magnitudes;
};

static void sum_columns(void *ctx, size_t piece, int thread)
{
    const struct sum_job *job = ctx;
    (void)thread;
    const int64_t k = job->k, j0 = (int64_t)piece * SUM_COLUMNS;
    const int64_t j1 = j0 + SUM_COLUMNS < k ? j0 + SUM_COLUMNS : k;
    double *sum = job->sum;
    for (int64_t i = 0; i < job->m; i++) {
        const float *x = job->x + i * k;
        for (int64_t j = j0; j < j1; j++) {
            sum[j] += job->magnitudes ? (double)fabsf(x[j]) : (double)x[j];
        }
    }
}

static void add_sums(struct nb_backend *be, const struct sum_job *job)
{
    if (!job->sum) return;
    nb_pool_run(nb_backend_pool(be), (size_t)((job->k + SUM_COLUMNS - 1) / SUM_COLUMNS),
                sum_columns, (void *)job);
}

int nb_stats_add(struct nb_stats *s, struct nb_backend *be, const struct nb_stats_input *in,
                 struct nb_err *err)
{
    const int64_t k = s->k;
    const struct nb_token_sum own = {.out = s->h, .a = in->x, .m = in->m, .ld = k, .k = k};
    int rc = nb_syrk_accumulate(be, &own, err);
    add_sums(be, &(struct sum_job){s->abs_sum, in->x, in->m, k, true});
    add_sums(be, &(struct sum_job){s->sum, in->x, in->m, k, false});
    add_sums(be, &(struct sum_job){s->sum_fp, in->x_fp ? in->x_fp : in->x, in->m, k, false});
    for (int64_t i0 = 0; !rc && s->d && in->x_fp && i0 < in->m; i0 += CROSS_ROWS) {
        const int64_t n = in->m - i0 < CROSS_ROWS ? in->m - i0 : CROSS_ROWS;
        const float *x = in->x + i0 * k, *x_fp = in->x_fp + i0 * k;
        for (int64_t i = 0; i < n * k; i++) s->diff[i] = x_fp[i] - x[i];
        const struct nb_token_sum cross = {
            .out = s->d, .a = s->diff, .b = x, .m = n, .ld = k, .k = k};
        rc = nb_cross_accumulate(be, &cross, err);
    }
    s->n_tokens += in->m;
    s->finished = false;
    return rc;
}

void nb_stats_finish(struct nb_stats *s)
{
    for (int64_t i = 0; i < s->k; i++) {
        for (int64_t j = 0; j < i; j++) s->h[i * s->k + j] = s->h[j * s->k + i];
    }
    s->finished = true;
}

void nb_stats_centre(struct nb_stats *s)
{
    const double n = (double)(s->n_tokens > 0 ? s->n_tokens : 1);
    for (int64_t i = 0; i < s->k; i++) {
        for (int64_t j = 0; j < s->k; j++) {
            s->h[i * s->k + j] -= s->sum[i] * s->sum[j] / n;
            if (s->d) s->d[i * s->k + j] -= (s->sum_fp[i] - s->sum[i]) * s->sum[j] / n;
        }
    }
}

struct bias_rows {
    const struct nb_bias_job *job;
    float *row; /* [K] per thread */
    double *shift;
};

static void bias_row(void *ctx, size_t piece, int thread)
{
    const struct bias_rows *rows = ctx;
    const struct nb_stats *s = rows->job->stats;
    const float *w = rows->job->w->data + (int64_t)piece * rows->job->w->ld;
    float *q = rows->row + thread * s->k;
    double sum = 0;
    nb_qmat_dequant_row(rows->job->q, (int64_t)piece, q);
    for (int64_t j = 0; j < s->k; j++) sum += w[j] * s->sum_fp[j] - q[j] * s->sum[j];
    rows->shift[piece] = sum / (double)s->n_tokens;
}

int nb_stats_bias(const struct nb_bias_job *job, double *shift, struct nb_err *err)
{
    struct nb_pool *pool = nb_backend_pool(job->be);
    struct bias_rows rows = {.job = job, .shift = shift};
    rows.row = nb_alloc((size_t)(job->stats->k * nb_pool_threads(pool)), sizeof *rows.row);
    if (!rows.row) return nb_fail(err, NB_E_NOMEM, "no memory for the shift of a bias");
    nb_pool_run(pool, (size_t)job->w->rows, bias_row, &rows);
    nb_free(rows.row);
    return 0;
}

double nb_output_loss(const struct nb_fmat *w, const struct nb_fmat *q,
                      const struct nb_stats *stats, struct nb_backend *be)
{
    const int64_t k = w->cols;
    double sum = NAN;
    struct nb_err err = {0};
    struct nb_hessian own, *h;
    const bool known = nb_hessian_of(&h, &own, stats, &err) == 0;
    float *delta = nb_alloc(LOSS_ROWS * (size_t)k, sizeof *delta);
    float *grad = nb_alloc(LOSS_ROWS * (size_t)k, sizeof *grad);
    if (!known || !delta || !grad) goto out;
    nb_hessian_damp(h, 0.0);
    sum = 0.0;
    for (int64_t r0 = 0; r0 < w->rows; r0 += LOSS_ROWS) {
        const int64_t n = w->rows - r0 < LOSS_ROWS ? w->rows - r0 : LOSS_ROWS;
        for (int64_t r = 0; r < n; r++) {
            for (int64_t j = 0; j < k; j++) {
                delta[r * k + j] = w->data[(r0 + r) * w->ld + j] - q->data[(r0 + r) * q->ld + j];
            }
        }
        nb_gemm_run(be, &(struct nb_gemm){.m = n,
                                          .n = k,
                                          .k = k,
                                          .alpha = 1.0f,
                                          .a = delta,
                                          .b = h->h,
                                          .c = grad,
                                          .lda = k,
                                          .ldb = k,
                                          .ldc = k});
        for (int64_t i = 0; i < n * k; i++) sum += (double)delta[i] * grad[i];
    }
out:
    nb_hessian_release(&own);
    nb_free(delta);
    nb_free(grad);
    return sum;
}

bool nb_stats_are_finite(const struct nb_stats *s)
{
    for (int64_t i = 0; i < s->k; i++) {
        if (!isfinite(s->hessian ? s->hessian->diag[i] : s->h[i * s->k + i])) return false;
    }
    return true;
}
