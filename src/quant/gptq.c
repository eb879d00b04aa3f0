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
#include <string.h>

#include "quant/solvers.h"
#include "quant/solving.h"

enum {
    MOST_GROUPS = 8, /* groups of a row that are tried one by one */
    SHORT_ROW =
        1536, /* columns up to which a second order and other scales are tried: they bring 2 to
                        * 4 % there and half a percent on long rows, for most of the time */
};

/* The trial takes best's parameters, those of one group (or all: -1) scaled by factor, zeros moved. */
static void set_trial(struct nb_solving *r, int64_t group, float factor, float zero_step)
{
    const struct nb_problem *p = &r->p;
    const float top = (float)((1 << p->spec.elem.bits) - 1), least = (float)r->opts->grid.zero_min;
    for (int64_t g = 0; g < p->n_groups; g++) {
        const bool here = group < 0 || g == group;
        for (int64_t i = g * p->padded; i < (g + 1) * p->padded; i++) {
            r->trial.scale[i] = r->best.scale[i];
            r->trial.zero[i] = r->best.zero[i];
            if (!here) continue;
            r->trial.scale[i] = nb_scale_store(p, r->best.scale[i] * factor);
            const float zero = r->best.zero[i] + zero_step;
            if (zero >= least && zero <= top) r->trial.zero[i] = zero;
        }
    }
}

static int try_scales(struct nb_solving *r, int64_t group, int steps, struct nb_err *err)
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
    const bool zeros = r->p.spec.zero == NB_ZERO_CODE && !r->p.spec.symmetric;
    for (int side = -1; !rc && steps && group >= 0 && zeros && side <= 1; side += 2) {
        set_trial(r, group, 1.0f, (float)side);
        rc = nb_pass_run(&r->p, r->f, false, &r->trial, err);
        if (!rc) nb_solution_keep_best(&r->p, &r->best, &r->trial);
    }
    return rc;
}

static int improve(struct nb_solving *r, struct nb_err *err)
{
    const struct nb_solve_opts *o = r->opts;
    const enum nb_descent what = o->refit ? NB_DESCENT_BOTH : NB_DESCENT_CODES;
    const bool fine = nb_scales_are_fine(&r->p);
    /* Rounding 8-bit inputs costs ten times what 8-bit weights do: search in these would not show. */
    if (r->p.spec.act != NB_ACT_NONE && r->p.spec.elem.bits == 8) {
        return o->cd_sweeps > 0 ? nb_descend(&r->p, &r->best, 1, what, err) : 0;
    }
    int rc = fine && r->p.cols <= SHORT_ROW ? try_scales(r, -1, o->scale_trials, err) : 0;
    for (int64_t g = 0; !rc && fine && r->p.n_groups <= MOST_GROUPS && g < r->p.n_groups; g++) {
        rc = try_scales(r, g, o->group_trials, err);
    }
    if (!rc && o->cd_sweeps > 0) rc = nb_descend(&r->p, &r->best, o->cd_sweeps, what, err);
    for (int i = 0; !rc && i < o->restarts; i++) {
        nb_solving_copy_scales(r, &r->trial, &r->best);
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
static int add_order(struct nb_solving *r, enum nb_act_order order, struct nb_err *err)
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
    if (!rc && same) rc = nb_solving_pass(r, &f, order, &r->trial, err);
    if (!rc && same) {
        if (nb_solution_loss(&r->p, &r->trial) < nb_solution_loss(&r->p, &r->best))
            r->order = order;
        nb_solution_keep_best(&r->p, &r->best, &r->trial);
    }
    nb_arena_release(&scratch);
    return rc == NB_E_NUMERIC ? 0 : rc;
}

static int solve(struct nb_qmat *out, const struct nb_solve_job *job, struct nb_arena *arena,
                 struct nb_solve_report *report, struct nb_err *err)
{
    const struct nb_solve_opts *opts = job->opts;
    struct nb_solve_report unused;
    if (!report) report = &unused;
    if (!nb_solving_has_tokens(job)) return nb_solver_rtn.solve(out, job, arena, report, err);
    struct nb_solving r;
    /* What desc_act fixes is which columns form a group; they may still be visited in any order. */
    const bool dynamic = opts->order == NB_ORDER_DYNAMIC,
               both = dynamic || opts->order == NB_ORDER_AUTO;
    const enum nb_act_order first = both ? NB_ORDER_PIVOTED : opts->order;
    int rc = nb_solving_init(&r, job, first, err);
    if (rc == NB_E_NUMERIC) {
        nb_solving_release(&r);
        return nb_solver_rtn.solve(out, job, arena, report, err);
    }
    if (!rc) rc = nb_solving_pass(&r, r.f, first, &r.best, err);
    if (!rc && both && r.p.n_groups > 1 && r.p.cols <= SHORT_ROW)
        rc = add_order(&r, dynamic ? NB_ORDER_NONE : NB_ORDER_GROUP, err);
    if (!rc && job->stats->n_tokens >= 3 * job->w->cols) rc = improve(&r, err);
    *report = (struct nb_solve_report){.order = dynamic ? opts->order : r.order};
    if (!rc) rc = nb_solving_finish(&r, out, arena, report, err);
    nb_solving_release(&r);
    return rc;
}

const struct nb_solver nb_solver_gptq = {
    .name = "gptq",
    .summary = "error-compensated rounding with the Hessian of the inputs, then local search",
    .needs_hessian = true,
    .supports = nb_solving_supports,
    .solve = solve,
};
