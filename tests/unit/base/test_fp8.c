/* SPDX-License-Identifier: Apache-2.0
 *
 * test_fp8.c - E4M3 as the formats document has it (section 0.1), code by code, and E8M0. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/fp8.h"
#include "base/half.h"
#include "base/sha256.h"

static void test_published_codes(void **state)
{
    (void)state;
    static const struct {
        float x;
        uint8_t code;
        float value;
    } rows[] = {
        {0.0f, 0x00, 0},        {0.0009765625f, 0x00, 0}, {0.001f, 0x01, 0.001953125f},
        {1.0f, 0x38, 1},        {1.0625f, 0x38, 1},       {1.1f, 0x39, 1.125f},
        {1.1875f, 0x3A, 1.25f}, {3.3f, 0x45, 3.25f},      {-0.3f, 0xAA, -0.3125f},
        {240, 0x77, 240},       {447, 0x7E, 448},         {448, 0x7E, 448},
        {464, 0x7E, 448},       {1e30f, 0x7E, 448},       {-INFINITY, 0xFE, -448},
        {-1e-9f, 0x80, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(nb_f32_to_e4m3(rows[i].x), rows[i].code);
        assert_true(nb_e4m3_to_f32(rows[i].code) == rows[i].value);
    }
    assert_int_equal(nb_f32_to_e4m3(NAN) & 0x7f, 0x7f);
    assert_true(isnan(nb_e4m3_to_f32(0x7f)) && isnan(nb_e4m3_to_f32(0xff)));
    assert_true(signbit(nb_e4m3_to_f32(0x80)));
}

static void test_published_hashes(void **state)
{
    (void)state;
    static uint8_t code[0x7c00];
    static float value[0x7f];
    char hex[NB_SHA256_HEX];
    unsigned top = 0;
    for (unsigned h = 0; h < sizeof code; h++) {
        code[h] = nb_f32_to_e4m3(nb_f16_to_f32((uint16_t)h));
        top += code[h] == 0x7e;
    }
    assert_int_equal(top, 7488);
    nb_sha256_bytes(code, sizeof code, hex);
    assert_string_equal(hex, "0891de7e3f9663b97b02d37b1cc9f2aef07cfc4bdf07e3b1972370186e1d31e5");
    for (unsigned c = 0; c < 0x7f; c++) value[c] = nb_e4m3_to_f32((uint8_t)c);
    nb_sha256_bytes(value, sizeof value, hex);
    assert_string_equal(hex, "26f33c1660cc3116e9e345c2b9215b026a3eb47a8a015eaf5b48154258466610");
}

static void test_codes_come_back(void **state)
{
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        if ((c & 0x7f) != 0x7f) assert_int_equal(nb_f32_to_e4m3(nb_e4m3_to_f32((uint8_t)c)), c);
        if (c != 255) assert_int_equal(nb_f32_to_e8m0(nb_e8m0_to_f32((uint8_t)c)), c);
    }
    assert_true(isnan(nb_e8m0_to_f32(255)));
    assert_true(nb_e8m0_to_f32(127) == 1.0f && nb_e8m0_to_f32(0) == 0x1p-127f);
    assert_int_equal(nb_f32_to_e8m0(0.0f), 0);
    assert_int_equal(nb_f32_to_e8m0(1.499f), 127);
    assert_int_equal(nb_f32_to_e8m0(1.5f), 128);
    assert_int_equal(nb_f32_to_e8m0(INFINITY), 254);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_codes),
        cmocka_unit_test(test_published_hashes),
        cmocka_unit_test(test_codes_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
