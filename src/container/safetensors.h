/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors.h - named tensors in one file or in a folder of shards; a planned, resumable writer.
 *
 * Bytes in, named views out; no idea what a weight means. Every rule of the format is enforced before
 * a tensor can be reached. Source: checkpoint formats, section 1. */
#ifndef NB_CONTAINER_SAFETENSORS_H
#define NB_CONTAINER_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "core/tensor.h"

/* One folder (index, or single file, or every *.safetensors when there is no index) or one file. */
struct nb_safetensors;

/* path: a folder or a .safetensors file. Files are mapped; views live until nb_safetensors_close. */
int nb_safetensors_open(struct nb_safetensors **out, const char *path, struct nb_err *err);
void nb_safetensors_close(struct nb_safetensors *st);

size_t nb_safetensors_count(const struct nb_safetensors *st);
/* i-th tensor by name (byte order). */
const struct nb_tensor *nb_safetensors_at(const struct nb_safetensors *st, size_t i);
size_t nb_safetensors_index_of(const struct nb_safetensors *st,
                               const struct nb_tensor *t); /* inverse of _at */
const struct nb_tensor *nb_safetensors_find(const struct nb_safetensors *st, const char *name);
/* Shard files, in name order: bare names; and the file of a tensor. */
size_t nb_safetensors_file_count(const struct nb_safetensors *st);
const char *nb_safetensors_file_name(const struct nb_safetensors *st, size_t i);
const char *nb_safetensors_file_of(const struct nb_safetensors *st, const struct nb_tensor *t);
uint64_t nb_safetensors_bytes(const struct nb_safetensors *st); /* tensor bytes */
/* The tensor's pages are not needed again soon. */
void nb_safetensors_drop(const struct nb_safetensors *st, const struct nb_tensor *t);
/* The same of a part of its data. */
void nb_safetensors_drop_part(const struct nb_safetensors *st, const struct nb_tensor *t,
                              struct nb_span part);

/* Parses and checks one file image (what the fuzzer calls): header rules only, no I/O. `what` names the
 * file in messages. On success *tensors (nb_free) holds *n views into image, names owned by *header
 * (json_decref after use). */
int nb_safetensors_parse(struct nb_span image, const char *what, struct nb_tensor **tensors,
                         size_t *n, json_t **header, struct nb_err *err);

/* Parses and checks the text of a *.safetensors.index.json. *weight_map (json_decref): tensor name ->
 * file, each file a bare name ending in .safetensors. */
int nb_safetensors_parse_index(const char *text, size_t bytes, const char *what,
                               json_t **weight_map, struct nb_err *err);

/* ---- writing: first the plan (all names, types and shapes), then data in any order ---- */

struct nb_st_writer;

struct nb_st_writer_opts {
    const char *dir;          /* existing folder */
    uint64_t max_shard_bytes; /* 0: 5 GB; a larger tensor gets its own shard */
    bool resume;            /* keep shards that are there with the planned size; else create anew */
    const json_t *metadata; /* extra string pairs for __metadata__ beside format=pt, or NULL */
};

struct nb_st_writer *nb_st_writer_new(void);
/* Adds one tensor to the plan. The layout is a function of the plan alone: tensors fill shards in the
 * order of adding; inside a shard those with wider elements come first (so that each is aligned to its
 * element), otherwise the order of adding holds. name is copied. */
int nb_st_writer_plan(struct nb_st_writer *w, const char *name, enum nb_dtype dtype, int rank,
                      const int64_t *shape, struct nb_err *err);
uint64_t nb_st_writer_bytes(const struct nb_st_writer *w); /* tensor bytes planned so far */
/* Assigns shards, creates the files at full length (posix_fallocate: a full disk is noticed here, with
 * the bytes missing, NB_E_NOSPACE, and what this call created is removed again), writes headers (data
 * 64-byte aligned in the file) and index. Shards and index of another plan are removed from dir. */
int nb_st_writer_open(struct nb_st_writer *w, const struct nb_st_writer_opts *opts,
                      struct nb_err *err);
/* Writes the whole data of a planned tensor at its place. bytes must match the plan. Thread-safe. */
int nb_st_writer_put(struct nb_st_writer *w, const char *name, const void *data, size_t bytes,
                     struct nb_err *err);
/* Writes a piece of it, at `offset` bytes into the tensor, each byte once, in any order. Thread-safe. */
int nb_st_writer_put_at(struct nb_st_writer *w, const char *name, uint64_t offset, const void *data,
                        size_t bytes, struct nb_err *err);
int nb_st_writer_sync(struct nb_st_writer *w, struct nb_err *err); /* fsync what was written */
/* Checks that every planned tensor was put (tensors of a resumed earlier run are told by _mark) and closes. */
int nb_st_writer_finish(struct nb_st_writer *w, struct nb_err *err);
/* The tensor was written by an earlier run. NB_E_FORMAT when its shard had to be created anew. */
int nb_st_writer_mark(struct nb_st_writer *w, const char *name, struct nb_err *err);
/* Shards of the plan (valid after open): how many, and the bare name of the i-th; more than one shard
 * also means a model.safetensors.index.json. */
size_t nb_st_writer_shard_count(const struct nb_st_writer *w);
const char *nb_st_writer_shard_name(const struct nb_st_writer *w, size_t i);
void nb_st_writer_free(struct nb_st_writer *w); /* closes without finishing */

#endif
