/* SPDX-License-Identifier: Apache-2.0
 *
 * problem.c - set up a matrix for the solvers, measure solutions, hand them out. See problem.h. */
#include "quant/hessian.h"

#include <inttypes.h>
#include <string.h>

enum { MEASURE_COLS = 512, MEASURE_ROWS = 512 }; /* whole tiles */

int nb_problem_init(struct nb_problem *p, const struct nb_solve_job *job, const int32_t *column,
                    struct nb_arena *arena, struct nb_err *err)
{
    const struct nb_fmat *w = job->w;
    const int64_t k = w->cols;
    *p = (struct nb_problem){.opts = job->opts,
                             .grid = job->opts->grid,
                             .spec = job->opts->grid.spec,
                             .be = job->be,
                             .rows = w->rows,
                             .cols = k,
                             .column = column};
    if (p->spec.group_cols <= 0 || p->spec.group_cols > k) p->spec.group_cols = k;
    if (p->spec.group_rows <= 0) p->spec.group_rows = 1;
    if (p->spec.group_rows > w->rows) p->spec.group_rows = w->rows;
    /* Kernels for integer activations take scales for positive. */
    if (p->spec.act != NB_ACT_NONE) p->grid.sym_range = NB_SYM_REFERENCE;
    p->numeric = nb_numeric_for(&p->spec);
    if (!p->numeric || w->rows <= 0 || k <= 0) {
        char text[64];
        nb_qspec_describe(&p->spec, text, sizeof text);
        return nb_fail(err, NB_E_SPEC,
                       "no number encoding for %s and a matrix of %" PRId64 " x %" PRId64, text,
                       w->rows, k);
    }
    if (p->spec.flat && (job->opts->grid.spec.group_cols > k || k % p->spec.group_cols)) {
        char usable[64];
        nb_usable_groups(k, usable, sizeof usable);
        return nb_fail(err, NB_E_SPEC,
                       "groups of %" PRId64 " weights run across the ends of rows of %" PRId64
                       ", which only plain rounding can do; possible: method rtn, or groups of %s",
                       job->opts->grid.spec.group_cols, k, usable);
    }
    p->spec.flat = false;
    nb_levels_init(&p->levels, &p->spec.elem);
    p->group = p->spec.group_cols;
    p->n_groups = (k + p->group - 1) / p->group;
    p->padded = (w->rows + NB_TILE - 1) / NB_TILE * NB_TILE;
    size_t n;
    if (!nb_mul((size_t)p->padded, (size_t)k, &n)) {
        return nb_fail(err, NB_E_NOMEM, "matrix of %" PRId64 " x %" PRId64 " is too large", w->rows,
                       k);
    }
    const bool as_it_is = !column && w->rows == p->padded && w->ld == k;
    if (!as_it_is) p->own = nb_arena_calloc(arena, n, sizeof *p->own);
    p->w = as_it_is ? w->data : p->own;
    if (job->stats) p->u = nb_arena_alloc(arena, (size_t)k, sizeof *p->u);
    if (arena->failed) {
        return nb_fail(err, NB_E_NOMEM, "no memory to quantize a matrix of %" PRId64 " x %" PRId64,
                       w->rows, k);
    }
    for (int64_t r = 0; p->own && r < w->rows; r++) {
        const float *src = w->data + r * w->ld;
        float *dst = p->own + r * k;
        for (int64_t j = 0; j < k; j++) dst[j] = src[column ? column[j] : j];
    }
    return 0;
}

int nb_problem_own(struct nb_problem *p, struct nb_arena *arena, struct nb_err *err)
{
    if (p->own) return 0;
    const size_t n = (size_t)p->padded * (size_t)p->cols;
    p->own = nb_arena_alloc(arena, n, sizeof *p->own);
    if (!p->own) {
        return nb_fail(err, NB_E_NOMEM, "no memory to quantize a matrix of %" PRId64 " x %" PRId64,
                       p->rows, p->cols);
    }
    memcpy(p->own, p->w, n * sizeof *p->own);
    p->w = p->own;
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

int nb_problem_mask(struct nb_problem *p, int64_t block, struct nb_arena *arena, struct nb_err *err)
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

struct rows { /* a run of whole tiles */
    int64_t r0, n;
};

struct error_job {
    const struct nb_problem *p;
    const struct nb_solution *s;
    struct rows rows;
    float *error; /* [rows.n, K] */
};

/* error = w - scale * (level - zero) of n columns */
static void error_run(const struct nb_levels *levels, const float *w, const uint8_t *code,
                      struct nb_group_params params, int64_t n, float *error)
{
    const float scale = params.scale, zero = params.zero, *value = levels->value;
    if (levels->plain) {
        for (int64_t j = 0; j < n; j++) error[j] = w[j] - scale * ((float)code[j] - zero);
    } else {
        for (int64_t j = 0; j < n; j++) error[j] = w[j] - scale * (value[code[j]] - zero);
    }
}

static void error_tile(void *ctx, size_t piece, int thread)
{
    const struct error_job *job = ctx;
    const struct nb_problem *p = job->p;
    (void)thread;
    for (int64_t i = (int64_t)piece * NB_TILE; i < ((int64_t)piece + 1) * NB_TILE; i++) {
        const int64_t r = job->rows.r0 + i;
        const uint8_t *code = job->s->code + r * p->cols;
        const float *w = p->w + r * p->cols;
        float *error = job->error + i * p->cols;
        for (int64_t g = 0; g < p->n_groups; g++) {
            const struct nb_group_params params = {.scale = job->s->scale[g * p->padded + r],
                                                   .zero = job->s->zero[g * p->padded + r]};
            const int64_t j = g * p->group;
            error_run(&p->levels, w + j, code + j, params, nb_problem_group_cols(p, g), error + j);
        }
    }
}

static void error_rows(const struct nb_problem *p, const struct nb_solution *s, struct rows rows,
                       float *error)
{
    struct error_job job = {.p = p, .s = s, .rows = rows, .error = error};
    nb_pool_run(nb_backend_pool(p->be), (size_t)(rows.n / NB_TILE), error_tile, &job);
}

void nb_solution_error(const struct nb_problem *p, const struct nb_solution *s, float *error)
{
    error_rows(p, s, (struct rows){0, p->padded}, error);
}

static void image_rows(const struct nb_problem *p, int64_t n, const float *error, float *gradient)
{
    const int64_t k = p->cols;
    nb_gemm_run(p->be, &(struct nb_gemm){.m = n,
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

void nb_solution_gradient(const struct nb_problem *p, const float *error, float *gradient)
{
    image_rows(p, p->padded, error, gradient);
}

struct quadratic {
    const struct nb_problem *p;
    struct nb_solution *s;
    struct rows rows;
    const float *error, *image; /* [rows.n, K]; [rows.n, width] */
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
        a->s->loss[a->rows.r0 + r] += a->weight * sum;
    }
}

/* loss += weight * error[:, i0..i1) H[i0..i1, j0..j0+n) error[:, j0..j0+n)^T */
static void add_block(struct quadratic *a, float *image, int64_t i0, int64_t i1, double weight)
{
    const struct nb_problem *p = a->p;
    if (i0 >= i1) return;
    nb_gemm_run(p->be, &(struct nb_gemm){.m = a->rows.n,
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
    nb_pool_run(nb_backend_pool(p->be), (size_t)(a->rows.n / NB_TILE), add_products, a);
}

static void subtract_damping(void *ctx, size_t piece, int thread)
{
    const struct quadratic *a = ctx;
    (void)thread;
    for (int64_t r = (int64_t)piece * NB_TILE; r < ((int64_t)piece + 1) * NB_TILE; r++) {
        const float *e = a->error + r * a->p->cols;
        const int64_t row = a->rows.r0 + r;
        double square = 0;
        for (int64_t j = 0; j < a->p->cols; j++) square += (double)e[j] * e[j];
        a->s->plain[row] = a->s->loss[row] - a->p->damp * square;
    }
}

static void losses_of_rows(struct quadratic *a, float *scratch)
{
    const struct nb_problem *p = a->p;
    a->image = scratch;
    a->width = p->cols < MEASURE_COLS ? p->cols : MEASURE_COLS;
    memset(a->s->loss + a->rows.r0, 0, (size_t)a->rows.n * sizeof *a->s->loss);
    for (a->j0 = 0; a->j0 < p->cols; a->j0 += a->width) {
        a->n = p->cols - a->j0 < a->width ? p->cols - a->j0 : a->width;
        add_block(a, scratch, 0, a->j0,
                  2.0); /* H is symmetric: the blocks below stand for those above */
        add_block(a, scratch, a->j0, a->j0 + a->n, 1.0);
    }
    nb_pool_run(nb_backend_pool(p->be), (size_t)(a->rows.n / NB_TILE), subtract_damping, a);
}

void nb_solution_losses(const struct nb_problem *p, struct nb_solution *s, const float *error,
                        float *scratch)
{
    struct quadratic a = {.p = p, .s = s, .rows = {0, p->padded}, .error = error};
    losses_of_rows(&a, scratch);
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

static struct rows rows_from(const struct nb_problem *p, int64_t r0)
{
    return (struct rows){r0, p->padded - r0 < MEASURE_ROWS ? p->padded - r0 : MEASURE_ROWS};
}

int nb_solution_measure(const struct nb_problem *p, struct nb_solution *s, struct nb_err *err)
{
    const size_t rows = (size_t)rows_from(p, 0).n;
    float *error = nb_alloc(rows * (size_t)p->cols, sizeof *error);
    float *scratch = nb_alloc(rows * MEASURE_COLS, sizeof *scratch);
    const bool done = error && scratch;
    for (int64_t r0 = 0; done && r0 < p->padded; r0 += MEASURE_ROWS) {
        struct quadratic a = {.p = p, .s = s, .rows = rows_from(p, r0), .error = error};
        error_rows(p, s, a.rows, error);
        losses_of_rows(&a, scratch);
    }
    nb_free(error);
    nb_free(scratch);
    return done ? 0 : no_memory_to_measure(p, err);
}

int nb_solution_image(const struct nb_problem *p, const struct nb_solution *s, float *gradient,
                      struct nb_err *err)
{
    float *error = nb_alloc((size_t)rows_from(p, 0).n * (size_t)p->cols, sizeof *error);
    for (int64_t r0 = 0; error && r0 < p->padded; r0 += MEASURE_ROWS) {
        const struct rows rows = rows_from(p, r0);
        error_rows(p, s, rows, error);
        image_rows(p, rows.n, error, gradient + r0 * p->cols);
    }
    nb_free(error);
    return error ? 0 : no_memory_to_measure(p, err);
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
    }
    return 0;
}
