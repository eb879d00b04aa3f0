/* SPDX-License-Identifier: Apache-2.0
 *
 * gptq.c - choose codes column by column, repairing each column's error in the next; then look for better.
 *
 * Nearest rounding keeps W close; what matters is W x. With H = sum x x^T from calibration text, a rounded
 * column's error is spread over the columns still to come, so that W x moves least.
 *
 * Source: Frantar et al., "GPTQ", arXiv:2210.17323. Ours differs: scales come from a clip search weighted
 * by the part of H that no later column can repair; columns go in pivoted order or by groups, whichever
 * serves a row better; damping depends on the number of tokens; trials of other scales, coordinate descent
 * and beam search follow, all on the same objective; a row that plain rounding serves better keeps it. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "quant/hessian.h"
#include "quant/solvers.h"

enum {
    MOST_FITTED = 512, /* columns of a group that is fitted from updated weights */
    MOST_GROUPS = 8,   /* groups of a row that are tried one by one */
    SHORT_ROW =
        1536, /* columns up to which a second order and other scales are tried: they bring 2 to
                        * 4 % there and half a percent on long rows, for most of the time */
};

struct run {
    const struct nb_fmat *w;
    const struct nb_stats *stats;
    const struct nb_solve_opts *opts;
    struct nb_backend *be;
    int64_t group;
    struct nb_hessian own, *h; /* columns in problem order */
    int32_t *column, *back;    /* desc_act: storage column of a problem column, and the inverse */
    struct nb_problem p;
    const struct nb_factor *f; /* of the first order; h's */
    struct nb_solution best, trial;
    enum nb_act_order order;
};

/* Importance of a column while its group is fitted: what of its error later columns cannot repair. */
static void importance_from_pivots(struct run *r, const struct nb_factor *f)
{
    for (int64_t i = 0; i < f->n; i++) r->p.u[f->at[i]] = f->pivot[i];
}

static int pass(struct run *r, const struct nb_factor *f, enum nb_act_order order,
                struct nb_solution *s, struct nb_err *err)
{
    const bool whole_groups = order == NB_ORDER_NONE || order == NB_ORDER_GROUP;
    const bool fit = whole_groups && r->p.n_groups > 1 && r->group <= MOST_FITTED;
    importance_from_pivots(r, f);
    if (!fit) nb_fit_groups(&r->p, s);
    return nb_pass_run(&r->p, f, fit, s, err);
}

/* Problem columns by falling diagonal: groups are formed in that order. */
static int permute_columns(struct run *r, struct nb_arena *arena, struct nb_err *err)
{
    const int64_t k = r->w->cols;
    int32_t *rising = nb_arena_alloc(arena, (size_t)k, sizeof *rising);
    r->column = nb_arena_alloc(arena, (size_t)k, sizeof *r->column);
    int32_t *back = nb_arena_alloc(arena, (size_t)k, sizeof *back);
    if (arena->failed) return nb_fail(err, NB_E_NOMEM, "no memory to order %" PRId64 " columns", k);
    int rc = nb_order_make(rising, NB_ORDER_STATIC, r->h->diag, k, k, err);
    for (int64_t j = 0; !rc && j < k; j++) {
        r->column[j] = rising[k - 1 - j];
        back[r->column[j]] = (int32_t)j;
    }
    if (!rc) rc = nb_hessian_permute(r->h, r->column, err);
    if (!rc) r->back = back;
    return rc;
}

/* The problem under the damping that its first order needs. */
static int prepare(struct run *r, enum nb_act_order order, struct nb_arena *keep,
                   struct nb_err *err)
{
    const int64_t k = r->w->cols;
    const struct nb_solve_opts *o = r->opts;
    r->group = o->grid.spec.group_cols > 0 ? o->grid.spec.group_cols : k;
    const struct nb_factor_wish wish = {
        .order = order,
        .damp = o->damp > 0.0 ? o->damp : nb_damp_for_tokens(r->stats->n_tokens, k),
        .group = r->group,
        .permuted = o->order == NB_ORDER_DYNAMIC};
    int rc = nb_hessian_of(&r->h, &r->own, r->stats, err);
    if (!rc && o->order == NB_ORDER_DYNAMIC) rc = permute_columns(r, keep, err);
    if (!rc) rc = nb_hessian_factor(r->h, &wish, r->be, err);
    r->f = &r->h->f;
    const struct nb_solve_job job = {r->w, r->stats, o, r->be};
    if (!rc) rc = nb_problem_init(&r->p, &job, r->column, keep, err);
    if (!rc) nb_problem_set_h(&r->p, r->h, r->f->damp * r->h->mean);
    if (!rc && r->f->block < k) rc = nb_problem_mask(&r->p, r->f->block, keep, err);
    if (!rc && r->stats->d && o->gptaq_alpha != 0.0) {
        rc = nb_problem_own(&r->p, keep, err);
        if (!rc) rc = nb_gptaq_shift(&r->p, r->stats, o->gptaq_alpha, err);
    }
    if (!rc) rc = nb_solution_init(&r->best, &r->p, keep, err);
    if (!rc) rc = nb_solution_init(&r->trial, &r->p, keep, err);
    return rc;
}

/* The statistics serve the next linear as they were. */
static void run_release(struct run *r, struct nb_arena *keep)
{
    struct nb_err unused = {0};
    if (r->back && r->h != &r->own) nb_hessian_permute(r->h, r->back, &unused);
    nb_hessian_release(&r->own);
    nb_arena_release(keep);
}

/* The trial takes best's parameters, those of one group (or all: -1) scaled by factor, zeros moved. */
static void set_trial(struct run *r, int64_t group, float factor, float zero_step)
{
    const struct nb_problem *p = &r->p;
    const float top = (float)((1 << p->spec.elem.bits) - 1), least = (float)r->opts->grid.zero_min;
    for (int64_t g = 0; g < p->n_groups; g++) {
        const bool here = group < 0 || g == group;
        for (int64_t i = g * p->padded; i < (g + 1) * p->padded; i++) {
            r->trial.scale[i] = r->best.scale[i];
            r->trial.zero[i] = r->best.zero[i];
            if (!here) continue;
            r->trial.scale[i] =
                nb_numeric_store_scale(r->best.scale[i] * factor, p->spec.scale_dtype);
            const float zero = r->best.zero[i] + zero_step;
            if (zero >= least && zero <= top) r->trial.zero[i] = zero;
        }
    }
}

static int try_scales(struct run *r, int64_t group, int steps, struct nb_err *err)
{
    const float unit = 0.02f;
    int rc = 0;
    for (int m = 1; !rc && m <= steps; m++) {
        for (int side = -1; !rc && side <= 1; side += 2) {
            set_trial(r, group, 1.0f + (float)(side * m) * unit, 0.0f);
            rc = nb_pass_run(&r->p, r->f, false, &r->trial, err);
            if (!rc) nb_solution_keep_best(&r->p, &r->best, &r->trial);
        }
    }
    for (int side = -1; !rc && steps && group >= 0 && !r->p.spec.symmetric && side <= 1;
         side += 2) {
        set_trial(r, group, 1.0f, (float)side);
        rc = nb_pass_run(&r->p, r->f, false, &r->trial, err);
        if (!rc) nb_solution_keep_best(&r->p, &r->best, &r->trial);
    }
    return rc;
}

static int improve(struct run *r, struct nb_err *err)
{
    const struct nb_solve_opts *o = r->opts;
    const enum nb_descent what = o->refit ? NB_DESCENT_BOTH : NB_DESCENT_CODES;
    int rc = r->p.cols <= SHORT_ROW ? try_scales(r, -1, o->scale_trials, err) : 0;
    for (int64_t g = 0; !rc && r->p.n_groups <= MOST_GROUPS && g < r->p.n_groups; g++) {
        rc = try_scales(r, g, o->group_trials, err);
    }
    if (!rc && o->cd_sweeps > 0) rc = nb_descend(&r->p, &r->best, o->cd_sweeps, what, err);
    for (int i = 0; !rc && i < o->restarts; i++) {
        set_trial(r, -1, 1.0f, 0.0f);
        rc = o->beam > 1 ? nb_beam_pass(&r->p, r->f, o->beam, &r->trial, err)
                         : nb_pass_run(&r->p, r->f, false, &r->trial, err);
        if (!rc && o->cd_sweeps > 0) rc = nb_descend(&r->p, &r->trial, o->cd_sweeps, what, err);
        if (!rc) nb_solution_keep_best(&r->p, &r->best, &r->trial);
    }
    if (!rc && o->beam > 1 && o->beam_sweeps > 0) {
        rc = nb_beam_descend(&r->p, &r->best, o->beam, o->beam_sweeps, err);
        if (!rc && o->cd_sweeps > 0) rc = nb_descend(&r->p, &r->best, o->cd_sweeps, what, err);
    }
    return rc;
}

/* A second order under the same damping; rows that it serves better move over. */
static int add_order(struct run *r, enum nb_act_order order, struct nb_err *err)
{
    const int64_t k = r->w->cols;
    struct nb_arena scratch;
    nb_arena_init(&scratch);
    const struct nb_factor_wish wish = {.order = order, .damp = r->f->damp, .group = r->group};
    struct nb_factor f = {.n = k, .be = r->be, .damp = wish.damp};
    f.at = nb_arena_alloc(&scratch, (size_t)k, sizeof *f.at);
    int rc = f.at ? nb_hessian_order(f.at, r->h, &wish, NULL, r->be, err)
                  : nb_fail(err, NB_E_NOMEM, "no memory to order %" PRId64 " columns", k);
    if (!rc) rc = nb_factor_init(&f, r->h, r->group, &scratch, err);
    const bool same = f.damp == r->f->damp && f.block == r->f->block;
    if (!rc && same) rc = pass(r, &f, order, &r->trial, err);
    if (!rc && same) {
        if (nb_solution_loss(&r->p, &r->trial) < nb_solution_loss(&r->p, &r->best))
            r->order = order;
        nb_solution_keep_best(&r->p, &r->best, &r->trial);
    }
    nb_arena_release(&scratch);
    return rc == NB_E_NUMERIC ? 0 : rc;
}

/* Plain rounding under the same objective: the yardstick, and the better choice for a row now and then. */
static int compare_with_rtn(struct run *r, double *loss_rtn, struct nb_err *err)
{
    nb_problem_reset_importance(&r->p);
    nb_fit_groups(&r->p, &r->trial);
    int rc = nb_round_nearest(&r->p, &r->trial, err);
    if (!rc) rc = nb_solution_measure(&r->p, &r->best, err);
    if (rc) return rc;
    *loss_rtn = nb_solution_plain(&r->p, &r->trial);
    nb_solution_keep_plain(&r->p, &r->best, &r->trial);
    return 0;
}

static int solve(struct nb_qmat *out, const struct nb_solve_job *job, struct nb_arena *arena,
                 struct nb_solve_report *report, struct nb_err *err)
{
    const struct nb_fmat *w = job->w;
    const struct nb_stats *stats = job->stats;
    const struct nb_solve_opts *opts = job->opts;
    struct nb_solve_report unused;
    if (!report) report = &unused;
    if (!stats || stats->n_tokens * 8 < w->cols) {
        return nb_solver_rtn.solve(out, job, arena, report, err);
    }
    struct nb_arena keep;
    nb_arena_init(&keep);
    struct run r = {.w = w, .stats = stats, .opts = opts, .be = job->be};
    /* What desc_act fixes is which columns form a group; they may still be visited in any order. */
    const bool dynamic = opts->order == NB_ORDER_DYNAMIC,
               both = dynamic || opts->order == NB_ORDER_AUTO;
    const enum nb_act_order first = both ? NB_ORDER_PIVOTED : opts->order;
    r.order = first;
    int rc = prepare(&r, first, &keep, err);
    if (rc == NB_E_NUMERIC) {
        run_release(&r, &keep);
        return nb_solver_rtn.solve(out, job, arena, report, err);
    }
    if (!rc) rc = pass(&r, r.f, first, &r.best, err);
    if (!rc && both && r.p.n_groups > 1 && r.p.cols <= SHORT_ROW)
        rc = add_order(&r, dynamic ? NB_ORDER_NONE : NB_ORDER_GROUP, err);
    if (!rc && stats->n_tokens >= 3 * w->cols) rc = improve(&r, err);
    *report = (struct nb_solve_report){.damp = r.f ? r.f->damp : 0.0,
                                       .order = dynamic ? opts->order : r.order};
    snprintf(report->ladder, sizeof report->ladder, "%s", r.f && r.f->rung ? r.f->rung : "");
    if (!rc) rc = compare_with_rtn(&r, &report->loss_rtn, err);
    if (!rc) rc = nb_problem_scale(&r.p, &report->loss_zero, err);
    if (!rc) rc = nb_solution_export(&r.p, &r.best, out, arena, err);
    if (!rc) report->loss = nb_solution_plain(&r.p, &r.best);
    run_release(&r, &keep);
    return rc;
}

static bool supports(const struct nb_qspec *spec)
{
    return nb_numeric_for(spec) != NULL;
}

const struct nb_solver nb_solver_gptq = {
    .name = "gptq",
    .summary = "error-compensated rounding with the Hessian of the inputs, then local search",
    .needs_hessian = true,
    .supports = supports,
    .solve = solve,
};
