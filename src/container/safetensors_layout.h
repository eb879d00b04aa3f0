/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors_layout.h - where each planned tensor stands: shards, offsets, header and index texts.
 *
 * A pure function of the plan: no file is touched here. Private to container/. */
#ifndef NB_CONTAINER_SAFETENSORS_LAYOUT_H
#define NB_CONTAINER_SAFETENSORS_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "base/strbuf.h"
#include "core/tensor.h"

extern const char nb_st_index_name[]; /* "model.safetensors.index.json" */

struct nb_st_planned {
    char *name;
    enum nb_dtype dtype;
    int rank;
    int64_t shape[NB_MAX_RANK];
    uint64_t bytes;
    size_t shard;
    uint64_t offset; /* in the shard's data */
};

struct nb_st_shard {
    char name[64];
    char *head;        /* length, header and padding: what stands before the data */
    size_t head_bytes; /* a multiple of 64 */
    uint64_t file_bytes;
};

struct nb_st_layout {
    struct nb_st_planned *tensors; /* in the order of adding */
    size_t n_tensors;
    uint64_t bytes; /* of all tensors */
    struct nb_st_shard *shards;
    size_t n_shards;
};

/* Fills shard and offset of each tensor and makes the shards. max_shard_bytes 0: 5 GB. */
int nb_st_layout_make(struct nb_st_layout *l, uint64_t max_shard_bytes, const json_t *metadata,
                      struct nb_err *err);
void nb_st_layout_release(struct nb_st_layout *l);

/* Text of model.safetensors.index.json; by_name: tensor indices in name order. */
int nb_st_layout_index(const struct nb_st_layout *l, const size_t *by_name, struct nb_strbuf *out,
                       struct nb_err *err);

/* Is it a shard of this layout, or its index? */
bool nb_st_layout_has_file(const struct nb_st_layout *l, const char *name);
/* Is it a name that some layout would use: model.safetensors, a numbered shard, the index? */
bool nb_st_is_weight_name(const char *name);

#endif
