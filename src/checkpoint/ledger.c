/* SPDX-License-Identifier: Apache-2.0
 *
 * ledger.c - every tensor of the architecture is in the files with its shape, and none is left over.
 *
 * A forgotten tensor is a model that runs and is wrong, so both directions are errors. */
#include "checkpoint/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int need_dense(const struct nb_model *m, const char *name, struct nb_err *err)
{
    int rank;
    int64_t shape[2];
    if (!nb_arch_expected_shape(&m->arch, name, &rank, shape)) {
        return nb_fail(err, NB_E_FORMAT, "tensor '%s' is no part of a %s model", name,
                       m->arch.model_type);
    }
    struct nb_packed_tensor want = {
        .dtype = NB_F16, .rank = rank, .shape = {shape[0], rank > 1 ? shape[1] : 0}};
    const struct nb_tensor *t;
    int rc = nb_module_need(m, name, &want, &t, err);
    if (rc && !t && nb_module_tensor(m, m->arch.head_name, "") &&
        !strcmp(name, m->arch.embed_name)) {
        nb_err_hint(err, "the head is there without the embedding");
    }
    return rc;
}

/* Weight, packed or not, and bias of one linear. */
static int need_linear(const struct nb_model *m, const char *path, const struct nb_arch_linear *lin,
                       struct nb_err *err)
{
    char name[NB_MODULE_NAME_MAX];
    int rc;
    if (m->checkpoint->is_quantized(m, path)) {
        rc = m->checkpoint->check(m, path, lin->rows, lin->cols, err);
    } else {
        snprintf(name, sizeof name, "%s.weight", path);
        rc = need_dense(m, name, err);
        if (rc && nb_module_tensor(m, path, ".qweight")) {
            nb_err_hint(err,
                        m->quant_config
                            ? "'%s.qweight' is there: the quantization config says that it is float"
                            : "'%s.qweight' is there, but no quantization config",
                        path);
        }
    }
    if (rc || !lin->bias) return rc;
    snprintf(name, sizeof name, "%s.bias", path);
    return need_dense(m, name, err);
}

/* Expert linear `path` is part of t, which has all experts', and nothing by itself. */
static int need_stacked(const struct nb_model *m, const char *path, const struct nb_tensor *t,
                        struct nb_err *err)
{
    if (nb_module_tensor(m, path, ".weight") || nb_module_tensor(m, path, ".qweight")) {
        return nb_fail(err, NB_E_FORMAT, "'%s' is there twice: by itself and in tensor '%s'", path,
                       t->name);
    }
    struct nb_packed_tensor want = {.dtype = NB_F16, .rank = 3};
    const struct nb_tensor *found;
    if (!nb_arch_stacked_shape(&m->arch, t->name, want.shape))
        return nb_fail(err, NB_E_FORMAT, "tensor '%s' is out of place", t->name);
    return nb_module_need(m, t->name, &want, &found, err);
}

static int need_layer(const struct nb_model *m, int64_t l, struct nb_err *err)
{
    const struct nb_arch *a = &m->arch;
    const char *norms[NB_MAX_NORMS];
    char name[NB_NAME_MAX * 2];
    int rc = 0, n = nb_model_norms(a, norms);
    for (int i = 0; !rc && i < n; i++) {
        nb_arch_name(a, l, norms[i], name);
        rc = need_dense(m, name, err);
    }
    int n_linears;
    const struct nb_arch_linear *linears = nb_arch_layer_linears(a, l, &n_linears);
    for (int i = 0; !rc && i < n_linears; i++) {
        int64_t row;
        const struct nb_tensor *stacked = nb_model_stacked(m, l, &linears[i], &row);
        nb_arch_name(a, l, linears[i].name, name);
        rc = stacked ? need_stacked(m, name, stacked, err) : need_linear(m, name, &linears[i], err);
    }
    if (rc || !nb_arch_has_experts(a, l)) return rc;
    nb_arch_name(a, l, a->moe->router_name, name);
    rc = need_dense(m, name, err);
    if (rc || !a->moe->shared_size) return rc;
    nb_arch_name(a, l, a->moe->shared_gate_name, name);
    return need_dense(m, name, err);
}

/* The module of tensor `name`: the name up to its last dot. False: there is none. */
static bool module_of(const char *name, char path[NB_MODULE_NAME_MAX])
{
    const char *dot = strrchr(name, '.');
    size_t n = dot ? (size_t)(dot - name) : 0;
    if (!n || n >= NB_MODULE_NAME_MAX) return false;
    memmove(path, name, n); /* may be the same place */
    path[n] = '\0';
    return true;
}

/* A head beside a tied embedding is a copy or a contradiction. */
static int check_tied_head(const struct nb_model *m, const struct nb_tensor *t, struct nb_err *err)
{
    const struct nb_tensor *e = nb_safetensors_find(m->tensors, m->arch.embed_name);
    if (t->dtype == e->dtype && t->data.bytes == e->data.bytes &&
        !memcmp(t->data.data, e->data.data, t->data.bytes)) {
        return 0;
    }
    return nb_fail(err, NB_E_FORMAT,
                   "tensor '%s' differs from '%s', though config.json says that they are tied",
                   t->name, e->name);
}

/* Scale of a quantized KV cache, beside the linears of an attention. */
static bool is_kv_scale(const struct nb_model *m, const char *name)
{
    static const char *const ends[] = {".self_attn.k_scale", ".self_attn.v_scale",
                                       ".self_attn.q_scale", ".self_attn.kv_scale"};
    const size_t n = strlen(name);
    for (size_t i = 0; m->checkpoint->kv_scales && i < sizeof ends / sizeof *ends; i++) {
        const size_t k = strlen(ends[i]);
        if (n > k && !strcmp(name + n - k, ends[i])) return true;
    }
    return false;
}

/* Is t accounted for: dense, part of a quantized module, or known to be of no use? The module is what stands before one
 * of the dots: bitsandbytes has "q_proj.weight.absmax". */
static bool is_known(const struct nb_model *m, const struct nb_tensor *t)
{
    char path[NB_MODULE_NAME_MAX], weight[NB_MODULE_NAME_MAX + 8];
    int rank;
    int64_t shape[2];
    if (nb_arch_is_ignorable(&m->arch, t->name) || nb_arch_is_other_part(&m->arch, t->name))
        return true;
    int64_t stacked[3];
    if (nb_arch_stacked_shape(&m->arch, t->name, stacked)) return true;
    const bool expected = nb_arch_expected_shape(&m->arch, t->name, &rank, shape);
    for (bool more = module_of(t->name, path); more; more = module_of(path, path)) {
        const char *suffix = t->name + strlen(path);
        snprintf(weight, sizeof weight, "%s.weight", path);
        bool linear = nb_arch_expected_shape(&m->arch, weight, &rank, shape) && rank == 2 &&
                      strcmp(weight, m->arch.embed_name) && strcmp(weight, m->arch.position_name);
        if (!linear) continue;
        if (!m->checkpoint->is_quantized(m, path)) break;
        if (m->checkpoint->owns(m, path, suffix)) return true;
        if (!strcmp(suffix, ".weight")) return false;
        /* Old AutoGPTQ gave every packed linear a bias, of zeros where the model has none. */
        return expected || !strcmp(suffix, ".bias");
    }
    return expected || is_kv_scale(m, t->name);
}

static int check_left_over(const struct nb_model *m, struct nb_err *err)
{
    size_t n = nb_safetensors_count(m->tensors), unknown = 0;
    const struct nb_tensor *first = NULL;
    for (size_t i = 0; i < n; i++) {
        const struct nb_tensor *t = nb_safetensors_at(m->tensors, i);
        if (m->arch.tie_word_embeddings && !strcmp(t->name, m->arch.head_name)) {
            int rc = check_tied_head(m, t, err);
            if (rc) return rc;
        } else if (!is_known(m, t)) {
            if (!unknown++) first = t;
        }
    }
    if (!unknown) return 0;
    char more[48] = "";
    if (unknown > 1) snprintf(more, sizeof more, " (and %zu more)", unknown - 1);
    return nb_fail(err, NB_E_FORMAT, "tensor '%.160s'%s is no part of a %s model with %s weights",
                   first->name, more, m->arch.model_type, m->checkpoint->name);
}

int nb_model_check_ledger(const struct nb_model *m, struct nb_err *err)
{
    const struct nb_arch *a = &m->arch;
    int rc = need_dense(m, a->embed_name, err);
    if (!rc && *a->position_name) rc = need_dense(m, a->position_name, err);
    for (int64_t l = 0; !rc && l < a->n_layers; l++) rc = need_layer(m, l, err);
    if (!rc) rc = need_dense(m, a->norm_name, err);
    if (!rc && a->layer_norm) rc = need_dense(m, a->norm_bias_name, err);
    if (!rc && !a->tie_word_embeddings) {
        struct nb_arch_linear head = {.rows = a->vocab_size, .cols = a->hidden_size};
        char path[NB_MODULE_NAME_MAX];
        module_of(a->head_name, path);
        rc = need_linear(m, path, &head, err);
    }
    return rc ? rc : check_left_over(m, err);
}
