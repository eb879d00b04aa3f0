/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tokenizer.c - a bad tokenizer.json is one clear sentence; ids, flags and lookups of a good
 * one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/strbuf.h"
#include "text/tokenizer.h"

/* The model of most cases: a, b, ab and an unknown. */
#define MODEL                                                                                      \
    "{\"type\":\"BPE\",\"unk_token\":\"?\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"?\":3},\"merges\":[\"a b\"]}"
#define TOKEN(text, special)                                                                       \
    "{\"id\":0,\"content\":\"" text "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"  \
    "\"normalized\":false,\"special\":" special "}"
#define TEMPLATE(single)                                                                           \
    "{\"type\":\"TemplateProcessing\",\"single\":[" single                                         \
    "],\"pair\":[],\"special_tokens\":{\"<s>\":"                                                   \
    "{\"id\":\"<s>\",\"ids\":[4],\"tokens\":[\"<s>\"]}}}"

static struct nb_tokenizer *parse(const char *json, struct nb_err *err)
{
    struct nb_tokenizer *t;
    int rc = nb_tokenizer_parse(&t, json, strlen(json), "t.json", err);
    assert_true(rc == 0 ? t != NULL : t == NULL && rc == err->status);
    return t;
}

static void bad_files(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        int status;
        const char *text;
    } cases[] = {
        {"", NB_E_FORMAT, "t.json: not valid JSON"},
        {"[]", NB_E_FORMAT, "t.json: expected an object, found an array"},
        {"{}", NB_E_FORMAT, "t.json: key 'model': expected an object, found nothing"},
        {"{\"version\":\"2.0\"}", NB_E_SPEC, "t.json: tokenizer version '2.0', expected 1.0"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", NB_E_SPEC,
         "t.json: model 'Unigram' is not supported (supported: BPE)"},
        {"{\"model\":{\"vocab\":{}}}", NB_E_SPEC,
         "t.json: model 'without a type' is not supported"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":[]}}", NB_E_FORMAT,
         "t.json: model: key 'vocab': expected an object, found an array"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{}}}", NB_E_FORMAT,
         "t.json: model: key 'merges': expected an array, found nothing"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", NB_E_FORMAT,
         "t.json: id of token 'a': expected an integer from 0 to 65537, found another"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2000000000},\"merges\":[]}}", NB_E_FORMAT,
         "t.json: id of token 'a': expected an integer from 0 to 65537, found another"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"x\"},\"merges\":[]}}", NB_E_FORMAT,
         "t.json: id of token 'a': expected an integer from 0 to 65537, found a string"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}}", NB_E_FORMAT,
         "t.json: tokens 'a' and 'b' share id 1"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":2},\"merges\":[\"a b\"]}}",
         NB_E_FORMAT, "t.json: merge 0: 'ab' is not in the vocabulary"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[\"a c\"]}}", NB_E_FORMAT,
         "t.json: merge 0: 'c' is not in the vocabulary"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[\"a\"]}}", NB_E_FORMAT,
         "t.json: merge 0: expected \"left right\" or [\"left\",\"right\"]"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[[\"a\",1]]}}", NB_E_FORMAT,
         "t.json: merge 0: expected \"left right\" or [\"left\",\"right\"]"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[],\"dropout\":0.1}}", NB_E_SPEC,
         "t.json: BPE with dropout 0.1 is not supported: ids would be random"},
        {"{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[],\"end_of_word_suffix\":\"</w>\"}}",
         NB_E_SPEC, "t.json: BPE with end_of_word_suffix '</w>' is not supported"},
        {"{\"model\":" MODEL ",\"added_tokens\":{}}", NB_E_FORMAT,
         "t.json: key 'added_tokens': expected an array, found an object"},
        {"{\"model\":" MODEL ",\"added_tokens\":[3]}", NB_E_FORMAT,
         "t.json: added token 0: expected an object, found an integer"},
        {"{\"model\":" MODEL ",\"added_tokens\":[{\"content\":\"x\"}]}", NB_E_FORMAT, "t.json: "},
        {"{\"model\":" MODEL ",\"added_tokens\":[" TOKEN("x\\u0000", "true") "]}", NB_E_SPEC,
         "t.json: added token 'x...' has 2 bytes or a NUL"},
        {"{\"model\":" MODEL ",\"post_processor\":{\"type\":\"BertProcessing\"}}", NB_E_SPEC,
         "t.json: post_processor 'BertProcessing' is not supported (supported: TemplateProcessing,"},
        {"{\"model\":" MODEL
         ",\"post_processor\":" TEMPLATE("{\"SpecialToken\":{\"id\":\"</s>\"}}") "}",
         NB_E_FORMAT, "t.json: TemplateProcessing: special token '</s>' has no ids under"},
        {"{\"model\":" MODEL
         ",\"post_processor\":" TEMPLATE("{\"SpecialToken\":{\"id\":\"<s>\"}}") "}",
         NB_E_FORMAT, "t.json: TemplateProcessing: 'single' must hold one sequence"},
        {"{\"model\":" MODEL ",\"post_processor\":" TEMPLATE("{\"Sequence\":{\"id\":\"B\"}}") "}",
         NB_E_FORMAT, "t.json: TemplateProcessing: sequence B in 'single'"},
        {"{\"model\":" MODEL ",\"post_processor\":" TEMPLATE("{}") "}", NB_E_FORMAT,
         "t.json: TemplateProcessing: a piece is neither SpecialToken nor Sequence"},
        {"{\"model\":" MODEL ",\"decoder\":{\"type\":\"CTC\"}}", NB_E_SPEC,
         "t.json: decoder 'CTC' is not supported"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nb_err err = {0};
        assert_null(parse(cases[i].json, &err));
        if (err.status != cases[i].status ||
            strncmp(err.text, cases[i].text, strlen(cases[i].text)) != 0) {
            fail_msg("%s\n%d %s", cases[i].json, err.status, err.text);
        }
    }
}

static void check_ids(const struct nb_tokenizer *t, const char *text, unsigned flags,
                      const char *want)
{
    struct nb_err err;
    struct nb_ids ids = {0};
    struct nb_strbuf got;
    nb_strbuf_init(&got);
    if (nb_tokenizer_encode(t, text, strlen(text), flags, &ids, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < ids.n; i++) nb_strbuf_printf(&got, "%s%d", i ? " " : "", ids.data[i]);
    assert_string_equal(nb_strbuf_cstr(&got), want);
    nb_strbuf_release(&got);
    nb_ids_release(&ids);
}

static void ids_and_flags(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct nb_tokenizer *t = parse(
        "{\"model\":" MODEL
        ",\"added_tokens\":[" TOKEN("<s>", "true") "," TOKEN("b", "false") "," TOKEN("bb", "false") "," TOKEN(
            "<s>",
            "false") "],\"post_processor\":" TEMPLATE("{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"<s>\"}}") ",\"truncation\":{\"max_length\":1},\"decoder\":{\"type\":\"Fuse\"}}",
        &err);
    assert_non_null(t);
    check_ids(t, "", 0, "");
    check_ids(t, "", NB_ENCODE_TEMPLATE, "4 4");
    check_ids(t, "a<s>a", 0, "0 4 0");
    check_ids(t, "a<s>a", NB_ENCODE_PLAIN, "0 3 3 3 0");
    check_ids(t, "ab", NB_ENCODE_TEMPLATE, "4 0 1 4");
    check_ids(t, "abbb", NB_ENCODE_PLAIN,
              "0 5 1"); /* an added token that is not special stays one */
    assert_int_equal(nb_tokenizer_size(t), 6);
    assert_int_equal(nb_tokenizer_id(t, "ab"), 2);
    assert_int_equal(nb_tokenizer_id(t, "bb"), 5);
    assert_int_equal(nb_tokenizer_id(t, "<s>"), 4);
    assert_int_equal(nb_tokenizer_id(t, "c"), -1);
    assert_int_equal(strlen(nb_tokenizer_sha256(t)), 64);

    struct nb_ids ids = {0};
    assert_int_equal(nb_tokenizer_encode(t, "ab\xff", 3, 0, &ids, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "text is not valid UTF-8 at byte 2 of 3");
    nb_ids_release(&ids);
    nb_tokenizer_close(t);
}

static void decoding(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct nb_tokenizer *t =
        parse("{\"model\":{\"vocab\":{\"a\":0,\"b\":4},\"merges\":[]},\"added_tokens\":[" TOKEN(
                  "<s>", "true") "],\"decoder\":{\"type\":\"Fuse\"}}",
              &err);
    assert_non_null(t);
    struct nb_strbuf out;
    nb_strbuf_init(&out);
    assert_int_equal(nb_tokenizer_size(t), 5);
    static const int32_t ids[] = {0, 1, 2, 3, 4}; /* <s> is 2: the number of tokens in the model */
    assert_int_equal(nb_tokenizer_decode(t, ids, 5, false, &out, &err), 0);
    assert_string_equal(out.data, "a<s>b");
    nb_strbuf_reset(&out);
    assert_int_equal(nb_tokenizer_decode(t, ids, 5, true, &out, &err), 0);
    assert_string_equal(out.data, "ab");
    static const int32_t bad[] = {5, -1};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(nb_tokenizer_decode(t, bad + i, 1, false, &out, &err), NB_E_FORMAT);
    }
    assert_string_equal(err.text, "token id -1 is outside the vocabulary of 5");
    nb_strbuf_release(&out);
    nb_tokenizer_close(t);
}

static void unknown_token_that_is_missing(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct nb_tokenizer *t = parse(
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"?\"}}",
        &err);
    check_ids(t, "aa", 0, "0 0");
    struct nb_ids ids = {0};
    assert_int_equal(nb_tokenizer_encode(t, "ab", 2, 0, &ids, &err), NB_E_FORMAT);
    assert_string_equal(err.text, "tokenizer: unk_token '?' is not in the vocabulary");
    nb_ids_release(&ids);
    nb_tokenizer_close(t);
}

static void absent_folder(void **state)
{
    (void)state;
    struct nb_err err = {0};
    struct nb_tokenizer *t;
    assert_int_equal(nb_tokenizer_open(&t, "no/such/model", &err), NB_E_NOTFOUND);
    assert_null(t);
    assert_non_null(strstr(err.text, "no/such/model/tokenizer.json: cannot open"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_files),     cmocka_unit_test(ids_and_flags),
        cmocka_unit_test(decoding),      cmocka_unit_test(unknown_token_that_is_missing),
        cmocka_unit_test(absent_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
