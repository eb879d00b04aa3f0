/* SPDX-License-Identifier: Apache-2.0
 *
 * fp8.c - quant_method "fp8": E4M3 weights as they are, and their scales beside them.
 *
 *   blocks      P.weight            F8_E4M3 [N, K]      DeepSeek-V3, vLLM, transformers
 *               P.weight_scale_inv  F32 [N/128, K/128], both rounded up
 *   per tensor  P.weight            F8_E4M3 [N, K]      AutoFP8, vLLM
 *               P.weight_scale      F32 [] or [1]
 *               P.input_scale       F32 [] or [1]       activation_scheme "static" only
 *
 * w[n,k] = code * scale, whatever the tensor is called: weight_scale_inv is no inverse. Only GPTQModel's own files
 * hold one (then w = code / scale); they are read and never written. A scale may also be called `scale`, have a
 * value per output, or be a power of two (E8M0). transformers calls input_scale activation_scale.
 *
 * Loaders of blocks assume that rows and columns are multiples of 128: vLLM joins the scale rows of fused linears,
 * and transformers 5.23 takes ceil(N/128) equal blocks when it dequantizes. Ragged files are read and not written.
 * Source: checkpoint formats, section 6. */
#include "checkpoint/internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fp8.h"
#include "checkpoint/fp8_config.h"
#include "numeric/elems.h"

enum { BLOCK = 128 };

#define WHOLE ((int64_t)1 << 40) /* larger than any matrix */

static const char *const scale_names[] = {".weight_scale_inv", ".weight_scale", ".scale", NULL};
static const char *const input_names[] = {".input_scale", ".activation_scale", NULL};

/* ---- config ---- */

static bool probe(const json_t *quant_config)
{
    char method[32];
    nb_quant_config_method(quant_config, method);
    return !strcmp(method, "fp8");
}

static void release(void *state)
{
    nb_free(state);
}

static int parse(struct nb_model *m, void **state, struct nb_err *err)
{
    struct nb_fp8_config c;
    int rc = nb_fp8_config_parse(&c, m->quant_config, err);
    if (rc) return rc;
    struct nb_fp8_config *kept = nb_xalloc(sizeof *kept);
    *kept = c;
    *state = kept;
    return 0;
}

static bool is_quantized(const struct nb_model *m, const char *path)
{
    return nb_fp8_config_quantizes(m->checkpoint_state, m, path);
}

static bool owns(const struct nb_model *m, const char *path, const char *suffix)
{
    (void)m;
    (void)path;
    for (int i = 0; scale_names[i]; i++) {
        if (!strcmp(suffix, scale_names[i])) return true;
    }
    return !strcmp(suffix, ".weight") || !strcmp(suffix, input_names[0]) ||
           !strcmp(suffix, input_names[1]);
}

/* ---- reading ---- */

struct found { /* the tensors of one module and what they hold */
    struct nb_qspec spec;
    const struct nb_tensor *weight, *scale, *input; /* input NULL: not static */
};

static int find_weight(const struct nb_model *m, const char *path, int64_t rows, int64_t cols,
                       struct found *f, struct nb_err *err)
{
    struct nb_packed_tensor want = {
        .suffix = ".weight", .dtype = NB_F8_E4M3, .rank = 2, .shape = {rows, cols}};
    const struct nb_tensor *t = nb_module_tensor(m, path, ".weight");
    if (t && (t->dtype == NB_F8_E5M2 || t->dtype == NB_F8_E4M3FNUZ || t->dtype == NB_F8_E5M2FNUZ)) {
        nb_fail(err, NB_E_SPEC, "tensor '%s' has type %s: its bytes mean other numbers than E4M3",
                t->name, nb_dtype_name(t->dtype));
        return nb_err_hint(err,
                           "only F8_E4M3 (float8_e4m3fn) is read; quantize the float model anew");
    }
    int rc = nb_module_need(m, path, &want, &f->weight, err);
    if (rc && t && nb_dtype_is_weight(t->dtype)) {
        nb_err_hint(err, "a float module must stand in ignored_layers or modules_to_not_convert");
    }
    return rc;
}

/* One of the names, and no other. */
static int find_one(const struct nb_model *m, const char *path, const char *const *names,
                    const struct nb_tensor **out, struct nb_err *err)
{
    *out = NULL;
    for (; *names; names++) {
        const struct nb_tensor *t = nb_module_tensor(m, path, *names);
        if (t && *out) {
            return nb_fail(err, NB_E_FORMAT, "tensors '%s' and '%s' are both there, expected one",
                           (*out)->name, t->name);
        }
        if (t) *out = t;
    }
    return 0;
}

static bool is_scale_type(const struct nb_fp8_config *c, enum nb_dtype t)
{
    return nb_dtype_is_weight(t) || t == NB_F8_E8M0 || (t == NB_U8 && c->exponents);
}

/* Groups that a scale of this shape stands for; 0: none that config and matrix allow. */
static bool cut_by_shape(const struct nb_fp8_config *c, const struct nb_tensor *t, int64_t rows,
                         int64_t cols, struct nb_qspec *spec)
{
    if (c->form == NB_FP8_BLOCKS) {
        spec->group_rows = c->block_rows;
        spec->group_cols = c->block_cols;
        return t->rank == 2 && t->shape[0] == (rows + c->block_rows - 1) / c->block_rows &&
               t->shape[1] == (cols + c->block_cols - 1) / c->block_cols;
    }
    spec->group_cols = -1;
    const bool flat = t->rank <= 1 || (t->rank == 2 && t->shape[1] == 1);
    const bool one = flat && c->form != NB_FP8_ROWS && nb_tensor_count(t) == 1;
    spec->group_rows = one ? WHOLE : 1;
    return one || (flat && nb_tensor_count(t) == rows);
}

static int check_scale(const struct nb_fp8_config *c, int64_t rows, int64_t cols, struct found *f,
                       struct nb_err *err)
{
    const struct nb_tensor *t = f->scale;
    if (!is_scale_type(c, t->dtype)) {
        return nb_fail(err, NB_E_FORMAT,
                       "tensor '%s' has type %s, expected F32, BF16, F16 or F8_E8M0", t->name,
                       nb_dtype_name(t->dtype));
    }
    if (!cut_by_shape(c, t, rows, cols, &f->spec)) {
        return nb_fail(err, NB_E_FORMAT,
                       "tensor '%s' of %" PRId64
                       " values in %d dimensions is no scale of %s of a matrix "
                       "of %" PRId64 " x %" PRId64,
                       t->name, nb_tensor_count(t), t->rank,
                       c->form == NB_FP8_BLOCKS ? "the blocks"
                       : c->form == NB_FP8_ROWS ? "the outputs"
                                                : "all or of the outputs",
                       rows, cols);
    }
    f->spec.scale_dtype = t->dtype == NB_U8 ? NB_F8_E8M0 : t->dtype;
    return 0;
}

static int find_input(const struct nb_model *m, const char *path, struct found *f,
                      struct nb_err *err)
{
    int rc = find_one(m, path, input_names, &f->input, err);
    if (rc) return rc;
    if (!f->input) {
        nb_fail(err, NB_E_FORMAT, "tensor '%s.input_scale' is missing", path);
        return nb_err_hint(err, "activation_scheme is \"static\"");
    }
    if (nb_tensor_count(f->input) != 1 || f->input->rank > 2 ||
        !nb_dtype_is_weight(f->input->dtype)) {
        return nb_fail(err, NB_E_FORMAT,
                       "tensor '%s' has type %s and %" PRId64 " values, expected one float",
                       f->input->name, nb_dtype_name(f->input->dtype), nb_tensor_count(f->input));
    }
    return 0;
}

static int find(const struct nb_model *m, const char *path, int64_t rows, int64_t cols,
                struct found *f, struct nb_err *err)
{
    const struct nb_fp8_config *c = m->checkpoint_state;
    *f = (struct found){.spec = {.elem = nb_elem_e4m3, .zero = NB_ZERO_NONE, .act = c->act}};
    if (c->act == NB_ACT_FP8_GROUP) f->spec.act_group = c->block_cols;
    int rc = find_weight(m, path, rows, cols, f, err);
    if (!rc) rc = find_one(m, path, scale_names, &f->scale, err);
    if (!rc && !f->scale) {
        return nb_fail(err, NB_E_FORMAT, "tensor '%s%s' is missing", path,
                       scale_names[c->form == NB_FP8_BLOCKS ? 0 : 1]);
    }
    if (!rc) rc = check_scale(c, rows, cols, f, err);
    return rc || c->act != NB_ACT_FP8_STATIC ? rc : find_input(m, path, f, err);
}

static int check(const struct nb_model *m, const char *path, int64_t rows, int64_t cols,
                 struct nb_err *err)
{
    struct found f;
    return find(m, path, rows, cols, &f, err);
}

static int read_scales(struct nb_qmat *q, const struct found *f, bool divides, struct nb_err *err)
{
    const int64_t n = nb_qmat_planes(q);
    nb_to_f32(q->scale.value, f->scale->data.data, q->spec.scale_dtype, (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        const float stored = q->scale.value[i];
        if (divides) q->scale.value[i] = 1.0f / stored;
        const float s = q->scale.value[i];
        if (stored >= 0.0f && isfinite(stored) && isfinite(s) && isfinite(s * NB_E4M3_MAX))
            continue;
        return nb_fail(err, NB_E_FORMAT,
                       "tensor '%s': scale %g at element %" PRId64
                       " is not usable, expected a finite positive number",
                       f->scale->name, (double)stored, i);
    }
    return 0;
}

static int read_input(struct nb_qmat *q, const struct nb_tensor *t, struct nb_err *err)
{
    if (!t) return 0;
    nb_to_f32(&q->input_scale, t->data.data, t->dtype, 1);
    if (q->input_scale > 0.0f && isfinite(q->input_scale)) return 0;
    return nb_fail(err, NB_E_FORMAT,
                   "tensor '%s': scale %g is not usable, expected a finite positive number",
                   t->name, (double)q->input_scale);
}

/* First code that is NaN, or n. */
static int64_t find_nan(const uint8_t *code, int64_t n)
{
    enum { RUN = 4096 };
    for (int64_t i = 0; i < n; i += RUN) {
        const int64_t end = n - i < RUN ? n : i + RUN;
        unsigned bad = 0;
        for (int64_t k = i; k < end; k++) bad |= (code[k] & 0x7fu) == 0x7fu;
        for (int64_t k = i; bad && k < end; k++) {
            if ((code[k] & 0x7f) == 0x7f) return k;
        }
    }
    return n;
}

static int check_codes(const char *name, const struct nb_qmat *q, enum nb_status status,
                       struct nb_err *err)
{
    const int64_t at = find_nan(q->codes, q->rows * q->cols);
    if (at == q->rows * q->cols) return 0;
    return nb_fail(err, status, "%s: weight of output %" PRId64 ", input %" PRId64 " is NaN", name,
                   at / q->cols, at % q->cols);
}

static int read_module(const struct nb_model *m, const struct nb_module_ref *ref,
                       struct nb_arena *arena, struct nb_qmat *out, struct nb_err *err)
{
    const struct nb_fp8_config *c = m->checkpoint_state;
    struct found f;
    int rc = find(m, ref->path, ref->rows, ref->cols, &f, err);
    if (!rc) rc = nb_qmat_init(out, &f.spec, ref->rows, ref->cols, arena, err);
    if (rc) return rc;
    memcpy(out->codes, f.weight->data.data, (size_t)(ref->rows * ref->cols));
    rc = check_codes(f.weight->name, out, NB_E_FORMAT, err);
    if (!rc) rc = read_scales(out, &f, c->divides, err);
    return rc ? rc : read_input(out, f.input, err);
}

/* ---- writing ---- */

static bool has_blocks(const struct nb_qspec *spec)
{
    return spec->act == NB_ACT_FP8_GROUP;
}

static int check_activations(const struct nb_qspec *spec, struct nb_err *err)
{
    if (has_blocks(spec) && spec->act_group == BLOCK) return 0;
    if (spec->act == NB_ACT_FP8_TOKEN || spec->act == NB_ACT_FP8_STATIC) return 0;
    return nb_fail(
        err, NB_E_SPEC,
        "fp8 has static activations, dynamic ones per token, and per token and %d inputs with "
        "blocks; nearest for others: format compressed-tensors",
        BLOCK);
}

static int can_write(const struct nb_qspec *spec, int64_t rows, int64_t cols, bool desc_act,
                     struct nb_err *err)
{
    const struct nb_elem *e = &spec->elem;
    if (e->kind != NB_ELEM_FLOAT || e->exp != 4 || e->man != 3 || spec->zero != NB_ZERO_NONE ||
        spec->super_groups || desc_act) {
        return nb_fail(
            err, NB_E_SPEC,
            "fp8 holds E4M3 weights under scales of one level only; nearest: scheme FP8_BLOCK");
    }
    if (spec->scale_dtype != NB_F32) {
        return nb_fail(err, NB_E_SPEC, "fp8 stores scales as F32, not as %s; nearest: F32",
                       nb_dtype_name(spec->scale_dtype));
    }
    int rc = check_activations(spec, err);
    if (rc) return rc;
    if (!has_blocks(spec)) {
        if (spec->group_rows >= rows && (spec->group_cols <= 0 || spec->group_cols >= cols))
            return 0;
        return nb_fail(
            err, NB_E_SPEC,
            "fp8 has one scale per tensor, or blocks with dynamic activations; nearest: scheme "
            "FP8 or FP8_BLOCK, or format compressed-tensors");
    }
    if (spec->group_rows != BLOCK || spec->group_cols != BLOCK) {
        return nb_fail(err, NB_E_SPEC,
                       "fp8 has blocks of %d x %d, not %" PRId64 " x %" PRId64 "; nearest: %d x %d",
                       BLOCK, BLOCK, spec->group_rows, spec->group_cols, BLOCK, BLOCK);
    }
    if (rows % BLOCK || cols % BLOCK) {
        return nb_fail(
            err, NB_E_SPEC,
            "loaders of fp8 cut whole blocks of %d: a linear of %" PRId64 " x %" PRId64
            " must stay float (--ignore) or go to format compressed-tensors, nearest sizes are "
            "%" PRId64 " x %" PRId64,
            BLOCK, rows, cols, (rows + BLOCK - 1) / BLOCK * BLOCK,
            (cols + BLOCK - 1) / BLOCK * BLOCK);
    }
    return 0;
}

static int plan(const struct nb_qspec *spec, int64_t rows, int64_t cols,
                const struct nb_pack_opts *unused, struct nb_packed_tensor out[NB_MAX_PACKED])
{
    (void)unused;
    int n = 0;
    nb_packed_set(&out[n++], ".weight", NB_F8_E4M3, rows, cols);
    if (has_blocks(spec))
        nb_packed_set(&out[n++], scale_names[0], NB_F32, (rows + BLOCK - 1) / BLOCK,
                      (cols + BLOCK - 1) / BLOCK);
    else nb_packed_set(&out[n++], scale_names[1], NB_F32, 1, -1);
    if (spec->act == NB_ACT_FP8_STATIC) nb_packed_set(&out[n++], input_names[0], NB_F32, 1, -1);
    return n;
}

static int check_positive(const char *name, float v, struct nb_err *err)
{
    if (isfinite(v) && v > 0) return 0;
    return nb_fail(err, NB_E_NUMERIC, "%s %g is not a finite positive number", name, (double)v);
}

static int pack(const struct nb_qmat *q, const struct nb_pack_opts *unused, struct nb_arena *arena,
                struct nb_packed_tensor out[NB_MAX_PACKED], int *n, struct nb_err *err)
{
    *n = plan(&q->spec, q->rows, q->cols, unused, out);
    const int64_t planes = nb_qmat_planes(q);
    const int64_t room = out[1].shape[0] * (out[1].rank > 1 ? out[1].shape[1] : 1);
    if (planes != room) {
        return nb_fail(err, NB_E_SPEC, "fp8 has %" PRId64 " scales for this matrix, not %" PRId64,
                       room, planes);
    }
    int rc = check_codes("fp8", q, NB_E_NUMERIC, err);
    for (int64_t i = 0; !rc && i < planes; i++)
        rc = check_positive("fp8: weight scale", q->scale.value[i], err);
    if (!rc && *n > 2) rc = check_positive("fp8: input scale", q->input_scale, err);
    if (rc) return rc;
    float *input = *n > 2 ? nb_arena_alloc(arena, 1, sizeof *input) : NULL;
    if (arena->failed)
        return nb_fail(err, NB_E_NOMEM, "no memory to pack %" PRId64 " x %" PRId64, q->rows,
                       q->cols);
    out[0].data = q->codes; /* the codes are the file's bytes */
    out[1].data = q->scale.value;
    if (!input) return 0;
    *input = q->input_scale;
    out[2].data = input;
    return 0;
}

const struct nb_checkpoint nb_checkpoint_fp8 = {
    .name = "fp8",
    .summary =
        "E4M3 weights in blocks of 128 x 128 (DeepSeek) or per tensor, for vLLM; blocks for transformers too",
    .probe = probe,
    .parse = parse,
    .release = release,
    .is_quantized = is_quantized,
    .check = check,
    .read = read_module,
    .owns = owns,
    .can_write = can_write,
    .plan = plan,
    .pack = pack,
    .can_describe = nb_fp8_can_describe,
    .config = nb_fp8_config_make,
    .sym_default = true,
    .scale_dtype = NB_F32,
    .kv_scales = true,
};
