/* SPDX-License-Identifier: Apache-2.0
 *
 * test_normalizer.c - steps in order, on texts the golden corpus has no room for; refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "text/normalizer.h"

static int run(const char *json, const char *text, struct nb_strbuf *out, struct nb_err *err)
{
    json_t *part = nb_json_parse(json, strlen(json), 64, "part", err);
    assert_non_null(part);
    struct nb_normalizer z;
    struct nb_normalizing r = {0};
    int rc = nb_normalizer_init(&z, part, "t.json", err);
    if (!rc) {
        r.matcher = nb_matcher_new();
        rc = nb_normalizer_run(&z, &r, text, strlen(text), err);
        nb_matcher_free(r.matcher);
        nb_normalizer_release(&z);
    }
    nb_strbuf_release(&r.scratch);
    *out = r.text;
    json_decref(part);
    return rc;
}

static void steps(void **state)
{
    (void)state;
    static const struct {
        const char *part, *text, *want;
    } cases[] = {
        {"null", "x", "x"},
        {"{\"type\":\"Sequence\",\"normalizers\":[]}", "x", "x"},
        {"{\"type\":\"NFC\"}", "e\xcc\x81", "\xc3\xa9"},
        {"{\"type\":\"NFD\"}", "\xc3\xa9", "e\xcc\x81"},
        {"{\"type\":\"NFKC\"}", "\xef\xac\x81", "fi"},
        {"{\"type\":\"NFC\"}", "\xef\xac\x81", "\xef\xac\x81"},
        {"{\"type\":\"Lowercase\"}", "A\xc4\xb0\xce\xa3", "ai\xcc\x87\xcf\x83"},
        {"{\"type\":\"Prepend\",\"prepend\":\"_\"}", "", ""},
        {"{\"type\":\"Prepend\",\"prepend\":\"_\"}", "a", "_a"},
        {"{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}", " \xe3\x80\x80 ", ""},
        {"{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\" \"},{\"type\":"
         "\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"__\"}]}",
         "a b", "__a__b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err;
        struct nb_strbuf out;
        if (run(cases[i].part, cases[i].text, &out, &err)) fail_msg("%s", err.text);
        assert_string_equal(nb_strbuf_cstr(&out), cases[i].want);
        nb_strbuf_release(&out);
    }
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *part;
        int status;
        const char *text;
    } cases[] = {
        {"{\"type\":\"BertNormalizer\"}", NB_E_SPEC,
         "t.json: normalizer 'BertNormalizer' is not supported (supported: NFC, NFD, NFKC, NFKD, Lowercase,"
         " Strip, Prepend, Replace, ByteLevel, Sequence)"},
        {"[]", NB_E_FORMAT, "t.json: normalizer: expected an object, found an array"},
        {"{\"type\":\"Sequence\"}", NB_E_FORMAT,
         "t.json: normalizer Sequence: key 'normalizers': expected an array, found nothing"},
        {"{\"type\":\"Replace\",\"pattern\":\"x\",\"content\":\"\"}", NB_E_FORMAT,
         "t.json: key 'pattern': expected an object with a \"String\" or a \"Regex\""},
        {"{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}", NB_E_SPEC,
         "t.json: an empty pattern is not supported"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err;
        struct nb_strbuf out;
        assert_int_equal(run(cases[i].part, "x", &out, &err), cases[i].status);
        assert_string_equal(err.text, cases[i].text);
        nb_strbuf_release(&out);
    }
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_strbuf json, out;
    nb_strbuf_init(&json);
    for (int i = 0; i < 9; i++) nb_strbuf_puts(&json, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 9; i++) nb_strbuf_puts(&json, "]}");
    assert_int_equal(run(json.data, "x", &out, &err), NB_E_SPEC);
    assert_string_equal(err.text, "t.json: normalizer: Sequences nested deeper than 8");
    nb_strbuf_release(&out);
    nb_strbuf_reset(&json);
    nb_strbuf_puts(&json, "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}");
    for (int i = 0; i < 32; i++) nb_strbuf_puts(&json, ",{\"type\":\"NFC\"}");
    nb_strbuf_puts(&json, "]}");
    assert_int_equal(run(json.data, "x", &out, &err), NB_E_SPEC);
    assert_string_equal(err.text, "t.json: more than 32 parts in the normalizer");
    nb_strbuf_release(&out);
    nb_strbuf_release(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(steps), cmocka_unit_test(refusals),
                                       cmocka_unit_test(nesting_is_bounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
