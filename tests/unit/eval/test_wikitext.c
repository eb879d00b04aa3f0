/* SPDX-License-Identifier: Apache-2.0
 *
 * test_wikitext.c - each replacement rule on a hand-made string, rows and pages; the counts of the real file
 * when NB_WIKITEXT names it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "eval/wikitext.h"

static void detok(const char *from, const char *to)
{
    struct nb_strbuf out;
    nb_strbuf_init(&out);
    nb_wikitext_detokenize(from, strlen(from), &out);
    assert_string_equal(nb_strbuf_cstr(&out), to);
    nb_strbuf_release(&out);
}

static void test_rules(void **state)
{
    (void)state;
    detok("the dogs ' tails", "the dogs' tails");
    detok("x/' 5/y", "x/'[0-9]/y");
    detok("well @-@ known , 1 @,@ 000 @.@ 5", "well-known, 1,000.5");
    detok("a : b ; c . d ! e ? f , g", "a: b; c. d! e? f, g");
    detok("( a ( b ) c )", "(a ( b) c )"); /* from the first bracket to the first closing one */
    detok("[ a ] { b } \" c d \" ' e '", "[a] {b} \"c d\" 'e'");
    detok("(\n\xc2\xa0"
          "a\xe3\x80\x80)(  )",
          "(a)()");
    detok("( open", "( open");
    detok("= = = = T = = = =", "==== T ====");
    detok("= = = T = = =", "=== T ===");
    detok("= = T = =", "== T ==");
    detok("5 \xc2\xb0 C", "5\xc2\xb0"
                          "C");
    detok("a \n b", "a\nb");
    detok("5 N 3", "5 1 3");
    detok("he 's", "he's");
    detok("", "");
}

static void test_words(void **state)
{
    (void)state;
    assert_int_equal(nb_wikitext_words("", 0), 1);
    assert_int_equal(nb_wikitext_words("a", 1), 1);
    assert_int_equal(nb_wikitext_words(" a  b\n", 6), 4); /* empty pieces at both ends */
    assert_int_equal(nb_wikitext_words("a\xe2\x80\x89"
                                       "b",
                                       5),
                     2);
    assert_int_equal(nb_wikitext_words("a\xe2\x80\x93"
                                       "b",
                                       5),
                     1); /* a dash is no space */
}

static const char sample[] =
    " \n = One = \n \n text , a . \n = = Part = = \n more \n = Two = \n end \n";

static void test_rows(void **state)
{
    (void)state;
    struct nb_strbuf out;
    nb_strbuf_init(&out);
    assert_true(nb_wikitext_is_raw(sample, sizeof sample - 1));
    assert_false(nb_wikitext_is_raw("a\n = One = \n", 12));
    assert_false(nb_wikitext_is_raw("\n", 1));
    assert_false(nb_wikitext_is_raw("", 0));
    assert_false(nb_wikitext_is_raw(" \n = = Part = = \n", 17));
    nb_wikitext_join_rows(sample, sizeof sample - 1, &out);
    assert_string_equal(nb_strbuf_cstr(&out),
                        "\n\n = One = \n\n\n\n\n text , a . \n\n\n = = Part = = \n\n\n more \n"
                        "\n\n = Two = \n\n\n end \n");
    nb_strbuf_release(&out);
}

static void test_pages(void **state)
{
    (void)state;
    struct nb_span *pages;
    size_t n;
    assert_int_equal(nb_wikitext_pages(sample, sizeof sample - 1, &pages, &n, NULL), 0);
    assert_int_equal(n, 2); /* the blank line before the first title is no page */
    const char one[] = " = One = \n \n text , a . \n = = Part = = \n more ",
               two[] = " = Two = \n end \n";
    assert_int_equal(pages[0].bytes, strlen(one));
    assert_memory_equal(pages[0].data, one, strlen(one));
    assert_int_equal(pages[1].bytes, strlen(two));
    assert_memory_equal(pages[1].data, two, strlen(two));
    nb_free(pages);
    assert_int_equal(nb_wikitext_pages("no title\nat all", 15, &pages, &n, NULL), 0);
    assert_int_equal(n, 1);
    nb_free(pages);
    assert_int_equal(nb_wikitext_pages("", 0, &pages, &n, NULL), 0);
    assert_int_equal(n, 0);
    nb_free(pages);
}

static void test_real_file(void **state)
{
    (void)state;
    const char *path = getenv("NB_WIKITEXT");
    if (!path) skip();
    char *text, hex[NB_SHA256_HEX];
    size_t bytes, n, total = 0;
    struct nb_span *pages;
    struct nb_strbuf rows;
    int64_t words = 0;
    assert_int_equal(nb_file_read(path, 1 << 24, &text, &bytes, NULL), 0);
    assert_true(nb_wikitext_is_raw(text, bytes));
    assert_int_equal(nb_wikitext_pages(text, bytes, &pages, &n, NULL), 0);
    for (size_t i = 0; i < n; i++) {
        words += nb_wikitext_words((const char *)pages[i].data, pages[i].bytes);
        total += pages[i].bytes;
    }
    assert_int_equal(n, 62);
    assert_int_equal(words, 241335);
    assert_int_equal(total, 1290527);
    nb_strbuf_init(&rows);
    nb_wikitext_join_rows(text, bytes, &rows);
    nb_sha256_bytes(nb_strbuf_cstr(&rows), rows.len, hex);
    assert_int_equal(rows.len, 1296370);
    assert_string_equal(hex, "696cca6b65a171b0a358a4be6732cdfdf2dd6164a32e20fd70e3c13fc4dfae83");
    nb_strbuf_release(&rows);
    nb_free(pages);
    nb_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rules), cmocka_unit_test(test_words),     cmocka_unit_test(test_rows),
        cmocka_unit_test(test_pages), cmocka_unit_test(test_real_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
