/* SPDX-License-Identifier: Apache-2.0
 *
 * imatrix.c - entries of an importance matrix in memory: adding, finding, merging, weights. */
#include "checkpoint/imatrix.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "checkpoint/internal.h"

enum { MAX_NAME = 255, DEFAULT_CHUNK = 512 };

void nb_imatrix_init(struct nb_imatrix *im)
{
    memset(im, 0, sizeof *im);
}

static void release_entry(struct nb_imatrix_entry *e)
{
    nb_free(e->name);
    nb_free(e->sums);
    nb_free(e->counts);
}

void nb_imatrix_release(struct nb_imatrix *im)
{
    for (size_t i = 0; i < im->n; i++) release_entry(&im->entries[i]);
    for (size_t i = 0; i < im->n_datasets; i++) nb_free(im->datasets[i]);
    nb_free(im->entries);
    nb_free(im->datasets);
    memset(im, 0, sizeof *im);
}

/* Index of the first entry whose name is not below `name`. */
static size_t lower_bound(const struct nb_imatrix *im, const char *name)
{
    size_t lo = 0, hi = im->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(im->entries[mid].name, name) < 0) lo = mid + 1;
        else hi = mid;
    }
    return lo;
}

static struct nb_imatrix_entry *find(const struct nb_imatrix *im, const char *name)
{
    size_t i = lower_bound(im, name);
    return i < im->n && !strcmp(im->entries[i].name, name) ? &im->entries[i] : NULL;
}

const struct nb_imatrix_entry *nb_imatrix_find(const struct nb_imatrix *im, const char *name)
{
    return find(im, name);
}

static bool fill_entry(struct nb_imatrix_entry *e, const char *name, int64_t cols, int64_t n_mat)
{
    size_t n;
    if (!nb_mul((size_t)cols, (size_t)n_mat, &n)) return false;
    *e = (struct nb_imatrix_entry){.cols = cols, .n_mat = n_mat};
    e->sums = nb_calloc(n, sizeof *e->sums);
    e->counts = nb_calloc((size_t)n_mat, sizeof *e->counts);
    if (!e->sums || !e->counts) {
        release_entry(e);
        return false;
    }
    e->name = nb_xstrdup(name);
    return true;
}

struct nb_imatrix_entry *nb_imatrix_append(struct nb_imatrix *im, const char *name, int64_t cols,
                                           int64_t n_mat, struct nb_err *err)
{
    struct nb_imatrix_entry fresh;
    size_t length = strlen(name);
    if (length < 1 || length > MAX_NAME || cols < 1 || n_mat < 1) {
        nb_fail(err, NB_E_FORMAT,
                "importance of '%.80s': a name of %zu bytes and %" PRId64 " x %" PRId64
                " columns are no entry",
                name, length, n_mat, cols);
        return NULL;
    }
    if (!nb_grow((void **)&im->entries, &im->capacity, im->n, sizeof *im->entries) ||
        !fill_entry(&fresh, name, cols, n_mat)) {
        nb_fail(err, NB_E_NOMEM, "importance of '%s': no memory for %" PRId64 " x %" PRId64, name,
                n_mat, cols);
        return NULL;
    }
    im->entries[im->n] = fresh;
    return &im->entries[im->n++];
}

static int by_name(const void *a, const void *b)
{
    const struct nb_imatrix_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

int nb_imatrix_sort(struct nb_imatrix *im, const char *what, struct nb_err *err)
{
    qsort(im->entries, im->n, sizeof *im->entries, by_name);
    for (size_t i = 1; i < im->n; i++) {
        if (!strcmp(im->entries[i - 1].name, im->entries[i].name)) {
            return nb_fail(err, NB_E_FORMAT, "%s: two entries are named '%s'", what,
                           im->entries[i].name);
        }
    }
    return 0;
}

struct nb_imatrix_entry *nb_imatrix_add(struct nb_imatrix *im, const char *name, int64_t cols,
                                        int64_t n_mat, struct nb_err *err)
{
    struct nb_imatrix_entry *there = find(im, name);
    if (there) {
        if (there->cols == cols && there->n_mat == n_mat) return there;
        nb_fail(err, NB_E_FORMAT,
                "importance of '%s': %" PRId64 " x %" PRId64 " columns, expected %" PRId64
                " x %" PRId64,
                name, n_mat, cols, there->n_mat, there->cols);
        return NULL;
    }
    size_t at = lower_bound(im, name);
    if (!nb_imatrix_append(im, name, cols, n_mat, err)) return NULL;
    struct nb_imatrix_entry fresh = im->entries[im->n - 1];
    memmove(im->entries + at + 1, im->entries + at, (im->n - 1 - at) * sizeof *im->entries);
    im->entries[at] = fresh;
    return &im->entries[at];
}

int nb_imatrix_add_dataset(struct nb_imatrix *im, const char *name, size_t bytes,
                           struct nb_err *err)
{
    char *copy = nb_alloc(bytes + 1, 1);
    if (!copy || !nb_grow((void **)&im->datasets, &im->datasets_capacity, im->n_datasets,
                          sizeof *im->datasets)) {
        nb_free(copy);
        return nb_fail(err, NB_E_NOMEM, "no memory for %zu names of texts", im->n_datasets + 1);
    }
    if (bytes) memcpy(copy, name, bytes);
    copy[bytes] = '\0';
    im->datasets[im->n_datasets++] = copy;
    return 0;
}

/* ---- merging ---- */

/* A .dat keeps means weighted by chunks; as many tokens as the chunks had make sums of them. */
static void count_tokens(struct nb_imatrix *im, int64_t chunk_size)
{
    for (size_t i = 0; im->legacy && i < im->n; i++) {
        struct nb_imatrix_entry *e = &im->entries[i];
        for (int64_t k = 0; k < e->cols * e->n_mat; k++) e->sums[k] *= (float)chunk_size;
        for (int64_t k = 0; k < e->n_mat; k++) e->counts[k] *= chunk_size;
    }
    im->legacy = false;
    im->chunk_size = chunk_size;
}

static int merge_entry(struct nb_imatrix *im, const struct nb_imatrix_entry *from, int64_t scale,
                       struct nb_err *err)
{
    struct nb_imatrix_entry *e = nb_imatrix_add(im, from->name, from->cols, from->n_mat, err);
    if (!e) return err ? err->status : NB_E_FORMAT;
    for (int64_t k = 0; k < e->cols * e->n_mat; k++) e->sums[k] += from->sums[k] * (float)scale;
    for (int64_t k = 0; k < e->n_mat; k++) e->counts[k] += from->counts[k] * scale;
    return 0;
}

int nb_imatrix_merge(struct nb_imatrix *im, const struct nb_imatrix *from, struct nb_err *err)
{
    int64_t chunk = from->chunk_size ? from->chunk_size : im->chunk_size, scale = 1;
    if (!chunk) chunk = DEFAULT_CHUNK;
    if (!im->n && !im->n_chunks) {
        im->legacy = from->legacy;
        im->chunk_size = from->chunk_size;
    } else if (im->legacy != from->legacy) {
        if (from->legacy) scale = chunk;
        count_tokens(im, chunk);
    }
    int rc = 0;
    for (size_t i = 0; i < from->n && !rc; i++) rc = merge_entry(im, &from->entries[i], scale, err);
    for (size_t i = 0; i < from->n_datasets && !rc; i++) {
        rc = nb_imatrix_add_dataset(im, from->datasets[i], strlen(from->datasets[i]), err);
    }
    if (!rc) im->n_chunks += from->n_chunks;
    return rc;
}

/* ---- weights ---- */

int nb_imatrix_weights(const struct nb_imatrix *im, const struct nb_imatrix_entry *e, int64_t cols,
                       int64_t n_mat, float *weights, struct nb_err *err)
{
    if (e->cols * e->n_mat != cols * n_mat || (e->n_mat != n_mat && e->n_mat != 1)) {
        return nb_fail(err, NB_E_FORMAT,
                       "importance of '%s': %" PRId64 " x %" PRId64
                       " columns, the tensor has %" PRId64 " x %" PRId64,
                       e->name, e->n_mat, e->cols, n_mat, cols);
    }
    for (int64_t m = 0; m < e->n_mat; m++) {
        const float *sums = e->sums + m * e->cols;
        float *w = weights + m * e->cols, count = (float)e->counts[m];
        if (count > 0) {
            for (int64_t k = 0; k < e->cols; k++) w[k] = sums[k] / count;
        } else {
            for (int64_t k = 0; k < e->cols; k++) w[k] = im->legacy ? sums[k] : 1;
        }
    }
    return 0;
}
