/* SPDX-License-Identifier: Apache-2.0
 *
 * internal.h - what the files of checkpoint/ share: the rows of the table and lookups with messages. */
#ifndef NB_CHECKPOINT_INTERNAL_H
#define NB_CHECKPOINT_INTERNAL_H

#include "checkpoint/checkpoint.h"
#include "core/tensor.h"
#include "text/vocab.h"

extern const struct nb_checkpoint nb_checkpoint_gptq;
extern const struct nb_checkpoint nb_checkpoint_gptq_v2;
extern const struct nb_checkpoint nb_checkpoint_awq;
extern const struct nb_checkpoint nb_checkpoint_bnb;
extern const struct nb_checkpoint nb_checkpoint_ct;
extern const struct nb_checkpoint nb_checkpoint_fp8;
extern const struct nb_checkpoint nb_checkpoint_dense;

enum { NB_MODULE_NAME_MAX = NB_NAME_MAX * 2 + 32 }; /* module path and suffix */

/* The quantization config of config.json, or of a side file in dir. *out NULL: a float model. */
int nb_quant_config_find(const json_t *config, const char *dir, json_t **out, struct nb_err *err);
/* quant_method in lower case, or what the other keys say; "" when nothing tells. */
void nb_quant_config_method(const json_t *quant_config, char out[32]);
/* The row that reads it. NB_E_SPEC names the method and what can be read. */
int nb_quant_config_checkpoint(const json_t *quant_config, const struct nb_checkpoint **out,
                               struct nb_err *err);

/* First of `keys` (NULL-terminated) that is there and not null; NULL if none. */
const json_t *nb_quant_config_any(const json_t *quant_config, const char *const *keys);
/* An integer under one of several names; fallback when none is there. */
int nb_quant_config_int(const json_t *quant_config, const char *const *keys,
                        const int64_t *fallback, int64_t *out, struct nb_err *err);
/* group_size or q_group_size: -1 or at least 1. */
int nb_quant_config_group(const json_t *quant_config, int64_t *out, struct nb_err *err);
/* String in lower case under one of several names; `fallback` when none is there. */
int nb_quant_config_word(const json_t *quant_config, const char *const *keys, const char *fallback,
                         char out[32], struct nb_err *err);

/* Tensor path + suffix, NULL if there is none (or no tensors, as when only a config is examined). */
const struct nb_tensor *nb_module_tensor(const struct nb_model *m, const char *path,
                                         const char *suffix);
/* Same for one that must be there as planned: type (for F16 also BF16 or F32) and shape. */
int nb_module_need(const struct nb_model *m, const char *path, const struct nb_packed_tensor *want,
                   const struct nb_tensor **out, struct nb_err *err);
/* One tensor of a plan: rank 0 to 2 by how many of a, b are not -1. */
void nb_packed_set(struct nb_packed_tensor *t, const char *suffix, enum nb_dtype dtype, int64_t a,
                   int64_t b);
/* Does the file hold path.qweight, or at least no path.weight? For configs that name no modules. */
bool nb_module_looks_quantized(const struct nb_model *m, const char *path);
/* Is path the output head ("lm_head")? */
bool nb_module_is_head(const struct nb_model *m, const char *path);

/* Module names as engines with fused layers spell them. Fills out with the fused path of a q/k/v or
 * gate/up projection and returns true; false for others. */
bool nb_module_fused_path(const char *path, char out[NB_MODULE_NAME_MAX]);
/* The name inside the layer: what follows the component that is a number. NULL outside layers. */
const char *nb_module_inside_layer(const char *path);
bool nb_module_same_grid(const struct nb_qspec *a, const struct nb_qspec *b);
/* Group sizes that loaders share (32 to 256) and that divide K; `largest` is the format's own limit. */
bool nb_module_group_usable(int64_t group, int64_t cols, int64_t largest);
void nb_module_usable_groups(int64_t cols, int64_t largest, char out[32]); /* "32, 64", or "" */
/* Does act-order show in the file? With one group per row g_idx is 0 throughout. */
bool nb_module_has_order(const struct nb_qspec *spec, bool desc_act);

/* As nb_imatrix_add without looking for the name; nb_imatrix_sort must follow, which puts the entries in order and
 * refuses two of one name. */
struct nb_imatrix_entry *nb_imatrix_append(struct nb_imatrix *im, const char *name, int64_t cols,
                                           int64_t n_mat, struct nb_err *err);
int nb_imatrix_sort(struct nb_imatrix *im, const char *what, struct nb_err *err);

/* Names of the norms inside a layer that this architecture has, and of their biases; returns how many. */
enum { NB_MAX_NORMS = 8 };
int nb_model_norms(const struct nb_arch *arch, const char *names[NB_MAX_NORMS]);

/* ---- GGUF files as models: gguf_model.c ---- */

/* m->gguf is open: config, arch and table from it. */
int nb_gguf_table_open(struct nb_model *m, struct nb_err *err);
void nb_gguf_table_close(struct nb_gguf_table *t);
int nb_gguf_table_vector(const struct nb_model *m, const char *name, struct nb_tensor *out,
                         struct nb_err *err);
/* Weight by module path ("model.layers.0.mlp.up_proj"); arena NULL: must not need memory. */
int nb_gguf_table_weight(const struct nb_model *m, const struct nb_module_ref *ref,
                         struct nb_arena *arena, struct nb_weight *out, struct nb_err *err);
int nb_gguf_scan_finite(const struct nb_model *m, struct nb_err *err);
bool nb_gguf_tensor_is_finite(const struct nb_gguf_tensor *t, size_t *at);
int nb_gguf_identity(const struct nb_model *m, struct nb_sha256 *h, struct nb_err *err);
/* The vocabulary in metadata; v is initialized here and released by the caller, also after an error. */
int nb_gguf_read_vocab(const struct nb_gguf *g, struct nb_vocab *v, struct nb_err *err);
int nb_gguf_write_vocab(struct nb_gguf_writer *w, const struct nb_vocab *v, struct nb_err *err);

/* As nb_model_tokenizer_json, of a vocabulary by itself; nb_vocab_spm_json for model "llama". */
int nb_vocab_tokenizer_json(const struct nb_vocab *v, json_t **tokenizer, struct nb_strbuf *notes,
                            struct nb_err *err);
int nb_vocab_spm_json(const struct nb_vocab *v, json_t **tokenizer, struct nb_strbuf *notes,
                      struct nb_err *err);
/* Parts of a tokenizer.json: a text, "vocab", "added_tokens", "post_processor" (add_bos: where the vocabulary
 * does not say). NULL: no memory, or a text that is no UTF-8. */
json_t *nb_vocab_text_json(struct nb_span s);
json_t *nb_vocab_ids_json(const struct nb_vocab *v);
json_t *nb_vocab_added_json(const struct nb_vocab *v);
json_t *nb_vocab_template_json(const struct nb_vocab *v, bool add_bos);
/* Bare file name of a part of the set. */
const char *nb_gguf_part_name(const struct nb_gguf *g, size_t part);
/* Is path (file or folder) for nb_gguf_open rather than for a config.json? */
bool nb_gguf_is_model(const char *path);

/* Ledger: every tensor of the architecture is there, none is left over. */
int nb_model_check_ledger(const struct nb_model *m, struct nb_err *err);

#endif
