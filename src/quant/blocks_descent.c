/* SPDX-License-Identifier: Apache-2.0
 *
 * blocks_descent.c - improve blocks without raising their loss: levels column by column, whole sub-blocks
 * under neighbouring scales, then all parameters of the super-block at once.
 *
 * As in descent.c the error's gradient G = e H is kept up to date; NB_SUPER columns of 16 rows are worked on
 * in scratch memory, and their change enters G for all columns by one GEMM. */
#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "quant/blocks_tile.h"

enum { REFIT_ROUNDS = 4 };

static size_t tile_floats(void)
{
    return (size_t)NB_SUPER * NB_TILE * (4 + NB_MOST_SUBS) + nb_block_refit_floats();
}

static struct nb_block_tile tile_of(const struct nb_block_descent *d, int thread, int64_t r0)
{
    float *base = d->scratch + d->scratch_floats * (size_t)thread;
    const size_t n = (size_t)NB_SUPER * NB_TILE;
    struct nb_block_tile t = {.r0 = r0,
                              .grad = base,
                              .level = base + n,
                              .value = base + 2 * n,
                              .start = base + 3 * n,
                              .image = base + 4 * n};
    nb_block_refit_place(&t.refit, base + (4 + NB_MOST_SUBS) * n);
    t.refit.subs = d->subs;
    t.refit.dims = d->b->grid->min_hi ? 2 * d->subs : d->subs;
    return t;
}

static inline float level_of(const struct nb_block_grid *g, uint8_t code)
{
    return g->table ? g->table[code] : (float)(code - nb_block_grid_zero(g));
}

static inline uint8_t code_of(const struct nb_block_grid *g, float level)
{
    if (!g->table) return (uint8_t)((int)level + nb_block_grid_zero(g));
    uint8_t code = 0;
    while (code < 15 && g->table[code] < level) code++;
    return code;
}

/* ---- between the solution and the scratch memory ---- */

static void load(const struct nb_block_descent *d, struct nb_block_tile *t)
{
    const struct nb_block_grid *g = d->b->grid;
    const struct nb_problem *p = &d->b->p;
    const int64_t sub0 = d->c0 / g->sub;
    for (int j = 0; j < d->subs; j++) {
        const int64_t plane = (sub0 + j) * p->padded + t->r0,
                      upper = (sub0 + j) / g->subs * p->padded + t->r0;
        for (int k = 0; k < NB_TILE; k++) {
            t->scale[j][k] = d->s->s.scale[plane + k];
            t->min[j][k] = d->s->s.zero[plane + k];
            t->refit.scale[j * NB_TILE + k] = d->s->scale[plane + k];
            t->refit.min[j * NB_TILE + k] = d->s->min[plane + k];
            t->refit.d[j / g->subs * NB_TILE + k] = d->s->d[upper + k];
            t->refit.dmin[j / g->subs * NB_TILE + k] = d->s->dmin[upper + k];
        }
    }
    for (int k = 0; k < NB_TILE; k++) {
        const int64_t at = (t->r0 + k) * p->cols + d->c0;
        for (int j = 0; j < d->n; j++) {
            const int i = j * NB_TILE + k, sub = j / g->sub;
            t->level[i] = level_of(g, d->s->s.code[at + j]);
            t->value[i] = t->start[i] = t->scale[sub][k] * t->level[i] - t->min[sub][k];
            t->grad[i] = d->gradient[at + j];
        }
    }
}

static void save(const struct nb_block_descent *d, const struct nb_block_tile *t)
{
    const struct nb_block_grid *g = d->b->grid;
    const struct nb_problem *p = &d->b->p;
    const int64_t sub0 = d->c0 / g->sub;
    for (int j = 0; j < d->subs; j++) {
        const int64_t plane = (sub0 + j) * p->padded + t->r0,
                      upper = (sub0 + j) / g->subs * p->padded + t->r0;
        for (int k = 0; k < NB_TILE; k++) {
            d->s->s.scale[plane + k] = t->scale[j][k];
            d->s->s.zero[plane + k] = t->min[j][k];
            d->s->scale[plane + k] = (int16_t)t->refit.scale[j * NB_TILE + k];
            d->s->min[plane + k] = (int16_t)t->refit.min[j * NB_TILE + k];
            d->s->d[upper + k] = t->refit.d[j / g->subs * NB_TILE + k];
            d->s->dmin[upper + k] = t->refit.dmin[j / g->subs * NB_TILE + k];
        }
    }
    for (int k = 0; k < NB_TILE; k++) {
        const int64_t r = t->r0 + k;
        for (int j = 0; j < d->n; j++) {
            const int i = j * NB_TILE + k;
            d->step[r * NB_SUPER + j] = t->start[i] - t->value[i];
            d->s->s.code[r * p->cols + d->c0 + j] = code_of(g, t->level[i]);
        }
    }
}

static bool sweep_columns(const struct nb_block_descent *d, struct nb_block_tile *t, int sub)
{
    const struct nb_block_grid *g = d->b->grid;
    const float *scale = t->scale[sub], *min = t->min[sub];
    bool changed = false;
    float inverse[NB_TILE];
    for (int k = 0; k < NB_TILE; k++) inverse[k] = scale[k] != 0.0f ? 1.0f / scale[k] : 0.0f;
    for (int j = sub * g->sub; j < (sub + 1) * g->sub; j++) {
        const float by = 1.0f / nb_block_h_row(d, j)[j];
        const float *old = t->value + j * NB_TILE, *grad = t->grad + j * NB_TILE;
        float x[NB_TILE], level[NB_TILE], value[NB_TILE];
        for (int k = 0; k < NB_TILE; k++) x[k] = (old[k] + grad[k] * by + min[k]) * inverse[k];
        nb_block_levels(g, x, level);
        for (int k = 0; k < NB_TILE; k++) value[k] = scale[k] * level[k] - min[k];
        changed |= nb_block_put(d, t, j, level, value);
    }
    return changed;
}

/* ---- parameters ---- */

/* image: for each sub-block, H times its levels, at all columns of the chunk. */
static void make_images(const struct nb_block_descent *d, struct nb_block_tile *t)
{
    const int sub_cols = d->b->grid->sub;
    for (int sub = 0; sub < d->subs; sub++) {
        const float *level = t->level + (ptrdiff_t)sub * sub_cols * NB_TILE;
        float *image = t->image + (ptrdiff_t)sub * d->n * NB_TILE;
        for (int i = 0; i < d->n; i++) {
            const float *h = nb_block_h_row(d, i) + (ptrdiff_t)sub * sub_cols;
            float sum[NB_TILE] = {0};
            for (int j = 0; j < sub_cols; j++) {
                for (int k = 0; k < NB_TILE; k++) sum[k] += h[j] * level[j * NB_TILE + k];
            }
            memcpy(image + (ptrdiff_t)i * NB_TILE, sum, sizeof sum);
        }
    }
}

static void set_curvature(struct nb_block_refit *r, int i, int j, const float *value)
{
    memcpy(r->a + ((size_t)i * (size_t)r->dims + (size_t)j) * NB_TILE, value,
           NB_TILE * sizeof(float));
    memcpy(r->a + ((size_t)j * (size_t)r->dims + (size_t)i) * NB_TILE, value,
           NB_TILE * sizeof(float));
}

/* Sum over the columns of sub-block i of x * y; y NULL: 1. */
static void products(const struct nb_block_descent *d, int i, const float *x, const float *y,
                     float *out)
{
    const ptrdiff_t n = d->b->grid->sub, j0 = i * n;
    memset(out, 0, NB_TILE * sizeof(float));
    for (ptrdiff_t j = j0; j < j0 + n; j++) {
        const float *a = x + j * NB_TILE, *b = y ? y + j * NB_TILE : NULL;
        for (int k = 0; k < NB_TILE; k++) out[k] += b ? a[k] * b[k] : a[k];
    }
}

static void gather_parabola(const struct nb_block_descent *d, struct nb_block_tile *t)
{
    struct nb_block_refit *r = &t->refit;
    const int sub_cols = d->b->grid->sub;
    const bool has_min = r->dims > r->subs;
    for (int i = 0; i < r->subs; i++) {
        float x[NB_TILE];
        products(d, i, t->grad, t->level, r->g + i * NB_TILE);
        for (int j = 0; j <= i; j++) {
            products(d, j, t->image + (ptrdiff_t)i * d->n * NB_TILE, t->level, x);
            set_curvature(r, i, j, x);
        }
        for (int k = 0; k < NB_TILE; k++) r->value[i * NB_TILE + k] = t->scale[i][k];
        if (!has_min) continue;
        products(d, i, t->grad, NULL, x);
        for (int k = 0; k < NB_TILE; k++) {
            r->g[(r->subs + i) * NB_TILE + k] = -x[k];
            r->value[(r->subs + i) * NB_TILE + k] = t->min[i][k];
        }
        for (int j = 0; j < r->subs; j++) {
            products(d, j, t->image + (ptrdiff_t)i * d->n * NB_TILE, NULL, x);
            for (int k = 0; k < NB_TILE; k++) x[k] = -x[k];
            set_curvature(r, i, r->subs + j, x);
            float sum = 0.0f;
            for (int c = j * sub_cols; c < (j + 1) * sub_cols; c++)
                sum += d->sums[i * NB_SUPER + c];
            for (int k = 0; k < NB_TILE; k++) x[k] = sum;
            set_curvature(r, r->subs + i, r->subs + j, x);
        }
    }
}

/* Parameters as stored from codes, values from them, and the gradient that they leave. */
static void take_parameters(const struct nb_block_descent *d, struct nb_block_tile *t)
{
    const struct nb_block_grid *g = d->b->grid;
    const struct nb_block_refit *r = &t->refit;
    for (int sub = 0; sub < d->subs; sub++) {
        float scale_step[NB_TILE], min_step[NB_TILE];
        const float *super_d = r->d + sub / g->subs * NB_TILE,
                    *dmin = r->dmin + sub / g->subs * NB_TILE;
        for (int k = 0; k < NB_TILE; k++) {
            const float s = super_d[k] * r->scale[sub * NB_TILE + k];
            const float m = g->min_hi ? dmin[k] * r->min[sub * NB_TILE + k] : 0.0f;
            scale_step[k] = s - t->scale[sub][k];
            min_step[k] = m - t->min[sub][k];
            t->scale[sub][k] = s;
            t->min[sub][k] = m;
        }
        const float *image = t->image + (ptrdiff_t)sub * d->n * NB_TILE,
                    *sums = d->sums + sub * NB_SUPER;
        for (int i = 0; i < d->n; i++) {
            float *x = t->grad + i * NB_TILE;
            const float *im = image + (ptrdiff_t)i * NB_TILE;
            for (int k = 0; k < NB_TILE; k++) x[k] -= scale_step[k] * im[k] - min_step[k] * sums[i];
        }
        for (int j = sub * g->sub; j < (sub + 1) * g->sub; j++) {
            for (int k = 0; k < NB_TILE; k++)
                t->value[j * NB_TILE + k] =
                    t->scale[sub][k] * t->level[j * NB_TILE + k] - t->min[sub][k];
        }
    }
}

/* ---- sweeps ---- */

static void descend_tile(void *ctx, size_t piece, int thread)
{
    struct nb_block_descent *d = ctx;
    struct nb_block_tile t = tile_of(d, thread, (int64_t)piece * NB_TILE);
    bool changed = false;
    load(d, &t);
    for (int sub = 0; sub < d->subs; sub++) {
        if (d->opts->search && nb_block_renew(d, &t, sub)) changed = true;
        if (sweep_columns(d, &t, sub)) changed = true;
    }
    if (d->opts->refit) {
        make_images(d, &t);
        gather_parabola(d, &t);
        if (nb_block_refit_run(d->b->grid, &t.refit, REFIT_ROUNDS)) {
            take_parameters(d, &t);
            changed = true;
        }
    }
    if (changed) atomic_store_explicit(&d->changed, true, memory_order_relaxed);
    save(d, &t);
}

static void sum_columns(struct nb_block_descent *d)
{
    const int n = d->b->grid->sub;
    for (int sub = 0; sub < d->subs; sub++) {
        for (int i = 0; i < d->n; i++) {
            const float *h = nb_block_h_row(d, i) + (ptrdiff_t)sub * n;
            float sum = 0.0f;
            for (int j = 0; j < n; j++) sum += h[j];
            d->sums[sub * NB_SUPER + i] = sum;
        }
    }
}

static void sweep(struct nb_block_descent *d)
{
    const struct nb_problem *p = &d->b->p;
    for (d->c0 = 0; d->c0 < p->cols; d->c0 += NB_SUPER) {
        d->n = (int)(p->cols - d->c0 < NB_SUPER ? p->cols - d->c0 : NB_SUPER);
        d->subs = d->n / d->b->grid->sub;
        sum_columns(d);
        nb_pool_run(nb_backend_pool(p->be), (size_t)nb_problem_tiles(p), descend_tile, d);
        if (p->cols <= NB_SUPER) continue; /* the next sweep makes G anew: cheaper, and exact */
        nb_gemm_run(p->be, &(struct nb_gemm){.accumulate = true,
                                             .m = p->padded,
                                             .n = p->cols,
                                             .k = d->n,
                                             .alpha = 1.0f,
                                             .a = d->step,
                                             .b = p->h + d->c0 * p->cols,
                                             .c = d->gradient,
                                             .lda = NB_SUPER,
                                             .ldb = p->cols,
                                             .ldc = p->cols});
    }
}

int nb_block_descend(const struct nb_block_problem *b, struct nb_block_solution *s,
                     const struct nb_block_descent_opts *opts, struct nb_err *err)
{
    const struct nb_problem *p = &b->p;
    struct nb_pool *pool = nb_backend_pool(p->be);
    const size_t rows = (size_t)p->padded, k = (size_t)p->cols;
    struct nb_block_descent d = {.b = b, .s = s, .opts = opts, .scratch_floats = tile_floats()};
    struct nb_arena arena;
    nb_arena_init(&arena);
    float *error = nb_arena_alloc(&arena, rows * k, sizeof *error);
    d.gradient = nb_arena_alloc(&arena, rows * k, sizeof *d.gradient);
    d.step = nb_arena_alloc(&arena, rows * NB_SUPER, sizeof *d.step);
    d.sums = nb_arena_alloc(&arena, NB_MOST_SUBS * NB_SUPER, sizeof *d.sums);
    d.at = nb_arena_alloc(&arena, k, sizeof *d.at);
    d.diag = nb_arena_alloc(&arena, k, sizeof *d.diag);
    d.factor = nb_arena_alloc(&arena, k * (size_t)b->grid->sub, sizeof *d.factor);
    d.scratch =
        nb_arena_alloc(&arena, d.scratch_floats * (size_t)nb_pool_threads(pool), sizeof *d.scratch);
    int rc = arena.failed
                 ? nb_fail(err, NB_E_NOMEM,
                           "no memory to refine the blocks of a matrix of %" PRId64 " x %" PRId64,
                           p->rows, p->cols)
                 : 0;
    if (!rc && opts->search) rc = nb_block_factor_subs(&d, err);
    if (!rc) {
        nb_block_solution_error(b, s, error);
        nb_solution_gradient(p, error, d.gradient);
    }
    for (int i = 0; !rc && i < opts->sweeps; i++) {
        if (i && p->cols <= NB_SUPER) {
            nb_block_solution_error(b, s, error);
            nb_solution_gradient(p, error, d.gradient);
        }
        atomic_store_explicit(&d.changed, false, memory_order_relaxed);
        sweep(&d);
        if (!atomic_load_explicit(&d.changed, memory_order_relaxed)) break;
    }
    if (!rc) {
        nb_block_solution_error(b, s, error);
        nb_solution_losses(p, &s->s, error, d.gradient);
    }
    nb_arena_release(&arena);
    return rc;
}
