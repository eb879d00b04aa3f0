/* SPDX-License-Identifier: Apache-2.0
 *
 * dense.c - dense linear algebra for the quantizers: general products, and the sums behind
 * Hessians. */
#include "backend/internal.h"

/* ---- general product ---- */

struct gemm_run {
    struct nb_backend *be;
    const struct nb_gemm *g;
    struct nb_operand a, b;
    int64_t m_pieces, n_pieces;
};

static void gemm_piece(void *ctx, size_t piece, int thread)
{
    const struct gemm_run *run = ctx;
    const struct nb_gemm *g = run->g;
    const struct nb_cpu_ops *ops = &run->be->ops;
    int64_t mi = (int64_t)piece % run->m_pieces, ni = (int64_t)piece / run->m_pieces;
    int64_t m0 = nb_piece_start(g->m, ops->mr, run->m_pieces, mi);
    int64_t m1 = nb_piece_start(g->m, ops->mr, run->m_pieces, mi + 1);
    int64_t n0 = nb_piece_start(g->n, ops->nr, run->n_pieces, ni);
    int64_t n1 = nb_piece_start(g->n, ops->nr, run->n_pieces, ni + 1);
    if (m1 <= m0 || n1 <= n0) return;
    struct nb_block blk = {.a = &run->a,
                           .b = &run->b,
                           .a0 = m0,
                           .b0 = n0,
                           .m = m1 - m0,
                           .n = n1 - n0,
                           .k = g->k,
                           .c = g->c + m0 * g->ldc + n0,
                           .ldc = g->ldc,
                           .add = g->accumulate};
    if (g->alpha == 0) blk.k = 0;
    else if (g->alpha != 1) blk.alpha = g->alpha;
    nb_block_run(ops, &run->be->scratch[thread], &blk);
}

void nb_gemm_run(struct nb_backend *be, const struct nb_gemm *g)
{
    if (g->m <= 0 || g->n <= 0) return;
    struct gemm_run run = {.be = be, .g = g};
    run.a = (struct nb_operand){.p = g->a, .type = NB_F32, .ld = g->lda, .k_outer = g->ta};
    run.b = (struct nb_operand){.p = g->b, .type = NB_F32, .ld = g->ldb, .k_outer = !g->tb};
    run.m_pieces = (g->m + NB_BLOCK_M - 1) / NB_BLOCK_M;
    if (run.m_pieces > 1) run.m_pieces += run.m_pieces & 1;
    run.n_pieces = (g->n + NB_BLOCK_N - 1) / NB_BLOCK_N;
    nb_pool_run(nb_backend_pool_for(be, g->m * g->n * g->k), (size_t)(run.m_pieces * run.n_pieces),
                gemm_piece, &run);
}

/* ---- sums over tokens ----
 *
 * Square tiles of the result are the pieces; each runs over all tokens. Products of SUM_TOKENS
 * tokens are summed in f32, inside the register tile and in a tile on the side, then added to the
 * f64 result. */

enum {
    SUM_TOKENS = 2048,
    SUM_TILE = 224, /* at most; whole panels of 14, 32 and 16 */
};
_Static_assert(2 * SUM_TILE * NB_BLOCK_K + 2 * NB_PACK_SLACK + SUM_TILE * SUM_TILE <=
                   NB_SCRATCH_MIN_FLOATS,
               "the panels and the sums of a tile must fit the scratch");

struct sum_run {
    struct nb_backend *be;
    double *out;
    const float *a, *b;
    int64_t m, ld, k, tiles;
    bool upper, bf16;
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Piece number to tile row and column. Upper triangle: whole tiles first, then those on the
 * diagonal, which cost half, so that the pieces handed out last are the small ones. */
static void sum_tile(const struct sum_run *run, int64_t piece, int64_t *row, int64_t *col)
{
    if (!run->upper) {
        *row = piece / run->tiles;
        *col = piece % run->tiles;
        return;
    }
    int64_t above = run->tiles * (run->tiles - 1) / 2;
    if (piece >= above) {
        *row = *col = piece - above;
        return;
    }
    *row = 0;
    for (int64_t left = run->tiles - 1; piece >= left; left--) {
        piece -= left;
        ++*row;
    }
    *col = *row + 1 + piece;
}

/* First column of tile t: tiles are nearly equal, in whole panels. */
static int64_t border(const struct sum_run *run, int64_t t)
{
    return nb_piece_start(run->k, run->be->ops.nr, run->tiles, t);
}

/* Panels of w columns of x, `tokens` deep. */
static void pack_tokens(const struct sum_run *run, const float *x, int64_t cols, int64_t tokens,
                        int w, float *dst)
{
    const struct nb_cpu_ops *ops = &run->be->ops;
    const nb_pack_fn fn = run->bf16 ? ops->pack_cols_bf16 : ops->pack_cols_f32;
    struct nb_pack p = {.dst = dst, .w = w, .type = NB_F32, .ld = run->ld, .k = tokens};
    for (int64_t j = 0; j < cols; j += w, p.dst += tokens * w) {
        p.src = x + j;
        p.rows = (int)least(w, cols - j);
        fn(&p);
    }
}

/* One piece: part [rows, width] holds rows x cols of the result over some tokens; a and b are
 * packed panels. */
struct sum_part {
    float *a, *b, *part;
    int64_t width, rows, cols;
    bool diagonal; /* tiles below the diagonal are left out */
};

/* part (+)= products of the `tokens` packed in a and b. */
static void sum_products(const struct sum_run *run, const struct sum_part *p, int64_t tokens,
                         bool more)
{
    const struct nb_cpu_ops *ops = &run->be->ops;
    const nb_tile_f32_fn fn = run->bf16 ? ops->tile_bf16 : ops->tile_f32;
    struct nb_tile_f32 t = {.k = run->bf16 ? (tokens + 1) / 2 : tokens,
                            .lda = ops->mr,
                            .ldb = ops->nr,
                            .ldc = p->width,
                            .add = more};
    for (int64_t i = 0; i < p->rows; i += ops->mr) {
        t.rows = (int)least(ops->mr, p->rows - i);
        t.a = p->a + i * tokens;
        for (int64_t j = p->diagonal ? i / ops->nr * ops->nr : 0; j < p->cols; j += ops->nr) {
            t.b = p->b + j * tokens;
            t.c = p->part + i * p->width + j;
            fn(&t);
        }
    }
}

static void sum_piece(void *ctx, size_t piece, int thread)
{
    const struct sum_run *run = ctx;
    const struct nb_cpu_ops *ops = &run->be->ops;
    int64_t ti, tj;
    sum_tile(run, (int64_t)piece, &ti, &tj);
    const int64_t i0 = border(run, ti), j0 = border(run, tj);
    struct sum_part p = {.rows = border(run, ti + 1) - i0,
                         .cols = border(run, tj + 1) - j0,
                         .diagonal = run->upper && ti == tj};
    p.width = (p.cols + ops->nr - 1) / ops->nr * ops->nr;
    p.a = run->be->scratch[thread].all;
    p.b = p.a + SUM_TILE * NB_BLOCK_K + NB_PACK_SLACK;
    p.part = p.b + SUM_TILE * NB_BLOCK_K + NB_PACK_SLACK;
    for (int64_t t0 = 0; t0 < run->m; t0 += SUM_TOKENS) {
        const int64_t end = least(t0 + SUM_TOKENS, run->m);
        for (int64_t t = t0; t < end; t += NB_BLOCK_K) {
            const int64_t tokens = least(NB_BLOCK_K, end - t);
            pack_tokens(run, run->a + t * run->ld + i0, p.rows, tokens, ops->mr, p.a);
            pack_tokens(run, run->b + t * run->ld + j0, p.cols, tokens, ops->nr, p.b);
            sum_products(run, &p, tokens, t > t0);
        }
        for (int64_t i = 0; i < p.rows; i++) {
            const int64_t first = p.diagonal ? i : 0;
            ops->add_f64(run->out + (i0 + i) * run->k + j0 + first, p.part + i * p.width + first,
                         p.cols - first);
        }
    }
}

static void sum_run(struct sum_run *run)
{
    if (run->m <= 0 || run->k <= 0) return;
    run->tiles = (run->k + SUM_TILE - 1) / SUM_TILE;
    run->bf16 = run->be->precision == NB_PRECISION_BF16;
    int64_t pieces = run->upper ? run->tiles * (run->tiles + 1) / 2 : run->tiles * run->tiles;
    nb_pool_run(nb_backend_pool_for(run->be, run->m * run->k * run->k), (size_t)pieces, sum_piece,
                run);
}

void nb_syrk_accumulate(struct nb_backend *be, double *h, const float *x, int64_t m, int64_t ldx,
                        int64_t k)
{
    sum_run(&(struct sum_run){
        .be = be, .out = h, .a = x, .b = x, .m = m, .ld = ldx, .k = k, .upper = true});
}

void nb_cross_accumulate(struct nb_backend *be, double *d, const float *a, const float *b,
                         int64_t m, int64_t k)
{
    sum_run(&(struct sum_run){.be = be, .out = d, .a = a, .b = b, .m = m, .ld = k, .k = k});
}
