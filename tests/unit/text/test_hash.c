/* SPDX-License-Identifier: Apache-2.0
 *
 * test_hash.c - both tables keep what was put last, through growth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "text/hash.h"

enum { N = 5000 };

static void strings(void **state)
{
    (void)state;
    static char texts[N][16];
    struct nb_strmap m;
    assert_true(nb_strmap_init(&m, 0));
    for (int i = 0; i < N; i++) {
        int n = snprintf(texts[i], sizeof texts[i], "key%d", i);
        assert_true(nb_strmap_put(&m, texts[i], (size_t)n, i));
    }
    assert_true(nb_strmap_put(&m, "key7", 4, 70000));
    assert_int_equal(m.n, N);
    for (int i = 0; i < N; i++) {
        assert_int_equal(nb_strmap_get(&m, texts[i], strlen(texts[i])), i == 7 ? 70000 : i);
    }
    assert_int_equal(nb_strmap_get(&m, "key", 3), -1);
    assert_int_equal(nb_strmap_get(&m, "", 0), -1);
    nb_strmap_release(&m);
    assert_int_equal(nb_strmap_get(&m, "key", 3), -1);
}

static void pairs(void **state)
{
    (void)state;
    struct nb_pairmap m;
    assert_true(nb_pairmap_init(&m, 0));
    for (uint32_t i = 0; i < N; i++) assert_true(nb_pairmap_put(&m, i, i * 31, i, i + 1));
    assert_true(nb_pairmap_put(&m, 9, 279, 1, 2));
    assert_int_equal(m.n, N);
    for (uint32_t i = 0; i < N; i++) {
        const struct nb_pair_entry *e = nb_pairmap_get(&m, i, i * 31);
        assert_non_null(e);
        assert_int_equal(e->first, i == 9 ? 1 : i);
        assert_int_equal(e->second, i == 9 ? 2 : i + 1);
    }
    assert_null(nb_pairmap_get(&m, 1, 1));
    nb_pairmap_release(&m);
    assert_null(nb_pairmap_get(&m, 1, 31));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(strings), cmocka_unit_test(pairs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
