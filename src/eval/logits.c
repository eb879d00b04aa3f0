/* SPDX-License-Identifier: Apache-2.0
 *
 * logits.c - llama.cpp's base-logits file: read in place, written window by window.
 *
 *   "_logits_" | i32 window | i32 vocabulary | i32 n_windows | i32 tokens [n_windows * window]
 *   n_windows times (window - 1 - window / 2) rows:  f32 scale | f32 lowest | u16 q [vocabulary], zero pad to even
 *
 * log p = scale * q + lowest. What is more than 16 below the top becomes the lowest. Rows belong to the scored
 * second half of a window; tokens are the text's own, before a BOS replaces the first of a window.
 * Source: gguf, section 7.2. All arithmetic of a row is single precision, so the same logits give the same bytes. */
#include "eval/logits.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "eval/row.h"

enum { HEADER_BYTES = 20, MIN_WINDOW = 4, DEPTH = 16 };
static const char magic[] = "_logits_";

/* The top log-probability is 0 at most, the lowest at least -DEPTH - log(vocabulary); this much is rounding. */
static const double rounding = 1e-3;

struct nb_eval_logits {
    struct nb_map map; /* data NULL: the bytes are the caller's */
    struct nb_span file;
    const char *name;
    char *path; /* owned, or NULL */
    struct nb_eval_logits_shape shape;
    int64_t n_rows; /* per window */
    size_t row_bytes, rows_at;
};

static int64_t rows_per_window(int64_t window)
{
    return window - 1 - window / 2;
}

size_t nb_eval_logits_row_bytes(int64_t v)
{
    return 8 + (size_t)((v + 1) / 2) * 4;
}

struct nb_eval_logits_shape nb_eval_logits_shape_of(const struct nb_eval_logits *l)
{
    return l->shape;
}

/* ---- reading ---- */

static int32_t read_i32(const unsigned char *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Total size that the header asks for; false: beyond size_t. */
static bool wanted_bytes(struct nb_eval_logits *l, size_t *bytes)
{
    const struct nb_eval_logits_shape *s = &l->shape;
    size_t tokens, rows;
    l->n_rows = rows_per_window(s->window);
    l->row_bytes = nb_eval_logits_row_bytes(s->vocabulary);
    return nb_mul((size_t)s->n_windows, (size_t)s->window, &tokens) &&
           nb_mul(tokens, sizeof(int32_t), &tokens) && nb_add(HEADER_BYTES, tokens, &l->rows_at) &&
           nb_mul((size_t)s->n_windows, (size_t)l->n_rows, &rows) &&
           nb_mul(rows, l->row_bytes, &rows) && nb_add(l->rows_at, rows, bytes);
}

static int check_header(struct nb_eval_logits *l, struct nb_err *err)
{
    const unsigned char *p = l->file.data;
    if (l->file.bytes < HEADER_BYTES || memcmp(p, magic, sizeof magic - 1) != 0) {
        nb_fail(err, NB_E_FORMAT, "%s: is not a base-logits file: it does not begin with '%s'",
                l->name, magic);
        return nb_err_hint(err, "write one with --save-logits, or with llama-perplexity's "
                                "--kl-divergence-base");
    }
    struct nb_eval_logits_shape *s = &l->shape;
    s->window = read_i32(p + 8);
    s->vocabulary = read_i32(p + 12);
    s->n_windows = read_i32(p + 16);
    if (s->window < MIN_WINDOW || s->vocabulary < 1 || s->n_windows < 1) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: header of %" PRId64 " windows of %" PRId64
                       " tokens with a vocabulary of %" PRId64 ", expected at least 1, %d and 1",
                       l->name, s->n_windows, s->window, s->vocabulary, MIN_WINDOW);
    }
    size_t bytes = 0;
    bool fits = wanted_bytes(l, &bytes);
    if (fits && bytes == l->file.bytes) return 0;
    nb_fail(err, NB_E_FORMAT,
            "%s: file has %zu bytes, its header asks for %s%zu: %" PRId64 " windows of %" PRId64
            " tokens, vocabulary %" PRId64,
            l->name, l->file.bytes, fits ? "" : "more than ", fits ? bytes : SIZE_MAX, s->n_windows,
            s->window, s->vocabulary);
    return nb_err_hint(err, "the run that wrote it did not finish, or another file was appended");
}

int nb_eval_logits_parse(struct nb_eval_logits **out, struct nb_span bytes, const char *name,
                         struct nb_err *err)
{
    struct nb_eval_logits *l = nb_xalloc(sizeof *l);
    l->file = bytes;
    l->name = name;
    int rc = check_header(l, err);
    int64_t n = rc ? 0 : l->shape.n_windows * l->shape.window;
    for (int64_t i = 0; i < n && !rc; i++) {
        int32_t id = read_i32(bytes.data + HEADER_BYTES + i * 4);
        if (id >= 0 && id < l->shape.vocabulary) continue;
        rc = nb_fail(err, NB_E_FORMAT,
                     "%s: token %" PRId64 " has id %" PRId32 ", the vocabulary has %" PRId64, name,
                     i, id, l->shape.vocabulary);
    }
    if (rc) {
        nb_free(l);
        return rc;
    }
    *out = l;
    return 0;
}

int nb_eval_logits_open(struct nb_eval_logits **out, const char *path, struct nb_err *err)
{
    struct nb_map map;
    int rc = nb_map_open(&map, path, err);
    if (rc) return rc;
    char *copy = nb_xstrdup(path);
    rc = nb_eval_logits_parse(out, map.span, copy, err);
    if (rc) {
        nb_free(copy);
        nb_map_close(&map);
        return rc;
    }
    (*out)->map = map;
    (*out)->path = copy;
    return 0;
}

void nb_eval_logits_close(struct nb_eval_logits *l)
{
    if (!l) return;
    if (l->path) nb_map_close(&l->map);
    nb_free(l->path);
    nb_free(l);
}

const int32_t *nb_eval_logits_ids(const struct nb_eval_logits *l)
{
    return (const int32_t *)(const void *)(l->file.data + HEADER_BYTES);
}

static const unsigned char *row_at(const struct nb_eval_logits *l, int64_t window, int64_t row)
{
    return l->file.data + l->rows_at + (size_t)(window * l->n_rows + row) * l->row_bytes;
}

int nb_eval_logits_check(const struct nb_eval_logits *l, int64_t window, struct nb_err *err)
{
    double lowest = -DEPTH - log((double)l->shape.vocabulary) - rounding;
    for (int64_t i = 0; i < l->n_rows; i++) {
        float d[2];
        memcpy(d, row_at(l, window, i), sizeof d);
        double top = (double)d[0] * 65535 + d[1];
        if (d[0] >= 0 && d[1] >= lowest && top <= rounding) continue; /* false for a NaN */
        return nb_fail(err, NB_E_FORMAT,
                       "%s: window %" PRId64 ", row %" PRId64
                       ": scale %g from %g up is no range of log-probabilities",
                       l->name, window, i, (double)d[0], (double)d[1]);
    }
    return 0;
}

void nb_eval_logits_row(const struct nb_eval_logits *l, int64_t window, int64_t row, float *out)
{
    const unsigned char *p = row_at(l, window, row);
    float d[2];
    memcpy(d, p, sizeof d);
    const uint16_t *q = (const uint16_t *)(const void *)(p + sizeof d);
    for (int64_t i = 0; i < l->shape.vocabulary; i++) out[i] = d[0] * (float)q[i] + d[1];
}

void nb_eval_logits_drop(const struct nb_eval_logits *l, int64_t window)
{
    if (l->path) nb_map_drop(&l->map, row_at(l, window, 0), (size_t)l->n_rows * l->row_bytes);
}

/* ---- writing ---- */

void nb_eval_logits_encode(unsigned char *out, const float *logits, int64_t v)
{
    float max, sum_log, min = logits[0];
    nb_eval_row_sum(logits, v, &max, &sum_log);
    memset(out, 0, nb_eval_logits_row_bytes(v));
    if (!isfinite(max) || !isfinite(sum_log)) return;
    for (int64_t i = 0; i < v; i++) min = logits[i] < min ? logits[i] : min;
    min = min > max - DEPTH ? min : max - DEPTH;
    float d[2] = {(max - min) / 65535.0F, min - max - sum_log};
    memcpy(out, d, sizeof d);
    if (d[0] == 0) return;
    float inverse = 1 / d[0];
    uint16_t *q = (uint16_t *)(void *)(out + sizeof d);
    for (int64_t i = 0; i < v; i++) {
        q[i] = logits[i] > min ? (uint16_t)rintf((logits[i] - min) * inverse) : 0;
    }
}

/* The text's own tokens of all windows, [n_segments * window]. */
static int put_tokens(struct nb_eval_logits_out *w, const struct nb_eval_plan *plan,
                      struct nb_err *err)
{
    size_t n = (size_t)(plan->n_segments * plan->window);
    int32_t *ids = nb_alloc(n, sizeof *ids);
    if (!ids) return nb_fail(err, NB_E_NOMEM, "out of memory for %zu tokens", n);
    for (int64_t i = 0; i < plan->n_segments; i++) {
        int32_t *to = ids + i * plan->window;
        memcpy(to, plan->ids + plan->segments[i].offset, (size_t)plan->window * sizeof *ids);
        if (plan->replaced) to[0] = plan->replaced[i];
    }
    int rc = nb_eval_logits_append(w, ids, n * sizeof *ids, err);
    nb_free(ids);
    return rc;
}

int nb_eval_logits_create(struct nb_eval_logits_out *w, const char *path,
                          const struct nb_eval_plan *plan, int64_t vocabulary, struct nb_err *err)
{
    *w = (struct nb_eval_logits_out){.fd = -1, .path = nb_xstrdup(path)};
    if (plan->protocol != NB_EVAL_LLAMACPP || plan->window > INT32_MAX ||
        plan->n_segments > INT32_MAX || vocabulary > INT32_MAX) {
        return nb_fail(err, NB_E_USAGE,
                       "base logits can be written for protocol llama.cpp only, not for %s",
                       nb_eval_protocol_name(plan->protocol));
    }
    double bytes = (double)plan->n_segments * (double)rows_per_window(plan->window) *
                   (double)nb_eval_logits_row_bytes(vocabulary);
    char *parent = nb_path_parent(path);
    uint64_t room = nb_path_free_bytes(parent);
    nb_free(parent);
    if (room && bytes > (double)room) {
        return nb_fail(err, NB_E_NOSPACE,
                       "%s: the base logits take %.1f GB, the disk has %.1f GB left", path,
                       bytes / 1e9, (double)room / 1e9);
    }
    size_t n = strlen(path) + sizeof ".tmp";
    w->tmp = nb_xalloc(n);
    snprintf(w->tmp, n, "%s.tmp", path);
    w->fd = open(w->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (w->fd < 0) return nb_fail_errno(err, "%s: cannot be written", w->tmp);
    int32_t header[3] = {(int32_t)plan->window, (int32_t)vocabulary, (int32_t)plan->n_segments};
    int rc = nb_eval_logits_append(w, magic, sizeof magic - 1, err);
    if (!rc) rc = nb_eval_logits_append(w, header, sizeof header, err);
    return rc ? rc : put_tokens(w, plan, err);
}

int nb_eval_logits_append(struct nb_eval_logits_out *w, const void *rows, size_t bytes,
                          struct nb_err *err)
{
    int rc = nb_pwrite_all(w->fd, rows, bytes, w->offset, w->tmp, err);
    w->offset += bytes;
    return rc;
}

int nb_eval_logits_commit(struct nb_eval_logits_out *w, struct nb_err *err)
{
    if (fsync(w->fd)) return nb_fail_errno(err, "%s: cannot be written", w->tmp);
    int rc = nb_rename(w->tmp, w->path, err);
    if (rc) return rc;
    close(w->fd);
    w->fd = -1;
    return 0;
}

void nb_eval_logits_out_release(struct nb_eval_logits_out *w)
{
    if (w->fd >= 0) {
        close(w->fd);
        unlink(w->tmp);
    }
    nb_free(w->path);
    nb_free(w->tmp);
    *w = (struct nb_eval_logits_out){.fd = -1};
}
