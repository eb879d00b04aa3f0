/* SPDX-License-Identifier: Apache-2.0
 *
 * family.h - what one family of architectures adds to the common plan; inside arch/ only.
 *
 * A family is one constant: its model_type and a function that reads the config. Dense decoders
 * (RMSNorm, rotary attention, gated MLP) differ in little, so they state their traits and share
 * nb_arch_dense_plan. */
#ifndef NB_ARCH_FAMILY_H
#define NB_ARCH_FAMILY_H

#include "arch/arch.h"

#define NB_CONFIG "config.json" /* what messages call the source */

struct nb_arch_family {
    const char *model_type;
    /* arch is zeroed but for model_type; a failing fill leaves its memory to nb_arch_release. */
    int (*fill)(struct nb_arch *arch, const json_t *config, struct nb_err *err);
};

extern const struct nb_arch_family nb_arch_llama, nb_arch_mistral, nb_arch_qwen2, nb_arch_qwen3;

enum nb_window_rule {
    NB_WINDOW_NEVER,      /* a sliding_window in the config means nothing */
    NB_WINDOW_EVERYWHERE, /* every layer; key absent: 4096, null: full attention */
    NB_WINDOW_BY_LAYER    /* use_sliding_window, layer_types, max_window_layers */
};

struct nb_dense_traits { /* defaults are the reference's, for keys that the config leaves out */
    bool qkv_bias, o_bias, mlp_bias, qk_norm;
    enum nb_window_rule window;
    int64_t default_kv_heads; /* 0: as many as n_heads */
    int64_t default_head_dim; /* 0: hidden_size / n_heads */
    int64_t default_max_position;
};

/* Reads what all dense decoders have in common and lays out linears, folds and names. */
int nb_arch_dense_plan(struct nb_arch *arch, const json_t *config,
                       const struct nb_dense_traits *traits, struct nb_err *err);

/* rope_parameters, or rope_theta and rope_scaling; needs head_dim and max_position. */
int nb_arch_read_rope(struct nb_arch *arch, const json_t *config, struct nb_err *err);

#endif
