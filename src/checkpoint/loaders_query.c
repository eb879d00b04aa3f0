/* SPDX-License-Identifier: Apache-2.0
 *
 * loaders_query.c - the linears of a model or of a run, as the table of loaders is asked about them.
 *
 * All experts of a layer are alike to an engine, so the first one stands for them. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "checkpoint/checkpoint.h"

static int query_init(struct nb_loader_query *q, struct nb_loader_linear **linears,
                      const struct nb_arch *arch, const char *format, struct nb_err *err)
{
    *q = (struct nb_loader_query){.format = format, .dtype = arch->dtype, .n_heads = arch->n_heads};
    *linears = nb_calloc((size_t)nb_arch_first_linear(arch, arch->n_layers) + 1, sizeof **linears);
    q->linears = *linears;
    return *linears ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for the list of linears");
}

static struct nb_loader_linear *add(struct nb_loader_query *q, struct nb_loader_linear *linears,
                                    int64_t layer, const struct nb_arch_linear *lin,
                                    const char *path)
{
    struct nb_loader_linear *l = &linears[q->n_linears++];
    snprintf(l->name, sizeof l->name, "%s", path);
    l->layer = layer;
    l->rows = lin->rows;
    l->cols = lin->cols;
    l->input = lin->input;
    l->expert = lin->branch == NB_BRANCH_MAIN ? -1 : (int)lin->branch;
    return l;
}

static bool is_another_expert(const struct nb_arch_linear *lin)
{
    return lin->branch == NB_BRANCH_EXPERT && lin->expert > 0;
}

int nb_loader_query_for(struct nb_loader_query *q, struct nb_loader_linear **linears,
                        const struct nb_arch *arch, const struct nb_module_spec *modules,
                        const char *format, struct nb_err *err)
{
    int rc = query_init(q, linears, arch, format, err);
    for (int64_t l = 0; l < arch->n_layers && !rc; l++) {
        int n;
        const struct nb_arch_linear *lin = nb_arch_layer_linears(arch, l, &n);
        const struct nb_module_spec *m = &modules[nb_arch_first_linear(arch, l)];
        for (int i = 0; i < n; i++) {
            if (!m[i].quantized || is_another_expert(&lin[i])) continue;
            struct nb_loader_linear *to = add(q, *linears, l, &lin[i], m[i].path);
            to->spec = m[i].spec;
            to->order = m[i].desc_act && m[i].spec.group_cols > 0;
        }
    }
    return rc;
}

/* ---- of an opened model ---- */

/* Types and shapes of the tensors of one module: what tells linears apart without reading them. */
static void signature(const struct nb_model *m, const char *path, char out[NB_SHA256_HEX])
{
    struct nb_sha256 hash;
    const size_t n = strlen(path);
    nb_sha256_init(&hash);
    for (size_t i = 0; i < nb_model_tensor_count(m); i++) {
        struct nb_model_tensor t;
        nb_model_tensor_at(m, i, &t);
        if (strncmp(t.name, path, n) || t.name[n] != '.') continue;
        nb_sha256_add(&hash, t.name + n, strlen(t.name + n) + 1);
        nb_sha256_add(&hash, t.type, strlen(t.type) + 1);
        nb_sha256_add(&hash, t.shape, (size_t)t.rank * sizeof *t.shape);
    }
    nb_sha256_finish(&hash, out);
}

static int read_spec(struct nb_loader_linear *to, const struct nb_model *m, int64_t layer,
                     const struct nb_arch_linear *lin, struct nb_err *err)
{
    struct nb_arena arena;
    struct nb_weight w;
    nb_arena_init(&arena);
    int rc = nb_model_linear(m, layer, lin, &arena, &w, err);
    if (!rc && w.q) {
        to->spec = w.q->spec;
        to->order = w.q->col_group != NULL;
    }
    nb_arena_release(&arena);
    return rc;
}

struct seen { /* one for each that was read */
    char look[NB_SHA256_HEX];
    size_t at; /* in linears */
};

struct finder {
    struct nb_loader_query *q;
    struct nb_loader_linear *linears;
    const struct nb_model *m;
    struct seen *seen; /* ends with an empty look */
};

static int add_known(const struct finder *f, int64_t layer, const struct nb_arch_linear *lin,
                     struct nb_err *err)
{
    const struct nb_model *m = f->m;
    char path[NB_NAME_MAX * 2], look[NB_SHA256_HEX];
    nb_arch_name(&m->arch, layer, lin->name, path);
    if (!m->checkpoint->is_quantized || !m->checkpoint->is_quantized(m, path)) return 0;
    struct nb_loader_linear *to = add(f->q, f->linears, layer, lin, path);
    signature(m, path, look);
    struct seen *s = f->seen;
    while (s->look[0] && strcmp(s->look, look)) s++;
    if (s->look[0]) {
        to->spec = f->linears[s->at].spec;
        to->order = f->linears[s->at].order;
        return 0;
    }
    memcpy(s->look, look, sizeof look);
    s->at = f->q->n_linears - 1;
    return read_spec(to, m, layer, lin, err);
}

int nb_loader_query_of(struct nb_loader_query *q, struct nb_loader_linear **linears,
                       const struct nb_model *m, struct nb_err *err)
{
    const struct nb_arch *arch = &m->arch;
    int rc = query_init(q, linears, arch, m->gguf ? "gguf" : m->checkpoint->name, err);
    if (rc || !nb_model_is_quantized(m)) return rc;
    if (m->gguf) { /* nothing but its being one matters */
        int n;
        add(q, *linears, 0, nb_arch_layer_linears(arch, 0, &n), "blocks");
        return 0;
    }
    const size_t all = (size_t)nb_arch_first_linear(arch, arch->n_layers) + 1;
    const struct finder f = {q, *linears, m, nb_calloc(all, sizeof *f.seen)};
    if (!f.seen) rc = nb_fail(err, NB_E_NOMEM, "no memory for the list of linears");
    for (int64_t l = 0; l < arch->n_layers && !rc; l++) {
        int n;
        const struct nb_arch_linear *lin = nb_arch_layer_linears(arch, l, &n);
        for (int i = 0; i < n && !rc; i++) {
            if (!is_another_expert(&lin[i])) rc = add_known(&f, l, &lin[i], err);
        }
    }
    nb_free(f.seen);
    return rc;
}
