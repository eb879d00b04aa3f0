/* SPDX-License-Identifier: Apache-2.0
 *
 * test_config.c - one key more in config.json, every other byte as it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "pipeline/run.h"

static void splices_to(const char *text, const char *expected)
{
    struct nb_strbuf out;
    struct nb_err err;
    nb_strbuf_init(&out);
    if (nb_config_splice(&out, text, strlen(text), "{\n  \"bits\": 4\n}", &err))
        fail_msg("%s", err.text);
    assert_string_equal(nb_strbuf_cstr(&out), expected);
    json_t *v = nb_json_parse(out.data, out.len, NB_JSON_MAX_DEPTH, "result", &err);
    if (!v) fail_msg("%s", err.text);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(v, "quantization_config"), "bits")), 4);
    json_decref(v);
    nb_strbuf_release(&out);
}

static void every_byte_stays(void **state)
{
    (void)state;
    splices_to(
        "{\n  \"a\" : 1e3,\n\t\"b\": \"}\"\n}\n",
        "{\n  \"a\" : 1e3,\n\t\"b\": \"}\",\n  \"quantization_config\": {\n    \"bits\": 4\n  }\n}\n");
    splices_to("{\"a\":{}}", "{\"a\":{},\n  \"quantization_config\": {\n    \"bits\": 4\n  }\n}");
    splices_to("{}", "{\n  \"quantization_config\": {\n    \"bits\": 4\n  }\n}");
    splices_to(" { \n } \r\n ", " {\n  \"quantization_config\": {\n    \"bits\": 4\n  }\n} \r\n ");
}

/* Two keys of one name would be refused by every strict reader, our own too. */
static void a_key_that_is_there_is_replaced(void **state)
{
    (void)state;
    splices_to(
        "{\"a\": 1, \"quantization_config\": null, \"z\": 0.5}",
        "{\n  \"a\": 1,\n  \"quantization_config\": {\n    \"bits\": 4\n  },\n  \"z\": 0.5\n}\n");
}

/* The name inside another object or a string is none of our business. */
static void the_name_elsewhere_does_not_count(void **state)
{
    (void)state;
    splices_to(
        "{\"a\": {\"quantization_config\": 1}}",
        "{\"a\": {\"quantization_config\": 1},\n  \"quantization_config\": {\n    \"bits\": 4\n  }\n}");
}

static void what_is_no_object_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {{"[]", "config.json: expected an object, found an array"},
                 {"\"}\"", "config.json: expected an object, found a string"}};
    for (size_t i = 0; i < 2; i++) {
        struct nb_strbuf out;
        struct nb_err err;
        nb_strbuf_init(&out);
        assert_int_equal(nb_config_splice(&out, cases[i].text, strlen(cases[i].text), "{}", &err),
                         NB_E_FORMAT);
        assert_string_equal(err.text, cases[i].message);
        assert_int_equal(nb_config_splice(&out, "", 0, "{}", &err), NB_E_FORMAT);
        nb_strbuf_release(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_stays),
        cmocka_unit_test(a_key_that_is_there_is_replaced),
        cmocka_unit_test(the_name_elsewhere_does_not_count),
        cmocka_unit_test(what_is_no_object_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
