/* SPDX-License-Identifier: Apache-2.0
 *
 * test_smooth.c - smoothing scales: they pay where columns differ, are left alone where they do not, are shared
 * where they must be, and what the search promises is what rounding then gives. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "layer.h"

static struct nb_solve_opts int8_opts(enum nb_act_kind act)
{
    struct nb_solve_opts o = layer_opts(8, true, -1, NB_EFFORT_NORMAL);
    o.grid.spec.scale_dtype = NB_F32;
    o.grid.spec.zero_implied = true;
    o.grid.spec.act = act;
    return o;
}

static void search(struct layer *l, enum nb_act_kind act, int64_t repeat, float *s,
                   struct nb_smooth_choice *choice)
{
    struct nb_err err = {0};
    const struct nb_solve_opts opts = int8_opts(act);
    float *x_max = nb_calloc((size_t)l->cols, sizeof *x_max);
    for (int64_t i = 0; i < l->tokens * l->cols; i++)
        x_max[i % l->cols] = fmaxf(x_max[i % l->cols], fabsf(l->x[i]));
    const struct nb_smooth_group g = {.w = &l->mat,
                                      .n = 1,
                                      .x_max = x_max,
                                      .x = l->x,
                                      .m = l->tokens,
                                      .opts = &opts,
                                      .be = l->be,
                                      .repeat = repeat,
                                      .head_dim = repeat > 1 ? 16 : 0};
    if (nb_smooth_search(s, &g, choice, &err)) fail_msg("%s", err.text);
    nb_free(x_max);
}

/* Output error of int8 weights per row and int8 inputs per token, by the textbook. */
static double int8_error(const struct layer *l, const float *s)
{
    const int64_t k = l->cols;
    double sum = 0;
    float *x = nb_alloc((size_t)k, sizeof *x), *w = nb_alloc((size_t)(l->rows * k), sizeof *w);
    for (int64_t r = 0; r < l->rows; r++) {
        float most = 0.0f;
        for (int64_t j = 0; j < k; j++) most = fmaxf(most, fabsf(l->w[r * k + j] * s[j]));
        for (int64_t j = 0; j < k; j++)
            w[r * k + j] = rintf(l->w[r * k + j] * s[j] / most * 127.0f) * most / 127.0f;
    }
    for (int64_t t = 0; t < l->tokens; t++) {
        float most = 0.0f;
        for (int64_t j = 0; j < k; j++) most = fmaxf(most, fabsf(l->x[t * k + j] / s[j]));
        for (int64_t j = 0; j < k; j++)
            x[j] = rintf(l->x[t * k + j] / s[j] / most * 127.0f) * most / 127.0f;
        for (int64_t r = 0; r < l->rows; r++) {
            double e = 0;
            for (int64_t j = 0; j < k; j++)
                e += (double)x[j] * w[r * k + j] - (double)l->x[t * k + j] * l->w[r * k + j];
            sum += e * e;
        }
    }
    nb_free(x);
    nb_free(w);
    return sum;
}

static void test_smoothing_pays_where_columns_differ(void **state)
{
    (void)state;
    struct layer l = layer_make(81, 48, 128, 600, 2);
    float s[128], none[128];
    for (int j = 0; j < 128; j++) none[j] = 1.0f;
    for (int64_t t = 0; t < l.tokens; t++) { /* outlier channels */
        l.x[t * 128 + 3] *= 40.0f;
        l.x[t * 128 + 77] *= 15.0f;
    }
    struct nb_smooth_choice choice;
    search(&l, NB_ACT_INT8_TOKEN, 1, s, &choice);
    assert_true(choice.alpha >= 0.3 && choice.loss < 0.5 * choice.identity);
    const double gain = int8_error(&l, s) / int8_error(&l, none);
    assert_true(fabs(gain - choice.loss / choice.identity) < 0.15 * gain);
    assert_true(s[3] > 2.0f * s[4]);
    search(&l, NB_ACT_INT8_STATIC, 1, s, &choice);
    assert_true(choice.alpha >= 0.3 && choice.loss < 0.5 * choice.identity);
    layer_release(&l);
}

/* No candidate may lose to leaving things alone. */
static void test_never_worse_than_none(void **state)
{
    (void)state;
    for (int seed = 0; seed < 6; seed++) {
        struct layer l = layer_make(90 + (uint64_t)seed, 20, 64, 200, 1);
        float s[64];
        struct nb_smooth_choice choice;
        search(&l, seed % 2 ? NB_ACT_NONE : NB_ACT_INT8_TOKEN, 1, s, &choice);
        assert_true(choice.loss <= choice.identity);
        for (int j = 0; j < 64; j++) {
            assert_true(isfinite(s[j]) && s[j] > 0.0f);
            if (choice.loss == choice.identity) assert_true(s[j] == 1.0f);
        }
        layer_release(&l);
    }
}

static void test_shared_columns(void **state)
{
    (void)state;
    struct layer l = layer_make(83, 48, 128, 400, 1); /* 4 key-value heads of 2 x 16 */
    float s[128];
    struct nb_smooth_choice choice;
    search(&l, NB_ACT_INT8_TOKEN, 2, s, &choice);
    for (int head = 0; head < 4; head++) {
        for (int d = 0; d < 16; d++) assert_true(s[head * 32 + d] == s[head * 32 + 16 + d]);
    }
    assert_true(choice.loss < choice.identity);
    layer_release(&l);
}

/* A column without inputs or weights has nothing to balance. */
static void test_dead_columns(void **state)
{
    (void)state;
    struct layer l = layer_make(84, 16, 32, 100, 1);
    float s[32];
    for (int64_t t = 0; t < l.tokens; t++) l.x[t * 32 + 5] = 0.0f;
    for (int64_t r = 0; r < l.rows; r++) l.w[r * 32 + 9] = 0.0f;
    struct nb_smooth_choice choice;
    search(&l, NB_ACT_INT8_TOKEN, 1, s, &choice);
    for (int j = 0; j < 32; j++) assert_true(isfinite(s[j]) && s[j] > 0.0f);
    layer_release(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smoothing_pays_where_columns_differ),
        cmocka_unit_test(test_never_worse_than_none),
        cmocka_unit_test(test_shared_columns),
        cmocka_unit_test(test_dead_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
