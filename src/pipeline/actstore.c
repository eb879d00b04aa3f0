/* SPDX-License-Identifier: Apache-2.0
 *
 * actstore.c - see actstore.h. */
#include "pipeline/actstore.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

static int open_file(struct nb_actstore *s, struct nb_err *err)
{
    s->fd = open(s->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (s->fd < 0) return nb_fail_errno(err, "%s: cannot create", s->path);
    unlink(s->path);
    s->scratch =
        nb_calloc(s->chunk_floats, sizeof(float)); /* the end of a short chunk is written too */
    if (!s->scratch) {
        return nb_fail(err, NB_E_NOMEM, "no memory for one chunk of activations (%zu bytes)",
                       s->chunk_floats * sizeof(float));
    }
    return 0;
}

int nb_actstore_open(struct nb_actstore *s, const char *path, int64_t n_chunks, size_t chunk_floats,
                     uint64_t *budget_bytes, struct nb_err *err)
{
    memset(s, 0, sizeof *s);
    s->fd = -1;
    s->n_chunks = n_chunks;
    s->chunk_floats = chunk_floats;
    s->path = nb_xstrdup(path);
    uint64_t chunk_bytes = (uint64_t)chunk_floats * sizeof(float);
    uint64_t fit = chunk_bytes ? *budget_bytes / chunk_bytes : 0;
    s->n_in_ram = fit < (uint64_t)n_chunks ? (int64_t)fit : n_chunks;
    *budget_bytes -= (uint64_t)s->n_in_ram * chunk_bytes;
    s->ram = nb_calloc((size_t)s->n_in_ram, sizeof *s->ram);
    for (int64_t c = 0; s->ram && c < s->n_in_ram; c++) {
        s->ram[c] = nb_alloc(chunk_floats, sizeof(float));
        if (!s->ram[c]) break;
    }
    if (!s->ram || (s->n_in_ram && !s->ram[s->n_in_ram - 1])) {
        return nb_fail(err, NB_E_NOMEM, "no memory for %lld chunks of activations",
                       (long long)s->n_in_ram);
    }
    return s->n_in_ram < n_chunks ? open_file(s, err) : 0;
}

void nb_actstore_close(struct nb_actstore *s)
{
    for (int64_t c = 0; s->ram && c < s->n_in_ram; c++) nb_free(s->ram[c]);
    nb_free(s->ram);
    nb_free(s->scratch);
    if (s->path && s->fd >= 0) close(s->fd); /* no path: never opened */
    nb_free(s->path);
    memset(s, 0, sizeof *s);
    s->fd = -1;
}

static uint64_t offset_of(const struct nb_actstore *s, int64_t c)
{
    return (uint64_t)(c - s->n_in_ram) * s->chunk_floats * sizeof(float);
}

int nb_actstore_get(struct nb_actstore *s, int64_t c, int load, float **out, struct nb_err *err)
{
    if (c < s->n_in_ram) {
        *out = s->ram[c];
        return 0;
    }
    *out = s->scratch;
    if (!load) return 0;
    return nb_pread_all(s->fd, s->scratch, s->chunk_floats * sizeof(float), offset_of(s, c),
                        s->path, err);
}

int nb_actstore_put(struct nb_actstore *s, int64_t c, struct nb_err *err)
{
    if (c < s->n_in_ram) return 0;
    return nb_pwrite_all(s->fd, s->scratch, s->chunk_floats * sizeof(float), offset_of(s, c),
                         s->path, err);
}

int nb_actstore_read(struct nb_actstore *s, int64_t c, size_t first, size_t n, float *out,
                     struct nb_err *err)
{
    if (c >= s->n_in_ram) {
        return nb_pread_all(s->fd, out, n * sizeof *out, offset_of(s, c) + first * sizeof *out,
                            s->path, err);
    }
    memcpy(out, s->ram[c] + first, n * sizeof *out);
    return 0;
}

int nb_actstore_write(struct nb_actstore *s, int64_t c, size_t first, size_t n, const float *in,
                      struct nb_err *err)
{
    if (c >= s->n_in_ram) {
        return nb_pwrite_all(s->fd, in, n * sizeof *in, offset_of(s, c) + first * sizeof *in,
                             s->path, err);
    }
    memcpy(s->ram[c] + first, in, n * sizeof *in);
    return 0;
}

int nb_actstore_swap(struct nb_actstore *s, int64_t c, float **buffer, struct nb_err *err)
{
    float **mine = c < s->n_in_ram ? &s->ram[c] : &s->scratch;
    float *old = *mine;
    *mine = *buffer;
    *buffer = old;
    return nb_actstore_put(s, c, err);
}
