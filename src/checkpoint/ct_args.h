/* SPDX-License-Identifier: Apache-2.0
 *
 * ct_args.h - compressed-tensors' quantization args: what numbers a weight or an input is in.
 *
 * One args object says it for weights, another for input activations; with the name of a format they make a
 * scheme, which is what config_groups holds. Source: checkpoint formats, sections 5.1, 5.2, 5.9. */
#ifndef NB_CHECKPOINT_CT_ARGS_H
#define NB_CHECKPOINT_CT_ARGS_H

#include "base/json.h"
#include "core/qmat.h"

enum nb_ct_strategy {
    NB_CT_TENSOR,
    NB_CT_CHANNEL,
    NB_CT_GROUP,
    NB_CT_BLOCK,
    NB_CT_TOKEN,
    NB_CT_TENSOR_GROUP,
    NB_CT_ATTN_HEAD
};

enum nb_ct_dynamic { NB_CT_STATIC, NB_CT_DYNAMIC, NB_CT_LOCAL };

struct nb_ct_args {
    int64_t bits;
    bool is_float, symmetric;
    enum nb_ct_strategy strategy;
    int64_t group;    /* GROUP and TENSOR_GROUP; else 0 */
    int64_t block[2]; /* BLOCK: rows, columns */
    enum nb_ct_dynamic dynamic;
    bool g_idx;     /* actorder group: weight_g_idx says which group a column is in */
    bool exponents; /* scale_dtype uint8: scales are powers of two */
};

/* Which tensors hold a weight. */
enum nb_ct_layout {
    NB_CT_PACKED, /* weight_packed I32 */
    NB_CT_PLAIN,  /* weight I8 or F8_E4M3 */
    NB_CT_NVFP4,  /* weight_packed U8, weight_scale F8_E4M3, weight_global_scale */
    NB_CT_MXFP4,  /* weight_packed U8, weight_scale U8 */
    NB_CT_MXFP8   /* weight F8_E4M3, weight_scale U8 */
};

struct nb_ct_scheme {
    const char *name; /* of its group; borrowed from the config */
    bool quantized;   /* false: a group that leaves its modules float */
    enum nb_ct_layout layout;
    bool g_idx;
    struct nb_qspec spec; /* scale_dtype of F16, BF16, F32 scales: what the file has */
};

/* Refused as the library refuses it: unknown keys, strategies that do not fit group_size, block_structure or
 * dynamic. `what` begins each message. */
int nb_ct_args_parse(struct nb_ct_args *out, const json_t *args, const char *what,
                     struct nb_err *err);

/* One group of config_groups. format: of the whole config, for groups that name none; may be NULL. A group may be a
 * list of targets when its name is a preset. *targets: borrowed list of names. */
int nb_ct_scheme_parse(struct nb_ct_scheme *out, const char *name, const json_t *group,
                       const char *format, const json_t **targets, struct nb_err *err);

/* What a preset's name means, as the group would say it, without targets. New reference; NULL: no preset. */
json_t *nb_ct_preset(const char *name);

#endif
