/* SPDX-License-Identifier: Apache-2.0
 *
 * transform.c - AWQ on one layer: statistics of the float layer, scale search for every fold of the
 * architecture, folding, and the check that the float function did not move.
 *
 * All scales are found before any is applied (algorithms, section 4.3). A norm is rounded to its file
 * type first and the scale is taken from the rounded norm, so the fold itself costs no accuracy. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "pipeline/layer.h"

enum {
    MAX_FOLD_PPM = 200
}; /* largest relative move of the layer's output, 1e-6: f32 noise is ~1 */

struct awq_run {
    struct nb_stats stats[NB_INPUT_COUNT];
    bool have[NB_INPUT_COUNT];
    float *s[NB_MAX_FOLDS];       /* [K] or NULL: not folded */
    float *h, *x, *y;             /* one chunk each */
    float *before;                /* output of the first chunk of the float layer */
    float *norms[NB_INPUT_COUNT]; /* as loaded */
};

static void awq_release(struct awq_run *a)
{
    for (int k = 0; k < NB_INPUT_COUNT; k++) {
        if (a->have[k]) nb_stats_release(&a->stats[k]);
        nb_free(a->norms[k]);
    }
    for (int f = 0; f < NB_MAX_FOLDS; f++) nb_free(a->s[f]);
    nb_free(a->h);
    nb_free(a->x);
    nb_free(a->y);
    nb_free(a->before);
}

static int awq_alloc(struct nb_run *r, struct nb_layer_work *w, struct awq_run *a,
                     struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    memset(a, 0, sizeof *a);
    size_t tokens = (size_t)(r->windows_per_chunk * r->windows.seqlen),
           d = (size_t)arch->hidden_size;
    a->h = nb_alloc(tokens * d, sizeof(float));
    a->before = nb_alloc(tokens * d, sizeof(float));
    a->x = nb_alloc(r->x.chunk_floats, sizeof(float));
    a->y = nb_alloc(r->x.chunk_floats, sizeof(float));
    if (!a->h || !a->before || !a->x || !a->y)
        return nb_fail(err, NB_E_NOMEM, "no memory for one chunk");
    static const enum nb_input with_norm[] = {NB_INPUT_ATTN, NB_INPUT_MLP};
    for (int i = 0; i < 2; i++) {
        a->norms[with_norm[i]] = nb_alloc(d, sizeof(float));
        if (!a->norms[with_norm[i]]) return nb_fail(err, NB_E_NOMEM, "no memory for a norm");
        memcpy(a->norms[with_norm[i]], nb_layer_norm(w->engine, with_norm[i]), d * sizeof(float));
    }
    for (int f = 0; f < arch->n_folds; f++) {
        enum nb_input k = arch->folds[f].to;
        if (a->have[k]) continue;
        int rc = nb_stats_init(&a->stats[k], nb_input_width(arch, k), NB_STATS_ABS, err);
        if (rc) return rc;
        a->have[k] = true;
    }
    return 0;
}

/* The float layer over chunk c, without touching the stream; h ends as the layer's output. */
static int run_chunk(struct nb_run *r, struct nb_layer_work *w, struct awq_run *a, int64_t c,
                     bool gather, struct nb_err *err)
{
    float *hp;
    int64_t n = nb_run_chunk_windows(r, c), t = r->windows.seqlen;
    int rc = nb_actstore_get(&r->h, c, 1, &hp, err);
    if (rc) return rc;
    memcpy(a->h, hp, (size_t)(n * t * r->model->arch.hidden_size) * sizeof *hp);
    for (int k = 0; k < NB_INPUT_COUNT && !rc; k++) {
        rc = nb_layer_step(w->engine, (enum nb_input)k,
                           &(struct nb_layer_io){a->h, a->x, a->y, n, t}, err);
        float *swap = a->x;
        a->x = a->y;
        a->y = swap;
        if (rc || !gather || !a->have[k]) continue;
        const struct nb_stats_input in = {.x = a->x, .m = n * t};
        rc = nb_stats_add(&a->stats[k], r->be, &in, err);
    }
    return rc ? rc : nb_layer_finish(w->engine, a->h, a->x, n, t, err);
}

static int gather(struct nb_run *r, struct nb_layer_work *w, struct awq_run *a, struct nb_err *err)
{
    for (int64_t c = 0; c < r->n_chunks; c++) {
        if (nb_progress_stop(r->progress)) return nb_fail(err, NB_E_INTERRUPTED, "interrupted");
        int rc = run_chunk(r, w, a, c, true, err);
        if (rc) return rc;
    }
    for (int k = 0; k < NB_INPUT_COUNT; k++) {
        if (a->have[k]) nb_stats_finish(&a->stats[k]);
    }
    return 0;
}

static int linear_named(const struct nb_arch *arch, const char *name)
{
    for (int i = 0; i < arch->n_linears; i++) {
        if (!strcmp(arch->linears[i].name, name)) return i;
    }
    return -1;
}

/* A fold must not touch a linear that stays as it is in the source. */
static bool fold_allowed(const struct nb_run *r, int64_t layer, const struct nb_arch_fold *f)
{
    const struct nb_arch *arch = &r->model->arch;
    for (int i = 0; i < arch->n_linears; i++) {
        if (arch->linears[i].input == f->to &&
            !nb_recipe_module(&r->recipe, arch, layer, i)->quantized) {
            return false;
        }
    }
    if (f->kind == NB_FOLD_NORM) return true;
    int from = linear_named(arch, f->from);
    return from >= 0 && nb_recipe_module(&r->recipe, arch, layer, from)->quantized;
}

static int search(struct nb_run *r, struct nb_layer_work *w, struct awq_run *a, int f,
                  struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    const struct nb_arch_fold *fold = &arch->folds[f];
    if (!fold_allowed(r, w->index, fold) || !nb_stats_are_finite(&a->stats[fold->to])) return 0;
    struct nb_fmat mats[NB_MAX_LINEARS];
    struct nb_solve_opts opts = r->recipe.solve;
    struct nb_awq_group g = {.w = mats,
                             .stats = &a->stats[fold->to],
                             .opts = &opts,
                             .be = r->be,
                             .repeat = fold->repeat,
                             .head_dim = fold->head_dim,
                             .compensated = r->recipe.solver->needs_hessian};
    for (int i = 0; i < arch->n_linears; i++) {
        if (arch->linears[i].input != fold->to) continue;
        mats[g.n++] = nb_layer_work_matrix(w, arch, i);
        opts.grid.spec = nb_recipe_module(&r->recipe, arch, w->index, i)->spec;
    }
    int64_t k = nb_input_width(arch, fold->to);
    float *s = nb_alloc((size_t)k, sizeof *s);
    if (!s) return nb_fail(err, NB_E_NOMEM, "no memory for AWQ scales");
    struct nb_awq_losses losses;
    int rc = a->stats[fold->to].hessian ? 0 : nb_stats_condense(&a->stats[fold->to], err);
    if (!rc) rc = nb_awq_search(s, &g, &losses, err);
    if (rc || !(losses.best < losses.identity)) nb_free(s);
    else a->s[f] = s;
    return rc;
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
    w->norm_changed[input] = true;
}

static void fold_into_linear(struct nb_layer_work *w, const struct nb_arch *arch,
                             const struct nb_arch_fold *f, const float *s)
{
    int from = linear_named(arch, f->from);
    int64_t rows = arch->linears[from].rows, cols = arch->linears[from].cols;
    for (int64_t n = 0; n < rows; n++) {
        int64_t k = n;
        if (f->repeat > 1) k = n / f->head_dim * f->repeat * f->head_dim + n % f->head_dim;
        float inv = 1.0f / s[k];
        for (int64_t c = 0; c < cols; c++) w->w[from][n * cols + c] *= inv;
        if (w->bias[from]) w->bias[from][n] *= inv;
    }
    if (w->bias[from]) w->bias_changed[from] = true;
}

/* Folded biases as the file will hold them, so that what follows is calibrated on these. */
static int round_biases(struct nb_run *r, struct nb_layer_work *w, struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    int rc = 0;
    for (int i = 0; i < arch->n_linears && !rc; i++) {
        if (!w->bias_changed[i]) continue;
        char name[NB_NAME_MAX * 2], inside[NB_NAME_MAX + 8];
        snprintf(inside, sizeof inside, "%s.bias", arch->linears[i].name);
        nb_arch_name(arch, w->index, inside, name);
        const struct nb_tensor *t = nb_safetensors_find(r->model->tensors, name);
        for (int64_t n = 0; t && n < arch->linears[i].rows; n++) {
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
    const struct nb_arch *arch = &r->model->arch;
    if (f->kind == NB_FOLD_NORM) fold_into_norm(r, w, f->to, s);
    else fold_into_linear(w, arch, f, s);
    int rc = 0;
    for (int i = 0; i < arch->n_linears && !rc; i++) {
        if (arch->linears[i].input != f->to) continue;
        struct nb_fmat m = nb_layer_work_matrix(w, arch, i);
        nb_awq_scale_columns(&m, s);
    }
    remember(w, f->to, s, nb_input_width(arch, f->to));
    for (int i = 0; i < arch->n_linears && !rc; i++) {
        rc = nb_layer_replace(w->engine, i, w->w[i], w->bias[i], err);
    }
    return rc;
}

/* The layer's output on the first chunk, in a->h: always f32, whatever the calibration multiplies in. */
static int first_output(struct nb_run *r, struct nb_layer_work *w, struct awq_run *a,
                        struct nb_err *err)
{
    enum nb_precision before = nb_backend_set_precision(r->be, NB_PRECISION_F32);
    int rc = run_chunk(r, w, a, 0, false, err);
    nb_backend_set_precision(r->be, before);
    return rc;
}

static int keep_output(struct nb_run *r, struct nb_layer_work *w, struct awq_run *a,
                       struct nb_err *err)
{
    int rc = first_output(r, w, a, err);
    int64_t n = nb_run_chunk_windows(r, 0) * r->windows.seqlen * r->model->arch.hidden_size;
    if (!rc) memcpy(a->before, a->h, (size_t)n * sizeof *a->h);
    return rc;
}

/* Relative move of the float layer's output on the first chunk. */
static int check(struct nb_run *r, struct nb_layer_work *w, struct awq_run *a, double *moved,
                 struct nb_err *err)
{
    int rc = first_output(r, w, a, err);
    if (rc) return rc;
    int64_t n = nb_run_chunk_windows(r, 0) * r->windows.seqlen * r->model->arch.hidden_size;
    double diff = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a->h[i] - (double)a->before[i];
        diff += d * d;
        norm += (double)a->before[i] * (double)a->before[i];
    }
    *moved = norm > 0 ? sqrt(diff / norm) : 0;
    return 0;
}

static int undo(struct nb_run *r, struct nb_layer_work *w, struct awq_run *a, struct nb_err *err)
{
    int rc = 0;
    for (int i = 0; i < r->model->arch.n_linears && !rc; i++) {
        rc = nb_layer_work_load_linear(r, w, i, err);
        w->bias_changed[i] = false;
    }
    for (int k = 0; k < NB_INPUT_COUNT; k++) {
        nb_free(w->fold[k]);
        w->fold[k] = NULL;
        if (!a->norms[k]) continue;
        memcpy(nb_layer_norm(w->engine, (enum nb_input)k), a->norms[k],
               (size_t)r->model->arch.hidden_size * sizeof(float));
        w->norm_changed[k] = false;
    }
    return rc;
}

int nb_transform_awq(struct nb_run *r, struct nb_layer_work *w, struct nb_err *err)
{
    struct awq_run a;
    const struct nb_arch *arch = &r->model->arch;
    double moved = 0;
    int rc = awq_alloc(r, w, &a, err);
    if (!rc) rc = gather(r, w, &a, err);
    if (!rc) rc = keep_output(r, w, &a, err);
    for (int f = 0; f < arch->n_folds && !rc; f++) rc = search(r, w, &a, f, err);
    for (int f = 0; f < arch->n_folds && !rc; f++) {
        if (!a.s[f]) continue;
        rc = apply(r, w, &arch->folds[f], a.s[f], err);
        a.s[f] = NULL;
    }
    if (!rc) rc = check(r, w, &a, &moved, err);
    if (!rc && !(moved * 1e6 <= MAX_FOLD_PPM)) {
        nb_progress_warn(r->progress,
                         "layer %" PRId64 ": folding AWQ scales moved the float output by %.3g "
                         "(at most %.3g is rounding); folds of this layer undone",
                         w->index, moved, MAX_FOLD_PPM * 1e-6);
        rc = undo(r, w, &a, err);
    }
    if (!rc) rc = round_biases(r, w, err);
    awq_release(&a);
    return rc;
}
