/* SPDX-License-Identifier: Apache-2.0
 *
 * layer.h - one decoder layer and the memory it computes in; inside engine/ only. */
#ifndef NB_ENGINE_LAYER_H
#define NB_ENGINE_LAYER_H

#include "engine/engine.h"

/* cos and sin of positions [first, first + n), [n, rotary_dim/2] each, scaled; once for the rotary
 * parameters of all layers and, with local_rope, once for those of layers with a window. */
struct nb_rope_angles {
    float *cos_t, *sin_t;
    double *inv_freq, scaling;
};
struct nb_rope_table {
    struct nb_rope_angles all, local;
    int64_t capacity, first, n;
    int64_t length; /* sequence length the frequencies are for; matters to dynamic and longrope */
};
/* Memory for `capacity` positions; a table that has it is left alone, a smaller one is made
 * anew. */
int nb_rope_table_reserve(struct nb_rope_table *t, const struct nb_arch *arch, int64_t capacity,
                          struct nb_err *err);
/* Positions [first, first + n) of a sequence of `length` tokens, n <= capacity. Allocates nothing;
 * does nothing when they are there. */
void nb_rope_table_fill(struct nb_rope_table *t, const struct nb_arch *arch, int64_t first,
                        int64_t n, int64_t length);
void nb_rope_table_release(struct nb_rope_table *t);

struct nb_layer {
    const struct nb_arch *arch;
    struct nb_backend *be;
    int64_t index;
    /* Effective norm weights (norm_offset added). */
    float *attn_norm, *mlp_norm;           /* [hidden], NULL: no norm before this input */
    float *attn_norm_bias, *mlp_norm_bias; /* [hidden], NULL but for LayerNorms */
    float *post_attn_norm, *post_mlp_norm; /* [hidden], NULL without post_norm */
    float *q_norm, *k_norm;                /* [head_dim], or of all heads; NULL without qk_norm */
    const struct nb_arch_linear *plan;     /* nb_arch_layer_linears */
    int n_linears;
    struct nb_linear *linears;  /* [n_linears] */
    struct nb_arena arena;      /* of weights that run where they lie and had to be copied */
    int by_role[NB_ROLE_COUNT]; /* role in NB_BRANCH_MAIN -> index, or -1 */
    struct nb_linear router, shared_gate; /* of a layer with experts */
    /* Only used by the layer API; the whole-model path brings its own. */
    struct nb_rope_table rope;
    float *scratch;
    int64_t scratch_tokens;
    nb_layer_kv_fn kv_fn;
    void *kv_ctx;
};

/* One sequence (or a stretch of it) going through a layer. */
struct nb_pass {
    int64_t t;                        /* tokens fed now */
    int64_t past;                     /* tokens before them */
    const struct nb_rope_table *rope; /* from the first token fed */
    float *k, *v;                     /* [past + t, kv width]; the last t rows are written */
    float *scratch;                   /* nb_pass_scratch_floats(arch) * t */
};
int64_t nb_pass_scratch_floats(const struct nb_arch *arch); /* per token */
int64_t nb_pass_width(const struct nb_arch *arch);          /* widest input */

/* The steps of engine.h for one sequence. y may not overlap x. */
void nb_layer_pass(struct nb_layer *l, enum nb_input input, const struct nb_pass *p, float *h,
                   const float *x, float *y);
void nb_layer_pass_finish(struct nb_layer *l, const struct nb_pass *p, float *h, const float *x);

int nb_layer_load_norms(struct nb_layer *l, const struct nb_model *model, struct nb_err *err);
const struct nb_linear *nb_layer_linear(const struct nb_layer *l, enum nb_role role);
enum nb_act_fn nb_layer_act_fn(enum nb_hidden_act act);
/* y = attention(q(x), k(x), v(x)): NB_INPUT_O. */
void nb_layer_attend(struct nb_layer *l, const struct nb_pass *p, const float *x, float *y);
/* y[m, hidden] = norm(h) of NB_INPUT_ATTN or NB_INPUT_MLP; h itself where there is none. */
void nb_layer_input_norm(struct nb_layer *l, enum nb_input input, float *y, const float *h,
                         int64_t m);

/* The norm in whichever form the architecture has it: a LayerNorm where there is a bias. */
void nb_engine_norm_rows(struct nb_backend *be, const struct nb_norm *norm, float *y,
                         const float *x, int64_t m);
/* What a norm multiplies by, f32 [n] (norm_offset added); nb_free. name: inside the layer, or of the
 * model. */
int nb_model_norm_weight(float **out, const struct nb_model *model, const char *name, int64_t n,
                         struct nb_err *err);
/* What a LayerNorm adds. */
int nb_model_norm_bias(float **out, const struct nb_model *model, const char *name, int64_t n,
                       struct nb_err *err);

#endif
