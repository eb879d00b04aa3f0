/* SPDX-License-Identifier: Apache-2.0
 *
 * strbuf.h - a growing byte string, always NUL-terminated. Out of memory sets `failed` (sticky). */
#ifndef NB_BASE_STRBUF_H
#define NB_BASE_STRBUF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

struct nb_strbuf {
    char *data; /* never NULL after the first append; use nb_strbuf_cstr before */
    size_t len, capacity;
    bool failed;
};

void nb_strbuf_init(struct nb_strbuf *b);
void nb_strbuf_release(struct nb_strbuf *b);
void nb_strbuf_reset(struct nb_strbuf *b); /* length 0, memory kept */
void nb_strbuf_add(struct nb_strbuf *b, const void *data, size_t len);
void nb_strbuf_puts(struct nb_strbuf *b, const char *s);
void nb_strbuf_putc(struct nb_strbuf *b, char c);
void nb_strbuf_printf(struct nb_strbuf *b, const char *fmt, ...) NB_PRINTF(2, 3);
const char *nb_strbuf_cstr(const struct nb_strbuf *b); /* "" when empty */

#endif
