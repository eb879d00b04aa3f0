/* SPDX-License-Identifier: Apache-2.0
 *
 * test_pretokenizer.c - where words are cut, shown directly; refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "text/pretokenizer.h"

static int take(void *ctx, const char *word, size_t n, struct nb_err *err)
{
    (void)err;
    assert_true(n > 0);
    nb_strbuf_putc(ctx, '|');
    nb_strbuf_add(ctx, word, n);
    return 0;
}

static int run(const char *json, const char *text, bool at_start, struct nb_strbuf *out,
               struct nb_err *err)
{
    json_t *part = nb_json_parse(json, strlen(json), 64, "part", err);
    assert_non_null(part);
    struct nb_pretokenizer p;
    nb_strbuf_init(out);
    int rc = nb_pretokenizer_init(&p, part, "t.json", err);
    if (!rc) {
        struct nb_pre_run *r = nb_xalloc(sizeof *r);
        *r = (struct nb_pre_run){.pre = &p, .matcher = nb_matcher_new(), .take = take, .ctx = out};
        rc = nb_pretokenizer_run(r, text, strlen(text), at_start, err);
        nb_matcher_free(r->matcher);
        nb_pre_run_release(r);
        nb_free(r);
        nb_pretokenizer_release(&p);
    }
    json_decref(part);
    return rc;
}

static void check(const char *json, const char *text, bool at_start, const char *want)
{
    struct nb_err err;
    struct nb_strbuf out;
    if (run(json, text, at_start, &out, &err)) fail_msg("%s", err.text);
    assert_string_equal(nb_strbuf_cstr(&out), want);
    nb_strbuf_release(&out);
}

static void behaviors(void **state)
{
    (void)state;
    static const struct {
        const char *behavior, *invert, *want;
    } cases[] = {
        {"Removed", "false", "|the|final|countdown"},
        {"Isolated", "false", "|the|-|final|-|-|countdown"},
        {"MergedWithPrevious", "false", "|the-|final-|-|countdown"},
        {"MergedWithNext", "false", "|the|-final|-|-countdown"},
        {"Contiguous", "false", "|the|-|final|--|countdown"},
        {"Removed", "true", "|-|-|-"},
        {"MergedWithPrevious", "true", "|the|-final|-|-countdown"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_strbuf json;
        nb_strbuf_init(&json);
        nb_strbuf_printf(&json,
                         "{\"type\":\"Split\",\"pattern\":{\"String\":\"-\"},\"behavior\":\"%s\","
                         "\"invert\":%s}",
                         cases[i].behavior, cases[i].invert);
        check(json.data, "the-final--countdown", true, cases[i].want);
        nb_strbuf_release(&json);
    }
}

static void metaspace(void **state)
{
    (void)state;
#define META "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\""
    check(META "first\",\"split\":true}", "a b", true, "|_a|_b");
    check(META "first\",\"split\":true}", "a b", false, "|a|_b");
    check(META "always\",\"split\":false}", "a b", false, "|_a_b");
    check(META "never\"}", " a  b", true, "|_a|_|_b");
    check("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}", "a b", true,
          "|a|_b");
    struct nb_err err;
    struct nb_strbuf out;
    assert_int_equal(run(META "first\",\"add_prefix_space\":false}", "a", true, &out, &err),
                     NB_E_FORMAT);
    assert_int_equal(run(META "last\"}", "a", true, &out, &err), NB_E_SPEC);
#undef META
}

static void byte_level(void **state)
{
    (void)state;
    check("{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true}", "a b\n", true,
          "|\xc4\xa0"
          "a|\xc4\xa0"
          "b|\xc4\x8a");
    check("{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}", "a b", true,
          "|a\xc4\xa0"
          "b");
    check("null", "a b", true, "|a b");
    check("null", "", true, "");
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *part;
        int status;
        const char *text;
    } cases[] = {
        {"{\"type\":\"BertPreTokenizer\"}", NB_E_SPEC,
         "t.json: pre_tokenizer 'BertPreTokenizer' is not"},
        {"{\"type\":\"UnicodeScripts\"}", NB_E_SPEC,
         "t.json: pre_tokenizer 'UnicodeScripts' is not"},
        {"{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Merged\",\"invert\":false}",
         NB_E_SPEC, "t.json: split behavior 'Merged' is not supported"},
        {"{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\",\"invert\":false}",
         NB_E_SPEC, "t.json: regex '(' cannot be used"},
        {"{\"type\":\"Metaspace\",\"replacement\":\"ab\"}", NB_E_FORMAT,
         "t.json: key 'replacement': expected one character, found 'ab'"},
        {"{\"type\":\"Digits\"}", NB_E_FORMAT, "t.json: "},
        {"{}", NB_E_FORMAT, "t.json: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err;
        struct nb_strbuf out;
        assert_int_equal(run(cases[i].part, "x", true, &out, &err), cases[i].status);
        if (strncmp(err.text, cases[i].text, strlen(cases[i].text)) != 0) fail_msg("%s", err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(behaviors), cmocka_unit_test(metaspace),
                                       cmocka_unit_test(byte_level), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
