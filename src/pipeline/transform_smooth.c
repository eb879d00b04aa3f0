/* SPDX-License-Identifier: Apache-2.0
 *
 * transform_smooth.c - SmoothQuant on one layer: the largest inputs of each column and a sample of them from the
 * float layer, the search of alpha for every fold of the architecture, folding.
 *
 * Some chunks of the calibration text are enough for both. The sample is the same for every machine: tokens at even
 * distances over these chunks. */
#include <math.h>
#include <string.h>

#include "pipeline/fold.h"

enum { CHUNKS = 4, SAMPLE_TOKENS = 512, SAMPLE_FLOATS = 1 << 24 };

struct input_sample {
    int64_t k, room; /* columns; tokens that fit */
    int64_t step, seen, m;
    float *x;     /* [room, K] every step-th token */
    float *x_max; /* [K] */
};

struct smooth_run {
    struct nb_fold_run fold;
    struct input_sample samples[NB_INPUT_COUNT]; /* x NULL: not of interest */
};

static int add(void *ctx, enum nb_input input, const float *x, int64_t rows, struct nb_err *err)
{
    struct input_sample *s = &((struct smooth_run *)ctx)->samples[input];
    (void)err;
    for (int64_t i = 0; s->x && i < rows; i++, s->seen++) {
        const float *row = x + i * s->k;
        for (int64_t j = 0; j < s->k; j++) {
            const float v = fabsf(row[j]);
            s->x_max[j] = v <= s->x_max[j] ? s->x_max[j] : v; /* and NaN */
        }
        if (s->seen % s->step || s->m == s->room) continue;
        memcpy(s->x + s->m++ * s->k, row, (size_t)s->k * sizeof *row);
    }
    return 0;
}

static int init_sample(const struct nb_run *r, struct input_sample *s, int64_t k,
                       struct nb_err *err)
{
    if (s->x) return 0;
    int64_t tokens = r->windows.n_windows * r->windows.seqlen;
    if (r->n_chunks > CHUNKS) tokens = CHUNKS * r->windows_per_chunk * r->windows.seqlen;
    s->k = k;
    s->room = SAMPLE_FLOATS / k < SAMPLE_TOKENS ? SAMPLE_FLOATS / k : SAMPLE_TOKENS;
    if (s->room < 1) s->room = 1;
    s->step = (tokens + s->room - 1) / s->room;
    if (s->room > tokens) s->room = tokens;
    s->x = nb_alloc((size_t)s->room * (size_t)k, sizeof *s->x);
    s->x_max = nb_calloc((size_t)k, sizeof *s->x_max);
    return s->x && s->x_max ? 0 : nb_fail(err, NB_E_NOMEM, "no memory for a sample of inputs");
}

static bool is_finite(const struct input_sample *s)
{
    for (int64_t j = 0; j < s->k; j++) {
        if (!isfinite(s->x_max[j])) return false;
    }
    return true;
}

static int search(struct nb_run *r, struct nb_layer_work *w, struct smooth_run *a, int f,
                  struct nb_err *err)
{
    const struct nb_arch_fold *fold = &r->model->arch.folds[f];
    const struct input_sample *sample = &a->samples[fold->to];
    if (!nb_fold_allowed(r, w, f) || !is_finite(sample)) return 0;
    struct nb_fmat mats[NB_MAX_LINEARS];
    struct nb_solve_opts opts = r->recipe.solve;
    struct nb_smooth_group g = {.w = mats,
                                .x_max = sample->x_max,
                                .x = sample->x,
                                .m = sample->m,
                                .opts = &opts,
                                .be = r->be,
                                .repeat = fold->repeat,
                                .head_dim = fold->head_dim,
                                .compensated = r->recipe.solver->needs_hessian};
    g.n = nb_fold_matrices(r, w, f, mats, &opts);
    float *s = nb_alloc((size_t)sample->k, sizeof *s);
    if (!s) return nb_fail(err, NB_E_NOMEM, "no memory for the scales of SmoothQuant");
    struct nb_smooth_choice choice;
    int rc = nb_smooth_search(s, &g, &choice, err);
    if (rc || choice.alpha == 0.0) nb_free(s);
    else a->fold.s[f] = s;
    return rc;
}

int nb_transform_smooth(struct nb_run *r, struct nb_layer_work *w, struct nb_err *err)
{
    const struct nb_arch *arch = &r->model->arch;
    struct smooth_run a = {0};
    int rc = nb_fold_init(&a.fold, r, w, err);
    for (int f = 0; f < arch->n_folds && !rc; f++) {
        const enum nb_input to = arch->folds[f].to;
        rc = init_sample(r, &a.samples[to], nb_layer_input_width(w->engine, to), err);
    }
    if (!rc) rc = nb_fold_gather(&a.fold, r, w, &(struct nb_fold_visitor){add, &a, CHUNKS}, err);
    for (int f = 0; f < arch->n_folds && !rc; f++) rc = search(r, w, &a, f, err);
    if (!rc) rc = nb_fold_apply(&a.fold, r, w, "SmoothQuant", err);
    for (int k = 0; k < NB_INPUT_COUNT; k++) {
        nb_free(a.samples[k].x);
        nb_free(a.samples[k].x_max);
    }
    nb_fold_release(&a.fold);
    return rc;
}
