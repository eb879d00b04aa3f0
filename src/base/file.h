/* SPDX-License-Identifier: Apache-2.0
 *
 * file.h - files and folders: map, read, write whole, lock. Every failure is one sentence. */
#ifndef NB_BASE_FILE_H
#define NB_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/span.h"

/* A read-only mapping of a whole file. An empty file maps to a span of length 0. */
struct nb_map {
    struct nb_span span;
    uint64_t device, inode, mtime_ns; /* identity, to notice a file that changed or is ourselves */
};

int nb_map_open(struct nb_map *m, const char *path, struct nb_err *err);
void nb_map_close(struct nb_map *m);
/* Tells the kernel that these mapped bytes are not needed again soon (RSS stays small). */
void nb_map_drop(const struct nb_map *m, const void *start, size_t bytes);

/* Whole file into *data (nb_free; a NUL follows the last byte, not counted). NB_E_FORMAT when larger
 * than max_bytes, NB_E_NOTFOUND when absent. */
int nb_file_read(const char *path, size_t max_bytes, char **data, size_t *bytes,
                 struct nb_err *err);

/* Writes to PATH.tmp, flushes, renames, flushes the folder: readers see the old file or the new one, never
 * half, and after a return of 0 a power cut cannot bring the old one back. On error the old file stays. */
int nb_file_write(const char *path, const void *data, size_t bytes, struct nb_err *err);

/* pwrite/pread until done; EINTR and short transfers are handled. path only for the message. */
int nb_pwrite_all(int fd, const void *data, size_t bytes, uint64_t offset, const char *path,
                  struct nb_err *err);
int nb_pread_all(int fd, void *data, size_t bytes, uint64_t offset, const char *path,
                 struct nb_err *err);

int nb_file_copy(const char *from, const char *to, struct nb_err *err); /* bytes, fsynced */
bool nb_path_exists(const char *path); /* also a symbolic link that leads nowhere */
bool nb_path_is_dir(const char *path);
bool nb_path_same(const char *a, const char *b); /* same device and inode */
int nb_file_size(const char *path, uint64_t *bytes, struct nb_err *err);
uint64_t nb_path_free_bytes(const char *path); /* of the file system that holds it; 0 if unknown */

int nb_dir_make(const char *path, struct nb_err *err); /* with parents; existing is fine */
int nb_dir_remove_all(const char *path,
                      struct nb_err *err);             /* files and folders below, then itself */
int nb_dir_sync(const char *path, struct nb_err *err); /* fsync the folder */
int nb_rename(const char *from, const char *to, struct nb_err *err);

/* Names in a folder, without "." and "..", sorted by byte order. Free with nb_dir_list_free. */
int nb_dir_list(const char *path, char ***names, size_t *n, struct nb_err *err);
void nb_dir_list_free(char **names, size_t n);

/* Exclusive advisory lock on PATH (created). Returns the descriptor, or -1 with NB_E_BUSY when another
 * process holds it. The lock goes when the descriptor is closed or the process dies. */
int nb_lock_take(const char *path, struct nb_err *err);

/* "dir/name" in a fresh string (nb_free); an empty dir is the current one. */
char *nb_path_join(const char *dir, const char *name);
/* The folder that holds path: "a/b/" -> "a", "a" -> ".", "/a" -> "/". Fresh string (nb_free). */
char *nb_path_parent(const char *path);

#endif
