/* SPDX-License-Identifier: Apache-2.0
 *
 * ops.h - the table of single-threaded operators, one slot each, chosen once per backend.
 *
 * generic/ fills every slot and is the specification; avx2/ and avx512/ overwrite what they do
 * better. A bound or "exact" at a typedef is what tests/kernels holds every level to. Nothing here
 * allocates. */
#ifndef NB_BACKEND_CPU_OPS_H
#define NB_BACKEND_CPU_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/dtype.h"

/* ---- matrix tiles ----
 *
 * A tile multiplies two panels: a[k][mr] and b[k][nr], both with k outermost, into c[rows][nr]. */

enum {
    NB_TILE_MAX_MR = 16,
    NB_TILE_MAX_NR = 32,
    NB_PACK_SLACK = 16 /* floats a pack may write past its panel */
};

/* c[r][j] = (add ? c[r][j] : 0) + sum over kk of a[kk*lda + r] * b[kk*ldb + j], for r in [0, rows),
 * all nr j. The sum starts at 0, runs over rising kk and is added to c last, so that a row's value
 * depends on nothing but its own operands. Against f64: |error| <= 2 k eps sum|a b|. */
struct nb_tile_f32 {
    int64_t k;
    const float *a;
    int64_t lda;
    const float *b;
    int64_t ldb;
    float *c;
    int64_t ldc;
    int rows;
    bool add;
};
typedef void (*nb_tile_f32_fn)(const struct nb_tile_f32 *t);
/* The same tile over pairs: each 32-bit container of a and b holds two bf16 of neighbouring k (low
 * half first), k counts pairs. Against f64 on the bf16 values: |error| <= 4 k eps sum|a b|;
 * denormals may count as 0. */
typedef nb_tile_f32_fn nb_tile_bf16_fn;

struct nb_tile_f64 {
    int64_t k;
    const double *a;
    int64_t lda;
    const double *b;
    int64_t ldb;
    double *c;
    int64_t ldc;
    int rows;
    bool add;
};
typedef void (*nb_tile_f64_fn)(const struct nb_tile_f64 *t);

/* A panel of width w from `rows` vectors of length k, 0 for r in [rows, w). Two ways the source may
 * lie:
 *   rows: dst[kk*w + r] = src[r*ld + kk]     src F32, F16 or BF16
 *   cols: dst[kk*w + r] = src[kk*ld + r]     src F32
 * ld in elements. May write NB_PACK_SLACK floats past the panel. Exact. The bf16 forms make
 * pairs for nb_tile_bf16_fn, (k + 1) / 2 of them, rounded to nearest even; a missing last
 * element is 0. */
struct nb_pack {
    float *dst;
    int w;
    const void *src;
    enum nb_dtype type;
    int64_t ld;
    int rows;
    int64_t k;
};
typedef void (*nb_pack_fn)(const struct nb_pack *p);

struct nb_pack_f64 { /* rows */
    double *dst;
    int w;
    const double *src;
    int64_t ld;
    int rows;
    int64_t k;
};
typedef void (*nb_pack_f64_fn)(const struct nb_pack_f64 *p);

/* ---- few rows of x ---- */

enum { NB_DOT_MAX_M = 4 };

/* y[i*ldy + r] = sum over k of x[i*ldx + k] * w[r*ldw + k], i in [0, m), m <= NB_DOT_MAX_M, r in
 * [0, rows). A value depends on its own row of x and of w only. w: F32, F16 or BF16. |error| <= 2 k
 * eps sum|x w|. */
struct nb_dot {
    const float *x;
    int64_t ldx, m;
    const void *w;
    enum nb_dtype type;
    int64_t ldw, rows, k;
    float *y;
    int64_t ldy;
};
typedef void (*nb_dot_fn)(const struct nb_dot *d);

/* dst[i] = (code[i] - zero) * scale, one rounding each, i in [0, n). Exact. */
typedef void (*nb_dequant_u8_fn)(float *dst, const uint8_t *code, int64_t n, float scale,
                                 float zero);
/* code[i] = nibble i of src (low nibble first), i in [0, n). Exact. */
typedef void (*nb_unpack_u4_fn)(uint8_t *code, const uint8_t *src, int64_t n);

/* dst[i] = table[code[i]] * scale, i in [0, n), codes below 16. Exact. */
typedef void (*nb_lookup16_fn)(float *dst, const uint8_t *code, int64_t n, const float *table,
                               float scale);
/* dst[i] = E4M3 of code[i] times scale; NaN for 0x7f and 0xff. Exact. */
typedef void (*nb_decode_e4m3_fn)(float *dst, const uint8_t *code, int64_t n, float scale);

/* ---- few bits on both sides ----
 *
 * Panels of integers hold code_k codes of neighbouring k per 32-bit container, first k lowest:
 * 4 (bytes: a signed, b unsigned) or 2 (16 bits, both signed). tile_i8 is then the f32 tile over
 * containers: k counts them, c holds int32, sums wrap modulo 2^32. Exact. */

/* The largest |x[i]| among those below `limit` (0: among all); 0 when there is none. NaN or infinity
 * are larger than any number. */
typedef float (*nb_amax_fn)(const float *x, int64_t n, float limit);
/* dst[i] = x[i] * factor to the nearest integer, ties to even, saturated to [-128, 127]. x finite. Exact. */
typedef void (*nb_quant_i8_fn)(int8_t *dst, const float *x, int64_t n, float factor);
typedef int32_t (*nb_sum_i8_fn)(const int8_t *x, int64_t n); /* n <= 2^24; exact */
typedef void (*nb_widen_u8_fn)(uint16_t *dst, const uint8_t *src, int64_t n);
typedef void (*nb_widen_i8_fn)(int16_t *dst, const int8_t *src, int64_t n);

/* y[j] = (add ? y[j] : 0) + ((float)v * scale[j]) * x_scale, v = acc[j] - (zero ? zero[j] * sum : sum)
 * modulo 2^32, j in [0, n). One rounding per operation. Exact. */
struct nb_out_i8 {
    const void *acc; /* int32 */
    const int32_t *zero;
    int32_t sum;
    const float *scale;
    float x_scale;
    float *y;
    int64_t n;
    bool add;
};
typedef void (*nb_out_i8_fn)(const struct nb_out_i8 *o);

/* dst[i] = scale * (x[i] / scale to the nearest float of `man` stored mantissa bits, ties to even, no normal
 * number below 2^emin, saturated to max). scale > 0. A NaN stays one. One rounding per operation. Exact.
 * dst may be x. */
struct nb_float_grid {
    float scale, max;
    int man, emin;
};
typedef void (*nb_round_float_fn)(float *dst, const float *x, int64_t n,
                                  const struct nb_float_grid *g);
/* dst[i] = x[i] to the nearest F16 where one is finite, else x[i]. Exact. dst may be x. */
typedef void (*nb_round_f16_fn)(float *dst, const float *x, int64_t n);

/* ---- element by element ---- */

/* y[i] = x[i] * weight[i] / sqrt(mean(x^2) + eps), i in [0, d). Relative error <= 2e-6. y may be
 * x. */
typedef void (*nb_rmsnorm_fn)(float *y, const float *x, const float *weight, int64_t d, float eps);
/* In place on one head: x[i], x[i + half] rotated by cos_t[i], sin_t[i]. Error <= 4 eps (|x1| +
 * |x2|). */
typedef void (*nb_rope_fn)(float *x, int64_t half, const float *cos_t, const float *sin_t);
/* out[i] = act(gate[i]) * up[i]. Relative error of act <= 4 eps + that of its argument. out may be
 * gate. */
typedef void (*nb_act_fn)(float *out, const float *gate, const float *up, int64_t n);
typedef void (*nb_add_fn)(float *y, const float *x, int64_t n);      /* y += x; exact */
typedef void (*nb_add_f64_fn)(double *y, const float *x, int64_t n); /* y += x; exact */
/* x[i] = cap * tanh(x[i] / cap), cap > 0. Relative error <= 1e-6. */
typedef void (*nb_softcap_fn)(float *x, int64_t n, float cap);
/* log(sum exp(x[i])), shifted by the largest; f64 sum of f32 terms. Absolute error <= 1e-6. */
typedef double (*nb_logsumexp_fn)(const float *x, int64_t n);

/* x[i] = exp(x[i] - shift), i in [0, n); returns their sum. exp: relative error <= 2e-7. */
typedef float (*nb_exp_sum_fn)(float *x, int64_t n, float shift);

/* One step of online softmax over a block of keys, for the nr queries that stand side by side in a
 * panel. s[key][nr] comes in as scores (-inf: not visible) and goes out as exp(score - m); m[nr],
 * l[nr] are the running maximum and sum (start: -inf, 0), alpha[nr] the factor for what was summed
 * before. A query that has seen no key keeps m = -inf, l = 0, and gets zeros. exp: relative error
 * <= 2e-7. */
typedef void (*nb_softmax_fn)(float *s, int64_t keys, float *m, float *l, float *alpha);
/* o[i][nr] *= alpha[nr], i in [0, n). Exact. */
typedef void (*nb_scale_fn)(float *o, int64_t n, const float *alpha);

struct nb_cpu_ops {
    const char *tile_name;   /* level that filled the tiles: "generic", "avx2", "avx512" */
    const char *vector_name; /* level that filled the rest */
    int mr, nr;              /* f32 tile */
    nb_tile_f32_fn tile_f32;
    nb_pack_fn pack_rows_f32, pack_cols_f32;
    nb_tile_bf16_fn tile_bf16; /* of mr x nr too; NULL, as its packs, where the machine has none */
    nb_pack_fn pack_rows_bf16, pack_cols_bf16;
    int mr64, nr64; /* f64 tile */
    nb_tile_f64_fn tile_f64;
    nb_pack_f64_fn pack_rows_f64;
    nb_dot_fn dot;
    nb_dequant_u8_fn dequant_u8;
    nb_unpack_u4_fn unpack_u4;
    nb_lookup16_fn lookup16;
    nb_decode_e4m3_fn decode_e4m3;
    int code_k;              /* codes per container of tile_i8 */
    nb_tile_f32_fn tile_i8;  /* of mr x nr */
    nb_widen_u8_fn widen_u8; /* bytes of a panel to code_k = 2 */
    nb_widen_i8_fn widen_i8;
    nb_amax_fn amax;
    nb_quant_i8_fn quant_i8;
    nb_sum_i8_fn sum_i8;
    nb_out_i8_fn out_i8;
    nb_round_float_fn round_float;
    nb_round_f16_fn round_f16;
    nb_rmsnorm_fn rmsnorm;
    nb_rope_fn rope;
    nb_act_fn act[4]; /* by enum nb_act_fn of backend.h */
    nb_add_fn add;
    nb_add_f64_fn add_f64;
    nb_softcap_fn softcap;
    nb_logsumexp_fn logsumexp;
    nb_exp_sum_fn exp_sum;
    nb_softmax_fn softmax; /* panels of nr: belongs to the tile */
    nb_scale_fn scale;
};

/* features: NB_CPU_* of features.h. */
void nb_cpu_ops_init(struct nb_cpu_ops *ops, unsigned features);
void nb_cpu_ops_generic(struct nb_cpu_ops *ops);
void nb_cpu_ops_avx2(struct nb_cpu_ops *ops);
void nb_cpu_ops_avx512(struct nb_cpu_ops *ops);

#endif
