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
    bool untied_only;                   /* needs an output.weight */
    bool rope_dimensions;   /* says how much of a head is rotated, which may be less than all */
    bool rope_factors;      /* longrope: takes rope_factors_short.weight and _long.weight */
    bool window_key;        /* says the window, of all layers, and attends to everything */
    bool gelu;              /* the activation is gelu with tanh */
    bool layer_norm;        /* norms are LayerNorms */
    bool no_rope;           /* positions are learned, nothing is rotated */
    bool square_attention;  /* heads together are as wide as the hidden states */
    int64_t no_rope_period; /* every so-many-th layer is not rotated; 0: all are */
    /* Turns the common keys of a config.json into the family's own; NULL: they are the same. */
    int (*own_config)(json_t *config, struct nb_err *err);
    int64_t odd_scale_layers; /* with this many layers q k^T is scaled by (hidden / heads)^-1/2 */
};

struct nb_arch_family {
    const char *model_type;
    /* arch is zeroed but for model_type; a failing fill leaves its memory to nb_arch_release. */
    int (*fill)(struct nb_arch *arch, const json_t *config, struct nb_err *err);
    struct nb_arch_gguf_map gguf;
};

extern const struct nb_arch_family nb_arch_llama, nb_arch_mistral, nb_arch_qwen2, nb_arch_qwen3,
    nb_arch_gemma2, nb_arch_gemma3_text, nb_arch_gemma3, nb_arch_smollm3, nb_arch_phi3,
    nb_arch_olmo2, nb_arch_gpt2, nb_arch_mixtral, nb_arch_qwen2_moe, nb_arch_qwen3_moe;

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
    NB_WINDOW_LISTED,     /* use_sliding_window, layer_types; without a list every layer */
    NB_WINDOW_PERIODIC    /* layer_types, or every layer but each window_period-th */
};

struct nb_dense_traits { /* defaults are the reference's, for keys that the config leaves out */
    bool qkv_bias, o_bias, mlp_bias, qk_norm;
    bool fused;            /* qkv_proj and gate_up_proj */
    bool qk_norm_whole;    /* with qk_norm: over all heads at once */
    bool post_norm_only;   /* no norm before attention and MLP, one after each */
    bool partial_rotary;   /* partial_rotary_factor is obeyed; otherwise it must be 1 */
    bool yarn_is_longrope; /* rope_type yarn means longrope, as su does */
    bool tied;             /* tie_word_embeddings where the key is absent */
    bool gemma;            /* norms, scales, caps and names that Gemma 2 and 3 share */
    bool local_rope;
    enum nb_window_rule window;
    int64_t window_period;                /* of NB_WINDOW_PERIODIC */
    int64_t default_vocab, default_heads; /* 0: the key is required */
    int64_t default_kv_heads;             /* 0: as many as n_heads */
    int64_t default_head_dim;             /* 0: hidden_size / n_heads */
    int64_t default_max_position;
    int64_t default_original_position; /* of rope; 0: max_position */
    double default_theta;              /* 0: 10000 */
    double default_eps;                /* 0: 1e-6 */
};

/* For families with names of their own. name: inside the layer. */
void nb_arch_set_name(char out[NB_NAME_MAX], const char *name);
void nb_arch_add_linear(struct nb_arch *arch, const char *name, struct nb_arch_linear lin);
/* repeat: of struct nb_arch_fold. */
void nb_arch_add_fold(struct nb_arch *arch, struct nb_arch_fold fold, const char *from);

/* Reads what all dense decoders have in common and lays out linears, folds and names. */
int nb_arch_dense_plan(struct nb_arch *arch, const json_t *config,
                       const struct nb_dense_traits *traits, struct nb_err *err);

struct nb_moe_traits {
    const char *count_key; /* num_experts means the same */
    int64_t default_experts, default_top_k;
    int64_t default_size;   /* of moe_intermediate_size; 0: intermediate_size is meant */
    int64_t default_shared; /* of shared_expert_intermediate_size; 0: no shared expert */
    bool every_layer;       /* and weights are always scaled to sum 1; otherwise by config */
    bool mixtral_names;     /* block_sparse_moe.experts.0.w1 */
};

/* After nb_arch_dense_plan: fills arch->moe, or leaves it NULL when the config has no experts. */
int nb_arch_moe_plan(struct nb_arch *arch, const json_t *config, const struct nb_moe_traits *traits,
                     struct nb_err *err);
void nb_arch_moe_release(struct nb_arch *arch);

struct nb_gemma_defaults {
    double attn_softcap, final_softcap; /* for absent keys; 0: none */
    bool no_attn_softcap;               /* the key means nothing */
};
/* The dense plan and what Gemma 2 and 3 have besides. */
int nb_arch_gemma_plan(struct nb_arch *arch, const json_t *config, struct nb_dense_traits *traits,
                       const struct nb_gemma_defaults *defaults, struct nb_err *err);

/* rope_parameters, or rope_theta and rope_scaling, and how much of a head is rotated; needs head_dim and
 * max_position. */
int nb_arch_read_rope(struct nb_arch *arch, const json_t *config,
                      const struct nb_dense_traits *traits, struct nb_err *err);
/* The same where layers with a window have parameters of their own: rope_parameters with one object
 * per attention type, or rope_theta, rope_scaling and rope_local_base_freq. */
int nb_arch_read_rope_pair(struct nb_arch *arch, const json_t *config, struct nb_err *err);
/* What llama3 rope divides each of the head_dim/2 frequencies by. */
void nb_rope_llama3_factors(const struct nb_rope *rope, int64_t head_dim, float *out);
/* The cos/sin multipliers of yarn and longrope. */
double nb_rope_yarn_scaling(const struct nb_rope *rope);
double nb_rope_longrope_scaling(const struct nb_rope *rope);

#endif
