/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
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

/* The file that the writer makes of its metadata alone. Frees w. */
static char *written(const char *dir, struct nb_gguf_writer *w, size_t *n)
{
    struct nb_err err;
    char *data, *path = nb_path_join(dir, "w.gguf");
    struct nb_gguf_writer_opts o = {.path = path};
    OK(nb_gguf_writer_open(w, &o, &err));
    OK(nb_gguf_writer_finish(w, &err));
    nb_gguf_writer_free(w);
    OK(nb_file_read(path, 1 << 20, &data, n, &err));
    nb_free(path);
    return data;
}

static void expect_file(const char *dir, struct nb_gguf_writer *w, struct nb_strbuf *image)
{
    size_t n;
    char *data = written(dir, w, &n);
    gguf_pad(image, 32);
    assert_int_equal(n, image->len);
    assert_memory_equal(data, image->data, n);
    nb_strbuf_release(image);
    nb_free(data);
}

static void test_every_type(void **state)
{
    struct nb_err err;
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    struct nb_strbuf b;
    static const uint8_t u8 = 9;
    static const int16_t i16s[] = {-1, 2};
    static const double f64 = 0.1;
    static const unsigned char bools[] = {0, 5};
    static const struct nb_span strings[] = {{(const unsigned char *)"a\0b", 3}, {NULL, 0}};
    OK(nb_gguf_writer_set_u32(w, "u32", 7, &err));
    OK(nb_gguf_writer_set_f32(w, "f32", 0.5f, &err));
    OK(nb_gguf_writer_set_bool(w, "bool", true, &err));
    OK(nb_gguf_writer_set_string(w, "text", "llama", &err));
    OK(nb_gguf_writer_set(w, "u8", NB_GGUF_U8, &u8, &err));
    OK(nb_gguf_writer_set(w, "f64", NB_GGUF_F64, &f64, &err));
    OK(nb_gguf_writer_set_bytes(w, "bytes", strings[0], &err));
    OK(nb_gguf_writer_set_array(w, "i16s", NB_GGUF_I16, i16s, 2, &err));
    OK(nb_gguf_writer_set_array(w, "bools", NB_GGUF_BOOL, bools, 2, &err));
    OK(nb_gguf_writer_set_strings(w, "strings", strings, 2, &err));
    gguf_begin(&b, 3, 0, 10);
    gguf_key(&b, "u32", 4);
    gguf_u32(&b, 7);
    gguf_key(&b, "f32", 6);
    gguf_f32(&b, 0.5f);
    gguf_key(&b, "bool", 7);
    gguf_u8(&b, 1);
    gguf_key(&b, "text", 8);
    gguf_text(&b, "llama");
    gguf_key(&b, "u8", 0);
    gguf_u8(&b, 9);
    gguf_key(&b, "f64", 12);
    nb_strbuf_add(&b, &f64, sizeof f64);
    gguf_key(&b, "bytes", 8);
    gguf_u64(&b, 3);
    nb_strbuf_add(&b, "a\0b", 3);
    gguf_array(&b, "i16s", 3, 2);
    gguf_u16(&b, 0xffff);
    gguf_u16(&b, 2);
    gguf_array(&b, "bools", 7, 2);
    gguf_u8(&b, 0);
    gguf_u8(&b, 1);
    gguf_array(&b, "strings", 8, 2);
    gguf_u64(&b, 3);
    nb_strbuf_add(&b, "a\0b", 3);
    gguf_u64(&b, 0);
    expect_file(*state, w, &b);
}

/* A key set again keeps its place. */
static void test_set_again(void **state)
{
    struct nb_err err;
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    struct nb_strbuf b;
    OK(nb_gguf_writer_set_u32(w, "b", 1, &err));
    OK(nb_gguf_writer_set_u32(w, "a", 2, &err));
    OK(nb_gguf_writer_set_u32(w, "c", 3, &err));
    OK(nb_gguf_writer_set_string(w, "b", "new", &err));
    gguf_begin(&b, 3, 0, 3);
    gguf_key(&b, "b", 8);
    gguf_text(&b, "new");
    gguf_key(&b, "a", 4);
    gguf_u32(&b, 2);
    gguf_key(&b, "c", 4);
    gguf_u32(&b, 3);
    expect_file(*state, w, &b);
}

static void test_json(void **state)
{
    struct nb_err err;
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    struct nb_strbuf b;
    json_t *v = json_pack("{s:I, s:f, s:b, s:s, s:[i,i], s:[i,f], s:[b], s:[s,s]}", "n",
                          (json_int_t)UINT32_MAX, "base", 10000.0, "flag", 0, "text", "t", "ids",
                          -1, 5, "mixed", 1, 0.5, "flags", 1, "words", "x", "yz");
    assert_non_null(v);
    const char *key;
    json_t *item;
    json_object_foreach(v, key, item) OK(nb_gguf_writer_set_json(w, key, item, &err));
    json_decref(v);
    gguf_begin(&b, 3, 0, 8);
    gguf_key(&b, "n", 4);
    gguf_u32(&b, UINT32_MAX);
    gguf_key(&b, "base", 6);
    gguf_f32(&b, 10000);
    gguf_key(&b, "flag", 7);
    gguf_u8(&b, 0);
    gguf_key(&b, "text", 8);
    gguf_text(&b, "t");
    gguf_array(&b, "ids", 5, 2);
    gguf_u32(&b, UINT32_MAX);
    gguf_u32(&b, 5);
    gguf_array(&b, "mixed", 6, 2);
    gguf_f32(&b, 1);
    gguf_f32(&b, 0.5f);
    gguf_array(&b, "flags", 7, 1);
    gguf_u8(&b, 1);
    gguf_array(&b, "words", 8, 2);
    gguf_text(&b, "x");
    gguf_text(&b, "yz");
    expect_file(*state, w, &b);
}

static void refuses_json(struct nb_gguf_writer *w, json_t *v, const char *sentence)
{
    struct nb_err err;
    assert_int_equal(nb_gguf_writer_set_json(w, "k", v, &err), NB_E_SPEC);
    assert_string_equal(err.text, sentence);
    json_decref(v);
}

static void test_metadata_refusals(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    static const char ascii[] = "expected 1 to 65535 visible ASCII characters";
    static const char *const bad[] = {"", "a b", "caf\xc3\xa9", "tab\t"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(nb_gguf_writer_set_u32(w, bad[i], 1, &err), NB_E_SPEC);
        assert_non_null(strstr(err.text, ascii));
    }
    char *longest = nb_xalloc(65537);
    memset(longest, 'k', 65536);
    assert_int_equal(nb_gguf_writer_set_u32(w, longest, 1, &err), NB_E_SPEC);
    OK(nb_gguf_writer_set_u32(w, longest + 1, 1, &err));
    nb_free(longest);
    assert_int_equal(nb_gguf_writer_set_u32(w, "general.alignment", 32, &err), NB_E_SPEC);
    assert_string_equal(err.text, "metadata key 'general.alignment' is chosen by the writer");
    assert_int_equal(nb_gguf_writer_set_u32(w, "split.no", 1, &err), NB_E_SPEC);
    assert_int_equal(nb_gguf_writer_set_array(w, "k", NB_GGUF_U32, NULL, 0, &err), NB_E_SPEC);
    assert_string_equal(err.text, "metadata key 'k': an array may not be empty");
    assert_int_equal(nb_gguf_writer_set_strings(w, "k", NULL, 0, &err), NB_E_SPEC);
    assert_int_equal(nb_gguf_writer_set(w, "k", NB_GGUF_STRING, "s", &err), NB_E_SPEC);
    assert_string_equal(err.text, "metadata key 'k': string is no number");
    assert_int_equal(nb_gguf_writer_set_array(w, "k", NB_GGUF_ARRAY, "s", 1, &err), NB_E_SPEC);
    refuses_json(w, json_integer(-1), "metadata key 'k': -1 does not fit uint32");
    refuses_json(w, json_integer((json_int_t)1 << 32),
                 "metadata key 'k': 4294967296 does not fit uint32");
    refuses_json(w, json_null(), "metadata key 'k': no type stores null");
    refuses_json(w, json_object(), "metadata key 'k': no type stores an object");
    refuses_json(w, json_array(), "metadata key 'k': an array may not be empty");
    refuses_json(w, json_pack("[i,s]", 1, "x"),
                 "metadata key 'k': no type stores this mixture in an array");
    nb_gguf_writer_free(w);
}

/* All that another file says comes over unchanged, but for what the writer chooses. */
static void test_copy(void **state)
{
    struct nb_err err;
    struct nb_strbuf from, b;
    gguf_begin(&from, 2, 0, 6);
    gguf_key(&from, "general.alignment", 4);
    gguf_u32(&from, 64);
    gguf_key(&from, "split.count", 2);
    gguf_u16(&from, 1);
    gguf_array(&from, "none", 8, 0);
    gguf_array(&from, "words", 8, 2);
    gguf_text(&from, "");
    gguf_text(&from, "xyz");
    gguf_key(&from, "flag", 7);
    gguf_u8(&from, 2);
    gguf_array(&from, "big", 11, 1);
    gguf_u64(&from, 1);
    struct nb_gguf *g;
    OK(nb_gguf_parse(&g, (struct nb_span){(unsigned char *)from.data, from.len}, "f", &err));
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    for (size_t i = 0; i < nb_gguf_kv_count(g); i++)
        OK(nb_gguf_writer_copy(w, nb_gguf_kv_at(g, i), &err));
    nb_gguf_close(g);
    nb_strbuf_release(&from);
    gguf_begin(&b, 3, 0, 3);
    gguf_array(&b, "words", 8, 2);
    gguf_text(&b, "");
    gguf_text(&b, "xyz");
    gguf_key(&b, "flag", 7);
    gguf_u8(&b, 1);
    gguf_array(&b, "big", 11, 1);
    gguf_u64(&b, 1);
    expect_file(*state, w, &b);
}

static void refuses_plan(struct nb_gguf_writer *w, const char *name, int type, int n_dims,
                         const int64_t *ne, const char *sentence)
{
    struct nb_err err;
    assert_int_equal(nb_gguf_writer_plan(w, name, type, n_dims, ne, &err), NB_E_SPEC);
    assert_int_equal(err.status, NB_E_SPEC);
    assert_string_equal(err.text, sentence);
}

static void test_plan_refusals(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    int64_t ne[] = {256, 2, 1, 1, 1}, zero[] = {256, 0}, odd = 100,
            huge[] = {(int64_t)1 << 40, (int64_t)1 << 40}, large = (int64_t)1 << 61;
    char name[65] = "";
    memset(name, 'n', 64);
    refuses_plan(w, "", 0, 1, ne, "tensor '': the name has 0 bytes, allowed are 1 to 63");
    refuses_plan(
        w, name, 0, 1, ne,
        "tensor 'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn': the name "
        "has 64 bytes, allowed are 1 to 63");
    refuses_plan(w, "a", 4, 1, ne, "tensor 'a': there is no such type");
    refuses_plan(w, "a", 0, 0, ne, "tensor 'a' has 0 dimensions, allowed are 1 to 4");
    refuses_plan(w, "a", 0, 5, ne, "tensor 'a' has 5 dimensions, allowed are 1 to 4");
    refuses_plan(w, "a", 0, 2, zero, "tensor 'a': dimension 1 is 0");
    refuses_plan(w, "a", 12, 1, &odd,
                 "tensor 'a': rows of 100 are no whole number of Q4_K blocks of 256");
    refuses_plan(w, "a", 0, 2, huge,
                 "tensor 'a': the size of 1099511627776 x 1099511627776 x 1 x 1 F32 overflows 63 "
                 "bits");
    OK(nb_gguf_writer_plan(w, "a", 24, 1, &large, &err));
    refuses_plan(w, "b", 24, 1, &large, "tensor 'b': the model gets larger than any file");
    OK(nb_gguf_writer_plan(w, name + 1, 12, 2, ne, &err));
    assert_int_equal(nb_gguf_writer_bytes(w), ((uint64_t)1 << 61) + 288);
    nb_gguf_writer_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_type, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_json, setup, teardown),
        cmocka_unit_test(test_metadata_refusals),
        cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
        cmocka_unit_test(test_plan_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
