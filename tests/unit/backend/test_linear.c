/* SPDX-License-Identifier: Apache-2.0
 *
 * test_linear.c - linears of every weight kind against f64; equal bits over threads, batches and
 * kinds. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "make.h"

static const enum nb_dtype types[] = {NB_F32, NB_F16, NB_BF16};

struct product { /* y[m, n] = x[m, k] w[n, k]^T + bias */
    const float *y;
    int64_t ldy;
    const float *x;
    int64_t ldx;
    const float *w, *bias;
    int64_t m, n, k;
};

/* Within the bound of the kernels. */
static void check_product(const struct product *p)
{
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->n; j++) {
            double sum = p->bias ? (double)p->bias[j] : 0, size = fabs(sum);
            for (int64_t t = 0; t < p->k; t++) {
                double v = (double)p->x[i * p->ldx + t] * p->w[j * p->k + t];
                sum += v;
                size += fabs(v);
            }
            assert_true(fabs(p->y[i * p->ldy + j] - sum) <=
                        2 * (double)(p->k + 2) * 0x1p-24 * size);
        }
    }
}

static void init_f32(struct nb_linear *lin, struct made *made, float *w, int64_t rows, int64_t cols,
                     const float *bias)
{
    struct nb_err err = {0};
    const struct nb_fmat matrix = {.data = w, .rows = rows, .cols = cols, .ld = cols};
    if (nb_linear_init_f32(lin, made->be, "test", &matrix, bias, &err)) fail_msg("%s", err.text);
}

static void check_dense(struct made *made, struct nb_rng *rng, enum nb_dtype type, int64_t m,
                        int64_t n, int64_t k)
{
    struct nb_err err = {0};
    const int64_t ldx = k + 3, ldy = n + 5;
    float *x = make_normal(rng, (size_t)(m * ldx)), *w = make_normal(rng, (size_t)(n * k));
    float *bias = make_normal(rng, (size_t)n), *y = nb_calloc((size_t)(m * ldy), sizeof *y);
    void *storage;
    struct nb_weight weight = make_weight(w, n, k, type, &storage);
    struct nb_linear lin;
    if (nb_linear_init(&lin, made->be, &weight, &err)) fail_msg("%s", err.text);
    assert_string_equal(nb_linear_kernel_name(&lin), "dense");
    assert_null(lin.packed);
    const struct nb_linear_out out = {&lin, y, ldy};
    struct product product = {y, ldy, x, ldx, w, NULL, m, n, k};
    nb_linear_run(made->be, &out, x, m, ldx);
    check_product(&product);
    for (int64_t i = 0; i < m; i++) { /* nothing beyond the row */
        for (int64_t j = n; j < ldy; j++) assert_true(y[i * ldy + j] == 0);
    }
    nb_linear_release(&lin);
    init_f32(&lin, made, w, n, k, bias);
    nb_linear_run(made->be, &out, x, m, ldx);
    product.bias = bias;
    check_product(&product);
    nb_linear_release(&lin);
    nb_free(x);
    nb_free(w);
    nb_free(bias);
    nb_free(y);
    nb_free(storage);
}

static void test_dense(void **state)
{
    (void)state;
    static const int64_t ms[] = {1, 2, 3, 4, 5, 13, 14, 15, 29, 169, 340};
    static const int64_t ns[] = {1, 7, 31, 32, 33, 65, 257};
    static const int64_t ks[] = {1, 8, 17, 64, 255, 256, 257, 600};
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        struct made made = make_backend(levels[l], 2);
        for (int trial = 0; trial < 60; trial++) {
            check_dense(&made, &rng, types[trial % 3], ms[nb_rng_below(&rng, 11)],
                        ns[nb_rng_below(&rng, 7)], ks[nb_rng_below(&rng, 8)]);
        }
        make_release(&made);
    }
}

/* A row of y is the same bits alone in a batch of 5, in a batch of 400, and for 1, 3 and 7
 * threads. */
static void test_batches_and_threads(void **state)
{
    (void)state;
    enum { M = 400, N = 300, K = 520 };
    struct nb_rng rng;
    nb_rng_init(&rng, 2);
    float *x = make_normal(&rng, M * K), *w = make_normal(&rng, N * K);
    float *whole = nb_alloc(M * N, sizeof *whole), *y = nb_alloc(M * N, sizeof *y);
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        static const int threads[] = {1, 3, 7};
        for (int t = 0; t < 3; t++) {
            struct made made = make_backend(levels[l], threads[t]);
            struct nb_linear lin;
            init_f32(&lin, &made, w, N, K, NULL);
            nb_linear_run(made.be, &(struct nb_linear_out){&lin, t ? y : whole, N}, x, M, K);
            if (t) assert_memory_equal(y, whole, M * N * sizeof *y);
            for (int first = 0; first + 5 <= M; first += 79) {
                nb_linear_run(made.be, &(struct nb_linear_out){&lin, y, N}, x + first * K, 5, K);
                assert_memory_equal(y, whole + first * N, 5 * N * sizeof *y);
            }
            nb_linear_release(&lin);
            make_release(&made);
        }
    }
    nb_free(x);
    nb_free(w);
    nb_free(whole);
    nb_free(y);
}

/* Several linears at once give what each gives alone. */
static void test_many(void **state)
{
    (void)state;
    enum { M = 190, K = 128 };
    static const int64_t rows[] = {128, 33, 300};
    struct nb_rng rng;
    nb_rng_init(&rng, 3);
    struct made made = make_backend(NULL, 2);
    float *x = make_normal(&rng, M * K), *w[3], *alone[3], *together[3];
    struct nb_linear lin[3];
    struct nb_linear_out outs[3];
    for (int i = 0; i < 3; i++) {
        w[i] = make_normal(&rng, (size_t)(rows[i] * K));
        alone[i] = nb_alloc((size_t)(M * rows[i]), sizeof(float));
        together[i] = nb_alloc((size_t)(M * rows[i]), sizeof(float));
        init_f32(&lin[i], &made, w[i], rows[i], K, i ? NULL : w[i]);
        outs[i] = (struct nb_linear_out){&lin[i], together[i], rows[i]};
    }
    static const int64_t ms[] = {1, 4, 6, M};
    for (int t = 0; t < 4; t++) {
        nb_linears_run(made.be, outs, 3, x, ms[t], K);
        for (int i = 0; i < 3; i++) {
            nb_linear_run(made.be, &(struct nb_linear_out){&lin[i], alone[i], rows[i]}, x, ms[t],
                          K);
            assert_memory_equal(alone[i], together[i], (size_t)(ms[t] * rows[i]) * sizeof(float));
        }
    }
    for (int i = 0; i < 3; i++) {
        nb_linear_release(&lin[i]);
        nb_free(w[i]);
        nb_free(alone[i]);
        nb_free(together[i]);
    }
    nb_free(x);
    make_release(&made);
}

static void check_quantized(struct made *made, struct nb_rng *rng, struct make_grid grid, int64_t m)
{
    const int64_t n = 45, k = grid.grouping == MAKE_GROUPS ? 77 : 320; /* with a tail group */
    struct nb_err err = {0};
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct nb_weight w = {.name = "test", .rows = n, .cols = k};
    w.q = make_qmat(rng, &arena, n, k, grid);
    float *dense = nb_alloc((size_t)(n * k), sizeof *dense), *x = make_normal(rng, (size_t)(m * k));
    float *y = nb_alloc((size_t)(m * n), sizeof *y),
          *want = nb_alloc((size_t)(m * n), sizeof *want);
    for (int64_t r = 0; r < n; r++) nb_qmat_dequant_row(w.q, r, dense + r * k);
    struct nb_linear quantized, plain;
    if (nb_linear_init(&quantized, made->be, &w, &err)) fail_msg("%s", err.text);
    init_f32(&plain, made, dense, n, k, NULL);
    nb_arena_release(&arena); /* a packed linear does not need its source */
    nb_linear_run(made->be, &(struct nb_linear_out){&quantized, y, n}, x, m, k);
    nb_linear_run(made->be, &(struct nb_linear_out){&plain, want, n}, x, m, k);
    assert_memory_equal(y, want, (size_t)(m * n) * sizeof *y);
    nb_linear_release(&quantized);
    nb_linear_release(&plain);
    nb_free(dense);
    nb_free(x);
    nb_free(y);
    nb_free(want);
}

static void test_quantized(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 4);
    const char *const *levels = make_levels();
    for (int l = 0; levels[l]; l++) {
        struct made made = make_backend(levels[l], 2);
        for (int bits = 1; bits <= 8; bits++) {
            for (int zero = NB_ZERO_NONE; zero <= NB_ZERO_MIN; zero++) {
                for (int grouping = MAKE_GROUPS; grouping <= MAKE_ACT_ORDER; grouping++) {
                    int64_t m = (bits + zero + grouping) % 2 ? 2 : 19;
                    check_quantized(
                        &made, &rng,
                        (struct make_grid){bits, (enum nb_zero)zero, (enum make_grouping)grouping},
                        m);
                }
            }
        }
        make_release(&made);
    }
}

/* Products of bf16: as f64 on the rounded operands; few rows stay f32; setting it back gives f32
 * again. */
static void test_bf16(void **state)
{
    (void)state;
    enum { M = 180, N = 70, K = 301 };
    struct made made = make_backend(NULL, 2);
    if (!nb_backend_has_bf16(made.be)) {
        make_release(&made);
        skip();
    }
    struct nb_rng rng;
    nb_rng_init(&rng, 6);
    float *x = make_normal(&rng, M * K), *w = make_normal(&rng, N * K);
    float *y = nb_alloc(M * N, sizeof *y), *plain = nb_alloc(M * N, sizeof *plain);
    struct nb_linear lin;
    init_f32(&lin, &made, w, N, K, NULL);
    const struct nb_linear_out out = {&lin, y, N};
    nb_linear_run(made.be, &(struct nb_linear_out){&lin, plain, N}, x, M, K);
    assert_int_equal(nb_backend_set_precision(made.be, NB_PRECISION_BF16), NB_PRECISION_F32);
    nb_linear_run(made.be, &out, x, M, K);
    assert_memory_not_equal(y, plain, M * N * sizeof *y);
    for (int i = 0; i < M; i++) {
        for (int j = 0; j < N; j++) {
            double sum = 0, size = 0;
            for (int k = 0; k < K; k++) {
                double v =
                    (double)nb_round_to(x[i * K + k], NB_BF16) * nb_round_to(w[j * K + k], NB_BF16);
                sum += v;
                size += fabs(v);
            }
            assert_true(fabs(y[i * N + j] - sum) <= 4 * K * 0x1p-24 * size);
        }
    }
    nb_linear_run(made.be, &out, x, 3, K);
    assert_int_equal(nb_backend_set_precision(made.be, NB_PRECISION_F32), NB_PRECISION_BF16);
    nb_linear_run(made.be, &(struct nb_linear_out){&lin, y + 3 * N, N}, x, 3, K);
    assert_memory_equal(y, y + 3 * N, 3 * N * sizeof *y);
    nb_linear_run(made.be, &out, x, M, K);
    assert_memory_equal(y, plain, M * N * sizeof *y);
    nb_linear_release(&lin);
    nb_free(x);
    nb_free(w);
    nb_free(y);
    nb_free(plain);
    make_release(&made);
}

static void test_table_and_float_elements(void **state)
{
    (void)state;
    static const float table[4] = {-1.5f, 0.0f, 0.25f, 3.0f};
    struct nb_err err = {0};
    struct nb_rng rng;
    nb_rng_init(&rng, 5);
    struct made made = make_backend(NULL, 1);
    for (int kind = 0; kind < 2; kind++) {
        enum { N = 9, K = 40, M = 3 };
        struct nb_arena arena;
        nb_arena_init(&arena);
        struct nb_qmat *q = make_qmat(&rng, &arena, N, K,
                                      (struct make_grid){kind ? 8 : 2, NB_ZERO_NONE, MAKE_GROUPS});
        if (kind) {
            q->spec.elem =
                (struct nb_elem){.kind = NB_ELEM_FLOAT, .bits = 8, .exp = 4, .man = 3, .vec = 1};
            for (int i = 0; i < N * K; i++) q->codes[i] &= 0xf7; /* 0x7f and 0xff are NaN */
        } else {
            q->spec.elem =
                (struct nb_elem){.kind = NB_ELEM_TABLE, .bits = 2, .vec = 1, .table = table};
        }
        float dense[N * K], y[M * N], *x = make_normal(&rng, M * K);
        for (int r = 0; r < N; r++) nb_qmat_dequant_row(q, r, dense + r * K);
        struct nb_weight w = {.name = "test", .rows = N, .cols = K, .q = q};
        struct nb_linear lin;
        if (nb_linear_init(&lin, made.be, &w, &err)) fail_msg("%s", err.text);
        nb_linear_run(made.be, &(struct nb_linear_out){&lin, y, N}, x, M, K);
        check_product(&(struct product){y, N, x, K, dense, NULL, M, N, K});
        nb_linear_release(&lin);
        nb_free(x);
        nb_arena_release(&arena);
    }
    make_release(&made);
}

static void test_refusals(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct made made = make_backend("generic", 1);
    struct nb_weight w = {.name = "model.x", .rows = 2, .cols = 2};
    double data[4] = {0};
    w.dense = (struct nb_tensor){.name = "model.x", .dtype = NB_F64, .rank = 2, .shape = {2, 2}};
    w.dense.data.data = (const unsigned char *)data;
    struct nb_linear lin;
    assert_int_equal(nb_linear_init(&lin, made.be, &w, &err), NB_E_SPEC);
    assert_string_equal(err.text, "model.x: no kernel multiplies by F64 weights");
    w.dense.dtype = NB_F32;
    w.bias = (struct nb_tensor){.name = "model.x", .dtype = NB_I64, .rank = 1, .shape = {2}};
    w.bias.data.data = (const unsigned char *)data;
    assert_int_equal(nb_linear_init(&lin, made.be, &w, &err), NB_E_SPEC);
    assert_string_equal(err.text, "model.x: bias of type I64, expected F32, F16 or BF16");
    make_release(&made);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),    cmocka_unit_test(test_batches_and_threads),
        cmocka_unit_test(test_many),     cmocka_unit_test(test_quantized),
        cmocka_unit_test(test_bf16),     cmocka_unit_test(test_table_and_float_elements),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
