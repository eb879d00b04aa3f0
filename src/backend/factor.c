/* SPDX-License-Identifier: Apache-2.0
 *
 * factor.c - Cholesky in f64 arithmetic, by columns of blocks; the matrix is stored in f64 or f32.
 *
 * Left-looking: a column of blocks first takes all that the columns before it owe (one product, cut
 * by rows over the pool), then its diagonal block is factored, inverted, and applied to the blocks
 * below. The result is the same for any number of threads; rows of blocks are the pieces. */
#include <math.h>
#include <string.h>

#include "backend/internal.h"

enum {
    NB = NB_FACTOR_BLOCK,
    ROWS = 224,  /* rows per piece */
    DEPTH = 192, /* k per packed panel */
    WIDE = 32,   /* most rows of a tile, either side */
};

/* Scratch of a piece, in doubles: packed rows, packed columns, result. */
_Static_assert(2 * ((ROWS + NB_TILE_MAX_MR) * DEPTH + (NB + WIDE) * DEPTH + ROWS * NB + 64) <=
                   NB_SCRATCH_MIN_FLOATS,
               "a piece of the factorization must fit the scratch");

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

struct store { /* entries of a matrix, f64 or f32 */
    void *data;
    bool single;
    int64_t ld;
};

static inline double get(const struct store *s, int64_t i, int64_t j)
{
    const int64_t at = i * s->ld + j;
    return s->single ? (double)((const float *)s->data)[at] : ((const double *)s->data)[at];
}

static inline void put(const struct store *s, int64_t i, int64_t j, double x)
{
    const int64_t at = i * s->ld + j;
    if (s->single) {
        ((float *)s->data)[at] = (float)x;
    } else {
        ((double *)s->data)[at] = x;
    }
}

struct part { /* rows [i, i + rows), columns [j, j + k) */
    const struct store *of;
    int64_t i, j, rows, k;
};

/* The part packed w rows side by side. */
static void pack(const struct nb_cpu_ops *ops, const struct part *p, int w, double *dst)
{
    double wide[WIDE * DEPTH];
    struct nb_pack_f64 job = {.dst = dst, .w = w, .rows = (int)p->rows, .k = p->k};
    if (p->of->single) {
        for (int64_t r = 0; r < p->rows; r++) {
            const float *row = (const float *)p->of->data + (p->i + r) * p->of->ld + p->j;
            for (int64_t k = 0; k < p->k; k++) wide[r * p->k + k] = row[k];
        }
        job.src = wide;
        job.ld = p->k;
    } else {
        job.src = (const double *)p->of->data + p->i * p->of->ld + p->j;
        job.ld = p->of->ld;
    }
    ops->pack_rows_f64(&job);
}

struct product { /* c[m, NB] = a[m,k] b[n,k]^T; a from row a0, b from row b0, both from column j0 */
    const struct store *a, *b;
    int64_t a0, b0, ja, jb, m, n, k;
    double *c;
};

static void run_product(const struct nb_cpu_ops *ops, const struct nb_scratch *s,
                        const struct product *p)
{
    double *pa = (double *)s->all, *pb = pa + (ROWS + NB_TILE_MAX_MR) * DEPTH;
    const int mr = ops->mr64, nr = ops->nr64;
    if (p->k == 0) memset(p->c, 0, (size_t)(p->m * NB) * sizeof *p->c);
    for (int64_t k0 = 0; k0 < p->k; k0 += DEPTH) {
        int64_t k = least(DEPTH, p->k - k0);
        for (int64_t i = 0; i < p->m; i += mr) {
            pack(ops, &(struct part){p->a, p->a0 + i, p->ja + k0, least(mr, p->m - i), k}, mr,
                 pa + i * k);
        }
        for (int64_t j = 0; j < p->n; j += nr) {
            pack(ops, &(struct part){p->b, p->b0 + j, p->jb + k0, least(nr, p->n - j), k}, nr,
                 pb + j * k);
        }
        struct nb_tile_f64 t = {.k = k, .lda = mr, .ldb = nr, .ldc = NB, .add = k0 > 0};
        for (int64_t i = 0; i < p->m; i += mr) {
            t.a = pa + i * k;
            t.rows = (int)least(mr, p->m - i);
            for (int64_t j = 0; j < p->n; j += nr) {
                t.b = pb + j * k;
                t.c = p->c + i * NB + j;
                ops->tile_f64(&t);
            }
        }
    }
}

/* Where a piece's result stands in its scratch. */
static double *result_of(const struct nb_scratch *s)
{
    return (double *)s->all + (ROWS + NB_TILE_MAX_MR) * DEPTH + (NB + WIDE) * DEPTH;
}

struct column { /* one column of blocks: columns [j0, j0 + width), rows [j0, n) */
    const struct nb_cpu_ops *ops;
    const struct nb_scratch *scratch;
    struct store a;
    int64_t n, j0, width;
    double *inverse; /* of the diagonal block, [NB, NB] */
};

/* Rows [r0, r1) of the column -= what the columns before it owe. Above the diagonal nothing is
 * written. */
static void update_piece(void *ctx, size_t piece, int thread)
{
    const struct column *c = ctx;
    const struct nb_scratch *s = &c->scratch[thread];
    int64_t r0 = c->j0 + (int64_t)piece * ROWS, rows = least(ROWS, c->n - r0);
    double *part = result_of(s);
    run_product(c->ops, s,
                &(struct product){.a = &c->a,
                                  .b = &c->a,
                                  .a0 = r0,
                                  .b0 = c->j0,
                                  .m = rows,
                                  .n = c->width,
                                  .k = c->j0,
                                  .c = part});
    for (int64_t i = 0; i < rows; i++) {
        int64_t end = least(c->width, r0 + i - c->j0 + 1);
        for (int64_t j = 0; j < end; j++) {
            put(&c->a, r0 + i, c->j0 + j, get(&c->a, r0 + i, c->j0 + j) - part[i * NB + j]);
        }
    }
}

/* Rows below the diagonal block: row = row inverse^T. */
static void solve_piece(void *ctx, size_t piece, int thread)
{
    const struct column *c = ctx;
    const struct nb_scratch *s = &c->scratch[thread];
    int64_t r0 = c->j0 + c->width + (int64_t)piece * ROWS, rows = least(ROWS, c->n - r0);
    double *part = result_of(s);
    const struct store inverse = {c->inverse, false, NB};
    run_product(c->ops, s,
                &(struct product){.a = &c->a,
                                  .b = &inverse,
                                  .a0 = r0,
                                  .ja = c->j0,
                                  .m = rows,
                                  .n = c->width,
                                  .k = c->width,
                                  .c = part});
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < c->width; j++) put(&c->a, r0 + i, c->j0 + j, part[i * NB + j]);
    }
}

/* Unblocked, lower, in place. */
static int64_t factor_small(double *a, int64_t n, int64_t lda)
{
    for (int64_t j = 0; j < n; j++) {
        double *row = a + j * lda;
        for (int64_t i = 0; i < j; i++) {
            double sum = row[i];
            for (int64_t k = 0; k < i; k++) sum -= row[k] * a[i * lda + k];
            row[i] = sum / a[i * lda + i];
        }
        double d = row[j];
        for (int64_t k = 0; k < j; k++) d -= row[k] * row[k];
        if (!(d > 0) || !(d < INFINITY)) return j + 1;
        row[j] = sqrt(d);
    }
    return 0;
}

void nb_tri_inverse_f64(double *a, int64_t n, int64_t lda)
{
    /* Row i of the inverse from the rows above it: in place, since row i of L is read only here. */
    for (int64_t i = 0; i < n; i++) {
        double *row = a + i * lda, d = 1.0 / row[i];
        for (int64_t j = 0; j < i; j++) {
            double sum = 0;
            for (int64_t k = j; k < i; k++) sum += row[k] * a[k * lda + j];
            row[j] = -sum * d;
        }
        row[i] = d;
    }
}

/* Factors the diagonal block where it stands; its inverse is left beside. 0, or the minor that fails. */
static int64_t factor_diagonal(const struct column *c)
{
    memset(c->inverse, 0, (size_t)(NB * NB) * sizeof *c->inverse);
    for (int64_t i = 0; i < c->width; i++) {
        for (int64_t j = 0; j <= i; j++) c->inverse[i * NB + j] = get(&c->a, c->j0 + i, c->j0 + j);
    }
    int64_t bad = factor_small(c->inverse, c->width, NB);
    if (bad) return bad;
    for (int64_t i = 0; i < c->width; i++) {
        for (int64_t j = 0; j <= i; j++) put(&c->a, c->j0 + i, c->j0 + j, c->inverse[i * NB + j]);
    }
    nb_tri_inverse_f64(c->inverse, c->width, NB);
    return 0;
}

static int64_t cholesky(struct nb_backend *be, const struct store *a, int64_t n)
{
    struct column c = {
        .ops = &be->ops, .scratch = be->scratch, .a = *a, .n = n, .inverse = be->factor};
    for (c.j0 = 0; c.j0 < n; c.j0 += NB) {
        c.width = least(NB, n - c.j0);
        int64_t rows = n - c.j0;
        struct nb_pool *pool = nb_backend_pool_for(be, rows * NB * (c.j0 + NB));
        if (c.j0) nb_pool_run(pool, (size_t)((rows + ROWS - 1) / ROWS), update_piece, &c);
        int64_t bad = factor_diagonal(&c);
        if (bad) return c.j0 + bad;
        rows -= c.width;
        if (rows) nb_pool_run(pool, (size_t)((rows + ROWS - 1) / ROWS), solve_piece, &c);
    }
    return 0;
}

int64_t nb_cholesky_run(struct nb_backend *be, double *a, int64_t n, int64_t lda)
{
    return cholesky(be, &(struct store){a, false, lda}, n);
}

int64_t nb_cholesky_f32_run(struct nb_backend *be, float *a, int64_t n, int64_t lda)
{
    return cholesky(be, &(struct store){a, true, lda}, n);
}

int64_t nb_cholesky_f64(double *a, int64_t n, int64_t lda)
{
    return factor_small(a, n, lda);
}
