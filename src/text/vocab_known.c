/* SPDX-License-Identifier: Apache-2.0
 *
 * vocab_known.c - see vocab_known.h.
 *
 * Source: llama_vocab::impl::load in llama.cpp's src/llama-vocab.cpp (2026). Where several texts
 * would do for one special id, it takes whichever its hash table gives first; ours is the smallest
 * id. */
#include "text/vocab_known.h"

#include <string.h>

#include "text/pre_names.h"

#define NO_ROLE NB_VOCAB_N_SPECIAL

static const struct {
    const char *text;
    enum nb_vocab_special role; /* the special id it is found for, NO_ROLE: none */
    bool ends;                  /* ends a text, so it is a control token */
    bool shown;                 /* a user-defined token whatever the file says */
} known[] = {
    {"<|eot_id|>", NB_VOCAB_EOT, true, false},
    {"<|im_end|>", NB_VOCAB_EOT, true, false},
    {"<|end|>", NB_VOCAB_EOT, true, false},
    {"<end_of_turn>", NB_VOCAB_EOT, true, false},
    {"<|endoftext|>", NB_VOCAB_EOT, true, false},
    {"<|end_of_text|>", NB_VOCAB_EOT, true, false},
    {"<EOT>", NB_VOCAB_EOT, true, false},
    {"_<EOT>", NB_VOCAB_EOT, true, false},
    {"[EOT]", NB_VOCAB_EOT, true, false},
    {"<\xef\xbd\x9c"
     "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
     NB_VOCAB_EOT, true, false},
    {"<end_of_utterance>", NB_VOCAB_EOT, true, false},
    {"<|eom_id|>", NB_VOCAB_EOM, true, false},
    {"<|return|>", NO_ROLE, true, false},
    {"<|call|>", NO_ROLE, true, false},
    {"<|flush|>", NO_ROLE, true, false},
    {"<|calls|>", NO_ROLE, true, false},
    {"</s>", NO_ROLE, true, false},
    {"[EOS]", NO_ROLE, true, false},
    {"<eos>", NO_ROLE, true, false},
    {"<turn|>", NO_ROLE, true, false},
    {"<|tool_response>", NO_ROLE, true, false},
    {"[e~[", NO_ROLE, true, false},
    {"<|fim_prefix|>", NB_VOCAB_FIM_PRE, false, false},
    {"<fim-prefix>", NB_VOCAB_FIM_PRE, false, false},
    {"<fim_prefix>", NB_VOCAB_FIM_PRE, false, false},
    {"<\xef\xbd\x9c"
     "fim\xe2\x96\x81"
     "begin\xef\xbd\x9c>",
     NB_VOCAB_FIM_PRE, false, false},
    {"<PRE>", NB_VOCAB_FIM_PRE, false, false},
    {"\xe2\x96\x81<PRE>", NB_VOCAB_FIM_PRE, false, false},
    {"<|code_prefix|>", NB_VOCAB_FIM_PRE, false, false},
    {"<|prefix|>", NB_VOCAB_FIM_PRE, false, false},
    {"<|fim_suffix|>", NB_VOCAB_FIM_SUF, false, false},
    {"<fim-suffix>", NB_VOCAB_FIM_SUF, false, false},
    {"<fim_suffix>", NB_VOCAB_FIM_SUF, false, false},
    {"<\xef\xbd\x9c"
     "fim\xe2\x96\x81hole\xef\xbd\x9c>",
     NB_VOCAB_FIM_SUF, false, false},
    {"<SUF>", NB_VOCAB_FIM_SUF, false, false},
    {"\xe2\x96\x81<SUF>", NB_VOCAB_FIM_SUF, false, false},
    {"<|code_suffix|>", NB_VOCAB_FIM_SUF, false, false},
    {"<|suffix|>", NB_VOCAB_FIM_SUF, false, false},
    {"<|fim_middle|>", NB_VOCAB_FIM_MID, false, false},
    {"<fim-middle>", NB_VOCAB_FIM_MID, false, false},
    {"<fim_middle>", NB_VOCAB_FIM_MID, false, false},
    {"<\xef\xbd\x9c"
     "fim\xe2\x96\x81"
     "end\xef\xbd\x9c>",
     NB_VOCAB_FIM_MID, false, false},
    {"<MID>", NB_VOCAB_FIM_MID, false, false},
    {"\xe2\x96\x81<MID>", NB_VOCAB_FIM_MID, false, false},
    {"<|code_middle|>", NB_VOCAB_FIM_MID, false, false},
    {"<|middle|>", NB_VOCAB_FIM_MID, false, false},
    {"<|fim_pad|>", NB_VOCAB_FIM_PAD, false, false},
    {"<fim-pad>", NB_VOCAB_FIM_PAD, false, false},
    {"<fim_pad>", NB_VOCAB_FIM_PAD, false, false},
    {"<PAD>", NB_VOCAB_FIM_PAD, false, false},
    {"[PAD]", NB_VOCAB_FIM_PAD, false, false},
    {"<|fim_repo|>", NB_VOCAB_FIM_REP, false, false},
    {"<|repo_name|>", NB_VOCAB_FIM_REP, false, false},
    {"<fim-repo>", NB_VOCAB_FIM_REP, false, false},
    {"<REPO>", NB_VOCAB_FIM_REP, false, false},
    {"<reponame>", NB_VOCAB_FIM_REP, false, false},
    {"<|file_sep|>", NB_VOCAB_FIM_SEP, false, false},
    {"<|channel|>", NO_ROLE, false, true},
    {"<|message|>", NO_ROLE, false, true},
    {"<|start|>", NO_ROLE, false, true},
    {"<|constrain|>", NO_ROLE, false, true},
};

enum { N_KNOWN = sizeof known / sizeof *known };
_Static_assert((int)N_KNOWN <= (int)NB_KNOWN_MAX, "nb_vocab_known.id is too short");

static int find(const char *text, size_t bytes)
{
    for (int i = 0; i < N_KNOWN; i++) {
        if (memcmp(known[i].text, text, 1) == 0 && strlen(known[i].text) == bytes &&
            memcmp(known[i].text, text, bytes) == 0)
            return i;
    }
    return -1;
}

static int32_t id_of(const struct nb_vocab_known *k, const char *text)
{
    return k->id[find(text, strlen(text))];
}

bool nb_vocab_is(const struct nb_vocab *v, const char *model)
{
    size_t n = strlen(model);
    return v->model.bytes == n && memcmp(v->model.data, model, n) == 0;
}

/* No known text is longer; a long token need not be compared. */
enum { KNOWN_MAX_BYTES = 40 };

void nb_vocab_find_known(struct nb_vocab_known *k, const struct nb_vocab *v, bool no_bos)
{
    bool spm = nb_vocab_is(v, "llama");
    for (int i = 0; i < NB_KNOWN_MAX; i++) k->id[i] = -1;
    for (int s = 0; s < NB_VOCAB_N_SPECIAL; s++) k->special[s] = -1;
    k->special[NB_VOCAB_BOS] = spm ? 1 : no_bos ? -1 : 11;
    k->special[NB_VOCAB_EOS] = spm ? 2 : 11;
    k->special[NB_VOCAB_UNK] = spm ? 0 : -1;
    for (int s = 0; s < NB_VOCAB_N_SPECIAL; s++) {
        if (k->special[s] >= 0 && (size_t)k->special[s] >= v->n) k->special[s] = -1;
        if (v->special[s] >= 0 && (size_t)v->special[s] < v->n) k->special[s] = v->special[s];
    }
    for (size_t i = 0; i < v->n; i++) {
        const struct nb_span *t = &v->tokens[i];
        if (t->bytes == 0 || t->bytes > KNOWN_MAX_BYTES) continue;
        if (t->data[0] != '<' && t->data[0] != '[' && t->data[0] != '_' && t->data[0] != 0xe2)
            continue;
        int at = find((const char *)t->data, t->bytes);
        if (at < 0) continue;
        k->id[at] = (int32_t)i;
        if (known[at].role != NO_ROLE && k->special[known[at].role] < 0)
            k->special[known[at].role] = (int32_t)i;
    }
}

/* gpt-oss and solar-open: "<|end|>" ends a message, not the text. */
static bool end_is_shown(const struct nb_vocab_known *k)
{
    bool has_call = id_of(k, "<|call|>") >= 0 || id_of(k, "<|calls|>") >= 0;
    return id_of(k, "<|end|>") >= 0 && has_call &&
           (id_of(k, "<|return|>") >= 0 || id_of(k, "<|flush|>") >= 0);
}

void nb_vocab_force_types(const struct nb_vocab_known *k, int32_t *types)
{
    for (int s = NB_VOCAB_EOT; s < NB_VOCAB_N_SPECIAL; s++) {
        bool by_text = false;
        for (int i = 0; i < N_KNOWN; i++)
            by_text = by_text || (known[i].role == (enum nb_vocab_special)s && k->id[i] >= 0 &&
                                  k->id[i] == k->special[s]);
        if (by_text) types[k->special[s]] = NB_VOCAB_CONTROL;
    }
    for (int i = 0; i < N_KNOWN; i++) {
        if (k->id[i] < 0) continue;
        if (known[i].ends) types[k->id[i]] = NB_VOCAB_CONTROL;
        if (known[i].shown) types[k->id[i]] = NB_VOCAB_USER_DEFINED;
    }
    if (end_is_shown(k)) types[id_of(k, "<|end|>")] = NB_VOCAB_USER_DEFINED;
    if (id_of(k, "<|tool_response>") >= 0 && id_of(k, "</s>") >= 0)
        types[id_of(k, "</s>")] = NB_VOCAB_NORMAL;
}

static void add_end(int32_t id, int32_t *ids, size_t *n, size_t max)
{
    for (size_t i = 0; i < *n; i++) {
        if (ids[i] == id) return;
    }
    if (id >= 0 && *n < max) ids[(*n)++] = id;
}

size_t nb_vocab_end_ids(const struct nb_vocab *v, int32_t *ids, size_t max)
{
    const struct nb_pre_rule *rule = nb_pre_rule_find(v->pre);
    struct nb_vocab_known k;
    nb_vocab_find_known(&k, v, rule && rule->no_bos);
    bool keep_end = !end_is_shown(&k), keep_s = id_of(&k, "<|tool_response>") < 0;
    static const enum nb_vocab_special roles[] = {NB_VOCAB_EOS,     NB_VOCAB_EOT,
                                                  NB_VOCAB_EOM,     NB_VOCAB_FIM_PAD,
                                                  NB_VOCAB_FIM_REP, NB_VOCAB_FIM_SEP};
    size_t n = 0;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        add_end(k.special[roles[i]], ids, &n, max);
    for (int i = 0; i < N_KNOWN; i++) {
        if (known[i].ends) add_end(k.id[i], ids, &n, max);
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        bool drop = (!keep_end && ids[i] == id_of(&k, "<|end|>")) ||
                    (!keep_s && ids[i] == id_of(&k, "</s>"));
        if (!drop) ids[kept++] = ids[i];
    }
    return kept;
}
