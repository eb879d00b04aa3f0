/* SPDX-License-Identifier: Apache-2.0
 *
 * test_pre_names.c - where llama.cpp's pre-tokenizers cut, and which name a tokenizer.json gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"
#include "text/pre_names.h"
#include "text/pretokenizer.h"
#include "text/unicode.h"

static struct nb_span span(const char *s)
{
    return (struct nb_span){(const unsigned char *)s, strlen(s)};
}

/* A word back in bytes, in brackets. */
static int take(void *ctx, const char *word, size_t n, struct nb_err *err)
{
    (void)err;
    nb_strbuf_putc(ctx, '[');
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += nb_utf8_next(word + i, &c);
        nb_strbuf_putc(ctx, (char)nb_char_to_byte(c));
    }
    nb_strbuf_putc(ctx, ']');
    return 0;
}

static void check(const char *names, const char *text, const char *want)
{
    for (const char *p = names; *p;) {
        struct nb_err err;
        struct nb_strbuf out;
        struct nb_pretokenizer pre;
        size_t len = strcspn(p, " "), n = 0;
        const struct nb_pre_rule *rule =
            nb_pre_rule_find((struct nb_span){(const unsigned char *)p, len});
        assert_non_null(rule);
        while (n < NB_PRE_REGEXES_MAX && rule->regex[n]) n++;
        nb_strbuf_init(&out);
        if (nb_pretokenizer_init_patterns(&pre, rule->regex, n, "t", &err))
            fail_msg("%s", err.text);
        struct nb_pre_run *run = nb_xalloc(sizeof *run);
        *run = (struct nb_pre_run){
            .pre = &pre, .matcher = nb_matcher_new(), .take = take, .ctx = &out};
        assert_int_equal(nb_pretokenizer_run(run, text, strlen(text), true, &err), 0);
        assert_string_equal(nb_strbuf_cstr(&out), want);
        nb_matcher_free(run->matcher);
        nb_pre_run_release(run);
        nb_free(run);
        nb_pretokenizer_release(&pre);
        nb_strbuf_release(&out);
        p += len + (p[len] == ' ');
    }
}

static void cuts(void **state)
{
    (void)state;
    const char *text = "Hello world! It's 2024, I'VE 12345 tokens.";
    check("llama-bpe", text,
          "[Hello][ world][!][ It]['s][ ][202][4][,][ I]['VE][ ][123][45][ tokens][.]");
    check("qwen2 tekken", text,
          "[Hello][ world][!][ It]['s][ ][2][0][2][4][,][ I]['VE][ ][1][2][3][4][5][ tokens][.]");
    check("gpt-2", text, "[Hello][ world][!][ It]['s][ 2024][,][ I]['][VE][ 12345][ tokens][.]");
    check("smollm", text,
          "[Hello][ world][!][ It]['s][ ][2][0][2][4][,][ I]['][VE][ ][1][2][3][4][5][ tokens][.]");
    check("deepseek-llm", text,
          "[Hello][ world][!][ It]['][s][ ][2024][,][ I]['][VE][ ][12345][ tokens][.]");
    check("deepseek-v3", text,
          "[Hello][ world][!][ It]['s][ ][202][4][,][ I]['VE][ ][123][45][ tokens][.]");
    text = "a  b\n\n  c\t\td \r\n e  ";
    check("llama-bpe qwen2 tekken deepseek-v3", text,
          "[a][ ][ b][\n\n][ ][ c][\t][\td][ \r\n][ e][  ]");
    check("gpt-2 smollm", text, "[a][ ][ b][\n\n ][ c][\t][\t][d][ \r\n][ e][  ]");
    check("deepseek-llm", text, "[a][ ][ b][\n][\n][ ][ c][\t][\td][ ][\r][\n][ e][  ]");
    text = "caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd,3.14 MyCamelCase";
    check("llama-bpe gpt-2", text,
          "[caf\xc3\xa9][ \xe4\xbd\xa0\xe5\xa5\xbd][,][3][.][14][ MyCamelCase]");
    check("qwen2 smollm", text,
          "[caf\xc3\xa9][ \xe4\xbd\xa0\xe5\xa5\xbd][,][3][.][1][4][ MyCamelCase]");
    check("tekken", text,
          "[caf\xc3\xa9][ \xe4\xbd\xa0\xe5\xa5\xbd][,][3][.][1][4][ My][Camel][Case]");
    check("deepseek-llm", text,
          "[caf][\xc3\xa9][ ][\xe4\xbd\xa0\xe5\xa5\xbd][,][3][.][14][ MyCamelCase]");
    check("deepseek-v3", text,
          "[caf\xc3\xa9][ ][\xe4\xbd\xa0\xe5\xa5\xbd][,][3][.][14][ MyCamelCase]");
    check("llama-bpe qwen2 tekken gpt-2 smollm deepseek-llm deepseek-v3", "x=\"y\";//z\n",
          "[x][=\"][y][\";//][z][\n]");
}

static void names(void **state)
{
    (void)state;
    struct nb_strbuf list;
    nb_strbuf_init(&list);
    nb_pre_rule_list(&list);
    assert_non_null(strstr(list.data, ", qwen2, deepseek-r1-qwen, "));
    assert_null(strstr(list.data, "kimi-k2"));
    nb_strbuf_release(&list);
    assert_ptr_equal(nb_pre_rule_find(span("")), nb_pre_rule_find(span("default")));
    assert_ptr_equal(nb_pre_rule_find(span("llama3")), nb_pre_rule_find(span("pixtral")));
    assert_null(nb_pre_rule_find(span("llama")));
    assert_null(nb_pre_rule_find(span("llama3 llama-v3")));
    assert_true(nb_pre_rule_find(span("llama3"))->add_bos);
    assert_true(nb_pre_rule_find(span("tekken"))->ignore_merges);
    assert_false(nb_pre_rule_find(span("qwen2"))->ignore_merges);
}

#define SPLIT(regex)                                                                               \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex                                          \
    "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define BYTES(regex) "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":" regex "}"
#define BOTH(a, b) "{\"type\":\"Sequence\",\"pretokenizers\":[" a "," b "]}"
#define CASELESS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
#define REST(numbers)                                                                              \
    "[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|" numbers                                             \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

static void choices(void **state)
{
    (void)state;
    static const struct {
        const char *part;
        bool ignore_merges;
        const char *want;
    } cases[] = {
        {BYTES("true"), false, "gpt-2"},
        {BOTH("{\"type\":\"Digits\",\"individual_digits\":true}", BYTES("true")), false, "smollm"},
        {BOTH(SPLIT(CASELESS REST("\\\\p{N}{1,3}")), BYTES("false")), true, "llama-bpe"},
        {BOTH(SPLIT(CASELESS REST("\\\\p{N}{1,3}")), BYTES("false")), false, "dbrx"},
        {BOTH(SPLIT(CASELESS REST("\\\\p{N}")), BYTES("false")), false, "qwen2"},
        {BOTH(SPLIT(REST("\\\\p{N}")), BYTES("false")), false, "ufakzeka"},
        {BOTH(SPLIT("[\\r\\n]"), BYTES("false")), false, ""},
        {BYTES("false"), false, ""},
        {"null", false, ""},
        {SPLIT("x"), false, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err;
        struct nb_part_list list;
        struct nb_pre_choice choice;
        json_t *part = nb_json_parse(cases[i].part, strlen(cases[i].part), 64, "part", &err);
        assert_non_null(part);
        assert_int_equal(nb_part_flatten(&list, part, "pretokenizers", "pre_tokenizer", "t", &err),
                         0);
        assert_int_equal(nb_pre_name_choose(&choice, &list, cases[i].ignore_merges, "t", &err), 0);
        assert_string_equal(choice.name, cases[i].want);
        assert_null(choice.difference);
        json_decref(part);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cuts), cmocka_unit_test(names),
                                       cmocka_unit_test(choices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
