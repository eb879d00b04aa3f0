/* SPDX-License-Identifier: Apache-2.0
 *
 * fold.c - see fold.h.
 *
 * A norm is rounded to its file type first and the scale is taken from the rounded norm, so the fold itself
 * costs no accuracy. */
#include "pipeline/fold.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_FOLD_PPM = 200
}; /* largest relative move of the layer's output, 1e-6: f32 noise is ~1 */

/* A copy of v [n]; none of NULL. */
static int keep(float **copy, const float *v, size_t n, struct nb_err *err)
{
    if (!v) return 0;
    *copy = nb_alloc(n, sizeof **copy);
    if (!*copy) return nb_fail(err, NB_E_NOMEM, "no memory for a norm");
    memcpy(*copy, v, n * sizeof **copy);
    return 0;
}

int nb_fold_init(struct nb_fold_run *f, struct nb_run *r, struct nb_layer_work *w,
                 struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    size_t tokens = (size_t)(r->windows_per_chunk * r->windows.seqlen),
           d = (size_t)arch->hidden_size;
    f->h = nb_alloc(tokens * d, sizeof(float));
    f->before = nb_alloc(tokens * d, sizeof(float));
    f->x = nb_alloc(r->x.chunk_floats, sizeof(float));
    f->y = nb_alloc(r->x.chunk_floats, sizeof(float));
    if (!f->h || !f->before || !f->x || !f->y)
        return nb_fail(err, NB_E_NOMEM, "no memory for one chunk");
    static const enum nb_input with_norm[] = {NB_INPUT_ATTN, NB_INPUT_MLP};
    for (int i = 0; i < 2; i++) {
        const enum nb_input k = with_norm[i];
        int rc = keep(&f->norms[k], nb_layer_norm(w->engine, k), d, err);
        if (!rc) rc = keep(&f->norm_biases[k], nb_layer_norm_bias(w->engine, k), d, err);
        if (rc) return rc;
    }
    return 0;
}

void nb_fold_release(struct nb_fold_run *f)
{
    for (int k = 0; k < NB_INPUT_COUNT; k++) {
        nb_free(f->norms[k]);
        nb_free(f->norm_biases[k]);
    }
    for (int i = 0; i < NB_MAX_FOLDS; i++) nb_free(f->s[i]);
    nb_free(f->h);
    nb_free(f->x);
    nb_free(f->y);
    nb_free(f->before);
}

/* The float layer over chunk c, without touching the stream; h ends as the layer's output, or where there
 * are experts, as what goes into the MLP: no fold reaches further. */
static int run_chunk(struct nb_run *r, struct nb_layer_work *w, struct nb_fold_run *f, int64_t c,
                     const struct nb_fold_visitor *v, struct nb_err *err)
{
    float *hp;
    int64_t n = nb_run_chunk_windows(r, c), t = r->windows.seqlen;
    int rc = nb_actstore_get(&r->h, c, 1, &hp, err);
    if (rc) return rc;
    memcpy(f->h, hp, (size_t)(n * t * r->model->arch.hidden_size) * sizeof *hp);
    const bool experts = nb_arch_has_experts(&r->model->arch, w->index);
    for (int k = 0; k < (experts ? NB_INPUT_DOWN : NB_INPUT_COUNT) && !rc; k++) {
        rc = nb_layer_step(w->engine, (enum nb_input)k,
                           &(struct nb_layer_io){f->h, f->x, f->y, n, t}, err);
        float *swap = f->x;
        f->x = f->y;
        f->y = swap;
        if (!rc && v) rc = v->visit(v->ctx, (enum nb_input)k, f->x, n * t, err);
    }
    return rc || experts ? rc : nb_layer_finish(w->engine, f->h, f->x, n, t, err);
}

int nb_fold_gather(struct nb_fold_run *f, struct nb_run *r, struct nb_layer_work *w,
                   const struct nb_fold_visitor *v, struct nb_err *err)
{
    const int64_t step = v->chunks && v->chunks < r->n_chunks ? r->n_chunks / v->chunks : 1;
    for (int64_t c = 0; c < r->n_chunks; c += step) {
        if (nb_progress_stop(r->progress)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        int rc = run_chunk(r, w, f, c, v, err);
        if (rc) return rc;
    }
    return 0;
}

static int linear_named(const struct nb_layer_work *w, const char *name)
{
    for (int i = 0; i < w->n_linears; i++) {
        if (!strcmp(w->linears[i].name, name)) return i;
    }
    return -1;
}

/* A fold must not touch a linear that stays as it is in the source. */
bool nb_fold_allowed(const struct nb_run *r, const struct nb_layer_work *w, int fold)
{
    const struct nb_arch *arch = &r->model->arch;
    const struct nb_arch_fold *f = &arch->folds[fold];
    if (!nb_arch_fold_applies(arch, w->index, f)) return false;
    for (int i = 0; i < w->n_linears; i++) {
        if (w->linears[i].input == f->to &&
            !nb_recipe_module(&r->recipe, arch, w->index, i)->quantized) {
            return false;
        }
    }
    if (f->kind == NB_FOLD_NORM) return true;
    int from = linear_named(w, f->from);
    return from >= 0 && nb_recipe_module(&r->recipe, arch, w->index, from)->quantized;
}

int nb_fold_matrices(const struct nb_run *r, const struct nb_layer_work *w, int i,
                     struct nb_fmat mats[NB_MAX_LINEARS], struct nb_solve_opts *opts)
{
    const struct nb_arch *arch = &r->model->arch;
    int n = 0;
    for (int l = 0; l < w->n_linears; l++) {
        if (w->linears[l].input != arch->folds[i].to) continue;
        mats[n++] = nb_layer_work_matrix(w, l);
        opts->grid.spec = nb_recipe_module(&r->recipe, arch, w->index, l)->spec;
    }
    return n;
}

/* Divides the norm, rounds what the file will hold of it (all but norm_offset) to the file's type, and
 * corrects s to the exact ratio. */
static void fold_into_norm(struct nb_run *r, struct nb_layer_work *w, enum nb_input input, float *s)
{
    const struct nb_arch *arch = &r->model->arch;
    char name[NB_NAME_MAX * 2];
    nb_arch_name(arch, w->index,
                 input == NB_INPUT_ATTN ? arch->attn_norm_name : arch->mlp_norm_name, name);
    const struct nb_tensor *t = nb_safetensors_find(r->model->tensors, name);
    float *norm = nb_layer_norm(w->engine, input);
    const float offset = (float)arch->norm_offset;
    for (int64_t k = 0; k < arch->hidden_size; k++) {
        float folded = nb_round_to(norm[k] / s[k] - offset, t ? t->dtype : NB_F32) + offset;
        s[k] = folded != 0.0f && isfinite(folded) ? norm[k] / folded : 1.0f;
        if (s[k] != 1.0f) norm[k] = folded;
    }
    float *bias = nb_layer_norm_bias(w->engine, input);
    for (int64_t k = 0; bias && k < arch->hidden_size; k++) bias[k] /= s[k];
    w->norm_changed[input] = true;
}

/* s [width] of the input. */
static void fold_into_linear(struct nb_layer_work *w, const struct nb_arch_fold *f, const float *s,
                             int64_t width)
{
    int from = linear_named(w, f->from);
    const int64_t cols = w->linears[from].cols, count = width / f->repeat;
    for (int64_t j = 0; j < count; j++) {
        const int64_t n = f->first_row + j;
        int64_t k = j;
        if (f->repeat > 1) k = j / f->head_dim * f->repeat * f->head_dim + j % f->head_dim;
        float inv = 1.0f / s[k];
        for (int64_t c = 0; c < cols; c++) w->w[from][n * cols + c] *= inv;
        if (w->bias[from]) w->bias[from][n] *= inv;
    }
    if (w->bias[from]) w->bias_changed[from] = true;
}

/* The same of a LayerNorm's bias. */
static void round_norm_bias(struct nb_run *r, struct nb_layer_work *w, enum nb_input input)
{
    const struct nb_arch *arch = &r->model->arch;
    float *bias = nb_layer_norm_bias(w->engine, input);
    char name[NB_NAME_MAX * 2];
    if (!bias || !w->norm_changed[input]) return;
    nb_arch_name(arch, w->index,
                 input == NB_INPUT_ATTN ? arch->attn_norm_bias_name : arch->mlp_norm_bias_name,
                 name);
    const struct nb_tensor *t = nb_safetensors_find(r->model->tensors, name);
    for (int64_t k = 0; t && k < arch->hidden_size; k++) bias[k] = nb_round_to(bias[k], t->dtype);
}

/* Folded biases as the file will hold them, so that what follows is calibrated on these. */
static int round_biases(struct nb_run *r, struct nb_layer_work *w, struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    int rc = 0;
    round_norm_bias(r, w, NB_INPUT_ATTN);
    round_norm_bias(r, w, NB_INPUT_MLP);
    for (int i = 0; i < w->n_linears && !rc; i++) {
        if (!w->bias_changed[i]) continue;
        char name[NB_NAME_MAX * 2], inside[NB_NAME_MAX + 8];
        snprintf(inside, sizeof inside, "%s.bias", w->linears[i].name);
        nb_arch_name(arch, w->index, inside, name);
        const struct nb_tensor *t = nb_safetensors_find(r->model->tensors, name);
        for (int64_t n = 0; t && n < w->linears[i].rows; n++) {
            w->bias[i][n] = nb_round_to(w->bias[i][n], t->dtype);
        }
        rc = nb_layer_replace(w->engine, i, w->w[i], w->bias[i], err);
    }
    return rc;
}

/* s stays in *w, or is multiplied into the fold that is there. */
static void remember(struct nb_layer_work *w, enum nb_input input, float *s, int64_t k)
{
    if (!w->fold[input]) {
        w->fold[input] = s;
        return;
    }
    for (int64_t i = 0; i < k; i++) w->fold[input][i] *= s[i];
    nb_free(s);
}

/* Takes s over. */
static int apply(struct nb_run *r, struct nb_layer_work *w, const struct nb_arch_fold *f, float *s,
                 struct nb_err *err)
{
    if (f->kind == NB_FOLD_NORM) fold_into_norm(r, w, f->to, s);
    else fold_into_linear(w, f, s, nb_layer_input_width(w->engine, f->to));
    int rc = 0;
    for (int i = 0; i < w->n_linears && !rc; i++) {
        if (w->linears[i].input != f->to) continue;
        struct nb_fmat m = nb_layer_work_matrix(w, i);
        nb_awq_scale_columns(&m, s);
    }
    remember(w, f->to, s, nb_layer_input_width(w->engine, f->to));
    for (int i = 0; i < w->n_linears && !rc; i++) {
        if (!w->w[i]) continue; /* an expert's */
        rc = nb_layer_replace(w->engine, i, w->w[i], w->bias[i], err);
    }
    return rc;
}

/* The layer's output on the first chunk, in f->h: always f32, whatever the calibration multiplies in. */
static int first_output(struct nb_run *r, struct nb_layer_work *w, struct nb_fold_run *f,
                        struct nb_err *err)
{
    enum nb_precision before = nb_backend_set_precision(r->be, NB_PRECISION_F32);
    int rc = run_chunk(r, w, f, 0, NULL, err);
    nb_backend_set_precision(r->be, before);
    return rc;
}

static int keep_output(struct nb_run *r, struct nb_layer_work *w, struct nb_fold_run *f,
                       struct nb_err *err)
{
    int rc = first_output(r, w, f, err);
    int64_t n = nb_run_chunk_windows(r, 0) * r->windows.seqlen * r->model->arch.hidden_size;
    if (!rc) memcpy(f->before, f->h, (size_t)n * sizeof *f->h);
    return rc;
}

/* Relative move of the float layer's output on the first chunk. */
static int check(struct nb_run *r, struct nb_layer_work *w, struct nb_fold_run *f, double *moved,
                 struct nb_err *err)
{
    int rc = first_output(r, w, f, err);
    if (rc) return rc;
    int64_t n = nb_run_chunk_windows(r, 0) * r->windows.seqlen * r->model->arch.hidden_size;
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)f->h[i] - (double)f->before[i];
        diff += d * d;
        norm += (double)f->before[i] * (double)f->before[i];
    }
    *moved = norm > 0 ? sqrt(diff / norm) : 0;
    return 0;
}

static int undo(struct nb_run *r, struct nb_layer_work *w, struct nb_fold_run *f,
                struct nb_err *err)
{
    int rc = 0;
    for (int i = 0; i < w->n_linears && !rc; i++) {
        if (!w->w[i]) continue;
        rc = nb_layer_work_load_linear(r, w, i, err);
        w->bias_changed[i] = false;
    }
    for (int k = 0; k < NB_INPUT_COUNT; k++) {
        nb_free(w->fold[k]);
        w->fold[k] = NULL;
        if (!f->norms[k]) continue;
        const size_t bytes = (size_t)r->model->arch.hidden_size * sizeof(float);
        memcpy(nb_layer_norm(w->engine, (enum nb_input)k), f->norms[k], bytes);
        if (f->norm_biases[k])
            memcpy(nb_layer_norm_bias(w->engine, (enum nb_input)k), f->norm_biases[k], bytes);
        w->norm_changed[k] = false;
    }
    return rc;
}

int nb_fold_apply(struct nb_fold_run *f, struct nb_run *r, struct nb_layer_work *w,
                  const char *what, struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    double moved = 0;
    int rc = keep_output(r, w, f, err);
    for (int i = 0; i < arch->n_folds && !rc; i++) {
        if (!f->s[i]) continue;
        rc = apply(r, w, &arch->folds[i], f->s[i], err);
        f->s[i] = NULL;
    }
    if (!rc) rc = check(r, w, f, &moved, err);
    if (!rc && !(moved * 1e6 <= MAX_FOLD_PPM)) {
        nb_progress_warn(r->progress,
                         "layer %" PRId64 ": folding %s scales moved the float output by %.3g "
                         "(at most %.3g is rounding); folds of this layer undone",
                         w->index, what, moved, MAX_FOLD_PPM * 1e-6);
        rc = undo(r, w, f, err);
    }
    return rc ? rc : round_biases(r, w, err);
}
