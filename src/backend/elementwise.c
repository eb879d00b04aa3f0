/* SPDX-License-Identifier: Apache-2.0
 *
 * elementwise.c - norms, rotary positions, gated activations and sums over the pool: rows are the
 * pieces. */
#include <string.h>

#include "backend/internal.h"

enum { PIECE_FLOATS = 16384 }; /* work per piece: far above what handing it out costs */

static int64_t rows_per_piece(int64_t width)
{
    int64_t rows = PIECE_FLOATS / (width > 0 ? width : 1);
    return rows > 0 ? rows : 1;
}

static size_t pieces_of(int64_t n, int64_t step)
{
    return n > 0 ? (size_t)((n + step - 1) / step) : 0;
}

static int64_t end_of(int64_t start, int64_t step, int64_t n)
{
    return start + step < n ? start + step : n;
}

struct rmsnorm_run {
    const struct nb_cpu_ops *ops;
    const struct nb_norm *norm;
    float *y;
    const float *x;
    int64_t m, step;
};

static void rmsnorm_piece(void *ctx, size_t piece, int thread)
{
    const struct rmsnorm_run *r = ctx;
    (void)thread;
    const int64_t d = r->norm->d, start = (int64_t)piece * r->step,
                  end = end_of(start, r->step, r->m);
    for (int64_t i = start; i < end; i++) {
        r->ops->rmsnorm(r->y + i * d, r->x + i * d, r->norm->weight, d, (float)r->norm->eps);
    }
}

void nb_rmsnorm(struct nb_backend *be, const struct nb_norm *norm, float *y, const float *x,
                int64_t m)
{
    struct rmsnorm_run run = {
        .ops = &be->ops, .norm = norm, .y = y, .x = x, .m = m, .step = rows_per_piece(norm->d)};
    nb_pool_run(nb_backend_pool_for(be, m * norm->d * 4), pieces_of(m, run.step), rmsnorm_piece,
                &run);
}

struct rope_run {
    const struct nb_cpu_ops *ops;
    const struct nb_rope_rows *rows;
    int64_t step;
};

static void rope_piece(void *ctx, size_t piece, int thread)
{
    const struct rope_run *run = ctx;
    const struct nb_rope_rows *r = run->rows;
    (void)thread;
    const int64_t half = (r->rotary_dim ? r->rotary_dim : r->head_dim) / 2,
                  start = (int64_t)piece * run->step, end = end_of(start, run->step, r->m);
    for (int64_t i = start; i < end; i++) {
        for (int64_t h = 0; h < r->n_heads; h++) {
            run->ops->rope(r->x + i * r->ldx + h * r->head_dim, half, r->cos_t + i * half,
                           r->sin_t + i * half);
        }
    }
}

void nb_rope_apply(struct nb_backend *be, const struct nb_rope_rows *r)
{
    const int64_t width = r->n_heads * r->head_dim;
    struct rope_run run = {.ops = &be->ops, .rows = r, .step = rows_per_piece(width)};
    nb_pool_run(nb_backend_pool_for(be, r->m * width * 4), pieces_of(r->m, run.step), rope_piece,
                &run);
}

struct act_run {
    nb_act_fn act;
    float *out;
    const float *gate, *up;
    int64_t n;
};

static void act_piece(void *ctx, size_t piece, int thread)
{
    const struct act_run *r = ctx;
    (void)thread;
    int64_t start = (int64_t)piece * PIECE_FLOATS, end = end_of(start, PIECE_FLOATS, r->n);
    r->act(r->out + start, r->gate + start, r->up + start, end - start);
}

void nb_gated_act(struct nb_backend *be, float *out, const float *gate, const float *up, int64_t n,
                  enum nb_act_fn kind)
{
    struct act_run run = {.act = be->ops.act[kind], .out = out, .gate = gate, .up = up, .n = n};
    nb_pool_run(nb_backend_pool_for(be, n * 16), pieces_of(n, PIECE_FLOATS), act_piece, &run);
}

struct add_run {
    nb_add_fn add;
    float *y;
    const float *x;
    int64_t n;
};

static void add_piece(void *ctx, size_t piece, int thread)
{
    const struct add_run *r = ctx;
    (void)thread;
    int64_t start = (int64_t)piece * PIECE_FLOATS, end = end_of(start, PIECE_FLOATS, r->n);
    r->add(r->y + start, r->x + start, end - start);
}

void nb_residual_add(struct nb_backend *be, float *y, const float *x, int64_t n)
{
    struct add_run run = {.add = be->ops.add, .y = y, .x = x, .n = n};
    nb_pool_run(nb_backend_pool_for(be, n * 2), pieces_of(n, PIECE_FLOATS), add_piece, &run);
}

struct cap_run {
    nb_softcap_fn softcap;
    float *x, cap;
    int64_t n;
};

static void cap_piece(void *ctx, size_t piece, int thread)
{
    const struct cap_run *r = ctx;
    (void)thread;
    int64_t start = (int64_t)piece * PIECE_FLOATS, end = end_of(start, PIECE_FLOATS, r->n);
    r->softcap(r->x + start, end - start, r->cap);
}

void nb_softcap(struct nb_backend *be, float *x, int64_t n, float cap)
{
    struct cap_run run = {.softcap = be->ops.softcap, .x = x, .cap = cap, .n = n};
    nb_pool_run(nb_backend_pool_for(be, n * 16), pieces_of(n, PIECE_FLOATS), cap_piece, &run);
}

struct logsumexp_run {
    nb_logsumexp_fn fn;
    double *out;
    const float *x;
    int64_t m, n, ldx, step;
};

static void logsumexp_piece(void *ctx, size_t piece, int thread)
{
    const struct logsumexp_run *r = ctx;
    (void)thread;
    int64_t start = (int64_t)piece * r->step, end = end_of(start, r->step, r->m);
    for (int64_t i = start; i < end; i++) r->out[i] = r->fn(r->x + i * r->ldx, r->n);
}

void nb_logsumexp(struct nb_backend *be, double *out, const float *x, int64_t m, int64_t n,
                  int64_t ldx)
{
    struct logsumexp_run run = {
        .fn = be->ops.logsumexp, .out = out, .x = x, .m = m, .n = n, .ldx = ldx};
    run.step = rows_per_piece(n);
    nb_pool_run(nb_backend_pool_for(be, m * n * 16), pieces_of(m, run.step), logsumexp_piece, &run);
}
