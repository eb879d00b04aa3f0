/* SPDX-License-Identifier: Apache-2.0
 *
 * output.c - the ledger: every tensor of the source is quantized, copied, tied or dropped with a reason;
 * and the writing of what follows from it.
 *
 * A tensor that has all experts' weights of a kind is taken apart as soon as one linear of its layer's experts is
 * quantized, since engines look for quantized experts one by one; the others' weights follow as floats. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/ranges.h"
#include "pipeline/run.h"

static int linear_of(const struct nb_arch *arch, int64_t layer, const char *rest)
{
    int n_linears;
    const struct nb_arch_linear *linears = nb_arch_layer_linears(arch, layer, &n_linears);
    for (int i = 0; i < n_linears; i++) {
        size_t n = strlen(linears[i].name);
        if (!strncmp(rest, linears[i].name, n) && !strcmp(rest + n, ".weight")) return i;
    }
    return -1;
}

/* Layer number of a name "<prefix>12.<rest>", or -1. */
static int64_t layer_of(const struct nb_arch *arch, const char *name, const char **rest)
{
    const char *mark = strchr(arch->layer_prefix, '%');
    size_t head = (size_t)(mark - arch->layer_prefix);
    if (strncmp(name, arch->layer_prefix, head)) return -1;
    char *end;
    if (name[head] < '0' || name[head] > '9') return -1;
    int64_t l = strtoll(name + head, &end, 10);
    if (*end != '.' || l < 0 || l >= arch->n_layers) return -1;
    *rest = end + 1;
    return l;
}

static bool has_quantized_experts(const struct nb_run *r, int64_t layer)
{
    int n;
    const struct nb_arch_linear *linears = nb_arch_layer_linears(&r->model->arch, layer, &n);
    for (int i = 0; i < n; i++) {
        if (linears[i].branch == NB_BRANCH_EXPERT &&
            nb_recipe_module(&r->recipe, &r->model->arch, layer, i)->quantized) {
            return true;
        }
    }
    return false;
}

static struct nb_ledger_entry classify(const struct nb_run *r, const struct nb_tensor *t)
{
    const struct nb_arch *arch = &r->model->arch;
    struct nb_ledger_entry e = {.tensor = t, .fate = NB_FATE_COPIED, .layer = -1, .linear = -1};
    const char *rest = NULL;
    if (nb_arch_is_ignorable(arch, t->name)) {
        e.fate = NB_FATE_DROPPED;
        e.reason = "a buffer that loaders rebuild from the config";
        return e;
    }
    if (arch->tie_word_embeddings && !strcmp(t->name, arch->head_name)) {
        e.fate = NB_FATE_TIED;
        e.reason = "the head is the embedding (tie_word_embeddings)";
        return e;
    }
    e.layer = layer_of(arch, t->name, &rest);
    if (e.layer >= 0) e.linear = linear_of(arch, e.layer, rest);
    int64_t shape[3];
    if (e.linear >= 0 && nb_recipe_module(&r->recipe, arch, e.layer, e.linear)->quantized)
        e.fate = NB_FATE_QUANTIZED;
    if (nb_arch_stacked_shape(arch, t->name, shape) && has_quantized_experts(r, e.layer))
        e.fate = NB_FATE_QUANTIZED; /* with no linear of its own: taken apart */
    return e;
}

/* Embedding first, then the layers in order, then norm and head; by name within. */
static int by_layer(const void *pa, const void *pb)
{
    const struct nb_ledger_entry *a = pa, *b = pb;
    int64_t la = a->layer, lb = b->layer;
    if (la < 0) la = strstr(a->tensor->name, "embed") ? -1 : INT64_MAX;
    if (lb < 0) lb = strstr(b->tensor->name, "embed") ? -1 : INT64_MAX;
    if (la != lb) return la < lb ? -1 : 1;
    return strcmp(a->tensor->name, b->tensor->name);
}

typedef int (*module_fn)(struct nb_run *r, const struct nb_module_spec *m,
                         const struct nb_arch_linear *lin, const struct nb_ledger_entry *e,
                         struct nb_err *err);

/* The linear of a quantized entry, or all that a tensor of experts is taken apart to. */
static int each_module(struct nb_run *r, const struct nb_ledger_entry *e, module_fn fn,
                       struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    int n, rc = 0;
    const struct nb_arch_linear *linears = nb_arch_layer_linears(arch, e->layer, &n);
    for (int i = 0; i < n && !rc; i++) {
        int64_t row;
        const bool is_part =
            e->linear >= 0 ? i == e->linear
                           : nb_model_stacked(r->model, e->layer, &linears[i], &row) == e->tensor;
        if (is_part)
            rc = fn(r, nb_recipe_module(&r->recipe, arch, e->layer, i), &linears[i], e, err);
    }
    return rc;
}

/* A tensor that is taken apart counts as many times as it has parts. */
static int count_module(struct nb_run *r, const struct nb_module_spec *m,
                        const struct nb_arch_linear *lin, const struct nb_ledger_entry *e,
                        struct nb_err *err)
{
    (void)lin, (void)e, (void)err;
    if (m->quantized) r->report->tensors_quantized++;
    else r->report->tensors_copied++;
    return 0;
}

static int make_ledger(struct nb_run *r, struct nb_err *err)
{
    size_t n = nb_safetensors_count(r->model->tensors);
    r->ledger = nb_calloc(n ? n : 1, sizeof *r->ledger);
    if (!r->ledger) return nb_fail(err, NB_E_NOMEM, "no memory for the ledger of %zu tensors", n);
    r->n_ledger = n;
    for (size_t i = 0; i < n; i++)
        r->ledger[i] = classify(r, nb_safetensors_at(r->model->tensors, i));
    qsort(r->ledger, n, sizeof *r->ledger, by_layer);
    struct nb_quantize_report *q = r->report;
    for (size_t i = 0; i < n; i++) {
        switch (r->ledger[i].fate) {
        case NB_FATE_COPIED: q->tensors_copied++; break;
        case NB_FATE_QUANTIZED: each_module(r, &r->ledger[i], count_module, err); break;
        case NB_FATE_TIED: q->tensors_tied++; break;
        case NB_FATE_DROPPED: q->tensors_dropped++; break;
        }
    }
    q->tensors_source =
        q->tensors_copied + q->tensors_quantized + q->tensors_tied + q->tensors_dropped;
    return 0;
}

/* What the module becomes in the output: tensors of the format, or the weight as it is. */
static int module_tensors(const struct nb_run *r, const struct nb_module_spec *m,
                          const struct nb_arch_linear *lin, const struct nb_ledger_entry *e,
                          struct nb_packed_tensor packed[NB_MAX_PACKED])
{
    if (m->quantized)
        return r->recipe.checkpoint->plan(&m->spec, lin->rows, lin->cols, &r->recipe.pack, packed);
    packed[0] = (struct nb_packed_tensor){
        .suffix = ".weight", .dtype = e->tensor->dtype, .rank = 2, .shape = {lin->rows, lin->cols}};
    return 1;
}

static int plan_module(struct nb_run *r, const struct nb_module_spec *m,
                       const struct nb_arch_linear *lin, const struct nb_ledger_entry *e,
                       struct nb_err *err)
{
    struct nb_packed_tensor packed[NB_MAX_PACKED];
    int n = module_tensors(r, m, lin, e, packed);
    for (int i = 0; i < n; i++) {
        char name[NB_PACKED_NAME_MAX];
        snprintf(name, sizeof name, "%s%s", m->path, packed[i].suffix);
        int rc = nb_st_writer_plan(r->writer, name, packed[i].dtype, packed[i].rank,
                                   packed[i].shape, err);
        if (rc) return rc;
    }
    return 0;
}

static int plan(struct nb_run *r, struct nb_err *err)
{
    int rc = make_ledger(r, err);
    if (rc) return rc;
    r->writer = nb_st_writer_new();
    for (size_t i = 0; i < r->n_ledger && !rc; i++) {
        const struct nb_ledger_entry *e = &r->ledger[i];
        const struct nb_tensor *t = e->tensor;
        if (e->fate == NB_FATE_QUANTIZED) rc = each_module(r, e, plan_module, err);
        if (e->fate == NB_FATE_COPIED) {
            rc = nb_st_writer_plan(r->writer, t->name, t->dtype, t->rank, t->shape, err);
        }
    }
    return rc ? rc : nb_ranges_plan_kv(r, err);
}

/* The float ones among what a tensor of experts is taken apart to. */
static int put_float_module(struct nb_run *r, const struct nb_module_spec *m,
                            const struct nb_arch_linear *lin, const struct nb_ledger_entry *e,
                            struct nb_err *err)
{
    char name[NB_PACKED_NAME_MAX];
    int64_t row;
    if (m->quantized || !nb_model_stacked(r->model, e->layer, lin, &row)) return 0;
    const size_t row_bytes = (size_t)lin->cols * (size_t)nb_dtype_bits(e->tensor->dtype) / 8;
    snprintf(name, sizeof name, "%s.weight", m->path);
    return nb_st_writer_put(r->writer, name, e->tensor->data.data + (size_t)row * row_bytes,
                            (size_t)lin->rows * row_bytes, err);
}

static int copy(struct nb_run *r, int64_t layer, struct nb_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < r->n_ledger && !rc; i++) {
        const struct nb_ledger_entry *e = &r->ledger[i];
        if (e->layer != layer) continue;
        if (e->fate == NB_FATE_QUANTIZED && e->linear < 0)
            rc = each_module(r, e, put_float_module, err);
        if (e->fate != NB_FATE_COPIED) continue;
        rc = nb_st_writer_put(r->writer, e->tensor->name, e->tensor->data.data,
                              e->tensor->data.bytes, err);
        nb_safetensors_drop(r->model->tensors, e->tensor);
    }
    return rc;
}

int nb_output_put_f32(struct nb_run *r, const char *name, const float *v, int64_t n,
                      struct nb_err *err)
{
    const struct nb_tensor *t = nb_safetensors_find(r->model->tensors, name);
    if (!t || nb_tensor_count(t) != n)
        return nb_fail(err, NB_E_FORMAT, "tensor '%s' is not as planned", name);
    void *data = nb_alloc(t->data.bytes, 1);
    if (!data) return nb_fail(err, NB_E_NOMEM, "no memory for tensor '%s'", name);
    nb_from_f32(data, v, t->dtype, (size_t)n);
    int rc = nb_st_writer_put(r->writer, name, data, t->data.bytes, err);
    nb_free(data);
    return rc;
}

int nb_output_put_qmat(struct nb_run *r, const struct nb_module_spec *m, const struct nb_qmat *q,
                       struct nb_arena *arena, struct nb_err *err)
{
    struct nb_packed_tensor packed[NB_MAX_PACKED];
    int n = 0, rc = r->recipe.checkpoint->pack(q, &r->recipe.pack, arena, packed, &n, err);
    for (int i = 0; i < n && !rc; i++) {
        char name[NB_PACKED_NAME_MAX];
        snprintf(name, sizeof name, "%s%s", m->path, packed[i].suffix);
        size_t bytes = (size_t)nb_dtype_bits(packed[i].dtype) / 8;
        for (int d = 0; d < packed[i].rank; d++) bytes *= (size_t)packed[i].shape[d];
        rc = nb_st_writer_put(r->writer, name, packed[i].data, bytes, err);
    }
    return rc ? nb_err_prefix(err, "%s", m->path) : 0;
}

static int mark_module(struct nb_run *r, const struct nb_module_spec *m,
                       const struct nb_arch_linear *lin, const struct nb_ledger_entry *e,
                       struct nb_err *err)
{
    struct nb_packed_tensor packed[NB_MAX_PACKED];
    int rc = 0, n = module_tensors(r, m, lin, e, packed);
    for (int i = 0; i < n && !rc; i++) {
        char name[NB_PACKED_NAME_MAX];
        snprintf(name, sizeof name, "%s%s", m->path, packed[i].suffix);
        rc = nb_st_writer_mark(r->writer, name, err);
    }
    return rc;
}

static int mark_entry(struct nb_run *r, const struct nb_ledger_entry *e, struct nb_err *err)
{
    if (e->fate == NB_FATE_COPIED) return nb_st_writer_mark(r->writer, e->tensor->name, err);
    return e->fate == NB_FATE_QUANTIZED ? each_module(r, e, mark_module, err) : 0;
}

static int mark_done(struct nb_run *r, int64_t layers, struct nb_err *err)
{
    for (size_t i = 0; i < r->n_ledger; i++) {
        if (r->ledger[i].layer < 0 || r->ledger[i].layer >= layers) continue;
        int rc = mark_entry(r, &r->ledger[i], err);
        if (rc) return rc;
    }
    int rc = 0;
    for (int64_t l = 0; l < layers && !rc; l++) rc = nb_ranges_mark_kv(r, l, err);
    return rc;
}

static int open_writer(struct nb_run *r, struct nb_err *err)
{
    struct nb_st_writer_opts o = {
        .dir = r->partial, .max_shard_bytes = r->opts->max_shard_bytes, .resume = r->resumed};
    int rc = nb_st_writer_open(r->writer, &o, err);
    if (rc) return rc;
    rc = mark_done(r, r->layers_done, err);
    return rc ? nb_err_hint(err, "the work folder was damaged; --restart begins anew") : 0;
}

static uint64_t bytes(const struct nb_run *r)
{
    return nb_st_writer_bytes(r->writer);
}

static int sync_writer(struct nb_run *r, struct nb_err *err)
{
    return nb_st_writer_sync(r->writer, err);
}

static int close_writer(struct nb_run *r, struct nb_err *err)
{
    return nb_st_writer_finish(r->writer, err);
}

const struct nb_sink nb_sink_folder = {.plan = plan,
                                       .bytes = bytes,
                                       .open = open_writer,
                                       .copy = copy,
                                       .sync = sync_writer,
                                       .close = close_writer};
