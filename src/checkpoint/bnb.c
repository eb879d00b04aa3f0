/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb.c - bitsandbytes' layouts: NF4 and FP4, plain or with nested absmax, and LLM.int8.
 *
 *   4 bit   P.weight                 U8 [n/2, 1], or the same bytes as BF16, F16, F32
 *                                    code 2i of the flat matrix in the high nibble of byte i, 2i + 1 in the low one
 *           P.weight.absmax          F32 [blocks]; nested: U8, a code of the dynamic map
 *           P.weight.quant_map       F32 [16]
 *           P.weight.nested_absmax   F32 [blocks / 256], P.weight.nested_quant_map F32 [256]
 *           P.weight.quant_state.bitsandbytes__nf4 (or __fp4)   U8, JSON: bnb_state.c
 *   8 bit   P.weight                 I8 [N, K]
 *           P.SCB                    F32 [N], w = q * SCB / 127
 *           P.weight_format          U8 [], 0
 *
 * A module is quantized if the file holds its quant_state or SCB. Source: checkpoint formats, section 4. */
#include "checkpoint/bnb.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "checkpoint/internal.h"
#include "numeric/elems.h"

const char *const nb_bnb_suffixes_8bit[NB_BNB_TENSORS_8BIT] = {".weight", ".SCB", ".weight_format"};

const char *nb_bnb_suffix(enum nb_bnb_tensor t, bool nf4)
{
    static const char *const suffixes[NB_BNB_TENSORS_4BIT] = {
        [NB_BNB_WEIGHT] = ".weight",
        [NB_BNB_ABSMAX] = ".weight.absmax",
        [NB_BNB_QUANT_MAP] = ".weight.quant_map",
        [NB_BNB_STATE] = ".weight.quant_state.bitsandbytes__nf4",
        [NB_BNB_NESTED_ABSMAX] = ".weight.nested_absmax",
        [NB_BNB_NESTED_MAP] = ".weight.nested_quant_map",
    };
    if (t == NB_BNB_STATE && !nf4) return ".weight.quant_state.bitsandbytes__fp4";
    return suffixes[t];
}

bool nb_bnb_is_nf4(const struct nb_qspec *spec)
{
    return spec->elem.kind == NB_ELEM_TABLE && spec->elem.table == nb_nf4_values;
}

bool nb_bnb_is_4bit(const struct nb_qspec *spec)
{
    return nb_bnb_is_nf4(spec) ||
           (spec->elem.kind == NB_ELEM_TABLE && spec->elem.table == nb_fp4_values);
}

bool nb_bnb_is_block_size(int64_t n)
{
    return n >= 32 && n <= 4096 && !(n & (n - 1));
}

static int parse(struct nb_model *m, void **state, struct nb_err *err)
{
    struct nb_bnb_config c;
    int rc = nb_bnb_config_parse(&c, m->quant_config, err);
    if (rc) return rc;
    struct nb_bnb_config *kept = nb_xalloc(sizeof *kept);
    *kept = c;
    *state = kept;
    return 0;
}

static void release(void *state)
{
    nb_free(state);
}

static const struct nb_tensor *blob_of(const struct nb_model *m, const char *path, bool nf4)
{
    return nb_module_tensor(m, path, nb_bnb_suffix(NB_BNB_STATE, nf4));
}

static bool is_4bit(const struct nb_model *m, const char *path)
{
    return blob_of(m, path, true) || blob_of(m, path, false);
}

static bool is_quantized(const struct nb_model *m, const char *path)
{
    return is_4bit(m, path) || nb_module_tensor(m, path, nb_bnb_suffixes_8bit[NB_BNB_SCB]);
}

static bool owns(const struct nb_model *m, const char *path, const char *suffix)
{
    if (!is_4bit(m, path)) {
        for (int i = 0; i < NB_BNB_TENSORS_8BIT; i++) {
            if (!strcmp(suffix, nb_bnb_suffixes_8bit[i])) return true;
        }
        return false;
    }
    const bool nf4 = blob_of(m, path, true) != NULL;
    for (int i = 0; i < NB_BNB_TENSORS_4BIT; i++) {
        if (!strcmp(suffix, nb_bnb_suffix((enum nb_bnb_tensor)i, nf4))) return true;
    }
    return false;
}

/* ---- what a module consists of ---- */

struct found {
    struct nb_qspec spec;
    struct nb_bnb_state state; /* 4 bit */
    const struct nb_tensor *tensor[NB_MAX_PACKED];
};

static int need_all(const struct nb_model *m, const char *path, struct nb_packed_tensor *want,
                    int n, struct found *f, struct nb_err *err)
{
    int rc = 0;
    for (int i = 0; i < n && !rc; i++) {
        rc = nb_module_need(m, path, &want[i], &f->tensor[i], err);
        if (!rc &&
            f->tensor[i]->dtype != want[i].dtype) { /* nb_module_need lets floats pass for F16 */
            rc = nb_fail(err, NB_E_FORMAT, "tensor '%s' has type %s, bitsandbytes has %s there",
                         f->tensor[i]->name, nb_dtype_name(f->tensor[i]->dtype),
                         nb_dtype_name(want[i].dtype));
        }
    }
    return rc;
}

static int check_map(const struct nb_tensor *t, const float *table, int n, struct nb_err *err)
{
    for (int i = 0; i < n; i++) {
        float v;
        memcpy(&v, t->data.data + sizeof v * (size_t)i, sizeof v);
        if (fabsf(v - table[i]) <= 1e-6f) continue;
        return nb_fail(err, NB_E_FORMAT,
                       "tensor '%s': value %d is %.9g, bitsandbytes' table has %.9g there", t->name,
                       i, (double)v, (double)table[i]);
    }
    return 0;
}

/* The blob agrees with its tensor's name, with the linear, and with the tensors beside it. */
static int check_state(const struct nb_model *m, const struct nb_module_ref *ref,
                       const struct nb_tensor *blob, bool nf4, const struct nb_bnb_state *s,
                       struct nb_err *err)
{
    if (s->nf4 != nf4) {
        return nb_fail(err, NB_E_FORMAT, "tensor '%s': quant_type is %s", blob->name,
                       s->nf4 ? "nf4" : "fp4");
    }
    if (s->rows != ref->rows || s->cols != ref->cols) {
        return nb_fail(err, NB_E_FORMAT,
                       "tensor '%s': shape is %" PRId64 " x %" PRId64
                       ", the architecture has %" PRId64 " x %" PRId64,
                       blob->name, s->rows, s->cols, ref->rows, ref->cols);
    }
    const char *left_over = NULL;
    for (int i = NB_BNB_NESTED_ABSMAX; i < NB_BNB_TENSORS_4BIT && !s->nested; i++) {
        const char *suffix = nb_bnb_suffix((enum nb_bnb_tensor)i, nf4);
        if (nb_module_tensor(m, ref->path, suffix)) left_over = suffix;
    }
    if (left_over) {
        return nb_fail(err, NB_E_FORMAT,
                       "tensor '%s%s' is there, but '%s' says nothing of nested absmax", ref->path,
                       left_over, blob->name);
    }
    return 0;
}

static struct nb_qspec spec_of_state(const struct nb_bnb_state *s)
{
    struct nb_qspec spec = {.elem = s->nf4 ? nb_elem_nf4 : nb_elem_fp4,
                            .group_rows = 1,
                            .group_cols = s->block,
                            .flat = true,
                            .scale_dtype = NB_F32,
                            .zero = NB_ZERO_NONE};
    if (!s->nested) return spec;
    spec.super_groups = 256;
    spec.super_flat = true;
    spec.scale_bits = 8;
    spec.scale_table = nb_dynamic_map;
    return spec;
}

static int find_4bit(const struct nb_model *m, const struct nb_module_ref *ref, struct found *f,
                     struct nb_err *err)
{
    const bool nf4 = blob_of(m, ref->path, true) != NULL;
    const struct nb_tensor *blob = blob_of(m, ref->path, nf4);
    if (nf4 && blob_of(m, ref->path, false)) {
        return nb_fail(err, NB_E_FORMAT, "'%s' has a quant_state of nf4 and one of fp4", ref->path);
    }
    if (blob->dtype != NB_U8 || blob->rank != 1) {
        return nb_fail(err, NB_E_FORMAT, "tensor '%s' is no list of U8", blob->name);
    }
    int rc = nb_bnb_state_parse(&f->state, blob->data, blob->name, err);
    if (!rc) rc = check_state(m, ref, blob, nf4, &f->state, err);
    if (rc) return rc;
    f->spec = spec_of_state(&f->state);
    const struct nb_tensor *weight = nb_module_tensor(m, ref->path, ".weight");
    const struct nb_pack_opts opts = {.source = f->state.dtype,
                                      .storage = weight ? weight->dtype : NB_U8};
    struct nb_packed_tensor want[NB_MAX_PACKED];
    const int n = nb_bnb_plan(&f->spec, ref->rows, ref->cols, &opts, want);
    want[NB_BNB_STATE].shape[0] = blob->shape[0];
    rc = need_all(m, ref->path, want, n, f, err);
    if (!rc && f->tensor[NB_BNB_WEIGHT]->data.bytes != (size_t)((ref->rows * ref->cols + 1) / 2)) {
        rc = nb_fail(err, NB_E_FORMAT, "tensor '%s' has %zu bytes, two codes in one make %" PRId64,
                     f->tensor[NB_BNB_WEIGHT]->name, f->tensor[NB_BNB_WEIGHT]->data.bytes,
                     (ref->rows * ref->cols + 1) / 2);
    }
    if (!rc) rc = check_map(f->tensor[NB_BNB_QUANT_MAP], f->spec.elem.table, 16, err);
    if (!rc && f->state.nested)
        rc = check_map(f->tensor[NB_BNB_NESTED_MAP], nb_dynamic_map, 256, err);
    return rc;
}

static int find_8bit(const struct nb_model *m, const struct nb_module_ref *ref, struct found *f,
                     struct nb_err *err)
{
    const struct nb_bnb_config *c = m->checkpoint_state;
    f->spec = (struct nb_qspec){.elem = {.kind = NB_ELEM_INT, .bits = 8, .vec = 1},
                                .group_rows = 1,
                                .group_cols = -1,
                                .scale_dtype = NB_F32,
                                .zero = NB_ZERO_CODE,
                                .symmetric = true,
                                .zero_implied = true,
                                .act = NB_ACT_INT8_OUTLIER,
                                .act_threshold = c->threshold};
    struct nb_packed_tensor want[NB_MAX_PACKED];
    nb_bnb_plan(&f->spec, ref->rows, ref->cols, NULL, want);
    int rc = need_all(m, ref->path, want, NB_BNB_FORMAT, f, err);
    const struct nb_tensor *format =
        nb_module_tensor(m, ref->path, nb_bnb_suffixes_8bit[NB_BNB_FORMAT]);
    if (rc || !format) return rc; /* files from before there were formats have none */
    if (format->dtype != NB_U8 || format->data.bytes != 1 || format->data.data[0] != 0) {
        return nb_fail(err, NB_E_FORMAT,
                       "tensor '%s' is not the U8 number 0, the only layout in use", format->name);
    }
    return 0;
}

static int find(const struct nb_model *m, const struct nb_module_ref *ref, struct found *f,
                struct nb_err *err)
{
    memset(f, 0, sizeof *f);
    size_t n;
    if (ref->rows <= 0 || ref->cols <= 0 || !nb_mul((size_t)ref->rows, (size_t)ref->cols, &n) ||
        n > INT64_MAX / 2) {
        return nb_fail(err, NB_E_FORMAT, "'%s' of %" PRId64 " x %" PRId64 " is no matrix",
                       ref->path, ref->rows, ref->cols);
    }
    return is_4bit(m, ref->path) ? find_4bit(m, ref, f, err) : find_8bit(m, ref, f, err);
}

static int check(const struct nb_model *m, const char *path, int64_t rows, int64_t cols,
                 struct nb_err *err)
{
    const struct nb_module_ref ref = {path, rows, cols};
    struct found f;
    return find(m, &ref, &f, err);
}

/* ---- reading ---- */

/* F32 numbers that are finite and not negative. */
static int read_scales(float *out, const struct nb_tensor *t, int64_t n, struct nb_err *err)
{
    memcpy(out, t->data.data, (size_t)n * sizeof *out);
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(out[i]) && out[i] >= 0) continue;
        return nb_fail(err, NB_E_FORMAT,
                       "tensor '%s' holds %g at element %" PRId64 ", expected a finite number >= 0",
                       t->name, (double)out[i], i);
    }
    return 0;
}

static int read_4bit(struct nb_qmat *q, const struct found *f, struct nb_err *err)
{
    const unsigned char *bytes = f->tensor[NB_BNB_WEIGHT]->data.data;
    const int64_t n = q->rows * q->cols;
    const struct nb_tensor *absmax = f->tensor[NB_BNB_ABSMAX];
    for (int64_t i = 0; i < n / 2; i++) {
        q->codes[2 * i] = bytes[i] >> 4;
        q->codes[2 * i + 1] = bytes[i] & 15;
    }
    if (n % 2) q->codes[n - 1] = bytes[n / 2] >> 4;
    if (!f->state.nested) return read_scales(q->scale.value, absmax, nb_qmat_planes(q), err);
    memcpy(q->scale.codes, absmax->data.data, (size_t)nb_qmat_planes(q));
    q->scale.offset = f->state.offset;
    int rc = read_scales(q->scale.super, f->tensor[NB_BNB_NESTED_ABSMAX], nb_qmat_supers(q), err);
    for (int64_t g = 0; g < nb_qmat_group_rows(q) && !rc; g++) nb_qmat_fill_values(q, g);
    for (int64_t i = 0; i < nb_qmat_planes(q) && !rc; i++) {
        if (isfinite(q->scale.value[i])) continue;
        rc = nb_fail(err, NB_E_FORMAT, "tensor '%s': element %" PRId64 " means an absmax of %g",
                     absmax->name, i, (double)q->scale.value[i]);
    }
    return rc;
}

static int read_8bit(struct nb_qmat *q, const struct found *f, struct nb_err *err)
{
    const unsigned char *bytes = f->tensor[NB_BNB_CODES]->data.data;
    const int64_t n = q->rows * q->cols;
    int rc = read_scales(q->scale.value, f->tensor[NB_BNB_SCB], q->rows, err);
    for (int64_t i = 0; i < q->rows; i++) {
        q->scale.value[i] /= 127.0f;
        q->zero.value[i] = 128.0f;
    }
    for (int64_t i = 0; i < n; i++) q->codes[i] = bytes[i] ^ 128;
    return rc;
}

static int read_module(const struct nb_model *m, const struct nb_module_ref *ref,
                       struct nb_arena *arena, struct nb_qmat *out, struct nb_err *err)
{
    struct found f;
    int rc = find(m, ref, &f, err);
    if (!rc) rc = nb_qmat_init(out, &f.spec, ref->rows, ref->cols, arena, err);
    if (rc) return rc;
    return is_4bit(m, ref->path) ? read_4bit(out, &f, err) : read_8bit(out, &f, err);
}

const struct nb_checkpoint nb_checkpoint_bnb = {
    .name = "bnb",
    .summary = "bitsandbytes: NF4, FP4 and LLM.int8, what QLoRA starts from",
    .probe = nb_bnb_config_probe,
    .parse = parse,
    .release = release,
    .is_quantized = is_quantized,
    .check = check,
    .read = read_module,
    .owns = owns,
    .can_write = nb_bnb_can_write,
    .plan = nb_bnb_plan,
    .pack = nb_bnb_pack,
    .can_describe = nb_bnb_can_describe,
    .config = nb_bnb_config_make,
    .sym_default = true,
    .scale_dtype = NB_F32,
    .zero_min = 0,
};
