/* SPDX-License-Identifier: Apache-2.0
 *
 * qmat.c - see qmat.h. */
#include "core/qmat.h"

#include <inttypes.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>

static int64_t groups_of(int64_t n, int64_t size)
{
    return n / size + (n % size != 0);
}

static bool elem_is_valid(const struct nb_elem *e)
{
    if (e->bits < 1 || e->bits > 8 || e->vec > 1) return false;
    if (e->kind == NB_ELEM_FLOAT)
        return e->exp >= 1 && e->man >= 0 && 1 + e->exp + e->man == e->bits;
    return e->kind == NB_ELEM_INT || e->table;
}

static bool levels_are_valid(const struct nb_qspec *spec)
{
    if (spec->super_groups == 0) return true;
    return spec->super_groups > 0 && spec->scale_bits >= 1 && spec->scale_bits <= 8;
}

/* Zeroed planes of `groups` scales under `supers` super-scales (0: single level). */
static void init_plane(struct nb_plane *p, size_t groups, size_t supers, struct nb_arena *arena)
{
    p->value = nb_arena_calloc(arena, groups, sizeof(float));
    if (!supers) return;
    p->codes = nb_arena_calloc(arena, groups, 1);
    p->super = nb_arena_calloc(arena, supers, sizeof(float));
}

int64_t nb_qmat_group_rows(const struct nb_qmat *q)
{
    return q->spec.flat ? 1 : groups_of(q->rows, q->spec.group_rows);
}

int64_t nb_qmat_planes(const struct nb_qmat *q)
{
    return nb_qmat_group_rows(q) * q->n_groups;
}

int64_t nb_qmat_supers(const struct nb_qmat *q)
{
    return q->spec.super_flat ? q->n_supers : nb_qmat_group_rows(q) * q->n_supers;
}

/* n_groups and n_supers of a matrix whose rows x cols is known to fit. */
static bool cut_groups(struct nb_qmat *q, const struct nb_qspec *spec)
{
    if (q->cols % q->spec.group_cols == 0) q->spec.flat = false;
    q->n_groups = groups_of(q->spec.flat ? q->rows * q->cols : q->cols, q->spec.group_cols);
    if (!spec->super_groups) return true;
    size_t planes;
    if (!nb_mul((size_t)nb_qmat_group_rows(q), (size_t)q->n_groups, &planes)) return false;
    q->n_supers = groups_of(spec->super_flat ? (int64_t)planes : q->n_groups, spec->super_groups);
    return true;
}

int nb_qmat_init(struct nb_qmat *q, const struct nb_qspec *spec, int64_t rows, int64_t cols,
                 struct nb_arena *arena, struct nb_err *err)
{
    *q = (struct nb_qmat){.spec = *spec, .rows = rows, .cols = cols};
    if (rows <= 0 || cols <= 0 || !elem_is_valid(&spec->elem)) {
        return nb_fail(err, NB_E_SPEC,
                       "a quantized matrix of %" PRId64 " x %" PRId64
                       " with %d bits per code and %d weights per code cannot be held",
                       rows, cols, spec->elem.bits, spec->elem.vec);
    }
    if (q->spec.group_cols <= 0) q->spec.group_cols = cols;
    if (!q->spec.flat && q->spec.group_cols > cols) q->spec.group_cols = cols;
    if (q->spec.group_rows <= 0) q->spec.group_rows = 1;
    if (q->spec.group_rows > rows) q->spec.group_rows = rows;
    if (!levels_are_valid(spec)) {
        return nb_fail(err, NB_E_SPEC,
                       "%" PRId64 " scales of %d bits under one super-scale cannot be held",
                       spec->super_groups, spec->scale_bits);
    }
    q->spec.elem.vec = 1;
    size_t n_codes, n_planes, n_supers;
    bool fits = nb_mul((size_t)rows, (size_t)cols, &n_codes) && n_codes <= INT64_MAX;
    if (fits && q->spec.group_cols > (int64_t)n_codes) q->spec.group_cols = (int64_t)n_codes;
    if (!fits || !cut_groups(q, spec) ||
        !nb_mul((size_t)nb_qmat_group_rows(q), (size_t)q->n_groups, &n_planes) ||
        !nb_mul((size_t)nb_qmat_group_rows(q), (size_t)q->n_supers, &n_supers)) {
        return nb_fail(err, NB_E_NOMEM,
                       "quantized matrix of %" PRId64 " x %" PRId64 " is too large", rows, cols);
    }
    if (spec->super_flat) n_supers = (size_t)q->n_supers;
    q->codes = nb_arena_calloc(arena, n_codes, 1);
    init_plane(&q->scale, n_planes, n_supers, arena);
    if (spec->zero != NB_ZERO_NONE)
        init_plane(&q->zero, n_planes, spec->zero == NB_ZERO_MIN ? n_supers : 0, arena);
    if (arena->failed) {
        return nb_fail(err, NB_E_NOMEM,
                       "no memory for a quantized matrix of %" PRId64 " x %" PRId64, rows, cols);
    }
    return 0;
}

static float float_value(const struct nb_elem *e, unsigned code)
{
    int bias = (1 << (e->exp - 1)) - 1;
    unsigned man = code & ((1u << e->man) - 1u);
    unsigned exp = (code >> e->man) & ((1u << e->exp) - 1u);
    unsigned sign = (code >> (e->man + e->exp)) & 1u;
    if (e->exp == 5 && e->man == 2 && exp == 31) { /* E5M2 is IEEE-like */
        float special = man ? NAN : INFINITY;
        return sign ? -special : special;
    }
    if (e->exp == 4 && e->man == 3 && exp == 15 && man == 7) return NAN; /* E4M3FN: no infinity */
    float frac = ldexpf((float)man, -e->man);
    float v = exp ? ldexpf(1.0f + frac, (int)exp - bias) : ldexpf(frac, 1 - bias);
    return sign ? -v : v;
}

float nb_elem_value(const struct nb_elem *e, unsigned code)
{
    switch (e->kind) {
    case NB_ELEM_INT: return (float)code;
    case NB_ELEM_FLOAT: return float_value(e, code);
    default: return e->table[code];
    }
}

static float scale_of_code(const struct nb_qspec *spec, float super, uint8_t code)
{
    const float c = spec->scale_table ? spec->scale_table[code] : (float)(code - spec->scale_zero);
    return spec->super_divides ? c / super : super * c;
}

void nb_qmat_fill_values(struct nb_qmat *q, int64_t group_row)
{
    const int64_t groups = group_row * q->n_groups, supers = group_row * q->n_supers;
    const int64_t per_super = q->spec.super_groups;
    for (int64_t g = 0; g < q->n_groups; g++) {
        const int64_t at = groups + g;
        const int64_t super = q->spec.super_flat ? at / per_super : supers + g / per_super;
        q->scale.value[at] = scale_of_code(&q->spec, q->scale.super[super], q->scale.codes[at]);
        if (q->scale.offset != 0.0f) q->scale.value[at] += q->scale.offset;
        if (q->zero.codes) q->zero.value[at] = q->zero.super[super] * (float)q->zero.codes[at];
    }
}

/* What the codes of one group mean. */
struct meaning {
    float value[256], scale, zero;
    enum nb_zero kind;
};

static void dequant_run(const struct meaning *m, const uint8_t *codes, int64_t n, float *out)
{
    for (int64_t k = 0; k < n; k++) {
        float v = m->value[codes[k]];
        if (m->kind == NB_ZERO_CODE) v -= m->zero;
        v *= m->scale;
        if (m->kind == NB_ZERO_MIN) v -= m->zero;
        out[k] = v;
    }
}

void nb_qmat_dequant_row(const struct nb_qmat *q, int64_t row, float *out)
{
    struct meaning m = {.kind = q->spec.zero};
    unsigned n_values = 1u << q->spec.elem.bits;
    for (unsigned c = 0; c < n_values; c++) m.value[c] = nb_elem_value(&q->spec.elem, c);
    const uint8_t *codes = q->codes + row * q->cols;
    const int64_t group = q->spec.group_cols, start = q->spec.flat ? row * q->cols % group : 0;
    for (int64_t k = 0, end; k < q->cols; k = end) {
        end = q->col_group ? k + 1 : (start + k) / group * group + group - start;
        if (end > q->cols) end = q->cols;
        const int64_t at = nb_qmat_plane_index(q, row, k);
        m.scale = q->scale.value[at];
        m.zero = q->zero.value ? q->zero.value[at] : 0.0f;
        dequant_run(&m, codes + k, end - k, out + k);
    }
}

double nb_qspec_bits_per_weight(const struct nb_qspec *spec, int64_t rows, int64_t cols)
{
    const double weights = (double)rows * (double)cols;
    const int64_t group_cols = spec->group_cols > 0 ? spec->group_cols : cols;
    const int64_t group_rows = spec->group_rows > 0 ? spec->group_rows : 1;
    const bool flat = spec->flat && cols % group_cols != 0;
    const double n_rows = flat ? 1.0 : (double)groups_of(rows, group_rows);
    const double per_row =
        flat ? weights / (double)group_cols : (double)groups_of(cols, group_cols);
    const int planes = spec->zero == NB_ZERO_MIN ? 2 : 1;
    const int top_bits = planes * nb_dtype_bits(spec->scale_dtype);
    double bits = spec->super_groups ? planes * spec->scale_bits : top_bits;
    if (spec->zero == NB_ZERO_CODE && !spec->zero_implied) bits += spec->elem.bits;
    bits *= n_rows * per_row;
    if (spec->super_groups && spec->super_flat) {
        bits += top_bits * ceil(n_rows * per_row / (double)spec->super_groups);
    } else if (spec->super_groups) {
        bits += top_bits * n_rows * ceil(per_row / (double)spec->super_groups);
    }
    return (double)spec->elem.bits + bits / weights;
}

static void describe_elem(const struct nb_qspec *spec, char out[24])
{
    const struct nb_elem *e = &spec->elem;
    if (e->name) snprintf(out, 24, "%s", e->name);
    else if (e->kind == NB_ELEM_FLOAT) snprintf(out, 24, "e%dm%d", e->exp, e->man);
    else if (e->kind == NB_ELEM_TABLE) snprintf(out, 24, "table%d", e->bits);
    else snprintf(out, 24, "int%d %s", e->bits, spec->symmetric ? "sym" : "asym");
}

void nb_qspec_describe(const struct nb_qspec *spec, char *out, size_t bytes)
{
    static const char *const acts[] = {
        [NB_ACT_NONE] = "",
        [NB_ACT_INT8_TOKEN] = ", int8 activations per token",
        [NB_ACT_INT8_STATIC] = ", int8 activations, static",
        [NB_ACT_INT8_OUTLIER] = ", int8 activations but for outliers",
        [NB_ACT_FP8_TOKEN] = ", e4m3 activations per token",
        [NB_ACT_FP8_GROUP] = ", e4m3 activations per group",
        [NB_ACT_FP8_TENSOR] = ", e4m3 activations",
        [NB_ACT_FP8_STATIC] = ", e4m3 activations, static",
        [NB_ACT_NVFP4] = ", nvfp4 activations",
        [NB_ACT_MXFP4] = ", mxfp4 activations",
        [NB_ACT_MXFP8] = ", mxfp8 activations",
    };
    char elem[24], group[48] = " per channel", levels[48] = "";
    describe_elem(spec, elem);
    if (spec->group_rows > 1 && spec->group_rows < INT32_MAX) {
        snprintf(group, sizeof group, " %" PRId64 " x %" PRId64, spec->group_rows,
                 spec->group_cols);
    } else if (spec->group_rows > 1) {
        snprintf(group, sizeof group, " per tensor");
    } else if (spec->group_cols > 0) {
        snprintf(group, sizeof group, " g%" PRId64, spec->group_cols);
    }
    if (spec->super_groups > 0 && spec->super_groups < INT32_MAX) {
        snprintf(levels, sizeof levels, " scales int%d x%" PRId64, spec->scale_bits,
                 spec->super_groups);
    }
    snprintf(out, bytes, "%s%s%s%s", elem, group, levels, acts[spec->act]);
}
