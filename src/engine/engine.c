/* SPDX-License-Identifier: Apache-2.0
 *
 * engine.c - a loaded model: all its layers, embedding and head; whole sequences through it. */
#include "engine/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/internal.h"

/* ---- loading ---- */

static int load_head(struct nb_engine *e, const struct nb_model *model, struct nb_err *err)
{
    struct nb_weight w;
    int rc = nb_model_head(model, &e->arena, &w, err);
    if (!rc) rc = nb_linear_init(&e->head, e->be, &w, err);
    if (w.q) nb_arena_release(&e->arena); /* packed by now */
    return rc;
}

static int load(struct nb_engine *e, const struct nb_model *model, struct nb_err *err)
{
    const struct nb_arch *a = e->arch;
    nb_arena_init(&e->arena);
    int rc = nb_model_embedding(model, &e->embed, err);
    if (!rc && *a->position_name) {
        rc = nb_model_positions(model, &e->positions, err);
        e->position_row = nb_alloc((size_t)a->hidden_size, sizeof(float));
        if (!rc && !e->position_row) rc = nb_fail(err, NB_E_NOMEM, "no memory for a position");
    }
    if (!rc) rc = nb_model_norm_weight(&e->norm, model, a->norm_name, a->hidden_size, err);
    if (!rc && a->layer_norm)
        rc = nb_model_norm_bias(&e->norm_bias, model, a->norm_bias_name, a->hidden_size, err);
    if (!rc) rc = load_head(e, model, err);
    if (rc) return rc;
    e->layers = nb_calloc((size_t)a->n_layers, sizeof(struct nb_layer *));
    if (!e->layers)
        return nb_fail(err, NB_E_NOMEM, "no memory for %" PRId64 " layers", a->n_layers);
    for (int64_t l = 0; l < a->n_layers && !rc; l++)
        rc = nb_layer_load(&e->layers[l], model, l, e->be, err);
    return rc;
}

int nb_engine_new(struct nb_engine **out, const struct nb_model *model, struct nb_backend *be,
                  struct nb_err *err)
{
    struct nb_engine *e = nb_xalloc(sizeof *e);
    e->arch = &model->arch;
    e->be = be;
    int rc = load(e, model, err);
    if (rc) {
        nb_engine_free(e);
        e = NULL;
    }
    *out = e;
    return rc;
}

void nb_engine_free(struct nb_engine *e)
{
    if (!e) return;
    for (int64_t l = 0; e->layers && l < e->arch->n_layers; l++) nb_layer_free(e->layers[l]);
    nb_free(e->layers);
    nb_free(e->norm);
    nb_free(e->norm_bias);
    nb_free(e->position_row);
    if (e->head.kernel) nb_linear_release(&e->head);
    nb_arena_release(&e->arena);
    nb_rope_table_release(&e->rope);
    nb_free(e->buffer);
    nb_free(e);
}

const struct nb_arch *nb_engine_arch(const struct nb_engine *e)
{
    return e->arch;
}

struct nb_backend *nb_engine_backend(const struct nb_engine *e)
{
    return e->be;
}

/* ---- embedding ---- */

struct embedding {
    const struct nb_arch *arch;
    const struct nb_weight *table, *positions;
    float *row; /* [hidden], for one learned position; NULL: none are learned */
};

static int check_floats(const struct nb_weight *w, const char *name, struct nb_err *err)
{
    if (w->blocks.data || nb_dtype_is_weight(w->dense.dtype)) return 0;
    return nb_fail(err, NB_E_SPEC, "tensor '%s' is %s, expected F32, F16 or BF16", name,
                   nb_dtype_name(w->dense.dtype));
}

/* h[n, hidden] += the learned positions [first, first + n). */
static int add_positions(const struct embedding *from, int64_t first, int64_t n, float *h,
                         struct nb_err *err)
{
    const struct nb_arch *arch = from->arch;
    const int64_t d = arch->hidden_size;
    int rc = check_floats(from->positions, arch->position_name, err);
    if (rc) return rc;
    if (n > arch->max_position - first) {
        return nb_fail(err, NB_E_SPEC,
                       "a sequence of %" PRId64 " tokens is too long: the model has %" PRId64
                       " positions",
                       first + n, arch->max_position);
    }
    for (int64_t i = 0; i < n; i++) {
        nb_weight_row(from->positions, first + i, from->row);
        for (int64_t k = 0; k < d; k++) h[i * d + k] += from->row[k];
    }
    return 0;
}

static int embed(const struct embedding *from, const int32_t *ids, int64_t first, int64_t n,
                 float *h, struct nb_err *err)
{
    const struct nb_arch *arch = from->arch;
    const int64_t d = arch->hidden_size;
    int rc = check_floats(from->table, arch->embed_name, err);
    if (rc) return rc;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= arch->vocab_size) {
            return nb_fail(err, NB_E_FORMAT,
                           "token %" PRId64 " has id %" PRId32 ", the vocabulary ends at %" PRId64,
                           i, ids[i], arch->vocab_size - 1);
        }
    }
    for (int64_t i = 0; i < n; i++) nb_weight_row(from->table, ids[i], h + i * d);
    const float scale = (float)arch->embed_scale;
    for (int64_t i = 0; scale != 1 && i < n * d; i++) h[i] *= scale;
    return from->row ? add_positions(from, first, n, h, err) : 0;
}

int nb_engine_embed(const struct nb_engine *e, const int32_t *ids, int64_t first, int64_t n,
                    float *h, struct nb_err *err)
{
    const struct embedding from = {e->arch, &e->embed, &e->positions, e->position_row};
    return embed(&from, ids, first, n, h, err);
}

int nb_layer_embed(const struct nb_model *model, struct nb_backend *be, const int32_t *ids,
                   int64_t n, float *h, struct nb_err *err)
{
    struct nb_weight table, positions;
    struct embedding from = {&model->arch, &table, &positions, NULL};
    (void)be;
    int rc = nb_model_embedding(model, &table, err);
    if (!rc && *model->arch.position_name) {
        rc = nb_model_positions(model, &positions, err);
        from.row = nb_alloc((size_t)model->arch.hidden_size, sizeof *from.row);
        if (!rc && !from.row) rc = nb_fail(err, NB_E_NOMEM, "no memory for a position");
    }
    if (!rc) rc = embed(&from, ids, 0, n, h, err);
    nb_free(from.row);
    return rc;
}

int nb_layer_final_norm(const struct nb_model *model, struct nb_backend *be, const float *h,
                        int64_t n, float *out, struct nb_err *err)
{
    const struct nb_arch *a = &model->arch;
    float *weight = NULL, *bias = NULL;
    int rc = nb_model_norm_weight(&weight, model, a->norm_name, a->hidden_size, err);
    if (!rc && a->layer_norm)
        rc = nb_model_norm_bias(&bias, model, a->norm_bias_name, a->hidden_size, err);
    if (!rc) {
        const struct nb_norm norm = {weight, a->hidden_size, a->rms_norm_eps, bias};
        nb_engine_norm_rows(be, &norm, out, h, n);
    }
    nb_free(weight);
    nb_free(bias);
    return rc;
}

/* ---- whole sequences ---- */

/* Two inputs, the scratch of a pass, keys and values: what a sequence of t tokens needs beside
 * h. */
static int reserve(struct nb_engine *e, int64_t t, struct nb_err *err)
{
    int rc = nb_rope_table_reserve(&e->rope, e->arch, t, err);
    if (rc) return rc;
    nb_rope_table_fill(&e->rope, e->arch, 0, t, t);
    if (t <= e->buffer_tokens) return 0;
    const struct nb_arch *a = e->arch;
    int64_t per_token =
        2 * nb_pass_width(a) + nb_pass_scratch_floats(a) + 2 * a->n_kv_heads * a->head_dim;
    size_t floats;
    nb_free(e->buffer);
    e->buffer_tokens = 0;
    e->buffer =
        nb_mul((size_t)t, (size_t)per_token, &floats) ? nb_alloc(floats, sizeof *e->buffer) : NULL;
    if (!e->buffer)
        return nb_fail(err, NB_E_NOMEM, "no memory for a sequence of %" PRId64 " tokens", t);
    e->buffer_tokens = t;
    return 0;
}

void nb_engine_layer(struct nb_layer *l, const struct nb_pass *p, float *h, float *x, float *y)
{
    nb_layer_pass(l, NB_INPUT_ATTN, p, h, NULL, x);
    nb_layer_pass(l, NB_INPUT_O, p, h, x, y);
    nb_layer_pass(l, NB_INPUT_MLP, p, h, y, x);
    nb_layer_pass(l, NB_INPUT_DOWN, p, h, x, y);
    nb_layer_pass_finish(l, p, h, y);
}

void nb_engine_norm(struct nb_engine *e, float *h, int64_t n)
{
    const struct nb_norm norm = {.weight = e->norm,
                                 .d = e->arch->hidden_size,
                                 .eps = e->arch->rms_norm_eps,
                                 .bias = e->norm_bias};
    nb_engine_norm_rows(e->be, &norm, h, h, n);
}

int nb_engine_hidden(struct nb_engine *e, const int32_t *ids, int64_t n, float *hidden,
                     struct nb_err *err)
{
    const struct nb_arch *a = e->arch;
    if (n <= 0) return 0;
    int rc = reserve(e, n, err);
    if (!rc) rc = nb_engine_embed(e, ids, 0, n, hidden, err);
    if (rc) return rc;
    const int64_t width = nb_pass_width(a), kv = a->n_kv_heads * a->head_dim;
    float *x = e->buffer, *y = x + n * width;
    struct nb_pass p = {.t = n, .rope = &e->rope, .k = y + n * width};
    p.v = p.k + n * kv;
    p.scratch = p.v + n * kv;
    for (int64_t l = 0; l < a->n_layers; l++) nb_engine_layer(e->layers[l], &p, hidden, x, y);
    nb_engine_norm(e, hidden, n);
    return 0;
}

void nb_engine_logits(struct nb_engine *e, const float *hidden, int64_t m, float *logits)
{
    const struct nb_linear_out out = {.lin = &e->head, .y = logits, .ldy = e->arch->vocab_size};
    nb_linear_run(e->be, &out, hidden, m, e->arch->hidden_size);
    if (e->arch->final_softcap > 0)
        nb_softcap(e->be, logits, m * e->arch->vocab_size, (float)e->arch->final_softcap);
}
