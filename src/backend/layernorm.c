/* SPDX-License-Identifier: Apache-2.0
 *
 * layernorm.c - LayerNorm over the pool: rows are the pieces.
 *
 * Sums run in f64 over four interleaved parts in a fixed order, so every level and any number of threads
 * gives the same bits. */
#include <math.h>

#include "backend/internal.h"

enum { PIECE_FLOATS = 16384, PARTS = 4 };

struct run {
    const struct nb_norm *norm;
    float *y;
    const float *x;
    int64_t m, step;
};

/* Sum of x - shift, or with `squares` of its squares. */
static double sum_of(const float *x, int64_t n, double shift, bool squares)
{
    double part[PARTS] = {0};
    for (int64_t i = 0; i < n; i++) {
        double v = (double)x[i] - shift;
        part[i % PARTS] += squares ? v * v : v;
    }
    return (part[0] + part[1]) + (part[2] + part[3]);
}

static void one_row(const struct nb_norm *norm, float *y, const float *x)
{
    const int64_t d = norm->d;
    double mean = sum_of(x, d, 0, false) / (double)d;
    double scale = 1 / sqrt(sum_of(x, d, mean, true) / (double)d + norm->eps);
    for (int64_t i = 0; i < d; i++) {
        float v = (float)(((double)x[i] - mean) * scale);
        y[i] = v * norm->weight[i] + norm->bias[i];
    }
}

static void piece_of_rows(void *ctx, size_t piece, int thread)
{
    const struct run *r = ctx;
    (void)thread;
    const int64_t d = r->norm->d, start = (int64_t)piece * r->step;
    const int64_t end = start + r->step < r->m ? start + r->step : r->m;
    for (int64_t i = start; i < end; i++) one_row(r->norm, r->y + i * d, r->x + i * d);
}

void nb_layernorm(struct nb_backend *be, const struct nb_norm *norm, float *y, const float *x,
                  int64_t m)
{
    struct run run = {.norm = norm, .y = y, .x = x, .m = m, .step = PIECE_FLOATS / norm->d};
    if (run.step < 1) run.step = 1;
    size_t pieces = m > 0 ? (size_t)((m + run.step - 1) / run.step) : 0;
    nb_pool_run(nb_backend_pool_for(be, m * norm->d * 8), pieces, piece_of_rows, &run);
}
