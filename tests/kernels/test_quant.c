/* SPDX-License-Identifier: Apache-2.0
 *
 * test_quant.c - decoding, rounding and integer sums: every level gives the bits of the generic one, and that
 * one what its contract says. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fp8.h"
#include "base/half.h"
#include "levels.h"

enum { MAX_N = 300 };

/* Sizes around vectors. */
static int64_t some_n(struct nb_rng *rng)
{
    return (int64_t)nb_rng_below(rng, nb_rng_below(rng, 3) ? 70 : MAX_N);
}

static float any_float(struct nb_rng *rng)
{
    switch (nb_rng_below(rng, 6)) {
    case 0: return nb_f32_from_bits((uint32_t)nb_rng_below(rng, 1ull << 32));
    case 1: return (float)((int)nb_rng_below(rng, 64) - 32) * 0.25f; /* ties */
    case 2: return 0.0f;
    default: return (float)nb_rng_normal(rng) * ldexpf(1, (int)nb_rng_below(rng, 30) - 20);
    }
}

/* The same bits, or both NaN. */
static void check_floats(const float *a, const float *b, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++) {
        if (isnan(a[i]) && isnan(b[i])) continue;
        if (nb_f32_bits(a[i]) != nb_f32_bits(b[i]))
            fail_msg("%s [%d]: %.9g, generic has %.9g", what, (int)i, (double)a[i], (double)b[i]);
    }
}

static void test_decode(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n_levels = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 11);
    for (int trial = 0; trial < 300; trial++) {
        int64_t n = some_n(&rng);
        const size_t floats = (size_t)n;
        float table[16], *want = malloc((floats + 1) * sizeof *want), scale = any_float(&rng);
        uint8_t nibble[MAX_N], byte[MAX_N];
        assert_non_null(want);
        fill_normal(&rng, table, 16, 1);
        for (int i = 0; i < MAX_N; i++) byte[i] = (uint8_t)nb_rng_below(&rng, 256);
        for (int i = 0; i < MAX_N; i++) nibble[i] = byte[i] & 15;
        for (int l = 0; l < n_levels; l++) {
            const struct nb_cpu_ops *ops = &levels[l].ops;
            float *y = guarded_new(floats);
            ops->lookup16(y, nibble, n, table, scale);
            for (int64_t i = 0; i < n; i++) want[i] = table[nibble[i]] * scale;
            check_floats(y, want, n, "lookup16");
            ops->decode_e4m3(y, byte, n, scale);
            for (int64_t i = 0; i < n; i++) want[i] = nb_e4m3_to_f32(byte[i]) * scale;
            check_floats(y, want, n, "decode_e4m3");
            guarded_check(y, floats);
            guarded_free(y, floats);
        }
        free(want);
    }
}

/* The nearest of the grid's values by trying all; of two equally near ones that with an even code. */
static float nearest(float x, const float *values, int n)
{
    int best = 0;
    const float a = fminf(fabsf(x), values[n - 1]);
    if (isnan(x)) return NAN;
    for (int i = 1; i < n; i++) {
        const double d =
            fabs((double)a - (double)values[i]) - fabs((double)a - (double)values[best]);
        if (d < 0 || (d == 0 && i % 2 == 0)) best = i;
    }
    return copysignf(values[best], x);
}

static void test_round_float(void **state)
{
    (void)state;
    static const float e2m1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    float e4m3[127];
    for (int i = 0; i < 127; i++) e4m3[i] = nb_e4m3_to_f32((uint8_t)i);
    struct level levels[MAX_LEVELS];
    int n_levels = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 12);
    for (int trial = 0; trial < 200; trial++) {
        const bool four = trial & 1;
        struct nb_float_grid g = {.scale = trial % 4 < 2 ? 1 : 0.01f + (float)trial * 0.3f,
                                  .max = four ? 6.0f : 448.0f,
                                  .man = four ? 1 : 3,
                                  .emin = four ? 0 : -6};
        float x[MAX_N], want[MAX_N], y[MAX_N];
        int64_t n = some_n(&rng);
        for (int64_t i = 0; i < n; i++) x[i] = any_float(&rng);
        for (int64_t i = 0; i < n; i++)
            want[i] = nearest(x[i] / g.scale, four ? e2m1 : e4m3, four ? 8 : 127) * g.scale;
        for (int l = 0; l < n_levels; l++) {
            levels[l].ops.round_float(y, x, n, &g);
            check_floats(y, want, n, "round_float");
            memcpy(y, x, (size_t)n * sizeof *y);
            levels[l].ops.round_float(y, y, n, &g);
            check_floats(y, want, n, "round_float in place");
        }
    }
}

static void test_round_f16_and_amax(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n_levels = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 13);
    for (int trial = 0; trial < 300; trial++) {
        float x[MAX_N], want[MAX_N], y[MAX_N];
        int64_t n = some_n(&rng);
        const bool whole = trial % 3 == 0; /* with NaN and infinity */
        for (int64_t i = 0; i < n; i++) {
            do x[i] = any_float(&rng);
            while (!whole && !isfinite(x[i]));
        }
        if (whole && n > 0) x[nb_rng_below(&rng, (uint64_t)n)] = nb_f32_from_bits(0xffffffffu);
        const float limit = trial % 2 ? 0.5f : 0;
        float top = 0;
        bool nan = false;
        for (int64_t i = 0; i < n; i++) {
            want[i] = nb_f16_to_f32(nb_f32_to_f16(x[i]));
            if (isinf(want[i])) want[i] = x[i];
            if (limit > 0 ? fabsf(x[i]) < limit : !isnan(x[i])) top = fmaxf(top, fabsf(x[i]));
            nan = nan || (limit == 0 && isnan(x[i]));
        }
        for (int l = 0; l < n_levels; l++) {
            const float found = levels[l].ops.amax(x, n, limit);
            assert_true(nan ? isnan(found) : found == top);
            levels[l].ops.round_f16(y, x, n);
            check_floats(y, want, n, "round_f16");
        }
    }
}

static void test_int8(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n_levels = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 14);
    for (int trial = 0; trial < 300; trial++) {
        float x[MAX_N];
        int8_t code[MAX_N + 1], want[MAX_N];
        int16_t wide[MAX_N];
        uint16_t wide_u[MAX_N];
        int64_t n = some_n(&rng);
        const float factor = trial % 2 ? 4.0f : 1e3f;
        int32_t sum = 0;
        for (int64_t i = 0; i < n; i++) {
            do x[i] = any_float(&rng);
            while (!isfinite(x[i]));
            const double v = rint((double)(x[i] * factor));
            want[i] = (int8_t)fmin(fmax(v, -128), 127);
            sum += want[i];
        }
        for (int l = 0; l < n_levels; l++) {
            const struct nb_cpu_ops *ops = &levels[l].ops;
            code[n] = 77;
            ops->quant_i8(code, x, n, factor);
            assert_memory_equal(code, want, (size_t)n);
            assert_int_equal(code[n], 77);
            assert_int_equal(ops->sum_i8(code, n), sum);
            ops->widen_i8(wide, code, n);
            ops->widen_u8(wide_u, (const uint8_t *)code, n);
            for (int64_t i = 0; i < n; i++) {
                assert_int_equal(wide[i], want[i]);
                assert_int_equal(wide_u[i], (uint8_t)want[i]);
            }
        }
    }
}

/* All-extreme operands too: what would saturate 16 bits. */
static void test_tile_i8(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n_levels = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 15);
    for (int l = 0; l < n_levels; l++) {
        const struct nb_cpu_ops *ops = &levels[l].ops;
        const int mr = ops->mr, nr = ops->nr, ck = ops->code_k;
        assert_true(ck == 2 || ck == 4);
        for (int trial = 0; trial < 60; trial++) {
            const int64_t k = (int64_t)nb_rng_below(&rng, 40), lda = 1 + (trial % mr), ldc = nr + 3;
            const int rows = 1 + (int)nb_rng_below(&rng, (uint64_t)lda);
            const bool extreme = trial % 5 == 0, add = trial & 1;
            const size_t na = (size_t)(k * lda + 1), nb = (size_t)(k * nr + 1);
            const size_t nc = (size_t)((rows - 1) * ldc + nr);
            float *a = guarded_new(na), *b = guarded_new(nb), *c = guarded_new(nc);
            for (size_t i = 0; i < na * (size_t)ck; i++) {
                int v = extreme ? -128 : (int)nb_rng_below(&rng, 256) - 128;
                if (ck == 4) ((int8_t *)a)[i] = (int8_t)v;
                else ((int16_t *)a)[i] = (int16_t)v;
            }
            for (size_t i = 0; i < nb * (size_t)ck; i++) {
                unsigned v = extreme ? 255 : (unsigned)nb_rng_below(&rng, 256);
                if (ck == 4) ((uint8_t *)b)[i] = (uint8_t)v;
                else ((uint16_t *)b)[i] = (uint16_t)v;
            }
            int32_t *sums = (int32_t *)c;
            for (size_t i = 0; i < nc; i++) sums[i] = (int32_t)i - 100;
            ops->tile_i8(&(struct nb_tile_f32){k, a, lda, b, nr, c, ldc, rows, add});
            for (int r = 0; r < rows; r++) {
                for (int j = 0; j < (r == rows - 1 ? nr : ldc); j++) {
                    int64_t want = add || j >= nr ? r * ldc + j - 100 : 0;
                    for (int64_t i = 0; j < nr && i < k * ck; i++) {
                        const int64_t at = (i / ck * lda + r) * ck + i % ck;
                        const int64_t bt = (i / ck * nr + j) * ck + i % ck;
                        want += ck == 4 ? ((int8_t *)a)[at] * ((uint8_t *)b)[bt]
                                        : ((int16_t *)a)[at] * ((int16_t *)b)[bt];
                    }
                    assert_int_equal(sums[r * ldc + j], want);
                }
            }
            guarded_check(c, nc);
            guarded_free(a, na);
            guarded_free(b, nb);
            guarded_free(c, nc);
        }
    }
}

static void test_out_i8(void **state)
{
    (void)state;
    struct level levels[MAX_LEVELS];
    int n_levels = levels_get(levels);
    struct nb_rng rng;
    nb_rng_init(&rng, 16);
    for (int trial = 0; trial < 200; trial++) {
        int32_t acc[MAX_N], zero[MAX_N];
        float scale[MAX_N], before[MAX_N], want[MAX_N], y[MAX_N];
        const int64_t n = some_n(&rng);
        struct nb_out_i8 o = {.acc = acc,
                              .zero = trial % 3 ? zero : NULL,
                              .sum = (int32_t)nb_rng_below(&rng, 1 << 20) - (1 << 19),
                              .scale = scale,
                              .x_scale = 0.37f,
                              .n = n,
                              .add = trial & 1};
        for (int64_t i = 0; i < n; i++) {
            acc[i] = (int32_t)nb_rng_below(&rng, 1 << 28) - (1 << 27);
            zero[i] = (int32_t)nb_rng_below(&rng, 256);
            scale[i] = (float)nb_rng_normal(&rng);
            before[i] = (float)nb_rng_normal(&rng) * 1e6f;
            const float v = (float)(acc[i] - (o.zero ? zero[i] * o.sum : o.sum));
            const float scaled = v * scale[i], add = scaled * o.x_scale;
            want[i] = o.add ? before[i] + add : add;
        }
        for (int l = 0; l < n_levels; l++) {
            memcpy(y, before, sizeof y);
            o.y = y;
            levels[l].ops.out_i8(&o);
            check_floats(y, want, n, "out_i8");
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_round_float),
        cmocka_unit_test(test_round_f16_and_amax),
        cmocka_unit_test(test_int8),
        cmocka_unit_test(test_tile_i8),
        cmocka_unit_test(test_out_i8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
