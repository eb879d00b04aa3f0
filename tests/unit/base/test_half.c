/* SPDX-License-Identifier: Apache-2.0
 *
 * test_half.c - every 16-bit pattern, and rounding against a slow one that counts in doubles. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/rng.h"

struct format {
    int man_bits, min_exp; /* mantissa bits stored; exponent of the smallest normal number */
    double overflow;       /* this and more becomes infinity: largest finite + half a step */
    uint16_t infinity, quiet;
    uint16_t (*from_f32)(float);
    float (*to_f32)(uint16_t);
};

static uint16_t f16_from(float x)
{
    return nb_f32_to_f16(x);
}

static float f16_to(uint16_t h)
{
    return nb_f16_to_f32(h);
}

static uint16_t bf16_from(float x)
{
    return nb_f32_to_bf16(x);
}

static float bf16_to(uint16_t h)
{
    return nb_bf16_to_f32(h);
}

static const struct format formats[] = {
    {10, -14, 65520.0, 0x7c00, 0x0200, f16_from, f16_to},
    {7, -126, 0x1.ffp127, 0x7f80, 0x0040, bf16_from, bf16_to},
};

/* Independent of bit tricks: x in steps of the format, rounded to even by hand. Not for NaN. */
static uint16_t slow(const struct format *f, float x)
{
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    double a = fabs((double)x);
    if (a >= f->overflow) return (uint16_t)(sign | f->infinity);
    if (a == 0) return sign;
    int exponent;
    frexp(a, &exponent);
    exponent -= 1; /* a = 1.m * 2^exponent */
    if (exponent < f->min_exp) exponent = f->min_exp;
    double step = ldexp(1.0, exponent - f->man_bits), steps = a / step;
    double low = floor(steps), rest = steps - low;
    if (rest > 0.5 || (rest == 0.5 && fmod(low, 2) == 1)) low += 1;
    /* low counts steps from 0 inside this binade; each binade below holds 2^man_bits codes */
    double code = low + (double)(exponent - f->min_exp) * ldexp(1.0, f->man_bits);
    return (uint16_t)(sign | (uint16_t)code);
}

static void agree(const struct format *f, float x)
{
    uint16_t got = f->from_f32(x), want = slow(f, x);
    if (got != want) fail_msg("%a: got %04x, expected %04x", (double)x, got, want);
}

static void every_pattern_comes_back(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const struct format *f = &formats[k];
        for (uint32_t h = 0; h < 0x10000; h++) {
            uint16_t pattern = (uint16_t)h;
            bool nan = (pattern & 0x7fff) > f->infinity;
            float x = f->to_f32(pattern);
            assert_int_equal(isnan(x) != 0, nan);
            uint16_t expected = nan ? (uint16_t)(pattern | f->quiet) : pattern;
            assert_int_equal(f->from_f32(x), expected);
        }
    }
}

/* What a pattern means, from the definition of the format. */
static void every_pattern_has_its_value(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const struct format *f = &formats[k];
        for (uint32_t h = 0; h < f->infinity; h++) {
            int e = (int)(h >> f->man_bits);
            double m = (double)(h & ((1u << f->man_bits) - 1)) / ldexp(1.0, f->man_bits);
            double v = e ? ldexp(1 + m, e - 1 + f->min_exp) : ldexp(m, f->min_exp);
            assert_true((double)f->to_f32((uint16_t)h) == v);
            assert_true((double)f->to_f32((uint16_t)(h | 0x8000)) == -v);
        }
        assert_true(f->to_f32(f->infinity) == INFINITY);
        assert_true(f->to_f32((uint16_t)(f->infinity | 0x8000)) == -INFINITY);
    }
}

/* Halfway between each two neighbours, and the floats on both sides of it. */
static void every_tie(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        const struct format *f = &formats[k];
        for (uint32_t h = 0; h + 1 < f->infinity; h++) {
            double low = (double)f->to_f32((uint16_t)h),
                   high = (double)f->to_f32((uint16_t)(h + 1));
            float middle = (float)((low + high) / 2);
            assert_true((double)middle == (low + high) / 2);
            uint16_t even = (uint16_t)(h % 2 ? h + 1 : h);
            assert_int_equal(f->from_f32(middle), even);
            assert_int_equal(f->from_f32(-middle), even | 0x8000);
            assert_int_equal(f->from_f32(nextafterf(middle, 0)), h);
            assert_int_equal(f->from_f32(nextafterf(middle, INFINITY)), h + 1);
            agree(f, middle); /* the slow one is held to the same */
        }
    }
}

static void random_floats(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 7);
    for (int i = 0; i < 500000; i++) {
        uint64_t bits = nb_rng_next(&rng);
        float any = nb_f32_from_bits((uint32_t)bits);
        if (!isnan(any)) {
            agree(&formats[0], any);
            agree(&formats[1], any);
        }
        /* magnitudes around what f16 can hold: 2^-27 .. 2^17 */
        uint32_t e = 100 + (uint32_t)(bits >> 32) % 45;
        agree(&formats[0], nb_f32_from_bits(((uint32_t)bits & 0x807fffffu) | e << 23));
    }
}

static void borders(void **state)
{
    (void)state;
    assert_int_equal(nb_f32_to_f16(65504.0f), 0x7bff);
    assert_int_equal(nb_f32_to_f16(65519.99f), 0x7bff);
    assert_int_equal(nb_f32_to_f16(nextafterf(65520.0f, 0)), 0x7bff);
    assert_int_equal(nb_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(nb_f32_to_f16(-65520.0f), 0xfc00);
    assert_int_equal(nb_f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(nb_f32_to_f16(0x1p-24f), 0x0001);
    assert_int_equal(nb_f32_to_f16(0x1p-25f), 0x0000); /* tie to even */
    assert_int_equal(nb_f32_to_f16(0x1.000002p-25f), 0x0001);
    assert_int_equal(nb_f32_to_f16(0x1.8p-24f), 0x0002);
    assert_int_equal(nb_f32_to_f16(0x1.ffep-15f), 0x0400); /* carries into the normal numbers */
    assert_int_equal(nb_f32_to_f16(0x1p-149f), 0x0000);
    assert_int_equal(nb_f32_to_f16(-0x1p-149f), 0x8000);
    assert_int_equal(nb_f32_to_f16(-0.0f), 0x8000);
    assert_int_equal(nb_f32_to_bf16(nb_f32_from_bits(0x7f7f7fffu)), 0x7f7f);
    assert_int_equal(nb_f32_to_bf16(nb_f32_from_bits(0x7f7f8000u)), 0x7f80);
    assert_int_equal(nb_f32_to_bf16(nb_f32_from_bits(0x00008000u)), 0x0000); /* tie to even */
    assert_int_equal(nb_f32_to_bf16(nb_f32_from_bits(0x00018000u)), 0x0002);
}

/* NaN stays NaN, with its sign, even when its payload sits in the bits that are cut off. */
static void nan_stays_nan(void **state)
{
    (void)state;
    static const uint32_t patterns[] = {0x7f800001u, 0x7f801fffu, 0x7fc00000u, 0x7fffffffu,
                                        0x7fa00000u};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        for (uint32_t sign = 0; sign < 2; sign++) {
            uint32_t u = patterns[i] | sign << 31;
            uint16_t a = nb_f32_to_f16(nb_f32_from_bits(u)),
                     b = nb_f32_to_bf16(nb_f32_from_bits(u));
            assert_true((a & 0x7fff) > 0x7c00 && (a & 0x0200));
            assert_true((b & 0x7fff) > 0x7f80 && (b & 0x0040));
            assert_int_equal(a >> 15, sign);
            assert_int_equal(b >> 15, sign);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pattern_comes_back),
        cmocka_unit_test(every_pattern_has_its_value),
        cmocka_unit_test(every_tie),
        cmocka_unit_test(random_floats),
        cmocka_unit_test(borders),
        cmocka_unit_test(nan_stays_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
