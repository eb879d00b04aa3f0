/* SPDX-License-Identifier: Apache-2.0
 *
 * vocab_json.c - the vocabulary of a GGUF file as tokenizer.json and tokenizer_config.json.
 *
 * Byte-level BPE with a pre-tokenizer known by name can be said in both, up to normalization, which GGUF has
 * none of. A SentencePiece vocabulary merges by scores: vocab_json_spm.c. */
#include <stdio.h>
#include <string.h>

#include "checkpoint/internal.h"
#include "text/pre_names.h"

json_t *nb_vocab_text_json(struct nb_span s)
{
    return json_stringn((const char *)s.data, s.bytes);
}

static bool is(struct nb_span s, const char *word)
{
    return s.bytes == strlen(word) && !memcmp(s.data, word, s.bytes);
}

static json_t *pre_tokenizer(const struct nb_pre_rule *rule)
{
    json_t *list = json_array();
    for (int i = 0; i < NB_PRE_REGEXES_MAX && rule->regex[i]; i++) {
        json_array_append_new(list, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split",
                                              "pattern", "Regex", rule->regex[i], "behavior",
                                              "Isolated", "invert", 0));
    }
    json_array_append_new(list,
                          json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space",
                                    0, "trim_offsets", 1, "use_regex", 0));
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

/* Does the text get this special token in front or behind? */
static bool adds(const struct nb_vocab *v, enum nb_vocab_flag flag, enum nb_vocab_special id,
                 bool otherwise)
{
    bool on = v->flag[flag] == NB_VOCAB_ABSENT ? otherwise : v->flag[flag] == NB_VOCAB_TRUE;
    return on && v->special[id] >= 0;
}

json_t *nb_vocab_template_json(const struct nb_vocab *v, bool add_bos)
{
    const enum nb_vocab_special ids[] = {NB_VOCAB_BOS, NB_VOCAB_EOS};
    const bool added[] = {adds(v, NB_VOCAB_ADD_BOS, NB_VOCAB_BOS, add_bos),
                          adds(v, NB_VOCAB_ADD_EOS, NB_VOCAB_EOS, false)};
    if (!added[0] && !added[1]) {
        if (is(v->model, "llama")) return json_null();
        return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                         "trim_offsets", 0, "use_regex", 0);
    }
    json_t *single = json_array(), *pair = json_array(), *tokens = json_object();
    for (int k = 0; k < 2; k++) {
        if (k == 1) {
            json_array_append_new(single,
                                  json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
            json_array_append_new(pair,
                                  json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
            json_array_append_new(pair,
                                  json_pack("{s:{s:s, s:i}}", "Sequence", "id", "B", "type_id", 1));
        }
        if (!added[k]) continue;
        const int32_t id = v->special[ids[k]];
        json_t *name = nb_vocab_text_json(v->tokens[id]);
        json_t *piece = json_pack("{s:{s:O, s:i}}", "SpecialToken", "id", name, "type_id", 0);
        json_array_append(single, piece);
        json_array_append_new(pair, piece);
        json_t *entry =
            json_pack("{s:O, s:[i], s:[O]}", "id", name, "ids", (int)id, "tokens", name);
        if (name) json_object_set_new(tokens, json_string_value(name), entry);
        json_decref(name);
    }
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair",
                     pair, "special_tokens", tokens);
}

json_t *nb_vocab_added_json(const struct nb_vocab *v)
{
    json_t *list = json_array();
    for (size_t i = 0; i < v->n && i < v->n_types; i++) {
        bool special = v->types[i] == NB_VOCAB_CONTROL || v->types[i] == NB_VOCAB_UNKNOWN;
        if (!special && v->types[i] != NB_VOCAB_USER_DEFINED) continue;
        json_array_append_new(
            list, json_pack("{s:I, s:o, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i, "content",
                            nb_vocab_text_json(v->tokens[i]), "single_word", 0, "lstrip", 0,
                            "rstrip", 0, "normalized", 0, "special", (int)special));
    }
    return list;
}

json_t *nb_vocab_ids_json(const struct nb_vocab *v)
{
    json_t *vocab = json_object();
    for (size_t i = 0; i < v->n; i++) {
        /* Rows of the embedding that stand for nothing have no place in it. */
        if (i < v->n_types && v->types[i] == NB_VOCAB_UNUSED) continue;
        json_t *name = nb_vocab_text_json(v->tokens[i]);
        if (name) json_object_set_new(vocab, json_string_value(name), json_integer((json_int_t)i));
        json_decref(name);
    }
    return vocab;
}

static json_t *merges(const struct nb_vocab *v)
{
    json_t *list = json_array();
    for (size_t i = 0; i < v->n_merges; i++) {
        const struct nb_span m = v->merges[i];
        /* The first byte may be a space of its own; the next one separates. */
        const unsigned char *gap = m.bytes > 1 ? memchr(m.data + 1, ' ', m.bytes - 1) : NULL;
        if (!gap) continue;
        size_t left = (size_t)(gap - m.data);
        json_array_append_new(
            list, json_pack("[o, o]", nb_vocab_text_json((struct nb_span){m.data, left}),
                            nb_vocab_text_json((struct nb_span){gap + 1, m.bytes - left - 1})));
    }
    return list;
}

static json_t *tokenizer_json(const struct nb_vocab *v, const struct nb_pre_rule *rule)
{
    json_t *model =
        json_pack("{s:s, s:n, s:n, s:s, s:s, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                  "unk_token", "continuing_subword_prefix", "", "end_of_word_suffix", "",
                  "fuse_unk", 0, "byte_fallback", 0, "ignore_merges", (int)rule->ignore_merges,
                  "vocab", nb_vocab_ids_json(v), "merges", merges(v));
    json_t *decoder = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                                "trim_offsets", 0, "use_regex", 0);
    return json_pack("{s:s, s:n, s:n, s:o, s:n, s:o, s:o, s:o, s:o}", "version", "1.0",
                     "truncation", "padding", "added_tokens", nb_vocab_added_json(v), "normalizer",
                     "pre_tokenizer", pre_tokenizer(rule), "post_processor",
                     nb_vocab_template_json(v, rule->add_bos), "decoder", decoder, "model", model);
}

static json_t *tokenizer_config(const struct nb_vocab *v)
{
    static const struct {
        const char *key;
        enum nb_vocab_special id;
    } tokens[] = {{"bos_token", NB_VOCAB_BOS},
                  {"eos_token", NB_VOCAB_EOS},
                  {"unk_token", NB_VOCAB_UNK},
                  {"pad_token", NB_VOCAB_PAD}};
    json_t *o = json_object();
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        int32_t id = v->special[tokens[i].id];
        if (id >= 0) json_object_set_new(o, tokens[i].key, nb_vocab_text_json(v->tokens[id]));
    }
    if (v->flag[NB_VOCAB_ADD_BOS] != NB_VOCAB_ABSENT) {
        json_object_set_new(o, "add_bos_token",
                            json_boolean(v->flag[NB_VOCAB_ADD_BOS] == NB_VOCAB_TRUE));
    }
    if (v->chat_template.bytes)
        json_object_set_new(o, "chat_template", nb_vocab_text_json(v->chat_template));
    json_object_set_new(o, "tokenizer_class", json_string("PreTrainedTokenizerFast"));
    return o;
}

int nb_vocab_tokenizer_json(const struct nb_vocab *v, json_t **tokenizer, struct nb_strbuf *notes,
                            struct nb_err *err)
{
    *tokenizer = NULL;
    if (is(v->model, "llama")) return nb_vocab_spm_json(v, tokenizer, notes, err);
    if (!is(v->model, "gpt2")) {
        nb_strbuf_printf(
            notes, "tokenizer.json is not written: none gives the ids of a '%.*s' vocabulary\n",
            (int)(v->model.bytes < 32 ? v->model.bytes : 32), (const char *)v->model.data);
        return 0;
    }
    const struct nb_pre_rule *rule = nb_pre_rule_find(v->pre);
    if (!rule) {
        nb_strbuf_printf(notes,
                         "tokenizer.json is not written: pre-tokenizer '%.*s' is not known\n",
                         (int)(v->pre.bytes < 64 ? v->pre.bytes : 64), (const char *)v->pre.data);
        return 0;
    }
    *tokenizer = tokenizer_json(v, rule);
    return *tokenizer ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for tokenizer.json");
}

int nb_model_tokenizer_json(const struct nb_model *m, json_t **tokenizer, json_t **config,
                            struct nb_strbuf *notes, struct nb_err *err)
{
    *tokenizer = *config = NULL;
    if (!m->gguf || !nb_model_has_tokenizer(m)) {
        nb_strbuf_puts(notes, "tokenizer.json is not written: there is no vocabulary\n");
        return 0;
    }
    struct nb_vocab v;
    int rc = nb_gguf_read_vocab(m->gguf, &v, err);
    if (!rc) *config = tokenizer_config(&v);
    if (!rc) rc = nb_vocab_tokenizer_json(&v, tokenizer, notes, err);
    nb_vocab_release(&v);
    return rc;
}
