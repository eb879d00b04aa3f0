/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors_write.c - planned, resumable writer: all names and sizes first, then bytes in any order.
 *
 * The plan fixes every byte position, so the files can be created at full length at once (a full disk is
 * noticed before hours of work), tensors may be put from several threads, and an interrupted run goes on
 * with the files it left. Whoever resumes must know which tensors were flushed: that is the journal's
 * business, not ours. */
#include "container/safetensors.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "container/planned_files.h"
#include "container/safetensors_layout.h"

struct nb_st_writer {
    struct nb_st_layout layout;
    size_t capacity;
    size_t *by_name;       /* indices of tensors in name order; made by open */
    int *fds;              /* per shard, -1: not open */
    bool *kept;            /* per shard: found whole from an earlier run */
    _Atomic uint64_t *put; /* bytes of each tensor that are there */
    char *dir;
};

struct nb_st_writer *nb_st_writer_new(void)
{
    return nb_xalloc(sizeof(struct nb_st_writer));
}

int nb_st_writer_plan(struct nb_st_writer *w, const char *name, enum nb_dtype dtype, int rank,
                      const int64_t *shape, struct nb_err *err)
{
    struct nb_st_layout *l = &w->layout;
    size_t count = 1, bits;
    bool fits = rank >= 0 && rank <= NB_MAX_RANK;
    for (int i = 0; fits && i < rank; i++) {
        fits = shape[i] >= 0 && nb_mul(count, (size_t)shape[i], &count);
    }
    if (!fits || !nb_mul(count, (size_t)nb_dtype_bits(dtype), &bits) || bits % 8) {
        return nb_fail(err, NB_E_FORMAT, "tensor '%.120s': shape of rank %d cannot be stored as %s",
                       name, rank, nb_dtype_name(dtype));
    }
    if (!name[0] || !strcmp(name, "__metadata__")) {
        return nb_fail(err, NB_E_FORMAT, "'%s' cannot be the name of a tensor", name);
    }
    if (!nb_grow((void **)&l->tensors, &w->capacity, l->n_tensors, sizeof *l->tensors)) {
        return nb_fail(err, NB_E_NOMEM, "no memory to plan %zu tensors", l->n_tensors + 1);
    }
    struct nb_st_planned *t = &l->tensors[l->n_tensors++];
    *t = (struct nb_st_planned){
        .name = nb_xstrdup(name), .dtype = dtype, .rank = rank, .bytes = bits / 8};
    if (rank) memcpy(t->shape, shape, (size_t)rank * sizeof *shape);
    l->bytes += t->bytes;
    return 0;
}

uint64_t nb_st_writer_bytes(const struct nb_st_writer *w)
{
    return w->layout.bytes;
}

size_t nb_st_writer_shard_count(const struct nb_st_writer *w)
{
    return w->layout.n_shards;
}

const char *nb_st_writer_shard_name(const struct nb_st_writer *w, size_t i)
{
    return w->layout.shards[i].name;
}

static int compare_names(const void *a, const void *b, void *ctx)
{
    const struct nb_st_planned *t = ctx;
    return strcmp(t[*(const size_t *)a].name, t[*(const size_t *)b].name);
}

static int sort_names(struct nb_st_writer *w, struct nb_err *err)
{
    const struct nb_st_layout *l = &w->layout;
    w->by_name = nb_alloc(l->n_tensors, sizeof *w->by_name);
    w->put = nb_calloc(l->n_tensors, sizeof *w->put);
    if (!w->by_name || !w->put) {
        return nb_fail(err, NB_E_NOMEM, "no memory to plan %zu tensors", l->n_tensors);
    }
    for (size_t i = 0; i < l->n_tensors; i++) w->by_name[i] = i;
    qsort_r(w->by_name, l->n_tensors, sizeof *w->by_name, compare_names, l->tensors);
    for (size_t i = 1; i < l->n_tensors; i++) {
        const char *name = l->tensors[w->by_name[i]].name;
        if (!strcmp(name, l->tensors[w->by_name[i - 1]].name)) {
            return nb_fail(err, NB_E_FORMAT, "tensor '%.120s' is planned twice", name);
        }
    }
    return 0;
}

/* Takes up what an earlier run left whole, makes the other shards. */
static int open_shards(struct nb_st_writer *w, bool resume, struct nb_err *err)
{
    const size_t n = w->layout.n_shards;
    struct nb_planned_file *files = nb_xalloc(n * sizeof *files);
    for (size_t i = 0; i < n; i++) {
        const struct nb_st_shard *s = &w->layout.shards[i];
        files[i] = (struct nb_planned_file){nb_path_join(w->dir, s->name), s->head, s->head_bytes,
                                            s->file_bytes};
        w->fds[i] = resume ? nb_planned_file_take(&files[i]) : -1;
        w->kept[i] = w->fds[i] >= 0;
    }
    const struct nb_planned_set set = {
        .file = files,
        .n = n,
        .fds = w->fds,
        .kept = w->kept,
        .dir = w->dir,
        .needs = "the weights need",
        .where = w->dir,
        .when_larger = "the file system takes no file of that size: choose smaller shards"};
    int rc = nb_planned_files_make(&set, err);
    for (size_t i = 0; i < n; i++) nb_free((void *)files[i].path);
    nb_free(files);
    return rc;
}

/* Removes shards and index that the plan does not have: a loader would read them beside ours. */
static int remove_stale(const struct nb_st_writer *w, struct nb_err *err)
{
    char **names;
    size_t n;
    int rc = nb_dir_list(w->dir, &names, &n, err);
    if (rc) return rc;
    for (size_t i = 0; !rc && i < n; i++) {
        if (!nb_st_is_weight_name(names[i]) || nb_st_layout_has_file(&w->layout, names[i]))
            continue;
        char *path = nb_path_join(w->dir, names[i]);
        if (unlink(path)) rc = nb_fail_errno(err, "%s: cannot remove", path);
        nb_free(path);
    }
    nb_dir_list_free(names, n);
    return rc;
}

static int write_index(const struct nb_st_writer *w, struct nb_err *err)
{
    if (w->layout.n_shards < 2) return 0;
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    char *path = nb_path_join(w->dir, nb_st_index_name);
    int rc = nb_st_layout_index(&w->layout, w->by_name, &text, err);
    if (!rc) rc = nb_file_write(path, text.data, text.len, err);
    nb_free(path);
    nb_strbuf_release(&text);
    return rc;
}

int nb_st_writer_open(struct nb_st_writer *w, const struct nb_st_writer_opts *opts,
                      struct nb_err *err)
{
    if (!w->layout.n_tensors) return nb_fail(err, NB_E_SPEC, "%s: no tensor to write", opts->dir);
    w->dir = nb_xstrdup(opts->dir);
    int rc = sort_names(w, err);
    if (!rc) rc = nb_st_layout_make(&w->layout, opts->max_shard_bytes, opts->metadata, err);
    if (rc) return rc;
    w->fds = nb_alloc(w->layout.n_shards, sizeof *w->fds);
    w->kept = nb_calloc(w->layout.n_shards, sizeof *w->kept);
    if (!w->fds || !w->kept)
        return nb_fail(err, NB_E_NOMEM, "no memory for %zu shards", w->layout.n_shards);
    for (size_t i = 0; i < w->layout.n_shards; i++) w->fds[i] = -1;
    rc = remove_stale(w, err);
    if (!rc) rc = open_shards(w, opts->resume, err);
    if (!rc) rc = write_index(w, err);
    return rc ? rc : nb_dir_sync(w->dir, err);
}

/* Index of a planned tensor, or n_tensors. */
static size_t find_planned(const struct nb_st_writer *w, const char *name)
{
    size_t lo = 0, hi = w->by_name ? w->layout.n_tensors : 0;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(name, w->layout.tensors[w->by_name[mid]].name);
        if (!c) return w->by_name[mid];
        if (c < 0) hi = mid;
        else lo = mid + 1;
    }
    return w->layout.n_tensors;
}

int nb_st_writer_put(struct nb_st_writer *w, const char *name, const void *data, size_t bytes,
                     struct nb_err *err)
{
    size_t i = find_planned(w, name);
    if (i == w->layout.n_tensors)
        return nb_fail(err, NB_E_FAIL, "tensor '%.120s' was not planned", name);
    const struct nb_st_planned *t = &w->layout.tensors[i];
    if (bytes != t->bytes) {
        return nb_fail(err, NB_E_FAIL, "tensor '%.120s' has %zu bytes, planned were %" PRIu64, name,
                       bytes, t->bytes);
    }
    const struct nb_st_shard *s = &w->layout.shards[t->shard];
    int rc = nb_pwrite_all(w->fds[t->shard], data, bytes, s->head_bytes + t->offset, s->name, err);
    if (!rc) atomic_store(&w->put[i], t->bytes);
    return rc;
}

int nb_st_writer_put_at(struct nb_st_writer *w, const char *name, uint64_t offset, const void *data,
                        size_t bytes, struct nb_err *err)
{
    size_t i = find_planned(w, name);
    if (i == w->layout.n_tensors)
        return nb_fail(err, NB_E_FAIL, "tensor '%.120s' was not planned", name);
    const struct nb_st_planned *t = &w->layout.tensors[i];
    if (offset > t->bytes || bytes > t->bytes - offset) {
        return nb_fail(err, NB_E_FAIL,
                       "tensor '%.120s' has %" PRIu64 " bytes planned, a piece ends behind them",
                       name, t->bytes);
    }
    const struct nb_st_shard *s = &w->layout.shards[t->shard];
    int rc = nb_pwrite_all(w->fds[t->shard], data, bytes, s->head_bytes + t->offset + offset,
                           s->name, err);
    if (!rc) atomic_fetch_add(&w->put[i], bytes);
    return rc;
}

int nb_st_writer_mark(struct nb_st_writer *w, const char *name, struct nb_err *err)
{
    size_t i = find_planned(w, name);
    if (i == w->layout.n_tensors)
        return nb_fail(err, NB_E_FAIL, "tensor '%.120s' was not planned", name);
    const struct nb_st_planned *t = &w->layout.tensors[i];
    if (!w->kept[t->shard]) {
        return nb_fail(err, NB_E_FORMAT,
                       "%s/%s: was lost or changed, so tensor '%.120s' is not there", w->dir,
                       w->layout.shards[t->shard].name, name);
    }
    atomic_store(&w->put[i], t->bytes);
    return 0;
}

int nb_st_writer_sync(struct nb_st_writer *w, struct nb_err *err)
{
    for (size_t i = 0; i < w->layout.n_shards; i++) {
        if (w->fds[i] >= 0 && fdatasync(w->fds[i])) {
            return nb_fail_errno(err, "%s/%s: cannot flush", w->dir, w->layout.shards[i].name);
        }
    }
    return 0;
}

int nb_st_writer_finish(struct nb_st_writer *w, struct nb_err *err)
{
    for (size_t i = 0; i < w->layout.n_tensors; i++) {
        const struct nb_st_planned *t = &w->layout.tensors[i];
        const uint64_t there = atomic_load(&w->put[i]);
        if (there == t->bytes) continue;
        if (!there)
            return nb_fail(err, NB_E_FAIL, "tensor '%.120s' was planned but never written",
                           t->name);
        return nb_fail(err, NB_E_FAIL,
                       "tensor '%.120s' has %" PRIu64 " bytes, %" PRIu64 " of them were written",
                       t->name, t->bytes, there);
    }
    int rc = nb_st_writer_sync(w, err);
    for (size_t i = 0; i < w->layout.n_shards; i++) {
        if (close(w->fds[i]) && !rc) {
            rc = nb_fail_errno(err, "%s/%s: cannot close", w->dir, w->layout.shards[i].name);
        }
        w->fds[i] = -1;
    }
    return rc ? rc : nb_dir_sync(w->dir, err);
}

void nb_st_writer_free(struct nb_st_writer *w)
{
    if (!w) return;
    for (size_t i = 0; w->fds && i < w->layout.n_shards; i++) {
        if (w->fds[i] >= 0) close(w->fds[i]);
    }
    nb_st_layout_release(&w->layout);
    nb_free(w->by_name);
    nb_free(w->fds);
    nb_free(w->kept);
    nb_free((void *)w->put);
    nb_free(w->dir);
    nb_free(w);
}
