/* SPDX-License-Identifier: Apache-2.0
 *
 * test_specials.c - the longest token first over the whole text, against doing it literally. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/strbuf.h"
#include "text/specials.h"

struct output {
    struct nb_strbuf b;
    const char *s;
};

static int take(void *ctx, int32_t id, size_t start, size_t end, struct nb_err *err)
{
    struct output *o = ctx;
    (void)err;
    assert_true(start < end);
    if (id >= 0) nb_strbuf_printf(&o->b, "[%d]", id);
    else nb_strbuf_printf(&o->b, "(%.*s)", (int)(end - start), o->s + start);
    return 0;
}

static char *cut(const struct nb_special *tokens, size_t n, const char *text, bool plain)
{
    struct nb_err err;
    struct nb_specials s;
    struct output o = {.s = text};
    nb_strbuf_init(&o.b);
    if (nb_specials_init(&s, tokens, n, "t", &err)) fail_msg("%s", err.text);
    struct nb_special_cut c = {&s, plain, take, &o};
    if (nb_specials_cut(&c, text, strlen(text), &err)) fail_msg("%s", err.text);
    nb_specials_release(&s);
    char *copy = strdup(nb_strbuf_cstr(&o.b));
    nb_strbuf_release(&o.b);
    return copy;
}

static void check(const struct nb_special *tokens, size_t n, const char *text, bool plain,
                  const char *want)
{
    char *got = cut(tokens, n, text, plain);
    assert_string_equal(got, want);
    free(got);
}

static void longest_first(void **state)
{
    (void)state;
    static const struct nb_special tokens[] = {{.text = "ab", .bytes = 2, .id = 0, .always = true},
                                               {.text = "bcd", .bytes = 3, .id = 1},
                                               {.text = "b", .bytes = 1, .id = 2, .always = true}};
    check(tokens, 3, "abcd", false, "(a)[1]"); /* not leftmost: "ab" comes later */
    check(tokens, 3, "abcd", true, "[0](cd)");
    check(tokens, 3, "xbabx", false, "(x)[2][0](x)");
    check(tokens, 3, "", false, "");
    check(tokens, 3, "xyz", false, "(xyz)");
    check(tokens, 0, "xyz", false, "(xyz)");
}

static void white_space(void **state)
{
    (void)state;
    static const struct nb_special tokens[] = {{.text = "<l>", .bytes = 3, .id = 0, .lstrip = true},
                                               {.text = "<r>", .bytes = 3, .id = 1, .rstrip = true},
                                               {.text = "\n", .bytes = 1, .id = 2}};
    check(tokens, 3, "a \t<l> b", false, "(a)[0]( b)");
    check(tokens, 3, "a <r> \v b", false, "(a )[1](b)");
    check(tokens, 3, " <r>  <l> ", false, "( )[1][0]( )");
    check(tokens, 3, "<r> \n b", false, "[1](b)"); /* the line feed went with the space */
}

/* llama.cpp's way: for each token, all its places in what is text still. */
static void literally(const struct nb_special *tokens, size_t n, const char *text,
                      struct nb_strbuf *out)
{
    size_t len = strlen(text);
    int owner[64];
    for (size_t i = 0; i < len; i++) owner[i] = -1;
    for (size_t k = 0; k < n; k++) {
        for (size_t i = 0; i + tokens[k].bytes <= len; i++) {
            bool here = memcmp(text + i, tokens[k].text, tokens[k].bytes) == 0;
            for (size_t j = i; here && j < i + tokens[k].bytes; j++) here = owner[j] < 0;
            if (!here) continue;
            for (size_t j = i; j < i + tokens[k].bytes; j++) owner[j] = (int)(k * 64 + i);
        }
    }
    for (size_t i = 0; i < len;) {
        size_t end = i;
        while (end < len && owner[end] == owner[i]) end++;
        if (owner[i] < 0) nb_strbuf_printf(out, "(%.*s)", (int)(end - i), text + i);
        else nb_strbuf_printf(out, "[%d]", tokens[owner[i] / 64].id);
        i = end;
    }
}

static void as_literally(void **state)
{
    (void)state;
    /* Longest first, then by id, as the literal way wants them. */
    static const struct nb_special tokens[] = {
        {.text = "abab", .bytes = 4, .id = 3}, {.text = "bab", .bytes = 3, .id = 1},
        {.text = "caa", .bytes = 3, .id = 4},  {.text = "aa", .bytes = 2, .id = 0},
        {.text = "ab", .bytes = 2, .id = 2},   {.text = "ca", .bytes = 2, .id = 6},
        {.text = "c", .bytes = 1, .id = 5}};
    uint64_t seed = 7;
    for (int round = 0; round < 3000; round++) {
        char text[32];
        size_t len = 0;
        for (; len < 24; len++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            text[len] = (char)('a' + (seed >> 33) % 3);
        }
        text[len] = '\0';
        struct nb_strbuf want;
        nb_strbuf_init(&want);
        literally(tokens, 7, text, &want);
        check(tokens, 7, text, false, nb_strbuf_cstr(&want));
        nb_strbuf_release(&want);
    }
}

static void too_long(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_specials s;
    char *text = calloc(1, 5000);
    memset(text, 'a', 4999);
    struct nb_special token = {.text = text, .bytes = 4999, .id = 7};
    assert_int_equal(nb_specials_init(&s, &token, 1, "t", &err), NB_E_SPEC);
    assert_non_null(strstr(err.text, "t: special token 7 has 4999 bytes"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(longest_first),
                                       cmocka_unit_test(white_space),
                                       cmocka_unit_test(as_literally), cmocka_unit_test(too_long)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
