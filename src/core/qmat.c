/* SPDX-License-Identifier: Apache-2.0
 *
 * qmat.c - see qmat.h. */
#include "core/qmat.h"

#include <inttypes.h>
#include <math.h>
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
    if (q->spec.group_cols <= 0 || q->spec.group_cols > cols) q->spec.group_cols = cols;
    if (q->spec.group_rows <= 0) q->spec.group_rows = 1;
    if (q->spec.group_rows > rows) q->spec.group_rows = rows;
    if (!levels_are_valid(spec)) {
        return nb_fail(err, NB_E_SPEC,
                       "%" PRId64 " scales of %d bits under one super-scale cannot be held",
                       spec->super_groups, spec->scale_bits);
    }
    q->spec.elem.vec = 1;
    q->n_groups = groups_of(cols, q->spec.group_cols);
    if (spec->super_groups) q->n_supers = groups_of(q->n_groups, spec->super_groups);
    const size_t group_rows = (size_t)groups_of(rows, q->spec.group_rows);
    size_t n_codes, n_planes, n_supers;
    if (!nb_mul((size_t)rows, (size_t)cols, &n_codes) ||
        !nb_mul(group_rows, (size_t)q->n_groups, &n_planes) ||
        !nb_mul(group_rows, (size_t)q->n_supers, &n_supers)) {
        return nb_fail(err, NB_E_NOMEM,
                       "quantized matrix of %" PRId64 " x %" PRId64 " is too large", rows, cols);
    }
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

void nb_qmat_fill_values(struct nb_qmat *q, int64_t group_row)
{
    const int64_t groups = group_row * q->n_groups, supers = group_row * q->n_supers;
    for (int64_t g = 0; g < q->n_groups; g++) {
        const int64_t at = groups + g, super = supers + g / q->spec.super_groups;
        const float code = (float)(q->scale.codes[at] - q->spec.scale_zero);
        q->scale.value[at] = q->scale.super[super] * code;
        if (q->scale.offset != 0.0f) q->scale.value[at] += q->scale.offset;
        if (q->zero.codes) q->zero.value[at] = q->zero.super[super] * (float)q->zero.codes[at];
    }
}

void nb_qmat_dequant_row(const struct nb_qmat *q, int64_t row, float *out)
{
    float value[256];
    unsigned n_values = 1u << q->spec.elem.bits;
    for (unsigned c = 0; c < n_values; c++) value[c] = nb_elem_value(&q->spec.elem, c);
    const uint8_t *codes = q->codes + row * q->cols;
    int64_t plane = row / q->spec.group_rows * q->n_groups;
    const float *scale = q->scale.value + plane;
    const float *zero = q->zero.value ? q->zero.value + plane : NULL;
    for (int64_t k = 0; k < q->cols; k++) {
        int64_t g = nb_qmat_group(q, k);
        float v = value[codes[k]];
        if (q->spec.zero == NB_ZERO_CODE) v -= zero[g];
        v *= scale[g];
        if (q->spec.zero == NB_ZERO_MIN) v -= zero[g];
        out[k] = v;
    }
}

double nb_qspec_bits_per_weight(const struct nb_qspec *spec, int64_t rows, int64_t cols)
{
    const int64_t row_groups = groups_of(cols, spec->group_cols > 0 ? spec->group_cols : cols);
    const double group_rows = (double)groups_of(rows, spec->group_rows > 0 ? spec->group_rows : 1);
    const int planes = spec->zero == NB_ZERO_MIN ? 2 : 1;
    double per_group = spec->super_groups ? spec->scale_bits : nb_dtype_bits(spec->scale_dtype);
    double row = per_group * planes * (double)row_groups;
    if (spec->zero == NB_ZERO_CODE && !spec->zero_implied)
        row += spec->elem.bits * (double)row_groups;
    if (spec->super_groups) {
        row += (double)(planes * nb_dtype_bits(spec->scale_dtype)) *
               (double)groups_of(row_groups, spec->super_groups);
    }
    return (double)spec->elem.bits + row * group_rows / ((double)rows * (double)cols);
}

void nb_qspec_describe(const struct nb_qspec *spec, char *out, size_t bytes)
{
    const char *kind = spec->elem.kind == NB_ELEM_INT     ? "int"
                       : spec->elem.kind == NB_ELEM_FLOAT ? "float"
                                                          : "table";
    const char *sym = spec->elem.kind != NB_ELEM_INT ? "" : spec->symmetric ? " sym" : " asym";
    if (spec->super_groups > 0) {
        snprintf(out, bytes, "%s%d%s g%" PRId64 " scales int%d x%" PRId64, kind, spec->elem.bits,
                 sym, spec->group_cols, spec->scale_bits, spec->super_groups);
    } else if (spec->group_cols > 0) {
        snprintf(out, bytes, "%s%d%s g%" PRId64, kind, spec->elem.bits, sym, spec->group_cols);
    } else {
        snprintf(out, bytes, "%s%d%s per channel", kind, spec->elem.bits, sym);
    }
}
