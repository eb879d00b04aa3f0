/* SPDX-License-Identifier: Apache-2.0
 *
 * pretokenizer.c - see pretokenizer.h. */
#include "text/pretokenizer.h"

#include <string.h>

#include "base/mem.h"
#include "text/unicode.h"

enum kind { SPLIT, BYTE_LEVEL, DIGITS, METASPACE, WHITESPACE, WHITESPACE_SPLIT, PUNCTUATION };
enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };
enum scheme { ALWAYS, FIRST, NEVER };

struct nb_pre_stage {
    enum kind kind;
    enum behavior behavior;
    bool invert;
    struct nb_regex *regex; /* SPLIT; BYTE_LEVEL with use_regex; owned */
    bool add_prefix_space;  /* BYTE_LEVEL */
    char replacement[5];    /* METASPACE */
    enum scheme scheme;
    bool split;
};

static const char known[] =
    "Split, ByteLevel, Digits, Metaspace, Whitespace, WhitespaceSplit, Punctuation, Sequence";

/* GPT-2's pattern, which ByteLevel implies. */
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- reading ---- */

static int parse_behavior(enum behavior *out, const json_t *part, bool required, const char *what,
                          struct nb_err *err)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *s = "Isolated";
    int rc = nb_json_get_string(part, "behavior", required, &s, what, err);
    if (rc) return rc;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], s) == 0) {
            *out = (enum behavior)i;
            return 0;
        }
    }
    return nb_part_refuse("split behavior", s,
                          "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous", what,
                          err);
}

static int parse_split(struct nb_pre_stage *st, const json_t *part, const char *what,
                       struct nb_err *err)
{
    int rc = nb_regex_from_json(&st->regex, part, "pattern", what, err);
    if (!rc) rc = parse_behavior(&st->behavior, part, true, what, err);
    if (!rc) rc = nb_json_get_bool(part, "invert", true, &st->invert, what, err);
    return rc;
}

static int parse_byte_level(struct nb_pre_stage *st, const json_t *part, const char *what,
                            struct nb_err *err)
{
    bool use_regex = true;
    int rc = nb_json_get_bool(part, "add_prefix_space", true, &st->add_prefix_space, what, err);
    if (!rc) rc = nb_json_get_bool(part, "use_regex", false, &use_regex, what, err);
    if (!rc && use_regex) {
        rc = nb_regex_new(&st->regex, gpt2_pattern, sizeof gpt2_pattern - 1, false, what, err);
    }
    st->behavior = ISOLATED;
    return rc;
}

static int parse_metaspace(struct nb_pre_stage *st, const json_t *part, const char *what,
                           struct nb_err *err)
{
    bool add_prefix_space = true;
    const char *scheme = "always";
    st->split = true;
    int rc = nb_part_char(part, "replacement", st->replacement, what, err);
    if (!rc) rc = nb_json_get_bool(part, "add_prefix_space", false, &add_prefix_space, what, err);
    if (!rc) rc = nb_json_get_string(part, "prepend_scheme", false, &scheme, what, err);
    if (!rc) rc = nb_json_get_bool(part, "split", false, &st->split, what, err);
    if (rc) return rc;
    bool named = json_is_string(json_object_get(part, "prepend_scheme"));
    if (strcmp(scheme, "always") == 0) st->scheme = ALWAYS;
    else if (strcmp(scheme, "first") == 0) st->scheme = FIRST;
    else if (strcmp(scheme, "never") == 0) st->scheme = NEVER;
    else
        return nb_part_refuse("Metaspace prepend_scheme", scheme, "always, first, never", what,
                              err);
    if (!add_prefix_space && st->scheme != NEVER) {
        if (named) {
            return nb_fail(err, NB_E_FORMAT,
                           "%s: Metaspace: add_prefix_space false contradicts prepend_scheme '%s'",
                           what, scheme);
        }
        st->scheme = NEVER;
    }
    st->behavior = MERGED_WITH_NEXT;
    return 0;
}

static int parse_digits(struct nb_pre_stage *st, const json_t *part, const char *what,
                        struct nb_err *err)
{
    bool individual = false;
    int rc = nb_json_get_bool(part, "individual_digits", true, &individual, what, err);
    st->behavior = individual ? ISOLATED : CONTIGUOUS;
    return rc;
}

static int parse_stage(struct nb_pre_stage *st, const json_t *part, const char *type,
                       const char *what, struct nb_err *err)
{
    if (strcmp(type, "Split") == 0) {
        st->kind = SPLIT;
        return parse_split(st, part, what, err);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        st->kind = BYTE_LEVEL;
        return parse_byte_level(st, part, what, err);
    }
    if (strcmp(type, "Digits") == 0) {
        st->kind = DIGITS;
        return parse_digits(st, part, what, err);
    }
    if (strcmp(type, "Metaspace") == 0) {
        st->kind = METASPACE;
        return parse_metaspace(st, part, what, err);
    }
    if (strcmp(type, "Punctuation") == 0) {
        st->kind = PUNCTUATION;
        return parse_behavior(&st->behavior, part, false, what, err);
    }
    st->behavior = REMOVED;
    if (strcmp(type, "Whitespace") == 0) st->kind = WHITESPACE;
    else if (strcmp(type, "WhitespaceSplit") == 0) st->kind = WHITESPACE_SPLIT;
    else return nb_part_refuse("pre_tokenizer", type, known, what, err);
    return 0;
}

int nb_pretokenizer_init(struct nb_pretokenizer *p, const json_t *part, const char *what,
                         struct nb_err *err)
{
    *p = (struct nb_pretokenizer){0};
    struct nb_part_list list;
    int rc = nb_part_flatten(&list, part, "pretokenizers", "pre_tokenizer", what, err);
    if (rc || list.n == 0) return rc;
    p->stages = nb_xalloc(list.n * sizeof *p->stages);
    p->n = list.n;
    for (size_t i = 0; i < list.n && !rc; i++) {
        rc = parse_stage(&p->stages[i], list.part[i], list.type[i], what, err);
    }
    if (rc) nb_pretokenizer_release(p);
    return rc;
}

int nb_pretokenizer_init_patterns(struct nb_pretokenizer *p, const char *const *patterns, size_t n,
                                  const char *what, struct nb_err *err)
{
    *p = (struct nb_pretokenizer){.n = n + 1};
    p->stages = nb_xalloc((n + 1) * sizeof *p->stages);
    p->stages[n] = (struct nb_pre_stage){.kind = BYTE_LEVEL, .behavior = ISOLATED};
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        p->stages[i] = (struct nb_pre_stage){.kind = SPLIT, .behavior = ISOLATED};
        rc = nb_regex_new(&p->stages[i].regex, patterns[i], strlen(patterns[i]), false, what, err);
    }
    if (rc) nb_pretokenizer_release(p);
    return rc;
}

void nb_pretokenizer_release(struct nb_pretokenizer *p)
{
    for (size_t i = 0; i < p->n; i++) nb_regex_free(p->stages[i].regex);
    nb_free(p->stages);
    *p = (struct nb_pretokenizer){0};
}

void nb_pre_run_release(struct nb_pre_run *run)
{
    for (size_t i = 0; i < NB_PARTS_MAX; i++) {
        nb_strbuf_release(&run->text[i]);
        nb_strbuf_release(&run->word[i]);
    }
}

/* ---- cutting: a sequence of adjacent ranges, each a delimiter or not, becomes words ---- */

struct cutter {
    struct nb_pre_run *run;
    size_t stage; /* whose words these are */
    const char *s;
    bool at_start; /* s begins where the original text begins */
    bool pending, pending_match;
    size_t start, end; /* the pending range */
};

static int enter(struct nb_pre_run *run, size_t i, const char *s, size_t n, bool at_start,
                 struct nb_err *err);

/* Bytes as printable characters, which is what a byte-level vocabulary is written in. */
static int byte_level_word(struct nb_pre_run *run, size_t stage, const char *s, size_t n,
                           bool at_start, struct nb_err *err)
{
    struct nb_strbuf *b = &run->word[stage];
    nb_strbuf_reset(b);
    for (size_t i = 0; i < n; i++) {
        char buf[4];
        nb_strbuf_add(b, buf, nb_utf8_put(nb_byte_to_char((unsigned char)s[i]), buf));
    }
    if (b->failed)
        return nb_fail(err, NB_E_NOMEM, "tokenizer: no memory for a word of %zu bytes", n);
    return enter(run, stage + 1, nb_strbuf_cstr(b), b->len, at_start, err);
}

static int cut_word(struct cutter *c, size_t start, size_t end, struct nb_err *err)
{
    bool at_start = c->at_start && start == 0;
    if (c->run->pre->stages[c->stage].kind == BYTE_LEVEL) {
        return byte_level_word(c->run, c->stage, c->s + start, end - start, at_start, err);
    }
    return enter(c->run, c->stage + 1, c->s + start, end - start, at_start, err);
}

static int cut_flush(struct cutter *c, struct nb_err *err)
{
    if (!c->pending) return 0;
    c->pending = false;
    return cut_word(c, c->start, c->end, err);
}

/* The next range. Behaviors that merge hold one range back until its neighbour is known. */
static int cut(struct cutter *c, size_t start, size_t end, bool match, struct nb_err *err)
{
    const struct nb_pre_stage *st = &c->run->pre->stages[c->stage];
    match = match != st->invert;
    bool join = false;
    switch (st->behavior) {
    case REMOVED: return match ? 0 : cut_word(c, start, end, err);
    case ISOLATED: return cut_word(c, start, end, err);
    case MERGED_WITH_PREVIOUS: join = match && !c->pending_match; break;
    case MERGED_WITH_NEXT: join = c->pending_match && !match; break;
    case CONTIGUOUS: join = match == c->pending_match; break;
    }
    if (c->pending && join) {
        c->end = end;
        c->pending_match = match;
        return 0;
    }
    int rc = cut_flush(c, err);
    c->pending = true;
    c->pending_match = match;
    c->start = start;
    c->end = end;
    return rc;
}

static int cut_by_regex(struct cutter *c, const struct nb_regex *regex, size_t n,
                        struct nb_err *err)
{
    struct nb_regex_iter it = {0};
    size_t done = 0;
    int rc;
    while ((rc = nb_regex_next(regex, c->run->matcher, c->s, n, &it, err)) > 0) {
        if (done != it.start) rc = cut(c, done, it.start, false, err);
        if (rc >= 0) rc = cut(c, it.start, it.end, true, err);
        if (rc < 0) return rc;
        done = it.end;
    }
    if (!rc && done != n) rc = cut(c, done, n, false, err);
    return rc ? rc : cut_flush(c, err);
}

/* Every character of the class is a delimiter of its own. */
static int cut_by_class(struct cutter *c, bool (*is)(uint32_t), size_t n, struct nb_err *err)
{
    size_t done = 0;
    int rc = 0;
    for (size_t i = 0, len; i < n && !rc; i += len) {
        uint32_t ch;
        len = nb_utf8_next(c->s + i, &ch);
        if (!is(ch)) continue;
        if (done != i) rc = cut(c, done, i, false, err);
        if (!rc) rc = cut(c, i, i + len, true, err);
        done = i + len;
    }
    if (!rc && done != n) rc = cut(c, done, n, false, err);
    return rc ? rc : cut_flush(c, err);
}

/* \w+|[^\w\s]+ : words and runs of other characters; white space goes. */
static int cut_whitespace(struct cutter *c, size_t n, struct nb_err *err)
{
    enum { NONE, WORD, OTHER } run = NONE;
    size_t start = 0;
    int rc = 0;
    for (size_t i = 0, len; i < n && !rc; i += len) {
        uint32_t ch;
        len = nb_utf8_next(c->s + i, &ch);
        int now = nb_char_is_word(ch) ? WORD : nb_char_is_space(ch) ? NONE : OTHER;
        if (now == (int)run) continue;
        if (run != NONE) rc = cut_word(c, start, i, err);
        run = now;
        start = i;
    }
    if (!rc && run != NONE) rc = cut_word(c, start, n, err);
    return rc;
}

/* ---- stages ---- */

static int metaspace(struct nb_pre_run *run, size_t i, const char *s, size_t n, bool at_start,
                     struct nb_err *err)
{
    const struct nb_pre_stage *st = &run->pre->stages[i];
    struct nb_strbuf *b = &run->text[i];
    size_t len = strlen(st->replacement);
    nb_strbuf_reset(b);
    bool begins = s[0] == ' ' || (n >= len && memcmp(s, st->replacement, len) == 0);
    bool prepend = !begins && (st->scheme == ALWAYS || (st->scheme == FIRST && at_start));
    if (prepend) nb_strbuf_add(b, st->replacement, len);
    for (size_t k = 0; k < n; k++) {
        if (s[k] == ' ') nb_strbuf_add(b, st->replacement, len);
        else nb_strbuf_putc(b, s[k]);
    }
    if (b->failed) return nb_fail(err, NB_E_NOMEM, "tokenizer: no memory for %zu bytes of text", n);
    if (!st->split) return enter(run, i + 1, b->data, b->len, at_start, err);
    struct cutter c = {.run = run, .stage = i, .s = b->data, .at_start = at_start};
    size_t done = 0;
    int rc = 0;
    for (const char *hit;
         !rc && (hit = memmem(b->data + done, b->len - done, st->replacement, len));) {
        size_t at = (size_t)(hit - b->data);
        if (at != done) rc = cut(&c, done, at, false, err);
        if (!rc) rc = cut(&c, at, at + len, true, err);
        done = at + len;
    }
    if (!rc && done != b->len) rc = cut(&c, done, b->len, false, err);
    return rc ? rc : cut_flush(&c, err);
}

static int byte_level(struct nb_pre_run *run, size_t i, const char *s, size_t n, bool at_start,
                      struct nb_err *err)
{
    const struct nb_pre_stage *st = &run->pre->stages[i];
    if (st->add_prefix_space && s[0] != ' ') {
        struct nb_strbuf *b = &run->text[i];
        nb_strbuf_reset(b);
        nb_strbuf_putc(b, ' ');
        nb_strbuf_add(b, s, n);
        if (b->failed)
            return nb_fail(err, NB_E_NOMEM, "tokenizer: no memory for %zu bytes of text", n);
        s = b->data;
        n = b->len;
    }
    struct cutter c = {.run = run, .stage = i, .s = s, .at_start = at_start};
    return st->regex ? cut_by_regex(&c, st->regex, n, err) : cut_word(&c, 0, n, err);
}

/* Stage i takes s[0..n); behind the last stage stands the model. Depth: the number of stages. */
static int enter(struct nb_pre_run *run, size_t i, const char *s, size_t n, bool at_start,
                 struct nb_err *err)
{
    if (n == 0) return 0;
    if (i == run->pre->n) return run->take(run->ctx, s, n, err);
    const struct nb_pre_stage *st = &run->pre->stages[i];
    struct cutter c = {.run = run, .stage = i, .s = s, .at_start = at_start};
    switch (st->kind) {
    case SPLIT: return cut_by_regex(&c, st->regex, n, err);
    case BYTE_LEVEL: return byte_level(run, i, s, n, at_start, err);
    case DIGITS: return cut_by_class(&c, nb_char_is_numeric, n, err);
    case METASPACE: return metaspace(run, i, s, n, at_start, err);
    case WHITESPACE: return cut_whitespace(&c, n, err);
    case WHITESPACE_SPLIT: return cut_by_class(&c, nb_char_is_space, n, err);
    case PUNCTUATION: return cut_by_class(&c, nb_char_is_punct, n, err);
    }
    return 0;
}

int nb_pretokenizer_run(struct nb_pre_run *run, const char *s, size_t n, bool at_start,
                        struct nb_err *err)
{
    return enter(run, 0, s, n, at_start, err);
}
