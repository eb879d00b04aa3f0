/* SPDX-License-Identifier: Apache-2.0
 *
 * err.c - see err.h. */
#include "base/err.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { MAX_HEAD = 380 };

/* Bytes of the UTF-8 sequence at s, which a NUL ends at the latest; 0: not a whole, valid one. */
static size_t sequence_bytes(const unsigned char *s)
{
    if (s[0] < 0x80) return 1;
    size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4) return 0;
    if (s[0] == 0xe0 && s[1] < 0xa0) return 0; /* overlong */
    if (s[0] == 0xed && s[1] > 0x9f) return 0; /* surrogate */
    if (s[0] == 0xf0 && s[1] < 0x90) return 0; /* overlong */
    if (s[0] == 0xf4 && s[1] > 0x8f) return 0; /* past U+10FFFF */
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
    }
    return n;
}

void nb_err_clean(char *text)
{
    unsigned char *s = (unsigned char *)text;
    while (*s) {
        size_t n = sequence_bytes(s);
        if (n == 0) {
            *s++ = '?';
            continue;
        }
        bool control = s[0] < 0x20 || s[0] == 0x7f || (s[0] == 0xc2 && s[1] < 0xa0);
        if (control) memset(s, ' ', n);
        s += n;
    }
}

int nb_fail(struct nb_err *err, int status, const char *fmt, ...)
{
    if (!err) return status;
    char text[sizeof err->text]; /* the arguments may point into *err */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    nb_err_clean(text);
    err->status = status;
    memcpy(err->text, text, sizeof text);
    err->hint[0] = '\0';
    return status;
}

int nb_fail_errno(struct nb_err *err, const char *fmt, ...)
{
    int saved = errno;
    int status = saved == ENOSPC || saved == EDQUOT ? NB_E_NOSPACE
                 : saved == ENOMEM                  ? NB_E_NOMEM
                 : saved == ENOENT                  ? NB_E_NOTFOUND
                                                    : NB_E_IO;
    if (!err) return status;
    char head[sizeof err->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    head[MAX_HEAD] = '\0'; /* the reason must fit behind it */
    return nb_fail(err, status, "%s: %s", head, strerror(saved));
}

int nb_err_prefix(struct nb_err *err, const char *fmt, ...)
{
    if (!err) return NB_E_FAIL;
    char head[sizeof err->text], old[sizeof err->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    memcpy(old, err->text, sizeof old);
    size_t room = sizeof err->text - 3, n = strlen(head), m = strlen(old);
    if (n + m > room) { /* the sentence matters more, but where it happened is not lost either */
        size_t least = n < room / 2 ? n : room / 2;
        n = m < room - least ? room - m : least;
        m = room - n;
    }
    memcpy(err->text, head, n);
    memcpy(err->text + n, ": ", 2);
    memcpy(err->text + n + 2, old, m);
    err->text[n + 2 + m] = '\0';
    nb_err_clean(err->text);
    return err->status;
}

int nb_err_hint(struct nb_err *err, const char *fmt, ...)
{
    if (!err) return NB_E_FAIL;
    char hint[sizeof err->hint];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(hint, sizeof hint, fmt, ap);
    va_end(ap);
    nb_err_clean(hint);
    memcpy(err->hint, hint, sizeof hint);
    return err->status;
}

const char *nb_status_text(int status)
{
    switch (status) {
#define X(name, value, text, code)                                                                 \
    case value: return text;
        NB_STATUS_LIST(X)
#undef X
    default: return "failure";
    }
}

int nb_status_exit(int status)
{
    switch (status) {
#define X(name, value, text, code)                                                                 \
    case value: return code;
        NB_STATUS_LIST(X)
#undef X
    default: return 1;
    }
}
