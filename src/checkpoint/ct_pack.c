/* SPDX-License-Identifier: Apache-2.0
 *
 * ct_pack.c - the tensors of one linear as compressed-tensors stores them, from a matrix. Layouts stand in ct.h.
 *
 * 3 bits are written in the packing since May 2026, which vLLM and the library of that time and later read. Zero
 * points of a symmetric grid are left out: vLLM refuses them. Source: checkpoint formats, sections 5.2 to 5.5, 5.9. */
#include "checkpoint/ct.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "checkpoint/bitpack.h"
#include "numeric/elems.h"

/* ---- what a spec becomes ---- */

static bool is_e4m3(const struct nb_elem *e)
{
    return e->kind == NB_ELEM_FLOAT && e->bits == 8 && e->exp == 4 && e->man == 3;
}

static bool is_e2m1(const struct nb_elem *e)
{
    return e->kind == NB_ELEM_FLOAT && e->bits == 4 && e->exp == 2 && e->man == 1;
}

static bool is_nvfp4(const struct nb_qspec *s)
{
    return is_e2m1(&s->elem) && s->group_cols == 16 && s->super_groups > 0 && s->super_flat &&
           s->super_divides && s->scale_bits == 8 && s->scale_table == nb_e4m3_values &&
           s->scale_dtype == NB_F32;
}

bool nb_ct_layout_of(const struct nb_qspec *s, enum nb_ct_layout *out)
{
    const bool rows = s->group_rows <= 1,
               mx = s->scale_dtype == NB_F8_E8M0 && rows && s->group_cols == 32;
    if (s->elem.vec > 1 || s->flat) return false;
    if (s->elem.kind == NB_ELEM_INT) {
        *out = s->act == NB_ACT_NONE && rows ? NB_CT_PACKED : NB_CT_PLAIN;
        return s->zero == NB_ZERO_CODE && !s->super_groups && nb_dtype_is_weight(s->scale_dtype);
    }
    if (s->zero != NB_ZERO_NONE) return false;
    if (is_nvfp4(s) && rows) *out = NB_CT_NVFP4;
    else if (s->super_groups) return false;
    else if (mx && is_e2m1(&s->elem)) *out = NB_CT_MXFP4;
    else if (mx && is_e4m3(&s->elem)) *out = NB_CT_MXFP8;
    else if (is_e4m3(&s->elem) && nb_dtype_is_weight(s->scale_dtype)) *out = NB_CT_PLAIN;
    else return false;
    return true;
}

/* ---- which tensors ---- */

static struct nb_packed_tensor *add(struct nb_packed_tensor **next, const char *suffix,
                                    enum nb_dtype dtype, int64_t a, int64_t b)
{
    struct nb_packed_tensor *t = (*next)++;
    nb_packed_set(t, suffix, dtype, a, b);
    return t;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

/* Rows and columns of the scale plane; *cols -1: one scale, shape [1]. */
static void scale_shape(const struct nb_qspec *s, int64_t n, int64_t k, int64_t *rows,
                        int64_t *cols)
{
    const int64_t r = s->group_rows <= 1 ? 1 : s->group_rows > n ? n : s->group_rows;
    const int64_t c = s->group_cols <= 0 || s->group_cols > k ? k : s->group_cols;
    *rows = ceil_div(n, r);
    *cols = ceil_div(k, c);
    if (s->group_rows > 1 && s->group_cols <= 0 && *rows == 1) *cols = -1;
}

int nb_ct_plan_as(enum nb_ct_layout layout, const struct nb_qspec *s, int64_t n, int64_t k,
                  const struct nb_pack_opts *opts, struct nb_packed_tensor out[NB_MAX_PACKED])
{
    struct nb_packed_tensor *next = out;
    int64_t a, b;
    scale_shape(s, n, k, &a, &b);
    const bool stored = s->zero == NB_ZERO_CODE && !s->symmetric;
    if (layout == NB_CT_PACKED) {
        const int bits = s->elem.bits;
        add(&next, ".weight_packed", NB_I32, n, (int64_t)nb_bits_words((size_t)k, bits));
        add(&next, ".weight_scale", s->scale_dtype, b < 0 ? 1 : a, b);
        add(&next, ".weight_shape", NB_I64, 2, -1);
        if (stored)
            add(&next, ".weight_zero_point", NB_I32, (int64_t)nb_bits_words((size_t)n, bits), b);
        if (opts && opts->order && b > 1) add(&next, ".weight_g_idx", NB_I32, k, -1);
    } else if (layout == NB_CT_PLAIN) {
        add(&next, ".weight", s->elem.kind == NB_ELEM_INT ? NB_I8 : NB_F8_E4M3, n, k);
        add(&next, ".weight_scale", s->scale_dtype, b < 0 ? 1 : a, b);
        if (stored) add(&next, ".weight_zero_point", NB_I8, b < 0 ? 1 : a, b);
    } else {
        const bool fp4 = layout != NB_CT_MXFP8, nv = layout == NB_CT_NVFP4;
        if (fp4) add(&next, ".weight_packed", NB_U8, n, ceil_div(k, 2));
        else add(&next, ".weight", NB_F8_E4M3, n, k);
        add(&next, ".weight_scale", nv ? NB_F8_E4M3 : NB_U8, a, b);
        if (nv) add(&next, ".weight_global_scale", NB_F32, 1, -1);
    }
    if (nb_ct_act_is_static(s->act)) add(&next, ".input_scale", NB_F32, 1, -1);
    if (s->act == NB_ACT_NVFP4) add(&next, ".input_global_scale", NB_F32, 1, -1);
    return (int)(next - out);
}

int nb_ct_plan(const struct nb_qspec *s, int64_t n, int64_t k, const struct nb_pack_opts *opts,
               struct nb_packed_tensor out[NB_MAX_PACKED])
{
    enum nb_ct_layout layout;
    return nb_ct_layout_of(s, &layout) ? nb_ct_plan_as(layout, s, n, k, opts, out) : 0;
}

/* ---- can it be written? ---- */

static int check_act(const struct nb_qspec *s, enum nb_ct_layout layout, struct nb_err *err)
{
    const bool ints = s->elem.kind == NB_ELEM_INT;
    const char *nearest = NULL;
    switch (s->act) {
    case NB_ACT_NONE: break;
    case NB_ACT_INT8_OUTLIER:
        nearest = "W8A8 (int8 inputs without outlier columns), or format bnb";
        break;
    case NB_ACT_INT8_TOKEN:
    case NB_ACT_INT8_STATIC:
        if (!ints) nearest = "float8 weights with float8 inputs (FP8), or W8A8";
        break;
    case NB_ACT_NVFP4:
        if (layout != NB_CT_NVFP4) nearest = "scheme NVFP4";
        break;
    case NB_ACT_MXFP4:
        if (layout != NB_CT_MXFP4) nearest = "scheme MXFP4";
        break;
    case NB_ACT_MXFP8:
        if (layout != NB_CT_MXFP8) nearest = "scheme MXFP8";
        break;
    default:
        if (layout != NB_CT_PLAIN) nearest = "float8 weights (FP8), or float inputs";
        break;
    }
    if (!nearest) return 0;
    return nb_fail(err, NB_E_SPEC,
                   "compressed-tensors does not hold these weights with these inputs; nearest: %s",
                   nearest);
}

static int check_bits(const struct nb_qspec *s, enum nb_ct_layout layout, struct nb_err *err)
{
    const int b = s->elem.bits;
    if (s->elem.kind != NB_ELEM_INT) return 0;
    if (layout == NB_CT_PACKED ? b == 2 || b == 3 || b == 4 || b == 8 : b == 4 || b == 8) return 0;
    return nb_fail(
        err, NB_E_SPEC,
        "compressed-tensors has no layout of %d bits%s that loaders share; nearest: %d bits", b,
        layout == NB_CT_PACKED ? "" : " with quantized inputs",
        b > 6   ? 8
        : b < 2 ? 2
                : 4);
}

static int check_sizes(enum nb_ct_layout layout, int64_t rows, int64_t cols, struct nb_err *err)
{
    const int64_t unit = layout == NB_CT_PACKED ? 32 : 16;
    if (rows % unit == 0 && cols % unit == 0) return 0;
    return nb_fail(err, NB_E_SPEC,
                   "kernels for compressed-tensors take sizes in steps of %" PRId64
                   ": a linear of %" PRId64 " x %" PRId64
                   " must stay float (--ignore), nearest sizes are %" PRId64 " x %" PRId64,
                   unit, rows, cols, ceil_div(rows, unit) * unit, ceil_div(cols, unit) * unit);
}

static int check_groups(const struct nb_qspec *s, enum nb_ct_layout layout, int64_t cols,
                        struct nb_err *err)
{
    const int64_t g = s->group_cols;
    char usable[32];
    if (layout == NB_CT_PLAIN && s->elem.kind == NB_ELEM_INT && s->act == NB_ACT_NONE) {
        return nb_fail(
            err, NB_E_SPEC,
            "compressed-tensors holds integers with float inputs per channel or in groups of one row; "
            "usable: -1 (per channel)");
    }
    if (g <= 0 || (layout != NB_CT_PACKED && layout != NB_CT_PLAIN && cols % g == 0)) return 0;
    if (s->group_rows > 1 && cols % g == 0) return 0;
    if (s->group_rows <= 1 && nb_module_group_usable(g, cols, 256)) return 0;
    nb_module_usable_groups(cols, 256, usable);
    if (s->group_rows > 1 || layout > NB_CT_PLAIN) {
        return nb_fail(err, NB_E_SPEC,
                       "compressed-tensors cannot cut %" PRId64 " inputs in blocks of %" PRId64
                       "; the linear must stay float (--ignore), or be quantized per channel",
                       cols, g);
    }
    return nb_fail(err, NB_E_SPEC,
                   "compressed-tensors cannot cut %" PRId64 " inputs in groups of %" PRId64
                   "; usable groups are %s%s-1 (per channel)",
                   cols, g, usable, usable[0] ? ", " : "");
}

int nb_ct_can_write(const struct nb_qspec *s, int64_t rows, int64_t cols, bool desc_act,
                    struct nb_err *err)
{
    enum nb_ct_layout layout;
    if (!nb_ct_layout_of(s, &layout)) {
        char text[160];
        nb_qspec_describe(s, text, sizeof text);
        return nb_fail(
            err, NB_E_SPEC,
            "compressed-tensors cannot hold %s; nearest: integers with integer zeros, float8 (FP8), NVFP4, "
            "MXFP4, MXFP8",
            text);
    }
    if (desc_act && layout != NB_CT_PACKED && s->group_cols > 0) {
        return nb_fail(
            err, NB_E_SPEC,
            "compressed-tensors has act-order dynamic for packed integers only; nearest: act-order static");
    }
    int rc = check_act(s, layout, err);
    if (!rc) rc = check_bits(s, layout, err);
    if (!rc) rc = check_sizes(layout, rows, cols, err);
    return rc ? rc : check_groups(s, layout, cols, err);
}

/* ---- filling ---- */

struct packing {
    const struct nb_qmat *q;
    enum nb_ct_layout layout;
    struct nb_packed_tensor *out;
    int n;
};

static struct nb_packed_tensor *tensor_of(const struct packing *p, const char *suffix)
{
    for (int i = 0; i < p->n; i++) {
        if (!strcmp(p->out[i].suffix, suffix)) return &p->out[i];
    }
    return NULL;
}

static void pack_codes(const struct packing *p)
{
    const struct nb_qmat *q = p->q;
    const int64_t n = q->rows * q->cols;
    if (p->layout == NB_CT_PACKED) {
        uint32_t *words = p->out[0].data;
        for (int64_t r = 0; r < q->rows; r++)
            nb_bits_pack(words + r * p->out[0].shape[1], 1, q->codes + r * q->cols,
                         q->spec.elem.bits, (size_t)q->cols);
    } else if (p->layout == NB_CT_NVFP4 || p->layout == NB_CT_MXFP4) {
        uint8_t *bytes = p->out[0].data;
        for (int64_t i = 0; i + 1 < n; i += 2)
            bytes[i / 2] = (uint8_t)(q->codes[i] | q->codes[i + 1] << 4);
    } else if (q->spec.elem.kind == NB_ELEM_INT) {
        uint8_t *bytes = p->out[0].data;
        const uint8_t half = (uint8_t)(1 << (q->spec.elem.bits - 1));
        for (int64_t i = 0; i < n; i++) bytes[i] = (uint8_t)(q->codes[i] - half);
    } else {
        memcpy(p->out[0].data, q->codes, (size_t)n);
    }
}

/* The value must survive the file's type, since the codes were chosen for it. */
static int check_scale(const struct packing *p, float s, int64_t at, struct nb_err *err)
{
    const enum nb_dtype t = p->q->spec.scale_dtype;
    const bool sign = p->q->spec.elem.kind == NB_ELEM_INT;
    int e;
    bool fits = isfinite(s) && (sign ? s != 0.0f : s > 0.0f);
    if (fits && t == NB_F8_E8M0) fits = frexpf(s, &e) == 0.5f && e >= -126 && e <= 128;
    else if (fits) fits = nb_round_to(s, t) == s;
    if (fits) return 0;
    return nb_fail(err, NB_E_NUMERIC, "scale %g of group %" PRId64 " is not a finite %s%s",
                   (double)s, at, nb_dtype_name(t), sign ? " other than 0" : " above 0");
}

static int pack_scales(const struct packing *p, struct nb_err *err)
{
    const struct nb_qmat *q = p->q;
    const int64_t n = nb_qmat_planes(q);
    void *out = p->out[1].data;
    if (p->layout == NB_CT_NVFP4) {
        float *global = tensor_of(p, ".weight_global_scale")->data;
        memcpy(out, q->scale.codes, (size_t)n);
        *global = q->scale.super[0];
        if (isfinite(*global) && *global > 0.0f) return 0;
        return nb_fail(err, NB_E_NUMERIC, "global scale %g is not a finite number above 0",
                       (double)*global);
    }
    for (int64_t i = 0; i < n; i++) {
        int e, rc = check_scale(p, q->scale.value[i], i, err);
        if (rc) return rc;
        if (q->spec.scale_dtype != NB_F8_E8M0) continue;
        frexpf(q->scale.value[i], &e);
        ((uint8_t *)out)[i] = (uint8_t)(e + 126);
    }
    if (q->spec.scale_dtype != NB_F8_E8M0)
        nb_from_f32(out, q->scale.value, q->spec.scale_dtype, (size_t)n);
    return 0;
}

static int check_zero(const struct nb_qmat *q, float z, int64_t at, struct nb_err *err)
{
    const int half = 1 << (q->spec.elem.bits - 1);
    const bool whole = z >= 0.0f && z <= (float)(2 * half - 1) && z == rintf(z);
    if (q->spec.symmetric ? z == (float)half : whole) return 0;
    if (q->spec.symmetric) {
        return nb_fail(err, NB_E_NUMERIC,
                       "zero %g of group %" PRId64 " in a symmetric matrix, expected %d", (double)z,
                       at, half);
    }
    return nb_fail(err, NB_E_NUMERIC,
                   "zero %g of group %" PRId64 " cannot be stored, possible are 0 to %d", (double)z,
                   at, 2 * half - 1);
}

static int pack_zeros(const struct packing *p, struct nb_arena *arena, struct nb_err *err)
{
    const struct nb_qmat *q = p->q;
    const struct nb_packed_tensor *t = tensor_of(p, ".weight_zero_point");
    const int64_t n = nb_qmat_planes(q);
    int rc = 0;
    for (int64_t i = 0; q->spec.zero == NB_ZERO_CODE && i < n && !rc; i++)
        rc = check_zero(q, q->zero.value[i], i, err);
    if (rc || !t) return rc;
    if (p->layout == NB_CT_PLAIN) {
        const float half = (float)(1 << (q->spec.elem.bits - 1));
        for (int64_t i = 0; i < n; i++) ((int8_t *)t->data)[i] = (int8_t)(q->zero.value[i] - half);
        return 0;
    }
    uint8_t *fields = nb_arena_alloc(arena, (size_t)q->rows, 1);
    if (!fields)
        return nb_fail(err, NB_E_NOMEM, "no memory for the zeros of %" PRId64 " outputs", q->rows);
    for (int64_t g = 0; g < q->n_groups; g++) {
        for (int64_t r = 0; r < q->rows; r++)
            fields[r] = (uint8_t)q->zero.value[r * q->n_groups + g];
        nb_bits_pack((uint32_t *)t->data + g, (size_t)q->n_groups, fields, q->spec.elem.bits,
                     (size_t)q->rows);
    }
    return 0;
}

static int pack_rest(const struct packing *p, struct nb_err *err)
{
    const struct nb_qmat *q = p->q;
    const struct nb_packed_tensor *shape = tensor_of(p, ".weight_shape"),
                                  *order = tensor_of(p, ".weight_g_idx"),
                                  *input = tensor_of(p, ".input_scale");
    if (!input) input = tensor_of(p, ".input_global_scale");
    if (shape) memcpy(shape->data, (const int64_t[]){q->rows, q->cols}, 16);
    for (int64_t k = 0; order && k < q->cols; k++)
        ((int32_t *)order->data)[k] = (int32_t)nb_qmat_group(q, k);
    if (!order && q->col_group && q->n_groups > 1) {
        return nb_fail(
            err, NB_E_SPEC,
            "a matrix with act-order dynamic needs a group number per column, which was not "
            "planned for");
    }
    if (!input) return 0;
    *(float *)input->data = q->input_scale;
    if (isfinite(q->input_scale) && q->input_scale > 0.0f) return 0;
    return nb_fail(err, NB_E_NUMERIC, "scale %g of static inputs is not a finite number above 0",
                   (double)q->input_scale);
}

int nb_ct_pack(const struct nb_qmat *q, const struct nb_pack_opts *opts, struct nb_arena *arena,
               struct nb_packed_tensor out[NB_MAX_PACKED], int *n, struct nb_err *err)
{
    struct packing p = {.q = q, .out = out};
    *n = p.n = nb_ct_plan(&q->spec, q->rows, q->cols, opts, out);
    if (!nb_ct_layout_of(&q->spec, &p.layout))
        return nb_fail(err, NB_E_SPEC, "compressed-tensors has no layout for this matrix");
    for (int i = 0; i < p.n; i++) {
        size_t bytes = (size_t)nb_dtype_bits(out[i].dtype) / 8;
        for (int d = 0; d < out[i].rank; d++) bytes *= (size_t)out[i].shape[d];
        out[i].data = nb_arena_calloc(arena, bytes, 1);
    }
    if (arena->failed)
        return nb_fail(err, NB_E_NOMEM, "no memory to pack %" PRId64 " x %" PRId64, q->rows,
                       q->cols);
    pack_codes(&p);
    int rc = pack_scales(&p, err);
    if (!rc) rc = pack_zeros(&p, arena, err);
    return rc ? rc : pack_rest(&p, err);
}
