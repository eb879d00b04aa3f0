/* SPDX-License-Identifier: Apache-2.0
 *
 * file.c - see file.h. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/mem.h"

static int open_regular(const char *path, struct stat *st, struct nb_err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        nb_fail_errno(err, "%s: cannot open", path);
        return -1;
    }
    if (fstat(fd, st) || !S_ISREG(st->st_mode)) {
        nb_fail(err, NB_E_FORMAT, "%s: not a regular file", path);
        close(fd);
        return -1;
    }
    return fd;
}

int nb_map_open(struct nb_map *m, const char *path, struct nb_err *err)
{
    memset(m, 0, sizeof *m);
    struct stat st;
    int fd = open_regular(path, &st, err);
    if (fd < 0) return err ? err->status : NB_E_IO;
    m->device = (uint64_t)st.st_dev;
    m->inode = (uint64_t)st.st_ino;
    m->mtime_ns = (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec;
    if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            int rc =
                nb_fail_errno(err, "%s: cannot map %" PRIu64 " bytes", path, (uint64_t)st.st_size);
            close(fd);
            return rc;
        }
        m->span = (struct nb_span){p, (size_t)st.st_size};
    }
    close(fd);
    return 0;
}

void nb_map_close(struct nb_map *m)
{
    if (m->span.data) munmap((void *)(uintptr_t)m->span.data, m->span.bytes);
    memset(m, 0, sizeof *m);
}

void nb_map_drop(const struct nb_map *m, const void *start, size_t bytes)
{
    if (!m->span.data || !bytes) return;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)start + page - 1) / page * page;
    uintptr_t to = ((uintptr_t)start + bytes) / page * page;
    if (to > from) madvise((void *)from, to - from, MADV_DONTNEED);
}

int nb_pread_all(int fd, void *data, size_t bytes, uint64_t offset, const char *path,
                 struct nb_err *err)
{
    unsigned char *p = data;
    while (bytes) {
        ssize_t n = pread(fd, p, bytes > 1u << 30 ? 1u << 30 : bytes, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return nb_fail_errno(err, "%s: cannot read", path);
        if (n == 0) {
            return nb_fail(err, NB_E_FORMAT, "%s: ends at byte %" PRIu64 ", %zu bytes missing",
                           path, offset, bytes);
        }
        p += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

int nb_pwrite_all(int fd, const void *data, size_t bytes, uint64_t offset, const char *path,
                  struct nb_err *err)
{
    const unsigned char *p = data;
    while (bytes) {
        ssize_t n = pwrite(fd, p, bytes > 1u << 30 ? 1u << 30 : bytes, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && (errno == ENOSPC || errno == EDQUOT)) {
            return nb_fail_errno(err, "%s: %zu bytes missing", path, bytes);
        }
        if (n == 0) errno = EIO; /* no progress and no reason */
        if (n <= 0) return nb_fail_errno(err, "%s: cannot write", path);
        p += n;
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

int nb_file_read(const char *path, size_t max_bytes, char **data, size_t *bytes, struct nb_err *err)
{
    *data = NULL;
    *bytes = 0;
    struct stat st;
    int fd = open_regular(path, &st, err);
    if (fd < 0) return err ? err->status : NB_E_IO;
    int rc;
    if ((uint64_t)st.st_size > max_bytes) {
        rc = nb_fail(err, NB_E_FORMAT, "%s: has %" PRIu64 " bytes, at most %zu are accepted", path,
                     (uint64_t)st.st_size, max_bytes);
        goto out;
    }
    char *p = nb_alloc((size_t)st.st_size + 1, 1);
    if (!p) {
        rc = nb_fail(err, NB_E_NOMEM, "%s: no memory for %" PRIu64 " bytes", path,
                     (uint64_t)st.st_size);
        goto out;
    }
    rc = nb_pread_all(fd, p, (size_t)st.st_size, 0, path, err);
    if (rc) {
        nb_free(p);
        goto out;
    }
    p[st.st_size] = '\0';
    *data = p;
    *bytes = (size_t)st.st_size;
out:
    close(fd);
    return rc;
}

/* Makes the rename of path last: its folder is flushed. */
static int sync_parent(const char *path, struct nb_err *err)
{
    char *dir = nb_path_parent(path);
    int rc = nb_dir_sync(dir, err);
    nb_free(dir);
    return rc;
}

int nb_file_write(const char *path, const void *data, size_t bytes, struct nb_err *err)
{
    size_t n = strlen(path);
    char *tmp = nb_xalloc(n + 5);
    memcpy(tmp, path, n);
    memcpy(tmp + n, ".tmp", 5);
    int rc, fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = nb_fail_errno(err, "%s: cannot create", tmp);
        goto out;
    }
    rc = nb_pwrite_all(fd, data, bytes, 0, tmp, err);
    if (!rc && fsync(fd)) rc = nb_fail_errno(err, "%s: cannot flush", tmp);
    if (close(fd) && !rc) rc = nb_fail_errno(err, "%s: cannot close", tmp);
    if (!rc) rc = nb_rename(tmp, path, err);
    if (rc) unlink(tmp);
    if (!rc) rc = sync_parent(path, err);
out:
    nb_free(tmp);
    return rc;
}

int nb_file_copy(const char *from, const char *to, struct nb_err *err)
{
    struct nb_map m;
    int rc = nb_map_open(&m, from, err);
    if (rc) return rc;
    rc = nb_file_write(to, m.span.data, m.span.bytes, err);
    nb_map_close(&m);
    return rc;
}

bool nb_path_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

bool nb_path_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool nb_path_same(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

int nb_file_size(const char *path, uint64_t *bytes, struct nb_err *err)
{
    struct stat st;
    if (stat(path, &st)) return nb_fail_errno(err, "%s: cannot stat", path);
    *bytes = (uint64_t)st.st_size;
    return 0;
}

uint64_t nb_path_free_bytes(const char *path)
{
    struct statvfs s;
    if (statvfs(path, &s)) return 0;
    return (uint64_t)s.f_bavail * (uint64_t)s.f_frsize;
}

int nb_rename(const char *from, const char *to, struct nb_err *err)
{
    if (rename(from, to)) return nb_fail_errno(err, "%s: cannot rename to %s", from, to);
    return 0;
}

/* Does path still name the open file? A run that ends removes its lock file: a lock on the old one would
 * not keep out whoever creates the next. */
static bool is_still_named(int fd, const char *path)
{
    struct stat x, y;
    return fstat(fd, &x) == 0 && stat(path, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

int nb_lock_take(const char *path, struct nb_err *err)
{
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0) {
            nb_fail_errno(err, "%s: cannot create", path);
            return -1;
        }
        if (flock(fd, LOCK_EX | LOCK_NB)) {
            if (errno == EWOULDBLOCK) {
                nb_fail(err, NB_E_BUSY, "%s: another process is working here", path);
            } else {
                nb_fail_errno(err, "%s: cannot lock", path);
            }
            close(fd);
            return -1;
        }
        if (is_still_named(fd, path)) return fd;
        close(fd);
    }
}

char *nb_path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir), m = strlen(name);
    while (n > 1 && dir[n - 1] == '/') n--;
    bool slash = n > 0 && dir[n - 1] != '/';
    char *p = nb_xalloc(n + m + 2);
    memcpy(p, dir, n);
    if (slash) p[n++] = '/';
    memcpy(p + n, name, m + 1);
    return p;
}

char *nb_path_parent(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    while (n > 0 && path[n - 1] != '/') n--;
    while (n > 1 && path[n - 1] == '/') n--;
    char *p = nb_xstrdup(n ? path : ".");
    if (n) p[n] = '\0';
    return p;
}
