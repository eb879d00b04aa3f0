/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf.h - GGUF files: metadata by key, tensors by name, split sets; a planned, resumable writer.
 *
 * Bytes in, named views out; no idea what a key or a weight means. Every rule of the format is enforced
 * before a value or a tensor can be reached. Source: GGUF specification, section 1. */
#ifndef NB_CONTAINER_GGUF_H
#define NB_CONTAINER_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/json.h"
#include "base/span.h"

/* ---- tensor types ---- */

enum { NB_GGUF_TYPE_IDS = 43, NB_GGUF_MAX_DIMS = 4, NB_GGUF_MAX_NAME = 63, NB_GGUF_ALIGN = 32 };

struct
    nb_gguf_type { /* how many bytes a tensor of this type has; what they mean is not our business */
    const char *name; /* "Q4_K" */
    int id;           /* ggml_type */
    int elems, bytes; /* per block */
};

/* NULL: unknown, or one of the ids that were taken out of the format. */
const struct nb_gguf_type *nb_gguf_type_by_id(int64_t id);

/* ---- reading ---- */

enum nb_gguf_value { /* value types, as numbered in files */
                     NB_GGUF_U8,
                     NB_GGUF_I8,
                     NB_GGUF_U16,
                     NB_GGUF_I16,
                     NB_GGUF_U32,
                     NB_GGUF_I32,
                     NB_GGUF_F32,
                     NB_GGUF_BOOL,
                     NB_GGUF_STRING,
                     NB_GGUF_ARRAY,
                     NB_GGUF_U64,
                     NB_GGUF_I64,
                     NB_GGUF_F64,
                     NB_GGUF_VALUES
};

const char *nb_gguf_value_name(enum nb_gguf_value type); /* "uint32" */
size_t nb_gguf_value_bytes(enum nb_gguf_value type);     /* 0: string, array */

struct nb_gguf_kv {          /* one metadata record */
    const char *key;         /* never empty */
    enum nb_gguf_value type; /* NB_GGUF_ARRAY: count elements of type elem */
    enum nb_gguf_value elem; /* of a value that is no array: its own type */
    uint64_t count;          /* of a value that is no array: 1 */
    /* As it stands in the file, little-endian, not aligned. A string: its text (not terminated, may
     * hold any byte). An array of strings: length and text of each, see nb_gguf_strings. */
    struct nb_span data;
};

struct nb_gguf_tensor {
    const char *name; /* 1 to 63 bytes */
    const struct nb_gguf_type *type;
    int n_dims;                   /* as the file says: 0 (one element) to 4 */
    int64_t ne[NB_GGUF_MAX_DIMS]; /* ne[0] contiguous; missing ones are 1 */
    size_t part;                  /* file of a split set that holds it */
    struct nb_span data;          /* exactly the size that type and ne say */
};

struct nb_gguf;

/* path: a .gguf file; the first file of a split set PREFIX-00001-of-000NN.gguf, whose others are opened
 * too; or a folder that holds exactly one model of either kind. Files are mapped, no tensor data is
 * read; views live until nb_gguf_close. */
int nb_gguf_open(struct nb_gguf **out, const char *path, struct nb_err *err);
/* One file image, no I/O (what the fuzzer calls). `what` names it in messages; the image must outlive
 * the handle. A part of a split set is taken as it is, without the others. */
int nb_gguf_parse(struct nb_gguf **out, struct nb_span image, const char *what, struct nb_err *err);
void nb_gguf_close(struct nb_gguf *g);

uint32_t nb_gguf_version(const struct nb_gguf *g);   /* of the first part: 2 or 3 */
uint32_t nb_gguf_alignment(const struct nb_gguf *g); /* of the first part */
size_t nb_gguf_part_count(const struct nb_gguf *g);
const char *nb_gguf_part_path(const struct nb_gguf *g, size_t i);
uint64_t nb_gguf_part_bytes(const struct nb_gguf *g, size_t i); /* of the file */

/* Tensors in file order (part after part). */
size_t nb_gguf_count(const struct nb_gguf *g);
const struct nb_gguf_tensor *nb_gguf_at(const struct nb_gguf *g, size_t i);
const struct nb_gguf_tensor *nb_gguf_find(const struct nb_gguf *g, const char *name); /* or NULL */
uint64_t nb_gguf_bytes(const struct nb_gguf *g); /* tensor bytes without padding */
/* The tensor's pages are not needed again soon. */
void nb_gguf_drop(const struct nb_gguf *g, const struct nb_gguf_tensor *t);

/* Metadata of the first part, in file order. */
size_t nb_gguf_kv_count(const struct nb_gguf *g);
const struct nb_gguf_kv *nb_gguf_kv_at(const struct nb_gguf *g, size_t i);
const struct nb_gguf_kv *nb_gguf_kv_find(const struct nb_gguf *g, const char *key); /* or NULL */

/* Typed getters. The stored type must be exactly the one asked for (NB_E_FORMAT: "<file>: key '<key>'
 * is int32, expected uint32"). With `required` false a missing key leaves *out alone. */
int nb_gguf_get_u16(const struct nb_gguf *g, const char *key, bool required, uint16_t *out,
                    struct nb_err *err);
int nb_gguf_get_u32(const struct nb_gguf *g, const char *key, bool required, uint32_t *out,
                    struct nb_err *err);
int nb_gguf_get_i32(const struct nb_gguf *g, const char *key, bool required, int32_t *out,
                    struct nb_err *err);
int nb_gguf_get_f32(const struct nb_gguf *g, const char *key, bool required, float *out,
                    struct nb_err *err);
int nb_gguf_get_bool(const struct nb_gguf *g, const char *key, bool required, bool *out,
                     struct nb_err *err);
/* The text as a span: any bytes, not terminated. */
int nb_gguf_get_string(const struct nb_gguf *g, const char *key, bool required, struct nb_span *out,
                       struct nb_err *err);
/* An array whose elements are of exactly this type; NULL when it is missing and not required. */
int nb_gguf_get_array(const struct nb_gguf *g, const char *key, bool required,
                      enum nb_gguf_value elem, const struct nb_gguf_kv **out, struct nb_err *err);
/* An array of strings as kv->count spans into the file: *out to be freed with nb_free, NULL with *n = 0
 * when the key is missing and not required. */
int nb_gguf_get_strings(const struct nb_gguf *g, const char *key, bool required,
                        struct nb_span **out, size_t *n, struct nb_err *err);

/* i-th element of an array of that type, i < kv->count. */
static inline uint32_t nb_gguf_u32_at(const struct nb_gguf_kv *kv, uint64_t i)
{
    uint32_t v;
    memcpy(&v, kv->data.data + i * sizeof v, sizeof v);
    return v;
}
static inline int32_t nb_gguf_i32_at(const struct nb_gguf_kv *kv, uint64_t i)
{
    return (int32_t)nb_gguf_u32_at(kv, i);
}
static inline float nb_gguf_f32_at(const struct nb_gguf_kv *kv, uint64_t i)
{
    float v;
    memcpy(&v, kv->data.data + i * sizeof v, sizeof v);
    return v;
}
/* Walks an array of strings: *at is 0 before the first; false behind the last. */
bool nb_gguf_string_next(const struct nb_gguf_kv *kv, size_t *at, struct nb_span *out);

/* A value as JSON (json_decref): the first max_elems elements of an array. float32 becomes the shortest
 * decimal that reads back as it, a number that JSON lacks null, bytes that are no UTF-8 U+FFFD. NULL:
 * no memory. */
json_t *nb_gguf_kv_json(const struct nb_gguf_kv *kv, size_t max_elems);
/* All metadata as an object, key -> value, without arrays of more than max_elems elements. NULL and *err
 * when there is no memory. Keys that are no UTF-8 are left out. */
json_t *nb_gguf_metadata_json(const struct nb_gguf *g, size_t max_elems, struct nb_err *err);

/* ---- writing: metadata and the plan (all names, types, shapes) first, then data in any order ---- */

struct nb_gguf_writer;

struct nb_gguf_writer_opts {
    const char *path;        /* the file to make, ending in .gguf; a split set is named after it */
    uint64_t max_part_bytes; /* 0: one file. Else no file is larger, unless one tensor is */
    bool resume; /* keep files of this very plan that an earlier run left; else create anew */
};

struct nb_gguf_writer *nb_gguf_writer_new(void);
void nb_gguf_writer_free(struct nb_gguf_writer *w); /* closes without finishing; files stay */

/* Metadata, in the order of the first set; a key set again keeps its place and takes the new value. Keys
 * are copied. Refused: keys that are not printable ASCII, general.alignment (we always write 32),
 * split.* (the writer's own), empty arrays. */
int nb_gguf_writer_set_u32(struct nb_gguf_writer *w, const char *key, uint32_t v,
                           struct nb_err *err);
int nb_gguf_writer_set_f32(struct nb_gguf_writer *w, const char *key, float v, struct nb_err *err);
int nb_gguf_writer_set_bool(struct nb_gguf_writer *w, const char *key, bool v, struct nb_err *err);
int nb_gguf_writer_set_string(struct nb_gguf_writer *w, const char *key, const char *text,
                              struct nb_err *err);
/* Any number type (bool: one byte): value points to one such number. */
int nb_gguf_writer_set(struct nb_gguf_writer *w, const char *key, enum nb_gguf_value type,
                       const void *value, struct nb_err *err);
int nb_gguf_writer_set_bytes(struct nb_gguf_writer *w, const char *key, struct nb_span text,
                             struct nb_err *err); /* a string of any bytes */
int nb_gguf_writer_set_array(struct nb_gguf_writer *w, const char *key, enum nb_gguf_value elem,
                             const void *values, size_t n, struct nb_err *err);
int nb_gguf_writer_set_strings(struct nb_gguf_writer *w, const char *key,
                               const struct nb_span *strings, size_t n, struct nb_err *err);
/* As llama.cpp wants to find it: an integer as uint32, a real (10000.0, too) as float32, bool, string; an
 * array as int32, float32, bool or string elements. NB_E_SPEC for what fits none of these. */
int nb_gguf_writer_set_json(struct nb_gguf_writer *w, const char *key, const json_t *v,
                            struct nb_err *err);
/* A record of another file, unchanged. Skipped: general.alignment, split.*, empty arrays. */
int nb_gguf_writer_copy(struct nb_gguf_writer *w, const struct nb_gguf_kv *kv, struct nb_err *err);

/* Adds one tensor; data lie in the order of adding. ne[0] contiguous; trailing dimensions of 1 are not
 * written. NB_E_SPEC: a name that is empty or longer than 63 bytes, an unknown type, a row that is no whole
 * number of blocks, a dimension below 1. */
int nb_gguf_writer_plan(struct nb_gguf_writer *w, const char *name, int type, int n_dims,
                        const int64_t *ne, struct nb_err *err);
uint64_t nb_gguf_writer_bytes(const struct nb_gguf_writer *w); /* tensor bytes planned so far */

/* Lays the files out and creates them at full length under their names plus ".tmp" (posix_fallocate: a
 * full disk is noticed here, with the bytes missing, NB_E_NOSPACE, and what this call created is removed
 * again), headers written. The bytes of the files are a function of metadata, plan and data alone. */
int nb_gguf_writer_open(struct nb_gguf_writer *w, const struct nb_gguf_writer_opts *opts,
                        struct nb_err *err);
/* Writes the whole data of a planned tensor at its place. bytes must match the plan. Thread-safe. */
int nb_gguf_writer_put(struct nb_gguf_writer *w, const char *name, const void *data, size_t bytes,
                       struct nb_err *err);
/* Writes a piece of it, at `offset` bytes into the tensor. Each byte exactly once. Thread-safe. */
int nb_gguf_writer_put_at(struct nb_gguf_writer *w, const char *name, uint64_t offset,
                          const void *data, size_t bytes, struct nb_err *err);
/* The tensor was written by an earlier run. NB_E_FORMAT when its file had to be created anew. */
int nb_gguf_writer_mark(struct nb_gguf_writer *w, const char *name, struct nb_err *err);
int nb_gguf_writer_sync(struct nb_gguf_writer *w, struct nb_err *err); /* flush what was written */
/* Checks that every planned tensor is there, flushes, gives the files their names. */
int nb_gguf_writer_finish(struct nb_gguf_writer *w, struct nb_err *err);
/* Gives up: closes, and removes the files that are not finished. For who does not resume. */
void nb_gguf_writer_discard(struct nb_gguf_writer *w);
/* Files of the plan (valid after open): how many, and the path of the i-th (without ".tmp"). */
size_t nb_gguf_writer_part_count(const struct nb_gguf_writer *w);
const char *nb_gguf_writer_part_path(const struct nb_gguf_writer *w, size_t i);
uint64_t nb_gguf_writer_part_bytes(const struct nb_gguf_writer *w, size_t i);

#endif
