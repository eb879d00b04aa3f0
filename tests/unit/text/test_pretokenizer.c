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
#include "unit/text/parts.h"

static int take(void *ctx, const char *word, size_t n, struct nb_err *err)
{
    (void)err;
    assert_true(n > 0);
    nb_strbuf_putc(ctx, '|');
    nb_strbuf_add(ctx, word, n);
    return 0;
}

static int run_at(const json_t *part, const char *text, bool at_start, struct nb_strbuf *out,
                  struct nb_err *err)
{
    struct nb_pretokenizer p;
    nb_strbuf_init(out);
    int rc = nb_pretokenizer_init(&p, part, "t.json", err);
    if (rc) return rc;
    struct nb_pre_run *r = nb_xalloc(sizeof *r);
    *r = (struct nb_pre_run){.pre = &p, .matcher = nb_matcher_new(), .take = take, .ctx = out};
    rc = nb_pretokenizer_run(r, text, strlen(text), at_start, err);
    nb_matcher_free(r->matcher);
    nb_pre_run_release(r);
    nb_free(r);
    nb_pretokenizer_release(&p);
    return rc;
}

static int run(const json_t *part, const char *text, struct nb_strbuf *out, struct nb_err *err)
{
    return run_at(part, text, true, out, err);
}

static int run_inside(const json_t *part, const char *text, struct nb_strbuf *out,
                      struct nb_err *err)
{
    return run_at(part, text, false, out, err);
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
        part_gives(run, json.data, "the-final--countdown", cases[i].want);
        nb_strbuf_release(&json);
    }
}

static void metaspace(void **state)
{
    (void)state;
#define META "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\""
    part_gives(run, META "first\",\"split\":true}", "a b", "|_a|_b");
    part_gives(run_inside, META "first\",\"split\":true}", "a b", "|a|_b");
    part_gives(run_inside, META "always\",\"split\":false}", "a b", "|_a_b");
    part_gives(run, META "never\"}", " a  b", "|_a|_|_b");
    part_gives(run, "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}",
               "a b", "|a|_b");
    static const struct part_refusal cases[] = {
        {META "first\",\"add_prefix_space\":false}", NB_E_FORMAT,
         "t.json: Metaspace: add_prefix_space false contradicts prepend_scheme 'first'"},
        {META "last\"}", NB_E_SPEC, "t.json: Metaspace prepend_scheme 'last' is not supported"},
    };
    part_refuses(run, cases, sizeof cases / sizeof *cases);
#undef META
}

static void byte_level(void **state)
{
    (void)state;
    part_gives(run, "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true}",
               "a b\n",
               "|\xc4\xa0"
               "a|\xc4\xa0"
               "b|\xc4\x8a");
    part_gives(run, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}",
               "a b",
               "|a\xc4\xa0"
               "b");
    part_gives(run, "null", "a b", "|a b");
    part_gives(run, "null", "", "");
}

static void refusals(void **state)
{
    (void)state;
    static const struct part_refusal cases[] = {
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
    part_refuses(run, cases, sizeof cases / sizeof *cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(behaviors), cmocka_unit_test(metaspace),
                                       cmocka_unit_test(byte_level), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
