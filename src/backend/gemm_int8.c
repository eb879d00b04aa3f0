/* SPDX-License-Identifier: Apache-2.0
 *
 * gemm_int8.c - integers times integers: x as int8 codes, weights as unsigned codes of up to 8 bits.
 *
 * With w = scale * (code - zero), y = x_scale * sum over groups of scale * (sum of code a - zero * sum of a):
 * the first sum is what nb_tile_i8 makes of unsigned and signed bytes, the second one number per row of x and
 * group. Both are exact in int32 for groups of up to MAX_GROUP columns; per group one rounding to f32, one per
 * factor, and sums over rising groups, the same on every level.
 *
 * The packed form, with nr the width of a tile and code_k the codes per container of this level:
 *
 *   struct head
 *   scale [groups, N] f32 | zero [groups, N] i32, unless all are one
 *   codes: panels of nr rows, [K / code_k, nr, code_k], zeros beyond K and N; bytes, or nibbles (low first) of
 *   codes of up to 4 bits | slack
 *
 * Weights whose groups follow act-order or cut rows off 4 columns are left to the kernel that multiplies values.
 *
 * Source of the outlier part: Dettmers et al., "LLM.int8()", arXiv:2208.07339, as bitsandbytes computes it: outlier
 * columns in float with the decoded weights. */
#include <math.h>
#include <string.h>

#include "backend/kernels.h"
#include "base/mem.h"

enum {
    MAX_GROUP = 65536, /* 255 * 128 * 65536 < 2^31 */
    CONTAINERS = NB_BLOCK_K,
    SLACK = 64
};
_Static_assert(NB_BLOCK_M *(NB_BLOCK_N + NB_TILE_MAX_NR) <= NB_DOT_MAX_K,
               "the sums of a block lie in scratch rows");

struct head {
    int64_t k, n, groups, group_cols;
    int64_t panel; /* codes of one: padded K times nr */
    int nr, code_k;
    bool nibbles;
    int32_t zero_of_all;
    size_t scale, zero, codes; /* offsets in bytes; zero: 0 when all are one */
};

static bool zeros_are_codes(const struct nb_qmat *q)
{
    if (q->spec.zero == NB_ZERO_NONE) return true;
    if (q->spec.zero != NB_ZERO_CODE) return false;
    for (int64_t i = 0; i < nb_qmat_planes(q); i++) {
        const float z = q->zero.value[i];
        if (!(z >= 0 && z <= 255 && z == rintf(z))) return false;
    }
    return true;
}

static bool supports(const struct nb_weight *w)
{
    const struct nb_qmat *q = w->q;
    if (!q || q->spec.elem.kind != NB_ELEM_INT || q->spec.elem.vec != 1) return false;
    const enum nb_act_kind act = q->spec.act;
    if (act != NB_ACT_INT8_TOKEN && act != NB_ACT_INT8_STATIC && act != NB_ACT_INT8_OUTLIER)
        return false;
    if (q->spec.flat || q->col_group || q->spec.group_cols > MAX_GROUP) return false;
    if (q->n_groups > 1 && q->spec.group_cols % 4) return false;
    return zeros_are_codes(q);
}

static bool one_zero(const struct nb_qmat *q)
{
    for (int64_t i = 1; q->zero.value && i < nb_qmat_planes(q); i++) {
        if (q->zero.value[i] != q->zero.value[0]) return false;
    }
    return true;
}

static bool plan(const struct nb_cpu_ops *ops, const struct nb_qmat *q, struct head *h,
                 size_t *bytes)
{
    const size_t nr = (size_t)ops->nr, n = ((size_t)q->rows + nr - 1) / nr * nr;
    const size_t k = ((size_t)q->cols + 3) / 4 * 4;
    size_t planes, codes, at = (sizeof *h + 63) / 64 * 64;
    *h = (struct head){.k = q->cols,
                       .n = q->rows,
                       .groups = q->n_groups,
                       .group_cols = q->spec.group_cols,
                       .panel = (int64_t)(k * nr),
                       .nr = ops->nr,
                       .code_k = ops->code_k,
                       .nibbles = q->spec.elem.bits <= 4};
    if (!nb_mul((size_t)q->rows, (size_t)q->n_groups, &planes) || !nb_mul(planes, 4, &planes) ||
        !nb_add(planes, 63, &planes))
        return false;
    planes = planes / 64 * 64;
    h->scale = at;
    if (!nb_add(at, planes, &at)) return false;
    if (!one_zero(q)) {
        h->zero = at;
        if (!nb_add(at, planes, &at)) return false;
    } else if (q->zero.value) {
        h->zero_of_all = (int32_t)q->zero.value[0];
    }
    h->codes = at;
    if (!nb_mul(n, k, &codes)) return false;
    if (h->nibbles) codes /= 2;
    return nb_add(at, codes, &at) && nb_add(at, SLACK, bytes);
}

static bool packed_bytes(const struct nb_cpu_ops *ops, const struct nb_weight *w, size_t *bytes)
{
    struct head h;
    return plan(ops, w->q, &h, bytes);
}

/* Where code (n, k) stands. */
static size_t code_index(const struct head *h, int64_t n, int64_t k)
{
    const int64_t j = n % h->nr, container = k / h->code_k * h->nr + j;
    return (size_t)(n / h->nr * h->panel + container * h->code_k + k % h->code_k);
}

static unsigned code_at(const struct head *h, int64_t n, int64_t k)
{
    const unsigned char *codes = (const unsigned char *)h + h->codes;
    const size_t i = code_index(h, n, k);
    if (!h->nibbles) return codes[i];
    return i & 1 ? codes[i / 2] >> 4 : codes[i / 2] & 15u;
}

static void pack_row(const struct head *h, int64_t n, const uint8_t *row, unsigned char *codes)
{
    size_t at = code_index(h, n, 0);
    for (int64_t k0 = 0; k0 < h->k; k0 += h->code_k, at += (size_t)(h->nr * h->code_k)) {
        for (int64_t k = k0; k < h->k && k < k0 + h->code_k; k++) {
            const size_t i = at + (size_t)(k - k0);
            if (!h->nibbles) codes[i] = row[k];
            else codes[i / 2] |= (unsigned char)(i & 1 ? row[k] << 4 : row[k]);
        }
    }
}

static void pack(const struct nb_cpu_ops *ops, const struct nb_weight *w, void *packed)
{
    const struct nb_qmat *q = w->q;
    struct head *h = packed;
    size_t bytes;
    plan(ops, q, h, &bytes);
    unsigned char *base = packed, *codes = base + h->codes;
    float *scale = (float *)(void *)(base + h->scale);
    int32_t *zero = h->zero ? (int32_t *)(void *)(base + h->zero) : NULL;
    memset(codes, 0, bytes - h->codes);
    for (int64_t n = 0; n < q->rows; n++) {
        const int64_t plane = n / q->spec.group_rows * q->n_groups;
        for (int64_t g = 0; g < q->n_groups; g++) {
            scale[g * q->rows + n] = q->scale.value[plane + g];
            if (zero) zero[g * q->rows + n] = (int32_t)q->zero.value[plane + g];
        }
        pack_row(h, n, q->codes + n * q->cols, codes);
    }
}

struct work { /* some rows of x, a job's rows of the weight */
    const struct nb_cpu_ops *ops;
    const struct nb_scratch *s;
    const struct nb_gemm_job *job;
    const struct head *head;
    int64_t m0, m; /* of the job's rows */
    int64_t width; /* of a panel of x: few rows need no more */
};

/* Columns [k0, k0 + k) of the codes of x as panels of `width` rows. */
static const float *pack_x(const struct work *work, int64_t k0, int64_t k)
{
    const struct nb_codes *x = &work->job->codes;
    const int64_t code_k = work->head->code_k, containers = (k + code_k - 1) / code_k;
    const int8_t *code = x->code + work->m0 * x->ld + k0;
    if (work->width == 1 && code_k == 4) return (const float *)(const void *)code;
    struct nb_pack p = {.dst = work->s->a, .w = (int)work->width, .type = NB_F32, .k = containers};
    for (int64_t i = 0; i < work->m; i += p.w, p.dst += containers * p.w) {
        p.rows = (int)(work->m - i < p.w ? work->m - i : p.w);
        p.src = code + i * x->ld;
        p.ld = x->ld / 4;
        if (code_k == 2) { /* panels of the weight come after those of x */
            int16_t *wide = (int16_t *)(void *)work->s->b;
            for (int r = 0; r < p.rows; r++)
                work->ops->widen_i8(wide + r * 2 * containers, code + (i + r) * x->ld,
                                    2 * containers);
            p.src = wide;
            p.ld = containers;
        }
        work->ops->pack_rows_f32(&p);
    }
    return work->s->a;
}

/* A panel of the weight from column k0 on, `containers` of them deep. */
static const float *panel_of_w(const struct work *work, int64_t n, int64_t k0, int64_t containers)
{
    const struct head *h = work->head;
    const unsigned char *codes = (const unsigned char *)h + h->codes;
    const size_t at = code_index(h, n, k0);
    const int64_t count = containers * h->nr * h->code_k;
    const uint8_t *bytes = codes + at;
    if (h->nibbles) {
        uint8_t *wide = (uint8_t *)work->s->b + (h->code_k == 2 ? CONTAINERS * h->nr * 4 : 0);
        work->ops->unpack_u4(wide, codes + at / 2, count);
        bytes = wide;
    }
    if (h->code_k == 4) return (const float *)(const void *)bytes;
    work->ops->widen_u8((uint16_t *)(void *)work->s->b, bytes, count);
    return work->s->b;
}

/* sums [m, ld] int32 of columns [k0, k1), a group. */
static void sum_group(const struct work *work, int64_t k0, int64_t k1, float *sums, int64_t ld)
{
    const struct nb_gemm_job *job = work->job;
    const int64_t code_k = work->head->code_k, nr = work->head->nr, step = CONTAINERS * code_k;
    for (int64_t k = k0; k < k1; k += step) {
        const int64_t depth = k1 - k < step ? k1 - k : step;
        struct nb_tile_f32 t = {.k = (depth + code_k - 1) / code_k,
                                .lda = work->width,
                                .ldb = nr,
                                .ldc = ld,
                                .add = k > k0};
        const float *x = pack_x(work, k, depth);
        for (int64_t n = job->n0; n < job->n1; n += nr) {
            t.b = panel_of_w(work, n, k, t.k);
            for (int64_t i = 0; i < work->m; i += work->width) {
                t.rows = (int)(work->m - i < work->width ? work->m - i : work->width);
                t.a = x + i * t.k;
                t.c = sums + i * ld + n - job->n0;
                work->ops->tile_i8(&t);
            }
        }
    }
}

/* y (+)= what the sums of group g are worth. */
static void add_group(const struct work *work, int64_t g, const float *sums, int64_t ld)
{
    const struct nb_gemm_job *job = work->job;
    const struct head *h = work->head;
    const unsigned char *base = (const unsigned char *)h;
    const int64_t k0 = g * h->group_cols,
                  k1 = k0 + h->group_cols < h->k ? k0 + h->group_cols : h->k;
    const int64_t at = g * h->n + job->n0;
    struct nb_out_i8 o = {.scale = (const float *)(const void *)(base + h->scale) + at,
                          .n = job->n1 - job->n0,
                          .add = g > 0};
    if (h->zero) o.zero = (const int32_t *)(const void *)(base + h->zero) + at;
    for (int64_t i = 0; i < work->m; i++) {
        const int8_t *code = job->codes.code + (work->m0 + i) * job->codes.ld;
        o.sum = work->ops->sum_i8(code + k0, k1 - k0);
        if (!h->zero) o.sum = (int32_t)((uint32_t)o.sum * (uint32_t)h->zero_of_all);
        o.acc = sums + i * ld;
        o.x_scale = job->codes.scale[work->m0 + i];
        o.y = job->y + (work->m0 + i) * job->ldy + job->n0;
        work->ops->out_i8(&o);
    }
}

struct outlier_columns {
    const struct head *head;
    const int32_t *column;
};

/* Row n of the decoded weight at outliers [k0, k0 + count). */
static void load_outliers(const void *source, int64_t n, int64_t k0, int64_t count, float *out)
{
    const struct outlier_columns *of = source;
    const struct head *h = of->head;
    const unsigned char *base = (const unsigned char *)h;
    const float *scale = (const float *)(const void *)(base + h->scale);
    const int32_t *zero = (const int32_t *)(const void *)(base + h->zero);
    for (int64_t i = 0; i < count; i++) {
        const int64_t k = of->column[k0 + i], plane = k / h->group_cols * h->n + n;
        const int32_t z = h->zero ? zero[plane] : h->zero_of_all;
        out[i] = (float)((int32_t)code_at(h, n, k) - z) * scale[plane];
    }
}

static void add_outliers(const struct nb_cpu_ops *ops, const struct nb_scratch *s,
                         const struct nb_gemm_job *job)
{
    const struct nb_codes *x = &job->codes;
    const struct outlier_columns of = {.head = job->packed, .column = x->outlier};
    const struct nb_operand a = {.p = x->value, .type = NB_F32, .ld = x->n_outliers};
    const struct nb_operand b = {.p = &of, .type = NB_F32, .load = load_outliers};
    nb_block_run(ops, s,
                 &(struct nb_block){.a = &a,
                                    .b = &b,
                                    .b0 = job->n0,
                                    .m = job->m,
                                    .n = job->n1 - job->n0,
                                    .k = x->n_outliers,
                                    .c = job->y + job->n0,
                                    .ldc = job->ldy,
                                    .add = true});
}

static void run(const struct nb_cpu_ops *ops, const struct nb_scratch *s,
                const struct nb_gemm_job *job)
{
    const struct head *h = job->packed;
    struct work work = {.ops = ops, .s = s, .job = job, .head = h};
    float *sums = s->rows;
    const int64_t ld = (job->n1 - job->n0 + h->nr - 1) / h->nr * h->nr;
    for (work.m0 = 0; work.m0 < job->m; work.m0 += NB_BLOCK_M) {
        work.m = job->m - work.m0 < NB_BLOCK_M ? job->m - work.m0 : NB_BLOCK_M;
        work.width = work.m < ops->mr ? work.m : ops->mr;
        for (int64_t g = 0; g < h->groups; g++) {
            const int64_t end = (g + 1) * h->group_cols;
            sum_group(&work, g * h->group_cols, end < h->k ? end : h->k, sums, ld);
            add_group(&work, g, sums, ld);
        }
    }
    if (job->codes.n_outliers > 0) add_outliers(ops, s, job);
}

const struct nb_gemm_kernel nb_gemm_int8 = {
    .name = "int8",
    .takes_codes = true,
    .supports = supports,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .m_step = NB_BLOCK_M,
    .n_step = NB_BLOCK_N,
    .run = run,
};
