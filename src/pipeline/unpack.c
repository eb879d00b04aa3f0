/* SPDX-License-Identifier: Apache-2.0
 *
 * unpack.c - see unpack.h. */
#include "pipeline/unpack.h"

#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "checkpoint/checkpoint.h"
#include "nibble/version.h"
#include "numeric/block.h"
#include "pipeline/dense_rows.h"
#include "pipeline/new_folder.h"
#include "pipeline/pipeline.h"

struct run {
    const struct nb_unpack_opts *opts;
    const struct nb_progress *progress;
    struct nb_pool *pool;
    struct nb_unpack_report *report;
    struct nb_model *model;
    enum nb_dtype dtype;
    const struct nb_checkpoint *checkpoint; /* NULL: floats */
    struct nb_module_spec *modules;         /* of every linear, with checkpoint */
    struct nb_st_writer *writer;
    struct nb_new_folder folder;
    int64_t done;
    struct nb_err *err;
};

/* ---- what to do ---- */

static int choose_type(struct run *r, struct nb_err *err)
{
    const char *type = r->opts->type;
    const bool packed = nb_model_is_quantized(r->model);
    if (!type) r->dtype = packed ? NB_F16 : r->model->arch.dtype;
    else if (!strcasecmp(type, "bf16")) r->dtype = NB_BF16;
    else if (!strcasecmp(type, "f16")) r->dtype = NB_F16;
    else if (!strcasecmp(type, "f32")) r->dtype = NB_F32;
    else return nb_fail(err, NB_E_USAGE, "type '%s' is none of bf16, f16, f32", type);
    if (packed && r->dtype != NB_F32 && !r->opts->format) {
        nb_strbuf_printf(&r->report->notes,
                         "weights are rounded to %s; f32 would keep them exactly\n",
                         nb_dtype_name(r->dtype));
    }
    return 0;
}

/* The spec under which the other format holds these blocks code by code: one f16 scale, zero in the middle. */
static bool exact_spec(const struct nb_block_type *type, struct nb_qspec *spec)
{
    return nb_block_qspec(type, spec) && spec->elem.kind == NB_ELEM_INT && !spec->super_groups &&
           spec->zero == NB_ZERO_CODE && spec->symmetric && spec->scale_dtype == NB_F16 &&
           (spec->elem.bits == 4 || spec->elem.bits == 8);
}

static struct nb_qspec stored_spec(struct nb_qspec spec)
{
    spec.zero_implied = false; /* the other format writes it down */
    return spec;
}

static int add_module(struct run *r, int64_t l, int i, struct nb_err *err)
{
    const struct nb_arch *a = &r->model->arch;
    int n;
    const struct nb_arch_linear *lin = &nb_arch_layer_linears(a, l, &n)[i];
    struct nb_module_spec *m = &r->modules[nb_arch_first_linear(a, l) + i];
    struct nb_arena arena;
    struct nb_weight w;
    struct nb_qspec spec;
    nb_arena_init(&arena);
    nb_arch_name(a, l, lin->name, m->path);
    int rc = nb_model_linear(r->model, l, lin, &arena, &w, err);
    if (!rc && (!w.blocks.data || !exact_spec(w.blocks.type, &spec))) {
        nb_fail(err, NB_E_SPEC, "'%s' is %s, which %s cannot hold code by code", w.name,
                w.blocks.data ? w.blocks.type->name : nb_dtype_name(w.dense.dtype),
                r->checkpoint->name);
        rc = nb_err_hint(err, "only Q4_0 and Q8_0 can be kept; without --format it becomes floats");
    }
    if (!rc) {
        m->quantized = true;
        m->spec = stored_spec(spec);
        rc = r->checkpoint->can_write(&m->spec, lin->rows, lin->cols, false, err);
    }
    nb_arena_release(&arena);
    return rc;
}

static int choose_format(struct run *r, struct nb_err *err)
{
    const struct nb_arch *a = &r->model->arch;
    if (!r->opts->format) return 0;
    r->checkpoint = nb_checkpoint_find(r->opts->format);
    if (!r->checkpoint || strncmp(r->opts->format, "gptq", 4)) {
        return nb_fail(err, NB_E_USAGE, "format '%s' is not possible here; possible: gptq, gptq_v2",
                       r->opts->format);
    }
    r->modules = nb_calloc((size_t)nb_arch_first_linear(a, a->n_layers), sizeof *r->modules);
    if (!r->modules) return nb_fail(err, NB_E_NOMEM, "no memory for the list of linears");
    int rc = 0;
    for (int64_t l = 0; l < a->n_layers && !rc; l++) {
        for (int i = 0; i < nb_arch_count_linears(a, l) && !rc; i++) rc = add_module(r, l, i, err);
    }
    return rc;
}

static struct nb_module_spec *module_of(const struct run *r, const struct nb_part *part)
{
    if (!r->modules || part->kind != NB_PART_WEIGHT) return NULL;
    return &r->modules[nb_arch_first_linear(&r->model->arch, part->layer) + part->linear];
}

/* Does the folder hold this weight as [K,N]? */
static bool is_transposed(const struct run *r, const struct nb_part *part)
{
    int n;
    if (part->kind != NB_PART_WEIGHT) return false;
    return nb_arch_layer_linears(&r->model->arch, part->layer, &n)[part->linear].transposed;
}

static int plan_part(void *ctx, const struct nb_part *part)
{
    struct run *r = ctx;
    const struct nb_module_spec *m = module_of(r, part);
    r->report->tensors++;
    if (!m) {
        bool vector = part->kind == NB_PART_NORM || part->kind == NB_PART_BIAS;
        const bool swapped = is_transposed(r, part);
        const int64_t shape[] = {vector || swapped ? part->cols : part->rows,
                                 swapped ? part->rows : part->cols};
        return nb_st_writer_plan(r->writer, part->name, r->dtype, vector ? 1 : 2, shape, r->err);
    }
    struct nb_packed_tensor packed[NB_MAX_PACKED];
    int rc = 0, n = r->checkpoint->plan(&m->spec, part->rows, part->cols, NULL, packed);
    r->report->quantized++;
    for (int i = 0; i < n && !rc; i++) {
        char name[NB_PACKED_NAME_MAX];
        snprintf(name, sizeof name, "%s%s", m->path, packed[i].suffix);
        rc = nb_st_writer_plan(r->writer, name, packed[i].dtype, packed[i].rank, packed[i].shape,
                               r->err);
    }
    return rc;
}

/* ---- weights ---- */

static int put_matrix(struct run *r, const char *name, const struct nb_weight *w)
{
    const struct nb_dense_rows rows = {r->writer, r->pool, r->dtype};
    return nb_dense_rows_put(&rows, name, w, r->err);
}

/* w [N,K] as [K,N]; the whole matrix at once. */
static int put_transposed(struct run *r, const char *name, const struct nb_weight *w)
{
    const size_t size = (size_t)nb_dtype_bits(r->dtype) / 8, n = (size_t)w->rows;
    const size_t k = (size_t)w->cols;
    float *row = nb_alloc(k, sizeof *row);
    unsigned char *line = nb_alloc(k, size), *out = nb_alloc(n * k, size);
    int rc = row && line && out ? 0 : nb_fail(r->err, NB_E_NOMEM, "no memory for '%s'", name);
    for (size_t i = 0; i < n && !rc; i++) {
        nb_weight_row(w, (int64_t)i, row);
        nb_from_f32(line, row, r->dtype, k);
        for (size_t j = 0; j < k; j++) memcpy(out + (j * n + i) * size, line + j * size, size);
    }
    if (!rc) rc = nb_st_writer_put(r->writer, name, out, n * k * size, r->err);
    nb_free(row);
    nb_free(line);
    nb_free(out);
    return rc;
}

static int put_vector(struct run *r, const struct nb_part *part)
{
    struct nb_tensor t;
    int rc = nb_model_tensor(r->model, part->name, &t, r->err);
    if (rc) return rc;
    struct nb_weight w = {.name = part->name, .rows = 1, .cols = part->cols, .dense = t};
    return put_matrix(r, part->name, &w);
}

/* Codes and scales as they are, the zero written down. */
static int put_codes(struct run *r, const struct nb_part *part, const struct nb_module_spec *m,
                     const struct nb_weight *w, struct nb_arena *arena)
{
    struct nb_qmat from, to;
    struct nb_packed_tensor packed[NB_MAX_PACKED];
    int n = 0, rc = nb_block_to_qmat(&w->blocks, part->rows, part->cols, &from, arena, r->err);
    if (!rc) rc = nb_qmat_init(&to, &m->spec, part->rows, part->cols, arena, r->err);
    if (rc) return rc;
    const int64_t groups = to.rows * to.n_groups;
    const float zero = (float)(1 << (m->spec.elem.bits - 1));
    memcpy(to.codes, from.codes, (size_t)(to.rows * to.cols));
    memcpy(to.scale.value, from.scale.value, (size_t)groups * sizeof(float));
    for (int64_t i = 0; i < groups; i++) to.zero.value[i] = zero;
    rc = r->checkpoint->pack(&to, NULL, arena, packed, &n, r->err);
    for (int i = 0; i < n && !rc; i++) {
        char name[NB_PACKED_NAME_MAX];
        size_t bytes = (size_t)nb_dtype_bits(packed[i].dtype) / 8;
        snprintf(name, sizeof name, "%s%s", m->path, packed[i].suffix);
        for (int d = 0; d < packed[i].rank; d++) bytes *= (size_t)packed[i].shape[d];
        rc = nb_st_writer_put(r->writer, name, packed[i].data, bytes, r->err);
    }
    return rc;
}

static int put_weight(struct run *r, const struct nb_part *part)
{
    const struct nb_model *m = r->model;
    struct nb_arena arena;
    struct nb_weight w;
    nb_arena_init(&arena);
    int rc;
    if (part->kind == NB_PART_EMBEDDING) rc = nb_model_embedding(m, &w, r->err);
    else if (part->kind == NB_PART_POSITIONS) rc = nb_model_positions(m, &w, r->err);
    else if (part->kind == NB_PART_HEAD) rc = nb_model_head(m, &arena, &w, r->err);
    else {
        int n;
        const struct nb_arch_linear *linears = nb_arch_layer_linears(&m->arch, part->layer, &n);
        rc = nb_model_linear(m, part->layer, &linears[part->linear], &arena, &w, r->err);
    }
    const struct nb_module_spec *module = module_of(r, part);
    if (!rc && module) rc = put_codes(r, part, module, &w, &arena);
    else if (!rc && is_transposed(r, part)) rc = put_transposed(r, part->name, &w);
    else if (!rc) rc = put_matrix(r, part->name, &w);
    nb_arena_release(&arena);
    return rc;
}

static int put_part(void *ctx, const struct nb_part *part)
{
    struct run *r = ctx;
    if (nb_progress_stop(r->progress)) return nb_fail(r->err, NB_E_INTERRUPTED, "interrupted");
    bool vector = part->kind == NB_PART_NORM || part->kind == NB_PART_BIAS;
    int rc = vector ? put_vector(r, part) : put_weight(r, part);
    if (part->kind != NB_PART_NORM && part->layer < 0) nb_model_drop_layer(r->model, -1);
    else if (part->layer >= 0 &&
             part->linear + 1 == nb_arch_count_linears(&r->model->arch, part->layer))
        nb_model_drop_layer(r->model, part->layer);
    struct nb_progress_event event = {.phase = "write",
                                      .item = part->name,
                                      .done = (uint64_t)++r->done,
                                      .total = (uint64_t)r->report->tensors,
                                      .loss = -1,
                                      .item_done = r->done == r->report->tensors};
    if (!rc) nb_progress_report(r->progress, &event);
    return rc;
}

/* ---- the other files ---- */

static json_t *quantization_config(const struct run *r)
{
    struct nb_checkpoint_info info = {
        .spec = r->modules[0].spec,
        .modules = r->modules,
        .n_modules = (size_t)nb_arch_first_linear(&r->model->arch, r->model->arch.n_layers),
        .true_sequential = true};
    char producer[48];
    snprintf(producer, sizeof producer, "nibble:%s", nb_version());
    info.producer = producer;
    struct nb_err ignored;
    return r->checkpoint->can_describe(&info, &ignored) ? NULL : r->checkpoint->config(&info);
}

static int write_config(struct run *r, struct nb_err *err)
{
    const char *type = r->dtype == NB_F32 ? "float32" : r->dtype == NB_F16 ? "float16" : "bfloat16";
    json_t *config = json_deep_copy(r->model->config);
    json_object_set_new(config, "torch_dtype", json_string(type));
    int rc = config ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for config.json");
    if (!rc && r->checkpoint) {
        json_t *q = quantization_config(r);
        if (!q) {
            rc = nb_fail(err, NB_E_SPEC, "%s cannot describe linears of these sizes",
                         r->checkpoint->name);
        } else {
            if (r->checkpoint->side_config)
                rc = nb_new_folder_json(&r->folder, r->checkpoint->side_config, q, err);
            json_object_set_new(config, "quantization_config", q);
        }
    }
    if (!rc) rc = nb_new_folder_json(&r->folder, "config.json", config, err);
    json_decref(config);
    return rc;
}

static int write_tokenizer(struct run *r, struct nb_err *err)
{
    json_t *tokenizer = NULL, *config = NULL;
    int rc = nb_model_tokenizer_json(r->model, &tokenizer, &config, &r->report->notes, err);
    if (!rc && tokenizer) rc = nb_new_folder_json(&r->folder, "tokenizer.json", tokenizer, err);
    if (!rc && config) rc = nb_new_folder_json(&r->folder, "tokenizer_config.json", config, err);
    json_decref(tokenizer);
    json_decref(config);
    return rc;
}

static int work(struct run *r, struct nb_err *err)
{
    struct nb_st_writer_opts o = {.dir = r->folder.partial,
                                  .max_shard_bytes = r->opts->max_shard_bytes};
    int rc = nb_new_folder_begin(&r->folder, err);
    if (!rc) rc = nb_st_writer_open(r->writer, &o, err);
    if (!rc) rc = write_config(r, err);
    if (!rc) rc = write_tokenizer(r, err);
    if (!rc) rc = nb_model_each_part(&r->model->arch, put_part, r);
    if (!rc) rc = nb_st_writer_finish(r->writer, err);
    if (!rc) rc = nb_new_folder_publish(&r->folder, err);
    if (rc) nb_new_folder_abandon(&r->folder);
    return rc;
}

int nb_unpack(struct nb_unpack_report *report, const struct nb_unpack_opts *opts,
              struct nb_pool *pool, const struct nb_progress *progress, struct nb_err *err)
{
    double start = nb_clock_s();
    memset(report, 0, sizeof *report);
    nb_strbuf_init(&report->notes);
    struct run r = {.opts = opts,
                    .progress = progress,
                    .pool = pool,
                    .report = report,
                    .folder = {.out = opts->out, .overwrite = opts->overwrite},
                    .err = err};
    int rc = nb_new_folder_check(&r.folder, err);
    if (!rc) rc = nb_model_open(&r.model, opts->model, err);
    if (!rc && !r.model->gguf) {
        nb_fail(err, NB_E_SPEC, "%s: is a Hugging Face folder already", opts->model);
        rc = nb_err_hint(err, "to make a GGUF file, give -o a name that ends in .gguf");
    }
    if (!rc) rc = choose_type(&r, err);
    if (!rc) rc = choose_format(&r, err);
    r.writer = nb_st_writer_new();
    if (!rc) rc = nb_model_each_part(&r.model->arch, plan_part, &r);
    if (!rc) rc = work(&r, err);
    if (!rc) {
        report->bytes = nb_st_writer_bytes(r.writer);
        report->bytes_source = nb_model_bytes(r.model);
    }
    nb_st_writer_free(r.writer);
    nb_model_close(r.model);
    nb_free(r.modules);
    nb_new_folder_release(&r.folder);
    report->seconds = nb_clock_s() - start;
    report->peak_rss_bytes = nb_rss_peak_bytes();
    return rc;
}

void nb_unpack_report_release(struct nb_unpack_report *r)
{
    nb_strbuf_release(&r->notes);
}
