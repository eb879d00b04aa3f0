/* SPDX-License-Identifier: Apache-2.0
 *
 * linear.c - linears: choose a kernel and pack once, then cut each product into pieces for the
 * pool. Linears that round x the same way share the rounded rows; many rows are rounded and multiplied in
 * chunks, whose borders do not change a result. */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "backend/act.h"
#include "base/mem.h"

static int copy_bias(struct nb_linear *lin, const struct nb_weight *w, struct nb_err *err)
{
    if (!w->bias.data.data) return 0;
    lin->bias = nb_alloc((size_t)w->rows, sizeof *lin->bias);
    if (!lin->bias) return nb_fail(err, NB_E_NOMEM, "%s: no memory for a bias", w->name);
    if (!nb_to_f32(lin->bias, w->bias.data.data, w->bias.dtype, (size_t)w->rows)) {
        return nb_fail(err, NB_E_SPEC, "%s: bias of type %s, expected F32, F16 or BF16", w->name,
                       nb_dtype_name(w->bias.dtype));
    }
    return 0;
}

static int pack(struct nb_linear *lin, const struct nb_cpu_ops *ops, const struct nb_weight *w,
                struct nb_err *err)
{
    size_t bytes;
    if (!lin->kernel->packed_bytes(ops, w, &bytes)) {
        return nb_fail(err, NB_E_NOMEM, "%s: %" PRId64 " x %" PRId64 " is too large to pack",
                       w->name, w->rows, w->cols);
    }
    if (!bytes) return 0;
    lin->packed = nb_alloc(bytes, 1);
    if (!lin->packed)
        return nb_fail(err, NB_E_NOMEM, "%s: no memory for %zu packed bytes", w->name, bytes);
    lin->kernel->pack(ops, w, lin->packed);
    return 0;
}

static int init_act(struct nb_linear *lin, struct nb_backend *be, const struct nb_weight *w,
                    struct nb_err *err)
{
    if (!w->q || w->q->spec.act == NB_ACT_NONE) return 0;
    const struct nb_qspec *spec = &w->q->spec;
    lin->act = (struct nb_act_rule){.kind = spec->act,
                                    .group = spec->act_group,
                                    .threshold = spec->act_threshold,
                                    .input_scale = w->q->input_scale};
    int rc = nb_act_check(&lin->act, w->name, err);
    return rc ? rc : nb_act_reserve(be, w->cols, w->name, err);
}

int nb_linear_init(struct nb_linear *lin, struct nb_backend *be, const struct nb_weight *w,
                   struct nb_err *err)
{
    *lin = (struct nb_linear){.w = *w};
    lin->kernel = nb_gemm_kernel_find(w, be->features);
    if (!lin->kernel) {
        char text[64];
        const char *kind = w->blocks.data ? w->blocks.type->name : nb_dtype_name(w->dense.dtype);
        if (w->q) nb_qspec_describe(&w->q->spec, text, sizeof text);
        return nb_fail(err, NB_E_SPEC, "%s: no kernel multiplies by %s weights", w->name,
                       w->q ? text : kind);
    }
    int rc = init_act(lin, be, w, err);
    if (!rc) rc = copy_bias(lin, w, err);
    if (!rc) rc = pack(lin, &be->ops, w, err);
    lin->w.q = NULL; /* may go, now that it is packed */
    if (rc) nb_linear_release(lin);
    return rc;
}

int nb_linear_init_f32(struct nb_linear *lin, struct nb_backend *be, const char *name,
                       const struct nb_fmat *w, const float *bias, struct nb_err *err)
{
    assert(w->ld == w->cols);
    struct nb_weight weight = {.name = name, .rows = w->rows, .cols = w->cols};
    weight.dense =
        (struct nb_tensor){.name = name, .dtype = NB_F32, .rank = 2, .shape = {w->rows, w->cols}};
    weight.dense.data.data = (const unsigned char *)w->data;
    weight.dense.data.bytes = (size_t)(w->rows * w->cols) * sizeof *w->data;
    if (bias) {
        weight.bias =
            (struct nb_tensor){.name = name, .dtype = NB_F32, .rank = 1, .shape = {w->rows}};
        weight.bias.data.data = (const unsigned char *)bias;
        weight.bias.data.bytes = (size_t)w->rows * sizeof *bias;
    }
    return nb_linear_init(lin, be, &weight, err);
}

void nb_linear_release(struct nb_linear *lin)
{
    nb_free(lin->packed);
    nb_free(lin->bias);
    memset(lin, 0, sizeof *lin);
}

const char *nb_linear_kernel_name(const struct nb_linear *lin)
{
    return lin->kernel->name;
}

enum { MANY_PIECES = 64 }; /* enough to keep any machine's threads busy */

struct product { /* one linear of a run, and how it is cut */
    struct nb_linear_out out;
    int64_t m0; /* row of out.y that the first row of x gives */
    int64_t m_pieces, n_pieces;
    size_t first; /* number of its first piece in the run */
};

struct run {
    struct nb_backend *be;
    const float *x;
    struct nb_codes codes; /* or this */
    int64_t m, ldx;
    struct product products[NB_MAX_LINEAR_OUTS];
    int n;
};

/* Few rows of x: the weight is read once and its rows are cut; pieces hold about 64 K weights. Many
 * rows: blocks of m_step x n_step, an even number of them along m, which two or more threads share
 * without a remainder; taller ones when there are many, since each packs its weights anew. */
static void cut(struct product *p, int64_t m)
{
    const struct nb_gemm_kernel *kernel = p->out.lin->kernel;
    const int64_t rows = p->out.lin->w.rows, cols = p->out.lin->w.cols;
    int64_t n_step = kernel->n_step;
    p->m_pieces = 1;
    if (m <= NB_DOT_MAX_M) {
        int64_t fit = 65536 / cols;
        n_step = fit < 16 ? 16 : fit < n_step ? fit : n_step;
    } else if (kernel->m_step && m > kernel->m_step) {
        p->m_pieces = (m + kernel->m_step - 1) / kernel->m_step;
        p->m_pieces += p->m_pieces & 1;
    }
    p->n_pieces = (rows + n_step - 1) / n_step;
    while (p->m_pieces > 1 && p->m_pieces / 2 * p->n_pieces >= MANY_PIECES) p->m_pieces /= 2;
}

static void run_piece(void *ctx, size_t piece, int thread)
{
    const struct run *run = ctx;
    int i = run->n - 1;
    while (piece < run->products[i].first) i--;
    const struct product *p = &run->products[i];
    const struct nb_linear *lin = p->out.lin;
    const struct nb_cpu_ops *ops = &run->be->ops;
    int64_t at = (int64_t)(piece - p->first), mi = at % p->m_pieces, ni = at / p->m_pieces;
    int64_t m0 = nb_piece_start(run->m, ops->mr, p->m_pieces, mi);
    int64_t m1 = nb_piece_start(run->m, ops->mr, p->m_pieces, mi + 1);
    struct nb_gemm_job job = {.w = &lin->w,
                              .packed = lin->packed,
                              .x = run->x ? run->x + m0 * run->ldx : NULL,
                              .m = m1 - m0,
                              .ldx = run->ldx,
                              .y = p->out.y + (p->m0 + m0) * p->out.ldy,
                              .ldy = p->out.ldy,
                              .bf16 = run->be->precision == NB_PRECISION_BF16,
                              .n0 = nb_piece_start(lin->w.rows, ops->nr, p->n_pieces, ni),
                              .n1 = nb_piece_start(lin->w.rows, ops->nr, p->n_pieces, ni + 1)};
    if (job.m <= 0 || job.n1 <= job.n0) return;
    if (lin->kernel->takes_codes) {
        job.codes = run->codes;
        job.codes.code += m0 * job.codes.ld;
        job.codes.scale += m0;
        job.codes.value += m0 * job.codes.n_outliers;
    }
    lin->kernel->run(ops, &run->be->scratch[thread], &job);
    if (!lin->bias) return;
    for (int64_t r = 0; r < job.m; r++)
        ops->add(job.y + r * job.ldy + job.n0, lin->bias + job.n0, job.n1 - job.n0);
}

/* All products of a run with m rows of x, the outputs of which start at row m0. */
static void run_products(struct run *run, int64_t m0)
{
    size_t pieces = 0;
    int64_t macs = 0;
    for (int i = 0; i < run->n; i++) {
        struct product *p = &run->products[i];
        p->first = pieces;
        p->m0 = m0;
        cut(p, run->m);
        pieces += (size_t)(p->m_pieces * p->n_pieces);
        macs += run->m * p->out.lin->w.rows * p->out.lin->w.cols;
    }
    nb_pool_run(nb_backend_pool_for(run->be, macs), pieces, run_piece, run);
}

/* Chunks are nearly equal, so that none has as few rows as would send it another way than the whole. */
static void run_rounded(struct run *run, const struct nb_act_rule *rule)
{
    const struct nb_linear *lin = run->products[0].out.lin;
    const int64_t m = run->m, mr = run->be->ops.mr;
    struct nb_act_input in = {.be = run->be,
                              .rule = *rule,
                              .codes = lin->kernel->takes_codes,
                              .x = run->x,
                              .m = m,
                              .k = lin->w.cols,
                              .ldx = run->ldx};
    nb_act_begin(&in);
    const int64_t most = in.at_once - 2 * mr; /* borders move by less than 2 tiles */
    const int64_t chunks = (m + most - 1) / most;
    for (int64_t i = 0; i < chunks; i++) {
        const int64_t first = nb_piece_start(m, mr, chunks, i);
        run->m = nb_piece_start(m, mr, chunks, i + 1) - first;
        assert(m <= NB_DOT_MAX_M || run->m > NB_DOT_MAX_M);
        const struct nb_act_rows rows = nb_act_make_rows(&in, first, run->m);
        run->x = rows.x;
        run->ldx = in.k;
        run->codes = rows.codes;
        run_products(run, first);
    }
}

static bool share_input(const struct nb_linear *a, const struct nb_linear *b)
{
    return a->act.kind == b->act.kind && a->act.group == b->act.group &&
           a->act.threshold == b->act.threshold && a->act.input_scale == b->act.input_scale &&
           a->kernel->takes_codes == b->kernel->takes_codes && a->w.cols == b->w.cols;
}

void nb_linears_run(struct nb_backend *be, const struct nb_linear_out *outs, int n, const float *x,
                    int64_t m, int64_t ldx)
{
    assert(n > 0 && n <= NB_MAX_LINEAR_OUTS);
    bool done[NB_MAX_LINEAR_OUTS] = {false};
    for (int first = 0; first < n && m > 0; first++) {
        if (done[first]) continue;
        struct run run = {.be = be, .x = x, .m = m, .ldx = ldx};
        for (int i = first; i < n; i++) {
            if (done[i] || !share_input(outs[first].lin, outs[i].lin)) continue;
            done[i] = true;
            run.products[run.n++].out = outs[i];
        }
        const struct nb_act_rule *rule = &outs[first].lin->act;
        if (rule->kind == NB_ACT_NONE) run_products(&run, 0);
        else run_rounded(&run, rule);
    }
}

void nb_linear_run(struct nb_backend *be, const struct nb_linear_out *out, const float *x,
                   int64_t m, int64_t ldx)
{
    nb_linears_run(be, out, 1, x, m, ldx);
}
