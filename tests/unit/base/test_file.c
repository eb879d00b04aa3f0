/* SPDX-License-Identifier: Apache-2.0
 *
 * test_file.c - whole files: map, read, write at once or not at all, copy, lock. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "support/folder.h"

struct place {
    char *dir, *a, *b; /* the folder, and two paths in it */
};

static int setup(void **state)
{
    static struct place p;
    p.dir = folder_make();
    p.a = nb_path_join(p.dir, "a");
    p.b = nb_path_join(p.dir, "b");
    *state = &p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    nb_free(p->a);
    nb_free(p->b);
    folder_remove(p->dir);
    return 0;
}

static void assert_content(const char *path, const char *expected)
{
    char *data;
    size_t bytes;
    struct nb_err err;
    if (nb_file_read(path, 1 << 20, &data, &bytes, &err)) fail_msg("%s", err.text);
    assert_int_equal(bytes, strlen(expected));
    assert_string_equal(data, expected);
    nb_free(data);
}

static void map_gives_the_bytes(void **state)
{
    struct place *p = *state;
    struct nb_map m;
    struct nb_err err;
    struct stat st;
    folder_text(p->dir, "a", "hello");
    assert_int_equal(nb_map_open(&m, p->a, &err), 0);
    assert_int_equal(m.span.bytes, 5);
    assert_memory_equal(m.span.data, "hello", 5);
    assert_int_equal(stat(p->a, &st), 0);
    assert_int_equal(m.inode, st.st_ino);
    assert_int_equal(m.device, st.st_dev);
    assert_int_equal(m.mtime_ns,
                     (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec);
    nb_map_close(&m);
    assert_null(m.span.data);
    nb_map_close(&m); /* twice is fine */
}

static void map_of_an_empty_file_is_empty(void **state)
{
    struct place *p = *state;
    struct nb_map m;
    struct nb_err err;
    folder_text(p->dir, "a", "");
    assert_int_equal(nb_map_open(&m, p->a, &err), 0);
    assert_int_equal(m.span.bytes, 0);
    assert_null(m.span.data);
    nb_map_drop(&m, m.span.data, 0);
    nb_map_close(&m);
}

/* Dropping is a hint: any range, aligned or not, and the bytes are still there afterwards. */
static void map_drop_loses_nothing(void **state)
{
    struct place *p = *state;
    struct nb_map m;
    struct nb_err err;
    enum { N = 300000 };
    unsigned char *data = nb_alloc(N, 1);
    for (size_t i = 0; i < N; i++) data[i] = (unsigned char)(i * 7 + i / 251);
    folder_write(p->dir, "a", data, N);
    assert_int_equal(nb_map_open(&m, p->a, &err), 0);
    assert_memory_equal(m.span.data, data, N);
    nb_map_drop(&m, m.span.data, N);
    nb_map_drop(&m, m.span.data + 5000, 100000);
    nb_map_drop(&m, m.span.data + N - 1, 1);
    assert_memory_equal(m.span.data, data, N);
    nb_map_close(&m);
    nb_free(data);
}

static void what_is_no_file_is_refused(void **state)
{
    struct place *p = *state;
    struct nb_map m;
    struct nb_err err;
    char *data, expected[600];
    size_t bytes;
    assert_int_equal(nb_map_open(&m, p->a, &err), NB_E_NOTFOUND);
    snprintf(expected, sizeof expected, "%s: cannot open: No such file or directory", p->a);
    assert_string_equal(err.text, expected);
    assert_int_equal(nb_map_open(&m, p->a, NULL), NB_E_IO);
    assert_int_equal(nb_map_open(&m, p->dir, &err), NB_E_FORMAT);
    snprintf(expected, sizeof expected, "%s: not a regular file", p->dir);
    assert_string_equal(err.text, expected);
    assert_int_equal(mkfifo(p->a, 0600), 0); /* must not wait for a writer */
    assert_int_equal(nb_map_open(&m, p->a, &err), NB_E_FORMAT);
    assert_int_equal(nb_file_read(p->a, 10, &data, &bytes, &err), NB_E_FORMAT);
    assert_null(data);
}

static void read_has_a_limit(void **state)
{
    struct place *p = *state;
    char *data, expected[600];
    size_t bytes;
    struct nb_err err;
    folder_write(p->dir, "a", "x\0y", 3);
    assert_int_equal(nb_file_read(p->a, 3, &data, &bytes, &err), 0);
    assert_int_equal(bytes, 3);
    assert_memory_equal(data, "x\0y", 4); /* NUL behind it */
    nb_free(data);
    assert_int_equal(nb_file_read(p->a, 2, &data, &bytes, &err), NB_E_FORMAT);
    snprintf(expected, sizeof expected, "%s: has 3 bytes, at most 2 are accepted", p->a);
    assert_string_equal(err.text, expected);
    assert_null(data);
    folder_text(p->dir, "a", "");
    assert_int_equal(nb_file_read(p->a, 0, &data, &bytes, &err), 0);
    assert_string_equal(data, "");
    nb_free(data);
}

static void write_replaces_at_once(void **state)
{
    struct place *p = *state;
    struct nb_err err;
    char *tmp = nb_path_join(p->dir, "a.tmp");
    assert_int_equal(nb_file_write(p->a, "one", 3, &err), 0);
    assert_content(p->a, "one");
    assert_int_equal(link(p->a, p->b), 0); /* keeps the old file in sight */
    assert_int_equal(nb_file_write(p->a, "second", 6, &err), 0);
    assert_content(p->a, "second");
    assert_content(p->b, "one");
    assert_false(nb_path_exists(tmp));
    assert_int_equal(nb_file_write(p->a, NULL, 0, &err), 0);
    assert_content(p->a, "");
    nb_free(tmp);
}

static void write_into_nowhere_is_named(void **state)
{
    struct place *p = *state;
    struct nb_err err;
    char *path = nb_path_join(p->a, "x"), expected[600];
    assert_int_equal(nb_file_write(path, "x", 1, &err), NB_E_NOTFOUND);
    snprintf(expected, sizeof expected, "%s.tmp: cannot create: No such file or directory", path);
    assert_string_equal(err.text, expected);
    nb_free(path);
    assert_int_equal(mkdir(p->a, 0755), 0); /* a folder cannot be replaced by a file */
    assert_int_not_equal(nb_file_write(p->a, "x", 1, &err), 0);
    path = nb_path_join(p->dir, "a.tmp");
    assert_false(nb_path_exists(path));
    nb_free(path);
}

static void short_file_is_named(void **state)
{
    struct place *p = *state;
    struct nb_err err;
    char data[8];
    folder_text(p->dir, "a", "12345");
    int fd = open(p->a, O_RDONLY | O_CLOEXEC);
    assert_int_equal(nb_pread_all(fd, data, 3, 2, "a", &err), 0);
    assert_memory_equal(data, "345", 3);
    assert_int_equal(nb_pread_all(fd, data, 4, 2, "a", &err), NB_E_FORMAT);
    assert_string_equal(err.text, "a: ends at byte 5, 1 bytes missing");
    assert_int_equal(nb_pwrite_all(fd, data, 1, 0, "a", &err), NB_E_IO); /* open for reading only */
    close(fd);
    assert_int_equal(nb_pread_all(-1, data, 1, 0, "a", &err), NB_E_IO);
    assert_string_equal(err.text, "a: cannot read: Bad file descriptor");
}

static void copy_follows_links_and_ignores_modes(void **state)
{
    struct place *p = *state;
    struct nb_err err;
    folder_text(p->dir, "a", "content");
    assert_int_equal(chmod(p->a, 0444), 0);
    assert_int_equal(nb_file_copy(p->a, p->b, &err), 0);
    assert_content(p->b, "content");
    struct stat st;
    assert_int_equal(stat(p->b, &st), 0);
    assert_true(st.st_mode & S_IWUSR); /* so that it can be replaced and removed */
    char *link = nb_path_join(p->dir, "link"), *c = nb_path_join(p->dir, "c");
    assert_int_equal(symlink("a", link), 0);
    assert_int_equal(nb_file_copy(link, c, &err), 0);
    assert_content(c, "content");
    assert_int_equal(lstat(c, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    nb_free(link);
    nb_free(c);
}

static void sizes_and_identity(void **state)
{
    struct place *p = *state;
    struct nb_err err;
    uint64_t bytes = 0;
    folder_text(p->dir, "a", "12345");
    assert_int_equal(nb_file_size(p->a, &bytes, &err), 0);
    assert_int_equal(bytes, 5);
    assert_int_equal(nb_file_size(p->b, &bytes, &err), NB_E_NOTFOUND);
    assert_true(nb_path_exists(p->a));
    assert_false(nb_path_exists(p->b));
    assert_false(nb_path_is_dir(p->a));
    assert_true(nb_path_is_dir(p->dir));
    assert_int_equal(symlink("a", p->b), 0);
    assert_true(nb_path_same(p->a, p->b));
    assert_false(nb_path_same(p->a, p->dir));
    assert_int_equal(unlink(p->a), 0);
    assert_true(nb_path_exists(p->b)); /* the link itself */
    assert_false(nb_path_same(p->b, p->b));
    assert_true(nb_path_free_bytes(p->dir) > 0);
    assert_int_equal(nb_path_free_bytes(p->a), 0);
}

static void rename_names_both(void **state)
{
    struct place *p = *state;
    struct nb_err err;
    char expected[1200];
    folder_text(p->dir, "a", "x");
    assert_int_equal(nb_rename(p->a, p->b, &err), 0);
    assert_content(p->b, "x");
    assert_int_equal(nb_rename(p->a, p->b, &err), NB_E_NOTFOUND);
    snprintf(expected, sizeof expected, "%s: cannot rename to %s: No such file or directory", p->a,
             p->b);
    assert_string_equal(err.text, expected);
}

static void paths(void **state)
{
    (void)state;
    static const struct {
        const char *dir, *name, *joined;
    } joins[] = {{"d", "n", "d/n"}, {"d/", "n", "d/n"}, {"d//", "n", "d/n"}, {"/", "n", "/n"},
                 {"//", "n", "/n"}, {"", "n", "n"},     {"/d", "n", "/d/n"}, {".", "n", "./n"}};
    for (size_t i = 0; i < sizeof joins / sizeof *joins; i++) {
        char *s = nb_path_join(joins[i].dir, joins[i].name);
        assert_string_equal(s, joins[i].joined);
        nb_free(s);
    }
    static const struct {
        const char *path, *parent;
    } parents[] = {{"a/b", "a"}, {"a/b/", "a"}, {"a//b//", "a"}, {"a", "."}, {"a/", "."},
                   {"/a", "/"},  {"/", "/"},    {"/a/b", "/a"},  {"", "."},  {"//a", "/"}};
    for (size_t i = 0; i < sizeof parents / sizeof *parents; i++) {
        char *s = nb_path_parent(parents[i].path);
        assert_string_equal(s, parents[i].parent);
        nb_free(s);
    }
}

/* Holds the lock in a child until the parent has seen that it is held. */
static void lock_keeps_others_out(void **state)
{
    struct place *p = *state;
    struct nb_err err;
    int ready[2], done[2], status;
    char c = 0;
    assert_int_equal(pipe(ready), 0);
    assert_int_equal(pipe(done), 0);
    pid_t child = fork();
    if (child == 0) {
        int fd = nb_lock_take(p->a, NULL);
        close(done[1]);
        if (write(ready[1], fd < 0 ? "n" : "y", 1) != 1 || read(done[0], &c, 1) < 0) _exit(1);
        _exit(0); /* with the lock still held */
    }
    assert_true(child > 0);
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    assert_int_equal(nb_lock_take(p->a, &err), -1);
    assert_int_equal(err.status, NB_E_BUSY);
    char expected[600];
    snprintf(expected, sizeof expected, "%s: another process is working here", p->a);
    assert_string_equal(err.text, expected);
    for (int i = 0; i < 2; i++) close(done[i]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    int fd = nb_lock_take(p->a, &err); /* the dead release it */
    assert_true(fd >= 0);
    assert_int_equal(nb_lock_take(p->a, &err), -1); /* also in one process */
    close(fd);
    fd = nb_lock_take(p->a, &err);
    assert_true(fd >= 0);
    close(fd);
    for (int i = 0; i < 2; i++) close(ready[i]);
    assert_int_equal(nb_lock_take("/nonexistent/lock", &err), -1);
    assert_int_equal(err.status, NB_E_NOTFOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(map_gives_the_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(map_of_an_empty_file_is_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(map_drop_loses_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_file_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(read_has_a_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(write_replaces_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(write_into_nowhere_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(short_file_is_named, setup, teardown),
        cmocka_unit_test_setup_teardown(copy_follows_links_and_ignores_modes, setup, teardown),
        cmocka_unit_test_setup_teardown(sizes_and_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(rename_names_both, setup, teardown),
        cmocka_unit_test(paths),
        cmocka_unit_test_setup_teardown(lock_keeps_others_out, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
