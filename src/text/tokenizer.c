/* SPDX-License-Identifier: Apache-2.0
 *
 * tokenizer.c - opens a tokenizer.json and encodes: added tokens, normalizer, pre-tokenizer, model,
 * post-processor, in this order.
 *
 * Source: the pipeline of the reference package `tokenizers` 0.23. Its truncation and padding
 * settings are read over: a text is never cut or filled up here. */
#include "text/tokenizer.h"

#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "text/ids.h"
#include "text/model.h"
#include "text/unicode.h"

enum { FILE_MAX_BYTES = 256 * 1024 * 1024 };

void nb_ids_release(struct nb_ids *ids)
{
    nb_free(ids->data);
    *ids = (struct nb_ids){0};
}

/* ---- opening ---- */

static int check_version(const json_t *root, const char *what, struct nb_err *err)
{
    const char *version = "1.0";
    int rc = nb_json_get_string(root, "version", false, &version, what, err);
    if (!rc && strcmp(version, "1.0") != 0) {
        rc = nb_fail(err, NB_E_SPEC, "%s: tokenizer version '%.16s', expected 1.0", what, version);
    }
    return rc;
}

/* Token texts by id, added tokens on top of the model's. */
static int build_tokens(struct nb_tokenizer *t, const char *what, struct nb_err *err)
{
    t->n_tokens = t->model.n_ids;
    if (t->added.max_id >= 0 && (size_t)t->added.max_id >= t->n_tokens) {
        t->n_tokens = (size_t)t->added.max_id + 1;
    }
    t->tokens = nb_calloc(t->n_tokens, sizeof *t->tokens);
    t->special = nb_calloc(t->n_tokens, sizeof *t->special);
    if (!t->tokens || !t->special)
        return nb_fail(err, NB_E_NOMEM, "%s: no memory for the tokens", what);
    if (t->model.n_ids) memcpy(t->tokens, t->model.tokens, t->model.n_ids * sizeof *t->tokens);
    for (size_t i = 0; i < t->added.n; i++) {
        const struct nb_added_token *a = &t->added.tokens[i];
        t->tokens[a->id] = (struct nb_token){a->form, a->form_bytes};
        /* The reference asks whether the decoded form is a special text, not whether the id is. */
        int32_t at = nb_strmap_get(&t->added.by_text, a->form, a->form_bytes);
        t->special[a->id] = at >= 0 && t->added.tokens[at].special;
    }
    return 0;
}

int nb_tokenizer_build(struct nb_tokenizer *t, const json_t *root, const char *what,
                       struct nb_err *err)
{
    if (!json_is_object(root)) {
        return nb_fail(err, NB_E_FORMAT, "%s: expected an object, found %s", what,
                       nb_json_type_name(root));
    }
    int rc = check_version(root, what, err);
    if (!rc) rc = nb_bpe_init(&t->model, json_object_get(root, "model"), what, err);
    if (!rc)
        rc = nb_normalizer_init(&t->normalizer, json_object_get(root, "normalizer"), what, err);
    if (!rc) rc = nb_pretokenizer_init(&t->pre, json_object_get(root, "pre_tokenizer"), what, err);
    if (!rc)
        rc = nb_postprocessor_init(&t->post, json_object_get(root, "post_processor"), what, err);
    if (!rc) rc = nb_decoder_init(&t->decoder, json_object_get(root, "decoder"), what, err);
    if (!rc) {
        rc = nb_added_init(&t->added, json_object_get(root, "added_tokens"), &t->model,
                           &t->normalizer, what, err);
    }
    if (!rc) rc = build_tokens(t, what, err);
    return rc;
}

int nb_tokenizer_parse(struct nb_tokenizer **out, const char *json, size_t bytes, const char *what,
                       struct nb_err *err)
{
    *out = NULL;
    json_t *root = nb_json_parse(json, bytes, NB_JSON_MAX_DEPTH, what, err);
    if (!root) return err ? err->status : NB_E_FORMAT;
    struct nb_tokenizer *t = nb_xalloc(sizeof *t);
    nb_sha256_bytes(json, bytes, t->sha256);
    int rc = nb_tokenizer_build(t, root, what, err);
    json_decref(root);
    if (rc) {
        nb_tokenizer_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

int nb_tokenizer_open(struct nb_tokenizer **out, const char *dir, struct nb_err *err)
{
    *out = NULL;
    char *path = nb_path_join(dir, "tokenizer.json"), *data = NULL;
    size_t bytes;
    int rc = nb_file_read(path, FILE_MAX_BYTES, &data, &bytes, err);
    if (!rc) rc = nb_tokenizer_parse(out, data, bytes, path, err);
    nb_free(data);
    nb_free(path);
    return rc;
}

void nb_tokenizer_close(struct nb_tokenizer *t)
{
    if (!t) return;
    nb_bpe_release(&t->model);
    nb_normalizer_release(&t->normalizer);
    nb_pretokenizer_release(&t->pre);
    nb_postprocessor_release(&t->post);
    nb_decoder_release(&t->decoder);
    nb_added_release(&t->added);
    nb_free(t->tokens);
    nb_free(t->special);
    if (t->rules) {
        nb_specials_release(&t->rules->specials);
        nb_spm_release(&t->rules->spm);
        nb_free(t->rules);
    }
    nb_free(t);
}

int64_t nb_tokenizer_size(const struct nb_tokenizer *t)
{
    return (int64_t)t->n_tokens;
}

int32_t nb_tokenizer_id(const struct nb_tokenizer *t, const char *token)
{
    size_t n = strlen(token);
    int32_t at = nb_strmap_get(&t->added.by_text, token, n);
    if (at >= 0) return t->added.tokens[at].id;
    int32_t id = nb_strmap_get(&t->model.vocab, token, n);
    return id >= 0 && (size_t)id < t->n_tokens ? id : -1;
}

const char *nb_tokenizer_sha256(const struct nb_tokenizer *t)
{
    return t->sha256;
}

/* ---- encoding ---- */

struct encoding {
    const struct nb_tokenizer *t;
    bool plain;
    struct nb_ids *ids;
    struct nb_pre_run pre;
    struct nb_bpe_run bpe;
    struct nb_normalizing normalizing;
    const char *text;    /* being cut at raw added tokens */
    const char *segment; /* a piece of it, normalized, being cut at the others */
    bool segment_at_start;
};

static int take_word(void *ctx, const char *word, size_t n, struct nb_err *err)
{
    struct encoding *e = ctx;
    return nb_bpe_encode(&e->t->model, &e->bpe, word, n, e->ids, err);
}

static int take_normalized(void *ctx, const struct nb_added_token *token, size_t start, size_t end,
                           struct nb_err *err)
{
    struct encoding *e = ctx;
    if (token) return nb_ids_add(e->ids, token->id, err);
    return nb_pretokenizer_run(&e->pre, e->segment + start, end - start,
                               e->segment_at_start && start == 0, err);
}

static int take_raw(void *ctx, const struct nb_added_token *token, size_t start, size_t end,
                    struct nb_err *err)
{
    struct encoding *e = ctx;
    if (token) return nb_ids_add(e->ids, token->id, err);
    size_t n = end - start;
    e->segment = e->text + start;
    e->segment_at_start = start == 0;
    if (e->t->normalizer.n) {
        int rc = nb_normalizer_run(&e->t->normalizer, &e->normalizing, e->segment, n, err);
        if (rc) return rc;
        e->segment = nb_strbuf_cstr(&e->normalizing.text);
        n = e->normalizing.text.len;
    }
    struct nb_cut cut = {&e->t->added, &e->t->added.normalized, e->plain, take_normalized, e};
    return nb_added_split(&cut, e->segment, n, err);
}

static int add_all(struct nb_ids *ids, const struct nb_ids *more, struct nb_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < more->n && !rc; i++) rc = nb_ids_add(ids, more->data[i], err);
    return rc;
}

int nb_tokenizer_encode(const struct nb_tokenizer *t, const char *text, size_t bytes,
                        unsigned flags, struct nb_ids *ids, struct nb_err *err)
{
    size_t bad;
    if (!nb_utf8_check(text, bytes, &bad)) {
        return nb_fail(err, NB_E_FORMAT, "text is not valid UTF-8 at byte %zu of %zu", bad, bytes);
    }
    if (t->rules) return nb_vocab_encode(t, text, bytes, flags, ids, err);
    bool template = (flags & NB_ENCODE_TEMPLATE) != 0;
    struct encoding *e = nb_xalloc(sizeof *e);
    e->t = t;
    e->plain = (flags & NB_ENCODE_PLAIN) != 0;
    e->ids = ids;
    e->text = text;
    e->pre = (struct nb_pre_run){
        .pre = &t->pre, .matcher = nb_matcher_new(), .take = take_word, .ctx = e};
    e->normalizing.matcher = e->pre.matcher;
    struct nb_cut cut = {&t->added, &t->added.raw, e->plain, take_raw, e};
    int rc = e->pre.matcher ? 0 : nb_fail(err, NB_E_NOMEM, "tokenizer: no memory for a matcher");
    if (!rc && template) rc = add_all(ids, &t->post.before, err);
    if (!rc) rc = nb_added_split(&cut, text, bytes, err);
    if (!rc && template) rc = add_all(ids, &t->post.after, err);
    nb_matcher_free(e->pre.matcher);
    nb_pre_run_release(&e->pre);
    nb_bpe_run_release(&e->bpe);
    nb_strbuf_release(&e->normalizing.text);
    nb_strbuf_release(&e->normalizing.scratch);
    nb_free(e);
    return rc;
}
