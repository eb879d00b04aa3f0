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

/* Packed panels of w to bf16 pairs; each stays where it begins and is half as long. */
static void pair(const struct nb_cpu_ops *ops, float *panels, int64_t count, int w, int64_t k)
{
    for (int64_t r = 0; r < count; r += w) ops->pair_bf16(panels + r * k, w, k);
}

static void scale(float *x, int64_t n, float alpha)
{
    for (int64_t i = 0; i < n; i++) x[i] *= alpha;
}

/* One tile of the result; a and b are its packed panels, k steps deep. */
struct tile_at {
    nb_tile_f32_fn fn;
    int64_t k;
    const float *a, *b;
    float *c;
    int64_t ldc;
    int rows, cols;
    bool add;
};

static void run_tile(const struct nb_cpu_ops *ops, const struct nb_scratch *s, const struct tile_at *t)
{
    const int nr = ops->nr;
    if (t->cols == nr) {
        t->fn(t->k, t->a, ops->mr, t->b, nr, t->c, t->ldc, t->rows, t->add);
        return;
    }
    /* The last, narrow panel of columns: through a full tile on the side. */
    t->fn(t->k, t->a, ops->mr, t->b, nr, s->tile, nr, t->rows, false);
    for (int r = 0; r < t->rows; r++) {
        const float *from = s->tile + r * nr;
        float *to = t->c + r * t->ldc;
        for (int j = 0; j < t->cols; j++) to[j] = t->add ? to[j] + from[j] : from[j];
    }
}

/* Rows [m0, m0 + m) of the block at depth k, from the packed panels of both sides. */
static void tiles(const struct nb_cpu_ops *ops, const struct nb_scratch *s, const struct nb_block *blk, int64_t m0,
                  int64_t k, bool add)
{
    const int mr = ops->mr, nr = ops->nr;
    const int64_t m = least(NB_BLOCK_M, blk->m - m0);
    struct tile_at t = {.fn = blk->bf16 ? ops->tile_bf16 : ops->tile_f32,
                        .k = blk->bf16 ? (k + 1) / 2 : k, .ldc = blk->ldc, .add = add};
    for (int64_t i = 0; i < m; i += mr) {
        t.rows = (int)least(mr, m - i);
        t.a = s->a + i * k;
        for (int64_t j = 0; j < blk->n; j += nr) {
            t.b = s->b + j * k;
            t.c = blk->c + (m0 + i) * blk->ldc + j;
            t.cols = (int)least(nr, blk->n - j);
            run_tile(ops, s, &t);
        }
    }
}

void nb_block_run(const struct nb_cpu_ops *ops, const struct nb_scratch *s, const struct nb_block *blk)
{
    for (int64_t k0 = 0; k0 < blk->k; k0 += NB_BLOCK_K) {
        int64_t k = least(NB_BLOCK_K, blk->k - k0);
        pack(ops, s, blk->b, blk->b0, blk->n, k0, k, ops->nr, s->b);
        if (blk->bf16) pair(ops, s->b, blk->n, ops->nr, k);
        for (int64_t m0 = 0; m0 < blk->m; m0 += NB_BLOCK_M) {
            int64_t m = least(NB_BLOCK_M, blk->m - m0);
            pack(ops, s, blk->a, blk->a0 + m0, m, k0, k, ops->mr, s->a);
            if (blk->alpha != 0) scale(s->a, (m + ops->mr - 1) / ops->mr * ops->mr * k, blk->alpha);
            if (blk->bf16) pair(ops, s->a, m, ops->mr, k);
            tiles(ops, s, blk, m0, k, blk->add || k0 > 0);
        }
    }
    if (blk->k == 0 && !blk->add) {
        for (int64_t i = 0; i < blk->m; i++) memset(blk->c + i * blk->ldc, 0, (size_t)blk->n * sizeof *blk->c);
    }
}
