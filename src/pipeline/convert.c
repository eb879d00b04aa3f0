/* SPDX-License-Identifier: Apache-2.0
 *
 * convert.c - see convert.h. Three passes over the linears, one at a time in memory: can each be exact, write, read
 * back and compare. */
#include "pipeline/convert.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "nibble/version.h"
#include "pipeline/convert_spec.h"
#include "pipeline/dense_rows.h"
#include "pipeline/new_folder.h"
#include "pipeline/pipeline.h"

struct linear {
    int64_t rows, cols;
    size_t first; /* tensor of the source at which it is written */
};

struct run {
    const struct nb_unpack_opts *opts;
    const struct nb_progress *progress;
    struct nb_pool *pool;
    struct nb_unpack_report *report;
    struct nb_model *model;
    const struct nb_checkpoint *to; /* NULL: floats */
    enum nb_dtype dtype;            /* of the floats */
    struct nb_module_spec *modules; /* of each linear, and its size */
    struct linear *linears;
    size_t n, capacity, linear_capacity;
    size_t *owner; /* of each tensor of the source: index of its linear, or n */
    struct nb_convert_sizes sizes;
    bool kv;
    struct nb_st_writer *writer;
    struct nb_new_folder folder;
};

/* ---- the linears ---- */

static int add_linear(void *ctx, const struct nb_part *part)
{
    struct run *r = ctx;
    const bool head = part->kind == NB_PART_HEAD;
    if (part->kind != NB_PART_WEIGHT && !head) return 0;
    if (!nb_grow((void **)&r->modules, &r->capacity, r->n, sizeof *r->modules) ||
        !nb_grow((void **)&r->linears, &r->linear_capacity, r->n, sizeof *r->linears))
        return NB_E_NOMEM;
    struct nb_module_spec *m = &r->modules[r->n];
    *m = (struct nb_module_spec){0};
    memcpy(m->path, part->name, sizeof m->path);
    char *dot = strrchr(m->path, '.');
    if (dot) *dot = '\0';
    m->quantized = r->model->checkpoint->is_quantized(r->model, m->path);
    r->linears[r->n] = (struct linear){.rows = part->rows, .cols = part->cols, .first = SIZE_MAX};
    if (!head || m->quantized) r->n++;
    return 0;
}

struct named { /* a path and where its linear stands */
    const char *path;
    size_t at;
};

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct named *)a)->path, ((const struct named *)b)->path);
}

/* Index of the quantized linear that keeps tensor `name`, or n. The module is what stands before one of the dots. */
static size_t owner_of(const struct run *r, const struct named *index, const char *name)
{
    char path[NB_PACKED_NAME_MAX];
    const size_t n = strlen(name);
    if (n >= sizeof path) return r->n;
    memcpy(path, name, n + 1);
    for (char *dot = strrchr(path, '.'); dot; dot = strrchr(path, '.')) {
        *dot = '\0';
        const struct named key = {.path = path};
        const struct named *hit = bsearch(&key, index, r->n, sizeof *index, by_name);
        if (!hit) continue;
        const bool owned = r->modules[hit->at].quantized &&
                           r->model->checkpoint->owns(r->model, path, name + (dot - path));
        return owned ? hit->at : r->n;
    }
    return r->n;
}

static int find_owners(struct run *r, struct nb_err *err)
{
    const size_t n = nb_model_tensor_count(r->model);
    struct named *index = nb_alloc(r->n + 1, sizeof *index);
    r->owner = nb_alloc(n + 1, sizeof *r->owner);
    if (!index || !r->owner) {
        nb_free(index);
        return nb_fail(err, NB_E_NOMEM, "no memory for a list of %zu tensors", n);
    }
    for (size_t i = 0; i < r->n; i++) index[i] = (struct named){r->modules[i].path, i};
    if (r->n) qsort(index, r->n, sizeof *index, by_name);
    for (size_t i = 0; i < n; i++) {
        struct nb_model_tensor t;
        nb_model_tensor_at(r->model, i, &t);
        r->owner[i] = owner_of(r, index, t.name);
        if (r->owner[i] < r->n && r->linears[r->owner[i]].first == SIZE_MAX)
            r->linears[r->owner[i]].first = i;
    }
    nb_free(index);
    return 0;
}

static int read_linear(const struct run *r, const struct nb_model *m, size_t i,
                       struct nb_arena *arena, struct nb_weight *w, struct nb_err *err)
{
    const struct nb_module_ref ref = {
        .path = r->modules[i].path, .rows = r->linears[i].rows, .cols = r->linears[i].cols};
    int rc = nb_model_module(m, &ref, arena, w, err);
    if (!rc && !w->q) rc = nb_fail(err, NB_E_FAIL, "'%s' is not quantized", ref.path);
    return rc;
}

static int tick(const struct run *r, const char *phase, const char *item, size_t done,
                struct nb_err *err)
{
    const struct nb_progress_event event = {.phase = phase,
                                            .item = item,
                                            .done = done,
                                            .total = r->n,
                                            .loss = -1,
                                            .item_done = done == r->n};
    if (nb_progress_stop(r->progress)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
    nb_progress_report(r->progress, &event);
    return 0;
}

/* Calls fn for each quantized linear of `m` in turn. */
typedef int (*linear_fn)(struct run *r, size_t i, const struct nb_weight *w, struct nb_arena *arena,
                         struct nb_err *err);

static int each_linear(struct run *r, const char *phase, linear_fn fn, struct nb_err *err)
{
    struct nb_arena arena;
    int rc = 0;
    nb_arena_init(&arena);
    for (size_t i = 0; i < r->n && !rc; i++) {
        struct nb_weight w;
        if (!r->modules[i].quantized) continue;
        nb_arena_reset(&arena);
        rc = read_linear(r, r->model, i, &arena, &w, err);
        if (!rc) rc = fn(r, i, &w, &arena, err);
        if (!rc) rc = tick(r, phase, r->modules[i].path, i + 1, err);
    }
    nb_arena_release(&arena);
    return rc;
}

/* ---- can it be exact? ---- */

static int measure(struct run *r, size_t i, const struct nb_weight *w, struct nb_arena *arena,
                   struct nb_err *err)
{
    (void)i;
    (void)arena;
    (void)err;
    nb_convert_sizes_add(&r->sizes, w->q);
    return 0;
}

static void hint_nearest(const struct run *r, const struct nb_qmat *q, struct nb_arena *arena,
                         struct nb_err *err)
{
    char list[160] = "";
    for (const struct nb_checkpoint *const *c = nb_checkpoints(); *c; c++) {
        struct nb_convert_choice choice;
        struct nb_err ignored;
        const size_t n = strlen(list);
        if (!(*c)->can_write || *c == r->to) continue;
        if (nb_convert_spec(&choice, q, &r->sizes, *c, arena, &ignored)) continue;
        snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", (*c)->name);
    }
    if (list[0]) nb_err_hint(err, "formats that hold it exactly: %s", list);
    else nb_err_hint(err, "no format holds it exactly; --format dense --type f32 keeps the values");
}

static int choose_spec(struct run *r, size_t i, const struct nb_weight *w, struct nb_arena *arena,
                       struct nb_err *err)
{
    struct nb_module_spec *m = &r->modules[i];
    const bool outliers = w->q->spec.act == NB_ACT_INT8_OUTLIER;
    struct nb_convert_choice choice;
    int rc = nb_convert_spec(&choice, w->q, &r->sizes, r->to, arena, err);
    m->spec = choice.spec;
    m->desc_act = choice.order;
    if (rc == NB_E_SPEC) {
        nb_err_prefix(err, "'%s'", m->path);
        hint_nearest(r, w->q, arena, err);
    }
    if (!rc && outliers && m->spec.act != NB_ACT_INT8_OUTLIER && !r->report->notes.len) {
        nb_strbuf_puts(&r->report->notes,
                       "weights are the same; outlier columns of the inputs are no longer kept in "
                       "float, since only bitsandbytes does that\n");
    }
    return rc;
}

static void fill_info(const struct run *r, struct nb_checkpoint_info *info, char producer[48])
{
    size_t first = 0;
    while (first < r->n && !r->modules[first].quantized) first++;
    snprintf(producer, 48, "nibble:%s", nb_version());
    *info = (struct nb_checkpoint_info){
        .modules = r->modules,
        .n_modules = r->n,
        .desc_act = r->sizes.order,
        .true_sequential = true,
        .pack = {.source = r->model->arch.dtype, .storage = NB_U8, .order = r->sizes.order},
        .kv_scales = r->kv,
        .producer = producer};
    if (first < r->n) info->spec = r->modules[first].spec;
}

static bool ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);
    return n > k && !strcmp(s + n - k, end);
}

/* Scales of a quantized KV cache: kept under the one name that all spell alike. */
static int check_kv(struct run *r, struct nb_err *err)
{
    static const char *const old[] = {"_proj.k_scale", "_proj.v_scale", "_proj.output_scale",
                                      ".kv_scale", ".q_scale"};
    for (size_t i = 0; i < nb_model_tensor_count(r->model); i++) {
        struct nb_model_tensor t;
        nb_model_tensor_at(r->model, i, &t);
        for (size_t k = 0; k < sizeof old / sizeof *old; k++) {
            if (ends_with(t.name, old[k]))
                return nb_fail(err, NB_E_SPEC,
                               "tensor '%s': this spelling of KV cache scales cannot be moved",
                               t.name);
        }
        r->kv = r->kv || ends_with(t.name, "self_attn.k_scale") ||
                ends_with(t.name, "self_attn.v_scale");
    }
    if (!r->kv || !r->to || r->to->kv_scales) return 0;
    return nb_fail(err, NB_E_SPEC, "%s: has scales of a float8 KV cache, for which %s has no place",
                   r->opts->model, r->to->name);
}

static int choose_type(struct run *r, struct nb_err *err)
{
    const char *type = r->opts->type;
    r->dtype = r->model->arch.dtype;
    if (r->to && type)
        return nb_fail(err, NB_E_USAGE,
                       "option '--type' goes with --format dense: codes keep their type");
    if (type && !strcasecmp(type, "bf16")) r->dtype = NB_BF16;
    else if (type && !strcasecmp(type, "f16")) r->dtype = NB_F16;
    else if (type && !strcasecmp(type, "f32")) r->dtype = NB_F32;
    else if (type) return nb_fail(err, NB_E_USAGE, "type '%s' is none of bf16, f16, f32", type);
    if (!r->to && r->dtype != NB_F32)
        nb_strbuf_printf(&r->report->notes,
                         "weights are rounded to %s; --type f32 would keep them exactly\n",
                         nb_dtype_name(r->dtype));
    return 0;
}

static int choose(struct run *r, struct nb_err *err)
{
    struct nb_checkpoint_info info;
    char producer[48];
    int rc = choose_type(r, err);
    if (!rc && nb_model_each_part(&r->model->arch, add_linear, r))
        rc = nb_fail(err, NB_E_NOMEM, "no memory for the list of linears");
    if (!rc) rc = find_owners(r, err);
    if (!rc) rc = check_kv(r, err);
    if (rc || !r->to) return rc;
    rc = each_linear(r, "measure", measure, err);
    if (!rc) rc = each_linear(r, "check", choose_spec, err);
    fill_info(r, &info, producer);
    return rc ? rc : r->to->can_describe(&info, err);
}

/* ---- writing ---- */

static int plan_tensor(struct run *r, const char *name, const struct nb_packed_tensor *t,
                       struct nb_err *err)
{
    r->report->tensors++;
    return nb_st_writer_plan(r->writer, name, t->dtype, t->rank, t->shape, err);
}

static int plan_linear(struct run *r, size_t i, struct nb_err *err)
{
    const struct linear *l = &r->linears[i];
    const struct nb_module_spec *m = &r->modules[i];
    struct nb_packed_tensor packed[NB_MAX_PACKED];
    const struct nb_pack_opts opts = {
        .source = r->model->arch.dtype, .storage = NB_U8, .order = m->desc_act};
    char name[NB_PACKED_NAME_MAX];
    r->report->quantized++;
    if (!r->to) {
        const struct nb_packed_tensor whole = {
            .dtype = r->dtype, .rank = 2, .shape = {l->rows, l->cols}};
        snprintf(name, sizeof name, "%s.weight", m->path);
        return plan_tensor(r, name, &whole, err);
    }
    int rc = 0, n = r->to->plan(&m->spec, l->rows, l->cols, &opts, packed);
    for (int k = 0; k < n && !rc; k++) {
        snprintf(name, sizeof name, "%s%s", m->path, packed[k].suffix);
        rc = plan_tensor(r, name, &packed[k], err);
    }
    return rc;
}

static bool is_dropped(const struct run *r, const char *name)
{
    return !r->to && (ends_with(name, "self_attn.k_scale") || ends_with(name, "self_attn.v_scale"));
}

/* In the order of the source: a linear where its first tensor stood. */
static int plan(struct run *r, struct nb_err *err)
{
    int rc = 0;
    r->writer = nb_st_writer_new();
    for (size_t i = 0; i < nb_safetensors_count(r->model->tensors) && !rc; i++) {
        const struct nb_tensor *t = nb_safetensors_at(r->model->tensors, i);
        const size_t owner = r->owner[i];
        if (owner < r->n && r->linears[owner].first == i) rc = plan_linear(r, owner, err);
        if (owner < r->n || is_dropped(r, t->name)) continue;
        r->report->tensors++;
        rc = nb_st_writer_plan(r->writer, t->name, t->dtype, t->rank, t->shape, err);
    }
    return rc;
}

static int write_linear(struct run *r, size_t i, const struct nb_weight *w, struct nb_arena *arena,
                        struct nb_err *err)
{
    const struct nb_module_spec *m = &r->modules[i];
    struct nb_packed_tensor packed[NB_MAX_PACKED];
    const struct nb_pack_opts opts = {
        .source = r->model->arch.dtype, .storage = NB_U8, .order = m->desc_act};
    char name[NB_PACKED_NAME_MAX];
    struct nb_qmat view;
    if (!r->to) {
        const struct nb_dense_rows rows = {r->writer, r->pool, r->dtype};
        snprintf(name, sizeof name, "%s.weight", m->path);
        return nb_dense_rows_put(&rows, name, w, err);
    }
    nb_convert_view(&view, w->q, &m->spec);
    int n = 0, rc = r->to->pack(&view, &opts, arena, packed, &n, err);
    for (int k = 0; k < n && !rc; k++) {
        size_t bytes = (size_t)nb_dtype_bits(packed[k].dtype) / 8;
        for (int d = 0; d < packed[k].rank; d++) bytes *= (size_t)packed[k].shape[d];
        snprintf(name, sizeof name, "%s%s", m->path, packed[k].suffix);
        rc = nb_st_writer_put(r->writer, name, packed[k].data, bytes, err);
    }
    return rc ? nb_err_prefix(err, "'%s'", m->path) : 0;
}

static int copy_tensors(struct run *r, struct nb_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < nb_safetensors_count(r->model->tensors) && !rc; i++) {
        const struct nb_tensor *t = nb_safetensors_at(r->model->tensors, i);
        if (r->owner[i] < r->n || is_dropped(r, t->name)) continue;
        rc = nb_st_writer_put(r->writer, t->name, t->data.data, t->data.bytes, err);
        nb_safetensors_drop(r->model->tensors, t);
    }
    return rc;
}

static int write_config(struct run *r, struct nb_err *err)
{
    static const char key[] = "quantization_config";
    struct nb_checkpoint_info info;
    char producer[48];
    json_t *config = json_deep_copy(r->model->config), *q = NULL;
    int rc = config ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for config.json");
    json_object_del(config, key);
    json_object_del(json_object_get(config, "text_config"), key);
    fill_info(r, &info, producer);
    if (!rc && r->to) {
        q = r->to->config(&info);
        if (!q) rc = nb_fail(err, NB_E_NOMEM, "no memory for the quantization config");
        else if (r->to->side_config)
            rc = nb_new_folder_json(&r->folder, r->to->side_config, q, err);
        json_object_set_new(config, key, q);
    } else if (!rc && r->dtype != r->model->arch.dtype) {
        const char *type = r->dtype == NB_F32   ? "float32"
                           : r->dtype == NB_F16 ? "float16"
                                                : "bfloat16";
        const char *where = json_object_get(config, "dtype") ? "dtype" : "torch_dtype";
        json_object_set_new(config, where, json_string(type));
    }
    if (!rc) rc = nb_new_folder_json(&r->folder, "config.json", config, err);
    json_decref(config);
    return rc;
}

/* ---- reading back ---- */

static int check_linear(struct run *r, const struct nb_model *made, size_t i,
                        struct nb_arena *arena, struct nb_err *err)
{
    struct nb_weight a, b;
    int rc = read_linear(r, r->model, i, arena, &a, err);
    if (!rc) rc = read_linear(r, made, i, arena, &b, err);
    if (!rc) rc = nb_convert_compare(a.q, b.q, err);
    return rc ? nb_err_prefix(err, "'%s'", r->modules[i].path) : 0;
}

static int check_copies(const struct run *r, const struct nb_model *made, struct nb_err *err)
{
    for (size_t i = 0; i < nb_safetensors_count(r->model->tensors); i++) {
        const struct nb_tensor *a = nb_safetensors_at(r->model->tensors, i);
        if (r->owner[i] < r->n || is_dropped(r, a->name)) continue;
        const struct nb_tensor *b = nb_safetensors_find(made->tensors, a->name);
        if (!b || b->dtype != a->dtype || b->data.bytes != a->data.bytes ||
            memcmp(a->data.data, b->data.data, a->data.bytes))
            return nb_fail(err, NB_E_FAIL, "tensor '%s' reads back as another one", a->name);
        nb_safetensors_drop(r->model->tensors, a);
        nb_safetensors_drop(made->tensors, b);
    }
    return 0;
}

static int read_back(struct run *r, struct nb_err *err)
{
    struct nb_model *made;
    struct nb_arena arena;
    int rc = nb_model_open(&made, r->folder.partial, err);
    if (rc) return nb_err_prefix(err, "reading back");
    nb_arena_init(&arena);
    for (size_t i = 0; i < r->n && r->to && !rc; i++) {
        if (!r->modules[i].quantized) continue;
        nb_arena_reset(&arena);
        rc = check_linear(r, made, i, &arena, err);
        if (!rc) rc = tick(r, "read back", r->modules[i].path, i + 1, err);
    }
    nb_arena_release(&arena);
    if (!rc) rc = check_copies(r, made, err);
    nb_model_close(made);
    return rc;
}

/* ---- the run ---- */

static int work(struct run *r, struct nb_err *err)
{
    const struct nb_st_writer_opts o = {.dir = r->folder.partial,
                                        .max_shard_bytes = r->opts->max_shard_bytes};
    int rc = nb_new_folder_begin(&r->folder, err);
    if (!rc) rc = nb_st_writer_open(r->writer, &o, err);
    if (!rc) rc = write_config(r, err);
    if (!rc) rc = nb_side_files_copy(r->model->dir, r->folder.partial, r->progress, err);
    if (!rc) rc = each_linear(r, "write", write_linear, err);
    if (!rc) rc = copy_tensors(r, err);
    if (!rc) rc = nb_st_writer_finish(r->writer, err);
    if (!rc) rc = read_back(r, err);
    if (!rc) rc = nb_new_folder_publish(&r->folder, err);
    if (rc) nb_new_folder_abandon(&r->folder);
    return rc;
}

static int check_source(struct run *r, struct nb_err *err)
{
    const char *format = r->opts->format;
    if (!nb_model_is_quantized(r->model)) {
        if (format && strcmp(format, "dense")) {
            nb_fail(err, NB_E_SPEC, "%s: has float weights, which have no codes to keep",
                    r->opts->model);
            return nb_err_hint(err, "nibble quantize --format %s makes them", format);
        }
        nb_fail(err, NB_E_SPEC, "%s: is a Hugging Face folder already", r->opts->model);
        return nb_err_hint(err, "to make a GGUF file, give -o a name that ends in .gguf");
    }
    if (format && !strcmp(format, "dense")) return 0;
    r->to = format ? nb_checkpoint_find(format) : NULL;
    if (r->to && r->to->can_write) return 0;
    char list[160] = "dense";
    for (const struct nb_checkpoint *const *c = nb_checkpoints(); *c; c++) {
        const size_t n = strlen(list);
        if ((*c)->can_write) snprintf(list + n, sizeof list - n, ", %s", (*c)->name);
    }
    if (!format) return nb_fail(err, NB_E_USAGE, "--format is missing; possible: %s", list);
    return nb_fail(err, NB_E_USAGE, "format '%s' is not possible here; possible: %s", format, list);
}

static void release(struct run *r)
{
    nb_st_writer_free(r->writer);
    nb_model_close(r->model);
    nb_free(r->modules);
    nb_free(r->linears);
    nb_free(r->owner);
    nb_new_folder_release(&r->folder);
}

int nb_convert(struct nb_unpack_report *report, const struct nb_unpack_opts *opts,
               struct nb_pool *pool, const struct nb_progress *progress, struct nb_err *err)
{
    const double start = nb_clock_s();
    memset(report, 0, sizeof *report);
    nb_strbuf_init(&report->notes);
    struct run r = {.opts = opts,
                    .progress = progress,
                    .pool = pool,
                    .report = report,
                    .folder = {.out = opts->out, .overwrite = opts->overwrite}};
    int rc = nb_model_open(&r.model, opts->model, err);
    if (!rc && r.model->gguf) {
        release(&r);
        nb_unpack_report_release(report);
        return nb_unpack(report, opts, pool, progress, err);
    }
    if (!rc) rc = nb_new_folder_check(&r.folder, err);
    if (!rc) rc = check_source(&r, err);
    if (!rc) rc = choose(&r, err);
    if (!rc) rc = plan(&r, err);
    if (!rc) rc = work(&r, err);
    if (!rc) {
        report->bytes = nb_st_writer_bytes(r.writer);
        report->bytes_source = nb_model_bytes(r.model);
    }
    release(&r);
    report->seconds = nb_clock_s() - start;
    report->peak_rss_bytes = nb_rss_peak_bytes();
    return rc;
}
