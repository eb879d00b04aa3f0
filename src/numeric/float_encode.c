/* SPDX-License-Identifier: Apache-2.0
 *
 * float_encode.c - whole matrices on small float grids by the rule of the formats' own tools: the scale from the
 * largest magnitude of each group, then every weight divided by it and rounded.
 *
 * Work is cut in bands of whole group rows; a scale of the whole matrix takes a pass of its own before. Equal to
 * fit without clipping and round_group, group by group, to the bit. */
#include <inttypes.h>
#include <string.h>

#include "numeric/elems.h"
#include "numeric/float.h"

enum { BAND = 64 }; /* rows of a piece, unless groups are taller */

struct band {
    struct nb_qmat *q;
    const struct nb_qspec *spec; /* as asked for */
    const float *w;
    float tensor_amax; /* > 0: of the only group, or for the global scale */
    float global;      /* of NVFP4; else 0 */
    int64_t group_rows_at_once;
    float *part; /* maxima of BAND rows each */
};

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void amax_piece(void *ctx, size_t piece, int thread)
{
    (void)thread;
    const struct band *b = ctx;
    const int64_t first = (int64_t)piece * BAND, rows = smaller(b->q->rows - first, BAND);
    b->part[piece] = nb_float_amax(b->w + first * b->q->cols, rows * b->q->cols, 0.0f);
}

static int matrix_amax(struct band *b, struct nb_pool *pool, struct nb_err *err)
{
    const size_t pieces = (size_t)((b->q->rows + BAND - 1) / BAND);
    b->part = nb_alloc(pieces, sizeof *b->part);
    if (!b->part) return nb_fail(err, NB_E_NOMEM, "no memory for the maxima of %zu bands", pieces);
    nb_pool_run(pool, pieces, amax_piece, b);
    b->tensor_amax = nb_float_amax(b->part, (int64_t)pieces, 0.0f);
    nb_free(b->part);
    return 0;
}

/* Scale of plane `at` from the magnitude of its group. */
static void set_scale(const struct band *b, int64_t at, float amax)
{
    struct nb_plane *p = &b->q->scale;
    p->value[at] = nb_float_scale(b->spec, amax);
    if (!p->codes) return;
    p->codes[at] = nb_nvfp4_scale_code(b->global, amax / nb_grid_e2m1.top);
    p->value[at] = nb_e4m3_values[p->codes[at]] / b->global;
}

/* Weights [k, k + n) of a row and their codes. */
struct run {
    const float *w;
    uint8_t *code;
    int64_t n;
};

/* A run under the scale at `at`, which is known or set here. */
static inline void encode_run(const struct band *b, const struct nb_float_grid *g, struct run r,
                              int64_t at, bool known)
{
    if (!known) set_scale(b, at, nb_float_amax(r.w, r.n, 0.0f));
    const float scale = b->q->scale.value[at];
    for (int64_t i = 0; i < r.n; i++) r.code[i] = (uint8_t)nb_float_code(r.w[i] / scale, g);
}

/* One row whose groups' scales start at `at`; known: they are there, else the row is a group row by itself. Short
 * groups have loops of known length: that is what makes them fast. */
static inline void encode_row(const struct band *b, const struct nb_float_grid *g, int64_t row,
                              int64_t at, bool known)
{
    const int64_t cols = b->q->cols, group = b->q->spec.group_cols;
    const float *w = b->w + row * cols;
    uint8_t *code = b->q->codes + row * cols;
    int64_t k = 0;
    for (; group == 16 && k + 16 <= cols; k += 16)
        encode_run(b, g, (struct run){w + k, code + k, 16}, at++, known);
    for (; group == 32 && k + 32 <= cols; k += 32)
        encode_run(b, g, (struct run){w + k, code + k, 32}, at++, known);
    for (; k < cols; k += group)
        encode_run(b, g, (struct run){w + k, code + k, smaller(cols - k, group)}, at++, known);
}

/* Scales of a group row of several rows. */
static void tall_scales(const struct band *b, int64_t first, int64_t rows, int64_t at)
{
    const int64_t cols = b->q->cols, group = b->q->spec.group_cols;
    float *value = b->q->scale.value + at;
    memset(value, 0, (size_t)b->q->n_groups * sizeof *value);
    for (int64_t r = first; r < first + rows; r++) {
        for (int64_t g = 0; g < b->q->n_groups; g++) {
            const int64_t n = smaller(cols - g * group, group);
            value[g] = nb_float_amax(b->w + r * cols + g * group, n, value[g]);
        }
    }
    for (int64_t g = 0; g < b->q->n_groups; g++) set_scale(b, at + g, value[g]);
}

static inline void encode_group_row(const struct band *b, const struct nb_float_grid *g,
                                    int64_t group_row)
{
    const int64_t height = b->q->spec.group_rows, first = group_row * height;
    const int64_t rows = smaller(b->q->rows - first, height), at = group_row * b->q->n_groups;
    if (height > 1) tall_scales(b, first, rows, at);
    for (int64_t r = first; r < first + rows; r++) encode_row(b, g, r, at, height > 1);
}

static void encode_band(void *ctx, size_t piece, int thread)
{
    (void)thread;
    const struct band *b = ctx;
    const int64_t first = (int64_t)piece * b->group_rows_at_once;
    const int64_t end = smaller(nb_qmat_group_rows(b->q), first + b->group_rows_at_once);
    for (int64_t r = first; r < end; r++) {
        if (nb_float_is_e4m3(b->spec)) encode_group_row(b, &nb_grid_e4m3, r);
        else encode_group_row(b, &nb_grid_e2m1, r);
    }
}

/* The only scale is known: rows on their own. */
static void encode_rows(void *ctx, size_t piece, int thread)
{
    (void)thread;
    const struct band *b = ctx;
    const int64_t first = (int64_t)piece * BAND, end = smaller(b->q->rows, first + BAND);
    for (int64_t r = first; r < end; r++) {
        if (nb_float_is_e4m3(b->spec)) encode_row(b, &nb_grid_e4m3, r, 0, true);
        else encode_row(b, &nb_grid_e2m1, r, 0, true);
    }
}

static int check_supers(const struct nb_qmat *q, struct nb_err *err)
{
    if (nb_qmat_supers(q) == 1) return 0;
    return nb_fail(err, NB_E_SPEC,
                   "a matrix in nvfp4 has one global scale, %" PRId64 " were asked for",
                   nb_qmat_supers(q));
}

int nb_float_encode(struct nb_qmat *q, const struct nb_grid_opts *opts, const float *w,
                    struct nb_pool *pool, struct nb_err *err)
{
    const bool two_levels = q->scale.codes != NULL, single = !two_levels && nb_qmat_planes(q) == 1;
    struct band b = {.q = q, .spec = &opts->spec, .w = w, .tensor_amax = opts->tensor_amax};
    int rc = two_levels ? check_supers(q, err) : 0;
    if (!rc && (two_levels || single) && !(b.tensor_amax > 0)) rc = matrix_amax(&b, pool, err);
    if (rc) return rc;
    if (single) {
        q->scale.value[0] = nb_float_scale(&opts->spec, b.tensor_amax);
        nb_pool_run(pool, (size_t)((q->rows + BAND - 1) / BAND), encode_rows, &b);
        return 0;
    }
    if (two_levels) q->scale.super[0] = b.global = nb_nvfp4_global(b.tensor_amax);
    b.group_rows_at_once = q->spec.group_rows < BAND ? BAND / q->spec.group_rows : 1;
    const int64_t group_rows = nb_qmat_group_rows(q);
    const int64_t pieces = (group_rows + b.group_rows_at_once - 1) / b.group_rows_at_once;
    nb_pool_run(pool, (size_t)pieces, encode_band, &b);
    return 0;
}

int nb_nvfp4_settle(struct nb_qmat *q, const struct nb_grid_opts *opts, struct nb_err *err)
{
    const int64_t n = nb_qmat_planes(q);
    int rc = check_supers(q, err);
    if (rc) return rc;
    const float amax = opts->tensor_amax > 0
                           ? opts->tensor_amax
                           : nb_grid_e2m1.top * nb_float_amax(q->scale.value, n, 0.0f);
    const float global = q->scale.super[0] = nb_nvfp4_global(amax);
    for (int64_t i = 0; i < n; i++) {
        q->scale.codes[i] = nb_nvfp4_scale_code(global, q->scale.value[i]);
        q->scale.value[i] = nb_e4m3_values[q->scale.codes[i]] / global;
    }
    return 0;
}
