/* SPDX-License-Identifier: Apache-2.0
 *
 * order.c - in which order columns are rounded: as they stand, by falling diag(H), or groups whole.
 *
 * Early columns hand their error to many later ones; so the columns with strong inputs go first. Source:
 * the act-order option of GPTQ and "group-aware reordering", arXiv:2505.14638; algorithms, section 3.4.
 *
 * What an order changes is the sum of the factor's pivots, whose product is the determinant of H whatever
 * the order: it is least when the pivots are alike. "Pivoted" goes for that directly: Cholesky with the
 * least remaining diagonal taken next (ours; the sorted decomposition of lattice decoding).
 * Positions count from the last visited column to the first (problem.h), so everything here ascends. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/problem.h"

enum {
    PIVOT_BLOCK = 64,
    UPDATE_COLS = 512,
    WASTE = 8, /* closed up when an eighth has been taken */
};

struct key {
    double group_value,
        value; /* of the group (the same for all when groups do not matter), of the column */
    int32_t group, column;
};

const char *nb_order_name(enum nb_act_order o)
{
    switch (o) {
    case NB_ORDER_AUTO: return "auto";
    case NB_ORDER_NONE: return "none";
    case NB_ORDER_STATIC: return "static";
    case NB_ORDER_GROUP: return "group";
    case NB_ORDER_PIVOTED: return "pivoted";
    default: return "dynamic";
    }
}

static int rising(double a, double b)
{
    return a < b ? -1 : a > b;
}

/* Among equals the higher index comes first: it is visited later. */
static int compare(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    int c = rising(x->group_value, y->group_value);
    if (!c) c = rising(y->group, x->group);
    if (!c) c = rising(x->value, y->value);
    return c ? c : rising(y->column, x->column);
}

static void group_keys(struct key *keys, int64_t n, int64_t group)
{
    for (int64_t j0 = 0; j0 < n; j0 += group) {
        const int64_t j1 = j0 + group < n ? j0 + group : n;
        double most = keys[j0].value;
        for (int64_t j = j0; j < j1; j++) most = keys[j].value > most ? keys[j].value : most;
        if (j1 - j0 < group) most = -1.0; /* a short last group is visited last */
        for (int64_t j = j0; j < j1; j++) {
            keys[j].group_value = most;
            keys[j].group = (int32_t)(j0 / group);
        }
    }
}

int nb_order_make(int32_t *at, enum nb_act_order order, const double *diag, int64_t n,
                  int64_t group, struct nb_err *err)
{
    if (order == NB_ORDER_NONE) {
        for (int64_t i = 0; i < n; i++) at[i] = (int32_t)(n - 1 - i);
        return 0;
    }
    struct key *keys = nb_alloc((size_t)n, sizeof *keys);
    if (!keys) return nb_fail(err, NB_E_NOMEM, "no memory to order %" PRId64 " columns", n);
    for (int64_t j = 0; j < n; j++) keys[j] = (struct key){.value = diag[j], .column = (int32_t)j};
    if (order == NB_ORDER_GROUP) group_keys(keys, n, group);
    qsort(keys, (size_t)n, sizeof *keys, compare);
    for (int64_t i = 0; i < n; i++) at[i] = keys[i].column;
    nb_free(keys);
    return 0;
}

/* Cholesky with pivoting that keeps no factor: only which column comes when. Columns are taken in blocks;
 * the matrix is updated by GEMMs once per block, and closed up when a good part of it has been taken. */
struct pivoting {
    int64_t m;       /* columns in a */
    float *a;        /* [m, m] upper triangle: Schur complement at the start of the block */
    float *lines;    /* [PIVOT_BLOCK, m] factor rows of the block */
    float *diag;     /* [m] up to date */
    int32_t *column; /* [m] */
    int32_t *kept;   /* [m] scratch */
    bool *gone;      /* [m] taken */
};

static int64_t least_column(const struct pivoting *v)
{
    int64_t best = -1;
    for (int64_t i = 0; i < v->m; i++) {
        if (!v->gone[i] && (best < 0 || v->diag[i] < v->diag[best])) best = i;
    }
    return best;
}

/* Takes column c as the t-th of the block: its factor row and what it leaves of the diagonal. */
static void eliminate(struct pivoting *v, int64_t c, int64_t t)
{
    const int64_t m = v->m;
    float *line = v->lines + t * m;
    for (int64_t i = 0; i < c; i++) line[i] = v->a[i * m + c];
    memcpy(line + c, v->a + c * m + c, (size_t)(m - c) * sizeof *line);
    for (int64_t l = 0; l < t; l++) {
        const float *other = v->lines + l * m, share = other[c];
        for (int64_t i = 0; i < m; i++) line[i] -= share * other[i];
    }
    const float inverse = 1.0f / sqrtf(v->diag[c] > 0.0f ? v->diag[c] : 1e-30f);
    v->gone[c] = true;
    for (int64_t i = 0; i < m; i++) {
        line[i] *= inverse;
        v->diag[i] -= line[i] * line[i];
    }
}

/* a -= lines^T lines, on and above the diagonal. */
static void update(struct pivoting *v, int64_t taken, struct nb_backend *be)
{
    const int64_t m = v->m;
    for (int64_t j0 = 0; j0 < m; j0 += UPDATE_COLS) {
        const int64_t j1 = j0 + UPDATE_COLS < m ? j0 + UPDATE_COLS : m;
        nb_gemm_run(be, &(struct nb_gemm){.ta = true,
                                          .accumulate = true,
                                          .m = j1,
                                          .n = j1 - j0,
                                          .k = taken,
                                          .alpha = -1.0f,
                                          .a = v->lines,
                                          .b = v->lines + j0,
                                          .c = v->a + j0,
                                          .lda = m,
                                          .ldb = m,
                                          .ldc = m});
    }
}

/* The matrix without the columns that were taken. */
static void close_up(struct pivoting *v)
{
    int64_t left = 0;
    for (int64_t i = 0; i < v->m; i++) {
        if (v->gone[i]) continue;
        v->diag[left] = v->diag[i];
        v->column[left] = v->column[i];
        v->kept[left++] = (int32_t)i;
    }
    for (int64_t i = 0; i < left; i++) { /* rows only move towards the front */
        const float *row = v->a + v->kept[i] * v->m;
        for (int64_t j = i; j < left; j++) v->a[i * left + j] = row[v->kept[j]];
    }
    memset(v->gone, 0, (size_t)left * sizeof *v->gone);
    v->m = left;
}

int nb_order_pivoted_in_place(int32_t *at, float *a, int64_t n, struct nb_backend *be,
                              struct nb_err *err)
{
    struct nb_arena arena;
    nb_arena_init(&arena);
    struct pivoting v = {.m = n, .a = a};
    v.lines = nb_arena_alloc(&arena, (size_t)n * PIVOT_BLOCK, sizeof *v.lines);
    v.diag = nb_arena_alloc(&arena, (size_t)n, sizeof *v.diag);
    v.column = nb_arena_alloc(&arena, (size_t)n, sizeof *v.column);
    v.kept = nb_arena_alloc(&arena, (size_t)n, sizeof *v.kept);
    v.gone = nb_arena_calloc(&arena, (size_t)n, sizeof *v.gone);
    const bool ready = !arena.failed;
    for (int64_t i = 0; ready && i < n; i++) {
        v.diag[i] = a[i * n + i];
        v.column[i] = (int32_t)i;
    }
    for (int64_t done = 0, closed = 0; ready && done < n;) {
        int64_t t = 0;
        for (; t < PIVOT_BLOCK && done < n; t++, done++) {
            const int64_t c = least_column(&v);
            at[done] = v.column[c];
            eliminate(&v, c, t);
        }
        if (done == n) break;
        update(&v, t, be);
        if ((done - closed) * WASTE < v.m) continue;
        close_up(&v);
        closed = done;
    }
    nb_arena_release(&arena);
    return ready ? 0 : nb_fail(err, NB_E_NOMEM, "no memory to order %" PRId64 " columns", n);
}

int nb_order_pivoted(int32_t *at, const float *h, int64_t ld, int64_t n, struct nb_backend *be,
                     struct nb_err *err)
{
    float *a = nb_alloc((size_t)n * (size_t)n, sizeof *a);
    if (!a) return nb_fail(err, NB_E_NOMEM, "no memory to order %" PRId64 " columns", n);
    for (int64_t i = 0; i < n; i++) memcpy(a + i * n, h + i * ld, (size_t)n * sizeof *a);
    int rc = nb_order_pivoted_in_place(at, a, n, be, err);
    nb_free(a);
    return rc;
}
