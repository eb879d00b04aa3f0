/* SPDX-License-Identifier: Apache-2.0
 *
 * vocab_write.c - a tokenizer.json as a GGUF vocabulary: tokens, types, merges or scores.
 *
 * Byte-level BPE becomes model gpt2, BPE over pieces with U+2581 for a space becomes model llama.
 * The latter joins by scores of tokens, not by ranks of pairs: the score of a token is minus the
 * rank of the first merge that makes it, which gives the same order where merges are sorted by
 * token, as converters from SentencePiece write them.
 *
 * Source: gguf-py's vocab.py and conversion/base.py of llama.cpp (2026), which write -1000 for all
 * scores where there is no tokenizer.model. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "text/model.h"
#include "text/part.h"
#include "text/pre_names.h"
#include "text/vocab_write.h"

static const char mark[] = "\xe2\x96\x81"; /* U+2581 */

int nb_vocab_no_memory(const struct nb_vocab_writing *w)
{
    return nb_fail(w->err, NB_E_NOMEM, "%s: no memory for the vocabulary", w->source->what);
}

/* A span over a copy in the arena; data NULL: out of memory. */
struct nb_span nb_vocab_copy(struct nb_vocab_writing *w, const void *text, size_t bytes)
{
    unsigned char *copy = nb_arena_alloc(&w->v->arena, bytes + 1, 1);
    if (!copy) return (struct nb_span){0};
    if (bytes) memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    return (struct nb_span){copy, bytes};
}

/* ---- which model, and what it cannot say ---- */

static int flatten(struct nb_vocab_writing *w, struct nb_part_list *list, const char *key,
                   const char *children)
{
    return nb_part_flatten(list, json_object_get(w->source->tokenizer, key), children, key,
                           w->source->what, w->err);
}

static bool has_part(const struct nb_part_list *list, const char *type)
{
    for (size_t i = 0; i < list->n; i++) {
        if (strcmp(list->type[i], type) == 0) return true;
    }
    return false;
}

static bool is_string(const json_t *part, const char *key, const char *want)
{
    const char *s = json_string_value(json_object_get(part, key));
    return s && strcmp(s, want) == 0;
}

static bool is_space_to_mark(const json_t *part, const char *type)
{
    return strcmp(type, "Replace") == 0 && is_string(part, "content", mark) &&
           is_string(json_object_get(part, "pattern"), "String", " ");
}

static int refuse(struct nb_vocab_writing *w, const char *role, const char *type)
{
    return nb_fail(w->err, NB_E_SPEC,
                   "%s: %s '%.32s' cannot be expressed in a GGUF with tokenizer model %s",
                   w->source->what, role, type, (const char *)w->v->model.data);
}

static void set_flag(struct nb_vocab_writing *w, enum nb_vocab_flag flag, bool value)
{
    w->v->flag[flag] = value ? NB_VOCAB_TRUE : NB_VOCAB_FALSE;
}

static int read_normalizer(struct nb_vocab_writing *w, const struct nb_part_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        const char *type = list->type[i];
        if (strcmp(type, "NFC") == 0) {
            nb_strbuf_puts(w->note, "normalizer NFC is not applied by llama.cpp: text in another"
                                    " normal form gets other ids\n");
        } else if (w->spm && is_space_to_mark(list->part[i], type)) {
            continue;
        } else if (w->spm && strcmp(type, "Prepend") == 0 &&
                   is_string(list->part[i], "prepend", mark)) {
            set_flag(w, NB_VOCAB_ADD_SPACE_PREFIX, true);
        } else {
            return refuse(w, "normalizer", type);
        }
    }
    return 0;
}

static int read_metaspace(struct nb_vocab_writing *w, const json_t *part)
{
    if (!is_string(part, "replacement", mark)) return refuse(w, "pre_tokenizer", "Metaspace");
    bool prefix = !json_is_false(json_object_get(part, "add_prefix_space")) &&
                  !is_string(part, "prepend_scheme", "never");
    if (!prefix) return 0;
    set_flag(w, NB_VOCAB_ADD_SPACE_PREFIX, true);
    nb_strbuf_puts(w->note, "Metaspace puts no space before text that begins with one, llama.cpp"
                            " does\n");
    if (is_string(part, "prepend_scheme", "first")) {
        nb_strbuf_puts(w->note, "Metaspace puts a space before the first text only, llama.cpp also"
                                " behind each special token\n");
    }
    return 0;
}

static int read_spm_pre(struct nb_vocab_writing *w, const struct nb_part_list *list)
{
    int rc = 0;
    w->v->pre = nb_vocab_copy(w, "default", 7);
    for (size_t i = 0; i < list->n && !rc; i++) {
        const json_t *part = list->part[i];
        /* Spaces have become marks before: a Split at spaces finds none. */
        bool idle = strcmp(list->type[i], "Split") == 0 && w->marks_in_normalizer &&
                    is_string(json_object_get(part, "pattern"), "String", " ");
        if (strcmp(list->type[i], "Metaspace") == 0) rc = read_metaspace(w, part);
        else if (!idle) rc = refuse(w, "pre_tokenizer", list->type[i]);
    }
    return rc || w->v->pre.data ? rc : nb_vocab_no_memory(w);
}

static int read_bpe_pre(struct nb_vocab_writing *w, const struct nb_part_list *list)
{
    struct nb_pre_choice choice;
    bool ignore_merges = w->t->model.ignore_merges;
    int rc = nb_pre_name_choose(&choice, list, ignore_merges, w->source->what, w->err);
    if (rc) return rc;
    if (!choice.name[0]) {
        return nb_fail(w->err, NB_E_SPEC,
                       "%s: llama.cpp has no pre-tokenizer that cuts as this pre_tokenizer does",
                       w->source->what);
    }
    w->v->pre = nb_vocab_copy(w, choice.name, strlen(choice.name));
    if (choice.difference) nb_strbuf_printf(w->note, "%s\n", choice.difference);
    if (choice.ignore_merges != ignore_merges) {
        nb_strbuf_printf(w->note, "ignore_merges is %s, with pre-tokenizer %s llama.cpp takes %s\n",
                         ignore_merges ? "true" : "false", choice.name,
                         choice.ignore_merges ? "true" : "false");
    }
    for (size_t i = 0; i < list->n; i++) {
        if (json_is_true(json_object_get(list->part[i], "add_prefix_space")))
            nb_strbuf_puts(w->note, "ByteLevel puts a space before the text, llama.cpp does not\n");
    }
    return w->v->pre.data ? 0 : nb_vocab_no_memory(w);
}

static int read_parts(struct nb_vocab_writing *w)
{
    struct nb_part_list normalizer, pre, decoder;
    int rc = flatten(w, &normalizer, "normalizer", "normalizers");
    if (!rc) rc = flatten(w, &pre, "pre_tokenizer", "pretokenizers");
    if (!rc) rc = flatten(w, &decoder, "decoder", "decoders");
    if (rc) return rc;
    bool bytes = has_part(&pre, "ByteLevel") && has_part(&decoder, "ByteLevel");
    for (size_t i = 0; i < normalizer.n; i++) {
        if (is_space_to_mark(normalizer.part[i], normalizer.type[i])) w->marks_in_normalizer = true;
    }
    w->spm = w->t->model.byte_fallback && (w->marks_in_normalizer || has_part(&pre, "Metaspace"));
    if (bytes == w->spm) {
        return nb_fail(w->err, NB_E_SPEC,
                       "%s: a GGUF holds byte-level BPE or BPE with byte_fallback and U+2581 for"
                       " spaces, this is %s",
                       w->source->what, bytes ? "both" : "neither");
    }
    w->v->model = w->spm ? nb_vocab_copy(w, "llama", 5) : nb_vocab_copy(w, "gpt2", 4);
    if (!w->v->model.data) return nb_vocab_no_memory(w);
    if (w->spm) set_flag(w, NB_VOCAB_ADD_SPACE_PREFIX, false);
    rc = read_normalizer(w, &normalizer);
    if (!rc) rc = w->spm ? read_spm_pre(w, &pre) : read_bpe_pre(w, &pre);
    return rc;
}

/* ---- tokens and types ---- */

static bool begins(const char *s, size_t n, const char *with)
{
    size_t k = strlen(with);
    return n >= k && memcmp(s, with, k) == 0;
}

static bool ends(const char *s, size_t n, const char *with)
{
    size_t k = strlen(with);
    return n >= k && memcmp(s + n - k, with, k) == 0;
}

/* Added tokens that files forget to mark as special. */
static bool looks_special(const char *s, size_t n)
{
    static const char *const texts[] = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (strlen(texts[i]) == n && memcmp(s, texts[i], n) == 0) return true;
    }
    return (begins(s, n, "<|") && ends(s, n, "|>")) ||
           (begins(s, n, "<\xef\xbd\x9c") && ends(s, n, "\xef\xbd\x9c>")) ||
           (begins(s, n, "<unused") && ends(s, n, ">"));
}

static bool is_byte_token(const char *s, size_t n)
{
    static const char digits[] = "0123456789ABCDEFabcdef";
    return n == 6 && begins(s, n, "<0x") && s[5] == '>' && memchr(digits, s[3], 22) &&
           memchr(digits, s[4], 22);
}

/* User-defined tokens are looked for in the text as written, where a mark is a space. */
static struct nb_span copy_with_spaces(struct nb_vocab_writing *w, const char *s, size_t n)
{
    struct nb_strbuf b;
    nb_strbuf_init(&b);
    for (size_t i = 0; i < n;) {
        bool space = begins(s + i, n - i, mark);
        nb_strbuf_putc(&b, space ? ' ' : s[i]);
        i += space ? 3 : 1;
    }
    struct nb_span copy = {0};
    if (!b.failed) copy = nb_vocab_copy(w, nb_strbuf_cstr(&b), b.len);
    nb_strbuf_release(&b);
    return copy;
}

static void write_token(struct nb_vocab_writing *w, size_t id, struct nb_span *text, int32_t *type)
{
    const struct nb_tokenizer *t = w->t;
    const struct nb_added_token *a = w->added[id];
    const struct nb_token *m = id < t->model.n_ids ? &t->model.tokens[id] : NULL;
    if (!a && (!m || !m->text)) {
        char filler[32];
        int n = snprintf(filler, sizeof filler, "[PAD%zu]", id);
        *text = nb_vocab_copy(w, filler, (size_t)n);
        *type = NB_VOCAB_UNUSED;
        return;
    }
    const char *s = a ? a->text : m->text;
    size_t n = a ? a->bytes : m->bytes;
    *type = NB_VOCAB_NORMAL;
    if (w->spm && t->model.unk_token && (int32_t)id == t->model.unk_id) *type = NB_VOCAB_UNKNOWN;
    else if (w->spm && is_byte_token(s, n)) *type = NB_VOCAB_BYTE;
    else if (a)
        *type = a->special || looks_special(s, n) ? NB_VOCAB_CONTROL : NB_VOCAB_USER_DEFINED;
    *text = *type == NB_VOCAB_USER_DEFINED ? copy_with_spaces(w, s, n) : nb_vocab_copy(w, s, n);
}

/* How many tokens there are, and which ids are added tokens. Added tokens beyond the embedding's
 * rows have no weights: they are left out. */
static int count_tokens(struct nb_vocab_writing *w)
{
    const struct nb_tokenizer *t = w->t;
    size_t rows = w->source->n_rows, n_left_out = 0;
    w->v->n = rows ? rows : t->n_tokens;
    if (t->model.n_ids > w->v->n) {
        return nb_fail(w->err, NB_E_FORMAT, "%s: %zu tokens, the embedding has %zu rows",
                       w->source->what, t->model.n_ids, rows);
    }
    if (w->v->n > INT32_MAX) {
        return nb_fail(w->err, NB_E_FORMAT,
                       "%s: %zu rows of the embedding, at most %d are accepted", w->source->what,
                       w->v->n, INT32_MAX);
    }
    w->added = nb_calloc(w->v->n ? w->v->n : 1, sizeof *w->added);
    if (!w->added) return nb_vocab_no_memory(w);
    bool flagged = false, marked = false;
    for (size_t i = 0; i < t->added.n; i++) {
        const struct nb_added_token *a = &t->added.tokens[i];
        flagged = flagged || a->lstrip || a->rstrip || a->single_word;
        marked = marked || (!a->special && strstr(a->text, mark));
        if ((size_t)a->id < w->v->n) w->added[a->id] = a;
        else n_left_out++;
    }
    if (flagged)
        nb_strbuf_puts(w->note, "lstrip, rstrip and single_word of added tokens are not known to"
                                " llama.cpp\n");
    if (marked) {
        nb_strbuf_puts(w->note, "llama.cpp looks for spaces where an added token has U+2581\n");
    }
    if (n_left_out) {
        nb_strbuf_printf(w->note,
                         "%zu added tokens beyond the %zu rows of the embedding are left"
                         " out\n",
                         n_left_out, rows);
    }
    return 0;
}

static int write_tokens(struct nb_vocab_writing *w)
{
    int rc = count_tokens(w);
    if (rc) return rc;
    size_t n = w->v->n;
    struct nb_span *tokens = nb_arena_calloc(&w->v->arena, n, sizeof *tokens);
    int32_t *types = nb_arena_calloc(&w->v->arena, n, sizeof *types);
    struct nb_strmap seen;
    if (!nb_strmap_init(&seen, n) || !tokens || !types) rc = nb_vocab_no_memory(w);
    for (size_t i = 0; i < n && !rc; i++) {
        write_token(w, i, &tokens[i], &types[i]);
        const char *text = (const char *)tokens[i].data;
        int32_t other = text ? nb_strmap_get(&seen, text, tokens[i].bytes) : -1;
        if (other >= 0) {
            rc = nb_fail(w->err, NB_E_SPEC,
                         "%s: tokens %d and %zu would both be '%.64s' in a GGUF, which llama.cpp"
                         " refuses",
                         w->source->what, other, i, text);
        } else if (!text || !nb_strmap_put(&seen, text, tokens[i].bytes, (int32_t)i)) {
            rc = nb_vocab_no_memory(w);
        }
    }
    nb_strmap_release(&seen);
    w->v->tokens = tokens;
    w->v->types = types;
    w->v->n_types = n;
    return rc;
}

/* ---- merges and scores ---- */

/* The merges by rank; ranks no merge has any more (of pairs listed twice) are dropped. */
static int sort_merges(struct nb_vocab_writing *w)
{
    const struct nb_pairmap *map = &w->t->model.merges;
    size_t n_ranks = 0;
    for (size_t i = 0; i < map->capacity; i++) {
        const struct nb_pair_entry *e = &map->slots[i];
        if (e->first != UINT32_MAX && e->first >= n_ranks) n_ranks = (size_t)e->first + 1;
    }
    w->merges = nb_calloc(n_ranks ? n_ranks : 1, sizeof *w->merges);
    if (!w->merges) return nb_vocab_no_memory(w);
    for (size_t i = 0; i < map->capacity; i++) {
        const struct nb_pair_entry *e = &map->slots[i];
        if (e->first != UINT32_MAX) w->merges[e->first] = e;
    }
    for (size_t i = 0; i < n_ranks; i++) {
        if (w->merges[i]) w->merges[w->n_merges++] = w->merges[i];
    }
    return 0;
}

/* A space would end the left part: it is written as the alphabet writes it. */
static void add_half(struct nb_strbuf *b, const struct nb_token *t)
{
    for (uint32_t i = 0; i < t->bytes; i++) {
        if (t->text[i] == ' ') nb_strbuf_puts(b, "\xc4\xa0");
        else nb_strbuf_putc(b, t->text[i]);
    }
}

static int write_merges(struct nb_vocab_writing *w)
{
    const struct nb_token *tokens = w->t->model.tokens;
    struct nb_span *merges = nb_arena_calloc(&w->v->arena, w->n_merges, sizeof *merges);
    struct nb_strbuf b;
    nb_strbuf_init(&b);
    bool ok = merges != NULL;
    for (size_t i = 0; i < w->n_merges && ok; i++) {
        nb_strbuf_reset(&b);
        add_half(&b, &tokens[w->merges[i]->a]);
        nb_strbuf_putc(&b, ' ');
        add_half(&b, &tokens[w->merges[i]->b]);
        if (!b.failed) merges[i] = nb_vocab_copy(w, b.data, b.len);
        ok = merges[i].data != NULL;
    }
    nb_strbuf_release(&b);
    w->v->merges = merges;
    w->v->n_merges = w->n_merges;
    return ok ? 0 : nb_vocab_no_memory(w);
}

/* Pairs of tokens that make a token though no merge says so: llama.cpp joins them all the same. */
static size_t count_unsaid(const struct nb_vocab_writing *w)
{
    const struct nb_bpe *b = &w->t->model;
    size_t n = 0;
    for (size_t i = 0; i < b->n_ids; i++) {
        const struct nb_token *t = &b->tokens[i];
        if (!t->text || w->v->types[i] != NB_VOCAB_NORMAL) continue;
        for (uint32_t k = 1; k < t->bytes; k++) {
            if (((unsigned char)t->text[k] & 0xc0) == 0x80) continue;
            int32_t left = nb_strmap_get(&b->vocab, t->text, k);
            int32_t right = left < 0 ? -1 : nb_strmap_get(&b->vocab, t->text + k, t->bytes - k);
            if (right >= 0 && !nb_pairmap_get(&b->merges, (uint32_t)left, (uint32_t)right)) n++;
        }
    }
    return n;
}

static int write_scores(struct nb_vocab_writing *w)
{
    enum { NEVER_MERGED = 1000 * 1000 };
    size_t n = w->v->n, n_again = 0;
    float *scores = nb_arena_calloc(&w->v->arena, n, sizeof *scores);
    if (!scores) return nb_vocab_no_memory(w);
    size_t lowest = w->n_merges > NEVER_MERGED ? w->n_merges : NEVER_MERGED;
    for (size_t i = 0; i < n; i++) scores[i] = -(float)lowest;
    for (size_t i = 0; i < w->n_merges; i++) {
        uint32_t whole = w->merges[i]->second;
        if (scores[whole] == -(float)lowest) scores[whole] = -(float)i;
        else if (w->merges[i - 1]->second != whole) n_again++;
    }
    w->v->scores = scores;
    w->v->n_scores = n;
    size_t n_unsaid = count_unsaid(w);
    if (n_again) {
        nb_strbuf_printf(w->note,
                         "%zu merges make a token that an earlier merge makes too; with"
                         " scores llama.cpp takes both at the earlier place\n",
                         n_again);
    }
    if (n_unsaid) {
        nb_strbuf_printf(w->note,
                         "llama.cpp also joins %zu pairs of tokens for which there is no"
                         " merge\n",
                         n_unsaid);
    }
    return 0;
}

/* What was written can be read: a file that llama.cpp would refuse is not made. */
static int read_back(struct nb_vocab_writing *w)
{
    struct nb_tokenizer *t;
    int rc = nb_tokenizer_from_vocab(&t, w->v, w->source->what, w->err);
    if (rc) return nb_err_prefix(w->err, "as GGUF");
    nb_tokenizer_close(t);
    return 0;
}

static int write_all(struct nb_vocab_writing *w)
{
    int rc = nb_tokenizer_build(w->t, w->source->tokenizer, w->source->what, w->err);
    if (!rc) rc = read_parts(w);
    if (!rc) rc = write_tokens(w);
    if (!rc) rc = sort_merges(w);
    if (!rc) rc = w->spm ? write_scores(w) : write_merges(w);
    if (!rc) rc = nb_vocab_write_specials(w);
    if (!rc && w->note->failed) rc = nb_vocab_no_memory(w);
    if (!rc) rc = read_back(w);
    return rc;
}

int nb_tokenizer_vocab(struct nb_vocab *v, const struct nb_vocab_source *source,
                       struct nb_strbuf *note, struct nb_err *err)
{
    nb_vocab_init(v);
    struct nb_vocab_writing w = {
        .v = v, .source = source, .t = nb_xalloc(sizeof *w.t), .note = note, .err = err};
    int rc = write_all(&w);
    nb_tokenizer_close(w.t);
    nb_free(w.added);
    nb_free(w.merges);
    if (rc) nb_vocab_release(v);
    return rc;
}
