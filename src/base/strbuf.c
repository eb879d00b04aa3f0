/* SPDX-License-Identifier: Apache-2.0
 *
 * strbuf.c - see strbuf.h. */
#include "base/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

void nb_strbuf_init(struct nb_strbuf *b)
{
    memset(b, 0, sizeof *b);
}

void nb_strbuf_release(struct nb_strbuf *b)
{
    nb_free(b->data);
    nb_strbuf_init(b);
}

void nb_strbuf_reset(struct nb_strbuf *b)
{
    b->len = 0;
    if (b->data) b->data[0] = '\0';
}

static bool reserve(struct nb_strbuf *b, size_t extra)
{
    size_t need;
    if (b->failed || !nb_add(b->len, extra, &need) || !nb_add(need, 1, &need)) {
        b->failed = true;
        return false;
    }
    if (need <= b->capacity) return true;
    size_t want = b->capacity ? b->capacity : 64;
    while (want < need) {
        if (!nb_mul(want, 2, &want)) want = need;
    }
    char *p = nb_realloc(b->data, b->data ? b->len + 1 : 0, want);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->data = p;
    b->capacity = want;
    return true;
}

void nb_strbuf_add(struct nb_strbuf *b, const void *data, size_t len)
{
    if (!reserve(b, len)) return;
    if (len) memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = '\0';
}

void nb_strbuf_puts(struct nb_strbuf *b, const char *s)
{
    nb_strbuf_add(b, s, strlen(s));
}

void nb_strbuf_putc(struct nb_strbuf *b, char c)
{
    nb_strbuf_add(b, &c, 1);
}

void nb_strbuf_printf(struct nb_strbuf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    if (n < 0) b->failed = true;
    if (n >= 0 && reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    va_end(ap);
}

const char *nb_strbuf_cstr(const struct nb_strbuf *b)
{
    return b->data ? b->data : "";
}
