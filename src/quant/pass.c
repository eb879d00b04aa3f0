/* SPDX-License-Identifier: Apache-2.0
 *
 * pass.c - one pass of rounding with error feedback: the inner loop of GPTQ.
 *
 * Positions are visited from the last to the first in blocks. What a block receives from all columns
 * visited before it is one GEMM; inside a block a tile of rows is worked column by column, 16 rows side by
 * side. The same feedback serves every set of scales, so that trying another set costs a pass and no
 * factorization. Source: arXiv:2210.17323 (lazy batches); form of factor.c. */
#include <inttypes.h>
#include <string.h>

#include "quant/problem.h"

struct pass {
    const struct nb_problem *p;
    const struct nb_factor *f;
    bool fit;
    struct nb_solution *s;
    float *delta;   /* [padded, K] target weight - value, by position */
    float *feed;    /* [padded, width] what the block receives */
    int64_t p0, p1; /* the block: positions [p0, p1) */
    int64_t width;  /* of the widest block */
    float *scratch; /* per thread */
    size_t scratch_floats;
};

/* Buffers of one tile in a block: [width][NB_TILE] each. */
struct tile {
    float *target, *weight, *delta;
    float *line; /* [2 * group] for a fit */
};

static struct tile tile_of(const struct pass *a, int thread)
{
    float *base = a->scratch + a->scratch_floats * (size_t)thread;
    const size_t n = (size_t)a->width * NB_TILE;
    return (struct tile){
        .target = base, .weight = base + n, .delta = base + 2 * n, .line = base + 3 * n};
}

static void load_tile(const struct pass *a, struct tile *t, int64_t r0)
{
    const int64_t k = a->p->cols, n = a->p1 - a->p0;
    for (int lane = 0; lane < NB_TILE; lane++) {
        const float *w = a->p->w + (r0 + lane) * k;
        const float *feed = a->feed + (r0 + lane) * a->width;
        for (int64_t i = 0; i < n; i++) {
            float v = w[a->f->at[a->p0 + i]];
            t->weight[i * NB_TILE + lane] = v;
            t->target[i * NB_TILE + lane] = a->p1 < k ? v + feed[i] : v;
        }
    }
}

/* Adds the errors delta of position i (counted from p0) to the targets of positions [low, i). */
static void feed_back(const struct pass *a, float *target, const float *delta, int64_t i,
                      int64_t low)
{
    const float *row = a->f->feedback + (a->p0 + i) * a->f->n + a->p0;
    for (int64_t j = low; j < i; j++) {
        const float share = row[j];
        float *t = target + j * NB_TILE;
        for (int lane = 0; lane < NB_TILE; lane++) t[lane] += share * delta[lane];
    }
}

/* Parameters of the group at positions [low, high) (from p0) from the updated weights: what the targets
 * become when nothing in the group is rounded. */
static void fit_group(const struct pass *a, struct tile *t, int64_t r0, int64_t low, int64_t high)
{
    const struct nb_problem *p = a->p;
    const int64_t g = a->f->at[a->p0 + low] / p->group;
    float *free_target = t->delta; /* not yet in use at these positions */
    memcpy(free_target + low * NB_TILE, t->target + low * NB_TILE,
           (size_t)(high - low) * NB_TILE * sizeof(float));
    for (int64_t i = high - 1; i > low; i--) {
        float delta[NB_TILE];
        for (int lane = 0; lane < NB_TILE; lane++) {
            delta[lane] = t->weight[i * NB_TILE + lane] - free_target[i * NB_TILE + lane];
        }
        feed_back(a, free_target, delta, i, low);
    }
    float *w = t->line, *u = t->line + (high - low);
    for (int lane = 0; lane < NB_TILE; lane++) {
        for (int64_t i = low; i < high; i++) {
            w[i - low] = free_target[i * NB_TILE + lane];
            u[i - low] = p->u[a->f->at[a->p0 + i]];
        }
        struct nb_group_params params;
        p->numeric->fit(&p->grid, w, u, high - low, &params);
        a->s->scale[g * p->padded + r0 + lane] = params.scale;
        a->s->zero[g * p->padded + r0 + lane] = params.zero;
    }
}

static void round_position(const struct pass *a, struct tile *t, int64_t r0, int64_t i,
                           double *loss)
{
    const struct nb_problem *p = a->p;
    const int64_t column = a->f->at[a->p0 + i], plane = column / p->group * p->padded + r0;
    const float *target = t->target + i * NB_TILE, *weight = t->weight + i * NB_TILE;
    float *delta = t->delta + i * NB_TILE;
    uint8_t code[NB_TILE];
    float value[NB_TILE];
    const struct nb_lane_params lanes = {a->s->scale + plane, a->s->zero + plane};
    p->numeric->round_lanes(&p->spec, target, NB_TILE, &lanes, code, value);
    const double pivot = a->f->pivot[a->p0 + i];
    for (int lane = 0; lane < NB_TILE; lane++) {
        const float left = target[lane] - value[lane];
        delta[lane] = weight[lane] - value[lane];
        loss[lane] += pivot * left * left;
        a->s->code[(r0 + lane) * p->cols + column] = code[lane];
    }
}

static void pass_tile(void *ctx, size_t piece, int thread)
{
    const struct pass *a = ctx;
    const struct nb_problem *p = a->p;
    const int64_t r0 = (int64_t)piece * NB_TILE;
    struct tile t = tile_of(a, thread);
    load_tile(a, &t, r0);
    double loss[NB_TILE] = {0};
    for (int64_t i = a->p1 - a->p0 - 1; i >= 0; i--) {
        const int64_t g = a->f->at[a->p0 + i] / p->group;
        const bool first = a->p0 + i + 1 == p->cols || a->f->at[a->p0 + i + 1] / p->group != g;
        if (a->fit && first) {
            const int64_t n = nb_problem_group_cols(p, g);
            fit_group(a, &t, r0, i + 1 - n, i + 1);
        }
        round_position(a, &t, r0, i, loss);
        feed_back(a, t.target, t.delta + i * NB_TILE, i, 0);
    }
    for (int lane = 0; lane < NB_TILE; lane++) {
        a->s->loss[r0 + lane] += loss[lane];
        float *out = a->delta + (r0 + lane) * p->cols + a->p0;
        for (int64_t i = 0; i < a->p1 - a->p0; i++) out[i] = t.delta[i * NB_TILE + lane];
    }
}

/* Blocks hold whole groups, so that a group can be fitted inside one. */
static int64_t next_block(const struct pass *a, int64_t p1)
{
    const int64_t group = a->p->group;
    if (!a->fit) return p1 > NB_PASS_BLOCK ? p1 - NB_PASS_BLOCK : 0;
    int64_t p0 = p1;
    while (p0 > 0) {
        const int64_t n = nb_problem_group_cols(a->p, a->f->at[p0 - 1] / group);
        if (p0 < p1 && p1 - p0 + n > NB_PASS_BLOCK) break;
        p0 -= n;
    }
    return p0;
}

int nb_pass_run(const struct nb_problem *p, const struct nb_factor *f, bool fit,
                struct nb_solution *s, struct nb_err *err)
{
    struct nb_pool *pool = nb_backend_pool(p->be);
    struct pass a = {.p = p, .f = f, .fit = fit, .s = s, .width = NB_PASS_BLOCK};
    if (fit && p->group > a.width) a.width = p->group;
    const size_t k = (size_t)p->cols, rows = (size_t)p->padded;
    a.scratch_floats = (size_t)a.width * (3 * NB_TILE + 2);
    struct nb_arena arena;
    nb_arena_init(&arena);
    a.delta = nb_arena_alloc(&arena, rows * k, sizeof *a.delta);
    a.feed = nb_arena_alloc(&arena, rows * (size_t)a.width, sizeof *a.feed);
    a.scratch =
        nb_arena_alloc(&arena, a.scratch_floats * (size_t)nb_pool_threads(pool), sizeof *a.scratch);
    int rc = arena.failed ? nb_fail(err, NB_E_NOMEM,
                                    "no memory for a pass over a matrix of %" PRId64 " x %" PRId64,
                                    p->rows, p->cols)
                          : 0;
    if (!rc) memset(s->loss, 0, rows * sizeof *s->loss);
    for (a.p1 = p->cols; !rc && a.p1 > 0; a.p1 = a.p0) {
        a.p0 = next_block(&a, a.p1);
        if (a.p1 < p->cols) {
            nb_gemm_run(p->be, &(struct nb_gemm){.m = p->padded,
                                                 .n = a.p1 - a.p0,
                                                 .k = p->cols - a.p1,
                                                 .alpha = 1.0f,
                                                 .a = a.delta + a.p1,
                                                 .b = f->feedback + a.p1 * f->n + a.p0,
                                                 .c = a.feed,
                                                 .lda = p->cols,
                                                 .ldb = f->n,
                                                 .ldc = a.width});
        }
        nb_pool_run(pool, (size_t)nb_problem_tiles(p), pass_tile, &a);
    }
    nb_arena_release(&arena);
    return rc;
}
