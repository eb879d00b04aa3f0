/* SPDX-License-Identifier: Apache-2.0
 *
 * blocks.c - the whole contents of GGUF blocks for one matrix, so that the output of the layer moves least.
 *
 * Steps: scales of both levels by a search weighted with what later columns cannot repair (blocks_fit.c);
 * levels column by column with error feedback under these fixed grids (pass.c); the same for scales a few
 * percent apart, the best kept row by row; then descent on levels, scales, mins, d and dmin
 * (blocks_descent.c). A row that the reference's own encoder serves better keeps the reference's bytes.
 *
 * Source: algorithms, section 9 ("what to improve without touching the format"); arXiv:2210.17323. */
#include "quant/blocks.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "numeric/block.h"

enum {
    RESTARTS = 3,          /* for one restart of the other solvers, whose sweeps cost more */
    SLICE_FLOATS = 1 << 24 /* weights solved at once, when the target is not shifted */
};

struct run {
    const struct nb_block_type *type;
    const struct nb_solve_job *job;
    struct nb_solve_opts opts; /* with a spec that problem.c takes */
    struct nb_hessian own, *hessian;
    float *u, *importance; /* [K] what later columns cannot repair; diagonal of H */
    const float *h;        /* [K, K] damped */
    struct nb_factor f;
    /* of a slice of rows */
    struct nb_fmat w;
    struct nb_block_problem b;
    struct nb_block_solution best, trial;
};

/* ---- what all rows share ---- */

static void describe(struct run *r)
{
    const struct nb_block_grid *g = r->b.grid;
    r->opts = *r->job->opts;
    r->opts.grid.spec = (struct nb_qspec){.elem = {.kind = NB_ELEM_INT, .bits = 4, .vec = 1},
                                          .group_rows = 1,
                                          .group_cols = g->sub,
                                          .scale_dtype = NB_F16,
                                          .zero = NB_ZERO_CODE};
    r->b.p = (struct nb_problem){.cols = r->job->w->cols, .be = r->job->be};
    r->b.n_supers = r->job->w->cols / nb_block_grid_super(g);
}

static int prepare(struct run *r, struct nb_arena *keep, struct nb_err *err)
{
    const int64_t k = r->job->w->cols;
    r->u = nb_arena_alloc(keep, (size_t)k, sizeof *r->u);
    if (!r->u) return nb_fail(err, NB_E_NOMEM, "no memory for %" PRId64 " columns", k);
    const double damp = r->opts.damp;
    describe(r);
    const struct nb_factor_wish wish = {
        .order = NB_ORDER_PIVOTED,
        .damp = damp > 0.0 ? damp : nb_damp_for_tokens(r->job->stats->n_tokens, k),
        .group = r->b.grid->sub};
    int rc = nb_hessian_factor(r->hessian, &wish, r->job->be, err);
    if (rc) return rc;
    r->f = r->hessian->f;
    struct nb_problem *p = &r->b.p;
    p->h = nb_hessian_damp(r->hessian, r->f.damp * r->hessian->mean);
    if (r->f.block < k) rc = nb_problem_mask(p, r->f.block, keep, err);
    r->h = p->h;
    for (int64_t i = 0; i < k; i++) r->u[r->f.at[i]] = r->f.pivot[i];
    return rc;
}

/* ---- one slice ---- */

static int load_slice(struct run *r, struct nb_arena *arena, struct nb_err *err)
{
    const struct nb_block_grid *g = r->b.grid;
    const struct nb_solve_job weights = {&r->w, NULL, &r->opts, r->job->be};
    struct nb_problem *p = &r->b.p;
    int rc = nb_problem_init(p, &weights, NULL, arena, err);
    if (rc) return rc;
    p->h = r->h;
    p->u = r->u;
    p->damp = (float)(r->f.damp * r->hessian->mean);
    p->numeric = &g->numeric;
    p->spec.symmetric = g->lo < 0.0f;
    p->spec.elem.bits = g->bits;
    if (g->table) p->spec.elem.kind = NB_ELEM_TABLE;
    nb_levels_init(&p->levels, &(struct nb_elem){.kind = NB_ELEM_INT, .bits = g->bits});
    const bool shift = r->job->stats->d && r->opts.gptaq_alpha != 0.0;
    if (shift) rc = nb_problem_own(p, arena, err);
    if (shift && !rc) rc = nb_gptaq_shift(p, r->job->stats, r->opts.gptaq_alpha, err);
    if (!rc) rc = nb_block_solution_init(&r->best, &r->b, arena, err);
    if (!rc) rc = nb_block_solution_init(&r->trial, &r->b, arena, err);
    return rc;
}

static int try_scales(struct run *r, int steps, struct nb_err *err)
{
    int rc = 0;
    for (int m = 1; !rc && m <= steps; m++) {
        for (int side = -1; !rc && side <= 1; side += 2) {
            nb_block_solution_scaled(&r->b, &r->trial, &r->best, 1.0f + 0.02f * (float)(side * m));
            rc = nb_pass_run(&r->b.p, &r->f, false, &r->trial.s, err);
            if (!rc) nb_block_solution_keep_best(&r->b, &r->best, &r->trial);
        }
    }
    return rc;
}

/* Levels from scratch under the parameters that descent has found: another valley, sometimes deeper. */
static int restart(struct run *r, const struct nb_block_descent_opts *d, struct nb_err *err)
{
    const int beam = r->opts.beam;
    nb_block_solution_scaled(&r->b, &r->trial, &r->best, 1.0f);
    int rc = beam > 1 ? nb_beam_pass(&r->b.p, &r->f, beam, &r->trial.s, err)
                      : nb_pass_run(&r->b.p, &r->f, false, &r->trial.s, err);
    if (!rc) rc = nb_block_descend(&r->b, &r->trial, d, err);
    if (!rc) nb_block_solution_keep_best(&r->b, &r->best, &r->trial);
    return rc;
}

static int improve(struct run *r, struct nb_err *err)
{
    const struct nb_solve_opts *o = &r->opts;
    int rc = try_scales(r, o->scale_trials, err);
    if (rc || o->cd_sweeps <= 0) return rc;
    struct nb_block_descent_opts d = {.sweeps = 1, .refit = o->refit, .search = o->refit};
    rc = nb_block_descend(&r->b, &r->best, &d, err);
    for (int i = 0; !rc && i <= RESTARTS * o->restarts; i++) rc = restart(r, &d, err);
    d.sweeps = o->cd_sweeps - 1;
    return rc || !d.sweeps ? rc : nb_block_descend(&r->b, &r->best, &d, err);
}

/* ---- results as bytes ---- */

static int to_qmat(const struct run *r, struct nb_qmat *q, struct nb_arena *arena,
                   struct nb_err *err)
{
    struct nb_qspec spec;
    const struct nb_problem *p = &r->b.p;
    const struct nb_block_grid *g = r->b.grid;
    if (!nb_block_qspec(r->type, &spec))
        return nb_fail(err, NB_E_SPEC, "type %s has no grid of numbers", r->type->name);
    int rc = nb_qmat_init(q, &spec, p->rows, p->cols, arena, err);
    if (rc) return rc;
    const float zero = (float)nb_block_grid_zero(g);
    for (int64_t row = 0; row < p->rows; row++) {
        memcpy(q->codes + row * p->cols, r->best.s.code + row * p->cols, (size_t)p->cols);
        for (int64_t j = 0; j < p->n_groups; j++) {
            const int64_t at = row * p->n_groups + j, from = j * p->padded + row;
            q->scale.value[at] = r->best.s.scale[from];
            if (q->zero.value) q->zero.value[at] = g->min_hi ? r->best.s.zero[from] : zero;
            if (q->scale.codes) q->scale.codes[at] = (uint8_t)(r->best.scale[from] - g->scale_lo);
            if (q->zero.codes) q->zero.codes[at] = (uint8_t)r->best.min[from];
        }
        for (int64_t j = 0; j < r->b.n_supers; j++) {
            const int64_t at = row * r->b.n_supers + j, from = j * p->padded + row;
            if (q->scale.super) q->scale.super[at] = r->best.d[from];
            if (q->zero.super) q->zero.super[at] = r->best.dmin[from];
        }
    }
    return 0;
}

/* Losses of rows of bytes, damped and not. */
static int measure_bytes(const struct run *r, const unsigned char *bytes, struct nb_solution *s,
                         struct nb_err *err)
{
    const struct nb_problem *p = &r->b.p;
    const size_t n = (size_t)p->padded * (size_t)p->cols;
    float *error = nb_calloc(n, sizeof *error), *scratch = nb_alloc(n, sizeof *scratch);
    const bool ready = error && scratch;
    for (int64_t row = 0; ready && row < p->rows; row++) {
        float *e = error + row * p->cols;
        r->type->decode(bytes + (size_t)row * nb_block_row_bytes(r->type, p->cols), e, p->cols);
        for (int64_t j = 0; j < p->cols; j++) e[j] = p->w[row * p->cols + j] - e[j];
    }
    if (ready) nb_solution_losses(p, s, error, scratch);
    nb_free(error);
    nb_free(scratch);
    return ready
               ? 0
               : nb_fail(err, NB_E_NOMEM, "no memory to measure a matrix of %" PRId64 " x %" PRId64,
                         p->rows, p->cols);
}

/* out holds what the reference writes; rows of ours that are better replace it. */
static int finish(struct run *r, unsigned char *out, struct nb_solve_report *report,
                  struct nb_err *err)
{
    const int64_t rows = r->b.p.rows;
    const size_t row_bytes = nb_block_row_bytes(r->type, r->b.p.cols);
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct nb_qmat q;
    unsigned char *ours = nb_arena_alloc(&arena, (size_t)rows, row_bytes);
    int rc = ours ? to_qmat(r, &q, &arena, err) : nb_fail(err, NB_E_NOMEM, "no memory for blocks");
    if (!rc) rc = nb_block_from_qmat(r->type, &q, 0, rows, ours, err);
    if (!rc) rc = measure_bytes(r, ours, &r->best.s, err);
    if (!rc) rc = measure_bytes(r, out, &r->trial.s, err);
    for (int64_t row = 0; !rc && row < rows; row++) {
        const double mine = r->best.s.plain[row], reference = r->trial.s.plain[row];
        report->loss_rtn += reference;
        report->loss += mine < reference ? mine : reference;
        if (mine < reference)
            memcpy(out + (size_t)row * row_bytes, ours + (size_t)row * row_bytes, row_bytes);
    }
    nb_arena_release(&arena);
    return rc;
}

static int solve_slice(struct run *r, unsigned char *out, struct nb_solve_report *report,
                       struct nb_err *err)
{
    struct nb_arena arena;
    nb_arena_init(&arena);
    double zero = 0;
    int rc = load_slice(r, &arena, err);
    if (!rc) {
        nb_block_fit(&r->b, &r->best);
        rc = nb_pass_run(&r->b.p, &r->f, false, &r->best.s, err);
    }
    if (!rc && r->job->stats->n_tokens >= 3 * r->w.cols) rc = improve(r, err);
    if (!rc) rc = nb_problem_scale(&r->b.p, &zero, err);
    if (!rc) rc = finish(r, out, report, err);
    report->loss_zero += zero;
    nb_arena_release(&arena);
    return rc;
}

/* ---- the matrix ---- */

static int check(const struct nb_block_type *type, const struct nb_fmat *w, struct nb_err *err)
{
    if (w->rows > 0 && w->cols > 0 && w->cols % type->elems == 0) return 0;
    return nb_fail(err, NB_E_SPEC,
                   "a matrix of %" PRId64 " x %" PRId64
                   " does not fit type %s: its rows are not whole blocks of %d",
                   w->rows, w->cols, type->name, type->elems);
}

static int encode_row(const struct run *r, int64_t row, unsigned char *out, struct nb_err *err)
{
    const struct nb_fmat *w = r->job->w;
    int rc = nb_block_encode(r->type, w->data + row * w->ld, r->importance, w->cols,
                             out + (size_t)row * nb_block_row_bytes(r->type, w->cols), err);
    return rc ? nb_err_prefix(err, "row %" PRId64, row) : 0;
}

struct encode_job {
    const struct run *r;
    unsigned char *out;
    unsigned char *failed; /* [pieces] */
};

static void encode_piece(void *ctx, size_t piece, int thread)
{
    (void)thread;
    const struct encode_job *job = ctx;
    const int64_t row0 = (int64_t)piece * NB_TILE, rows = job->r->job->w->rows;
    for (int64_t row = row0; row < rows && row < row0 + NB_TILE; row++) {
        struct nb_err unused = {0};
        if (encode_row(job->r, row, job->out, &unused)) job->failed[piece] = 1;
    }
}

/* The reference's bytes of all rows. The error is that of the first bad row, whatever thread met it. */
static int encode_rows(const struct run *r, unsigned char *out, struct nb_err *err)
{
    const int64_t rows = r->job->w->rows;
    const size_t pieces = (size_t)((rows + NB_TILE - 1) / NB_TILE);
    struct encode_job job = {.r = r, .out = out, .failed = nb_calloc(pieces, 1)};
    if (!job.failed) return nb_fail(err, NB_E_NOMEM, "no memory for %" PRId64 " rows", rows);
    nb_pool_run(nb_backend_pool(r->job->be), pieces, encode_piece, &job);
    int rc = 0;
    for (int64_t row = 0; !rc && row < rows; row++) {
        if (job.failed[row / NB_TILE]) rc = encode_row(r, row, out, err);
    }
    nb_free(job.failed);
    return rc;
}

static int solve_rows(struct run *r, unsigned char *out, struct nb_solve_report *report,
                      struct nb_err *err)
{
    const struct nb_fmat *w = r->job->w;
    const bool shifted = r->job->stats->d && r->opts.gptaq_alpha != 0.0;
    int64_t slice = shifted ? w->rows : SLICE_FLOATS / w->cols / NB_TILE * NB_TILE;
    if (slice < NB_TILE) slice = NB_TILE;
    int rc = 0;
    for (int64_t row = 0; !rc && row < w->rows; row += slice) {
        r->w = (struct nb_fmat){.data = w->data + row * w->ld,
                                .rows = w->rows - row < slice ? w->rows - row : slice,
                                .cols = w->cols,
                                .ld = w->ld};
        rc = solve_slice(r, out + (size_t)row * nb_block_row_bytes(r->type, w->cols), report, err);
    }
    return rc;
}

int nb_block_solve(const struct nb_block_type *type, const struct nb_solve_job *job,
                   unsigned char *out, struct nb_solve_report *report, struct nb_err *err)
{
    const struct nb_stats *stats = job->stats;
    const int64_t k = job->w->cols;
    struct nb_solve_report unused;
    if (!report) report = &unused;
    *report = (struct nb_solve_report){.order = NB_ORDER_NONE, .ladder = "reference"};
    struct run r = {.type = type, .job = job, .opts = *job->opts};
    r.b.grid = nb_block_grid_find(type->name);
    int rc = check(type, job->w, err);
    if (rc) return rc;
    struct nb_arena keep;
    nb_arena_init(&keep);
    if (stats && stats->n_tokens > 0 && nb_stats_are_finite(stats)) {
        rc = nb_hessian_of(&r.hessian, &r.own, stats, err);
        r.importance = nb_arena_alloc(&keep, (size_t)k, sizeof *r.importance);
        if (!rc && !r.importance)
            rc = nb_fail(err, NB_E_NOMEM, "no memory for %" PRId64 " columns", k);
        for (int64_t j = 0; !rc && j < k; j++) r.importance[j] = (float)r.hessian->diag[j];
    }
    if (!rc) rc = encode_rows(&r, out, err);
    const bool usable = r.importance && r.b.grid && stats->n_tokens * 8 >= k;
    if (!rc && usable) {
        rc = prepare(&r, &keep, err);
        if (!rc) rc = solve_rows(&r, out, report, err);
        if (!rc) {
            report->damp = r.f.damp;
            report->order = NB_ORDER_PIVOTED;
            snprintf(report->ladder, sizeof report->ladder, "%s", r.f.rung);
        }
        if (rc == NB_E_NUMERIC) rc = 0; /* no usable H: the reference's bytes stand */
    }
    nb_hessian_release(&r.own);
    nb_arena_release(&keep);
    return rc;
}

bool nb_block_solvable(const struct nb_block_type *type)
{
    return nb_block_grid_find(type->name) != NULL;
}
