/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb_encode.c - float matrices as bitsandbytes' tensors, for tests/interop/bnb_encode.py to compare with its own.
 *
 * Usage: bnb_encode IN OUT
 * IN: for each matrix five int64 (kind 0 NF4, 1 FP4, 2 INT8; rows; cols; block; nested) and its weights as f32.
 * OUT: for each matrix a line "N", for each of its N tensors a line "SUFFIX BYTES" and the bytes, and last the
 * weights that the tensors mean, as f32. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/pool.h"
#include "checkpoint/checkpoint.h"
#include "numeric/elems.h"
#include "numeric/numeric.h"

enum { NF4, FP4, INT8 };

struct request {
    int64_t kind, rows, cols, block, nested;
};

static struct nb_qspec spec_of(const struct request *r)
{
    if (r->kind == INT8) {
        return (struct nb_qspec){.elem = {.kind = NB_ELEM_INT, .bits = 8, .vec = 1},
                                 .group_rows = 1,
                                 .group_cols = -1,
                                 .scale_dtype = NB_F32,
                                 .zero = NB_ZERO_CODE,
                                 .symmetric = true,
                                 .zero_implied = true,
                                 .act = NB_ACT_INT8_OUTLIER,
                                 .act_threshold = 6.0f};
    }
    struct nb_qspec spec = {.elem = r->kind == NF4 ? nb_elem_nf4 : nb_elem_fp4,
                            .group_rows = 1,
                            .group_cols = r->block,
                            .flat = true,
                            .scale_dtype = NB_F32};
    if (r->nested) {
        spec.super_groups = 256;
        spec.super_flat = true;
        spec.scale_bits = 8;
        spec.scale_table = nb_dynamic_map;
    }
    return spec;
}

static int encode(const struct request *r, const float *w, struct nb_pool *pool, FILE *out,
                  struct nb_err *err)
{
    const struct nb_grid_opts grid = {.spec = spec_of(r)};
    const struct nb_pack_opts pack = {.source = NB_F32, .storage = NB_U8};
    struct nb_packed_tensor t[NB_MAX_PACKED];
    struct nb_arena arena;
    struct nb_qmat q;
    int n = 0;
    nb_arena_init(&arena);
    int rc = nb_qmat_init(&q, &grid.spec, r->rows, r->cols, &arena, err);
    if (!rc) rc = nb_numeric_for(&grid.spec)->encode(&q, &grid, w, pool, err);
    if (!rc) rc = nb_checkpoint_find("bnb")->pack(&q, &pack, &arena, t, &n, err);
    if (!rc) fprintf(out, "%d\n", n);
    for (int i = 0; i < n && !rc; i++) {
        size_t bytes = (size_t)nb_dtype_bits(t[i].dtype) / 8;
        for (int d = 0; d < t[i].rank; d++) bytes *= (size_t)t[i].shape[d];
        fprintf(out, "%s %zu\n", t[i].suffix, bytes);
        fwrite(t[i].data, 1, bytes, out);
    }
    float *row = nb_arena_alloc(&arena, (size_t)r->cols, sizeof *row);
    for (int64_t k = 0; k < r->rows && !rc && row; k++) {
        nb_qmat_dequant_row(&q, k, row);
        fwrite(row, sizeof *row, (size_t)r->cols, out);
    }
    nb_arena_release(&arena);
    return rc;
}

static int run(FILE *in, FILE *out, struct nb_pool *pool, struct nb_err *err)
{
    struct request r;
    int rc = 0;
    while (!rc && fread(&r, sizeof r, 1, in) == 1) {
        const size_t n = (size_t)(r.rows * r.cols);
        float *w = nb_alloc(n, sizeof *w);
        if (!w || fread(w, sizeof *w, n, in) != n)
            rc = nb_fail(err, NB_E_FORMAT, "a matrix is cut short");
        else rc = encode(&r, w, pool, out, err);
        nb_free(w);
    }
    return rc;
}

int main(int argc, char **argv)
{
    struct nb_err err = {0};
    FILE *in = argc == 3 ? fopen(argv[1], "rb") : NULL, *out = in ? fopen(argv[2], "wb") : NULL;
    struct nb_pool *pool = nb_pool_new(2, &err);
    if (!in || !out || !pool) {
        fprintf(stderr, "usage: bnb_encode IN OUT\n");
        return 2;
    }
    int rc = run(in, out, pool, &err);
    if (rc) fprintf(stderr, "bnb_encode: %s\n", err.text);
    if (fclose(out) && !rc) rc = 1;
    fclose(in);
    nb_pool_free(pool);
    return rc ? 1 : 0;
}
