/* SPDX-License-Identifier: Apache-2.0
 *
 * imatrix.c - how large the inputs of each linear are on a text, column by column.
 *
 * Every window goes through a layer before the next one is loaded, and the layer's four inputs are seen on
 * their way: linears that share an input share its sums. A column belongs to one piece of work and its rows
 * are added in order, so nothing depends on threads, chunks or batches. llama.cpp adds in f32; we add in f64
 * and round once. Source: GGUF specification, section 6.1. Knows nothing of texts or of files. */
#include <float.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "arch/gguf.h"
#include "base/mem.h"
#include "eval/eval.h"

enum { CHUNK_TOKENS = 4096, PIECE_COLUMNS = 32 };

struct collecting {
    const struct nb_eval_imatrix_opts *o;
    const struct nb_arch *arch;
    const struct nb_progress *progress;
    int64_t t, batch, chunk;        /* tokens of a window; windows at once: of h, of x and y */
    int64_t offset[NB_INPUT_COUNT]; /* of an input's columns within a layer's */
    int64_t layer_columns;
    double *sums; /* [n_layers * layer_columns], then [hidden] of the head */
    float *h;     /* [batch * t, hidden] */
    float *x, *y; /* [chunk * t, widest input] */
};

/* ---- summing ---- */

struct squares {
    double *sums;   /* [cols] */
    const float *x; /* [rows, cols] */
    int64_t rows, cols;
};

static void add_piece(void *ctx, size_t piece, int thread)
{
    const struct squares *s = ctx;
    (void)thread;
    const int64_t first = (int64_t)piece * PIECE_COLUMNS, left = s->cols - first;
    const int64_t n = left < PIECE_COLUMNS ? left : PIECE_COLUMNS;
    double acc[PIECE_COLUMNS] = {0};
    memcpy(acc, s->sums + first, (size_t)n * sizeof *acc);
    for (int64_t r = 0; r < s->rows; r++) {
        const float *x = s->x + r * s->cols + first;
        for (int64_t k = 0; k < n; k++) acc[k] += (double)x[k] * (double)x[k];
    }
    memcpy(s->sums + first, acc, (size_t)n * sizeof *acc);
}

static void add_squares(const struct collecting *c, double *sums, const float *x, int64_t rows,
                        int64_t cols)
{
    struct squares s = {sums, x, rows, cols};
    const size_t pieces = (size_t)((cols + PIECE_COLUMNS - 1) / PIECE_COLUMNS);
    nb_pool_run(nb_backend_pool(c->o->be), pieces, add_piece, &s);
}

static double *sums_of(const struct collecting *c, int64_t layer, enum nb_input input)
{
    return c->sums + layer * c->layer_columns + c->offset[input];
}

static double *head_sums(const struct collecting *c)
{
    return c->sums + c->arch->n_layers * c->layer_columns;
}

/* ---- running ---- */

static int reserve(struct collecting *c, struct nb_err *err)
{
    const struct nb_arch *a = c->arch;
    int64_t widest = a->hidden_size;
    for (int i = 0; i < NB_INPUT_COUNT; i++) {
        const int64_t w = nb_input_width(a, (enum nb_input)i);
        if (w > widest) widest = w;
        c->offset[i] = c->layer_columns;
        c->layer_columns += w;
    }
    size_t columns, states, inputs;
    bool fits = nb_mul((size_t)a->n_layers, (size_t)c->layer_columns, &columns) &&
                nb_add(columns, (size_t)a->hidden_size, &columns) &&
                nb_mul((size_t)(c->batch * c->t), (size_t)a->hidden_size, &states) &&
                nb_mul((size_t)(c->chunk * c->t), (size_t)widest, &inputs);
    if (fits) {
        c->sums = nb_calloc(columns, sizeof *c->sums);
        c->h = nb_alloc(states, sizeof *c->h);
        c->x = nb_alloc(inputs, sizeof *c->x);
        c->y = nb_alloc(inputs, sizeof *c->y);
    }
    if (fits && c->sums && c->h && c->x && c->y) return 0;
    return nb_fail(err, NB_E_NOMEM,
                   "out of memory for the hidden states of %" PRId64 " windows of %" PRId64
                   " tokens",
                   c->batch, c->t);
}

/* n windows through layer l; h in place. */
static int run_chunk(struct collecting *c, struct nb_layer *layer, int64_t l, float *h, int64_t n,
                     struct nb_err *err)
{
    float *x = c->x, *y = c->y;
    int rc = 0;
    for (int i = 0; i < NB_INPUT_COUNT && !rc; i++) {
        const enum nb_input input = (enum nb_input)i;
        rc = nb_layer_step(layer, input, &(struct nb_layer_io){h, x, y, n, c->t}, err);
        if (!rc) add_squares(c, sums_of(c, l, input), y, n * c->t, nb_input_width(c->arch, input));
        float *swap = x;
        x = y;
        y = swap;
    }
    return rc ? rc : nb_layer_finish(layer, h, x, n, c->t, err);
}

/* Also catches what f32 cannot hold. */
static int check_sums(const struct collecting *c, int64_t l, struct nb_err *err)
{
    for (int i = 0; i < NB_INPUT_COUNT; i++) {
        const double *sums = sums_of(c, l, (enum nb_input)i);
        for (int64_t k = 0; k < nb_input_width(c->arch, (enum nb_input)i); k++) {
            if (sums[k] <= FLT_MAX) continue;
            int first = 0, n;
            const struct nb_arch_linear *linears = nb_arch_layer_linears(c->arch, l, &n);
            while ((int)linears[first].input != i) first++;
            return nb_fail(err, NB_E_NUMERIC,
                           "layer %" PRId64 ": column %" PRId64
                           " of what goes into '%s' is not finite or too large to sum up",
                           l, k, linears[first].name);
        }
    }
    return 0;
}

/* Windows of all layers are the unit: layers differ in nothing, batches in size. */
static void report(const struct collecting *c, int64_t first, int64_t n, int64_t l, int64_t done)
{
    char item[32];
    snprintf(item, sizeof item, "layer %" PRId64, l);
    const int64_t layers = c->arch->n_layers;
    nb_progress_report(c->progress, &(struct nb_progress_event){
                                        .phase = "measure",
                                        .item = item,
                                        .done = (uint64_t)(first * layers + l * n + done),
                                        .total = (uint64_t)(c->o->plan->n_segments * layers),
                                        .loss = -1,
                                        .item_done = done == n});
}

/* Windows [first, first + n), whose hidden states are in c->h, through layer l. */
static int run_layer(struct collecting *c, int64_t first, int64_t n, int64_t l, struct nb_err *err)
{
    const int64_t row = c->t * c->arch->hidden_size;
    struct nb_layer *layer = NULL;
    int rc = nb_layer_load(&layer, c->o->model, l, c->o->be, err);
    for (int64_t i = 0; i < n && !rc; i += c->chunk) {
        const int64_t m = n - i < c->chunk ? n - i : c->chunk;
        if (nb_progress_stop(c->progress)) rc = nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        if (!rc) rc = run_chunk(c, layer, l, c->h + i * row, m, err);
        if (!rc && i + m < n) report(c, first, n, l, i + m);
    }
    nb_layer_free(layer);
    nb_model_drop_layer(c->o->model, l);
    if (!rc) rc = check_sums(c, l, err);
    if (!rc) report(c, first, n, l, n);
    return rc;
}

/* The head's input: the final norm of what the layers leave. */
static int run_head(struct collecting *c, int64_t n, struct nb_err *err)
{
    const int64_t d = c->arch->hidden_size;
    int rc = 0;
    for (int64_t i = 0; i < n && !rc; i += c->chunk) {
        const int64_t rows = (n - i < c->chunk ? n - i : c->chunk) * c->t;
        rc = nb_layer_final_norm(c->o->model, c->o->be, c->h + i * c->t * d, rows, c->x, err);
        if (!rc) add_squares(c, head_sums(c), c->x, rows, d);
    }
    for (int64_t k = 0; k < d && !rc; k++) {
        if (head_sums(c)[k] <= FLT_MAX) continue;
        rc = nb_fail(err, NB_E_NUMERIC,
                     "column %" PRId64
                     " of what goes into the head is not finite or too large to sum up",
                     k);
    }
    return rc;
}

static int run_batches(struct collecting *c, struct nb_err *err)
{
    const struct nb_eval_plan *plan = c->o->plan;
    const int64_t row = c->t * c->arch->hidden_size;
    int rc = 0;
    for (int64_t first = 0; first < plan->n_segments && !rc; first += c->batch) {
        const int64_t left = plan->n_segments - first, n = left < c->batch ? left : c->batch;
        for (int64_t i = 0; i < n && !rc; i++) {
            const int32_t *ids = plan->ids + plan->segments[first + i].offset;
            rc = nb_layer_embed(c->o->model, c->o->be, ids, c->t, c->h + i * row, err);
        }
        for (int64_t l = 0; l < c->arch->n_layers && !rc; l++) rc = run_layer(c, first, n, l, err);
        if (!rc && c->o->output_tensor) rc = run_head(c, n, err);
    }
    return rc;
}

/* ---- the result ---- */

static int add_entry(struct nb_imatrix *out, const struct collecting *c, const char *hf_name,
                     const double *sums, int64_t cols, struct nb_err *err)
{
    struct nb_arch_gguf_tensor t;
    if (!nb_arch_gguf_from_hf(c->arch, hf_name, &t))
        return nb_fail(err, NB_E_SPEC, "tensor '%s' has no name in a GGUF file", hf_name);
    struct nb_imatrix_entry *e = nb_imatrix_add(out, t.name, cols, 1, err);
    if (!e) return err ? err->status : NB_E_FAIL;
    for (int64_t k = 0; k < cols; k++) e->sums[k] = (float)sums[k];
    e->counts[0] = c->o->plan->n_segments * c->t;
    return 0;
}

static int fill(struct nb_imatrix *out, const struct collecting *c, struct nb_err *err)
{
    const struct nb_arch *a = c->arch;
    char module[NB_NAME_MAX * 2], name[NB_NAME_MAX * 2 + 8];
    int rc = 0;
    for (int64_t l = 0; l < a->n_layers && !rc; l++) {
        int n;
        const struct nb_arch_linear *linears = nb_arch_layer_linears(a, l, &n);
        for (int i = 0; i < n && !rc; i++) {
            const struct nb_arch_linear *lin = &linears[i];
            nb_arch_name(a, l, lin->name, module);
            snprintf(name, sizeof name, "%s.weight", module);
            rc = add_entry(out, c, name, sums_of(c, l, lin->input), lin->cols, err);
        }
    }
    if (!rc && c->o->output_tensor)
        rc = add_entry(out, c, a->head_name, head_sums(c), a->hidden_size, err);
    out->n_chunks = c->o->plan->n_segments;
    out->chunk_size = c->t;
    return rc;
}

int nb_eval_imatrix(struct nb_imatrix *out, const struct nb_eval_imatrix_opts *o,
                    const struct nb_progress *progress, struct nb_err *err)
{
    const struct nb_arch *a = &o->model->arch;
    const int64_t t = o->plan->window, n = o->plan->n_segments;
    nb_imatrix_init(out);
    if (a->moe) {
        return nb_fail(err, NB_E_SPEC,
                       "a model of type %s has experts, which an importance matrix for GGUF is not "
                       "collected of",
                       a->model_type);
    }
    if (o->output_tensor && a->tie_word_embeddings) {
        return nb_fail(err, NB_E_SPEC,
                       "the model's head is its token embedding, which an importance matrix has no "
                       "entry for");
    }
    const uint64_t one = (uint64_t)t * (uint64_t)a->hidden_size * sizeof(float);
    const uint64_t fit = o->memory_bytes / one;
    struct collecting c = {.o = o,
                           .arch = a,
                           .progress = progress,
                           .t = t,
                           .batch = fit < 1             ? 1
                                    : fit < (uint64_t)n ? (int64_t)fit
                                                        : n,
                           .chunk = t < CHUNK_TOKENS ? CHUNK_TOKENS / t : 1};
    if (c.chunk > c.batch) c.chunk = c.batch;
    int rc = reserve(&c, err);
    if (!rc) rc = run_batches(&c, err);
    if (!rc) rc = fill(out, &c, err);
    nb_free(c.sums);
    nb_free(c.h);
    nb_free(c.x);
    nb_free(c.y);
    return rc;
}
