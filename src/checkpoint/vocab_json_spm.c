/* SPDX-License-Identifier: Apache-2.0
 *
 * vocab_json_spm.c - a vocabulary that merges by scores, as the BPE of a tokenizer.json.
 *
 * Every way to cut a token into two tokens is a merge, the best score first: a rank per pair in place of a score
 * per text. Which special texts are cut out, and with which ids, is what the GGUF tokenizer itself decides.
 *
 * Source: how Hugging Face's converters order the merges of SentencePiece models. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/internal.h"
#include "text/hash.h"
#include "text/unicode.h"
#include "text/vocab_known.h"

/* A longer token would cost its length squared; the longest of real vocabularies have about 100 bytes. */
enum { PIECE_MAX_BYTES = 512, MERGES_MAX_BYTES = 128 * 1024 * 1024 };

struct merge {
    float score;                  /* of the whole */
    uint32_t left_len, whole_len; /* characters */
    int32_t whole, left, right;
};

struct making {
    const struct nb_vocab *v;
    struct nb_strmap ids; /* of what may be merged */
    struct merge *merges;
    size_t n, capacity, bytes;
};

static bool is_piece(const struct nb_vocab *v, size_t i)
{
    const struct nb_span t = v->tokens[i];
    size_t bad;
    bool plain = v->types[i] == NB_VOCAB_NORMAL || v->types[i] == NB_VOCAB_UNDEFINED;
    return plain && t.bytes && !memchr(t.data, 0, t.bytes) &&
           nb_utf8_check((const char *)t.data, t.bytes, &bad);
}

static bool add_cuts(struct making *m, size_t whole)
{
    const char *s = (const char *)m->v->tokens[whole].data;
    size_t n = m->v->tokens[whole].bytes, first = m->n;
    uint32_t len = 0;
    for (size_t at = 0; at < n; at += nb_utf8_length((unsigned char)s[at]), len++) {
        int32_t left = at ? nb_strmap_get(&m->ids, s, at) : -1;
        int32_t right = left >= 0 ? nb_strmap_get(&m->ids, s + at, n - at) : -1;
        if (right < 0) continue;
        if (!nb_grow((void **)&m->merges, &m->capacity, m->n, sizeof *m->merges)) return false;
        m->merges[m->n++] =
            (struct merge){m->v->scores[whole], len, 0, (int32_t)whole, left, right};
        m->bytes += n;
    }
    for (size_t i = first; i < m->n; i++) m->merges[i].whole_len = len;
    return true;
}

static int compare(const void *a, const void *b)
{
    const struct merge *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->left_len != y->left_len) return x->left_len > y->left_len ? -1 : 1;
    if (x->whole_len != y->whole_len) return x->whole_len > y->whole_len ? -1 : 1;
    return (x->whole > y->whole) - (x->whole < y->whole);
}

/* Why there can be no order or no list; NULL: there is one. */
static const char *cannot(const struct nb_vocab *v)
{
    if (!v->scores || v->n_scores < v->n) return "the vocabulary has no scores";
    for (size_t i = 0; i < v->n; i++) {
        if (isnan(v->scores[i])) return "a score is not a number";
        if (is_piece(v, i) && v->tokens[i].bytes > PIECE_MAX_BYTES)
            return "a token has more than 512 bytes";
    }
    return NULL;
}

static bool collect(struct making *m)
{
    bool ok = nb_strmap_init(&m->ids, m->v->n);
    for (size_t i = 0; i < m->v->n && ok; i++) {
        const struct nb_span t = m->v->tokens[i];
        if (is_piece(m->v, i))
            ok = nb_strmap_put(&m->ids, (const char *)t.data, t.bytes, (int32_t)i);
    }
    for (size_t i = 0; i < m->v->n && ok && m->bytes <= MERGES_MAX_BYTES; i++)
        if (is_piece(m->v, i)) ok = add_cuts(m, i);
    if (ok && m->n) qsort(m->merges, m->n, sizeof *m->merges, compare);
    return ok;
}

/* Do two tokens with merges share a score? */
static bool has_ties(const struct making *m)
{
    for (size_t i = 1; i < m->n; i++) {
        const struct merge *x = &m->merges[i - 1], *y = &m->merges[i];
        if (x->score == y->score && x->whole != y->whole) return true;
    }
    return false;
}

static json_t *merges_json(const struct making *m)
{
    json_t *list = json_array(), **names = nb_calloc(m->v->n, sizeof *names);
    for (size_t i = 0; i < m->n && names && list; i++) {
        const int32_t halves[] = {m->merges[i].left, m->merges[i].right};
        json_t *pair = json_array();
        for (int k = 0; k < 2; k++) {
            const struct nb_span t = m->v->tokens[halves[k]];
            json_t **name = &names[halves[k]];
            if (!*name) *name = json_stringn((const char *)t.data, t.bytes);
            json_array_append(pair, *name);
        }
        json_array_append_new(list, pair);
    }
    for (size_t i = 0; i < m->v->n && names; i++) json_decref(names[i]);
    bool whole = names && json_array_size(list) == m->n;
    nb_free(names);
    if (whole) return list;
    json_decref(list);
    return NULL;
}

static json_t *replace(const char *from, const char *to)
{
    return json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", from, "content",
                     to);
}

static json_t *tokenizer_json(const struct making *m)
{
    static const char mark[] = "\xe2\x96\x81"; /* U+2581 */
    const struct nb_vocab *v = m->v;
    json_t *normalizer = replace(" ", mark);
    json_t *decoders =
        json_pack("[o, {s:s}, {s:s}]", replace(mark, " "), "type", "ByteFallback", "type", "Fuse");
    if (v->flag[NB_VOCAB_ADD_SPACE_PREFIX] != NB_VOCAB_FALSE) {
        normalizer = json_pack("{s:s, s:[{s:s, s:s}, o]}", "type", "Sequence", "normalizers",
                               "type", "Prepend", "prepend", mark, normalizer);
        json_array_append_new(decoders, json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip",
                                                  "content", " ", "start", 1, "stop", 0));
    }
    int32_t unk = v->special[NB_VOCAB_UNK];
    json_t *unknown = unk < 0 ? json_null() : nb_vocab_text_json(v->tokens[unk]);
    json_t *model = json_pack(
        "{s:s, s:n, s:o, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout", "unk_token",
        unknown, "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 1, "byte_fallback",
        1, "ignore_merges", 0, "vocab", nb_vocab_ids_json(v), "merges", merges_json(m));
    return json_pack("{s:s, s:n, s:n, s:o, s:o, s:n, s:o, s:{s:s, s:o}, s:o}", "version", "1.0",
                     "truncation", "padding", "added_tokens", nb_vocab_added_json(v), "normalizer",
                     normalizer, "pre_tokenizer", "post_processor", nb_vocab_template_json(v, true),
                     "decoder", "type", "Sequence", "decoders", decoders, "model", model);
}

static void note_differences(const struct making *m, struct nb_strbuf *notes)
{
    bool user_defined = false;
    size_t n_bytes = 0;
    for (size_t i = 0; i < m->v->n; i++) {
        user_defined = user_defined || m->v->types[i] == NB_VOCAB_USER_DEFINED;
        n_bytes += m->v->types[i] == NB_VOCAB_BYTE;
    }
    if (has_ties(m)) {
        nb_strbuf_puts(
            notes,
            "tokenizer.json: tokens share a score; it ranks their merges, the GGUF file joins"
            " the leftmost first\n");
    }
    if (user_defined) {
        nb_strbuf_puts(
            notes,
            "tokenizer.json: where user-defined tokens overlap it takes the leftmost, the GGUF"
            " file the longest\n");
    }
    if (n_bytes < 256) {
        nb_strbuf_puts(
            notes,
            "tokenizer.json: not every byte has a token; it gives unknown characters one token"
            " together, the GGUF file one per byte\n");
    }
}

static int make(struct making *m, json_t **tokenizer, struct nb_strbuf *notes, struct nb_err *err)
{
    const char *why = cannot(m->v);
    bool ok = why || collect(m);
    if (ok && !why && m->bytes > MERGES_MAX_BYTES) why = "its merges have more than 128 MiB";
    if (ok && !why && has_ties(m) && m->merges[0].score == m->merges[m->n - 1].score)
        why = "all scores are equal, nothing orders the merges";
    if (why) {
        nb_strbuf_printf(notes, "tokenizer.json is not written: %s\n", why);
        return 0;
    }
    *tokenizer = ok ? tokenizer_json(m) : NULL;
    if (!*tokenizer) return nb_fail(err, NB_E_NOMEM, "no memory for tokenizer.json");
    note_differences(m, notes);
    return 0;
}

int nb_vocab_spm_json(const struct nb_vocab *v, json_t **tokenizer, struct nb_strbuf *notes,
                      struct nb_err *err)
{
    struct nb_vocab_known known;
    struct nb_vocab as_read = *v; /* with the ids and types that its own tokenizer has */
    int32_t *types = nb_calloc(v->n, sizeof *types);
    if (!types) return nb_fail(err, NB_E_NOMEM, "no memory for tokenizer.json");
    for (size_t i = 0; i < v->n; i++) types[i] = i < v->n_types ? v->types[i] : NB_VOCAB_NORMAL;
    nb_vocab_find_known(&known, v, false);
    nb_vocab_force_types(&known, types);
    memcpy(as_read.special, known.special, sizeof known.special);
    as_read.types = types;
    as_read.n_types = v->n;
    struct making m = {.v = &as_read};
    int rc = make(&m, tokenizer, notes, err);
    nb_strmap_release(&m.ids);
    nb_free(m.merges);
    nb_free(types);
    return rc;
}
