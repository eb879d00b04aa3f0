/* SPDX-License-Identifier: Apache-2.0
 *
 * activations.c - the activation of MLPs without a gate, and of those whose gate and up are one matrix;
 * over the pool, rows are the pieces. The kernels compute act(gate) * up, which is act(gate) where up
 * is one. */
#include "backend/internal.h"

enum { PIECE_FLOATS = 16384, ONES = 512 };

struct run {
    nb_act_fn act;
    float *out;
    const float *x;
    int64_t n; /* elements, or rows */
    int64_t step, width;
};

static int64_t end_of(const struct run *r, int64_t start)
{
    return start + r->step < r->n ? start + r->step : r->n;
}

static void plain_piece(void *ctx, size_t piece, int thread)
{
    const struct run *r = ctx;
    (void)thread;
    const int64_t start = (int64_t)piece * r->step, end = end_of(r, start);
    float ones[ONES];
    for (int i = 0; i < ONES; i++) ones[i] = 1;
    for (int64_t i = start; i < end; i += ONES) {
        int64_t n = end - i < ONES ? end - i : ONES;
        r->act(r->out + i, r->x + i, ones, n);
    }
}

static void fused_piece(void *ctx, size_t piece, int thread)
{
    const struct run *r = ctx;
    (void)thread;
    const int64_t start = (int64_t)piece * r->step, end = end_of(r, start), w = r->width;
    for (int64_t i = start; i < end; i++)
        r->act(r->out + i * w, r->x + i * 2 * w, r->x + i * 2 * w + w, w);
}

static size_t pieces_of(const struct run *r)
{
    return r->n > 0 ? (size_t)((r->n + r->step - 1) / r->step) : 0;
}

void nb_act(struct nb_backend *be, float *out, const float *x, int64_t n, enum nb_act_fn kind)
{
    struct run run = {.act = be->ops.act[kind], .out = out, .x = x, .n = n, .step = PIECE_FLOATS};
    nb_pool_run(nb_backend_pool_for(be, n * 16), pieces_of(&run), plain_piece, &run);
}

void nb_gated_act_fused(struct nb_backend *be, float *out, const float *x, int64_t m, int64_t width,
                        enum nb_act_fn kind)
{
    struct run run = {.act = be->ops.act[kind],
                      .out = out,
                      .x = x,
                      .n = m,
                      .step = PIECE_FLOATS / width,
                      .width = width};
    if (run.step < 1) run.step = 1;
    nb_pool_run(nb_backend_pool_for(be, m * width * 16), pieces_of(&run), fused_piece, &run);
}
