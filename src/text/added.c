/* SPDX-License-Identifier: Apache-2.0
 *
 * added.c - see added.h. */
#include "text/added.h"

#include <string.h>

#include "text/unicode.h"

/* A search may look at every byte of the longest token from every byte of the text. */
enum { TOKEN_MAX_BYTES = 4096, TOKENS_MAX = 1 << 20 };

static int no_memory(const char *what, struct nb_err *err)
{
    return nb_fail(err, NB_E_NOMEM, "%s: no memory for the added tokens", what);
}

/* ---- reading ---- */

static int read_token(struct nb_added_token *t, const json_t *o, struct nb_arena *arena,
                      const char *what, struct nb_err *err)
{
    const char *text;
    int rc = nb_json_get_string(o, "content", true, &text, what, err);
    if (!rc) rc = nb_json_get_bool(o, "single_word", true, &t->single_word, what, err);
    if (!rc) rc = nb_json_get_bool(o, "lstrip", true, &t->lstrip, what, err);
    if (!rc) rc = nb_json_get_bool(o, "rstrip", true, &t->rstrip, what, err);
    if (!rc) rc = nb_json_get_bool(o, "normalized", true, &t->normalized, what, err);
    if (!rc) rc = nb_json_get_bool(o, "special", true, &t->special, what, err);
    if (rc) return rc;
    size_t n = json_string_length(json_object_get(o, "content"));
    if (n > TOKEN_MAX_BYTES || strlen(text) != n) {
        return nb_fail(
            err, NB_E_SPEC,
            "%s: added token '%.32s...' has %zu bytes or a NUL; at most %d without NUL are"
            " accepted",
            what, text, n, TOKEN_MAX_BYTES);
    }
    t->text = t->form = nb_arena_strdup(arena, text);
    t->bytes = t->form_bytes = (uint32_t)n;
    return t->text ? 0 : no_memory(what, err);
}

static int normalize_form(struct nb_added_token *t, const struct nb_normalizer *z,
                          struct nb_normalizing *run, struct nb_arena *arena, struct nb_err *err)
{
    int rc = nb_normalizer_run(z, run, t->text, t->bytes, err);
    if (rc) return rc;
    t->form = nb_arena_strdup(arena, nb_strbuf_cstr(&run->text));
    t->form_bytes = (uint32_t)run->text.len;
    return t->form ? 0 : nb_fail(err, NB_E_NOMEM, "tokenizer: no memory for the added tokens");
}

/* Adds or, when the text is known, replaces. */
static int add_token(struct nb_added *a, struct nb_added_token *t, const struct nb_bpe *model,
                     int32_t *next_id, const char *what, struct nb_err *err)
{
    if (t->bytes == 0) return 0;
    int32_t at = nb_strmap_get(&a->by_text, t->text, t->bytes);
    if (at >= 0) {
        t->special = t->special || a->tokens[at].special; /* once special, a text stays special */
        t->id = a->tokens[at].id;
        a->tokens[at] = *t;
        return 0;
    }
    t->id = nb_strmap_get(&model->vocab, t->text, t->bytes);
    if (t->id < 0) t->id = (*next_id)++;
    if (!nb_strmap_put(&a->by_text, t->text, t->bytes, (int32_t)a->n)) return no_memory(what, err);
    if (t->id > a->max_id) a->max_id = t->id;
    a->tokens[a->n++] = *t;
    return 0;
}

static int build_tries(struct nb_added *a, const char *what, struct nb_err *err)
{
    for (size_t i = 0; i < a->n; i++) {
        const struct nb_added_token *t = &a->tokens[i];
        struct nb_trie *trie = t->normalized ? &a->normalized : &a->raw;
        uint32_t end;
        if (t->form_bytes == 0) {
            return nb_fail(err, NB_E_SPEC, "%s: added token '%.64s' is empty once normalized", what,
                           t->text);
        }
        if (!nb_trie_add(trie, t->form, t->form_bytes, &end)) return no_memory(what, err);
        if (trie->token[end] >= 0) {
            return nb_fail(err, NB_E_SPEC,
                           "%s: added tokens '%.64s' and '%.64s' are the same once"
                           " normalized",
                           what, a->tokens[trie->token[end]].text, t->text);
        }
        trie->token[end] = (int32_t)i;
    }
    return 0;
}

int nb_added_init(struct nb_added *a, const json_t *tokens, const struct nb_bpe *model,
                  const struct nb_normalizer *normalizer, const char *what, struct nb_err *err)
{
    *a = (struct nb_added){.max_id = -1};
    nb_arena_init(&a->arena);
    if (!tokens || json_is_null(tokens)) return 0;
    if (!json_is_array(tokens)) {
        return nb_fail(err, NB_E_FORMAT, "%s: key 'added_tokens': expected an array, found %s",
                       what, nb_json_type_name(tokens));
    }
    size_t n = json_array_size(tokens);
    if (n > TOKENS_MAX) {
        return nb_fail(err, NB_E_SPEC, "%s: %zu added tokens, at most %d are accepted", what, n,
                       TOKENS_MAX);
    }
    int32_t next_id = (int32_t)model->vocab.n;
    int rc = 0;
    a->tokens = nb_calloc(n, sizeof *a->tokens);
    struct nb_normalizing run = {.matcher = nb_matcher_new()};
    if (!a->tokens || !run.matcher || !nb_strmap_init(&a->by_text, n) || !nb_trie_init(&a->raw) ||
        !nb_trie_init(&a->normalized)) {
        rc = no_memory(what, err);
    }
    for (size_t i = 0; i < n && !rc; i++) {
        struct nb_added_token t = {0};
        const json_t *o = json_array_get(tokens, i);
        if (!json_is_object(o)) {
            rc = nb_fail(err, NB_E_FORMAT, "%s: added token %zu: expected an object, found %s",
                         what, i, nb_json_type_name(o));
            break;
        }
        rc = read_token(&t, o, &a->arena, what, err);
        if (!rc && t.normalized && normalizer->n)
            rc = normalize_form(&t, normalizer, &run, &a->arena, err);
        if (!rc) rc = add_token(a, &t, model, &next_id, what, err);
    }
    if (!rc) rc = build_tries(a, what, err);
    nb_matcher_free(run.matcher);
    nb_strbuf_release(&run.text);
    nb_strbuf_release(&run.scratch);
    if (rc) nb_added_release(a);
    return rc;
}

void nb_added_release(struct nb_added *a)
{
    nb_trie_release(&a->raw);
    nb_trie_release(&a->normalized);
    nb_strmap_release(&a->by_text);
    nb_free(a->tokens);
    nb_arena_release(&a->arena);
    *a = (struct nb_added){.max_id = -1};
}

/* ---- searching ---- */

static bool is_single_word(const char *s, size_t n, size_t start, size_t end)
{
    uint32_t c;
    if (start > 0) {
        nb_utf8_previous(s, start, &c);
        if (nb_char_is_word(c)) return false;
    }
    if (end < n) {
        nb_utf8_next(s + end, &c);
        if (nb_char_is_word(c)) return false;
    }
    return true;
}

static size_t spaces_before(const char *s, size_t from, size_t end)
{
    uint32_t c;
    while (end > from) {
        size_t len = nb_utf8_previous(s, end, &c);
        if (!nb_char_is_space(c)) break;
        end -= len;
    }
    return end;
}

static size_t spaces_after(const char *s, size_t n, size_t start)
{
    uint32_t c;
    while (start < n) {
        size_t len = nb_utf8_next(s + start, &c);
        if (!nb_char_is_space(c)) break;
        start += len;
    }
    return start;
}

int nb_added_split(const struct nb_cut *cut, const char *s, size_t n, struct nb_err *err)
{
    const struct nb_trie *trie = cut->trie;
    size_t done = 0;
    int rc = 0;
    for (size_t i = 0; i < n && trie->n_nodes > 1 && !rc;) {
        size_t len = 0;
        int32_t found = nb_trie_longest(trie, s + i, n - i, &len);
        if (found < 0) {
            i++;
            continue;
        }
        const struct nb_added_token *t = &cut->added->tokens[found];
        size_t start = i, end = i + len;
        i = end;
        if (cut->plain && t->special) continue;
        if (t->single_word && !is_single_word(s, n, start, end)) continue;
        if (t->lstrip && start > done) start = spaces_before(s, done, start);
        if (t->rstrip) end = spaces_after(s, n, end);
        if (done < start) rc = cut->take(cut->ctx, NULL, done, start, err);
        if (!rc) rc = cut->take(cut->ctx, t, start, end, err);
        done = end;
    }
    if (!rc && done < n) rc = cut->take(cut->ctx, NULL, done, n, err);
    return rc;
}
