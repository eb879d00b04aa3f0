/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf.h - the same model in GGUF's words and in Hugging Face's: metadata and config.json, tensor
 * names, and what happens to the data on the way.
 *
 * Everything goes through struct nb_arch: HF -> GGUF writes metadata and names from it; GGUF -> HF
 * makes a config.json that nb_arch_from_config reads like any other. A family states its
 * architecture name and what is peculiar to it in its own file. Metadata travels as JSON, because
 * containers are no business of this folder. Source: GGUF specification, sections 2.1 to 2.4. */
#ifndef NB_ARCH_GGUF_H
#define NB_ARCH_GGUF_H

#include "arch/arch.h"

/* "llama" (Llama, Mistral), "qwen2", "gemma3", "phi3", ... */
const char *nb_arch_gguf_architecture(const struct nb_arch *arch);

/* ---- tensors ---- */

enum nb_arch_gguf_change { /* HF -> GGUF; undone in the other direction */
                           NB_ARCH_GGUF_AS_IS,
                           NB_ARCH_GGUF_PERMUTE_ROWS, /* q and k of architecture llama, weights and biases */
                           NB_ARCH_GGUF_ADD_ONE,  /* Gemma's norms, in f32 */
                           NB_ARCH_GGUF_TRANSPOSE /* of float weights that lie as [in, out] */
};

struct nb_arch_gguf_tensor {
    char name[NB_NAME_MAX * 2]; /* what the other side calls it */
    enum nb_arch_gguf_change change;
    int64_t heads; /* of PERMUTE_ROWS: the rows are this many heads */
};

/* hf_name -> GGUF name, gguf_name -> HF name. False: the architecture has no such tensor under that
 * name (lm_head.weight of a tied model counts as none). GGUF shapes are HF's reversed. */
bool nb_arch_gguf_from_hf(const struct nb_arch *arch, const char *hf_name,
                          struct nb_arch_gguf_tensor *out);
bool nb_arch_gguf_to_hf(const struct nb_arch *arch, const char *gguf_name,
                        struct nb_arch_gguf_tensor *out);

/* Row of the HF tensor that GGUF's row r holds, and the other way; rows % (2 * heads) == 0. */
int64_t nb_arch_gguf_hf_row(int64_t rows, int64_t heads, int64_t r);
int64_t nb_arch_gguf_row(int64_t rows, int64_t heads, int64_t hf_row);

/* rope_freqs.weight, F32 [head_dim/2], which angles are divided by. Returns the number of values, 0
 * when the model has none; out holds head_dim/2. */
#define NB_ARCH_GGUF_ROPE_FREQS "rope_freqs.weight"
int64_t nb_arch_gguf_rope_freqs(const struct nb_arch *arch, float *out);

/* Tensors of factors that angles are divided by, F32 [rotary_dim/2]: rope_freqs.weight, or for longrope one
 * for short contexts and one for long. Name of the i-th, and its values in out; NULL: there is none. */
#define NB_ARCH_GGUF_ROPE_SHORT "rope_factors_short.weight"
#define NB_ARCH_GGUF_ROPE_LONG "rope_factors_long.weight"
enum { NB_ARCH_GGUF_MAX_FACTORS = 2 };
const char *nb_arch_gguf_rope_factors(const struct nb_arch *arch, int i, float *out);

/* ---- metadata ---- */

/* The keys of arch, general.architecture first, as a list of {"key", "type", "value"}; types are "u32",
 * "f32", "bool", "string", and "bool[]" with a list as value. Tokenizer, general.name, file_type and
 * the like are the caller's. *notes: a list of sentences on what GGUF or llama.cpp cannot say but is
 * harmless within bounds (a sliding window of Mistral). Both owned by the caller (json_decref).
 * NB_E_SPEC when llama.cpp would compute something else from any file of that architecture. */
int nb_arch_gguf_metadata(const struct nb_arch *arch, json_t **list, json_t **notes,
                          struct nb_err *err);

struct nb_arch_gguf_facts { /* what config.json says and only the tensors know */
    int64_t vocab_size;     /* rows of token_embd.weight */
    bool has_output;        /* output.weight is there: the head is not tied */
    bool has_qkv_bias, has_o_bias,
        has_mlp_bias;        /* blk.0.attn_q or attn_qkv, attn_output, ffn_down .bias */
    const float *rope_freqs; /* rope_freqs.weight, or NULL */
    int64_t n_rope_freqs;
    const float *rope_short, *rope_long; /* rope_factors_short.weight and _long.weight, or NULL */
    int64_t n_rope_short, n_rope_long;
    const char *dtype; /* "bfloat16", "float16", "float32": the config's; NULL leaves it out */
};

/* metadata: one object {key: value} with integers, reals, booleans, strings and lists as GGUF has them
 * (tokenizer arrays may be left out). *config: as Hugging Face would have it, owned by the caller. It
 * gives a Mistral back as a llama. bos and eos come from tokenizer.ggml.*.
 * NB_E_FORMAT: a key is missing, of the wrong type or out of bounds (sections 1.6 M1 and 2.1); NB_E_SPEC:
 * an architecture, or a use of one, that is not supported (experts, values that differ by layer). */
int nb_arch_gguf_config(const json_t *metadata, const struct nb_arch_gguf_facts *facts,
                        json_t **config, struct nb_err *err);

#endif
