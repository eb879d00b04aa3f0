/* SPDX-License-Identifier: Apache-2.0
 *
 * blocks_fit.c - first choice of both levels of scales: each sub-block for itself by a ladder of scales with
 * the least-squares scale and min of its codes, then d and dmin so that all sub-blocks of a super-block keep
 * as much of that as they can. The search judges a sub-block by sum u * error^2, where u is what later columns
 * cannot repair.
 *
 * Sixteen rows go side by side. Source: the procedure of the reference (GGUF specification, 5.3 and 5.5);
 * ours differs: more scales, shifted ranges, re-rounding under the fitted scale, both signs of a scale, and
 * d judged by the curvature of the fits. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "quant/blocks.h"

enum { RUNGS = 14, SHIFTS = 3, REROUNDS = 2, SUPER_RUNGS = 40, SUPER_SWEEPS = 3 };

struct line { /* one sub-block of 16 rows */
    const struct nb_block_grid *grid;
    const float *x; /* [n, NB_TILE] */
    const float *u; /* [n] */
    int n;
    float weight; /* sum u */
    float ux[NB_TILE], uxx[NB_TILE];
};

struct fit { /* of the best so far; value = scale * level - min */
    float scale[NB_TILE], min[NB_TILE], error[NB_TILE];
    float l[NB_TILE], ll[NB_TILE], lx[NB_TILE]; /* sum u level, u level^2, u level x */
};

static void gather(const struct line *line, const float *inverse, const float *shift,
                   struct fit *out)
{
    memset(out->l, 0, sizeof out->l);
    memset(out->ll, 0, sizeof out->ll);
    memset(out->lx, 0, sizeof out->lx);
    for (int i = 0; i < line->n; i++) {
        const float *x = line->x + i * NB_TILE, u = line->u[i];
        float at[NB_TILE], level[NB_TILE];
        for (int k = 0; k < NB_TILE; k++) at[k] = (x[k] + shift[k]) * inverse[k];
        nb_block_levels(line->grid, at, level);
        for (int k = 0; k < NB_TILE; k++) {
            const float ul = u * level[k];
            out->l[k] += ul;
            out->ll[k] += ul * level[k];
            out->lx[k] += ul * x[k];
        }
    }
}

/* Least squares for the levels gathered, and the error that leaves. */
static void solve(const struct line *line, struct fit *f)
{
    const bool has_min = line->grid->min_hi > 0, any_sign = has_min && line->grid->subs == 1;
    const float w = line->weight;
    for (int k = 0; k < NB_TILE; k++) {
        float scale = f->ll[k] > 0.0f ? f->lx[k] / f->ll[k] : 0.0f, min = 0.0f;
        if (has_min) {
            const float det = w * f->ll[k] - f->l[k] * f->l[k];
            if (det > 1e-6f * w * f->ll[k]) {
                const float s = (w * f->lx[k] - line->ux[k] * f->l[k]) / det;
                const float m = (f->l[k] * f->lx[k] - f->ll[k] * line->ux[k]) / det;
                const bool usable = (m >= 0.0f || any_sign) && s > 0.0f;
                scale = usable ? s : scale;
                min = usable ? m : 0.0f;
            } else if (line->ux[k] < 0.0f || any_sign) {
                scale = 0.0f;
                min = -line->ux[k] / w;
            }
        }
        f->scale[k] = scale;
        f->min[k] = min;
        f->error[k] = line->uxx[k] - 2.0f * scale * f->lx[k] + 2.0f * min * line->ux[k] +
                      scale * scale * f->ll[k] - 2.0f * scale * min * f->l[k] + min * min * w;
    }
}

static void keep_better(struct fit *best, const struct fit *f)
{
    for (int k = 0; k < NB_TILE; k++) {
        const bool better = f->error[k] < best->error[k];
        best->scale[k] = better ? f->scale[k] : best->scale[k];
        best->min[k] = better ? f->min[k] : best->min[k];
        best->l[k] = better ? f->l[k] : best->l[k];
        best->ll[k] = better ? f->ll[k] : best->ll[k];
        best->lx[k] = better ? f->lx[k] : best->lx[k];
        best->error[k] = better ? f->error[k] : best->error[k];
    }
}

static void try_scales(const struct line *line, const float *inverse, const float *shift,
                       struct fit *best)
{
    struct fit f;
    gather(line, inverse, shift, &f);
    solve(line, &f);
    keep_better(best, &f);
}

/* Levels from 0 up and a min: ranges cut at the top by the ladder, at the bottom by the shifts. */
static void ladder_with_min(const struct line *line, struct fit *best)
{
    const bool any_sign = line->grid->subs == 1;
    const float top = line->grid->hi;
    float lo[NB_TILE], hi[NB_TILE];
    for (int k = 0; k < NB_TILE; k++) {
        lo[k] = any_sign ? line->x[k] : 0.0f;
        hi[k] = line->x[k];
    }
    for (int i = 0; i < line->n; i++) {
        const float *x = line->x + i * NB_TILE;
        for (int k = 0; k < NB_TILE; k++) {
            lo[k] = x[k] < lo[k] ? x[k] : lo[k];
            hi[k] = x[k] > hi[k] ? x[k] : hi[k];
        }
    }
    for (int t = 0; t < SHIFTS; t++) {
        const float cut = 0.3f * (float)t / top;
        for (int r = 0; r < RUNGS; r++) {
            const float stretch = 1.0f + (-0.6f + 0.35f * (float)r) / top;
            float inverse[NB_TILE], shift[NB_TILE];
            for (int k = 0; k < NB_TILE; k++) {
                const float span = hi[k] - lo[k];
                inverse[k] = span > 0.0f ? stretch * top / span : 0.0f;
                shift[k] = -(lo[k] + cut * span);
            }
            try_scales(line, inverse, shift, best);
        }
    }
}

/* Levels around 0: the largest magnitude near the lowest level, with either sign of the scale. */
static void ladder_around_zero(const struct line *line, struct fit *best)
{
    const float low = line->grid->table ? -line->grid->table[0] : -line->grid->lo;
    const float levels = line->grid->table ? 8.0f : low;
    float most[NB_TILE] = {0}, shift[NB_TILE] = {0};
    for (int i = 0; i < line->n; i++) {
        const float *x = line->x + i * NB_TILE;
        for (int k = 0; k < NB_TILE; k++) most[k] = fabsf(x[k]) > most[k] ? fabsf(x[k]) : most[k];
    }
    for (int side = -1; side <= 1; side += 2) {
        for (int r = 0; r < RUNGS; r++) {
            const float stretch = (float)side * (1.0f + (-0.6f + 0.22f * (float)r) / levels);
            float inverse[NB_TILE];
            for (int k = 0; k < NB_TILE; k++)
                inverse[k] = most[k] > 0.0f ? stretch * low / most[k] : 0.0f;
            try_scales(line, inverse, shift, best);
        }
    }
}

static void fit_line(struct line *line, struct fit *best)
{
    memset(line->ux, 0, sizeof line->ux);
    memset(line->uxx, 0, sizeof line->uxx);
    line->weight = 0.0f;
    for (int i = 0; i < line->n; i++) {
        const float *x = line->x + i * NB_TILE, u = line->u[i];
        line->weight += u;
        for (int k = 0; k < NB_TILE; k++) {
            line->ux[k] += u * x[k];
            line->uxx[k] += u * x[k] * x[k];
        }
    }
    for (int k = 0; k < NB_TILE; k++) best->error[k] = FLT_MAX;
    if (line->grid->min_hi) ladder_with_min(line, best);
    else ladder_around_zero(line, best);
    for (int i = 0; i < REROUNDS; i++) {
        float inverse[NB_TILE], shift[NB_TILE];
        for (int k = 0; k < NB_TILE; k++) {
            inverse[k] = best->scale[k] != 0.0f ? 1.0f / best->scale[k] : 0.0f;
            shift[k] = best->min[k];
        }
        try_scales(line, inverse, shift, best);
    }
}

/* ---- the second level ---- */

struct line_of_scales { /* to be written as d * code, code in [lo, hi] */
    int n;
    float lo, hi;
    const float *x, *u;
};

static float code_of(const struct line_of_scales *s, float inverse, int i)
{
    float code = rintf(s->x[i] * inverse);
    return code < s->lo ? s->lo : code > s->hi ? s->hi : code;
}

/* Sum u (x - d code)^2; *d becomes the least-squares d of these codes when that is asked for. */
static float judge(const struct line_of_scales *s, float d, float *refit)
{
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    float error = 0.0f, top = 0.0f, bottom = 0.0f;
    for (int i = 0; i < s->n; i++) {
        const float code = code_of(s, inverse, i), left = s->x[i] - d * code;
        error += s->u[i] * left * left;
        top += s->u[i] * s->x[i] * code;
        bottom += s->u[i] * code * code;
    }
    if (refit) *refit = bottom > 0.0f ? top / bottom : d;
    return error;
}

static float best_super(const struct line_of_scales *s)
{
    float most = 0.0f;
    for (int i = 0; i < s->n; i++) most = fabsf(s->x[i]) > fabsf(most) ? s->x[i] : most;
    const float end = s->lo < 0.0f ? s->lo : s->hi;
    float best = nb_block_store(most / end), least = judge(s, best, NULL);
    for (int side = 0; side < (s->lo < 0.0f ? 2 : 1); side++) {
        for (int r = 0; r < SUPER_RUNGS; r++) {
            /* From one and a half codes above the end to a third below it. */
            const float at =
                end * (1.0f - 0.33f * (float)r / (float)SUPER_RUNGS) + 1.5f * copysignf(1.0f, end);
            float d = nb_block_store(side ? -most / at : most / at);
            for (int i = 0; i < SUPER_SWEEPS; i++) {
                float next;
                const float error = judge(s, d, &next);
                if (error < least) {
                    least = error;
                    best = d;
                }
                d = nb_block_store(next);
            }
        }
    }
    return best;
}

struct super_fit {
    const struct nb_block_problem *b;
    struct nb_block_solution *s;
    int64_t super, r0;
    struct fit fits[NB_MOST_SUBS];
    float weight[NB_MOST_SUBS]; /* sum u */
    float ux[NB_MOST_SUBS][NB_TILE];
};

/* Scales first; then each sub-block's best min under the scale it got. */
static void settle_lane(struct super_fit *f, int k)
{
    const struct nb_block_grid *g = f->b->grid;
    const int64_t padded = f->b->p.padded, row = f->r0 + k;
    float x[NB_MOST_SUBS], u[NB_MOST_SUBS];
    for (int j = 0; j < g->subs; j++) {
        x[j] = f->fits[j].scale[k];
        u[j] = f->fits[j].ll[k];
    }
    struct line_of_scales s = {g->subs, (float)g->scale_lo, (float)g->scale_hi, x, u};
    const float d = g->subs == 1 ? nb_block_store(x[0]) : best_super(&s);
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    f->s->d[f->super * padded + row] = d;
    for (int j = 0; j < g->subs; j++) {
        const float code = g->subs == 1 ? 1.0f : code_of(&s, inverse, j);
        f->s->scale[(f->super * g->subs + j) * padded + row] = (int16_t)code;
        const float scale = d * code;
        x[j] = (scale * f->fits[j].l[k] - f->ux[j][k]) / f->weight[j];
        u[j] = f->weight[j];
        if (g->subs > 1 && x[j] < 0.0f) x[j] = 0.0f;
    }
    s.lo = 0.0f;
    s.hi = (float)g->min_hi;
    float dmin = 0.0f;
    if (g->min_hi) dmin = g->subs == 1 ? nb_block_store(x[0]) : best_super(&s);
    f->s->dmin[f->super * padded + row] = dmin;
    for (int j = 0; j < g->subs; j++) {
        const float code =
            g->subs == 1 ? (float)g->min_hi : code_of(&s, dmin != 0.0f ? 1.0f / dmin : 0.0f, j);
        f->s->min[(f->super * g->subs + j) * padded + row] = (int16_t)(g->min_hi ? code : 0.0f);
    }
}

static void fit_super(struct super_fit *f)
{
    const struct nb_block_grid *g = f->b->grid;
    const struct nb_problem *p = &f->b->p;
    for (int j = 0; j < g->subs; j++) {
        float x[NB_MOST_SUB_COLS * NB_TILE];
        const int64_t j0 = (f->super * g->subs + j) * g->sub;
        for (int k = 0; k < NB_TILE; k++) {
            for (int i = 0; i < g->sub; i++)
                x[i * NB_TILE + k] = p->w[(f->r0 + k) * p->cols + j0 + i];
        }
        struct line line = {.grid = g, .x = x, .u = p->u + j0, .n = g->sub};
        fit_line(&line, &f->fits[j]);
        f->weight[j] = line.weight;
        memcpy(f->ux[j], line.ux, sizeof line.ux);
    }
    for (int k = 0; k < NB_TILE; k++) settle_lane(f, k);
    nb_block_solution_expand(f->b, f->s, f->super, f->r0);
}

struct fit_job {
    const struct nb_block_problem *b;
    struct nb_block_solution *s;
};

static void fit_tile(void *ctx, size_t piece, int thread)
{
    (void)thread;
    const struct fit_job *job = ctx;
    struct super_fit f = {.b = job->b, .s = job->s, .r0 = (int64_t)piece * NB_TILE};
    for (f.super = 0; f.super < job->b->n_supers; f.super++) fit_super(&f);
}

void nb_block_fit(const struct nb_block_problem *b, struct nb_block_solution *s)
{
    struct fit_job job = {b, s};
    nb_pool_run(nb_backend_pool(b->p.be), (size_t)nb_problem_tiles(&b->p), fit_tile, &job);
}
