/* SPDX-License-Identifier: Apache-2.0
 *
 * gguf_out.c - the plan of a GGUF file: its tensors in order, their types and importances; and its life. */
#include "checkpoint/gguf_out.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/gguf_out_internal.h"
#include "numeric/block.h"

enum { ID_F32 = 0, ID_F16 = 1, ID_BF16 = 30 };

struct planner {
    struct nb_gguf_out *o;
    struct nb_err *err;
};

/* ---- what is in the file ---- */

static struct nb_gguf_planned *add_item(struct nb_gguf_out *o, const char *name, const char *source,
                                        struct nb_err *err)
{
    if (!nb_grow((void **)&o->items, &o->capacity, o->n, sizeof *o->items)) {
        nb_fail(err, NB_E_NOMEM, "no memory for a plan of %zu tensors", o->n + 1);
        return NULL;
    }
    struct nb_gguf_planned *p = &o->items[o->n++];
    *p = (struct nb_gguf_planned){.item = {.name = nb_arena_strdup(&o->arena, name),
                                           .source = nb_arena_strdup(&o->arena, source),
                                           .layer = -1,
                                           .linear = -1}};
    if (p->item.name && p->item.source) return p;
    nb_fail(err, NB_E_NOMEM, "no memory for the names of %zu tensors", o->n);
    return NULL;
}

static const struct nb_block_type *dense_type(const struct nb_model *m, const char *name)
{
    const struct nb_tensor *t = nb_safetensors_find(m->tensors, name);
    if (!t) return nb_block_by_id(ID_F32); /* packed by another quantization */
    return nb_block_by_id(t->dtype == NB_BF16 ? ID_BF16 : t->dtype == NB_F16 ? ID_F16 : ID_F32);
}

static int add_part(void *ctx, const struct nb_part *part)
{
    const struct planner *plan = ctx;
    struct nb_gguf_out *o = plan->o;
    const struct nb_model *m = o->model;
    struct nb_arch_gguf_tensor map;
    if (!nb_arch_gguf_from_hf(&m->arch, part->name, &map)) {
        return nb_fail(plan->err, NB_E_SPEC, "tensor '%s' has no name in GGUF files", part->name);
    }
    struct nb_gguf_planned *p = add_item(o, map.name, part->name, plan->err);
    if (!p) return plan->err ? plan->err->status : NB_E_NOMEM;
    p->kind = part->kind;
    p->change = map.change;
    p->heads = map.heads;
    p->item.layer = part->layer;
    p->item.linear = part->kind == NB_PART_WEIGHT ? part->linear : -1;
    p->item.rows = part->rows;
    p->item.cols = part->cols;
    bool vector = part->kind == NB_PART_NORM || part->kind == NB_PART_BIAS;
    /* The converter keeps learned positions in F32, whatever the rest is. */
    bool wide = vector || part->kind == NB_PART_POSITIONS;
    p->from = wide ? nb_block_by_id(ID_F32) : dense_type(m, part->name);
    return 0;
}

static int add_rope_factors(struct nb_gguf_out *o, struct nb_err *err)
{
    const size_t n = (size_t)o->model->arch.rotary_dim / 2;
    o->rope_factors = nb_calloc(NB_ARCH_GGUF_MAX_FACTORS * n, sizeof *o->rope_factors);
    if (!o->rope_factors) return nb_fail(err, NB_E_NOMEM, "no memory for the rotary factors");
    for (int i = 0; i < NB_ARCH_GGUF_MAX_FACTORS; i++) {
        float *values = o->rope_factors + (size_t)i * n;
        const char *name = nb_arch_gguf_rope_factors(&o->model->arch, i, values);
        if (!name) return 0;
        struct nb_gguf_planned *p = add_item(o, name, "", err);
        if (!p) return err ? err->status : NB_E_NOMEM;
        p->kind = NB_PART_NORM;
        p->values = values;
        p->item.rows = 1;
        p->item.cols = (int64_t)n;
        p->from = nb_block_by_id(ID_F32);
    }
    return 0;
}

static int linear_of(const struct nb_arch *arch, int64_t layer, const char *hf_name)
{
    char name[NB_NAME_MAX * 2];
    int n_linears;
    const struct nb_arch_linear *linears = nb_arch_layer_linears(arch, layer, &n_linears);
    for (int i = 0; i < n_linears; i++) {
        nb_arch_name(arch, layer, linears[i].name, name);
        size_t n = strlen(name);
        if (!strncmp(hf_name, name, n) && !strcmp(hf_name + n, ".weight")) return i;
    }
    return -1;
}

static int add_raw(struct nb_gguf_out *o, const struct nb_gguf_tensor *t, struct nb_err *err)
{
    const struct nb_arch *arch = &o->model->arch;
    struct nb_arch_gguf_tensor map = {.name = ""};
    nb_arch_gguf_to_hf(arch, t->name, &map);
    struct nb_gguf_planned *p = add_item(o, t->name, map.name, err);
    if (!p) return err ? err->status : NB_E_NOMEM;
    p->raw = t;
    p->change = map.change;
    p->heads = map.heads;
    p->from = nb_block_by_id(t->type->id);
    p->item.cols = t->ne[0];
    p->item.rows = t->ne[1] * t->ne[2] * t->ne[3];
    p->item.layer = !strncmp(t->name, "blk.", 4) ? strtoll(t->name + 4, NULL, 10) : -1;
    if (p->item.layer >= 0) p->item.linear = linear_of(arch, p->item.layer, map.name);
    if (p->from) return 0;
    return nb_fail(err, NB_E_SPEC, "tensor '%s' of type %s cannot be copied", t->name,
                   t->type->name);
}

static int by_name(const void *a, const void *b)
{
    const struct nb_gguf_planned *x = a, *y = b;
    return nb_gguf_compare_names(x->item.name, y->item.name);
}

static int list_items(struct nb_gguf_out *o, struct nb_err *err)
{
    const struct nb_model *m = o->model;
    int rc = 0;
    if (m->gguf) {
        for (size_t i = 0; i < nb_gguf_count(m->gguf) && !rc; i++)
            rc = add_raw(o, nb_gguf_at(m->gguf, i), err);
    } else {
        rc = nb_model_each_part(&m->arch, add_part, &(struct planner){o, err});
        if (!rc) rc = add_rope_factors(o, err);
    }
    if (rc) return rc;
    qsort(o->items, o->n, sizeof *o->items, by_name);
    size_t n = (size_t)nb_arch_first_linear(&m->arch, m->arch.n_layers);
    o->by_linear = nb_calloc(n ? n : 1, sizeof *o->by_linear);
    if (!o->by_linear) return nb_fail(err, NB_E_NOMEM, "no memory for the plan");
    for (size_t i = 0; i < o->n; i++) {
        const struct nb_gguf_item *it = &o->items[i].item;
        if (it->linear >= 0)
            o->by_linear[nb_arch_first_linear(&m->arch, it->layer) + it->linear] = i;
    }
    return 0;
}

/* ---- types and importances ---- */

static int choose_types(struct nb_gguf_out *o, struct nb_err *err)
{
    const struct nb_arch *a = &o->model->arch;
    struct nb_gguf_facts facts = {.architecture = nb_arch_gguf_architecture(a),
                                  .n_layers = a->n_layers,
                                  .n_heads = a->n_heads,
                                  .n_kv_heads = a->n_kv_heads,
                                  .imatrix = o->opts.imatrix || o->opts.calibrated};
    struct nb_gguf_shape *shapes = nb_calloc(o->n, sizeof *shapes);
    const struct nb_block_type **types = nb_calloc(o->n, sizeof(struct nb_block_type *));
    int rc = shapes && types ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for %zu types", o->n);
    for (size_t i = 0; i < o->n && !rc; i++) {
        const struct nb_gguf_planned *p = &o->items[i];
        shapes[i] =
            (struct nb_gguf_shape){p->item.name, {p->item.cols, p->item.rows, 1, 1}, p->from};
    }
    if (!rc) rc = nb_gguf_choose_types(&facts, &o->opts.rules, shapes, o->n, types, err);
    for (size_t i = 0; i < o->n && !rc; i++) o->items[i].item.type = types[i];
    nb_free(shapes);
    nb_free(types);
    return rc;
}

static int check_type(const struct nb_gguf_out *o, const struct nb_gguf_planned *p,
                      struct nb_err *err)
{
    const struct nb_gguf_item *it = &p->item;
    if (it->type == p->from && p->raw) return 0;
    if (!nb_block_can_encode(it->type)) {
        nb_fail(err, NB_E_SPEC, "tensor '%s': type %s cannot be written", it->name, it->type->name);
        return nb_err_hint(err, "types down to Q2_K can; this one is only read");
    }
    bool packed = p->raw ? p->from->elems > 1 : o->model->quant_config != NULL && it->linear >= 0;
    if (!packed || o->opts.requantize) return 0;
    nb_fail(err, NB_E_SPEC, "tensor '%s' is quantized already (%s), a second time makes it worse",
            it->name, p->raw ? p->from->name : o->model->checkpoint->name);
    return nb_err_hint(err, "give the float model it was made from, or --requantize");
}

static int find_importance(struct nb_gguf_out *o, struct nb_gguf_planned *p, struct nb_err *err)
{
    struct nb_gguf_item *it = &p->item;
    it->quantized = it->type->elems > 1 && it->type != p->from;
    if (!o->opts.imatrix || !it->quantized || !nb_block_uses_importance(it->type)) return 0;
    const struct nb_imatrix_entry *e = nb_imatrix_find(o->opts.imatrix, it->name);
    if (e) {
        float *weights = nb_arena_alloc(&o->arena, (size_t)it->cols, sizeof *weights);
        if (!weights)
            return nb_fail(err, NB_E_NOMEM, "no memory for the importance of '%s'", it->name);
        int rc = nb_imatrix_weights(o->opts.imatrix, e, it->cols, 1, weights, err);
        if (rc && !strcmp(it->name, "token_embd.weight")) return 0; /* of something else */
        if (!rc) it->importance = weights;
        return rc;
    }
    if (!nb_gguf_needs_imatrix(it->name, it->type, o->opts.rules.preset)) return 0;
    return nb_fail(err, NB_E_SPEC,
                   "tensor '%s': type %s needs importances, the matrix has none for it", it->name,
                   it->type->name);
}

static int plan_tensors(struct nb_gguf_out *o, struct nb_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < o->n && !rc; i++) {
        struct nb_gguf_planned *p = &o->items[i];
        struct nb_gguf_item *it = &p->item;
        rc = check_type(o, p, err);
        if (!rc) rc = find_importance(o, p, err);
        it->bytes = nb_block_row_bytes(it->type, it->cols) * (uint64_t)it->rows;
        const int64_t ne[] = {it->cols, it->rows};
        if (rc) break;
        if (p->raw)
            rc = nb_gguf_writer_plan(o->writer, it->name, it->type->id, NB_GGUF_MAX_DIMS,
                                     p->raw->ne, err);
        else rc = nb_gguf_writer_plan(o->writer, it->name, it->type->id, 2, ne, err);
    }
    return rc;
}

/* ---- the life of a file ---- */

int nb_gguf_out_new(struct nb_gguf_out **out, const struct nb_model *model,
                    const struct nb_gguf_out_opts *opts, struct nb_strbuf *notes,
                    struct nb_err *err)
{
    if (!nb_arch_gguf_architecture(&model->arch)) {
        return nb_fail(
            err, NB_E_SPEC,
            "a model of type %s has experts, which cannot be written as GGUF; possible: a "
            "folder (--format gptq, awq)",
            model->arch.model_type);
    }
    struct nb_gguf_out *o = nb_xalloc(sizeof *o);
    o->model = model;
    o->opts = *opts;
    nb_arena_init(&o->arena);
    o->writer = nb_gguf_writer_new();
    int rc = o->writer ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for a GGUF file");
    if (!rc) rc = list_items(o, err);
    if (!rc) rc = choose_types(o, err);
    if (!rc) rc = nb_gguf_out_metadata(o, notes, err);
    if (!rc) rc = plan_tensors(o, err);
    if (rc) {
        nb_gguf_out_free(o);
        o = NULL;
    }
    *out = o;
    return rc;
}

void nb_gguf_out_free(struct nb_gguf_out *o)
{
    if (!o) return;
    nb_gguf_writer_free(o->writer);
    nb_arena_release(&o->arena);
    nb_free(o->items);
    nb_free(o->by_linear);
    nb_free(o->rope_factors);
    nb_free(o);
}

size_t nb_gguf_out_count(const struct nb_gguf_out *o)
{
    return o->n;
}

const struct nb_gguf_item *nb_gguf_out_at(const struct nb_gguf_out *o, size_t i)
{
    return &o->items[i].item;
}

size_t nb_gguf_out_linear(const struct nb_gguf_out *o, int64_t layer, int linear)
{
    return o->by_linear[nb_arch_first_linear(&o->model->arch, layer) + linear];
}

size_t nb_gguf_out_head(const struct nb_gguf_out *o)
{
    size_t embedding = 0;
    for (size_t i = 0; i < o->n; i++) {
        if (!strcmp(o->items[i].item.name, "output.weight")) return i;
        if (!strcmp(o->items[i].item.name, "token_embd.weight")) embedding = i;
    }
    return embedding;
}

bool nb_gguf_out_ties_head(const struct nb_gguf_out *o)
{
    const char *head = o->model->arch.head_name;
    if (o->model->gguf || !nb_safetensors_find(o->model->tensors, head)) return false;
    return strcmp(o->items[nb_gguf_out_head(o)].item.source, head) != 0;
}

uint64_t nb_gguf_out_bytes(const struct nb_gguf_out *o)
{
    return nb_gguf_writer_bytes(o->writer);
}

int nb_gguf_out_open(struct nb_gguf_out *o, const char *path, uint64_t max_part_bytes, bool resume,
                     struct nb_err *err)
{
    struct nb_gguf_writer_opts opts = {
        .path = path, .max_part_bytes = max_part_bytes, .resume = resume};
    return nb_gguf_writer_open(o->writer, &opts, err);
}

int nb_gguf_out_mark(struct nb_gguf_out *o, size_t i, struct nb_err *err)
{
    return nb_gguf_writer_mark(o->writer, o->items[i].item.name, err);
}

int nb_gguf_out_sync(struct nb_gguf_out *o, struct nb_err *err)
{
    return nb_gguf_writer_sync(o->writer, err);
}

int nb_gguf_out_finish(struct nb_gguf_out *o, struct nb_err *err)
{
    return nb_gguf_writer_finish(o->writer, err);
}

size_t nb_gguf_out_file_count(const struct nb_gguf_out *o)
{
    return nb_gguf_writer_part_count(o->writer);
}

const char *nb_gguf_out_file_path(const struct nb_gguf_out *o, size_t i)
{
    return nb_gguf_writer_part_path(o->writer, i);
}
