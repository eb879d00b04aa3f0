/* SPDX-License-Identifier: Apache-2.0
 *
 * test_rng.c - fixed values, because a seed a user wrote down must mean the same for ever. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/rng.h"

/* Published values of SplitMix64: for seed 1234567 (Rosetta Code, "Pseudo-random numbers/Splitmix64"),
 * for seed 0 (the reference implementation by Vigna, splitmix64.c). */
static void known_sequences(void **state)
{
    (void)state;
    static const uint64_t a[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                 4593380528125082431u, 16408922859458223821u};
    static const uint64_t b[] = {0xe220a8397b1dcdafu, 0x6e789e6aa1b965f4u, 0x06c45d188009454fu};
    struct nb_rng r;
    nb_rng_init(&r, 1234567);
    for (int i = 0; i < 5; i++) assert_true(nb_rng_next(&r) == a[i]);
    nb_rng_init(&r, 0);
    for (int i = 0; i < 3; i++) assert_true(nb_rng_next(&r) == b[i]);
}

/* The same raw values, worked out by hand: value mod n (none of them is in the rejected tail), and the
 * upper 53 bits as a fraction. */
static void derived_values(void **state)
{
    (void)state;
    struct nb_rng r;
    nb_rng_init(&r, 1234567);
    assert_int_equal(nb_rng_below(&r, 1000), 317);
    assert_int_equal(nb_rng_below(&r, 1000), 973);
    assert_int_equal(nb_rng_below(&r, 10), 3);
    assert_int_equal(nb_rng_below(&r, 1), 0);
    nb_rng_init(&r, 0);
    assert_true(nb_rng_uniform(&r) == (double)(0xe220a8397b1dcdafu >> 11) / 9007199254740992.0);
    assert_true(nb_rng_uniform(&r) == (double)(0x6e789e6aa1b965f4u >> 11) / 9007199254740992.0);
    nb_rng_init(&r, 0);
    double u = 1.0 - (double)(0xe220a8397b1dcdafu >> 11) / 9007199254740992.0;
    double v = (double)(0x6e789e6aa1b965f4u >> 11) / 9007199254740992.0;
    assert_true(fabs(nb_rng_normal(&r) - sqrt(-2 * log(u)) * cos(2 * acos(-1.0) * v)) < 1e-12);
}

/* Just over half of the range: with a plain remainder the lower half would come twice as often. */
static void no_modulo_bias(void **state)
{
    (void)state;
    struct nb_rng r;
    nb_rng_init(&r, 3);
    const uint64_t n = 0xc000000000000000u; /* 3/4 of 2^64 */
    int low = 0;
    for (int i = 0; i < 30000; i++) {
        uint64_t v = nb_rng_below(&r, n);
        assert_true(v < n);
        low += v < n / 3;
    }
    assert_in_range(low, 9600, 10400); /* 10000 expected, deviation 82; biased: 15000 */
}

static void spread_is_even(void **state)
{
    (void)state;
    struct nb_rng r;
    int bins[16] = {0};
    double sum = 0, squares = 0, mean = 0;
    enum { N = 160000 };
    nb_rng_init(&r, 42);
    for (int i = 0; i < N; i++) bins[nb_rng_below(&r, 16)]++;
    double chi2 = 0;
    for (int i = 0; i < 16; i++) chi2 += (bins[i] - N / 16.0) * (bins[i] - N / 16.0) / (N / 16.0);
    assert_true(chi2 > 2 && chi2 < 40); /* 15 degrees of freedom: 99.95 % below 40 */
    for (int i = 0; i < N; i++) {
        double u = nb_rng_uniform(&r);
        assert_true(u >= 0 && u < 1);
        mean += u / N;
    }
    assert_true(fabs(mean - 0.5) < 0.004);
    for (int i = 0; i < N; i++) {
        double x = nb_rng_normal(&r);
        assert_true(isfinite(x));
        sum += x;
        squares += x * x;
    }
    assert_true(fabs(sum / N) < 0.013);
    assert_true(fabs(squares / N - 1) < 0.018);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_sequences),
        cmocka_unit_test(derived_values),
        cmocka_unit_test(no_modulo_bias),
        cmocka_unit_test(spread_is_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
