/* SPDX-License-Identifier: Apache-2.0
 *
 * vocab_load.c - a GGUF vocabulary into the tables of a tokenizer.
 *
 * Source: llama_vocab::impl::load in llama.cpp's src/llama-vocab.cpp (2026). Ours refuses what it
 * lets pass without a use: merges without a space, byte tokens that name no byte, scores that are
 * not numbers. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/sha256.h"
#include "text/model.h"
#include "text/pre_names.h"
#include "text/unicode.h"
#include "text/vocab.h"
#include "text/vocab_known.h"

/* Far beyond any real vocabulary; what a small file can claim stays within memory. */
enum {
    TOKENS_MAX = 1 << 22,
    MERGES_MAX = 1 << 24,
    PASSED_MAX = 1 << 20, /* texts that merges pass through without being tokens */
    TOKEN_MAX_BYTES = 1 << 20,
    EMPTY_MAX_BYTES = 32
};

struct loading {
    struct nb_tokenizer *t;
    const struct nb_vocab *v;
    const struct nb_pre_rule *rule; /* of model gpt2 */
    struct nb_vocab_known known;
    int32_t *types;  /* [n] */
    size_t capacity; /* of t->model.tokens */
    const char *what;
    struct nb_err *err;
};

static int no_memory(const struct loading *l)
{
    return nb_fail(l->err, NB_E_NOMEM, "%s: no memory for the vocabulary", l->what);
}

/* ---- checks and texts ---- */

static int check_shape(struct loading *l)
{
    const struct nb_vocab *v = l->v;
    bool gpt2 = nb_vocab_is(v, "gpt2");
    if (!gpt2 && !nb_vocab_is(v, "llama")) {
        return nb_fail(l->err, NB_E_SPEC,
                       "%s: tokenizer model '%.*s' is not supported (supported: gpt2, llama)",
                       l->what, (int)(v->model.bytes < 32 ? v->model.bytes : 32),
                       v->model.bytes ? (const char *)v->model.data : "");
    }
    if (v->n == 0 || v->n > TOKENS_MAX) {
        return nb_fail(l->err, NB_E_FORMAT, "%s: %zu tokens, expected 1 to %d", l->what, v->n,
                       TOKENS_MAX);
    }
    if (v->scores && v->n_scores < v->n) {
        return nb_fail(l->err, NB_E_FORMAT, "%s: %zu scores for %zu tokens", l->what, v->n_scores,
                       v->n);
    }
    if (v->types && v->n_types < v->n) {
        return nb_fail(l->err, NB_E_FORMAT, "%s: %zu token types for %zu tokens", l->what,
                       v->n_types, v->n);
    }
    if (gpt2 && v->n_merges == 0)
        return nb_fail(l->err, NB_E_FORMAT, "%s: tokenizer model gpt2 without merges", l->what);
    if (v->n_merges > MERGES_MAX) {
        return nb_fail(l->err, NB_E_FORMAT, "%s: %zu merges, at most %d are accepted", l->what,
                       v->n_merges, MERGES_MAX);
    }
    return 0;
}

static int find_rule(struct loading *l)
{
    if (!nb_vocab_is(l->v, "gpt2")) return 0;
    l->rule = nb_pre_rule_find(l->v->pre);
    if (l->rule) return 0;
    struct nb_strbuf names;
    nb_strbuf_init(&names);
    nb_pre_rule_list(&names);
    int rc = nb_fail(l->err, NB_E_SPEC, "%s: pre-tokenizer '%.*s' is not supported (supported: %s)",
                     l->what, (int)(l->v->pre.bytes < 32 ? l->v->pre.bytes : 32),
                     (const char *)l->v->pre.data, nb_strbuf_cstr(&names));
    nb_strbuf_release(&names);
    return rc;
}

static int same_text(struct loading *l, size_t i)
{
    const struct nb_token *tokens = l->t->model.tokens;
    size_t other = 0;
    while (tokens[other].bytes != tokens[i].bytes ||
           memcmp(tokens[other].text, tokens[i].text, tokens[i].bytes) != 0)
        other++;
    return nb_fail(l->err, NB_E_FORMAT, "%s: tokens %zu and %zu have the same text '%.64s'",
                   l->what, other, i, tokens[i].text);
}

/* Copies one text behind the others; an empty token gets llama.cpp's stand-in. */
static int copy_token(struct loading *l, size_t i, char **at)
{
    struct nb_bpe *b = &l->t->model;
    const struct nb_span *from = &l->v->tokens[i];
    char *text = *at;
    size_t bytes = from->bytes;
    if (bytes) memcpy(text, from->data, bytes);
    else bytes = (size_t)snprintf(text, EMPTY_MAX_BYTES, "[EMPTY_%zu]", i);
    text[bytes] = '\0';
    *at += bytes + 1;
    b->tokens[i] = (struct nb_token){text, (uint32_t)bytes};
    if (!nb_strmap_put(&b->vocab, text, bytes, (int32_t)i)) return no_memory(l);
    return b->vocab.n == i + 1 ? 0 : same_text(l, i);
}

static int load_tokens(struct loading *l)
{
    struct nb_bpe *b = &l->t->model;
    size_t all = 0;
    for (size_t i = 0; i < l->v->n; i++) {
        size_t bytes = l->v->tokens[i].bytes;
        if (bytes > TOKEN_MAX_BYTES) {
            return nb_fail(l->err, NB_E_FORMAT,
                           "%s: token %zu has %zu bytes, at most %d are"
                           " accepted",
                           l->what, i, bytes, TOKEN_MAX_BYTES);
        }
        if (!nb_add(all, (bytes ? bytes : EMPTY_MAX_BYTES) + 1, &all)) return no_memory(l);
    }
    l->capacity = b->n_ids = b->n_real = l->v->n;
    b->tokens = nb_calloc(l->capacity, sizeof *b->tokens);
    char *texts = nb_arena_alloc(&b->arena, all, 1);
    if (!b->tokens || !texts || !nb_strmap_init(&b->vocab, l->v->n)) return no_memory(l);
    int rc = 0;
    for (size_t i = 0; i < l->v->n && !rc; i++) rc = copy_token(l, i, &texts);
    return rc;
}

/* Value of "<0xAB>", or -1. */
static int byte_value(const struct nb_token *t)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    if (t->bytes != 6 || memcmp(t->text, "<0x", 3) != 0 || t->text[5] != '>') return -1;
    const char *high = memchr(digits, t->text[3], 32), *low = memchr(digits, t->text[4], 32);
    if (!high || !low) return -1;
    return (int)((high - digits) % 16 * 16 + (low - digits) % 16);
}

static int load_types(struct loading *l)
{
    const struct nb_bpe *b = &l->t->model;
    size_t n = l->v->n;
    l->types = nb_calloc(n, sizeof *l->types);
    if (!l->types) return no_memory(l);
    for (size_t i = 0; i < n; i++) {
        int32_t type = l->v->types ? l->v->types[i] : NB_VOCAB_NORMAL;
        l->types[i] = type < 0 || type > NB_VOCAB_BYTE ? NB_VOCAB_UNDEFINED : type;
        if (type == NB_VOCAB_BYTE && byte_value(&b->tokens[i]) < 0) {
            return nb_fail(l->err, NB_E_FORMAT,
                           "%s: token %zu '%.64s' is of type byte, expected <0x00> to <0xFF>",
                           l->what, i, b->tokens[i].text);
        }
    }
    nb_vocab_find_known(&l->known, l->v, l->rule && l->rule->no_bos);
    nb_vocab_force_types(&l->known, l->types);
    return 0;
}

/* ---- the models ---- */

/* The id of a text; one that is no token gets an id behind them. -1: out of memory or too many. */
static int32_t id_of(struct loading *l, const char *text, size_t bytes)
{
    struct nb_bpe *b = &l->t->model;
    int32_t id = nb_strmap_get(&b->vocab, text, bytes);
    if (id >= 0) return id;
    if (b->n_ids - b->n_real >= PASSED_MAX) return -1;
    char *copy = nb_arena_alloc(&b->arena, bytes + 1, 1);
    if (!copy || !nb_grow((void **)&b->tokens, &l->capacity, b->n_ids, sizeof *b->tokens))
        return -1;
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    id = (int32_t)b->n_ids++;
    b->tokens[id] = (struct nb_token){copy, (uint32_t)bytes};
    return nb_strmap_put(&b->vocab, copy, bytes, id) ? id : -1;
}

static int load_merge(struct loading *l, size_t rank, struct nb_strbuf *joined)
{
    struct nb_bpe *b = &l->t->model;
    const char *s = (const char *)l->v->merges[rank].data;
    size_t n = l->v->merges[rank].bytes;
    const char *space = n > 2 ? memchr(s + 1, ' ', n - 2) : NULL;
    if (!space || n > 2 * (size_t)TOKEN_MAX_BYTES) {
        return nb_fail(l->err, NB_E_FORMAT, "%s: merge %zu: expected \"left right\", found '%.*s'",
                       l->what, rank, (int)(n < 64 ? n : 64), n ? s : "");
    }
    size_t left_bytes = (size_t)(space - s);
    nb_strbuf_reset(joined);
    nb_strbuf_add(joined, s, left_bytes);
    nb_strbuf_add(joined, space + 1, n - left_bytes - 1);
    if (joined->failed) return no_memory(l);
    int32_t left = id_of(l, s, left_bytes);
    int32_t right = left < 0 ? -1 : id_of(l, space + 1, n - left_bytes - 1);
    int32_t whole = right < 0 ? -1 : id_of(l, joined->data, joined->len);
    if (whole < 0 && b->n_ids - b->n_real >= PASSED_MAX) {
        return nb_fail(l->err, NB_E_FORMAT, "%s: more than %d texts in the merges are no tokens",
                       l->what, PASSED_MAX);
    }
    if (whole < 0) return no_memory(l);
    if (nb_pairmap_get(&b->merges, (uint32_t)left, (uint32_t)right)) return 0; /* the first holds */
    bool ok = nb_pairmap_put(&b->merges, (uint32_t)left, (uint32_t)right, (uint32_t)rank,
                             (uint32_t)whole);
    return ok ? 0 : no_memory(l);
}

static int load_bpe(struct loading *l)
{
    struct nb_bpe *b = &l->t->model;
    struct nb_strbuf joined;
    nb_strbuf_init(&joined);
    int rc = nb_pairmap_init(&b->merges, l->v->n_merges) ? 0 : no_memory(l);
    for (unsigned byte = 0; byte < 256 && !rc; byte++) {
        char text[4];
        size_t n = nb_utf8_put(nb_byte_to_char((unsigned char)byte), text);
        if (id_of(l, text, n) < 0) rc = no_memory(l);
    }
    for (size_t i = 0; i < l->v->n_merges && !rc; i++) rc = load_merge(l, i, &joined);
    nb_strbuf_release(&joined);
    b->ignore_merges = l->rule->ignore_merges;
    size_t n = 0;
    while (n < NB_PRE_REGEXES_MAX && l->rule->regex[n]) n++;
    return rc ? rc : nb_pretokenizer_init_patterns(&l->t->pre, l->rule->regex, n, l->what, l->err);
}

static int load_spm(struct loading *l)
{
    struct nb_bpe *b = &l->t->model;
    for (unsigned i = 0; i < 256; i++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", i);
        b->byte_ids[i] = nb_strmap_get(&b->vocab, name, 6);
    }
    b->unk_id = l->known.special[NB_VOCAB_UNK];
    l->t->rules->is_spm = true;
    return nb_spm_init(&l->t->rules->spm, b, l->v->scores, l->what, l->err);
}

/* ---- special tokens ---- */

static bool contains(struct nb_span s, const char *lower)
{
    size_t n = strlen(lower);
    for (size_t i = 0; i + n <= s.bytes; i++) {
        size_t k = 0;
        while (k < n && (s.data[i + k] >= 'A' && s.data[i + k] <= 'Z' ? s.data[i + k] + 32
                                                                      : s.data[i + k]) == lower[k])
            k++;
        if (k == n) return true;
    }
    return false;
}

static bool is_text(const struct nb_token *t, const char *text)
{
    return t->bytes == strlen(text) && memcmp(t->text, text, t->bytes) == 0;
}

static int load_specials(struct loading *l)
{
    const struct nb_bpe *b = &l->t->model;
    bool phi3 = contains(l->v->name, "phi-3") || contains(l->v->name, "phi3");
    bool jina = contains(l->v->pre, "jina-v2-");
    struct nb_special *list = nb_calloc(l->v->n, sizeof *list);
    size_t n = 0, bad;
    if (!list) return no_memory(l);
    for (size_t i = 0; i < l->v->n; i++) {
        const struct nb_token *t = &b->tokens[i];
        int32_t type = l->types[i];
        bool control = type == NB_VOCAB_CONTROL || type == NB_VOCAB_UNKNOWN;
        if (!control && type != NB_VOCAB_USER_DEFINED) continue;
        /* What is no UTF-8 would cut characters in two. */
        if (!nb_utf8_check(t->text, t->bytes, &bad)) continue;
        list[n++] = (struct nb_special){
            .text = t->text,
            .bytes = t->bytes,
            .id = (int32_t)i,
            .always = !control,
            .lstrip = jina && is_text(t, "<mask>"),
            .rstrip =
                phi3 && !is_text(t, "<unk>") && !is_text(t, "<s>") && !is_text(t, "<|endoftext|>"),
        };
    }
    int rc = nb_specials_init(&l->t->rules->specials, list, n, l->what, l->err);
    nb_free(list);
    return rc;
}

static int choose(struct loading *l, enum nb_vocab_flag flag, enum nb_vocab_special special,
                  bool otherwise, int32_t *id)
{
    enum nb_vocab_tristate said = l->v->flag[flag];
    bool add = said == NB_VOCAB_ABSENT ? otherwise : said == NB_VOCAB_TRUE;
    *id = add ? l->known.special[special] : -1;
    if (!add || *id >= 0) return 0;
    return nb_fail(l->err, NB_E_FORMAT, "%s: %s is true, but there is no %s", l->what,
                   nb_vocab_flag_key(flag), nb_vocab_special_key(special));
}

static int load_template(struct loading *l)
{
    struct nb_vocab_rules *rules = l->t->rules;
    enum nb_vocab_tristate prefix = l->v->flag[NB_VOCAB_ADD_SPACE_PREFIX];
    rules->space_prefix = prefix == NB_VOCAB_ABSENT ? rules->is_spm : prefix == NB_VOCAB_TRUE;
    int rc = choose(l, NB_VOCAB_ADD_BOS, NB_VOCAB_BOS, l->rule ? l->rule->add_bos : true,
                    &rules->before);
    return rc ? rc : choose(l, NB_VOCAB_ADD_EOS, NB_VOCAB_EOS, false, &rules->after);
}

/* ---- decoding ---- */

/* Appends the bytes that a token decodes to. */
static void add_piece(const struct loading *l, size_t id, struct nb_strbuf *out)
{
    const struct nb_token *t = &l->t->model.tokens[id];
    size_t bad, before = out->len;
    switch (l->types[id]) {
    case NB_VOCAB_UNKNOWN:
    case NB_VOCAB_CONTROL:
    case NB_VOCAB_USER_DEFINED: nb_strbuf_add(out, t->text, t->bytes); return;
    case NB_VOCAB_BYTE: nb_strbuf_putc(out, (char)byte_value(t)); return;
    case NB_VOCAB_NORMAL: break;
    default: return;
    }
    if (l->t->rules->is_spm) {
        for (uint32_t i = 0; i < t->bytes;) {
            bool space = t->bytes - i >= 3 && memcmp(t->text + i, "\xe2\x96\x81", 3) == 0;
            nb_strbuf_putc(out, space ? ' ' : t->text[i]);
            i += space ? 3 : 1;
        }
        return;
    }
    bool mapped = nb_utf8_check(t->text, t->bytes, &bad);
    for (uint32_t i = 0; mapped && i < t->bytes;) {
        uint32_t c;
        i += (uint32_t)nb_utf8_next(t->text + i, &c);
        int byte = nb_char_to_byte(c);
        mapped = byte >= 0;
        if (mapped) nb_strbuf_putc(out, (char)byte);
    }
    if (mapped) return;
    out->len = before; /* a character outside the alphabet: the token stands for itself */
    nb_strbuf_add(out, t->text, t->bytes);
}

static int load_pieces(struct loading *l)
{
    struct nb_tokenizer *t = l->t;
    size_t n = l->v->n;
    t->n_tokens = n;
    t->tokens = nb_calloc(n, sizeof *t->tokens);
    t->special = nb_calloc(n, sizeof *t->special);
    size_t *ends = nb_calloc(n, sizeof *ends);
    struct nb_strbuf all;
    nb_strbuf_init(&all);
    char *pieces = NULL;
    if (t->tokens && t->special && ends) {
        for (size_t i = 0; i < n; i++) {
            add_piece(l, i, &all);
            ends[i] = all.len;
        }
        pieces = all.failed ? NULL : nb_arena_alloc(&t->model.arena, all.len + 1, 1);
    }
    if (pieces) {
        memcpy(pieces, nb_strbuf_cstr(&all), all.len);
        for (size_t i = 0; i < n; i++) {
            size_t begin = i ? ends[i - 1] : 0;
            t->tokens[i] = (struct nb_token){pieces + begin, (uint32_t)(ends[i] - begin)};
            t->special[i] = l->types[i] == NB_VOCAB_CONTROL || l->types[i] == NB_VOCAB_UNKNOWN;
        }
    }
    nb_strbuf_release(&all);
    nb_free(ends);
    if (!pieces) return no_memory(l);
    nb_decoder_init_bytes(&t->decoder, t->rules->space_prefix);
    return 0;
}

/* ---- identity ---- */

static void hash_span(struct nb_sha256 *h, struct nb_span s)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)s.bytes >> (8 * i));
    nb_sha256_add(h, bytes, sizeof bytes);
    if (s.bytes) nb_sha256_add(h, s.data, s.bytes);
}

static void hash_numbers(struct nb_sha256 *h, const void *data, size_t n)
{
    hash_span(h, (struct nb_span){data, data ? n * 4 : 0});
}

/* Of all that ids depend on, each part with its length before it. */
static void hash_vocab(const struct nb_vocab *v, char hex[NB_SHA256_HEX])
{
    struct nb_sha256 h;
    nb_sha256_init(&h);
    hash_span(&h, v->model);
    hash_span(&h, v->pre);
    bool phi3 = contains(v->name, "phi-3") || contains(v->name, "phi3");
    nb_sha256_add(&h, phi3 ? "phi3" : "    ", 4);
    for (size_t i = 0; i < v->n; i++) hash_span(&h, v->tokens[i]);
    hash_numbers(&h, v->types, v->n);
    hash_numbers(&h, v->scores, v->n);
    for (size_t i = 0; i < v->n_merges; i++) hash_span(&h, v->merges[i]);
    hash_numbers(&h, v->special, NB_VOCAB_N_SPECIAL);
    int32_t flags[NB_VOCAB_N_FLAGS];
    for (int i = 0; i < NB_VOCAB_N_FLAGS; i++) flags[i] = (int32_t)v->flag[i];
    hash_numbers(&h, flags, NB_VOCAB_N_FLAGS);
    nb_sha256_finish(&h, hex);
}

static int load(struct loading *l)
{
    int rc = check_shape(l);
    if (!rc) rc = find_rule(l);
    if (!rc) rc = load_tokens(l);
    if (!rc) rc = load_types(l);
    if (!rc) rc = l->rule ? load_bpe(l) : load_spm(l);
    if (!rc) rc = load_specials(l);
    if (!rc) rc = load_template(l);
    if (!rc) rc = load_pieces(l);
    if (!rc) hash_vocab(l->v, l->t->sha256);
    return rc;
}

int nb_tokenizer_from_vocab(struct nb_tokenizer **out, const struct nb_vocab *v, const char *what,
                            struct nb_err *err)
{
    *out = NULL;
    struct nb_tokenizer *t = nb_xalloc(sizeof *t);
    t->rules = nb_xalloc(sizeof *t->rules);
    t->added.max_id = t->model.unk_id = -1;
    nb_arena_init(&t->model.arena);
    nb_arena_init(&t->added.arena);
    struct loading l = {.t = t, .v = v, .what = what, .err = err};
    int rc = load(&l);
    nb_free(l.types);
    if (rc) {
        nb_tokenizer_close(t);
        return rc;
    }
    *out = t;
    return 0;
}
