/* SPDX-License-Identifier: Apache-2.0
 *
 * smooth.c - search the column scales that make rounding of weights and inputs hurt the output least.
 *
 * W x = (W diag(s)) (diag(1/s) x): dividing a column of large inputs by s lets the other columns of a token use
 * more of its integers, and makes the weights of that column larger. s = max|x|^alpha / max|w|^(1 - alpha) shares
 * the difficulty out; alpha is searched, with the output error on a sample of the inputs as the judge.
 *
 * Source: arXiv:2211.10438; algorithms, section 7. Ours differs: alpha is chosen for each fold and no smoothing is
 * a candidate, so that the result is never worse than without. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/fp8.h"
#include "quant/problem.h"

enum {
    FIRST_ALPHA = 30, /* hundredths */
    LAST_ALPHA = 95,
    ALPHA_STEP = 5,
    SAMPLE_ROWS = 512, /* rows of a linear that candidates are judged on, evenly spread */
    PIECE_ROWS = 32
};

/* What is left of the weights' rounding error when a solver that compensates follows. */
static const float COMPENSATED = 0.6f;

struct linear {
    struct nb_fmat sample; /* rows that are looked at */
    struct nb_problem p;   /* p.own is rescaled for each candidate */
    struct nb_solution s;
    float *y; /* [m, sample.rows] float output */
};

struct search {
    const struct nb_smooth_group *g;
    struct nb_solve_opts opts;
    int64_t k;
    float *x_max, *w_max; /* [K], shared where s must be */
    struct linear *linears;
    float *x;     /* [m, K] scaled and rounded inputs */
    float *value; /* [widest, K] errors, then values of the weights */
    float *y;     /* [m, widest] */
    float *candidate;
    float static_scale;
    struct nb_err *err;
    int rc;
};

/* Largest x over the columns that must share a scale. */
static void share(const struct nb_smooth_group *g, float *x, int64_t k)
{
    if (g->repeat <= 1 || g->head_dim <= 0) return;
    const int64_t span = g->repeat * g->head_dim;
    for (int64_t j0 = 0; j0 + span <= k; j0 += span) {
        for (int64_t d = 0; d < g->head_dim; d++) {
            float most = 0.0f;
            for (int64_t j = j0 + d; j < j0 + span; j += g->head_dim)
                most = x[j] > most ? x[j] : most;
            for (int64_t j = j0 + d; j < j0 + span; j += g->head_dim) x[j] = most;
        }
    }
}

static void statistics(struct search *a)
{
    const struct nb_smooth_group *g = a->g;
    memcpy(a->x_max, g->x_max, (size_t)a->k * sizeof *a->x_max);
    for (int i = 0; i < g->n; i++) {
        for (int64_t r = 0; r < g->w[i].rows; r++) {
            const float *w = g->w[i].data + r * g->w[i].ld;
            for (int64_t j = 0; j < a->k; j++)
                a->w_max[j] = fabsf(w[j]) > a->w_max[j] ? fabsf(w[j]) : a->w_max[j];
        }
    }
    share(g, a->x_max, a->k);
    share(g, a->w_max, a->k);
}

/* s at alpha, normalized to a geometric mid-range of 1; columns that never held anything stay as they are. */
static void family(const struct search *a, float alpha, float *s)
{
    float least = INFINITY, most = 0.0f;
    for (int64_t j = 0; j < a->k; j++) {
        const float x = a->x_max[j], w = a->w_max[j];
        s[j] = x > 0.0f && w > 0.0f ? powf(x, alpha) / powf(w, 1.0f - alpha) : NAN;
        if (!isfinite(s[j]) || !(s[j] > 0.0f)) continue;
        least = s[j] < least ? s[j] : least;
        most = s[j] > most ? s[j] : most;
    }
    const float mid = sqrtf(least) * sqrtf(most);
    for (int64_t j = 0; j < a->k; j++) {
        s[j] /= mid;
        if (!isfinite(s[j]) || !(s[j] > 0.0f)) s[j] = 1.0f;
        s[j] = s[j] < 1e-5f ? 1e-5f : s[j] > 1e5f ? 1e5f : s[j];
    }
}

/* ---- inputs ---- */

static float amax_of(const float *x, int64_t n)
{
    float most = 0.0f;
    for (int64_t j = 0; j < n; j++) most = fabsf(x[j]) > most ? fabsf(x[j]) : most;
    return most;
}

static void round_int8(float *x, int64_t n, float amax)
{
    if (!(amax > 0.0f)) return;
    const float scale = amax / 127.0f;
    for (int64_t j = 0; j < n; j++) {
        float q = rintf(x[j] / scale);
        q = q > 127.0f ? 127.0f : q < -128.0f ? -128.0f : q;
        x[j] = q * scale;
    }
}

static void round_e4m3(float *x, int64_t n, float amax)
{
    if (!(amax > 0.0f)) return;
    const float scale = amax / NB_E4M3_MAX;
    for (int64_t j = 0; j < n; j++) x[j] = nb_e4m3_to_f32(nb_f32_to_e4m3(x[j] / scale)) * scale;
}

static void round_token(const struct nb_qspec *spec, float *x, int64_t k, float whole)
{
    switch (spec->act) {
    case NB_ACT_INT8_TOKEN:
    case NB_ACT_INT8_OUTLIER: round_int8(x, k, amax_of(x, k)); break;
    case NB_ACT_INT8_STATIC: round_int8(x, k, whole); break;
    case NB_ACT_FP8_TOKEN: round_e4m3(x, k, amax_of(x, k)); break;
    case NB_ACT_FP8_TENSOR:
    case NB_ACT_FP8_STATIC: round_e4m3(x, k, whole); break;
    case NB_ACT_FP8_GROUP:
        for (int64_t j = 0; j < k; j += spec->act_group) {
            const int64_t n = k - j < spec->act_group ? k - j : spec->act_group;
            round_e4m3(x + j, n, amax_of(x + j, n));
        }
        break;
    default: break;
    }
}

static void input_rows(void *ctx, size_t piece, int thread)
{
    const struct search *a = ctx;
    (void)thread;
    const int64_t first = (int64_t)piece * PIECE_ROWS;
    for (int64_t i = first; i < first + PIECE_ROWS && i < a->g->m; i++) {
        const float *from = a->g->x + i * a->k;
        float *x = a->x + i * a->k;
        for (int64_t j = 0; j < a->k; j++) x[j] = from[j] / a->candidate[j];
        round_token(&a->opts.grid.spec, x, a->k, a->static_scale);
    }
}

static void make_inputs(struct search *a)
{
    a->static_scale = 0.0f;
    for (int64_t j = 0; j < a->k; j++) {
        const float most = a->g->x_max[j] / a->candidate[j];
        a->static_scale = most > a->static_scale ? most : a->static_scale;
    }
    nb_pool_run(nb_backend_pool(a->g->be), (size_t)((a->g->m + PIECE_ROWS - 1) / PIECE_ROWS),
                input_rows, a);
}

/* ---- weights ---- */

/* a->value = the rounded weights of one linear under the candidate. */
static void make_weights(struct search *a, struct linear *l)
{
    struct nb_problem *p = &l->p;
    for (int64_t r = 0; r < p->rows; r++) {
        const float *w = l->sample.data + r * l->sample.ld;
        for (int64_t j = 0; j < a->k; j++) p->own[r * a->k + j] = w[j] * a->candidate[j];
    }
    nb_fit_groups(p, &l->s);
    a->rc = nb_round_nearest(p, &l->s, a->err);
    nb_solution_error(p, &l->s, a->value);
    const float left = a->g->compensated ? COMPENSATED : 1.0f;
    for (int64_t i = 0; i < p->rows * a->k; i++) a->value[i] = p->own[i] - left * a->value[i];
}

static void multiply(const struct search *a, const float *x, const struct nb_fmat *w, float *y)
{
    nb_gemm_run(a->g->be, &(struct nb_gemm){.tb = true,
                                            .m = a->g->m,
                                            .n = w->rows,
                                            .k = a->k,
                                            .alpha = 1.0f,
                                            .a = x,
                                            .b = w->data,
                                            .c = y,
                                            .lda = a->k,
                                            .ldb = w->ld,
                                            .ldc = w->rows});
}

/* Sum of squared differences of a->y and the float output over all tokens. */
static double difference(struct search *a, const struct linear *l)
{
    const int64_t n = l->sample.rows;
    double sum = 0;
    for (int64_t i = 0; i < a->g->m; i++) {
        double row = 0;
        for (int64_t j = 0; j < n; j++) {
            const double d = (double)a->y[i * n + j] - l->y[i * n + j];
            row += d * d;
        }
        sum += row;
    }
    return sum;
}

static double evaluate(struct search *a)
{
    double loss = 0;
    make_inputs(a);
    for (int i = 0; i < a->g->n && !a->rc; i++) {
        struct linear *l = &a->linears[i];
        make_weights(a, l);
        const struct nb_fmat w = {a->value, l->sample.rows, a->k, a->k};
        multiply(a, a->x, &w, a->y);
        loss += difference(a, l);
    }
    return loss / (double)a->g->m;
}

/* Every n-th row, without copying. */
static struct nb_fmat sample_rows(const struct nb_fmat *w)
{
    const int64_t stride = (w->rows + SAMPLE_ROWS - 1) / SAMPLE_ROWS;
    return (struct nb_fmat){.data = w->data,
                            .rows = (w->rows + stride - 1) / stride,
                            .cols = w->cols,
                            .ld = w->ld * stride};
}

static int prepare_linear(struct search *a, struct linear *l, const struct nb_fmat *w,
                          struct nb_arena *arena)
{
    l->sample = sample_rows(w);
    const struct nb_solve_job job = {.w = &l->sample, .opts = &a->opts, .be = a->g->be};
    int rc = nb_problem_init(&l->p, &job, NULL, arena, a->err);
    if (!rc) rc = nb_problem_own(&l->p, arena, a->err);
    if (!rc) rc = nb_solution_init(&l->s, &l->p, arena, a->err);
    if (rc) return rc;
    l->y = nb_arena_alloc(arena, (size_t)a->g->m * (size_t)l->sample.rows, sizeof *l->y);
    if (!l->y) return nb_fail(a->err, NB_E_NOMEM, "no memory for the search of scales");
    multiply(a, a->g->x, &l->sample, l->y);
    return 0;
}

static int prepare(struct search *a, struct nb_arena *arena)
{
    const struct nb_smooth_group *g = a->g;
    const size_t k = (size_t)a->k, m = (size_t)g->m;
    int64_t widest = 0;
    a->x_max = nb_arena_alloc(arena, k, sizeof *a->x_max);
    a->w_max = nb_arena_calloc(arena, k, sizeof *a->w_max);
    a->candidate = nb_arena_alloc(arena, k, sizeof *a->candidate);
    a->x = nb_arena_alloc(arena, m * k, sizeof *a->x);
    a->linears = nb_arena_calloc(arena, (size_t)g->n, sizeof *a->linears);
    if (arena->failed) return nb_fail(a->err, NB_E_NOMEM, "no memory for the search of scales");
    for (int i = 0; i < g->n; i++) {
        int rc = prepare_linear(a, &a->linears[i], &g->w[i], arena);
        if (rc) return rc;
        widest = a->linears[i].p.padded > widest ? a->linears[i].p.padded : widest;
    }
    a->value = nb_arena_alloc(arena, (size_t)widest * k, sizeof *a->value);
    a->y = nb_arena_alloc(arena, m * (size_t)widest, sizeof *a->y);
    if (arena->failed) return nb_fail(a->err, NB_E_NOMEM, "no memory for the search of scales");
    statistics(a);
    return 0;
}

int nb_smooth_search(float *s, const struct nb_smooth_group *g, struct nb_smooth_choice *choice,
                     struct nb_err *err)
{
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct search a = {.g = g, .opts = *g->opts, .k = g->w[0].cols, .err = err};
    a.opts.grid.clip = NB_CLIP_NONE;
    a.rc = prepare(&a, &arena);
    for (int64_t j = 0; j < a.k; j++) s[j] = 1.0f;
    if (!a.rc) {
        memcpy(a.candidate, s, (size_t)a.k * sizeof *s);
        *choice = (struct nb_smooth_choice){.identity = evaluate(&a)};
        choice->loss = choice->identity;
    }
    for (int hundredths = FIRST_ALPHA; !a.rc && hundredths <= LAST_ALPHA;
         hundredths += ALPHA_STEP) {
        family(&a, (float)hundredths * 0.01f, a.candidate);
        const double loss = evaluate(&a);
        if (a.rc || !(loss < choice->loss)) continue;
        choice->loss = loss;
        choice->alpha = hundredths * 0.01;
        memcpy(s, a.candidate, (size_t)a.k * sizeof *s);
    }
    nb_arena_release(&arena);
    return a.rc;
}
