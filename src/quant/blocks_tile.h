/* SPDX-License-Identifier: Apache-2.0
 *
 * blocks_tile.h - what blocks_descent.c and blocks_renew.c work on: up to NB_SUPER columns of 16 rows in scratch
 * memory; private to these two. */
#ifndef NB_QUANT_BLOCKS_TILE_H
#define NB_QUANT_BLOCKS_TILE_H

#include <math.h>
#include <stdatomic.h>

#include "quant/blocks.h"

struct nb_block_descent {
    const struct nb_block_problem *b;
    struct nb_block_solution *s;
    const struct nb_block_descent_opts *opts;
    int64_t c0;  /* first column of the chunk */
    int n, subs; /* its columns and sub-blocks */
    float
        *sums; /* [subs, NB_SUPER] of H over the columns of a sub-block, for the chunk's columns */
    int32_t *at;          /* [K] position in its sub-block to column there */
    float *factor, *diag; /* [K, sub] rows M_ij / M_jj, j < i, by position; [K] M_ii */
    float *gradient;      /* [padded, K] */
    float *step;          /* [padded, NB_SUPER] change of the error */
    float *scratch;       /* per thread */
    size_t scratch_floats;
    atomic_bool changed;
};

struct nb_block_tile { /* [n][NB_TILE] each */
    int64_t r0;
    float *grad, *level, *value, *start;
    float *image; /* [subs][n][NB_TILE] H level, by sub-block */
    float scale[NB_MOST_SUBS][NB_TILE], min[NB_MOST_SUBS][NB_TILE]; /* in weight units */
    struct nb_block_refit refit; /* its codes, d and dmin are always up to date */
};

static inline const float *nb_block_h_row(const struct nb_block_descent *d, int j)
{
    return d->b->p.h + (d->c0 + j) * d->b->p.cols + d->c0;
}

/* to[i] += h[i] * move for the n columns that h is a row of H for. */
static inline void nb_block_spread(float *to, const float *h, int n, const float *move)
{
    float by[NB_TILE];
    for (int k = 0; k < NB_TILE; k++) by[k] = move[k];
    for (int i = 0; i < n; i++) {
        float *x = to + i * NB_TILE;
        const float hi = h[i];
        for (int k = 0; k < NB_TILE; k++) x[k] += hi * by[k];
    }
}

/* Gives column j new levels and values, and lets the gradient know. */
static inline bool nb_block_put(const struct nb_block_descent *d, struct nb_block_tile *t, int j,
                                const float *level, const float *value)
{
    float *old = t->value + j * NB_TILE, most = 0.0f;
    float move[NB_TILE];
    for (int k = 0; k < NB_TILE; k++) {
        move[k] = old[k] - value[k];
        most = fabsf(move[k]) > most ? fabsf(move[k]) : most;
        old[k] = value[k];
        t->level[j * NB_TILE + k] = level[k];
    }
    if (!(most > 0.0f)) return false;
    nb_block_spread(t->grad, nb_block_h_row(d, j), d->n, move);
    return true;
}

/* ---- blocks_renew.c ---- */

/* Fills at, factor and diag. NB_E_NOMEM, NB_E_NUMERIC. */
int nb_block_factor_subs(struct nb_block_descent *d, struct nb_err *err);
/* Rounds a sub-block anew under its own and neighbouring scales and mins and keeps what lowers the loss. True:
 * something changed. */
bool nb_block_renew(const struct nb_block_descent *d, struct nb_block_tile *t, int sub);

#endif
