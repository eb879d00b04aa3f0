/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "checkpoint/bitpack.h"

static void check_words(int bits, const uint8_t *codes, size_t n, const uint32_t *want)
{
    uint32_t words[8];
    uint8_t back[64];
    nb_bits_pack(words, 1, codes, bits, n);
    assert_memory_equal(words, want, 4 * nb_bits_words(n, bits));
    nb_bits_unpack(back, words, 1, bits, n);
    assert_memory_equal(back, codes, n);
}

/* Formats document, section 2.9. */
static void test_worked_examples(void **state)
{
    (void)state;
    static const uint8_t two[] = {0, 1, 0, 2, 1, 2, 2, 3, 2, 0, 3, 0, 0, 1, 0, 2},
                         four[] = {0, 1, 2, 3, 4, 5, 6, 7};
    static const uint8_t eight[] = {1, 128, 255, 16};
    check_words(2, two, 16, (const uint32_t[]){0x8432E984});
    check_words(4, four, 8, (const uint32_t[]){0x76543210});
    check_words(8, eight, 4, (const uint32_t[]){0x10FF8001});
    uint8_t three[32];
    for (int i = 0; i < 32; i++) three[i] = (uint8_t)((5 * i + 2) % 8);
    check_words(3, three, 32, (const uint32_t[]){0x3AA1E33A, 0xE33AA1E3, 0xA1E33AA1});
}

/* Against the definition: bit p of the stream is bit p%32 of word p/32. */
static void test_definition(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 7);
    for (int bits = 1; bits <= 8; bits++) {
        for (size_t n = 1; n <= 101; n++) {
            size_t n_words = nb_bits_words(n, bits), stride = 1 + n % 3;
            assert_int_equal(n_words, (n * (size_t)bits + 31) / 32);
            uint8_t *codes = malloc(n), *back = malloc(n);
            /* one byte more, so that words can stand at odd addresses; exact, so that a sanitizer sees more */
            unsigned char *file = malloc(4 * ((n_words - 1) * stride + 1) + 1);
            uint32_t *words = calloc((n_words - 1) * stride + 1, 4);
            assert_true(codes && back && file && words);
            for (size_t i = 0; i < n; i++) codes[i] = (uint8_t)nb_rng_below(&rng, 1u << bits);
            nb_bits_pack(words, stride, codes, bits, n);
            for (size_t p = 0; p < 32 * n_words; p++) {
                unsigned bit = words[p / 32 * stride] >> p % 32 & 1;
                size_t i = p / (size_t)bits;
                unsigned want = i < n ? codes[i] >> p % (size_t)bits & 1u : 0;
                assert_int_equal(bit, want);
            }
            for (size_t i = 0; i < (n_words - 1) * stride; i++) {
                if (i % stride) assert_int_equal(words[i], 0);
            }
            memcpy(file + 1, words, 4 * ((n_words - 1) * stride + 1));
            nb_bits_unpack(back, file + 1, stride, bits, n);
            assert_memory_equal(back, codes, n);
            free(codes);
            free(back);
            free(file);
            free(words);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked_examples),
        cmocka_unit_test(test_definition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
