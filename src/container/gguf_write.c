/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_write.c - planned, resumable writer: the files of a plan, at full length from the start.
 *
 * The plan fixes every byte position, so the files can be created at once (a full disk is noticed before
 * hours of work), tensors may be put from several threads, and an interrupted run goes on with the files
 * it left. They carry ".tmp" behind their names until all is written: no reader takes half a model for a
 * whole one. Whoever resumes must know which tensors were flushed: that is the journal's business. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "container/gguf.h"
#include "container/gguf_layout.h"
#include "container/planned_files.h"

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

/* What planned_files.h takes; files named .tmp, or by their final names. Free with plan_free. */
static struct nb_planned_file *plan_files(const struct nb_gguf_writer *w, bool tmp)
{
    struct nb_planned_file *files = nb_xalloc(w->layout.n_files * sizeof *files);
    for (size_t i = 0; i < w->layout.n_files; i++) {
        const struct nb_gguf_file *f = &w->layout.files[i];
        files[i] = (struct nb_planned_file){tmp ? tmp_path(f) : nb_xstrdup(f->path), f->head,
                                            f->head_bytes, f->file_bytes};
    }
    return files;
}

static void plan_free(struct nb_planned_file *files, size_t n)
{
    for (size_t i = 0; i < n; i++) nb_free((void *)files[i].path);
    nb_free(files);
}

/* Opens what an earlier run left whole; one that ended while it renamed left final names, too. */
static void find_kept(struct nb_gguf_writer *w, const struct nb_planned_file *tmp)
{
    const size_t n = w->layout.n_files;
    struct nb_planned_file *final = plan_files(w, false);
    for (size_t i = 0; i < n; i++) {
        w->fds[i] = nb_planned_file_take(&tmp[i]);
        if (w->fds[i] < 0) {
            w->fds[i] = nb_planned_file_take(&final[i]);
            w->named[i] = w->fds[i] >= 0;
        }
        w->kept[i] = w->fds[i] >= 0;
    }
    plan_free(final, n);
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
    struct nb_planned_file *files = plan_files(w, true);
    char *dir = nb_path_parent(opts->path);
    if (opts->resume) find_kept(w, files);
    const struct nb_planned_set set = {
        .file = files,
        .n = n,
        .fds = w->fds,
        .kept = w->kept,
        .dir = dir,
        .needs = "the model needs",
        .where = opts->path,
        .when_larger = "the file system takes no file of that size: split the model"};
    rc = nb_planned_files_make(&set, err);
    plan_free(files, n);
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
