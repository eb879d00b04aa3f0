/* SPDX-License-Identifier: Apache-2.0
 *
 * test_int.c - the integer encoding: worked examples of the file formats, nearest is nearest, limits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"
#include "numeric/numeric.h"

static struct nb_qspec spec_of(int bits, bool sym)
{
    return (struct nb_qspec){.elem = {.kind = NB_ELEM_INT, .bits = bits, .vec = 1},
                             .group_rows = 1,
                             .group_cols = 128,
                             .scale_dtype = NB_F16,
                             .zero = NB_ZERO_CODE,
                             .symmetric = sym};
}

static const struct nb_numeric *numeric_of(const struct nb_qspec *spec)
{
    const struct nb_numeric *n = nb_numeric_for(spec);
    assert_non_null(n);
    return n;
}

/* Checkpoint formats, 2.9 and 3.6: the tools round under the f32 scale and cast it afterwards. The two cases
 * where that matters, 0.5 / 0.2 and 0.75 / 0.1667, are ties then; under the stored scale they are not. */
static const float example[8] = {0.5f, -1.0f, 0.25f, 0.75f, -0.125f, 1.5f, -0.375f, 0.0f};

static void check_example(bool sym, uint16_t scale, float zero, const uint8_t expected[8], int tie)
{
    struct nb_grid_opts opts = {.spec = spec_of(4, sym)};
    const struct nb_numeric *n = numeric_of(&opts.spec);
    struct nb_group_params p;
    uint8_t code[8];
    opts.spec.scale_dtype = NB_F32;
    n->fit(&opts, example, NULL, 8, &p);
    assert_int_equal(nb_f32_to_f16(p.scale), scale);
    assert_true(p.zero == zero);
    n->round_group(&opts.spec, example, 8, &p, code, NULL);
    assert_memory_equal(code, expected, 8);

    opts.spec.scale_dtype = NB_F16;
    n->fit(&opts, example, NULL, 8, &p);
    assert_int_equal(nb_f32_to_f16(p.scale), scale);
    assert_true(p.scale == nb_f16_to_f32(scale));
    n->round_group(&opts.spec, example, 8, &p, code, NULL);
    for (int i = 0; i < 8; i++) assert_int_equal(code[i], expected[i] + (i == tie));
}

static void test_symmetric_example(void **state)
{
    (void)state;
    static const uint8_t expected[8] = {10, 3, 9, 12, 7, 15, 6, 8};
    static const float values[8] = {
        0.39990234375f,   -0.999755859375f, 0.199951171875f, 0.7998046875f,
        -0.199951171875f, 1.399658203125f,  -0.39990234375f, 0.0f};
    check_example(true, 0x3266, 8.0f, expected, 0);
    const struct nb_qspec spec = spec_of(4, true);
    const struct nb_group_params p = {.scale = nb_f16_to_f32(0x3266), .zero = 8.0f};
    for (int i = 0; i < 8; i++)
        assert_true(numeric_of(&spec)->value(&spec, expected[i], &p) == values[i]);
}

static void test_asymmetric_example(void **state)
{
    (void)state;
    static const uint8_t expected[8] = {9, 0, 8, 10, 5, 15, 4, 6};
    check_example(false, 0x3155, 6.0f, expected, 3);
}

static void test_scale_is_as_stored(void **state)
{
    (void)state;
    struct nb_grid_opts opts = {.spec = spec_of(4, true)};
    static const enum nb_dtype types[] = {NB_F16, NB_BF16, NB_F32};
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    for (int t = 0; t < 3; t++) {
        opts.spec.scale_dtype = types[t];
        for (int clip = NB_CLIP_NONE; clip <= NB_CLIP_WEIGHTED; clip++) {
            opts.clip = (enum nb_clip)clip;
            for (int trial = 0; trial < 50; trial++) {
                float w[64], u[64];
                for (int i = 0; i < 64; i++) {
                    w[i] = (float)nb_rng_normal(&rng);
                    u[i] = (float)nb_rng_uniform(&rng);
                }
                struct nb_group_params p;
                opts.spec.symmetric = trial & 1;
                opts.sym_range = trial & 2 ? NB_SYM_FULL : NB_SYM_REFERENCE;
                numeric_of(&opts.spec)->fit(&opts, w, u, 64, &p);
                assert_true(p.scale == nb_round_to(p.scale, types[t]));
            }
        }
    }
}

/* Full range: the largest magnitude sits exactly on the outermost code, whatever its sign. */
static void test_full_range_uses_the_outermost_code(void **state)
{
    (void)state;
    struct nb_grid_opts opts = {.spec = spec_of(4, true), .sym_range = NB_SYM_FULL};
    const struct nb_numeric *n = numeric_of(&opts.spec);
    for (float sign = -1.0f; sign <= 1.0f; sign += 2.0f) {
        float w[4] = {sign * 2.0f, 0.5f, -0.25f, 0.0f};
        struct nb_group_params p;
        n->fit(&opts, w, NULL, 4, &p);
        assert_true(p.scale == -sign * 0.25f);
        assert_int_equal(n->nearest(&opts.spec, w[0], &p), 0);
        assert_true(n->value(&opts.spec, 0, &p) == w[0]);
    }
}

static void test_nearest_is_nearest_and_codes_come_back(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 2);
    static const int widths[] = {2, 3, 4, 8};
    for (int b = 0; b < 4; b++) {
        struct nb_qspec spec = spec_of(widths[b], false);
        const struct nb_numeric *n = numeric_of(&spec);
        const unsigned codes = 1u << widths[b];
        for (int trial = 0; trial < 200; trial++) {
            struct nb_group_params p = {
                .scale =
                    nb_round_to((float)(nb_rng_uniform(&rng) * (trial & 1 ? 1.0 : -1.0)), NB_F16),
                .zero = (float)nb_rng_below(&rng, codes)};
            if (fabsf(p.scale) < 1e-3f) continue;
            for (unsigned c = 0; c < codes; c++) {
                assert_int_equal(n->nearest(&spec, n->value(&spec, c, &p), &p), c);
            }
            const float w = (float)nb_rng_normal(&rng) * p.scale * (float)codes;
            const float mine = fabsf(n->value(&spec, n->nearest(&spec, w, &p), &p) - w);
            for (unsigned c = 0; c < codes; c++) {
                assert_true(mine <= fabsf(n->value(&spec, c, &p) - w) * (1.0f + 1e-5f) + 1e-6f);
            }
        }
    }
}

static void test_vector_forms_agree(void **state)
{
    (void)state;
    enum { N = 37 };
    struct nb_rng rng;
    nb_rng_init(&rng, 3);
    struct nb_qspec spec = spec_of(4, false);
    const struct nb_numeric *n = numeric_of(&spec);
    float w[N], scale[N], zero[N], value[N], lane_value[N];
    uint8_t code[N], lane_code[N];
    struct nb_group_params p = {.scale = -0.125f, .zero = 5.0f};
    for (int i = 0; i < N; i++) {
        w[i] = (float)nb_rng_normal(&rng);
        scale[i] = p.scale;
        zero[i] = p.zero;
    }
    n->round_group(&spec, w, N, &p, code, value);
    n->round_lanes(&spec, w, N, &(struct nb_lane_params){scale, zero}, lane_code, lane_value);
    assert_memory_equal(code, lane_code, N);
    assert_memory_equal(value, lane_value, sizeof value);
    for (int i = 0; i < N; i++) {
        assert_int_equal(code[i], n->nearest(&spec, w[i], &p));
        assert_true(value[i] == n->value(&spec, code[i], &p));
    }
}

static void test_ties_round_to_even(void **state)
{
    (void)state;
    struct nb_qspec spec = spec_of(4, true);
    struct nb_group_params p = {.scale = 1.0f, .zero = 8.0f};
    const struct nb_numeric *n = numeric_of(&spec);
    assert_int_equal(n->nearest(&spec, 0.5f, &p), 8);
    assert_int_equal(n->nearest(&spec, 1.5f, &p), 10);
    assert_int_equal(n->nearest(&spec, -0.5f, &p), 8);
    assert_int_equal(n->nearest(&spec, -2.5f, &p), 6);
}

static void assert_usable(const struct nb_grid_opts *opts, const float *w, const float *u, int n)
{
    struct nb_group_params p;
    uint8_t code[64];
    float value[64];
    const struct nb_numeric *num = numeric_of(&opts->spec);
    num->fit(opts, w, u, n, &p);
    assert_true(isfinite(p.scale));
    assert_true(fabsf(p.scale) >= 0.99e-5f);
    assert_true(p.zero == rintf(p.zero) && p.zero >= (float)opts->zero_min);
    assert_true(p.zero <= (float)((1 << opts->spec.elem.bits) - 1));
    num->round_group(&opts->spec, w, n, &p, code, value);
    for (int i = 0; i < n; i++) {
        assert_true(code[i] < 1 << opts->spec.elem.bits);
        assert_true(isfinite(value[i]));
    }
}

static void test_hostile_groups_stay_finite(void **state)
{
    (void)state;
    const float cases[][4] = {
        {0, 0, 0, 0},         {1e-9f, -1e-9f, 0, 0}, {3e38f, -3e38f, 1, 0}, {NAN, 1, -1, 0},
        {INFINITY, 1, -1, 0}, {-INFINITY, 1, -1, 0}, {NAN, NAN, NAN, NAN},  {1, 2, 3, 4},
        {-1, -2, -3, -4},     {1e30f, 1e-30f, 0, 0},
    };
    const float weights[][4] = {
        {1, 1, 1, 1}, {0, 0, 0, 0}, {1e30f, 1e30f, 0, 1}, {NAN, 1, 1, 1}, {1e-38f, 0, 0, 0}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (size_t u = 0; u < sizeof weights / sizeof *weights; u++) {
            for (int mode = 0; mode < 9; mode++) {
                struct nb_grid_opts opts = {.spec = spec_of(4, mode / 3 < 2),
                                            .clip = (enum nb_clip)(mode % 3)};
                opts.sym_range = mode / 3 == 1 ? NB_SYM_FULL : NB_SYM_REFERENCE;
                assert_usable(&opts, cases[c], weights[u], 4);
                opts.spec.elem.bits = 2;
                opts.spec.scale_dtype = NB_BF16;
                assert_usable(&opts, cases[c], NULL, 4);
            }
        }
    }
}

/* GPTQ's first version stores zero - 1 and has no way to write a zero of 0. */
static void test_zero_min_is_kept(void **state)
{
    (void)state;
    const float w[4] = {0.0f, 1.0f, 2.0f, 3.0f};
    struct nb_grid_opts opts = {.spec = spec_of(4, false)};
    for (int clip = NB_CLIP_NONE; clip <= NB_CLIP_WEIGHTED; clip++) {
        struct nb_group_params p;
        opts.clip = (enum nb_clip)clip;
        opts.zero_min = 0;
        numeric_of(&opts.spec)->fit(&opts, w, NULL, 4, &p);
        assert_true(p.zero == 0.0f);
        opts.zero_min = 1;
        numeric_of(&opts.spec)->fit(&opts, w, NULL, 4, &p);
        assert_true(p.zero >= 1.0f);
    }
}

static void test_unsupported_specs_are_refused(void **state)
{
    (void)state;
    struct nb_qspec spec = spec_of(4, true);
    spec.zero = NB_ZERO_NONE;
    assert_null(nb_numeric_for(&spec));
    spec = spec_of(9, true);
    assert_null(nb_numeric_for(&spec));
    spec = spec_of(4, true);
    spec.scale_dtype = NB_I32;
    assert_null(nb_numeric_for(&spec));
    spec = spec_of(4, true);
    spec.super_groups = 8;
    assert_null(nb_numeric_for(&spec));
}

static void test_usable_groups(void **state)
{
    (void)state;
    char text[64];
    nb_usable_groups(896, text, sizeof text);
    assert_string_equal(text, "16, 32, 64, 128");
    nb_usable_groups(7, text, sizeof text);
    assert_string_equal(text, "-1 (one per row)");
    nb_usable_groups(896, text, 5); /* cut, not overrun */
    assert_string_equal(text, "16, ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_symmetric_example),
        cmocka_unit_test(test_asymmetric_example),
        cmocka_unit_test(test_scale_is_as_stored),
        cmocka_unit_test(test_full_range_uses_the_outermost_code),
        cmocka_unit_test(test_nearest_is_nearest_and_codes_come_back),
        cmocka_unit_test(test_vector_forms_agree),
        cmocka_unit_test(test_ties_round_to_even),
        cmocka_unit_test(test_hostile_groups_stay_finite),
        cmocka_unit_test(test_zero_min_is_kept),
        cmocka_unit_test(test_unsupported_specs_are_refused),
        cmocka_unit_test(test_usable_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
