/* SPDX-License-Identifier: Apache-2.0
 *
 * bpe_load.c - the model of tokenizer.json into the tables of bpe.h. */
#include <stdio.h>
#include <string.h>

#include "text/bpe.h"

/* Ids may leave holes, but a table over all of them must stay in proportion to the file. */
enum { ID_SLACK = 1 << 16 };

static int no_memory(const char *what, struct nb_err *err)
{
    return nb_fail(err, NB_E_NOMEM, "%s: no memory for the vocabulary", what);
}

static int load_vocab(struct nb_bpe *b, json_t *vocab, const char *what, struct nb_err *err)
{
    if (!json_is_object(vocab)) {
        return nb_fail(err, NB_E_FORMAT, "%s: model: key 'vocab': expected an object, found %s",
                       what, nb_json_type_name(vocab));
    }
    const char *text;
    json_t *v;
    size_t n = json_object_size(vocab);
    json_int_t limit = (json_int_t)(n < 1u << 28 ? 2 * n + ID_SLACK : 0);
    json_object_foreach(vocab, text, v)
    {
        json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id >= limit) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: id of token '%.64s': expected an integer from 0 to %lld, found %s",
                           what, text, (long long)limit - 1,
                           json_is_integer(v) ? "another" : nb_json_type_name(v));
        }
        if ((size_t)id >= b->n_ids) b->n_ids = (size_t)id + 1;
    }
    b->n_real = b->n_ids;
    if (!nb_strmap_init(&b->vocab, n)) return no_memory(what, err);
    b->tokens = nb_calloc(b->n_ids, sizeof *b->tokens);
    if (!b->tokens) return no_memory(what, err);
    json_object_foreach(vocab, text, v)
    {
        size_t id = (size_t)json_integer_value(v), bytes = strlen(text);
        if (b->tokens[id].text) {
            return nb_fail(err, NB_E_FORMAT, "%s: tokens '%.64s' and '%.64s' share id %zu", what,
                           b->tokens[id].text, text, id);
        }
        const char *copy = nb_arena_strdup(&b->arena, text);
        if (!copy || !nb_strmap_put(&b->vocab, copy, bytes, (int32_t)id))
            return no_memory(what, err);
        b->tokens[id] = (struct nb_token){copy, (uint32_t)bytes};
    }
    return 0;
}

struct half {
    const char *text;
    size_t bytes;
};

/* One merge, "a b" or ["a", "b"], as two texts. */
static bool split_merge(const json_t *m, struct half *left, struct half *right)
{
    if (json_is_string(m)) {
        const char *s = json_string_value(m);
        size_t n = json_string_length(m);
        const char *space = memchr(s, ' ', n);
        if (!space) return false;
        *left = (struct half){s, (size_t)(space - s)};
        *right = (struct half){space + 1, n - left->bytes - 1};
        return !memchr(right->text, ' ', right->bytes);
    }
    const json_t *a = json_array_get(m, 0), *b = json_array_get(m, 1);
    if (json_array_size(m) != 2 || !json_is_string(a) || !json_is_string(b)) return false;
    *left = (struct half){json_string_value(a), json_string_length(a)};
    *right = (struct half){json_string_value(b), json_string_length(b)};
    return true;
}

static int unknown_half(struct half h, size_t rank, const char *what, struct nb_err *err)
{
    return nb_fail(err, NB_E_FORMAT, "%s: merge %zu: '%.*s' is not in the vocabulary", what, rank,
                   (int)(h.bytes < 64 ? h.bytes : 64), h.text);
}

static int load_merge(struct nb_bpe *b, const json_t *m, size_t rank, struct nb_strbuf *joined,
                      const char *what, struct nb_err *err)
{
    struct half left, right;
    if (!split_merge(m, &left, &right)) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: merge %zu: expected \"left right\" or [\"left\",\"right\"]", what,
                       rank);
    }
    int32_t a = nb_strmap_get(&b->vocab, left.text, left.bytes);
    if (a < 0) return unknown_half(left, rank, what, err);
    int32_t c = nb_strmap_get(&b->vocab, right.text, right.bytes);
    if (c < 0) return unknown_half(right, rank, what, err);
    nb_strbuf_reset(joined);
    nb_strbuf_add(joined, left.text, left.bytes);
    nb_strbuf_add(joined, right.text, right.bytes);
    if (joined->failed) return no_memory(what, err);
    int32_t whole = nb_strmap_get(&b->vocab, nb_strbuf_cstr(joined), joined->len);
    if (whole < 0) {
        return unknown_half((struct half){nb_strbuf_cstr(joined), joined->len}, rank, what, err);
    }
    if (!nb_pairmap_put(&b->merges, (uint32_t)a, (uint32_t)c, (uint32_t)rank, (uint32_t)whole)) {
        return no_memory(what, err);
    }
    return 0;
}

static int load_merges(struct nb_bpe *b, const json_t *merges, const char *what, struct nb_err *err)
{
    if (!json_is_array(merges)) {
        return nb_fail(err, NB_E_FORMAT, "%s: model: key 'merges': expected an array, found %s",
                       what, nb_json_type_name(merges));
    }
    size_t n = json_array_size(merges), rank = 0;
    if (n >= UINT32_MAX || !nb_pairmap_init(&b->merges, n)) return no_memory(what, err);
    struct nb_strbuf joined;
    nb_strbuf_init(&joined);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        const json_t *m = json_array_get(merges, i);
        /* A merges.txt pasted into the file brings its version line along. */
        if (json_is_string(m) && strncmp(json_string_value(m), "#version", 8) == 0) continue;
        rc = load_merge(b, m, rank++, &joined, what, err);
    }
    nb_strbuf_release(&joined);
    return rc;
}

/* A string that changes nothing when empty and that we cannot do otherwise. */
static int refuse_affix(const json_t *model, const char *key, const char *what, struct nb_err *err)
{
    const char *s = "";
    int rc = nb_json_get_string(model, key, false, &s, what, err);
    if (!rc && *s)
        rc = nb_fail(err, NB_E_SPEC, "%s: BPE with %s '%.32s' is not supported", what, key, s);
    return rc;
}

static int load_options(struct nb_bpe *b, const json_t *model, const char *what, struct nb_err *err)
{
    double dropout = 0;
    const char *unk = NULL;
    int rc = nb_json_get_real(model, "dropout", false, &dropout, what, err);
    if (!rc && dropout != 0) {
        rc =
            nb_fail(err, NB_E_SPEC, "%s: BPE with dropout %g is not supported: ids would be random",
                    what, dropout);
    }
    if (!rc) rc = refuse_affix(model, "continuing_subword_prefix", what, err);
    if (!rc) rc = refuse_affix(model, "end_of_word_suffix", what, err);
    if (!rc) rc = nb_json_get_bool(model, "byte_fallback", false, &b->byte_fallback, what, err);
    if (!rc) rc = nb_json_get_bool(model, "fuse_unk", false, &b->fuse_unk, what, err);
    if (!rc) rc = nb_json_get_bool(model, "ignore_merges", false, &b->ignore_merges, what, err);
    if (!rc) rc = nb_json_get_string(model, "unk_token", false, &unk, what, err);
    if (rc || !unk) return rc;
    b->unk_token = nb_arena_strdup(&b->arena, unk);
    if (!b->unk_token) return no_memory(what, err);
    b->unk_id = nb_strmap_get(&b->vocab, unk, strlen(unk));
    return 0;
}

int nb_bpe_init(struct nb_bpe *b, const json_t *model, const char *what, struct nb_err *err)
{
    *b = (struct nb_bpe){.unk_id = -1};
    nb_arena_init(&b->arena);
    if (!json_is_object(model)) {
        return nb_fail(err, NB_E_FORMAT, "%s: key 'model': expected an object, found %s", what,
                       nb_json_type_name(model));
    }
    /* Files from before the key existed (GPT-2's own) are BPE when they have merges. */
    const char *type = json_object_get(model, "merges") ? "BPE" : "without a type";
    int rc = nb_json_get_string(model, "type", false, &type, what, err);
    if (!rc && strcmp(type, "BPE") != 0) {
        rc = nb_fail(err, NB_E_SPEC, "%s: model '%.32s' is not supported (supported: BPE)", what,
                     type);
    }
    if (!rc) rc = load_vocab(b, json_object_get(model, "vocab"), what, err);
    if (!rc) rc = load_merges(b, json_object_get(model, "merges"), what, err);
    if (!rc) rc = load_options(b, model, what, err);
    for (int i = 0; i < 256 && !rc; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        b->byte_ids[i] = nb_strmap_get(&b->vocab, name, 6);
    }
    if (rc) nb_bpe_release(b);
    return rc;
}

void nb_bpe_release(struct nb_bpe *b)
{
    nb_strmap_release(&b->vocab);
    nb_pairmap_release(&b->merges);
    nb_free(b->tokens);
    nb_arena_release(&b->arena);
    *b = (struct nb_bpe){.unk_id = -1};
}
