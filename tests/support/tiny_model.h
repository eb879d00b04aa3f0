/* SPDX-License-Identifier: Apache-2.0
 *
 * tiny_model.h - model folders of a few kilobytes: a two-layer llama with some linears packed. */
#ifndef TESTS_SUPPORT_TINY_MODEL_H
#define TESTS_SUPPORT_TINY_MODEL_H

#include "checkpoint/checkpoint.h"

/* hidden 128 (4 heads, 2 of them for keys), intermediate 192 (no multiple of 128), vocabulary 32, head untied */
json_t *tiny_config(void); /* new reference */

struct tiny_packed { /* the packed tensors of one linear */
    const char *path;
    int n;
    struct nb_packed_tensor tensor[NB_MAX_PACKED];
};

struct tiny_opts {
    json_t *config;                   /* instead of tiny_config(); borrowed */
    json_t *quant_config;             /* for config.json, or NULL; borrowed */
    const struct tiny_packed *packed; /* linears that are not dense */
    size_t n_packed;
    const char *omit;    /* a tensor to leave out, or NULL */
    const char *extra;   /* a tensor to add (F16 [1]), or NULL */
    uint16_t head_first; /* instead of the first element of the head (F16 bits), 0: as it is */
};

/* Writes config.json and weights (F16, seeded) to dir. */
void tiny_write(const char *dir, const struct tiny_opts *opts);

struct tiny_matrix {
    struct nb_qspec spec;
    int64_t rows, cols;
    int zero_min;
    bool act_order; /* groups of columns shuffled */
    uint64_t seed;
};

/* Random codes, F16 scales of either sign, zeros that zero_min and spec allow. Memory from arena. */
void tiny_random_qmat(struct nb_qmat *q, const struct tiny_matrix *what, struct nb_arena *arena);

struct nb_qspec tiny_spec(int bits, int64_t group, bool symmetric); /* integer codes, F16 scales */

#endif
