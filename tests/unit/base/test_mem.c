/* SPDX-License-Identifier: Apache-2.0
 *
 * test_mem.c - sizes that overflow, alignment, and what an arena promises. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

static bool aligned(const void *p)
{
    return (uintptr_t)p % 64 == 0;
}

static void products_and_sums(void **state)
{
    (void)state;
    size_t v = 77;
    assert_true(nb_mul(6, 7, &v) && v == 42);
    assert_true(nb_mul(0, SIZE_MAX, &v) && v == 0);
    assert_true(nb_mul(SIZE_MAX, 0, &v) && v == 0);
    assert_true(nb_mul(SIZE_MAX, 1, &v) && v == SIZE_MAX);
    v = 77;
    assert_false(nb_mul(SIZE_MAX, 2, &v));
    assert_false(nb_mul((size_t)1 << 32, (size_t)1 << 32, &v));
    assert_int_equal(v, 77);
    assert_true(nb_add(SIZE_MAX - 1, 1, &v) && v == SIZE_MAX);
    v = 77;
    assert_false(nb_add(SIZE_MAX, 1, &v));
    assert_int_equal(v, 77);
}

static void blocks_are_aligned(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 63, 64, 65, 1000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = nb_alloc(sizes[i], 1);
        assert_non_null(p);
        assert_true(aligned(p));
        memset(p, 0xab, sizes[i]);
        unsigned char *q = nb_calloc(sizes[i], 3);
        assert_true(aligned(q));
        for (size_t k = 0; k < 3 * sizes[i]; k++) assert_int_equal(q[k], 0);
        nb_free(p);
        nb_free(q);
    }
    nb_free(NULL);
}

static void impossible_sizes_give_null(void **state)
{
    (void)state;
    assert_null(nb_alloc(SIZE_MAX, 1));
    assert_null(nb_alloc(SIZE_MAX - 63, 1));
    assert_null(nb_alloc((size_t)1 << 33, (size_t)1 << 33));
    assert_null(nb_calloc(SIZE_MAX / 2, 3));
}

static void realloc_keeps_content(void **state)
{
    (void)state;
    char *p = nb_alloc(8, 1);
    memcpy(p, "abcdefg", 8);
    p = nb_realloc(p, 8, 5000);
    assert_true(aligned(p));
    assert_string_equal(p, "abcdefg");
    p = nb_realloc(p, 5000, 3);
    assert_memory_equal(p, "abc", 3);
    assert_null(nb_realloc(p, 3, SIZE_MAX));
    assert_memory_equal(p, "abc", 3); /* still alive */
    nb_free(p);
    p = nb_realloc(NULL, 0, 10);
    assert_non_null(p);
    nb_free(p);
}

static void small_objects_are_cleared(void **state)
{
    (void)state;
    unsigned char *p = nb_xalloc(100);
    for (int i = 0; i < 100; i++) assert_int_equal(p[i], 0);
    nb_free(p);
    char *s = nb_xstrdup("text");
    assert_string_equal(s, "text");
    nb_free(s);
}

static void grow_doubles_and_keeps(void **state)
{
    (void)state;
    int *a = NULL;
    size_t capacity = 0, moves = 0;
    for (size_t n = 0; n < 1000; n++) {
        size_t before = capacity;
        assert_true(nb_grow((void **)&a, &capacity, n, sizeof *a));
        assert_true(capacity > n);
        moves += before != capacity;
        a[n] = (int)n;
    }
    for (int n = 0; n < 1000; n++) assert_int_equal(a[n], n);
    assert_int_equal(moves, 8); /* 8, 16, ... 1024 */
    nb_free(a);
}

static void grow_refuses_what_overflows(void **state)
{
    (void)state;
    int *a = NULL;
    size_t capacity = 0;
    assert_true(nb_grow((void **)&a, &capacity, 0, sizeof *a));
    int *old = a;
    size_t old_capacity = capacity;
    assert_false(nb_grow((void **)&a, &capacity, SIZE_MAX / 2 + 1, sizeof *a));
    assert_false(nb_grow((void **)&a, &capacity, SIZE_MAX / 4, sizeof *a));
    assert_ptr_equal(a, old);
    assert_int_equal(capacity, old_capacity);
    nb_free(a);
}

static void arena_blocks_do_not_overlap(void **state)
{
    (void)state;
    struct nb_arena a;
    nb_arena_init(&a);
    enum { N = 500 };
    unsigned char *p[N];
    for (int i = 0; i < N; i++) {
        size_t bytes = (size_t)(i * i) % 3000 + 1;
        p[i] = nb_arena_alloc(&a, bytes, 1);
        assert_non_null(p[i]);
        assert_true(aligned(p[i]));
        memset(p[i], i, bytes);
    }
    for (int i = 0; i < N; i++) {
        size_t bytes = (size_t)(i * i) % 3000 + 1;
        for (size_t k = 0; k < bytes; k++) assert_int_equal(p[i][k], i & 0xff);
    }
    assert_false(a.failed);
    nb_arena_release(&a);
    assert_null(a.head);
}

static void arena_takes_any_size(void **state)
{
    (void)state;
    struct nb_arena a;
    nb_arena_init(&a);
    unsigned char *big = nb_arena_calloc(&a, 1 << 20, 1); /* more than a block */
    assert_non_null(big);
    for (size_t i = 0; i < 1 << 20; i++) assert_int_equal(big[i], 0);
    assert_non_null(nb_arena_alloc(&a, 0, 8));
    assert_non_null(nb_arena_alloc(&a, 1, 1));
    assert_int_equal(a.used_bytes, (1 << 20) + 64);
    nb_arena_release(&a);
}

static void arena_failure_is_sticky(void **state)
{
    (void)state;
    struct nb_arena a;
    nb_arena_init(&a);
    char *kept = nb_arena_strdup(&a, "kept");
    assert_null(nb_arena_alloc(&a, SIZE_MAX, 2));
    assert_true(a.failed);
    assert_null(nb_arena_alloc(&a, 1, 1));
    assert_null(nb_arena_calloc(&a, 1, 1));
    assert_null(nb_arena_strdup(&a, "x"));
    assert_null(nb_arena_printf(&a, "%d", 1));
    assert_string_equal(kept, "kept");
    nb_arena_reset(&a);
    assert_false(a.failed);
    assert_non_null(nb_arena_alloc(&a, 1, 1));
    assert_null(nb_arena_alloc(&a, SIZE_MAX - 8, 1)); /* rounding up would overflow */
    assert_true(a.failed);
    nb_arena_release(&a);
    assert_false(a.failed);
}

/* Reset keeps the largest block, so a loop over equal work allocates once. */
static void arena_reset_keeps_the_largest_block(void **state)
{
    (void)state;
    struct nb_arena a;
    nb_arena_init(&a);
    assert_non_null(nb_arena_alloc(&a, 100, 1));
    void *big = nb_arena_alloc(&a, 300000, 1);
    assert_non_null(nb_arena_alloc(&a, 100000, 1));
    nb_arena_reset(&a);
    assert_int_equal(a.used_bytes, 0);
    assert_ptr_equal(nb_arena_alloc(&a, 300000, 1), big);
    nb_arena_reset(&a);
    assert_ptr_equal(nb_arena_alloc(&a, 1, 1), big);
    nb_arena_release(&a);
}

static void arena_text(void **state)
{
    (void)state;
    struct nb_arena a;
    nb_arena_init(&a);
    assert_string_equal(nb_arena_printf(&a, "%s-%d", "layer", 12), "layer-12");
    assert_string_equal(nb_arena_printf(&a, "%s", ""), "");
    char *s = nb_arena_printf(&a, "%0*d", 70000, 5); /* longer than a block */
    assert_int_equal(strlen(s), 70000);
    assert_string_equal(nb_arena_strdup(&a, "abc"), "abc");
    nb_arena_release(&a);
}

/* What cannot be formatted is a failed request too. */
static void arena_printf_failure_is_sticky(void **state)
{
    (void)state;
    struct nb_arena a;
    nb_arena_init(&a);
    static const wchar_t no_such_character[] = {(wchar_t)0x7ffffff0, 0};
    assert_null(nb_arena_printf(&a, "%ls", no_such_character));
    assert_true(a.failed);
    nb_arena_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_and_sums),
        cmocka_unit_test(blocks_are_aligned),
        cmocka_unit_test(impossible_sizes_give_null),
        cmocka_unit_test(realloc_keeps_content),
        cmocka_unit_test(small_objects_are_cleared),
        cmocka_unit_test(grow_doubles_and_keeps),
        cmocka_unit_test(grow_refuses_what_overflows),
        cmocka_unit_test(arena_blocks_do_not_overlap),
        cmocka_unit_test(arena_takes_any_size),
        cmocka_unit_test(arena_failure_is_sticky),
        cmocka_unit_test(arena_reset_keeps_the_largest_block),
        cmocka_unit_test(arena_text),
        cmocka_unit_test(arena_printf_failure_is_sticky),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
