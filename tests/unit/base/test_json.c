/* SPDX-License-Identifier: Apache-2.0
 *
 * test_json.c - limits and exact messages of reading; written values read back as the same. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/half.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "support/folder.h"

static json_t *parse(const char *text)
{
    struct nb_err err;
    json_t *v = nb_json_parse(text, strlen(text), NB_JSON_MAX_DEPTH, "t", &err);
    if (!v) fail_msg("%s", err.text);
    return v;
}

static void refused(const char *text, size_t len, const char *message)
{
    struct nb_err err;
    assert_null(nb_json_parse(text, len, NB_JSON_MAX_DEPTH, "t", &err));
    assert_int_equal(err.status, NB_E_FORMAT);
    assert_string_equal(err.text, message);
}

static void nested(char *out, int levels, char open, char close)
{
    memset(out, open, (size_t)levels);
    memset(out + levels, close, (size_t)levels);
    out[2 * levels] = '\0';
}

static void depth_is_limited(void **state)
{
    (void)state;
    char text[400];
    struct nb_err err;
    nested(text, 64, '[', ']');
    json_decref(parse(text));
    nested(text, 65, '[', ']');
    refused(text, strlen(text), "t: JSON nested deeper than 64 levels");
    nested(text, 3, '[', ']');
    assert_null(nb_json_parse(text, 6, 2, "t", &err));
    assert_string_equal(err.text, "t: JSON nested deeper than 2 levels");
    json_decref(parse(
        "[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"]"));
    json_decref(parse(
        "[\"\\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"]"));
}

/* The scan must hold for a megabyte of brackets: jansson alone recurses. */
static void hostile_depth_is_cheap(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    char *text = nb_alloc(N, 1);
    memset(text, '[', N);
    refused(text, N, "t: JSON nested deeper than 64 levels");
    for (size_t i = 0; i + 5 <= N; i += 5) memcpy(text + i, "{\"a\":", 5);
    refused(text, N, "t: JSON nested deeper than 64 levels");
    nb_free(text);
}

/* Our part of the message; what comes behind it is jansson's and changes with its version. */
static void invalid(const char *text, size_t len)
{
    struct nb_err err;
    assert_null(nb_json_parse(text, len, NB_JSON_MAX_DEPTH, "t", &err));
    assert_int_equal(err.status, NB_E_FORMAT);
    assert_memory_equal(err.text, "t: not valid JSON at line 1, column ", 36);
    assert_true(strlen(err.text) > 40);
}

static void bad_texts_are_refused(void **state)
{
    (void)state;
    struct nb_err err;
    static const char twice[] = "{\"a\":1,\"a\":2}";
    invalid(twice, strlen(twice));
    assert_null(nb_json_parse(twice, strlen(twice), NB_JSON_MAX_DEPTH, "t", &err));
    assert_non_null(strstr(err.text, "duplicate object key"));
    static const char *const texts[] = {"",
                                        "{} x",
                                        "[1,]",
                                        "{a:1}",
                                        "[NaN]",
                                        "[Infinity]",
                                        "[1e999]",
                                        "[01]",
                                        "[+1]",
                                        "'a'",
                                        "[1",
                                        "[\"a",
                                        "[\"\xff\"]",
                                        "[\"\xed\xa0\x80\"]",
                                        "[\"\t\"]",
                                        "/**/[]",
                                        "{\"a\\u0000b\":1}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) invalid(texts[i], strlen(texts[i]));
    invalid("[]\0", 3);
}

/* What jansson quotes from the text must not break the one line. */
static void message_stays_clean(void **state)
{
    (void)state;
    struct nb_err err;
    static const char text[] = "{\"k\": \"a\nb\"}";
    assert_null(nb_json_parse(text, strlen(text), 64, "dir\nname", &err));
    assert_null(strchr(err.text, '\n'));
    assert_memory_equal(err.text, "dir name: not valid JSON at line ", 33);
}

/* "No limit" as Python writes it: the file must still be readable. */
static void integers_beyond_64_bits_become_reals(void **state)
{
    (void)state;
    json_t *v =
        parse("{\"model_max_length\": 1000000000000000019884624838656, \"chat_template\": \"x\"}");
    double max = 0;
    const char *template = NULL;
    assert_int_equal(nb_json_get_real(v, "model_max_length", true, &max, "t", NULL), 0);
    assert_true(max == 1e30);
    assert_int_equal(nb_json_get_string(v, "chat_template", true, &template, "t", NULL), 0);
    assert_string_equal(template, "x");
    json_decref(v);
    v = parse("[9223372036854775807, -9223372036854775808]");
    assert_true(json_is_integer(json_array_get(v, 0)) && json_is_integer(json_array_get(v, 1)));
    json_decref(v);
}

static void strings_may_hold_nul(void **state)
{
    (void)state;
    json_t *v = parse("{\"s\": \"a\\u0000b\"}");
    const char *s = NULL;
    assert_int_equal(nb_json_get_string(v, "s", true, &s, "t", NULL), 0);
    assert_int_equal(json_string_length(json_object_get(v, "s")), 3);
    assert_memory_equal(s, "a\0b", 4);
    struct nb_strbuf out;
    nb_strbuf_init(&out);
    assert_int_equal(nb_json_dump(v, false, &out, NULL), 0);
    assert_string_equal(nb_strbuf_cstr(&out), "{\"s\":\"a\\u0000b\"}");
    nb_strbuf_release(&out);
    json_decref(v);
}

static void getters_take_what_fits(void **state)
{
    (void)state;
    json_t *v =
        parse("{\"i\": -5, \"r\": 2.5, \"b\": true, \"f\": false, \"s\": \"x\", \"n\": null}");
    int64_t i = 0;
    double r = 0;
    bool b = false;
    const char *s = NULL;
    assert_int_equal(nb_json_get_int(v, "i", true, &i, "t", NULL), 0);
    assert_int_equal(i, -5);
    assert_int_equal(nb_json_get_real(v, "r", true, &r, "t", NULL), 0);
    assert_true(r == 2.5);
    assert_int_equal(nb_json_get_real(v, "i", true, &r, "t", NULL), 0);
    assert_true(r == -5);
    assert_int_equal(nb_json_get_bool(v, "b", true, &b, "t", NULL), 0);
    assert_true(b);
    assert_int_equal(nb_json_get_bool(v, "f", true, &b, "t", NULL), 0);
    assert_false(b);
    assert_int_equal(nb_json_get_string(v, "s", true, &s, "t", NULL), 0);
    assert_string_equal(s, "x");
    i = 7;
    assert_int_equal(nb_json_get_int(v, "absent", false, &i, "t", NULL), 0);
    assert_int_equal(nb_json_get_int(v, "n", false, &i, "t", NULL), 0);
    assert_int_equal(i, 7);
    json_decref(v);
}

static void getters_name_key_and_types(void **state)
{
    (void)state;
    json_t *v = parse(
        "{\"i\": 1, \"r\": 2.5, \"b\": true, \"s\": \"x\", \"a\": [], \"o\": {}, \"n\": null}");
    struct nb_err err;
    int64_t i = 0;
    double r = 0;
    bool b = false;
    const char *s = NULL;
    assert_int_equal(nb_json_get_int(v, "s", true, &i, "config.json", &err), NB_E_FORMAT);
    assert_string_equal(err.text, "config.json: key 's': expected an integer, found a string");
    assert_int_equal(nb_json_get_int(v, "r", false, &i, "t", &err), NB_E_FORMAT);
    assert_string_equal(err.text, "t: key 'r': expected an integer, found a real number");
    assert_int_equal(nb_json_get_real(v, "o", true, &r, "t", &err), NB_E_FORMAT);
    assert_string_equal(err.text, "t: key 'o': expected a number, found an object");
    assert_int_equal(nb_json_get_bool(v, "i", true, &b, "t", &err), NB_E_FORMAT);
    assert_string_equal(err.text, "t: key 'i': expected a boolean, found an integer");
    assert_int_equal(nb_json_get_string(v, "a", true, &s, "t", &err), NB_E_FORMAT);
    assert_string_equal(err.text, "t: key 'a': expected a string, found an array");
    assert_int_equal(nb_json_get_string(v, "b", true, &s, "t", &err), NB_E_FORMAT);
    assert_string_equal(err.text, "t: key 'b': expected a string, found a boolean");
    assert_int_equal(nb_json_get_int(v, "absent", true, &i, "t", &err), NB_E_FORMAT);
    assert_string_equal(err.text, "t: key 'absent' is missing");
    assert_int_equal(nb_json_get_int(v, "n", true, &i, "t", &err), NB_E_FORMAT);
    assert_string_equal(err.text, "t: key 'n' is missing");
    assert_int_equal(nb_json_get_int(NULL, "x", true, &i, "t", &err), NB_E_FORMAT);
    assert_string_equal(nb_json_type_name(json_object_get(v, "n")), "null");
    assert_string_equal(nb_json_type_name(NULL), "nothing");
    json_decref(v);
}

static void load_reports_the_file(void **state)
{
    (void)state;
    char *dir = folder_make();
    char path[512];
    struct nb_err err;
    snprintf(path, sizeof path, "%s/x.json", dir);
    assert_null(nb_json_load(path, 100, &err));
    assert_int_equal(err.status, NB_E_NOTFOUND);
    folder_text(dir, "x.json", "[1, 2]");
    json_t *v = nb_json_load(path, 6, &err);
    assert_int_equal(json_array_size(v), 2);
    json_decref(v);
    assert_null(nb_json_load(path, 5, &err));
    assert_int_equal(err.status, NB_E_FORMAT);
    assert_non_null(strstr(err.text, "x.json: has 6 bytes, at most 5 are accepted"));
    folder_text(dir, "x.json", "[1,");
    assert_null(nb_json_load(path, 100, &err));
    assert_non_null(strstr(err.text, "x.json: not valid JSON at line 1"));
    folder_remove(dir);
}

/* ---- writing ---- */

static void dumps_to(const json_t *v, bool pretty, const char *expected)
{
    struct nb_strbuf out;
    nb_strbuf_init(&out);
    assert_int_equal(nb_json_dump(v, pretty, &out, NULL), 0);
    assert_string_equal(nb_strbuf_cstr(&out), expected);
    nb_strbuf_release(&out);
}

static void layout_is_fixed(void **state)
{
    (void)state;
    json_t *v = parse("{\"z\":1,\"a\":[true,null,{}],\"e\":[],\"o\":{\"x\":\"y\"}}");
    dumps_to(v, false, "{\"z\":1,\"a\":[true,null,{}],\"e\":[],\"o\":{\"x\":\"y\"}}");
    dumps_to(v, true,
             "{\n  \"z\": 1,\n  \"a\": [\n    true,\n    null,\n    {}\n  ],\n  \"e\": [],\n"
             "  \"o\": {\n    \"x\": \"y\"\n  }\n}");
    json_decref(v);
}

/* jansson's own writer is the reference for everything but reals. */
static void agrees_with_jansson(void **state)
{
    (void)state;
    json_t *v = parse(
        "{\"q\\\"uote\": [\"\\\\ / \\b\\f\\n\\r\\t\\u0001\\u001f\\u007f\", \"gr\xc3\xbc\xc3\x9f"
        " \xf0\x9f\x98\x80\", \"\\u2028\"], \"i\": [0, -1, 9223372036854775807], \"\": {\"\": []}}");
    char *compact = json_dumps(v, JSON_COMPACT), *pretty = json_dumps(v, JSON_INDENT(2));
    dumps_to(v, false, compact);
    dumps_to(v, true, pretty);
    free(compact);
    free(pretty);
    json_decref(v);
}

static void real_dumps_to(double x, const char *expected)
{
    json_t *v = json_real(x);
    dumps_to(v, false, expected);
    json_decref(v);
}

static void reals_are_short(void **state)
{
    (void)state;
    real_dumps_to(0.1, "0.1");
    real_dumps_to(0.01, "0.01");
    real_dumps_to(1.05, "1.05");
    real_dumps_to(3, "3.0");
    real_dumps_to(0, "0.0");
    real_dumps_to(-0.0, "-0.0");
    real_dumps_to(1e22, "1e+22");
    real_dumps_to(1.0 / 3.0, "0.3333333333333333");
    real_dumps_to(0.1 + 0.2, "0.30000000000000004");
    real_dumps_to(DBL_MAX, "1.7976931348623157e+308");
    real_dumps_to(5e-324, "4.94065645841247e-324");
}

static void reals_read_back_bit_for_bit(void **state)
{
    (void)state;
    struct nb_rng rng;
    nb_rng_init(&rng, 1);
    json_t *list = json_array();
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = nb_rng_next(&rng);
        double x;
        memcpy(&x, &bits, sizeof x);
        if (!isfinite(x)) continue;
        json_array_append_new(list, json_real(x));
        json_array_append_new(list, json_real((double)nb_f32_from_bits((uint32_t)(bits >> 9))));
        json_array_append_new(list, json_real((double)(int64_t)(bits >> 40) / 1000));
    }
    struct nb_strbuf out;
    nb_strbuf_init(&out);
    assert_int_equal(nb_json_dump(list, false, &out, NULL), 0);
    json_t *back = parse(nb_strbuf_cstr(&out));
    assert_true(json_equal(list, back));
    for (size_t i = 0; i < json_array_size(list); i++) {
        assert_true(json_is_real(json_array_get(back, i)));
    }
    json_decref(back);
    json_decref(list);
    nb_strbuf_release(&out);
}

static void dump_appends_and_reports(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_strbuf out;
    nb_strbuf_init(&out);
    nb_strbuf_puts(&out, "x");
    json_t *v = json_integer(-7);
    assert_int_equal(nb_json_dump(v, true, &out, &err), 0);
    assert_string_equal(nb_strbuf_cstr(&out), "x-7");
    assert_int_equal(nb_json_dump(NULL, true, &out, &err), NB_E_NOMEM);
    out.failed = true;
    assert_int_equal(nb_json_dump(v, true, &out, &err), NB_E_NOMEM);
    nb_strbuf_release(&out);
    json_decref(v);
}

static void dump_depth_is_limited(void **state)
{
    (void)state;
    char text[200];
    nested(text, 64, '[', ']');
    json_t *v = parse(text);
    dumps_to(v, false, text);
    json_t *outer = json_pack("[[o]]", v);
    struct nb_err err;
    struct nb_strbuf out;
    nb_strbuf_init(&out);
    assert_int_equal(nb_json_dump(outer, false, &out, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "JSON nested deeper than 64 levels cannot be written");
    nb_strbuf_release(&out);
    json_decref(outer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(hostile_depth_is_cheap),
        cmocka_unit_test(bad_texts_are_refused),
        cmocka_unit_test(message_stays_clean),
        cmocka_unit_test(integers_beyond_64_bits_become_reals),
        cmocka_unit_test(strings_may_hold_nul),
        cmocka_unit_test(getters_take_what_fits),
        cmocka_unit_test(getters_name_key_and_types),
        cmocka_unit_test(load_reports_the_file),
        cmocka_unit_test(layout_is_fixed),
        cmocka_unit_test(agrees_with_jansson),
        cmocka_unit_test(reals_are_short),
        cmocka_unit_test(reals_read_back_bit_for_bit),
        cmocka_unit_test(dump_appends_and_reports),
        cmocka_unit_test(dump_depth_is_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
