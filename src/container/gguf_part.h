/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_part.h - one parsed GGUF file, and the handle made of one or more. Private to container/. */
#ifndef NB_CONTAINER_GGUF_PART_H
#define NB_CONTAINER_GGUF_PART_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/file.h"
#include "base/strbuf.h"
#include "container/gguf.h"

struct nb_gguf_part {
    char *path; /* names the file in messages */
    struct nb_map map;
    struct nb_span image; /* map.span, or the caller's bytes */
    uint32_t version, alignment;
    struct nb_gguf_kv *kvs; /* in file order */
    size_t *by_key;         /* indices of kvs in key order */
    size_t n_kvs;
    struct nb_gguf_tensor *tensors; /* in file order */
    size_t n_tensors;
    struct nb_strbuf keys, names; /* NUL-terminated, one after the other */
};

struct nb_gguf {
    struct nb_gguf_part *parts;
    size_t n_parts;
    struct nb_gguf_tensor *tensors; /* of all parts */
    size_t *by_name;                /* indices of tensors in name order */
    size_t n_tensors;
    uint64_t bytes;
};

/* Fills p from p->image under the rules of a single file. On error p is left for _release. */
int nb_gguf_part_parse(struct nb_gguf_part *p, struct nb_err *err);
void nb_gguf_part_release(struct nb_gguf_part *p);

const struct nb_gguf_kv *nb_gguf_part_find(const struct nb_gguf_part *p, const char *key);
/* The record with this key and exactly this type; *out NULL when it is missing and not required. */
int nb_gguf_part_get(const struct nb_gguf_part *p, const char *key, bool required,
                     enum nb_gguf_value type, const struct nb_gguf_kv **out, struct nb_err *err);

/* Name of a type that was taken out of the format, else NULL. */
const char *nb_gguf_type_removed(int64_t id);

/* Size of a tensor, every ne[] >= 0, with every product checked: less than 2^63 elements and bytes.
 * NB_E_FORMAT otherwise, or when a row is no whole number of blocks. */
int nb_gguf_tensor_bytes(const struct nb_gguf_type *type, const int64_t ne[NB_GGUF_MAX_DIMS],
                         const char *where, uint64_t *bytes, struct nb_err *err);

#endif
