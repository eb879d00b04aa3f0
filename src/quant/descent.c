/* SPDX-License-Identifier: Apache-2.0
 *
 * descent.c - improve a solution without ever raising its loss: codes column by column, scales group by
 * group, all rows of a tile side by side.
 *
 * With e = w - q and G = e H the loss is least in column j when q_j moves to q_j + G_j / H_jj; the code
 * nearest to that is the best one while the rest stands still. Along the scale of a group the loss is a
 * parabola; its lowest point, cast to the stored type, is taken when it is lower. A group gets one sweep
 * over its codes and one step of its scale, then its change enters G for all columns by one GEMM.
 *
 * Source: cyclic coordinate descent on the layer objective, arXiv:2309.01885; scales with codes fixed,
 * algorithms, sections 10.3 and 10.4 (there as one linear system per row; here as steps between sweeps,
 * since codes and scales move each other). */
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "quant/problem.h"

struct descent {
    const struct nb_problem *p;
    struct nb_solution *s;
    enum nb_descent what;
    int64_t g, j0, n; /* the group, its first column, its width */
    float *gradient;  /* [padded, K] */
    float *step;      /* [padded, group] change of the error */
    float *scratch;   /* per thread */
    size_t scratch_floats;
    atomic_bool changed;
};

struct tile {             /* [n][NB_TILE] each */
    float *grad;          /* G of the group's columns */
    float *level, *value; /* level of the code - zero; scale * that */
    float *start;         /* value at load */
    float *fixed;         /* G + value H_gg, which no move inside the group changes */
    uint8_t *code;
};

static void load(const struct descent *d, struct tile *t, int64_t r0)
{
    const struct nb_problem *p = d->p;
    for (int lane = 0; lane < NB_TILE; lane++) {
        const int64_t at = (r0 + lane) * p->cols + d->j0;
        const float scale = d->s->scale[d->g * p->padded + r0 + lane];
        const float zero = d->s->zero[d->g * p->padded + r0 + lane];
        for (int64_t j = 0; j < d->n; j++) {
            const int64_t i = j * NB_TILE + lane;
            t->code[i] = d->s->code[at + j];
            t->level[i] = p->levels.value[t->code[i]] - zero;
            t->value[i] = t->start[i] = scale * t->level[i];
            t->grad[i] = d->gradient[at + j];
        }
    }
}

/* rows of `to` += sign * h[i] * move, for the n columns i that h is a row of H for. */
static inline void spread(float *to, const float *h, int64_t n, const float *move, float sign)
{
    float by[NB_TILE];
    for (int lane = 0; lane < NB_TILE; lane++) by[lane] = sign * move[lane];
    for (int64_t i = 0; i < n; i++) {
        float *t = to + i * NB_TILE;
        const float hi = h[i];
        for (int lane = 0; lane < NB_TILE; lane++) t[lane] += hi * by[lane];
    }
}

static const float *h_row(const struct descent *d, int64_t j)
{
    return d->p->h + (d->j0 + j) * d->p->cols + d->j0;
}

static bool sweep_codes(const struct descent *d, struct tile *t, int64_t r0)
{
    const struct nb_problem *p = d->p;
    const float *scale = d->s->scale + d->g * p->padded + r0,
                *zero = d->s->zero + d->g * p->padded + r0;
    bool changed = false;
    for (int64_t j = 0; j < d->n; j++) {
        const float *h = h_row(d, j);
        const float inverse = 1.0f / h[j];
        float *value = t->value + j * NB_TILE, *grad = t->grad + j * NB_TILE;
        float target[NB_TILE], next[NB_TILE], move[NB_TILE], most = 0.0f;
        uint8_t code[NB_TILE];
        for (int lane = 0; lane < NB_TILE; lane++)
            target[lane] = value[lane] + grad[lane] * inverse;
        p->numeric->round_lanes(&p->spec, target, NB_TILE, &(struct nb_lane_params){scale, zero},
                                code, next);
        for (int lane = 0; lane < NB_TILE; lane++) {
            move[lane] = next[lane] - value[lane];
            most = fabsf(move[lane]) > most ? fabsf(move[lane]) : most;
        }
        if (!(most > 0.0f)) continue;
        changed = true;
        for (int lane = 0; lane < NB_TILE; lane++) {
            value[lane] = next[lane];
            if (move[lane] == 0.0f) continue; /* another code of the same value */
            t->code[j * NB_TILE + lane] = code[lane];
            t->level[j * NB_TILE + lane] = p->levels.value[code[lane]] - zero[lane];
        }
        spread(t->grad, h, d->n, move, -1.0f);
    }
    return changed;
}

/* Along the scale the loss is den * x^2 - 2 num * x, with den = level H_gg level and num = level G. */
static bool step_scales(const struct descent *d, struct tile *t, int64_t r0)
{
    const struct nb_problem *p = d->p;
    float *scale = d->s->scale + d->g * p->padded + r0;
    float ratio[NB_TILE];
    double num[NB_TILE] = {0}, image[NB_TILE] = {0};
    bool changed = false;
    for (int64_t i = 0; i < d->n * NB_TILE; i += NB_TILE) {
        for (int lane = 0; lane < NB_TILE; lane++) {
            const double level = t->level[i + lane];
            num[lane] += level * t->grad[i + lane];
            image[lane] += level * ((double)t->fixed[i + lane] - t->grad[i + lane]);
        }
    }
    for (int lane = 0; lane < NB_TILE; lane++) {
        const double den = image[lane] / scale[lane];
        ratio[lane] = 1.0f;
        if (!(den > 0.0)) continue;
        const float next = nb_scale_store(p, (float)(scale[lane] + num[lane] / den));
        const double by = (double)next - scale[lane];
        if (!(by * (by * den - 2.0 * num[lane]) < 0.0)) continue;
        ratio[lane] = next / scale[lane];
        scale[lane] = next;
        changed = true;
    }
    if (!changed) return false;
    for (int64_t i = 0; i < d->n * NB_TILE; i += NB_TILE) {
        for (int lane = 0; lane < NB_TILE; lane++) {
            /* The part of G that the group's own values make grows with them. */
            t->grad[i + lane] =
                t->fixed[i + lane] - (t->fixed[i + lane] - t->grad[i + lane]) * ratio[lane];
            t->value[i + lane] = scale[lane] * t->level[i + lane];
        }
    }
    return true;
}

static struct tile tile_of(const struct descent *d, int thread)
{
    float *base = d->scratch + d->scratch_floats * (size_t)thread;
    const size_t n = (size_t)d->p->group * NB_TILE;
    return (struct tile){.grad = base,
                         .level = base + n,
                         .value = base + 2 * n,
                         .start = base + 3 * n,
                         .fixed = base + 4 * n,
                         .code = (uint8_t *)(base + 5 * n)};
}

static void descend_tile(void *ctx, size_t piece, int thread)
{
    struct descent *d = ctx;
    const struct nb_problem *p = d->p;
    const int64_t r0 = (int64_t)piece * NB_TILE;
    struct tile t = tile_of(d, thread);
    load(d, &t, r0);
    bool changed = d->what != NB_DESCENT_SCALES && sweep_codes(d, &t, r0);
    if (d->what != NB_DESCENT_CODES) {
        memcpy(t.fixed, t.grad, (size_t)d->n * NB_TILE * sizeof *t.fixed);
        for (int64_t j = 0; j < d->n; j++)
            spread(t.fixed, h_row(d, j), d->n, t.value + j * NB_TILE, 1.0f);
        if (step_scales(d, &t, r0)) changed = true;
    }
    if (changed) atomic_store_explicit(&d->changed, true, memory_order_relaxed);
    for (int lane = 0; lane < NB_TILE; lane++) {
        const int64_t r = r0 + lane;
        for (int64_t j = 0; j < d->n; j++) {
            const int64_t i = j * NB_TILE + lane;
            d->step[r * p->group + j] = t.start[i] - t.value[i];
            d->s->code[r * p->cols + d->j0 + j] = t.code[i];
        }
    }
}

static void sweep(struct descent *d, struct nb_pool *pool)
{
    const struct nb_problem *p = d->p;
    for (d->g = 0; d->g < p->n_groups; d->g++) {
        d->j0 = d->g * p->group;
        d->n = nb_problem_group_cols(p, d->g);
        nb_pool_run(pool, (size_t)nb_problem_tiles(p), descend_tile, d);
        nb_gemm_run(p->be, &(struct nb_gemm){.accumulate = true,
                                             .m = p->padded,
                                             .n = p->cols,
                                             .k = d->n,
                                             .alpha = 1.0f,
                                             .a = d->step,
                                             .b = p->h + d->j0 * p->cols,
                                             .c = d->gradient,
                                             .lda = p->group,
                                             .ldb = p->cols,
                                             .ldc = p->cols});
    }
}

int nb_descend(const struct nb_problem *p, struct nb_solution *s, int sweeps, enum nb_descent what,
               struct nb_err *err)
{
    struct nb_pool *pool = nb_backend_pool(p->be);
    const size_t n = (size_t)p->padded * (size_t)p->cols, group = (size_t)p->group;
    if (nb_scales_are_shared(p)) {
        if (what == NB_DESCENT_SCALES) return nb_solution_measure(p, s, err);
        what = NB_DESCENT_CODES;
    }
    struct descent d = {.p = p, .s = s, .what = what, .scratch_floats = group * NB_TILE * 6};
    struct nb_arena arena;
    nb_arena_init(&arena);
    d.gradient = nb_arena_alloc(&arena, n, sizeof *d.gradient);
    d.step = nb_arena_alloc(&arena, (size_t)p->padded * group, sizeof *d.step);
    d.scratch =
        nb_arena_alloc(&arena, d.scratch_floats * (size_t)nb_pool_threads(pool), sizeof *d.scratch);
    int rc = arena.failed ? nb_fail(err, NB_E_NOMEM,
                                    "no memory to refine a matrix of %" PRId64 " x %" PRId64,
                                    p->rows, p->cols)
                          : nb_solution_image(p, s, d.gradient, err);
    for (int i = 0; !rc && i < sweeps; i++) {
        atomic_store_explicit(&d.changed, false, memory_order_relaxed);
        sweep(&d, pool);
        if (!atomic_load_explicit(&d.changed, memory_order_relaxed)) break;
    }
    nb_arena_release(&arena);
    return rc ? rc : nb_solution_measure(p, s, err);
}
