/* SPDX-License-Identifier: Apache-2.0
 *
 * problem.h - one matrix to quantize and the states its solution goes through; private to this folder.
 *
 * The objective of every step is, for each row on its own,
 *     loss(row) = (w - q) H (w - q)^T,   H = sum x x^T / n_tokens + damp * mean(diag) * I.
 * Rows come in tiles of NB_TILE lanes, so that the same column of several rows is one vector; the number
 * of rows is padded to whole tiles with zero rows. Tiles are the pieces handed to the pool: a row's result
 * never depends on another row, on the tile or on the thread.
 *
 * Columns stand in the problem's own order, in which a group's columns are neighbours. That is the
 * storage order unless desc_act permutes it (`column`). */
#ifndef NB_QUANT_PROBLEM_H
#define NB_QUANT_PROBLEM_H

#include "quant/quant.h"

enum {
    NB_TILE = 16,        /* rows per tile: lanes of the vector loops */
    NB_PASS_BLOCK = 128, /* columns whose errors are fed back at once by a GEMM */
    NB_MOST_BEAM = 32,   /* paths of a beam search */
};

/* Share of the mean diagonal that every column counts for in fits, so that a column the calibration text
 * never used is not clipped away. */
#define NB_IMPORTANCE_FLOOR 0.01

/* What the codes of an element mean, and their order by value. */
struct nb_levels {
    bool plain;                     /* value[code] == code */
    float value[256];               /* 0 for a code that is no number */
    int16_t above[256], below[256]; /* code of the next larger, smaller value; -1: none */
};
void nb_levels_init(struct nb_levels *l, const struct nb_elem *e);

struct nb_problem {
    const struct nb_solve_opts *opts;
    struct nb_grid_opts grid; /* opts' as the solvers use it */
    const struct nb_numeric *numeric;
    struct nb_qspec spec; /* group_cols resolved: 1 .. cols; group_rows: 1 .. rows */
    struct nb_levels levels;
    struct nb_backend *be;
    int64_t rows, cols;      /* as asked */
    int64_t padded;          /* rows in whole tiles */
    int64_t group, n_groups; /* columns per group, ceil(cols / group) */
    const int32_t *column;   /* [K] storage column of a problem column, or NULL: the same */
    const float *w;          /* [padded, K] target: the job's matrix or own */
    float *own;              /* [padded, K] a copy to change, or NULL */
    const float *h;          /* [K, K] damped H / n_tokens; NULL without statistics; borrowed */
    float
        *u; /* [K] importance for fits, at first diag(H) plus a little whatever damp is; or NULL */
    float damp; /* what was added to the diagonal */
};

/* Codes and parameters of all rows, and the loss they have: value = scale * (level of code - zero). */
struct nb_solution {
    uint8_t *code; /* [padded, K] */
    float *scale,
        *zero; /* [n_groups, padded]: one group of many rows is contiguous; zero 0 without zeros */
    double *loss;  /* [padded]; see above */
    double *plain; /* [padded] the same without damp; only after nb_solution_losses */
};

/* Borrows the job's matrix where it stands in whole tiles, else copies it (columns permuted) to arena. The
 * problem has no H yet, but u when job->stats is there. NB_E_SPEC, NB_E_NOMEM. */
int nb_problem_init(struct nb_problem *p, const struct nb_solve_job *job, const int32_t *column,
                    struct nb_arena *arena, struct nb_err *err);
/* Makes the target a copy of its own, which may change. NB_E_NOMEM. */
int nb_problem_own(struct nb_problem *p, struct nb_arena *arena, struct nb_err *err);
/* Makes h, whose columns are in the problem's order, the problem's with damp (an absolute figure) on the
 * diagonal; u = diag(H) plus a little. One problem at a time uses h. */
void nb_problem_set_h(struct nb_problem *p, struct nb_hessian *h, double damp);
/* u = diag(H) plus a little again (a solver may have changed it). */
void nb_problem_reset_importance(struct nb_problem *p);
/* Goes on with a copy of H that has no entries between columns of different blocks (block 1: the diagonal
 * alone). NB_E_NOMEM. */
int nb_problem_mask(struct nb_problem *p, int64_t block, struct nb_arena *arena,
                    struct nb_err *err);
int nb_solution_init(struct nb_solution *s, const struct nb_problem *p, struct nb_arena *arena,
                     struct nb_err *err);

static inline int64_t nb_problem_tiles(const struct nb_problem *p)
{
    return p->padded / NB_TILE;
}

static inline int64_t nb_problem_group_cols(const struct nb_problem *p, int64_t g)
{
    int64_t left = p->cols - g * p->group;
    return left < p->group ? left : p->group;
}

/* ---- scales.c ---- */

/* Scale and zero of every group, fitted to the target with importance u. Groups of several rows get the
 * largest scale that one of their rows needs. */
void nb_fit_groups(const struct nb_problem *p, struct nb_solution *s);
/* Rows share scales, so that these stay as they were fitted: no trials, no re-fit, no choice row by row. */
static inline bool nb_scales_are_shared(const struct nb_problem *p)
{
    return p->spec.group_rows > 1;
}
/* A scale may be moved by a few percent. */
static inline bool nb_scales_are_fine(const struct nb_problem *p)
{
    return !nb_scales_are_shared(p) && p->spec.scale_dtype != NB_F8_E8M0;
}
/* Scale as the file holds it on its first level (nb_numeric_store_scale; nearest power of two for E8M0). */
float nb_scale_store(const struct nb_problem *p, float scale);
/* out for the problem's spec, with the scales and zeros of s but no codes yet. With two levels the scales
 * become what the file can hold, in out and in s. NB_E_NOMEM, NB_E_SPEC and what settle gives. */
int nb_scales_export(const struct nb_problem *p, struct nb_solution *s, struct nb_qmat *out,
                     struct nb_arena *arena, struct nb_err *err);

/* ---- rtn.c ---- */

/* Codes by plain rounding under the parameters that s has; losses when the problem has H. */
int nb_round_nearest(const struct nb_problem *p, struct nb_solution *s, struct nb_err *err);
/* error [padded, K] = target - value of s. */
void nb_solution_error(const struct nb_problem *p, const struct nb_solution *s, float *error);
/* gradient [padded, K] = error H. */
void nb_solution_gradient(const struct nb_problem *p, const float *error, float *gradient);
/* gradient of the error of s, a piece of it at a time. NB_E_NOMEM. */
int nb_solution_image(const struct nb_problem *p, const struct nb_solution *s, float *gradient,
                      struct nb_err *err);
/* s->loss and s->plain of an error. scratch: as large as error. */
void nb_solution_losses(const struct nb_problem *p, struct nb_solution *s, const float *error,
                        float *scratch);
/* The same from codes and parameters; allocates for the time. NB_E_NOMEM. */
int nb_solution_measure(const struct nb_problem *p, struct nb_solution *s, struct nb_err *err);
/* tr(W H W^T), the loss of a matrix of zeros. */
int nb_problem_scale(const struct nb_problem *p, double *loss, struct nb_err *err);
/* Rows of s whose loss in other is lower are replaced by other's. */
void nb_solution_keep_best(const struct nb_problem *p, struct nb_solution *s,
                           const struct nb_solution *other);
/* The same by the undamped loss. */
void nb_solution_keep_plain(const struct nb_problem *p, struct nb_solution *s,
                            const struct nb_solution *other);
double nb_solution_loss(const struct nb_problem *p, const struct nb_solution *s);
double nb_solution_plain(const struct nb_problem *p, const struct nb_solution *s);
/* Copies the codes into out, which has the scales (nb_scales_export), back in storage order; col_group is set
 * when the problem permutes columns. */
int nb_solution_export(const struct nb_problem *p, const struct nb_solution *s, struct nb_qmat *out,
                       struct nb_arena *arena, struct nb_err *err);

/* ---- factor.c ---- */

/* H = A A^T for one visiting order, in the form the pass needs. Positions are visited from the last to
 * the first; at position i a column's target is w + sum over visited j of (w - q)_j * feedback[j][i], and
 * the loss grows by pivot[i] * (target - q)^2. */
struct nb_factor {
    int64_t n;
    struct nb_backend *be;
    int32_t *at;      /* [n] problem column at a position */
    float *feedback;  /* [n, n], row j: entries i < j */
    float *pivot;     /* [n] */
    const char *rung; /* of the ladder: "cholesky", "damped", "block-diagonal", "diagonal" */
    int64_t block;    /* columns of H that the factor still joins: n, a block, 1 */
    double damp;      /* share of the mean diagonal */
};

/* Start damping by the number of tokens per column; 0.2 below one, 0.05 below three, else 0.01. */
double nb_damp_for_tokens(int64_t n_tokens, int64_t k);

/* Climbs the ladder: damp, 3 damp, ... 1; then only blocks of H; then its diagonal. f->n, be, damp and at
 * are given. NB_E_NUMERIC when not even a positive diagonal is left, NB_E_NOMEM. */
int nb_factor_init(struct nb_factor *f, const struct nb_hessian *h, int64_t block,
                   struct nb_arena *arena, struct nb_err *err);
/* The same with f->pivot [n] given, in a [n, n], which becomes f->feedback. */
int nb_factor_fill(struct nb_factor *f, const struct nb_hessian *h, int64_t block, float *a,
                   struct nb_err *err);

/* ---- order.c ---- */

/* at[position] = column, for NONE, STATIC (by diag, also what DYNAMIC permutes by) or GROUP (groups whole,
 * a short last one at the end). diag [n] in the same numbering as the columns. NB_E_NOMEM. */
int nb_order_make(int32_t *at, enum nb_act_order order, const double *diag, int64_t n,
                  int64_t group, struct nb_err *err);

/* at[position] so that each position, from the first on, is the column that varies least given the columns at
 * positions before it: h [n, n] with row stride ld, positive diagonal. Evens out the pivots of the factor
 * better than the diagonal alone. NB_E_NOMEM. */
int nb_order_pivoted(int32_t *at, const float *h, int64_t ld, int64_t n, struct nb_backend *be,
                     struct nb_err *err);
/* The same for a dense [n, n] matrix that may be destroyed. */
int nb_order_pivoted_in_place(int32_t *at, float *a, int64_t n, struct nb_backend *be,
                              struct nb_err *err);

/* ---- pass.c ---- */

/* One pass of error-compensated rounding. fit: parameters are chosen at the first column of each group
 * from the weights as updated so far (the order must keep groups together), else s has them. Fills codes
 * and losses. */
int nb_pass_run(const struct nb_problem *p, const struct nb_factor *f, bool fit,
                struct nb_solution *s, struct nb_err *err);

/* ---- gptaq.c ---- */

/* own += alpha * own D H^-1: the target that also repairs the input error in stats->d. NB_E_NOMEM, NB_E_NUMERIC. */
int nb_gptaq_shift(struct nb_problem *p, const struct nb_stats *stats, double alpha,
                   struct nb_err *err);

/* ---- descent.c, beam.c: never raise the (damped) loss of a row; losses are left up to date ---- */

enum nb_descent { NB_DESCENT_CODES, NB_DESCENT_SCALES, NB_DESCENT_BOTH };
/* Sweeps over codes, scales or both until nothing changes. NB_E_NOMEM. */
int nb_descend(const struct nb_problem *p, struct nb_solution *s, int sweeps, enum nb_descent what,
               struct nb_err *err);
/* Sweeps over blocks of columns, each searched with a beam while the rest stands. NB_E_NOMEM, NB_E_NUMERIC. */
int nb_beam_descend(const struct nb_problem *p, struct nb_solution *s, int width, int sweeps,
                    struct nb_err *err);
/* Codes of whole rows anew by a beam under the parameters of s, as nb_pass_run without fit. NB_E_NOMEM. */
int nb_beam_pass(const struct nb_problem *p, const struct nb_factor *f, int width,
                 struct nb_solution *s, struct nb_err *err);

#endif
