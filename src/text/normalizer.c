/* SPDX-License-Identifier: Apache-2.0
 *
 * normalizer.c - see normalizer.h. Unicode forms come from utf8proc. */
#include "text/normalizer.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "text/part.h"
#include "text/unicode.h"

enum kind { NFC, NFD, NFKC, NFKD, LOWERCASE, STRIP, PREPEND, REPLACE, BYTE_LEVEL };

struct nb_normalizer_step {
    enum kind kind;
    bool left, right; /* STRIP */
    char *text;       /* PREPEND, REPLACE: what is put in; owned */
    size_t bytes;
    struct nb_regex *regex; /* REPLACE; owned */
};

static const char known[] =
    "NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace, ByteLevel, Sequence";

static int read_text(struct nb_normalizer_step *step, const json_t *part, const char *key,
                     const char *what, struct nb_err *err)
{
    const char *s;
    int rc = nb_json_get_string(part, key, true, &s, what, err);
    if (rc) return rc;
    step->bytes = json_string_length(json_object_get(part, key));
    step->text = nb_alloc(step->bytes + 1, 1);
    if (!step->text) return nb_fail(err, NB_E_NOMEM, "%s: no memory for the normalizer", what);
    memcpy(step->text, s, step->bytes + 1);
    return 0;
}

static int parse_step(struct nb_normalizer_step *step, const json_t *part, const char *type,
                      const char *what, struct nb_err *err)
{
    static const struct {
        const char *type;
        enum kind kind;
    } kinds[] = {{"NFC", NFC},         {"NFD", NFD},         {"NFKC", NFKC},
                 {"NFKD", NFKD},       {"Strip", STRIP},     {"Lowercase", LOWERCASE},
                 {"Prepend", PREPEND}, {"Replace", REPLACE}, {"ByteLevel", BYTE_LEVEL}};
    size_t i = 0;
    while (i < sizeof kinds / sizeof *kinds && strcmp(kinds[i].type, type) != 0) i++;
    if (i == sizeof kinds / sizeof *kinds)
        return nb_part_refuse("normalizer", type, known, what, err);
    step->kind = kinds[i].kind;
    int rc = 0;
    switch (step->kind) {
    case STRIP:
        rc = nb_json_get_bool(part, "strip_left", true, &step->left, what, err);
        if (!rc) rc = nb_json_get_bool(part, "strip_right", true, &step->right, what, err);
        break;
    case PREPEND: rc = read_text(step, part, "prepend", what, err); break;
    case REPLACE:
        rc = nb_regex_from_json(&step->regex, part, "pattern", what, err);
        if (!rc) rc = read_text(step, part, "content", what, err);
        break;
    default: break;
    }
    return rc;
}

int nb_normalizer_init(struct nb_normalizer *z, const json_t *part, const char *what,
                       struct nb_err *err)
{
    *z = (struct nb_normalizer){0};
    struct nb_part_list list;
    int rc = nb_part_flatten(&list, part, "normalizers", "normalizer", what, err);
    if (rc || list.n == 0) return rc;
    z->steps = nb_xalloc(list.n * sizeof *z->steps);
    z->n = list.n;
    for (size_t i = 0; i < list.n && !rc; i++) {
        rc = parse_step(&z->steps[i], list.part[i], list.type[i], what, err);
    }
    if (rc) nb_normalizer_release(z);
    return rc;
}

void nb_normalizer_release(struct nb_normalizer *z)
{
    for (size_t i = 0; i < z->n; i++) {
        nb_free(z->steps[i].text);
        nb_regex_free(z->steps[i].regex);
    }
    nb_free(z->steps);
    *z = (struct nb_normalizer){0};
}

/* Nothing below U+0300 changes under NFC, nothing below U+0080 under any form. */
static bool is_stable(enum kind form, const char *s, size_t n)
{
    unsigned char limit =
        form == NFC ? 0xcc : 0x80; /* lead byte of U+0300; first byte past ASCII */
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s[i] >= limit) return false;
    }
    return true;
}

static int unicode_form(enum kind form, const char *s, size_t n, struct nb_strbuf *out,
                        struct nb_err *err)
{
    if (is_stable(form, s, n)) {
        nb_strbuf_add(out, s, n);
        return 0;
    }
    int options = UTF8PROC_STABLE;
    options |= form == NFC || form == NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    if (form == NFKC || form == NFKD) options |= UTF8PROC_COMPAT;
    utf8proc_uint8_t *result = NULL;
    utf8proc_ssize_t len = utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &result,
                                        (utf8proc_option_t)options);
    if (len < 0) {
        return nb_fail(err, len == UTF8PROC_ERROR_NOMEM ? NB_E_NOMEM : NB_E_FAIL,
                       "tokenizer: cannot normalize %zu bytes: %s", n, utf8proc_errmsg(len));
    }
    nb_strbuf_add(out, result, (size_t)len);
    free(result);
    return 0;
}

static void lowercase(const char *s, size_t n, struct nb_strbuf *out)
{
    for (size_t i = 0; i < n;) {
        uint32_t c;
        char buf[4];
        i += nb_utf8_next(s + i, &c);
        if (c == 0x130) { /* the one character whose lower case is two */
            nb_strbuf_add(out, "i\xcc\x87", 3);
            continue;
        }
        nb_strbuf_add(out, buf, nb_utf8_put((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), buf));
    }
}

static void strip(const struct nb_normalizer_step *step, const char *s, size_t n,
                  struct nb_strbuf *out)
{
    size_t from = 0, to = n;
    uint32_t c;
    while (step->left && from < to) {
        size_t len = nb_utf8_next(s + from, &c);
        if (!nb_char_is_space(c)) break;
        from += len;
    }
    while (step->right && to > from) {
        size_t len = nb_utf8_previous(s, to, &c);
        if (!nb_char_is_space(c)) break;
        to -= len;
    }
    nb_strbuf_add(out, s + from, to - from);
}

static int replace(const struct nb_normalizer_step *step, const char *s, size_t n,
                   struct nb_matcher *m, struct nb_strbuf *out, struct nb_err *err)
{
    struct nb_regex_iter it = {0};
    size_t done = 0;
    int rc = 0;
    while (n && (rc = nb_regex_next(step->regex, m, s, n, &it, err)) > 0) {
        nb_strbuf_add(out, s + done, it.start - done);
        nb_strbuf_add(out, step->text, step->bytes);
        done = it.end;
    }
    nb_strbuf_add(out, s + done, n - done);
    return rc;
}

static void byte_level(const char *s, size_t n, struct nb_strbuf *out)
{
    for (size_t i = 0; i < n; i++) {
        char buf[4];
        nb_strbuf_add(out, buf, nb_utf8_put(nb_byte_to_char((unsigned char)s[i]), buf));
    }
}

static int run_step(const struct nb_normalizer_step *step, const char *s, size_t n,
                    struct nb_matcher *m, struct nb_strbuf *out, struct nb_err *err)
{
    switch (step->kind) {
    case NFC:
    case NFD:
    case NFKC:
    case NFKD: return unicode_form(step->kind, s, n, out, err);
    case LOWERCASE: lowercase(s, n, out); return 0;
    case STRIP: strip(step, s, n, out); return 0;
    case PREPEND:
        if (n) nb_strbuf_add(out, step->text, step->bytes);
        nb_strbuf_add(out, s, n);
        return 0;
    case REPLACE: return replace(step, s, n, m, out, err);
    case BYTE_LEVEL: byte_level(s, n, out); return 0;
    }
    return 0;
}

int nb_normalizer_run(const struct nb_normalizer *z, struct nb_normalizing *run, const char *s,
                      size_t n, struct nb_err *err)
{
    nb_strbuf_reset(&run->text);
    if (z->n == 0) nb_strbuf_add(&run->text, s, n);
    for (size_t i = 0; i < z->n; i++) {
        struct nb_strbuf t = run->text;
        run->text = run->scratch;
        run->scratch = t;
        nb_strbuf_reset(&run->text);
        int rc = run_step(&z->steps[i], s, n, run->matcher, &run->text, err);
        if (rc) return rc;
        s = nb_strbuf_cstr(&run->text);
        n = run->text.len;
    }
    if (run->text.failed || run->scratch.failed) {
        return nb_fail(err, NB_E_NOMEM, "tokenizer: no memory to normalize %zu bytes", n);
    }
    return 0;
}
