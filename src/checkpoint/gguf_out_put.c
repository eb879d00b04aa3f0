/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_out_put.c - the data of one tensor of a GGUF file: a few megabytes of rows at a time are read, encoded
 * over the pool and written, and the source's pages let go. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "checkpoint/gguf_out_internal.h"
#include "numeric/block.h"

enum { BATCH_BYTES = 8 << 20, PIECE_WEIGHTS = 1 << 15 };

struct failure { /* of the first piece that failed, one per thread */
    size_t piece;
    struct nb_err err;
    bool set;
};

struct batch {
    const struct nb_gguf_planned *p;
    const struct nb_weight *w; /* rows of the source */
    bool ordered;              /* w's rows are in GGUF's order already */
    int64_t first, rows;       /* of GGUF's rows */
    int64_t piece_rows;
    unsigned char *out;
    float *scratch; /* [threads, cols] */
    struct failure *failures;
};

static int64_t source_row(const struct nb_gguf_planned *p, bool ordered, int64_t row)
{
    if (ordered || p->change != NB_ARCH_GGUF_PERMUTE_ROWS) return row;
    return nb_arch_gguf_hf_row(p->item.rows, p->heads, row);
}

static void encode_piece(void *ctx, size_t piece, int thread)
{
    struct batch *b = ctx;
    const struct nb_gguf_item *it = &b->p->item;
    const size_t row_bytes = nb_block_row_bytes(it->type, it->cols);
    float *x = b->scratch + (size_t)thread * (size_t)it->cols;
    int64_t from = (int64_t)piece * b->piece_rows, to = from + b->piece_rows;
    if (to > b->rows) to = b->rows;
    for (int64_t r = from; r < to; r++) {
        const int64_t row = source_row(b->p, b->ordered, b->first + r);
        struct failure *f = &b->failures[thread];
        struct nb_err err;
        nb_weight_row(b->w, row, x);
        int rc = nb_block_encode(it->type, x, it->importance, it->cols,
                                 b->out + (size_t)r * row_bytes, &err);
        if (!rc || (f->set && f->piece <= piece)) continue;
        *f = (struct failure){piece, err, true};
        nb_err_prefix(&f->err, "tensor '%s', row %" PRId64, it->name, row);
    }
}

/* The error of the first piece that failed. */
static int first_failure(const struct failure *f, int threads, struct nb_err *err)
{
    const struct failure *first = NULL;
    for (int i = 0; i < threads; i++) {
        if (f[i].set && (!first || f[i].piece < first->piece)) first = &f[i];
    }
    if (!first) return 0;
    if (err) *err = first->err;
    return first->err.status;
}

/* Bytes of the mapped source that were read: rows in order, so the pages behind are of no more use. */
static void let_go(const struct batch *b, const struct nb_span *mapped)
{
    if (!mapped || source_row(b->p, b->ordered, 1) != 1) return;
    const size_t row_bytes = mapped->bytes / (size_t)b->p->item.rows;
    struct nb_map map = {.span = *mapped};
    nb_map_drop(&map, mapped->data + (size_t)b->first * row_bytes, (size_t)b->rows * row_bytes);
}

/* All rows of w; `mapped` is the file's memory behind them, or NULL. */
static int put_weight(struct nb_gguf_out *o, const struct batch *from, const struct nb_span *mapped,
                      struct nb_pool *pool, struct nb_err *err)
{
    struct batch b = *from;
    const struct nb_gguf_item *it = &b.p->item;
    const int threads = nb_pool_threads(pool);
    const size_t row_bytes = nb_block_row_bytes(it->type, it->cols);
    int64_t rows = BATCH_BYTES / ((int64_t)sizeof(float) * it->cols), most = it->rows;
    rows = rows < 1 ? 1 : rows < most ? rows : most;
    b.piece_rows = PIECE_WEIGHTS / it->cols > 0 ? PIECE_WEIGHTS / it->cols : 1;
    b.out = nb_alloc((size_t)rows, row_bytes);
    b.scratch = nb_alloc((size_t)threads * (size_t)it->cols, sizeof *b.scratch);
    b.failures = nb_calloc((size_t)threads, sizeof *b.failures);
    int rc = 0;
    if (!b.out || !b.scratch || !b.failures)
        rc = nb_fail(err, NB_E_NOMEM, "no memory to encode tensor '%s'", it->name);
    for (b.first = 0; b.first < it->rows && !rc; b.first += rows) {
        b.rows = it->rows - b.first < rows ? it->rows - b.first : rows;
        size_t pieces = (size_t)((b.rows + b.piece_rows - 1) / b.piece_rows);
        nb_pool_run(pool, pieces, encode_piece, &b);
        rc = first_failure(b.failures, threads, err);
        if (!rc) {
            rc = nb_gguf_writer_put_at(o->writer, it->name, (uint64_t)b.first * row_bytes, b.out,
                                       (size_t)b.rows * row_bytes, err);
        }
        let_go(&b, mapped);
    }
    nb_free(b.out);
    nb_free(b.scratch);
    nb_free(b.failures);
    return rc;
}

/* ---- from the source ---- */

static int put_floats(struct nb_gguf_out *o, const struct nb_gguf_planned *p, const float *v,
                      struct nb_err *err)
{
    const struct nb_gguf_item *it = &p->item;
    void *out = nb_alloc((size_t)it->bytes, 1);
    if (!out) return nb_fail(err, NB_E_NOMEM, "no memory for tensor '%s'", it->name);
    int rc = nb_block_encode(it->type, v, NULL, it->cols, out, err);
    if (rc) nb_err_prefix(err, "tensor '%s'", it->name);
    else rc = nb_gguf_writer_put(o->writer, it->name, out, (size_t)it->bytes, err);
    nb_free(out);
    return rc;
}

/* A norm or a bias of a folder: f32, with what GGUF wants changed. */
static int put_vector(struct nb_gguf_out *o, const struct nb_gguf_planned *p, struct nb_err *err)
{
    const int64_t n = p->item.cols;
    struct nb_tensor t;
    int rc = nb_model_tensor(o->model, p->item.source, &t, err);
    if (rc) return rc;
    float *x = nb_alloc(2 * (size_t)n, sizeof *x), *v = x ? x + n : NULL;
    if (!x) return nb_fail(err, NB_E_NOMEM, "no memory for tensor '%s'", p->item.name);
    if (nb_tensor_count(&t) != n || !nb_to_f32(x, t.data.data, t.dtype, (size_t)n))
        rc = nb_fail(err, NB_E_FORMAT, "tensor '%s' is not as planned", p->item.source);
    for (int64_t i = 0; i < n && !rc; i++) {
        v[i] = p->change == NB_ARCH_GGUF_PERMUTE_ROWS ? x[nb_arch_gguf_hf_row(n, p->heads, i)]
               : p->change == NB_ARCH_GGUF_ADD_ONE    ? x[i] + 1.0f
                                                      : x[i];
    }
    if (!rc) rc = put_floats(o, p, v, err);
    nb_free(x);
    return rc;
}

static int load_weight(const struct nb_gguf_out *o, const struct nb_gguf_planned *p,
                       struct nb_arena *arena, struct nb_weight *w, struct nb_err *err)
{
    int n;
    switch (p->kind) {
    case NB_PART_EMBEDDING: return nb_model_embedding(o->model, w, err);
    case NB_PART_POSITIONS: return nb_model_positions(o->model, w, err);
    case NB_PART_HEAD: return nb_model_head(o->model, arena, w, err);
    default: {
        const struct nb_arch_linear *linears =
            nb_arch_layer_linears(&o->model->arch, p->item.layer, &n);
        return nb_model_linear(o->model, p->item.layer, &linears[p->item.linear], arena, w, err);
    }
    }
}

static int put_matrix(struct nb_gguf_out *o, const struct nb_gguf_planned *p, struct nb_pool *pool,
                      struct nb_err *err)
{
    struct nb_arena arena;
    struct nb_weight w;
    nb_arena_init(&arena);
    int rc = load_weight(o, p, &arena, &w, err);
    if (!rc) {
        struct batch b = {.p = p, .w = &w};
        const bool in_file = !w.q && p->change != NB_ARCH_GGUF_TRANSPOSE; /* not a copy */
        rc = put_weight(o, &b, in_file ? &w.dense.data : NULL, pool, err);
        if (!w.q) {
            const struct nb_tensor *t = nb_safetensors_find(o->model->tensors, p->item.source);
            if (t) nb_safetensors_drop(o->model->tensors, t);
        }
    }
    nb_arena_release(&arena);
    return rc;
}

/* A tensor of a GGUF source that keeps its type, piece by piece. */
static int copy_raw(struct nb_gguf_out *o, const struct nb_gguf_planned *p, struct nb_err *err)
{
    const struct nb_gguf_tensor *t = p->raw;
    size_t at;
    if (!nb_gguf_tensor_is_finite(t, &at)) {
        return nb_fail(err, NB_E_FORMAT, "tensor '%s' (%s) holds no finite number at element %zu",
                       t->name, t->type->name, at);
    }
    int rc = 0;
    for (size_t done = 0; done < t->data.bytes && !rc; done += BATCH_BYTES) {
        size_t n = t->data.bytes - done < BATCH_BYTES ? t->data.bytes - done : BATCH_BYTES;
        rc = nb_gguf_writer_put_at(o->writer, t->name, done, t->data.data + done, n, err);
    }
    nb_gguf_drop(o->model->gguf, t);
    return rc;
}

static int put_raw(struct nb_gguf_out *o, const struct nb_gguf_planned *p, struct nb_pool *pool,
                   struct nb_err *err)
{
    const struct nb_gguf_item *it = &p->item;
    if (it->type == p->from) return copy_raw(o, p, err);
    struct nb_weight w = {.name = it->name, .rows = it->rows, .cols = it->cols};
    w.blocks = (struct nb_blocks){p->from, p->raw->data.data};
    struct batch b = {.p = p, .w = &w, .ordered = true};
    int rc = put_weight(o, &b, &p->raw->data, pool, err);
    nb_gguf_drop(o->model->gguf, p->raw);
    return rc;
}

int nb_gguf_out_put_source(struct nb_gguf_out *o, size_t i, struct nb_pool *pool,
                           struct nb_err *err)
{
    const struct nb_gguf_planned *p = &o->items[i];
    if (p->raw) return put_raw(o, p, pool, err);
    if (!p->item.source[0]) return put_floats(o, p, p->values, err);
    bool vector = p->kind == NB_PART_NORM || p->kind == NB_PART_BIAS;
    return vector ? put_vector(o, p, err) : put_matrix(o, p, pool, err);
}

/* ---- from a solver ---- */

int nb_gguf_out_put_rows(struct nb_gguf_out *o, size_t i, const float *w, struct nb_pool *pool,
                         struct nb_err *err)
{
    const struct nb_gguf_planned *p = &o->items[i];
    struct nb_weight weight = {.name = p->item.name, .rows = p->item.rows, .cols = p->item.cols};
    weight.dense = (struct nb_tensor){
        .name = p->item.name,
        .dtype = NB_F32,
        .rank = 2,
        .shape = {p->item.rows, p->item.cols},
        .data = {(const unsigned char *)w, (size_t)(p->item.rows * p->item.cols) * sizeof *w}};
    struct batch b = {.p = p, .w = &weight};
    return put_weight(o, &b, NULL, pool, err);
}

int nb_gguf_out_put_qmat(struct nb_gguf_out *o, size_t i, const struct nb_qmat *q,
                         struct nb_err *err)
{
    const struct nb_gguf_planned *p = &o->items[i];
    const struct nb_gguf_item *it = &p->item;
    const size_t row_bytes = nb_block_row_bytes(it->type, it->cols);
    if (q->rows != it->rows || q->cols != it->cols) {
        return nb_fail(err, NB_E_SPEC,
                       "tensor '%s': codes are %" PRId64 " x %" PRId64 ", expected %" PRId64
                       " x %" PRId64,
                       it->name, q->rows, q->cols, it->rows, it->cols);
    }
    unsigned char *out = nb_alloc((size_t)it->bytes, 1);
    if (!out) return nb_fail(err, NB_E_NOMEM, "no memory for tensor '%s'", it->name);
    int rc = 0;
    if (p->change != NB_ARCH_GGUF_PERMUTE_ROWS) {
        rc = nb_block_from_qmat(it->type, q, 0, it->rows, out, err);
    } else {
        for (int64_t r = 0; r < it->rows && !rc; r++) {
            rc = nb_block_from_qmat(it->type, q, source_row(p, false, r), 1,
                                    out + (size_t)r * row_bytes, err);
        }
    }
    if (rc) nb_err_prefix(err, "tensor '%s'", it->name);
    else rc = nb_gguf_writer_put(o->writer, it->name, out, (size_t)it->bytes, err);
    nb_free(out);
    return rc;
}

int nb_gguf_out_put_blocks(struct nb_gguf_out *o, size_t i, const struct nb_gguf_rows *rows,
                           struct nb_err *err)
{
    const struct nb_gguf_planned *p = &o->items[i];
    const struct nb_gguf_item *it = &p->item;
    const size_t row_bytes = nb_block_row_bytes(it->type, it->cols);
    const size_t bytes = (size_t)rows->n * row_bytes;
    if (p->change != NB_ARCH_GGUF_PERMUTE_ROWS) {
        return nb_gguf_writer_put_at(o->writer, it->name, (uint64_t)rows->row0 * row_bytes,
                                     rows->bytes, bytes, err);
    }
    unsigned char *out = rows->n == it->rows ? nb_alloc(bytes, 1) : NULL;
    if (!out) return nb_fail(err, NB_E_NOMEM, "no memory for tensor '%s'", it->name);
    for (int64_t r = 0; r < it->rows; r++) {
        memcpy(out + (size_t)r * row_bytes,
               rows->bytes + (size_t)source_row(p, false, r) * row_bytes, row_bytes);
    }
    int rc = nb_gguf_writer_put(o->writer, it->name, out, bytes, err);
    nb_free(out);
    return rc;
}
