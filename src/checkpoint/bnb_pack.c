/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb_pack.c - a quantized linear as bitsandbytes' tensors. Layouts: bnb.c. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "checkpoint/bnb.h"
#include "checkpoint/internal.h"
#include "numeric/elems.h"

enum { NEST = 256, MIN_BLOCK = 32, MAX_BLOCK = 4096 };

static int64_t parts_of(int64_t n, int64_t size)
{
    return n / size + (n % size != 0);
}

/* ---- what can be written ---- */

static int can_write_4bit(const struct nb_qspec *spec, int64_t cols, struct nb_err *err)
{
    if (spec->zero != NB_ZERO_NONE || spec->scale_dtype != NB_F32 || spec->group_rows > 1) {
        return nb_fail(
            err, NB_E_SPEC,
            "bitsandbytes keeps one F32 absmax per block and no zeros; nearest: NF4 or FP4 "
            "with F32 scales");
    }
    if (!nb_bnb_is_block_size(spec->group_cols) || (!spec->flat && cols % spec->group_cols)) {
        return nb_fail(err, NB_E_SPEC,
                       "bitsandbytes has blocks of 32, 64, 128 ... 4096 weights across the ends of "
                       "rows, not groups of %" PRId64 "; nearest: 64",
                       spec->group_cols);
    }
    const bool nested = spec->super_groups != 0;
    if (nested && (spec->super_groups != NEST || !spec->super_flat || spec->super_divides ||
                   spec->scale_bits != 8 || spec->scale_table != nb_dynamic_map)) {
        return nb_fail(err, NB_E_SPEC,
                       "bitsandbytes nests absmax in 8 bits of its dynamic map, %d under one "
                       "nested_absmax, and knows no other second level; nearest: plain absmax",
                       NEST);
    }
    if (spec->act != NB_ACT_NONE) {
        return nb_fail(
            err, NB_E_SPEC,
            "bitsandbytes computes 4-bit linears with float activations; nearest: the same "
            "weights without activation numbers");
    }
    return 0;
}

static int can_write_8bit(const struct nb_qspec *spec, int64_t cols, struct nb_err *err)
{
    const bool per_row =
        spec->group_rows <= 1 && (spec->group_cols <= 0 || spec->group_cols >= cols);
    if (spec->zero != NB_ZERO_CODE || !spec->symmetric || !per_row || spec->super_groups ||
        spec->scale_dtype != NB_F32) {
        return nb_fail(err, NB_E_SPEC,
                       "LLM.int8 is symmetric with one F32 scale per output; groups and zeros need "
                       "another format (gptq, compressed-tensors)");
    }
    if (spec->act != NB_ACT_INT8_OUTLIER) {
        return nb_fail(
            err, NB_E_SPEC,
            "bitsandbytes runs int8 linears with outlier columns in float (scheme INT8); "
            "other activation numbers need format compressed-tensors");
    }
    return 0;
}

int nb_bnb_can_write(const struct nb_qspec *spec, int64_t rows, int64_t cols, bool desc_act,
                     struct nb_err *err)
{
    (void)rows;
    if (desc_act)
        return nb_fail(
            err, NB_E_SPEC,
            "bitsandbytes has no g_idx for act-order dynamic; nearest: act-order static");
    if (nb_bnb_is_4bit(spec)) return can_write_4bit(spec, cols, err);
    if (spec->elem.kind == NB_ELEM_INT && spec->elem.bits == 8)
        return can_write_8bit(spec, cols, err);
    char name[96];
    nb_qspec_describe(spec, name, sizeof name);
    return nb_fail(err, NB_E_SPEC, "bitsandbytes holds NF4, FP4 and LLM.int8, not %s; nearest: %s",
                   name, spec->elem.bits > 6 ? "INT8" : "NF4");
}

/* ---- plan ---- */

static const struct nb_pack_opts *opts_or_default(const struct nb_pack_opts *opts)
{
    static const struct nb_pack_opts usual = {.source = NB_BF16, .storage = NB_U8};
    return opts ? opts : &usual;
}

static enum nb_dtype storage_of(const struct nb_pack_opts *opts)
{
    return nb_dtype_is_weight(opts->storage) ? opts->storage : NB_U8;
}

/* nb_qmat_init cuts a block to a matrix that is smaller. Such a matrix gets the smallest block that holds it, whatever
 * was asked for, so that plan and pack say the same. */
static struct nb_qspec stored_spec(const struct nb_qspec *asked, int64_t rows, int64_t cols)
{
    struct nb_qspec spec = *asked;
    if (!nb_bnb_is_4bit(&spec) || spec.group_cols < rows * cols) return spec;
    spec.group_cols = MIN_BLOCK;
    while (spec.group_cols < rows * cols && spec.group_cols < MAX_BLOCK) spec.group_cols *= 2;
    spec.flat = true;
    return spec;
}

static struct nb_bnb_state state_of(const struct nb_qspec *spec, int64_t rows, int64_t cols,
                                    const struct nb_pack_opts *opts)
{
    return (struct nb_bnb_state){.nf4 = nb_bnb_is_nf4(spec),
                                 .block = spec->group_cols,
                                 .rows = rows,
                                 .cols = cols,
                                 .dtype = opts->source,
                                 .nested = spec->super_groups != 0};
}

static int plan_4bit(const struct nb_qspec *spec, int64_t rows, int64_t cols,
                     const struct nb_pack_opts *opts, struct nb_packed_tensor *out)
{
    const struct nb_bnb_state s = state_of(spec, rows, cols, opts);
    const enum nb_dtype storage = storage_of(opts);
    const int64_t n = rows * cols, bytes = parts_of(n, 2), blocks = parts_of(n, s.block);
    char text[NB_BNB_STATE_MAX];
    const int64_t length = (int64_t)nb_bnb_state_print(&s, text);
    const int64_t items = parts_of(bytes, nb_dtype_bits(storage) / 8);
#define TENSOR(t, dtype, a, b) nb_packed_set(&out[t], nb_bnb_suffix(t, s.nf4), dtype, a, b)
    TENSOR(NB_BNB_WEIGHT, storage, items, 1);
    TENSOR(NB_BNB_ABSMAX, s.nested ? NB_U8 : NB_F32, blocks, -1);
    TENSOR(NB_BNB_QUANT_MAP, NB_F32, 16, -1);
    TENSOR(NB_BNB_STATE, NB_U8, length, -1);
    if (!s.nested) return NB_BNB_NESTED_ABSMAX;
    TENSOR(NB_BNB_NESTED_ABSMAX, NB_F32, parts_of(blocks, NEST), -1);
    TENSOR(NB_BNB_NESTED_MAP, NB_F32, 256, -1);
#undef TENSOR
    return NB_BNB_TENSORS_4BIT;
}

static int plan_8bit(int64_t rows, int64_t cols, struct nb_packed_tensor *out)
{
    const char *const *suffix = nb_bnb_suffixes_8bit;
    nb_packed_set(&out[NB_BNB_CODES], suffix[NB_BNB_CODES], NB_I8, rows, cols);
    nb_packed_set(&out[NB_BNB_SCB], suffix[NB_BNB_SCB], NB_F32, rows, -1);
    nb_packed_set(&out[NB_BNB_FORMAT], suffix[NB_BNB_FORMAT], NB_U8, -1, -1);
    return NB_BNB_TENSORS_8BIT;
}

int nb_bnb_plan(const struct nb_qspec *spec, int64_t rows, int64_t cols,
                const struct nb_pack_opts *opts, struct nb_packed_tensor out[NB_MAX_PACKED])
{
    if (!nb_bnb_is_4bit(spec)) return plan_8bit(rows, cols, out);
    const struct nb_qspec stored = stored_spec(spec, rows, cols);
    return plan_4bit(&stored, rows, cols, opts_or_default(opts), out);
}

/* ---- pack ---- */

static int check_scales(const struct nb_qmat *q, struct nb_err *err)
{
    const bool nested = q->spec.super_groups != 0;
    const float *v = nested ? q->scale.super : q->scale.value;
    const int64_t n = nested ? nb_qmat_supers(q) : nb_qmat_planes(q);
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(v[i]) && v[i] >= 0) continue;
        return nb_fail(err, NB_E_NUMERIC, "%s %g of block %" PRId64 " is no finite number >= 0",
                       nested ? "nested absmax" : "absmax", (double)v[i], i);
    }
    return 0;
}

/* First code of a pair in the high nibble; the partner of a last odd one means 0. */
static void pack_nibbles(const uint8_t *codes, int64_t n, uint8_t zero, uint8_t *out)
{
    for (int64_t i = 0; i < n / 2; i++) out[i] = (uint8_t)(codes[2 * i] << 4 | codes[2 * i + 1]);
    if (n % 2) out[n / 2] = (uint8_t)(codes[n - 1] << 4 | zero);
}

static int pack_4bit(const struct nb_qmat *q, const struct nb_pack_opts *opts,
                     struct nb_packed_tensor *out, struct nb_err *err)
{
    const struct nb_qspec spec = stored_spec(&q->spec, q->rows, q->cols);
    struct nb_bnb_state s = state_of(&spec, q->rows, q->cols, opts);
    const int64_t n = q->rows * q->cols, blocks = nb_qmat_planes(q);
    const int64_t width = nb_dtype_bits(storage_of(opts)) / 8;
    int rc = check_scales(q, err);
    if (rc) return rc;
    if (parts_of(n, 2) % width) {
        return nb_fail(err, NB_E_SPEC,
                       "%" PRId64 " x %" PRId64
                       " weights do not fill whole %s elements; store them as uint8",
                       q->rows, q->cols, nb_dtype_name(opts->storage));
    }
    pack_nibbles(q->codes, n, s.nf4 ? 7 : 0, out[NB_BNB_WEIGHT].data);
    float *map = out[NB_BNB_QUANT_MAP].data;
    for (int i = 0; i < 16; i++) map[i] = spec.elem.table[i] + 0.0f; /* theirs has no -0 */
    if (s.nested) {
        s.offset = q->scale.offset;
        memcpy(out[NB_BNB_ABSMAX].data, q->scale.codes, (size_t)blocks);
        memcpy(out[NB_BNB_NESTED_ABSMAX].data, q->scale.super,
               (size_t)nb_qmat_supers(q) * sizeof(float));
        memcpy(out[NB_BNB_NESTED_MAP].data, nb_dynamic_map, sizeof nb_dynamic_map);
    } else {
        memcpy(out[NB_BNB_ABSMAX].data, q->scale.value, (size_t)blocks * sizeof(float));
    }
    char text[NB_BNB_STATE_MAX];
    memcpy(out[NB_BNB_STATE].data, text, nb_bnb_state_print(&s, text));
    return 0;
}

/* What the file says so that a reader gets this scale: SCB / 127. Of several, one that is an f16, as bitsandbytes' own
 * are. */
static float scb_of(float scale)
{
    const float near = scale * 127.0f, half = nb_f16_to_f32(nb_f32_to_f16(near));
    if (half / 127.0f == scale) return half;
    if (near / 127.0f == scale) return near;
    if (nextafterf(near, 0.0f) / 127.0f == scale) return nextafterf(near, 0.0f);
    if (nextafterf(near, INFINITY) / 127.0f == scale) return nextafterf(near, INFINITY);
    return near; /* no SCB gives it: half a unit in the last place off */
}

static int pack_8bit(const struct nb_qmat *q, struct nb_packed_tensor *out, struct nb_err *err)
{
    const int64_t n = q->rows * q->cols;
    uint8_t *codes = out[NB_BNB_CODES].data;
    float *scb = out[NB_BNB_SCB].data;
    for (int64_t i = 0; i < q->rows; i++) {
        const float s = q->scale.value[i];
        scb[i] = scb_of(s);
        if (isfinite(scb[i]) && s >= 0 && q->zero.value[i] == 128.0f) continue;
        return nb_fail(err, NB_E_NUMERIC,
                       "scale %g, zero %g of output %" PRId64
                       " cannot be stored, expected a finite scale >= 0 and zero 128",
                       (double)s, (double)q->zero.value[i], i);
    }
    for (int64_t i = 0; i < n; i++) codes[i] = (uint8_t)(q->codes[i] ^ 128);
    memset(out[NB_BNB_FORMAT].data, 0, 1); /* row by row */
    return 0;
}

int nb_bnb_pack(const struct nb_qmat *q, const struct nb_pack_opts *opts, struct nb_arena *arena,
                struct nb_packed_tensor out[NB_MAX_PACKED], int *n_out, struct nb_err *err)
{
    const struct nb_qspec spec = stored_spec(&q->spec, q->rows, q->cols);
    opts = opts_or_default(opts);
    int rc = nb_bnb_can_write(&spec, q->rows, q->cols, q->col_group != NULL, err);
    if (rc) return rc;
    *n_out = nb_bnb_plan(&spec, q->rows, q->cols, opts, out);
    for (int i = 0; i < *n_out; i++) {
        size_t items = 1;
        for (int d = 0; d < out[i].rank; d++) items *= (size_t)out[i].shape[d];
        out[i].data = nb_arena_alloc(arena, items, (size_t)nb_dtype_bits(out[i].dtype) / 8);
    }
    if (arena->failed)
        return nb_fail(err, NB_E_NOMEM, "no memory to pack %" PRId64 " x %" PRId64, q->rows,
                       q->cols);
    return nb_bnb_is_4bit(&q->spec) ? pack_4bit(q, opts, out, err) : pack_8bit(q, out, err);
}
