/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "container/gguf.h"
#include "numeric/block.h"

/* Ids, names and sizes stand in two folders of one tier; they must tell the same. */
static void test_agrees_with_block_table(void **state)
{
    (void)state;
    int known = 0;
    for (const struct nb_block_type *t; (t = nb_block_at(known)); known++) {
        const struct nb_gguf_type *g = nb_gguf_type_by_id(t->id);
        assert_non_null(g);
        assert_string_equal(g->name, t->name);
        assert_int_equal(g->id, t->id);
        assert_int_equal(g->elems, t->elems);
        assert_int_equal(g->bytes, t->bytes);
    }
    assert_true(known > 20);
}

static void test_ids(void **state)
{
    (void)state;
    static const int removed[] = {4, 5, 31, 32, 33, 36, 37, 38};
    size_t n = 0;
    for (int id = 0; id < NB_GGUF_TYPE_IDS; id++) {
        const struct nb_gguf_type *t = nb_gguf_type_by_id(id);
        if (!t) {
            assert_true(n < sizeof removed / sizeof *removed);
            assert_int_equal(id, removed[n++]);
            continue;
        }
        assert_int_equal(t->id, id);
        assert_true(t->elems > 0 && t->bytes > 0);
    }
    assert_int_equal(n, sizeof removed / sizeof *removed);
    assert_null(nb_gguf_type_by_id(-1));
    assert_null(nb_gguf_type_by_id(NB_GGUF_TYPE_IDS));
    assert_null(nb_gguf_type_by_id(INT64_MIN));
}

static void test_value_names(void **state)
{
    (void)state;
    assert_string_equal(nb_gguf_value_name(NB_GGUF_U8), "uint8");
    assert_string_equal(nb_gguf_value_name(NB_GGUF_F64), "float64");
    assert_int_equal(NB_GGUF_F64, 12);
    assert_int_equal(nb_gguf_value_bytes(NB_GGUF_ARRAY), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_agrees_with_block_table),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_value_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
