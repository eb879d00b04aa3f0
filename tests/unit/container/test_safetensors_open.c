/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "container/safetensors.h"
#include "image.h"
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

/* dir/file with one U8 tensor per name, of one byte that is the name's first letter. */
static void write_shard(const char *dir, const char *file, const char *const *names)
{
    char header[1024] = "{";
    char data[16];
    size_t n = 0;
    for (; names[n]; n++) {
        size_t at = strlen(header);
        snprintf(header + at, sizeof header - at,
                 "%s\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%zu,%zu]}",
                 n ? "," : "", names[n], n, n + 1);
        data[n] = names[n][0];
    }
    snprintf(header + strlen(header), sizeof header - strlen(header), "}");
    struct image im = image_make(header, data, n);
    folder_write(dir, file, im.bytes, im.n);
    free(im.bytes);
}

/* Opening dir fails with exactly this sentence; a leading % stands for dir. */
static void refuses(const char *dir, int status, const char *format)
{
    struct nb_err err = {0};
    struct nb_safetensors *st;
    char expected[1024];
    snprintf(expected, sizeof expected, "%s%s", format[0] == '%' ? dir : "",
             format[0] == '%' ? format + 1 : format);
    int rc = nb_safetensors_open(&st, dir, &err);
    assert_string_equal(err.text, expected);
    assert_int_equal(rc, status);
    assert_null(st);
}

static struct nb_safetensors *opened(const char *path)
{
    struct nb_err err;
    struct nb_safetensors *st;
    if (nb_safetensors_open(&st, path, &err)) fail_msg("%s", err.text);
    return st;
}

static void test_shards_by_index(void **state)
{
    const char *dir = *state;
    write_shard(dir, "two.safetensors", (const char *[]){"b", "d", NULL});
    write_shard(dir, "one.safetensors", (const char *[]){"c", "a", NULL});
    write_shard(dir, "stray.safetensors", (const char *[]){"a", "adapter", NULL});
    folder_text(
        dir, "model.safetensors.index.json",
        "{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\",\"c\":\"one.safetensors\","
        "\"d\":\"two.safetensors\"}}");
    struct nb_safetensors *st = opened(dir);
    assert_int_equal(nb_safetensors_count(st), 4);
    assert_int_equal(nb_safetensors_bytes(st), 4);
    assert_int_equal(nb_safetensors_file_count(st), 2);
    assert_string_equal(nb_safetensors_file_name(st, 0), "one.safetensors");
    assert_string_equal(nb_safetensors_file_name(st, 1), "two.safetensors");
    for (size_t i = 0; i < 4; i++) {
        const struct nb_tensor *t = nb_safetensors_at(st, i);
        char name[2] = {(char)('a' + (int)i), 0};
        assert_string_equal(t->name, name);
        assert_int_equal(t->data.data[0], name[0]);
        assert_ptr_equal(nb_safetensors_find(st, name), t);
        assert_int_equal(nb_safetensors_index_of(st, t), i);
        assert_string_equal(nb_safetensors_file_of(st, t),
                            i % 2 ? "two.safetensors" : "one.safetensors");
        nb_safetensors_drop(st, t);
        assert_int_equal(t->data.data[0], name[0]);
    }
    assert_null(nb_safetensors_find(st, "adapter"));
    assert_null(nb_safetensors_find(st, ""));
    nb_safetensors_close(st);
}

static void test_single_file(void **state)
{
    const char *dir = *state;
    write_shard(dir, "model.safetensors", (const char *[]){"a", NULL});
    write_shard(dir, "other.safetensors", (const char *[]){"b", NULL});
    struct nb_safetensors *st = opened(dir);
    assert_int_equal(nb_safetensors_count(st), 1);
    nb_safetensors_close(st);
    char path[512];
    snprintf(path, sizeof path, "%s/other.safetensors", dir);
    st = opened(path);
    assert_non_null(nb_safetensors_find(st, "b"));
    assert_string_equal(nb_safetensors_file_name(st, 0), "other.safetensors");
    nb_safetensors_close(st);
}

/* AutoGPTQ named its file after the settings. */
static void test_every_file(void **state)
{
    const char *dir = *state;
    write_shard(dir, "gptq_model-4bit-128g.safetensors", (const char *[]){"a", NULL});
    write_shard(dir, "more.safetensors", (const char *[]){"b", NULL});
    struct nb_safetensors *st = opened(dir);
    assert_int_equal(nb_safetensors_count(st), 2);
    nb_safetensors_close(st);
    /* an index of another name counts when it is the only one */
    folder_text(dir, "gptq_model-4bit-128g.safetensors.index.json",
                "{\"weight_map\":{\"a\":\"gptq_model-4bit-128g.safetensors\"}}");
    st = opened(dir);
    assert_int_equal(nb_safetensors_count(st), 1);
    nb_safetensors_close(st);
}

static void test_no_tensors(void **state)
{
    const char *dir = *state;
    struct image im = image_make("{}", NULL, 0);
    folder_write(dir, "model.safetensors", im.bytes, im.n);
    free(im.bytes);
    struct nb_safetensors *st = opened(dir);
    assert_int_equal(nb_safetensors_count(st), 0);
    assert_null(nb_safetensors_find(st, "a"));
    nb_safetensors_close(st);
}

static void test_nothing_there(void **state)
{
    const char *dir = *state;
    refuses(dir, NB_E_NOTFOUND, "%: holds no .safetensors file");
    folder_text(dir, "pytorch_model.bin", "x");
    struct nb_err err;
    struct nb_safetensors *st;
    assert_int_equal(nb_safetensors_open(&st, dir, &err), NB_E_NOTFOUND);
    assert_string_equal(err.hint,
                        "weights in PyTorch's own format must be converted to safetensors first");
    assert_int_equal(nb_safetensors_open(&st, "no/such/place", &err), NB_E_NOTFOUND);
    assert_string_equal(err.text, "no/such/place: cannot open: No such file or directory");
}

static void test_contradictions(void **state)
{
    const char *dir = *state;
    write_shard(dir, "one.safetensors", (const char *[]){"a", "b", NULL});
    write_shard(dir, "two.safetensors", (const char *[]){"c", NULL});
#define INDEX(text) folder_text(dir, "model.safetensors.index.json", "{\"weight_map\":{" text "}}")
    INDEX("\"a\":\"one.safetensors\",\"b\":\"two.safetensors\",\"c\":\"two.safetensors\"");
    refuses(
        dir, NB_E_FORMAT,
        "%/model.safetensors.index.json: tensor 'b' is said to be in two.safetensors but stands in one.safetensors");
    INDEX(
        "\"a\":\"one.safetensors\",\"b\":\"one.safetensors\",\"c\":\"two.safetensors\",\"d\":\"two.safetensors\"");
    refuses(dir, NB_E_FORMAT,
            "%/model.safetensors.index.json: tensor 'd' is not in two.safetensors");
    INDEX("\"a\":\"one.safetensors\",\"c\":\"two.safetensors\"");
    refuses(
        dir, NB_E_FORMAT,
        "%/model.safetensors.index.json: does not list tensor 'b', which stands in one.safetensors");
    INDEX("\"a\":\"one.safetensors\",\"b\":\"three.safetensors\"");
    refuses(dir, NB_E_FORMAT,
            "%/model.safetensors.index.json: names three.safetensors, which is missing");
    INDEX("\"a\":\"../one.safetensors\"");
    refuses(
        dir, NB_E_FORMAT,
        "%/model.safetensors.index.json: the file of tensor 'a' is '../one.safetensors', expected a plain name "
        "ending in .safetensors");
    write_shard(dir, "two.safetensors", (const char *[]){"a", NULL});
    INDEX("\"a\":\"one.safetensors\",\"b\":\"one.safetensors\",\"c\":\"two.safetensors\"");
    refuses(dir, NB_E_FORMAT, "%: tensor 'a' stands in one.safetensors and in two.safetensors");
#undef INDEX
}

static void test_truncated_shard(void **state)
{
    const char *dir = *state;
    struct image im =
        image_make("{\"a\":{\"dtype\":\"U8\",\"shape\":[100],\"data_offsets\":[0,100]}}", NULL, 99);
    folder_write(dir, "model.safetensors", im.bytes, im.n);
    free(im.bytes);
    refuses(dir, NB_E_FORMAT,
            "%/model.safetensors: tensor 'a' ends at byte 100 of the data, the file has 99");
    folder_write(dir, "model.safetensors", "", 0);
    refuses(dir, NB_E_FORMAT,
            "%/model.safetensors: has 0 bytes, a safetensors file has at least 8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_shards_by_index, setup, teardown),
        cmocka_unit_test_setup_teardown(test_single_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_tensors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_contradictions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_truncated_shard, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
