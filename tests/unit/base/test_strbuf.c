/* SPDX-License-Identifier: Apache-2.0
 *
 * test_strbuf.c - a byte string that grows, ends in NUL, and says once that memory ran out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/strbuf.h"

static int setup(void **state)
{
    static struct nb_strbuf b;
    nb_strbuf_init(&b);
    *state = &b;
    return 0;
}

static int teardown(void **state)
{
    nb_strbuf_release(*state);
    return 0;
}

static void empty_reads_as_empty(void **state)
{
    struct nb_strbuf *b = *state;
    assert_string_equal(nb_strbuf_cstr(b), "");
    nb_strbuf_puts(b, "");
    assert_non_null(b->data);
    assert_string_equal(nb_strbuf_cstr(b), "");
    assert_int_equal(b->len, 0);
}

static void appends_in_order(void **state)
{
    struct nb_strbuf *b = *state;
    nb_strbuf_puts(b, "ab");
    nb_strbuf_putc(b, 'c');
    nb_strbuf_add(b, "def!", 3);
    nb_strbuf_printf(b, "-%d-%s", 42, "x");
    assert_string_equal(b->data, "abcdef-42-x");
    assert_int_equal(b->len, 11);
}

static void holds_nul_bytes(void **state)
{
    struct nb_strbuf *b = *state;
    nb_strbuf_add(b, "a\0b", 3);
    nb_strbuf_putc(b, '\0');
    nb_strbuf_puts(b, "c");
    assert_int_equal(b->len, 5);
    assert_memory_equal(b->data, "a\0b\0c", 6);
}

/* Every length crosses every capacity at some point; the NUL must always be there. */
static void grows_byte_by_byte_and_by_format(void **state)
{
    struct nb_strbuf *b = *state;
    for (int i = 0; i < 5000; i++) {
        nb_strbuf_printf(b, "%c", 'a' + i % 26);
        assert_int_equal(b->len, (size_t)i + 1);
        assert_int_equal(b->data[b->len], 0);
        assert_true(b->capacity > b->len);
    }
    for (int i = 0; i < 5000; i++) assert_int_equal(b->data[i], 'a' + i % 26);
    nb_strbuf_printf(b, "%0*d", 100000, 7);
    assert_int_equal(b->len, 105000);
    assert_int_equal(b->data[104999], '7');
}

static void reset_keeps_memory(void **state)
{
    struct nb_strbuf *b = *state;
    nb_strbuf_reset(b);
    nb_strbuf_puts(b, "something long enough to need more than the first sixty-four bytes of room");
    char *data = b->data;
    nb_strbuf_reset(b);
    assert_int_equal(b->len, 0);
    assert_string_equal(nb_strbuf_cstr(b), "");
    nb_strbuf_puts(b, "x");
    assert_ptr_equal(b->data, data);
}

static void failure_is_sticky_and_keeps_the_text(void **state)
{
    struct nb_strbuf *b = *state;
    nb_strbuf_puts(b, "kept");
    nb_strbuf_add(b, "x", SIZE_MAX); /* length overflows */
    assert_true(b->failed);
    nb_strbuf_puts(b, "more");
    nb_strbuf_printf(b, "%d", 1);
    nb_strbuf_putc(b, 'c');
    assert_true(b->failed);
    assert_string_equal(nb_strbuf_cstr(b), "kept");
    assert_int_equal(b->len, 4);
    nb_strbuf_release(b);
    assert_false(b->failed);
}

static void no_memory_is_a_failure(void **state)
{
    struct nb_strbuf *b = *state;
    nb_strbuf_add(b, "x", SIZE_MAX - 4096); /* fits size_t, not the machine */
    assert_true(b->failed);
    assert_string_equal(nb_strbuf_cstr(b), "");
}

static void what_cannot_be_formatted_is_a_failure(void **state)
{
    struct nb_strbuf *b = *state;
    static const wchar_t no_such_character[] = {(wchar_t)0x7ffffff0, 0};
    nb_strbuf_printf(b, "%ls", no_such_character);
    assert_true(b->failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(empty_reads_as_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(appends_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(holds_nul_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(grows_byte_by_byte_and_by_format, setup, teardown),
        cmocka_unit_test_setup_teardown(reset_keeps_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(failure_is_sticky_and_keeps_the_text, setup, teardown),
        cmocka_unit_test_setup_teardown(no_memory_is_a_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_formatted_is_a_failure, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
