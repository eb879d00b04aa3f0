/* SPDX-License-Identifier: Apache-2.0
 *
 * decoder.c - see decoder.h. */
#include "text/decoder.h"

#include <string.h>

#include "base/mem.h"
#include "text/unicode.h"

enum kind { BYTE_LEVEL, METASPACE, BYTE_FALLBACK, FUSE, REPLACE, STRIP, BYTES };

struct nb_decoder_step {
    enum kind kind;
    char character[5];  /* METASPACE: replacement; STRIP: content */
    bool drop_first;    /* METASPACE: token 0 loses its replacement characters; BYTES: a space */
    size_t start, stop; /* STRIP: at most so many characters */
    struct nb_regex *regex; /* REPLACE; owned */
    char *content;          /* REPLACE; owned */
    size_t content_bytes;
};

static const char known[] = "ByteLevel, Metaspace, ByteFallback, Fuse, Replace, Strip, Sequence";
static const char unknown_char[] = "\xef\xbf\xbd"; /* U+FFFD */

/* ---- reading ---- */

static int parse_metaspace(struct nb_decoder_step *st, const json_t *part, const char *what,
                           struct nb_err *err)
{
    const char *scheme = "always";
    bool add_prefix_space = true;
    int rc = nb_part_char(part, "replacement", st->character, what, err);
    if (!rc) rc = nb_json_get_string(part, "prepend_scheme", false, &scheme, what, err);
    if (!rc) rc = nb_json_get_bool(part, "add_prefix_space", false, &add_prefix_space, what, err);
    st->drop_first = add_prefix_space && strcmp(scheme, "never") != 0;
    return rc;
}

static int parse_replace(struct nb_decoder_step *st, const json_t *part, const char *what,
                         struct nb_err *err)
{
    const char *content;
    int rc = nb_regex_from_json(&st->regex, part, "pattern", what, err);
    if (!rc) rc = nb_json_get_string(part, "content", true, &content, what, err);
    if (rc) return rc;
    st->content_bytes = json_string_length(json_object_get(part, "content"));
    st->content = nb_alloc(st->content_bytes + 1, 1);
    if (!st->content) return nb_fail(err, NB_E_NOMEM, "%s: no memory for the decoder", what);
    memcpy(st->content, content, st->content_bytes + 1);
    return 0;
}

static int parse_strip(struct nb_decoder_step *st, const json_t *part, const char *what,
                       struct nb_err *err)
{
    int64_t start = 0, stop = 0;
    int rc = nb_part_char(part, "content", st->character, what, err);
    if (!rc) rc = nb_json_get_int(part, "start", true, &start, what, err);
    if (!rc) rc = nb_json_get_int(part, "stop", true, &stop, what, err);
    if (!rc && (start < 0 || stop < 0)) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: decoder Strip: start and stop must not be negative",
                     what);
    }
    st->start = (size_t)start;
    st->stop = (size_t)stop;
    return rc;
}

static int parse_step(struct nb_decoder_step *st, const json_t *part, const char *type,
                      const char *what, struct nb_err *err)
{
    static const struct {
        const char *type;
        enum kind kind;
        int (*parse)(struct nb_decoder_step *, const json_t *, const char *, struct nb_err *);
    } kinds[] = {{"ByteLevel", BYTE_LEVEL, NULL},       {"Metaspace", METASPACE, parse_metaspace},
                 {"ByteFallback", BYTE_FALLBACK, NULL}, {"Fuse", FUSE, NULL},
                 {"Replace", REPLACE, parse_replace},   {"Strip", STRIP, parse_strip}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].type, type) != 0) continue;
        st->kind = kinds[i].kind;
        return kinds[i].parse ? kinds[i].parse(st, part, what, err) : 0;
    }
    return nb_part_refuse("decoder", type, known, what, err);
}

int nb_decoder_init(struct nb_decoder *d, const json_t *part, const char *what, struct nb_err *err)
{
    *d = (struct nb_decoder){.absent = !part || json_is_null(part)};
    struct nb_part_list list;
    int rc = nb_part_flatten(&list, part, "decoders", "decoder", what, err);
    if (rc || list.n == 0) return rc;
    d->steps = nb_xalloc(list.n * sizeof *d->steps);
    d->n = list.n;
    for (size_t i = 0; i < list.n && !rc; i++) {
        rc = parse_step(&d->steps[i], list.part[i], list.type[i], what, err);
    }
    if (rc) nb_decoder_release(d);
    return rc;
}

void nb_decoder_init_bytes(struct nb_decoder *d, bool drop_space)
{
    *d = (struct nb_decoder){.bytes = true, .n = 1};
    d->steps = nb_xalloc(sizeof *d->steps);
    *d->steps = (struct nb_decoder_step){.kind = BYTES, .drop_first = drop_space};
}

void nb_decoder_release(struct nb_decoder *d)
{
    for (size_t i = 0; i < d->n; i++) {
        nb_regex_free(d->steps[i].regex);
        nb_free(d->steps[i].content);
    }
    nb_free(d->steps);
    *d = (struct nb_decoder){0};
}

/* ---- running ---- */

/* Step i takes s[0..n) of the current token; `ends`: the token is whole. Depth: number of steps. */
static int feed(struct nb_decoder_run *run, size_t i, const char *s, size_t n, bool ends,
                struct nb_err *err);

/* For steps that must see a token whole: gathers its pieces; true once *s, *n is all of it. */
static bool whole_token(struct nb_decoder_state *state, const char **s, size_t *n, bool ends)
{
    if (ends && state->token.len == 0) return true;
    nb_strbuf_add(&state->token, *s, *n);
    *s = nb_strbuf_cstr(&state->token);
    *n = state->token.len;
    return ends;
}

/* Bytes of a byte-level token: its characters mapped back, or, if one is not in the alphabet, its
 * own. */
static void byte_level_bytes(struct nb_strbuf *out, const char *s, size_t n)
{
    size_t before = out->len;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += nb_utf8_next(s + i, &c);
        int byte = nb_char_to_byte(c);
        if (byte < 0) {
            out->len = before;
            nb_strbuf_add(out, s, n);
            return;
        }
        nb_strbuf_putc(out, (char)byte);
    }
}

/* Moves whole characters from bytes to text, U+FFFD for what can be none; an incomplete character
 * at the end stays unless `last`. */
static void take_characters(struct nb_strbuf *bytes, struct nb_strbuf *text, bool last)
{
    nb_strbuf_reset(text);
    size_t done = 0;
    while (done < bytes->len) {
        bool valid, more;
        size_t len = nb_utf8_span((const unsigned char *)bytes->data + done, bytes->len - done,
                                  &valid, &more);
        if (more && !last) break;
        if (valid) nb_strbuf_add(text, bytes->data + done, len);
        else nb_strbuf_puts(text, unknown_char);
        done += len;
    }
    size_t rest = bytes->len - done;
    if (rest && done) memmove(bytes->data, bytes->data + done, rest);
    bytes->len = rest;
}

/* Makes one endless token; holds an incomplete character. */
static int byte_level(struct nb_decoder_run *run, size_t i, const char *s, size_t n, bool ends,
                      struct nb_err *err)
{
    struct nb_decoder_state *state = &run->state[i];
    if (!whole_token(state, &s, &n, ends)) return 0;
    byte_level_bytes(&state->pending, s, n);
    nb_strbuf_reset(&state->token);
    take_characters(&state->pending, &state->text, false);
    return feed(run, i + 1, nb_strbuf_cstr(&state->text), state->text.len, false, err);
}

/* Makes one endless token of the bytes; holds an incomplete character. */
static int bytes(struct nb_decoder_run *run, size_t i, const char *s, size_t n, struct nb_err *err)
{
    struct nb_decoder_state *state = &run->state[i];
    bool drop = run->decoder->steps[i].drop_first && state->n_tokens == 0 && n && s[0] == ' ';
    state->n_tokens++;
    nb_strbuf_add(&state->pending, s + drop, n - drop);
    take_characters(&state->pending, &state->text, false);
    return feed(run, i + 1, nb_strbuf_cstr(&state->text), state->text.len, false, err);
}

/* Value of "<0xAB>", or -1. A sign before one digit passes, as in the reference. */
static int byte_token(const char *s, size_t n)
{
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>') return -1;
    int value = 0;
    for (size_t i = 3; i < 5; i++) {
        char c = s[i];
        if (i == 3 && c == '+') continue;
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* A run of byte tokens as one token if it is valid UTF-8, else one U+FFFD per byte. */
static int flush_bytes(struct nb_decoder_run *run, size_t i, struct nb_err *err)
{
    struct nb_strbuf *b = &run->state[i].pending;
    size_t n = b->len, bad;
    int rc = 0;
    b->len = 0;
    if (n == 0) return 0;
    if (nb_utf8_check(b->data, n, &bad)) return feed(run, i + 1, b->data, n, true, err);
    for (size_t k = 0; k < n && !rc; k++) rc = feed(run, i + 1, unknown_char, 3, true, err);
    return rc;
}

/* Holds a run of byte tokens to its end: one bad byte decides about all of them. */
static int byte_fallback(struct nb_decoder_run *run, size_t i, const char *s, size_t n, bool ends,
                         struct nb_err *err)
{
    struct nb_decoder_state *state = &run->state[i];
    if (!whole_token(state, &s, &n, ends)) return 0;
    int byte = byte_token(s, n), rc = 0;
    if (byte >= 0) {
        nb_strbuf_putc(&state->pending, (char)byte);
    } else {
        rc = flush_bytes(run, i, err);
        if (!rc) rc = feed(run, i + 1, s, n, true, err);
    }
    nb_strbuf_reset(&state->token);
    return rc;
}

/* Works token by token; an endless token is held to its end. */
static int replace(struct nb_decoder_run *run, size_t i, const char *s, size_t n, bool ends,
                   struct nb_err *err)
{
    struct nb_decoder_state *state = &run->state[i];
    const struct nb_decoder_step *st = &run->decoder->steps[i];
    if (!whole_token(state, &s, &n, ends)) return 0;
    nb_strbuf_reset(&state->text);
    struct nb_regex_iter it = {0};
    size_t done = 0;
    int rc = 0;
    while (n && (rc = nb_regex_next(st->regex, run->matcher, s, n, &it, err)) > 0) {
        nb_strbuf_add(&state->text, s + done, it.start - done);
        nb_strbuf_add(&state->text, st->content, st->content_bytes);
        done = it.end;
    }
    if (rc) return rc;
    nb_strbuf_add(&state->text, s + done, n - done);
    nb_strbuf_reset(&state->token);
    return feed(run, i + 1, nb_strbuf_cstr(&state->text), state->text.len, true, err);
}

/* Holds up to `stop` content characters at the end: they go if the token ends here. */
static int strip(struct nb_decoder_run *run, size_t i, const char *s, size_t n, bool ends,
                 struct nb_err *err)
{
    struct nb_decoder_state *state = &run->state[i];
    const struct nb_decoder_step *st = &run->decoder->steps[i];
    size_t len = strlen(st->character);
    nb_strbuf_reset(&state->text);
    for (size_t k = 0; k < n;) {
        size_t c = nb_utf8_length((unsigned char)s[k]);
        bool content = c == len && memcmp(s + k, st->character, len) == 0;
        if (content && state->n_begin < st->start) {
            state->n_begin++;
        } else if (content && state->n_held < st->stop) {
            state->n_begin = st->start;
            state->n_held++;
        } else {
            state->n_begin = st->start;
            if (!content) {
                for (; state->n_held; state->n_held--)
                    nb_strbuf_add(&state->text, st->character, len);
            }
            nb_strbuf_add(&state->text, s + k, c); /* or: the oldest one held moves on */
        }
        k += c;
    }
    if (ends) state->n_begin = state->n_held = 0;
    return feed(run, i + 1, nb_strbuf_cstr(&state->text), state->text.len, ends, err);
}

static int metaspace(struct nb_decoder_run *run, size_t i, const char *s, size_t n, bool ends,
                     struct nb_err *err)
{
    struct nb_decoder_state *state = &run->state[i];
    const struct nb_decoder_step *st = &run->decoder->steps[i];
    size_t len = strlen(st->character);
    nb_strbuf_reset(&state->text);
    for (size_t k = 0; k < n;) {
        size_t c = nb_utf8_length((unsigned char)s[k]);
        bool is = c == len && memcmp(s + k, st->character, len) == 0;
        if (!is) nb_strbuf_add(&state->text, s + k, c);
        else if (state->n_tokens > 0 || !st->drop_first) nb_strbuf_putc(&state->text, ' ');
        k += c;
    }
    if (ends) state->n_tokens++;
    return feed(run, i + 1, nb_strbuf_cstr(&state->text), state->text.len, ends, err);
}

static int write_out(struct nb_decoder_run *run, const char *s, size_t n, struct nb_err *err)
{
    if (run->decoder->absent && run->began) nb_strbuf_putc(run->out, ' ');
    run->began = true;
    nb_strbuf_add(run->out, s, n);
    if (run->out->failed) return nb_fail(err, NB_E_NOMEM, "tokenizer: no memory for decoded text");
    return 0;
}

static int feed(struct nb_decoder_run *run, size_t i, const char *s, size_t n, bool ends,
                struct nb_err *err)
{
    if (i == run->decoder->n) return write_out(run, s, n, err);
    switch (run->decoder->steps[i].kind) {
    case BYTE_LEVEL: return byte_level(run, i, s, n, ends, err);
    case METASPACE: return metaspace(run, i, s, n, ends, err);
    case BYTE_FALLBACK: return byte_fallback(run, i, s, n, ends, err);
    case FUSE: return feed(run, i + 1, s, n, false, err);
    case REPLACE: return replace(run, i, s, n, ends, err);
    case STRIP: return strip(run, i, s, n, ends, err);
    case BYTES: return bytes(run, i, s, n, err);
    }
    return 0;
}

int nb_decoder_token(struct nb_decoder_run *run, const char *s, size_t n, struct nb_err *err)
{
    return feed(run, 0, s, n, true, err);
}

/* The end of the stream reaches the steps in order; each may still hand something to the next. */
int nb_decoder_finish(struct nb_decoder_run *run, struct nb_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < run->decoder->n; i++) {
        struct nb_decoder_state *state = &run->state[i];
        enum kind kind = run->decoder->steps[i].kind;
        if (!rc && kind == BYTE_FALLBACK) rc = flush_bytes(run, i, err);
        if (!rc && kind == FUSE) rc = feed(run, i + 1, "", 0, true, err);
        if (!rc && (kind == BYTE_LEVEL || kind == BYTES)) {
            take_characters(&state->pending, &state->text, true);
            rc = feed(run, i + 1, nb_strbuf_cstr(&state->text), state->text.len, true, err);
        }
        nb_strbuf_reset(&state->token);
        nb_strbuf_reset(&state->pending);
        state->n_tokens = state->n_begin = state->n_held = 0;
    }
    run->began = false;
    return rc;
}

void nb_decoder_run_release(struct nb_decoder_run *run)
{
    for (size_t i = 0; i < NB_PARTS_MAX; i++) {
        nb_strbuf_release(&run->state[i].token);
        nb_strbuf_release(&run->state[i].pending);
        nb_strbuf_release(&run->state[i].text);
    }
}
