/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"
#include "container/gguf.h"
#include "gguf_image.h"
#include "support/folder.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct nb_err *e_ = &err;                                                                  \
        if (call) fail_msg("%s", e_->text);                                                        \
    } while (0)

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

static void plan(struct nb_gguf_writer *w, const char *name, int type, int64_t n)
{
    struct nb_err err;
    OK(nb_gguf_writer_plan(w, name, type, 1, &n, &err));
}

static char *path_in(const char *dir)
{
    return nb_path_join(dir, "m.gguf");
}

/* Opens below dir as m.gguf. */
static int open_in(struct nb_gguf_writer *w, const char *dir, uint64_t max_part_bytes, bool resume,
                   struct nb_err *err)
{
    char *path = path_in(dir);
    struct nb_gguf_writer_opts o = {
        .path = path, .max_part_bytes = max_part_bytes, .resume = resume};
    int rc = nb_gguf_writer_open(w, &o, err);
    nb_free(path);
    return rc;
}

static char *read_file(const char *dir, const char *name, size_t *n)
{
    struct nb_err err;
    char *data, *path = nb_path_join(dir, name);
    OK(nb_file_read(path, 1 << 20, &data, n, &err));
    nb_free(path);
    return data;
}

/* The names in dir, joined by blanks. */
static void expect_names(const char *dir, const char *expected)
{
    struct nb_err err;
    char **names, found[1024] = "";
    size_t n, at = 0;
    OK(nb_dir_list(dir, &names, &n, &err));
    for (size_t i = 0; i < n; i++) {
        at += (size_t)snprintf(found + at, sizeof found - at, "%s%s", i ? " " : "", names[i]);
    }
    nb_dir_list_free(names, n);
    assert_string_equal(found, expected);
}

/* The example of the format description, byte for byte. */
static void test_minimal_file(void **state)
{
    const char *dir = *state;
    static const char hex[] = "47475546030000000100000000000000010000000000000014000000000000006765"
                              "6e6572616c2e6172636869746563747572650800000005000000000000006c6c616d"
                              "610800000000000000612e776569676874010000000400000000000000"
                              "000000000000000000000000"
                              "00000000000000000000000000000000000000"
                              "0000803f000000400000404000008040"
                              "00000000000000000000000000000000";
    static const float values[] = {1, 2, 3, 4};
    struct nb_err err;
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    OK(nb_gguf_writer_set_string(w, "general.architecture", "llama", &err));
    int64_t ne[] = {4, 1, 1};
    OK(nb_gguf_writer_plan(w, "a.weight", 0, 3, ne, &err));
    OK(open_in(w, dir, 0, false, &err));
    expect_names(dir, "m.gguf.tmp");
    OK(nb_gguf_writer_put(w, "a.weight", values, sizeof values, &err));
    OK(nb_gguf_writer_finish(w, &err));
    nb_gguf_writer_free(w);
    expect_names(dir, "m.gguf");
    size_t n;
    unsigned char *file = (unsigned char *)read_file(dir, "m.gguf", &n);
    assert_int_equal(n, 160);
    assert_int_equal(sizeof hex - 1, 2 * n);
    for (size_t i = 0; i < n; i++) {
        char two[3];
        snprintf(two, sizeof two, "%02x", file[i]);
        assert_memory_equal(two, hex + 2 * i, 2);
    }
    nb_free(file);
}

static const unsigned char first[34] = {1, 2, 3}, second[40] = {4, 5, 6}, third[3] = {7, 8, 9};

/* Q8_0 (34 bytes), F32 (2 x 5), I8 (3). */
static struct nb_gguf_writer *planned(void)
{
    struct nb_err err;
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    OK(nb_gguf_writer_set_string(w, "general.name", "three", &err));
    plan(w, "first", 8, 32);
    int64_t ne[] = {2, 5};
    OK(nb_gguf_writer_plan(w, "second", 0, 2, ne, &err));
    plan(w, "third", 24, 3);
    assert_int_equal(nb_gguf_writer_bytes(w), 34 + 40 + 3);
    return w;
}

static void put_all(struct nb_gguf_writer *w)
{
    struct nb_err err;
    OK(nb_gguf_writer_put(w, "third", third, sizeof third, &err));
    OK(nb_gguf_writer_put_at(w, "second", 8, second + 8, 32, &err));
    OK(nb_gguf_writer_put(w, "first", first, sizeof first, &err));
    OK(nb_gguf_writer_put_at(w, "second", 0, second, 8, &err));
}

static void write_all(const char *dir, uint64_t max_part_bytes)
{
    struct nb_err err;
    struct nb_gguf_writer *w = planned();
    OK(open_in(w, dir, max_part_bytes, false, &err));
    put_all(w);
    OK(nb_gguf_writer_finish(w, &err));
    nb_gguf_writer_free(w);
}

static void check_content(const char *dir, size_t parts)
{
    struct nb_err err;
    struct nb_gguf *g;
    struct nb_span name;
    OK(nb_gguf_open(&g, dir, &err));
    assert_int_equal(nb_gguf_part_count(g), parts);
    assert_int_equal(nb_gguf_count(g), 3);
    assert_memory_equal(nb_gguf_find(g, "first")->data.data, first, sizeof first);
    assert_memory_equal(nb_gguf_find(g, "second")->data.data, second, sizeof second);
    assert_int_equal(nb_gguf_find(g, "second")->ne[1], 5);
    assert_memory_equal(nb_gguf_find(g, "third")->data.data, third, sizeof third);
    OK(nb_gguf_get_string(g, "general.name", true, &name, &err));
    assert_memory_equal(name.data, "three", 5);
    nb_gguf_close(g);
}

static void test_one_file(void **state)
{
    const char *dir = *state;
    write_all(dir, 0);
    check_content(dir, 1);
    size_t n;
    char *file = read_file(dir, "m.gguf", &n);
    assert_int_equal(n % 32, 0); /* the last tensor is padded, too, with zeros */
    for (size_t i = n - 32 + 3; i < n; i++) assert_int_equal(file[i], 0);
    nb_free(file);
    write_all(dir, n); /* fits exactly: still one file, the same */
    size_t again_n;
    char *again = read_file(dir, "m.gguf", &again_n);
    assert_int_equal(again_n, n);
    nb_free(again);
    expect_names(dir, "m.gguf");
}

static void test_split(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    write_all(dir, 280);
    expect_names(dir, "m-00001-of-00003.gguf m-00002-of-00003.gguf m-00003-of-00003.gguf");
    check_content(dir, 3);
    struct nb_gguf *g;
    OK(nb_gguf_open(&g, dir, &err));
    uint16_t v16 = 9;
    int32_t total = 0;
    OK(nb_gguf_get_u16(g, "split.no", true, &v16, &err));
    assert_int_equal(v16, 0);
    OK(nb_gguf_get_u16(g, "split.count", true, &v16, &err));
    assert_int_equal(v16, 3);
    OK(nb_gguf_get_i32(g, "split.tensors.count", true, &total, &err));
    assert_int_equal(total, 3);
    assert_int_equal(nb_gguf_find(g, "second")->part, 1);
    for (size_t i = 0; i < 3; i++) assert_in_range(nb_gguf_part_bytes(g, i), 100, 280);
    nb_gguf_close(g);
    /* the model's metadata stand in the first file only, its keys in all */
    char *path = nb_path_join(dir, "m-00002-of-00003.gguf");
    char *data;
    size_t n;
    OK(nb_file_read(path, 1 << 20, &data, &n, &err));
    OK(nb_gguf_parse(&g, (struct nb_span){(unsigned char *)data, n}, "f", &err));
    assert_int_equal(nb_gguf_kv_count(g), 3);
    assert_null(nb_gguf_kv_find(g, "general.name"));
    OK(nb_gguf_get_u16(g, "split.no", true, &v16, &err));
    assert_int_equal(v16, 1);
    nb_gguf_close(g);
    nb_free(data);
    nb_free(path);
}

/* A limit that no tensor meets: each stands alone, the first file has only metadata. */
static void test_split_tiny_limit(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    write_all(dir, 1);
    check_content(dir, 4);
    struct nb_gguf *g;
    OK(nb_gguf_open(&g, dir, &err));
    assert_int_equal(nb_gguf_at(g, 0)->part, 1);
    nb_gguf_close(g);
}

static void test_only_metadata(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    OK(nb_gguf_writer_set_string(w, "general.architecture", "llama", &err));
    OK(open_in(w, dir, 1, false, &err));
    assert_int_equal(nb_gguf_writer_part_count(w), 1);
    assert_int_equal(nb_gguf_writer_part_bytes(w, 0), 96);
    OK(nb_gguf_writer_finish(w, &err));
    nb_gguf_writer_free(w);
    struct nb_gguf *g;
    OK(nb_gguf_open(&g, dir, &err));
    assert_int_equal(nb_gguf_count(g), 0);
    nb_gguf_close(g);
}

/* What was flushed before the interruption stays; the rest is written; the file equals an undisturbed one. */
static void test_resume(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    write_all(dir, 0);
    size_t n;
    char *whole = read_file(dir, "m.gguf", &n);
    char *path = path_in(dir);
    assert_int_equal(unlink(path), 0);
    struct nb_gguf_writer *w = planned();
    OK(open_in(w, dir, 0, false, &err));
    OK(nb_gguf_writer_put(w, "first", first, sizeof first, &err));
    OK(nb_gguf_writer_put_at(w, "second", 0, second, 16, &err));
    OK(nb_gguf_writer_sync(w, &err));
    nb_gguf_writer_free(w);
    expect_names(dir, "m.gguf.tmp");

    w = planned();
    OK(open_in(w, dir, 0, true, &err));
    OK(nb_gguf_writer_mark(w, "first", &err));
    OK(nb_gguf_writer_put_at(w, "second", 0, second, 16, &err));
    assert_int_equal(nb_gguf_writer_finish(w, &err), NB_E_FAIL);
    assert_string_equal(err.text, "tensor 'second' has 40 bytes, 16 of them were written");
    OK(nb_gguf_writer_put_at(w, "second", 16, second + 16, 24, &err));
    OK(nb_gguf_writer_put(w, "third", third, sizeof third, &err));
    OK(nb_gguf_writer_finish(w, &err));
    nb_gguf_writer_free(w);
    char *again = read_file(dir, "m.gguf", &n);
    assert_memory_equal(again, whole, n);
    nb_free(again);
    nb_free(whole);
    nb_free(path);
}

/* An end between two renames: some files have their names already, others not. */
static void test_resume_while_renaming(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    write_all(dir, 280);
    char *name = nb_path_join(dir, "m-00001-of-00003.gguf");
    char *tmp = nb_path_join(dir, "m-00001-of-00003.gguf.tmp");
    OK(nb_rename(name, tmp, &err));
    nb_free(name);
    nb_free(tmp);
    struct nb_gguf_writer *w = planned();
    OK(open_in(w, dir, 280, true, &err));
    OK(nb_gguf_writer_mark(w, "first", &err));
    OK(nb_gguf_writer_mark(w, "second", &err));
    OK(nb_gguf_writer_mark(w, "third", &err));
    OK(nb_gguf_writer_finish(w, &err));
    nb_gguf_writer_free(w);
    expect_names(dir, "m-00001-of-00003.gguf m-00002-of-00003.gguf m-00003-of-00003.gguf");
    check_content(dir, 3);
}

/* A file that was cut short or belongs to another plan is made anew, and its tensors are not there. */
static void test_resume_with_other_file(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    struct nb_gguf_writer *w = planned();
    OK(nb_gguf_writer_set_u32(w, "one.more", 1, &err));
    OK(open_in(w, dir, 0, false, &err));
    nb_gguf_writer_free(w);
    w = planned();
    OK(open_in(w, dir, 0, true, &err));
    assert_int_equal(nb_gguf_writer_mark(w, "first", &err), NB_E_FORMAT);
    char expected[512];
    snprintf(expected, sizeof expected,
             "%s/m.gguf: was lost or changed, so tensor 'first' is not there", dir);
    assert_string_equal(err.text, expected);
    put_all(w);
    OK(nb_gguf_writer_finish(w, &err));
    nb_gguf_writer_free(w);
    check_content(dir, 1);
}

static void test_misuse(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    assert_int_equal(nb_gguf_writer_put(w, "a", first, 1, &err), NB_E_FAIL);
    plan(w, "a", 24, 1);
    plan(w, "b", 24, 1);
    plan(w, "a", 24, 1);
    assert_int_equal(open_in(w, dir, 0, false, &err), NB_E_SPEC);
    assert_string_equal(err.text, "tensor 'a' is planned twice");
    nb_gguf_writer_free(w);
    w = planned();
    OK(open_in(w, dir, 0, false, &err));
    assert_int_equal(nb_gguf_writer_put(w, "first", first, 5, &err), NB_E_FAIL);
    assert_string_equal(err.text, "tensor 'first' has 5 bytes, planned were 34");
    assert_int_equal(nb_gguf_writer_put(w, "fourth", first, 5, &err), NB_E_FAIL);
    assert_string_equal(err.text, "tensor 'fourth' was not planned");
    assert_int_equal(nb_gguf_writer_put_at(w, "third", 2, third, 2, &err), NB_E_FAIL);
    assert_string_equal(err.text, "tensor 'third': bytes 2 to 4 put, planned were 3");
    assert_int_equal(nb_gguf_writer_put_at(w, "third", 4, third, 0, &err), NB_E_FAIL);
    assert_int_equal(nb_gguf_writer_finish(w, &err), NB_E_FAIL);
    assert_string_equal(err.text, "tensor 'first' has 34 bytes, 0 of them were written");
    nb_gguf_writer_free(w);
    expect_names(dir, "m.gguf.tmp");
    w = planned();
    assert_int_equal(open_in(w, "/nonexistent", 0, false, &err), NB_E_NOTFOUND);
    nb_gguf_writer_free(w);
}

static void test_discard(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    struct nb_gguf_writer *w = planned();
    nb_gguf_writer_discard(w); /* nothing is there yet */
    OK(open_in(w, dir, 280, false, &err));
    OK(nb_gguf_writer_put(w, "first", first, sizeof first, &err));
    nb_gguf_writer_discard(w);
    nb_gguf_writer_free(w);
    expect_names(dir, "");
    w = planned();
    OK(open_in(w, dir, 0, false, &err));
    put_all(w);
    OK(nb_gguf_writer_finish(w, &err));
    nb_gguf_writer_discard(w);
    nb_gguf_writer_free(w);
    expect_names(dir, "m.gguf");
}

static void test_too_many_parts(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    for (int i = 0; i < 65536; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        plan(w, name, 24, 1);
    }
    assert_int_equal(open_in(w, dir, 1, false, &err), NB_E_SPEC);
    assert_non_null(strstr(err.text,
                           "/m.gguf: files of at most 1 bytes would be 65536, at most 65535 can be "
                           "numbered"));
    nb_gguf_writer_free(w);
    expect_names(dir, "");
}

/* More than any disk: noticed before a byte of data, and nothing is left. */
static void test_disk_full(void **state)
{
    const char *dir = *state;
    if (!nb_path_free_bytes(dir)) skip();
    struct nb_err err;
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    plan(w, "a", 24, 1);
    plan(w, "b", 24, (int64_t)1 << 52);
    assert_int_equal(open_in(w, dir, 0, false, &err), NB_E_NOSPACE);
    assert_non_null(strstr(err.text, "/m.gguf: the disk is full: the model needs 45035996273"));
    assert_non_null(strstr(err.text, " are missing"));
    assert_string_equal(err.hint, "free that much space and run the same command again");
    nb_gguf_writer_free(w);
    expect_names(dir, "");
}

/* A file that the system refuses to make so long: everything made before is removed again. */
static void test_file_too_long(void **state)
{
    const char *dir = *state;
    struct rlimit old, tight;
    struct nb_err err;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = 4096;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    plan(w, "a", 24, 1000);
    plan(w, "b", 24, 10016);
    int rc = open_in(w, dir, 2000, false, &err);
    nb_gguf_writer_free(w);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    assert_int_equal(rc, NB_E_IO);
    assert_non_null(strstr(err.text, "/m-00002-of-00002.gguf.tmp: cannot reserve 10176 bytes"));
    assert_string_equal(err.hint, "the file system takes no file of that size: split the model");
    expect_names(dir, "");
}

enum { PIECES = 64, PIECE_BYTES = 1000 };

struct parallel {
    struct nb_gguf_writer *w;
    int failed[PIECES];
};

/* Half of the pieces are tensors of their own, half are pieces of one. */
static void put_piece(void *ctx, size_t piece, int thread)
{
    (void)thread;
    struct parallel *p = ctx;
    char name[16];
    unsigned char data[PIECE_BYTES];
    memset(data, (int)piece, sizeof data);
    snprintf(name, sizeof name, "t%02zu", piece);
    if (piece % 2) p->failed[piece] = nb_gguf_writer_put(p->w, name, data, sizeof data, NULL);
    else
        p->failed[piece] =
            nb_gguf_writer_put_at(p->w, "big", piece / 2 * PIECE_BYTES, data, sizeof data, NULL);
}

static char *write_parallel(const char *dir, int threads, size_t *n)
{
    struct nb_err err;
    struct parallel p = {.w = nb_gguf_writer_new()};
    plan(p.w, "big", 24, PIECES / 2 * PIECE_BYTES);
    for (int i = 1; i < PIECES; i += 2) {
        char name[16];
        snprintf(name, sizeof name, "t%02d", i);
        plan(p.w, name, 24, PIECE_BYTES);
    }
    OK(open_in(p.w, dir, 0, false, &err));
    struct nb_pool *pool = nb_pool_new(threads, &err);
    nb_pool_run(pool, PIECES, put_piece, &p);
    nb_pool_free(pool);
    for (int i = 0; i < PIECES; i++) assert_int_equal(p.failed[i], 0);
    OK(nb_gguf_writer_finish(p.w, &err));
    nb_gguf_writer_free(p.w);
    return read_file(dir, "m.gguf", n);
}

static void test_threads(void **state)
{
    size_t n, m;
    char *one = write_parallel(*state, 1, &n), *four = write_parallel(*state, 4, &m);
    assert_int_equal(n, m);
    assert_memory_equal(one, four, n);
    nb_free(one);
    nb_free(four);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_minimal_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split_tiny_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_metadata, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resume, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resume_while_renaming, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resume_with_other_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_misuse, setup, teardown),
        cmocka_unit_test_setup_teardown(test_discard, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_too_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
