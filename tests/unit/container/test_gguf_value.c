/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "container/gguf.h"
#include "gguf_image.h"

static const struct nb_span texts[] = {{(const unsigned char *)"<s>", 3},
                                       {(const unsigned char *)"", 0},
                                       {(const unsigned char *)"a\0b\xff", 4}};

/* One value of every type. */
static void all_types(struct nb_strbuf *b)
{
    gguf_begin(b, 3, 0, 18);
    gguf_key(b, "u8", 0);
    gguf_u8(b, 200);
    gguf_key(b, "i8", 1);
    gguf_u8(b, (uint8_t)-3);
    gguf_key(b, "u16", 2);
    gguf_u16(b, 60000);
    gguf_key(b, "i16", 3);
    gguf_u16(b, (uint16_t)-300);
    gguf_key(b, "u32", 4);
    gguf_u32(b, 4000000000);
    gguf_key(b, "i32", 5);
    gguf_u32(b, (uint32_t)-70000);
    gguf_key(b, "f32", 6);
    gguf_f32(b, 1e-5f);
    gguf_key(b, "yes", 7);
    gguf_u8(b, 2);
    gguf_key(b, "no", 7);
    gguf_u8(b, 0);
    gguf_key(b, "text", 8);
    gguf_text(b, "llama");
    gguf_key(b, "u64", 10);
    gguf_u64(b, UINT64_MAX);
    gguf_key(b, "i64", 11);
    gguf_u64(b, (uint64_t)-5);
    gguf_key(b, "f64", 12);
    static const double pi = 3.141592653589793;
    nb_strbuf_add(b, &pi, sizeof pi);
    gguf_array(b, "ids", 5, 4);
    for (int i = 0; i < 4; i++) gguf_u32(b, (uint32_t)(i - 2));
    gguf_array(b, "scores", 6, 3);
    gguf_f32(b, -1000);
    gguf_f32(b, 0.1f);
    gguf_f32(b, INFINITY);
    gguf_array(b, "tokens", 8, 3);
    for (int i = 0; i < 3; i++) {
        gguf_u64(b, texts[i].bytes);
        nb_strbuf_add(b, texts[i].data, texts[i].bytes);
    }
    gguf_array(b, "none", 8, 0);
    gguf_key(b, "bytes", 8);
    gguf_text(b, "x\xc3\xa9\xe2\x82\xac\xf0\x9f\x99\x82|\xc0\x80|\xed\xa0\x80|\xe2\x82");
}

struct opened {
    struct nb_strbuf image;
    struct nb_gguf *g;
};

static int setup(void **state)
{
    struct nb_err err;
    struct opened *o = malloc(sizeof *o);
    assert_non_null(o);
    all_types(&o->image);
    struct nb_span span = {(unsigned char *)o->image.data, o->image.len};
    if (nb_gguf_parse(&o->g, span, "f", &err)) fail_msg("%s", err.text);
    *state = o;
    return 0;
}

static int teardown(void **state)
{
    struct opened *o = *state;
    nb_gguf_close(o->g);
    nb_strbuf_release(&o->image);
    free(o);
    return 0;
}

static void test_scalars(void **state)
{
    const struct nb_gguf *g = ((struct opened *)*state)->g;
    struct nb_err err;
    uint16_t u16 = 0;
    uint32_t u32 = 0;
    int32_t i32 = 0;
    float f32 = 0;
    bool b = false;
    struct nb_span text;
    assert_int_equal(nb_gguf_get_u16(g, "u16", true, &u16, &err), 0);
    assert_int_equal(u16, 60000);
    assert_int_equal(nb_gguf_get_u32(g, "u32", true, &u32, &err), 0);
    assert_int_equal(u32, 4000000000);
    assert_int_equal(nb_gguf_get_i32(g, "i32", true, &i32, &err), 0);
    assert_int_equal(i32, -70000);
    assert_int_equal(nb_gguf_get_f32(g, "f32", true, &f32, &err), 0);
    assert_true(f32 == 1e-5f);
    assert_int_equal(nb_gguf_get_bool(g, "yes", true, &b, &err), 0);
    assert_true(b);
    assert_int_equal(nb_gguf_get_bool(g, "no", true, &b, &err), 0);
    assert_false(b);
    assert_int_equal(nb_gguf_get_string(g, "text", true, &text, &err), 0);
    assert_int_equal(text.bytes, 5);
    assert_memory_equal(text.data, "llama", 5);
    assert_int_equal(nb_gguf_kv_count(g), 18);
    assert_string_equal(nb_gguf_kv_at(g, 17)->key, "bytes");
}

static void test_missing_and_mistyped(void **state)
{
    const struct nb_gguf *g = ((struct opened *)*state)->g;
    struct nb_err err;
    uint32_t u32 = 77;
    assert_int_equal(nb_gguf_get_u32(g, "absent", false, &u32, &err), 0);
    assert_int_equal(u32, 77);
    assert_int_equal(nb_gguf_get_u32(g, "absent", true, &u32, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "f: key 'absent' is missing");
    assert_int_equal(nb_gguf_get_u32(g, "i32", false, &u32, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "f: key 'i32' is int32, expected uint32");
    assert_int_equal(nb_gguf_get_u32(g, "ids", true, &u32, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "f: key 'ids' is array, expected uint32");
    assert_int_equal(u32, 77);
    const struct nb_gguf_kv *kv;
    assert_int_equal(nb_gguf_get_array(g, "absent", false, NB_GGUF_I32, &kv, &err), 0);
    assert_null(kv);
    assert_int_equal(nb_gguf_get_array(g, "absent", true, NB_GGUF_I32, &kv, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "f: key 'absent' is missing");
    assert_int_equal(nb_gguf_get_array(g, "ids", true, NB_GGUF_U32, &kv, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "f: key 'ids' is an array of int32, expected an array of uint32");
    assert_null(kv);
    assert_int_equal(nb_gguf_get_array(g, "i32", true, NB_GGUF_I32, &kv, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "f: key 'i32' is int32, expected an array of int32");
}

static void test_arrays(void **state)
{
    const struct nb_gguf *g = ((struct opened *)*state)->g;
    struct nb_err err;
    const struct nb_gguf_kv *kv;
    assert_int_equal(nb_gguf_get_array(g, "ids", true, NB_GGUF_I32, &kv, &err), 0);
    assert_int_equal(kv->count, 4);
    for (int i = 0; i < 4; i++) assert_int_equal(nb_gguf_i32_at(kv, (uint64_t)i), i - 2);
    assert_int_equal(nb_gguf_get_array(g, "scores", true, NB_GGUF_F32, &kv, &err), 0);
    assert_true(nb_gguf_f32_at(kv, 1) == 0.1f);
    struct nb_span *strings;
    size_t n;
    assert_int_equal(nb_gguf_get_strings(g, "tokens", true, &strings, &n, &err), 0);
    assert_int_equal(n, 3);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(strings[i].bytes, texts[i].bytes);
        assert_memory_equal(strings[i].data, texts[i].data, texts[i].bytes);
    }
    nb_free(strings);
    assert_int_equal(nb_gguf_get_strings(g, "none", true, &strings, &n, &err), 0);
    assert_int_equal(n, 0);
    nb_free(strings);
    assert_int_equal(nb_gguf_get_strings(g, "absent", false, &strings, &n, &err), 0);
    assert_int_equal(n, 0);
    assert_null(strings);
    assert_int_equal(nb_gguf_get_strings(g, "ids", false, &strings, &n, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "f: key 'ids' is an array of int32, expected an array of string");
    assert_null(strings);
}

static void test_json(void **state)
{
    const struct nb_gguf *g = ((struct opened *)*state)->g;
    struct nb_err err;
    json_t *all = nb_gguf_metadata_json(g, 3, &err);
    assert_non_null(all);
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    assert_int_equal(nb_json_dump(all, false, &text, &err), 0);
    assert_string_equal(
        text.data,
        "{\"u8\":200,\"i8\":-3,\"u16\":60000,\"i16\":-300,\"u32\":4000000000,\"i32\":-70000,"
        "\"f32\":1e-05,\"yes\":true,\"no\":false,\"text\":\"llama\",\"u64\":1.8446744073709552e+19,"
        "\"i64\":-5,\"f64\":3.141592653589793,\"scores\":[-1000.0,0.1,null],"
        "\"tokens\":[\"<s>\",\"\",\"a\\u0000b\xef\xbf\xbd\"],\"none\":[],"
        "\"bytes\":\"x\xc3\xa9\xe2\x82\xac\xf0\x9f\x99\x82|\xef\xbf\xbd\xef\xbf\xbd|"
        "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd\"}");
    nb_strbuf_release(&text);
    json_decref(all);
    json_t *first = nb_gguf_kv_json(nb_gguf_kv_find(g, "ids"), 2);
    assert_int_equal(json_array_size(first), 2);
    assert_int_equal(json_integer_value(json_array_get(first, 1)), -1);
    json_decref(first);
}

/* Every float survives its way through the decimal text. */
static void test_float_text(void **state)
{
    (void)state;
    static const float values[] = {0.1f,    1e-6f,       10000.0f,      1.17549435e-38f, 1e-45f,
                                   -0.333f, 16777217.0f, 3.4028235e38f, 0.30000001f};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct nb_gguf_kv kv = {.key = "f",
                                .type = NB_GGUF_F32,
                                .elem = NB_GGUF_F32,
                                .count = 1,
                                .data = {(const unsigned char *)&values[i], sizeof(float)}};
        json_t *v = nb_gguf_kv_json(&kv, 0);
        assert_true((float)json_real_value(v) == values[i]);
        json_decref(v);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_scalars, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_and_mistyped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_arrays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_json, setup, teardown),
        cmocka_unit_test(test_float_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
