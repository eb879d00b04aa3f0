/* SPDX-License-Identifier: Apache-2.0
 *
 * test_vectors.c - every level's elementwise operators against f64, over ordinary and extreme
 * values. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "levels.h"

static const int64_t lengths[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 257};
enum { N_LENGTHS = sizeof lengths / sizeof *lengths };

static double exact_act(int kind, double x)
{
    switch (kind) {
    case 0: return x / (1 + exp(-x));
    case 1: return 0.5 * x * erfc(-x * 0.70710678118654752440);
    case 2: return x / (1 + exp(-2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    default: return x > 0 ? x : 0;
    }
}

static void test_act(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    static const float specials[] = {0.0f,   -0.0f, 1e-30f, -1e-30f, 20.0f,
                                     -20.0f, 80.0f, -80.0f, 1e4f,    -1e4f};
    for (int l = 0; l < n; l++) {
        for (int kind = 0; kind < 4; kind++) {
            for (int i = 0; i < N_LENGTHS; i++) {
                size_t len = (size_t)lengths[i];
                float *gate = guarded_new(len), *up = guarded_new(len), *out = guarded_new(len);
                fill_normal(&rng, gate, len, 4);
                fill_normal(&rng, up, len, 1);
                for (size_t j = 0; j < len && j < sizeof specials / sizeof *specials; j++)
                    gate[j] = specials[j];
                levels[l].ops.act[kind](out, gate, up, lengths[i]);
                for (size_t j = 0; j < len; j++) {
                    double want = exact_act(kind, gate[j]) * up[j];
                    /* gelu through erf and tanh cancels on the far negative side: absolute
                     * there. */
                    double slack = kind == 0 || kind == 3 ? 1e-30
                                                          : 3e-7 * fabs((double)up[j]) *
                                                                fmin(fabs((double)gate[j]), 6);
                    assert_true(fabs(out[j] - want) <= 1e-6 * fabs(want) + slack);
                }
                guarded_check(out, len);
                guarded_free(gate, len);
                guarded_free(up, len);
                guarded_free(out, len);
            }
        }
    }
}

static void test_softcap(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 6);
    static const float specials[] = {0.0f,  1e-30f, -1e-20f, 1e-6f, -1e-3f,   0.3465f,  -0.3467f,
                                     20.0f, -40.0f, 600.0f,  -1e4f, INFINITY, -INFINITY};
    enum { N_SPECIALS = sizeof specials / sizeof *specials };
    for (int l = 0; l < n; l++) {
        for (int i = 0; i < N_LENGTHS; i++) {
            const float cap = i & 1 ? 30 : 2.5f;
            size_t len = (size_t)lengths[i];
            float *x = guarded_new(len), *y = guarded_new(len);
            fill_normal(&rng, x, len, 3 * cap);
            for (size_t j = 0; j < len && j < N_SPECIALS && i >= 5; j++) x[j] = specials[j];
            memcpy(y, x, len * sizeof *y);
            levels[l].ops.softcap(y, lengths[i], cap);
            for (size_t j = 0; j < len; j++) {
                double want = (double)cap * tanh((double)x[j] / (double)cap);
                assert_true(fabs((double)y[j] - want) <= 1e-6 * fabs(want));
            }
            guarded_check(y, len);
            guarded_free(x, len);
            guarded_free(y, len);
        }
        float nan = NAN;
        levels[l].ops.softcap(&nan, 1, 5);
        assert_true(isnan(nan));
    }
}

static void test_rmsnorm(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 2);
    for (int l = 0; l < n; l++) {
        for (int i = 0; i < N_LENGTHS; i++) {
            size_t d = (size_t)lengths[i];
            float *x = guarded_new(d), *w = guarded_new(d), *y = guarded_new(d);
            fill_normal(&rng, x, d, i & 1 ? 1e-3f : 50.0f);
            fill_normal(&rng, w, d, 1);
            levels[l].ops.rmsnorm(y, x, w, lengths[i], 1e-6f);
            double sum = 0;
            for (size_t j = 0; j < d; j++) sum += (double)x[j] * x[j];
            double r = 1 / sqrt(sum / (double)d + (double)1e-6f);
            for (size_t j = 0; j < d; j++) {
                double want = (double)w[j] * x[j] * r;
                assert_true(fabs(y[j] - want) <= 2e-6 * fabs(want));
            }
            levels[l].ops.rmsnorm(x, x, w, lengths[i], 1e-6f);
            assert_memory_equal(x, y, d * sizeof *x);
            guarded_check(y, d);
            guarded_free(x, d);
            guarded_free(w, d);
            guarded_free(y, d);
        }
    }
}

static void test_rope(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 3);
    for (int l = 0; l < n; l++) {
        for (int i = 0; i < N_LENGTHS; i++) {
            size_t half = (size_t)lengths[i];
            float *x = guarded_new(2 * half), *c = guarded_new(half), *s = guarded_new(half);
            float *old = malloc(2 * half * sizeof *old);
            assert_non_null(old);
            fill_normal(&rng, x, 2 * half, 1);
            memcpy(old, x, 2 * half * sizeof *x);
            for (size_t j = 0; j < half; j++) {
                double angle = nb_rng_uniform(&rng) * 100;
                c[j] = (float)cos(angle);
                s[j] = (float)sin(angle);
            }
            levels[l].ops.rope(x, lengths[i], c, s);
            for (size_t j = 0; j < half; j++) {
                double a = old[j], b = old[j + half], bound = 4 * 0x1p-24 * (fabs(a) + fabs(b));
                assert_true(fabs(x[j] - (a * c[j] - b * s[j])) <= bound);
                assert_true(fabs(x[j + half] - (b * c[j] + a * s[j])) <= bound);
            }
            guarded_check(x, 2 * half);
            guarded_free(x, 2 * half);
            guarded_free(c, half);
            guarded_free(s, half);
            free(old);
        }
    }
}

static void test_exp_sum_and_logsumexp(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 4);
    for (int l = 0; l < n; l++) {
        for (int i = 0; i < N_LENGTHS; i++) {
            size_t len = (size_t)lengths[i];
            float *x = guarded_new(len), *e = guarded_new(len);
            fill_normal(&rng, x, len, 10);
            if (len > 3) x[3] = -INFINITY;
            float shift = 12.5f;
            memcpy(e, x, len * sizeof *x);
            float total = levels[l].ops.exp_sum(e, lengths[i], shift);
            double sum = 0, plain = 0;
            for (size_t j = 0; j < len; j++) {
                double want = exp((double)(x[j] - shift));
                assert_true(fabs(e[j] - want) <= 2e-7 * want + 1e-44);
                sum += want;
                plain += exp((double)x[j]);
            }
            assert_true(fabs(total - sum) <= 1e-6 * sum);
            assert_true(fabs(levels[l].ops.logsumexp(x, lengths[i]) - log(plain)) <= 1e-6);
            guarded_free(x, len);
            guarded_free(e, len);
        }
    }
}

/* e^x over its whole range, through the only slot that shows it plainly. */
static void test_exp_range(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    enum { COUNT = 40000 };
    float *x = malloc(COUNT * sizeof *x);
    assert_non_null(x);
    for (int l = 0; l < n; l++) {
        for (int i = 0; i < COUNT; i++) x[i] = -104.0f + (float)i * (192.0f / COUNT);
        levels[l].ops.exp_sum(x, COUNT, 0.0f);
        for (int i = 0; i < COUNT; i++) {
            double at = (double)(-104.0f + (float)i * (192.0f / COUNT)), want = exp(at);
            double bound = want < 0x1p-126 ? 0x1p-149 : 2e-7 * want;
            assert_true(fabs(x[i] - want) <= bound);
        }
        float special[] = {-INFINITY, INFINITY, NAN, 0.0f, -1000.0f, 1000.0f, 89.5f, -87.4f};
        levels[l].ops.exp_sum(special, 8, 0.0f);
        assert_true(special[0] == 0.0f && special[1] == INFINITY && isnan(special[2]) &&
                    special[3] == 1.0f);
        assert_true(special[4] == 0.0f && special[5] == INFINITY && special[6] == INFINITY);
        assert_true(fabs((double)special[7] - exp((double)-87.4f)) <= 0x1p-149);
    }
    free(x);
}

static void test_logsumexp_special(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    float x[40];
    for (int l = 0; l < n; l++) {
        for (int i = 0; i < 40; i++) x[i] = -INFINITY;
        assert_true(levels[l].ops.logsumexp(x, 40) == -INFINITY);
        x[7] = 3;
        assert_true(levels[l].ops.logsumexp(x, 40) == 3);
        x[39] = 1e30f;
        assert_true(levels[l].ops.logsumexp(x, 40) == (double)1e30f);
        x[11] = NAN;
        assert_true(isnan(levels[l].ops.logsumexp(x, 40)));
    }
}

/* Two blocks of keys give the softmax of both; a lane that sees nothing stays at zero. */
static void test_softmax(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 5);
    enum { FIRST = 5, SECOND = 9, KEYS = FIRST + SECOND };
    for (int l = 0; l < n; l++) {
        const struct nb_cpu_ops *ops = &levels[l].ops;
        const int nr = ops->nr;
        float s[KEYS * NB_TILE_MAX_NR], p[KEYS * NB_TILE_MAX_NR];
        float m[NB_TILE_MAX_NR], sum[NB_TILE_MAX_NR], alpha1[NB_TILE_MAX_NR],
            alpha2[NB_TILE_MAX_NR];
        fill_normal(&rng, s, (size_t)(KEYS * nr), 20);
        for (int t = 0; t < KEYS; t++) s[t * nr + 1] = -INFINITY;  /* sees nothing */
        for (int t = 0; t < FIRST; t++) s[t * nr + 2] = -INFINITY; /* nothing in the first block */
        for (int j = 0; j < nr; j++) {
            m[j] = -INFINITY;
            sum[j] = 0;
        }
        memcpy(p, s, (size_t)(KEYS * nr) * sizeof *s);
        ops->softmax(p, FIRST, m, sum, alpha1);
        ops->softmax(p + FIRST * nr, SECOND, m, sum, alpha2);
        ops->scale(p, FIRST, alpha2);
        for (int j = 0; j < nr; j++) {
            double top = -INFINITY, total = 0;
            for (int t = 0; t < KEYS; t++) top = fmax(top, s[t * nr + j]);
            if (j == 1) {
                assert_true(m[j] == -INFINITY && sum[j] == 0);
                for (int t = 0; t < KEYS; t++) assert_true(p[t * nr + j] == 0);
                continue;
            }
            for (int t = 0; t < KEYS; t++) total += exp(s[t * nr + j] - top);
            assert_true((double)m[j] == top);
            assert_true(fabs(sum[j] - total) <= 1e-5 * total);
            for (int t = 0; t < KEYS; t++) {
                double want = exp(s[t * nr + j] - top);
                assert_true(fabs(p[t * nr + j] - want) <=
                            1e-5 * want + 1e-37); /* s - m is rounded */
            }
        }
    }
}

static void test_add_dequant_unpack(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 6);
    for (int l = 0; l < n; l++) {
        for (int i = 0; i < N_LENGTHS; i++) {
            size_t len = (size_t)lengths[i];
            float *x = guarded_new(len), *y = guarded_new(len), *old = malloc(len * sizeof *old);
            uint8_t code[300], packed[150];
            assert_non_null(old);
            fill_normal(&rng, x, len, 1);
            fill_normal(&rng, y, len, 1);
            memcpy(old, y, len * sizeof *y);
            levels[l].ops.add(y, x, lengths[i]);
            for (size_t j = 0; j < len; j++) assert_true(y[j] == old[j] + x[j]);
            for (size_t j = 0; j < len; j++) code[j] = (uint8_t)nb_rng_below(&rng, 256);
            levels[l].ops.dequant_u8(y, code, lengths[i], 0.0371f, 8.0f);
            for (size_t j = 0; j < len; j++) assert_true(y[j] == ((float)code[j] - 8.0f) * 0.0371f);
            for (size_t j = 0; j < sizeof packed; j++) packed[j] = (uint8_t)nb_rng_below(&rng, 256);
            memset(code, 0xee, sizeof code);
            levels[l].ops.unpack_u4(code, packed, lengths[i]);
            for (size_t j = 0; j < len; j++)
                assert_int_equal(code[j], j & 1 ? packed[j / 2] >> 4 : packed[j / 2] & 15);
            assert_int_equal(code[len], 0xee);
            guarded_check(y, len);
            guarded_free(x, len);
            guarded_free(y, len);
            free(old);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_act),
        cmocka_unit_test(test_softcap),
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_exp_sum_and_logsumexp),
        cmocka_unit_test(test_exp_range),
        cmocka_unit_test(test_logsumexp_special),
        cmocka_unit_test(test_softmax),
        cmocka_unit_test(test_add_dequant_unpack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
