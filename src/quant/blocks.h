/* SPDX-License-Identifier: Apache-2.0
 *
 * blocks.h - grids of GGUF blocks for the solver, and the steps it takes; private to this folder.
 *
 * A super-block is `subs` sub-blocks of `sub` weights; weight = (d * scale) * level - (dmin * min), with f16
 * d and dmin per super-block, integer scale and min per sub-block and a level per weight. A type with a
 * single level of scales is one sub-block whose scale and min are the constant 1.
 * Objective, tiles of rows and positions are those of problem.h; there "group" is the sub-block, and a
 * solution's `scale` and `zero` are d * scale and dmin * min as the decoder computes them. */
#ifndef NB_QUANT_BLOCKS_H
#define NB_QUANT_BLOCKS_H

#include "base/half.h"
#include "quant/hessian.h"

enum {
    NB_SUPER =
        256, /* columns that are refined together: one super-block, or several small blocks */
    NB_MOST_SUBS = 16, /* sub-blocks among them */
    NB_MOST_SUB_COLS = 32
};

struct nb_block_grid {
    const char *name;
    int sub, subs;
    int bits;
    float lo, hi;                   /* levels, when there is no table */
    const float *table;             /* [16] rising */
    int scale_lo, scale_hi, min_hi; /* codes; min_hi 0: no min */
    struct nb_numeric numeric;      /* round_lanes with `zero` as the min */
};

/* NULL: no such grid. */
const struct nb_block_grid *nb_block_grid_find(const char *name);

static inline int nb_block_grid_super(const struct nb_block_grid *g)
{
    return g->sub * g->subs;
}

/* code = level + this, when there is no table */
static inline int nb_block_grid_zero(const struct nb_block_grid *g)
{
    return g->lo < 0.0f ? 1 << (g->bits - 1) : 0;
}

/* x as f16 stores it, kept finite. */
static inline float nb_block_store(float x)
{
    x = x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x;
    return nb_f16_to_f32(nb_f32_to_f16(x));
}

/* x rounded half to even and kept in [lo, hi]; exact below 2^22; NaN becomes lo. */
static inline float nb_block_whole(float x, float lo, float hi)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23 */
    x = x > lo ? x : lo;
    x = x < hi ? x : hi;
    x += magic;
    return x - magic;
}

/* Level nearest to x of 16 rows. */
void nb_block_levels(const struct nb_block_grid *g, const float x[NB_TILE], float level[NB_TILE]);

/* Codes, both levels of scales, and their loss. */
struct nb_block_solution {
    struct nb_solution s; /* s.scale, s.zero: [K / sub, padded] */
    int16_t *scale, *min; /* codes [K / sub, padded] */
    float *d, *dmin;      /* exact f16 [K / (sub * subs), padded] */
};

struct nb_block_problem {
    struct nb_problem p; /* group: sub; numeric: grid->numeric */
    const struct nb_block_grid *grid;
    int64_t n_supers;
};

int nb_block_solution_init(struct nb_block_solution *s, const struct nb_block_problem *b,
                           struct nb_arena *arena, struct nb_err *err);
/* s->s.scale and .zero of one super-block in 16 rows from codes and d, dmin. */
void nb_block_solution_expand(const struct nb_block_problem *b, struct nb_block_solution *s,
                              int64_t super, int64_t r0);
/* error [padded, K] = target - value. */
void nb_block_solution_error(const struct nb_block_problem *b, const struct nb_block_solution *s,
                             float *error);
int nb_block_solution_measure(const struct nb_block_problem *b, struct nb_block_solution *s,
                              struct nb_err *err);
void nb_block_solution_keep_best(const struct nb_block_problem *b, struct nb_block_solution *s,
                                 const struct nb_block_solution *other);
/* Copies parameters, not codes of weights; d and dmin times factor. */
void nb_block_solution_scaled(const struct nb_block_problem *b, struct nb_block_solution *to,
                              const struct nb_block_solution *from, float factor);

/* ---- blocks_fit.c ---- */

/* Both levels of scales from the target with importance b->p.u. */
void nb_block_fit(const struct nb_block_problem *b, struct nb_block_solution *s);

/* ---- blocks_refit.c ---- */

/* How the loss depends on the parameters of up to NB_SUPER columns of 16 rows while the levels stand. */
struct nb_block_refit {
    int subs, dims;                /* sub-blocks; dims = subs, or 2 * subs with mins after scales */
    float *a;                      /* [dims, dims, NB_TILE] curvature */
    float *g;                      /* [dims, NB_TILE] slope: what lowers the loss */
    float *scale, *min, *d, *dmin; /* [subs, NB_TILE] codes as floats; [NB_TILE], or
                                      * [subs, NB_TILE] when each sub-block has its own */
    float *value;                  /* [dims, NB_TILE] d * scale, dmin * min */
};
size_t nb_block_refit_floats(void);
void nb_block_refit_place(struct nb_block_refit *r, float *memory);
/* Moves parameters to where the loss is less. True: something moved. */
bool nb_block_refit_run(const struct nb_block_grid *grid, struct nb_block_refit *r, int rounds);

/* ---- blocks_descent.c ---- */

struct nb_block_descent_opts {
    int sweeps;
    bool refit;  /* parameters too */
    bool search; /* codes of a sub-block anew under neighbouring parameters */
};
int nb_block_descend(const struct nb_block_problem *b, struct nb_block_solution *s,
                     const struct nb_block_descent_opts *opts, struct nb_err *err);

#endif
