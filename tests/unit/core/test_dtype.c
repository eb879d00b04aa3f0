/* SPDX-License-Identifier: Apache-2.0
 *
 * test_dtype.c - names and widths of the file format; conversions from and to any address. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/dtype.h"
#include "core/tensor.h"

/* The list of checkpoint formats, section 1.2, typed again: order, name, bits. */
static const struct {
    enum nb_dtype type;
    const char *name;
    int bits;
} all[] = {
    {NB_BOOL, "BOOL", 8},
    {NB_F4, "F4", 4},
    {NB_F6_E2M3, "F6_E2M3", 6},
    {NB_F6_E3M2, "F6_E3M2", 6},
    {NB_U8, "U8", 8},
    {NB_I8, "I8", 8},
    {NB_F8_E5M2, "F8_E5M2", 8},
    {NB_F8_E4M3, "F8_E4M3", 8},
    {NB_F8_E8M0, "F8_E8M0", 8},
    {NB_F8_E4M3FNUZ, "F8_E4M3FNUZ", 8},
    {NB_F8_E5M2FNUZ, "F8_E5M2FNUZ", 8},
    {NB_I16, "I16", 16},
    {NB_U16, "U16", 16},
    {NB_F16, "F16", 16},
    {NB_BF16, "BF16", 16},
    {NB_I32, "I32", 32},
    {NB_U32, "U32", 32},
    {NB_F32, "F32", 32},
    {NB_C64, "C64", 64},
    {NB_F64, "F64", 64},
    {NB_I64, "I64", 64},
    {NB_U64, "U64", 64},
};

static void names_and_bits(void **state)
{
    (void)state;
    assert_int_equal(sizeof all / sizeof *all, NB_DTYPE_COUNT);
    for (int i = 0; i < NB_DTYPE_COUNT; i++) {
        enum nb_dtype t;
        assert_int_equal(all[i].type, i);
        assert_string_equal(nb_dtype_name(all[i].type), all[i].name);
        assert_int_equal(nb_dtype_bits(all[i].type), all[i].bits);
        assert_true(nb_dtype_parse(all[i].name, &t));
        assert_int_equal(t, i);
        bool weight = t == NB_F16 || t == NB_BF16 || t == NB_F32;
        assert_int_equal(nb_dtype_is_weight(t), weight);
    }
    enum nb_dtype t = NB_I8;
    static const char *const wrong[] = {"", "f16", "F16 ", "F", "FP16", "Q4_K"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(nb_dtype_parse(wrong[i], &t));
    assert_int_equal(t, NB_I8);
}

static const float exact[] = {0.0f, -0.0f, 1.0f, -2.5f, 0.15625f, 448.0f, -65504.0f, 0x1p-14f};
enum { N = sizeof exact / sizeof *exact };

/* Both ends at every offset from alignment: files promise none. */
static void conversions_need_no_alignment(void **state)
{
    (void)state;
    static const enum nb_dtype types[] = {NB_F16, NB_BF16, NB_F32};
    unsigned char raw[4 * N + 8];
    float back[N];
    for (size_t k = 0; k < 3; k++) {
        for (size_t shift = 0; shift < 8; shift++) {
            size_t bytes = N * (size_t)nb_dtype_bits(types[k]) / 8;
            memset(raw, 0xee, sizeof raw);
            assert_true(nb_from_f32(raw + shift, exact, types[k], N));
            assert_int_equal(raw[shift + bytes], 0xee); /* not a byte too many */
            assert_true(nb_to_f32(back, raw + shift, types[k], N));
            for (size_t i = 0; i < N; i++) {
                float want = nb_round_to(exact[i], types[k]);
                assert_memory_equal(&back[i], &want, sizeof want);
            }
        }
    }
}

static void known_bytes(void **state)
{
    (void)state;
    static const float x[] = {1.5f, -2.0f};
    unsigned char raw[8];
    assert_true(nb_from_f32(raw, x, NB_BF16, 2));
    assert_memory_equal(raw, "\xc0\x3f\x00\xc0", 4); /* checkpoint formats, section 1.4 */
    assert_true(nb_from_f32(raw, x, NB_F16, 2));
    assert_memory_equal(raw, "\x00\x3e\x00\xc0", 4);
    assert_true(nb_from_f32(raw, x, NB_F32, 2));
    assert_memory_equal(raw, "\x00\x00\xc0\x3f\x00\x00\x00\xc0", 8);
}

static void doubles_are_rounded(void **state)
{
    (void)state;
    const double d[] = {1.0 / 3.0, 1e300, -0.0, 16777217.0};
    unsigned char raw[sizeof d + 1];
    float out[4];
    memcpy(raw + 1, d, sizeof d);
    assert_true(nb_to_f32(out, raw + 1, NB_F64, 4));
    assert_true(out[0] == 0x1.555556p-2f && out[1] == INFINITY && signbit(out[2]) &&
                out[3] == 16777216.0f);
}

static void other_types_are_refused(void **state)
{
    (void)state;
    float x = 3.0f;
    unsigned char raw[16] = {0};
    for (int t = 0; t < NB_DTYPE_COUNT; t++) {
        bool reads = nb_dtype_is_weight((enum nb_dtype)t) || t == NB_F64 || t == NB_F8_E4M3 ||
                     t == NB_F8_E8M0;
        assert_int_equal(nb_to_f32(&x, raw, (enum nb_dtype)t, 1), reads);
        assert_int_equal(nb_from_f32(raw, &x, (enum nb_dtype)t, 1),
                         nb_dtype_is_weight((enum nb_dtype)t));
    }
    assert_true(nb_to_f32(NULL, NULL, NB_F32, 0));
    assert_true(nb_from_f32(NULL, NULL, NB_F16, 0));
}

static void rounding_to_a_type(void **state)
{
    (void)state;
    assert_true(nb_round_to(0.1f, NB_F32) == 0.1f);
    assert_true(nb_round_to(0.1f, NB_F16) == 0x1.998p-4f);
    assert_true(nb_round_to(0.1f, NB_BF16) == 0x1.9ap-4f);
    assert_true(nb_round_to(70000.0f, NB_F16) == INFINITY);
    assert_true(isnan(nb_round_to(NAN, NB_BF16)));
}

static void tensor_count(void **state)
{
    (void)state;
    struct nb_tensor t = {.rank = 0};
    assert_int_equal(nb_tensor_count(&t), 1);
    t = (struct nb_tensor){.rank = 3, .shape = {2, 3, 5}};
    assert_int_equal(nb_tensor_count(&t), 30);
    t.shape[1] = 0;
    assert_int_equal(nb_tensor_count(&t), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_and_bits),
        cmocka_unit_test(conversions_need_no_alignment),
        cmocka_unit_test(known_bytes),
        cmocka_unit_test(doubles_are_rounded),
        cmocka_unit_test(other_types_are_refused),
        cmocka_unit_test(rounding_to_a_type),
        cmocka_unit_test(tensor_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
