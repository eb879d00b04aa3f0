/* SPDX-License-Identifier: Apache-2.0
 *
 * rtn.c - round to nearest: parameters fitted group by group, then every weight on its own.
 *
 * With statistics the fit weighs each column by diag(H), the part of the output error that a weight
 * causes alone; with opts->refit the scales then move to where the whole output error is least while the
 * codes stay. The steps before that start the other solvers and are what they are measured against.
 * Without statistics and clipping a format that has tools of its own gets their bytes (numeric->encode). */
#include <inttypes.h>
#include <string.h>

#include "quant/hessian.h"
#include "quant/solvers.h"

enum { REFIT_SWEEPS = 3 };

struct rows_job {
    const struct nb_problem *p;
    struct nb_solution *s;
};

static void round_tile(void *ctx, size_t piece, int thread)
{
    const struct rows_job *job = ctx;
    const struct nb_problem *p = job->p;
    (void)thread;
    for (int64_t r = (int64_t)piece * NB_TILE; r < ((int64_t)piece + 1) * NB_TILE; r++) {
        for (int64_t g = 0; g < p->n_groups; g++) {
            const int64_t j = g * p->group;
            struct nb_group_params params = {.scale = job->s->scale[g * p->padded + r],
                                             .zero = job->s->zero[g * p->padded + r]};
            p->numeric->round_group(&p->spec, p->w + r * p->cols + j, nb_problem_group_cols(p, g),
                                    &params, job->s->code + r * p->cols + j, NULL);
        }
    }
}

int nb_round_nearest(const struct nb_problem *p, struct nb_solution *s, struct nb_err *err)
{
    struct rows_job job = {.p = p, .s = s};
    nb_pool_run(nb_backend_pool(p->be), (size_t)nb_problem_tiles(p), round_tile, &job);
    return p->h ? nb_solution_measure(p, s, err) : 0;
}

static bool supports(const struct nb_qspec *spec)
{
    const struct nb_numeric *numeric = nb_numeric_for(spec);
    return numeric && (!spec->super_groups || numeric->settle || numeric->encode);
}

/* Groups that end in the middle of a row. */
static bool runs_across_rows(const struct nb_qspec *spec, int64_t cols)
{
    return spec->flat && spec->group_cols > 0 && cols % spec->group_cols;
}

/* The reference's bytes: the whole matrix at once, without the problem's copies. */
static int encode(struct nb_qmat *out, const struct nb_solve_job *job, struct nb_arena *arena,
                  struct nb_err *err)
{
    const struct nb_fmat *w = job->w;
    const struct nb_grid_opts *grid = &job->opts->grid;
    int rc = nb_qmat_init(out, &grid->spec, w->rows, w->cols, arena, err);
    if (rc) return rc;
    struct nb_arena scratch;
    nb_arena_init(&scratch);
    const float *from = w->data;
    if (w->ld != w->cols) {
        float *dense = nb_arena_alloc(&scratch, (size_t)w->rows * (size_t)w->cols, sizeof *dense);
        for (int64_t r = 0; dense && r < w->rows; r++)
            memcpy(dense + r * w->cols, w->data + r * w->ld, (size_t)w->cols * sizeof *dense);
        from = dense;
        if (!dense)
            rc = nb_fail(err, NB_E_NOMEM, "no memory for a matrix of %" PRId64 " x %" PRId64,
                         w->rows, w->cols);
    }
    if (!rc)
        rc = nb_numeric_for(&grid->spec)->encode(out, grid, from, nb_backend_pool(job->be), err);
    nb_arena_release(&scratch);
    return rc;
}

/* What an encoded matrix costs. */
static int report_encoded(const struct nb_qmat *q, const struct nb_solve_job *job,
                          struct nb_solve_report *report, struct nb_err *err)
{
    const struct nb_fmat *w = job->w;
    *report = (struct nb_solve_report){.order = NB_ORDER_NONE, .ladder = "rtn"};
    if (!job->stats) return 0;
    struct nb_fmat values = {nb_alloc((size_t)w->rows * (size_t)w->cols, sizeof(float)), w->rows,
                             w->cols, w->cols};
    struct nb_fmat zeros = {nb_calloc((size_t)w->cols, sizeof(float)), w->rows, w->cols, 0};
    const bool done = values.data && zeros.data;
    if (done) {
        const struct nb_weight encoded = {.rows = w->rows, .cols = w->cols, .q = q};
        nb_weight_rows(&encoded, nb_backend_pool(job->be), values.data);
        report->loss = report->loss_rtn = nb_output_loss(w, &values, job->stats, job->be);
        report->loss_zero = nb_output_loss(w, &zeros, job->stats, job->be);
    }
    nb_free(values.data);
    nb_free(zeros.data);
    return done
               ? 0
               : nb_fail(err, NB_E_NOMEM, "no memory to measure a matrix of %" PRId64 " x %" PRId64,
                         w->rows, w->cols);
}

struct rounding {
    struct nb_problem p;
    struct nb_solution s;
    struct nb_hessian own, *h;
    double loss_rtn;
};

/* Parameters and codes; with two levels not yet what the file can hold. */
static int round_freely(struct rounding *a, const struct nb_solve_job *job,
                        struct nb_arena *scratch, struct nb_err *err)
{
    const struct nb_stats *stats = job->stats;
    int rc = nb_problem_init(&a->p, job, NULL, scratch, err);
    if (!rc && stats) rc = nb_hessian_of(&a->h, &a->own, stats, err);
    if (!rc && stats) nb_problem_set_h(&a->p, a->h, 0.0);
    if (!rc) rc = nb_solution_init(&a->s, &a->p, scratch, err);
    if (rc) return rc;
    nb_fit_groups(&a->p, &a->s);
    rc = nb_round_nearest(&a->p, &a->s, err);
    a->loss_rtn = nb_solution_plain(&a->p, &a->s);
    if (!rc && stats && job->opts->refit && stats->n_tokens >= 3 * job->w->cols)
        rc = nb_descend(&a->p, &a->s, REFIT_SWEEPS, NB_DESCENT_SCALES, err);
    return rc;
}

static int solve(struct nb_qmat *out, const struct nb_solve_job *job, struct nb_arena *arena,
                 struct nb_solve_report *report, struct nb_err *err)
{
    const struct nb_grid_opts *grid = &job->opts->grid;
    const struct nb_numeric *numeric = nb_numeric_for(&grid->spec);
    const bool plain = grid->clip == NB_CLIP_NONE && !job->stats;
    if (numeric && numeric->encode &&
        (plain || runs_across_rows(&grid->spec, job->w->cols) ||
         (grid->spec.super_groups && !numeric->settle))) {
        int rc = encode(out, job, arena, err);
        return rc || !report ? rc : report_encoded(out, job, report, err);
    }
    struct nb_arena scratch;
    nb_arena_init(&scratch);
    struct rounding a = {.h = NULL};
    int rc = round_freely(&a, job, &scratch, err);
    if (!rc) rc = nb_scales_export(&a.p, &a.s, out, arena, err);
    if (!rc && out->scale.codes) rc = nb_round_nearest(&a.p, &a.s, err);
    if (!rc) rc = nb_solution_export(&a.p, &a.s, out, arena, err);
    if (!rc && report) {
        *report = (struct nb_solve_report){.order = NB_ORDER_NONE, .ladder = "rtn"};
        report->loss = nb_solution_plain(&a.p, &a.s);
        report->loss_rtn = out->scale.codes ? report->loss : a.loss_rtn;
        if (job->stats) rc = nb_problem_scale(&a.p, &report->loss_zero, err);
    }
    nb_hessian_release(&a.own);
    nb_arena_release(&scratch);
    return rc;
}

const struct nb_solver nb_solver_rtn = {
    .name = "rtn",
    .summary =
        "round to nearest; scales by clip search, weighted by the inputs when they are known",
    .needs_hessian = false,
    .supports = supports,
    .solve = solve,
};
