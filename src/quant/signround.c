/* SPDX-License-Identifier: Apache-2.0
 *
 * signround.c - learn how to round: an offset for every weight and a factor for every scale, by signed gradients.
 *
 * Plain rounding takes the code nearest to w. Here it is the code nearest to w + v, |v| at most half a level, under
 * the scale times f; v and f follow the sign of the loss's gradient, with rounding taken for the identity, in steps
 * that shrink to nothing. The loss is the layer's quadratic form, so that a step is one product with H and needs no
 * tokens. Coordinate descent then takes what single codes still gain.
 *
 * Source: arXiv:2309.05516; algorithms, section 10.2. Ours differs: the paper's loss is the output of a decoder
 * layer on tokens; there the best step of all rows is kept, here each row keeps its own; a row that one pass of
 * error-compensated rounding serves better takes that. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "quant/solvers.h"
#include "quant/solving.h"

enum { STEPS = 200, FINAL_SWEEPS = 3 };

static const float LEAST_FACTOR = 0.5f, MOST_FACTOR = 1.25f;

struct learn {
    struct nb_solving *r; /* r->trial: what is tried; r->best: the best of each row */
    float *fitted;        /* [n_groups, padded] scales that the factors multiply */
    float *factor;        /* the same shape */
    float *offset;        /* [padded, K] v, in levels */
    uint8_t *start;       /* [padded, K] codes of plain rounding: how wide a level is there */
    float *gradient;      /* [padded, K] error H */
    float gap[256];       /* distance of a code's neighbours */
    float rate;
};

/* The part of row r in group g. */
struct stretch {
    int64_t plane, at, n;
};

static struct stretch stretch_of(const struct nb_problem *p, int64_t r, int64_t g)
{
    return (struct stretch){g * p->padded + r, r * p->cols + g * p->group,
                            nb_problem_group_cols(p, g)};
}

/* Codes of the offset weights under the scales in force. */
static void round_stretch(const struct learn *l, struct stretch s)
{
    const struct nb_problem *p = &l->r->p;
    struct nb_solution *now = &l->r->trial;
    if (!nb_scales_are_shared(p))
        now->scale[s.plane] = nb_scale_store(p, l->fitted[s.plane] * l->factor[s.plane]);
    const struct nb_group_params params = {now->scale[s.plane], now->zero[s.plane]};
    for (int64_t j0 = s.at; j0 < s.at + s.n; j0 += NB_PASS_BLOCK) {
        float target[NB_PASS_BLOCK];
        const int64_t n = s.at + s.n - j0 < NB_PASS_BLOCK ? s.at + s.n - j0 : NB_PASS_BLOCK;
        for (int64_t j = 0; j < n; j++) {
            const float level = l->gap[l->start[j0 + j]] * params.scale;
            target[j] = p->w[j0 + j] + l->offset[j0 + j] * level;
        }
        p->numeric->round_group(&p->spec, target, n, &params, now->code + j0, NULL);
    }
}

static void round_tile(void *ctx, size_t piece, int thread)
{
    const struct learn *l = ctx;
    (void)thread;
    for (int64_t r = (int64_t)piece * NB_TILE; r < ((int64_t)piece + 1) * NB_TILE; r++) {
        for (int64_t g = 0; g < l->r->p.n_groups; g++) round_stretch(l, stretch_of(&l->r->p, r, g));
    }
}

static float sign_of(float x)
{
    return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f;
}

/* One step against the gradient; returns the stretch's part of the loss before it. With G = (w - q) H the loss falls
 * when q moves along G. Rounding taken for the identity, q moves with v by a level, and with f by q - w, or by q where
 * w lies outside the grid. */
static double step_stretch(const struct learn *l, struct stretch s)
{
    const struct nb_problem *p = &l->r->p;
    const struct nb_solution *now = &l->r->trial;
    const float scale = now->scale[s.plane], zero = now->zero[s.plane], side = sign_of(scale);
    double along = 0, loss = 0;
    for (int64_t i = s.at; i < s.at + s.n; i++) {
        const float q = scale * (p->levels.value[now->code[i]] - zero);
        const float miss = q - p->w[i], slope = l->gradient[i];
        const float level = fabsf(l->gap[l->start[i]] * scale);
        loss -= (double)miss * slope;
        along += (double)slope * (fabsf(miss) > 1.5f * level ? q : miss);
        const float v = l->offset[i] + l->rate * sign_of(slope) * side;
        l->offset[i] = v > 0.5f ? 0.5f : v < -0.5f ? -0.5f : v;
    }
    const float f = l->factor[s.plane] + l->rate * sign_of((float)along);
    l->factor[s.plane] = f < LEAST_FACTOR ? LEAST_FACTOR : f > MOST_FACTOR ? MOST_FACTOR : f;
    return loss;
}

static void step_tile(void *ctx, size_t piece, int thread)
{
    const struct learn *l = ctx;
    (void)thread;
    for (int64_t r = (int64_t)piece * NB_TILE; r < ((int64_t)piece + 1) * NB_TILE; r++) {
        double loss = 0;
        for (int64_t g = 0; g < l->r->p.n_groups; g++)
            loss += step_stretch(l, stretch_of(&l->r->p, r, g));
        l->r->trial.loss[r] = loss;
    }
}

/* What half a step up and half a step down span, for each code. */
static void measure_gaps(struct learn *l)
{
    const struct nb_levels *levels = &l->r->p.levels;
    for (int c = 0; c < 256; c++) {
        const int above = levels->above[c] >= 0 ? levels->above[c] : c;
        const int below = levels->below[c] >= 0 ? levels->below[c] : c;
        const float span = levels->value[above] - levels->value[below];
        l->gap[c] = above != c && below != c ? span * 0.5f : span;
    }
}

static int learn_init(struct learn *l, struct nb_arena *arena, struct nb_err *err)
{
    const struct nb_problem *p = &l->r->p;
    const size_t n = (size_t)p->padded * (size_t)p->cols,
                 planes = (size_t)p->n_groups * (size_t)p->padded;
    l->fitted = nb_arena_alloc(arena, planes, sizeof *l->fitted);
    l->factor = nb_arena_alloc(arena, planes, sizeof *l->factor);
    l->offset = nb_arena_calloc(arena, n, sizeof *l->offset);
    l->gradient = nb_arena_alloc(arena, n, sizeof *l->gradient);
    l->start = nb_arena_alloc(arena, n, 1);
    if (arena->failed)
        return nb_fail(err, NB_E_NOMEM,
                       "no memory to learn the rounding of a matrix of %" PRId64 " x %" PRId64,
                       p->rows, p->cols);
    for (size_t i = 0; i < planes; i++) l->factor[i] = 1.0f;
    memcpy(l->fitted, l->r->best.scale, planes * sizeof *l->fitted);
    memcpy(l->start, l->r->best.code, n);
    nb_solving_copy_scales(l->r, &l->r->trial, &l->r->best);
    measure_gaps(l);
    return 0;
}

/* From the plain rounding in best to the best of STEPS steps. */
static int learn_rounding(struct nb_solving *r, struct nb_err *err)
{
    struct nb_pool *pool = nb_backend_pool(r->be);
    const size_t tiles = (size_t)nb_problem_tiles(&r->p);
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct learn l = {.r = r};
    int rc = learn_init(&l, &arena, err);
    for (int t = 0; !rc && t < STEPS; t++) {
        l.rate = (1.0f - (float)t / STEPS) / STEPS;
        nb_pool_run(pool, tiles, round_tile, &l);
        rc = nb_solution_image(&r->p, &r->trial, l.gradient, err);
        if (rc) break;
        nb_pool_run(pool, tiles, step_tile, &l);
        nb_solution_keep_best(&r->p, &r->best, &r->trial);
    }
    nb_arena_release(&arena);
    return rc;
}

static int round_plainly(struct nb_solving *r, struct nb_err *err)
{
    nb_problem_reset_importance(&r->p);
    nb_solving_scales(r, &r->best);
    return nb_round_nearest(&r->p, &r->best, err);
}

static int solve(struct nb_qmat *out, const struct nb_solve_job *job, struct nb_arena *arena,
                 struct nb_solve_report *report, struct nb_err *err)
{
    struct nb_solve_report unused;
    if (!report) report = &unused;
    if (!nb_solving_has_tokens(job)) return nb_solver_rtn.solve(out, job, arena, report, err);
    struct nb_solving r;
    const enum nb_act_order order =
        job->opts->order == NB_ORDER_AUTO ? NB_ORDER_PIVOTED : job->opts->order;
    int rc = nb_solving_init(&r, job, order, err);
    if (rc == NB_E_NUMERIC) {
        nb_solving_release(&r);
        return nb_solver_rtn.solve(out, job, arena, report, err);
    }
    const bool many_tokens = job->stats->n_tokens >= 3 * job->w->cols;
    const enum nb_descent what = job->opts->refit ? NB_DESCENT_BOTH : NB_DESCENT_CODES;
    if (!rc) rc = round_plainly(&r, err);
    if (!rc) rc = learn_rounding(&r, err);
    if (!rc && many_tokens) rc = nb_descend(&r.p, &r.best, FINAL_SWEEPS, what, err);
    if (!rc) rc = nb_solving_pass(&r, r.f, order, &r.trial, err);
    if (!rc && many_tokens) rc = nb_descend(&r.p, &r.trial, FINAL_SWEEPS, what, err);
    if (!rc) nb_solution_keep_best(&r.p, &r.best, &r.trial);
    *report = (struct nb_solve_report){.order = order};
    if (!rc) rc = nb_solving_finish(&r, out, arena, report, err);
    nb_solving_release(&r);
    return rc;
}

const struct nb_solver nb_solver_signround = {
    .name = "signround",
    .summary =
        "rounding offsets and scales learned by signed gradients on the layer's output error",
    .needs_hessian = true,
    .supports = nb_solving_supports,
    .solve = solve,
};
