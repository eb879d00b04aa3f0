/* SPDX-License-Identifier: Apache-2.0
 *
 * internal.h - what the files of this folder share: the backend itself, per-thread scratch, blocks.
 *
 * Every operator cuts its work into pieces whose borders follow from shapes alone; a piece runs on
 * one thread with that thread's scratch. So nothing allocates at run time and thread counts cannot
 * matter. */
#ifndef NB_BACKEND_INTERNAL_H
#define NB_BACKEND_INTERNAL_H

#include "backend/backend.h"
#include "backend/cpu/ops.h"

enum {
    NB_BLOCK_K = 256,            /* k per packed panel: a panel of 32 columns is one L1 cache */
    NB_BLOCK_M = 168,            /* rows packed at once */
    NB_BLOCK_N = 256,            /* columns packed at once */
    NB_DOT_MAX_K = 65536,        /* longer rows go through tiles, however few rows of x there are */
    NB_PIECE_MIN_MACS = 1 << 18, /* less work than this is not worth waking another thread */
    NB_SCRATCH_MIN_FLOATS =
        400000, /* what the largest user of `all` needs: see attention.c, factor.c, dense.c */
    NB_FACTOR_BLOCK = 64, /* columns of a Cholesky factor made at once */
};

/* One thread's memory. The four parts are used by blocks; `all` is the same memory for other
 * operators. */
struct nb_scratch {
    float *all;
    size_t all_floats;
    float *a;    /* packed rows     [NB_BLOCK_M + panel, NB_BLOCK_K] */
    float *b;    /* packed columns  [NB_BLOCK_N, NB_BLOCK_K] */
    float *rows; /* weight rows in f32, at least NB_DOT_MAX_K floats */
    float *tile; /* one tile */
};

/* Rounded rows of x: see act.c. Shared by the threads of a run. */
struct nb_act_memory {
    unsigned char *data;
    size_t bytes;
};

struct nb_backend {
    struct nb_pool *pool;
    struct nb_cpu_ops ops;
    unsigned features;
    enum nb_precision
        precision; /* what ops.tile_f32 users may replace by bf16 products, see backend.h */
    struct nb_scratch *scratch; /* [threads] */
    struct nb_act_memory act;   /* empty until a linear needs it */
    double *factor; /* [NB_FACTOR_BLOCK]^2: inverse of a diagonal block of a Cholesky factor */
};

/* Pool to use for work of this many multiply-adds: NULL (the calling thread) when it is little. */
struct nb_pool *nb_backend_pool_for(const struct nb_backend *be, int64_t macs);

/* Border i of `pieces` nearly equal ranges of n items, in units of `unit` items. */
static inline int64_t nb_piece_start(int64_t n, int64_t unit, int64_t pieces, int64_t i)
{
    int64_t units = (n + unit - 1) / unit, at = units * i / pieces * unit;
    return at < n ? at : n;
}

/* One side of a product: `count` vectors of length k. */
struct nb_operand {
    const void *p;
    enum nb_dtype type; /* F32; for the column side also F16, BF16 */
    int64_t ld;
    bool k_outer; /* vector r, element kk at p[kk*ld + r] (F32 only), else at p[r*ld + kk] */
    /* When set, rows come from here instead: out[0, n) = elements [k0, k0+n) of vector r. */
    void (*load)(const void *source, int64_t r, int64_t k0, int64_t n, float *out);
};

struct nb_block { /* c[m,n] = (add ? c : 0) + (alpha a) b^T */
    const struct nb_operand *a, *b;
    int64_t a0, b0;  /* first vector of each side */
    int64_t m, n, k; /* n <= NB_BLOCK_N */
    float *c;
    int64_t ldc;
    bool add;
    bool bf16;   /* products of bf16 pairs; ops->tile_bf16 is there */
    float alpha; /* 0 means 1 */
};
void nb_block_run(const struct nb_cpu_ops *ops, const struct nb_scratch *s,
                  const struct nb_block *blk);

#endif
