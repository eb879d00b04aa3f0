/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_qmat.c - products with any quantized weight: rows become f32 a block at a time, then as
 * dense.
 *
 * The packed form keeps the codes at their width and the decoded scales and zeros:
 *
 *   struct head
 *   scale [scales] f32 | zero [scales] f32, if any | group of each column i32, act-order only
 *   codes: rows of whole bytes, code k at bits [k*bits, (k+1)*bits), low bits first | slack
 *
 * Values are computed as nb_qmat_dequant_row computes them, so results equal those of the dense
 * kernel on the dequantized matrix to the last bit. */
#include <string.h>

#include "backend/kernels.h"

enum { CODES_AT_ONCE = 1024, SLACK = 8 };

enum decoding {
    ANY,      /* one value at a time */
    INTEGERS, /* these in whole runs of a group: ops->dequant_u8 */
    LOOKUP16,
    E4M3
};

struct head {
    int64_t row_bytes, cols, n_groups, group_rows, group_cols;
    int bits;
    bool flat;
    enum nb_zero zero_kind;
    enum decoding decoding;
    size_t scale, zero, group, codes; /* offsets in bytes; zero, group: 0 when absent */
    float value[256];                 /* of each code */
};

struct source { /* what a row loader needs */
    const struct nb_cpu_ops *ops;
    const struct head *head;
};

static bool supports(const struct nb_weight *w)
{
    return w->q && w->q->spec.elem.vec == 1 && w->q->spec.elem.bits >= 1 &&
           w->q->spec.elem.bits <= 8;
}

static enum decoding decoding_of(const struct nb_qmat *q)
{
    const struct nb_elem *e = &q->spec.elem;
    if (q->col_group || q->spec.zero == NB_ZERO_MIN) return ANY;
    if (e->kind == NB_ELEM_INT) return INTEGERS;
    if (q->spec.zero != NB_ZERO_NONE) return ANY;
    if (e->bits <= 4) return LOOKUP16;
    return e->kind == NB_ELEM_FLOAT && e->exp == 4 && e->man == 3 ? E4M3 : ANY;
}

/* Offsets and sizes; false when something does not fit. */
static bool plan(const struct nb_qmat *q, struct head *h, size_t *bytes)
{
    size_t planes, codes, at = (sizeof *h + 63) / 64 * 64, bits;
    memset(h, 0, sizeof *h);
    if (!nb_mul((size_t)nb_qmat_planes(q), sizeof(float), &planes)) return false;
    h->scale = at;
    if (!nb_add(at, planes, &at)) return false;
    if (q->zero.value) {
        h->zero = at;
        if (!nb_add(at, planes, &at)) return false;
    }
    if (q->col_group) {
        h->group = at;
        if (!nb_add(at, (size_t)q->cols * sizeof(int32_t), &at)) return false;
    }
    h->codes = at;
    if (!nb_mul((size_t)q->cols, (size_t)q->spec.elem.bits, &bits)) return false;
    h->row_bytes = (int64_t)((bits + 7) / 8);
    if (!nb_mul((size_t)q->rows, (size_t)h->row_bytes, &codes) || !nb_add(at, codes, &at))
        return false;
    h->cols = q->cols;
    h->n_groups = q->n_groups;
    h->flat = q->spec.flat;
    h->group_rows = q->spec.group_rows;
    h->group_cols = q->spec.group_cols;
    h->bits = q->spec.elem.bits;
    h->zero_kind = q->spec.zero;
    h->decoding = decoding_of(q);
    return nb_add(at, SLACK, bytes);
}

static bool packed_bytes(const struct nb_cpu_ops *ops, const struct nb_weight *w, size_t *bytes)
{
    (void)ops;
    struct head h;
    return plan(w->q, &h, bytes);
}

static void pack(const struct nb_cpu_ops *ops, const struct nb_weight *w, void *packed)
{
    (void)ops;
    const struct nb_qmat *q = w->q;
    struct head *h = packed;
    size_t bytes;
    plan(q, h, &bytes);
    unsigned char *base = packed;
    for (unsigned c = 0; c < 1u << h->bits; c++) h->value[c] = nb_elem_value(&q->spec.elem, c);
    size_t planes = (h->zero ? h->zero : h->group ? h->group : h->codes) - h->scale;
    memcpy(base + h->scale, q->scale.value, planes);
    if (h->zero) memcpy(base + h->zero, q->zero.value, planes);
    if (h->group) memcpy(base + h->group, q->col_group, (size_t)q->cols * sizeof(int32_t));
    memset(base + h->codes, 0, bytes - h->codes);
    for (int64_t n = 0; n < q->rows; n++) {
        unsigned char *row = base + h->codes + (size_t)(n * h->row_bytes);
        const uint8_t *code = q->codes + n * q->cols;
        for (int64_t k = 0; k < q->cols; k++) {
            size_t bit = (size_t)k * (size_t)h->bits;
            unsigned v = (unsigned)code[k] << (bit & 7);
            row[bit >> 3] = (unsigned char)(row[bit >> 3] | (v & 255u));
            if (v > 255u) row[(bit >> 3) + 1] = (unsigned char)(row[(bit >> 3) + 1] | (v >> 8));
        }
    }
}

struct row { /* columns [k0, k0 + n) of one row */
    const struct nb_cpu_ops *ops;
    const struct head *head;
    const unsigned char *codes;
    const float *scale, *zero; /* of the row's first group on; zero NULL when there is none */
    const int32_t *group;      /* of each column; NULL: consecutive */
    int64_t start;             /* flat: where in its first group the row starts */
    int64_t k0, n;
};

/* The packed codes as bytes. */
static void unpack(const struct row *r, uint8_t *code)
{
    const int bits = r->head->bits;
    if (bits == 8) {
        memcpy(code, r->codes + r->k0, (size_t)r->n);
        return;
    }
    if (bits == 4 && r->k0 % 2 == 0) {
        r->ops->unpack_u4(code, r->codes + r->k0 / 2, r->n);
        return;
    }
    const unsigned mask = (1u << bits) - 1u;
    for (int64_t k = 0; k < r->n; k++) {
        size_t bit = (size_t)(r->k0 + k) * (size_t)bits;
        unsigned two = r->codes[bit >> 3] | (unsigned)r->codes[(bit >> 3) + 1] << 8;
        code[k] = (uint8_t)(two >> (bit & 7) & mask);
    }
}

static int64_t group_of(const struct row *r, int64_t k)
{
    return r->group ? r->group[k] : (r->start + k) / r->head->group_cols;
}

/* Any element kind and grouping. */
static void values(const struct row *r, const uint8_t *code, float *out)
{
    const struct head *h = r->head;
    for (int64_t k = 0; k < r->n; k++) {
        int64_t g = group_of(r, r->k0 + k);
        float v = h->value[code[k]];
        if (h->zero_kind == NB_ZERO_CODE) v -= r->zero[g];
        v *= r->scale[g];
        if (h->zero_kind == NB_ZERO_MIN) v -= r->zero[g];
        out[k] = v;
    }
}

/* The common cases: consecutive groups, whole runs at a time. */
static void runs(const struct row *r, const uint8_t *code, float *out)
{
    const struct nb_cpu_ops *ops = r->ops;
    const struct head *h = r->head;
    const int64_t size = h->group_cols;
    int64_t g = group_of(r, r->k0), end = (g + 1) * size - r->start - r->k0;
    for (int64_t k = 0; k < r->n; k = end, end += size, g++) {
        const int64_t n = (end < r->n ? end : r->n) - k;
        switch (h->decoding) {
        case LOOKUP16: ops->lookup16(out + k, code + k, n, h->value, r->scale[g]); break;
        case E4M3: ops->decode_e4m3(out + k, code + k, n, r->scale[g]); break;
        default:
            ops->dequant_u8(out + k, code + k, n, r->scale[g], r->zero ? r->zero[g] : 0.0f);
            break;
        }
    }
}

static void load_row(const void *source, int64_t row, int64_t k0, int64_t n, float *out)
{
    const struct source *src = source;
    const struct head *h = src->head;
    const unsigned char *base = (const unsigned char *)h;
    const int64_t first = row * h->cols; /* of the row, in a flat matrix */
    const int64_t plane = h->flat ? first / h->group_cols : row / h->group_rows * h->n_groups;
    struct row r = {.ops = src->ops,
                    .head = h,
                    .codes = base + h->codes + row * h->row_bytes,
                    .scale = (const float *)(base + h->scale) + plane};
    if (h->zero) r.zero = (const float *)(base + h->zero) + plane;
    if (h->group) r.group = (const int32_t *)(base + h->group);
    if (h->flat) r.start = first % h->group_cols;
    uint8_t code[CODES_AT_ONCE];
    for (int64_t k = 0; k < n; k += CODES_AT_ONCE) {
        r.k0 = k0 + k;
        r.n = n - k < CODES_AT_ONCE ? n - k : CODES_AT_ONCE;
        unpack(&r, code);
        if (h->decoding == ANY) values(&r, code, out + k);
        else runs(&r, code, out + k);
    }
}

static void run(const struct nb_cpu_ops *ops, const struct nb_scratch *s,
                const struct nb_gemm_job *job)
{
    struct source src = {.ops = ops, .head = job->packed};
    nb_gemm_rows_run(ops, s, job, &(struct nb_row_source){.of = &src, .load = load_row});
}

const struct nb_gemm_kernel nb_gemm_qmat = {
    .name = "qmat",
    .supports = supports,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .m_step = 0,
    .n_step = 128,
    .run = run,
};
