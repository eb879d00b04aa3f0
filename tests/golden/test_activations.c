/* SPDX-License-Identifier: Apache-2.0
 *
 * Linears round their input as compressed-tensors does, bit for bit, and multiply as LLM.int8 of bitsandbytes.
 * Figures come from make_activations.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/backend.h"
#include "container/safetensors.h"
#include "support/folder.h"

enum { M = 7, K = 96, N = 11 };

struct golden {
    struct nb_safetensors *file;
    const float *x;
    struct nb_backend *be;
    struct nb_arena arena;
};

static const void *tensor(const struct golden *g, const char *name, size_t bytes)
{
    const struct nb_tensor *t = nb_safetensors_find(g->file, name);
    assert_non_null(t);
    assert_int_equal(t->data.bytes, bytes);
    return t->data.data;
}

/* On every level in turn; *level holds the next one. */
static bool open_golden(struct golden *g, int *level)
{
    static const char *const levels[] = {"generic", "avx2", "avx512", ""};
    struct nb_err err;
    char *path = source_path("tests/golden/activations.safetensors");
    nb_arena_init(&g->arena);
    if (nb_safetensors_open(&g->file, path, &err)) fail_msg("%s", err.text);
    free(path);
    g->x = tensor(g, "x", sizeof(float) * M * K);
    for (; *level < 4; ++*level) {
        int rc = nb_backend_new(&g->be, NULL, levels[*level], &err);
        if (!rc) break;
        assert_int_equal(rc, NB_E_SPEC);
    }
    return (*level)++ < 4;
}

static void close_golden(struct golden *g)
{
    nb_backend_free(g->be);
    nb_arena_release(&g->arena);
    nb_safetensors_close(g->file);
}

/* y [m, rows] of the matrix with these codes minus 128, times x. */
static void multiply(struct golden *g, struct nb_qmat *q, const float *x, int64_t m, float *y)
{
    struct nb_err err;
    struct nb_linear lin;
    struct nb_weight w = {.name = "test", .rows = q->rows, .cols = q->cols, .q = q};
    if (nb_linear_init(&lin, g->be, &w, &err)) fail_msg("%s", err.text);
    nb_linear_run(g->be, &(struct nb_linear_out){&lin, y, q->rows}, x, m, q->cols);
    nb_linear_release(&lin);
}

static struct nb_qmat *make_q(struct golden *g, int64_t rows, enum nb_act_kind act)
{
    struct nb_err err;
    struct nb_qmat *q = nb_arena_calloc(&g->arena, 1, sizeof *q);
    const struct nb_qspec spec = {.elem = {.kind = NB_ELEM_INT, .bits = 8, .vec = 1},
                                  .scale_dtype = NB_F32,
                                  .zero = NB_ZERO_CODE,
                                  .symmetric = true,
                                  .zero_implied = true,
                                  .act = act,
                                  .act_group = 32,
                                  .act_threshold = 6};
    if (nb_qmat_init(q, &spec, rows, K, &g->arena, &err)) fail_msg("%s", err.text);
    memset(q->codes, 128, (size_t)(rows * K));
    for (int64_t n = 0; n < rows; n++) {
        q->zero.value[n] = 128;
        q->scale.value[n] = 1;
    }
    return q;
}

/* The identity as weight shows what x was rounded to. */
static void test_rounding_equals_compressed_tensors(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum nb_act_kind act;
    } cases[] = {
        {"fp8_token", NB_ACT_FP8_TOKEN},   {"fp8_group", NB_ACT_FP8_GROUP},
        {"fp8_tensor", NB_ACT_FP8_TENSOR}, {"nvfp4", NB_ACT_NVFP4},
        {"mxfp4", NB_ACT_MXFP4},           {"mxfp8", NB_ACT_MXFP8},
    };
    struct golden g;
    for (int level = 0; open_golden(&g, &level);) {
        for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
            const float *want = tensor(&g, cases[c].name, sizeof(float) * M * K);
            float y[M * K];
            struct nb_qmat *q = make_q(&g, K, cases[c].act);
            q->input_scale = *(const float *)tensor(&g, "global_scale", sizeof(float));
            for (int k = 0; k < K; k++) q->codes[k * K + k] = 129;
            multiply(&g, q, g.x, M, y);
            for (int i = 0; i < M * K; i++) {
                if (y[i] != want[i]) {
                    fail_msg("%s [%d,%d]: %.9g becomes %.9g, expected %.9g", cases[c].name, i / K,
                             i % K, (double)g.x[i], (double)y[i], (double)want[i]);
                }
            }
        }
        close_golden(&g);
    }
    nb_arena_release(&g.arena);
    nb_safetensors_close(g.file);
}

/* Its CPU build has 6.200124e-5 for 1 / 127^2: 1.8e-5 of the int8 part. */
static void check_llm_int8(struct golden *g, const char *name, float threshold, int64_t first,
                           int64_t m)
{
    const float *want = tensor(g, name, sizeof(float) * (size_t)(m * N));
    const int8_t *codes = tensor(g, "int8.codes", (size_t)N * K);
    const float *scb = tensor(g, "int8.scb", sizeof(float) * N);
    float y[M * N];
    struct nb_qmat *q = make_q(g, N, NB_ACT_INT8_OUTLIER);
    q->spec.act_threshold = threshold;
    for (int n = 0; n < N; n++) q->scale.value[n] = scb[n] / 127.0f;
    for (int i = 0; i < N * K; i++) q->codes[i] = (uint8_t)(codes[i] + 128);
    multiply(g, q, g->x + first * K, m, y);
    double size = 0;
    for (int i = 0; i < m * N; i++) size = fmax(size, fabs((double)want[i]));
    for (int i = 0; i < m * N; i++) {
        /* a row of zeros gives NaN there */
        if (isnan(want[i])) assert_true(y[i] == 0);
        else if (!(fabs((double)y[i] - (double)want[i]) <= 2.5e-5 * size))
            fail_msg("%s %d: %.9g, expected %.9g", name, i, (double)y[i], (double)want[i]);
    }
}

static void test_llm_int8_equals_bitsandbytes(void **state)
{
    (void)state;
    struct golden g;
    for (int level = 0; open_golden(&g, &level);) {
        check_llm_int8(&g, "int8.y6", 6, 0, M);
        check_llm_int8(&g, "int8.y0", 0, 0, M);
        check_llm_int8(&g, "int8.one", 6, 1, 1);
        close_golden(&g);
    }
    nb_arena_release(&g.arena);
    nb_safetensors_close(g.file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounding_equals_compressed_tensors),
        cmocka_unit_test(test_llm_int8_equals_bitsandbytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
