/* SPDX-License-Identifier: Apache-2.0
 *
 * gptq.c - the GPTQ layout, two rows of the table: gptq (zeros stored minus one) and gptq_v2.
 *
 *   P.qweight  I32 [K*b/32, N]   codes of output n: an LE bit stream down column n
 *   P.qzeros   I32 [G, N*b/32]   zeros of group g: an LE bit stream along row g
 *   P.scales   F16 [G, N]
 *   P.g_idx    I32 [K]           group of each input
 *
 * w[n,k] = scales[g,n] * (code - zero), g = g_idx[k]. Source: checkpoint formats, sections 2.1 to 2.5. The
 * tensors of GPTQModel 7.7 for the same codes are equal bit for bit (tests/golden). */
#include "checkpoint/internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "checkpoint/bitpack.h"
#include "checkpoint/gptq_config.h"

enum { QWEIGHT, QZEROS, SCALES, G_IDX, N_TENSORS };

static const char *const suffixes[N_TENSORS] = {".qweight", ".qzeros", ".scales", ".g_idx"};

/* ---- reading ---- */

static bool is_gptq(const json_t *quant_config, bool v2)
{
    char method[32], format[32];
    nb_quant_config_method(quant_config, method);
    nb_gptq_config_format(quant_config, format);
    return !strcmp(method, "gptq") && v2 == !strcmp(format, "gptq_v2");
}

static bool probe_v1(const json_t *quant_config)
{
    return is_gptq(quant_config, false);
}

static bool probe_v2(const json_t *quant_config)
{
    return is_gptq(quant_config, true);
}

static void release(void *state)
{
    if (!state) return;
    nb_gptq_config_release(state);
    nb_free(state);
}

/* First stored word of a row of symmetric zeros. */
static uint32_t symmetric_word(int64_t bits, bool v2)
{
    uint8_t codes[32];
    uint32_t words[8];
    memset(codes, (1 << (bits - 1)) - (v2 ? 0 : 1), sizeof codes);
    nb_bits_pack(words, 1, codes, (int)bits, 32);
    return words[0];
}

/* A symmetric file's zeros are not read, but if they contradict that, the user should hear of it. */
static void note_zeros(struct nb_model *m, const struct nb_gptq_config *c, const char *path,
                       const struct nb_gptq_module *s)
{
    const struct nb_tensor *t = nb_module_tensor(m, path, ".qzeros");
    if (m->note[0] || !s->sym || !t || t->data.bytes < 4) return;
    uint32_t word;
    memcpy(&word, t->data.data, 4);
    if (word == symmetric_word(s->bits, c->v2)) return;
    bool other = word == symmetric_word(s->bits, !c->v2);
    snprintf(m->note, sizeof m->note,
             other
                 ? "the config says %s, but qzeros of '%.100s' begins with %08" PRIX32
                   ", as the other version writes it; read as symmetric all the same"
                 : "the config says %s and symmetric, but qzeros of '%.100s' begins with %08" PRIX32
                   ", which is not symmetric; zeros are ignored",
             c->v2 ? "gptq_v2" : "gptq", path, word);
}

static int parse(struct nb_model *m, void **state, struct nb_err *err)
{
    struct nb_gptq_config *c = nb_xalloc(sizeof *c);
    *state = c;
    int rc = nb_gptq_config_parse(c, m->quant_config, err);
    for (int64_t l = 0; !rc && l < m->arch.n_layers; l++) {
        int n;
        const struct nb_arch_linear *linears = nb_arch_layer_linears(&m->arch, l, &n);
        for (int i = 0; !rc && i < n; i++) {
            char path[NB_NAME_MAX * 2];
            struct nb_gptq_module s;
            nb_arch_name(&m->arch, l, linears[i].name, path);
            rc = nb_gptq_config_module(c, m, path, &s, err);
            if (!rc && s.quantized) note_zeros(m, c, path, &s);
        }
    }
    if (rc) {
        release(c);
        *state = NULL;
    }
    return rc;
}

static bool is_quantized(const struct nb_model *m, const char *path)
{
    struct nb_gptq_module s;
    return !nb_gptq_config_module(m->checkpoint_state, m, path, &s, NULL) && s.quantized;
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

static int64_t group_of(const struct nb_qspec *spec, int64_t cols)
{
    return spec->group_cols <= 0 || spec->group_cols > cols ? cols : spec->group_cols;
}

static int plan(const struct nb_qspec *spec, int64_t rows, int64_t cols,
                const struct nb_pack_opts *unused, struct nb_packed_tensor out[NB_MAX_PACKED])
{
    (void)unused;
    int64_t bits = spec->elem.bits, gs = group_of(spec, cols), groups = (cols + gs - 1) / gs;
    nb_packed_set(&out[QWEIGHT], suffixes[QWEIGHT], NB_I32, (cols * bits + 31) / 32, rows);
    nb_packed_set(&out[QZEROS], suffixes[QZEROS], NB_I32, groups, (rows * bits + 31) / 32);
    nb_packed_set(&out[SCALES], suffixes[SCALES], NB_F16, groups, rows);
    nb_packed_set(&out[G_IDX], suffixes[G_IDX], NB_I32, cols, -1);
    return N_TENSORS;
}

struct found { /* the tensors of one module and what the config says of it */
    struct nb_gptq_module module;
    struct nb_qspec spec;
    const struct nb_tensor *tensor[N_TENSORS]; /* g_idx may be NULL: k / group */
};

static int find(const struct nb_model *m, const char *path, int64_t rows, int64_t cols,
                struct found *f, struct nb_err *err)
{
    memset(f, 0, sizeof *f);
    int rc = nb_gptq_config_module(m->checkpoint_state, m, path, &f->module, err);
    if (rc) return rc;
    f->spec = (struct nb_qspec){
        .elem = {.kind = NB_ELEM_INT, .bits = (int)f->module.bits, .vec = 1},
        .group_rows = 1,
        .group_cols = f->module.group,
        .zero = NB_ZERO_CODE,
        .symmetric = f->module.sym,
    };
    struct nb_packed_tensor want[NB_MAX_PACKED];
    plan(&f->spec, rows, cols, NULL, want);
    for (int i = 0; i < N_TENSORS; i++) {
        bool optional = i == G_IDX && !f->module.desc_act;
        if (optional && !nb_module_tensor(m, path, suffixes[i])) continue;
        rc = nb_module_need(m, path, &want[i], &f->tensor[i], err);
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

/* col_group stays NULL when the file's g_idx is k / group throughout. */
static int read_groups(struct nb_qmat *q, const struct nb_tensor *t, struct nb_arena *arena,
                       struct nb_err *err)
{
    if (!t) return 0;
    bool plain = true;
    for (int64_t k = 0; k < q->cols; k++) {
        int32_t g;
        memcpy(&g, t->data.data + 4 * k, 4);
        if (g < 0 || g >= q->n_groups) {
            return nb_fail(err, NB_E_FORMAT,
                           "tensor '%s': group %" PRId32 " of input %" PRId64 ", there are %" PRId64
                           " groups",
                           t->name, g, k, q->n_groups);
        }
        plain = plain && g == k / q->spec.group_cols;
    }
    if (plain) return 0;
    int32_t *col_group = nb_arena_alloc(arena, (size_t)q->cols, sizeof *col_group);
    if (!col_group)
        return nb_fail(err, NB_E_NOMEM, "no memory for %" PRId64 " group numbers", q->cols);
    memcpy(col_group, t->data.data, (size_t)q->cols * sizeof *col_group);
    q->col_group = col_group;
    return 0;
}

/* What turns stored zero fields into zeros (section 2.3). */
struct zero_rule {
    uint32_t add_word; /* added to each word before the fields are cut out */
    uint8_t add_field; /* added to each field, modulo 2^bits */
};

static struct zero_rule zero_rule_of(const struct nb_gptq_config *c, int64_t bits)
{
    if (c->v2) return (struct zero_rule){0, 0};
    if (!c->whole_words || bits == 3) return (struct zero_rule){0, 1};
    return (struct zero_rule){bits == 2 ? 0x55555555u : bits == 4 ? 0x11111111u : 0x01010101u, 0};
}

static int read_zeros(struct nb_qmat *q, const struct nb_tensor *t, struct zero_rule rule,
                      struct nb_arena *arena, struct nb_err *err)
{
    int bits = q->spec.elem.bits;
    size_t rows = (size_t)q->rows, n_words = nb_bits_words(rows, bits);
    uint32_t *words = nb_arena_alloc(arena, n_words, sizeof *words);
    uint8_t *fields = nb_arena_alloc(arena, rows, 1);
    if (!words || !fields)
        return nb_fail(err, NB_E_NOMEM, "no memory for the zeros of %zu outputs", rows);
    for (int64_t g = 0; g < q->n_groups; g++) {
        memcpy(words, t->data.data + (size_t)g * n_words * 4, n_words * 4);
        for (size_t i = 0; i < n_words; i++) words[i] += rule.add_word;
        nb_bits_unpack(fields, words, 1, bits, rows);
        for (size_t n = 0; n < rows; n++) {
            unsigned z = (fields[n] + (unsigned)rule.add_field) & ((1u << bits) - 1);
            q->zero.value[n * (size_t)q->n_groups + (size_t)g] = (float)z;
        }
    }
    return 0;
}

static int read_scales(struct nb_qmat *q, const struct nb_tensor *t, struct nb_arena *arena,
                       struct nb_err *err)
{
    size_t rows = (size_t)q->rows, row_bytes = rows * (size_t)nb_dtype_bits(t->dtype) / 8;
    float *row = nb_arena_alloc(arena, rows, sizeof *row);
    if (!row) return nb_fail(err, NB_E_NOMEM, "no memory for the scales of %zu outputs", rows);
    for (int64_t g = 0; g < q->n_groups; g++) {
        nb_to_f32(row, t->data.data + (size_t)g * row_bytes, t->dtype, rows);
        for (size_t n = 0; n < rows; n++)
            q->scale.value[n * (size_t)q->n_groups + (size_t)g] = row[n];
    }
    return 0;
}

static int read_module(const struct nb_model *m, const struct nb_module_ref *ref,
                       struct nb_arena *arena, struct nb_qmat *out, struct nb_err *err)
{
    const int64_t rows = ref->rows, cols = ref->cols;
    const struct nb_gptq_config *c = m->checkpoint_state;
    struct found f;
    int rc = find(m, ref->path, rows, cols, &f, err);
    if (!rc) rc = nb_qmat_init(out, &f.spec, rows, cols, arena, err);
    if (!rc) rc = read_groups(out, f.tensor[G_IDX], arena, err);
    if (!rc) rc = read_scales(out, f.tensor[SCALES], arena, err);
    if (rc) return rc;
    if (f.module.sym) {
        int64_t n = rows * out->n_groups;
        for (int64_t i = 0; i < n; i++) out->zero.value[i] = (float)(1 << (f.module.bits - 1));
    } else {
        rc = read_zeros(out, f.tensor[QZEROS], zero_rule_of(c, f.module.bits), arena, err);
    }
    const unsigned char *words = f.tensor[QWEIGHT]->data.data;
    for (int64_t n = 0; !rc && n < rows; n++) {
        nb_bits_unpack(out->codes + n * cols, words + 4 * n, (size_t)rows, out->spec.elem.bits,
                       (size_t)cols);
    }
    return rc;
}

/* ---- writing ---- */

/* A short last group could be told by g_idx, and we read such files, but of the loaders only GPTQModel's
 * slowest kernel takes them. */
static int check_group(const struct nb_qspec *spec, int64_t cols, struct nb_err *err)
{
    int64_t g = spec->group_cols;
    if (spec->group_rows <= 1 && (g <= 0 || nb_module_group_usable(g, cols, 256))) return 0;
    char usable[32];
    nb_module_usable_groups(cols, 256, usable);
    return nb_fail(err, NB_E_SPEC,
                   "gptq cannot cut %" PRId64 " inputs in groups of %" PRId64
                   "; usable groups are %s%s-1 (per channel)",
                   cols, g, usable, usable[0] ? ", " : "");
}

static int can_write(const struct nb_qspec *spec, int64_t rows, int64_t cols, bool desc_act,
                     struct nb_err *err)
{
    (void)desc_act;
    int b = spec->elem.bits;
    if (spec->elem.kind != NB_ELEM_INT || spec->elem.vec > 1 || spec->zero != NB_ZERO_CODE ||
        spec->act != NB_ACT_NONE) {
        return nb_fail(err, NB_E_SPEC,
                       "gptq holds integer codes with integer zeros only (W2A16 to W8A16)");
    }
    if (b != 2 && b != 3 && b != 4 && b != 8) {
        return nb_fail(err, NB_E_SPEC,
                       "gptq has no %d-bit layout that loaders share; nearest: %d bits", b,
                       b < 2   ? 2
                       : b > 6 ? 8
                               : 4);
    }
    if (spec->scale_dtype != NB_F16) {
        return nb_fail(err, NB_E_SPEC, "gptq stores scales as F16, not as %s",
                       nb_dtype_name(spec->scale_dtype));
    }
    if (rows % 32 || cols % 32) {
        return nb_fail(err, NB_E_SPEC,
                       "gptq packs 32 codes at a time: a linear of %" PRId64 " x %" PRId64
                       " must stay float (--ignore), nearest sizes are %" PRId64 " x %" PRId64,
                       rows, cols, (rows + 31) / 32 * 32, (cols + 31) / 32 * 32);
    }
    return check_group(spec, cols, err);
}

static int can_describe(const struct nb_checkpoint_info *info, struct nb_err *err)
{
    (void)info;
    (void)err;
    return 0;
}

/* The value must survive the file's type, since the codes were chosen for it. */
static int check_scale(float s, int64_t n, int64_t g, struct nb_err *err)
{
    if (isfinite(s) && s != 0 && nb_round_to(s, NB_F16) == s) return 0;
    return nb_fail(err, NB_E_NUMERIC,
                   "scale %g of output %" PRId64 ", group %" PRId64
                   " is not a finite F16 other than 0",
                   (double)s, n, g);
}

static int check_zero(const struct nb_qmat *q, float z, int64_t zero_min, int64_t n,
                      struct nb_err *err)
{
    int half = 1 << (q->spec.elem.bits - 1);
    if (q->spec.symmetric && z == (float)half) return 0;
    if (!q->spec.symmetric && z >= (float)zero_min && z <= (float)(2 * half - 1) && z == rintf(z))
        return 0;
    if (q->spec.symmetric) {
        return nb_fail(err, NB_E_NUMERIC,
                       "zero %g of output %" PRId64 " in a symmetric matrix, expected %d",
                       (double)z, n, half);
    }
    return nb_fail(err, NB_E_NUMERIC,
                   "zero %g of output %" PRId64 " cannot be stored, possible are %" PRId64
                   " to %d%s",
                   (double)z, n, zero_min, 2 * half - 1,
                   zero_min && z == 0 ? "; gptq_v2 and awq hold zero 0" : "");
}

static int pack_planes(const struct nb_qmat *q, bool v2, struct nb_packed_tensor *out,
                       struct nb_arena *arena, struct nb_err *err)
{
    int bits = q->spec.elem.bits;
    size_t rows = (size_t)q->rows, n_words = nb_bits_words(rows, bits);
    uint32_t *qzeros = out[QZEROS].data;
    uint16_t *scales = out[SCALES].data;
    uint8_t *fields = nb_arena_alloc(arena, rows, 1);
    if (!fields) return nb_fail(err, NB_E_NOMEM, "no memory for the zeros of %zu outputs", rows);
    for (int64_t g = 0; g < q->n_groups; g++) {
        for (int64_t n = 0; n < q->rows; n++) {
            float s = q->scale.value[n * q->n_groups + g], z = q->zero.value[n * q->n_groups + g];
            int rc = check_scale(s, n, g, err);
            if (!rc) rc = check_zero(q, z, v2 ? 0 : 1, n, err);
            if (rc) return rc;
            scales[g * q->rows + n] = nb_f32_to_f16(s);
            fields[n] = (uint8_t)(z - (v2 ? 0 : 1));
        }
        nb_bits_pack(qzeros + (size_t)g * n_words, 1, fields, bits, rows);
    }
    return 0;
}

static int pack(const struct nb_qmat *q, bool v2, struct nb_arena *arena,
                struct nb_packed_tensor *out, int *n_out, struct nb_err *err)
{
    *n_out = plan(&q->spec, q->rows, q->cols, NULL, out);
    for (int i = 0; i < N_TENSORS; i++) {
        size_t bytes = (size_t)out[i].shape[0] * (out[i].rank > 1 ? (size_t)out[i].shape[1] : 1);
        out[i].data = nb_arena_calloc(arena, bytes, (size_t)nb_dtype_bits(out[i].dtype) / 8);
        if (!out[i].data)
            return nb_fail(err, NB_E_NOMEM, "no memory to pack %" PRId64 " x %" PRId64, q->rows,
                           q->cols);
    }
    int rc = pack_planes(q, v2, out, arena, err);
    if (rc) return rc;
    uint32_t *qweight = out[QWEIGHT].data;
    for (int64_t n = 0; n < q->rows; n++) {
        nb_bits_pack(qweight + n, (size_t)q->rows, q->codes + n * q->cols, q->spec.elem.bits,
                     (size_t)q->cols);
    }
    int32_t *g_idx = out[G_IDX].data;
    for (int64_t k = 0; k < q->cols; k++) g_idx[k] = (int32_t)nb_qmat_group(q, k);
    return 0;
}

static int pack_v1(const struct nb_qmat *q, const struct nb_pack_opts *unused,
                   struct nb_arena *arena, struct nb_packed_tensor out[NB_MAX_PACKED], int *n,
                   struct nb_err *err)
{
    (void)unused;
    return pack(q, false, arena, out, n, err);
}

static int pack_v2(const struct nb_qmat *q, const struct nb_pack_opts *unused,
                   struct nb_arena *arena, struct nb_packed_tensor out[NB_MAX_PACKED], int *n,
                   struct nb_err *err)
{
    (void)unused;
    return pack(q, true, arena, out, n, err);
}

static json_t *config_v1(const struct nb_checkpoint_info *info)
{
    return nb_gptq_config_make(info, false);
}

static json_t *config_v2(const struct nb_checkpoint_info *info)
{
    return nb_gptq_config_make(info, true);
}

const struct nb_checkpoint nb_checkpoint_gptq = {
    .name = "gptq",
    .summary = "GPTQ, zeros stored minus one: the most widely loaded symmetric format",
    .probe = probe_v1,
    .parse = parse,
    .release = release,
    .is_quantized = is_quantized,
    .check = check,
    .read = read_module,
    .owns = owns,
    .can_write = can_write,
    .plan = plan,
    .pack = pack_v1,
    .can_describe = can_describe,
    .config = config_v1,
    .side_config = "quantize_config.json",
    .sym_default = true,
    .scale_dtype = NB_F16,
    .zero_min = 1,
};

const struct nb_checkpoint nb_checkpoint_gptq_v2 = {
    .name = "gptq_v2",
    .summary = "GPTQ with true zeros: for asymmetric grids, read by GPTQModel and transformers",
    .probe = probe_v2,
    .parse = parse,
    .release = release,
    .is_quantized = is_quantized,
    .check = check,
    .read = read_module,
    .owns = owns,
    .can_write = can_write,
    .plan = plan,
    .pack = pack_v2,
    .can_describe = can_describe,
    .config = config_v2,
    .side_config = "quantize_config.json",
    .sym_default = true,
    .scale_dtype = NB_F16,
    .zero_min = 0,
};
