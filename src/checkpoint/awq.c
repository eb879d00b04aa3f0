/* SPDX-License-Identifier: Apache-2.0
 *
 * awq.c - AutoAWQ's layouts: gemm (read and written) and gemv (read).
 *
 *   gemm   P.qweight  I32 [K, N/8]   nibble i of word j of row k: output 8j + order[i]
 *          P.qzeros   I32 [G, N/8]   zeros, the same way
 *          P.scales   F16 [G, N]
 *   gemv   P.qweight  I32 [N, K/8]   an LE stream of nibbles along row n
 *          P.qzeros   I32 [N, Z]     an LE stream along the groups, padded
 *          P.scales   F16 [N, 8Z]    padded
 *
 * order = 0 2 4 6 1 3 5 7. w[n,k] = scales[g,n] * (code - zero), g = k / group; zeros are stored as they are.
 * The scales of activation-aware scaling are not in the file: they are folded into what comes before.
 * Source: checkpoint formats, section 3. */
#include "checkpoint/internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "checkpoint/awq_config.h"
#include "checkpoint/bitpack.h"

enum { QWEIGHT, QZEROS, SCALES, N_TENSORS };

static const char *const suffixes[N_TENSORS] = {".qweight", ".qzeros", ".scales"};
static const char what[] = "quantization config";
static const int order[8] = {0, 2, 4, 6, 1, 3, 5, 7};

struct awq_config {
    int64_t group;
    bool zero_point, gemv, lm_head;
    const json_t *float_modules; /* modules_to_not_convert, or NULL; borrowed */
};

/* ---- config ---- */

static bool probe(const json_t *quant_config)
{
    char method[32];
    nb_quant_config_method(quant_config, method);
    return !strcmp(method, "awq");
}

static void release(void *state)
{
    nb_free(state);
}

static int parse_version(struct awq_config *c, const json_t *q, struct nb_err *err)
{
    static const char *const keys[] = {"version", "checkpoint_format", "format", NULL};
    static const char *const backend[] = {"backend", NULL};
    char version[32], name[32];
    int rc = nb_quant_config_word(q, keys, "gemm", version, err);
    if (!rc) rc = nb_quant_config_word(q, backend, "", name, err);
    if (rc) return rc;
    c->gemv = !strcmp(version, "gemv");
    bool llm_awq = !strcmp(name, "llm-awq");
    if (llm_awq || (!c->gemv && strcmp(version, "gemm"))) {
        return nb_fail(err, NB_E_SPEC,
                       "%s: awq version '%s' cannot be read; readable are gemm and gemv", what,
                       llm_awq ? name : version);
    }
    return 0;
}

static int parse_modules(struct awq_config *c, const json_t *q, struct nb_err *err)
{
    const json_t *list = json_object_get(q, "modules_to_not_convert");
    if (!list || json_is_null(list)) return 0;
    bool ok = json_is_array(list);
    for (size_t i = 0; i < json_array_size(list); i++)
        ok = ok && json_is_string(json_array_get(list, i));
    if (!ok)
        return nb_fail(err, NB_E_FORMAT, "%s: modules_to_not_convert is no list of names", what);
    if (json_array_size(list)) c->float_modules = list;
    return 0;
}

static int parse(struct nb_model *m, void **state, struct nb_err *err)
{
    static const char *const bits_keys[] = {"bits", "w_bit", "wbits", NULL};
    const json_t *q = m->quant_config;
    struct awq_config c = {.zero_point = true};
    int64_t bits;
    bool sym = false;
    int rc = parse_version(&c, q, err);
    if (!rc) rc = nb_quant_config_int(q, bits_keys, NULL, &bits, err);
    if (!rc) rc = nb_quant_config_group(q, &c.group, err);
    if (!rc) rc = nb_json_get_bool(q, "sym", false, &sym, what, err);
    c.zero_point = !sym;
    if (!rc) rc = nb_json_get_bool(q, "zero_point", false, &c.zero_point, what, err);
    if (!rc) rc = nb_json_get_bool(q, "lm_head", false, &c.lm_head, what, err);
    if (!rc) rc = parse_modules(&c, q, err);
    if (rc) return rc;
    if (bits != 4) {
        return nb_fail(err, NB_E_SPEC, "%s: awq with %" PRId64 " bits cannot be read, only 4", what,
                       bits);
    }
    struct awq_config *kept = nb_xalloc(sizeof *kept);
    *kept = c;
    *state = kept;
    return 0;
}

/* AutoAWQ and vLLM look for the entries anywhere in the path. */
static bool is_quantized(const struct nb_model *m, const char *path)
{
    const struct awq_config *c = m->checkpoint_state;
    for (size_t i = 0; i < json_array_size(c->float_modules); i++) {
        if (strstr(path, json_string_value(json_array_get(c->float_modules, i)))) return false;
    }
    if (nb_module_is_head(m, path) && !c->lm_head) return false;
    return c->float_modules || nb_module_looks_quantized(m, path);
}

static bool owns(const struct nb_model *m, const char *path, const char *suffix)
{
    (void)m;
    (void)path;
    for (int i = 0; i < N_TENSORS; i++) {
        if (!strcmp(suffix, suffixes[i])) return true;
    }
    return false;
}

/* ---- reading ---- */

static int plan(const struct nb_qspec *spec, int64_t rows, int64_t cols,
                const struct nb_pack_opts *unused, struct nb_packed_tensor out[NB_MAX_PACKED])
{
    (void)unused;
    int64_t gs = spec->group_cols <= 0 ? cols : spec->group_cols, groups = (cols + gs - 1) / gs;
    nb_packed_set(&out[QWEIGHT], suffixes[QWEIGHT], NB_I32, cols, rows / 8);
    nb_packed_set(&out[QZEROS], suffixes[QZEROS], NB_I32, groups, rows / 8);
    nb_packed_set(&out[SCALES], suffixes[SCALES], NB_F16, groups, rows);
    return N_TENSORS;
}

/* gemv pads the groups to whole words, and to more words the smaller the group. */
static int64_t gemv_zero_words(int64_t cols, int64_t group)
{
    int64_t words = (cols / group + 7) / 8, unit = group >= 128 ? 1 : group == 64 ? 2 : 4;
    return (words + unit - 1) / unit * unit;
}

static void plan_gemv(const struct nb_qspec *spec, int64_t rows, int64_t cols,
                      struct nb_packed_tensor *out)
{
    int64_t zw = gemv_zero_words(cols, spec->group_cols);
    nb_packed_set(&out[QWEIGHT], suffixes[QWEIGHT], NB_I32, rows, cols / 8);
    nb_packed_set(&out[QZEROS], suffixes[QZEROS], NB_I32, rows, zw);
    nb_packed_set(&out[SCALES], suffixes[SCALES], NB_F16, rows, 8 * zw);
}

struct found { /* the tensors of one module and what they hold */
    struct nb_qspec spec;
    const struct nb_tensor *tensor[N_TENSORS];
};

static int find(const struct nb_model *m, const char *path, int64_t rows, int64_t cols,
                struct found *f, struct nb_err *err)
{
    const struct awq_config *c = m->checkpoint_state;
    int64_t gs = c->group < 0 ? cols : c->group;
    if (cols % gs || rows % 8 || cols % 8) {
        return nb_fail(err, NB_E_FORMAT,
                       "'%s' is %" PRId64 " x %" PRId64 ", which awq with groups of %" PRId64
                       " cannot hold",
                       path, rows, cols, gs);
    }
    f->spec = (struct nb_qspec){
        .elem = {.kind = NB_ELEM_INT, .bits = 4, .vec = 1},
        .group_rows = 1,
        .group_cols = gs,
        .zero = NB_ZERO_CODE,
        .symmetric = !c->zero_point,
    };
    struct nb_packed_tensor want[NB_MAX_PACKED];
    if (c->gemv) plan_gemv(&f->spec, rows, cols, want);
    else plan(&f->spec, rows, cols, NULL, want);
    for (int i = 0; i < N_TENSORS; i++) {
        int rc = nb_module_need(m, path, &want[i], &f->tensor[i], err);
        if (rc) return rc;
    }
    f->spec.scale_dtype = f->tensor[SCALES]->dtype;
    return 0;
}

static int check(const struct nb_model *m, const char *path, int64_t rows, int64_t cols,
                 struct nb_err *err)
{
    struct found f;
    return find(m, path, rows, cols, &f, err);
}

/* Nibbles of one row of interleaved words. */
static void unpack_row(uint8_t *out, const unsigned char *words, int64_t n)
{
    for (int64_t j = 0; j < n / 8; j++) {
        uint32_t w;
        memcpy(&w, words + 4 * j, 4);
        for (int i = 0; i < 8; i++) out[8 * j + order[i]] = (uint8_t)(w >> 4 * i & 15);
    }
}

static void pack_row(uint32_t *words, const uint8_t *in, int64_t n)
{
    for (int64_t j = 0; j < n / 8; j++) {
        uint32_t w = 0;
        for (int i = 0; i < 8; i++) w |= (uint32_t)in[8 * j + order[i]] << 4 * i;
        words[j] = w;
    }
}

/* The file runs along outputs, codes along inputs: both ways go through square-ish tiles that fit the first
 * cache. N is a multiple of 8, so a tile holds whole words. */
enum { TILE_K = 64, TILE_N = 128 };

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static void read_codes(struct nb_qmat *q, const unsigned char *qweight)
{
    int64_t rows = q->rows, cols = q->cols;
    uint8_t tile[TILE_K][TILE_N];
    for (int64_t k0 = 0; k0 < cols; k0 += TILE_K) {
        int64_t n_k = smaller(cols - k0, TILE_K);
        for (int64_t n0 = 0; n0 < rows; n0 += TILE_N) {
            int64_t n_n = smaller(rows - n0, TILE_N);
            for (int64_t k = 0; k < n_k; k++)
                unpack_row(tile[k], qweight + ((k0 + k) * rows + n0) / 2, n_n);
            for (int64_t n = 0; n < n_n; n++) {
                uint8_t *codes = q->codes + (n0 + n) * cols + k0;
                for (int64_t k = 0; k < n_k; k++) codes[k] = tile[k][n];
            }
        }
    }
}

static void write_codes(const struct nb_qmat *q, uint32_t *qweight)
{
    int64_t rows = q->rows, cols = q->cols;
    uint8_t tile[TILE_K][TILE_N];
    for (int64_t k0 = 0; k0 < cols; k0 += TILE_K) {
        int64_t n_k = smaller(cols - k0, TILE_K);
        for (int64_t n0 = 0; n0 < rows; n0 += TILE_N) {
            int64_t n_n = smaller(rows - n0, TILE_N);
            for (int64_t n = 0; n < n_n; n++) {
                const uint8_t *codes = q->codes + (n0 + n) * cols + k0;
                for (int64_t k = 0; k < n_k; k++) tile[k][n] = codes[k];
            }
            for (int64_t k = 0; k < n_k; k++)
                pack_row(qweight + ((k0 + k) * rows + n0) / 8, tile[k], n_n);
        }
    }
}

static int read_gemm(struct nb_qmat *q, const struct nb_tensor *const tensor[N_TENSORS],
                     struct nb_arena *arena, struct nb_err *err)
{
    int64_t rows = q->rows, groups = q->n_groups;
    const struct nb_tensor *s = tensor[SCALES];
    int64_t scale_bytes = rows * nb_dtype_bits(s->dtype) / 8;
    uint8_t *zeros = nb_arena_alloc(arena, (size_t)rows, 1);
    float *scales = nb_arena_alloc(arena, (size_t)rows, sizeof *scales);
    if (!zeros || !scales)
        return nb_fail(err, NB_E_NOMEM, "no memory to unpack %" PRId64 " outputs", rows);
    read_codes(q, tensor[QWEIGHT]->data.data);
    for (int64_t g = 0; g < groups; g++) {
        unpack_row(zeros, tensor[QZEROS]->data.data + g * rows / 2, rows);
        nb_to_f32(scales, s->data.data + g * scale_bytes, s->dtype, (size_t)rows);
        for (int64_t n = 0; n < rows; n++) {
            q->zero.value[n * groups + g] = zeros[n];
            q->scale.value[n * groups + g] = scales[n];
        }
    }
    return 0;
}

static int read_gemv(struct nb_qmat *q, const struct nb_tensor *const tensor[N_TENSORS],
                     struct nb_arena *arena, struct nb_err *err)
{
    int64_t rows = q->rows, cols = q->cols, groups = q->n_groups;
    int64_t zw = tensor[QZEROS]->shape[1];
    const struct nb_tensor *s = tensor[SCALES];
    int64_t scale_bytes = 8 * zw * nb_dtype_bits(s->dtype) / 8;
    uint8_t *zeros = nb_arena_alloc(arena, (size_t)groups, 1);
    if (!zeros) return nb_fail(err, NB_E_NOMEM, "no memory to unpack %" PRId64 " groups", groups);
    for (int64_t n = 0; n < rows; n++) {
        nb_bits_unpack(q->codes + n * cols, tensor[QWEIGHT]->data.data + n * cols / 2, 1, 4,
                       (size_t)cols);
        nb_bits_unpack(zeros, tensor[QZEROS]->data.data + 4 * n * zw, 1, 4, (size_t)groups);
        for (int64_t g = 0; g < groups; g++) q->zero.value[n * groups + g] = zeros[g];
        nb_to_f32(q->scale.value + n * groups, s->data.data + n * scale_bytes, s->dtype,
                  (size_t)groups);
    }
    return 0;
}

static int read_module(const struct nb_model *m, const struct nb_module_ref *ref,
                       struct nb_arena *arena, struct nb_qmat *out, struct nb_err *err)
{
    const int64_t rows = ref->rows, cols = ref->cols;
    const struct awq_config *c = m->checkpoint_state;
    struct found f;
    int rc = find(m, ref->path, rows, cols, &f, err);
    if (!rc) rc = nb_qmat_init(out, &f.spec, rows, cols, arena, err);
    if (!rc)
        rc = c->gemv ? read_gemv(out, f.tensor, arena, err) : read_gemm(out, f.tensor, arena, err);
    /* Kernels use the stored zeros whatever the config says, so these decide. */
    for (int64_t i = 0; !rc && i < rows * out->n_groups; i++) {
        if (out->zero.value[i] != 8) out->spec.symmetric = false;
    }
    return rc;
}

/* ---- writing ---- */

static int can_write(const struct nb_qspec *spec, int64_t rows, int64_t cols, bool desc_act,
                     struct nb_err *err)
{
    if (spec->elem.kind != NB_ELEM_INT || spec->elem.vec > 1 || spec->zero != NB_ZERO_CODE ||
        spec->act != NB_ACT_NONE) {
        return nb_fail(err, NB_E_SPEC, "awq holds integer codes with integer zeros only (W4A16)");
    }
    if (spec->elem.bits != 4) {
        return nb_fail(err, NB_E_SPEC,
                       "awq has 4 bits only, not %d; nearest: 4 bits, or format gptq",
                       spec->elem.bits);
    }
    if (desc_act) {
        return nb_fail(
            err, NB_E_SPEC,
            "awq has no g_idx for act-order dynamic; nearest: act-order static or group");
    }
    if (spec->scale_dtype != NB_F16) {
        return nb_fail(err, NB_E_SPEC, "awq stores scales as F16, not as %s",
                       nb_dtype_name(spec->scale_dtype));
    }
    if (spec->group_rows > 1 || !nb_module_group_usable(spec->group_cols, cols, 128)) {
        char usable[32];
        nb_module_usable_groups(cols, 128, usable);
        return nb_fail(
            err, NB_E_SPEC, "awq cannot cut %" PRId64 " inputs in groups of %" PRId64 "; %s%s",
            cols, spec->group_cols,
            usable[0] ? "usable groups are " : "the layer must stay float (--ignore)", usable);
    }
    if (rows % 32) {
        return nb_fail(err, NB_E_SPEC,
                       "awq packs 32 outputs at a time: a linear with %" PRId64
                       " outputs must stay float (--ignore), nearest size is %" PRId64,
                       rows, (rows + 31) / 32 * 32);
    }
    return 0;
}

static int pack_planes(const struct nb_qmat *q, struct nb_packed_tensor *out, uint8_t *fields,
                       struct nb_err *err)
{
    uint32_t *qzeros = out[QZEROS].data;
    uint16_t *scales = out[SCALES].data;
    for (int64_t g = 0; g < q->n_groups; g++) {
        for (int64_t n = 0; n < q->rows; n++) {
            float s = q->scale.value[n * q->n_groups + g], z = q->zero.value[n * q->n_groups + g];
            if (!isfinite(s) || s == 0 || nb_round_to(s, NB_F16) != s) {
                return nb_fail(err, NB_E_NUMERIC,
                               "scale %g of output %" PRId64 ", group %" PRId64
                               " is not a finite F16 other than 0",
                               (double)s, n, g);
            }
            if (!(z >= 0 && z <= 15 && z == rintf(z))) {
                return nb_fail(err, NB_E_NUMERIC,
                               "zero %g of output %" PRId64 " cannot be stored, possible are 0 "
                               "to 15",
                               (double)z, n);
            }
            scales[g * q->rows + n] = nb_f32_to_f16(s);
            fields[n] = (uint8_t)z;
        }
        pack_row(qzeros + g * (q->rows / 8), fields, q->rows);
    }
    return 0;
}

static int pack(const struct nb_qmat *q, const struct nb_pack_opts *unused, struct nb_arena *arena,
                struct nb_packed_tensor out[NB_MAX_PACKED], int *n_out, struct nb_err *err)
{
    (void)unused;
    *n_out = plan(&q->spec, q->rows, q->cols, NULL, out);
    if (q->col_group || q->spec.elem.bits != 4) {
        return nb_fail(err, NB_E_SPEC,
                       "awq holds 4-bit codes in the order of the inputs, found %d bits%s",
                       q->spec.elem.bits, q->col_group ? " with act-order" : "");
    }
    for (int i = 0; i < N_TENSORS; i++) {
        out[i].data = nb_arena_calloc(arena, (size_t)(out[i].shape[0] * out[i].shape[1]),
                                      (size_t)nb_dtype_bits(out[i].dtype) / 8);
    }
    uint8_t *fields = nb_arena_alloc(arena, (size_t)q->rows, 1);
    if (arena->failed)
        return nb_fail(err, NB_E_NOMEM, "no memory to pack %" PRId64 " x %" PRId64, q->rows,
                       q->cols);
    int rc = pack_planes(q, out, fields, err);
    if (!rc) write_codes(q, out[QWEIGHT].data);
    return rc;
}

const struct nb_checkpoint nb_checkpoint_awq = {
    .name = "awq",
    .summary = "AWQ (gemm): 4 bits with true zeros, the most widely loaded asymmetric format",
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
    .can_describe = nb_awq_can_describe,
    .config = nb_awq_config_make,
    .sym_default = false,
    .scale_dtype = NB_F16,
    .zero_min = 0,
};
