/* SPDX-License-Identifier: Apache-2.0
 *
 * test_actstore.c - a chunk holds the same floats wherever it lives. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "pipeline/actstore.h"
#include "support/folder.h"

enum { CHUNKS = 5, FLOATS = 33 };

static float expected(int64_t chunk, int i)
{
    return (float)(chunk * 1000 + i);
}

static void fill_then_check(uint64_t budget_bytes, int64_t want_in_ram)
{
    struct nb_actstore s;
    struct nb_err err;
    char path[256];
    const char *tmp = getenv("NB_TEST_TMP");
    snprintf(path, sizeof path, "%s/actstore", tmp ? tmp : ".");
    assert_int_equal(nb_actstore_open(&s, path, CHUNKS, FLOATS, &budget_bytes, &err), 0);
    assert_int_equal(s.n_in_ram, want_in_ram);
    float *p;
    for (int64_t c = 0; c < CHUNKS; c++) {
        assert_int_equal(nb_actstore_get(&s, c, 0, &p, &err), 0);
        for (int i = 0; i < FLOATS; i++) p[i] = expected(c, i);
        assert_int_equal(nb_actstore_put(&s, c, &err), 0);
    }
    for (int64_t c = CHUNKS - 1; c >= 0; c--) {
        assert_int_equal(nb_actstore_get(&s, c, 1, &p, &err), 0);
        for (int i = 0; i < FLOATS; i++) assert_true(p[i] == expected(c, i));
    }
    nb_actstore_close(&s);
}

static void all_in_ram(void **state)
{
    (void)state;
    fill_then_check(1 << 20, CHUNKS);
}

static void some_in_file(void **state)
{
    (void)state;
    fill_then_check(2 * FLOATS * sizeof(float) + 3, 2);
}

static void all_in_file(void **state)
{
    (void)state;
    fill_then_check(0, 0);
}

/* A swapped chunk holds the buffer's floats, and the buffer is another one, wherever the chunk lives. */
static void swap_replaces_a_chunk(void **state)
{
    (void)state;
    for (int in_ram = 0; in_ram < 2; in_ram++) {
        struct nb_actstore s;
        struct nb_err err;
        uint64_t budget = in_ram ? 1 << 20 : 0;
        char path[256];
        const char *tmp = getenv("NB_TEST_TMP");
        snprintf(path, sizeof path, "%s/actstore-swap", tmp ? tmp : ".");
        assert_int_equal(nb_actstore_open(&s, path, 2, FLOATS, &budget, &err), 0);
        float *buffer = nb_alloc(FLOATS, sizeof(float)), *p;
        for (int64_t c = 0; c < 2; c++) {
            for (int i = 0; i < FLOATS; i++) buffer[i] = expected(c, i);
            float *given = buffer;
            assert_int_equal(nb_actstore_swap(&s, c, &buffer, &err), 0);
            assert_ptr_not_equal(buffer, given);
        }
        for (int64_t c = 0; c < 2; c++) {
            assert_int_equal(nb_actstore_get(&s, c, 1, &p, &err), 0);
            for (int i = 0; i < FLOATS; i++) assert_true(p[i] == expected(c, i));
        }
        nb_free(buffer);
        nb_actstore_close(&s);
    }
}

static void budget_is_charged(void **state)
{
    (void)state;
    struct nb_actstore s;
    struct nb_err err;
    uint64_t budget = 10 * FLOATS * sizeof(float);
    assert_int_equal(nb_actstore_open(&s, "unused", CHUNKS, FLOATS, &budget, &err), 0);
    assert_int_equal(budget, 5 * FLOATS * sizeof(float));
    nb_actstore_close(&s);
}

static void unwritable_place_is_named(void **state)
{
    (void)state;
    struct nb_actstore s;
    struct nb_err err;
    uint64_t budget = 0;
    assert_int_not_equal(nb_actstore_open(&s, "/nonexistent/x", 1, FLOATS, &budget, &err), 0);
    assert_string_equal(err.text, "/nonexistent/x: cannot create: No such file or directory");
    nb_actstore_close(&s);
}

/* A run that needs no activations closes stores it never opened: standard input must survive that. */
static void close_of_a_cleared_store_touches_nothing(void **state)
{
    (void)state;
    struct nb_actstore s;
    memset(&s, 0, sizeof s);
    int saved = dup(0), fds[2];
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(dup2(fds[0], 0), 0);
    nb_actstore_close(&s);
    nb_actstore_close(&s);
    assert_true(fcntl(0, F_GETFD) >= 0);
    close(fds[0]);
    close(fds[1]);
    if (saved < 0) close(0);
    else assert_int_equal(dup2(saved, 0), 0);
    if (saved >= 0) close(saved);
}

/* A path of any length is the path that is opened. */
static void long_paths_are_not_cut(void **state)
{
    (void)state;
    struct nb_actstore s;
    struct nb_err err;
    char *dir = folder_make();
    uint64_t budget = 0;
    char path[3000];
    int n = snprintf(path, sizeof path, "%s", dir);
    while (n < 1500) {
        n += snprintf(path + n, sizeof path - (size_t)n, "/%0100d", 7);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    snprintf(path + n, sizeof path - (size_t)n, "/spill");
    if (nb_actstore_open(&s, path, CHUNKS, FLOATS, &budget, &err)) fail_msg("%s", err.text);
    float *p;
    assert_int_equal(nb_actstore_get(&s, 0, 0, &p, &err), 0);
    p[0] = 1;
    assert_int_equal(nb_actstore_put(&s, 0, &err), 0);
    nb_actstore_close(&s);
    folder_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_in_ram),
        cmocka_unit_test(some_in_file),
        cmocka_unit_test(all_in_file),
        cmocka_unit_test(swap_replaces_a_chunk),
        cmocka_unit_test(budget_is_charged),
        cmocka_unit_test(unwritable_place_is_named),
        cmocka_unit_test(close_of_a_cleared_store_touches_nothing),
        cmocka_unit_test(long_paths_are_not_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
