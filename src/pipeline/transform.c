/* SPDX-License-Identifier: Apache-2.0
 *
 * transform.c - AWQ on one layer: statistics of the float layer, scale search for every fold of the
 * architecture, folding. */
#include "pipeline/fold.h"

struct awq_run {
    struct nb_fold_run fold;
    struct nb_backend *be;
    struct nb_stats stats[NB_INPUT_COUNT];
    bool have[NB_INPUT_COUNT];
};

static int add(void *ctx, enum nb_input input, const float *x, int64_t rows, struct nb_err *err)
{
    struct awq_run *a = ctx;
    const struct nb_stats_input in = {.x = x, .m = rows};
    return a->have[input] ? nb_stats_add(&a->stats[input], a->be, &in, err) : 0;
}

static int gather(struct nb_run *r, struct nb_layer_work *w, struct awq_run *a, struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    int rc = 0;
    for (int f = 0; f < arch->n_folds && !rc; f++) {
        enum nb_input k = arch->folds[f].to;
        if (a->have[k] || !nb_arch_fold_applies(arch, w->index, &arch->folds[f])) continue;
        rc = nb_stats_init(&a->stats[k], nb_layer_input_width(w->engine, k), NB_STATS_ABS, err);
        a->have[k] = !rc;
    }
    if (!rc) rc = nb_fold_gather(&a->fold, r, w, &(struct nb_fold_visitor){add, a, 0}, err);
    for (int k = 0; k < NB_INPUT_COUNT && !rc; k++) {
        if (a->have[k]) nb_stats_finish(&a->stats[k]);
    }
    return rc;
}

static int search(struct nb_run *r, struct nb_layer_work *w, struct awq_run *a, int f,
                  struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    const struct nb_arch_fold *fold = &arch->folds[f];
    if (!nb_fold_allowed(r, w, f) || !nb_stats_are_finite(&a->stats[fold->to])) return 0;
    struct nb_fmat mats[NB_MAX_LINEARS];
    struct nb_solve_opts opts = r->recipe.solve;
    struct nb_awq_group g = {.w = mats,
                             .stats = &a->stats[fold->to],
                             .opts = &opts,
                             .be = r->be,
                             .repeat = fold->repeat,
                             .head_dim = fold->head_dim,
                             .compensated = r->recipe.solver->needs_hessian};
    g.n = nb_fold_matrices(r, w, f, mats, &opts);
    int64_t k = nb_layer_input_width(w->engine, fold->to);
    float *s = nb_alloc((size_t)k, sizeof *s);
    if (!s) return nb_fail(err, NB_E_NOMEM, "no memory for AWQ scales");
    struct nb_awq_losses losses;
    int rc = a->stats[fold->to].hessian ? 0 : nb_stats_condense(&a->stats[fold->to], err);
    if (!rc) rc = nb_awq_search(s, &g, &losses, err);
    if (rc || !(losses.best < losses.identity)) nb_free(s);
    else a->fold.s[f] = s;
    return rc;
}

int nb_transform_awq(struct nb_run *r, struct nb_layer_work *w, struct nb_err *err)
{
    struct awq_run a = {.be = r->be};
    int rc = nb_fold_init(&a.fold, r, w, err);
    if (!rc) rc = gather(r, w, &a, err);
    for (int f = 0; f < r->model->arch.n_folds && !rc; f++) rc = search(r, w, &a, f, err);
    if (!rc) rc = nb_fold_apply(&a.fold, r, w, "AWQ", err);
    for (int k = 0; k < NB_INPUT_COUNT; k++) {
        if (a.have[k]) nb_stats_release(&a.stats[k]);
    }
    nb_fold_release(&a.fold);
    return rc;
}
