/* SPDX-License-Identifier: Apache-2.0
 *
 * test_vocab_write.c - a model folder's tokenizer as a GGUF vocabulary: tokens, types, scores,
 * special ids, flags, template; what is noted and what refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/strbuf.h"
#include "unit/text/words.h"

#define M "\\u2581"
#define TOKEN(text, special)                                                                       \
    "{\"content\":\"" text "\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"           \
    "\"normalized\":false,\"special\":" special "}"
#define PART(type) "{\"type\":\"" type "\"}"
#define BYTE_PARTS                                                                                 \
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"decoder\":" PART(     \
        "ByteLevel")
#define BYTE_MODEL                                                                                 \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}"
#define HOLE_MODEL                                                                                 \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":3},\"merges\":[\"a b\"]}"
#define TO_MARK "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"" M "\"}"
#define SPM_MODEL                                                                                  \
    "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"unk_token\":\"<unk>\",\"vocab\":{"       \
    "\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"<0x41>\":3,\"a\":4,\"b\":5,\"" M "\":6,\"ab\":7,\"" M      \
    "a\":8},\"merges\":[[\"a\",\"b\"],[\"" M "\",\"a\"]]}"
#define TEMPLATE(first, last)                                                                      \
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[" first                       \
    "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}" last "],\"pair\":[],\"special_tokens\":{"        \
    "\"<s>\":{\"id\":\"<s>\",\"ids\":[1],\"tokens\":[\"<s>\"]},"                                   \
    "\"</s>\":{\"id\":\"</s>\",\"ids\":[2],\"tokens\":[\"</s>\"]}}}"
#define SPECIAL(id) "{\"SpecialToken\":{\"id\":\"" id "\",\"type_id\":0}}"

struct written {
    struct nb_vocab v;
    struct nb_strbuf note;
    struct nb_err err;
    int rc;
};

static struct written write(const char *tokenizer, const char *config, const char *model_config,
                            size_t n_rows)
{
    struct written w;
    json_t *t = nb_json_parse(tokenizer, strlen(tokenizer), 64, "t", &w.err);
    if (!t) fail_msg("%s", w.err.text);
    json_t *c = config ? nb_json_parse(config, strlen(config), 64, "c", &w.err) : NULL;
    json_t *m =
        model_config ? nb_json_parse(model_config, strlen(model_config), 64, "m", &w.err) : NULL;
    struct nb_vocab_source source = {
        .tokenizer = t, .tokenizer_config = c, .config = m, .n_rows = n_rows, .what = "t.json"};
    source.chat_template = words_span("from the file");
    nb_strbuf_init(&w.note);
    w.rc = nb_tokenizer_vocab(&w.v, &source, &w.note, &w.err);
    json_decref(t);
    json_decref(c);
    json_decref(m);
    return w;
}

static void release(struct written *w)
{
    if (!w->rc) nb_vocab_release(&w->v);
    nb_strbuf_release(&w->note);
}

static void check_span(struct nb_span s, const char *want)
{
    assert_int_equal(s.bytes, strlen(want));
    assert_memory_equal(s.data, want, s.bytes);
}

static void byte_level(void **state)
{
    (void)state;
    struct written w = write(
        "{" BYTE_PARTS "," BYTE_MODEL ",\"added_tokens\":[" TOKEN("<|x|>", "false") "," TOKEN(
            "u" M "v", "false") "," TOKEN("<e>", "true") "]}",
        "{\"eos_token\":{\"content\":\"<e>\"},\"pad_token\":\"nowhere\",\"chat_template\":[{\"name\":"
        "\"tools\",\"template\":\"T\"},{\"name\":\"default\",\"template\":\"D\"}]}",
        "{\"bos_token_id\":5,\"pad_token_id\":[1,2],\"eos_token_id\":0,\"mask_token_id\":900}", 8);
    if (w.rc) fail_msg("%s", w.err.text);
    assert_string_equal(nb_strbuf_cstr(&w.note),
                        "llama.cpp looks for spaces where an added token has U+2581\n");
    static const struct {
        const char *text;
        int type;
    } want[] = {{"a", 1},   {"b", 1},   {"ab", 1},     {"<|x|>", 3},
                {"u v", 4}, {"<e>", 3}, {"[PAD6]", 5}, {"[PAD7]", 5}};
    assert_int_equal(w.v.n, 8);
    assert_int_equal(w.v.n_types, 8);
    for (size_t i = 0; i < 8; i++) {
        check_span(w.v.tokens[i], want[i].text);
        assert_int_equal(w.v.types[i], want[i].type);
    }
    check_span(w.v.model, "gpt2");
    check_span(w.v.pre, "gpt-2");
    assert_int_equal(w.v.n_merges, 1);
    check_span(w.v.merges[0], "a b");
    assert_null(w.v.scores);
    assert_int_equal(w.v.special[NB_VOCAB_BOS], 5);
    assert_int_equal(w.v.special[NB_VOCAB_PAD], 1);
    assert_int_equal(w.v.special[NB_VOCAB_MASK], -1);
    assert_int_equal(w.v.special[NB_VOCAB_EOS], 5); /* by its text */
    assert_int_equal(w.v.flag[NB_VOCAB_ADD_BOS], NB_VOCAB_FALSE);
    assert_int_equal(w.v.flag[NB_VOCAB_ADD_SPACE_PREFIX], NB_VOCAB_ABSENT);
    check_span(w.v.chat_template, "D");
    release(&w);
}

static void holes(void **state)
{
    (void)state;
    struct written w = write("{" BYTE_PARTS "," HOLE_MODEL "}", NULL, NULL, 0);
    if (w.rc) fail_msg("%s", w.err.text);
    assert_int_equal(w.v.n, 4);
    check_span(w.v.tokens[2], "[PAD2]");
    assert_int_equal(w.v.types[2], NB_VOCAB_UNUSED);
    check_span(w.v.tokens[3], "ab");
    release(&w);
}

static void pieces(void **state)
{
    (void)state;
    struct written w = write(
        "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"" M
        "\"}," TO_MARK "]}," SPM_MODEL ",\"added_tokens\":[" TOKEN("<s>", "true") "," TOKEN(
            "</s>", "true") "]," TEMPLATE(SPECIAL("<s>") ",", "") "}",
        "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\"}", NULL, 0);
    if (w.rc) fail_msg("%s", w.err.text);
    assert_string_equal(nb_strbuf_cstr(&w.note), "");
    static const int32_t types[] = {2, 3, 3, 6, 1, 1, 1, 1, 1};
    static const float scores[] = {-1e6f, -1e6f, -1e6f, -1e6f, -1e6f, -1e6f, -1e6f, 0, -1};
    assert_int_equal(w.v.n, 9);
    for (size_t i = 0; i < 9; i++) {
        assert_int_equal(w.v.types[i], types[i]);
        assert_true(w.v.scores[i] == scores[i]);
    }
    check_span(w.v.model, "llama");
    check_span(w.v.pre, "default");
    assert_int_equal(w.v.n_merges, 0);
    assert_int_equal(w.v.special[NB_VOCAB_BOS], 1);
    assert_int_equal(w.v.special[NB_VOCAB_EOS], 2);
    assert_int_equal(w.v.special[NB_VOCAB_UNK], 0);
    assert_int_equal(w.v.flag[NB_VOCAB_ADD_BOS], NB_VOCAB_TRUE);
    assert_int_equal(w.v.flag[NB_VOCAB_ADD_EOS], NB_VOCAB_FALSE);
    assert_int_equal(w.v.flag[NB_VOCAB_ADD_SPACE_PREFIX], NB_VOCAB_TRUE);
    check_span(w.v.chat_template, "from the file");
    release(&w);
}

static void notes(void **state)
{
    (void)state;
    static const struct {
        const char *tokenizer, *config;
        size_t n_rows;
        const char *note;
    } cases[] = {
        {"{\"normalizer\":" PART("NFC") "," BYTE_PARTS "," BYTE_MODEL "}", NULL, 0,
         "normalizer NFC is not applied by llama.cpp"},
        {"{" BYTE_PARTS "," BYTE_MODEL "}", NULL, 0,
         "no end-of-text token is known: llama.cpp will"
         " take token 11"},
        {"{" BYTE_PARTS "," BYTE_MODEL
         ",\"added_tokens\":[" TOKEN("x", "true") "," TOKEN("y", "true") "]}",
         NULL, 4, "1 added tokens beyond the 4 rows of the embedding are left out"},
        {"{" BYTE_PARTS "," BYTE_MODEL ",\"added_tokens\":[{\"content\":\"x\",\"single_word\":true,"
         "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}]}",
         NULL, 0, "lstrip, rstrip and single_word of added tokens are not known to llama.cpp"},
        {"{\"normalizer\":" TO_MARK "," SPM_MODEL "," TEMPLATE(SPECIAL("<s>") ",", "") "}",
         "{\"add_bos_token\":false}", 0,
         "add_bos_token is false in tokenizer_config.json, the template of tokenizer.json says true"},
        {"{\"normalizer\":" TO_MARK "," SPM_MODEL
         "," TEMPLATE(SPECIAL("<s>") "," SPECIAL("</s>") ",", "") "}",
         NULL, 0, "the template puts 2 tokens before the text, llama.cpp knows only bos_token_id"},
        {"{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"" M
         "\",\"prepend_scheme\":\"first\"}," SPM_MODEL "}",
         NULL, 0, "Metaspace puts a space before the first text only"},
        {"{\"normalizer\":" TO_MARK
         ",\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":0,\"aa\":1,\"aaa\":2,"
         "\"b\":3,\"ab\":4},\"merges\":[\"a a\",\"a aa\",\"a b\",\"aa a\"]}}",
         NULL, 0, "1 merges make a token that an earlier merge makes too"},
        {"{\"normalizer\":" TO_MARK
         ",\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":0,\"aa\":1,\"aaa\":2},"
         "\"merges\":[\"a a\",\"a aa\"]}}",
         NULL, 0, "llama.cpp also joins 1 pairs of tokens for which there is no merge"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct written w = write(cases[i].tokenizer, cases[i].config, NULL, cases[i].n_rows);
        if (w.rc) fail_msg("%zu: %s", i, w.err.text);
        if (!strstr(nb_strbuf_cstr(&w.note), cases[i].note))
            fail_msg("%zu: %s", i, nb_strbuf_cstr(&w.note));
        release(&w);
    }
}

static void refusals(void **state)
{
    (void)state;
    static const struct {
        const char *tokenizer;
        size_t n_rows;
        int status;
        const char *text;
    } cases[] = {
        {"{" BYTE_MODEL "}", 0, NB_E_SPEC,
         "t.json: a GGUF holds byte-level BPE or BPE with byte_fallback and U+2581 for spaces, this"
         " is neither"},
        {"{\"normalizer\":" PART("Lowercase") "," BYTE_PARTS "," BYTE_MODEL "}", 0, NB_E_SPEC,
         "t.json: normalizer 'Lowercase' cannot be expressed in a GGUF with tokenizer model gpt2"},
        {"{\"normalizer\":" TO_MARK ",\"pre_tokenizer\":" PART("Whitespace") "," SPM_MODEL "}", 0,
         NB_E_SPEC,
         "t.json: pre_tokenizer 'Whitespace' cannot be expressed in a GGUF with tokenizer model"
         " llama"},
        {"{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" PART(
             "WhitespaceSplit") ",{\"type\":\"ByteLevel\",\"add_prefix_space\":false}]},\"decoder\":" PART("ByteLevel") "," BYTE_MODEL
                                                                                                                        "}",
         0, NB_E_SPEC,
         "t.json: llama.cpp has no pre-tokenizer that cuts as this pre_tokenizer does"},
        {"{" BYTE_PARTS "," HOLE_MODEL "}", 3, NB_E_FORMAT,
         "t.json: 4 tokens, the embedding has 3 rows"},
        {"{" BYTE_PARTS "," BYTE_MODEL
         ",\"added_tokens\":[" TOKEN("x y", "false") "," TOKEN("x" M "y", "false") "]}",
         0, NB_E_SPEC, "t.json: tokens "},
        {"{" BYTE_PARTS ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}", 0,
         NB_E_FORMAT, "as GGUF: t.json: tokenizer model gpt2 without merges"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct written w = write(cases[i].tokenizer, NULL, NULL, cases[i].n_rows);
        assert_int_equal(w.rc, cases[i].status);
        if (strncmp(w.err.text, cases[i].text, strlen(cases[i].text)) != 0)
            fail_msg("%zu: %s", i, w.err.text);
        release(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(byte_level), cmocka_unit_test(holes),
                                       cmocka_unit_test(pieces), cmocka_unit_test(notes),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
