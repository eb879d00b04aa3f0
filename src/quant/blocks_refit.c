/* SPDX-License-Identifier: Apache-2.0
 *
 * blocks_refit.c - scales and mins of a super-block while its levels stand.
 *
 * With levels fixed the loss is a parabola in the parameters: moving them by x changes it by x A x - 2 x g.
 * Each step goes to the lowest stored value along one parameter (a sub-block's scale together with its min;
 * d; dmin) and is taken only when the loss falls. Sixteen rows side by side; a row that has nothing to gain
 * stays as it is. Source: algorithms, sections 9 and 10.3; here on the codes that a block stores. */
#include <math.h>
#include <string.h>

#include "quant/blocks.h"

enum { MOST_DIMS = 2 * NB_MOST_SUBS };

/* A step must gain this share of what it would cost on flat ground, or rounding errors let parameters go to
 * and fro for ever. */
#define WORTH 0.01f

size_t nb_block_refit_floats(void)
{
    return (size_t)NB_TILE * (MOST_DIMS * MOST_DIMS + 2 * MOST_DIMS + 4 * NB_MOST_SUBS);
}

void nb_block_refit_place(struct nb_block_refit *r, float *memory)
{
    r->a = memory;
    r->g = r->a + (size_t)MOST_DIMS * MOST_DIMS * NB_TILE;
    r->value = r->g + MOST_DIMS * NB_TILE;
    r->scale = r->value + MOST_DIMS * NB_TILE;
    r->min = r->scale + NB_MOST_SUBS * NB_TILE;
    r->d = r->min + NB_MOST_SUBS * NB_TILE;
    r->dmin = r->d + NB_MOST_SUBS * NB_TILE;
}

static inline const float *curvature(const struct nb_block_refit *r, int i, int j)
{
    return r->a + ((size_t)i * (size_t)r->dims + (size_t)j) * NB_TILE;
}

/* g after parameter i moved by step. */
static void follow(struct nb_block_refit *r, int i, const float *step)
{
    for (int j = 0; j < r->dims; j++) {
        const float *a = curvature(r, i, j);
        float *g = r->g + j * NB_TILE;
        for (int k = 0; k < NB_TILE; k++) g[k] -= step[k] * a[k];
    }
}

struct pair {                           /* of sub-block j: what its parameters could become */
    float scale[NB_TILE], min[NB_TILE]; /* codes, or stored values of a single level */
    float scale_step[NB_TILE], min_step[NB_TILE]; /* in weight units */
    float gain[NB_TILE];                          /* how far the loss falls; 0: stay */
};

struct terms {
    const float *gs, *gm, *ss, *sm, *mm;
};

static struct terms terms_of(const struct nb_block_refit *r, int j)
{
    const int m = r->dims > r->subs ? r->subs + j : j;
    return (struct terms){r->g + j * NB_TILE, r->g + m * NB_TILE, curvature(r, j, j),
                          curvature(r, j, m), curvature(r, m, m)};
}

static inline bool offer(struct pair *best, const struct terms *t, int k, float ds, float dm,
                         bool has_min)
{
    float slope = ds * t->gs[k], bend = ds * ds * t->ss[k];
    if (has_min) {
        slope += dm * t->gm[k];
        bend += dm * (2.0f * ds * t->sm[k] + dm * t->mm[k]);
    }
    const float gain = 2.0f * slope - bend;
    if (!(gain > best->gain[k] * 1.00001f) || !(gain > WORTH * bend)) return false;
    best->gain[k] = gain;
    best->scale_step[k] = ds;
    best->min_step[k] = dm;
    return true;
}

/* Where scale and min together would go without a grid: the step of the scale. */
static inline float free_step(const struct terms *t, int k, bool has_min)
{
    if (has_min) {
        const float det = t->ss[k] * t->mm[k] - t->sm[k] * t->sm[k];
        if (det > 1e-5f * t->ss[k] * t->mm[k])
            return (t->gs[k] * t->mm[k] - t->gm[k] * t->sm[k]) / det;
    }
    return t->ss[k] > 0.0f ? t->gs[k] / t->ss[k] : 0.0f;
}

static inline float min_step(const struct terms *t, int k, float ds)
{
    return t->mm[k] > 0.0f ? (t->gm[k] - ds * t->sm[k]) / t->mm[k] : 0.0f;
}

static void find_pair(const struct nb_block_grid *g, const struct nb_block_refit *r, int j,
                      struct pair *best)
{
    const struct terms t = terms_of(r, j);
    const bool has_min = r->dims > r->subs;
    const float *s = r->value + j * NB_TILE, *m = r->value + (r->subs + j) * NB_TILE;
    const float *code = r->scale + j * NB_TILE, *min_code = r->min + j * NB_TILE;
    const float lo = (float)g->scale_lo, hi = (float)g->scale_hi, top = (float)g->min_hi;
    for (int k = 0; k < NB_TILE; k++) {
        const float d = r->d[k], dmin = has_min ? r->dmin[k] : 0.0f;
        best->gain[k] = 0.0f;
        best->scale_step[k] = best->min_step[k] = 0.0f;
        best->scale[k] = code[k];
        best->min[k] = min_code[k];
        if (d == 0.0f) continue;
        const float target = nb_block_whole((s[k] + free_step(&t, k, has_min)) / d, lo, hi);
        for (int c = -1; c <= 2; c++) {
            const float next = c == 2 ? code[k] : nb_block_whole(target + (float)c, lo, hi);
            const float ds = d * next - s[k];
            float next_min = min_code[k], dm = 0.0f;
            if (has_min && dmin != 0.0f) {
                next_min = nb_block_whole((m[k] + min_step(&t, k, ds)) / dmin, 0.0f, top);
                dm = dmin * next_min - m[k];
            }
            if (!offer(best, &t, k, ds, dm, has_min)) continue;
            best->scale[k] = next;
            best->min[k] = next_min;
        }
    }
}

/* Types whose scales are stored as they are. */
static void find_stored(const struct nb_block_refit *r, int j, struct pair *best)
{
    const struct terms t = terms_of(r, j);
    const bool has_min = r->dims > r->subs;
    const float *s = r->value + j * NB_TILE, *m = r->value + (r->subs + j) * NB_TILE;
    for (int k = 0; k < NB_TILE; k++) {
        best->gain[k] = 0.0f;
        best->scale_step[k] = best->min_step[k] = 0.0f;
        best->scale[k] = s[k];
        best->min[k] = has_min ? m[k] : 0.0f;
        float next = nb_block_store(s[k] + free_step(&t, k, has_min));
        if (next == 0.0f) next = s[k];
        const float ds = next - s[k];
        float next_min = has_min ? nb_block_store(m[k] + min_step(&t, k, ds)) : 0.0f;
        if (offer(best, &t, k, ds, has_min ? next_min - m[k] : 0.0f, has_min)) {
            best->scale[k] = next;
            best->min[k] = next_min;
        }
        if (!has_min) continue;
        next_min = nb_block_store(m[k] + min_step(&t, k, 0.0f));
        if (offer(best, &t, k, 0.0f, next_min - m[k], true)) {
            best->scale[k] = s[k];
            best->min[k] = next_min;
        }
    }
}

static bool step_pair(const struct nb_block_grid *g, struct nb_block_refit *r, int j)
{
    struct pair best;
    if (g->subs == 1) find_stored(r, j, &best);
    else find_pair(g, r, j, &best);
    bool moved = false;
    for (int k = 0; k < NB_TILE; k++) moved |= best.gain[k] > 0.0f;
    if (!moved) return false;
    float *s = r->value + j * NB_TILE, *m = r->value + (r->subs + j) * NB_TILE;
    follow(r, j, best.scale_step);
    if (r->dims > r->subs) follow(r, r->subs + j, best.min_step);
    const bool has_min = r->dims > r->subs;
    for (int k = 0; k < NB_TILE; k++) {
        if (g->subs == 1) {
            s[k] = r->d[j * NB_TILE + k] = best.scale[k];
            if (has_min) m[k] = r->dmin[j * NB_TILE + k] = best.min[k];
            continue;
        }
        s[k] = r->d[k] * best.scale[k];
        if (has_min) m[k] = r->dmin[k] * best.min[k];
        r->scale[j * NB_TILE + k] = best.scale[k];
        r->min[j * NB_TILE + k] = best.min[k];
    }
    return true;
}

/* d (first 0) or dmin (first subs) with all its codes standing. */
static bool step_super(struct nb_block_refit *r, int first)
{
    const float *code = first ? r->min : r->scale;
    float *d = first ? r->dmin : r->d;
    float top[NB_TILE] = {0}, bottom[NB_TILE] = {0}, step[NB_TILE];
    for (int i = 0; i < r->subs; i++) {
        const float *ci = code + i * NB_TILE, *g = r->g + (first + i) * NB_TILE;
        for (int k = 0; k < NB_TILE; k++) top[k] += ci[k] * g[k];
        for (int j = 0; j < r->subs; j++) {
            const float *cj = code + j * NB_TILE, *a = curvature(r, first + i, first + j);
            for (int k = 0; k < NB_TILE; k++) bottom[k] += ci[k] * cj[k] * a[k];
        }
    }
    bool moved = false;
    for (int k = 0; k < NB_TILE; k++) {
        float by = bottom[k] > 0.0f ? nb_block_store(d[k] + top[k] / bottom[k]) - d[k] : 0.0f;
        const float bend = by * by * bottom[k];
        if (d[k] + by == 0.0f || !(2.0f * by * top[k] - bend > WORTH * bend)) by = 0.0f;
        step[k] = by;
        moved |= by != 0.0f;
    }
    if (!moved) return false;
    for (int k = 0; k < NB_TILE; k++) d[k] = nb_block_store(d[k] + step[k]);
    for (int i = 0; i < r->subs; i++) {
        const float *ci = code + i * NB_TILE;
        float *value = r->value + (first + i) * NB_TILE;
        float by[NB_TILE];
        for (int k = 0; k < NB_TILE; k++) {
            const float next = d[k] * ci[k];
            by[k] = next - value[k];
            value[k] = next;
        }
        follow(r, first + i, by);
    }
    return true;
}

bool nb_block_refit_run(const struct nb_block_grid *grid, struct nb_block_refit *r, int rounds)
{
    bool ever = false;
    for (int i = 0; i < rounds; i++) {
        bool moved = false;
        for (int j = 0; j < r->subs; j++) moved |= step_pair(grid, r, j);
        if (grid->subs > 1) {
            moved |= step_super(r, 0);
            if (r->dims > r->subs) moved |= step_super(r, r->subs);
        }
        if (!moved) break;
        ever = true;
    }
    return ever;
}
