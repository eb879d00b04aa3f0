/* SPDX-License-Identifier: Apache-2.0
 *
 * test_file_faults.c - what a kernel may do to a file: short transfers, interrupts, a full disk, a lock file
 * that is replaced under us. The system calls defined here stand before those of the C library. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/sha256.h"
#include "support/folder.h"

static struct {
    size_t at_most;       /* bytes per transfer; 0: no limit */
    int interrupt_every;  /* each n-th transfer fails with EINTR; 0: never */
    size_t disk_bytes;    /* writes fail with ENOSPC past these; 0: never */
    bool nothing_written; /* writes return 0 */
    int fsync_fails;      /* errno of the next fsync, 0: none */
    char fsyncs[16];      /* 'f' for a file, 'd' for a folder, in order */
    size_t n_fsyncs;
    const char *replace; /* lock file that is removed and made anew while flock waits */
    int transfers, locks;
} kernel;

static bool interrupted(size_t *n)
{
    if (kernel.interrupt_every && ++kernel.transfers % kernel.interrupt_every == 0) {
        errno = EINTR;
        return true;
    }
    if (kernel.at_most && *n > kernel.at_most) *n = kernel.at_most;
    return false;
}

ssize_t pread(int fd, void *data, size_t n, off_t offset)
{
    return interrupted(&n) ? -1 : syscall(SYS_pread64, fd, data, n, offset);
}

ssize_t read(int fd, void *data, size_t n)
{
    return interrupted(&n) ? -1 : syscall(SYS_read, fd, data, n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t offset)
{
    if (interrupted(&n)) return -1;
    if (kernel.nothing_written) return 0;
    if (kernel.disk_bytes) {
        if ((size_t)offset >= kernel.disk_bytes) {
            errno = ENOSPC;
            return -1;
        }
        if (n > kernel.disk_bytes - (size_t)offset) n = kernel.disk_bytes - (size_t)offset;
    }
    return syscall(SYS_pwrite64, fd, data, n, offset);
}

int fsync(int fd)
{
    struct stat st;
    if (!fstat(fd, &st) && kernel.n_fsyncs + 1 < sizeof kernel.fsyncs) {
        kernel.fsyncs[kernel.n_fsyncs++] = S_ISDIR(st.st_mode) ? 'd' : 'f';
    }
    if (kernel.fsync_fails) {
        errno = kernel.fsync_fails;
        kernel.fsync_fails = 0;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int flock(int fd, int operation)
{
    kernel.locks++;
    if (kernel.replace) {
        unlink(kernel.replace);
        close(open(kernel.replace, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
        kernel.replace = NULL;
    }
    return (int)syscall(SYS_flock, fd, operation);
}

static char *dir, *path;

static int setup(void **state)
{
    (void)state;
    memset(&kernel, 0, sizeof kernel);
    dir = folder_make();
    path = nb_path_join(dir, "file");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    memset(&kernel, 0, sizeof kernel);
    nb_free(path);
    folder_remove(dir);
    return 0;
}

static void assert_file(const char *expected)
{
    char *data;
    size_t bytes;
    memset(&kernel, 0, sizeof kernel);
    assert_int_equal(nb_file_read(path, 100, &data, &bytes, NULL), 0);
    assert_string_equal(data, expected);
    nb_free(data);
}

static void short_and_interrupted_transfers_go_on(void **state)
{
    (void)state;
    struct nb_err err;
    char data[1000], *back, sha[NB_SHA256_HEX], expected[NB_SHA256_HEX];
    size_t bytes;
    for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 31);
    kernel.at_most = 7;
    kernel.interrupt_every = 3;
    assert_int_equal(nb_file_write(path, data, sizeof data, &err), 0);
    assert_int_equal(nb_file_read(path, sizeof data, &back, &bytes, &err), 0);
    assert_int_equal(bytes, sizeof data);
    assert_memory_equal(back, data, sizeof data);
    nb_free(back);
    assert_int_equal(nb_sha256_file(path, sha, &err), 0);
    nb_sha256_bytes(data, sizeof data, expected);
    assert_string_equal(sha, expected);
    assert_true(kernel.transfers > 400);
}

static void full_disk_keeps_the_old_file(void **state)
{
    (void)state;
    struct nb_err err;
    char expected[600], *tmp = nb_path_join(dir, "file.tmp");
    assert_int_equal(nb_file_write(path, "old", 3, &err), 0);
    kernel.disk_bytes = 4;
    assert_int_equal(nb_file_write(path, "0123456789", 10, &err), NB_E_NOSPACE);
    snprintf(expected, sizeof expected, "%s: 6 bytes missing: No space left on device", tmp);
    assert_string_equal(err.text, expected);
    assert_false(nb_path_exists(tmp));
    assert_file("old");
    nb_free(tmp);
}

/* With delayed allocation the disk may turn out full when the file is flushed. */
static void full_disk_at_the_flush(void **state)
{
    (void)state;
    struct nb_err err;
    assert_int_equal(nb_file_write(path, "old", 3, &err), 0);
    kernel.fsync_fails = ENOSPC;
    assert_int_equal(nb_file_write(path, "new", 3, &err), NB_E_NOSPACE);
    assert_file("old");
}

static void write_without_progress_is_an_error(void **state)
{
    (void)state;
    struct nb_err err;
    kernel.nothing_written = true;
    assert_int_equal(nb_file_write(path, "x", 1, &err), NB_E_IO);
}

/* File before the rename, folder after it: else a power cut can bring the old file back. */
static void write_flushes_file_then_folder(void **state)
{
    (void)state;
    struct nb_err err;
    assert_int_equal(nb_file_write(path, "x", 1, &err), 0);
    assert_string_equal(kernel.fsyncs, "fd");
}

static void folder_that_cannot_be_flushed(void **state)
{
    (void)state;
    struct nb_err err;
    kernel.fsync_fails = EINVAL; /* a file system without that: nothing to do */
    assert_int_equal(nb_dir_sync(dir, &err), 0);
    kernel.fsync_fails = EIO;
    assert_int_equal(nb_dir_sync(dir, &err), NB_E_IO);
    assert_int_equal(nb_dir_sync(path, &err), NB_E_NOTFOUND);
}

/* Between open and lock another run ended and removed the file: its lock would keep nobody out. */
static void lock_is_on_the_file_that_has_the_name(void **state)
{
    (void)state;
    struct nb_err err;
    kernel.replace = path;
    int fd = nb_lock_take(path, &err);
    assert_true(fd >= 0);
    assert_int_equal(kernel.locks, 2);
    struct stat held, named;
    assert_int_equal(fstat(fd, &held), 0);
    assert_int_equal(stat(path, &named), 0);
    assert_int_equal(held.st_ino, named.st_ino);
    assert_int_equal(nb_lock_take(path, &err), -1);
    assert_int_equal(err.status, NB_E_BUSY);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(short_and_interrupted_transfers_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(full_disk_keeps_the_old_file, setup, teardown),
        cmocka_unit_test_setup_teardown(full_disk_at_the_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(write_without_progress_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(write_flushes_file_then_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(folder_that_cannot_be_flushed, setup, teardown),
        cmocka_unit_test_setup_teardown(lock_is_on_the_file_that_has_the_name, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
