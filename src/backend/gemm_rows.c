/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_rows.c - products with weights whose rows are made f32 a piece at a time: few rows of x read each piece
 * while it is in cache, many go through tiles, into whose panels the pieces are packed. */
#include "backend/kernels.h"

enum {
    AT_ONCE = 8192
}; /* floats made before they are multiplied: the first cache; at least 4 rows */

static void run_dots(const struct nb_cpu_ops *ops, const struct nb_scratch *s,
                     const struct nb_gemm_job *job, const struct nb_row_source *source)
{
    const int64_t cols = job->w->cols, most = NB_DOT_MAX_K / cols;
    int64_t step = AT_ONCE / cols < 4 ? 4 : AT_ONCE / cols;
    if (step > most) step = most;
    for (int64_t n = job->n0; n < job->n1; n += step) {
        const int64_t rows = job->n1 - n < step ? job->n1 - n : step;
        for (int64_t r = 0; r < rows; r++)
            source->load(source->of, n + r, 0, cols, s->rows + r * cols);
        ops->dot(&(struct nb_dot){.x = job->x,
                                  .ldx = job->ldx,
                                  .m = job->m,
                                  .w = s->rows,
                                  .type = NB_F32,
                                  .ldw = cols,
                                  .rows = rows,
                                  .k = cols,
                                  .y = job->y + n,
                                  .ldy = job->ldy});
    }
}

void nb_gemm_rows_run(const struct nb_cpu_ops *ops, const struct nb_scratch *s,
                      const struct nb_gemm_job *job, const struct nb_row_source *source)
{
    if (job->m <= NB_DOT_MAX_M && job->w->cols <= NB_DOT_MAX_K) {
        run_dots(ops, s, job, source);
        return;
    }
    struct nb_operand a = {.p = job->x, .type = NB_F32, .ld = job->ldx};
    struct nb_operand b = {.p = source->of, .type = NB_F32, .load = source->load};
    nb_block_run(ops, s,
                 &(struct nb_block){.a = &a,
                                    .b = &b,
                                    .b0 = job->n0,
                                    .m = job->m,
                                    .n = job->n1 - job->n0,
                                    .k = job->w->cols,
                                    .c = job->y + job->n0,
                                    .ldc = job->ldy,
                                    .bf16 = job->bf16});
}
