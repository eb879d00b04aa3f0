/* SPDX-License-Identifier: Apache-2.0
 *
 * solving.h - one matrix under way in a solver that has a Hessian: set up, first codes, handing out; private to
 * this folder. */
#ifndef NB_QUANT_SOLVING_H
#define NB_QUANT_SOLVING_H

#include "quant/hessian.h"

struct nb_solving {
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
    bool has_scales; /* best's are chosen */
    enum nb_act_order order;
    struct nb_arena keep; /* all of the above */
};

/* False: too few tokens say anything; plain rounding it is. */
bool nb_solving_has_tokens(const struct nb_solve_job *job);
/* The problem under the damping that its first order needs, the float stream's shift in its target. Release in
 * any case. NB_E_NUMERIC: no use of this H, NB_E_SPEC, NB_E_NOMEM. */
int nb_solving_init(struct nb_solving *r, const struct nb_solve_job *job, enum nb_act_order order,
                    struct nb_err *err);
/* The statistics serve the next linear as they were. */
void nb_solving_release(struct nb_solving *r);

/* Scales, then codes by one error-compensated pass over f, which is of that order. */
int nb_solving_pass(struct nb_solving *r, const struct nb_factor *f, enum nb_act_order order,
                    struct nb_solution *s, struct nb_err *err);
/* Scales fitted to the target with the problem's importance; where rows share them, best's once it has some. */
void nb_solving_scales(struct nb_solving *r, struct nb_solution *s);
void nb_solving_copy_scales(const struct nb_solving *r, struct nb_solution *to,
                            const struct nb_solution *from);
/* best to out, no row worse than by plain rounding, both levels of scales brought to what the file can hold;
 * all of report but `order`. */
int nb_solving_finish(struct nb_solving *r, struct nb_qmat *out, struct nb_arena *arena,
                      struct nb_solve_report *report, struct nb_err *err);
/* What such a solver can do. */
bool nb_solving_supports(const struct nb_qspec *spec);

#endif
