/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/sha256.h"
#include "container/safetensors.h"
#include "image.h"

/* Worked example of the format description, section 1.5: 164 bytes. */
static const char example_hex[] =
    "90000000000000007b225f5f6d657461646174615f5f223a7b22666f726d6174223a227074227d2c2262223a7b226474797065223a22493332"
    "222c227368617065223a5b312c325d2c22646174615f6f666673657473223a5b302c385d7d2c2261223a7b226474797065223a224246313622"
    "2c227368617065223a5b325d2c22646174615f6f666673657473223a5b382c31325d7d7d2020ffffffff78563412c03f00c0";

static struct image from_hex(const char *hex)
{
    struct image im = {malloc(strlen(hex) / 2), strlen(hex) / 2};
    assert_non_null(im.bytes);
    for (size_t i = 0; i < im.n; i++) {
        unsigned v;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
        im.bytes[i] = (unsigned char)v;
    }
    return im;
}

/* The image is refused with exactly this sentence. */
static void refuses(struct image im, const char *sentence)
{
    struct nb_err err = {0};
    struct nb_tensor *tensors;
    json_t *header;
    size_t n;
    int rc =
        nb_safetensors_parse((struct nb_span){im.bytes, im.n}, "f", &tensors, &n, &header, &err);
    assert_string_equal(err.text, sentence);
    assert_int_equal(rc, NB_E_FORMAT);
    assert_int_equal(err.status, NB_E_FORMAT);
    assert_null(tensors);
    assert_null(header);
    free(im.bytes);
}

/* The same where the reason comes from the JSON library, whose wording is its own. */
static void refuses_json(struct image im)
{
    struct nb_err err = {0};
    struct nb_tensor *tensors;
    json_t *header;
    size_t n;
    static const char start[] = "f: header: not valid JSON at line 1, column ";
    assert_int_equal(
        nb_safetensors_parse((struct nb_span){im.bytes, im.n}, "f", &tensors, &n, &header, &err),
        NB_E_FORMAT);
    assert_memory_equal(err.text, start, sizeof start - 1);
    assert_null(tensors);
    assert_null(header);
    free(im.bytes);
}

static void refuses_header(const char *header, size_t n_data, const char *sentence)
{
    refuses(image_make(header, NULL, n_data), sentence);
}

static size_t accepts(struct image im)
{
    struct nb_err err = {0};
    struct nb_tensor *tensors;
    json_t *header;
    size_t n;
    if (nb_safetensors_parse((struct nb_span){im.bytes, im.n}, "f", &tensors, &n, &header, &err))
        fail_msg("%s", err.text);
    nb_free(tensors);
    json_decref(header);
    free(im.bytes);
    return n;
}

static void test_worked_example(void **state)
{
    (void)state;
    struct image im = from_hex(example_hex);
    char hex[NB_SHA256_HEX];
    nb_sha256_bytes(im.bytes, im.n, hex);
    assert_string_equal(hex, "1add96c3f12045f526eb07d66a8b9a8517b5b11365093ff9671e17f8b3dae62a");
    struct nb_err err;
    struct nb_tensor *t;
    json_t *header;
    size_t n;
    assert_int_equal(
        nb_safetensors_parse((struct nb_span){im.bytes, im.n}, "f", &t, &n, &header, &err), 0);
    assert_int_equal(n, 2);
    assert_string_equal(t[0].name, "b");
    assert_int_equal(t[0].dtype, NB_I32);
    assert_int_equal(t[0].rank, 2);
    assert_int_equal(t[0].shape[0], 1);
    assert_int_equal(t[0].shape[1], 2);
    assert_int_equal(t[0].data.bytes, 8);
    int32_t i[2];
    memcpy(i, t[0].data.data, sizeof i);
    assert_int_equal(i[0], -1);
    assert_int_equal(i[1], 305419896);
    assert_string_equal(t[1].name, "a");
    assert_int_equal(t[1].dtype, NB_BF16);
    float f[2];
    assert_true(nb_to_f32(f, t[1].data.data, t[1].dtype, 2));
    assert_true(f[0] == 1.5f && f[1] == -2.0f);
    nb_free(t);
    json_decref(header);
    free(im.bytes);
}

static void test_accepted(void **state)
{
    (void)state;
    assert_int_equal(accepts(from_hex("08000000000000007b7d202020202020")), 0);
    assert_int_equal(accepts(image_make("{}", NULL, 0)), 0);
    assert_int_equal(
        accepts(image_make(" \n{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}} ",
                           NULL, 1)),
        1);
    assert_int_equal(accepts(image_make("{\"__metadata__\":null}", NULL, 0)), 0);
    /* a dimension of 0, twice at the same place, and before a tensor that has bytes */
    assert_int_equal(
        accepts(image_make("{\"z\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[0,0]},"
                           "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                           "\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
                           NULL, 2)),
        3);
    /* four-bit elements: two per byte */
    assert_int_equal(
        accepts(image_make("{\"a\":{\"dtype\":\"F4\",\"shape\":[3,2],\"data_offsets\":[0,3]}}",
                           NULL, 3)),
        1);
}

static void test_every_dtype(void **state)
{
    (void)state;
    for (int d = 0; d < NB_DTYPE_COUNT; d++) {
        char header[160];
        size_t bytes = (size_t)nb_dtype_bits((enum nb_dtype)d) * 4 / 8;
        snprintf(header, sizeof header,
                 "{\"a\":{\"dtype\":\"%s\",\"shape\":[4],\"data_offsets\":[0,%zu]}}",
                 nb_dtype_name((enum nb_dtype)d), bytes);
        assert_int_equal(accepts(image_make(header, NULL, bytes)), 1);
    }
}

static void test_variants_of_the_example(void **state)
{
    (void)state;
    struct image im = from_hex(example_hex);
    im.bytes[0] = 145;
    refuses_json(im);
    im = from_hex(example_hex);
    im.bytes = realloc(im.bytes, im.n + 1);
    im.bytes[im.n++] = 0;
    refuses(im, "f: 1 bytes behind the last tensor");
    im = from_hex(example_hex);
    im.n--;
    refuses(im, "f: tensor 'a' ends at byte 12 of the data, the file has 11");

#define B(shape) "{\"b\":{\"dtype\":\"I32\",\"shape\":" shape ",\"data_offsets\":[0,8]}"
#define A(offsets) ",\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":" offsets "}}"
    refuses_header(B("[1,2]") A("[9,13]"), 12,
                   "f: tensor 'a' begins at byte 9 of the data, expected 8 (a hole)");
    refuses_header(B("[1,2]") A("[4,8]"), 12,
                   "f: tensor 'a' begins at byte 4 of the data, expected 8 (an overlap)");
    refuses_header(B("[1,3]") A("[8,12]"), 12,
                   "f: tensor 'b': shape and dtype need 12 bytes, data_offsets hold 8");
    refuses_header(B("[1e0,2]") A("[8,12]"), 12,
                   "f: tensor 'b': 'shape' holds a real number, expected an integer");
    refuses_header("{\"b\":{\"dtype\":\"I33\",\"shape\":[1,2],\"data_offsets\":[0,8]}" A("[8,12]"),
                   12, "f: tensor 'b': unknown dtype 'I33'");
    refuses_json(image_make(
        B("[1,2]") ",\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[8,12]}}", NULL, 12));
#undef A
#undef B
}

static void test_frame(void **state)
{
    (void)state;
    unsigned char *short_file = calloc(1, 7);
    refuses((struct image){short_file, 7}, "f: has 7 bytes, a safetensors file has at least 8");
    unsigned char *empty = malloc(1);
    refuses((struct image){empty, 0}, "f: has 0 bytes, a safetensors file has at least 8");
    struct image im = image_make("{}", NULL, 0);
    im.bytes[0] = 3;
    refuses(im, "f: header ends at byte 11, the file has 10");
    im = image_make("{}", NULL, 0);
    memset(im.bytes, 0xff, 8);
    refuses(im, "f: header of 18446744073709551615 bytes, at most 100000000 are allowed");
    refuses_json(image_make("", NULL, 0));
    refuses_header("[]", 0, "f: header is an array, expected an object");
    refuses_json(image_make("{} x", NULL, 0));
    refuses_json(image_make_raw("{\"\\u0000\":1}", 12, NULL, 0));
    refuses_json(image_make_raw("{\"\xff\":1}", 7, NULL, 0));
    refuses_header("{\"a\":[[[[1]]]]}", 0, "f: header: JSON nested deeper than 4 levels");
}

static void test_entries(void **state)
{
    (void)state;
#define ENTRY(text) "{\"a\":" text "}"
    refuses_header(ENTRY("1"), 0, "f: tensor 'a' is an integer, expected an object");
    refuses_header(ENTRY("{\"shape\":[1],\"data_offsets\":[0,1]}"), 1,
                   "f: tensor 'a': key 'dtype' is missing");
    refuses_header(ENTRY("{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,1]}"), 1,
                   "f: tensor 'a': key 'dtype': expected a string, found an integer");
    refuses_header(ENTRY("{\"dtype\":\"U8\",\"data_offsets\":[0,1]}"), 1,
                   "f: tensor 'a' has no 'shape'");
    refuses_header(ENTRY("{\"dtype\":\"U8\",\"shape\":3,\"data_offsets\":[0,1]}"), 1,
                   "f: tensor 'a': 'shape' is an integer, expected an array");
    refuses_header(ENTRY("{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}"),
                   1, "f: tensor 'a': 'shape' has 9 entries, at most 8 are allowed");
    refuses_header(
        ENTRY("{\"dtype\":\"U8\",\"shape\":[281474976710656],\"data_offsets\":[0,1]}"), 1,
        "f: tensor 'a': 'shape' holds 281474976710656, allowed are 0 to 281474976710655");
    refuses_header(
        ENTRY(
            "{\"dtype\":\"U8\",\"shape\":[281474976710655,281474976710655],\"data_offsets\":[0,1]}"),
        1, "f: tensor 'a': the shape's size overflows 64 bits");
    refuses_header(
        ENTRY("{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}"), 1,
        "f: header holds a negative number at byte 28; sizes and offsets are not negative");
    refuses_header(
        ENTRY("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-0,1]}"), 1,
        "f: header holds a negative number at byte 47; sizes and offsets are not negative");
    refuses_header(ENTRY("{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}"), 2,
                   "f: tensor 'a': 3 elements of F4 are no whole number of bytes");
    refuses_header(ENTRY("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}"), 1,
                   "f: tensor 'a' ends at byte 0 before it begins at 1");
    refuses_header(ENTRY("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}"), 1,
                   "f: tensor 'a': 'data_offsets' has 1 entries, expected 2");
    refuses_header(ENTRY("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}"), 1,
                   "f: tensor 'a': 'data_offsets' has 3 entries, at most 2 are allowed");
    refuses_header(ENTRY("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"more\":0}"), 1,
                   "f: tensor 'a' has 4 keys, expected dtype, shape and data_offsets");
    refuses_header(ENTRY("{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}"), 2,
                   "f: tensor 'a' begins at byte 1 of the data, expected 0 (a hole)");
    refuses_header("{\"__metadata__\":{\"format\":1}}", 0,
                   "f: __metadata__ key 'format' is an integer, expected a string");
    refuses_header("{\"__metadata__\":\"pt\"}", 0,
                   "f: __metadata__ is a string, expected an object");
    refuses_header("{}", 5, "f: 5 bytes behind the last tensor");
#undef ENTRY
}

/* A header whose JSON tree would be many times its size is refused before the tree is built. */
static void test_dense_headers(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    char *text = malloc(N + 1);
    assert_non_null(text);
    for (size_t i = 0; i < N; i++) text[i] = i % 2 ? ',' : '0';
    memcpy(text, "{\"a\":[", 6);
    memcpy(text + N - 2, "]}", 3);
    refuses_header(
        text, 0, "f: header is no table of tensors: 1 objects and 524284 commas in 1048576 bytes");
    free(text);
}

static void refuses_index(const char *text, const char *sentence)
{
    struct nb_err err = {0};
    json_t *map;
    assert_int_equal(nb_safetensors_parse_index(text, strlen(text), "i", &map, &err), NB_E_FORMAT);
    assert_string_equal(err.text, sentence);
    assert_null(map);
}

static void test_index(void **state)
{
    (void)state;
    struct nb_err err;
    json_t *map;
    const char *good =
        "{\"metadata\":{\"total_size\":1},\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\"}}";
    assert_int_equal(nb_safetensors_parse_index(good, strlen(good), "i", &map, &err), 0);
    assert_int_equal(json_object_size(map), 1);
    json_decref(map);
    refuses_index("[]", "i: weight_map is nothing, expected an object");
    refuses_index("{\"weight_map\":[]}", "i: weight_map is an array, expected an object");
    refuses_index("{\"weight_map\":{}}", "i: weight_map is empty");
    refuses_index("{\"weight_map\":{\"a\":1}}",
                  "i: the file of tensor 'a' is an integer, expected a string");
    static const char *const bad[] = {
        "../x.safetensors",    "/x.safetensors", "d/x.safetensors", ".x.safetensors",
        "d\\\\x.safetensors",  "x.bin",          ".safetensors",    "",
        "x\\u0000.safetensors"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[128];
        snprintf(text, sizeof text, "{\"weight_map\":{\"a\":\"%s\"}}", bad[i]);
        assert_int_equal(nb_safetensors_parse_index(text, strlen(text), "i", &map, &err),
                         NB_E_FORMAT);
        assert_non_null(strstr(err.text, "expected a plain name ending in .safetensors"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worked_example), cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_every_dtype),    cmocka_unit_test(test_variants_of_the_example),
        cmocka_unit_test(test_frame),          cmocka_unit_test(test_entries),
        cmocka_unit_test(test_dense_headers),  cmocka_unit_test(test_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
