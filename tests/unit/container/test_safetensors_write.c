/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/sha256.h"
#include "container/safetensors.h"
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

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct nb_err *e_ = &err;                                                                  \
        if (call) fail_msg("%s", e_->text);                                                        \
    } while (0)

static void plan(struct nb_st_writer *w, const char *name, enum nb_dtype dtype, int64_t n)
{
    struct nb_err err;
    OK(nb_st_writer_plan(w, name, dtype, 1, &n, &err));
}

/* Three tensors, the widest last: 3 F16 (odd, so that a later I32 would stand at an odd place), U8, I32. */
static struct nb_st_writer *planned(void)
{
    struct nb_st_writer *w = nb_st_writer_new();
    plan(w, "half", NB_F16, 3);
    plan(w, "byte", NB_U8, 5);
    plan(w, "int", NB_I32, 4);
    return w;
}

static const unsigned char half[6] = {1, 2, 3, 4, 5, 6}, byte[5] = {7, 8, 9, 10, 11},
                           ints[16] = {12, 13, 14};

static void put_all(struct nb_st_writer *w)
{
    struct nb_err err;
    OK(nb_st_writer_put(w, "int", ints, sizeof ints, &err));
    OK(nb_st_writer_put(w, "half", half, sizeof half, &err));
    OK(nb_st_writer_put(w, "byte", byte, sizeof byte, &err));
}

static void write_all(const char *dir, uint64_t max_shard_bytes)
{
    struct nb_err err;
    struct nb_st_writer *w = planned();
    struct nb_st_writer_opts o = {.dir = dir, .max_shard_bytes = max_shard_bytes};
    OK(nb_st_writer_open(w, &o, &err));
    put_all(w);
    OK(nb_st_writer_finish(w, &err));
    nb_st_writer_free(w);
}

static void check_content(const char *dir)
{
    struct nb_err err;
    struct nb_safetensors *st;
    OK(nb_safetensors_open(&st, dir, &err));
    assert_int_equal(nb_safetensors_count(st), 3);
    assert_memory_equal(nb_safetensors_find(st, "half")->data.data, half, sizeof half);
    assert_memory_equal(nb_safetensors_find(st, "byte")->data.data, byte, sizeof byte);
    assert_memory_equal(nb_safetensors_find(st, "int")->data.data, ints, sizeof ints);
    for (size_t i = 0; i < 3; i++) { /* each tensor is aligned to its element */
        const struct nb_tensor *t = nb_safetensors_at(st, i);
        assert_int_equal((uintptr_t)t->data.data % ((size_t)nb_dtype_bits(t->dtype) / 8), 0);
    }
    nb_safetensors_close(st);
}

static char *read_file(const char *dir, const char *name, size_t *n)
{
    struct nb_err err;
    char *data, *path = nb_path_join(dir, name);
    OK(nb_file_read(path, 1 << 20, &data, n, &err));
    nb_free(path);
    return data;
}

static void test_single_shard(void **state)
{
    const char *dir = *state;
    write_all(dir, 0);
    check_content(dir);
    size_t n;
    char *file = read_file(dir, "model.safetensors", &n);
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"int\":{\"dtype\":\"I32\",\"shape\":[4],\"data_offsets\":[0,16]},"
        "\"half\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[16,22]},"
        "\"byte\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[22,27]}}";
    assert_memory_equal(file + 8, header, sizeof header - 1);
    size_t data = 8 + (unsigned char)file[0] + 256 * (size_t)(unsigned char)file[1];
    assert_int_equal(data % 64, 0);
    assert_int_equal(n, data + 27);
    for (size_t i = 8 + sizeof header - 1; i < data; i++) assert_int_equal(file[i], ' ');
    nb_free(file);
    char *index = nb_path_join(dir, "model.safetensors.index.json");
    assert_false(nb_path_exists(index));
    nb_free(index);
}

static void test_shards_and_index(void **state)
{
    const char *dir = *state;
    write_all(dir, 11); /* half + byte fill one shard exactly, int is larger than a shard */
    check_content(dir);
    size_t n;
    char *index = read_file(dir, "model.safetensors.index.json", &n);
    assert_string_equal(index, "{\n"
                               "  \"metadata\": {\n"
                               "    \"total_size\": 27\n"
                               "  },\n"
                               "  \"weight_map\": {\n"
                               "    \"byte\": \"model-00001-of-00002.safetensors\",\n"
                               "    \"half\": \"model-00001-of-00002.safetensors\",\n"
                               "    \"int\": \"model-00002-of-00002.safetensors\"\n"
                               "  }\n"
                               "}\n");
    nb_free(index);
}

/* Files of another plan would be read beside ours. Others are nobody's business. */
static void test_stale_files_go(void **state)
{
    const char *dir = *state;
    write_all(dir, 11);
    folder_text(dir, "adapter.safetensors", "keep me");
    write_all(dir, 0);
    struct nb_err err;
    char **names;
    size_t n;
    OK(nb_dir_list(dir, &names, &n, &err));
    assert_int_equal(n, 2);
    assert_string_equal(names[0], "adapter.safetensors");
    assert_string_equal(names[1], "model.safetensors");
    nb_dir_list_free(names, n);
}

static void test_metadata(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    json_t *extra = json_pack("{s:s, s:s}", "format", "mine", "producer", "test");
    struct nb_st_writer *w = planned();
    struct nb_st_writer_opts o = {.dir = dir, .metadata = extra};
    OK(nb_st_writer_open(w, &o, &err));
    put_all(w);
    OK(nb_st_writer_finish(w, &err));
    nb_st_writer_free(w);
    json_decref(extra);
    size_t n;
    char *file = read_file(dir, "model.safetensors", &n);
    static const char start[] = "{\"__metadata__\":{\"format\":\"pt\",\"producer\":\"test\"},";
    assert_memory_equal(file + 8, start, sizeof start - 1);
    nb_free(file);
}

static void test_resume(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    write_all(dir, 11);
    size_t n;
    char *before = read_file(dir, "model-00002-of-00002.safetensors", &n);
    struct nb_st_writer *w = planned();
    struct nb_st_writer_opts o = {.dir = dir, .max_shard_bytes = 11, .resume = true};
    OK(nb_st_writer_open(w, &o, &err));
    assert_int_equal(nb_st_writer_shard_count(w), 2);
    assert_string_equal(nb_st_writer_shard_name(w, 1), "model-00002-of-00002.safetensors");
    OK(nb_st_writer_mark(w, "half", &err));
    OK(nb_st_writer_mark(w, "int", &err));
    assert_int_equal(nb_st_writer_finish(w, &err), NB_E_FAIL);
    assert_string_equal(err.text, "tensor 'byte' was planned but never written");
    OK(nb_st_writer_put(w, "byte", byte, sizeof byte, &err));
    OK(nb_st_writer_finish(w, &err));
    nb_st_writer_free(w);
    check_content(dir);
    char *after = read_file(dir, "model-00002-of-00002.safetensors", &n);
    assert_memory_equal(before, after, n);
    nb_free(before);
    nb_free(after);
}

/* A shard that was lost, cut short or belongs to another plan is made anew, and its tensors are not there. */
static void test_resume_with_changed_shard(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    write_all(dir, 11);
    folder_text(dir, "model-00001-of-00002.safetensors", "short");
    struct nb_st_writer *w = planned();
    struct nb_st_writer_opts o = {.dir = dir, .max_shard_bytes = 11, .resume = true};
    OK(nb_st_writer_open(w, &o, &err));
    OK(nb_st_writer_mark(w, "int", &err));
    assert_int_equal(nb_st_writer_mark(w, "half", &err), NB_E_FORMAT);
    char expected[512];
    snprintf(
        expected, sizeof expected,
        "%s/model-00001-of-00002.safetensors: was lost or changed, so tensor 'half' is not there",
        dir);
    assert_string_equal(err.text, expected);
    put_all(w);
    OK(nb_st_writer_finish(w, &err));
    nb_st_writer_free(w);
    check_content(dir);
    /* without resume nothing is kept */
    w = planned();
    o.resume = false;
    OK(nb_st_writer_open(w, &o, &err));
    assert_int_equal(nb_st_writer_mark(w, "int", &err), NB_E_FORMAT);
    nb_st_writer_free(w);
}

static void test_misuse(void **state)
{
    const char *dir = *state;
    struct nb_err err;
    int64_t one = 1, odd = 3, shape9[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1},
            huge[2] = {INT64_MAX, INT64_MAX};
    struct nb_st_writer_opts o = {.dir = dir};
    struct nb_st_writer *w = nb_st_writer_new();
    assert_int_equal(nb_st_writer_open(w, &o, &err), NB_E_SPEC);
    assert_int_equal(nb_st_writer_plan(w, "__metadata__", NB_U8, 1, &one, &err), NB_E_FORMAT);
    assert_int_equal(nb_st_writer_plan(w, "", NB_U8, 1, &one, &err), NB_E_FORMAT);
    assert_int_equal(nb_st_writer_plan(w, "a", NB_F4, 1, &odd, &err), NB_E_FORMAT);
    assert_int_equal(nb_st_writer_plan(w, "a", NB_U8, 9, shape9, &err), NB_E_FORMAT);
    assert_int_equal(nb_st_writer_plan(w, "a", NB_U8, 2, huge, &err), NB_E_FORMAT);
    assert_int_equal(nb_st_writer_put(w, "a", &one, 1, &err), NB_E_FAIL);
    plan(w, "a", NB_U8, 1);
    plan(w, "a", NB_U8, 1);
    assert_int_equal(nb_st_writer_bytes(w), 2);
    assert_int_equal(nb_st_writer_open(w, &o, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "tensor 'a' is planned twice");
    nb_st_writer_free(w);
    w = planned();
    OK(nb_st_writer_open(w, &o, &err));
    assert_int_equal(nb_st_writer_put(w, "half", half, 5, &err), NB_E_FAIL);
    assert_string_equal(err.text, "tensor 'half' has 5 bytes, planned were 6");
    assert_int_equal(nb_st_writer_put(w, "whole", half, 5, &err), NB_E_FAIL);
    assert_string_equal(err.text, "tensor 'whole' was not planned");
    nb_st_writer_free(w);
    w = nb_st_writer_new();
    plan(w, "\xff", NB_U8, 1);
    assert_int_equal(nb_st_writer_open(w, &o, &err), NB_E_FORMAT);
    nb_st_writer_free(w);
}

/* Pieces in any order; the last one alone is not the tensor. */
static void test_pieces(void **state)
{
    const struct nb_st_writer_opts o = {.dir = *state};
    struct nb_err err;
    for (int whole = 0; whole <= 1; whole++) {
        struct nb_st_writer *w = nb_st_writer_new();
        plan(w, "a", NB_U8, 6);
        OK(nb_st_writer_open(w, &o, &err));
        OK(nb_st_writer_put_at(w, "a", 4, "56", 2, &err));
        assert_int_equal(nb_st_writer_put_at(w, "a", 5, "67", 2, &err), NB_E_FAIL);
        if (whole) OK(nb_st_writer_put_at(w, "a", 0, "1234", 4, &err));
        assert_int_equal(nb_st_writer_finish(w, &err), whole ? 0 : NB_E_FAIL);
        if (!whole) assert_string_equal(err.text, "tensor 'a' has 6 bytes, 2 of them were written");
        nb_st_writer_free(w);
    }
    struct nb_safetensors *st;
    OK(nb_safetensors_open(&st, *state, &err));
    assert_memory_equal(nb_safetensors_find(st, "a")->data.data, "123456", 6);
    nb_safetensors_close(st);
}

/* More than any disk: noticed before a byte of data, and nothing is left. */
static void test_disk_full(void **state)
{
    const char *dir = *state;
    if (!nb_path_free_bytes(dir)) skip();
    struct nb_err err;
    struct nb_st_writer *w = nb_st_writer_new();
    plan(w, "a", NB_U8, 1);
    plan(w, "b", NB_U8, (int64_t)1 << 52);
    struct nb_st_writer_opts o = {.dir = dir};
    assert_int_equal(nb_st_writer_open(w, &o, &err), NB_E_NOSPACE);
    assert_non_null(strstr(err.text, ": the disk is full: the weights need 45035996273"));
    assert_non_null(strstr(err.text, " are missing"));
    assert_string_equal(err.hint, "free that much space and run the same command again");
    nb_st_writer_free(w);
    char **names;
    size_t n;
    OK(nb_dir_list(dir, &names, &n, &err));
    assert_int_equal(n, 0);
    nb_dir_list_free(names, n);
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
    struct nb_st_writer *w = nb_st_writer_new();
    plan(w, "a", NB_U8, 1000);
    plan(w, "b", NB_U8, 10000);
    struct nb_st_writer_opts o = {.dir = dir, .max_shard_bytes = 1000};
    int rc = nb_st_writer_open(w, &o, &err);
    nb_st_writer_free(w);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, handler);
    assert_int_equal(rc, NB_E_IO);
    assert_non_null(
        strstr(err.text, "/model-00002-of-00002.safetensors: cannot reserve 10128 bytes"));
    assert_string_equal(err.hint,
                        "the file system takes no file of that size: choose smaller shards");
    char **names;
    size_t n;
    OK(nb_dir_list(dir, &names, &n, &err));
    assert_int_equal(n, 0);
    nb_dir_list_free(names, n);
}

struct parallel {
    struct nb_st_writer *w;
    int failed[64];
};

static void put_piece(void *ctx, size_t piece, int thread)
{
    (void)thread;
    struct parallel *p = ctx;
    char name[16];
    unsigned char data[1000];
    memset(data, (int)piece, sizeof data);
    snprintf(name, sizeof name, "t%02zu", piece);
    p->failed[piece] = nb_st_writer_put(p->w, name, data, sizeof data, NULL);
}

static void write_parallel(const char *dir, int threads, char sha256[NB_SHA256_HEX])
{
    struct nb_err err;
    struct parallel p = {.w = nb_st_writer_new()};
    for (int i = 0; i < 64; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%02d", i);
        plan(p.w, name, NB_U8, 1000);
    }
    struct nb_st_writer_opts o = {.dir = dir};
    OK(nb_st_writer_open(p.w, &o, &err));
    struct nb_pool *pool = nb_pool_new(threads, &err);
    nb_pool_run(pool, 64, put_piece, &p);
    nb_pool_free(pool);
    for (int i = 0; i < 64; i++) assert_int_equal(p.failed[i], 0);
    OK(nb_st_writer_finish(p.w, &err));
    nb_st_writer_free(p.w);
    char *path = nb_path_join(dir, "model.safetensors");
    OK(nb_sha256_file(path, sha256, &err));
    nb_free(path);
}

static void test_threads(void **state)
{
    char one[NB_SHA256_HEX], four[NB_SHA256_HEX];
    write_parallel(*state, 1, one);
    write_parallel(*state, 4, four);
    assert_string_equal(one, four);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_single_shard, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shards_and_index, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stale_files_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_metadata, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resume, setup, teardown),
        cmocka_unit_test_setup_teardown(test_resume_with_changed_shard, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_misuse, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_file_too_long, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
