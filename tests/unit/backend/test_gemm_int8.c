/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gemm_int8.c - integer linears against plain loops over int64: the same bits at every level, for any
 * batch and number of threads; LLM.int8 and its worked example. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "make.h"

struct shape {
    int64_t m, n, k;
};

struct numbers { /* of a weight */
    int bits;
    int64_t group_rows, group_cols;
    enum { SYM, ASYM, UNSIGNED } zero;
    enum nb_act_kind act;
};

static struct nb_qmat *make(struct nb_rng *rng, struct nb_arena *arena, struct numbers of,
                            struct shape s)
{
    struct nb_err err = {0};
    struct nb_qmat *q = nb_arena_calloc(arena, 1, sizeof *q);
    const struct nb_qspec spec = {.elem = {.kind = NB_ELEM_INT, .bits = of.bits, .vec = 1},
                                  .group_rows = of.group_rows,
                                  .group_cols = of.group_cols,
                                  .scale_dtype = NB_F32,
                                  .zero = of.zero == UNSIGNED ? NB_ZERO_NONE : NB_ZERO_CODE,
                                  .symmetric = of.zero == SYM,
                                  .act = of.act,
                                  .act_threshold = 2.5f};
    if (nb_qmat_init(q, &spec, s.n, s.k, arena, &err)) fail_msg("%s", err.text);
    q->input_scale = 0.02f; /* 2.5 standard deviations: some saturate */
    for (int64_t i = 0; i < s.n * s.k; i++) q->codes[i] = (uint8_t)nb_rng_below(rng, 1u << of.bits);
    for (int64_t i = 0; i < nb_qmat_planes(q); i++) {
        q->scale.value[i] = (float)nb_rng_normal(rng) * 0.1f;
        if (of.zero == SYM) q->zero.value[i] = (float)(1 << (of.bits - 1));
        if (of.zero == ASYM) q->zero.value[i] = (float)nb_rng_below(rng, 1u << of.bits);
    }
    return q;
}

/* Codes of a row of x and their scale, by the definition in act.c; outlier columns get code 0. */
static float quantize(const struct nb_qmat *q, const float *x, const bool *outlier, int8_t *code)
{
    const enum nb_act_kind act = q->spec.act;
    const bool half = act == NB_ACT_INT8_OUTLIER;
    float amax = 0;
    for (int64_t k = 0; k < q->cols; k++) {
        const float v = half ? nb_f16_to_f32(nb_f32_to_f16(x[k])) : x[k];
        if (!half || fabsf(v) < q->spec.act_threshold) amax = fmaxf(amax, fabsf(v));
    }
    const float factor = act == NB_ACT_INT8_STATIC ? 1 / q->input_scale : 127 / amax;
    for (int64_t k = 0; k < q->cols; k++) {
        const float v = half ? nb_f16_to_f32(nb_f32_to_f16(x[k])) : x[k];
        const float c = fminf(fmaxf(rintf(v * factor), -128), 127);
        code[k] = outlier[k] || amax == 0 ? 0 : (int8_t)c;
    }
    return act == NB_ACT_INT8_STATIC ? q->input_scale : amax / 127;
}

struct product {
    const struct nb_qmat *q;
    const float *x;
    int64_t m, ldx;
    bool *outlier;
    int n_outliers;
};

static void find_outliers(struct product *p)
{
    memset(p->outlier, 0, (size_t)p->q->cols * sizeof *p->outlier);
    for (int64_t k = 0; p->q->spec.act == NB_ACT_INT8_OUTLIER && k < p->q->cols; k++) {
        for (int64_t i = 0; i < p->m; i++) {
            const float v = nb_f16_to_f32(nb_f32_to_f16(p->x[i * p->ldx + k]));
            if (fabsf(v) >= p->q->spec.act_threshold) p->outlier[k] = true;
        }
        p->n_outliers += p->outlier[k];
    }
}

/* y of one row: exact sums of integers per group, then f32; plus outlier columns in f64. */
static void row_of(const struct product *p, int64_t i, float *y, double *extra, double *size)
{
    const struct nb_qmat *q = p->q;
    const float *x = p->x + i * p->ldx;
    int8_t *code = nb_alloc((size_t)q->cols, 1);
    assert_non_null(code);
    const float x_scale = quantize(q, x, p->outlier, code);
    for (int64_t n = 0; n < q->rows; n++) {
        y[n] = 0;
        extra[n] = size[n] = 0;
        for (int64_t g = 0, k = 0; g < q->n_groups; g++) {
            const int64_t at = nb_qmat_plane_index(q, n, k);
            const float zero = q->zero.value ? q->zero.value[at] : 0;
            int64_t sum = 0;
            for (; k < q->cols && k / q->spec.group_cols == g; k++) {
                const int w = q->codes[n * q->cols + k] - (int)zero;
                sum += w * code[k];
                if (!p->outlier[k]) continue;
                const double v = (double)((float)w * q->scale.value[at]) * x[k];
                extra[n] += v;
                size[n] += fabs(v);
            }
            assert_true(sum >= INT32_MIN && sum <= INT32_MAX);
            const float v = (float)sum * q->scale.value[at] * x_scale;
            y[n] = g ? y[n] + v : v;
        }
    }
    nb_free(code);
}

static void check_rows(const struct product *p, const float *y, int64_t ldy, const char *level)
{
    const int64_t rows = p->q->rows;
    float *want = nb_alloc((size_t)rows, sizeof *want);
    double *extra = nb_alloc((size_t)rows * 2, sizeof *extra);
    for (int64_t i = 0; i < p->m; i++) {
        row_of(p, i, want, extra, extra + rows);
        for (int64_t n = 0; n < rows; n++) {
            const float found = y[i * ldy + n];
            const double sum = (double)want[n] + extra[n];
            const double bound =
                2 * (p->n_outliers + 2) * 0x1p-24 * (extra[rows + n] + fabs((double)want[n]));
            if (p->n_outliers ? !(fabs(found - sum) <= bound) : found != want[n]) {
                fail_msg("%s, %d x %d x %d, row %d, %d: %.9g, expected %.9g", level, (int)p->m,
                         (int)rows, (int)p->q->cols, (int)i, (int)n, (double)found, sum);
            }
        }
    }
    nb_free(want);
    nb_free(extra);
}

static void check(struct made *made, const char *level, struct nb_rng *rng, struct numbers of,
                  struct shape s)
{
    struct nb_err err = {0};
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct nb_weight w = {.name = "test", .rows = s.n, .cols = s.k};
    const struct nb_qmat *q = w.q = make(rng, &arena, of, s);
    const int64_t ldx = s.k + 3, ldy = s.n + 2;
    float *x = make_normal(rng, (size_t)(s.m * ldx));
    float *y = nb_calloc((size_t)(s.m * ldy), sizeof *y);
    if (s.m > 1) memset(x + ldx, 0, (size_t)s.k * sizeof *x); /* a row of zeros */
    struct product p = {q, x, s.m, ldx, nb_alloc((size_t)s.k, sizeof(bool)), 0};
    find_outliers(&p);
    struct nb_linear lin;
    if (nb_linear_init(&lin, made->be, &w, &err)) fail_msg("%s", err.text);
    assert_string_equal(nb_linear_kernel_name(&lin), "int8");
    nb_linear_run(made->be, &(struct nb_linear_out){&lin, y, ldy}, x, s.m, ldx);
    check_rows(&p, y, ldy, level);
    for (int64_t i = 0; i < s.m; i++) { /* nothing beyond the row */
        for (int64_t j = s.n; j < ldy; j++) assert_true(y[i * ldy + j] == 0);
    }
    nb_linear_release(&lin);
    nb_arena_release(&arena);
    nb_free(p.outlier);
    nb_free(x);
    nb_free(y);
}

static const enum nb_act_kind acts[] = {NB_ACT_INT8_TOKEN, NB_ACT_INT8_STATIC, NB_ACT_INT8_OUTLIER};

static void test_every_kind(void **state)
{
    (void)state;
    static const int64_t ms[] = {1, 2, 4, 5, 14, 29, 171}, ns[] = {1, 7, 33, 64, 130, 300};
    static const int64_t ks[] = {1, 3, 8, 65, 130, 257, 514, 1027, 1100};
    static const int64_t groups[][2] = {{1, 0}, {INT64_MAX, 0}, {1, 32}, {1, 4}, {8, 64}};
    struct nb_rng rng;
    nb_rng_init(&rng, 31);
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        struct made made = make_backend(levels[l], 2);
        for (int trial = 0; trial < 90; trial++) {
            const int g = (int)nb_rng_below(&rng, 5);
            struct numbers of = {trial % 4 ? 8 : 2 + trial / 4 % 7, groups[g][0], groups[g][1],
                                 (int)nb_rng_below(&rng, 3), acts[trial % 3]};
            check(&made, levels[l], &rng, of,
                  (struct shape){ms[nb_rng_below(&rng, 7)], ns[nb_rng_below(&rng, 6)],
                                 ks[nb_rng_below(&rng, 9)]});
        }
        make_release(&made);
    }
}

/* Extreme operands at the largest depth: the int32 sums come within a part in 200 of the end. */
static void test_longest_rows(void **state)
{
    (void)state;
    enum { K = 65536, N = 3 };
    struct nb_rng rng;
    nb_rng_init(&rng, 32);
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        struct made made = make_backend(levels[l], 1);
        struct nb_err err = {0};
        struct nb_arena arena;
        nb_arena_init(&arena);
        struct numbers of = {8, 1, 0, ASYM, NB_ACT_INT8_STATIC};
        struct nb_weight w = {.name = "test", .rows = N, .cols = K};
        struct nb_qmat *q = make(&rng, &arena, of, (struct shape){1, N, K});
        w.q = q;
        memset(q->codes, 255, (size_t)N * K);
        memset(q->codes + K, 0, K);
        for (int n = 0; n < N; n++) q->zero.value[n] = n == 1 ? 255 : 0;
        q->input_scale = 1;
        float *x = nb_alloc(K, sizeof *x), y[N];
        for (int k = 0; k < K; k++) x[k] = -1e9f;
        bool *outlier = nb_calloc(K, sizeof *outlier);
        struct nb_linear lin;
        if (nb_linear_init(&lin, made.be, &w, &err)) fail_msg("%s", err.text);
        nb_linear_run(made.be, &(struct nb_linear_out){&lin, y, N}, x, 1, K);
        check_rows(&(struct product){q, x, 1, K, outlier, 0}, y, N, levels[l]);
        nb_linear_release(&lin);
        nb_free(x);
        nb_free(outlier);
        nb_arena_release(&arena);
        make_release(&made);
    }
}

/* More rows than are rounded at once; any number of threads; bf16 makes no difference. */
static void test_chunks_threads_and_precision(void **state)
{
    (void)state;
    enum { M = 1300, N = 40, K = 70 };
    struct nb_rng rng;
    nb_rng_init(&rng, 33);
    float *x = make_normal(&rng, M * K), *whole = nb_alloc(M * N, sizeof *whole);
    float *y = nb_alloc(M * N, sizeof *y);
    struct nb_arena arena;
    struct nb_err err = {0};
    nb_arena_init(&arena);
    for (int a = 0; a < 3; a++) {
        struct nb_weight w = {.name = "test", .rows = N, .cols = K};
        w.q = make(&rng, &arena, (struct numbers){8, 1, 0, SYM, acts[a]}, (struct shape){M, N, K});
        static const int threads[] = {1, 3, 7};
        for (int t = 0; t < 3; t++) {
            struct made made = make_backend(NULL, threads[t]);
            struct nb_linear lin;
            if (nb_linear_init(&lin, made.be, &w, &err)) fail_msg("%s", err.text);
            nb_linear_run(made.be, &(struct nb_linear_out){&lin, t ? y : whole, N}, x, M, K);
            if (t) assert_memory_equal(y, whole, M * N * sizeof *y);
            if (nb_backend_has_bf16(made.be)) {
                nb_backend_set_precision(made.be, NB_PRECISION_BF16);
                nb_linear_run(made.be, &(struct nb_linear_out){&lin, y, N}, x, M, K);
                assert_memory_equal(y, whole, M * N * sizeof *y);
            }
            if (acts[a] != NB_ACT_INT8_OUTLIER) { /* rows alone */
                for (int64_t i = 0; i < M; i += 100) {
                    nb_linear_run(made.be, &(struct nb_linear_out){&lin, y, N}, x + i * K, 1, K);
                    assert_memory_equal(y, whole + i * N, N * sizeof *y);
                }
            }
            nb_linear_release(&lin);
            make_release(&made);
        }
    }
    nb_arena_release(&arena);
    nb_free(x);
    nb_free(y);
    nb_free(whole);
}

/* Checkpoint formats, section 4.6. */
static void test_worked_example(void **state)
{
    (void)state;
    static const uint8_t codes[] = {160, 64, 144, 255, 255, 255, 64, 128};
    static const float x[] = {1, -2, 7, 0.5f, 0.25f, 4, 0, -1};
    static const double want[] = {5.29530659, -4.51968504, -5.92026784, 4.25196850};
    struct nb_rng rng;
    nb_rng_init(&rng, 34);
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        struct made made = make_backend(levels[l], 1);
        struct nb_err err = {0};
        struct nb_arena arena;
        nb_arena_init(&arena);
        struct nb_qmat *q = make(&rng, &arena, (struct numbers){8, 1, 0, SYM, NB_ACT_INT8_OUTLIER},
                                 (struct shape){2, 2, 4});
        memcpy(q->codes, codes, sizeof codes);
        q->spec.act_threshold = 6;
        q->scale.value[0] = 2.0f / 127;
        q->scale.value[1] = 1.0f / 127;
        struct nb_weight w = {.name = "test", .rows = 2, .cols = 4, .q = q};
        struct nb_linear lin;
        float y[4];
        if (nb_linear_init(&lin, made.be, &w, &err)) fail_msg("%s", err.text);
        nb_linear_run(made.be, &(struct nb_linear_out){&lin, y, 2}, x, 2, 4);
        for (int i = 0; i < 4; i++) assert_true(fabs((double)y[i] - want[i]) < 2e-6);
        nb_linear_release(&lin);
        nb_arena_release(&arena);
        make_release(&made);
    }
}

/* Act-order, group borders off 4 columns, zeros that are no codes: values are multiplied instead, and agree. */
static void test_left_to_values(void **state)
{
    (void)state;
    enum { M = 9, N = 21, K = 90 };
    struct nb_rng rng;
    nb_rng_init(&rng, 35);
    for (int a = 0; a < 3; a++) {
        for (int kind = 0; kind < 3; kind++) {
            struct made made = make_backend(NULL, 2);
            struct nb_err err = {0};
            struct nb_arena arena;
            nb_arena_init(&arena);
            struct numbers of = {4, 1, kind == 1 ? 18 : 32, ASYM, acts[a]};
            struct nb_qmat *q = make(&rng, &arena, of, (struct shape){M, N, K});
            int32_t group[K];
            for (int k = 0; k < K; k++) group[k] = k % (int)q->n_groups;
            if (kind == 0) q->col_group = group;
            if (kind == 2) q->zero.value[3] = 2.5f;
            float *x = make_normal(&rng, M * K), y[M * N];
            bool outlier[K];
            int8_t code[K];
            struct product p = {q, x, M, K, outlier, 0};
            find_outliers(&p);
            struct nb_weight w = {.name = "test", .rows = N, .cols = K, .q = q};
            struct nb_linear lin;
            if (nb_linear_init(&lin, made.be, &w, &err)) fail_msg("%s", err.text);
            assert_string_equal(nb_linear_kernel_name(&lin), "qmat");
            nb_linear_run(made.be, &(struct nb_linear_out){&lin, y, N}, x, M, K);
            for (int i = 0; i < M; i++) {
                const float scale = quantize(q, x + i * K, outlier, code);
                for (int n = 0; n < N; n++) {
                    float row[K];
                    double sum = 0, size = 0;
                    nb_qmat_dequant_row(q, n, row);
                    for (int k = 0; k < K; k++) {
                        const double v = (double)row[k] * (outlier[k] ? (double)x[i * K + k]
                                                                      : (double)(code[k] * scale));
                        sum += v;
                        size += fabs(v);
                    }
                    assert_true(fabs(y[i * N + n] - sum) <= 2 * (K + 2) * 0x1p-24 * size);
                }
            }
            nb_linear_release(&lin);
            nb_free(x);
            nb_arena_release(&arena);
            make_release(&made);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind),
        cmocka_unit_test(test_longest_rows),
        cmocka_unit_test(test_chunks_threads_and_precision),
        cmocka_unit_test(test_worked_example),
        cmocka_unit_test(test_left_to_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
