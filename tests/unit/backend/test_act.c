/* SPDX-License-Identifier: Apache-2.0
 *
 * test_act.c - inputs rounded to float grids against definitions in f64, chunks and threads, several rules in one
 * call, NaN, and refusals. Integers are test_gemm_int8's; figures of other tools tests/golden's. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fp8.h"
#include "make.h"
#include "numeric/elems.h"

struct shape {
    int64_t m, n, k;
};

static const enum nb_act_kind kinds[] = {NB_ACT_FP8_TOKEN,  NB_ACT_FP8_GROUP, NB_ACT_FP8_TENSOR,
                                         NB_ACT_FP8_STATIC, NB_ACT_NVFP4,     NB_ACT_MXFP4,
                                         NB_ACT_MXFP8};
enum { N_KINDS = 7, GROUP = 48 };

/* A weight of E4M3, one scale per row. */
static struct nb_qmat *make(struct nb_rng *rng, struct nb_arena *arena, enum nb_act_kind act,
                            struct shape s)
{
    struct nb_err err = {0};
    struct nb_qmat *q = nb_arena_calloc(arena, 1, sizeof *q);
    const struct nb_qspec spec = {
        .elem = nb_elem_e4m3, .scale_dtype = NB_F32, .act = act, .act_group = GROUP};
    if (nb_qmat_init(q, &spec, s.n, s.k, arena, &err)) fail_msg("%s", err.text);
    q->input_scale =
        act == NB_ACT_NVFP4 ? 448 * 6 / 4.0f : 0.004f; /* x of 1.8 and more saturates */
    for (int64_t i = 0; i < s.n * s.k; i++) q->codes[i] = (uint8_t)nb_rng_below(rng, 256) & 0xf7;
    for (int64_t n = 0; n < s.n; n++) q->scale.value[n] = (float)nb_rng_normal(rng) * 0.1f;
    return q;
}

/* x as what it is rounded to. */
static void round_x(const struct nb_qmat *q, const float *x, int64_t m, float *out)
{
    const enum nb_act_kind act = q->spec.act;
    const int64_t k = q->cols;
    const int64_t group = act == NB_ACT_FP8_GROUP                      ? GROUP
                          : act == NB_ACT_NVFP4                        ? 16
                          : act == NB_ACT_MXFP4 || act == NB_ACT_MXFP8 ? 32
                          : act == NB_ACT_FP8_TOKEN                    ? k
                                                                       : m * k;
    for (int64_t i = 0; i < m * k;) {
        const int64_t end = group == m * k      ? m * k
                            : i % k + group < k ? i + group
                                                : (i / k + 1) * k;
        float amax = 0, scale;
        for (int64_t j = i; j < end; j++) amax = fmaxf(amax, fabsf(x[j]));
        int exponent;
        const float part = frexpf(amax, &exponent); /* 0.5 <= part < 1 */
        exponent += (part >= 0.875f) - 1;
        switch (act) {
        case NB_ACT_FP8_STATIC: scale = q->input_scale; break;
        case NB_ACT_NVFP4:
            scale = nb_e4m3_to_f32(nb_f32_to_e4m3(q->input_scale * (amax / 6)));
            if (scale == 0) scale = 0.125f;
            scale /= q->input_scale;
            break;
        case NB_ACT_MXFP4: scale = ldexpf(1, exponent - 2); break;
        case NB_ACT_MXFP8: scale = ldexpf(1, exponent - 8); break;
        default: scale = amax / 448; break;
        }
        for (; i < end; i++) {
            if (act == NB_ACT_NVFP4 || act == NB_ACT_MXFP4) {
                const float t = fminf(fabsf(x[i] / scale), 6), step = t < 2 ? 0.5f : t < 4 ? 1 : 2;
                out[i] = copysignf(rintf(t / step) * step, x[i]) * scale;
            } else {
                out[i] = amax == 0 ? 0 : nb_e4m3_to_f32(nb_f32_to_e4m3(x[i] / scale)) * scale;
            }
        }
    }
}

static void init(struct nb_linear *lin, struct made *made, const struct nb_qmat *q)
{
    struct nb_err err = {0};
    struct nb_weight w = {.name = "test", .rows = q->rows, .cols = q->cols, .q = q};
    if (nb_linear_init(lin, made->be, &w, &err)) fail_msg("%s", err.text);
}

/* Equal to the dense linear, fed with rounded x, to the last bit. */
static void check(struct made *made, struct nb_rng *rng, enum nb_act_kind act, struct shape s)
{
    struct nb_err err = {0};
    struct nb_arena arena;
    nb_arena_init(&arena);
    const struct nb_qmat *q = make(rng, &arena, act, s);
    float *dense = nb_alloc((size_t)(s.n * s.k), sizeof *dense);
    float *x = make_normal(rng, (size_t)(s.m * s.k));
    float *rounded = nb_alloc((size_t)(s.m * s.k), sizeof *x);
    float *y = nb_alloc((size_t)(s.m * s.n), sizeof *y),
          *want = nb_alloc((size_t)(s.m * s.n), sizeof *want);
    if (s.m > 2) memset(x + s.k, 0, (size_t)s.k * sizeof *x);
    for (int64_t i = 0; i < s.m * s.k; i += 7) x[i] *= 1e-3f;
    for (int64_t r = 0; r < s.n; r++) nb_qmat_dequant_row(q, r, dense + r * s.k);
    round_x(q, x, s.m, rounded);
    struct nb_linear lin, plain;
    const struct nb_fmat matrix = {.data = dense, .rows = s.n, .cols = s.k, .ld = s.k};
    init(&lin, made, q);
    if (nb_linear_init_f32(&plain, made->be, "test", &matrix, NULL, &err)) fail_msg("%s", err.text);
    nb_linear_run(made->be, &(struct nb_linear_out){&lin, y, s.n}, x, s.m, s.k);
    nb_linear_run(made->be, &(struct nb_linear_out){&plain, want, s.n}, rounded, s.m, s.k);
    for (int64_t i = 0; i < s.m * s.n; i++) {
        if (y[i] != want[i])
            fail_msg("kind %d, %d x %d x %d: %.9g, expected %.9g", (int)act, (int)s.m, (int)s.n,
                     (int)s.k, (double)y[i], (double)want[i]);
    }
    nb_linear_release(&lin);
    nb_linear_release(&plain);
    nb_arena_release(&arena);
    nb_free(dense);
    nb_free(x);
    nb_free(rounded);
    nb_free(y);
    nb_free(want);
}

static void test_every_kind(void **state)
{
    (void)state;
    static const int64_t ms[] = {1, 3, 5, 40, 1200}, ks[] = {1, 15, 64, 100, 257, 1030};
    struct nb_rng rng;
    nb_rng_init(&rng, 41);
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        struct made made = make_backend(levels[l], 1 + l % 3);
        for (int trial = 0; trial < 6 * N_KINDS; trial++) {
            check(&made, &rng, kinds[trial % N_KINDS],
                  (struct shape){ms[nb_rng_below(&rng, trial % 5 ? 4 : 5)],
                                 1 + (int64_t)nb_rng_below(&rng, 40), ks[nb_rng_below(&rng, 6)]});
        }
        make_release(&made);
    }
}

/* Rows so long that few are rounded at once. */
static void test_long_rows(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 42);
    struct made made = make_backend(NULL, 2);
    check(&made, &rng, NB_ACT_FP8_TOKEN, (struct shape){130, 2, 150001});
    check(&made, &rng, NB_ACT_FP8_TOKEN, (struct shape){5, 9, 100}); /* and memory stays as large */
    make_release(&made);
}

/* Linears of different rules in one call give what each gives alone, for 1, 3 and 7 threads. */
static void test_many_rules(void **state)
{
    (void)state;
    enum { M = 70, N = 33, K = 96, RULES = 6 };
    static const enum nb_act_kind acts[RULES] = {NB_ACT_INT8_TOKEN, NB_ACT_NONE,
                                                 NB_ACT_FP8_TENSOR, NB_ACT_INT8_TOKEN,
                                                 NB_ACT_FP8_STATIC, NB_ACT_FP8_STATIC};
    struct nb_rng rng;
    nb_rng_init(&rng, 43);
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct nb_qmat *q[RULES];
    static float y[3][RULES][M * N];
    float *x = make_normal(&rng, M * K), alone[M * N];
    for (int i = 0; i < RULES; i++) {
        q[i] = make(&rng, &arena, acts[i], (struct shape){M, N, K});
        if (i == 3) q[i]->spec.elem = (struct nb_elem){.kind = NB_ELEM_INT, .bits = 8, .vec = 1};
        if (i == 5) q[i]->input_scale = 0.01f;
    }
    for (int t = 0; t < 3; t++) {
        struct made made = make_backend(NULL, t ? 4 * t - 1 : 1);
        struct nb_linear lin[RULES];
        struct nb_linear_out outs[RULES];
        for (int i = 0; i < RULES; i++) {
            init(&lin[i], &made, q[i]);
            outs[i] = (struct nb_linear_out){&lin[i], y[t][i], N};
        }
        nb_linears_run(made.be, outs, RULES, x, M, K);
        for (int i = 0; i < RULES; i++) {
            nb_linear_run(made.be, &(struct nb_linear_out){&lin[i], alone, N}, x, M, K);
            assert_memory_equal(alone, y[t][i], sizeof alone);
            nb_linear_release(&lin[i]);
        }
        if (t) assert_memory_equal(y[t], y[0], sizeof y[0]);
        make_release(&made);
    }
    assert_memory_not_equal(y[0][4], y[0][5], sizeof alone);
    nb_arena_release(&arena);
    nb_free(x);
}

/* A NaN shows in its row, and in a rule about all rows in every one; elsewhere nothing changes. */
static void test_nan_shows(void **state)
{
    (void)state;
    enum { M = 6, N = 5, K = 40 };
    struct nb_rng rng;
    nb_rng_init(&rng, 44);
    struct made made = make_backend(NULL, 1);
    for (int kind = NB_ACT_INT8_TOKEN; kind <= NB_ACT_MXFP8; kind++) {
        for (int integers = 0; integers < 2; integers++) {
            struct nb_arena arena;
            nb_arena_init(&arena);
            struct nb_qmat *q = make(&rng, &arena, (enum nb_act_kind)kind, (struct shape){M, N, K});
            if (integers) q->spec.elem = (struct nb_elem){.kind = NB_ELEM_INT, .bits = 8, .vec = 1};
            q->spec.act_threshold = integers ? 6.0f : 0.0f;
            float *x = make_normal(&rng, M * K), y[M * N], before[M * N];
            struct nb_linear lin;
            init(&lin, &made, q);
            nb_linear_run(made.be, &(struct nb_linear_out){&lin, before, N}, x, M, K);
            x[3 * K + 7] = NAN;
            nb_linear_run(made.be, &(struct nb_linear_out){&lin, y, N}, x, M, K);
            for (int i = 0; i < M * N; i++) {
                const bool all = kind == NB_ACT_FP8_TENSOR;
                if (all || i / N == 3) assert_true(isnan(y[i]));
                else if (kind == NB_ACT_INT8_OUTLIER && integers) /* its column is in float now */
                    assert_true(fabs((double)y[i] - (double)before[i]) < 1.5);
                else assert_true(y[i] == before[i]);
            }
            nb_linear_release(&lin);
            nb_free(x);
            nb_arena_release(&arena);
        }
    }
    make_release(&made);
}

static void refuse(struct made *made, const struct nb_qmat *q, const char *text)
{
    struct nb_err err = {0};
    struct nb_linear lin;
    struct nb_weight w = {.name = "model.x", .rows = q->rows, .cols = q->cols, .q = q};
    assert_int_equal(nb_linear_init(&lin, made->be, &w, &err), NB_E_SPEC);
    assert_string_equal(err.text, text);
    assert_null(lin.packed);
}

static void test_refusals(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 45);
    struct made made = make_backend("generic", 1);
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct nb_qmat *q = make(&rng, &arena, NB_ACT_FP8_STATIC, (struct shape){1, 2, 8});
    q->input_scale = 0;
    refuse(&made, q, "model.x: the scale of its input is 0, expected a positive number");
    q->spec.act = NB_ACT_INT8_STATIC;
    q->input_scale = -1;
    refuse(&made, q, "model.x: the scale of its input is -1, expected a positive number");
    q->spec.act = NB_ACT_NVFP4;
    q->input_scale = INFINITY;
    refuse(&made, q, "model.x: the scale of its input is inf, expected a positive number");
    q->spec.act = NB_ACT_FP8_GROUP;
    q->spec.act_group = 0;
    refuse(&made, q, "model.x: its input is rounded in groups of 0 columns, expected 1 or more");
    q->spec.act = NB_ACT_INT8_OUTLIER;
    q->spec.act_threshold = -6;
    refuse(&made, q, "model.x: the outlier threshold is -6, expected a number from 0 on");
    nb_arena_release(&arena);
    make_release(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind), cmocka_unit_test(test_long_rows),
        cmocka_unit_test(test_many_rules), cmocka_unit_test(test_nan_shows),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
