/* SPDX-License-Identifier: Apache-2.0
 *
 * dense.c - dense linear algebra for the quantizers: general products, and the sums behind
 * Hessians. */
#include <inttypes.h>

#include "backend/internal.h"
#include "base/mem.h"

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
 * Square tiles of the result are the pieces. The columns of a stripe of tiles are packed once for all
 * tiles in it, as many tokens at a time as PANEL_BYTES hold; their products are summed in f32, inside
 * the register tile and in a tile on the side, then added to the f64 result. */

enum {
    SUM_TOKENS = 2048,
    SUM_TILE = 224, /* at most; whole panels of 14, 32 and 16 */
    PANEL_BYTES = 64 << 20,
};
_Static_assert(SUM_TILE *SUM_TILE <= NB_SCRATCH_MIN_FLOATS,
               "the sums of a tile must fit the scratch");

struct sum_run {
    struct nb_backend *be;
    double *out;
    const float *side[2]; /* rows and columns of the result come from these */
    int64_t m, ld, k, tiles;
    bool upper, bf16;
    int64_t t0, tokens; /* of this round */
    float *panels;      /* [side][stripe][SUM_TILE * round tokens] */
    int64_t stripe_floats;
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

static float *stripe(const struct sum_run *run, int side, int64_t t)
{
    return run->panels + (side * run->tiles + t) * run->stripe_floats;
}

/* Floats of storage that `tokens` of one column take in a panel: bf16 goes in pairs. */
static int64_t depth(const struct sum_run *run, int64_t tokens)
{
    return run->bf16 ? (tokens + 1) / 2 : tokens;
}

/* One stripe of one side: per NB_BLOCK_K tokens, panels of mr (rows) or nr (columns) of x. */
static void pack_stripe(void *ctx, size_t piece, int thread)
{
    (void)thread;
    const struct sum_run *run = ctx;
    const struct nb_cpu_ops *ops = &run->be->ops;
    const nb_pack_fn fn = run->bf16 ? ops->pack_cols_bf16 : ops->pack_cols_f32;
    const int side = (int)((int64_t)piece / run->tiles);
    const int64_t t = (int64_t)piece % run->tiles, j0 = border(run, t);
    const int64_t cols = border(run, t + 1) - j0;
    const int w = side ? ops->nr : ops->mr;
    float *dst = stripe(run, side, t);
    for (int64_t at = 0; at < run->tokens; at += NB_BLOCK_K) {
        struct nb_pack p = {
            .w = w, .type = NB_F32, .ld = run->ld, .k = least(NB_BLOCK_K, run->tokens - at)};
        for (int64_t j = 0; j < cols; j += w, dst += depth(run, p.k) * w) {
            p.dst = dst;
            p.src = run->side[side] + (run->t0 + at) * run->ld + j0 + j;
            p.rows = (int)least(w, cols - j);
            fn(&p);
        }
    }
}

struct sum_part { /* part [rows, width] holds rows x cols of the result over some tokens */
    const float *a, *b;
    float *part;
    int64_t width, rows, cols;
    bool diagonal; /* tiles below the diagonal are left out */
};

/* part (+)= products of the `tokens` packed in a and b. */
static void sum_products(const struct sum_run *run, const struct sum_part *p, int64_t tokens,
                         bool more)
{
    const struct nb_cpu_ops *ops = &run->be->ops;
    const nb_tile_f32_fn fn = run->bf16 ? ops->tile_bf16 : ops->tile_f32;
    struct nb_tile_f32 t = {
        .k = depth(run, tokens), .lda = ops->mr, .ldb = ops->nr, .ldc = p->width, .add = more};
    for (int64_t i = 0; i < p->rows; i += ops->mr) {
        t.rows = (int)least(ops->mr, p->rows - i);
        t.a = p->a + i * t.k;
        for (int64_t j = p->diagonal ? i / ops->nr * ops->nr : 0; j < p->cols; j += ops->nr) {
            t.b = p->b + j * t.k;
            t.c = p->part + i * p->width + j;
            fn(&t);
        }
    }
}

static int64_t whole(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

static void sum_piece(void *ctx, size_t piece, int thread)
{
    const struct sum_run *run = ctx;
    const struct nb_cpu_ops *ops = &run->be->ops;
    int64_t ti, tj;
    sum_tile(run, (int64_t)piece, &ti, &tj);
    const int64_t i0 = border(run, ti), j0 = border(run, tj);
    struct sum_part p = {.a = stripe(run, 0, ti),
                         .b = stripe(run, 1, tj),
                         .part = run->be->scratch[thread].all,
                         .rows = border(run, ti + 1) - i0,
                         .cols = border(run, tj + 1) - j0,
                         .diagonal = run->upper && ti == tj};
    p.width = whole(p.cols, ops->nr);
    for (int64_t at = 0; at < run->tokens; at += NB_BLOCK_K) {
        const int64_t tokens = least(NB_BLOCK_K, run->tokens - at);
        sum_products(run, &p, tokens, at > 0);
        p.a += whole(p.rows, ops->mr) * depth(run, tokens);
        p.b += p.width * depth(run, tokens);
    }
    for (int64_t i = 0; i < p.rows; i++) {
        const int64_t first = p.diagonal ? i : 0;
        ops->add_f64(run->out + (i0 + i) * run->k + j0 + first, p.part + i * p.width + first,
                     p.cols - first);
    }
}

/* Tokens of a round depend on K and the type alone, so that sums do not depend on threads or memory. */
static int64_t round_tokens(const struct sum_run *run)
{
    const int64_t bytes = run->tiles * 2 * SUM_TILE * (run->bf16 ? 2 : 4);
    int64_t tokens = PANEL_BYTES / bytes / NB_BLOCK_K * NB_BLOCK_K;
    if (tokens > SUM_TOKENS) tokens = SUM_TOKENS;
    return tokens > 0 ? tokens : NB_BLOCK_K;
}

static int sum_run(struct sum_run *run, struct nb_err *err)
{
    if (run->m <= 0 || run->k <= 0) return 0;
    run->tiles = (run->k + SUM_TILE - 1) / SUM_TILE;
    run->bf16 = run->be->precision == NB_PRECISION_BF16;
    const int64_t most = least(round_tokens(run), run->m);
    run->stripe_floats = SUM_TILE * depth(run, whole(most, 2)) + NB_PACK_SLACK;
    size_t floats;
    if (nb_mul((size_t)(2 * run->tiles), (size_t)run->stripe_floats, &floats))
        run->panels = nb_alloc(floats, sizeof *run->panels);
    if (!run->panels)
        return nb_fail(err, NB_E_NOMEM, "no memory for the sums of %" PRId64 " columns", run->k);
    int64_t pieces = run->upper ? run->tiles * (run->tiles + 1) / 2 : run->tiles * run->tiles;
    for (run->t0 = 0; run->t0 < run->m; run->t0 += most) {
        run->tokens = least(most, run->m - run->t0);
        struct nb_pool *pool = nb_backend_pool_for(run->be, run->tokens * run->k * run->k);
        nb_pool_run(pool, (size_t)(2 * run->tiles), pack_stripe, run);
        nb_pool_run(pool, (size_t)pieces, sum_piece, run);
    }
    nb_free(run->panels);
    return 0;
}

int nb_syrk_accumulate(struct nb_backend *be, const struct nb_token_sum *sum, struct nb_err *err)
{
    struct sum_run run = {.be = be,
                          .out = sum->out,
                          .side = {sum->a, sum->a},
                          .m = sum->m,
                          .ld = sum->ld,
                          .k = sum->k,
                          .upper = true};
    return sum_run(&run, err);
}

int nb_cross_accumulate(struct nb_backend *be, const struct nb_token_sum *sum, struct nb_err *err)
{
    struct sum_run run = {.be = be,
                          .out = sum->out,
                          .side = {sum->a, sum->b},
                          .m = sum->m,
                          .ld = sum->ld,
                          .k = sum->k};
    return sum_run(&run, err);
}
