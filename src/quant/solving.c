/* SPDX-License-Identifier: Apache-2.0
 *
 * solving.c - see solving.h. */
#include "quant/solving.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "quant/solvers.h"

enum { MOST_FITTED = 512 }; /* columns of a group that is fitted from updated weights */

bool nb_solving_has_tokens(const struct nb_solve_job *job)
{
    return job->stats && job->stats->n_tokens * 8 >= job->w->cols;
}

/* Importance of a column while its group is fitted: what of its error later columns cannot repair. */
static void importance_from_pivots(struct nb_solving *r, const struct nb_factor *f)
{
    for (int64_t i = 0; i < f->n; i++) r->p.u[f->at[i]] = f->pivot[i];
}

void nb_solving_copy_scales(const struct nb_solving *r, struct nb_solution *to,
                            const struct nb_solution *from)
{
    const struct nb_problem *p = &r->p;
    const size_t bytes = (size_t)p->n_groups * (size_t)p->padded * sizeof *to->scale;
    memcpy(to->scale, from->scale, bytes);
    memcpy(to->zero, from->zero, bytes);
}

/* Rows that share scales can only be compared under the same ones: those of the first fit. */
void nb_solving_scales(struct nb_solving *r, struct nb_solution *s)
{
    if (r->has_scales && nb_scales_are_shared(&r->p)) nb_solving_copy_scales(r, s, &r->best);
    else nb_fit_groups(&r->p, s);
    r->has_scales = true;
}

int nb_solving_pass(struct nb_solving *r, const struct nb_factor *f, enum nb_act_order order,
                    struct nb_solution *s, struct nb_err *err)
{
    const bool whole_groups = order == NB_ORDER_NONE || order == NB_ORDER_GROUP;
    const bool fit = whole_groups && r->p.n_groups > 1 && r->group <= MOST_FITTED &&
                     !nb_scales_are_shared(&r->p);
    importance_from_pivots(r, f);
    if (!fit) nb_solving_scales(r, s);
    return nb_pass_run(&r->p, f, fit, s, err);
}

/* Problem columns by falling diagonal: groups are formed in that order. */
static int permute_columns(struct nb_solving *r, struct nb_arena *arena, struct nb_err *err)
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

int nb_solving_init(struct nb_solving *r, const struct nb_solve_job *job, enum nb_act_order order,
                    struct nb_err *err)
{
    const int64_t k = job->w->cols;
    const struct nb_solve_opts *o = job->opts;
    *r = (struct nb_solving){
        .w = job->w, .stats = job->stats, .opts = o, .be = job->be, .order = order};
    nb_arena_init(&r->keep);
    struct nb_arena *keep = &r->keep;
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
    if (!rc) rc = nb_problem_init(&r->p, job, r->column, keep, err);
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

void nb_solving_release(struct nb_solving *r)
{
    struct nb_err unused = {0};
    if (r->back && r->h != &r->own) nb_hessian_permute(r->h, r->back, &unused);
    nb_hessian_release(&r->own);
    nb_arena_release(&r->keep);
}

/* Plain rounding under the same objective: the yardstick, and the better choice for a row now and then. */
static int compare_with_rtn(struct nb_solving *r, double *loss_rtn, struct nb_err *err)
{
    nb_problem_reset_importance(&r->p);
    nb_solving_scales(r, &r->trial);
    int rc = nb_round_nearest(&r->p, &r->trial, err);
    if (!rc) rc = nb_solution_measure(&r->p, &r->best, err);
    if (rc) return rc;
    *loss_rtn = nb_solution_plain(&r->p, &r->trial);
    nb_solution_keep_plain(&r->p, &r->best, &r->trial);
    return 0;
}

/* Two levels: the scales become what the file can hold, then the codes follow them: those that stand, or a
 * pass anew, or plain rounding, whichever serves a row best. */
static int settle(struct nb_solving *r, struct nb_qmat *out, struct nb_arena *arena,
                  double *loss_rtn, struct nb_err *err)
{
    const struct nb_solve_opts *o = r->opts;
    int rc = nb_scales_export(&r->p, &r->best, out, arena, err);
    if (rc || !out->scale.codes) return rc;
    const bool many_tokens = r->stats->n_tokens >= 3 * r->w->cols;
    const int sweeps = many_tokens && o->cd_sweeps > 0 ? o->cd_sweeps : 0;
    rc = nb_descend(&r->p, &r->best, sweeps, NB_DESCENT_CODES, err);
    nb_solving_copy_scales(r, &r->trial, &r->best);
    if (!rc)
        rc = o->beam > 1 && many_tokens ? nb_beam_pass(&r->p, r->f, o->beam, &r->trial, err)
                                        : nb_pass_run(&r->p, r->f, false, &r->trial, err);
    if (!rc) rc = nb_descend(&r->p, &r->trial, sweeps, NB_DESCENT_CODES, err);
    if (rc) return rc;
    nb_solution_keep_best(&r->p, &r->best, &r->trial);
    rc = nb_round_nearest(&r->p, &r->trial, err);
    if (rc) return rc;
    *loss_rtn = nb_solution_plain(&r->p, &r->trial);
    nb_solution_keep_plain(&r->p, &r->best, &r->trial);
    return 0;
}

int nb_solving_finish(struct nb_solving *r, struct nb_qmat *out, struct nb_arena *arena,
                      struct nb_solve_report *report, struct nb_err *err)
{
    report->damp = r->f->damp;
    snprintf(report->ladder, sizeof report->ladder, "%s", r->f->rung ? r->f->rung : "");
    int rc = compare_with_rtn(r, &report->loss_rtn, err);
    if (!rc) rc = nb_problem_scale(&r->p, &report->loss_zero, err);
    if (!rc) rc = settle(r, out, arena, &report->loss_rtn, err);
    if (!rc) rc = nb_solution_export(&r->p, &r->best, out, arena, err);
    if (!rc) report->loss = nb_solution_plain(&r->p, &r->best);
    return rc;
}

bool nb_solving_supports(const struct nb_qspec *spec)
{
    const struct nb_numeric *numeric = nb_numeric_for(spec);
    return numeric && spec->zero != NB_ZERO_MIN && (!spec->super_groups || numeric->settle);
}
