/* SPDX-License-Identifier: Apache-2.0
 *
 * test_regex.c - what cannot be matched as written is refused by name; limits are errors, not
 * hangs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "text/regex.h"

static void refuses_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *construct;
    } cases[] = {
        {"a{2}+", "an interval followed by '+'"},
        {"a{2}?", "'{n}?'"},
        {"[a[bc]]", "a class inside a class"},
        {"[a&&b]", "'&&' inside brackets"},
        {"(a)\\1", "the escape '\\1'"},
        {"\\k<x>", "the escape '\\k'"},
        {"(?<x>a)", "this kind of group"},
        {"(?(1)a|b)", "this kind of group"},
        {"(*UTF)a", "'(*'"},
        {"a(?i)b", "an option in mid-pattern"},
        {"[\\W]", "\\W inside brackets"},
        {"\\pL", "\\p without braces"},
        {"\\p{L", "an unfinished property name"},
        {"\\xe9", "a raw byte"},
        {"\\x{d800}", "this code point"},
        {"\\u12", "an unfinished hexadecimal escape"},
        {"[abc", "an unfinished class"},
        {"[[:punct:]]", "this POSIX bracket"},
        {"abc\\", "a backslash at the end"},
        {"\\R", "the escape '\\R'"},
        {"\\G", "the escape '\\G'"},
        {"\\012", "the escape '\\0'"},
        {"\\p{Klingon}", "cannot be used"},
        {"(a", "cannot be used"},
        {"*", "cannot be used"},
        {"(?<=a+)b", "cannot be used"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err = {0};
        struct nb_regex *re;
        const char *p = cases[i].pattern;
        assert_int_equal(nb_regex_new(&re, p, strlen(p), false, "t.json", &err), NB_E_SPEC);
        assert_null(re);
        if (!strstr(err.text, cases[i].construct)) fail_msg("%s: %s", p, err.text);
        assert_non_null(strstr(err.text, "t.json: regex '"));
    }
    struct nb_err err = {0};
    struct nb_regex *re;
    assert_int_equal(nb_regex_new(&re, "", 0, true, "t.json", &err), NB_E_SPEC);
    assert_string_equal(err.text, "t.json: an empty pattern is not supported");
}

static void rewrites(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to;
    } cases[] = {
        {"a{,3}", "a{0,3}"},
        {"(a|b)", "(?:a|b)"},
        {"(?m:.)", "(?s:.)"},
        {"\\p{Han}", "\\p{sc:han}"},
        {"\\p{^lu}", "\\P{Lu}"},
        {"\\u00e9", "\\x{e9}"},
        {"[\\h-]", "[0-9a-fA-F\\-]"},
        {"x{", "x\\{"},
        {"[a-c-e]", "[a-c\\-e]"},
        {"\\v", "\\x{b}"},
        {"[]a]", "[\\]a]"},
        {"\\/\\-", "\\/\\-"},
        {"\\0", "\\x{0}"},
        {"[\\d-z]", "[\\p{Nd}\\-z]"},
        {"\\p{Letter}", "\\p{L}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err;
        struct nb_strbuf out;
        nb_strbuf_init(&out);
        const char *p = cases[i].from;
        assert_int_equal(nb_regex_translate(&out, p, strlen(p), "t", &err), 0);
        assert_string_equal(nb_strbuf_cstr(&out), cases[i].to);
        nb_strbuf_release(&out);
    }
}

static int count(const char *pattern, const char *s, size_t n, struct nb_err *err)
{
    struct nb_regex *re;
    if (nb_regex_new(&re, pattern, strlen(pattern), false, "t", err)) return -1000;
    struct nb_matcher *m = nb_matcher_new();
    struct nb_regex_iter it = {0};
    int rc, found = 0;
    while ((rc = nb_regex_next(re, m, s, n, &it, err)) > 0) found++;
    nb_matcher_free(m);
    nb_regex_free(re);
    return rc < 0 ? rc : found;
}

static void empty_matches_do_not_touch_others(void **state)
{
    (void)state;
    struct nb_err err;
    assert_int_equal(count("x*", "axxb", 4, &err), 3); /* before a, xx, at the end */
    assert_int_equal(count("x*", "", 0, &err), 1);
    assert_int_equal(count("x*", "\xe4\xbd\xa0", 3, &err), 2);
    assert_int_equal(count("x", "axxb", 4, &err), 2);
}

static void too_many_steps_are_an_error(void **state)
{
    (void)state;
    struct nb_err err;
    char s[64];
    memset(s, 'a', sizeof s);
    assert_int_equal(count("(?:a+a?)+$|(?:(?:a|aa)+)+b", s, sizeof s - 1, &err), 1);
    s[sizeof s - 1] = '!';
    assert_int_equal(count("(?:(?:a|aa)+)+b(?<!a)", s, sizeof s, &err),
                     0); /* no b anywhere: seen at once */
    assert_int_equal(count("(?:(?:a|a)+)+[!b]x|(?:(?:a|a)+)+[!b]y", s, sizeof s, &err),
                     NB_E_FORMAT);
    assert_non_null(strstr(err.text, "needs too many steps at byte 0"));
}

static void long_repeats_do_not_exhaust_the_stack(void **state)
{
    (void)state;
    struct nb_err err;
    size_t n = 1 << 18;
    char *s = malloc(n);
    assert_non_null(s);
    for (size_t i = 0; i < n; i++) s[i] = "ab"[i % 2];
    assert_int_equal(count("(?:a|b)+", s, n, &err), 1);
    assert_int_equal(count("(?:a(?=b)|b)+", s, n, &err), 1);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_by_name),
        cmocka_unit_test(rewrites),
        cmocka_unit_test(empty_matches_do_not_touch_others),
        cmocka_unit_test(too_many_steps_are_an_error),
        cmocka_unit_test(long_repeats_do_not_exhaust_the_stack),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
