/* SPDX-License-Identifier: Apache-2.0
 *
 * backend.h - the operators a model is made of, and dense linear algebra, on this machine's CPU.
 *
 * Work is cut into fixed pieces over the pool; results do not depend on the number of threads.
 * y[M,N] = x[M,K] W[N,K]^T, row-major everywhere. */
#ifndef NB_BACKEND_BACKEND_H
#define NB_BACKEND_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/pool.h"
#include "core/weight.h"

struct nb_backend;

/* cpu: NULL or "" (NB_CPU from the environment, else all this machine has), "generic", "avx2",
 * "avx512". pool is borrowed and must outlive the backend. Takes about 1.5 MB of scratch per
 * thread, so that no operator allocates later. Runs a self-check of the chosen kernels (known
 * products and a Cholesky factor, under 1 ms) and refuses a level that computes wrongly here
 * (NB_E_NUMERIC). NB_E_USAGE, NB_E_SPEC: see cpu/features.h. */
int nb_backend_new(struct nb_backend **out, struct nb_pool *pool, const char *cpu,
                   struct nb_err *err);
void nb_backend_free(struct nb_backend *be);
struct nb_pool *nb_backend_pool(const struct nb_backend *be);
void nb_backend_describe(const struct nb_backend *be, char *out,
                         size_t bytes); /* for info and manifests */

/* How linears with more than 4 rows of x and the sums over tokens multiply. Everything else, and
 * evaluation, is f32. */
enum nb_precision {
    NB_PRECISION_F32,
    NB_PRECISION_BF16 /* operands rounded to bf16, products summed in f32 */
};
bool nb_backend_has_bf16(const struct nb_backend *be); /* this machine does it faster than f32 */
/* Sets what later calls use and returns what was in force; BF16 needs nb_backend_has_bf16. */
enum nb_precision nb_backend_set_precision(struct nb_backend *be, enum nb_precision precision);

/* ---- linears: prepared once per weight, run many times ---- */

struct nb_gemm_kernel; /* one way to multiply by a weight: kernels.h, table in kernels.c */

struct nb_act_rule { /* which numbers a linear's input is rounded to: see core/qmat.h */
    enum nb_act_kind kind;
    int64_t group;
    float threshold, input_scale;
};

struct nb_linear {
    struct nb_weight w;     /* for quantized weights only the shape stays valid after prepare */
    struct nb_act_rule act; /* of a quantized weight: its spec's */
    const struct nb_gemm_kernel *kernel;
    void *packed; /* owned; NULL for a dense view */
    float *bias;  /* [N] f32, owned, or NULL */
};

/* A dense weight stays a view (must outlive the linear); a quantized one is packed and may go. The first one
 * that rounds its input takes 32 MB for rounded rows from the backend (more when 64 rows are more). NB_E_SPEC: no
 * kernel, a bias of another type, activation numbers without the scale, group or threshold they need. */
int nb_linear_init(struct nb_linear *lin, struct nb_backend *be, const struct nb_weight *w,
                   struct nb_err *err);
/* From a float matrix [N,K] with ld = K that stays with the caller, bias f32 [N] or NULL
 * (copied). */
int nb_linear_init_f32(struct nb_linear *lin, struct nb_backend *be, const char *name,
                       const struct nb_fmat *w, const float *bias, struct nb_err *err);
void nb_linear_release(struct nb_linear *lin);

struct nb_linear_out { /* y[M,N] = x[M,K] W^T + bias */
    const struct nb_linear *lin;
    float *y;
    int64_t ldy; /* in elements */
};
/* A row of y depends on its row of x only and, for m above 4, on nothing else; up to 4 rows take
 * another path, which rounds differently. ldx in elements.
 *
 * A weight made for activation numbers gets x rounded to them. One call is one batch: NB_ACT_INT8_OUTLIER and
 * NB_ACT_FP8_TENSOR look at all m rows, so there a row of y depends on the others. Integers times integers are
 * summed in int32, exactly, whatever the precision; floats are multiplied as values, in f32. A row of x that
 * holds a NaN gives NaN. */
void nb_linear_run(struct nb_backend *be, const struct nb_linear_out *out, const float *x,
                   int64_t m, int64_t ldx);
enum { NB_MAX_LINEAR_OUTS = 8 };
/* Several linears that share an input, as one piece of work; each result as nb_linear_run gives
 * it. */
void nb_linears_run(struct nb_backend *be, const struct nb_linear_out *outs, int n, const float *x,
                    int64_t m, int64_t ldx);
const char *nb_linear_kernel_name(const struct nb_linear *lin);

/* ---- the other operators ---- */

struct nb_norm {
    const float *weight; /* [d] */
    int64_t d;
    double eps;
    const float *bias; /* [d], of a LayerNorm; an RMSNorm has none */
};
/* y[m, d] = x / rms(x) * weight, row by row; y may be x. */
void nb_rmsnorm(struct nb_backend *be, const struct nb_norm *norm, float *y, const float *x,
                int64_t m);

/* y[m, d] = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias, row by row; y may be x. */
void nb_layernorm(struct nb_backend *be, const struct nb_norm *norm, float *y, const float *x,
                  int64_t m);

struct nb_rope_rows {
    float *x; /* [m, n_heads, head_dim], row stride ldx */
    int64_t m, ldx, n_heads, head_dim;
    const float *cos_t, *sin_t; /* [m, rotary/2], scaled */
    int64_t rotary_dim; /* only the first so many dimensions of a head are rotated; 0: all */
};
/* In place: dimension i is rotated with i + rotary/2, where rotary is rotary_dim or head_dim. */
void nb_rope_apply(struct nb_backend *be, const struct nb_rope_rows *rows);

struct nb_attention { /* causal, grouped-query, optional sliding window; tiled, O(window) memory */
    const float *q;   /* [n_q, n_heads, head_dim], stride ldq */
    const float *k, *v; /* [n_kv, n_kv_heads, head_dim], stride ldkv */
    float *out;         /* [n_q, n_heads, head_dim], stride ldo */
    int64_t n_q, n_kv;  /* query i stands at position n_kv - n_q + i */
    int64_t ldq, ldkv, ldo;
    int64_t n_heads, n_kv_heads, head_dim;
    int64_t window; /* query p sees keys in (p - window, p]; 0: full */
    float scale;
    float softcap; /* scores become softcap * tanh(score / softcap); 0: they stay */
};
void nb_attention_run(struct nb_backend *be, const struct nb_attention *a);

/* out[m, i] = act(gate[m, i]) * up[m, i]; kind as enum nb_act_fn below. */
enum nb_act_fn { NB_ACT_FN_SILU, NB_ACT_FN_GELU, NB_ACT_FN_GELU_TANH, NB_ACT_FN_RELU };
void nb_gated_act(struct nb_backend *be, float *out, const float *gate, const float *up, int64_t n,
                  enum nb_act_fn kind);
/* out[i] = act(x[i]); out may be x. */
void nb_act(struct nb_backend *be, float *out, const float *x, int64_t n, enum nb_act_fn kind);
/* out[m, width] = act(gate) * up, where x[m, 2 * width] has gate and then up in every row; no overlap. */
void nb_gated_act_fused(struct nb_backend *be, float *out, const float *x, int64_t m, int64_t width,
                        enum nb_act_fn kind);
void nb_residual_add(struct nb_backend *be, float *y, const float *x, int64_t n); /* y += x */

/* x = cap * tanh(x / cap), cap > 0. */
void nb_softcap(struct nb_backend *be, float *x, int64_t n, float cap);

/* out[i] = log(sum over j of exp(x[i*ldx + j])), i in [0, m), j in [0, n): absolute error below
 * 1e-6. */
void nb_logsumexp(struct nb_backend *be, double *out, const float *x, int64_t m, int64_t n,
                  int64_t ldx);

/* ---- dense linear algebra for quantizers ---- */

/* C[M,N] (+)= alpha * A op B op; f32; fixed tiles over the pool. ta/tb: transpose. */
struct nb_gemm {
    bool ta, tb, accumulate;
    int64_t m, n, k;
    float alpha;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
};
void nb_gemm_run(struct nb_backend *be, const struct nb_gemm *g);

struct nb_token_sum {
    double *out;    /* [K,K] */
    const float *a; /* [m,K], rows ld apart */
    const float *b; /* the same, cross only */
    int64_t m, ld, k;
};
/* out, upper triangle incl. diagonal, += sum over m of a_m a_m^T (raw sum). Products in f32 blocks of at
 * most 2048 tokens, blocks added in f64; fixed order. NB_E_NOMEM: nothing was added. */
int nb_syrk_accumulate(struct nb_backend *be, const struct nb_token_sum *sum, struct nb_err *err);
/* out, full matrix, += sum over m of a_m b_m^T. */
int nb_cross_accumulate(struct nb_backend *be, const struct nb_token_sum *sum, struct nb_err *err);

/* Lower Cholesky in place (upper triangle untouched), f64, blocked, over the pool. Returns 0, or
 * the 1-based order of the minor that is not positive. */
int64_t nb_cholesky_run(struct nb_backend *be, double *a, int64_t n, int64_t lda);
/* The same stored in f32; arithmetic in f64, so that only the stored entries are rounded. */
int64_t nb_cholesky_f32_run(struct nb_backend *be, float *a, int64_t n, int64_t lda);
/* f64 without a backend: one thread, plain C, slow above a few hundred columns. */
int64_t nb_cholesky_f64(double *a, int64_t n, int64_t lda);
/* In place inverse of a lower triangular matrix; one thread, plain C. */
void nb_tri_inverse_f64(double *a, int64_t n, int64_t lda);

#endif
