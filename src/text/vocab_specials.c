/* SPDX-License-Identifier: Apache-2.0
 *
 * vocab_specials.c - special ids, flags and chat template of a model folder for a GGUF.
 *
 * A special id is looked for by the text that tokenizer_config.json gives it, then in config.json,
 * then in generation_config.json. What the template of tokenizer.json adds says whether BOS and EOS
 * are added, unless tokenizer_config.json says it.
 *
 * Source: gguf-py's vocab.py of llama.cpp (2026). */
#include <stdio.h>
#include <string.h>

#include "text/model.h"
#include "text/vocab_write.h"

static const struct {
    enum nb_vocab_special special;
    const char *name; /* NAME_token, NAME_token_id, add_NAME_token */
    const char *also; /* whose text stands in when NAME has none; NULL: none */
} kinds[] = {
    {NB_VOCAB_BOS, "bos", "cls"}, {NB_VOCAB_EOS, "eos", "sep"}, {NB_VOCAB_UNK, "unk", NULL},
    {NB_VOCAB_SEP, "sep", NULL},  {NB_VOCAB_PAD, "pad", NULL},  {NB_VOCAB_MASK, "mask", NULL},
};

/* Id of the added token that tokenizer_config.json names under NAME_token; -1: none. */
static int32_t by_text(const struct nb_vocab_writing *w, const char *name)
{
    char key[32];
    snprintf(key, sizeof key, "%s_token", name);
    const json_t *v = json_object_get(w->source->tokenizer_config, key);
    if (json_is_object(v)) v = json_object_get(v, "content");
    if (!json_is_string(v)) return -1;
    const struct nb_added *added = &w->t->added;
    int32_t at = nb_strmap_get(&added->by_text, json_string_value(v), json_string_length(v));
    return at < 0 ? -1 : added->tokens[at].id;
}

/* NAME_token_id: a number, or the first of a list. */
static int32_t by_number(const struct nb_vocab_writing *w, const json_t *config, const char *name)
{
    char key[32];
    snprintf(key, sizeof key, "%s_token_id", name);
    const json_t *v = json_object_get(config, key);
    if (json_is_array(v)) v = json_array_get(v, 0);
    json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
    return id >= 0 && (uint64_t)id < w->v->n ? (int32_t)id : -1;
}

static int32_t find(const struct nb_vocab_writing *w, const char *name, const char *also)
{
    int32_t id = by_text(w, name);
    if (id < 0 && also) id = by_text(w, also);
    if (id < 0) id = by_number(w, w->source->config, name);
    if (id < 0) id = by_number(w, w->source->generation, name);
    return id >= 0 && (size_t)id < w->v->n ? id : -1;
}

/* Whether the template adds just this token; a token it adds names one that has none yet. */
static bool template_adds(struct nb_vocab_writing *w, const struct nb_ids *ids,
                          enum nb_vocab_special special, const char *place)
{
    int32_t *id = &w->v->special[special];
    if (ids->n == 1 && *id < 0 && ids->data[0] >= 0 && (size_t)ids->data[0] < w->v->n)
        *id = ids->data[0];
    if (ids->n == 1 && ids->data[0] == *id) return true;
    if (ids->n) {
        nb_strbuf_printf(w->note,
                         "the template puts %zu tokens %s the text, llama.cpp knows only %s\n",
                         ids->n, place, nb_vocab_special_key(special));
    }
    return false;
}

static void write_flag(struct nb_vocab_writing *w, enum nb_vocab_flag flag, const char *key,
                       bool template)
{
    const json_t *said = json_object_get(w->source->tokenizer_config, key);
    bool add = json_is_boolean(said) ? json_is_true(said) : template;
    if (add != template) {
        nb_strbuf_printf(w->note,
                         "%s is %s in tokenizer_config.json, the template of"
                         " tokenizer.json says %s\n",
                         key, add ? "true" : "false", template ? "true" : "false");
    }
    enum nb_vocab_special special = flag == NB_VOCAB_ADD_BOS ? NB_VOCAB_BOS : NB_VOCAB_EOS;
    if (add && w->v->special[special] < 0) {
        nb_strbuf_printf(w->note, "%s is true, but there is no such token\n", key);
        add = false;
    }
    w->v->flag[flag] = add ? NB_VOCAB_TRUE : NB_VOCAB_FALSE;
}

/* A template as a string, or one of a list of {name, template}: "default", else the first. */
static const json_t *choose_template(const json_t *v)
{
    const json_t *chosen = NULL, *one;
    size_t i;
    if (!json_is_array(v)) return v;
    json_array_foreach(v, i, one)
    {
        const char *name = json_string_value(json_object_get(one, "name"));
        if (i == 0 || (name && strcmp(name, "default") == 0))
            chosen = json_object_get(one, "template");
    }
    return chosen;
}

static int write_template(struct nb_vocab_writing *w)
{
    const json_t *v =
        choose_template(json_object_get(w->source->tokenizer_config, "chat_template"));
    struct nb_span from = w->source->chat_template;
    if (json_is_string(v)) {
        from = (struct nb_span){(const unsigned char *)json_string_value(v), json_string_length(v)};
    }
    if (from.bytes == 0) return 0;
    w->v->chat_template = nb_vocab_copy(w, from.data, from.bytes);
    return w->v->chat_template.data ? 0 : nb_vocab_no_memory(w);
}

int nb_vocab_write_specials(struct nb_vocab_writing *w)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        w->v->special[kinds[i].special] = find(w, kinds[i].name, kinds[i].also);
    int32_t *unk = &w->v->special[NB_VOCAB_UNK];
    if (*unk < 0 && w->t->model.unk_token) *unk = w->t->model.unk_id;
    bool bos = template_adds(w, &w->t->post.before, NB_VOCAB_BOS, "before");
    bool eos = template_adds(w, &w->t->post.after, NB_VOCAB_EOS, "behind");
    write_flag(w, NB_VOCAB_ADD_BOS, "add_bos_token", bos);
    write_flag(w, NB_VOCAB_ADD_EOS, "add_eos_token", eos);
    if (w->v->special[NB_VOCAB_EOS] < 0) {
        nb_strbuf_printf(w->note, "no end-of-text token is known: llama.cpp will take token %d\n",
                         w->spm ? 2 : 11);
    }
    return write_template(w);
}
