/* SPDX-License-Identifier: Apache-2.0
 *
 * awq.c - search the column scales that make rounding hurt the output least (activation-aware scaling).
 *
 * W x = (W diag(s)) (diag(1/s) x): a column scaled up before rounding has a smaller relative error, and
 * 1/s goes into whatever produced x. s follows a one-parameter family of the mean |x| (plain) or of it and
 * the weights' own size (duo). No forward pass: with H known, the output error of a candidate is
 * sum over linears of tr(D H D^T), D = W - Q diag(1/s).
 *
 * Source: arXiv:2306.00978; algorithms, section 4. Ours differs: the identity is a candidate, so that the
 * result is never worse than no scaling; r is searched coarse to fine; a shared value per key-value head
 * makes the v -> o fold legal under grouped-query attention; candidates may be judged by error-compensated
 * rounding when that is what follows. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "quant/hessian.h"

enum {
    COARSE = 5,         /* ratios tried first */
    FINE_STEPS = 3,     /* halvings of the step around the best */
    SAMPLE_ROWS = 1024, /* rows of a linear that candidates are judged on, evenly spread */
};

struct search {
    const struct nb_awq_group *g;
    const struct nb_solve_opts *opts;
    struct nb_backend *be;
    int64_t k;
    float *act, *weight;        /* [K] the two statistics, shared where s must be */
    struct nb_solve_opts trial; /* opts with the quick fit */
    struct nb_fmat *sample;     /* [n] the rows looked at */
    struct nb_problem *p;       /* [n] one per linear; p->own is rescaled for each candidate */
    struct nb_solution *s;      /* [n] */
    float *error, *gradient;    /* [widest, K] */
    float *u;                   /* [K] importance of scaled columns */
    struct nb_hessian own, *h;
    struct nb_factor factor; /* of the unscaled H, when compensated */
    float *feedback, *pivot; /* the same scaled */
    float *candidate, *best; /* [K] */
    double best_loss;
    struct nb_err *err;
    int rc;
};

/* Column that shares its scale with column j: the first copy of its key-value head. */
static int64_t shared_column(const struct nb_awq_group *g, int64_t j)
{
    if (g->repeat <= 1 || g->head_dim <= 0) return j;
    const int64_t head = j / g->head_dim;
    return head / g->repeat * g->repeat * g->head_dim + j % g->head_dim;
}

/* Averages x over the columns that must share a scale. */
static void share(const struct nb_awq_group *g, float *x, int64_t k)
{
    if (g->repeat <= 1 || g->head_dim <= 0) return;
    for (int64_t j = 0; j < k; j++) {
        if (shared_column(g, j) != j) x[shared_column(g, j)] += x[j];
    }
    for (int64_t j = 0; j < k; j++) {
        const int64_t first = shared_column(g, j);
        x[j] = first == j ? x[j] / (float)g->repeat : x[first];
    }
}

/* Mean over the rows of all linears of |w| over the largest |w| of the same row and group. */
static int weight_statistic(struct search *a)
{
    int64_t rows = 0;
    const int64_t group = a->p[0].group;
    double *sum = nb_calloc((size_t)a->k, sizeof *sum);
    if (!sum)
        return nb_fail(a->err, NB_E_NOMEM, "no memory for the statistics of %" PRId64 " columns",
                       a->k);
    for (int i = 0; i < a->g->n; i++) {
        const struct nb_fmat *w = &a->g->w[i];
        rows += w->rows;
        for (int64_t r = 0; r < w->rows; r++) {
            const float *row = w->data + r * w->ld;
            for (int64_t j0 = 0; j0 < a->k; j0 += group) {
                const int64_t j1 = j0 + group < a->k ? j0 + group : a->k;
                float most = 0.0f;
                for (int64_t j = j0; j < j1; j++)
                    most = fabsf(row[j]) > most ? fabsf(row[j]) : most;
                for (int64_t j = j0; j < j1; j++) sum[j] += fabsf(row[j]) / (most + 1e-6f);
            }
        }
    }
    for (int64_t j = 0; j < a->k; j++) a->weight[j] = (float)(sum[j] / (double)rows);
    nb_free(sum);
    return 0;
}

/* s of the plain (duo false) or duo family at ratio r, normalized to a geometric mid-range of 1. */
static void family(const struct search *a, bool duo, float r, float *s)
{
    float least = INFINITY, most = 0.0f;
    for (int64_t j = 0; j < a->k; j++) {
        float v = powf(a->act[j], r);
        if (duo) v /= powf(a->weight[j], 1.0f - r) + 1e-4f;
        if (!(v > 1e-4f)) v = 1e-4f;
        s[j] = v;
        if (!isfinite(v)) continue;
        least = v < least ? v : least;
        most = v > most ? v : most;
    }
    const float mid = sqrtf(most * least);
    for (int64_t j = 0; j < a->k; j++) {
        s[j] /= mid;
        if (!isfinite(s[j]) || !(s[j] > 0.0f)) s[j] = 1.0f;
    }
}

struct scale_job {
    const struct search *a;
    const float *s;
    int linear;
};

static void scale_tile(void *ctx, size_t piece, int thread)
{
    const struct scale_job *job = ctx;
    const struct nb_problem *p = &job->a->p[job->linear];
    const struct nb_fmat *w = &job->a->sample[job->linear];
    (void)thread;
    for (int64_t r = (int64_t)piece * NB_TILE; r < ((int64_t)piece + 1) * NB_TILE && r < p->rows;
         r++) {
        for (int64_t j = 0; j < p->cols; j++)
            p->own[r * p->cols + j] = w->data[r * w->ld + j] * job->s[j];
    }
}

static void unscale_tile(void *ctx, size_t piece, int thread)
{
    const struct scale_job *job = ctx;
    const struct nb_problem *p = &job->a->p[job->linear];
    (void)thread;
    for (int64_t r = (int64_t)piece * NB_TILE; r < ((int64_t)piece + 1) * NB_TILE; r++) {
        float *error = job->a->error + r * p->cols;
        for (int64_t j = 0; j < p->cols; j++) error[j] /= job->s[j];
    }
}

/* H of the scaled inputs, in the factor: feedback M_ji / M_ii and pivot M_ii^2 with M scaled by 1/s. */
static void scale_factor(struct search *a, const float *s)
{
    const struct nb_factor *f = &a->factor;
    for (int64_t j = 0; j < a->k; j++) {
        const float inverse = 1.0f / s[f->at[j]];
        a->pivot[j] = f->pivot[j] * inverse * inverse;
        for (int64_t i = 0; i < j; i++) {
            a->feedback[j * a->k + i] = f->feedback[j * a->k + i] * (s[f->at[i]] * inverse);
        }
    }
}

/* Output loss of one linear under s; its scaled weights and solution are left in p and s. */
static double linear_loss(struct search *a, int i, const float *s)
{
    struct nb_problem *p = &a->p[i];
    struct nb_pool *pool = nb_backend_pool(a->be);
    struct scale_job job = {.a = a, .s = s, .linear = i};
    nb_pool_run(pool, (size_t)nb_problem_tiles(p), scale_tile, &job);
    nb_fit_groups(p, &a->s[i]);
    if (a->g->compensated) {
        struct nb_factor f = a->factor;
        f.feedback = a->feedback;
        f.pivot = a->pivot;
        a->rc = nb_pass_run(p, &f, false, &a->s[i], a->err);
        return nb_solution_loss(p, &a->s[i]);
    }
    a->rc = nb_round_nearest(p, &a->s[i], a->err);
    nb_solution_error(p, &a->s[i], a->error);
    nb_pool_run(pool, (size_t)nb_problem_tiles(p), unscale_tile, &job);
    p->h = a->h->h;
    nb_solution_losses(p, &a->s[i], a->error, a->gradient);
    p->h = NULL;
    return nb_solution_plain(p, &a->s[i]);
}

static double evaluate(struct search *a, const float *s)
{
    double loss = 0;
    for (int64_t j = 0; j < a->k; j++) {
        a->u[j] =
            (float)((a->h->diag[j] + NB_IMPORTANCE_FLOOR * a->h->mean) / ((double)s[j] * s[j]));
    }
    if (a->g->compensated) scale_factor(a, s);
    for (int i = 0; i < a->g->n && !a->rc; i++) loss += linear_loss(a, i, s);
    if (loss < a->best_loss) {
        a->best_loss = loss;
        memcpy(a->best, s, (size_t)a->k * sizeof *s);
    }
    return loss;
}

/* Five ratios over the family, then halved steps around the best. */
static void search_family(struct search *a, bool duo)
{
    float best_r = 0.5f, step = 0.25f;
    double best = INFINITY;
    for (int i = duo ? 0 : 1; i < COARSE && !a->rc; i++) {
        const float r = (float)i / (COARSE - 1);
        family(a, duo, r, a->candidate);
        double loss = evaluate(a, a->candidate);
        if (loss < best) {
            best = loss;
            best_r = r;
        }
    }
    for (int i = 0; i < FINE_STEPS && !a->rc; i++) {
        const float centre = best_r;
        step *= 0.5f;
        for (float side = -1.0f; side <= 1.0f && !a->rc; side += 2.0f) {
            const float r = centre + side * step;
            if (r < 0.0f || r > 1.0f) continue;
            family(a, duo, r, a->candidate);
            double loss = evaluate(a, a->candidate);
            if (loss < best) {
                best = loss;
                best_r = r;
            }
        }
    }
}

/* Every n-th row, without copying. */
static struct nb_fmat sample_rows(const struct nb_fmat *w)
{
    const int64_t stride = (w->rows + SAMPLE_ROWS - 1) / SAMPLE_ROWS;
    return (struct nb_fmat){.data = w->data,
                            .rows = (w->rows + stride - 1) / stride,
                            .cols = w->cols,
                            .ld = w->ld * stride};
}

static int prepare(struct search *a, struct nb_arena *arena)
{
    const struct nb_awq_group *g = a->g;
    const size_t k = (size_t)a->k;
    int64_t widest = 0;
    a->act = nb_arena_alloc(arena, k, sizeof *a->act);
    a->weight = nb_arena_alloc(arena, k, sizeof *a->weight);
    a->u = nb_arena_alloc(arena, k, sizeof *a->u);
    a->candidate = nb_arena_alloc(arena, k, sizeof *a->candidate);
    a->best = nb_arena_alloc(arena, k, sizeof *a->best);
    a->p = nb_arena_calloc(arena, (size_t)g->n, sizeof *a->p);
    a->s = nb_arena_calloc(arena, (size_t)g->n, sizeof *a->s);
    a->sample = nb_arena_calloc(arena, (size_t)g->n, sizeof *a->sample);
    if (arena->failed) return nb_fail(a->err, NB_E_NOMEM, "no memory for the search of scales");
    for (int64_t j = 0; j < a->k; j++) {
        a->act[j] = (float)(g->stats->abs_sum[j] / (double)g->stats->n_tokens);
    }
    for (int i = 0; i < g->n; i++) {
        a->sample[i] = sample_rows(&g->w[i]);
        const struct nb_solve_job job = {.w = &a->sample[i], .opts = &a->trial, .be = a->be};
        int rc = nb_problem_init(&a->p[i], &job, NULL, arena, a->err);
        if (!rc) rc = nb_problem_own(&a->p[i], arena, a->err);
        if (!rc) rc = nb_solution_init(&a->s[i], &a->p[i], arena, a->err);
        if (rc) return rc;
        a->p[i].u = a->u;
        widest = a->p[i].padded > widest ? a->p[i].padded : widest;
    }
    a->error = nb_arena_alloc(arena, (size_t)widest * k, sizeof *a->error);
    a->gradient = nb_arena_alloc(arena, (size_t)widest * k, sizeof *a->gradient);
    if (arena->failed) return nb_fail(a->err, NB_E_NOMEM, "no memory for the search of scales");
    int rc = nb_hessian_of(&a->h, &a->own, g->stats, a->err);
    if (!rc) rc = weight_statistic(a);
    if (rc) return rc;
    nb_hessian_damp(a->h, 0.0);
    share(g, a->act, a->k);
    share(g, a->weight, a->k);
    return rc;
}

static int prepare_factor(struct search *a, struct nb_arena *arena)
{
    const size_t k = (size_t)a->k;
    struct nb_factor_wish wish = {
        .order = NB_ORDER_STATIC, .damp = a->opts->damp, .group = a->p[0].group};
    if (!(wish.damp > 0.0)) wish.damp = nb_damp_for_tokens(a->g->stats->n_tokens, a->k);
    a->feedback = nb_arena_calloc(arena, k * k, sizeof *a->feedback);
    a->pivot = nb_arena_alloc(arena, k, sizeof *a->pivot);
    if (arena->failed) return nb_fail(a->err, NB_E_NOMEM, "no memory for the search of scales");
    int rc = nb_hessian_factor(a->h, &wish, a->be, a->err);
    a->factor = a->h->f;
    return rc;
}

int nb_awq_search(float *s, const struct nb_awq_group *g, struct nb_awq_losses *losses,
                  struct nb_err *err)
{
    struct nb_arena scratch;
    nb_arena_init(&scratch);
    struct search a = {.g = g,
                       .opts = g->opts,
                       .trial = *g->opts,
                       .be = g->be,
                       .k = g->stats->k,
                       .best_loss = INFINITY,
                       .err = err};
    a.trial.grid.coarse = true;
    a.rc = prepare(&a, &scratch);
    if (!a.rc && g->compensated) a.rc = prepare_factor(&a, &scratch);
    if (!a.rc) {
        for (int64_t j = 0; j < a.k; j++) a.candidate[j] = 1.0f;
        losses->identity = evaluate(&a, a.candidate);
    }
    if (!a.rc) search_family(&a, false);
    if (!a.rc) search_family(&a, true);
    for (int64_t j = 0; !a.rc && j < a.k; j++) s[j] = a.best[j];
    if (!a.rc && !isfinite(a.best_loss)) {
        a.rc = nb_fail(err, NB_E_NUMERIC, "the output error of scaled weights is not finite");
    }
    losses->best = a.best_loss;
    nb_hessian_release(&a.own);
    nb_arena_release(&scratch);
    return a.rc;
}

void nb_awq_scale_columns(struct nb_fmat *w, const float *s)
{
    for (int64_t r = 0; r < w->rows; r++) {
        for (int64_t j = 0; j < w->cols; j++) w->data[r * w->ld + j] *= s[j];
    }
}

void nb_awq_scale_stats(struct nb_stats *stats, const float *s)
{
    const int64_t k = stats->k;
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j < k; j++) stats->h[i * k + j] /= (double)s[i] * s[j];
        if (stats->d) {
            for (int64_t j = 0; j < k; j++) stats->d[i * k + j] /= (double)s[i] * s[j];
        }
        stats->abs_sum[i] /= (double)s[i];
    }
}
