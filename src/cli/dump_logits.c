/* SPDX-License-Identifier: Apache-2.0
 *
 * dump_logits.c - see dump_logits.h. */
#include "cli/dump_logits.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"

enum { TILE_ROWS = 64, ALIGN = 64 };

/* Length of the header, then the header, filled with blanks so that data begins at a multiple of 64. */
static void make_header(struct nb_strbuf *out, int64_t n, int64_t v)
{
    struct nb_strbuf json;
    nb_strbuf_init(&json);
    nb_strbuf_printf(&json,
                     "{\"ids\":{\"dtype\":\"I64\",\"shape\":[%" PRId64
                     "],\"data_offsets\":[0,%" PRId64
                     "]},\"logits\":{\"dtype\":\"F32\",\"shape\":[%" PRId64 ",%" PRId64
                     "],\"data_offsets\":[%" PRId64 ",%" PRId64 "]}}",
                     n, n * 8, n, v, n * 8, n * 8 + n * v * 4);
    while ((json.len + 8) % ALIGN) nb_strbuf_putc(&json, ' ');
    for (int i = 0; i < 8; i++) nb_strbuf_putc(out, (char)(json.len >> (8 * i) & 0xff));
    nb_strbuf_add(out, nb_strbuf_cstr(&json), json.len);
    nb_strbuf_release(&json);
}

static int write_all(int fd, const char *path, struct nb_engine *e, const int32_t *ids, int64_t n,
                     struct nb_err *err)
{
    const struct nb_arch *arch = nb_engine_arch(e);
    int64_t v = arch->vocab_size, d = arch->hidden_size;
    struct nb_strbuf header;
    nb_strbuf_init(&header);
    make_header(&header, n, v);
    float *hidden = nb_alloc((size_t)(n * d), sizeof *hidden);
    float *logits = nb_alloc((size_t)(TILE_ROWS * v), sizeof *logits);
    int64_t *wide = nb_alloc((size_t)n, sizeof *wide);
    uint64_t at = header.len;
    int rc =
        hidden && logits && wide && !header.failed
            ? nb_engine_hidden(e, ids, n, hidden, err)
            : nb_fail(err, NB_E_NOMEM, "out of memory for the logits of %" PRId64 " tokens", n);
    if (!rc) rc = nb_pwrite_all(fd, nb_strbuf_cstr(&header), header.len, 0, path, err);
    for (int64_t i = 0; i < n && !rc; i++) wide[i] = ids[i];
    if (!rc) rc = nb_pwrite_all(fd, wide, (size_t)n * sizeof *wide, at, path, err);
    at += (uint64_t)n * sizeof *wide;
    for (int64_t i = 0; i < n && !rc; i += TILE_ROWS) {
        int64_t m = n - i < TILE_ROWS ? n - i : TILE_ROWS;
        size_t bytes = (size_t)(m * v) * sizeof *logits;
        nb_engine_logits(e, hidden + i * d, m, logits);
        rc = nb_pwrite_all(fd, logits, bytes, at, path, err);
        at += bytes;
    }
    nb_free(hidden);
    nb_free(logits);
    nb_free(wide);
    nb_strbuf_release(&header);
    return rc;
}

int nb_dump_logits(const char *path, struct nb_engine *e, const int32_t *ids, int64_t n,
                   struct nb_err *err)
{
    struct nb_strbuf tmp;
    nb_strbuf_init(&tmp);
    nb_strbuf_printf(&tmp, "%s.tmp", path);
    const char *name = nb_strbuf_cstr(&tmp);
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int rc = fd < 0 ? nb_fail_errno(err, "%s: cannot create", name) : 0;
    if (!rc) {
        rc = write_all(fd, name, e, ids, n, err);
        close(fd);
        if (!rc) rc = nb_rename(name, path, err);
        if (rc) unlink(name);
    }
    nb_strbuf_release(&tmp);
    return rc;
}
