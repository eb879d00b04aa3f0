/* SPDX-License-Identifier: Apache-2.0
 *
 * wikitext.c - see wikitext.h. Source: evaluation, sections 2.1 and 2.4; the rules are those of the
 * harness's data set and preprocessing, so that its numbers can be compared with ours. */
#include "eval/wikitext.h"

#include <string.h>

#include "base/mem.h"

/* Bytes of the white space character at s (Unicode White_Space and the separators 1C-1F), 0: none. */
static size_t space_at(const char *text, size_t at, size_t bytes)
{
    const unsigned char *s = (const unsigned char *)text + at;
    size_t left = bytes - at;
    if (left == 0) return 0;
    if (s[0] == 0x20 || (s[0] >= 0x09 && s[0] <= 0x0d) || (s[0] >= 0x1c && s[0] <= 0x1f)) return 1;
    if (left >= 2 && s[0] == 0xc2 && (s[1] == 0x85 || s[1] == 0xa0)) return 2;
    if (left < 3) return 0;
    if (s[0] == 0xe1 && s[1] == 0x9a && s[2] == 0x80) return 3; /* U+1680 */
    if (s[0] == 0xe2 && s[1] == 0x80) {                         /* U+2000-200A, 2028, 2029, 202F */
        return (s[2] >= 0x80 && s[2] <= 0x8a) || s[2] == 0xa8 || s[2] == 0xa9 || s[2] == 0xaf ? 3
                                                                                              : 0;
    }
    if (s[0] == 0xe2 && s[1] == 0x81 && s[2] == 0x9f) return 3; /* U+205F */
    if (s[0] == 0xe3 && s[1] == 0x80 && s[2] == 0x80) return 3; /* U+3000 */
    return 0;
}

static struct nb_span trim(const char *s, size_t bytes)
{
    size_t from = 0, n, to = 0;
    while ((n = space_at(s, from, bytes)) != 0) from += n;
    /* Forward scan: white space is told by its first byte. */
    for (size_t i = from; i < bytes;) {
        n = space_at(s, i, bytes);
        i += n ? n : 1;
        if (!n) to = i;
    }
    return (struct nb_span){(const unsigned char *)s + from, to > from ? to - from : 0};
}

static size_t line_end(const char *text, size_t at, size_t bytes)
{
    const char *lf = memchr(text + at, '\n', bytes - at);
    return lf ? (size_t)(lf - text) : bytes;
}

/* Appends s with each occurrence of from replaced, left to right. */
static void replace(struct nb_strbuf *out, const char *s, size_t bytes, const char *from,
                    const char *to)
{
    size_t n = strlen(from);
    const char *end = s + bytes;
    for (;;) {
        const char *hit = (size_t)(end - s) >= n ? memmem(s, (size_t)(end - s), from, n) : NULL;
        if (!hit) break;
        nb_strbuf_add(out, s, (size_t)(hit - s));
        nb_strbuf_puts(out, to);
        s = hit + n;
    }
    nb_strbuf_add(out, s, (size_t)(end - s));
}

/* " = Title = " with one level of '=' after the double and triple ones are drawn together. */
static bool is_title(const char *line, size_t bytes)
{
    struct nb_span t = trim(line, bytes);
    if (t.bytes < 2 || t.data[0] != '=') return false;
    struct nb_strbuf three, two;
    nb_strbuf_init(&three);
    nb_strbuf_init(&two);
    replace(&three, (const char *)t.data, t.bytes, "= = =", "===");
    replace(&two, nb_strbuf_cstr(&three), three.len, "= =", "==");
    const char *s = nb_strbuf_cstr(&two);
    bool title = two.len >= 2 && s[0] == '=' && s[1] == ' ' && s[two.len - 1] == '=' &&
                 s[two.len - 2] == ' ';
    nb_strbuf_release(&three);
    nb_strbuf_release(&two);
    return title;
}

bool nb_wikitext_is_raw(const char *text, size_t bytes)
{
    size_t first = line_end(text, 0, bytes);
    if (first + 1 >= bytes || trim(text, first).bytes) return false;
    return is_title(text + first + 1, line_end(text, first + 1, bytes) - first - 1);
}

void nb_wikitext_join_rows(const char *text, size_t bytes, struct nb_strbuf *out)
{
    for (size_t at = 0; at < bytes;) {
        size_t end = line_end(text, at, bytes), next = end < bytes ? end + 1 : end;
        if (at) nb_strbuf_puts(out, "\n\n");
        if (trim(text + at, end - at).bytes) nb_strbuf_add(out, text + at, next - at);
        at = next;
    }
}

static int add_page(struct nb_span **pages, size_t *n, size_t *capacity, const char *s,
                    size_t bytes, struct nb_err *err)
{
    if (trim(s, bytes).bytes == 0) return 0;
    if (!nb_grow((void **)pages, capacity, *n, sizeof **pages)) {
        return nb_fail(err, NB_E_NOMEM, "out of memory after %zu pages", *n);
    }
    (*pages)[(*n)++] = (struct nb_span){(const unsigned char *)s, bytes};
    return 0;
}

int nb_wikitext_pages(const char *text, size_t bytes, struct nb_span **pages, size_t *n,
                      struct nb_err *err)
{
    size_t capacity = 0, start = 0;
    int rc = 0;
    *pages = NULL;
    *n = 0;
    for (size_t at = 0; at < bytes && !rc;) {
        size_t end = line_end(text, at, bytes);
        if (at > start && is_title(text + at, end - at)) {
            rc = add_page(pages, n, &capacity, text + start, at - 1 - start, err);
            start = at;
        }
        at = end + 1;
    }
    if (!rc && start < bytes) rc = add_page(pages, n, &capacity, text + start, bytes - start, err);
    if (rc) {
        nb_free(*pages);
        *pages = NULL;
    }
    return rc;
}

/* White space next to a pair of brackets (or quotes) and inside of it goes; the shortest pairs, left to right. */
static void tighten(struct nb_strbuf *out, const char *s, size_t bytes, char open, char close)
{
    size_t at = 0;
    for (;;) {
        const char *from = at < bytes ? memchr(s + at, open, bytes - at) : NULL;
        size_t inside = from ? (size_t)(from - s) + 1 : bytes;
        const char *to = inside < bytes ? memchr(s + inside, close, bytes - inside) : NULL;
        if (!to) break;
        struct nb_span t = trim(s + inside, (size_t)(to - s) - inside);
        nb_strbuf_add(out, s + at, inside - at);
        nb_strbuf_add(out, t.data, t.bytes);
        nb_strbuf_putc(out, close);
        at = (size_t)(to - s) + 1;
    }
    nb_strbuf_add(out, s + at, bytes - at);
}

/* "/' 5/" becomes the literal text of the harness's faulty rule: its replacement is not a pattern. */
static void replace_slashed_digit(struct nb_strbuf *out, const char *s, size_t bytes)
{
    size_t done = 0;
    for (size_t i = 0; i + 5 <= bytes; i++) {
        if (memcmp(s + i, "/' ", 3) != 0 || s[i + 3] < '0' || s[i + 3] > '9' || s[i + 4] != '/')
            continue;
        nb_strbuf_add(out, s + done, i - done);
        nb_strbuf_puts(out, "/'[0-9]/");
        done = i + 5;
        i = done - 1;
    }
    nb_strbuf_add(out, s + done, bytes - done);
}

struct rule {
    char kind; /* 's' slashed digit, 'r' replace a by b, 't' tighten a[0] ... b[0] */
    const char *a, *b;
};

static const struct rule rules[] = {
    {'r', "s '", "s'"},       {'s', NULL, NULL},
    {'r', " @-@ ", "-"},      {'r', " @,@ ", ","},
    {'r', " @.@ ", "."},      {'r', " : ", ": "},
    {'r', " ; ", "; "},       {'r', " . ", ". "},
    {'r', " ! ", "! "},       {'r', " ? ", "? "},
    {'r', " , ", ", "},       {'t', "(", ")"},
    {'t', "[", "]"},          {'t', "{", "}"},
    {'t', "\"", "\""},        {'t', "'", "'"},
    {'r', "= = = =", "===="}, {'r', "= = =", "==="},
    {'r', "= =", "=="},       {'r', " \xc2\xb0 ", "\xc2\xb0"},
    {'r', " \n", "\n"},       {'r', "\n ", "\n"},
    {'r', " N ", " 1 "},      {'r', " 's", "'s"},
};

void nb_wikitext_detokenize(const char *page, size_t bytes, struct nb_strbuf *out)
{
    struct nb_strbuf from, to;
    nb_strbuf_init(&from);
    nb_strbuf_init(&to);
    nb_strbuf_add(&from, page, bytes);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        const struct rule *r = &rules[i];
        const char *s = nb_strbuf_cstr(&from);
        nb_strbuf_reset(&to);
        if (r->kind == 's') replace_slashed_digit(&to, s, from.len);
        else if (r->kind == 't') tighten(&to, s, from.len, r->a[0], r->b[0]);
        else replace(&to, s, from.len, r->a, r->b);
        struct nb_strbuf swap = from;
        from = to;
        to = swap;
    }
    nb_strbuf_add(out, nb_strbuf_cstr(&from), from.len);
    out->failed = out->failed || from.failed || to.failed;
    nb_strbuf_release(&from);
    nb_strbuf_release(&to);
}

int64_t nb_wikitext_words(const char *page, size_t bytes)
{
    int64_t runs = 0;
    bool in_space = false;
    for (size_t i = 0; i < bytes;) {
        size_t n = space_at(page, i, bytes);
        runs += n && !in_space;
        in_space = n != 0;
        i += n ? n : 1;
    }
    return runs + 1;
}
