/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_blocks.c - products with weights in the blocks of a GGUF file, where they lie: pieces of rows are decoded
 * as they are needed, nothing is packed. Equal to the dense kernel on the decoded matrix to the last bit. */
#include <assert.h>

#include "backend/kernels.h"

static bool supports(const struct nb_weight *w)
{
    return !w->q && w->blocks.data && w->cols % w->blocks.type->elems == 0 &&
           w->blocks.type->elems <= NB_BLOCK_K;
}

static bool packed_bytes(const struct nb_cpu_ops *ops, const struct nb_weight *w, size_t *bytes)
{
    (void)ops;
    (void)w;
    *bytes = 0;
    return true;
}

/* Pieces start at multiples of NB_BLOCK_K, so they are whole blocks. */
static void load_row(const void *of, int64_t row, int64_t k0, int64_t n, float *out)
{
    const struct nb_weight *w = of;
    const struct nb_block_type *t = w->blocks.type;
    assert(k0 % t->elems == 0 && n % t->elems == 0);
    const size_t row_bytes = nb_block_row_bytes(t, w->cols);
    t->decode(w->blocks.data + (size_t)row * row_bytes + nb_block_row_bytes(t, k0), out, n);
}

static void run(const struct nb_cpu_ops *ops, const struct nb_scratch *s,
                const struct nb_gemm_job *job)
{
    nb_gemm_rows_run(ops, s, job, &(struct nb_row_source){.of = job->w, .load = load_row});
}

const struct nb_gemm_kernel nb_gemm_blocks = {
    .name = "blocks",
    .supports = supports,
    .packed_bytes = packed_bytes,
    .m_step = 0,
    .n_step = 128,
    .run = run,
};
