/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_layout.h - what is planned, and where each part of it stands: files, headers, offsets.
 *
 * The layout is a pure function of metadata and plan: no file is touched here. Private to container/. */
#ifndef NB_CONTAINER_GGUF_LAYOUT_H
#define NB_CONTAINER_GGUF_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "container/gguf.h"

struct nb_gguf_record { /* one metadata record */
    char *key;
    unsigned char *data; /* as it will stand in the file: key, type, value */
    size_t bytes;
};

struct nb_gguf_planned {
    char name[NB_GGUF_MAX_NAME + 1];
    const struct nb_gguf_type *type;
    int n_dims;
    int64_t ne[NB_GGUF_MAX_DIMS];
    uint64_t bytes;
    size_t part;
    uint64_t offset; /* in the part's data */
};

struct nb_gguf_file {
    char *path;
    unsigned char *head; /* header, metadata, tensor infos, padding: what stands before the data */
    size_t head_bytes;   /* a multiple of NB_GGUF_ALIGN */
    uint64_t file_bytes;
};

struct nb_gguf_layout {
    struct nb_gguf_record *records; /* in the order of the first set */
    size_t *by_key;                 /* indices of records in key order */
    size_t n_records, record_capacity, key_capacity;
    struct nb_gguf_planned *tensors; /* in the order of adding */
    size_t n_tensors, tensor_capacity;
    uint64_t bytes; /* of all tensors, without padding */
    struct nb_gguf_file *files;
    size_t n_files;
};

/* Index of the record with this key, or where in by_key it belongs (*found false). */
size_t nb_gguf_layout_find(const struct nb_gguf_layout *l, const char *key, bool *found);

/* Fills part and offset of each tensor and makes the files, named after path. max_part_bytes 0: one. */
int nb_gguf_layout_make(struct nb_gguf_layout *l, const char *path, uint64_t max_part_bytes,
                        struct nb_err *err);
void nb_gguf_layout_release(struct nb_gguf_layout *l);

struct nb_gguf_writer {
    struct nb_gguf_layout layout; /* filled by gguf_plan.c */
    size_t *by_name;              /* indices of tensors in name order; made by open */
    int *fds;                     /* per file, -1: not open */
    bool *kept;                   /* per file: found whole from an earlier run */
    bool *named;                  /* per file: has its final name already */
    _Atomic uint64_t *written;    /* per tensor: bytes */
};

#endif
