/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors_write.c - planned, resumable writer: all names and sizes first, then bytes in any order.
 *
 * The plan fixes every byte position, so the files can be created at full length at once (a full disk is
 * noticed before hours of work), tensors may be put from several threads, and an interrupted run goes on
 * with the files it left. Whoever resumes must know which tensors were flushed: that is the journal's
 * business, not ours. */
#include "container/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "container/safetensors_layout.h"

struct nb_st_writer {
    struct nb_st_layout layout;
    size_t capacity;
    size_t *by_name;   /* indices of tensors in name order; made by open */
    int *fds;          /* per shard, -1: not open */
    bool *kept;        /* per shard: found whole from an earlier run */
    atomic_uchar *put; /* per tensor */
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

/* Has the file the planned size and header, byte for byte? */
static bool is_planned_file(int fd, const struct nb_st_shard *s)
{
    struct stat st;
    if (fstat(fd, &st) || (uint64_t)st.st_size != s->file_bytes) return false;
    char *found = nb_alloc(s->head_bytes, 1);
    bool same = found && !nb_pread_all(fd, found, s->head_bytes, 0, s->name, NULL) &&
                !memcmp(found, s->head, s->head_bytes);
    nb_free(found);
    return same;
}

/* What the disk lacks for the shards that are not there yet, as one sentence. */
static int fail_no_space(const struct nb_st_writer *w, size_t first, struct nb_err *err)
{
    uint64_t need = 0, have = nb_path_free_bytes(w->dir);
    for (size_t i = first; i < w->layout.n_shards; i++) {
        if (!w->kept[i]) need += w->layout.shards[i].file_bytes;
    }
    uint64_t missing = need > have ? need - have : 1;
    nb_fail(err, NB_E_NOSPACE,
            "%s: the disk is full: the weights need %" PRIu64 " more bytes, %" PRIu64
            " are free, %" PRIu64 " are missing",
            w->dir, need, have, missing);
    return nb_err_hint(err, "free that much space and run the same command again");
}

static int create_shard(struct nb_st_writer *w, size_t i, const char *path, struct nb_err *err)
{
    const struct nb_st_shard *s = &w->layout.shards[i];
    int fd = w->fds[i] = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return nb_fail_errno(err, "%s: cannot create", path);
    if (s->file_bytes > INT64_MAX) return nb_fail(err, NB_E_SPEC, "%s: too large for a file", path);
    int code = posix_fallocate(fd, 0, (off_t)s->file_bytes);
    if (code == EOPNOTSUPP || code == EINVAL) {
        code = ftruncate(fd, (off_t)s->file_bytes) ? errno : 0;
    }
    if (code == ENOSPC || code == EDQUOT) {
        unlink(path); /* its blocks count as free again */
        close(fd);
        w->fds[i] = -1;
        return fail_no_space(w, i, err);
    }
    if (code) {
        errno = code;
        nb_fail_errno(err, "%s: cannot reserve %" PRIu64 " bytes", path, s->file_bytes);
        if (code == EFBIG)
            nb_err_hint(err, "the file system takes no file of that size: choose smaller shards");
        return err ? err->status : NB_E_IO;
    }
    return nb_pwrite_all(fd, s->head, s->head_bytes, 0, path, err);
}

/* Opens what an earlier run left whole. */
static void find_kept(struct nb_st_writer *w)
{
    for (size_t i = 0; i < w->layout.n_shards; i++) {
        char *path = nb_path_join(w->dir, w->layout.shards[i].name);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd >= 0 && is_planned_file(fd, &w->layout.shards[i])) {
            w->fds[i] = fd;
            w->kept[i] = true;
        } else if (fd >= 0) {
            close(fd);
        }
        nb_free(path);
    }
}

static int create_shards(struct nb_st_writer *w, struct nb_err *err)
{
    uint64_t need = 0, have = nb_path_free_bytes(w->dir);
    for (size_t i = 0; i < w->layout.n_shards; i++) {
        if (!w->kept[i]) need += w->layout.shards[i].file_bytes;
    }
    if (have && need > have) return fail_no_space(w, 0, err);
    int rc = 0;
    size_t i = 0;
    for (; !rc && i < w->layout.n_shards; i++) {
        if (w->kept[i]) continue;
        char *path = nb_path_join(w->dir, w->layout.shards[i].name);
        rc = create_shard(w, i, path, err);
        nb_free(path);
    }
    while (rc && i-- > 0) { /* leave nothing half made that holds the space */
        if (w->kept[i]) continue;
        char *path = nb_path_join(w->dir, w->layout.shards[i].name);
        unlink(path);
        nb_free(path);
    }
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
    if (!rc && opts->resume) find_kept(w);
    if (!rc) rc = create_shards(w, err);
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
    if (!rc) atomic_store(&w->put[i], 1);
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
    if (!rc && offset + bytes == t->bytes) atomic_store(&w->put[i], 1);
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
    atomic_store(&w->put[i], 1);
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
        if (!atomic_load(&w->put[i])) {
            return nb_fail(err, NB_E_FAIL, "tensor '%.120s' was planned but never written",
                           w->layout.tensors[i].name);
        }
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
