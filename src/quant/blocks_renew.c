/* SPDX-License-Identifier: Apache-2.0
 *
 * blocks_renew.c - a sub-block rounded anew under neighbouring scales, the rest of the row fixed.
 *
 * The sequential form of the sub-block's own part of H: with H_bb = M M^T, moving its values by -x changes the
 * loss by |M^T x + y|^2 - |y|^2, y = M^-1 G. Each value is rounded at the target that makes its own term least.
 * That costs so little that every neighbouring pair of scale and min can be tried with levels of its own. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "quant/blocks_tile.h"

enum { LINE = NB_MOST_SUB_COLS * NB_TILE };

struct renewal {
    const int32_t *at; /* position to column in the sub-block */
    const float *factor, *diag;
    float start[LINE]; /* targets while nothing in the sub-block has moved, by position */
    float level[LINE], best_level[LINE];
    float cost[NB_TILE], scale[NB_TILE], min[NB_TILE], scale_code[NB_TILE],
        min_code[NB_TILE]; /* of the best */
};

static void find_targets(const struct nb_block_descent *d, const struct nb_block_tile *t, int sub,
                         struct renewal *w)
{
    const int n = d->b->grid->sub;
    float image[LINE]; /* M_ii y_i */
    memset(w->cost, 0, sizeof w->cost);
    for (int i = 0; i < n; i++) {
        const int64_t column = sub * n + w->at[i];
        const float *row = w->factor + (ptrdiff_t)i * n, by = 1.0f / (w->diag[i] * w->diag[i]);
        float *sum = image + i * NB_TILE;
        memcpy(sum, t->grad + column * NB_TILE, NB_TILE * sizeof *sum);
        for (int j = 0; j < i; j++) {
            for (int k = 0; k < NB_TILE; k++) sum[k] -= row[j] * image[j * NB_TILE + k];
        }
        for (int k = 0; k < NB_TILE; k++) {
            w->cost[k] += sum[k] * sum[k] * by;
            w->start[i * NB_TILE + k] = t->value[column * NB_TILE + k] + sum[k] * by;
        }
    }
    for (int k = 0; k < NB_TILE; k++) w->cost[k] *= 1.0f - 1e-5f; /* what must be beaten */
}

struct candidate {
    float scale[NB_TILE], min[NB_TILE], scale_code[NB_TILE], min_code[NB_TILE];
};

/* Rounds the sub-block under scale and min; cost is what remains of |M^T x + y|^2. */
static void round_sub(const struct nb_block_descent *d, const struct nb_block_tile *t, int sub,
                      struct renewal *w, const struct candidate *c, float *cost)
{
    const struct nb_block_grid *g = d->b->grid;
    const int n = g->sub;
    const float *scale = c->scale, *min = c->min;
    float target[LINE], inverse[NB_TILE];
    memcpy(target, w->start, (size_t)n * NB_TILE * sizeof *target);
    for (int k = 0; k < NB_TILE; k++) {
        inverse[k] = scale[k] != 0.0f ? 1.0f / scale[k] : 0.0f;
        cost[k] = 0.0f;
    }
    for (int i = n - 1; i >= 0; i--) {
        const float *row = w->factor + (ptrdiff_t)i * n, pivot = w->diag[i] * w->diag[i];
        const float *old = t->value + (ptrdiff_t)(sub * n + w->at[i]) * NB_TILE;
        float *level = w->level + i * NB_TILE;
        float x[NB_TILE], move[NB_TILE];
        for (int k = 0; k < NB_TILE; k++) x[k] = (target[i * NB_TILE + k] + min[k]) * inverse[k];
        nb_block_levels(g, x, level);
        for (int k = 0; k < NB_TILE; k++) {
            const float value = scale[k] * level[k] - min[k];
            const float left = target[i * NB_TILE + k] - value;
            cost[k] += pivot * left * left;
            move[k] = old[k] - value;
        }
        for (int j = 0; j < i; j++) {
            const float share = row[j];
            for (int k = 0; k < NB_TILE; k++) target[j * NB_TILE + k] += share * move[k];
        }
    }
}

/* The scale moved by `by` steps, the min so that the sub-block's mean stays, then by `min_by` steps. A step is
 * the stored unit or about 2 %, whichever is more. */
static void propose(const struct nb_block_descent *d, const struct nb_block_tile *t, int sub,
                    const int by[2], struct candidate *c)
{
    const struct nb_block_grid *g = d->b->grid;
    float mean[NB_TILE] = {0};
    for (int i = sub * g->sub; i < (sub + 1) * g->sub; i++) {
        for (int k = 0; k < NB_TILE; k++) mean[k] += t->level[i * NB_TILE + k] / (float)g->sub;
    }
    for (int k = 0; k < NB_TILE; k++) {
        const float s = t->scale[sub][k], m = t->min[sub][k];
        const float sc = t->refit.scale[sub * NB_TILE + k], mn = t->refit.min[sub * NB_TILE + k];
        c->scale_code[k] = sc;
        c->min_code[k] = mn;
        if (g->subs == 1) {
            c->scale[k] = by[0] ? nb_block_store(s * (1.0f + 0.02f * (float)by[0])) : s;
            if (c->scale[k] == 0.0f) c->scale[k] = s;
            c->min[k] = m + (c->scale[k] - s) * mean[k] + 0.2f * (float)by[1] * s;
            c->min[k] = g->min_hi ? nb_block_store(by[0] || by[1] ? c->min[k] : m) : 0.0f;
            continue;
        }
        const float unit = nb_block_whole(0.02f * fabsf(sc), 1.0f, 127.0f);
        const float dmin = t->refit.dmin[k];
        c->scale_code[k] =
            nb_block_whole(sc + unit * (float)by[0], (float)g->scale_lo, (float)g->scale_hi);
        c->scale[k] = t->refit.d[k] * c->scale_code[k];
        if (g->min_hi && dmin != 0.0f && (by[0] || by[1])) {
            const float min = m + (c->scale[k] - s) * mean[k];
            c->min_code[k] = nb_block_whole(min / dmin + (float)by[1], 0.0f, (float)g->min_hi);
        }
        c->min[k] = g->min_hi ? dmin * c->min_code[k] : 0.0f;
    }
}

static void keep_better(struct renewal *w, const struct candidate *c, const float *cost, int n)
{
    float better[NB_TILE];
    bool any = false;
    for (int k = 0; k < NB_TILE; k++) {
        better[k] = cost[k] < w->cost[k] ? 1.0f : 0.0f;
        any |= better[k] > 0.0f;
    }
    if (!any) return;
    for (int k = 0; k < NB_TILE; k++) {
        const bool it = better[k] > 0.0f;
        w->cost[k] = it ? cost[k] : w->cost[k];
        w->scale[k] = it ? c->scale[k] : w->scale[k];
        w->min[k] = it ? c->min[k] : w->min[k];
        w->scale_code[k] = it ? c->scale_code[k] : w->scale_code[k];
        w->min_code[k] = it ? c->min_code[k] : w->min_code[k];
    }
    for (int i = 0; i < n * NB_TILE; i += NB_TILE) {
        for (int k = 0; k < NB_TILE; k++)
            w->best_level[i + k] = better[k] > 0.0f ? w->level[i + k] : w->best_level[i + k];
    }
}

/* Steps of scale and min. */
static const int steps_of_both[][2] = {{0, 0}, {1, 0},  {-1, 0}, {2, 0},   {-2, 0}, {3, 0}, {-3, 0},
                                       {0, 1}, {0, -1}, {1, 1},  {-1, -1}, {1, -1}, {-1, 1}};
static const int steps_of_scale[][2] = {{0, 0}, {1, 0},  {-1, 0}, {2, 0}, {-2, 0},
                                        {3, 0}, {-3, 0}, {4, 0},  {-4, 0}};

bool nb_block_renew(const struct nb_block_descent *d, struct nb_block_tile *t, int sub)
{
    const struct nb_block_grid *g = d->b->grid;
    const int n = g->sub;
    const int64_t j0 = d->c0 + sub * n;
    struct renewal w = {.at = d->at + j0, .factor = d->factor + j0 * n, .diag = d->diag + j0};
    memcpy(w.scale, t->scale[sub], sizeof w.scale);
    memcpy(w.min, t->min[sub], sizeof w.min);
    memcpy(w.scale_code, t->refit.scale + sub * NB_TILE, sizeof w.scale_code);
    memcpy(w.min_code, t->refit.min + sub * NB_TILE, sizeof w.min_code);
    for (int i = 0; i < n; i++) {
        memcpy(w.best_level + i * NB_TILE, t->level + (sub * n + w.at[i]) * NB_TILE,
               NB_TILE * sizeof(float));
    }
    find_targets(d, t, sub, &w);
    const int(*steps)[2] = g->min_hi ? steps_of_both : steps_of_scale;
    const size_t count = g->min_hi ? sizeof steps_of_both / sizeof *steps_of_both
                                   : sizeof steps_of_scale / sizeof *steps_of_scale;
    for (size_t i = 0; i < count; i++) {
        struct candidate c;
        float cost[NB_TILE];
        propose(d, t, sub, steps[i], &c);
        round_sub(d, t, sub, &w, &c, cost);
        keep_better(&w, &c, cost, n);
    }
    memcpy(t->scale[sub], w.scale, sizeof w.scale);
    memcpy(t->min[sub], w.min, sizeof w.min);
    memcpy(t->refit.scale + sub * NB_TILE, w.scale_code, sizeof w.scale_code);
    memcpy(t->refit.min + sub * NB_TILE, w.min_code, sizeof w.min_code);
    if (g->subs == 1) {
        memcpy(t->refit.d + sub * NB_TILE, w.scale, sizeof w.scale);
        memcpy(t->refit.dmin + sub * NB_TILE, w.min, sizeof w.min);
    }
    bool changed = false;
    for (int i = 0; i < n; i++) {
        float value[NB_TILE];
        const float *level = w.best_level + i * NB_TILE;
        for (int k = 0; k < NB_TILE; k++) value[k] = w.scale[k] * level[k] - w.min[k];
        changed |= nb_block_put(d, t, sub * n + w.at[i], level, value);
    }
    return changed;
}

/* H_bb of every sub-block, its columns in pivoted order. */
int nb_block_factor_subs(struct nb_block_descent *d, struct nb_err *err)
{
    const struct nb_problem *p = &d->b->p;
    const int n = d->b->grid->sub;
    double m[NB_MOST_SUB_COLS * NB_MOST_SUB_COLS];
    for (int64_t j0 = 0; j0 < p->cols; j0 += n) {
        const float *h = p->h + j0 * p->cols + j0;
        int32_t *at = d->at + j0;
        int rc = nb_order_pivoted(at, h, p->cols, n, p->be, err);
        if (rc) return rc;
        for (int i = 0; i < n; i++) {
            for (int j = 0; j <= i; j++) m[i * n + j] = h[at[i] * p->cols + at[j]];
        }
        if (nb_cholesky_f64(m, n, n))
            return nb_fail(err, NB_E_NUMERIC,
                           "columns %" PRId64 " to %" PRId64 " of the Hessian are not positive", j0,
                           j0 + n - 1);
        for (int i = 0; i < n; i++) {
            d->diag[j0 + i] = (float)m[i * n + i];
            for (int j = 0; j < i; j++)
                d->factor[(j0 + i) * n + j] = (float)(m[i * n + j] / m[j * n + j]);
        }
    }
    return 0;
}
