/* SPDX-License-Identifier: Apache-2.0
 *
 * test_ranges.c - input scales from what was seen: maximum and percentiles, each kind of activation, no dependence on
 * threads or on how the rows come. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "pipeline/ranges.h"

enum { ROWS = 1000, COLS = 96 };

struct setting {
    struct nb_run run;
    struct nb_pool *pool;
    struct nb_module_spec module;
    struct nb_qmat q;
};

static void begin(struct setting *s, enum nb_act_kind act, double percentile, int threads)
{
    struct nb_err err;
    memset(s, 0, sizeof *s);
    s->pool = nb_pool_new(threads, &err);
    if (nb_backend_new(&s->run.be, s->pool, "generic", &err)) fail_msg("%s", err.text);
    s->module = (struct nb_module_spec){.quantized = true, .spec = {.act = act}};
    s->q.spec.act = act;
    s->run.recipe.modules = &s->module;
    s->run.recipe.n_modules = 1;
    s->run.recipe.act_percentile = percentile;
    if (nb_ranges_open(&s->run, &err)) fail_msg("%s", err.text);
    nb_ranges_begin(&s->run, NULL, NB_INPUT_MLP);
}

static float finish(struct setting *s)
{
    nb_ranges_input_scale(&s->run, &s->q);
    nb_ranges_close(s->run.ranges);
    nb_backend_free(s->run.be);
    nb_pool_free(s->pool);
    return s->q.input_scale;
}

/* Magnitudes 1/n, 2/n ... 1 in some order, half of them negative. */
static float *magnitudes(void)
{
    float *x = malloc(sizeof(float) * ROWS * COLS);
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    assert_non_null(x);
    for (int i = 0; i < ROWS * COLS; i++)
        x[i] = (float)(i + 1) / (ROWS * COLS) * (i % 2 ? 1.0f : -1.0f);
    for (int i = ROWS * COLS - 1; i > 0; i--) {
        const int k = (int)nb_rng_below(&rng, (uint32_t)i + 1);
        const float t = x[i];
        x[i] = x[k];
        x[k] = t;
    }
    return x;
}

static float scale_of(enum nb_act_kind act, double percentile, int threads, const float *x)
{
    struct setting s;
    begin(&s, act, percentile, threads);
    nb_ranges_add(&s.run, x, 300, COLS);
    nb_ranges_add(&s.run, x + 300 * COLS, ROWS - 300, COLS);
    return finish(&s);
}

static void test_maximum(void **state)
{
    (void)state;
    float *x = magnitudes();
    for (double percentile = 0; percentile <= 100; percentile += 100) {
        assert_true(scale_of(NB_ACT_FP8_STATIC, percentile, 1, x) == 1.0f / 448.0f);
        assert_true(scale_of(NB_ACT_INT8_STATIC, percentile, 1, x) == 1.0f / 127.0f);
        assert_true(scale_of(NB_ACT_NVFP4, percentile, 1, x) == 2688.0f);
    }
    free(x);
}

/* Within a bin, 1/256 of its power of two, and never below what was asked for. */
static void test_percentile(void **state)
{
    (void)state;
    float *x = magnitudes();
    static const double percents[] = {50, 75, 90, 99, 99.9, 99.99};
    for (size_t i = 0; i < sizeof percents / sizeof *percents; i++) {
        const double reached = (double)scale_of(NB_ACT_FP8_STATIC, percents[i], 2, x) * 448;
        assert_true(reached >= percents[i] / 100 - 1e-6 &&
                    reached <= percents[i] / 100 * (1 + 0x1p-7));
        assert_true(reached <= 1.0 + 1e-6);
    }
    free(x);
}

static void test_threads_and_pieces(void **state)
{
    (void)state;
    float *x = magnitudes();
    for (int p = 0; p < 2; p++) {
        const double percentile = p ? 99.5 : 0;
        struct setting s;
        const float one = scale_of(NB_ACT_FP8_STATIC, percentile, 1, x);
        assert_true(scale_of(NB_ACT_FP8_STATIC, percentile, 3, x) == one);
        assert_true(scale_of(NB_ACT_FP8_STATIC, percentile, 16, x) == one);
        begin(&s, NB_ACT_FP8_STATIC, percentile, 2);
        for (int r = 0; r < ROWS; r++) nb_ranges_add(&s.run, x + r * COLS, 1, COLS);
        assert_true(finish(&s) == one);
    }
    free(x);
}

static void test_what_does_not_count(void **state)
{
    (void)state;
    const float odd[4] = {NAN, INFINITY, -INFINITY, -2.0f}, zeros[4] = {0};
    struct setting s;
    begin(&s, NB_ACT_FP8_STATIC, 0, 1);
    nb_ranges_add(&s.run, odd, 1, 4);
    assert_true(finish(&s) == 2.0f / 448.0f);
    for (int p = 0; p < 2; p++) { /* nothing seen, or nothing but zeros */
        begin(&s, NB_ACT_FP8_STATIC, 99 * p, 1);
        assert_true(finish(&s) == 16.0f / 448.0f);
        begin(&s, NB_ACT_INT8_STATIC, 99 * p, 1);
        nb_ranges_add(&s.run, zeros, 1, 4);
        assert_true(finish(&s) == 16.0f / 127.0f);
    }
    begin(&s, NB_ACT_FP8_STATIC, 0, 1); /* an input forgets the one before */
    nb_ranges_add(&s.run, odd, 1, 4);
    nb_ranges_begin(&s.run, NULL, NB_INPUT_DOWN);
    nb_ranges_add(&s.run, (const float[4]){0.5f}, 1, 4);
    assert_true(finish(&s) == 0.5f / 448.0f);
}

static void test_dynamic_activations_need_none(void **state)
{
    (void)state;
    struct setting s;
    begin(&s, NB_ACT_FP8_TOKEN, 0, 1);
    assert_null(s.run.ranges);
    nb_ranges_add(&s.run, (const float[4]){1}, 1, 4);
    assert_true(finish(&s) == 0.0f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_maximum),
        cmocka_unit_test(test_percentile),
        cmocka_unit_test(test_threads_and_pieces),
        cmocka_unit_test(test_what_does_not_count),
        cmocka_unit_test(test_dynamic_activations_need_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
