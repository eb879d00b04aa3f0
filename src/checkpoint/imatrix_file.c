/* SPDX-License-Identifier: Apache-2.0
 *
 * imatrix_file.c - importance matrices in files: the old .dat and GGUF.
 *
 *   .dat   i32 n_entries; each: i32 name bytes, name, i32 chunks, i32 n, f32 mean * chunks [n];
 *          i32 chunks in all, i32 bytes, name of the text (both optional)
 *   GGUF   per weight NAME two F32 tensors, NAME.in_sum2 {cols, n_mat} and NAME.counts {1, n_mat} */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "checkpoint/internal.h"
#include "container/gguf.h"

enum { MAX_NAME = 255, DEFAULT_CHUNK = 512 };

static const char sums_suffix[] = ".in_sum2", counts_suffix[] = ".counts";

static int check_values(const struct nb_imatrix_entry *e, const char *what, struct nb_err *err)
{
    for (int64_t k = 0; k < e->cols * e->n_mat; k++) {
        if (!(e->sums[k] >= 0 && isfinite(e->sums[k]))) {
            return nb_fail(err, NB_E_FORMAT, "%s: importance of '%s' holds %s at %" PRId64, what,
                           e->name,
                           isnan(e->sums[k]) ? "NaN"
                           : e->sums[k] < 0  ? "a negative number"
                                             : "Inf",
                           k);
        }
    }
    return 0;
}

/* ---- .dat, reading ---- */

struct cursor {
    const unsigned char *p;
    size_t left;
    const char *what;
};

static int take(struct cursor *c, void *to, size_t bytes, const char *part, struct nb_err *err)
{
    if (bytes > c->left) {
        return nb_fail(err, NB_E_FORMAT, "%s: ends inside %s: %zu bytes, %zu are left", c->what,
                       part, bytes, c->left);
    }
    if (bytes) memcpy(to, c->p, bytes);
    c->p += bytes;
    c->left -= bytes;
    return 0;
}

static int take_i32(struct cursor *c, int32_t min, int32_t max, int32_t *out, const char *part,
                    struct nb_err *err)
{
    int rc = take(c, out, 4, part, err);
    if (rc || (*out >= min && *out <= max)) return rc;
    return nb_fail(err, NB_E_FORMAT, "%s: %s is %" PRId32 ", expected %" PRId32 " to %" PRId32,
                   c->what, part, *out, min, max);
}

static int take_entry(struct nb_imatrix *im, struct cursor *c, struct nb_err *err)
{
    char name[MAX_NAME + 1];
    int32_t length = 0, calls = 0, n = 0;
    int rc = take_i32(c, 1, MAX_NAME, &length, "the length of a name", err);
    if (!rc) rc = take(c, name, (size_t)length, "a name", err);
    if (rc) return rc;
    name[length] = '\0';
    if (strlen(name) != (size_t)length)
        return nb_fail(err, NB_E_FORMAT, "%s: the name '%s' holds a NUL byte", c->what, name);
    rc = take_i32(c, INT32_MIN, INT32_MAX, &calls, "a number of chunks", err);
    if (!rc) rc = take_i32(c, 1, INT32_MAX, &n, "a number of values", err);
    if (rc) return rc;
    if (c->left / sizeof(float) < (size_t)n) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: '%s' has %" PRId32 " values, the file has room for %zu", c->what, name,
                       n, c->left / sizeof(float));
    }
    struct nb_imatrix_entry *e = nb_imatrix_append(im, name, n, 1, err);
    if (!e) return err ? err->status : NB_E_NOMEM;
    e->counts[0] = calls > 0 ? calls : 0;
    rc = take(c, e->sums, (size_t)n * sizeof *e->sums, name, err);
    return rc ? rc : check_values(e, c->what, err);
}

static int take_tail(struct nb_imatrix *im, struct cursor *c, struct nb_err *err)
{
    int32_t calls = 0, length = 0;
    if (!c->left) return 0;
    int rc = take_i32(c, 0, INT32_MAX, &calls, "the number of chunks", err);
    im->n_chunks = calls;
    if (rc || !c->left) return rc;
    rc = take_i32(c, 0, INT32_MAX, &length, "the length of the text's name", err);
    if (rc || !length) return rc;
    if ((size_t)length > c->left) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s: the text's name has %" PRId32 " bytes, the file only %zu more", c->what,
                       length, c->left);
    }
    return nb_imatrix_add_dataset(im, (const char *)c->p, (size_t)length, err);
}

int nb_imatrix_parse_dat(struct nb_imatrix *im, struct nb_span data, const char *what,
                         struct nb_err *err)
{
    enum { LEAST = 4 + 1 + 4 + 4 + 4, MOST = 16384 }; /* bytes of an entry, entries */
    struct cursor c = {data.data, data.bytes, what};
    int32_t n = 0;
    nb_imatrix_init(im);
    im->legacy = true;
    int rc = take_i32(&c, 1, MOST, &n, "the number of entries", err);
    if (!rc && c.left / LEAST < (size_t)n) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: %" PRId32 " entries do not fit in %zu bytes", what, n,
                     c.left);
    }
    for (int32_t i = 0; i < n && !rc; i++) rc = take_entry(im, &c, err);
    if (!rc) rc = nb_imatrix_sort(im, what, err);
    return rc ? rc : take_tail(im, &c, err);
}

/* ---- GGUF, reading ---- */

static int64_t elements(const struct nb_gguf_tensor *t)
{
    return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; /* the container has checked that it fits */
}

static int need_f32(const struct nb_gguf_tensor *t, const char *what, struct nb_err *err)
{
    if (!strcmp(t->type->name, "F32")) return 0;
    return nb_fail(err, NB_E_FORMAT, "%s: tensor '%s' is %s, expected F32", what, t->name,
                   t->type->name);
}

static int read_counts(struct nb_imatrix_entry *e, const struct nb_gguf_tensor *t, const char *what,
                       struct nb_err *err)
{
    for (int64_t i = 0; i < e->n_mat; i++) {
        float v;
        memcpy(&v, t->data.data + (size_t)i * sizeof v, sizeof v);
        if (!(v >= 0 && v < 0x1p53f)) {
            return nb_fail(err, NB_E_FORMAT, "%s: tensor '%s' holds %g, which counts nothing", what,
                           t->name, (double)v);
        }
        e->counts[i] = llroundf(v);
    }
    return 0;
}

static int read_pair(struct nb_imatrix *im, const struct nb_gguf *g, const struct nb_gguf_tensor *s,
                     const char *what, struct nb_err *err)
{
    char name[NB_GGUF_MAX_NAME + 1], other[NB_GGUF_MAX_NAME + 16];
    snprintf(name, sizeof name, "%.*s", (int)(strlen(s->name) - strlen(sums_suffix)), s->name);
    snprintf(other, sizeof other, "%s%s", name, counts_suffix);
    const struct nb_gguf_tensor *c = nb_gguf_find(g, other);
    if (!c) return nb_fail(err, NB_E_FORMAT, "%s: '%s' has no '%s'", what, s->name, other);
    int rc = need_f32(s, what, err);
    if (!rc) rc = need_f32(c, what, err);
    if (rc) return rc;
    int64_t n = elements(s), n_mat = elements(c);
    if (n_mat < 1 || n < 1 || n % n_mat) {
        return nb_fail(err, NB_E_FORMAT, "%s: '%s' holds %" PRId64 " sums for %" PRId64 " counts",
                       what, name, n, n_mat);
    }
    struct nb_imatrix_entry *e = nb_imatrix_append(im, name, n / n_mat, n_mat, err);
    if (!e) return nb_err_prefix(err, "%s", what);
    memcpy(e->sums, s->data.data, (size_t)n * sizeof *e->sums);
    rc = check_values(e, what, err);
    return rc ? rc : read_counts(e, c, what, err);
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n > m && !strcmp(s + n - m, suffix);
}

static int read_metadata(struct nb_imatrix *im, const struct nb_gguf *g, struct nb_err *err)
{
    uint32_t chunks = 0, size = 0;
    struct nb_span *names = NULL;
    size_t n = 0;
    int rc = nb_gguf_get_u32(g, "imatrix.chunk_count", false, &chunks, err);
    if (!rc) rc = nb_gguf_get_u32(g, "imatrix.chunk_size", false, &size, err);
    if (!rc) rc = nb_gguf_get_strings(g, "imatrix.datasets", false, &names, &n, err);
    for (size_t i = 0; i < n && !rc; i++) {
        rc = nb_imatrix_add_dataset(im, (const char *)names[i].data, names[i].bytes, err);
    }
    nb_free(names);
    im->n_chunks = chunks;
    im->chunk_size = size;
    return rc;
}

static int read_gguf(struct nb_imatrix *im, struct nb_span image, const char *what,
                     struct nb_err *err)
{
    struct nb_gguf *g = NULL;
    int rc = nb_gguf_parse(&g, image, what, err);
    if (rc) return rc;
    rc = read_metadata(im, g, err);
    for (size_t i = 0; i < nb_gguf_count(g) && !rc; i++) {
        const struct nb_gguf_tensor *t = nb_gguf_at(g, i);
        if (ends_with(t->name, sums_suffix)) {
            rc = read_pair(im, g, t, what, err);
        } else if (ends_with(t->name, counts_suffix)) {
            char other[NB_GGUF_MAX_NAME + 16];
            size_t stem = strlen(t->name) - strlen(counts_suffix);
            snprintf(other, sizeof other, "%.*s%s", (int)stem, t->name, sums_suffix);
            if (!nb_gguf_find(g, other))
                rc = nb_fail(err, NB_E_FORMAT, "%s: '%s' has no '%s'", what, t->name, other);
        }
    }
    if (!rc) rc = nb_imatrix_sort(im, what, err);
    if (!rc && !im->n)
        rc = nb_fail(err, NB_E_FORMAT, "%s: a GGUF file, but no importance matrix", what);
    nb_gguf_close(g);
    return rc;
}

int nb_imatrix_open(struct nb_imatrix *im, const char *path, struct nb_err *err)
{
    struct nb_map map;
    nb_imatrix_init(im);
    int rc = nb_map_open(&map, path, err);
    if (rc) return rc;
    if (map.span.bytes >= 4 && !memcmp(map.span.data, "GGUF", 4)) {
        rc = read_gguf(im, map.span, path, err);
    } else {
        rc = nb_imatrix_parse_dat(im, map.span, path, err);
        if (rc == NB_E_FORMAT && map.span.bytes < 4)
            rc = nb_fail(err, NB_E_FORMAT, "%s: is no importance matrix", path);
    }
    nb_map_close(&map);
    return rc;
}

/* ---- writing ---- */

static void put_i32(struct nb_strbuf *b, int64_t v)
{
    int32_t x = v > INT32_MAX ? INT32_MAX : (int32_t)v;
    nb_strbuf_add(b, &x, sizeof x);
}

static void put_entry(struct nb_strbuf *b, const struct nb_imatrix *im,
                      const struct nb_imatrix_entry *e)
{
    int64_t most = 0, chunk = im->chunk_size ? im->chunk_size : DEFAULT_CHUNK;
    for (int64_t m = 0; m < e->n_mat; m++) most = e->counts[m] > most ? e->counts[m] : most;
    int64_t calls = im->legacy ? most : (most + chunk - 1) / chunk;
    put_i32(b, (int64_t)strlen(e->name));
    nb_strbuf_puts(b, e->name);
    put_i32(b, calls);
    put_i32(b, e->cols * e->n_mat);
    for (int64_t k = 0; k < e->cols * e->n_mat; k++) {
        float count = (float)e->counts[k / e->cols], value = e->sums[k];
        if (!im->legacy) value = (count > 0 ? value / count : 1) * (float)calls;
        nb_strbuf_add(b, &value, sizeof value);
    }
}

static bool has_data(const struct nb_imatrix *im, const struct nb_imatrix_entry *e)
{
    bool some = im->legacy;
    for (int64_t m = 0; m < e->n_mat; m++) some |= e->counts[m] > 0;
    return some;
}

static int write_dat(const struct nb_imatrix *im, const char *path, struct nb_err *err)
{
    const char *dataset = im->n_datasets ? im->datasets[im->n_datasets - 1] : "";
    struct nb_strbuf b;
    nb_strbuf_init(&b);
    int64_t n = 0;
    for (size_t i = 0; i < im->n; i++) n += has_data(im, &im->entries[i]);
    put_i32(&b, n);
    for (size_t i = 0; i < im->n; i++) {
        if (has_data(im, &im->entries[i])) put_entry(&b, im, &im->entries[i]);
    }
    put_i32(&b, im->n_chunks);
    put_i32(&b, (int64_t)strlen(dataset));
    nb_strbuf_puts(&b, dataset);
    int rc = b.failed ? nb_fail(err, NB_E_NOMEM, "%s: no memory to write it", path)
                      : nb_file_write(path, b.data, b.len, err);
    nb_strbuf_release(&b);
    return rc;
}

static int set_metadata(struct nb_gguf_writer *w, const struct nb_imatrix *im, struct nb_err *err)
{
    /* Readers ask for the key, and the container has no empty lists. */
    struct nb_span unnamed = {(const unsigned char *)"unnamed", 7};
    size_t n = im->n_datasets ? im->n_datasets : 1;
    struct nb_span *names = nb_calloc(n, sizeof *names);
    if (!names) return nb_fail(err, NB_E_NOMEM, "no memory for %zu names of texts", n);
    names[0] = unnamed;
    for (size_t i = 0; i < im->n_datasets; i++) {
        names[i] =
            (struct nb_span){(const unsigned char *)im->datasets[i], strlen(im->datasets[i])};
    }
    uint32_t chunk = (uint32_t)(im->chunk_size ? im->chunk_size : DEFAULT_CHUNK);
    int rc = nb_gguf_writer_set_string(w, "general.type", "imatrix", err);
    if (!rc) rc = nb_gguf_writer_set_strings(w, "imatrix.datasets", names, n, err);
    if (!rc) rc = nb_gguf_writer_set_u32(w, "imatrix.chunk_count", (uint32_t)im->n_chunks, err);
    if (!rc) rc = nb_gguf_writer_set_u32(w, "imatrix.chunk_size", chunk, err);
    nb_free(names);
    return rc;
}

/* A .dat counts chunks; the sums of as many tokens as the chunks had have the same means. */
static int put_pair(struct nb_gguf_writer *w, const struct nb_imatrix *im,
                    const struct nb_imatrix_entry *e, const char *sums, const char *counts,
                    struct nb_err *err)
{
    const int64_t n = e->cols * e->n_mat;
    const float scale = !im->legacy ? 1 : (float)(im->chunk_size ? im->chunk_size : DEFAULT_CHUNK);
    float *v = nb_alloc((size_t)n, sizeof *v);
    if (!v) return nb_fail(err, NB_E_NOMEM, "no memory for the importance of '%s'", e->name);
    for (int64_t k = 0; k < n; k++) v[k] = e->sums[k] * scale;
    int rc = nb_gguf_writer_put(w, sums, v, (size_t)n * sizeof *v, err);
    for (int64_t m = 0; m < e->n_mat; m++) {
        v[m] = im->legacy && !e->counts[m] ? scale : (float)e->counts[m] * scale;
    }
    if (!rc) rc = nb_gguf_writer_put(w, counts, v, (size_t)e->n_mat * sizeof *v, err);
    nb_free(v);
    return rc;
}

static int plan_or_put(struct nb_gguf_writer *w, const struct nb_imatrix *im, bool put,
                       struct nb_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < im->n && !rc; i++) {
        const struct nb_imatrix_entry *e = &im->entries[i];
        char sums[MAX_NAME + 16], counts[MAX_NAME + 16];
        snprintf(sums, sizeof sums, "%s%s", e->name, sums_suffix);
        snprintf(counts, sizeof counts, "%s%s", e->name, counts_suffix);
        if (!put) {
            rc = nb_gguf_writer_plan(w, sums, 0, 2, (int64_t[]){e->cols, e->n_mat}, err);
            if (!rc) rc = nb_gguf_writer_plan(w, counts, 0, 2, (int64_t[]){1, e->n_mat}, err);
        } else {
            rc = put_pair(w, im, e, sums, counts, err);
        }
    }
    return rc;
}

static int write_gguf(const struct nb_imatrix *im, const char *path, struct nb_err *err)
{
    struct nb_gguf_writer *w = nb_gguf_writer_new();
    if (!w) return nb_fail(err, NB_E_NOMEM, "%s: no memory to write it", path);
    struct nb_gguf_writer_opts opts = {.path = path};
    int rc = set_metadata(w, im, err);
    if (!rc) rc = plan_or_put(w, im, false, err);
    if (!rc) rc = nb_gguf_writer_open(w, &opts, err);
    if (!rc) rc = plan_or_put(w, im, true, err);
    if (!rc) rc = nb_gguf_writer_finish(w, err);
    nb_gguf_writer_free(w);
    return rc;
}

int nb_imatrix_write(const struct nb_imatrix *im, const char *path, bool dat, struct nb_err *err)
{
    if (!im->n) return nb_fail(err, NB_E_SPEC, "%s: an empty importance matrix", path);
    return dat ? write_dat(im, path, err) : write_gguf(im, path, err);
}
