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
    NB_ROPE_YARN,
    NB_ROPE_LONGROPE
};

struct nb_rope {
    enum nb_rope_kind kind;
    double theta, factor;
    double low_freq_factor, high_freq_factor; /* llama3 */
    double beta_fast, beta_slow;              /* yarn */
    double attention_factor;                  /* yarn, longrope; 0: from the formula */
    double mscale, mscale_all_dim;            /* yarn, optional */
    bool truncate;                            /* yarn */
    int64_t original_max_position;
    /* longrope: [rotary_dim/2] factors of sequences up to original_max_position, and of longer ones;
     * owned by the arch */
    double *short_factor, *long_factor;
};

enum nb_hidden_act {
    NB_HIDDEN_ACT_SILU,
    NB_HIDDEN_ACT_GELU,
    NB_HIDDEN_ACT_GELU_TANH,
    NB_HIDDEN_ACT_RELU
};

/* What a linear is for; the engine finds its operands by role. A fused linear is one matrix on disk
 * and in every output: QKV has the rows of q, then k, then v, GATE_UP those of gate, then up. An MLP
 * with neither GATE nor GATE_UP is plain: down(act(up(x))). */
enum nb_role {
    NB_ROLE_Q,
    NB_ROLE_K,
    NB_ROLE_V,
    NB_ROLE_O,
    NB_ROLE_GATE,
    NB_ROLE_UP,
    NB_ROLE_DOWN,
    NB_ROLE_QKV,
    NB_ROLE_GATE_UP,
    NB_ROLE_COUNT
};

/* Inputs inside a decoder layer in the order of computation. Linears with the same input share
 * it. */
enum nb_input { NB_INPUT_ATTN, NB_INPUT_O, NB_INPUT_MLP, NB_INPUT_DOWN, NB_INPUT_COUNT };

/* Which of a layer's MLPs a linear belongs to. */
enum nb_branch {
    NB_BRANCH_MAIN,   /* attention, and the MLP of a layer without experts */
    NB_BRANCH_EXPERT, /* one that the router picks */
    NB_BRANCH_SHARED  /* the expert that sees every token */
};

struct nb_arch_linear {
    enum nb_role role;
    enum nb_input input;
    char name[NB_NAME_MAX]; /* inside the layer, without ".weight": "self_attn.q_proj" */
    int64_t rows, cols;     /* N, K */
    bool bias;              /* a bias tensor must be there */
    enum nb_branch branch;
    int expert;      /* of NB_BRANCH_EXPERT: which, from 0; else 0 */
    bool transposed; /* a float weight lies in Hugging Face's files as [K,N] (Conv1D) */
};

/* Mixture of experts: some layers have many small MLPs, of which a router picks a few per token. */
struct nb_arch_moe {
    int64_t n_experts, top_k;
    int64_t expert_size,
        shared_size; /* width of an MLP; shared_size 0: there is no shared expert */
    bool norm_topk;  /* the weights of the chosen experts are scaled to sum 1 */
    int n_linears,
        first_expert; /* expert e: gate, up, down at first_expert + 3 e; shared after all */
    struct nb_arch_linear *linears; /* of a layer with experts; owned */
    bool *layers;                   /* [n_layers] has experts; owned */
    int64_t *first;                 /* [n_layers + 1] linears of the layers before; owned */
    /* Inside the layer. [n_experts, hidden]; [1, hidden] or empty. */
    char router_name[NB_NAME_MAX], shared_gate_name[NB_NAME_MAX];
    /* Where a file has all experts' weights of a kind in one tensor instead, gate's rows before up's:
     * [n_experts, 2 expert_size, hidden], [n_experts, hidden, expert_size]. */
    char stacked_up_name[NB_NAME_MAX], stacked_down_name[NB_NAME_MAX];
};

enum nb_fold_kind {
    NB_FOLD_NORM, /* effective weight /= s of a norm (norm_offset + what the file holds), and bias */
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
    int64_t
        first_row; /* of a linear: where the rows that feed `to` begin (fused linears), K/repeat many */
};

struct nb_arch {
    char model_type[32];
    int64_t vocab_size, hidden_size, n_layers, n_heads, n_kv_heads, head_dim, intermediate_size;
    int64_t max_position;
    int64_t rotary_dim;  /* leading dimensions of a head that positions rotate; 0: none does */
    double rms_norm_eps; /* of whichever kind of norm */
    double norm_offset;  /* an RMSNorm multiplies by norm_offset + weight: 0, or 1 */
    double embed_scale;  /* embeddings are multiplied by it, in f32 */
    double attn_scale;   /* of q k^T; usually 1 / sqrt(head_dim) */
    double attn_softcap, final_softcap; /* c * tanh(z / c) of scores and logits; 0: none */
    enum nb_hidden_act hidden_act;
    bool tie_word_embeddings, qk_norm;
    bool qk_norm_whole; /* q and k are normalized over all their heads at once, not head by head */
    bool layer_norm;    /* norms are LayerNorms, with the biases named below */
    bool post_norm;  /* attention and MLP are normalized once more before they join the residual */
    bool local_rope; /* layers with a window use rope_local */
    struct nb_rope rope, rope_local;
    int64_t *window; /* [n_layers] sliding window in tokens, 0: full attention; owned */
    bool *no_rope;   /* [n_layers] q and k are not rotated; NULL: rotated everywhere; owned */
    int n_linears;
    struct nb_arch_linear
        linears[NB_MAX_LINEARS]; /* of every layer without experts; see nb_arch_layer_linears */
    struct nb_arch_moe *moe;     /* NULL: no layer has experts; owned */
    int n_folds;
    struct nb_arch_fold folds[NB_MAX_FOLDS];
    char layer_prefix
        [NB_NAME_MAX]; /* "model.layers.%d." with exactly one %d; expand with nb_arch_name */
    char embed_name[NB_NAME_MAX];    /* "model.embed_tokens.weight" */
    char norm_name[NB_NAME_MAX];     /* "model.norm.weight" */
    char head_name[NB_NAME_MAX];     /* "lm_head.weight"; absent from the files when tied */
    char position_name[NB_NAME_MAX]; /* learned positions [max_position, hidden]; empty: none */
    char optional_prefix[16]; /* older files leave it out of all names: see nb_arch_drop_prefix */
    char attn_norm_name[NB_NAME_MAX],
        mlp_norm_name[NB_NAME_MAX]; /* inside the layer, with ".weight"; empty: there is none */
    char norm_bias_name[NB_NAME_MAX], attn_norm_bias_name[NB_NAME_MAX],
        mlp_norm_bias_name[NB_NAME_MAX];                     /* with layer_norm */
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
/* Layer l rotates q and k. */
bool nb_arch_uses_rope(const struct nb_arch *arch, int64_t l);
/* Width of the norm of q (key false) or k, as its weight has it. */
int64_t nb_arch_qk_norm_width(const struct nb_arch *arch, bool key);
/* All names without optional_prefix, for files that have it nowhere. */
void nb_arch_drop_prefix(struct nb_arch *arch);
/* The linears of layer l, *n of them: attention first. Layers may differ, and experts make many. */
const struct nb_arch_linear *nb_arch_layer_linears(const struct nb_arch *arch, int64_t l, int *n);
int nb_arch_count_linears(const struct nb_arch *arch, int64_t l);
/* Number of the first linear of layer l when those of all layers are counted through, in order; with l
 * n_layers, how many there are. */
int64_t nb_arch_first_linear(const struct nb_arch *arch, int64_t l);
bool nb_arch_has_experts(const struct nb_arch *arch, int64_t l);
/* Linears of experts are called as most families call them, for files that do so. */
void nb_arch_use_plain_expert_names(struct nb_arch *arch);
/* Shape of a tensor that holds all experts' weights of a kind; false: `name` is none. */
bool nb_arch_stacked_shape(const struct nb_arch *arch, const char *name, int64_t shape[3]);
/* Which of these has an expert's linear (*name inside the layer), and from which row on when its first two
 * dimensions are taken as one. */
void nb_arch_stacked_at(const struct nb_arch *arch, const struct nb_arch_linear *lin,
                        const char **name, int64_t *row);
/* Folds into an MLP of experts are none: its input also goes to the router, which stays as it is. */
bool nb_arch_fold_applies(const struct nb_arch *arch, int64_t l, const struct nb_arch_fold *fold);
/* Of a layer without experts. */
const struct nb_arch_linear *nb_arch_linear_of(const struct nb_arch *arch, enum nb_role role);
int64_t nb_arch_parameters(const struct nb_arch *arch); /* weights and biases, tied head once */

/* Shape that tensor `name` must have in a folder's files for this config: rank, shape. False: not a tensor of this
 * architecture (rotary caches and the like are listed as droppable by nb_arch_is_ignorable). */
bool nb_arch_expected_shape(const struct nb_arch *arch, const char *name, int *rank,
                            int64_t shape[2]);
bool nb_arch_is_ignorable(const struct nb_arch *arch, const char *name);
/* A tensor of the checkpoint that text needs nothing of: the images' part of a model for both. */
bool nb_arch_is_other_part(const struct nb_arch *arch, const char *name);

/* inv_freq [rotary_dim/2] and the cos/sin multiplier of rope (one of arch's) for a sequence of `length`
 * tokens (only dynamic and longrope depend on it). Every step is rounded to f32 where the reference implementation
 * (transformers 5, modeling_rope_utils) rounds, so that long positions get the same angles. */
void nb_rope_frequencies(const struct nb_arch *arch, const struct nb_rope *rope, int64_t length,
                         double *inv_freq, double *scaling);

#endif
