/* SPDX-License-Identifier: Apache-2.0
 *
 * attention.c - causal grouped-query attention in blocks of queries and keys, with online softmax.
 *
 * All query heads that read one key head are rows of the same product, position by position: row r
 * is query r / repeat, head r % repeat. Rows stand side by side in panels of nr lanes and
 * everything is kept transposed:
 *
 *   S^T[key][lane]  = K Q^T        softmax runs down a lane, no sums across lanes
 *   O^T[dim][lane] += V^T P^T      P^T is a packed panel as it stands
 *
 * Scratch of a piece does not grow with the sequence. One query alone (decoding) takes a path of
 * its own that reads keys and values where they lie.
 *
 * Source: Dao et al., "FlashAttention", arXiv:2205.14135, algorithm 1; Milakov and Gimelshein,
 * arXiv:1805.02867 (online softmax). */
#include <math.h>
#include <string.h>

#include "backend/internal.h"

enum {
    KEYS = 112,         /* keys per block: whole tiles of 14 and 4 */
    MAX_PANELS = 4,     /* panels of queries per piece: what packing a block of keys is shared by */
    DECODE_KEYS = 1024, /* keys per block when there is one query */
};

struct run {
    const struct nb_backend *be;
    const struct nb_attention *a;
    int64_t repeat, rows; /* query heads per key head; rows of all queries */
    int64_t panels, blocks;
};

struct block {    /* one piece's share of the scratch */
    float *q;     /* [panels][d][nr], scaled */
    float *o;     /* [panels][d][nr] */
    float *k;     /* [KEYS/mr][d][mr] */
    float *v;     /* [KEYS][d] */
    float *s;     /* [KEYS][nr] */
    float *m, *l; /* [panels][nr] */
    float *alpha; /* [nr] */
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t largest(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Floats that `panels` panels need; q is packed from rows that lie in v's place. */
static int64_t scratch_floats(int64_t panels, int64_t d, int64_t nr)
{
    return 2 * panels * d * nr + 2 * (KEYS + NB_TILE_MAX_MR) * d + KEYS * nr + 2 * panels * nr +
           nr + 8 * NB_PACK_SLACK;
}

static struct block lay_out(const struct nb_scratch *scratch, int64_t panels, int64_t d, int64_t nr)
{
    struct block b;
    b.q = scratch->all;
    b.o = b.q + panels * d * nr + NB_PACK_SLACK;
    b.k = b.o + panels * d * nr;
    b.v = b.k + (KEYS + NB_TILE_MAX_MR) * d + NB_PACK_SLACK;
    b.s = b.v + (KEYS + NB_TILE_MAX_MR) * d;
    b.m = b.s + KEYS * nr;
    b.l = b.m + panels * nr;
    b.alpha = b.l + panels * nr;
    return b;
}

/* Position of row r in the sequence of keys. */
static int64_t position(const struct run *run, int64_t r)
{
    return run->a->n_kv - run->a->n_q + r / run->repeat;
}

static void pack_queries(const struct run *run, const struct block *b, int64_t head, int64_t r0,
                         int64_t rows)
{
    const struct nb_attention *a = run->a;
    const struct nb_cpu_ops *ops = &run->be->ops;
    const int64_t d = a->head_dim, nr = ops->nr;
    for (int64_t p = 0; p * nr < rows; p++) {
        int64_t count = least(nr, rows - p * nr);
        for (int64_t i = 0; i < count; i++) {
            int64_t r = r0 + p * nr + i;
            const float *q =
                a->q + r / run->repeat * a->ldq + (head * run->repeat + r % run->repeat) * d;
            for (int64_t t = 0; t < d; t++) b->v[i * d + t] = q[t] * a->scale;
        }
        ops->pack_rows_f32(&(struct nb_pack){.dst = b->q + p * d * nr,
                                             .w = (int)nr,
                                             .src = b->v,
                                             .type = NB_F32,
                                             .ld = d,
                                             .rows = (int)count,
                                             .k = d});
    }
}

static void pack_keys(const struct run *run, const struct block *b, int64_t head, int64_t k0,
                      int64_t n)
{
    const struct nb_attention *a = run->a;
    const struct nb_cpu_ops *ops = &run->be->ops;
    const int64_t d = a->head_dim;
    const float *k = a->k + k0 * a->ldkv + head * d, *v = a->v + k0 * a->ldkv + head * d;
    for (int64_t t = 0; t < n; t += ops->mr) {
        ops->pack_rows_f32(&(struct nb_pack){.dst = b->k + t * d,
                                             .w = ops->mr,
                                             .src = k + t * a->ldkv,
                                             .type = NB_F32,
                                             .ld = a->ldkv,
                                             .rows = (int)least(ops->mr, n - t),
                                             .k = d});
    }
    for (int64_t t = 0; t < n; t++) memcpy(b->v + t * d, v + t * a->ldkv, (size_t)d * sizeof *v);
}

/* Scores of keys that lane's query may not see become -inf. */
static void mask(const struct run *run, float *s, int64_t r, int64_t k0, int64_t n)
{
    const int64_t nr = run->be->ops.nr, window = run->a->window;
    for (int64_t j = 0; j < nr; j++) {
        int64_t last = position(run, least(r + j, run->rows - 1)) - k0;
        int64_t first = window ? last - window + 1 : 0;
        for (int64_t t = 0; t < least(first, n); t++) s[t * nr + j] = -INFINITY;
        for (int64_t t = largest(last + 1, 0); t < n; t++) s[t * nr + j] = -INFINITY;
    }
}

/* One panel of queries (first row r) against one block of keys. */
static void panel_step(const struct run *run, const struct block *b, int64_t p, int64_t r,
                       int64_t k0, int64_t n)
{
    const struct nb_cpu_ops *ops = &run->be->ops;
    const int64_t d = run->a->head_dim, nr = ops->nr, window = run->a->window;
    const int64_t low = position(run, r), high = position(run, least(r + nr, run->rows) - 1);
    if (k0 > high || (window && k0 + n - 1 <= low - window))
        return;                  /* nothing to see for any lane */
    n = least(n, high - k0 + 1); /* the rest no lane may see; it would add zeros */
    const float *q = b->q + p * d * nr;
    float *o = b->o + p * d * nr;
    struct nb_tile_f32 score = {.k = d, .lda = ops->mr, .b = q, .ldb = nr, .ldc = nr};
    for (int64_t t = 0; t < n; t += ops->mr) {
        score.a = b->k + t * d;
        score.c = b->s + t * nr;
        score.rows = (int)least(ops->mr, n - t);
        ops->tile_f32(&score);
    }
    if (run->a->softcap > 0) ops->softcap(b->s, n * nr, run->a->softcap);
    if (k0 + n - 1 > low || (window && k0 <= high - window)) mask(run, b->s, r, k0, n);
    ops->softmax(b->s, n, b->m + p * nr, b->l + p * nr, b->alpha);
    ops->scale(o, d, b->alpha);
    struct nb_tile_f32 sum = {.k = n, .lda = d, .b = b->s, .ldb = nr, .ldc = nr, .add = true};
    for (int64_t t = 0; t < d; t += ops->mr) {
        sum.a = b->v + t;
        sum.c = o + t * nr;
        sum.rows = (int)least(ops->mr, d - t);
        ops->tile_f32(&sum);
    }
}

static void write_out(const struct run *run, const struct block *b, int64_t head, int64_t r0,
                      int64_t rows)
{
    const struct nb_attention *a = run->a;
    const int64_t d = a->head_dim, nr = run->be->ops.nr;
    for (int64_t i = 0; i < rows; i++) {
        int64_t r = r0 + i, p = i / nr, lane = i % nr;
        float *out = a->out + r / run->repeat * a->ldo + (head * run->repeat + r % run->repeat) * d;
        const float *o = b->o + p * d * nr + lane;
        float inv = 1.0f / b->l[p * nr + lane];
        for (int64_t t = 0; t < d; t++) out[t] = o[t * nr] * inv;
    }
}

/* Pieces run from the last queries to the first: the long ones are handed out first. */
static void attention_piece(void *ctx, size_t piece, int thread)
{
    const struct run *run = ctx;
    const struct nb_attention *a = run->a;
    const int64_t d = a->head_dim, nr = run->be->ops.nr, step = run->panels * nr;
    const int64_t head = (int64_t)piece % a->n_kv_heads;
    const int64_t r0 = (run->blocks - 1 - (int64_t)piece / a->n_kv_heads) * step,
                  rows = least(step, run->rows - r0);
    const struct block b = lay_out(&run->be->scratch[thread], run->panels, d, nr);
    pack_queries(run, &b, head, r0, rows);
    memset(b.o, 0, (size_t)(run->panels * d * nr) * sizeof *b.o);
    memset(b.l, 0, (size_t)step * sizeof *b.l);
    for (int64_t i = 0; i < step; i++) b.m[i] = -INFINITY;

    int64_t end = position(run, r0 + rows - 1) + 1, start = 0;
    if (a->window) start = largest(0, position(run, r0) - a->window + 1) / KEYS * KEYS;
    for (int64_t k0 = start; k0 < end; k0 += KEYS) {
        int64_t n = least(KEYS, end - k0);
        pack_keys(run, &b, head, k0, n);
        for (int64_t p = 0; p * nr < rows; p++) panel_step(run, &b, p, r0 + p * nr, k0, n);
    }
    write_out(run, &b, head, r0, rows);
}

/* ---- one query ---- */

struct decode {    /* some heads (at most mr) that read one key head; all but m, l in scratch */
    float *s;      /* [heads][DECODE_KEYS] */
    float *p;      /* [DECODE_KEYS][mr] */
    float *v;      /* [DECODE_KEYS][nr], only for the last, narrow columns */
    float *o;      /* [heads][width] */
    float *q;      /* [heads][d], scaled */
    int64_t width; /* d in whole panels */
    int64_t heads;
    float m[NB_TILE_MAX_MR], l[NB_TILE_MAX_MR];
};

/* n keys at k: weights into p; running maximum, sum and output scaled to the new maximum. */
static void decode_scores(const struct run *run, struct decode *dec, const float *k, int64_t n)
{
    const struct nb_attention *a = run->a;
    const struct nb_cpu_ops *ops = &run->be->ops;
    for (int64_t h = 0; h < dec->heads; h += NB_DOT_MAX_M) {
        ops->dot(&(struct nb_dot){.x = dec->q + h * a->head_dim,
                                  .ldx = a->head_dim,
                                  .m = least(NB_DOT_MAX_M, dec->heads - h),
                                  .w = k,
                                  .type = NB_F32,
                                  .ldw = a->ldkv,
                                  .rows = n,
                                  .k = a->head_dim,
                                  .y = dec->s + h * DECODE_KEYS,
                                  .ldy = DECODE_KEYS});
    }
    for (int64_t h = 0; h < dec->heads; h++) {
        float *s = dec->s + h * DECODE_KEYS, top = dec->m[h];
        if (a->softcap > 0) ops->softcap(s, n, a->softcap);
        for (int64_t t = 0; t < n; t++) top = s[t] > top ? s[t] : top;
        float alpha = dec->m[h] == -INFINITY ? 0.0f : expf(dec->m[h] - top);
        dec->l[h] = dec->l[h] * alpha + ops->exp_sum(s, n, top);
        dec->m[h] = top;
        for (int64_t t = 0; t < dec->width; t++) dec->o[h * dec->width + t] *= alpha;
    }
    ops->pack_rows_f32(&(struct nb_pack){.dst = dec->p,
                                         .w = ops->mr,
                                         .src = dec->s,
                                         .type = NB_F32,
                                         .ld = DECODE_KEYS,
                                         .rows = (int)dec->heads,
                                         .k = n});
}

/* o += the n values at v, weighted by p. */
static void decode_values(const struct run *run, struct decode *dec, const float *v, int64_t n)
{
    const struct nb_attention *a = run->a;
    const struct nb_cpu_ops *ops = &run->be->ops;
    const int64_t d = a->head_dim, nr = ops->nr;
    for (int64_t t = 0; t < d; t += nr) {
        struct nb_tile_f32 sum = {.k = n,
                                  .a = dec->p,
                                  .lda = ops->mr,
                                  .b = v + t,
                                  .ldb = a->ldkv,
                                  .c = dec->o + t,
                                  .ldc = dec->width,
                                  .rows = (int)dec->heads,
                                  .add = true};
        if (d - t < nr) {
            ops->pack_cols_f32(&(struct nb_pack){.dst = dec->v,
                                                 .w = (int)nr,
                                                 .src = v + t,
                                                 .type = NB_F32,
                                                 .ld = a->ldkv,
                                                 .rows = (int)(d - t),
                                                 .k = n});
            sum.b = dec->v;
            sum.ldb = nr;
        }
        ops->tile_f32(&sum);
    }
}

/* Heads [h0, h0 + dec->heads), which read kv_head. */
static void decode_heads(const struct run *run, struct decode *dec, int64_t kv_head, int64_t h0)
{
    const struct nb_attention *a = run->a;
    const int64_t d = a->head_dim;
    for (int64_t h = 0; h < dec->heads; h++) {
        dec->m[h] = -INFINITY;
        dec->l[h] = 0;
        for (int64_t t = 0; t < d; t++) dec->q[h * d + t] = a->q[(h0 + h) * d + t] * a->scale;
    }
    memset(dec->o, 0, (size_t)(dec->heads * dec->width) * sizeof *dec->o);
    for (int64_t k0 = a->window ? largest(0, a->n_kv - a->window) : 0; k0 < a->n_kv;
         k0 += DECODE_KEYS) {
        const int64_t n = least(DECODE_KEYS, a->n_kv - k0), at = k0 * a->ldkv + kv_head * d;
        decode_scores(run, dec, a->k + at, n);
        decode_values(run, dec, a->v + at, n);
    }
    for (int64_t h = 0; h < dec->heads; h++) {
        float inv = 1.0f / dec->l[h];
        for (int64_t t = 0; t < d; t++) a->out[(h0 + h) * d + t] = dec->o[h * dec->width + t] * inv;
    }
}

static void decode_piece(void *ctx, size_t piece, int thread)
{
    const struct run *run = ctx;
    const struct nb_cpu_ops *ops = &run->be->ops;
    const int64_t kv_head = (int64_t)piece;
    struct decode dec = {.s = run->be->scratch[thread].all,
                         .width = (run->a->head_dim + ops->nr - 1) / ops->nr * ops->nr};
    dec.p = dec.s + ops->mr * DECODE_KEYS;
    dec.v = dec.p + ops->mr * DECODE_KEYS + NB_PACK_SLACK;
    dec.o = dec.v + ops->nr * DECODE_KEYS + NB_PACK_SLACK;
    dec.q = dec.o + ops->mr * dec.width;
    for (int64_t h = 0; h < run->repeat; h += ops->mr) {
        dec.heads = least(ops->mr, run->repeat - h);
        decode_heads(run, &dec, kv_head, kv_head * run->repeat + h);
    }
}

void nb_attention_run(struct nb_backend *be, const struct nb_attention *a)
{
    struct run run = {.be = be, .a = a, .repeat = a->n_heads / a->n_kv_heads, .panels = MAX_PANELS};
    run.rows = a->n_q * run.repeat;
    struct nb_pool *pool = nb_backend_pool_for(be, a->n_q * a->n_kv * a->n_heads * a->head_dim);
    if (a->n_q == 1) {
        nb_pool_run(pool, (size_t)a->n_kv_heads, decode_piece, &run);
        return;
    }
    if (a->n_q < 1) return;
    while (run.panels > 1 &&
           scratch_floats(run.panels, a->head_dim, be->ops.nr) > NB_SCRATCH_MIN_FLOATS)
        run.panels--;
    run.blocks = (run.rows + run.panels * be->ops.nr - 1) / (run.panels * be->ops.nr);
    nb_pool_run(pool, (size_t)(run.blocks * a->n_kv_heads), attention_piece, &run);
}
