/* SPDX-License-Identifier: Apache-2.0
 *
 * problem.c - set up a matrix for the solvers, measure solutions, hand them out. See problem.h. */
#include "quant/hessian.h"

#include <inttypes.h>
#include <string.h>

enum { MEASURE_COLS = 512 };

int nb_problem_init(struct nb_problem *p, const struct nb_solve_job *job, const int32_t *column,
                    struct nb_arena *arena, struct nb_err *err)
{
    const struct nb_fmat *w = job->w;
    const int64_t k = w->cols;
    *p = (struct nb_problem){.opts = job->opts,
                             .spec = job->opts->grid.spec,
                             .be = job->be,
                             .rows = w->rows,
                             .cols = k,
                             .column = column};
    if (p->spec.group_cols <= 0 || p->spec.group_cols > k) p->spec.group_cols = k;
    if (p->spec.group_rows <= 0) p->spec.group_rows = 1;
    p->numeric = nb_numeric_for(&p->spec);
    if (!p->numeric || w->rows <= 0 || k <= 0) {
        char text[64];
        nb_qspec_describe(&p->spec, text, sizeof text);
        return nb_fail(err, NB_E_SPEC,
                       "no number encoding for %s and a matrix of %" PRId64 " x %" PRId64, text,
                       w->rows, k);
    }
    p->group = p->spec.group_cols;
    p->n_groups = (k + p->group - 1) / p->group;
    p->padded = (w->rows + NB_TILE - 1) / NB_TILE * NB_TILE;
    size_t n;
    if (!nb_mul((size_t)p->padded, (size_t)k, &n)) {
        return nb_fail(err, NB_E_NOMEM, "matrix of %" PRId64 " x %" PRId64 " is too large", w->rows,
                       k);
    }
    p->w = nb_arena_calloc(arena, n, sizeof *p->w);
    if (job->stats) p->u = nb_arena_alloc(arena, (size_t)k, sizeof *p->u);
    if (arena->failed) {
        return nb_fail(err, NB_E_NOMEM, "no memory to quantize a matrix of %" PRId64 " x %" PRId64,
                       w->rows, k);
    }
    for (int64_t r = 0; r < w->rows; r++) {
        const float *src = w->data + r * w->ld;
        float *dst = p->w + r * k;
        for (int64_t j = 0; j < k; j++) dst[j] = src[column ? column[j] : j];
    }
    return 0;
}

void nb_problem_set_h(struct nb_problem *p, struct nb_hessian *h, double damp)
{
    p->h = nb_hessian_damp(h, damp);
    p->damp = (float)damp;
    nb_problem_reset_importance(p);
}

void nb_problem_reset_importance(struct nb_problem *p)
{
    const int64_t k = p->cols;
    double mean = 0;
    for (int64_t i = 0; i < k; i++) mean += ((double)p->h[i * k + i] - p->damp) / (double)k;
    for (int64_t i = 0; i < k; i++) {
        p->u[i] = (float)((double)p->h[i * k + i] - p->damp + NB_IMPORTANCE_FLOOR * mean);
    }
}

int nb_problem_mask(struct nb_problem *p, int64_t block, struct nb_arena *arena,
                    struct nb_err *err)
{
    const size_t k = (size_t)p->cols;
    float *h = nb_arena_calloc(arena, k * k, sizeof *h);
    if (!h)
        return nb_fail(err, NB_E_NOMEM, "no memory for a Hessian of %" PRId64 " columns", p->cols);
    for (int64_t i = 0; i < p->cols; i++) {
        const int64_t j0 = i / block * block;
        const int64_t j1 = j0 + block < p->cols ? j0 + block : p->cols;
        memcpy(h + i * p->cols + j0, p->h + i * p->cols + j0, (size_t)(j1 - j0) * sizeof *h);
    }
    p->h = h;
    return 0;
}

int nb_solution_init(struct nb_solution *s, const struct nb_problem *p, struct nb_arena *arena,
                     struct nb_err *err)
{
    const size_t rows = (size_t)p->padded, planes = rows * (size_t)p->n_groups;
    s->code = nb_arena_calloc(arena, rows * (size_t)p->cols, 1);
    s->scale = nb_arena_calloc(arena, planes, sizeof *s->scale);
    s->zero = nb_arena_calloc(arena, planes, sizeof *s->zero);
    s->loss = nb_arena_calloc(arena, rows, sizeof *s->loss);
    s->plain = nb_arena_calloc(arena, rows, sizeof *s->plain);
    if (!arena->failed) return 0;
    return nb_fail(err, NB_E_NOMEM, "no memory for the codes of a matrix of %" PRId64 " x %" PRId64,
                   p->rows, p->cols);
}

struct error_job {
    const struct nb_problem *p;
    const struct nb_solution *s;
    float *error;
};

static void error_tile(void *ctx, size_t piece, int thread)
{
    const struct error_job *job = ctx;
    const struct nb_problem *p = job->p;
    (void)thread;
    for (int64_t r = (int64_t)piece * NB_TILE; r < ((int64_t)piece + 1) * NB_TILE; r++) {
        const uint8_t *code = job->s->code + r * p->cols;
        const float *w = p->w + r * p->cols;
        float *error = job->error + r * p->cols;
        for (int64_t g = 0; g < p->n_groups; g++) {
            const float scale = job->s->scale[g * p->padded + r],
                        zero = job->s->zero[g * p->padded + r];
            const int64_t j0 = g * p->group, j1 = j0 + nb_problem_group_cols(p, g);
            for (int64_t j = j0; j < j1; j++) error[j] = w[j] - scale * ((float)code[j] - zero);
        }
    }
}

void nb_solution_error(const struct nb_problem *p, const struct nb_solution *s, float *error)
{
    struct error_job job = {.p = p, .s = s, .error = error};
    nb_pool_run(nb_backend_pool(p->be), (size_t)nb_problem_tiles(p), error_tile, &job);
}

void nb_solution_gradient(const struct nb_problem *p, const float *error, float *gradient)
{
    const int64_t k = p->cols;
    nb_gemm_run(p->be, &(struct nb_gemm){.m = p->padded,
                                         .n = k,
                                         .k = k,
                                         .alpha = 1.0f,
                                         .a = error,
                                         .b = p->h,
                                         .c = gradient,
                                         .lda = k,
                                         .ldb = k,
                                         .ldc = k});
}

struct quadratic {
    const struct nb_problem *p;
    struct nb_solution *s;
    const float *error, *image; /* [padded, K]; [padded, width] */
    int64_t j0, n, width;       /* the columns image stands for */
    double weight;
};

static void add_products(void *ctx, size_t piece, int thread)
{
    const struct quadratic *a = ctx;
    (void)thread;
    for (int64_t r = (int64_t)piece * NB_TILE; r < ((int64_t)piece + 1) * NB_TILE; r++) {
        const float *e = a->error + r * a->p->cols + a->j0, *x = a->image + r * a->width;
        double sum = 0;
        for (int64_t j = 0; j < a->n; j++) sum += (double)e[j] * x[j];
        a->s->loss[r] += a->weight * sum;
    }
}

/* loss += weight * error[:, i0..i1) H[i0..i1, j0..j0+n) error[:, j0..j0+n)^T */
static void add_block(struct quadratic *a, float *image, int64_t i0, int64_t i1, double weight)
{
    const struct nb_problem *p = a->p;
    if (i0 >= i1) return;
    nb_gemm_run(p->be, &(struct nb_gemm){.m = p->padded,
                                         .n = a->n,
                                         .k = i1 - i0,
                                         .alpha = 1.0f,
                                         .a = a->error + i0,
                                         .b = p->h + i0 * p->cols + a->j0,
                                         .c = image,
                                         .lda = p->cols,
                                         .ldb = p->cols,
                                         .ldc = a->width});
    a->weight = weight;
    nb_pool_run(nb_backend_pool(p->be), (size_t)nb_problem_tiles(p), add_products, a);
}

static void subtract_damping(void *ctx, size_t piece, int thread)
{
    const struct quadratic *a = ctx;
    (void)thread;
    for (int64_t r = (int64_t)piece * NB_TILE; r < ((int64_t)piece + 1) * NB_TILE; r++) {
        const float *e = a->error + r * a->p->cols;
        double square = 0;
        for (int64_t j = 0; j < a->p->cols; j++) square += (double)e[j] * e[j];
        a->s->plain[r] = a->s->loss[r] - a->p->damp * square;
    }
}

void nb_solution_losses(const struct nb_problem *p, struct nb_solution *s, const float *error,
                        float *scratch)
{
    struct quadratic a = {.p = p, .s = s, .error = error, .image = scratch};
    a.width = p->cols < MEASURE_COLS ? p->cols : MEASURE_COLS;
    memset(s->loss, 0, (size_t)p->padded * sizeof *s->loss);
    for (a.j0 = 0; a.j0 < p->cols; a.j0 += a.width) {
        a.n = p->cols - a.j0 < a.width ? p->cols - a.j0 : a.width;
        add_block(&a, scratch, 0, a.j0,
                  2.0); /* H is symmetric: the blocks below stand for those above */
        add_block(&a, scratch, a.j0, a.j0 + a.n, 1.0);
    }
    nb_pool_run(nb_backend_pool(p->be), (size_t)nb_problem_tiles(p), subtract_damping, &a);
}

static int no_memory_to_measure(const struct nb_problem *p, struct nb_err *err)
{
    return nb_fail(err, NB_E_NOMEM, "no memory to measure a matrix of %" PRId64 " x %" PRId64,
                   p->rows, p->cols);
}

static size_t measure_floats(const struct nb_problem *p)
{
    return (size_t)p->padded * (size_t)(p->cols < MEASURE_COLS ? p->cols : MEASURE_COLS);
}

int nb_solution_measure(const struct nb_problem *p, struct nb_solution *s, struct nb_err *err)
{
    float *error = nb_alloc((size_t)p->padded * (size_t)p->cols, sizeof *error);
    float *scratch = nb_alloc(measure_floats(p), sizeof *scratch);
    const bool done = error && scratch;
    if (done) {
        nb_solution_error(p, s, error);
        nb_solution_losses(p, s, error, scratch);
    }
    nb_free(error);
    nb_free(scratch);
    return done ? 0 : no_memory_to_measure(p, err);
}

int nb_problem_scale(const struct nb_problem *p, double *loss, struct nb_err *err)
{
    const size_t rows = (size_t)p->padded;
    struct nb_solution zero = {.loss = nb_calloc(rows, sizeof(double)),
                               .plain = nb_calloc(rows, sizeof(double))};
    float *scratch = nb_alloc(measure_floats(p), sizeof *scratch);
    const bool done = zero.loss && zero.plain && scratch;
    if (done) {
        nb_solution_losses(p, &zero, p->w, scratch);
        *loss = nb_solution_plain(p, &zero);
    }
    nb_free(scratch);
    nb_free(zero.loss);
    nb_free(zero.plain);
    return done ? 0 : no_memory_to_measure(p, err);
}

static void copy_row(const struct nb_problem *p, struct nb_solution *s,
                     const struct nb_solution *other, int64_t r)
{
    s->loss[r] = other->loss[r];
    s->plain[r] = other->plain[r];
    memcpy(s->code + r * p->cols, other->code + r * p->cols, (size_t)p->cols);
    for (int64_t i = r; i < p->n_groups * p->padded; i += p->padded) {
        s->scale[i] = other->scale[i];
        s->zero[i] = other->zero[i];
    }
}

void nb_solution_keep_best(const struct nb_problem *p, struct nb_solution *s,
                           const struct nb_solution *other)
{
    for (int64_t r = 0; r < p->padded; r++) {
        if (other->loss[r] < s->loss[r]) copy_row(p, s, other, r);
    }
}

void nb_solution_keep_plain(const struct nb_problem *p, struct nb_solution *s,
                            const struct nb_solution *other)
{
    for (int64_t r = 0; r < p->padded; r++) {
        if (other->plain[r] < s->plain[r]) copy_row(p, s, other, r);
    }
}

double nb_solution_loss(const struct nb_problem *p, const struct nb_solution *s)
{
    double sum = 0;
    for (int64_t r = 0; r < p->rows; r++) sum += s->loss[r];
    return sum;
}

double nb_solution_plain(const struct nb_problem *p, const struct nb_solution *s)
{
    double sum = 0;
    for (int64_t r = 0; r < p->rows; r++) sum += s->plain[r];
    return sum;
}

int nb_solution_export(const struct nb_problem *p, const struct nb_solution *s, struct nb_qmat *out,
                       struct nb_arena *arena, struct nb_err *err)
{
    int rc = nb_qmat_init(out, &p->spec, p->rows, p->cols, arena, err);
    if (rc) return rc;
    int32_t *col_group =
        p->column ? nb_arena_alloc(arena, (size_t)p->cols, sizeof *col_group) : NULL;
    if (p->column && !col_group) return nb_fail(err, NB_E_NOMEM, "no memory for a group index");
    for (int64_t j = 0; col_group && j < p->cols; j++)
        col_group[p->column[j]] = (int32_t)(j / p->group);
    out->col_group = col_group;
    for (int64_t r = 0; r < p->rows; r++) {
        const uint8_t *src = s->code + r * p->cols;
        uint8_t *dst = out->codes + r * p->cols;
        for (int64_t j = 0; j < p->cols; j++) dst[p->column ? p->column[j] : j] = src[j];
        for (int64_t g = 0; g < p->n_groups; g++) {
            out->scale.value[r * p->n_groups + g] = s->scale[g * p->padded + r];
            out->zero.value[r * p->n_groups + g] = s->zero[g * p->padded + r];
        }
    }
    return 0;
}
