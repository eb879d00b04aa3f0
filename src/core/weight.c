/* SPDX-License-Identifier: Apache-2.0
 *
 * weight.c - see weight.h. */
#include "core/weight.h"

void nb_weight_row(const struct nb_weight *w, int64_t n, float *out)
{
    if (w->q) {
        nb_qmat_dequant_row(w->q, n, out);
        return;
    }
    if (w->blocks.data) {
        const size_t bytes = nb_block_row_bytes(w->blocks.type, w->cols);
        w->blocks.type->decode(w->blocks.data + (size_t)n * bytes, out, w->cols);
        return;
    }
    size_t row_bytes = (size_t)w->cols * (size_t)nb_dtype_bits(w->dense.dtype) / 8;
    nb_to_f32(out, w->dense.data.data + (size_t)n * row_bytes, w->dense.dtype, (size_t)w->cols);
}

struct rows {
    const struct nb_weight *from;
    float *to;
};

static void one_row(void *ctx, size_t piece, int thread)
{
    (void)thread;
    const struct rows *r = ctx;
    nb_weight_row(r->from, (int64_t)piece, r->to + (int64_t)piece * r->from->cols);
}

void nb_weight_rows(const struct nb_weight *w, struct nb_pool *pool, float *out)
{
    struct rows r = {w, out};
    nb_pool_run(pool, (size_t)w->rows, one_row, &r);
}
