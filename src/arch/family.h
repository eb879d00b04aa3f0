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
#include "base/strbuf.h"

#define NB_CONFIG "config.json" /* what messages call the source */

/* How llama.cpp knows the family: what its files say beyond the common keys, and what its program
 * fixes. */
struct nb_arch_gguf_map {
    const char *architecture; /* general.architecture */
    const char *class_name;   /* for config.json's "architectures" */
    bool permute;             /* rows of q and k stand in pairs */
    bool all_biases;          /* of every linear; otherwise q, k and v only */
    bool rope_freqs;          /* takes a rope_freqs.weight */
    bool tied_only;           /* has no output.weight */
    bool local_rope;          /* freq_base_swa: layers with a window have a base of their own */
    int64_t window_period;    /* as nb_dense_traits; 0: the files say nothing of windows */
    double attn_softcap, final_softcap; /* where the keys are absent; 0: there is no such key */
    int64_t default_window;             /* where the key is absent; 0: none */
    int64_t odd_scale_layers; /* with this many layers q k^T is scaled by (hidden / heads)^-1/2 */
};

struct nb_arch_family {
    const char *model_type;
    /* arch is zeroed but for model_type; a failing fill leaves its memory to nb_arch_release. */
    int (*fill)(struct nb_arch *arch, const json_t *config, struct nb_err *err);
    struct nb_arch_gguf_map gguf;
};

extern const struct nb_arch_family nb_arch_llama, nb_arch_mistral, nb_arch_qwen2, nb_arch_qwen3,
    nb_arch_gemma2, nb_arch_gemma3_text, nb_arch_gemma3;

const struct nb_arch_family *nb_arch_family_of(const struct nb_arch *arch);
/* The family to read a GGUF architecture as, or NULL. */
const struct nb_arch_family *nb_arch_family_by_gguf(const char *architecture);
/* Architectures that nb_arch_family_by_gguf knows, "llama, qwen2, ...". */
void nb_arch_list_gguf(struct nb_strbuf *list);

/* Splits "<prefix>7.rest" into layer and rest; NULL when name is not inside a layer below n_layers.
 * prefix: with one %d. */
const char *nb_arch_inside_layer(const char *prefix, int64_t n_layers, const char *name,
                                 int64_t *layer);

enum nb_window_rule {
    NB_WINDOW_NEVER,      /* a sliding_window in the config means nothing */
    NB_WINDOW_EVERYWHERE, /* every layer; key absent: 4096, null: full attention */
    NB_WINDOW_BY_LAYER,   /* use_sliding_window, layer_types, max_window_layers */
    NB_WINDOW_PERIODIC    /* layer_types, or every layer but each window_period-th */
};

struct nb_dense_traits { /* defaults are the reference's, for keys that the config leaves out */
    bool qkv_bias, o_bias, mlp_bias, qk_norm;
    bool gemma; /* norms, scales, caps and names that Gemma 2 and 3 share */
    bool local_rope;
    enum nb_window_rule window;
    int64_t window_period;                /* of NB_WINDOW_PERIODIC */
    int64_t default_vocab, default_heads; /* 0: the key is required */
    int64_t default_kv_heads;             /* 0: as many as n_heads */
    int64_t default_head_dim;             /* 0: hidden_size / n_heads */
    int64_t default_max_position;
};

/* Reads what all dense decoders have in common and lays out linears, folds and names. */
int nb_arch_dense_plan(struct nb_arch *arch, const json_t *config,
                       const struct nb_dense_traits *traits, struct nb_err *err);

struct nb_gemma_defaults {
    double attn_softcap, final_softcap; /* for absent keys; 0: none */
    bool no_attn_softcap;               /* the key means nothing */
};
/* The dense plan and what Gemma 2 and 3 have besides. */
int nb_arch_gemma_plan(struct nb_arch *arch, const json_t *config, struct nb_dense_traits *traits,
                       const struct nb_gemma_defaults *defaults, struct nb_err *err);

/* rope_parameters, or rope_theta and rope_scaling; needs head_dim and max_position. */
int nb_arch_read_rope(struct nb_arch *arch, const json_t *config, struct nb_err *err);
/* The same where layers with a window have parameters of their own: rope_parameters with one object
 * per attention type, or rope_theta, rope_scaling and rope_local_base_freq. */
int nb_arch_read_rope_pair(struct nb_arch *arch, const json_t *config, struct nb_err *err);
/* What llama3 rope divides each of the head_dim/2 frequencies by. */
void nb_rope_llama3_factors(const struct nb_rope *rope, int64_t head_dim, float *out);
/* The cos/sin multiplier of yarn. */
double nb_rope_yarn_scaling(const struct nb_rope *rope);

#endif
