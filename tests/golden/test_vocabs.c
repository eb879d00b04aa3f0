/* SPDX-License-Identifier: Apache-2.0
 *
 * test_vocabs.c - GGUF vocabularies made from tokenizer.json give llama.cpp's ids, and where these
 * are the tokenizer.json's own ids.
 *
 * The vectors and their format: make_vocabs.py, which writes the vocabularies its own way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/strbuf.h"
#include "checkpoint/internal.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

struct fixture {
    json_t *corpus, *expected;
};

static int n_wrong;

static json_t *load(const char *folder, const char *name)
{
    struct nb_err err;
    char *path = nb_path_join(folder, name);
    json_t *v = nb_json_load(path, 64 << 20, &err);
    if (!v) fail_msg("%s", err.text);
    nb_free(path);
    return v;
}

static json_t *load_family(const char *name)
{
    char file[64];
    snprintf(file, sizeof file, "%s.json", name);
    return load("tests/golden/tokenizers", file);
}

/* ---- vocabularies and their digests ---- */

static json_t *config_of(const char *name)
{
    static const struct {
        const char *name, *bos, *eos;
    } kinds[] = {{"llama3", "<|begin_of_text|>", "<|end_of_text|>"},
                 {"tekken", "<s>", "</s>"},
                 {"llama2", "<s>", "</s>"},
                 {"mistral3", "<s>", "</s>"},
                 {"gemma", "<bos>", "</s>"}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, name) == 0)
            return json_pack("{s:s, s:s}", "bos_token", kinds[i].bos, "eos_token", kinds[i].eos);
    }
    return json_object();
}

static void make_vocab(struct nb_vocab *v, const json_t *spec, const char *name)
{
    struct nb_err err;
    struct nb_strbuf note;
    nb_strbuf_init(&note);
    json_t *config = config_of(name);
    struct nb_vocab_source source = {.tokenizer = spec, .tokenizer_config = config, .what = name};
    if (nb_tokenizer_vocab(v, &source, &note, &err)) fail_msg("%s", err.text);
    nb_strbuf_release(&note);
    json_decref(config);
}

static struct nb_tokenizer *open_vocab(const struct nb_vocab *v, const char *name)
{
    struct nb_err err;
    struct nb_tokenizer *t;
    if (nb_tokenizer_from_vocab(&t, v, name, &err)) fail_msg("%s", err.text);
    return t;
}

static void encode(const struct nb_tokenizer *t, const char *text, size_t n, unsigned flags,
                   struct nb_ids *ids)
{
    struct nb_err err;
    if (nb_tokenizer_encode(t, text, n, flags, ids, &err)) fail_msg("%s", err.text);
}

static void check_text(const struct nb_tokenizer *t, const char *text, size_t n, unsigned flags,
                       const char *want, const char *name)
{
    char hex[NB_SHA256_HEX];
    struct nb_ids ids = {0};
    encode(t, text, n, flags, &ids);
    nb_sha256_bytes(ids.data ? (const void *)ids.data : "", ids.n * sizeof *ids.data, hex);
    bool skipped = n == 0 && memcmp(want, "----", 4) == 0;
    if (!skipped && memcmp(hex, want, 4) != 0 && n_wrong++ < 40)
        fprintf(stderr, "%s, flags %u: '%.60s'\n", name, flags, text);
    nb_ids_release(&ids);
}

/* want: four digits per text of the corpus. */
static void check_corpus(const struct nb_tokenizer *t, const struct fixture *f, unsigned flags,
                         const json_t *want, const char *name)
{
    const char *digests = json_string_value(want);
    size_t i, n = 0;
    json_t *v;
    assert_non_null(digests);
    json_array_foreach(f->corpus, i, v)
    {
        if (!json_is_string(v)) continue;
        assert_true(strlen(digests) >= 4 * n + 4);
        check_text(t, json_string_value(v), json_string_length(v), flags, digests + 4 * n, name);
        n++;
    }
    assert_int_equal(strlen(digests), 4 * n);
    assert_true(n > 150);
}

/* ---- families ---- */

/* Texts for which the tokenizer.json gives other ids. */
static int count_other_ids(const struct fixture *f, const json_t *spec,
                           const struct nb_tokenizer *t, const char *name)
{
    struct nb_err err;
    struct nb_strbuf text;
    struct nb_tokenizer *own;
    nb_strbuf_init(&text);
    assert_int_equal(nb_json_dump(spec, false, &text, &err), 0);
    if (nb_tokenizer_parse(&own, text.data, text.len, name, &err)) fail_msg("%s", err.text);
    nb_strbuf_release(&text);
    size_t i;
    int n = 0;
    json_t *v;
    json_array_foreach(f->corpus, i, v)
    {
        struct nb_ids a = {0}, b = {0};
        if (!json_is_string(v)) continue;
        encode(own, json_string_value(v), json_string_length(v), 0, &a);
        encode(t, json_string_value(v), json_string_length(v), 0, &b);
        bool same = a.n == b.n && (a.n == 0 || memcmp(a.data, b.data, a.n * sizeof *a.data) == 0);
        n += !same;
        nb_ids_release(&a);
        nb_ids_release(&b);
    }
    nb_tokenizer_close(own);
    return n;
}

static void families(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *name;
        int others; /* qwen2: not NFC; mistral3: a space or a special in front; gemma: "  " is a token */
    } cases[] = {{"gpt2", 0},      {"llama3", 0}, {"qwen2", 18},    {"cl100k", 0}, {"tekken", 0},
                 {"deepseek3", 0}, {"llama2", 0}, {"mistral3", 24}, {"gemma", 14}};
    n_wrong = 0;
    json_t *all = json_object_get(f->expected, "families");
    assert_int_equal(json_object_size(all), sizeof cases / sizeof *cases);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *name = cases[i].name;
        const json_t *want = json_object_get(all, name);
        json_t *spec = load_family(name);
        struct nb_vocab v;
        make_vocab(&v, spec, name);
        assert_string_equal((const char *)v.pre.data,
                            json_string_value(json_object_get(want, "pre")));
        struct nb_tokenizer *t = open_vocab(&v, name);
        nb_vocab_release(&v);
        check_corpus(t, f, 0, json_object_get(want, "ids"), name);
        check_corpus(t, f, NB_ENCODE_PLAIN, json_object_get(want, "plain"), name);
        check_corpus(t, f, NB_ENCODE_TEMPLATE, json_object_get(want, "with"), name);
        int others = count_other_ids(f, spec, t, name);
        if (others != cases[i].others) {
            n_wrong++;
            fprintf(stderr, "%s: %d texts with other ids than tokenizer.json's\n", name, others);
        }
        nb_tokenizer_close(t);
        json_decref(spec);
    }
    assert_int_equal(n_wrong, 0);
}

/* Its letters are not those of llama.cpp's deepseek-llm. */
static void no_name(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_strbuf note;
    struct nb_vocab v;
    nb_strbuf_init(&note);
    json_t *spec = load_family("deepseek");
    struct nb_vocab_source source = {.tokenizer = spec, .what = "deepseek"};
    assert_int_equal(nb_tokenizer_vocab(&v, &source, &note, &err), NB_E_SPEC);
    assert_string_equal(
        err.text, "deepseek: llama.cpp has no pre-tokenizer that cuts as this pre_tokenizer does");
    nb_strbuf_release(&note);
    json_decref(spec);
}

/* ---- rules ---- */

/* The corpus, joined by a line feed, eight texts at a time. */
static void check_joined(const struct nb_tokenizer *t, const struct fixture *f, const char *digests,
                         const char *name)
{
    struct nb_strbuf b;
    size_t i, n = 0;
    json_t *v;
    nb_strbuf_init(&b);
    json_array_foreach(f->corpus, i, v)
    {
        if (!json_is_string(v)) continue;
        if (n % 8 == 0) nb_strbuf_reset(&b);
        else nb_strbuf_putc(&b, '\n');
        nb_strbuf_add(&b, json_string_value(v), json_string_length(v));
        if (n++ % 8 == 7) check_text(t, b.data, b.len, 0, digests + 4 * ((n - 1) / 8), name);
    }
    if (n % 8) check_text(t, b.data, b.len, 0, digests + 4 * (n / 8), name);
    assert_int_equal(strlen(digests), 4 * ((n + 7) / 8));
    nb_strbuf_release(&b);
}

static void rules(void **state)
{
    struct fixture *f = *state;
    json_t *base = load("tests/golden/vocabs", "base.json"), *want;
    const char *names;
    struct nb_vocab v;
    int n = 0;
    n_wrong = 0;
    make_vocab(&v, base, "base");
    json_object_foreach(json_object_get(f->expected, "rules"), names, want)
    {
        for (const char *p = names; *p; n++) {
            size_t len = strcspn(p, " ");
            char name[32];
            snprintf(name, sizeof name, "%.*s", (int)len, p);
            v.pre = (struct nb_span){(const unsigned char *)name, len};
            v.flag[NB_VOCAB_ADD_BOS] = NB_VOCAB_FALSE;
            struct nb_tokenizer *t = open_vocab(&v, name);
            check_joined(t, f, json_string_value(want), name);
            nb_tokenizer_close(t);
            p += len + (p[len] == ' ');
        }
    }
    assert_true(n > 60);
    nb_vocab_release(&v);
    json_decref(base);
    assert_int_equal(n_wrong, 0);
}

/* ---- variants of llama2.json ---- */

static void patch(struct nb_vocab *v, const char *name, float *scores, struct nb_span *tokens,
                  int32_t *types)
{
    static const char *const nested[] = {"the the", "he t", "ab", "abc", " a", "\n\n"};
    memcpy(scores, v->scores, v->n * sizeof *scores);
    memcpy(tokens, v->tokens, v->n * sizeof *tokens);
    memcpy(types, v->types, v->n * sizeof *types);
    uint32_t state = 1;
    for (size_t i = 0; i < v->n; i++) {
        state = (state * 1103515245u + 12345u) & 0x7fffffffu;
        if (strcmp(name, "equal") == 0) scores[i] = -1000;
        if (strcmp(name, "random") == 0) scores[i] = (float)(state / 65536 % 50);
    }
    for (size_t k = 0; k < 6 && strcmp(name, "nested") == 0; k++) {
        size_t at = 0, n = strlen(nested[k]);
        while (at < v->n && (tokens[at].bytes != n || memcmp(tokens[at].data, nested[k], n) != 0))
            at++;
        if (at == v->n) at = v->n - 6 + k;
        tokens[at] = (struct nb_span){(const unsigned char *)nested[k], n};
        types[at] = NB_VOCAB_USER_DEFINED;
    }
    if (strcmp(name, "no-prefix") == 0) v->flag[NB_VOCAB_ADD_SPACE_PREFIX] = NB_VOCAB_FALSE;
    if (strcmp(name, "phi3") == 0) {
        v->name = (struct nb_span){(const unsigned char *)"My Phi-3 mini", 13};
        tokens[v->n - 1] = (struct nb_span){(const unsigned char *)"<|endoftext|>", 13};
        types[v->n - 1] = NB_VOCAB_CONTROL;
    }
    v->scores = scores;
    v->tokens = tokens;
    v->types = types;
}

static void variants(void **state)
{
    struct fixture *f = *state;
    json_t *spec = load_family("llama2"), *want;
    const char *name;
    int n = 0;
    n_wrong = 0;
    json_object_foreach(json_object_get(f->expected, "variants"), name, want)
    {
        struct nb_vocab v;
        make_vocab(&v, spec, "llama2");
        float *scores = nb_calloc(v.n, sizeof *scores);
        struct nb_span *tokens = nb_calloc(v.n, sizeof *tokens);
        int32_t *types = nb_calloc(v.n, sizeof *types);
        patch(&v, name, scores, tokens, types);
        struct nb_tokenizer *t = open_vocab(&v, name);
        check_corpus(t, f, 0, want, name);
        nb_tokenizer_close(t);
        nb_vocab_release(&v);
        nb_free(scores);
        nb_free(tokens);
        nb_free(types);
        n++;
    }
    json_decref(spec);
    assert_int_equal(n, 5);
    assert_int_equal(n_wrong, 0);
}

/* ---- and back ---- */

/* The tokenizer.json written for a vocabulary of scores gives the vocabulary's ids. */
static void written(void **state)
{
    const struct fixture *f = *state;
    static const struct {
        const char *name, *notes;
        int others;
    } cases[] = {
        {"llama2", "", 0},
        {"mistral3", "", 0},
        {"gemma",
         "tokenizer.json: where user-defined tokens overlap it takes the leftmost, the GGUF file the longest\n",
         0}};
    n_wrong = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *name = cases[i].name;
        struct nb_err err;
        struct nb_strbuf notes;
        struct nb_vocab v;
        json_t *spec = load_family(name), *made;
        nb_strbuf_init(&notes);
        make_vocab(&v, spec, name);
        struct nb_tokenizer *t = open_vocab(&v, name);
        if (nb_vocab_tokenizer_json(&v, &made, &notes, &err)) fail_msg("%s", err.text);
        assert_non_null(made);
        assert_string_equal(nb_strbuf_cstr(&notes), cases[i].notes);
        int others = count_other_ids(f, made, t, name);
        if (others != cases[i].others) {
            n_wrong++;
            fprintf(stderr, "%s: %d texts with other ids than as written\n", name, others);
        }
        nb_tokenizer_close(t);
        nb_vocab_release(&v);
        nb_strbuf_release(&notes);
        json_decref(made);
        json_decref(spec);
    }
    assert_int_equal(n_wrong, 0);
}

/* Scores that are all equal put the merges in no order. */
static void not_written(void **state)
{
    (void)state;
    struct nb_err err;
    struct nb_strbuf notes;
    struct nb_vocab v;
    json_t *spec = load_family("llama2"), *made;
    nb_strbuf_init(&notes);
    make_vocab(&v, spec, "llama2");
    float *scores = nb_calloc(v.n, sizeof *scores);
    v.scores = scores;
    assert_int_equal(nb_vocab_tokenizer_json(&v, &made, &notes, &err), 0);
    assert_null(made);
    assert_string_equal(
        nb_strbuf_cstr(&notes),
        "tokenizer.json is not written: all scores are equal, nothing orders the merges\n");
    nb_vocab_release(&v);
    nb_strbuf_release(&notes);
    nb_free(scores);
    json_decref(spec);
}

int main(void)
{
    struct fixture f = {load("tests/golden/tokenizers", "corpus.json"),
                        load("tests/golden/vocabs", "expected.json")};
    struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(families, &f), cmocka_unit_test(no_name),
        cmocka_unit_test_prestate(rules, &f),    cmocka_unit_test_prestate(variants, &f),
        cmocka_unit_test_prestate(written, &f),  cmocka_unit_test(not_written),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    json_decref(f.corpus);
    json_decref(f.expected);
    return rc;
}
