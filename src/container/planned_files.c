/* SPDX-License-Identifier: Apache-2.0
 *
 * planned_files.c - see planned_files.h. A full disk is noticed before hours of work, not after. */
#include "container/planned_files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

int nb_planned_file_take(const struct nb_planned_file *f)
{
    struct stat st;
    int fd = open(f->path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return -1;
    bool same = !fstat(fd, &st) && (uint64_t)st.st_size == f->file_bytes;
    unsigned char *found = same ? nb_alloc(f->head_bytes, 1) : NULL;
    same = found && !nb_pread_all(fd, found, f->head_bytes, 0, f->path, NULL) &&
           !memcmp(found, f->head, f->head_bytes);
    nb_free(found);
    if (same) return fd;
    close(fd);
    return -1;
}

static uint64_t required_from(const struct nb_planned_set *s, size_t first)
{
    uint64_t required = 0;
    for (size_t i = first; i < s->n; i++) {
        if (!s->kept[i]) required += s->file[i].file_bytes;
    }
    return required;
}

/* What the disk lacks for the files from the first on, as one sentence. */
static int fail_no_space(const struct nb_planned_set *s, size_t first, struct nb_err *err)
{
    const uint64_t required = required_from(s, first), have = nb_path_free_bytes(s->dir);
    const uint64_t missing = required > have ? required - have : 1;
    nb_fail(err, NB_E_NOSPACE,
            "%s: the disk is full: %s %" PRIu64 " more bytes, %" PRIu64 " are free, %" PRIu64
            " are missing",
            s->where ? s->where : s->file[first].path, s->needs, required, have, missing);
    return nb_err_hint(err, "free that much space and run the same command again");
}

static int make_file(const struct nb_planned_set *s, size_t i, struct nb_err *err)
{
    const struct nb_planned_file *f = &s->file[i];
    int fd = s->fds[i] = open(f->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) return nb_fail_errno(err, "%s: cannot create", f->path);
    if (f->file_bytes > INT64_MAX)
        return nb_fail(err, NB_E_SPEC, "%s: too large for a file", f->path);
    int code = posix_fallocate(fd, 0, (off_t)f->file_bytes);
    if (code == EOPNOTSUPP || code == EINVAL)
        code = ftruncate(fd, (off_t)f->file_bytes) ? errno : 0;
    if (code == ENOSPC || code == EDQUOT) {
        unlink(f->path); /* its blocks count as free again */
        close(fd);
        s->fds[i] = -1;
        return fail_no_space(s, i, err);
    }
    if (code) {
        errno = code;
        int rc = nb_fail_errno(err, "%s: cannot reserve %" PRIu64 " bytes", f->path, f->file_bytes);
        return code == EFBIG ? nb_err_hint(err, "%s", s->when_larger) : rc;
    }
    return nb_pwrite_all(fd, f->head, f->head_bytes, 0, f->path, err);
}

int nb_planned_files_make(const struct nb_planned_set *s, struct nb_err *err)
{
    const uint64_t have = nb_path_free_bytes(s->dir);
    if (have && required_from(s, 0) > have) return fail_no_space(s, 0, err);
    int rc = 0;
    size_t i = 0;
    for (; !rc && i < s->n; i++) {
        if (!s->kept[i]) rc = make_file(s, i, err);
    }
    while (rc && i-- > 0) { /* leave nothing half made that holds the space */
        if (!s->kept[i]) unlink(s->file[i].path);
    }
    return rc;
}
