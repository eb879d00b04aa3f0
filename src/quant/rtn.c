/* SPDX-License-Identifier: Apache-2.0
 *
 * rtn.c - round to nearest: parameters fitted group by group, then every weight on its own.
 *
 * With statistics the fit weighs each column by diag(H), the part of the output error that a weight
 * causes alone; with opts->refit the scales then move to where the whole output error is least while the
 * codes stay. The steps before that start the other solvers and are what they are measured against. */
#include <inttypes.h>
#include <string.h>

#include "quant/hessian.h"
#include "quant/solvers.h"

enum { REFIT_SWEEPS = 3 };

struct rows_job {
    const struct nb_problem *p;
    struct nb_solution *s;
};

static void fit_tile(void *ctx, size_t piece, int thread)
{
    const struct rows_job *job = ctx;
    const struct nb_problem *p = job->p;
    (void)thread;
    for (int64_t r = (int64_t)piece * NB_TILE; r < ((int64_t)piece + 1) * NB_TILE; r++) {
        for (int64_t g = 0; g < p->n_groups; g++) {
            const int64_t j = g * p->group;
            struct nb_group_params params;
            p->numeric->fit(&p->opts->grid, p->w + r * p->cols + j, p->u ? p->u + j : NULL,
                            nb_problem_group_cols(p, g), &params);
            job->s->scale[g * p->padded + r] = params.scale;
            job->s->zero[g * p->padded + r] = params.zero;
        }
    }
}

void nb_fit_groups(const struct nb_problem *p, struct nb_solution *s)
{
    struct rows_job job = {.p = p, .s = s};
    nb_pool_run(nb_backend_pool(p->be), (size_t)nb_problem_tiles(p), fit_tile, &job);
}

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
    return nb_numeric_for(spec) != NULL;
}

static int solve(struct nb_qmat *out, const struct nb_solve_job *job, struct nb_arena *arena,
                 struct nb_solve_report *report, struct nb_err *err)
{
    const struct nb_fmat *w = job->w;
    const struct nb_stats *stats = job->stats;
    const struct nb_solve_opts *opts = job->opts;
    struct nb_arena scratch;
    nb_arena_init(&scratch);
    struct nb_problem p;
    struct nb_solution s;
    struct nb_hessian own = {0}, *h = NULL;
    double loss_rtn = 0;
    int rc = nb_problem_init(&p, job, NULL, &scratch, err);
    if (!rc && stats) rc = nb_hessian_of(&h, &own, stats, err);
    if (!rc && stats) nb_problem_set_h(&p, h, 0.0);
    if (!rc) rc = nb_solution_init(&s, &p, &scratch, err);
    if (!rc) {
        nb_fit_groups(&p, &s);
        rc = nb_round_nearest(&p, &s, err);
        loss_rtn = nb_solution_plain(&p, &s);
    }
    if (!rc && stats && opts->refit && stats->n_tokens >= 3 * w->cols) {
        rc = nb_descend(&p, &s, REFIT_SWEEPS, NB_DESCENT_SCALES, err);
    }
    if (!rc) rc = nb_solution_export(&p, &s, out, arena, err);
    if (!rc && report) {
        *report = (struct nb_solve_report){.order = NB_ORDER_NONE, .ladder = "rtn"};
        report->loss = nb_solution_plain(&p, &s);
        report->loss_rtn = loss_rtn;
        if (stats) rc = nb_problem_scale(&p, &report->loss_zero, err);
    }
    nb_hessian_release(&own);
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
