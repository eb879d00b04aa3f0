/* SPDX-License-Identifier: Apache-2.0
 *
 * test_normalizer.c - steps in order, on texts the golden corpus has no room for; refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "text/normalizer.h"
#include "unit/text/parts.h"

static int run(const json_t *part, const char *text, struct nb_strbuf *out, struct nb_err *err)
{
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
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        part_gives(run, cases[i].part, cases[i].text, cases[i].want);
}

static void refusals(void **state)
{
    (void)state;
    static const struct part_refusal cases[] = {
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
    part_refuses(run, cases, sizeof cases / sizeof *cases);
}

static void nesting_is_bounded(void **state)
{
    (void)state;
    struct nb_strbuf json;
    nb_strbuf_init(&json);
    for (int i = 0; i < 9; i++) nb_strbuf_puts(&json, "{\"type\":\"Sequence\",\"normalizers\":[");
    for (int i = 0; i < 9; i++) nb_strbuf_puts(&json, "]}");
    struct part_refusal deep = {json.data, NB_E_SPEC,
                                "t.json: normalizer: Sequences nested deeper than 8"};
    part_refuses(run, &deep, 1);
    nb_strbuf_reset(&json);
    nb_strbuf_puts(&json, "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}");
    for (int i = 0; i < 32; i++) nb_strbuf_puts(&json, ",{\"type\":\"NFC\"}");
    nb_strbuf_puts(&json, "]}");
    struct part_refusal many = {json.data, NB_E_SPEC,
                                "t.json: more than 32 parts in the normalizer"};
    part_refuses(run, &many, 1);
    nb_strbuf_release(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(steps), cmocka_unit_test(refusals),
                                       cmocka_unit_test(nesting_is_bounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
