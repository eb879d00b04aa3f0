/* SPDX-License-Identifier: Apache-2.0
 *
 * test_dir.c - folders: made with parents, listed in byte order, removed without following links. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "support/folder.h"

static int setup(void **state)
{
    *state = folder_make();
    return 0;
}

static int teardown(void **state)
{
    folder_remove(*state);
    return 0;
}

static void makes_with_parents(void **state)
{
    struct nb_err err;
    static const char *const names[] = {"a", "b/c/d", "b/c/d", "e/", "f//g///", "h/./i"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *p = nb_path_join(*state, names[i]);
        if (nb_dir_make(p, &err)) fail_msg("%s", err.text);
        assert_true(nb_path_is_dir(p));
        nb_free(p);
    }
}

static void refuses_what_is_no_folder(void **state)
{
    struct nb_err err;
    char expected[600];
    folder_text(*state, "file", "x");
    char *p = nb_path_join(*state, "file"), *below = nb_path_join(p, "x");
    assert_int_equal(nb_dir_make(p, &err), NB_E_EXISTS);
    snprintf(expected, sizeof expected, "%s: exists and is no folder", p);
    assert_string_equal(err.text, expected);
    assert_int_equal(nb_dir_make(below, &err), NB_E_IO);
    snprintf(expected, sizeof expected, "%s: cannot create folder: Not a directory", below);
    assert_string_equal(err.text, expected);
    assert_int_equal(nb_dir_make("", &err), NB_E_USAGE);
    assert_string_equal(err.text, "the name of a folder is empty");
    nb_free(p);
    nb_free(below);
}

static void lists_in_byte_order(void **state)
{
    struct nb_err err;
    static const char *const names[] = {"b", "a10", "a2", "B", ".hidden", "\xc3\xbc", "a"};
    for (size_t i = 0; i < 7; i++) folder_text(*state, names[i], "");
    char **list, *p = nb_path_join(*state, "a");
    size_t n;
    assert_int_equal(nb_dir_list(*state, &list, &n, &err), 0);
    static const char *const sorted[] = {".hidden", "B", "a", "a10", "a2", "b", "\xc3\xbc"};
    assert_int_equal(n, 7);
    for (size_t i = 0; i < n; i++) assert_string_equal(list[i], sorted[i]);
    nb_dir_list_free(list, n);
    assert_int_not_equal(nb_dir_list(p, &list, &n, &err), 0); /* a file */
    assert_null(list);
    assert_int_equal(n, 0);
    nb_free(p);
}

static void lists_nothing(void **state)
{
    struct nb_err err;
    char **list;
    size_t n;
    assert_int_equal(nb_dir_list(*state, &list, &n, &err), 0);
    assert_int_equal(n, 0);
    nb_dir_list_free(list, n);
    char *p = nb_path_join(*state, "absent"), expected[600];
    assert_int_equal(nb_dir_list(p, &list, &n, &err), NB_E_NOTFOUND);
    snprintf(expected, sizeof expected, "%s: cannot read folder: No such file or directory", p);
    assert_string_equal(err.text, expected);
    nb_free(p);
}

static void lists_many(void **state)
{
    char name[16], **list;
    size_t n;
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "%03d", (i * 37) % 100);
        folder_text(*state, name, "");
    }
    assert_int_equal(nb_dir_list(*state, &list, &n, NULL), 0);
    assert_int_equal(n, 100);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "%03d", i);
        assert_string_equal(list[i], name);
    }
    nb_dir_list_free(list, n);
}

/* Links to a folder and to a file outside: the links go, what they lead to stays. */
static void removes_a_tree_but_follows_no_link(void **state)
{
    struct nb_err err;
    char *tree = nb_path_join(*state, "tree"), *deep = nb_path_join(tree, "x/y/z");
    char *outside = nb_path_join(*state, "outside"), *link = nb_path_join(tree, "x/link");
    char *file_link = nb_path_join(tree, "file"), *broken = nb_path_join(tree, "broken");
    assert_int_equal(nb_dir_make(deep, &err), 0);
    assert_int_equal(nb_dir_make(outside, &err), 0);
    folder_text(outside, "precious", "x");
    folder_text(deep, "f", "x");
    folder_text(tree, ".hidden", "x");
    assert_int_equal(symlink("../../outside", link), 0);
    assert_int_equal(symlink("../outside/precious", file_link), 0);
    assert_int_equal(symlink("nowhere", broken), 0);
    char *precious = nb_path_join(link, "precious");
    assert_true(nb_path_exists(precious)); /* the link works */
    nb_free(precious);
    assert_int_equal(nb_dir_remove_all(tree, &err), 0);
    assert_false(nb_path_exists(tree));
    precious = nb_path_join(outside, "precious");
    assert_true(nb_path_exists(precious));
    assert_int_equal(nb_dir_remove_all(tree, &err), 0); /* nothing there is fine */

    assert_int_equal(symlink("outside", tree), 0); /* the tree itself is a link */
    assert_int_equal(nb_dir_remove_all(tree, &err), 0);
    assert_false(nb_path_exists(tree));
    assert_true(nb_path_exists(precious));
    assert_int_equal(nb_dir_remove_all(precious, &err), 0); /* a file is fine too */
    assert_false(nb_path_exists(precious));
    char *all[] = {tree, deep, outside, link, file_link, broken, precious};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) nb_free(all[i]);
}

static void sync_needs_a_folder(void **state)
{
    struct nb_err err;
    assert_int_equal(nb_dir_sync(*state, &err), 0);
    folder_text(*state, "file", "x");
    char *p = nb_path_join(*state, "file");
    assert_int_equal(nb_dir_sync(p, &err), NB_E_IO);
    nb_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(makes_with_parents, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_what_is_no_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(lists_in_byte_order, setup, teardown),
        cmocka_unit_test_setup_teardown(lists_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(lists_many, setup, teardown),
        cmocka_unit_test_setup_teardown(removes_a_tree_but_follows_no_link, setup, teardown),
        cmocka_unit_test_setup_teardown(sync_needs_a_folder, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
