/* SPDX-License-Identifier: Apache-2.0
 *
 * planned_files.h - files whose length and first bytes are known before their contents: made at full length,
 * or taken up again from an interrupted run. Internal to container/; both writers stand on it. */
#ifndef NB_CONTAINER_PLANNED_FILES_H
#define NB_CONTAINER_PLANNED_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct nb_planned_file {
    const char *path;
    const void *head; /* written at once */
    size_t head_bytes;
    uint64_t file_bytes;
};

struct nb_planned_set { /* borrowed arrays of n */
    const struct nb_planned_file *file;
    size_t n;
    int *fds;   /* out; -1: not open */
    bool *kept; /* taken up from an earlier run: not made anew */
    const char *dir;
    const char *needs;       /* subject of a message: "the weights need" */
    const char *where;       /* what a message on a full disk begins with; NULL: the file's path */
    const char *when_larger; /* hint when the file system takes no such file */
};

/* Descriptor of a file that has the planned size and head, byte for byte; -1: there is none. */
int nb_planned_file_take(const struct nb_planned_file *f);

/* Makes every file that is not kept. NB_E_NOSPACE says how many bytes are missing; after an error nothing
 * that this call made is left. */
int nb_planned_files_make(const struct nb_planned_set *set, struct nb_err *err);

#endif
