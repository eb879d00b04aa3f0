/* SPDX-License-Identifier: Apache-2.0
 *
 * selfcheck.c - integer-valued products have one right answer in f32, so any wrong bit shows.
 *
 * Guards against what tests on the build machine cannot see: an emulator or hypervisor that reports
 * an instruction set and executes it wrongly, a miscompiled level, a broken machine. */
#include "backend/selfcheck.h"

#include <math.h>

enum { M = 37, N = 45, K = 61, F = 40 };
_Static_assert(20 * NB_TILE_MAX_NR <= M * K && NB_TILE_MAX_MR * NB_TILE_MAX_NR <= M * N,
               "a tile of integers lies in these");

struct work {
    float x[M * K], w[N * K], y[M * N];
    double h[K * K], f[F * F];
};

static int entry(int i, int j, int seed)
{
    return (i * 7 + j * 13 + i * j * seed) % 9 - 4;
}

static bool product_is_right(struct nb_backend *be, struct work *t, int m)
{
    struct nb_linear lin;
    const struct nb_fmat w = {.data = t->w, .rows = N, .cols = K, .ld = K};
    if (nb_linear_init_f32(&lin, be, "self-check", &w, NULL, NULL)) return false;
    nb_linear_run(be, &(struct nb_linear_out){.lin = &lin, .y = t->y, .ldy = N}, t->x, m, K);
    nb_linear_release(&lin);
    for (int i = 0; i < m; i++) {
        for (int n = 0; n < N; n++) {
            float sum = 0;
            for (int k = 0; k < K; k++) sum += t->x[i * K + k] * t->w[n * K + k];
            if (t->y[i * N + n] != sum) return false;
        }
    }
    return true;
}

/* Small integers are exact in bf16 too. */
static bool bf16_is_right(struct nb_backend *be, struct work *t)
{
    if (!nb_backend_has_bf16(be)) return true;
    enum nb_precision before = nb_backend_set_precision(be, NB_PRECISION_BF16);
    bool right = product_is_right(be, t, M);
    nb_backend_set_precision(be, before);
    return right;
}

/* A tile of integers, extremes among them, in memory of x, w and y. */
static bool integers_are_right(struct nb_backend *be, struct work *t)
{
    enum { DEPTH = 20 };
    const struct nb_cpu_ops *ops = &be->ops;
    const int mr = ops->mr, nr = ops->nr, code_k = ops->code_k;
    int8_t *a = (int8_t *)t->x;
    uint8_t *b = (uint8_t *)t->w;
    int16_t *wide_a = (int16_t *)(void *)t->x;
    uint16_t *wide_b = (uint16_t *)(void *)t->w;
    int32_t *sums = (int32_t *)(void *)t->y;
    for (int i = 0; i < DEPTH * mr * code_k; i++) {
        const int v = i % 5 ? i * 37 % 256 - 128 : -128;
        if (code_k == 4) a[i] = (int8_t)v;
        else wide_a[i] = (int16_t)v;
    }
    for (int i = 0; i < DEPTH * nr * code_k; i++) {
        const unsigned v = i % 3 ? (unsigned)i * 53 % 256 : 255;
        if (code_k == 4) b[i] = (uint8_t)v;
        else wide_b[i] = (uint16_t)v;
    }
    ops->tile_i8(&(struct nb_tile_f32){
        .k = DEPTH, .a = t->x, .lda = mr, .b = t->w, .ldb = nr, .c = t->y, .ldc = nr, .rows = mr});
    for (int i = 0; i < mr * nr; i++) {
        int32_t sum = 0;
        for (int k = 0; k < DEPTH * code_k; k++) {
            const int at = (k / code_k * mr + i / nr) * code_k + k % code_k;
            const int bt = (k / code_k * nr + i % nr) * code_k + k % code_k;
            sum += code_k == 4 ? a[at] * b[bt] : wide_a[at] * wide_b[bt];
        }
        if (sums[i] != sum) return false;
    }
    return true;
}

static bool syrk_is_right(struct nb_backend *be, struct work *t)
{
    for (int i = 0; i < K * K; i++) t->h[i] = 1;
    struct nb_err err = {0};
    if (nb_syrk_accumulate(be, &(struct nb_token_sum){t->h, t->x, NULL, M, K, K}, &err))
        return false;
    for (int i = 0; i < K; i++) {
        for (int j = i; j < K; j++) {
            double sum = 1;
            for (int m = 0; m < M; m++) sum += (double)t->x[m * K + i] * t->x[m * K + j];
            if (t->h[i * K + j] != sum) return false;
        }
    }
    return true;
}

/* L L^T of a known lower L with a unit diagonal times 3 has L as its factor, to rounding. */
static bool cholesky_is_right(struct nb_backend *be, struct work *t)
{
    for (int i = 0; i < F; i++) {
        for (int j = 0; j < F; j++) {
            double sum = 0;
            for (int k = 0; k <= i && k <= j; k++) {
                sum += (i == k ? 30 : entry(i, k, 3)) * (j == k ? 30.0 : entry(j, k, 3));
            }
            t->f[i * F + j] = sum;
        }
    }
    if (nb_cholesky_run(be, t->f, F, F)) return false;
    for (int i = 0; i < F; i++) {
        for (int j = 0; j <= i; j++) {
            if (!(fabs(t->f[i * F + j] - (i == j ? 30 : entry(i, j, 3))) < 1e-9)) return false;
        }
    }
    return true;
}

static bool exp_is_right(struct nb_backend *be, struct work *t)
{
    double sum = 0, found;
    for (int i = 0; i < M; i++) {
        t->y[i] = (float)(i - 20) * 0.5f;
        sum += exp((double)t->y[i]);
    }
    nb_logsumexp(be, &found, t->y, 1, M, M);
    return fabs(found - log(sum)) < 1e-5;
}

int nb_backend_selfcheck(struct nb_backend *be, struct nb_err *err)
{
    struct work *t = nb_calloc(1, sizeof *t);
    if (!t) return nb_fail(err, NB_E_NOMEM, "no memory for the self-check");
    for (int i = 0; i < M * K; i++) t->x[i] = (float)entry(i / K, i % K, 1);
    for (int i = 0; i < N * K; i++) t->w[i] = (float)entry(i / K, i % K, 2);
    const char *wrong = !product_is_right(be, t, M)   ? "the f32 product"
                        : !product_is_right(be, t, 3) ? "the dot product"
                        : !bf16_is_right(be, t)       ? "the bf16 product"
                        : !syrk_is_right(be, t)       ? "the Hessian update"
                        : !cholesky_is_right(be, t)   ? "the Cholesky factorization"
                        : !exp_is_right(be, t)        ? "the exponential"
                        : !integers_are_right(be, t)  ? "the integer product"
                                                      : NULL;
    nb_free(t);
    if (!wrong) return 0;
    nb_fail(err, NB_E_NUMERIC, "%s of CPU level '%s' gives wrong results on this machine", wrong,
            be->ops.tile_name);
    return nb_err_hint(err, "set NB_CPU=generic to use plain code");
}
