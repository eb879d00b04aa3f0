/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_vocab.c - the vocabulary in the metadata of a GGUF file, read and written. Source: GGUF
 * specification, section 3.1. */
#include <stdio.h>
#include <string.h>

#include "checkpoint/internal.h"

enum { KEY_MAX = 96 };

static void key_of(char out[KEY_MAX], const char *name)
{
    snprintf(out, KEY_MAX, "tokenizer.ggml.%s", name);
}

/* ---- reading ---- */

static int read_numbers(const struct nb_gguf *g, struct nb_vocab *v, struct nb_err *err)
{
    const struct nb_gguf_kv *scores, *types;
    int rc = nb_gguf_get_array(g, "tokenizer.ggml.scores", false, NB_GGUF_F32, &scores, err);
    if (!rc)
        rc = nb_gguf_get_array(g, "tokenizer.ggml.token_type", false, NB_GGUF_I32, &types, err);
    if (rc) return rc;
    if (scores && scores->count) {
        float *to = nb_arena_alloc(&v->arena, scores->data.bytes, 1);
        if (to) memcpy(to, scores->data.data, scores->data.bytes);
        v->scores = to;
        v->n_scores = (size_t)scores->count;
    }
    if (types && types->count) {
        int32_t *to = nb_arena_alloc(&v->arena, types->data.bytes, 1);
        if (to) memcpy(to, types->data.data, types->data.bytes);
        v->types = to;
        v->n_types = (size_t)types->count;
    }
    return v->arena.failed ? nb_fail(err, NB_E_NOMEM, "no memory for the vocabulary") : 0;
}

/* Into the arena, so that one release frees it all. */
static int read_strings(const struct nb_gguf *g, struct nb_vocab *v, const char *key,
                        const struct nb_span **out, size_t *n, struct nb_err *err)
{
    struct nb_span *list = NULL, *copy = NULL;
    int rc = nb_gguf_get_strings(g, key, false, &list, n, err);
    if (!rc && *n) {
        copy = nb_arena_alloc(&v->arena, *n, sizeof *copy);
        if (copy) memcpy(copy, list, *n * sizeof *copy);
        else rc = nb_fail(err, NB_E_NOMEM, "no memory for %zu strings of key '%s'", *n, key);
    }
    nb_free(list);
    *out = copy;
    return rc;
}

/* An id beyond the vocabulary counts as none, as the reference takes it. */
static int read_specials(const struct nb_gguf *g, struct nb_vocab *v, struct nb_err *err)
{
    static const struct {
        enum nb_vocab_special special;
        const char *key;
    } old[] = {{NB_VOCAB_FIM_PRE, "tokenizer.ggml.prefix_token_id"},
               {NB_VOCAB_FIM_SUF, "tokenizer.ggml.suffix_token_id"},
               {NB_VOCAB_FIM_MID, "tokenizer.ggml.middle_token_id"}};
    char key[KEY_MAX];
    int rc = 0;
    for (int s = 0; s < NB_VOCAB_N_SPECIAL && !rc; s++) {
        uint32_t id = UINT32_MAX;
        for (size_t i = 0; i < sizeof old / sizeof *old && !rc; i++) {
            if ((int)old[i].special == s) rc = nb_gguf_get_u32(g, old[i].key, false, &id, err);
        }
        key_of(key, nb_vocab_special_key((enum nb_vocab_special)s));
        if (!rc) rc = nb_gguf_get_u32(g, key, false, &id, err);
        v->special[s] = id < v->n ? (int32_t)id : -1;
    }
    return rc;
}

static int read_flags(const struct nb_gguf *g, struct nb_vocab *v, struct nb_err *err)
{
    char key[KEY_MAX];
    int rc = 0;
    for (int f = 0; f < NB_VOCAB_N_FLAGS && !rc; f++) {
        bool set = false;
        key_of(key, nb_vocab_flag_key((enum nb_vocab_flag)f));
        if (!nb_gguf_kv_find(g, key)) continue;
        rc = nb_gguf_get_bool(g, key, true, &set, err);
        v->flag[f] = set ? NB_VOCAB_TRUE : NB_VOCAB_FALSE;
    }
    return rc;
}

int nb_gguf_read_vocab(const struct nb_gguf *g, struct nb_vocab *v, struct nb_err *err)
{
    nb_vocab_init(v);
    int rc = nb_gguf_get_string(g, "tokenizer.ggml.model", true, &v->model, err);
    if (!rc) rc = nb_gguf_get_string(g, "tokenizer.ggml.pre", false, &v->pre, err);
    if (!rc) rc = nb_gguf_get_string(g, "general.name", false, &v->name, err);
    if (!rc) rc = nb_gguf_get_string(g, "tokenizer.chat_template", false, &v->chat_template, err);
    if (!rc) rc = read_strings(g, v, "tokenizer.ggml.tokens", &v->tokens, &v->n, err);
    if (!rc && !v->n) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: key 'tokenizer.ggml.tokens' lists no tokens",
                     nb_gguf_part_path(g, 0));
    }
    if (!rc) rc = read_strings(g, v, "tokenizer.ggml.merges", &v->merges, &v->n_merges, err);
    if (!rc) rc = read_numbers(g, v, err);
    if (!rc) rc = read_specials(g, v, err);
    return rc ? rc : read_flags(g, v, err);
}

/* ---- writing ---- */

static int write_arrays(struct nb_gguf_writer *w, const struct nb_vocab *v, struct nb_err *err)
{
    int rc = nb_gguf_writer_set_strings(w, "tokenizer.ggml.tokens", v->tokens, v->n, err);
    if (!rc && v->n_scores) {
        rc = nb_gguf_writer_set_array(w, "tokenizer.ggml.scores", NB_GGUF_F32, v->scores,
                                      v->n_scores, err);
    }
    if (!rc && v->n_types) {
        rc = nb_gguf_writer_set_array(w, "tokenizer.ggml.token_type", NB_GGUF_I32, v->types,
                                      v->n_types, err);
    }
    if (!rc && v->n_merges)
        rc = nb_gguf_writer_set_strings(w, "tokenizer.ggml.merges", v->merges, v->n_merges, err);
    return rc;
}

int nb_gguf_write_vocab(struct nb_gguf_writer *w, const struct nb_vocab *v, struct nb_err *err)
{
    char key[KEY_MAX];
    int rc = nb_gguf_writer_set_bytes(w, "tokenizer.ggml.model", v->model, err);
    if (!rc && v->pre.bytes) rc = nb_gguf_writer_set_bytes(w, "tokenizer.ggml.pre", v->pre, err);
    if (!rc) rc = write_arrays(w, v, err);
    for (int s = 0; s < NB_VOCAB_N_SPECIAL && !rc; s++) {
        if (v->special[s] < 0) continue;
        key_of(key, nb_vocab_special_key((enum nb_vocab_special)s));
        rc = nb_gguf_writer_set_u32(w, key, (uint32_t)v->special[s], err);
    }
    for (int f = 0; f < NB_VOCAB_N_FLAGS && !rc; f++) {
        if (v->flag[f] == NB_VOCAB_ABSENT) continue;
        key_of(key, nb_vocab_flag_key((enum nb_vocab_flag)f));
        rc = nb_gguf_writer_set_bool(w, key, v->flag[f] == NB_VOCAB_TRUE, err);
    }
    if (!rc && v->chat_template.bytes)
        rc = nb_gguf_writer_set_bytes(w, "tokenizer.chat_template", v->chat_template, err);
    return rc;
}
