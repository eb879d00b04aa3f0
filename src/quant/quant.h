/* SPDX-License-Identifier: Apache-2.0
 *
 * quant.h - transforms, solvers and statistics: floats and Hessians in, struct nb_qmat out.
 *
 * Pure: no files, no engine. Three orthogonal choices: transform (keeps the float function), solver (how
 * rounding error is handled), numeric (which values exist; numeric/numeric.h). Matrix letters: W [N,K]. */
#ifndef NB_QUANT_QUANT_H
#define NB_QUANT_QUANT_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/err.h"
#include "base/mem.h"
#include "core/block.h"
#include "core/qmat.h"
#include "core/tensor.h"
#include "numeric/numeric.h"

/* Statistics of one input (shared by the linears that read it). Raw sums over tokens; the engine side fills
 * them with nb_stats_add. */
struct nb_stats {
    int64_t k, n_tokens;
    double *
        h; /* [K,K] sum x x^T, upper triangle while gathering; full after nb_stats_finish; NULL when
                * condensed */
    double *d;            /* [K,K] sum (x_fp - x_q) x_q^T for GPTAQ, or NULL */
    double *abs_sum;      /* [K] sum |x| for AWQ, or NULL */
    double *sum, *sum_fp; /* [K] sum x of both streams, for biases, or NULL */
    float *diff;          /* scratch of the cross term */
    bool finished;
    struct nb_hessian *hessian; /* condensed: what the solvers share; owned */
};

enum {
    NB_STATS_CROSS = 1,
    NB_STATS_ABS = 2,
    NB_STATS_SUM = 4
}; /* what else than H: d, abs_sum, sum */
int nb_stats_init(struct nb_stats *s, int64_t k, unsigned what, struct nb_err *err);
void nb_stats_release(struct nb_stats *s);
struct nb_stats_input {
    const float *x;    /* [m, K] of the quantized stream */
    const float *x_fp; /* the same of the float stream, or NULL unless cross */
    int64_t m;
};
/* NB_E_NOMEM: the sums are of no use any more. */
int nb_stats_add(struct nb_stats *s, struct nb_backend *be, const struct nb_stats_input *in,
                 struct nb_err *err);
void nb_stats_finish(struct nb_stats *s); /* mirrors the triangle */
/* Finished sums around the mean instead of around 0: what a solver has to care for when a bias takes care of the mean
 * (nb_stats_bias). Needs NB_STATS_SUM, before condensing. */
void nb_stats_centre(struct nb_stats *s);
/* shift [N] = W E[x_fp] - Q E[x]: what a bias must gain for the outputs' mean to stay. w, q [N,K] of the same input.
 * NB_E_NOMEM. */
struct nb_bias_job {
    const struct nb_stats *stats;
    const struct nb_fmat *w;
    const struct nb_qmat *q;
    struct nb_backend *be;
};
int nb_stats_bias(const struct nb_bias_job *job, double *shift, struct nb_err *err);
/* Finished sums become H per token in f32, in place, with room for its factor: no more memory than the sums
 * took, and linears solved one after another share order and factor. Nothing can be added any more; such
 * statistics serve one solver at a time. NB_E_NOMEM: unchanged. */
int nb_stats_condense(struct nb_stats *s, struct nb_err *err);
/* False when an activation was NaN or Inf: no solver can use such sums. */
bool nb_stats_are_finite(const struct nb_stats *s);

/* STATIC: falling diag(H), groups as they stand. PIVOTED: the same with the diagonal taken after what the
 * columns still to come explain. GROUP: groups whole. DYNAMIC: desc_act, groups formed in that order. */
enum nb_act_order {
    NB_ORDER_AUTO,
    NB_ORDER_NONE,
    NB_ORDER_STATIC,
    NB_ORDER_GROUP,
    NB_ORDER_PIVOTED,
    NB_ORDER_DYNAMIC
};
const char *nb_order_name(enum nb_act_order o);

/* How much work a solver may spend on a better result: about 1 : 3 : 12 in time. */
enum nb_effort { NB_EFFORT_FAST, NB_EFFORT_NORMAL, NB_EFFORT_BEST };

struct nb_solve_opts {
    struct nb_grid_opts grid; /* numeric/numeric.h: spec, clip, zero_min, full-range sym */
    enum nb_act_order
        order;          /* AUTO: pivoted; for short rows group too, the better kept row by row */
    double damp;        /* start damping, share of mean diag; 0: by token count */
    double gptaq_alpha; /* 0: off; 1: the whole difference to the float stream */
    /* What follows a pass of error-compensated rounding; skipped below 3 tokens per column, where a lower
     * loss on the calibration text is no lower loss elsewhere. 0: off. */
    int scale_trials; /* passes per side with a row's scales 2 % apart; the best kept per row (short rows) */
    int group_trials; /* the same group by group, when a row has at most 8 */
    int cd_sweeps;    /* coordinate-descent sweeps */
    bool refit;       /* scales too, with codes fixed, within those sweeps */
    int restarts;     /* passes and sweeps anew under the re-fitted scales */
    int beam;         /* paths of restarts and block search; 0, 1: nearest code only */
    int beam_sweeps;  /* block searches at the end */
    bool bias;        /* biases take care of the outputs' mean, where there are any */
};

/* Everything but grid.spec and grid.zero_min, for an effort; the defaults are the normal one. */
void nb_solve_opts_effort(struct nb_solve_opts *o, enum nb_effort effort);
void nb_solve_opts_defaults(struct nb_solve_opts *o);

struct nb_solve_report {
    double loss, loss_rtn;   /* tr(dW H dW^T) / n_tokens, undamped H: result, RTN on the same grid.
                                 * With gptaq_alpha dW is measured from the shifted target; on the rungs below
                                 * "damped" H is what is left of it. */
    double loss_zero;        /* tr(W H W^T) / n_tokens: for relative figures */
    double damp;             /* used */
    enum nb_act_order order; /* used */
    char ladder[24];         /* "cholesky", "damped", "block-diagonal", "diagonal", "rtn" */
};

struct nb_solve_job {             /* what is solved; all borrowed */
    const struct nb_fmat *w;      /* [N,K], read only */
    const struct nb_stats *stats; /* of its input; may be NULL unless the solver needs a Hessian */
    const struct nb_solve_opts *opts;
    struct nb_backend *be;
};

struct nb_solver {
    const char *name; /* "rtn", "gptq" */
    const char *summary;
    bool needs_hessian;
    bool (*supports)(const struct nb_qspec *spec);
    /* out: all memory from arena. w [N,K] is read only. stats may be NULL unless needs_hessian. Never worse
     * than RTN with the same grid on tr(dW H dW^T) when stats are given. */
    int (*solve)(struct nb_qmat *out, const struct nb_solve_job *job, struct nb_arena *arena,
                 struct nb_solve_report *report, struct nb_err *err);
};
const struct nb_solver *const *nb_solvers(void); /* NULL-terminated */
const struct nb_solver *nb_solver_find(const char *name);

/* ---- blocks of GGUF files ---- */

/* False: nb_block_solve can only write what the reference's encoder writes. */
bool nb_block_solvable(const struct nb_block_type *type);
/* The whole contents of blocks, both levels of scales and every code, so that tr(dW H dW^T) is small.
 * out: job->w->rows rows of nb_block_row_bytes(type, cols), the caller's. job->opts as for gptq; its grid is
 * not looked at. Without usable statistics, or when the type is not solvable, the reference's bytes.
 * report (may be NULL): loss is that of the bytes written, loss_rtn that of the reference's encoder with
 * diag(H) as importance; no row is worse than that. NB_E_SPEC when cols is not whole blocks or the type has no
 * encoder, NB_E_NUMERIC, NB_E_NOMEM. */
int nb_block_solve(const struct nb_block_type *type, const struct nb_solve_job *job,
                   unsigned char *out, struct nb_solve_report *report, struct nb_err *err);

/* tr((W - Q) H (W - Q)^T) / n_tokens with full H; w and q [N,K]. Fixed order. NAN: out of memory. */
double nb_output_loss(const struct nb_fmat *w, const struct nb_fmat *q,
                      const struct nb_stats *stats, struct nb_backend *be);

/* ---- which scheme for which part of a model ---- */

struct nb_allocation {         /* one choice for each unit; [n_units * n_choices] */
    size_t n_units, n_choices; /* at most 255 choices */
    const double *loss;        /* >= 0; not finite: this unit cannot have this choice */
    const uint64_t *bytes;
};
struct nb_allocation_total {
    double loss;
    uint64_t bytes;
};
struct nb_allocation_total nb_allocation_total(const struct nb_allocation *a, const int *pick);
/* pick [n_units]: least sum of losses within a budget of bytes; or fewest bytes with a sum of at most limit. Exact
 * while bytes above the smallest choices make at most 2^26 / n_units levels of their common divisor, else within
 * one such level per unit of it; never worse than one choice for all. NB_E_SPEC: not reachable, with what is;
 * NB_E_NOMEM. */
int nb_allocate_bytes(const struct nb_allocation *a, uint64_t budget, int *pick,
                      struct nb_err *err);
int nb_allocate_loss(const struct nb_allocation *a, double limit, int *pick, struct nb_err *err);

/* ---- transform: AWQ scales ---- */

struct nb_awq_losses { /* summed output loss under the scales found, and without any */
    double best, identity;
};

struct nb_awq_group {        /* linears that share an input, and their statistics */
    const struct nb_fmat *w; /* [n] matrices with K columns each */
    int n;
    const struct nb_stats *stats;
    const struct nb_solve_opts *opts;
    struct nb_backend *be;
    int64_t repeat,
        head_dim; /* GQA fold: s constrained to one value per (kv head, dim); 1, 0 otherwise */
    bool
        compensated; /* judge s by error-compensated rounding, because a solver like gptq follows */
};
/* s [K] > 0 that minimizes the summed output loss of RTN (g->opts->grid) over {1} u plain r u duo r; s all 1 when
 * nothing beats the identity. */
int nb_awq_search(float *s, const struct nb_awq_group *g, struct nb_awq_losses *losses,
                  struct nb_err *err);
/* W[:,k] *= s[k] in place; statistics of the scaled input: H -> diag(1/s) H diag(1/s). */
void nb_awq_scale_columns(struct nb_fmat *w, const float *s);
void nb_awq_scale_stats(struct nb_stats *stats, const float *s);

/* ---- transform: SmoothQuant scales ---- */

struct nb_smooth_group {     /* linears that share an input */
    const struct nb_fmat *w; /* [n] matrices with K columns each */
    int n;
    const float *x_max;               /* [K] largest |x| of the calibration in each column */
    const float *x;                   /* [m, K] some of those inputs, to judge on */
    int64_t m;                        /* > 0 */
    const struct nb_solve_opts *opts; /* grid.spec says how weights and inputs are rounded */
    struct nb_backend *be;
    int64_t repeat, head_dim; /* as in struct nb_awq_group */
    bool compensated;         /* the same */
};
struct nb_smooth_choice {
    double loss, identity; /* squared output error per token under s, and without smoothing */
    double alpha;          /* 0: no smoothing */
};
/* s [K] > 0: x -> x / s, W -> W diag(s) makes the output error of x and W rounded as opts say least, for alpha in
 * .3, .35 ... .95; all 1 when nothing beats that. NB_E_SPEC, NB_E_NOMEM. */
int nb_smooth_search(float *s, const struct nb_smooth_group *g, struct nb_smooth_choice *choice,
                     struct nb_err *err);

/* ---- transform: rotations ---- */

struct nb_rotation {  /* an orthogonal matrix R of n columns */
    int64_t n, base;  /* base: size of the part that is not a power of two */
    double *h, *sign; /* [base, base]; [n] with 1 / sqrt(n) in them */
};
/* Randomized Hadamard of a seed. NB_E_SPEC: no such matrix for n; NB_E_NOMEM. */
int nb_rotation_init(struct nb_rotation *r, int64_t n, uint64_t seed, struct nb_err *err);
void nb_rotation_release(struct nb_rotation *r);
/* x [n] := x R. scratch [n]. A column c of a matrix R^T W is the row c^T R. */
void nb_rotation_apply(const struct nb_rotation *r, double *x, double *scratch);

#endif
