/* SPDX-License-Identifier: Apache-2.0
 *
 * engine.h - the narrow waist: an engine (loaded weights, read only) and sessions (tokens, KV
 * cache).
 *
 * Two ways to run it: whole, for evaluation and generation; and layer by layer and input by input,
 * for the quantization pipeline, which replaces weights between the steps. f32 arithmetic
 * throughout. */
#ifndef NB_ENGINE_ENGINE_H
#define NB_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "backend/backend.h"
#include "base/err.h"
#include "base/rng.h"
#include "checkpoint/checkpoint.h"

struct nb_engine;
struct nb_session;

/* model and be are borrowed and must outlive the engine. Dense weights stay mapped; quantized
 * linears are packed by the kernel that fits. */
int nb_engine_new(struct nb_engine **out, const struct nb_model *model, struct nb_backend *be,
                  struct nb_err *err);
void nb_engine_free(struct nb_engine *e);
const struct nb_arch *nb_engine_arch(const struct nb_engine *e);
struct nb_backend *nb_engine_backend(const struct nb_engine *e); /* the one it was made with */

/* ---- whole model ---- */

/* Hidden states after the final norm of n tokens that start a fresh sequence: hidden[n,
 * hidden_size]. No KV is kept. Ids must be below vocab_size (NB_E_FORMAT otherwise). */
int nb_engine_hidden(struct nb_engine *e, const int32_t *ids, int64_t n, float *hidden,
                     struct nb_err *err);
/* logits[m, vocab_size] of m hidden states. */
void nb_engine_logits(struct nb_engine *e, const float *hidden, int64_t m, float *logits);

/* max_tokens: room for prompt and continuation; the KV cache (f32) is taken at once. The engine is
 * borrowed. */
int nb_session_new(struct nb_session **out, struct nb_engine *e, int64_t max_tokens,
                   struct nb_err *err);
void nb_session_free(struct nb_session *s);
int64_t nb_session_length(const struct nb_session *s);
/* Feeds n tokens (prefill or one decode step); logits[vocab_size] of the last one, or NULL.
 * Allocates nothing. NB_E_FORMAT for a bad id, NB_E_SPEC when max_tokens would be exceeded; the
 * session is unchanged then. With dynamic rope, keys keep the base of the length at which they were
 * fed, as in the reference. */
int nb_session_eval(struct nb_session *s, const int32_t *ids, int64_t n, float *logits,
                    struct nb_err *err);

struct nb_sampling {
    double temperature;  /* 0: greedy, ties go to the lower id */
    int64_t top_k;       /* 0: off */
    double top_p, min_p; /* 1, 0: off */
};
/* One id from n logits. temperature first, then top_k, top_p, min_p, each over what the one before
 * left; entries that tie with the last one kept stay. scratch: n floats. Allocates nothing. */
int32_t nb_sample(const float *logits, int64_t n, const struct nb_sampling *s, struct nb_rng *rng,
                  float *scratch);

/* ---- layer by layer ---- */

struct nb_layer; /* one decoder layer with f32 norms and linears that can be replaced */

int nb_layer_load(struct nb_layer **out, const struct nb_model *model, int64_t index,
                  struct nb_backend *be, struct nb_err *err);
void nb_layer_free(struct nb_layer *l);
/* From now on linear i (index in nb_arch_layer_linears) multiplies by w [N,K] f32, bias [N] or NULL; w is
 * borrowed and must outlive the layer, bias is copied. */
int nb_layer_replace(struct nb_layer *l, int i, const float *w, const float *bias,
                     struct nb_err *err);
/* Effective norm weight [hidden] f32 in force (arch->norm_offset is in it, the file's tensor is
 * without), writable (AWQ folds): name as arch->attn_norm_name / mlp_norm_name. NULL: there is no norm
 * before this input. Its bias [hidden], writable too; NULL but for LayerNorms. */
float *nb_layer_norm(struct nb_layer *l, enum nb_input input);
float *nb_layer_norm_bias(struct nb_layer *l, enum nb_input input);

/* out [n, hidden] = final norm of h [n, hidden]: the input of the head. out may be h. */
int nb_layer_final_norm(const struct nb_model *model, struct nb_backend *be, const float *h,
                        int64_t n, float *out, struct nb_err *err);
/* Embeds the n tokens of one sequence from its start: h[n, hidden_size]. NB_E_SPEC when learned
 * positions end before. */
int nb_layer_embed(const struct nb_model *model, struct nb_backend *be, const int32_t *ids,
                   int64_t n, float *h, struct nb_err *err);

/* Width of an input: hidden_size, n_heads*head_dim, hidden_size, intermediate_size; the widest where
 * layers differ. */
int64_t nb_input_width(const struct nb_arch *arch, enum nb_input input);
/* The same of one layer. */
int64_t nb_layer_input_width(const struct nb_layer *l, enum nb_input input);

struct nb_layer_io { /* n_windows independent sequences of t tokens from position 0 */
    float *h;        /* residual stream [n_windows * t, hidden], updated in place */
    const float *x;  /* the previous input of the same windows; unused for NB_INPUT_ATTN */
    float *y;        /* the next input [n_windows * t, nb_input_width]; may not overlap x */
    int64_t n_windows, t;
};
/* One step:
 *   ATTN: y = norm(h)                  O:    y = attention(q(x), k(x), v(x))
 *   MLP:  h += o(x); y = norm(h)       DOWN: y = act(gate(x)) * up(x)
 * A plain MLP has no gate: y = act(up(x)). Where an input has no norm, y = h.
 * A layer with experts: DOWN: y = what the experts give [hidden], nb_layer_finish: h += x. Others:
 * nb_layer_finish: h += down(x). With arch->post_norm, o(x) and down(x) are normalized before they
 * are added. */
int nb_layer_step(struct nb_layer *l, enum nb_input input, const struct nb_layer_io *io,
                  struct nb_err *err);
/* From now on fn sees, at each step O and sequence by sequence, the keys and values that attention sees (after rope),
 * n floats each. */
typedef void (*nb_layer_kv_fn)(void *ctx, const float *k, const float *v, int64_t n);
void nb_layer_watch_kv(struct nb_layer *l, nb_layer_kv_fn fn, void *ctx);
int nb_layer_finish(struct nb_layer *l, float *h, const float *x, int64_t n_windows, int64_t t,
                    struct nb_err *err);

/* ---- a layer with experts, piece by piece; expert n_experts is the shared one ---- */

/* expert, weight [n, top_k]: which experts get each of n tokens x [n, hidden], and how much each counts. */
int nb_layer_route(struct nb_layer *l, const float *x, int64_t n, int32_t *expert, float *weight,
                   struct nb_err *err);
/* weight [n]: how much the shared expert counts. */
void nb_layer_shared_weight(struct nb_layer *l, const float *x, int64_t n, float *weight);

struct nb_expert_rows {
    const float *x;
    float *y;
    int64_t n;
};
/* y [n, width] = act(gate(x)) * up(x), x [n, hidden]; scratch as large as y. */
void nb_layer_expert_inner(struct nb_layer *l, int64_t expert, const struct nb_expert_rows *rows,
                           float *scratch);
/* y [n, hidden] = down(x), x [n, width]. */
void nb_layer_expert_outer(struct nb_layer *l, int64_t expert, const struct nb_expert_rows *rows);

#endif
