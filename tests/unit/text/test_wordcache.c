/* SPDX-License-Identifier: Apache-2.0
 *
 * test_wordcache.c - a word comes back with its ids or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "text/wordcache.h"

static void keeps_words(void **state)
{
    (void)state;
    struct nb_word_cache c = {0};
    int n_kept = 0, n_begun = 0;
    for (int32_t i = 0; i < 3000; i++) {
        char word[16];
        size_t n = (size_t)snprintf(word, sizeof word, "w%d", i), n_ids = 0;
        struct nb_cached_word *slot = nb_word_cache_slot(&c, word, n);
        if (!slot) continue;
        n_begun++;
        assert_null(nb_word_cache_get(slot, word, n, &n_ids));
        nb_word_cache_put(slot, word, n, (int32_t[]){i, i + 1}, 2);
        const int32_t *ids = nb_word_cache_get(slot, word, n, &n_ids);
        assert_non_null(ids);
        assert_int_equal(n_ids, 2);
        assert_int_equal(ids[1], i + 1);
        n_kept++;
    }
    assert_true(n_begun > 2000 && n_kept == n_begun);
    nb_word_cache_release(&c);
}

static void limits(void **state)
{
    (void)state;
    struct nb_word_cache c = {.n_words = 1 << 20};
    char word[64];
    size_t n_ids;
    int32_t ids[64] = {0};
    memset(word, 'a', sizeof word);
    assert_null(nb_word_cache_slot(&c, word, 0));
    assert_null(nb_word_cache_slot(&c, word, 64));
    struct nb_cached_word *slot = nb_word_cache_slot(&c, word, 9);
    assert_non_null(slot);
    nb_word_cache_put(slot, word, 9, ids, 64); /* too many */
    assert_null(nb_word_cache_get(slot, word, 9, &n_ids));
    nb_word_cache_put(slot, word, 9, ids, 0);
    assert_null(nb_word_cache_get(slot, word, 9, &n_ids));
    nb_word_cache_put(slot, word, 9, ids, 3);
    assert_non_null(nb_word_cache_get(slot, word, 9, &n_ids));
    assert_null(nb_word_cache_get(slot, "aaaaaaaab", 9, &n_ids));
    assert_null(nb_word_cache_get(NULL, word, 9, &n_ids));
    nb_word_cache_put(NULL, word, 9, ids, 3);
    nb_word_cache_release(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(keeps_words), cmocka_unit_test(limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
