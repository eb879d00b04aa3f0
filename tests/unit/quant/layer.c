/* SPDX-License-Identifier: Apache-2.0
 *
 * layer.c - see layer.h. */
#include "layer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"

enum { FACTORS = 24 };

static const double SHARED = 0.9; /* share of the latent factors in a channel's variance */

static void make_inputs(struct layer *l, struct nb_rng *rng)
{
    const int64_t k = l->cols;
    double *mix = nb_alloc((size_t)(k * FACTORS), sizeof *mix),
           *size = nb_alloc((size_t)k, sizeof *size);
    for (int64_t j = 0; j < k; j++) {
        double norm = 0;
        for (int f = 0; f < FACTORS; f++) {
            mix[j * FACTORS + f] = nb_rng_normal(rng) / sqrt(f + 1.0);
            norm += mix[j * FACTORS + f] * mix[j * FACTORS + f];
        }
        for (int f = 0; f < FACTORS; f++) mix[j * FACTORS + f] *= sqrt(SHARED / norm);
        size[j] = exp(0.5 * nb_rng_normal(rng)) * (nb_rng_uniform(rng) < 0.01 ? 8.0 : 1.0);
    }
    for (int64_t i = 0; i < k; i++) {
        for (int64_t j = 0; j < k; j++) {
            double c = i == j ? 1.0 - SHARED : 0.0;
            for (int f = 0; f < FACTORS; f++) c += mix[i * FACTORS + f] * mix[j * FACTORS + f];
            l->truth[i * k + j] = c * size[i] * size[j];
        }
    }
    for (int64_t t = 0; t < l->tokens; t++) {
        double z[FACTORS];
        for (int f = 0; f < FACTORS; f++) z[f] = nb_rng_normal(rng);
        for (int64_t j = 0; j < k; j++) {
            double v = sqrt(1.0 - SHARED) * nb_rng_normal(rng);
            for (int f = 0; f < FACTORS; f++) v += mix[j * FACTORS + f] * z[f];
            l->x[t * k + j] = (float)(v * size[j]);
        }
    }
    nb_free(mix);
    nb_free(size);
}

struct layer layer_make(uint64_t seed, int64_t rows, int64_t cols, int64_t tokens, int threads)
{
    struct nb_err err = {0};
    struct layer l = {.rows = rows, .cols = cols, .tokens = tokens};
    l.pool = nb_pool_new(threads, &err);
    assert_non_null(l.pool);
    if (nb_backend_new(&l.be, l.pool, NULL, &err)) fail_msg("%s", err.text);
    l.w = nb_alloc((size_t)(rows * cols), sizeof *l.w);
    l.x = nb_alloc((size_t)(tokens * cols), sizeof *l.x);
    l.truth = nb_alloc((size_t)(cols * cols), sizeof *l.truth);
    l.mat = (struct nb_fmat){.data = l.w, .rows = rows, .cols = cols, .ld = cols};
    struct nb_rng rng;
    nb_rng_init(&rng, seed);
    for (int64_t i = 0; i < rows * cols; i++) l.w[i] = (float)(0.02 * nb_rng_normal(&rng));
    make_inputs(&l, &rng);
    if (nb_stats_init(&l.stats, cols, NB_STATS_ABS, &err)) fail_msg("%s", err.text);
    if (nb_stats_add(&l.stats, l.be, &(struct nb_stats_input){l.x, NULL, tokens}, &err))
        fail_msg("%s", err.text);
    nb_stats_finish(&l.stats);
    return l;
}

void layer_release(struct layer *l)
{
    nb_stats_release(&l->stats);
    nb_free(l->w);
    nb_free(l->x);
    nb_free(l->truth);
    nb_backend_free(l->be);
    nb_pool_free(l->pool);
}

void layer_set_h(struct layer *l, const double *h)
{
    for (int64_t i = 0; i < l->cols * l->cols; i++)
        l->stats.h[i] = h[i] * (double)l->stats.n_tokens;
}

struct nb_qspec layer_spec(int bits, bool sym, int64_t group)
{
    return (struct nb_qspec){.elem = {.kind = NB_ELEM_INT, .bits = bits, .vec = 1},
                             .group_rows = 1,
                             .group_cols = group,
                             .scale_dtype = NB_F16,
                             .zero = NB_ZERO_CODE,
                             .symmetric = sym};
}

struct nb_solve_opts layer_opts(int bits, bool sym, int64_t group, enum nb_effort effort)
{
    struct nb_solve_opts o = {.grid = {.spec = layer_spec(bits, sym, group)}};
    nb_solve_opts_effort(&o, effort);
    return o;
}

static void check_planes(const struct nb_qmat *q)
{
    const float top = (float)((1 << q->spec.elem.bits) - 1);
    for (int64_t i = 0; i < nb_qmat_planes(q); i++) {
        const float s = q->scale.value[i];
        assert_true(isfinite(s) && s == nb_round_to(s, q->spec.scale_dtype));
        if (!q->zero.value) continue;
        const float z = q->zero.value[i];
        assert_true(z >= 0.0f && z <= top && z == rintf(z));
        if (q->spec.symmetric) assert_true(z == (top + 1.0f) / 2.0f);
    }
    for (int64_t i = 0; i < q->rows * q->cols; i++) assert_true((float)q->codes[i] <= top);
}

struct nb_solve_report layer_solve(struct layer *l, const char *solver,
                                   const struct nb_solve_opts *opts, struct nb_qmat *q,
                                   struct nb_arena *arena)
{
    struct nb_err err = {0};
    struct nb_solve_report report;
    const struct nb_solver *s = nb_solver_find(solver);
    assert_non_null(s);
    if (s->solve(q, &(struct nb_solve_job){&l->mat, &l->stats, opts, l->be}, arena, &report, &err))
        fail_msg("%s", err.text);
    check_planes(q);
    float *values = nb_alloc((size_t)(l->rows * l->cols), sizeof *values);
    for (int64_t r = 0; r < l->rows; r++) nb_qmat_dequant_row(q, r, values + r * l->cols);
    struct nb_fmat qm = {.data = values, .rows = l->rows, .cols = l->cols, .ld = l->cols};
    const double loss = nb_output_loss(&l->mat, &qm, &l->stats, l->be);
    nb_free(values);
    if (isfinite(report.loss) && !strstr(report.ladder, "diagonal"))
        assert_true(fabs(loss - report.loss) <= 1e-3 * fabs(loss) + 1e-6 * report.loss_zero);
    return report;
}

double layer_true_loss(const struct layer *l, const struct nb_qmat *q)
{
    const int64_t k = l->cols;
    double sum = 0;
    float *value = nb_alloc((size_t)k, sizeof *value);
    for (int64_t r = 0; r < l->rows; r++) {
        nb_qmat_dequant_row(q, r, value);
        for (int64_t j = 0; j < k; j++) value[j] = l->w[r * k + j] - value[j];
        for (int64_t i = 0; i < k; i++) {
            double row = 0;
            for (int64_t j = 0; j < k; j++) row += l->truth[i * k + j] * value[j];
            sum += row * value[i];
        }
    }
    nb_free(value);
    return sum;
}
