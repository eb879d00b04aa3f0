/* SPDX-License-Identifier: Apache-2.0
 *
 * block_hub.c - blocks to the hub and back: a block is taken apart into codes, scale codes and its one or two
 * f16 factors, and put together from them.
 *
 * Left out: floats, Q8_1 and Q8_K (run-time types with sums), vectors from a codebook, and TQ1_0, whose bytes
 * hold base-3 digits with spellings that the codes do not tell apart. Source: GGUF specification, section 4. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "numeric/block.h"
#include "numeric/block_layout.h"

enum { MAX_ELEMS = 256, MAX_GROUPS = 16 };

struct parts { /* of one block */
    uint8_t code[MAX_ELEMS];
    uint8_t scale[MAX_GROUPS],
        min[MAX_GROUPS]; /* two levels, and the one byte of MXFP4 and NVFP4 */
    uint16_t d, m;       /* f16 */
};

struct hub_type {
    const char *name;
    struct nb_qspec spec;
    float zero; /* CODE: the same for all */
    void (*get)(const unsigned char *b, struct parts *p);
    void (*put)(const struct parts *p, unsigned char *b);
};

/* ---- packed codes ---- */

static void get_nibbles32(const unsigned char *qs, const unsigned char *high, uint8_t *code)
{
    for (int i = 0; i < 16; i++) {
        code[i] = qs[i] & 15;
        code[i + 16] = qs[i] >> 4;
    }
    for (int i = 0; high && i < 32; i++)
        code[i] = (uint8_t)(code[i] | (high[i / 8] >> i % 8 & 1) << 4);
}

static void put_nibbles32(const uint8_t *code, unsigned char *qs, unsigned char *high)
{
    for (int i = 0; i < 16; i++) qs[i] = (unsigned char)((code[i] & 15) | (code[i + 16] & 15) << 4);
    for (int i = 0; high && i < 4; i++) high[i] = 0;
    for (int i = 0; high && i < 32; i++)
        high[i / 8] = (unsigned char)(high[i / 8] | (code[i] >> 4 & 1) << i % 8);
}

/* `bits` low bits of 256 codes: runs of 32 share bytes, the first run in the low bits. */
static void get_runs(const unsigned char *qs, int bits, uint8_t *code)
{
    const int per = 8 / bits;
    for (int i = 0; i < 256; i++) {
        const int run = i / 32;
        code[i] = qs[32 * (run / per) + i % 32] >> bits * (run % per) & ((1 << bits) - 1);
    }
}

static void put_runs(const uint8_t *code, int bits, unsigned char *qs)
{
    const int per = 8 / bits;
    memset(qs, 0, (size_t)(256 / per));
    for (int i = 0; i < 256; i++) {
        unsigned char *q = &qs[32 * (i / 32 / per) + i % 32];
        *q = (unsigned char)(*q | (code[i] & ((1 << bits) - 1)) << bits * (i / 32 % per));
    }
}

/* One or two more bits of 256 codes, above the `at` that are there. */
static void add_runs(const unsigned char *qs, int bits, int at, uint8_t *code)
{
    uint8_t high[256];
    get_runs(qs, bits, high);
    for (int i = 0; i < 256; i++) code[i] = (uint8_t)(code[i] | high[i] << at);
}

static void put_high_runs(const uint8_t *code, int bits, int at, unsigned char *qs)
{
    uint8_t high[256];
    for (int i = 0; i < 256; i++) high[i] = code[i] >> at;
    put_runs(high, bits, qs);
}

/* ---- types of one scale ---- */

static void get_q4_0(const unsigned char *b, struct parts *p)
{
    p->d = nb_block_get_half(b);
    get_nibbles32(b + 2, NULL, p->code);
}

static void put_q4_0(const struct parts *p, unsigned char *b)
{
    nb_block_put_half(b, p->d);
    put_nibbles32(p->code, b + 2, NULL);
}

static void get_q4_1(const unsigned char *b, struct parts *p)
{
    p->d = nb_block_get_half(b);
    p->m = nb_block_get_half(b + 2);
    get_nibbles32(b + 4, NULL, p->code);
}

static void put_q4_1(const struct parts *p, unsigned char *b)
{
    nb_block_put_half(b, p->d);
    nb_block_put_half(b + 2, p->m);
    put_nibbles32(p->code, b + 4, NULL);
}

static void get_q5_0(const unsigned char *b, struct parts *p)
{
    p->d = nb_block_get_half(b);
    get_nibbles32(b + 6, b + 2, p->code);
}

static void put_q5_0(const struct parts *p, unsigned char *b)
{
    nb_block_put_half(b, p->d);
    put_nibbles32(p->code, b + 6, b + 2);
}

static void get_q5_1(const unsigned char *b, struct parts *p)
{
    p->d = nb_block_get_half(b);
    p->m = nb_block_get_half(b + 2);
    get_nibbles32(b + 8, b + 4, p->code);
}

static void put_q5_1(const struct parts *p, unsigned char *b)
{
    nb_block_put_half(b, p->d);
    nb_block_put_half(b + 2, p->m);
    put_nibbles32(p->code, b + 8, b + 4);
}

static void get_q8_0(const unsigned char *b, struct parts *p)
{
    p->d = nb_block_get_half(b);
    for (int i = 0; i < 32; i++) p->code[i] = b[2 + i] ^ 0x80; /* signed to code - 128 */
}

static void put_q8_0(const struct parts *p, unsigned char *b)
{
    nb_block_put_half(b, p->d);
    for (int i = 0; i < 32; i++) b[2 + i] = p->code[i] ^ 0x80;
}

static void get_mxfp4(const unsigned char *b, struct parts *p)
{
    p->scale[0] = b[0];
    get_nibbles32(b + 1, NULL, p->code);
}

static void put_mxfp4(const struct parts *p, unsigned char *b)
{
    b[0] = p->scale[0];
    put_nibbles32(p->code, b + 1, NULL);
}

static void get_nvfp4(const unsigned char *b, struct parts *p)
{
    memcpy(p->scale, b, 4);
    for (int i = 0; i < 64; i++) p->code[i] = b[4 + 8 * (i / 16) + i % 8] >> 4 * (i % 16 / 8) & 15;
}

static void put_nvfp4(const struct parts *p, unsigned char *b)
{
    memcpy(b, p->scale, 4);
    for (int i = 0; i < 32; i++) {
        const uint8_t *q = p->code + 16 * (i / 8) + i % 8;
        b[4 + i] = (unsigned char)((q[0] & 15) | (q[8] & 15) << 4);
    }
}

/* Consecutive codes, low bits first, after the scale. */
static void get_bits(const unsigned char *b, int n, int bits, struct parts *p)
{
    p->d = nb_block_get_half(b);
    for (int i = 0; i < n; i++)
        p->code[i] = b[2 + i * bits / 8] >> i * bits % 8 & ((1 << bits) - 1);
}

static void put_bits(const struct parts *p, int n, int bits, unsigned char *b)
{
    nb_block_put_half(b, p->d);
    memset(b + 2, 0, (size_t)(n * bits / 8));
    for (int i = 0; i < n; i++) {
        unsigned char *q = &b[2 + i * bits / 8];
        *q = (unsigned char)(*q | (p->code[i] & ((1 << bits) - 1)) << i * bits % 8);
    }
}

static void get_q1_0(const unsigned char *b, struct parts *p)
{
    get_bits(b, 128, 1, p);
}

static void put_q1_0(const struct parts *p, unsigned char *b)
{
    put_bits(p, 128, 1, b);
}

static void get_q2_0(const unsigned char *b, struct parts *p)
{
    get_bits(b, 64, 2, p);
}

static void put_q2_0(const struct parts *p, unsigned char *b)
{
    put_bits(p, 64, 2, b);
}

static void get_tq2_0(const unsigned char *b, struct parts *p)
{
    get_runs(b, 2, p->code);
    p->d = nb_block_get_half(b + 64);
}

static void put_tq2_0(const struct parts *p, unsigned char *b)
{
    put_runs(p->code, 2, b);
    nb_block_put_half(b + 64, p->d);
}

/* ---- types of two levels ---- */

static void get_q2_k(const unsigned char *b, struct parts *p)
{
    for (int j = 0; j < 16; j++) {
        p->scale[j] = b[j] & 15;
        p->min[j] = b[j] >> 4;
    }
    get_runs(b + 16, 2, p->code);
    p->d = nb_block_get_half(b + 80);
    p->m = nb_block_get_half(b + 82);
}

static void put_q2_k(const struct parts *p, unsigned char *b)
{
    for (int j = 0; j < 16; j++) b[j] = (unsigned char)((p->scale[j] & 15) | (p->min[j] & 15) << 4);
    put_runs(p->code, 2, b + 16);
    nb_block_put_half(b + 80, p->d);
    nb_block_put_half(b + 82, p->m);
}

static void get_q3_k(const unsigned char *b, struct parts *p)
{
    get_runs(b + 32, 2, p->code);
    add_runs(b, 1, 2, p->code);
    for (int k = 0; k < 16; k++) p->scale[k] = (uint8_t)(nb_block_q3_scale(b + 96, k) + 32);
    p->d = nb_block_get_half(b + 108);
}

static void put_q3_k(const struct parts *p, unsigned char *b)
{
    put_high_runs(p->code, 1, 2, b);
    put_runs(p->code, 2, b + 32);
    nb_block_put_q3_scales(b + 96, p->scale);
    nb_block_put_half(b + 108, p->d);
}

static void get_scale_mins(const unsigned char *b, struct parts *p)
{
    p->d = nb_block_get_half(b);
    p->m = nb_block_get_half(b + 2);
    for (int j = 0; j < 8; j++) {
        const struct nb_scale_min s = nb_block_scale_min(b + 4, j);
        p->scale[j] = (uint8_t)s.scale;
        p->min[j] = (uint8_t)s.min;
    }
}

static void put_scale_mins(const struct parts *p, unsigned char *b)
{
    nb_block_put_half(b, p->d);
    nb_block_put_half(b + 2, p->m);
    nb_block_put_scale_mins(b + 4, p->scale, p->min);
}

static void get_q4_k(const unsigned char *b, struct parts *p)
{
    get_scale_mins(b, p);
    get_runs(b + 16, 4, p->code);
}

static void put_q4_k(const struct parts *p, unsigned char *b)
{
    put_scale_mins(p, b);
    put_runs(p->code, 4, b + 16);
}

static void get_q5_k(const unsigned char *b, struct parts *p)
{
    get_scale_mins(b, p);
    get_runs(b + 48, 4, p->code);
    add_runs(b + 16, 1, 4, p->code);
}

static void put_q5_k(const struct parts *p, unsigned char *b)
{
    put_scale_mins(p, b);
    put_high_runs(p->code, 1, 4, b + 16);
    put_runs(p->code, 4, b + 48);
}

/* The low four bits run over 64 bytes for 128 codes, so they are not runs of 32. */
static void get_q6_k(const unsigned char *b, struct parts *p)
{
    for (int i = 0; i < 256; i++)
        p->code[i] = b[64 * (i / 128) + i % 64] >> 4 * (i % 128 / 64) & 15;
    add_runs(b + 128, 2, 4, p->code);
    for (int k = 0; k < 16; k++) p->scale[k] = b[192 + k] ^ 0x80;
    p->d = nb_block_get_half(b + 208);
}

static void put_q6_k(const struct parts *p, unsigned char *b)
{
    for (int i = 0; i < 128; i++) {
        const uint8_t *q = p->code + 128 * (i / 64) + i % 64;
        b[i] = (unsigned char)((q[0] & 15) | (q[64] & 15) << 4);
    }
    put_high_runs(p->code, 2, 4, b + 128);
    for (int k = 0; k < 16; k++) b[192 + k] = p->scale[k] ^ 0x80;
    nb_block_put_half(b + 208, p->d);
}

static void get_iq4_xs(const unsigned char *b, struct parts *p)
{
    p->d = nb_block_get_half(b);
    for (int j = 0; j < 8; j++) {
        p->scale[j] = (uint8_t)(nb_block_iq4_xs_scale(b, j) + 32);
        get_nibbles32(b + 8 + 16 * j, NULL, p->code + 32 * j);
    }
}

static void put_iq4_xs(const struct parts *p, unsigned char *b)
{
    nb_block_put_half(b, p->d);
    nb_block_put_iq4_xs_scales(b, p->scale);
    for (int j = 0; j < 8; j++) put_nibbles32(p->code + 32 * j, b + 8 + 16 * j, NULL);
}

/* ---- the table ---- */

static const float iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
static const float fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
static const float sign_values[2] = {-1, 1};

#define INT(n) .elem = {.kind = NB_ELEM_INT, .bits = n, .vec = 1}
#define TABLE(n, values) .elem = {.kind = NB_ELEM_TABLE, .bits = n, .vec = 1, .table = values}
#define GROUP(n) .group_rows = 1, .group_cols = n, .scale_dtype = NB_F16
#define SUPER(n, bits, zero_code) .super_groups = n, .scale_bits = bits, .scale_zero = zero_code
#define OFFSET .zero = NB_ZERO_MIN
#define MIDDLE .zero = NB_ZERO_CODE, .zero_implied = true, .symmetric = true
#define FIXED .zero = NB_ZERO_CODE, .zero_implied = true

static const struct hub_type table[] = {
    {"Q4_0", {INT(4), GROUP(32), MIDDLE}, 8, get_q4_0, put_q4_0},
    {"Q4_1", {INT(4), GROUP(32), OFFSET}, 0, get_q4_1, put_q4_1},
    {"Q5_0", {INT(5), GROUP(32), MIDDLE}, 16, get_q5_0, put_q5_0},
    {"Q5_1", {INT(5), GROUP(32), OFFSET}, 0, get_q5_1, put_q5_1},
    {"Q8_0", {INT(8), GROUP(32), MIDDLE}, 128, get_q8_0, put_q8_0},
    {"Q2_K", {INT(2), GROUP(16), SUPER(16, 4, 0), OFFSET}, 0, get_q2_k, put_q2_k},
    {"Q3_K", {INT(3), GROUP(16), SUPER(16, 6, 32), MIDDLE}, 4, get_q3_k, put_q3_k},
    {"Q4_K", {INT(4), GROUP(32), SUPER(8, 6, 0), OFFSET}, 0, get_q4_k, put_q4_k},
    {"Q5_K", {INT(5), GROUP(32), SUPER(8, 6, 0), OFFSET}, 0, get_q5_k, put_q5_k},
    {"Q6_K", {INT(6), GROUP(16), SUPER(16, 8, 128), MIDDLE}, 32, get_q6_k, put_q6_k},
    {"IQ4_NL", {TABLE(4, iq4_values), GROUP(32)}, 0, get_q4_0, put_q4_0},
    {"IQ4_XS", {TABLE(4, iq4_values), GROUP(32), SUPER(8, 6, 32)}, 0, get_iq4_xs, put_iq4_xs},
    {"Q1_0", {TABLE(1, sign_values), GROUP(128)}, 0, get_q1_0, put_q1_0},
    {"Q2_0", {INT(2), GROUP(64), FIXED}, 1, get_q2_0, put_q2_0},
    {"TQ2_0", {INT(2), GROUP(256), FIXED}, 1, get_tq2_0, put_tq2_0},
    {"MXFP4",
     {TABLE(4, fp4_values), .group_rows = 1, .group_cols = 32, .scale_dtype = NB_F8_E8M0},
     0,
     get_mxfp4,
     put_mxfp4},
    {"NVFP4",
     {TABLE(4, fp4_values), .group_rows = 1, .group_cols = 16, .scale_dtype = NB_F8_E4M3},
     0,
     get_nvfp4,
     put_nvfp4},
};

enum { N_TYPES = sizeof table / sizeof *table };

static const struct hub_type *hub_type_of(const struct nb_block_type *t)
{
    for (int i = 0; i < N_TYPES; i++) {
        if (strcmp(table[i].name, t->name) == 0) return &table[i];
    }
    return NULL;
}

bool nb_block_qspec(const struct nb_block_type *t, struct nb_qspec *spec)
{
    const struct hub_type *h = hub_type_of(t);
    if (h) *spec = h->spec;
    return h != NULL;
}

/* Whether the two say the same numbers; how CODE zeros are stored does not matter. */
static bool same_numbers(const struct nb_qspec *a, const struct nb_qspec *b)
{
    return a->elem.kind == b->elem.kind && a->elem.bits == b->elem.bits &&
           a->elem.table == b->elem.table && a->elem.vec <= 1 && a->group_rows <= 1 &&
           a->group_cols == b->group_cols && a->scale_dtype == b->scale_dtype &&
           a->super_groups == b->super_groups && a->zero == b->zero &&
           (!a->super_groups || (a->scale_bits == b->scale_bits && a->scale_zero == b->scale_zero));
}

const struct nb_block_type *nb_block_for_qspec(const struct nb_qspec *spec)
{
    for (int i = 0; i < N_TYPES; i++) {
        const struct nb_qspec *s = &table[i].spec;
        if (same_numbers(spec, s) && spec->symmetric == s->symmetric)
            return nb_block_find(table[i].name);
    }
    return NULL;
}

/* Scales of one byte that is no integer code; value of it. */
static bool has_float_scales(const struct nb_qspec *spec)
{
    return spec->scale_dtype == NB_F8_E8M0 || spec->scale_dtype == NB_F8_E4M3;
}

static float float_scale(const struct nb_qspec *spec, uint8_t code)
{
    return spec->scale_dtype == NB_F8_E8M0 ? nb_block_e8m0_half(code) : nb_block_e4m3_half(code);
}

/* Block number b of a row into the hub. */
static void take_block(const struct hub_type *h, const struct parts *p, struct nb_qmat *q,
                       int64_t row, int64_t b, int elems)
{
    const int groups = elems / (int)h->spec.group_cols;
    const int64_t at = row * q->n_groups + b * groups;
    memcpy(q->codes + row * q->cols + b * elems, p->code, (size_t)elems);
    if (h->spec.super_groups) {
        const int64_t super = row * q->n_supers + b;
        memcpy(q->scale.codes + at, p->scale, (size_t)groups);
        q->scale.super[super] = nb_f16_to_f32(p->d);
        if (q->zero.codes) {
            memcpy(q->zero.codes + at, p->min, (size_t)groups);
            q->zero.super[super] = nb_f16_to_f32(p->m);
        }
    }
    for (int j = 0; j < groups; j++) {
        if (has_float_scales(&h->spec)) {
            q->scale.codes[at + j] = p->scale[j];
            q->scale.value[at + j] = float_scale(&h->spec, p->scale[j]);
        } else if (!h->spec.super_groups) {
            q->scale.value[at + j] = nb_f16_to_f32(p->d);
        }
        if (h->spec.zero == NB_ZERO_CODE) q->zero.value[at + j] = h->zero;
        else if (q->zero.value && !q->zero.codes) q->zero.value[at + j] = -nb_f16_to_f32(p->m);
    }
}

int nb_block_to_qmat(const struct nb_blocks *b, int64_t rows, int64_t cols, struct nb_qmat *q,
                     struct nb_arena *arena, struct nb_err *err)
{
    const struct nb_block_type *t = b->type;
    const struct hub_type *h = hub_type_of(t);
    if (!h || cols % t->elems) {
        return nb_fail(err, NB_E_SPEC,
                       h ? "%" PRId64 " columns are no whole number of %s blocks"
                         : "%" PRId64 " columns of %s: its codes cannot be taken out one by one",
                       cols, t->name);
    }
    int rc = nb_qmat_init(q, &h->spec, rows, cols, arena, err);
    if (rc) return rc;
    if (has_float_scales(&h->spec)) {
        q->scale.codes = nb_arena_calloc(arena, (size_t)(rows * q->n_groups), 1);
        if (!q->scale.codes)
            return nb_fail(err, NB_E_NOMEM, "no memory for the scales of %" PRId64 " rows", rows);
    }
    const unsigned char *at = b->data;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t k = 0; k < cols / t->elems; k++, at += t->bytes) {
            struct parts p;
            h->get(at, &p);
            take_block(h, &p, q, r, k, t->elems);
        }
        if (h->spec.super_groups) nb_qmat_fill_values(q, r);
    }
    return 0;
}

/* x as f16, which it must be. */
static int exact_half(float x, uint16_t *half, const struct nb_block_type *t, int64_t row,
                      struct nb_err *err)
{
    *half = nb_f32_to_f16(x);
    if (isfinite(x) && nb_f16_to_f32(*half) == x) return 0;
    return nb_fail(err, NB_E_NUMERIC,
                   "row %" PRId64 ": %s stores a factor of %g, which is no finite f16", row,
                   t->name, (double)x);
}

/* The byte of a scale: the one kept, or the one of this value. */
static int float_scale_code(const struct nb_qmat *q, int64_t at, uint8_t *code, struct nb_err *err)
{
    if (q->scale.codes) {
        *code = q->scale.codes[at];
        return 0;
    }
    for (unsigned c = 0; c < 256; c++) {
        if (float_scale(&q->spec, (uint8_t)c) != q->scale.value[at]) continue;
        *code = (uint8_t)c;
        return 0;
    }
    return nb_fail(err, NB_E_NUMERIC, "a scale of %g is no %s value", (double)q->scale.value[at],
                   nb_dtype_name(q->spec.scale_dtype));
}

/* Block number b of a row out of the hub. */
static int give_block(const struct nb_block_type *t, const struct nb_qmat *q, int64_t row,
                      int64_t b, struct parts *p, struct nb_err *err)
{
    const struct hub_type *h = hub_type_of(t);
    const int groups = t->elems / (int)h->spec.group_cols;
    const int64_t at = row * q->n_groups + b * groups, super = row * q->n_supers + b;
    int rc = 0;
    memcpy(p->code, q->codes + row * q->cols + b * t->elems, (size_t)t->elems);
    for (int j = 0; j < groups; j++) {
        if (h->spec.super_groups) {
            p->scale[j] = q->scale.codes[at + j];
            if (q->zero.codes) p->min[j] = q->zero.codes[at + j];
        } else if (has_float_scales(&h->spec)) {
            rc = float_scale_code(q, at + j, &p->scale[j], err);
            if (rc) return rc;
        }
        if (h->spec.zero != NB_ZERO_CODE || q->zero.value[at + j] == h->zero) continue;
        return nb_fail(err, NB_E_SPEC, "row %" PRId64 " has a zero of %g, every one of %s is %g",
                       row, (double)q->zero.value[at + j], t->name, (double)h->zero);
    }
    if (has_float_scales(&h->spec)) return 0;
    rc = exact_half(h->spec.super_groups ? q->scale.super[super] : q->scale.value[at], &p->d, t,
                    row, err);
    if (rc || h->spec.zero != NB_ZERO_MIN) return rc;
    return exact_half(q->zero.codes ? q->zero.super[super] : -q->zero.value[at], &p->m, t, row,
                      err);
}

int nb_block_from_qmat(const struct nb_block_type *t, const struct nb_qmat *q, int64_t row0,
                       int64_t rows, void *out, struct nb_err *err)
{
    const struct hub_type *h = hub_type_of(t);
    char text[64];
    if (!h || !same_numbers(&q->spec, &h->spec) || q->col_group || q->cols % t->elems) {
        nb_qspec_describe(&q->spec, text, sizeof text);
        return nb_fail(err, NB_E_SPEC, "%s cannot hold %s with %" PRId64 " columns%s", t->name,
                       text, q->cols, q->col_group ? " in another order" : "");
    }
    unsigned char *at = out;
    for (int64_t r = row0; r < row0 + rows; r++) {
        for (int64_t k = 0; k < q->cols / t->elems; k++, at += t->bytes) {
            struct parts p = {0};
            int rc = give_block(t, q, r, k, &p, err);
            if (rc) return rc;
            h->put(&p, at);
        }
    }
    return 0;
}
