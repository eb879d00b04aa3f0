/* SPDX-License-Identifier: Apache-2.0
 *
 * block.c - one thread's share of a product: pack panels of both sides, multiply them tile by tile.
 *
 * Per NB_BLOCK_K of depth, the columns' panels are packed once (converting to f32 or to pairs of
 * bf16, so that a weight matrix never exists in another type as a whole), then for each NB_BLOCK_M
 * rows their panels, then all tiles. A row's sum is cut at multiples of NB_BLOCK_K whatever m and n
 * are: the same row gives the same bits in any batch. */
#include <assert.h>
#include <string.h>

#include "backend/internal.h"

static inline int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

struct work { /* one block at one depth */
    const struct nb_cpu_ops *ops;
    const struct nb_scratch *s;
    const struct nb_block *blk;
    int64_t k0, k;
    bool add;
};

/* Packs vectors [first, first + count) of op at this depth into panels of w. */
static void pack(const struct work *work, const struct nb_operand *op, int64_t first, int64_t count,
                 int w, float *dst)
{
    const struct nb_cpu_ops *ops = work->ops;
    const bool bf16 = work->blk->bf16;
    const int64_t size = nb_dtype_bits(op->type) / 8, k = work->k;
    const nb_pack_fn rows_fn = bf16 ? ops->pack_rows_bf16 : ops->pack_rows_f32;
    const nb_pack_fn cols_fn = bf16 ? ops->pack_cols_bf16 : ops->pack_cols_f32;
    struct nb_pack p = {.dst = dst, .w = w, .type = op->type, .ld = op->ld, .k = k};
    for (int64_t r = 0; r < count; r += w, p.dst += k * w) {
        p.rows = (int)least(w, count - r);
        if (op->load) {
            for (int i = 0; i < p.rows; i++)
                op->load(op->p, first + r + i, work->k0, k, work->s->rows + i * k);
            p.src = work->s->rows;
            p.ld = k;
            rows_fn(&p);
        } else if (op->k_outer) {
            p.src = (const float *)op->p + work->k0 * op->ld + first + r;
            cols_fn(&p);
        } else {
            p.src = (const unsigned char *)op->p + ((first + r) * op->ld + work->k0) * size;
            rows_fn(&p);
        }
    }
}

static void scale(float *x, int64_t n, float alpha)
{
    for (int64_t i = 0; i < n; i++) x[i] *= alpha;
}

static void run_tile(const struct work *work, struct nb_tile_f32 *t, int64_t cols)
{
    const struct nb_cpu_ops *ops = work->ops;
    const nb_tile_f32_fn fn = work->blk->bf16 ? ops->tile_bf16 : ops->tile_f32;
    if (cols >= ops->nr) {
        fn(t);
        return;
    }
    /* The last, narrow panel of columns: through a full tile on the side. */
    struct nb_tile_f32 side = *t;
    side.c = work->s->tile;
    side.ldc = ops->nr;
    side.add = false;
    fn(&side);
    for (int r = 0; r < t->rows; r++) {
        const float *from = side.c + r * side.ldc;
        float *to = t->c + r * t->ldc;
        for (int64_t j = 0; j < cols; j++) to[j] = t->add ? to[j] + from[j] : from[j];
    }
}

/* Rows [m0, m0 + m) of the block from the packed panels of both sides. */
static void tiles(const struct work *work, int64_t m0, int64_t m)
{
    const struct nb_block *blk = work->blk;
    const int mr = work->ops->mr, nr = work->ops->nr;
    struct nb_tile_f32 t = {.k = blk->bf16 ? (work->k + 1) / 2 : work->k,
                            .lda = mr,
                            .ldb = nr,
                            .ldc = blk->ldc,
                            .add = work->add};
    for (int64_t i = 0; i < m; i += mr) {
        t.rows = (int)least(mr, m - i);
        t.a = work->s->a + i * work->k;
        for (int64_t j = 0; j < blk->n; j += nr) {
            t.b = work->s->b + j * work->k;
            t.c = blk->c + (m0 + i) * blk->ldc + j;
            run_tile(work, &t, blk->n - j);
        }
    }
}

void nb_block_run(const struct nb_cpu_ops *ops, const struct nb_scratch *s,
                  const struct nb_block *blk)
{
    assert(!blk->bf16 || blk->alpha == 0);
    struct work work = {.ops = ops, .s = s, .blk = blk};
    for (work.k0 = 0; work.k0 < blk->k; work.k0 += NB_BLOCK_K) {
        work.k = least(NB_BLOCK_K, blk->k - work.k0);
        work.add = blk->add || work.k0 > 0;
        pack(&work, blk->b, blk->b0, blk->n, ops->nr, s->b);
        for (int64_t m0 = 0; m0 < blk->m; m0 += NB_BLOCK_M) {
            int64_t m = least(NB_BLOCK_M, blk->m - m0);
            pack(&work, blk->a, blk->a0 + m0, m, ops->mr, s->a);
            if (blk->alpha != 0)
                scale(s->a, (m + ops->mr - 1) / ops->mr * ops->mr * work.k, blk->alpha);
            tiles(&work, m0, m);
        }
    }
    if (blk->k == 0 && !blk->add) {
        for (int64_t i = 0; i < blk->m; i++)
            memset(blk->c + i * blk->ldc, 0, (size_t)blk->n * sizeof *blk->c);
    }
}
