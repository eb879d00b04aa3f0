/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tokenizers.c - ids and decoded text equal the reference package's, for every family.
 *
 * The vectors and their format: make_tokenizers.py. A folder of other vectors may be named on the
 * command line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "base/strbuf.h"
#include "data/data.h"
#include "text/tokenizer.h"

struct fixture {
    const char *dir;
    json_t *corpus;
    char **texts;
    size_t *bytes;
    size_t n_texts;
};

static int n_wrong;

static void wrong(const char *tokenizer, size_t i, const char *what)
{
    if (n_wrong++ < 40) fprintf(stderr, "%s: text %zu: %s\n", tokenizer, i, what);
}

static json_t *load(const struct fixture *f, const char *name)
{
    struct nb_err err;
    char *path = nb_path_join(f->dir, name);
    json_t *v = nb_json_load(path, 64 << 20, &err);
    if (!v) fail_msg("%s", err.text);
    nb_free(path);
    return v;
}

static struct nb_tokenizer *open_json(const json_t *spec, const char *what)
{
    struct nb_err err;
    struct nb_tokenizer *t;
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    assert_int_equal(nb_json_dump(spec, false, &text, &err), 0);
    if (nb_tokenizer_parse(&t, text.data, text.len, what, &err)) fail_msg("%s: %s", what, err.text);
    nb_strbuf_release(&text);
    return t;
}

static int setup(void **state)
{
    struct fixture *f = *state;
    f->corpus = load(f, "corpus.json");
    f->n_texts = json_array_size(f->corpus);
    f->texts = nb_calloc(f->n_texts, sizeof *f->texts);
    f->bytes = nb_calloc(f->n_texts, sizeof *f->bytes);
    for (size_t i = 0; i < f->n_texts; i++) {
        const json_t *v = json_array_get(f->corpus, i), *r = json_object_get(v, "repeat");
        const json_t *s = r ? json_array_get(r, 0) : v;
        size_t n = r ? (size_t)json_integer_value(json_array_get(r, 1)) : 1,
               len = json_string_length(s);
        f->texts[i] = nb_alloc(n * len + 1, 1);
        for (size_t k = 0; k < n; k++) memcpy(f->texts[i] + k * len, json_string_value(s), len);
        f->bytes[i] = n * len;
    }
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < f->n_texts; i++) nb_free(f->texts[i]);
    nb_free(f->texts);
    nb_free(f->bytes);
    json_decref(f->corpus);
    return 0;
}

static struct nb_ids encode(const struct nb_tokenizer *t, const struct fixture *f, size_t i,
                            unsigned flags)
{
    struct nb_err err;
    struct nb_ids ids = {0};
    if (nb_tokenizer_encode(t, f->texts[i], f->bytes[i], flags, &ids, &err))
        fail_msg("%s", err.text);
    return ids;
}

static void hash_ids(const struct nb_ids *ids, char hex[NB_SHA256_HEX])
{
    nb_sha256_bytes(ids->data ? (const void *)ids->data : "", ids->n * sizeof *ids->data, hex);
}

/* want: an array of ids, or {"n", "sha256"}. */
static bool same_ids(const struct nb_ids *ids, size_t from, size_t n, const json_t *want)
{
    if (json_is_object(want)) {
        char hex[NB_SHA256_HEX];
        struct nb_ids part = {ids->data + from, n, 0};
        hash_ids(&part, hex);
        return (size_t)json_integer_value(json_object_get(want, "n")) == n &&
               strcmp(hex, json_string_value(json_object_get(want, "sha256"))) == 0;
    }
    if (json_array_size(want) != n) return false;
    for (size_t i = 0; i < n; i++) {
        if (json_integer_value(json_array_get(want, i)) != ids->data[from + i]) return false;
    }
    return true;
}

/* Decodes at once and as a stream whose every piece must be valid UTF-8; both must agree. */
static struct nb_strbuf decode(const struct nb_tokenizer *t, const int32_t *ids, size_t n,
                               bool skip)
{
    struct nb_err err;
    struct nb_strbuf all, pieces;
    nb_strbuf_init(&all);
    nb_strbuf_init(&pieces);
    if (nb_tokenizer_decode(t, ids, n, skip, &all, &err)) fail_msg("%s", err.text);
    struct nb_detok *d = nb_detok_new(t, skip);
    for (size_t i = 0; i <= n; i++) {
        size_t before = pieces.len;
        int rc =
            i < n ? nb_detok_push(d, ids[i], &pieces, &err) : nb_detok_finish(d, &pieces, &err);
        if (rc) fail_msg("%s", err.text);
        json_t *valid = json_stringn(nb_strbuf_cstr(&pieces) + before, pieces.len - before);
        assert_non_null(valid);
        json_decref(valid);
    }
    nb_detok_free(d);
    assert_int_equal(all.len, pieces.len);
    if (all.len) assert_memory_equal(all.data, pieces.data, all.len);
    nb_strbuf_release(&pieces);
    return all;
}

static bool same_text(const struct nb_strbuf *b, const json_t *want, const char *text, size_t bytes)
{
    if (json_is_object(want)) {
        char hex[NB_SHA256_HEX];
        nb_sha256_bytes(nb_strbuf_cstr(b), b->len, hex);
        return strcmp(hex, json_string_value(json_object_get(want, "sha256"))) == 0;
    }
    if (want) {
        text = json_string_value(want);
        bytes = json_string_length(want);
    }
    return b->len == bytes && (bytes == 0 || memcmp(b->data, text, bytes) == 0);
}

static void check_random(const struct nb_tokenizer *t, const json_t *cases, const char *name)
{
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *c = json_array_get(cases, i), *list = json_array_get(c, 0);
        int32_t ids[64];
        size_t n = json_array_size(list);
        for (size_t k = 0; k < n; k++)
            ids[k] = (int32_t)json_integer_value(json_array_get(list, k));
        for (size_t skip = 0; skip < 2; skip++) {
            struct nb_strbuf b = decode(t, ids, n, skip);
            if (!same_text(&b, json_array_get(c, 1 + skip), "", 0))
                wrong(name, i, "random ids decode");
            nb_strbuf_release(&b);
        }
    }
}

/* ---- families: full vectors ---- */

static void check_text(const struct nb_tokenizer *t, const struct fixture *f, const json_t *e,
                       const char *name, size_t i)
{
    char key[24];
    snprintf(key, sizeof key, "%zu", i);
    const json_t *want = json_array_get(json_object_get(e, "ids"), i);
    struct nb_ids ids = encode(t, f, i, 0);
    if (!same_ids(&ids, 0, ids.n, want)) wrong(name, i, "ids");

    const json_t *before = json_object_get(e, "before"), *after = json_object_get(e, "after");
    size_t n_before = json_array_size(before), n_after = json_array_size(after);
    struct nb_ids with = encode(t, f, i, NB_ENCODE_TEMPLATE);
    if (with.n != n_before + ids.n + n_after || !same_ids(&with, 0, n_before, before) ||
        !same_ids(&with, n_before, ids.n, want) ||
        !same_ids(&with, n_before + ids.n, n_after, after)) {
        wrong(name, i, "ids with the template");
    }
    const json_t *plain = json_object_get(json_object_get(e, "plain"), key);
    struct nb_ids as_text = encode(t, f, i, NB_ENCODE_PLAIN);
    if (!same_ids(&as_text, 0, as_text.n, plain ? plain : want))
        wrong(name, i, "ids, specials as text");

    for (int skip = 0; skip < 2; skip++) {
        struct nb_strbuf b = decode(t, ids.data, ids.n, skip);
        const json_t *text = json_object_get(json_object_get(e, skip ? "skip" : "decode"), key);
        if (!same_text(&b, text, f->texts[i], f->bytes[i]))
            wrong(name, i, skip ? "skip" : "decode");
        nb_strbuf_release(&b);
    }
    nb_ids_release(&ids);
    nb_ids_release(&with);
    nb_ids_release(&as_text);
}

static void families(void **state)
{
    struct fixture *f = *state;
    struct nb_err err;
    char **names;
    size_t n, n_families = 0;
    n_wrong = 0;
    if (nb_dir_list(f->dir, &names, &n, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < n; i++) {
        char *suffix = strstr(names[i], ".expected.json");
        if (!suffix) continue;
        json_t *e = load(f, names[i]);
        memcpy(suffix, ".json", sizeof ".json");
        json_t *spec = load(f, names[i]);
        struct nb_tokenizer *t = open_json(spec, names[i]);
        assert_int_equal(json_array_size(json_object_get(e, "ids")), f->n_texts);
        for (size_t k = 0; k < f->n_texts; k++) check_text(t, f, e, names[i], k);
        check_random(t, json_object_get(e, "random"), names[i]);
        nb_tokenizer_close(t);
        json_decref(spec);
        json_decref(e);
        n_families++;
    }
    nb_dir_list_free(names, n);
    assert_true(n_families >= 8);
    assert_int_equal(n_wrong, 0);
}

/* ---- variants: digests ---- */

/* As apply_patch in make_tokenizers.py. */
static json_t *patched(const json_t *base, const json_t *patch)
{
    json_t *t = json_deep_copy(base), *model = json_object_get(t, "model");
    json_t *vocab = json_object_get(model, "vocab");
    const char *key;
    json_t *value, *token;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)patch, key, value)
    {
        if (strcmp(key, "model") == 0) {
            json_object_update(model, value);
        } else if (strcmp(key, "drop") == 0) {
            json_array_foreach(value, i, token) json_object_del(vocab, json_string_value(token));
        } else {
            json_object_set(t, key, value);
        }
    }
    json_t *tokens = json_object_get(t, "added_tokens");
    json_array_foreach(tokens, i, token)
    {
        if (!json_object_get(token, "id")) json_object_set_new(token, "id", json_integer(0));
    }
    return t;
}

static void check_variant(const struct fixture *f, const json_t *base, const json_t *v)
{
    const char *name = json_string_value(json_object_get(v, "name"));
    const char *want_ids = json_string_value(json_object_get(v, "ids"));
    const char *want_rest = json_string_value(json_object_get(v, "rest"));
    json_t *spec = patched(base, json_object_get(v, "patch"));
    struct nb_tokenizer *t = open_json(spec, name);
    size_t n = strlen(want_ids) / 4;
    assert_true(n > 100 && n <= f->n_texts);
    for (size_t i = 0; i < n; i++) {
        char hex[NB_SHA256_HEX];
        struct nb_ids ids = encode(t, f, i, 0), plain = encode(t, f, i, NB_ENCODE_PLAIN);
        hash_ids(&ids, hex);
        if (memcmp(hex, want_ids + 4 * i, 4) != 0) wrong(name, i, "ids");
        struct nb_sha256 h;
        nb_sha256_init(&h);
        nb_sha256_add(&h, plain.data ? (const void *)plain.data : "", plain.n * sizeof *plain.data);
        for (int skip = 0; skip < 2; skip++) {
            struct nb_strbuf b = decode(t, ids.data, ids.n, skip);
            nb_sha256_add(&h, "|", 1);
            nb_sha256_add(&h, nb_strbuf_cstr(&b), b.len);
            nb_strbuf_release(&b);
        }
        nb_sha256_finish(&h, hex);
        if (memcmp(hex, want_rest + 4 * i, 4) != 0)
            wrong(name, i, "special tokens as text, or decode");
        nb_ids_release(&ids);
        nb_ids_release(&plain);
    }
    check_random(t, json_object_get(v, "random"), name);
    nb_tokenizer_close(t);
    json_decref(spec);
}

static void variants(void **state)
{
    struct fixture *f = *state;
    n_wrong = 0;
    json_t *all = load(f, "variants.json"), *list = json_object_get(all, "variants");
    assert_true(json_array_size(list) > 80);
    for (size_t i = 0; i < json_array_size(list); i++) {
        check_variant(f, json_object_get(all, "base"), json_array_get(list, i));
    }
    json_decref(all);
    assert_int_equal(n_wrong, 0);
}

/* ---- the bundled texts with the model's own tokenizer ---- */

static void books(void **state)
{
    struct fixture *f = *state;
    struct nb_err err;
    struct nb_tokenizer *t;
    if (nb_tokenizer_open(&t, "models/books-11m", &err)) fail_msg("%s", err.text);
    json_t *want = load(f, "books.json"), *v;
    const char *name;
    assert_int_equal(json_object_size(want), 3);
    json_object_foreach(want, name, v)
    {
        size_t bytes;
        const char *text = nb_bundled_text(name, &bytes);
        assert_non_null(text);
        struct nb_ids ids = {0};
        assert_int_equal(nb_tokenizer_encode(t, text, bytes, 0, &ids, &err), 0);
        assert_true(same_ids(&ids, 0, ids.n, v));
        struct nb_strbuf b = decode(t, ids.data, ids.n, false);
        assert_int_equal(b.len, bytes);
        assert_memory_equal(b.data, text, bytes);
        nb_strbuf_release(&b);
        nb_ids_release(&ids);
    }
    json_decref(want);
    nb_tokenizer_close(t);
}

int main(int argc, char **argv)
{
    struct fixture f = {.dir = argc > 1 ? argv[1] : "tests/golden/tokenizers"};
    struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(families, &f),
        cmocka_unit_test_prestate(variants, &f),
        cmocka_unit_test_prestate(books, &f),
    };
    void *state = &f;
    if (setup(&state)) return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    teardown(&state);
    return rc;
}
