/* SPDX-License-Identifier: Apache-2.0
 *
 * ct.c - compressed-tensors: the row of the table, and reading. Layouts stand in ct.h.
 *
 * 3, 5, 6 and 7 bits were packed differently before May 2026: whole fields only, floor(32 / b) to a word. The number
 * of columns tells which; where both give the same number the file is refused rather than guessed at. */
#include "checkpoint/ct.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fp8.h"
#include "checkpoint/bitpack.h"

struct found { /* the tensors of one module and what they hold */
    const struct nb_ct_scheme *scheme;
    struct nb_qspec spec;
    bool sparse_words; /* the packing of before */
    const struct nb_tensor *weight, *scale, *zero, *shape, *g_idx, *global, *input;
};

/* ---- the row ---- */

static bool probe(const json_t *quant_config)
{
    char method[32];
    nb_quant_config_method(quant_config, method);
    return !strcmp(method, "compressed-tensors");
}

static void release(void *state)
{
    nb_ct_config_free(state);
}

struct asking {
    const struct nb_ct_config *config;
    struct nb_err *err;
};

/* Patterns are tried on every name once, so that one that takes too long is an error and not a float module. */
static int try_names(void *ctx, const struct nb_part *part)
{
    const struct asking *a = ctx;
    const struct nb_ct_scheme *scheme;
    char path[sizeof part->name];
    if (part->kind != NB_PART_WEIGHT && part->kind != NB_PART_HEAD) return 0;
    snprintf(path, sizeof path, "%s", part->name);
    char *dot = strrchr(path, '.');
    if (dot) *dot = '\0';
    return nb_ct_config_find(a->config, path, &scheme, a->err);
}

static int parse(struct nb_model *m, void **state, struct nb_err *err)
{
    struct nb_ct_config *c = NULL;
    int rc = nb_ct_config_new(&c, m->quant_config, err);
    struct asking a = {c, err};
    if (!rc && m->arch.n_layers > 0) rc = nb_model_each_part(&m->arch, try_names, &a);
    if (rc) {
        nb_ct_config_free(c);
        c = NULL;
    }
    *state = c;
    return rc;
}

static bool is_quantized(const struct nb_model *m, const char *path)
{
    const struct nb_ct_scheme *scheme;
    return !nb_ct_config_find(m->checkpoint_state, path, &scheme, NULL) && scheme;
}

static bool owns(const struct nb_model *m, const char *path, const char *suffix)
{
    static const char *const always[] = {".weight_scale", ".weight_zero_point"};
    static const char *const kv[] = {".output_scale", ".k_scale", ".v_scale"};
    const struct nb_ct_scheme *s;
    if (nb_ct_config_find(m->checkpoint_state, path, &s, NULL) || !s) return false;
    const bool packed = s->layout == NB_CT_PACKED, static_input = nb_ct_act_is_static(s->spec.act);
    const bool named = s->layout == NB_CT_PLAIN || s->layout == NB_CT_MXFP8;
    if (!strcmp(suffix, ".weight")) return named;
    if (!strcmp(suffix, ".weight_packed")) return !named;
    if (!strcmp(suffix, ".weight_shape") || !strcmp(suffix, ".weight_g_idx")) return packed;
    if (!strcmp(suffix, ".weight_global_scale")) return s->layout == NB_CT_NVFP4;
    if (!strcmp(suffix, ".input_scale") || !strcmp(suffix, ".input_zero_point"))
        return static_input;
    if (!strcmp(suffix, ".input_global_scale")) return s->spec.act == NB_ACT_NVFP4;
    for (size_t i = 0; i < sizeof always / sizeof *always; i++) {
        if (!strcmp(suffix, always[i])) return true;
    }
    for (size_t i = 0; i < sizeof kv / sizeof *kv;
         i++) { /* older spellings of attention's scales */
        if (!strcmp(suffix, kv[i])) return nb_ct_config_has_kv(m->checkpoint_state);
    }
    return false;
}

/* ---- finding ---- */

static int64_t sparse_words(int64_t n, int bits)
{
    const int64_t per_word = 32 / bits;
    return (n + per_word - 1) / per_word;
}

/* Which packing has weight_packed? */
static int choose_packing(struct found *f, const struct nb_model *m, const char *path, int64_t rows,
                          int64_t cols, struct nb_err *err)
{
    const int bits = f->spec.elem.bits;
    const struct nb_tensor *t = nb_module_tensor(m, path, ".weight_packed");
    if (32 % bits == 0 || !t || t->rank != 2) return 0;
    const int64_t dense = (int64_t)nb_bits_words((size_t)cols, bits),
                  before = sparse_words(cols, bits);
    f->sparse_words = t->shape[1] == before && before != dense;
    if (t->shape[1] != before || before != dense || cols <= 32 / bits) return 0;
    return nb_fail(err, NB_E_SPEC,
                   "tensor '%s' of %" PRId64 " x %" PRId64
                   " codes of %d bits: its shape does not tell which of two packings it is in",
                   t->name, rows, cols, bits);
}

/* The planned shape with what readers allow beside: an empty shape for [1], E8M0 for the same bytes as U8. */
static void allow(const struct found *f, const struct nb_model *m, const char *path, int64_t rows,
                  int64_t cols, struct nb_packed_tensor *want)
{
    const struct nb_tensor *t = nb_module_tensor(m, path, want->suffix);
    const bool packed_weight = !strcmp(want->suffix, ".weight_packed");
    if (!t) return;
    if (want->rank == 1 && want->shape[0] == 1 && t->rank == 0) want->rank = 0;
    if (want->dtype == NB_U8 && t->dtype == NB_F8_E8M0 && !packed_weight) want->dtype = NB_F8_E8M0;
    if (!strcmp(want->suffix, ".input_scale")) want->dtype = NB_F16; /* any float */
    if (!f->sparse_words) return;
    if (packed_weight) want->shape[1] = sparse_words(cols, f->spec.elem.bits);
    if (!strcmp(want->suffix, ".weight_zero_point"))
        want->shape[0] = sparse_words(rows, f->spec.elem.bits);
}

static const struct nb_tensor **slot(struct found *f, const char *suffix)
{
    if (!strcmp(suffix, ".weight") || !strcmp(suffix, ".weight_packed")) return &f->weight;
    if (!strcmp(suffix, ".weight_scale")) return &f->scale;
    if (!strcmp(suffix, ".weight_zero_point")) return &f->zero;
    if (!strcmp(suffix, ".weight_shape")) return &f->shape;
    if (!strcmp(suffix, ".weight_g_idx")) return &f->g_idx;
    if (!strcmp(suffix, ".weight_global_scale")) return &f->global;
    return &f->input;
}

static int check_shape(const struct found *f, const char *path, int64_t rows, int64_t cols,
                       struct nb_err *err)
{
    const struct nb_qspec *s = &f->spec;
    if (s->group_rows <= 1 && s->group_cols > 0 && cols % s->group_cols) {
        return nb_fail(err, NB_E_FORMAT,
                       "'%s' has %" PRId64 " inputs, which groups of %" PRId64 " do not divide",
                       path, cols, s->group_cols);
    }
    if (!f->shape) return 0;
    int64_t shape[2];
    memcpy(shape, f->shape->data.data, sizeof shape);
    if (shape[0] == rows && shape[1] == cols) return 0;
    return nb_fail(err, NB_E_FORMAT,
                   "tensor '%s' says [%" PRId64 ",%" PRId64 "], the config expects [%" PRId64
                   ",%" PRId64 "]",
                   f->shape->name, shape[0], shape[1], rows, cols);
}

static int find(const struct nb_model *m, const char *path, int64_t rows, int64_t cols,
                struct found *f, struct nb_err *err)
{
    struct nb_packed_tensor want[NB_MAX_PACKED];
    memset(f, 0, sizeof *f);
    int rc = nb_ct_config_find(m->checkpoint_state, path, &f->scheme, err);
    if (rc) return rc;
    if (!f->scheme) return nb_fail(err, NB_E_FORMAT, "'%s' is not quantized", path);
    f->spec = f->scheme->spec;
    rc = choose_packing(f, m, path, rows, cols, err);
    const struct nb_pack_opts opts = {.source = NB_F16, .order = f->scheme->g_idx};
    const int n = nb_ct_plan_as(f->scheme->layout, &f->spec, rows, cols, &opts, want);
    for (int i = 0; i < n && !rc; i++) {
        allow(f, m, path, rows, cols, &want[i]);
        rc = nb_module_need(m, path, &want[i], slot(f, want[i].suffix), err);
    }
    if (rc) return rc;
    if (f->scale->dtype == NB_F16 || f->scale->dtype == NB_BF16 || f->scale->dtype == NB_F32)
        f->spec.scale_dtype = f->scale->dtype;
    return check_shape(f, path, rows, cols, err);
}

static int check(const struct nb_model *m, const char *path, int64_t rows, int64_t cols,
                 struct nb_err *err)
{
    struct found f;
    return find(m, path, rows, cols, &f, err);
}

/* ---- codes ---- */

static int read_packed_codes(struct nb_qmat *q, const struct found *f)
{
    const int bits = q->spec.elem.bits;
    const int64_t words = f->weight->shape[1], per_word = 32 / bits;
    for (int64_t n = 0; n < q->rows; n++) {
        const unsigned char *row = f->weight->data.data + 4 * n * words;
        uint8_t *codes = q->codes + n * q->cols;
        if (!f->sparse_words) {
            nb_bits_unpack(codes, row, 1, bits, (size_t)q->cols);
            continue;
        }
        for (int64_t k = 0; k < q->cols; k += per_word) {
            const int64_t fields = q->cols - k < per_word ? q->cols - k : per_word;
            nb_bits_unpack(codes + k, row + k / per_word * 4, 1, bits, (size_t)fields);
        }
    }
    return 0;
}

static int read_int8_codes(struct nb_qmat *q, const struct found *f, struct nb_err *err)
{
    const int half = 1 << (q->spec.elem.bits - 1);
    const int64_t n = q->rows * q->cols;
    const unsigned char *in = f->weight->data.data;
    unsigned most = 0;
    for (int64_t i = 0; i < n; i++) {
        const unsigned code = (unsigned)(in[i] + half) & 255u;
        q->codes[i] = (uint8_t)code;
        most = code > most ? code : most;
    }
    if (most < 2u * (unsigned)half) return 0;
    return nb_fail(err, NB_E_FORMAT, "tensor '%s' holds codes beyond %d bits, %d to %d",
                   f->weight->name, q->spec.elem.bits, -half, half - 1);
}

static int read_e4m3_codes(struct nb_qmat *q, const struct found *f, struct nb_err *err)
{
    const int64_t n = q->rows * q->cols;
    bool nan = false;
    memcpy(q->codes, f->weight->data.data, (size_t)n);
    for (int64_t i = 0; i < n; i++) nan |= (q->codes[i] & 0x7f) == 0x7f;
    return nan ? nb_fail(err, NB_E_FORMAT, "tensor '%s' holds NaN", f->weight->name) : 0;
}

static int read_fp4_codes(struct nb_qmat *q, const struct found *f)
{
    const int64_t n = q->rows * q->cols;
    const unsigned char *in = f->weight->data.data;
    for (int64_t i = 0; i + 1 < n; i += 2) {
        q->codes[i] = in[i / 2] & 15;
        q->codes[i + 1] = in[i / 2] >> 4;
    }
    return 0;
}

static int read_codes(struct nb_qmat *q, const struct found *f, struct nb_err *err)
{
    switch (f->scheme->layout) {
    case NB_CT_PACKED: return read_packed_codes(q, f);
    case NB_CT_NVFP4:
    case NB_CT_MXFP4: return read_fp4_codes(q, f);
    default: break;
    }
    return q->spec.elem.kind == NB_ELEM_INT ? read_int8_codes(q, f, err)
                                            : read_e4m3_codes(q, f, err);
}

/* ---- scales and zeros ---- */

/* Of integers a scale may be negative (the largest magnitude then stands at the lowest code), of floats not. */
static int check_scale(const struct nb_tensor *t, float s, bool may_be_negative, int64_t at,
                       struct nb_err *err)
{
    if (isfinite(s) && (may_be_negative || s >= 0.0f)) return 0;
    return nb_fail(err, NB_E_FORMAT, "tensor '%s': scale %" PRId64 " is %g", t->name, at,
                   (double)s);
}

static int read_one(const struct nb_tensor *t, float *out, struct nb_err *err)
{
    nb_to_f32(out, t->data.data, t->dtype, 1);
    if (isfinite(*out) && *out > 0.0f) return 0;
    return nb_fail(err, NB_E_FORMAT, "tensor '%s' holds %g, expected a positive number", t->name,
                   (double)*out);
}

static int read_scales(struct nb_qmat *q, const struct found *f, struct nb_err *err)
{
    const int64_t n = nb_qmat_planes(q);
    const struct nb_tensor *t = f->scale;
    const bool exponents = f->scheme->layout == NB_CT_MXFP4 || f->scheme->layout == NB_CT_MXFP8;
    int rc = 0;
    if (f->scheme->layout == NB_CT_NVFP4) {
        rc = read_one(f->global, q->scale.super, err);
        memcpy(q->scale.codes, t->data.data, (size_t)n);
        for (int64_t i = 0; i < nb_qmat_group_rows(q); i++) nb_qmat_fill_values(q, i);
    } else {
        nb_to_f32(q->scale.value, t->data.data, exponents ? NB_F8_E8M0 : t->dtype, (size_t)n);
    }
    const bool sign = q->spec.elem.kind == NB_ELEM_INT;
    for (int64_t i = 0; i < n && !rc; i++) rc = check_scale(t, q->scale.value[i], sign, i, err);
    return rc;
}

/* Stored zeros of a packed module, group by group; fields: [rows]. */
static void unpack_zeros(struct nb_qmat *q, const struct found *f, uint8_t *fields)
{
    const int bits = q->spec.elem.bits;
    const size_t rows = (size_t)q->rows, groups = (size_t)q->n_groups, per_word = 32 / (size_t)bits;
    for (size_t g = 0; g < groups; g++) {
        const unsigned char *words = f->zero->data.data + 4 * g;
        if (!f->sparse_words) nb_bits_unpack(fields, words, groups, bits, rows);
        for (size_t n = 0; f->sparse_words && n < rows; n += per_word) {
            const size_t count = rows - n < per_word ? rows - n : per_word;
            nb_bits_unpack(fields + n, words + n / per_word * groups * 4, groups, bits, count);
        }
        for (size_t n = 0; n < rows; n++) q->zero.value[n * groups + g] = fields[n];
    }
}

static int read_zeros(struct nb_qmat *q, const struct found *f, struct nb_arena *arena,
                      struct nb_err *err)
{
    const int half = 1 << (q->spec.elem.bits - 1);
    const int64_t n = nb_qmat_planes(q);
    if (q->spec.zero != NB_ZERO_CODE) return 0;
    if (q->spec.symmetric) {
        for (int64_t i = 0; i < n; i++) q->zero.value[i] = (float)half;
        return 0;
    }
    if (f->scheme->layout == NB_CT_PACKED) {
        uint8_t *fields = nb_arena_alloc(arena, (size_t)q->rows, 1);
        if (!fields)
            return nb_fail(err, NB_E_NOMEM, "no memory for the zeros of %" PRId64 " outputs",
                           q->rows);
        unpack_zeros(q, f, fields);
        return 0;
    }
    for (int64_t i = 0; i < n; i++) {
        const int z = (int8_t)f->zero->data.data[i] + half;
        if (z < 0 || z >= 2 * half)
            return nb_fail(err, NB_E_FORMAT,
                           "tensor '%s': zero point %" PRId64 " is %d, beyond %d bits",
                           f->zero->name, i, z - half, q->spec.elem.bits);
        q->zero.value[i] = (float)z;
    }
    return 0;
}

/* Zero points that a symmetric grid needs none of, written all the same by old tools: only zeros are harmless. */
static int check_no_zeros(const struct nb_model *m, const char *path, const char *suffix,
                          struct nb_err *err)
{
    const struct nb_tensor *t = nb_module_tensor(m, path, suffix);
    for (size_t i = 0; t && i < t->data.bytes; i++) {
        if (t->data.data[i])
            return nb_fail(err, NB_E_FORMAT,
                           "tensor '%s' holds zero points, but the config says symmetric", t->name);
    }
    return 0;
}

/* ---- order and inputs ---- */

/* Minus one throughout: the tool had room for an order and used none. */
static int read_order(struct nb_qmat *q, const struct found *f, struct nb_arena *arena,
                      struct nb_err *err)
{
    bool plain = true, unset = true;
    if (!f->g_idx) return 0;
    int32_t *order = nb_arena_alloc(arena, (size_t)q->cols, sizeof *order);
    if (!order) return nb_fail(err, NB_E_NOMEM, "no memory for %" PRId64 " group numbers", q->cols);
    memcpy(order, f->g_idx->data.data, (size_t)q->cols * sizeof *order);
    for (int64_t k = 0; k < q->cols; k++) unset = unset && order[k] == -1;
    if (unset) return 0;
    for (int64_t k = 0; k < q->cols; k++) {
        if (order[k] < 0 || order[k] >= q->n_groups)
            return nb_fail(err, NB_E_FORMAT,
                           "tensor '%s': group %" PRId32 " of input %" PRId64 ", there are %" PRId64
                           " groups",
                           f->g_idx->name, order[k], k, q->n_groups);
        plain = plain && order[k] == k / q->spec.group_cols;
    }
    if (!plain) q->col_group = order;
    return 0;
}

/* Does a file whose config knows no order hold one? */
static int check_no_order(const struct nb_model *m, const struct found *f, const char *path,
                          const struct nb_qmat *q, struct nb_err *err)
{
    const struct nb_tensor *t = nb_module_tensor(m, path, ".weight_g_idx");
    if (!t || f->g_idx) return 0;
    for (int64_t k = 0; k < q->cols && t->dtype == NB_I32 && nb_tensor_count(t) == q->cols; k++) {
        int32_t g;
        memcpy(&g, t->data.data + 4 * k, 4);
        if (g == -1 || g == k / q->spec.group_cols) continue;
        return nb_fail(err, NB_E_FORMAT,
                       "tensor '%s' orders the inputs, but the config says no actorder group",
                       t->name);
    }
    return 0;
}

static int read_module(const struct nb_model *m, const struct nb_module_ref *ref,
                       struct nb_arena *arena, struct nb_qmat *out, struct nb_err *err)
{
    struct found f;
    int rc = find(m, ref->path, ref->rows, ref->cols, &f, err);
    if (!rc) rc = nb_qmat_init(out, &f.spec, ref->rows, ref->cols, arena, err);
    if (!rc) rc = read_codes(out, &f, err);
    if (!rc) rc = read_scales(out, &f, err);
    if (!rc) rc = read_zeros(out, &f, arena, err);
    if (!rc) rc = read_order(out, &f, arena, err);
    if (!rc) rc = check_no_order(m, &f, ref->path, out, err);
    if (!rc && !f.zero) rc = check_no_zeros(m, ref->path, ".weight_zero_point", err);
    if (!rc) rc = check_no_zeros(m, ref->path, ".input_zero_point", err);
    if (!rc && f.input) rc = read_one(f.input, &out->input_scale, err);
    return rc;
}

const struct nb_checkpoint nb_checkpoint_ct = {
    .name = "compressed-tensors",
    .summary = "vLLM's own: integers, float8 and float4, with or without quantized activations",
    .probe = probe,
    .parse = parse,
    .release = release,
    .is_quantized = is_quantized,
    .check = check,
    .read = read_module,
    .owns = owns,
    .can_write = nb_ct_can_write,
    .plan = nb_ct_plan,
    .pack = nb_ct_pack,
    .can_describe = nb_ct_can_describe,
    .config = nb_ct_config_make,
    .sym_default = true,
    .scale_dtype = NB_BF16,
    .zero_min = 0,
    .kv_scales = true,
    .implies_zeros = true,
};
