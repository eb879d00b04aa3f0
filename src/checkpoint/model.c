/* SPDX-License-Identifier: Apache-2.0
 *
 * model.c - open a model folder or a GGUF file and hand out its weights by role, whatever they are stored as. */
#include "checkpoint/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"

enum { CONFIG_MAX_BYTES = 16 << 20 };

static int load_config(struct nb_model *m, struct nb_err *err)
{
    if (!nb_path_is_dir(m->dir)) {
        bool exists = nb_path_exists(m->dir);
        return nb_fail(err, exists ? NB_E_FORMAT : NB_E_NOTFOUND, "%s: %s", m->dir,
                       exists ? "not a model folder" : "no such folder");
    }
    char *path = nb_path_join(m->dir, "config.json");
    m->config = nb_json_load(path, CONFIG_MAX_BYTES, err);
    int rc = m->config ? 0 : err ? err->status : NB_E_FORMAT;
    nb_free(path);
    return rc;
}

static int open_checkpoint(struct nb_model *m, struct nb_err *err)
{
    m->checkpoint = &nb_checkpoint_dense;
    int rc = nb_quant_config_find(m->config, m->dir, &m->quant_config, err);
    if (!rc && m->quant_config)
        rc = nb_quant_config_checkpoint(m->quant_config, &m->checkpoint, err);
    return rc ? rc : m->checkpoint->parse(m, &m->checkpoint_state, err);
}

/* Files of a base model leave out the prefix that those of the whole one have. */
static bool lacks_prefix(const struct nb_model *m)
{
    const char *name = m->arch.embed_name, *prefix = m->arch.optional_prefix;
    const size_t n = strlen(prefix);
    return n && !strncmp(name, prefix, n) && !nb_safetensors_find(m->tensors, name) &&
           nb_safetensors_find(m->tensors, name + n);
}

/* Mixtral's experts under the names that transformers 5 gives them in memory. */
static bool has_plain_experts(const struct nb_model *m)
{
    const struct nb_arch *a = &m->arch;
    char name[NB_NAME_MAX * 2];
    if (!a->moe) return false;
    for (int64_t l = 0; l < a->n_layers; l++) {
        if (!nb_arch_has_experts(a, l)) continue;
        nb_arch_name(a, l, a->moe->router_name, name);
        if (nb_safetensors_find(m->tensors, name)) return false;
        nb_arch_name(a, l, "mlp.gate.weight", name);
        return nb_safetensors_find(m->tensors, name) != NULL;
    }
    return false;
}

static int open_folder(struct nb_model *m, struct nb_err *err)
{
    int rc = load_config(m, err);
    if (!rc) {
        rc = nb_arch_from_config(&m->arch, m->config, err);
        if (rc) nb_err_prefix(err, "%s", m->dir);
    }
    if (!rc) rc = nb_safetensors_open(&m->tensors, m->dir, err);
    if (!rc) {
        if (lacks_prefix(m)) nb_arch_drop_prefix(&m->arch);
        if (has_plain_experts(m)) nb_arch_use_plain_expert_names(&m->arch);
        rc = open_checkpoint(m, err);
        if (!rc) rc = nb_model_check_ledger(m, err);
        if (rc) nb_err_prefix(err, "%s", m->dir);
    }
    return rc;
}

static int open_gguf(struct nb_model *m, struct nb_err *err)
{
    int rc = nb_gguf_open(&m->gguf, m->dir, err);
    if (rc) return rc;
    nb_free(m->dir); /* of a folder, the file in it */
    m->dir = nb_xstrdup(nb_gguf_part_path(m->gguf, 0));
    m->checkpoint = &nb_checkpoint_dense;
    rc = nb_gguf_table_open(m, err);
    return rc ? nb_err_prefix(err, "%s", m->dir) : 0;
}

int nb_model_open(struct nb_model **out, const char *dir, struct nb_err *err)
{
    *out = NULL;
    struct nb_model *m = nb_xalloc(sizeof *m);
    m->dir = nb_xstrdup(dir);
    int rc = nb_gguf_is_model(dir) ? open_gguf(m, err) : open_folder(m, err);
    if (rc) {
        nb_model_close(m);
        return rc;
    }
    *out = m;
    return 0;
}

void nb_model_close(struct nb_model *m)
{
    if (!m) return;
    if (m->checkpoint) m->checkpoint->release(m->checkpoint_state);
    nb_gguf_table_close(m->table);
    nb_gguf_close(m->gguf);
    nb_safetensors_close(m->tensors);
    nb_arch_release(&m->arch);
    json_decref(m->quant_config);
    json_decref(m->config);
    nb_free(m->dir);
    nb_free(m);
}

int nb_model_tensor(const struct nb_model *m, const char *name, struct nb_tensor *out,
                    struct nb_err *err)
{
    if (m->gguf) return nb_gguf_table_vector(m, name, out, err);
    const struct nb_tensor *t = nb_safetensors_find(m->tensors, name);
    if (!t) return nb_fail(err, NB_E_FORMAT, "%s: tensor '%.160s' is missing", m->dir, name);
    *out = *t;
    return 0;
}

/* Path of the module that has this weight. */
static void module_path(const char *weight, char out[NB_NAME_MAX])
{
    snprintf(out, NB_NAME_MAX, "%s", weight);
    char *dot = strrchr(out, '.');
    if (dot) *dot = '\0';
}

/* A table [rows, hidden] outside the layers. */
static int table(const struct nb_model *m, const char *name, int64_t rows, struct nb_weight *out,
                 struct nb_err *err)
{
    const int64_t cols = m->arch.hidden_size;
    if (m->gguf) {
        char path[NB_NAME_MAX];
        module_path(name, path);
        struct nb_module_ref ref = {.path = path, .rows = rows, .cols = cols};
        return nb_gguf_table_weight(m, &ref, NULL, out, err);
    }
    *out = (struct nb_weight){.name = name, .rows = rows, .cols = cols};
    return nb_model_tensor(m, name, &out->dense, err);
}

int nb_model_embedding(const struct nb_model *m, struct nb_weight *out, struct nb_err *err)
{
    return table(m, m->arch.embed_name, m->arch.vocab_size, out, err);
}

int nb_model_positions(const struct nb_model *m, struct nb_weight *out, struct nb_err *err)
{
    return table(m, m->arch.position_name, m->arch.max_position, out, err);
}

int nb_model_head(const struct nb_model *m, struct nb_arena *arena, struct nb_weight *out,
                  struct nb_err *err)
{
    const struct nb_arch *a = &m->arch;
    if (a->tie_word_embeddings) {
        int rc = nb_model_embedding(m, out, err);
        out->name = a->head_name;
        return rc;
    }
    char path[NB_NAME_MAX]; /* a head may be quantized, so it is asked for as a module */
    module_path(a->head_name, path);
    struct nb_module_ref head = {.path = path, .rows = a->vocab_size, .cols = a->hidden_size};
    return nb_model_module(m, &head, arena, out, err);
}

/* t [K,N] becomes a copy [N,K]. */
static int transpose(struct nb_tensor *t, struct nb_arena *arena, struct nb_err *err)
{
    enum { TILE = 32 };
    const size_t size = (size_t)nb_dtype_bits(t->dtype) / 8;
    const int64_t k = t->shape[0], n = t->shape[1];
    unsigned char *out = nb_arena_alloc(arena, t->data.bytes, 1);
    if (!out) return nb_fail(err, NB_E_NOMEM, "no memory for tensor '%s'", t->name);
    for (int64_t i0 = 0; i0 < k; i0 += TILE) {
        const int64_t i1 = i0 + TILE < k ? i0 + TILE : k;
        for (int64_t j = 0; j < n; j++) {
            for (int64_t i = i0; i < i1; i++)
                memcpy(out + (size_t)(j * k + i) * size, t->data.data + (size_t)(i * n + j) * size,
                       size);
        }
    }
    t->shape[0] = n;
    t->shape[1] = k;
    t->data.data = out;
    return 0;
}

struct wanted {
    const struct nb_module_ref *ref;
    bool transposed; /* a float weight lies in a folder's files as [cols, rows] */
};

static int read_module(const struct nb_model *m, const struct wanted *wanted,
                       struct nb_arena *arena, struct nb_weight *out, struct nb_err *err)
{
    const struct nb_module_ref *ref = wanted->ref;
    const char *path = ref->path;
    const int64_t rows = ref->rows, cols = ref->cols;
    if (m->gguf) return nb_gguf_table_weight(m, ref, arena, out, err);
    *out = (struct nb_weight){.name = nb_arena_strdup(arena, path), .rows = rows, .cols = cols};
    const struct nb_tensor *bias = nb_module_tensor(m, path, ".bias");
    if (bias) {
        struct nb_packed_tensor want = {
            .suffix = ".bias", .dtype = NB_F16, .rank = 1, .shape = {rows}};
        int rc = nb_module_need(m, path, &want, &bias, err);
        if (rc) return rc;
        out->bias = *bias;
    }
    if (!m->checkpoint->is_quantized(m, path)) {
        struct nb_packed_tensor want = {
            .suffix = ".weight", .dtype = NB_F16, .rank = 2, .shape = {rows, cols}};
        if (wanted->transposed) {
            want.shape[0] = cols;
            want.shape[1] = rows;
        }
        const struct nb_tensor *weight;
        int rc = nb_module_need(m, path, &want, &weight, err);
        if (rc) return rc;
        out->dense = *weight;
        return wanted->transposed ? transpose(&out->dense, arena, err) : 0;
    }
    struct nb_qmat *q = nb_arena_calloc(arena, 1, sizeof *q);
    if (!q) return nb_fail(err, NB_E_NOMEM, "no memory for '%s'", path);
    out->q = q;
    return m->checkpoint->read(m, ref, arena, q, err);
}

int nb_model_module(const struct nb_model *m, const struct nb_module_ref *ref,
                    struct nb_arena *arena, struct nb_weight *out, struct nb_err *err)
{
    return read_module(m, &(struct wanted){ref, false}, arena, out, err);
}

const struct nb_tensor *nb_model_stacked(const struct nb_model *m, int64_t l,
                                         const struct nb_arch_linear *lin, int64_t *row)
{
    char full[NB_NAME_MAX * 2];
    const char *name;
    if (lin->branch != NB_BRANCH_EXPERT || !m->tensors) return NULL;
    nb_arch_stacked_at(&m->arch, lin, &name, row);
    nb_arch_name(&m->arch, l, name, full);
    return nb_safetensors_find(m->tensors, full);
}

/* Rows of lin within the tensor of all experts. */
static int stacked_weight(const struct nb_tensor *t, int64_t row, const struct nb_arch_linear *lin,
                          struct nb_weight *out, struct nb_arena *arena, struct nb_err *err)
{
    const size_t row_bytes = (size_t)lin->cols * (size_t)nb_dtype_bits(t->dtype) / 8;
    *out = (struct nb_weight){
        .name = nb_arena_strdup(arena, lin->name), .rows = lin->rows, .cols = lin->cols};
    if (!out->name) return nb_fail(err, NB_E_NOMEM, "no memory for '%s'", lin->name);
    out->dense = *t;
    out->dense.rank = 2;
    out->dense.shape[0] = lin->rows;
    out->dense.shape[1] = lin->cols;
    out->dense.data.data = t->data.data + (size_t)row * row_bytes;
    out->dense.data.bytes = (size_t)lin->rows * row_bytes;
    return 0;
}

int nb_model_linear(const struct nb_model *m, int64_t l, const struct nb_arch_linear *lin,
                    struct nb_arena *arena, struct nb_weight *out, struct nb_err *err)
{
    char path[NB_NAME_MAX * 2];
    int64_t row;
    const struct nb_tensor *stacked = nb_model_stacked(m, l, lin, &row);
    if (stacked) return stacked_weight(stacked, row, lin, out, arena, err);
    nb_arch_name(&m->arch, l, lin->name, path);
    struct nb_module_ref ref = {path, lin->rows, lin->cols};
    return read_module(m, &(struct wanted){&ref, lin->transposed}, arena, out, err);
}
