/* SPDX-License-Identifier: Apache-2.0
 *
 * unpack.c - see unpack.h. A few megabytes of rows at a time are decoded over the pool. */
#include "pipeline/unpack.h"

#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "base/file.h"
#include "checkpoint/checkpoint.h"
#include "nibble/version.h"
#include "numeric/block.h"
#include "pipeline/pipeline.h"

enum { BATCH_BYTES = 8 << 20, PIECE_WEIGHTS = 1 << 15, MARK_BYTES = 1 << 16 };

static const char mark_name[] = "nibble-convert.json"; /* tells our folders from others */

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
    char *partial;
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
    const struct nb_arch_linear *lin = &a->linears[i];
    struct nb_module_spec *m = &r->modules[l * a->n_linears + i];
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
    r->modules = nb_calloc((size_t)(a->n_layers * a->n_linears), sizeof *r->modules);
    if (!r->modules) return nb_fail(err, NB_E_NOMEM, "no memory for the list of linears");
    int rc = 0;
    for (int64_t l = 0; l < a->n_layers && !rc; l++) {
        for (int i = 0; i < a->n_linears && !rc; i++) rc = add_module(r, l, i, err);
    }
    return rc;
}

static struct nb_module_spec *module_of(const struct run *r, const struct nb_part *part)
{
    if (!r->modules || part->kind != NB_PART_WEIGHT) return NULL;
    return &r->modules[part->layer * r->model->arch.n_linears + part->linear];
}

static int plan_part(void *ctx, const struct nb_part *part)
{
    struct run *r = ctx;
    const struct nb_module_spec *m = module_of(r, part);
    r->report->tensors++;
    if (!m) {
        bool vector = part->kind == NB_PART_NORM || part->kind == NB_PART_BIAS;
        const int64_t shape[] = {vector ? part->cols : part->rows, part->cols};
        return nb_st_writer_plan(r->writer, part->name, r->dtype, vector ? 1 : 2, shape, r->err);
    }
    struct nb_packed_tensor packed[NB_MAX_PACKED];
    int rc = 0, n = r->checkpoint->plan(&m->spec, part->rows, part->cols, packed);
    r->report->quantized++;
    for (int i = 0; i < n && !rc; i++) {
        char name[NB_NAME_MAX * 2 + 24];
        snprintf(name, sizeof name, "%s%s", m->path, packed[i].suffix);
        rc = nb_st_writer_plan(r->writer, name, packed[i].dtype, packed[i].rank, packed[i].shape,
                               r->err);
    }
    return rc;
}

/* ---- weights ---- */

struct batch {
    const struct nb_weight *w;
    enum nb_dtype dtype;
    int64_t first, rows, piece_rows;
    unsigned char *out;
    float *scratch; /* [threads, cols] */
};

static void decode_piece(void *ctx, size_t piece, int thread)
{
    const struct batch *b = ctx;
    const size_t row_bytes = (size_t)b->w->cols * (size_t)nb_dtype_bits(b->dtype) / 8;
    float *x = b->scratch + (size_t)thread * (size_t)b->w->cols;
    int64_t from = (int64_t)piece * b->piece_rows, to = from + b->piece_rows;
    if (to > b->rows) to = b->rows;
    for (int64_t n = from; n < to; n++) {
        nb_weight_row(b->w, b->first + n, x);
        nb_from_f32(b->out + (size_t)n * row_bytes, x, b->dtype, (size_t)b->w->cols);
    }
}

static int put_matrix(struct run *r, const char *name, const struct nb_weight *w)
{
    struct batch b = {.w = w, .dtype = r->dtype};
    const size_t row_bytes = (size_t)w->cols * (size_t)nb_dtype_bits(r->dtype) / 8;
    int64_t rows = BATCH_BYTES / ((int64_t)sizeof(float) * w->cols);
    rows = rows < 1 ? 1 : rows < w->rows ? rows : w->rows;
    b.piece_rows = PIECE_WEIGHTS / w->cols > 0 ? PIECE_WEIGHTS / w->cols : 1;
    b.out = nb_alloc((size_t)rows, row_bytes);
    b.scratch = nb_alloc((size_t)nb_pool_threads(r->pool) * (size_t)w->cols, sizeof *b.scratch);
    int rc = b.out && b.scratch ? 0 : nb_fail(r->err, NB_E_NOMEM, "no memory for '%s'", name);
    for (b.first = 0; b.first < w->rows && !rc; b.first += rows) {
        b.rows = w->rows - b.first < rows ? w->rows - b.first : rows;
        nb_pool_run(r->pool, (size_t)((b.rows + b.piece_rows - 1) / b.piece_rows), decode_piece,
                    &b);
        rc = nb_st_writer_put_at(r->writer, name, (uint64_t)b.first * row_bytes, b.out,
                                 (size_t)b.rows * row_bytes, r->err);
    }
    nb_free(b.out);
    nb_free(b.scratch);
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
    rc = r->checkpoint->pack(&to, arena, packed, &n, r->err);
    for (int i = 0; i < n && !rc; i++) {
        char name[NB_NAME_MAX * 2 + 24];
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
    else if (part->kind == NB_PART_HEAD) rc = nb_model_head(m, &arena, &w, r->err);
    else rc = nb_model_linear(m, part->layer, &m->arch.linears[part->linear], &arena, &w, r->err);
    const struct nb_module_spec *module = module_of(r, part);
    if (!rc) rc = module ? put_codes(r, part, module, &w, &arena) : put_matrix(r, part->name, &w);
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
    else if (part->linear + 1 == r->model->arch.n_linears)
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

static int write_json(const struct run *r, const char *name, const json_t *v, struct nb_err *err)
{
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    int rc = nb_json_dump(v, true, &text, err);
    nb_strbuf_putc(&text, '\n');
    char *path = nb_path_join(r->partial, name);
    if (!rc && text.failed) rc = nb_fail(err, NB_E_NOMEM, "no memory for %s", name);
    if (!rc) rc = nb_file_write(path, text.data, text.len, err);
    nb_free(path);
    nb_strbuf_release(&text);
    return rc;
}

static json_t *quantization_config(const struct run *r)
{
    struct nb_checkpoint_info info = {
        .spec = r->modules[0].spec,
        .modules = r->modules,
        .n_modules = (size_t)(r->model->arch.n_layers * r->model->arch.n_linears),
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
            if (r->checkpoint->side_config) rc = write_json(r, r->checkpoint->side_config, q, err);
            json_object_set_new(config, "quantization_config", q);
        }
    }
    if (!rc) rc = write_json(r, "config.json", config, err);
    json_decref(config);
    return rc;
}

static int write_tokenizer(struct run *r, struct nb_err *err)
{
    json_t *tokenizer = NULL, *config = NULL;
    int rc = nb_model_tokenizer_json(r->model, &tokenizer, &config, &r->report->notes, err);
    if (!rc && tokenizer) rc = write_json(r, "tokenizer.json", tokenizer, err);
    if (!rc && config) rc = write_json(r, "tokenizer_config.json", config, err);
    json_decref(tokenizer);
    json_decref(config);
    return rc;
}

static int write_mark(struct run *r, struct nb_err *err)
{
    json_t *mark = json_pack("{s:s, s:s}", "producer", "nibble", "version", nb_version());
    int rc = mark ? write_json(r, mark_name, mark, err)
                  : nb_fail(err, NB_E_NOMEM, "no memory for %s", mark_name);
    json_decref(mark);
    return rc;
}

/* ---- places ---- */

static bool is_ours(const char *dir)
{
    char *path = nb_path_join(dir, mark_name);
    json_t *mark = nb_path_exists(path) ? nb_json_load(path, MARK_BYTES, NULL) : NULL;
    const char *producer = json_string_value(json_object_get(mark, "producer"));
    bool ours = producer && !strcmp(producer, "nibble");
    json_decref(mark);
    nb_free(path);
    return ours;
}

static int check_place(struct run *r, struct nb_err *err)
{
    const char *out = r->opts->out;
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    r->partial = nb_xalloc(n + sizeof ".partial");
    snprintf(r->partial, n + sizeof ".partial", "%.*s.partial", (int)n, out);
    if (nb_path_exists(r->partial) && !is_ours(r->partial)) {
        nb_fail(err, NB_E_EXISTS, "%s: is not from a run of nibble, so it is not used", r->partial);
        return nb_err_hint(err, "move it away, or give another folder with -o");
    }
    if (!nb_path_exists(out)) return 0;
    if (!r->opts->overwrite || !is_ours(out)) {
        nb_fail(err, NB_E_EXISTS, "%s: exists already%s", out,
                r->opts->overwrite ? " and is not a folder that nibble converted" : "");
        return nb_err_hint(err, "give another folder with -o");
    }
    return 0;
}

static int publish(struct run *r, struct nb_err *err)
{
    char *parent = nb_path_parent(r->opts->out);
    int rc = nb_dir_sync(r->partial, err);
    if (!rc && nb_path_exists(r->opts->out)) rc = nb_dir_remove_all(r->opts->out, err);
    if (!rc) rc = nb_rename(r->partial, r->opts->out, err);
    if (!rc) rc = nb_dir_sync(parent, err);
    nb_free(parent);
    return rc;
}

static int work(struct run *r, struct nb_err *err)
{
    struct nb_st_writer_opts o = {.dir = r->partial, .max_shard_bytes = r->opts->max_shard_bytes};
    int rc = nb_path_exists(r->partial) ? nb_dir_remove_all(r->partial, err) : 0;
    if (!rc) rc = nb_dir_make(r->partial, err);
    if (!rc) rc = write_mark(r, err);
    if (!rc) rc = nb_st_writer_open(r->writer, &o, err);
    if (!rc) rc = write_config(r, err);
    if (!rc) rc = write_tokenizer(r, err);
    if (!rc) rc = nb_model_each_part(&r->model->arch, put_part, r);
    if (!rc) rc = nb_st_writer_finish(r->writer, err);
    if (!rc) rc = publish(r, err);
    if (rc) nb_dir_remove_all(r->partial, NULL);
    return rc;
}

int nb_unpack(struct nb_unpack_report *report, const struct nb_unpack_opts *opts,
              struct nb_pool *pool, const struct nb_progress *progress, struct nb_err *err)
{
    double start = nb_clock_s();
    memset(report, 0, sizeof *report);
    nb_strbuf_init(&report->notes);
    struct run r = {.opts = opts, .progress = progress, .pool = pool, .report = report, .err = err};
    int rc = check_place(&r, err);
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
    nb_free(r.partial);
    report->seconds = nb_clock_s() - start;
    report->peak_rss_bytes = nb_rss_peak_bytes();
    return rc;
}

void nb_unpack_report_release(struct nb_unpack_report *r)
{
    nb_strbuf_release(&r->notes);
}
