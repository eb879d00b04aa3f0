/* SPDX-License-Identifier: Apache-2.0
 *
 * test_float.c - E4M3 and E2M1 under every kind of scale: worked examples of the file formats, nearest is nearest,
 * searched scales lose nothing, whole matrices equal group by group, hostile weights. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/fp8.h"
#include "base/half.h"
#include "base/rng.h"
#include "numeric/elems.h"
#include "numeric/numeric.h"

#define ALL ((int64_t)1 << 40)

static struct nb_qspec spec_of(const struct nb_elem *elem, int64_t rows, int64_t cols,
                               enum nb_dtype scale)
{
    return (struct nb_qspec){
        .elem = *elem, .group_rows = rows, .group_cols = cols, .scale_dtype = scale};
}

static struct nb_qspec nvfp4(void)
{
    struct nb_qspec s = spec_of(&nb_elem_e2m1, 1, 16, NB_F32);
    s.super_groups = ALL;
    s.super_flat = s.super_divides = true;
    s.scale_bits = 8;
    s.scale_table = nb_e4m3_values;
    return s;
}

static const struct nb_numeric *numeric_of(const struct nb_qspec *spec)
{
    const struct nb_numeric *n = nb_numeric_for(spec);
    assert_non_null(n);
    return n;
}

static void encode(struct nb_qmat *q, const struct nb_grid_opts *opts, const float *w, int64_t rows,
                   int64_t cols, struct nb_arena *arena)
{
    struct nb_err err;
    if (nb_qmat_init(q, &opts->spec, rows, cols, arena, &err)) fail_msg("%s", err.text);
    if (numeric_of(&opts->spec)->encode(q, opts, w, NULL, &err)) fail_msg("%s", err.text);
}

/* ---- worked examples ---- */

static void check_example(struct nb_qspec spec, const float *w, int64_t rows, int64_t cols,
                          const uint32_t *scales, const uint8_t *codes)
{
    struct nb_arena arena;
    struct nb_qmat q;
    nb_arena_init(&arena);
    encode(&q, &(struct nb_grid_opts){.spec = spec}, w, rows, cols, &arena);
    for (int64_t i = 0; i < nb_qmat_planes(&q); i++)
        assert_int_equal(nb_f32_bits(q.scale.value[i]), scales[i]);
    assert_memory_equal(q.codes, codes, (size_t)(rows * cols));
    nb_arena_release(&arena);
}

/* Formats document, 6.4 and 5.7. */
static void test_e4m3_examples(void **state)
{
    (void)state;
    static const float w[9] = {1, -2, 0.5f, 0.25f, 4, -0.125f, 3, 0, 7};
    check_example(spec_of(&nb_elem_e4m3, 2, 2, NB_F32), w, 3, 3,
                  (uint32_t[]){0x3c124925, 0x3a924925, 0x3bdb6db7, 0x3c800000},
                  (uint8_t[]){0x6E, 0xF6, 0x7E, 0x5E, 0x7E, 0xEE, 0x7E, 0x00, 0x7E});
    check_example(spec_of(&nb_elem_e4m3, ALL, -1, NB_F32), w, 3, 3, (uint32_t[]){0x3c800000},
                  (uint8_t[]){0x68, 0xF0, 0x60, 0x58, 0x78, 0xD0, 0x74, 0x00, 0x7E});
    static const float row[5] = {0.5f, -1, 0.25f, 2, 0.1f};
    check_example(spec_of(&nb_elem_e4m3, 1, -1, NB_F32), row, 1, 5, (uint32_t[]){0x3b924925},
                  (uint8_t[]){0x6E, 0xF6, 0x66, 0x7E, 0x5B});
    check_example(spec_of(&nb_elem_e4m3, 1, -1, NB_BF16), row, 1, 5, (uint32_t[]){0x3b920000},
                  (uint8_t[]){0x6E, 0xF6, 0x66, 0x7E, 0x5B});
}

/* 5.9 */
static void test_nvfp4_example(void **state)
{
    (void)state;
    static const float w[16] = {0, 0.1f, -0.2f, 0.3f,   0.5f, -0.75f, 1,     -1.5f,
                                2, -3,   0.05f, -0.05f, 0.6f, 1.25f,  -2.5f, 2.75f};
    static const uint8_t packed[8] = {0x00, 0x19, 0xb2, 0xd4, 0xf6, 0x80, 0x42, 0x7e};
    struct nb_arena arena;
    struct nb_qmat q;
    float rounded[16], bf16[16];
    for (int i = 0; i < 16; i++) bf16[i] = nb_bf16_to_f32(nb_f32_to_bf16(w[i]));
    nb_arena_init(&arena);
    encode(&q, &(struct nb_grid_opts){.spec = nvfp4()}, bf16, 1, 16, &arena);
    assert_true(q.scale.super[0] == 896.0f && q.scale.codes[0] == 0x7e);
    assert_true(q.scale.value[0] == 0.5f);
    for (int i = 0; i < 16; i++) assert_int_equal(q.codes[i], packed[i / 2] >> 4 * (i & 1) & 15);
    nb_qmat_dequant_row(&q, 0, rounded);
    assert_true(rounded[15] == 3.0f && rounded[2] == -0.25f);
    nb_arena_release(&arena);
}

static float mx_scale(const struct nb_elem *elem, float amax)
{
    const struct nb_grid_opts opts = {.spec = spec_of(elem, 1, 32, NB_F8_E8M0)};
    struct nb_group_params p;
    numeric_of(&opts.spec)->fit(&opts, &amax, NULL, 1, &p);
    return p.scale;
}

static void test_mx_exponent(void **state)
{
    (void)state;
    assert_int_equal(nb_f32_to_e8m0(mx_scale(&nb_elem_e2m1, 3.0f)), 126);
    assert_int_equal(nb_f32_to_e8m0(mx_scale(&nb_elem_e2m1, -3.5f)), 127);
    assert_int_equal(nb_f32_to_e8m0(mx_scale(&nb_elem_e2m1, 3.4999998f)), 126);
    assert_int_equal(nb_f32_to_e8m0(mx_scale(&nb_elem_e4m3, 447.0f)), 127);
    assert_int_equal(nb_f32_to_e8m0(mx_scale(&nb_elem_e4m3, 1.0f)), 119);
    assert_int_equal(nb_f32_to_e8m0(mx_scale(&nb_elem_e2m1, 0.0f)), 0);
    assert_int_equal(nb_f32_to_e8m0(mx_scale(&nb_elem_e2m1, 1e-45f)), 0);
    assert_int_equal(nb_f32_to_e8m0(mx_scale(&nb_elem_e2m1, 3e38f)),
                     252); /* not 253: 4 times that is no float */
}

/* ---- rounding ---- */

static void test_nearest_is_nearest_and_codes_come_back(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    const struct nb_elem *const elems[] = {&nb_elem_e4m3, &nb_elem_e2m1};
    for (int e = 0; e < 2; e++) {
        const struct nb_qspec spec = spec_of(elems[e], 1, 32, NB_F32);
        const struct nb_numeric *n = numeric_of(&spec);
        const unsigned codes = 1u << spec.elem.bits;
        for (int trial = 0; trial < 300; trial++) {
            const struct nb_group_params p = {.scale = (float)exp(3 * nb_rng_normal(&rng))};
            for (unsigned c = 0; c < codes; c++) {
                const float v = n->value(&spec, c, &p);
                if (!isnan(v)) assert_int_equal(n->nearest(&spec, v, &p), c);
            }
            const float w = (float)(nb_rng_normal(&rng) * exp(2 * nb_rng_normal(&rng))) * p.scale;
            const float mine = fabsf(n->value(&spec, n->nearest(&spec, w, &p), &p) - w);
            for (unsigned c = 0; c < codes; c++) {
                const float other = fabsf(n->value(&spec, c, &p) - w);
                assert_true(isnan(other) || mine <= other * (1 + 1e-5f));
            }
        }
    }
}

static void test_e2m1_ties(void **state)
{
    (void)state;
    static const float tie[] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f, 100.0f};
    static const uint8_t code[] = {0, 2, 2, 4, 4, 6, 6, 7};
    const struct nb_qspec spec = spec_of(&nb_elem_e2m1, 1, 32, NB_F32);
    const struct nb_group_params p = {.scale = 1.0f};
    for (size_t i = 0; i < sizeof tie / sizeof *tie; i++) {
        assert_int_equal(numeric_of(&spec)->nearest(&spec, tie[i], &p), code[i]);
        assert_int_equal(numeric_of(&spec)->nearest(&spec, -tie[i], &p), code[i] | 8);
    }
}

static void test_vector_forms_agree(void **state)
{
    (void)state;
    enum { N = 37 };
    struct nb_rng rng;
    nb_rng_init(&rng, 3);
    const struct nb_elem *const elems[] = {&nb_elem_e4m3, &nb_elem_e2m1};
    for (int e = 0; e < 2; e++) {
        const struct nb_qspec spec = spec_of(elems[e], 1, 32, NB_F32);
        const struct nb_numeric *n = numeric_of(&spec);
        float w[N], scale[N], zero[N] = {0}, value[N], lane_value[N];
        uint8_t code[N], lane_code[N];
        const struct nb_group_params p = {.scale = 0.3f};
        for (int i = 0; i < N; i++) {
            w[i] = (float)(nb_rng_normal(&rng) * exp(nb_rng_normal(&rng)));
            scale[i] = p.scale;
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
}

/* ---- scales ---- */

static double weighted_error(const struct nb_grid_opts *opts, const float *w, const float *u, int n,
                             enum nb_clip clip)
{
    struct nb_grid_opts o = *opts;
    struct nb_group_params p;
    float value[64];
    double sum = 0;
    o.clip = clip;
    numeric_of(&o.spec)->fit(&o, w, u, n, &p);
    assert_true(p.zero == 0.0f && isfinite(p.scale) && p.scale > 0);
    if (o.spec.scale_dtype != NB_F8_E8M0)
        assert_true(p.scale == nb_round_to(p.scale, o.spec.scale_dtype));
    else assert_true(p.scale == nb_e8m0_to_f32(nb_f32_to_e8m0(p.scale)));
    numeric_of(&o.spec)->round_group(&o.spec, w, n, &p, NULL, value);
    for (int i = 0; i < n; i++)
        sum += (u ? u[i] : 1.0) * ((double)value[i] - w[i]) * ((double)value[i] - w[i]);
    return sum;
}

/* Searched scales are never worse than the plain one, and on E2M1 better on the whole. */
static void test_search_pays(void **state)
{
    (void)state;
    struct nb_grid_opts grids[] = {
        {.spec = spec_of(&nb_elem_e2m1, 1, 16, NB_F32)},
        {.spec = spec_of(&nb_elem_e2m1, 1, 16, NB_BF16)},
        {.spec = spec_of(&nb_elem_e2m1, 1, 32, NB_F8_E8M0)},
        {.spec = spec_of(&nb_elem_e4m3, 1, 32, NB_F8_E8M0)},
        {.spec = nvfp4(), .tensor_amax = 4.0f},
        {.spec = spec_of(&nb_elem_e4m3, 1, 64, NB_F32)},
    };
    struct nb_rng rng;
    nb_rng_init(&rng, 4);
    for (size_t g = 0; g < sizeof grids / sizeof *grids; g++) {
        double plain = 0, mse = 0, weighted = 0, plain_u = 0;
        for (int trial = 0; trial < 200; trial++) {
            float w[32], u[32];
            for (int i = 0; i < 32; i++) {
                w[i] = (float)nb_rng_normal(&rng);
                u[i] = (float)exp(nb_rng_normal(&rng));
            }
            const double a = weighted_error(&grids[g], w, NULL, 32, NB_CLIP_NONE);
            const double b = weighted_error(&grids[g], w, NULL, 32, NB_CLIP_MSE);
            const double c = weighted_error(&grids[g], w, u, 32, NB_CLIP_NONE);
            const double d = weighted_error(&grids[g], w, u, 32, NB_CLIP_WEIGHTED);
            assert_true(b <= a * (1 + 1e-4) && d <= c * (1 + 1e-4));
            plain += a;
            mse += b;
            plain_u += c;
            weighted += d;
        }
        const double most = grids[g].spec.scale_dtype == NB_F8_E8M0 ? 0.999 : 0.85;
        if (grids[g].spec.elem.bits == 4)
            assert_true(mse < most * plain && weighted < most * plain_u);
        if (g == 5) assert_true(mse == plain); /* nothing to search for */
    }
}

/* With the matrix's magnitude known, fitted scales are what two levels can hold, and settle changes none. */
static void test_settle_keeps_fitted_scales(void **state)
{
    (void)state;
    enum { ROWS = 5, COLS = 48 };
    struct nb_rng rng;
    nb_rng_init(&rng, 5);
    float w[ROWS * COLS], amax = 0;
    for (int i = 0; i < ROWS * COLS; i++) {
        w[i] = (float)nb_rng_normal(&rng) * 0.02f;
        amax = fmaxf(amax, fabsf(w[i]));
    }
    for (int known = 0; known < 2; known++) {
        struct nb_err err;
        struct nb_arena arena;
        struct nb_qmat q, reference;
        const struct nb_grid_opts opts = {.spec = nvfp4(), .tensor_amax = known ? amax : 0};
        const struct nb_numeric *n = numeric_of(&opts.spec);
        nb_arena_init(&arena);
        assert_int_equal(nb_qmat_init(&q, &opts.spec, ROWS, COLS, &arena, &err), 0);
        float fitted[ROWS * COLS / 16];
        for (int g = 0; g < ROWS * COLS / 16; g++) {
            struct nb_group_params p;
            n->fit(&opts, w + 16 * g, NULL, 16, &p);
            q.scale.value[g] = fitted[g] = p.scale;
        }
        assert_int_equal(n->settle(&q, &opts, &err), 0);
        if (known) assert_memory_equal(q.scale.value, fitted, sizeof fitted);
        encode(&reference, &opts, w, ROWS, COLS, &arena);
        assert_memory_equal(q.scale.codes, reference.scale.codes, sizeof fitted / 4);
        memset(q.scale.value, 0,
               sizeof fitted); /* value is what the codes and the super-scale say */
        nb_qmat_fill_values(&q, 0);
        for (int64_t r = 0; r < ROWS; r++) nb_qmat_fill_values(&reference, r);
        assert_memory_equal(q.scale.value, reference.scale.value, 3 * sizeof(float));
        nb_arena_release(&arena);
    }
}

/* ---- whole matrices ---- */

static float *random_matrix(int64_t rows, int64_t cols, uint64_t seed)
{
    struct nb_rng rng;
    nb_rng_init(&rng, seed);
    float *w = malloc((size_t)(rows * cols) * sizeof *w);
    assert_non_null(w);
    for (int64_t i = 0; i < rows * cols; i++)
        w[i] = (float)(nb_rng_normal(&rng) * exp(nb_rng_normal(&rng)));
    return w;
}

/* encode equals fit and round_group, group by group, and does not depend on the pool. */
static void test_encode_equals_groups(void **state)
{
    (void)state;
    const struct nb_qspec specs[] = {
        spec_of(&nb_elem_e4m3, 1, -1, NB_F32),     spec_of(&nb_elem_e4m3, 1, -1, NB_BF16),
        spec_of(&nb_elem_e4m3, 1, 32, NB_F8_E8M0), spec_of(&nb_elem_e2m1, 1, 32, NB_F8_E8M0),
        spec_of(&nb_elem_e2m1, 1, 16, NB_F16),     nvfp4(),
        spec_of(&nb_elem_e4m3, ALL, -1, NB_F32),   spec_of(&nb_elem_e4m3, 128, 128, NB_F32),
        spec_of(&nb_elem_e4m3, 3, 50, NB_F32),
    };
    enum { ROWS = 150, COLS = 200 };
    struct nb_err err;
    struct nb_pool *pool = nb_pool_new(3, &err);
    float *w = random_matrix(ROWS, COLS, 6);
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++) {
        struct nb_arena arena;
        struct nb_qmat q, other;
        const struct nb_numeric *n = numeric_of(&specs[s]);
        struct nb_grid_opts opts = {.spec = specs[s]};
        nb_arena_init(&arena);
        encode(&q, &opts, w, ROWS, COLS, &arena);
        assert_int_equal(nb_qmat_init(&other, &specs[s], ROWS, COLS, &arena, &err), 0);
        assert_int_equal(n->encode(&other, &opts, w, pool, &err), 0);
        assert_memory_equal(q.codes, other.codes, ROWS * COLS);
        assert_memory_equal(q.scale.value, other.scale.value,
                            (size_t)nb_qmat_planes(&q) * sizeof(float));
        if (q.scale.super) opts.tensor_amax = 448.0f * 6.0f / q.scale.super[0];
        for (int64_t r = 0; r < ROWS; r++) {
            for (int64_t k = 0; k < COLS; k += q.spec.group_cols) {
                uint8_t code[COLS];
                const int64_t len = COLS - k < q.spec.group_cols ? COLS - k : q.spec.group_cols;
                struct nb_group_params p = {.scale = q.scale.value[nb_qmat_plane_index(&q, r, k)]};
                if (q.spec.group_rows == 1 && !q.scale.super) {
                    struct nb_group_params fitted;
                    n->fit(&opts, w + r * COLS + k, NULL, len, &fitted);
                    assert_true(fitted.scale == p.scale);
                }
                n->round_group(&opts.spec, w + r * COLS + k, len, &p, code, NULL);
                assert_memory_equal(code, q.codes + r * COLS + k, (size_t)len);
            }
        }
        nb_arena_release(&arena);
    }
    free(w);
    nb_pool_free(pool);
}

/* Matrices that engines fuse are given one magnitude. */
static void test_common_magnitude(void **state)
{
    (void)state;
    struct nb_arena arena;
    struct nb_qmat q;
    float *w = random_matrix(20, 32, 7);
    nb_arena_init(&arena);
    struct nb_grid_opts opts = {.spec = spec_of(&nb_elem_e4m3, ALL, -1, NB_F32),
                                .tensor_amax = 896.0f};
    encode(&q, &opts, w, 20, 32, &arena);
    assert_true(q.scale.value[0] == 2.0f);
    struct nb_group_params p;
    numeric_of(&opts.spec)->fit(&opts, w, NULL, 32, &p);
    assert_true(p.scale == 2.0f);
    opts.spec = nvfp4();
    opts.tensor_amax = 1024.0f;
    encode(&q, &opts, w, 20, 32, &arena);
    assert_true(q.scale.super[0] == 2.625f);
    free(w);
    nb_arena_release(&arena);
}

static void test_hostile_groups_stay_finite(void **state)
{
    (void)state;
    const float cases[][4] = {
        {0, 0, 0, 0},         {1e-9f, -1e-9f, 0, 0}, {3e38f, -3e38f, 1, 0}, {NAN, 1, -1, 0},
        {INFINITY, 1, -1, 0}, {1e-45f, 0, 0, 0},     {NAN, NAN, NAN, NAN},  {1e-38f, 1e30f, 0, 0},
    };
    const struct nb_qspec specs[] = {spec_of(&nb_elem_e4m3, 1, -1, NB_F32),
                                     spec_of(&nb_elem_e4m3, 1, -1, NB_F16),
                                     spec_of(&nb_elem_e2m1, 1, 4, NB_F8_E8M0), nvfp4()};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (int s = 0; s < 4; s++) {
            for (int clip = 0; clip < 3; clip++) {
                const struct nb_grid_opts opts = {.spec = specs[s], .clip = (enum nb_clip)clip};
                const float u[4] = {NAN, 1e30f, 0, 1};
                struct nb_group_params p;
                uint8_t code[4];
                float value[4];
                numeric_of(&specs[s])->fit(&opts, cases[c], u, 4, &p);
                assert_true(isfinite(p.scale) && p.scale > 0);
                numeric_of(&specs[s])->round_group(&specs[s], cases[c], 4, &p, code, value);
                for (int i = 0; i < 4; i++) assert_true(isfinite(value[i]));
            }
            struct nb_arena arena;
            struct nb_qmat q;
            nb_arena_init(&arena);
            encode(&q, &(struct nb_grid_opts){.spec = specs[s]}, cases[c], 1, 4, &arena);
            float row[4];
            nb_qmat_dequant_row(&q, 0, row);
            for (int i = 0; i < 4; i++) assert_true(isfinite(row[i]));
            nb_arena_release(&arena);
        }
    }
}

static void test_unsupported_specs_are_refused(void **state)
{
    (void)state;
    struct nb_qspec spec = spec_of(&nb_elem_e4m3, 1, -1, NB_F32);
    spec.zero = NB_ZERO_CODE;
    assert_null(nb_numeric_for(&spec));
    spec = spec_of(&nb_elem_e4m3, 1, -1, NB_I32);
    assert_null(nb_numeric_for(&spec));
    spec = spec_of(&nb_elem_e4m3, 1, 64, NB_F32);
    spec.flat = true;
    assert_null(nb_numeric_for(&spec));
    spec = nvfp4();
    spec.super_divides = false;
    assert_null(nb_numeric_for(&spec));
    const struct nb_elem e5m2 = {.kind = NB_ELEM_FLOAT, .bits = 8, .exp = 5, .man = 2, .vec = 1};
    spec = spec_of(&e5m2, 1, -1, NB_F32);
    assert_null(nb_numeric_for(&spec));
    spec = nvfp4(); /* one global scale per matrix */
    spec.super_groups = 2;
    struct nb_err err;
    struct nb_arena arena;
    struct nb_qmat q;
    float w[64] = {1};
    nb_arena_init(&arena);
    assert_int_equal(nb_qmat_init(&q, &spec, 1, 64, &arena, &err), 0);
    const struct nb_grid_opts opts = {.spec = spec};
    assert_int_equal(numeric_of(&spec)->encode(&q, &opts, w, NULL, &err), NB_E_SPEC);
    assert_int_equal(numeric_of(&spec)->settle(&q, &opts, &err), NB_E_SPEC);
    nb_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_e4m3_examples),
        cmocka_unit_test(test_nvfp4_example),
        cmocka_unit_test(test_mx_exponent),
        cmocka_unit_test(test_nearest_is_nearest_and_codes_come_back),
        cmocka_unit_test(test_e2m1_ties),
        cmocka_unit_test(test_vector_forms_agree),
        cmocka_unit_test(test_search_pays),
        cmocka_unit_test(test_settle_keeps_fitted_scales),
        cmocka_unit_test(test_encode_equals_groups),
        cmocka_unit_test(test_common_magnitude),
        cmocka_unit_test(test_hostile_groups_stay_finite),
        cmocka_unit_test(test_unsupported_specs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
