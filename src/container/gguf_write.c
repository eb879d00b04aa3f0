/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_write.c - planned, resumable writer: the files of a plan, at full length from the start.
 *
 * The plan fixes every byte position, so the files can be created at once (a full disk is noticed before
 * hours of work), tensors may be put from several threads, and an interrupted run goes on with the files
 * it left. They carry ".tmp" behind their names until all is written: no reader takes half a model for a
 * whole one. Whoever resumes must know which tensors were flushed: that is the journal's business. */
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
#include "container/gguf.h"
#include "container/gguf_layout.h"

static char *tmp_path(const struct nb_gguf_file *f)
{
    size_t n = strlen(f->path);
    char *p = nb_xalloc(n + sizeof ".tmp");
    memcpy(p, f->path, n);
    memcpy(p + n, ".tmp", sizeof ".tmp");
    return p;
}

static int compare_names(const void *a, const void *b, void *ctx)
{
    const struct nb_gguf_planned *t = ctx;
    return strcmp(t[*(const size_t *)a].name, t[*(const size_t *)b].name);
}

static int sort_names(struct nb_gguf_writer *w, struct nb_err *err)
{
    const struct nb_gguf_layout *l = &w->layout;
    w->by_name = nb_alloc(l->n_tensors, sizeof *w->by_name);
    w->written = nb_calloc(l->n_tensors, sizeof *w->written);
    if (!w->by_name || !w->written)
        return nb_fail(err, NB_E_NOMEM, "no memory to plan %zu tensors", l->n_tensors);
    for (size_t i = 0; i < l->n_tensors; i++) w->by_name[i] = i;
    if (l->n_tensors)
        qsort_r(w->by_name, l->n_tensors, sizeof *w->by_name, compare_names, l->tensors);
    for (size_t i = 1; i < l->n_tensors; i++) {
        const char *name = l->tensors[w->by_name[i]].name;
        if (!strcmp(name, l->tensors[w->by_name[i - 1]].name))
            return nb_fail(err, NB_E_SPEC, "tensor '%s' is planned twice", name);
    }
    return 0;
}

/* Has the file the planned size and header, byte for byte? */
static bool is_planned_file(int fd, const struct nb_gguf_file *f)
{
    struct stat st;
    if (fstat(fd, &st) || (uint64_t)st.st_size != f->file_bytes) return false;
    unsigned char *found = nb_alloc(f->head_bytes, 1);
    bool same = found && !nb_pread_all(fd, found, f->head_bytes, 0, f->path, NULL) &&
                !memcmp(found, f->head, f->head_bytes);
    nb_free(found);
    return same;
}

static bool keep(struct nb_gguf_writer *w, size_t i, const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return false;
    if (!is_planned_file(fd, &w->layout.files[i])) {
        close(fd);
        return false;
    }
    w->fds[i] = fd;
    return w->kept[i] = true;
}

/* Opens what an earlier run left whole; one that ended while it renamed left final names, too. */
static void find_kept(struct nb_gguf_writer *w)
{
    for (size_t i = 0; i < w->layout.n_files; i++) {
        char *tmp = tmp_path(&w->layout.files[i]);
        if (!keep(w, i, tmp)) w->named[i] = keep(w, i, w->layout.files[i].path);
        nb_free(tmp);
    }
}

/* What the disk lacks for the files that are not there yet, as one sentence. */
static int fail_no_space(const struct nb_gguf_writer *w, size_t first, const char *dir,
                         struct nb_err *err)
{
    uint64_t required = 0, have = nb_path_free_bytes(dir);
    for (size_t i = first; i < w->layout.n_files; i++) {
        if (!w->kept[i]) required += w->layout.files[i].file_bytes;
    }
    uint64_t missing = required > have ? required - have : 1;
    nb_fail(err, NB_E_NOSPACE,
            "%s: the disk is full: the model needs %" PRIu64 " more bytes, %" PRIu64
            " are free, %" PRIu64 " are missing",
            w->layout.files[first].path, required, have, missing);
    return nb_err_hint(err, "free that much space and run the same command again");
}

static int create_file(struct nb_gguf_writer *w, size_t i, const char *dir, struct nb_err *err)
{
    const struct nb_gguf_file *f = &w->layout.files[i];
    char *path = tmp_path(f);
    int rc = 0, fd = w->fds[i] = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = nb_fail_errno(err, "%s: cannot create", path);
        goto out;
    }
    int code = posix_fallocate(fd, 0, (off_t)f->file_bytes);
    if (code == EOPNOTSUPP || code == EINVAL)
        code = ftruncate(fd, (off_t)f->file_bytes) ? errno : 0;
    if (code == ENOSPC || code == EDQUOT) {
        unlink(path); /* its blocks count as free again */
        close(fd);
        w->fds[i] = -1;
        rc = fail_no_space(w, i, dir, err);
    } else if (code) {
        errno = code;
        rc = nb_fail_errno(err, "%s: cannot reserve %" PRIu64 " bytes", path, f->file_bytes);
        if (code == EFBIG)
            nb_err_hint(err, "the file system takes no file of that size: split the model");
    } else {
        rc = nb_pwrite_all(fd, f->head, f->head_bytes, 0, path, err);
    }
out:
    nb_free(path);
    return rc;
}

static int create_files(struct nb_gguf_writer *w, const char *dir, struct nb_err *err)
{
    uint64_t required = 0, have = nb_path_free_bytes(dir);
    for (size_t i = 0; i < w->layout.n_files; i++) {
        if (!w->kept[i]) required += w->layout.files[i].file_bytes;
    }
    if (have && required > have) return fail_no_space(w, 0, dir, err);
    int rc = 0;
    size_t i = 0;
    for (; !rc && i < w->layout.n_files; i++) {
        if (!w->kept[i]) rc = create_file(w, i, dir, err);
    }
    while (rc && i-- > 0) { /* leave nothing half made that holds the space */
        if (w->kept[i]) continue;
        char *path = tmp_path(&w->layout.files[i]);
        unlink(path);
        nb_free(path);
    }
    return rc;
}

int nb_gguf_writer_open(struct nb_gguf_writer *w, const struct nb_gguf_writer_opts *opts,
                        struct nb_err *err)
{
    int rc = sort_names(w, err);
    if (!rc) rc = nb_gguf_layout_make(&w->layout, opts->path, opts->max_part_bytes, err);
    if (rc) return rc;
    size_t n = w->layout.n_files;
    w->fds = nb_alloc(n, sizeof *w->fds);
    w->kept = nb_calloc(n, sizeof *w->kept);
    w->named = nb_calloc(n, sizeof *w->named);
    if (!w->fds || !w->kept || !w->named)
        return nb_fail(err, NB_E_NOMEM, "%s: no memory for %zu files", opts->path, n);
    for (size_t i = 0; i < n; i++) w->fds[i] = -1;
    if (opts->resume) find_kept(w);
    char *dir = nb_path_parent(opts->path);
    rc = create_files(w, dir, err);
    if (!rc) rc = nb_dir_sync(dir, err);
    nb_free(dir);
    return rc;
}

/* Index of a planned tensor. */
static int find_planned(const struct nb_gguf_writer *w, const char *name, size_t *index,
                        struct nb_err *err)
{
    size_t lo = 0, hi = w->fds ? w->layout.n_tensors : 0;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(name, w->layout.tensors[w->by_name[mid]].name);
        if (!c) {
            *index = w->by_name[mid];
            return 0;
        }
        if (c < 0) hi = mid;
        else lo = mid + 1;
    }
    return nb_fail(err, NB_E_FAIL, "tensor '%.120s' was not planned", name);
}

int nb_gguf_writer_put_at(struct nb_gguf_writer *w, const char *name, uint64_t offset,
                          const void *data, size_t bytes, struct nb_err *err)
{
    size_t i = 0;
    int rc = find_planned(w, name, &i, err);
    if (rc) return rc;
    const struct nb_gguf_planned *t = &w->layout.tensors[i];
    if (offset > t->bytes || bytes > t->bytes - offset) {
        return nb_fail(err, NB_E_FAIL,
                       "tensor '%s': bytes %" PRIu64 " to %" PRIu64 " put, planned were %" PRIu64,
                       name, offset, offset + bytes, t->bytes);
    }
    const struct nb_gguf_file *f = &w->layout.files[t->part];
    rc = nb_pwrite_all(w->fds[t->part], data, bytes, f->head_bytes + t->offset + offset, f->path,
                       err);
    if (!rc) atomic_fetch_add(&w->written[i], bytes);
    return rc;
}

int nb_gguf_writer_put(struct nb_gguf_writer *w, const char *name, const void *data, size_t bytes,
                       struct nb_err *err)
{
    size_t i = 0;
    int rc = find_planned(w, name, &i, err);
    if (rc) return rc;
    const struct nb_gguf_planned *t = &w->layout.tensors[i];
    if (bytes != t->bytes) {
        return nb_fail(err, NB_E_FAIL, "tensor '%s' has %zu bytes, planned were %" PRIu64, name,
                       bytes, t->bytes);
    }
    const struct nb_gguf_file *f = &w->layout.files[t->part];
    rc = nb_pwrite_all(w->fds[t->part], data, bytes, f->head_bytes + t->offset, f->path, err);
    if (!rc) atomic_store(&w->written[i], bytes);
    return rc;
}

int nb_gguf_writer_mark(struct nb_gguf_writer *w, const char *name, struct nb_err *err)
{
    size_t i = 0;
    int rc = find_planned(w, name, &i, err);
    if (rc) return rc;
    const struct nb_gguf_planned *t = &w->layout.tensors[i];
    if (!w->kept[t->part]) {
        return nb_fail(err, NB_E_FORMAT, "%s: was lost or changed, so tensor '%s' is not there",
                       w->layout.files[t->part].path, name);
    }
    atomic_store(&w->written[i], t->bytes);
    return 0;
}

int nb_gguf_writer_sync(struct nb_gguf_writer *w, struct nb_err *err)
{
    for (size_t i = 0; i < w->layout.n_files; i++) {
        if (w->fds[i] >= 0 && fdatasync(w->fds[i]))
            return nb_fail_errno(err, "%s: cannot flush", w->layout.files[i].path);
    }
    return 0;
}

/* The first file gets its name last: while it is missing, nobody takes the set for whole. */
static int rename_files(struct nb_gguf_writer *w, struct nb_err *err)
{
    int rc = 0;
    for (size_t i = w->layout.n_files; !rc && i-- > 0;) {
        if (w->named[i]) continue;
        char *tmp = tmp_path(&w->layout.files[i]);
        rc = nb_rename(tmp, w->layout.files[i].path, err);
        nb_free(tmp);
        w->named[i] = !rc;
    }
    return rc;
}

int nb_gguf_writer_finish(struct nb_gguf_writer *w, struct nb_err *err)
{
    for (size_t i = 0; i < w->layout.n_tensors; i++) {
        const struct nb_gguf_planned *t = &w->layout.tensors[i];
        uint64_t written = atomic_load(&w->written[i]);
        if (written == t->bytes) continue;
        return nb_fail(err, NB_E_FAIL,
                       "tensor '%s' has %" PRIu64 " bytes, %" PRIu64 " of them were written",
                       t->name, t->bytes, written);
    }
    int rc = nb_gguf_writer_sync(w, err);
    for (size_t i = 0; i < w->layout.n_files; i++) {
        if (close(w->fds[i]) && !rc)
            rc = nb_fail_errno(err, "%s: cannot close", w->layout.files[i].path);
        w->fds[i] = -1;
    }
    if (!rc) rc = rename_files(w, err);
    if (rc) return rc;
    char *dir = nb_path_parent(w->layout.files[0].path);
    rc = nb_dir_sync(dir, err);
    nb_free(dir);
    return rc;
}

void nb_gguf_writer_discard(struct nb_gguf_writer *w)
{
    for (size_t i = 0; w->fds && i < w->layout.n_files; i++) {
        if (w->fds[i] < 0 || w->named[i]) continue;
        char *tmp = tmp_path(&w->layout.files[i]);
        close(w->fds[i]);
        w->fds[i] = -1;
        unlink(tmp);
        nb_free(tmp);
    }
}

size_t nb_gguf_writer_part_count(const struct nb_gguf_writer *w)
{
    return w->layout.n_files;
}

const char *nb_gguf_writer_part_path(const struct nb_gguf_writer *w, size_t i)
{
    return w->layout.files[i].path;
}

uint64_t nb_gguf_writer_part_bytes(const struct nb_gguf_writer *w, size_t i)
{
    return w->layout.files[i].file_bytes;
}

void nb_gguf_writer_free(struct nb_gguf_writer *w)
{
    if (!w) return;
    for (size_t i = 0; w->fds && i < w->layout.n_files; i++) {
        if (w->fds[i] >= 0) close(w->fds[i]);
    }
    nb_gguf_layout_release(&w->layout);
    nb_free(w->by_name);
    nb_free(w->fds);
    nb_free(w->kept);
    nb_free(w->named);
    nb_free((void *)w->written);
    nb_free(w);
}
