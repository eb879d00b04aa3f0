/* SPDX-License-Identifier: Apache-2.0
 *
 * rotate.c - see rotate.h.
 *
 * The residual stream h becomes h R1: embeddings and whatever adds to the stream (o, down) are turned, whatever reads
 * it (q, k, v, gate, up, router, head) is turned back, after the weight of the norm before it went in, since x / rms(x)
 * is the only norm that a rotation passes through. The heads of v become v R2 and the columns of o are turned back.
 * Arithmetic is f64; what is written is rounded to the source's types once. A tensor is worked on in bands of rows, or
 * of columns where the rows mix.
 *
 * Source: algorithms, section 10.7; arXiv:2404.00456, arXiv:2405.16406 (R1 and R2). Ours differs: embeddings are not
 * centred, which would be no identity under RMSNorm. */
#include "pipeline/rotate.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/file.h"
#include "pipeline/rotate_plan.h"

enum { BAND = 32, CHUNK_BANDS = 64, MAX_CONFIG = 64 << 20 };

static const uint64_t SEED_STREAM = 0x52310001, SEED_HEADS = 0x52320001;

struct turner {
    const struct nb_model *model;
    struct nb_pool *pool;
    struct nb_st_writer *writer;
    struct nb_rotation stream, heads; /* heads.n 0: there is none for this head_dim */
    int64_t d, head_dim;
    float *norm;     /* [d] of the entry at work */
    double *scratch; /* per thread */
    size_t scratch_doubles;
};

int nb_rotate_check(const struct nb_model *model, struct nb_err *err)
{
    const struct nb_arch *a = &model->arch;
    const char *why = NULL;
    if (!model->tensors) why = "the source is a GGUF file (nibble convert makes a folder of it)";
    else if (a->layer_norm) why = "its norms are LayerNorms, which subtract a mean";
    else if (a->post_norm) why = "its outputs are normalized before they join the stream";
    else if (!a->attn_norm_name[0] || !a->mlp_norm_name[0]) why = "its inputs are not normalized";
    else if (a->position_name[0]) why = "it has learned positions";
    for (size_t i = 0; !why && i < nb_safetensors_count(model->tensors); i++) {
        if (nb_arch_is_other_part(a, nb_safetensors_at(model->tensors, i)->name))
            why = "its part for images writes into the stream too";
    }
    if (why)
        return nb_fail(err, NB_E_SPEC, "--rotate is not possible for model type %s: %s",
                       a->model_type, why);
    struct nb_rotation r;
    int rc = nb_rotation_init(&r, a->hidden_size, SEED_STREAM, err);
    if (!rc) nb_rotation_release(&r);
    return rc ? nb_err_prefix(err, "--rotate") : 0;
}

static void turn_columns(const struct nb_rotation *r, double *x, int64_t rows, int64_t cols,
                         double *scratch)
{
    double *column = scratch, *rest = scratch + r->n;
    for (int64_t c = 0; c < cols; c++) {
        for (int64_t i = 0; i < rows; i++) column[i] = x[i * cols + c];
        nb_rotation_apply(r, column, rest);
        for (int64_t i = 0; i < rows; i++) x[i * cols + c] = column[i];
    }
}

static void load(double *to, const struct nb_tensor *t, int64_t first, int64_t n, float *buffer)
{
    const size_t size = (size_t)nb_dtype_bits(t->dtype) / 8;
    nb_to_f32(buffer, (const char *)t->data.data + (size_t)first * size, t->dtype, (size_t)n);
    for (int64_t i = 0; i < n; i++) to[i] = buffer[i];
}

static void store(void *to, const struct nb_tensor *t, int64_t first, const double *from, int64_t n,
                  float *buffer)
{
    const size_t size = (size_t)nb_dtype_bits(t->dtype) / 8;
    for (int64_t i = 0; i < n; i++) buffer[i] = (float)from[i];
    nb_from_f32((char *)to + (size_t)first * size, buffer, t->dtype, (size_t)n);
}

/* ---- rows ---- */

struct rows_job {
    const struct turner *t;
    const struct nb_turn_entry *e;
    int64_t rows, band, first; /* of all; of a piece; first row of the chunk */
    void *out;                 /* the chunk */
};

static void read_band(void *ctx, size_t piece, int thread)
{
    const struct rows_job *job = ctx;
    const struct turner *t = job->t;
    const int64_t d = t->d, at = job->first + (int64_t)piece * job->band;
    const int64_t n = job->rows - at < job->band ? job->rows - at : job->band;
    double *x = t->scratch + t->scratch_doubles * (size_t)thread, *rest = x + job->band * d;
    float *buffer = (float *)rest;
    load(x, job->e->from, at * d, n * d, buffer);
    for (int64_t r = 0; r < n; r++) {
        double *row = x + r * d;
        for (int64_t j = 0; j < d && job->e->norm[0]; j++) row[j] *= t->norm[j];
        nb_rotation_apply(&t->stream, row, rest);
    }
    const bool values = t->heads.n && job->e->first_value >= 0 && at >= job->e->first_value;
    if (values) turn_columns(&t->heads, x, n, d, rest);
    store(job->out, job->e->from, (at - job->first) * d, x, n * d, buffer);
}

/* Stacked experts are rows like others. */
static int turn_rows(struct turner *t, const struct nb_turn_entry *e, struct nb_err *err)
{
    struct rows_job job = {.t = t, .e = e, .rows = nb_tensor_count(e->from) / t->d, .band = BAND};
    if (e->first_value >= 0 && t->heads.n) job.band = t->head_dim;
    const size_t size = (size_t)nb_dtype_bits(e->from->dtype) / 8;
    const int64_t chunk = CHUNK_BANDS * job.band;
    job.out = nb_alloc((size_t)(chunk * t->d), size);
    if (!job.out) return nb_fail(err, NB_E_NOMEM, "no memory to rotate tensor '%s'", e->name);
    int rc = 0;
    for (; !rc && job.first < job.rows; job.first += chunk) {
        const int64_t n = job.rows - job.first < chunk ? job.rows - job.first : chunk;
        nb_pool_run(t->pool, (size_t)((n + job.band - 1) / job.band), read_band, &job);
        rc = nb_st_writer_put_at(t->writer, e->name, (uint64_t)(job.first * t->d) * size, job.out,
                                 (size_t)(n * t->d) * size, err);
    }
    nb_free(job.out);
    return rc;
}

/* ---- columns ---- */

struct columns_job {
    const struct turner *t;
    const struct nb_turn_entry *e;
    int64_t cols, band, first; /* first: element of the matrix in the tensor */
    void *out;                 /* [d, cols] */
};

static void write_band(void *ctx, size_t piece, int thread)
{
    const struct columns_job *job = ctx;
    const struct turner *t = job->t;
    const int64_t d = t->d, c0 = (int64_t)piece * job->band;
    const int64_t n = job->cols - c0 < job->band ? job->cols - c0 : job->band;
    double *x = t->scratch + t->scratch_doubles * (size_t)thread, *rest = x + d * job->band;
    float *buffer = (float *)(rest + 2 * d);
    for (int64_t r = 0; r < d; r++) {
        load(x + r * n, job->e->from, job->first + r * job->cols + c0, n, buffer);
        if (job->e->heads && t->heads.n) nb_rotation_apply(&t->heads, x + r * n, rest);
    }
    turn_columns(&t->stream, x, d, n, rest);
    for (int64_t r = 0; r < d; r++)
        store(job->out, job->e->from, r * job->cols + c0, x + r * n, n, buffer);
}

static int turn_matrix(struct turner *t, const struct nb_turn_entry *e, struct nb_err *err)
{
    const int64_t cols = e->from->shape[e->from->rank - 1], one = t->d * cols;
    struct columns_job job = {.t = t, .e = e, .cols = cols, .band = BAND};
    if (e->heads && t->heads.n) job.band = t->head_dim;
    const size_t size = (size_t)nb_dtype_bits(e->from->dtype) / 8;
    job.out = nb_alloc((size_t)one, size);
    if (!job.out) return nb_fail(err, NB_E_NOMEM, "no memory to rotate tensor '%s'", e->name);
    int rc = 0;
    for (; !rc && job.first < nb_tensor_count(e->from); job.first += one) {
        nb_pool_run(t->pool, (size_t)((cols + job.band - 1) / job.band), write_band, &job);
        rc = nb_st_writer_put_at(t->writer, e->name, (uint64_t)job.first * size, job.out,
                                 (size_t)one * size, err);
    }
    nb_free(job.out);
    return rc;
}

/* ---- vectors ---- */

static int turn_vector(struct turner *t, const struct nb_turn_entry *e, struct nb_err *err)
{
    const int64_t n = nb_tensor_count(e->from);
    double *x = nb_alloc((size_t)n, sizeof *x);
    float *buffer = nb_alloc((size_t)n, sizeof *buffer);
    void *out = nb_alloc(e->from->data.bytes, 1);
    int rc = x && buffer && out
                 ? 0
                 : nb_fail(err, NB_E_NOMEM, "no memory to rotate tensor '%s'", e->name);
    if (!rc) {
        load(x, e->from, 0, n, buffer);
        for (int64_t i = 0; i < n && e->turn == NB_TURN_NORM; i++)
            x[i] = 1.0 - t->model->arch.norm_offset;
        if (e->turn == NB_TURN_WRITE_BIAS) nb_rotation_apply(&t->stream, x, t->scratch);
        for (int64_t i = e->first_value; e->turn == NB_TURN_VALUE_BIAS && t->heads.n && i < n;
             i += t->head_dim)
            nb_rotation_apply(&t->heads, x + i, t->scratch);
        store(out, e->from, 0, x, n, buffer);
        rc = nb_st_writer_put(t->writer, e->name, out, e->from->data.bytes, err);
    }
    nb_free(x);
    nb_free(buffer);
    nb_free(out);
    return rc;
}

/* ---- the model ---- */

static int load_norm(struct turner *t, const struct nb_turn_entry *e, struct nb_err *err)
{
    if (!e->norm[0]) return 0;
    struct nb_tensor norm;
    int rc = nb_model_tensor(t->model, e->norm, &norm, err);
    if (rc) return rc;
    nb_to_f32(t->norm, norm.data.data, norm.dtype, (size_t)t->d);
    for (int64_t j = 0; j < t->d; j++) t->norm[j] += (float)t->model->arch.norm_offset;
    return 0;
}

static int turn(struct turner *t, const struct nb_turn_entry *e, struct nb_err *err)
{
    int rc = 0;
    switch (e->turn) {
    case NB_TURN_NONE:
        rc = nb_st_writer_put(t->writer, e->name, e->from->data.data, e->from->data.bytes, err);
        break;
    case NB_TURN_READ:
        rc = load_norm(t, e, err);
        if (!rc) rc = turn_rows(t, e, err);
        break;
    case NB_TURN_WRITE: rc = turn_matrix(t, e, err); break;
    default: rc = turn_vector(t, e, err); break;
    }
    nb_safetensors_drop(t->model->tensors, e->from);
    return rc;
}

static int turner_init(struct turner *t, const struct nb_run *r, struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    struct nb_err no_heads = {0};
    *t = (struct turner){.model = r->model,
                         .pool = nb_backend_pool(r->be),
                         .d = arch->hidden_size,
                         .head_dim = arch->head_dim,
                         .writer = nb_st_writer_new()};
    int rc = nb_rotation_init(&t->stream, t->d, SEED_STREAM, err);
    if (rc) return rc;
    if (nb_rotation_init(&t->heads, t->head_dim, SEED_HEADS, &no_heads)) t->heads.n = 0;
    const size_t band = (size_t)(t->head_dim > BAND ? t->head_dim : BAND), d = (size_t)t->d;
    t->scratch_doubles = band * d * 2 + 2 * d + 2 * (size_t)t->head_dim;
    t->norm = nb_alloc(d, sizeof *t->norm);
    t->scratch =
        nb_alloc((size_t)nb_pool_threads(t->pool), t->scratch_doubles * sizeof *t->scratch);
    return t->norm && t->scratch ? 0 : nb_fail(err, NB_E_NOMEM, "no memory to rotate the model");
}

static void turner_release(struct turner *t)
{
    nb_st_writer_free(t->writer);
    nb_rotation_release(&t->stream);
    nb_rotation_release(&t->heads);
    nb_free(t->norm);
    nb_free(t->scratch);
}

static int write_tensors(const struct nb_run *r, const char *dir, struct nb_err *err)
{
    struct turner t;
    struct nb_turn_plan plan = {0};
    int rc = turner_init(&t, r, err);
    if (!rc) rc = nb_turn_plan_make(&plan, r->model, err);
    for (size_t i = 0; i < plan.n && !rc; i++) {
        const struct nb_turn_entry *e = &plan.entries[i];
        rc = nb_st_writer_plan(t.writer, e->name, e->from->dtype, e->from->rank, e->from->shape,
                               err);
    }
    const struct nb_st_writer_opts o = {.dir = dir, .max_shard_bytes = r->opts->max_shard_bytes};
    if (!rc) rc = nb_st_writer_open(t.writer, &o, err);
    for (size_t i = 0; i < plan.n && !rc; i++) {
        const struct nb_turn_entry *e = &plan.entries[i];
        if (nb_progress_stop(r->progress)) rc = nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        const struct nb_progress_event event = {
            .phase = "rotate", .item = e->name, .done = i, .total = plan.n, .loss = -1};
        if (!rc) nb_progress_report(r->progress, &event);
        if (!rc) rc = turn(&t, e, err);
    }
    if (!rc) rc = nb_st_writer_sync(t.writer, err);
    if (!rc) rc = nb_st_writer_finish(t.writer, err);
    nb_turn_plan_release(&plan);
    turner_release(&t);
    return rc;
}

/* The source's config, but for the head: turned and on its own. A tied model's text is laid out anew. */
static int write_config(const struct nb_run *r, const char *dir, struct nb_err *err)
{
    char *from = nb_path_join(r->model->dir, "config.json"), *to = nb_path_join(dir, "config.json");
    struct nb_strbuf text;
    nb_strbuf_init(&text);
    json_t *config = nb_json_load(from, MAX_CONFIG, err);
    int rc = config ? 0 : err->status;
    if (!rc && !r->model->arch.tie_word_embeddings) {
        rc = nb_file_copy(from, to, err);
    } else if (!rc) {
        json_object_set_new(config, "tie_word_embeddings", json_false());
        rc = nb_json_dump(config, true, &text, err);
        nb_strbuf_putc(&text, '\n');
        if (!rc) rc = nb_file_write(to, nb_strbuf_cstr(&text), text.len, err);
    }
    json_decref(config);
    nb_strbuf_release(&text);
    nb_free(from);
    nb_free(to);
    return rc;
}

int nb_rotate_model(const struct nb_run *r, const char *dir, struct nb_model **out,
                    struct nb_err *err)
{
    int rc = 0;
    if (!nb_path_exists(dir)) { /* a rename ends the making: what is there is whole */
        struct nb_strbuf making;
        nb_strbuf_init(&making);
        nb_strbuf_printf(&making, "%s.making", dir);
        const char *part = nb_strbuf_cstr(&making);
        rc = nb_path_exists(part) ? nb_dir_remove_all(part, err) : 0;
        if (!rc) rc = nb_dir_make(part, err);
        if (!rc) rc = write_config(r, part, err);
        if (!rc) rc = write_tensors(r, part, err);
        if (!rc) rc = nb_dir_sync(part, err);
        if (!rc) rc = nb_rename(part, dir, err);
        nb_strbuf_release(&making);
    }
    return rc ? rc : nb_model_open(out, dir, err);
}
