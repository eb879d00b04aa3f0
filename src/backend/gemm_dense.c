/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_dense.c - products with f32, f16 and bf16 weights where they lie; converted to f32 while
 * packing. */
#include "backend/kernels.h"

static bool supports(const struct nb_weight *w)
{
    return !w->q && !w->blocks.data && nb_dtype_is_weight(w->dense.dtype);
}

static bool packed_bytes(const struct nb_cpu_ops *ops, const struct nb_weight *w, size_t *bytes)
{
    (void)ops;
    (void)w;
    *bytes = 0;
    return true;
}

static void run(const struct nb_cpu_ops *ops, const struct nb_scratch *s,
                const struct nb_gemm_job *job)
{
    const struct nb_weight *w = job->w;
    if (job->m <= NB_DOT_MAX_M && w->cols <= NB_DOT_MAX_K) {
        size_t skip = (size_t)(job->n0 * w->cols) * (size_t)nb_dtype_bits(w->dense.dtype) / 8;
        ops->dot(&(struct nb_dot){.x = job->x,
                                  .ldx = job->ldx,
                                  .m = job->m,
                                  .w = w->dense.data.data + skip,
                                  .type = w->dense.dtype,
                                  .ldw = w->cols,
                                  .rows = job->n1 - job->n0,
                                  .k = w->cols,
                                  .y = job->y + job->n0,
                                  .ldy = job->ldy});
        return;
    }
    struct nb_operand a = {.p = job->x, .type = NB_F32, .ld = job->ldx};
    struct nb_operand b = {.p = w->dense.data.data, .type = w->dense.dtype, .ld = w->cols};
    nb_block_run(ops, s,
                 &(struct nb_block){.a = &a,
                                    .b = &b,
                                    .b0 = job->n0,
                                    .m = job->m,
                                    .n = job->n1 - job->n0,
                                    .k = w->cols,
                                    .c = job->y + job->n0,
                                    .ldc = job->ldy,
                                    .bf16 = job->bf16});
}

const struct nb_gemm_kernel nb_gemm_dense = {
    .name = "dense",
    .supports = supports,
    .packed_bytes = packed_bytes,
    .m_step = NB_BLOCK_M,
    .n_step = NB_BLOCK_N,
    .run = run,
};
