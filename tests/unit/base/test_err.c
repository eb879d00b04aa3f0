/* SPDX-License-Identifier: Apache-2.0
 *
 * test_err.c - an error text is one clean line, whatever went into it, and keeps the facts. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"

static void fail_fills_everything(void **state)
{
    (void)state;
    struct nb_err err = {.hint = "old"};
    assert_int_equal(nb_fail(&err, NB_E_FORMAT, "%s: has %d bytes", "x", 7), NB_E_FORMAT);
    assert_int_equal(err.status, NB_E_FORMAT);
    assert_string_equal(err.text, "x: has 7 bytes");
    assert_string_equal(err.hint, "");
}

static void null_err_is_fine(void **state)
{
    (void)state;
    assert_int_equal(nb_fail(NULL, NB_E_NOMEM, "x"), NB_E_NOMEM);
    errno = ENOSPC;
    assert_int_equal(nb_fail_errno(NULL, "x"), NB_E_NOSPACE);
    assert_int_equal(nb_err_prefix(NULL, "x"), NB_E_FAIL);
    assert_int_equal(nb_err_hint(NULL, "x"), NB_E_FAIL);
}

static void errno_chooses_the_status(void **state)
{
    (void)state;
    static const struct {
        int code, status;
    } cases[] = {{ENOSPC, NB_E_NOSPACE},  {EDQUOT, NB_E_NOSPACE}, {ENOMEM, NB_E_NOMEM},
                 {ENOENT, NB_E_NOTFOUND}, {EACCES, NB_E_IO},      {EIO, NB_E_IO}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err;
        errno = cases[i].code;
        assert_int_equal(nb_fail_errno(&err, "f: cannot write"), cases[i].status);
        char expected[160];
        snprintf(expected, sizeof expected, "f: cannot write: %s", strerror(cases[i].code));
        assert_string_equal(err.text, expected);
    }
}

/* A path of any length leaves room for the reason. */
static void long_head_keeps_the_reason(void **state)
{
    (void)state;
    struct nb_err err;
    char path[2000];
    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = '\0';
    errno = EACCES;
    nb_fail_errno(&err, "%s: cannot open", path);
    const char *end = strstr(err.text, ": Permission denied");
    assert_non_null(end);
    assert_int_equal(strlen(end), strlen(": Permission denied"));
}

static void text_is_cut_at_its_size(void **state)
{
    (void)state;
    struct nb_err err;
    char big[2000];
    memset(big, 'b', sizeof big);
    big[sizeof big - 1] = '\0';
    nb_fail(&err, NB_E_FAIL, "%s", big);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    nb_err_hint(&err, "%s", big);
    assert_int_equal(strlen(err.hint), sizeof err.hint - 1);
}

static void control_characters_become_spaces(void **state)
{
    (void)state;
    struct nb_err err;
    nb_fail(&err, NB_E_FORMAT,
            "a\nb\r\tc\x1b[31md\x7f\xc2\x9b"
            "e");
    assert_string_equal(err.text, "a b  c [31md   e");
    nb_err_hint(&err, "x\ny");
    assert_string_equal(err.hint, "x y");
    nb_err_prefix(&err, "p\nq");
    assert_string_equal(err.text, "p q: a b  c [31md   e");
}

static void broken_utf8_becomes_question_marks(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},                       /* valid, two bytes */
        {"\xe2\x82\xac \xf0\x9f\x98\x80", "\xe2\x82\xac \xf0\x9f\x98\x80"}, /* three, four */
        {"a\xff"
         "b\xfe",
         "a?b?"},                                 /* never in UTF-8 */
        {"\x80\xbf", "??"},                       /* continuation alone */
        {"\xc3", "?"},                            /* cut */
        {"\xe2\x82", "??"},                       /* cut */
        {"\xf0\x9f\x98", "???"},                  /* cut */
        {"\xc0\xaf", "??"},                       /* overlong */
        {"\xe0\x9f\xbf", "???"},                  /* overlong */
        {"\xf0\x8f\xbf\xbf", "????"},             /* overlong */
        {"\xed\xa0\x80", "???"},                  /* surrogate */
        {"\xf4\x90\x80\x80", "????"},             /* past U+10FFFF */
        {"\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"}, /* U+10FFFF */
        {"\xc3(", "?("},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err;
        nb_fail(&err, NB_E_FORMAT, "%s", cases[i].in);
        assert_string_equal(err.text, cases[i].out);
    }
}

/* A cut in the middle of a character must not leave half of it. */
static void cut_character_is_not_left_broken(void **state)
{
    (void)state;
    struct nb_err err;
    char big[1200];
    for (size_t i = 0; i + 3 <= sizeof big; i += 3) memcpy(big + i, "\xe2\x82\xac", 3);
    big[sizeof big - 1] = '\0';
    nb_fail(&err, NB_E_FAIL, "%s", big); /* 511 = 170 * 3 + 1 */
    assert_int_equal(strlen(err.text), 511);
    assert_int_equal(err.text[510], '?');
    nb_fail(&err, NB_E_FAIL, "%.600s", big);
    nb_err_prefix(&err, "a");
    for (const char *s = err.text; *s; s++) {
        if ((unsigned char)*s == 0xe2) {
            assert_memory_equal(s, "\xe2\x82\xac", 3);
            s += 2;
        } else {
            assert_true((unsigned char)*s < 0x80);
        }
    }
}

static void arguments_may_point_into_the_error(void **state)
{
    (void)state;
    struct nb_err err;
    nb_fail(&err, NB_E_FORMAT, "inner fact");
    nb_fail(&err, NB_E_SPEC, "outer, then %s, and again %s", err.text, err.text);
    assert_string_equal(err.text, "outer, then inner fact, and again inner fact");
    nb_err_hint(&err, "as in: %.5s", err.text);
    nb_err_hint(&err, "<%s>", err.hint);
    assert_string_equal(err.hint, "<as in: outer>");
    nb_err_prefix(&err, "%.5s", err.text);
    assert_string_equal(err.text, "outer: outer, then inner fact, and again inner fact");
}

static void prefix_keeps_status_and_hint(void **state)
{
    (void)state;
    struct nb_err err;
    nb_fail(&err, NB_E_NUMERIC, "not finite");
    nb_err_hint(&err, "more text");
    assert_int_equal(nb_err_prefix(&err, "layer %d", 3), NB_E_NUMERIC);
    assert_int_equal(nb_err_prefix(&err, "model"), NB_E_NUMERIC);
    assert_string_equal(err.text, "model: layer 3: not finite");
    assert_string_equal(err.hint, "more text");
    assert_int_equal(nb_err_hint(&err, "less"), NB_E_NUMERIC);
}

/* Of a line that gets too long the context is cut first; with both too long each keeps half. */
static void prefix_is_cut_before_the_sentence(void **state)
{
    (void)state;
    struct nb_err err;
    char big[2000];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = '\0';
    nb_fail(&err, NB_E_FORMAT, "the fact that matters");
    nb_err_prefix(&err, "%s", big);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    const char *tail = ": the fact that matters";
    assert_string_equal(err.text + strlen(err.text) - strlen(tail), tail);

    memset(big, 'y', sizeof big - 1);
    nb_fail(&err, NB_E_FORMAT, "%s", big);
    memset(big, 'x', sizeof big - 1);
    nb_err_prefix(&err, "%s", big);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_int_equal(strspn(err.text, "x"), 254);
    assert_memory_equal(err.text + 254, ": y", 3);

    nb_fail(&err, NB_E_FORMAT, "%.505s", big); /* 505 + 2 + 4: just fits */
    nb_err_prefix(&err, "abcd");
    assert_int_equal(strlen(err.text), 511);
    assert_memory_equal(err.text, "abcd: x", 7);
    nb_fail(&err, NB_E_FORMAT, "%.506s", big);
    nb_err_prefix(&err, "abcd");
    assert_int_equal(strlen(err.text), 511);
    assert_memory_equal(err.text, "abcd: x", 7);
}

static void every_status_has_text_and_exit_code(void **state)
{
    (void)state;
    assert_string_equal(nb_status_text(NB_OK), "ok");
    assert_string_equal(nb_status_text(NB_E_FORMAT), "format");
    assert_string_equal(nb_status_text(NB_E_NOTFOUND), "not-found");
    assert_string_equal(nb_status_text(-999), "failure");
    static const struct {
        int status, code;
    } cases[] = {{NB_OK, 0},
                 {NB_E_FAIL, 1},
                 {NB_E_USAGE, 2},
                 {NB_E_SPEC, 3},
                 {NB_E_NOMEM, 4},
                 {NB_E_NOSPACE, 4},
                 {NB_E_FORMAT, 5},
                 {NB_E_IO, 1},
                 {NB_E_NUMERIC, 1},
                 {NB_E_GATE, 6},
                 {NB_E_INTERRUPTED, 130},
                 {NB_E_EXISTS, 1},
                 {NB_E_BUSY, 1},
                 {NB_E_NOTFOUND, 1},
                 {-999, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(nb_status_exit(cases[i].status), cases[i].code);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_fills_everything),
        cmocka_unit_test(null_err_is_fine),
        cmocka_unit_test(errno_chooses_the_status),
        cmocka_unit_test(long_head_keeps_the_reason),
        cmocka_unit_test(text_is_cut_at_its_size),
        cmocka_unit_test(control_characters_become_spaces),
        cmocka_unit_test(broken_utf8_becomes_question_marks),
        cmocka_unit_test(cut_character_is_not_left_broken),
        cmocka_unit_test(arguments_may_point_into_the_error),
        cmocka_unit_test(prefix_keeps_status_and_hint),
        cmocka_unit_test(prefix_is_cut_before_the_sentence),
        cmocka_unit_test(every_status_has_text_and_exit_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
