/* SPDX-License-Identifier: Apache-2.0
 *
 * test_trie.c - the longest of several texts at a place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "text/trie.h"

static void add(struct nb_trie *t, const char *text, int32_t number)
{
    uint32_t end;
    assert_true(nb_trie_add(t, text, strlen(text), &end));
    t->token[end] = number;
}

static void longest(void **state)
{
    (void)state;
    struct nb_trie t;
    size_t bytes = 99;
    assert_true(nb_trie_init(&t));
    assert_int_equal(nb_trie_longest(&t, "ab", 2, &bytes), -1);
    add(&t, "ab", 4);
    add(&t, "abcd", 2);
    add(&t, "\xff", 9);
    assert_int_equal(nb_trie_longest(&t, "abcx", 4, &bytes), 4); /* falls back from "abc" */
    assert_int_equal(bytes, 2);
    assert_int_equal(nb_trie_longest(&t, "abcde", 5, &bytes), 2);
    assert_int_equal(bytes, 4);
    assert_int_equal(nb_trie_longest(&t, "abcd", 3, &bytes), 4); /* never past the end */
    assert_int_equal(nb_trie_longest(&t, "abcd", 0, &bytes), -1);
    assert_int_equal(nb_trie_longest(&t, "xab", 3, &bytes), -1);
    assert_int_equal(nb_trie_longest(&t, "\xff", 1, &bytes), 9);
    assert_true(t.first['a'] && t.first[0xff] && !t.first['b']);
    nb_trie_release(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(longest)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
