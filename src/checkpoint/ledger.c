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
    for (int i = 0; !rc && i < a->n_linears; i++) {
        nb_arch_name(a, l, a->linears[i].name, name);
        rc = need_linear(m, name, &a->linears[i], err);
    }
    return rc;
}

/* The module of tensor `name`: the name up to its last dot. False: there is none. */
static bool module_of(const char *name, char path[NB_MODULE_NAME_MAX])
{
    const char *dot = strrchr(name, '.');
    size_t n = dot ? (size_t)(dot - name) : 0;
    if (!n || n >= NB_MODULE_NAME_MAX) return false;
    memcpy(path, name, n);
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

/* Is t accounted for: dense, part of a quantized module, or known to be of no use? */
static bool is_known(const struct nb_model *m, const struct nb_tensor *t)
{
    char path[NB_MODULE_NAME_MAX], weight[NB_MODULE_NAME_MAX + 8];
    int rank;
    int64_t shape[2];
    if (nb_arch_is_ignorable(&m->arch, t->name) || nb_arch_is_other_part(&m->arch, t->name))
        return true;
    bool expected = nb_arch_expected_shape(&m->arch, t->name, &rank, shape);
    if (!module_of(t->name, path)) return expected;
    const char *suffix = t->name + strlen(path);
    snprintf(weight, sizeof weight, "%s.weight", path);
    bool linear = nb_arch_expected_shape(&m->arch, weight, &rank, shape) && rank == 2 &&
                  strcmp(weight, m->arch.embed_name);
    if (!linear || !m->checkpoint->is_quantized(m, path)) return expected;
    if (!strcmp(suffix, ".weight")) return false;
    /* Old AutoGPTQ gave every packed linear a bias, of zeros where the model has none. */
    return expected || m->checkpoint->owns(m, path, suffix) || !strcmp(suffix, ".bias");
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
    for (int64_t l = 0; !rc && l < a->n_layers; l++) rc = need_layer(m, l, err);
    if (!rc) rc = need_dense(m, a->norm_name, err);
    if (!rc && !a->tie_word_embeddings) {
        struct nb_arch_linear head = {.rows = a->vocab_size, .cols = a->hidden_size};
        char path[NB_MODULE_NAME_MAX];
        module_of(a->head_name, path);
        rc = need_linear(m, path, &head, err);
    }
    return rc ? rc : check_left_over(m, err);
}
