/* SPDX-License-Identifier: Apache-2.0
 *
 * dense.c - dense linear algebra for the quantizers: general products, and the sums behind Hessians. */
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
    struct nb_block blk = {.a = &run->a, .b = &run->b, .a0 = m0, .b0 = n0, .m = m1 - m0, .n = n1 - n0, .k = g->k,
                           .c = g->c + m0 * g->ldc + n0, .ldc = g->ldc, .add = g->accumulate};
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
    nb_pool_run(nb_backend_pool_for(be, g->m * g->n * g->k), (size_t)(run.m_pieces * run.n_pieces), gemm_piece, &run);
}

/* ---- sums over tokens ----
 *
 * Square tiles of the result are the pieces; each runs over all tokens. Products of SUM_TOKENS tokens are
 * summed in f32 inside the register tile and the tile on the side, then added to the f64 result. */

enum { SUM_TOKENS = 1024 };

struct sum_run {
    struct nb_backend *be;
    double *out;
    const float *a, *b;
    int64_t m, ld, k;
    int64_t tile, tiles;
    bool upper;
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Piece number to tile row and column. Upper triangle: whole tiles first, then those on the diagonal, which cost
 * half, so that the pieces handed out last are the small ones. */
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

static void pack_tokens(const struct nb_cpu_ops *ops, const float *x, int64_t ld, int64_t cols, int64_t tokens, int w,
                        float *dst)
{
    for (int64_t j = 0; j < cols; j += w, dst += tokens * w) {
        ops->pack_cols_f32(dst, w, x + j, ld, (int)least(w, cols - j), tokens);
    }
}

/* part [rows, width] (+)= products of `tokens` tokens; below the diagonal tiles are left out when diagonal. */
static void sum_products(const struct nb_cpu_ops *ops, const struct nb_scratch *s, float *part, int64_t width,
                         int64_t rows, int64_t cols, int64_t tokens, bool diagonal, bool more)
{
    for (int64_t i = 0; i < rows; i += ops->mr) {
        int count = (int)least(ops->mr, rows - i);
        int64_t start = diagonal ? i / ops->nr * ops->nr : 0;
        for (int64_t j = start; j < cols; j += ops->nr) {
            ops->tile_f32(tokens, s->a + i * tokens, ops->mr, s->b + j * tokens, ops->nr, part + i * width + j, width,
                          count, more);
        }
    }
}

static void sum_piece(void *ctx, size_t piece, int thread)
{
    const struct sum_run *run = ctx;
    const struct nb_cpu_ops *ops = &run->be->ops;
    const struct nb_scratch *s = &run->be->scratch[thread];
    int64_t ti, tj;
    sum_tile(run, (int64_t)piece, &ti, &tj);
    const int64_t i0 = ti * run->tile, j0 = tj * run->tile;
    const int64_t rows = least(run->tile, run->k - i0), cols = least(run->tile, run->k - j0);
    const int64_t width = (cols + ops->nr - 1) / ops->nr * ops->nr;
    const bool diagonal = run->upper && ti == tj;
    float *part = s->rows;
    for (int64_t t0 = 0; t0 < run->m; t0 += SUM_TOKENS) {
        const int64_t end = least(t0 + SUM_TOKENS, run->m);
        for (int64_t t = t0; t < end; t += NB_BLOCK_K) {
            const int64_t tokens = least(NB_BLOCK_K, end - t);
            pack_tokens(ops, run->a + t * run->ld + i0, run->ld, rows, tokens, ops->mr, s->a);
            pack_tokens(ops, run->b + t * run->ld + j0, run->ld, cols, tokens, ops->nr, s->b);
            sum_products(ops, s, part, width, rows, cols, tokens, diagonal, t > t0);
        }
        for (int64_t i = 0; i < rows; i++) {
            double *out = run->out + (i0 + i) * run->k + j0;
            for (int64_t j = diagonal ? i : 0; j < cols; j++) out[j] += (double)part[i * width + j];
        }
    }
}

static void sum_run(struct sum_run *run)
{
    if (run->m <= 0 || run->k <= 0) return;
    /* Large tiles pack less, small ones share out better; both sides fit the scratch. */
    run->tile = run->k >= 1024 ? 160 : 128;
    run->tiles = (run->k + run->tile - 1) / run->tile;
    int64_t pieces = run->upper ? run->tiles * (run->tiles + 1) / 2 : run->tiles * run->tiles;
    nb_pool_run(nb_backend_pool_for(run->be, run->m * run->k * run->k), (size_t)pieces, sum_piece, run);
}

void nb_syrk_accumulate(struct nb_backend *be, double *h, const float *x, int64_t m, int64_t ldx, int64_t k)
{
    sum_run(&(struct sum_run){.be = be, .out = h, .a = x, .b = x, .m = m, .ld = ldx, .k = k, .upper = true});
}

void nb_cross_accumulate(struct nb_backend *be, double *d, const float *a, const float *b, int64_t m, int64_t ld,
                         int64_t k)
{
    sum_run(&(struct sum_run){.be = be, .out = d, .a = a, .b = b, .m = m, .ld = ld, .k = k});
}
