/* SPDX-License-Identifier: Apache-2.0
 *
 * test_qmat.c - what a quantized weight means, for every kind of element, zero and grouping. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"
#include "base/sha256.h"
#include "core/qmat.h"

static struct nb_arena arena;

static int setup(void **state)
{
    (void)state;
    nb_arena_init(&arena);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    nb_arena_release(&arena);
    return 0;
}

static struct nb_qspec int_spec(int bits, int64_t group_cols, enum nb_zero zero)
{
    return (struct nb_qspec){.elem = {.kind = NB_ELEM_INT, .bits = bits, .vec = 1},
                             .group_rows = 1,
                             .group_cols = group_cols,
                             .scale_dtype = NB_F16,
                             .zero = zero};
}

static void make(struct nb_qmat *q, const struct nb_qspec *spec, int64_t rows, int64_t cols)
{
    struct nb_err err;
    if (nb_qmat_init(q, spec, rows, cols, &arena, &err)) fail_msg("%s", err.text);
}

/* The published group of checkpoint formats, section 8: W = [0.5, -1, 0.25, 0.75, -0.125, 1.5, -0.375, 0]. */
static void published_group(void **state)
{
    (void)state;
    static const uint8_t sym[8] = {10, 3, 9, 12, 7, 15, 6, 8}, asym[8] = {9, 0, 8, 10, 5, 15, 4, 6};
    static const float want[8] = {
        0.39990234375f,   -0.999755859375f, 0.199951171875f, 0.7998046875f,
        -0.199951171875f, 1.399658203125f,  -0.39990234375f, 0};
    struct nb_qspec spec = int_spec(4, -1, NB_ZERO_CODE);
    struct nb_qmat q;
    float out[8];
    make(&q, &spec, 1, 8);
    memcpy(q.codes, sym, 8);
    q.scale.value[0] = nb_f16_to_f32(0x3266);
    q.zero.value[0] = 8;
    nb_qmat_dequant_row(&q, 0, out);
    for (int i = 0; i < 8; i++) assert_true(out[i] == want[i]);

    memcpy(q.codes, asym, 8);
    q.scale.value[0] = nb_f16_to_f32(0x3155);
    q.zero.value[0] = 6;
    nb_qmat_dequant_row(&q, 0, out);
    for (int i = 0; i < 8; i++) assert_true(out[i] == nb_f16_to_f32(0x3155) * (float)(asym[i] - 6));
}

/* desc_act, same section: groups by column, weights given. */
static void published_act_order(void **state)
{
    (void)state;
    static const uint8_t codes[8] = {3, 12, 9, 0, 15, 7, 8, 1};
    static const int32_t group[8] = {0, 1, 0, 1, 1, 0, 1, 0};
    static const float want[8] = {-2.5f, 1.0f, 0.5f, -2.0f, 1.75f, -0.5f, 0.0f, -3.5f};
    struct nb_qspec spec = int_spec(4, 4, NB_ZERO_CODE);
    struct nb_qmat q;
    float out[8];
    make(&q, &spec, 1, 8);
    memcpy(q.codes, codes, 8);
    q.scale.value[0] = 0.5f;
    q.scale.value[1] = 0.25f;
    q.zero.value[0] = q.zero.value[1] = 8;
    q.col_group = group;
    nb_qmat_dequant_row(&q, 0, out);
    for (int i = 0; i < 8; i++) assert_true(out[i] == want[i]);
    assert_int_equal(nb_qmat_group(&q, 1), 1);
    assert_int_equal(nb_qmat_plane_index(&q, 0, 2), 0);
}

/* Any matrix against the formula written out again, weight by weight. */
static void check_against_formula(const struct nb_qmat *q)
{
    float out[64];
    for (int64_t n = 0; n < q->rows; n++) {
        nb_qmat_dequant_row(q, n, out);
        for (int64_t k = 0; k < q->cols; k++) {
            int64_t g = q->col_group ? q->col_group[k] : k / q->spec.group_cols;
            int64_t at = n / q->spec.group_rows * q->n_groups + g;
            float v = nb_elem_value(&q->spec.elem, q->codes[n * q->cols + k]), want = 0;
            switch (q->spec.zero) {
            case NB_ZERO_NONE: want = q->scale.value[at] * v; break;
            case NB_ZERO_CODE: want = q->scale.value[at] * (v - q->zero.value[at]); break;
            case NB_ZERO_MIN: {
                float product = q->scale.value[at] * v;
                want = product - q->zero.value[at];
                break;
            }
            }
            assert_true(out[k] == want);
            assert_int_equal(nb_qmat_plane_index(q, n, k), at);
        }
    }
}

static void fill(struct nb_qmat *q, uint64_t seed)
{
    struct nb_rng r;
    nb_rng_init(&r, seed);
    int64_t planes = (q->rows + q->spec.group_rows - 1) / q->spec.group_rows * q->n_groups;
    for (int64_t i = 0; i < q->rows * q->cols; i++) {
        q->codes[i] = (uint8_t)nb_rng_below(&r, 1u << q->spec.elem.bits);
    }
    for (int64_t i = 0; i < planes; i++) {
        q->scale.value[i] = (float)nb_rng_normal(&r);
        if (q->zero.value) {
            q->zero.value[i] = q->spec.zero == NB_ZERO_MIN ? (float)nb_rng_normal(&r)
                                                           : (float)nb_rng_below(&r, 16);
        }
    }
}

static void every_width_zero_and_grouping(void **state)
{
    (void)state;
    static const int widths[] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const enum nb_zero zeros[] = {NB_ZERO_NONE, NB_ZERO_CODE, NB_ZERO_MIN};
    static const struct {
        int64_t rows, cols, group_rows, group_cols, n_groups;
    } shapes[] = {
        {3, 40, 1, 8, 5},
        {3, 40, 1, -1, 1},
        {3, 40, 0, 0, 1},
        {3, 40, 1, 16, 3}, /* a short last group */
        {5, 33, 2, 32, 2},
        {5, 33, 5, 33, 1},
        {1, 1, 1, 128, 1},
        {7, 20, 3, 7, 3},
        {4, 16, INT64_MAX, INT64_MAX, 1}, /* larger than the matrix */
    };
    for (size_t w = 0; w < 8; w++) {
        for (size_t z = 0; z < 3; z++) {
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
                struct nb_qspec spec = int_spec(widths[w], shapes[s].group_cols, zeros[z]);
                spec.group_rows = shapes[s].group_rows;
                struct nb_qmat q;
                make(&q, &spec, shapes[s].rows, shapes[s].cols);
                assert_int_equal(q.n_groups, shapes[s].n_groups);
                assert_in_range(q.spec.group_rows, 1, shapes[s].rows);
                assert_in_range(q.spec.group_cols, 1, shapes[s].cols);
                assert_int_equal(q.zero.value != NULL, zeros[z] != NB_ZERO_NONE);
                fill(&q, w * 100 + z * 10 + s);
                check_against_formula(&q);
            }
        }
    }
}

static void init_clears(void **state)
{
    (void)state;
    struct nb_qspec spec = int_spec(4, 4, NB_ZERO_CODE);
    struct nb_qmat q;
    make(&q, &spec, 2, 6);
    for (int i = 0; i < 12; i++) assert_int_equal(q.codes[i], 0);
    for (int i = 0; i < 4; i++) assert_true(q.scale.value[i] == 0 && q.zero.value[i] == 0);
    assert_null(q.col_group);
    assert_null(q.scale.codes);
}

static void table_elements(void **state)
{
    (void)state;
    static const float table[8] = {-1.0f, -0.5f, -0.1f, 0.0f, 0.1f, 0.3f, 0.7f, 1.0f};
    struct nb_qspec spec = int_spec(3, 4, NB_ZERO_NONE);
    spec.elem = (struct nb_elem){.kind = NB_ELEM_TABLE, .bits = 3, .vec = 1, .table = table};
    struct nb_qmat q;
    make(&q, &spec, 2, 8);
    fill(&q, 5);
    check_against_formula(&q);
    for (unsigned c = 0; c < 8; c++) assert_true(nb_elem_value(&spec.elem, c) == table[c]);
}

/* ---- small floats ---- */

/* Checkpoint formats, section 0.1: SHA-256 over codes 0x00..0x7E as little-endian f32. */
static void e4m3_is_the_published_table(void **state)
{
    (void)state;
    const struct nb_elem e = {.kind = NB_ELEM_FLOAT, .bits = 8, .exp = 4, .man = 3, .vec = 1};
    float table[127];
    char hex[NB_SHA256_HEX];
    for (unsigned c = 0; c < 127; c++) {
        table[c] = nb_elem_value(&e, c);
        assert_true(nb_elem_value(&e, c | 0x80) == -table[c]);
    }
    nb_sha256_bytes(table, sizeof table, hex);
    assert_string_equal(hex, "26f33c1660cc3116e9e345c2b9215b026a3eb47a8a015eaf5b48154258466610");
    static const struct {
        unsigned code;
        float value;
    } cases[] = {{0x00, 0},      {0x01, 0x1p-9f}, {0x08, 0x1p-6f}, {0x38, 1},
                 {0x39, 1.125f}, {0x3a, 1.25f},   {0x45, 3.25f},   {0xaa, -0.3125f},
                 {0x77, 240},    {0x7e, 448},     {0xfe, -448.0f}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(nb_elem_value(&e, cases[i].code) == cases[i].value);
    }
    assert_true(signbit(nb_elem_value(&e, 0x80)));
    assert_true(isnan(nb_elem_value(&e, 0x7f)) && isnan(nb_elem_value(&e, 0xff)));
}

/* E5M2 is the upper byte of an f16. */
static void e5m2_is_half_an_f16(void **state)
{
    (void)state;
    const struct nb_elem e = {.kind = NB_ELEM_FLOAT, .bits = 8, .exp = 5, .man = 2, .vec = 1};
    for (unsigned c = 0; c < 256; c++) {
        float want = nb_f16_to_f32((uint16_t)(c << 8)), got = nb_elem_value(&e, c);
        if (isnan(want)) assert_true(isnan(got));
        else assert_memory_equal(&got, &want, sizeof got);
    }
}

/* The formats of OCP MX, finite in every code. */
static void four_and_six_bit_floats(void **state)
{
    (void)state;
    static const float e2m1[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    const struct nb_elem e = {.kind = NB_ELEM_FLOAT, .bits = 4, .exp = 2, .man = 1, .vec = 1};
    for (unsigned c = 0; c < 8; c++) {
        assert_true(nb_elem_value(&e, c) == e2m1[c]);
        assert_true(nb_elem_value(&e, c | 8) == -e2m1[c]);
    }
    const struct nb_elem e2m3 = {.kind = NB_ELEM_FLOAT, .bits = 6, .exp = 2, .man = 3, .vec = 1};
    const struct nb_elem e3m2 = {.kind = NB_ELEM_FLOAT, .bits = 6, .exp = 3, .man = 2, .vec = 1};
    assert_true(nb_elem_value(&e2m3, 0x1f) == 7.5f && nb_elem_value(&e2m3, 1) == 0.125f);
    assert_true(nb_elem_value(&e3m2, 0x1f) == 28.0f && nb_elem_value(&e3m2, 1) == 0.0625f);
}

static void float_matrix(void **state)
{
    (void)state;
    struct nb_qspec spec = int_spec(8, 16, NB_ZERO_NONE);
    spec.elem = (struct nb_elem){.kind = NB_ELEM_FLOAT, .bits = 8, .exp = 4, .man = 3, .vec = 1};
    spec.group_rows = 2;
    struct nb_qmat q;
    make(&q, &spec, 4, 32);
    fill(&q, 6);
    for (int i = 0; i < 4 * 32; i++) {
        if ((q.codes[i] & 0x7f) == 0x7f) q.codes[i] = 0;
    }
    check_against_formula(&q);
}

/* ---- refusals, sizes, names ---- */

static void refused(const struct nb_qspec *spec, int64_t rows, int64_t cols, int status)
{
    struct nb_qmat q;
    struct nb_err err;
    assert_int_equal(nb_qmat_init(&q, spec, rows, cols, &arena, &err), status);
    assert_true(strlen(err.text) > 10);
}

static void impossible_matrices_are_refused(void **state)
{
    (void)state;
    struct nb_qspec spec = int_spec(4, 128, NB_ZERO_CODE);
    refused(&spec, 0, 8, NB_E_SPEC);
    refused(&spec, 8, -1, NB_E_SPEC);
    spec.elem.bits = 0;
    refused(&spec, 8, 8, NB_E_SPEC);
    spec.elem.bits = 9;
    refused(&spec, 8, 8, NB_E_SPEC);
    spec.elem.bits = 4;
    spec.elem.vec = 8;
    refused(&spec, 8, 8, NB_E_SPEC);
    spec.elem = (struct nb_elem){.kind = NB_ELEM_TABLE, .bits = 4, .vec = 1};
    refused(&spec, 8, 8, NB_E_SPEC);
    spec.elem = (struct nb_elem){.kind = NB_ELEM_FLOAT, .bits = 8, .exp = 4, .man = 4, .vec = 1};
    refused(&spec, 8, 8, NB_E_SPEC);
    spec = int_spec(4, 1, NB_ZERO_CODE);
    refused(&spec, INT64_MAX, INT64_MAX, NB_E_NOMEM);
    refused(&spec, INT64_MAX, 2, NB_E_NOMEM);
}

static void bits_per_weight(void **state)
{
    (void)state;
    struct nb_qspec s = int_spec(4, 128, NB_ZERO_CODE);
    assert_float_equal(nb_qspec_bits_per_weight(&s, 512, 1024), 4 + 20.0 / 128, 1e-12);
    s.zero = NB_ZERO_NONE;
    assert_float_equal(nb_qspec_bits_per_weight(&s, 512, 1024), 4.125, 1e-12);
    s.zero = NB_ZERO_MIN;
    s.scale_dtype = NB_F32;
    assert_float_equal(nb_qspec_bits_per_weight(&s, 512, 1024), 4.5, 1e-12);
    s = int_spec(8, -1, NB_ZERO_NONE);
    assert_float_equal(nb_qspec_bits_per_weight(&s, 512, 1024), 8 + 16.0 / 1024, 1e-12);
    s.group_rows = 128;
    s.group_cols = 128;
    assert_float_equal(nb_qspec_bits_per_weight(&s, 512, 1024), 8 + 16.0 / 128 / 128, 1e-12);
    s.group_rows = INT64_MAX; /* one scale for all */
    s.group_cols = INT64_MAX;
    assert_float_equal(nb_qspec_bits_per_weight(&s, 10, 10), 8.16, 1e-12);
    s = int_spec(4, 64, NB_ZERO_NONE); /* 96 columns need two groups, not one and a half */
    assert_float_equal(nb_qspec_bits_per_weight(&s, 10, 96), 4 + 2 * 16.0 / 96, 1e-12);
}

/* Two levels: values follow from codes and super-scales, per row, the last super-scale short of groups. */
static void two_levels(void **state)
{
    (void)state;
    struct nb_qspec spec = int_spec(4, 2, NB_ZERO_MIN);
    spec.super_groups = 3;
    spec.scale_bits = 6;
    spec.scale_zero = 32;
    struct nb_qmat q;
    float out[8];
    make(&q, &spec, 2, 8); /* 4 groups under 2 super-scales */
    assert_int_equal(q.n_groups, 4);
    assert_int_equal(q.n_supers, 2);
    for (int i = 0; i < 16; i++) q.codes[i] = (uint8_t)i;
    for (int i = 0; i < 8; i++) {
        q.scale.codes[i] = (uint8_t)(30 + i);
        q.zero.codes[i] = (uint8_t)i;
    }
    for (int i = 0; i < 4; i++) {
        q.scale.super[i] = (float)(i + 1);
        q.zero.super[i] = 0.5f;
    }
    nb_qmat_fill_values(&q, 0);
    assert_true(q.scale.value[4] == 0); /* the other row is left alone */
    nb_qmat_fill_values(&q, 1);
    static const float scale[8] = {-2, -1, 0, 2, 6, 9, 12, 20};
    assert_memory_equal(q.scale.value, scale, sizeof scale);
    for (int i = 0; i < 8; i++) assert_true(q.zero.value[i] == 0.5f * (float)i);
    nb_qmat_dequant_row(&q, 1, out);
    static const float want[8] = {6 * 8 - 2,      6 * 9 - 2,      9 * 10 - 2.5f,  9 * 11 - 2.5f,
                                  12 * 12 - 3.0f, 12 * 13 - 3.0f, 20 * 14 - 3.5f, 20 * 15 - 3.5f};
    assert_memory_equal(out, want, sizeof want);
    q.scale.offset = 0.25f;
    nb_qmat_fill_values(&q, 1);
    assert_true(q.scale.value[4] == 6.25f);

    spec.zero = NB_ZERO_CODE; /* a code is no scale: it has one level */
    make(&q, &spec, 2, 8);
    assert_null(q.zero.codes);
    assert_null(q.zero.super);
    assert_non_null(q.zero.value);
    spec.super_groups = 0;
    make(&q, &spec, 2, 8);
    assert_null(q.scale.codes);
    assert_null(q.scale.super);
    assert_int_equal(q.n_supers, 0);
}

static void descriptions(void **state)
{
    (void)state;
    char text[64];
    struct nb_qspec s = int_spec(4, 128, NB_ZERO_CODE);
    nb_qspec_describe(&s, text, sizeof text);
    assert_string_equal(text, "int4 asym g128");
    s.symmetric = true;
    s.group_cols = -1;
    nb_qspec_describe(&s, text, sizeof text);
    assert_string_equal(text, "int4 sym per channel");
    s.elem = (struct nb_elem){.kind = NB_ELEM_TABLE, .bits = 4};
    s.group_cols = 64;
    nb_qspec_describe(&s, text, sizeof text);
    assert_string_equal(text, "table4 g64");
    s.elem = (struct nb_elem){.kind = NB_ELEM_FLOAT, .bits = 8, .exp = 4, .man = 3};
    nb_qspec_describe(&s, text, 7);
    assert_string_equal(text, "e4m3 g");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(published_group, setup, teardown),
        cmocka_unit_test_setup_teardown(published_act_order, setup, teardown),
        cmocka_unit_test_setup_teardown(every_width_zero_and_grouping, setup, teardown),
        cmocka_unit_test_setup_teardown(init_clears, setup, teardown),
        cmocka_unit_test_setup_teardown(table_elements, setup, teardown),
        cmocka_unit_test(e4m3_is_the_published_table),
        cmocka_unit_test(e5m2_is_half_an_f16),
        cmocka_unit_test(four_and_six_bit_floats),
        cmocka_unit_test_setup_teardown(float_matrix, setup, teardown),
        cmocka_unit_test_setup_teardown(impossible_matrices_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(two_levels, setup, teardown),
        cmocka_unit_test(bits_per_weight),
        cmocka_unit_test(descriptions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
