/* SPDX-License-Identifier: Apache-2.0
 *
 * arch.h - config.json -> what the model computes: sizes, rope, layer plan, tensor names.
 *
 * One file per family fills struct nb_arch; nobody else asks for the model_type. The layer plan
 * says which linears exist, which of them share an input (one Hessian, one true-sequential step),
 * and into what an input scale may be folded. Source: algorithms, sections 1.2 and 4.5. */
#ifndef NB_ARCH_ARCH_H
#define NB_ARCH_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/json.h"
#include "core/dtype.h"

enum { NB_NAME_MAX = 96, NB_MAX_LINEARS = 8, NB_MAX_FOLDS = 4, NB_MAX_LAYERS = 4096 };

enum nb_rope_kind {
    NB_ROPE_DEFAULT,
    NB_ROPE_LINEAR,
    NB_ROPE_DYNAMIC,
    NB_ROPE_LLAMA3,
    NB_ROPE_YARN
};

struct nb_rope {
    enum nb_rope_kind kind;
    double theta, factor;
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn */
    double attention_factor;                  /* yarn; 0: from the formula */
    double mscale, mscale_all_dim;            /* yarn, optional */
    bool truncate;                            /* yarn */
    int64_t original_max_position;
};

enum nb_hidden_act {
    NB_HIDDEN_ACT_SILU,
    NB_HIDDEN_ACT_GELU,
    NB_HIDDEN_ACT_GELU_TANH,
    NB_HIDDEN_ACT_RELU
};

/* What a linear is for; the engine finds its operands by role. */
enum nb_role { NB_ROLE_Q, NB_ROLE_K, NB_ROLE_V, NB_ROLE_O, NB_ROLE_GATE, NB_ROLE_UP, NB_ROLE_DOWN };

/* Inputs inside a decoder layer in the order of computation. Linears with the same input share
 * it. */
enum nb_input { NB_INPUT_ATTN, NB_INPUT_O, NB_INPUT_MLP, NB_INPUT_DOWN, NB_INPUT_COUNT };

struct nb_arch_linear {
    enum nb_role role;
    enum nb_input input;
    char name[NB_NAME_MAX]; /* inside the layer, without ".weight": "self_attn.q_proj" */
    int64_t rows, cols;     /* N, K */
    bool bias;              /* a bias tensor must be there */
};

enum nb_fold_kind {
    NB_FOLD_NORM,  /* effective weight /= s of an RMSNorm: norm_offset + what the file holds */
    NB_FOLD_LINEAR /* output rows and bias of another linear /= s */
};

struct nb_arch_fold { /* x -> diag(1/s) x can be absorbed by `from` */
    enum nb_fold_kind kind;
    enum nb_input to;
    char
        from[NB_NAME_MAX]; /* inside the layer: attn_norm_name, mlp_norm_name, or a linear's name */
    int64_t
        repeat; /* GQA: each of from's channels feeds this many query heads' copies; 1 otherwise */
    int64_t head_dim; /* with repeat > 1: channel layout is [kv_head][repeat][head_dim]; else 0 */
};

struct nb_arch {
    char model_type[32];
    int64_t vocab_size, hidden_size, n_layers, n_heads, n_kv_heads, head_dim, intermediate_size;
    int64_t max_position;
    double rms_norm_eps;
    double norm_offset;                 /* an RMSNorm multiplies by norm_offset + weight: 0, or 1 */
    double embed_scale;                 /* embeddings are multiplied by it, in f32 */
    double attn_scale;                  /* of q k^T; usually 1 / sqrt(head_dim) */
    double attn_softcap, final_softcap; /* c * tanh(z / c) of scores and logits; 0: none */
    enum nb_hidden_act hidden_act;
    bool tie_word_embeddings, qk_norm;
    bool post_norm;  /* attention and MLP are normalized once more before they join the residual */
    bool local_rope; /* layers with a window use rope_local */
    struct nb_rope rope, rope_local;
    int64_t *window; /* [n_layers] sliding window in tokens, 0: full attention; owned */
    int n_linears;
    struct nb_arch_linear linears[NB_MAX_LINEARS]; /* the same plan for every layer */
    int n_folds;
    struct nb_arch_fold folds[NB_MAX_FOLDS];
    char layer_prefix
        [NB_NAME_MAX]; /* "model.layers.%d." with exactly one %d; expand with nb_arch_name */
    char embed_name[NB_NAME_MAX]; /* "model.embed_tokens.weight" */
    char norm_name[NB_NAME_MAX];  /* "model.norm.weight" */
    char head_name[NB_NAME_MAX];  /* "lm_head.weight"; absent from the files when tied */
    char attn_norm_name[NB_NAME_MAX],
        mlp_norm_name[NB_NAME_MAX];                          /* inside the layer, with ".weight" */
    char q_norm_name[NB_NAME_MAX], k_norm_name[NB_NAME_MAX]; /* empty without qk_norm */
    char post_attn_norm_name[NB_NAME_MAX], post_mlp_norm_name[NB_NAME_MAX]; /* with post_norm */
    const char *const *other_parts; /* prefixes of tensors beside the text model, NULL at the end */
    enum nb_dtype dtype;            /* config's (torch_)dtype; BF16 when absent */
    int64_t bos_id, eos_ids[8];     /* -1: none */
    int n_eos;
};

/* config: parsed config.json. Fills *arch; release with nb_arch_release. NB_E_SPEC for an unknown
 * model_type (the text lists the known ones), NB_E_FORMAT for a bad or missing field. */
int nb_arch_from_config(struct nb_arch *arch, const json_t *config, struct nb_err *err);
void nb_arch_release(struct nb_arch *arch);

/* Full tensor or module name of `name` inside layer l. out holds NB_NAME_MAX * 2 bytes. */
void nb_arch_name(const struct nb_arch *arch, int64_t l, const char *name,
                  char out[NB_NAME_MAX * 2]);

/* NULL-terminated list of the model types that nb_arch_from_config takes. */
const char *const *nb_arch_known_types(void);

/* Layer l takes rope_local, not rope. */
bool nb_arch_uses_local_rope(const struct nb_arch *arch, int64_t l);
const struct nb_arch_linear *nb_arch_linear_of(const struct nb_arch *arch, enum nb_role role);
int64_t nb_arch_parameters(const struct nb_arch *arch); /* weights and biases, tied head once */

/* Shape that tensor `name` must have for this config: rank, shape. False: not a tensor of this
 * architecture (rotary caches and the like are listed as droppable by nb_arch_is_ignorable). */
bool nb_arch_expected_shape(const struct nb_arch *arch, const char *name, int *rank,
                            int64_t shape[2]);
bool nb_arch_is_ignorable(const struct nb_arch *arch, const char *name);
/* A tensor of the checkpoint that text needs nothing of: the images' part of a model for both. */
bool nb_arch_is_other_part(const struct nb_arch *arch, const char *name);

/* inv_freq [head_dim/2] and the cos/sin multiplier of rope (one of arch's) for a sequence of `length`
 * tokens (only dynamic depends on it). Every step is rounded to f32 where the reference implementation
 * (transformers 5, modeling_rope_utils) rounds, so that long positions get the same angles. */
void nb_rope_frequencies(const struct nb_arch *arch, const struct nb_rope *rope, int64_t length,
                         double *inv_freq, double *scaling);

#endif
