/* SPDX-License-Identifier: Apache-2.0
 *
 * act.c - rows of x rounded to the numbers that a linear asks for (enum nb_act_kind).
 *
 * Two forms: int8 codes and a scale per row, for the kernel that multiplies integers; and floats, each the value
 * of its code times its scale, for every other one: their product in f32 is what hardware of those numbers
 * computes, up to the rounding of the scaled values and of sums.
 *
 * INT8: q = x * (127 / amax) to the nearest integer, ties to even; static: x * (1 / scale), saturated. As vLLM and
 * bitsandbytes do; a division gives another code only at a tie.
 * LLM.int8 follows bitsandbytes 0.50: x goes through F16 for its codes, its row maxima and the test against the
 * threshold (values beyond F16 stay as they are there); row maxima leave out the values at or above the threshold,
 * not the columns that hold them; outlier columns are multiplied with x as it came.
 * FP8: s = amax / 448, x / s to the nearest E4M3, saturated. NVFP4, MXFP4, MXFP8: checkpoint formats, section 5.9.
 *
 * The memory: | flag of each column u8 | outlier columns i32 | rows: f32, or codes, scales, outlier values | */
#include "backend/act.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/fp8.h"
#include "base/half.h"
#include "base/mem.h"

enum {
    MEMORY = 32 << 20,
    MIN_ROWS = 64,
    MAX_ROWS = 1024,  /* more would only leave the caches */
    AT_ONCE = 1024,   /* values that pass through scratch together */
    STRIPE = 512,     /* columns that a thread searches for outliers */
    PIECE = 16384,    /* values that a thread rounds at a time */
    COST_IN_MACS = 32 /* of rounding a value */
};

static const struct nb_float_grid e4m3 = {.man = 3, .emin = -6, .max = NB_E4M3_MAX};
static const struct nb_float_grid e2m1 = {.man = 1, .emin = 0, .max = 6.0f};

int nb_act_check(const struct nb_act_rule *rule, const char *name, struct nb_err *err)
{
    const bool is_static = rule->kind == NB_ACT_INT8_STATIC || rule->kind == NB_ACT_FP8_STATIC ||
                           rule->kind == NB_ACT_NVFP4;
    if (is_static && !(rule->input_scale > 0 && rule->input_scale < INFINITY)) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: the scale of its input is %g, expected a positive number", name,
                       (double)rule->input_scale);
    }
    if (rule->kind == NB_ACT_FP8_GROUP && rule->group <= 0) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: its input is rounded in groups of %" PRId64
                       " columns, expected 1 or more",
                       name, rule->group);
    }
    if (rule->kind == NB_ACT_INT8_OUTLIER &&
        !(rule->threshold >= 0 && rule->threshold < INFINITY)) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: the outlier threshold is %g, expected a number from 0 on", name,
                       (double)rule->threshold);
    }
    return 0;
}

/* ---- memory ---- */

static size_t whole(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static size_t columns_bytes(int64_t k) /* the part that rows do not repeat */
{
    return whole((size_t)k) + whole((size_t)k * sizeof(int32_t));
}

static int64_t code_ld(int64_t k)
{
    return (k + 63) / 64 * 64;
}

static size_t row_bytes(const struct nb_act_input *in)
{
    if (!in->codes) return (size_t)in->k * sizeof(float);
    return (size_t)code_ld(in->k) + sizeof(float) * (size_t)(1 + in->n_outliers);
}

int nb_act_reserve(struct nb_backend *be, int64_t cols, const char *name, struct nb_err *err)
{
    size_t least;
    /* A row takes at most a code, a float and 64 bytes more; columns another 5 bytes each. */
    bool fits = nb_mul((size_t)cols, 5, &least) && nb_add(least, 128, &least) &&
                nb_mul(least, MIN_ROWS + 2, &least);
    if (fits && least < MEMORY) least = MEMORY;
    if (fits && be->act.bytes >= least) return 0;
    nb_free(be->act.data);
    be->act = (struct nb_act_memory){.data = fits ? nb_alloc(least, 1) : NULL};
    if (!be->act.data) {
        return nb_fail(err, NB_E_NOMEM, "%s: no memory for rounded rows of %" PRId64 " columns",
                       name, cols);
    }
    be->act.bytes = least;
    return 0;
}

struct parts { /* of the memory, for `rows` rows */
    uint8_t *flag;
    int32_t *outlier;
    float *x, *scale, *value;
    int8_t *code;
};

static struct parts parts_of(const struct nb_act_input *in, int64_t rows)
{
    unsigned char *at = in->be->act.data;
    struct parts p = {.flag = at};
    at += whole((size_t)in->k);
    p.outlier = (int32_t *)(void *)at;
    at += whole((size_t)in->k * sizeof(int32_t));
    p.x = (float *)(void *)at;
    p.code = (int8_t *)at;
    at += rows * code_ld(in->k);
    p.scale = (float *)(void *)at;
    p.value = p.scale + rows;
    return p;
}

/* ---- the whole input ---- */

static bool is_outlier(float x, float threshold)
{
    return (nb_f32_bits(x) & 0x7fffffffu) >= nb_f32_bits(threshold); /* a NaN is one too */
}

static void flag_stripe(void *ctx, size_t piece, int thread)
{
    const struct nb_act_input *in = ctx;
    const int64_t k0 = (int64_t)piece * STRIPE, n = in->k - k0 < STRIPE ? in->k - k0 : STRIPE;
    uint8_t *flag = parts_of(in, 0).flag + k0;
    float *x = in->be->scratch[thread].all;
    memset(flag, 0, (size_t)n);
    for (int64_t i = 0; i < in->m; i++) {
        in->be->ops.round_f16(x, in->x + i * in->ldx + k0, n);
        for (int64_t k = 0; k < n; k++) flag[k] |= is_outlier(x[k], in->rule.threshold);
    }
}

static void find_outliers(struct nb_act_input *in)
{
    struct parts p = parts_of(in, 0);
    nb_pool_run(nb_backend_pool_for(in->be, in->m * in->k * COST_IN_MACS),
                (size_t)((in->k + STRIPE - 1) / STRIPE), flag_stripe, in);
    for (int64_t k = 0; k < in->k; k++) {
        if (p.flag[k]) p.outlier[in->n_outliers++] = (int32_t)k;
    }
}

static int64_t rows_per_piece(const struct nb_act_input *in)
{
    return in->k < PIECE ? PIECE / in->k : 1;
}

static float larger(float a, float b) /* NaN and infinity above all */
{
    return nb_f32_bits(a) > nb_f32_bits(b) ? a : b;
}

/* Each thread keeps its largest in its scratch: a maximum does not depend on the order. */
static void amax_piece(void *ctx, size_t piece, int thread)
{
    const struct nb_act_input *in = ctx;
    const int64_t rows = rows_per_piece(in), first = (int64_t)piece * rows;
    float *top = in->be->scratch[thread].all;
    for (int64_t i = first; i < in->m && i < first + rows; i++)
        *top = larger(*top, in->be->ops.amax(in->x + i * in->ldx, in->k, 0));
}

static void find_amax(struct nb_act_input *in)
{
    const int threads = nb_pool_threads(in->be->pool);
    const int64_t rows = rows_per_piece(in);
    for (int t = 0; t < threads; t++) *in->be->scratch[t].all = 0;
    nb_pool_run(nb_backend_pool_for(in->be, in->m * in->k * COST_IN_MACS),
                (size_t)((in->m + rows - 1) / rows), amax_piece, in);
    for (int t = 0; t < threads; t++) in->amax = larger(in->amax, *in->be->scratch[t].all);
}

void nb_act_begin(struct nb_act_input *in)
{
    in->amax = 0;
    in->n_outliers = 0;
    if (in->rule.kind == NB_ACT_INT8_OUTLIER && in->rule.threshold > 0) find_outliers(in);
    if (in->rule.kind == NB_ACT_FP8_TENSOR) find_amax(in);
    in->at_once = (int64_t)((in->be->act.bytes - columns_bytes(in->k)) / row_bytes(in));
    if (in->at_once > MAX_ROWS) in->at_once = MAX_ROWS;
    assert(in->at_once >= MIN_ROWS);
}

/* ---- rows to int8 ---- */

struct int8_row { /* code = x * factor, x = code * scale; factor 0: all codes are 0 */
    float factor, scale;
};

static struct int8_row int8_of_amax(float amax)
{
    if (!(amax < INFINITY)) return (struct int8_row){0, NAN};
    const float factor = 127.0f / amax;
    if (!(factor < INFINITY)) return (struct int8_row){0, 0}; /* zeros, or next to */
    return (struct int8_row){factor, amax / 127.0f};
}

static float amax_of_f16(const struct nb_act_input *in, const float *x, float *t)
{
    float top = 0;
    for (int64_t k = 0; k < in->k; k += AT_ONCE) {
        const int64_t n = in->k - k < AT_ONCE ? in->k - k : AT_ONCE;
        in->be->ops.round_f16(t, x + k, n);
        top = larger(top, in->be->ops.amax(t, n, in->rule.threshold));
    }
    return top;
}

static struct int8_row int8_of_row(const struct nb_act_input *in, const float *x, float *t)
{
    if (in->rule.kind == NB_ACT_INT8_OUTLIER) return int8_of_amax(amax_of_f16(in, x, t));
    const float amax = in->be->ops.amax(x, in->k, 0);
    if (in->rule.kind == NB_ACT_INT8_TOKEN || !(amax < INFINITY)) return int8_of_amax(amax);
    return (struct int8_row){1.0f / in->rule.input_scale, in->rule.input_scale};
}

/* Codes of columns [k, k + n) of a row, n <= AT_ONCE; those of outliers are still to be cleared, and saturate. */
static void int8_codes(const struct nb_act_input *in, const struct int8_row *row, const float *x,
                       int64_t n, int8_t *code, float *t)
{
    if (row->factor == 0) {
        memset(code, 0, (size_t)n);
        return;
    }
    if (in->rule.kind == NB_ACT_INT8_OUTLIER) {
        in->be->ops.round_f16(t, x, n);
        x = t;
    }
    in->be->ops.quant_i8(code, x, n, row->factor);
}

static void make_codes(const struct nb_act_input *in, const float *x, int64_t row,
                       const struct parts *p, float *t)
{
    const int64_t ld = code_ld(in->k);
    int8_t *code = p->code + row * ld;
    const struct int8_row r = int8_of_row(in, x, t);
    for (int64_t k = 0; k < in->k; k += AT_ONCE)
        int8_codes(in, &r, x + k, in->k - k < AT_ONCE ? in->k - k : AT_ONCE, code + k, t);
    memset(code + in->k, 0, (size_t)(ld - in->k));
    p->scale[row] = r.scale;
    float *value = p->value + row * in->n_outliers;
    for (int64_t i = 0; i < in->n_outliers; i++) {
        code[p->outlier[i]] = 0;
        value[i] = x[p->outlier[i]];
    }
}

static void int8_floats(const struct nb_act_input *in, const float *x, float *y, float *t)
{
    const int32_t *outlier = parts_of(in, 0).outlier;
    const struct int8_row r = int8_of_row(in, x, t);
    int8_t code[AT_ONCE];
    for (int64_t k = 0; k < in->k; k += AT_ONCE) {
        const int64_t n = in->k - k < AT_ONCE ? in->k - k : AT_ONCE;
        int8_codes(in, &r, x + k, n, code, t);
        for (int64_t i = 0; i < n; i++) y[k + i] = (float)code[i] * r.scale;
    }
    for (int64_t i = 0; i < in->n_outliers; i++) y[outlier[i]] = x[outlier[i]];
}

/* ---- rows to floats of few bits ---- */

/* n values under one scale. */
static void grid_floats(const struct nb_cpu_ops *ops, const struct nb_float_grid *grid, float scale,
                        const float *x, int64_t n, float *y)
{
    if (scale == 0) {
        memset(y, 0, (size_t)n * sizeof *y);
        return;
    }
    struct nb_float_grid g = *grid;
    g.scale = scale;
    ops->round_float(y, x, n, &g);
}

/* The power of two below amax, the next one from 1.75 times that on, less the exponent of the grid's largest
 * value: as compressed-tensors has it, with one threshold for both grids. */
static float power_of_two(float amax, int top_exponent)
{
    const uint32_t bits = nb_f32_bits(amax);
    const int e = (int)(bits >> 23) - 127 + ((bits & 0x7fffffu) >= 0x600000u) - top_exponent;
    return ldexpf(1.0f, e < -127 ? -127 : e);
}

static float group_scale(const struct nb_act_rule *rule, float amax)
{
    if (!(amax < INFINITY)) return NAN;
    switch (rule->kind) {
    case NB_ACT_NVFP4: {
        const float global = rule->input_scale;
        const uint8_t code = nb_f32_to_e4m3(global * (amax / 6.0f));
        return (code ? nb_e4m3_to_f32(code) : 0.125f) / global;
    }
    case NB_ACT_MXFP4: return power_of_two(amax, 2);
    case NB_ACT_MXFP8: return power_of_two(amax, 8);
    default: return amax / NB_E4M3_MAX;
    }
}

static void group_floats(const struct nb_act_input *in, const float *x, float *y)
{
    const struct nb_cpu_ops *ops = &in->be->ops;
    const enum nb_act_kind kind = in->rule.kind;
    const bool four = kind == NB_ACT_NVFP4 || kind == NB_ACT_MXFP4;
    int64_t group = kind == NB_ACT_FP8_GROUP   ? in->rule.group
                    : kind == NB_ACT_NVFP4     ? 16
                    : kind == NB_ACT_FP8_TOKEN ? in->k
                                               : 32;
    for (int64_t k = 0; k < in->k; k += group) {
        const int64_t n = in->k - k < group ? in->k - k : group;
        const float scale = group_scale(&in->rule, ops->amax(x + k, n, 0));
        grid_floats(ops, four ? &e2m1 : &e4m3, scale, x + k, n, y + k);
    }
}

static void make_floats(const struct nb_act_input *in, const float *x, float *y, float *t)
{
    switch (in->rule.kind) {
    case NB_ACT_INT8_TOKEN:
    case NB_ACT_INT8_STATIC:
    case NB_ACT_INT8_OUTLIER: int8_floats(in, x, y, t); break;
    case NB_ACT_FP8_STATIC:
        grid_floats(&in->be->ops, &e4m3, in->rule.input_scale, x, in->k, y);
        break;
    case NB_ACT_FP8_TENSOR:
        grid_floats(&in->be->ops, &e4m3, group_scale(&in->rule, in->amax), x, in->k, y);
        break;
    default: group_floats(in, x, y); break;
    }
}

/* ---- some rows ---- */

struct rows_run {
    const struct nb_act_input *in;
    int64_t first, rows;
    struct parts parts;
};

static void rows_piece(void *ctx, size_t piece, int thread)
{
    const struct rows_run *run = ctx;
    const struct nb_act_input *in = run->in;
    const int64_t step = rows_per_piece(in), end = ((int64_t)piece + 1) * step;
    float *t = in->be->scratch[thread].all;
    for (int64_t i = (int64_t)piece * step; i < end && i < run->rows; i++) {
        const float *x = in->x + (run->first + i) * in->ldx;
        if (in->codes) make_codes(in, x, i, &run->parts, t);
        else make_floats(in, x, run->parts.x + i * in->k, t);
    }
}

struct nb_act_rows nb_act_make_rows(const struct nb_act_input *in, int64_t first, int64_t rows)
{
    assert(rows <= in->at_once);
    struct rows_run run = {.in = in, .first = first, .rows = rows, .parts = parts_of(in, rows)};
    const int64_t step = rows_per_piece(in);
    nb_pool_run(nb_backend_pool_for(in->be, rows * in->k * COST_IN_MACS),
                (size_t)((rows + step - 1) / step), rows_piece, &run);
    return (struct nb_act_rows){.x = in->codes ? NULL : run.parts.x,
                                .codes = {.code = run.parts.code,
                                          .ld = code_ld(in->k),
                                          .scale = run.parts.scale,
                                          .outlier = run.parts.outlier,
                                          .value = run.parts.value,
                                          .n_outliers = in->n_outliers}};
}
