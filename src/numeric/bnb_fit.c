/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb_fit.c - choose the scale of a group for NF4, FP4 and LLM.int8.
 *
 * none      the largest magnitude, as bitsandbytes does it.
 * others    that magnitude times a ladder of factors, the least sum u * error^2 (u 1 without importance); from the
 *           best few rungs rounding and the least-squares scale in turn. Weights beyond the outermost level saturate,
 *           which a decoder does not notice. Source: algorithms, sections 2.3 and 5. */
#include <float.h>

#include "base/half.h"
#include "numeric/bnb.h"

#define LEAST 1e-30f /* of a scale: what divides by it or multiplies a level with it stays normal */

enum { KEPT = 2, REFITS = 4, RUNGS = 31, FEW_RUNGS = 11 };

struct candidate {
    float scale, err;
};

struct search {
    const struct nb_bnb_level *level;
    enum nb_bnb_kind kind;
    const float *w, *u;
    int64_t n;
    struct candidate best;
};

float nb_bnb_int8_scale(float scale)
{
    const float scb = scale * 127.0f;
    return scb / 127.0f;
}

static float storable(enum nb_bnb_kind kind, float scale)
{
    if (!(scale > LEAST)) scale = LEAST;
    if (scale > 1e36f) scale = 1e36f;
    return kind == NB_BNB_INT8 ? nb_bnb_int8_scale(scale) : scale;
}

static struct candidate try_scale(struct search *f, float scale)
{
    struct candidate c = {.scale = storable(f->kind, scale)};
    c.err = f->level->error[f->kind](f->w, f->u, f->n, nb_bnb_scale_of(c.scale));
    if (c.err < f->best.err) f->best = c;
    return c;
}

/* Rounds and re-fits the scale in turn, as long as the error falls. */
static void refine(struct search *f, struct candidate c)
{
    for (int i = 0; i < REFITS; i++) {
        struct nb_bnb_moments m;
        f->level->moments[f->kind](f->w, f->u, f->n, nb_bnb_scale_of(c.scale), &m);
        const float scale = m.wt / m.tt;
        if (!(m.tt > 0.0f) || !(scale > 0.0f) || !isfinite(scale)) return;
        struct candidate next = try_scale(f, scale);
        if (next.scale == c.scale || !(next.err < c.err)) return;
        c = next;
    }
}

static void keep(struct candidate kept[KEPT], struct candidate c)
{
    for (int i = 0; i < KEPT; i++) {
        if (!(c.err < kept[i].err)) continue;
        struct candidate t = kept[i];
        kept[i] = c;
        c = t;
    }
}

static void climb(struct search *f, float widest, bool coarse)
{
    const int rungs = coarse ? FEW_RUNGS : RUNGS;
    const float high = f->kind == NB_BNB_INT8 ? 1.0f : 1.1f, low = 0.5f;
    struct candidate kept[KEPT];
    for (int i = 0; i < KEPT; i++) kept[i] = (struct candidate){.err = FLT_MAX};
    for (int i = 0; i < rungs; i++) {
        const float p = high - (high - low) * (float)i / (float)(rungs - 1);
        keep(kept, try_scale(f, p * widest));
    }
    for (int i = 0; i < KEPT && kept[i].err < FLT_MAX && !coarse; i++) refine(f, kept[i]);
}

static bool any_weight(const float *u, int64_t n)
{
    for (int64_t i = 0; u && i < n; i++) {
        if (u[i] > 0.0f) return true;
    }
    return false;
}

void nb_bnb_fit(const struct nb_grid_opts *opts, const float *w, const float *u, int64_t n,
                struct nb_group_params *out)
{
    struct search f = {
        .level = nb_bnb_level(), .kind = nb_bnb_kind_of(&opts->spec), .w = w, .n = n};
    float a = nb_f32_from_bits(f.level->top(w, n));
    if (!isfinite(a)) a = 1e36f;
    if (f.kind == NB_BNB_INT8) {
        const float scb = nb_f16_to_f32(nb_f32_to_f16(a < 65504.0f ? a : 65504.0f));
        a = scb / 127.0f;
    }
    f.best.scale = storable(f.kind, a);
    if (opts->clip != NB_CLIP_NONE && a > LEAST) {
        if (opts->clip == NB_CLIP_WEIGHTED && any_weight(u, n)) f.u = u;
        f.best.err = f.level->error[f.kind](w, f.u, n, nb_bnb_scale_of(f.best.scale));
        climb(&f, a, opts->coarse);
    }
    *out = (struct nb_group_params){.scale = f.best.scale,
                                    .zero = f.kind == NB_BNB_INT8 ? 128.0f : 0.0f};
}
