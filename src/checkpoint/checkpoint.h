/* SPDX-License-Identifier: Apache-2.0
 *
 * checkpoint.h - an ecosystem's convention inside a container: model folders in, model folders out.
 *
 * A checkpoint maps qmat to one ecosystem's tensors and config and back; file quirks (zero minus one,
 * interleaved nibbles) end here. struct nb_model is an opened source: config, architecture, tensors. */
#ifndef NB_CHECKPOINT_CHECKPOINT_H
#define NB_CHECKPOINT_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

#include "arch/arch.h"
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/sha256.h"
#include "base/strbuf.h"
#include "checkpoint/gguf_out.h"
#include "checkpoint/gguf_types.h"
#include "checkpoint/imatrix.h"
#include "container/gguf.h"
#include "container/safetensors.h"
#include "core/weight.h"

struct nb_checkpoint; /* one row of the table */
struct nb_tokenizer;

/* ---- reading ---- */

struct nb_model {
    char *dir;            /* the folder, or the GGUF file */
    json_t *config;       /* config.json; of a GGUF file what it would say */
    json_t *quant_config; /* quantization config, from config.json or a side file; NULL: float */
    struct nb_arch arch;
    struct nb_safetensors *tensors; /* NULL: a GGUF file */
    struct nb_gguf *gguf;           /* NULL: a folder */
    struct nb_gguf_table *table; /* its tensors by Hugging Face's names; inside checkpoint/ only */
    const struct nb_checkpoint
        *checkpoint;        /* who reads the linears; the dense one for float models */
    void *checkpoint_state; /* parsed quant config, owned by checkpoint */
    char note
        [256]; /* one sentence on what looks wrong in the files but was read all the same; or empty */
};

/* Opens a folder (config, arch, tensors), a GGUF file, the first file of a split set, or a folder without
 * config.json that holds one of these; checks that every tensor of the architecture is there with its
 * shape (dense or quantized) and that none is left over; vocabulary etc. is the caller's business. Reads
 * no tensor data but for a few words, and the norms and biases of a GGUF file. NB_E_NOTFOUND (no config or
 * weights), NB_E_SPEC (architecture or quantization that we cannot read, by name), NB_E_FORMAT. */
int nb_model_open(struct nb_model **out, const char *dir, struct nb_err *err);
void nb_model_close(struct nb_model *m);

/* Float tensor by its Hugging Face name and as Hugging Face means it (a GGUF file's norms are brought back),
 * NB_E_FORMAT if missing, NB_E_SPEC if the file has it in blocks or with its rows in another order. */
int nb_model_tensor(const struct nb_model *m, const char *name, struct nb_tensor *out,
                    struct nb_err *err);
/* Token embedding [vocab, hidden], rows by nb_weight_row; lives as long as the model. */
int nb_model_embedding(const struct nb_model *m, struct nb_weight *out, struct nb_err *err);
/* Learned positions [max_position, hidden] of an architecture that has them; the same otherwise. */
int nb_model_positions(const struct nb_model *m, struct nb_weight *out, struct nb_err *err);
/* The output head; of a tied model the embedding. Memory as for nb_model_linear. */
int nb_model_head(const struct nb_model *m, struct nb_arena *arena, struct nb_weight *out,
                  struct nb_err *err);

/* Weight of linear `lin` of layer l. A quantized one is unpacked into arena; a dense one is a view; one of a
 * GGUF file is a view too, or rows copied into arena where the file has them in another order, as is a dense
 * one that lies transposed. */
int nb_model_linear(const struct nb_model *m, int64_t l, const struct nb_arch_linear *lin,
                    struct nb_arena *arena, struct nb_weight *out, struct nb_err *err);
/* The tensor of all experts that has the weight of expert linear `lin` from row *row on, its first two dimensions
 * taken as one; NULL: there is none. */
const struct nb_tensor *nb_model_stacked(const struct nb_model *m, int64_t l,
                                         const struct nb_arch_linear *lin, int64_t *row);
/* nb_model_linear for any module path ("lm_head"), shape given. */
struct nb_module_ref {
    const char *path;
    int64_t rows, cols;
};
int nb_model_module(const struct nb_model *m, const struct nb_module_ref *ref,
                    struct nb_arena *arena, struct nb_weight *out, struct nb_err *err);

/* All tensors of the files, by name (a GGUF file's in file order, under its own names). */
struct nb_model_tensor {
    const char *name, *type, *file; /* type: "BF16", "Q4_K"; file: bare name */
    int rank;
    int64_t shape[NB_MAX_RANK]; /* C order */
    struct nb_span data;
};
size_t nb_model_tensor_count(const struct nb_model *m);
void nb_model_tensor_at(const struct nb_model *m, size_t i, struct nb_model_tensor *out);
uint64_t nb_model_bytes(const struct nb_model *m);    /* of all tensors */
size_t nb_model_file_count(const struct nb_model *m); /* files that hold them */
/* The pages of layer l's tensors, or with l -1 of all others, are not needed again soon. */
void nb_model_drop_layer(const struct nb_model *m, int64_t l);
/* Are there weights that are not plain floats? */
bool nb_model_is_quantized(const struct nb_model *m);

/* Tokenizer of an opened model: its folder's tokenizer.json, or the vocabulary of the GGUF file. */
bool nb_model_has_tokenizer(const struct nb_model *m);
int nb_model_tokenizer(struct nb_tokenizer **out, const struct nb_model *m, struct nb_err *err);
/* Tokenizer of whatever nb_model_open takes, without opening the rest. */
int nb_model_tokenizer_at(struct nb_tokenizer **out, const char *path, struct nb_err *err);

/* tokenizer.json and tokenizer_config.json with the vocabulary of a GGUF file (json_decref). *tokenizer NULL and a
 * line in notes: there is none that would give the same ids. */
int nb_model_tokenizer_json(const struct nb_model *m, json_t **tokenizer, json_t **config,
                            struct nb_strbuf *notes, struct nb_err *err);
/* Ids at which generation ends, by the vocabulary of a GGUF file; *n 0 for a folder. */
int nb_model_end_ids(const struct nb_model *m, int32_t *ids, size_t max, size_t *n,
                     struct nb_err *err);

/* NaN/Inf scan of every tensor (F16/BF16/F32, and the blocks of a GGUF file): NB_E_FORMAT names the first bad
 * tensor and element. */
int nb_model_scan_finite(const struct nb_model *m, struct nb_pool *pool, struct nb_err *err);
bool nb_model_tensor_is_finite(const struct nb_model *m,
                               const char *name); /* true for other types */

/* SHA-256 over config.json, the quantization side file (of a GGUF file: its metadata) and every tensor (name, type,
 * shape, data) in name order: the same for any sharding. Reads all the data once. */
int nb_model_identity(const struct nb_model *m, char sha256[NB_SHA256_HEX], struct nb_err *err);

/* ---- what an architecture is made of ---- */

enum nb_part_kind {
    NB_PART_EMBEDDING,
    NB_PART_NORM, /* its weight or its bias */
    NB_PART_WEIGHT,
    NB_PART_BIAS,
    NB_PART_HEAD,
    NB_PART_POSITIONS,
    NB_PART_ROUTER /* of a layer with experts, and the shared expert's gate */
};

struct nb_part { /* one tensor that a model of this architecture has */
    enum nb_part_kind kind;
    char name[NB_NAME_MAX * 2]; /* "model.layers.0.self_attn.q_proj.weight" */
    int64_t layer;              /* -1: outside the layers */
    int linear;                 /* index in its layer's linears; -1: none */
    int64_t rows, cols;         /* vectors: rows 1; linears: N, K, however they lie */
};
/* Calls fn for each: embedding, positions, the layers in order, final norm, head (untied only). Stops at what is not 0
 * and returns it. */
typedef int (*nb_part_fn)(void *ctx, const struct nb_part *part);
int nb_model_each_part(const struct nb_arch *arch, nb_part_fn fn, void *ctx);
/* ---- the files of a model folder ---- */

enum nb_file_kind {
    NB_FILE_WEIGHTS,      /* *.safetensors */
    NB_FILE_INDEX,        /* *.safetensors.index.json */
    NB_FILE_CONFIG,       /* config.json */
    NB_FILE_QUANT_CONFIG, /* quantize_config.json, quant_config.json */
    NB_FILE_SIDE,         /* tokenizer, generation config, custom code ...: belongs to every copy */
    NB_FILE_OTHER /* not copied: README.md, .git*, what nibble wrote about the folder (manifest.json,
                             report.*), weights in formats that double the safetensors files */
};

struct nb_model_file {
    char *name; /* bare */
    enum nb_file_kind kind;
    uint64_t bytes;
    char sha256[NB_SHA256_HEX]; /* empty unless hashes were asked for */
};

/* Regular files of dir in name order, subfolders left out. Free with nb_model_files_free. */
int nb_model_files(const char *dir, bool hashes, struct nb_model_file **files, size_t *n,
                   struct nb_err *err);
void nb_model_files_free(struct nb_model_file *files, size_t n);
enum nb_file_kind nb_model_file_kind(const char *name);

/* ---- writing ---- */

struct nb_packed_tensor { /* one tensor of a quantized linear as it stands in the file */
    char suffix[48];      /* ".qweight" */
    enum nb_dtype dtype;
    int rank;
    int64_t shape[3];
    void *data; /* arena; NULL while planning */
};

enum { NB_MAX_PACKED = 8, NB_PACKED_NAME_MAX = NB_NAME_MAX * 2 + 48 };

struct
    nb_module_spec { /* one linear of the output, for the config; spec.group_cols as asked for (-1: K) */
    char path[NB_NAME_MAX * 2]; /* "model.layers.0.self_attn.q_proj" */
    bool quantized;
    struct nb_qspec spec;              /* when quantized */
    bool desc_act;                     /* true col_group (act-order with g_idx) */
    const struct nb_block_type *block; /* how a GGUF file holds it, quantized or not; else NULL */
};

struct nb_pack_opts {      /* what a file says of a linear beyond its numbers */
    enum nb_dtype source;  /* type of the float weight it came from, BF16 where nobody knows */
    enum nb_dtype storage; /* bnb_4bit_quant_storage: U8, or F16, BF16, F32 around the same bytes */
    bool order; /* act-order dynamic: the file keeps a group number per column, where it can */
};

struct nb_checkpoint_info { /* what the config needs to know about the run */
    struct nb_qspec
        spec; /* the default; modules that differ are listed by the checkpoint's own means */
    const struct nb_module_spec
        *modules; /* every linear, the float ones too; of lm_head if quantized */
    size_t n_modules;
    bool desc_act, true_sequential, static_groups;
    double damp; /* strongest damping used; 0: none, not written */
    struct nb_pack_opts pack;
    bool kv_scales;       /* k_scale and v_scale of every attention layer are in the files */
    const char *producer; /* "nibble:0.1.0" */
};

struct nb_checkpoint {
    const char *name;    /* "gptq", "gptq_v2", "awq", "dense" */
    const char *summary; /* one line for help texts */
    /* Reading: does this quantization config belong to us? parse: m->quant_config into *state (free with
     * release); m->arch and m->tensors are set, and note may be. */
    bool (*probe)(const json_t *quant_config);
    int (*parse)(struct nb_model *m, void **state, struct nb_err *err);
    void (*release)(void *state);
    bool (*is_quantized)(const struct nb_model *m, const char *path);
    /* Are the tensors of a quantized module there, with the types and shapes that read needs? */
    int (*check)(const struct nb_model *m, const char *path, int64_t rows, int64_t cols,
                 struct nb_err *err);
    /* out->spec says what the file says; all memory from arena. */
    int (*read)(const struct nb_model *m, const struct nb_module_ref *ref, struct nb_arena *arena,
                struct nb_qmat *out, struct nb_err *err);
    /* Is `name` one of the tensors this format keeps for module `path` (for the ledger)? */
    bool (*owns)(const struct nb_model *m, const char *path, const char *suffix);
    /* Writing (all NULL in a row that only reads). 0 or NB_E_SPEC with the nearest possible choice in the
     * text. */
    int (*can_write)(const struct nb_qspec *spec, int64_t rows, int64_t cols, bool desc_act,
                     struct nb_err *err);
    /* Names, types and shapes of the tensors of one linear, bias not among them; data NULL. Returns how
     * many. */
    int (*plan)(const struct nb_qspec *spec, int64_t rows, int64_t cols,
                const struct nb_pack_opts *opts, struct nb_packed_tensor out[NB_MAX_PACKED]);
    /* Fills the tensors of plan() from q (data in arena). */
    int (*pack)(const struct nb_qmat *q, const struct nb_pack_opts *opts, struct nb_arena *arena,
                struct nb_packed_tensor out[NB_MAX_PACKED], int *n, struct nb_err *err);
    /* Can one config name all these modules with their differences? 0 or NB_E_SPEC naming the module. */
    int (*can_describe)(const struct nb_checkpoint_info *info, struct nb_err *err);
    /* New reference: object for config.json's quantization_config. NULL where can_describe says no. */
    json_t *(*config)(const struct nb_checkpoint_info *info);
    const char *side_config; /* second copy in this file ("quantize_config.json"), or NULL */
    bool sym_default;
    enum nb_dtype scale_dtype;
    int zero_min;       /* smallest zero code that may be written (1 for gptq v1) */
    bool kv_scales;     /* can carry k_scale and v_scale */
    bool implies_zeros; /* symmetric integers have no zeros in the file */
};

const struct nb_checkpoint *const *nb_checkpoints(void);          /* NULL-terminated table */
const struct nb_checkpoint *nb_checkpoint_find(const char *name); /* NULL: no such row */

/* ---- who can load it: loaders.c ---- */

enum { NB_MAX_LOADERS = 12, NB_LOADER_N_GPUS = 3, NB_LOADER_REASON = 160 };

struct nb_loader_linear { /* a quantized linear, for the question who loads it */
    char name[NB_NAME_MAX * 2];
    int64_t layer, rows, cols;
    enum nb_input input;
    int expert; /* -1: of none */
    struct nb_qspec spec;
    bool order; /* act-order that shows in the file */
};
struct nb_loader_query {
    const char *format;  /* name of the row of the table, or "gguf" */
    enum nb_dtype dtype; /* of the model */
    int64_t n_heads;
    const struct nb_loader_linear *linears; /* those that are alike may be left out */
    size_t n_linears;
};
struct nb_loader_row;
struct nb_loader_verdict {
    const char *loader, *kernel, *device, *source; /* kernel, device: "" unless it loads */
    bool loads, slow;
    bool parallel[NB_LOADER_N_GPUS];            /* on 2, 4, 8 GPUs */
    char reason[NB_LOADER_REASON];              /* why it does not load, else empty */
    char parallel_reason[NB_LOADER_REASON + 8]; /* "4: ..." why not on so many GPUs, else empty */
    const struct nb_loader_row *row;
};
/* A verdict for each program that the table knows; returns how many. */
size_t nb_loaders_ask(const struct nb_loader_query *q,
                      struct nb_loader_verdict out[NB_MAX_LOADERS]);
void nb_loader_describe(const struct nb_loader_verdict *v, struct nb_strbuf *out); /* one line */

/* Query for an opened quantized model: one linear for each shape and scheme (its codes are unpacked for that). Memory
 * of *linears: nb_free. A float model: n_linears 0. */
int nb_loader_query_of(struct nb_loader_query *q, struct nb_loader_linear **linears,
                       const struct nb_model *m, struct nb_err *err);
/* The same from what a run writes. */
int nb_loader_query_for(struct nb_loader_query *q, struct nb_loader_linear **linears,
                        const struct nb_arch *arch, const struct nb_module_spec *modules,
                        const char *format, struct nb_err *err);

#endif
