/* SPDX-License-Identifier: Apache-2.0
 *
 * dir.c - the folder half of file.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

int nb_dir_make(const char *path, struct nb_err *err)
{
    if (!path[0]) return nb_fail(err, NB_E_USAGE, "the name of a folder is empty");
    char *p = nb_xstrdup(path);
    int rc = 0;
    for (char *s = p + 1; !rc; s++) {
        if (*s != '/' && *s != '\0') continue;
        char saved = *s;
        *s = '\0';
        if (mkdir(p, 0755) && errno != EEXIST)
            rc = nb_fail_errno(err, "%s: cannot create folder", p);
        *s = saved;
        if (!saved) break;
    }
    if (!rc && !nb_path_is_dir(path))
        rc = nb_fail(err, NB_E_EXISTS, "%s: exists and is no folder", path);
    nb_free(p);
    return rc;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

int nb_dir_remove_all(const char *path, struct nb_err *err)
{
    if (!nb_path_exists(path)) return 0;
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS)) {
        return nb_fail_errno(err, "%s: cannot remove", path);
    }
    return 0;
}

int nb_dir_sync(const char *path, struct nb_err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return nb_fail_errno(err, "%s: cannot open folder", path);
    int rc = fsync(fd) && errno != EINVAL ? nb_fail_errno(err, "%s: cannot flush folder", path) : 0;
    close(fd);
    return rc;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int nb_dir_list(const char *path, char ***names, size_t *n, struct nb_err *err)
{
    *names = NULL;
    *n = 0;
    DIR *d = opendir(path);
    if (!d) return nb_fail_errno(err, "%s: cannot read folder", path);
    size_t capacity = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (!nb_grow((void **)names, &capacity, *n, sizeof **names)) {
            closedir(d);
            nb_dir_list_free(*names, *n);
            *names = NULL;
            *n = 0;
            return nb_fail(err, NB_E_NOMEM, "%s: no memory for the list of names", path);
        }
        (*names)[(*n)++] = nb_xstrdup(e->d_name);
    }
    closedir(d);
    if (*n) qsort(*names, *n, sizeof **names, by_bytes);
    return 0;
}

void nb_dir_list_free(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++) nb_free(names[i]);
    nb_free(names);
}
