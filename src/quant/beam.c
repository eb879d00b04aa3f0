/* SPDX-License-Identifier: Apache-2.0
 *
 * beam.c - rounding with error feedback along several paths at once.
 *
 * A pass that always takes the nearest code is greedy. Here each row keeps the `width` cheapest ways to
 * round the columns visited so far; every path offers its two nearest codes for the next column and the
 * cheapest survive (the K-best search of lattice decoding). Two uses: a whole row under given scales, and a
 * block of columns with the rest of the row fixed, which is a descent: a block changes only when that lowers
 * the loss.
 *
 * For a block with the rest fixed and H_bb = M M^T, moving q by -x changes the loss by |x M + y|^2 - |y|^2
 * with y = M^-1 G, G = e H: the same sequential form as a row, with start targets q + y_i / M_ii. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "quant/problem.h"

enum { WIDTH = NB_PASS_BLOCK, CHUNK_BYTES = 64 << 20 };

/* The state of one row in a block of at most WIDTH positions. Paths own slots; a slot is reused in place by
 * the first survivor of its path, further survivors are copied to slots that died. */
struct paths {
    int width;                        /* slots */
    float start[NB_MOST_BEAM][WIDTH]; /* targets at entry, of a root */
    float delta[NB_MOST_BEAM][WIDTH]; /* reference - value */
    uint8_t code[NB_MOST_BEAM][WIDTH];
    int root[NB_MOST_BEAM];
    double cost[NB_MOST_BEAM]; /* INFINITY: the slot is empty */
};

struct block {
    int64_t n;
    const float
        *feedback; /* [n, n]: row i, entries j > i: what position j's delta adds to i's target */
    const float *pivot; /* [n] */
};

struct grid_line { /* parameters and reference per position of one row */
    float scale[WIDTH], zero[WIDTH], reference[WIDTH];
};

struct choice {
    double cost;
    float value;
    uint8_t code;
    int path;
};

/* Code nearest to target (other 0) or the next one on the target's other side (other 1; false: none). */
static bool near_code(const struct nb_problem *p, float target,
                      const struct nb_group_params *params, int other, struct choice *c)
{
    const struct nb_numeric *num = p->numeric;
    unsigned code = num->nearest(&p->spec, target, params);
    c->value = num->value(&p->spec, code, params);
    if (other) {
        const bool up = (target > c->value) == (params->scale > 0.0f);
        const int next = up ? p->levels.above[code] : p->levels.below[code];
        if (next < 0) return false;
        code = (unsigned)next;
        c->value = num->value(&p->spec, code, params);
    }
    c->code = (uint8_t)code;
    return true;
}

/* Sorted insertion into the best `width`. */
static int offer(struct choice *best, int n, int width, struct choice c)
{
    if (n == width && !(c.cost < best[n - 1].cost)) return n;
    int i = n < width ? n++ : n - 1;
    for (; i > 0 && c.cost < best[i - 1].cost; i--) best[i] = best[i - 1];
    best[i] = c;
    return n;
}

/* Sum of x[i] * y[i] in 8 fixed lanes. */
static inline float dot(const float *x, const float *y, int64_t n)
{
    float acc[8] = {0}, tail = 0.0f;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (int l = 0; l < 8; l++) acc[l] += x[i + l] * y[i + l];
    }
    for (; i < n; i++) tail += x[i] * y[i];
    return (((acc[0] + acc[4]) + (acc[2] + acc[6])) + ((acc[1] + acc[5]) + (acc[3] + acc[7]))) +
           tail;
}

static void copy_path(struct paths *w, int to, int from, int64_t low, int64_t n)
{
    memcpy(w->delta[to] + low, w->delta[from] + low, (size_t)(n - low) * sizeof(float));
    memcpy(w->code[to] + low, w->code[from] + low, (size_t)(n - low));
    w->root[to] = w->root[from];
}

/* Gives each survivor a slot and writes its choice at position i. */
static void settle(struct paths *w, const struct choice *best, int n_best, int64_t i, int64_t n,
                   float reference)
{
    int slot[NB_MOST_BEAM], first_free = 0;
    bool taken[NB_MOST_BEAM] = {false};
    for (int c = 0; c < n_best; c++) {
        slot[c] = taken[best[c].path] ? -1 : best[c].path;
        taken[best[c].path] = true;
    }
    for (int c = 0; c < n_best; c++) {
        if (slot[c] >= 0) continue;
        while (taken[first_free]) first_free++;
        slot[c] = first_free;
        taken[first_free] = true;
        copy_path(w, slot[c], best[c].path, i + 1, n);
    }
    for (int s = 0; s < w->width; s++) w->cost[s] = INFINITY;
    for (int c = 0; c < n_best; c++) {
        w->delta[slot[c]][i] = reference - best[c].value;
        w->code[slot[c]][i] = best[c].code;
        w->cost[slot[c]] = best[c].cost;
    }
}

static void search_block(struct paths *w, const struct block *b, const struct nb_problem *p,
                         const struct grid_line *line)
{
    for (int64_t i = b->n - 1; i >= 0; i--) {
        struct choice best[NB_MOST_BEAM];
        int n_best = 0;
        const struct nb_group_params params = {.scale = line->scale[i], .zero = line->zero[i]};
        const float *row = b->feedback + i * b->n + i + 1;
        for (int s = 0; s < w->width; s++) {
            if (!(w->cost[s] < INFINITY)) continue;
            const float target =
                w->start[w->root[s]][i] + dot(row, w->delta[s] + i + 1, b->n - i - 1);
            for (int other = 0; other < 2; other++) {
                struct choice c = {.path = s};
                if (!near_code(p, target, &params, other, &c)) continue;
                c.cost = w->cost[s] +
                         b->pivot[i] * ((double)target - c.value) * ((double)target - c.value);
                n_best = offer(best, n_best, w->width, c);
            }
        }
        settle(w, best, n_best, i, b->n, line->reference[i]);
    }
}

static void load_line(struct grid_line *line, const struct nb_problem *p,
                      const struct nb_solution *s, int64_t r, int64_t i, int64_t column)
{
    const int64_t plane = column / p->group * p->padded + r;
    line->scale[i] = s->scale[plane];
    line->zero[i] = s->zero[plane];
}

static void clear_paths(struct paths *w, int width)
{
    w->width = width;
    for (int b = 0; b < width; b++) {
        w->root[b] = b;
        w->cost[b] = b ? INFINITY : 0.0;
    }
}

static int cheapest(const struct paths *w)
{
    int best = 0;
    for (int b = 1; b < w->width; b++) best = w->cost[b] < w->cost[best] ? b : best;
    return best;
}

/* ---- a whole row ---- */

struct row_search {
    const struct nb_problem *p;
    const struct nb_factor *f;
    struct nb_solution *s;
    int width;
    int64_t r0, rows;    /* the chunk */
    int64_t p0, p1;      /* positions of the block */
    float *delta;        /* [rows * width, K] by position */
    uint8_t *code;       /* the same */
    float *feed;         /* [rows * width, WIDTH] */
    double *cost;        /* [rows * width] */
    float *feedback;     /* [WIDTH, WIDTH] of the block, transposed */
    struct paths *paths; /* per thread */
    char *scratch;       /* per thread */
    size_t scratch_bytes;
};

/* Reorders the histories of a row by root and puts the block in front of them. */
static void extend(const struct row_search *a, const struct paths *w, int64_t row, char *scratch)
{
    const size_t k = (size_t)a->p->cols, done = k - (size_t)a->p1, n = (size_t)(a->p1 - a->p0);
    float *delta = a->delta + (size_t)row * (size_t)a->width * k;
    uint8_t *code = a->code + (size_t)row * (size_t)a->width * k;
    float *old_delta = (float *)scratch;
    uint8_t *old_code = (uint8_t *)(old_delta + (size_t)a->width * k);
    for (size_t b = 0; b < (size_t)a->width; b++) {
        memcpy(old_delta + b * k, delta + b * k + a->p1, done * sizeof *delta);
        memcpy(old_code + b * k, code + b * k + a->p1, done);
    }
    for (size_t b = 0; b < (size_t)a->width; b++) {
        const size_t root = (size_t)w->root[b];
        memcpy(delta + b * k + a->p1, old_delta + root * k, done * sizeof *delta);
        memcpy(code + b * k + a->p1, old_code + root * k, done);
        memcpy(delta + b * k + a->p0, w->delta[b], n * sizeof *delta);
        memcpy(code + b * k + a->p0, w->code[b], n);
    }
}

static void search_rows(void *ctx, size_t piece, int thread)
{
    const struct row_search *a = ctx;
    const struct nb_problem *p = a->p;
    struct paths *w = &a->paths[thread];
    struct grid_line line;
    const struct block b = {
        .n = a->p1 - a->p0, .feedback = a->feedback, .pivot = a->f->pivot + a->p0};
    for (int64_t row = (int64_t)piece * NB_TILE; row < ((int64_t)piece + 1) * NB_TILE; row++) {
        clear_paths(w, a->width);
        for (int64_t i = 0; i < b.n; i++) {
            const int64_t column = a->f->at[a->p0 + i];
            load_line(&line, p, a->s, a->r0 + row, i, column);
            line.reference[i] = p->w[(a->r0 + row) * p->cols + column];
            for (int s = 0; s < a->width; s++) {
                const float feed =
                    a->p1 < p->cols ? a->feed[(row * a->width + s) * WIDTH + i] : 0.0f;
                w->start[s][i] = line.reference[i] + feed;
            }
        }
        double *cost = a->cost + row * a->width;
        for (int s = 0; s < a->width && a->p1 < p->cols; s++) w->cost[s] = cost[s];
        search_block(w, &b, p, &line);
        for (int s = 0; s < a->width; s++) cost[s] = w->cost[s];
        extend(a, w, row, a->scratch + a->scratch_bytes * (size_t)thread);
    }
}

static void finish_rows(const struct row_search *a)
{
    const int64_t k = a->p->cols;
    for (int64_t row = 0; row < a->rows; row++) {
        const double *cost = a->cost + row * a->width;
        int best = 0;
        for (int s = 1; s < a->width; s++) best = cost[s] < cost[best] ? s : best;
        const uint8_t *code = a->code + (row * a->width + best) * k;
        for (int64_t i = 0; i < k; i++) a->s->code[(a->r0 + row) * k + a->f->at[i]] = code[i];
        a->s->loss[a->r0 + row] = cost[best];
    }
}

static void search_chunk(struct row_search *a)
{
    const struct nb_problem *p = a->p;
    const int64_t k = p->cols;
    for (a->p1 = k; a->p1 > 0; a->p1 = a->p0) {
        a->p0 = a->p1 > WIDTH ? a->p1 - WIDTH : 0;
        const int64_t n = a->p1 - a->p0;
        for (int64_t i = 0; i < n; i++) {
            for (int64_t j = i + 1; j < n; j++)
                a->feedback[i * n + j] = a->f->feedback[(a->p0 + j) * k + a->p0 + i];
        }
        if (a->p1 < k) {
            nb_gemm_run(p->be, &(struct nb_gemm){.m = a->rows * a->width,
                                                 .n = n,
                                                 .k = k - a->p1,
                                                 .alpha = 1.0f,
                                                 .a = a->delta + a->p1,
                                                 .b = a->f->feedback + a->p1 * k + a->p0,
                                                 .c = a->feed,
                                                 .lda = k,
                                                 .ldb = k,
                                                 .ldc = WIDTH});
        }
        nb_pool_run(nb_backend_pool(p->be), (size_t)(a->rows / NB_TILE), search_rows, a);
    }
    finish_rows(a);
}

int nb_beam_pass(const struct nb_problem *p, const struct nb_factor *f, int width,
                 struct nb_solution *s, struct nb_err *err)
{
    const size_t k = (size_t)p->cols, threads = (size_t)nb_pool_threads(nb_backend_pool(p->be));
    if (width > NB_MOST_BEAM) width = NB_MOST_BEAM;
    int64_t chunk =
        (int64_t)(CHUNK_BYTES / ((size_t)width * k * sizeof(float))) / NB_TILE * NB_TILE;
    if (chunk < NB_TILE) chunk = NB_TILE;
    if (chunk > p->padded) chunk = p->padded;
    const size_t lines = (size_t)chunk * (size_t)width;
    struct row_search a = {.p = p, .f = f, .s = s, .width = width};
    a.scratch_bytes = (size_t)width * k * (sizeof(float) + 1);
    struct nb_arena arena;
    nb_arena_init(&arena);
    a.delta = nb_arena_calloc(&arena, lines * k, sizeof *a.delta);
    a.code = nb_arena_calloc(&arena, lines, k);
    a.feed = nb_arena_alloc(&arena, lines * WIDTH, sizeof *a.feed);
    a.cost = nb_arena_alloc(&arena, lines, sizeof *a.cost);
    a.feedback = nb_arena_calloc(&arena, (size_t)WIDTH * WIDTH, sizeof *a.feedback);
    a.paths = nb_arena_calloc(&arena, threads, sizeof *a.paths);
    a.scratch = nb_arena_alloc(&arena, threads, a.scratch_bytes);
    const bool ready = !arena.failed;
    for (a.r0 = 0; ready && a.r0 < p->padded; a.r0 += chunk) {
        a.rows = p->padded - a.r0 < chunk ? p->padded - a.r0 : chunk;
        search_chunk(&a);
    }
    nb_arena_release(&arena);
    return ready ? 0
                 : nb_fail(err, NB_E_NOMEM,
                           "no memory for a beam of %d over a matrix of %" PRId64 " x %" PRId64,
                           width, p->rows, p->cols);
}

/* ---- a block of columns, the rest of the row fixed ---- */

struct block_search {
    const struct nb_problem *p;
    struct nb_solution *s;
    int width;
    int64_t j0, n; /* the block's columns */
    int32_t *at;   /* [WIDTH] column (from j0) at a position */
    double *m;     /* [n, n] lower factor of H_bb in position order */
    float *feedback, *pivot;
    float *gradient;     /* [padded, K] */
    float *step;         /* [padded, WIDTH] change of the error */
    struct paths *paths; /* per thread */
};

/* y = M^-1 G into start targets q + y_i / M_ii; what the block could still win at most. */
static double block_targets(const struct block_search *a, struct paths *w, struct grid_line *line,
                            int64_t r)
{
    double y[WIDTH], gain = 0;
    const struct nb_problem *p = a->p;
    for (int64_t i = 0; i < a->n; i++) {
        const int64_t column = a->j0 + a->at[i];
        load_line(line, p, a->s, r, i, column);
        const struct nb_group_params params = {.scale = line->scale[i], .zero = line->zero[i]};
        line->reference[i] = p->numeric->value(&p->spec, a->s->code[r * p->cols + column], &params);
        const double *row = a->m + i * a->n;
        double sum = a->gradient[r * p->cols + column];
        for (int64_t j = 0; j < i; j++) sum -= row[j] * y[j];
        y[i] = sum / row[i];
        gain += y[i] * y[i];
        w->start[0][i] = line->reference[i] + (float)(y[i] / row[i]);
    }
    return gain;
}

static void search_tile(void *ctx, size_t piece, int thread)
{
    const struct block_search *a = ctx;
    struct paths *w = &a->paths[thread];
    struct grid_line line;
    const struct block b = {.n = a->n, .feedback = a->feedback, .pivot = a->pivot};
    for (int64_t r = (int64_t)piece * NB_TILE; r < ((int64_t)piece + 1) * NB_TILE; r++) {
        float *step = a->step + r * WIDTH;
        memset(step, 0, WIDTH * sizeof *step);
        clear_paths(w, a->width);
        const double standing = block_targets(a, w, &line, r);
        search_block(w, &b, a->p, &line);
        const int best = cheapest(w);
        if (!(w->cost[best] < standing * (1.0 - 1e-6))) continue;
        for (int64_t i = 0; i < a->n; i++) {
            step[a->at[i]] = w->delta[best][i];
            a->s->code[r * a->p->cols + a->j0 + a->at[i]] = w->code[best][i];
        }
    }
}

static int factor_block(struct block_search *a, struct nb_err *err)
{
    const struct nb_problem *p = a->p;
    const int64_t n = a->n;
    int rc = nb_order_pivoted(a->at, p->h + a->j0 * p->cols + a->j0, p->cols, n, p->be, err);
    if (rc) return rc;
    for (int64_t i = 0; i < n; i++) {
        const float *h = p->h + (a->j0 + a->at[i]) * p->cols + a->j0;
        for (int64_t j = 0; j < n; j++) a->m[i * n + j] = h[a->at[j]];
    }
    if (nb_cholesky_f64(a->m, n, n))
        return nb_fail(err, NB_E_NUMERIC, "a block of the Hessian is not positive");
    for (int64_t i = 0; i < n; i++) {
        a->pivot[i] = (float)(a->m[i * n + i] * a->m[i * n + i]);
        for (int64_t j = i + 1; j < n; j++)
            a->feedback[i * n + j] = (float)(a->m[j * n + i] / a->m[i * n + i]);
    }
    return 0;
}

static int sweep_blocks(struct block_search *a, int64_t first, struct nb_err *err)
{
    const struct nb_problem *p = a->p;
    for (int64_t j = first; j < p->cols; j += WIDTH) {
        const int64_t j1 = j + WIDTH < p->cols ? j + WIDTH : p->cols;
        a->j0 = j > 0 ? j : 0;
        a->n = j1 - a->j0;
        int rc = factor_block(a, err);
        if (rc) return rc;
        nb_pool_run(nb_backend_pool(p->be), (size_t)nb_problem_tiles(p), search_tile, a);
        nb_gemm_run(p->be, &(struct nb_gemm){.accumulate = true,
                                             .m = p->padded,
                                             .n = p->cols,
                                             .k = a->n,
                                             .alpha = 1.0f,
                                             .a = a->step,
                                             .b = p->h + a->j0 * p->cols,
                                             .c = a->gradient,
                                             .lda = WIDTH,
                                             .ldb = p->cols,
                                             .ldc = p->cols});
    }
    return 0;
}

int nb_beam_descend(const struct nb_problem *p, struct nb_solution *s, int width, int sweeps,
                    struct nb_err *err)
{
    const size_t n = (size_t)p->padded * (size_t)p->cols, square = (size_t)WIDTH * WIDTH;
    const size_t threads = (size_t)nb_pool_threads(nb_backend_pool(p->be));
    struct block_search a = {.p = p, .s = s, .width = width < NB_MOST_BEAM ? width : NB_MOST_BEAM};
    struct nb_arena arena;
    nb_arena_init(&arena);
    a.gradient = nb_arena_alloc(&arena, n, sizeof *a.gradient);
    a.step = nb_arena_alloc(&arena, (size_t)p->padded * WIDTH, sizeof *a.step);
    a.at = nb_arena_alloc(&arena, WIDTH, sizeof *a.at);
    a.m = nb_arena_alloc(&arena, square, sizeof *a.m);
    a.feedback = nb_arena_calloc(&arena, square, sizeof *a.feedback);
    a.pivot = nb_arena_alloc(&arena, WIDTH, sizeof *a.pivot);
    a.paths = nb_arena_calloc(&arena, threads, sizeof *a.paths);
    int rc = arena.failed ? nb_fail(err, NB_E_NOMEM,
                                    "no memory to refine a matrix of %" PRId64 " x %" PRId64,
                                    p->rows, p->cols)
                          : 0;
    if (!rc) rc = nb_solution_image(p, s, a.gradient, err);
    /* Every second sweep cuts elsewhere, so that no pair of neighbours is always apart. */
    for (int i = 0; !rc && i < sweeps; i++) rc = sweep_blocks(&a, i & 1 ? -(WIDTH / 2) : 0, err);
    nb_arena_release(&arena);
    return rc ? rc : nb_solution_measure(p, s, err);
}
