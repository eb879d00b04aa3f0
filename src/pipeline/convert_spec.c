/* SPDX-License-Identifier: Apache-2.0
 *
 * convert_spec.c - see convert_spec.h. Source: checkpoint formats, section 7.3.
 *
 * Two things are not the same thing under another name and are changed knowingly: LLM.int8 keeps outlier columns of the
 * inputs in float at run time, which no other container can ask for (int8 inputs per token are the nearest); and a
 * zero that one format implies, another writes down. */
#include "pipeline/convert_spec.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define WHOLE ((int64_t)1 << 40)

static bool is_block(const struct nb_qmat *q)
{
    const struct nb_qspec *s = &q->spec;
    if (s->act == NB_ACT_FP8_GROUP && s->elem.kind == NB_ELEM_FLOAT && s->elem.bits == 8)
        return true;
    return s->group_rows > 1 && (s->group_rows < q->rows || s->group_cols < q->cols);
}

void nb_convert_sizes_add(struct nb_convert_sizes *s, const struct nb_qmat *q)
{
    const struct nb_qspec *spec = &q->spec;
    if (q->col_group) s->order = true;
    if (is_block(q)) {
        if (spec->group_rows > s->block_rows) s->block_rows = spec->group_rows;
        if (spec->group_cols > s->block_cols) s->block_cols = spec->group_cols;
    } else if (spec->group_rows <= 1 && spec->group_cols < q->cols && spec->group_cols > s->group) {
        s->group = spec->group_cols;
    }
}

/* Group sizes as they were asked for, before the matrix cut them. */
static void restore_groups(struct nb_qspec *s, const struct nb_qmat *q,
                           const struct nb_convert_sizes *sizes)
{
    if (s->flat || s->super_groups) return;
    if (is_block(q)) {
        if (s->group_rows == q->rows && sizes->block_rows > q->rows)
            s->group_rows = sizes->block_rows;
        if (s->group_cols == q->cols && sizes->block_cols > q->cols)
            s->group_cols = sizes->block_cols;
    } else if (s->group_rows > 1) {
        s->group_rows = WHOLE;
        s->group_cols = -1;
    } else if (s->group_cols == q->cols && s->group_cols != sizes->group) {
        s->group_cols = -1;
    }
}

void nb_convert_view(struct nb_qmat *out, const struct nb_qmat *q, const struct nb_qspec *spec)
{
    *out = *q;
    out->spec = *spec;
    if (out->spec.group_cols <= 0 || out->spec.group_cols > q->cols) out->spec.group_cols = q->cols;
    if (out->spec.group_rows <= 0) out->spec.group_rows = 1;
    if (out->spec.group_rows > q->rows) out->spec.group_rows = q->rows;
}

static bool scales_fit(const struct nb_qmat *q, enum nb_dtype t)
{
    const int64_t n = nb_qmat_planes(q);
    for (int64_t i = 0; i < n; i++) {
        const float s = q->scale.value[i];
        if (!isfinite(s) || nb_round_to(s, t) != s) return false;
    }
    return true;
}

/* Would `to` write q so? The packers check each value. */
static int try_spec(const struct nb_convert_choice *choice, const struct nb_qmat *q,
                    const struct nb_checkpoint *to, struct nb_arena *arena, struct nb_err *err)
{
    struct nb_qmat view;
    struct nb_packed_tensor packed[NB_MAX_PACKED];
    const struct nb_pack_opts opts = {.source = NB_BF16, .storage = NB_U8, .order = choice->order};
    int n, rc = to->can_write(&choice->spec, q->rows, q->cols, choice->order, err);
    if (rc) return rc;
    nb_convert_view(&view, q, &choice->spec);
    rc = to->pack(&view, &opts, arena, packed, &n, err);
    if (rc == NB_E_NUMERIC && err) err->status = NB_E_SPEC; /* of the format, not of the numbers */
    return rc == NB_E_NUMERIC ? NB_E_SPEC : rc;
}

/* The same with each type of scale that holds them all, the source's first. */
static int try_types(struct nb_convert_choice *choice, const struct nb_qmat *q,
                     const struct nb_checkpoint *to, struct nb_arena *arena, struct nb_err *err)
{
    static const enum nb_dtype others[] = {NB_F32, NB_F16};
    struct nb_err ignored;
    int rc = try_spec(choice, q, to, arena, err);
    if (rc != NB_E_SPEC || !nb_dtype_is_weight(choice->spec.scale_dtype)) return rc;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct nb_convert_choice other = *choice;
        other.spec.scale_dtype = others[i];
        if (others[i] == choice->spec.scale_dtype || !scales_fit(q, others[i])) continue;
        if (try_spec(&other, q, to, arena, &ignored)) continue;
        *choice = other;
        return 0;
    }
    return rc;
}

int nb_convert_spec(struct nb_convert_choice *out, const struct nb_qmat *q,
                    const struct nb_convert_sizes *sizes, const struct nb_checkpoint *to,
                    struct nb_arena *arena, struct nb_err *err)
{
    struct nb_err ignored;
    struct nb_qspec *s = &out->spec;
    *s = q->spec;
    restore_groups(s, q, sizes);
    s->zero_implied = s->zero == NB_ZERO_CODE && s->symmetric && to->implies_zeros;
    out->order = sizes->order && s->group_cols > 0 && s->group_rows <= 1;
    if (s->act == NB_ACT_INT8_OUTLIER && strcmp(to->name, "bnb")) {
        s->act = NB_ACT_INT8_TOKEN;
        s->act_threshold = 0;
    }
    int rc = try_types(out, q, to, arena, err);
    if (rc != NB_E_SPEC || s->group_cols > 0 || s->group_rows > 1) return rc;
    struct nb_convert_choice grouped = {.spec = *s, .order = sizes->order};
    grouped.spec.group_cols =
        q->cols; /* without "per channel" there is perhaps a group of that size */
    if (try_types(&grouped, q, to, arena, &ignored)) return rc;
    *out = grouped;
    return 0;
}

static bool same_floats(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (a[i] != b[i]) return false;
    }
    return true;
}

int nb_convert_compare(const struct nb_qmat *a, const struct nb_qmat *b, struct nb_err *err)
{
    const int64_t n = nb_qmat_planes(a), supers = a->scale.super ? nb_qmat_supers(a) : 0;
    const char *differs = NULL;
    bool same_order = true;
    if (a->rows != b->rows || a->cols != b->cols || n != nb_qmat_planes(b) ||
        a->spec.elem.kind != b->spec.elem.kind || a->spec.elem.bits != b->spec.elem.bits ||
        a->spec.zero != b->spec.zero || !a->scale.super != !b->scale.super)
        return nb_fail(err, NB_E_FAIL, "what was written reads back as a matrix of another kind");
    for (int64_t k = 0; k < a->cols && !a->spec.flat; k++)
        same_order = same_order && nb_qmat_group(a, k) == nb_qmat_group(b, k);
    if (memcmp(a->codes, b->codes, (size_t)(a->rows * a->cols))) differs = "codes";
    else if (!same_floats(a->scale.value, b->scale.value, n)) differs = "scales";
    else if (a->spec.zero == NB_ZERO_CODE && !same_floats(a->zero.value, b->zero.value, n))
        differs = "zero points";
    else if (supers && (!same_floats(a->scale.super, b->scale.super, supers) ||
                        memcmp(a->scale.codes, b->scale.codes, (size_t)n)))
        differs = "scale codes";
    else if (a->input_scale != b->input_scale) differs = "input scale";
    else if (!same_order) differs = "order";
    return differs ? nb_fail(err, NB_E_FAIL, "what was written reads back with other %s", differs)
                   : 0;
}
