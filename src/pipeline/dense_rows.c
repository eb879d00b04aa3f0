/* SPDX-License-Identifier: Apache-2.0
 *
 * dense_rows.c - see dense_rows.h. */
#include "pipeline/dense_rows.h"

#include "base/mem.h"

enum { BATCH_BYTES = 8 << 20, PIECE_WEIGHTS = 1 << 15 };

struct batch {
    const struct nb_weight *w;
    enum nb_dtype dtype;
    int64_t first, rows, piece_rows;
    unsigned char *out;
    float *scratch; /* [threads, cols] */
};

static void decode_piece(void *ctx, size_t piece, int thread)
{
    const struct batch *b = ctx;
    const size_t row_bytes = (size_t)b->w->cols * (size_t)nb_dtype_bits(b->dtype) / 8;
    float *x = b->scratch + (size_t)thread * (size_t)b->w->cols;
    int64_t from = (int64_t)piece * b->piece_rows, to = from + b->piece_rows;
    if (to > b->rows) to = b->rows;
    for (int64_t n = from; n < to; n++) {
        nb_weight_row(b->w, b->first + n, x);
        nb_from_f32(b->out + (size_t)n * row_bytes, x, b->dtype, (size_t)b->w->cols);
    }
}

int nb_dense_rows_put(const struct nb_dense_rows *d, const char *name, const struct nb_weight *w,
                      struct nb_err *err)
{
    struct batch b = {.w = w, .dtype = d->dtype};
    const size_t row_bytes = (size_t)w->cols * (size_t)nb_dtype_bits(d->dtype) / 8;
    int64_t rows = BATCH_BYTES / ((int64_t)sizeof(float) * w->cols);
    rows = rows < 1 ? 1 : rows < w->rows ? rows : w->rows;
    b.piece_rows = PIECE_WEIGHTS / w->cols > 0 ? PIECE_WEIGHTS / w->cols : 1;
    b.out = nb_alloc((size_t)rows, row_bytes);
    b.scratch = nb_alloc((size_t)nb_pool_threads(d->pool) * (size_t)w->cols, sizeof *b.scratch);
    int rc = b.out && b.scratch ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for '%s'", name);
    for (b.first = 0; b.first < w->rows && !rc; b.first += rows) {
        b.rows = w->rows - b.first < rows ? w->rows - b.first : rows;
        nb_pool_run(d->pool, (size_t)((b.rows + b.piece_rows - 1) / b.piece_rows), decode_piece,
                    &b);
        rc = nb_st_writer_put_at(d->writer, name, (uint64_t)b.first * row_bytes, b.out,
                                 (size_t)b.rows * row_bytes, err);
    }
    nb_free(b.out);
    nb_free(b.scratch);
    return rc;
}
