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
    double *d;       /* [K,K] sum (x_fp - x_q) x_q^T for GPTAQ, or NULL */
    double *abs_sum; /* [K] sum |x| for AWQ, or NULL */
    float *diff;     /* scratch of the cross term */
    bool finished;
    struct nb_hessian *hessian; /* condensed: what the solvers share; owned */
};

enum { NB_STATS_CROSS = 1, NB_STATS_ABS = 2 }; /* what else than H: d, abs_sum */
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

#endif
