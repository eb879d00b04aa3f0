/* SPDX-License-Identifier: Apache-2.0
 *
 * test_unicode.c - UTF-8 is checked as in Unicode's table 3-7; the byte alphabet is a bijection. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "text/unicode.h"

static void every_character_round_trips(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xd800 && c < 0xe000) continue;
        char s[5] = "";
        uint32_t back, before;
        size_t bad, n = nb_utf8_put(c, s);
        assert_true(nb_utf8_check(s, n, &bad));
        assert_int_equal(nb_utf8_length((unsigned char)s[0]), n);
        assert_int_equal(nb_utf8_next(s, &back), n);
        assert_int_equal(back, c);
        assert_int_equal(nb_utf8_previous(s, n, &before), n);
        assert_int_equal(before, c);
    }
}

static void bad_bytes_are_found(void **state)
{
    (void)state;
    static const struct {
        const char *s;
        size_t n, bad;
    } cases[] = {
        {"\x80", 1, 0},
        {"\xc0\x80", 2, 0},
        {"\xc1\xbf", 2, 0},
        {"\xe0\x9f\xbf", 3, 0},
        {"\xed\xa0\x80", 3, 0},
        {"\xf0\x8f\xbf\xbf", 4, 0},
        {"\xf4\x90\x80\x80", 4, 0},
        {"\xf5\x80\x80\x80", 4, 0},
        {"\xff", 1, 0},
        {"ab\xe4\xbd", 4, 2},
        {"\xc3\xa9\xc3", 3, 2},
        {"12345678\xfe", 9, 8},
        {"\xe4\xbd\x41", 3, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t bad = 99;
        assert_false(nb_utf8_check(cases[i].s, cases[i].n, &bad));
        assert_int_equal(bad, cases[i].bad);
    }
}

static void replaced_spans_are_maximal(void **state)
{
    (void)state;
    bool valid, more;
    assert_int_equal(nb_utf8_span((const unsigned char *)"\xe4\xbd\x41", 3, &valid, &more), 2);
    assert_true(!valid && !more);
    assert_int_equal(nb_utf8_span((const unsigned char *)"\xf0\x9f\x98", 3, &valid, &more), 3);
    assert_true(!valid && more);
    assert_int_equal(nb_utf8_span((const unsigned char *)"\xf0\x80", 2, &valid, &more), 1);
    assert_true(!valid && !more);
}

static void byte_alphabet_is_a_bijection(void **state)
{
    (void)state;
    for (int b = 0; b < 256; b++) {
        uint32_t c = nb_byte_to_char((unsigned char)b);
        assert_int_equal(nb_char_to_byte(c), b);
    }
    assert_int_equal(nb_byte_to_char(' '), 0x120);
    assert_int_equal(nb_byte_to_char('\n'), 0x10a);
    int n = 0;
    for (uint32_t c = 0; c < 0x110000; c++) n += nb_char_to_byte(c) >= 0;
    assert_int_equal(n, 256);
}

static void classes(void **state)
{
    (void)state;
    assert_true(nb_char_is_space(0x3000) && nb_char_is_space(0x85) && nb_char_is_space('\v'));
    assert_false(nb_char_is_space(0x180e) || nb_char_is_space(0x200b) || nb_char_is_space(0x1c));
    assert_true(nb_char_is_word('_') && nb_char_is_word(0x301) && nb_char_is_word(0x24b6));
    assert_false(nb_char_is_word('-') || nb_char_is_word(0xbd) || nb_char_is_word(' '));
    assert_true(nb_char_is_numeric(0xbd) && nb_char_is_numeric(0x2167) && nb_char_is_numeric('7'));
    assert_false(nb_char_is_numeric(0x4e00) || nb_char_is_numeric('x'));
    assert_true(nb_char_is_punct('$') && nb_char_is_punct(0x3002) && nb_char_is_punct('_'));
    assert_false(nb_char_is_punct(0x20ac) || nb_char_is_punct('a'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_character_round_trips),
        cmocka_unit_test(bad_bytes_are_found),
        cmocka_unit_test(replaced_spans_are_maximal),
        cmocka_unit_test(byte_alphabet_is_a_bijection),
        cmocka_unit_test(classes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
