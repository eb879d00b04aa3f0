/* SPDX-License-Identifier: Apache-2.0
 *
 * block.c - one thread's share of a product: pack panels of both sides, multiply them tile by tile.
 *
 * Per NB_BLOCK_K of depth, the columns' panels are packed once (converting to f32, so that a weight matrix
 * never exists in f32 as a whole), then for each NB_BLOCK_M rows their panels, then all tiles. A row's sum is
 * cut at multiples of NB_BLOCK_K whatever m and n are: the same row gives the same bits in any batch. */
#include <string.h>

#include "backend/internal.h"

static inline int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Packs vectors [first, first + count) of op, elements [k0, k0 + k), into panels of w. */
static void pack(const struct nb_cpu_ops *ops, const struct nb_scratch *s, const struct nb_operand *op,
                 int64_t first, int64_t count, int64_t k0, int64_t k, int w, float *dst)
{
    const int64_t size = nb_dtype_bits(op->type) / 8;
    for (int64_t r = 0; r < count; r += w, dst += k * w) {
        int rows = (int)least(w, count - r);
        if (op->load) {
            for (int i = 0; i < rows; i++) op->load(op->p, first + r + i, k0, k, s->rows + i * k);
            ops->pack_rows_f32(dst, w, s->rows, NB_F32, k, rows, k);
        } else if (op->k_outer) {
            ops->pack_cols_f32(dst, w, (const float *)op->p + k0 * op->ld + first + r, op->ld, rows, k);
        } else {
            const unsigned char *from = (const unsigned char *)op->p + ((first + r) * op->ld + k0) * size;
            ops->pack_rows_f32(dst, w, from, op->type, op->ld, rows, k);
        }
    }
}

static void scale(float *x, int64_t n, float alpha)
{
    for (int64_t i = 0; i < n; i++) x[i] *= alpha;
}

/* The last, narrow panel of columns: through a full tile on the side. */
static void narrow_tile(const struct nb_cpu_ops *ops, const struct nb_scratch *s, int64_t k, const float *a,
                        const float *b, float *c, int64_t ldc, int rows, int cols, bool add)
{
    ops->tile_f32(k, a, ops->mr, b, ops->nr, s->tile, ops->nr, rows, false);
    for (int r = 0; r < rows; r++) {
        const float *from = s->tile + r * ops->nr;
        float *to = c + r * ldc;
        for (int j = 0; j < cols; j++) to[j] = add ? to[j] + from[j] : from[j];
    }
}

static void tiles(const struct nb_cpu_ops *ops, const struct nb_scratch *s, const struct nb_block *blk, int64_t m0,
                  int64_t m, int64_t k, bool add)
{
    const int mr = ops->mr, nr = ops->nr;
    for (int64_t i = 0; i < m; i += mr) {
        int rows = (int)least(mr, m - i);
        const float *a = s->a + i * k;
        float *c = blk->c + (m0 + i) * blk->ldc;
        for (int64_t j = 0; j < blk->n; j += nr) {
            const float *b = s->b + j * k;
            if (blk->n - j >= nr) {
                ops->tile_f32(k, a, mr, b, nr, c + j, blk->ldc, rows, add);
            } else {
                narrow_tile(ops, s, k, a, b, c + j, blk->ldc, rows, (int)(blk->n - j), add);
            }
        }
    }
}

void nb_block_run(const struct nb_cpu_ops *ops, const struct nb_scratch *s, const struct nb_block *blk)
{
    for (int64_t k0 = 0; k0 < blk->k; k0 += NB_BLOCK_K) {
        int64_t k = least(NB_BLOCK_K, blk->k - k0);
        pack(ops, s, blk->b, blk->b0, blk->n, k0, k, ops->nr, s->b);
        for (int64_t m0 = 0; m0 < blk->m; m0 += NB_BLOCK_M) {
            int64_t m = least(NB_BLOCK_M, blk->m - m0);
            pack(ops, s, blk->a, blk->a0 + m0, m, k0, k, ops->mr, s->a);
            if (blk->alpha != 0) scale(s->a, (m + ops->mr - 1) / ops->mr * ops->mr * k, blk->alpha);
            tiles(ops, s, blk, m0, m, k, blk->add || k0 > 0);
        }
    }
    if (blk->k == 0 && !blk->add) {
        for (int64_t i = 0; i < blk->m; i++) memset(blk->c + i * blk->ldc, 0, (size_t)blk->n * sizeof *blk->c);
    }
}
