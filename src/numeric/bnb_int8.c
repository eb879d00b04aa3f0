/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb_int8.c - LLM.int8's weights: w = SCB / 127 * q, SCB the largest magnitude of a row, q in [-127, 127].
 *
 * Code q + 128 with the zero at 128, scale SCB / 127. encode is what bitsandbytes 0.50 writes on the CPU to the bit:
 * weights become f16 first, then q = rne(w * ((1 / SCB) * 127)), two roundings in the factor (127 / SCB has one and
 * gives other codes now and then). A row of zeros has SCB 0 and codes 0.
 * Source: checkpoint formats, section 4.4; algorithms, section 6. */
#include "base/half.h"
#include "numeric/bnb.h"

#define MAX_HALF 65504.0f

static bool supports(const struct nb_qspec *spec)
{
    const struct nb_elem *e = &spec->elem;
    return e->kind == NB_ELEM_INT && e->bits == 8 && e->vec <= 1 && spec->zero == NB_ZERO_CODE &&
           spec->symmetric && spec->act == NB_ACT_INT8_OUTLIER && spec->group_rows <= 1 &&
           spec->super_groups == 0 && spec->scale_dtype == NB_F32;
}

static float value(const struct nb_qspec *spec, unsigned code, const struct nb_group_params *p)
{
    (void)spec;
    return p->scale * (float)((int)code - 128);
}

struct encode_job {
    const struct nb_bnb_level *level;
    struct nb_qmat *q;
    const float *w;
    int64_t per_piece; /* rows of a piece */
};

static void encode_piece(void *ctx, size_t piece, int thread)
{
    const struct encode_job *job = ctx;
    struct nb_qmat *q = job->q;
    const int64_t cols = q->cols, from = (int64_t)piece * job->per_piece;
    const int64_t to = q->rows - from < job->per_piece ? q->rows : from + job->per_piece;
    (void)thread;
    for (int64_t n = from; n < to; n++) {
        const float *w = job->w + n * cols;
        const float a = nb_f32_from_bits(job->level->top(w, cols));
        /* Rounding is monotone, so this is the largest rounded magnitude. */
        const float scb = nb_f16_to_f32(nb_f32_to_f16(a));
        q->zero.value[n] = 128.0f;
        q->scale.value[n] = scb / 127.0f;
        if (!(scb <= MAX_HALF)) continue; /* the caller names the weight */
        const float factor = scb > 0.0f ? 1.0f / scb * 127.0f : 0.0f;
        job->level->halves(w, cols, factor, q->codes + n * cols);
    }
}

static int encode(struct nb_qmat *q, const struct nb_grid_opts *opts, const float *w,
                  struct nb_pool *pool, struct nb_err *err)
{
    (void)opts;
    struct encode_job job = {.level = nb_bnb_level(), .q = q, .w = w};
    if (q->n_groups != 1)
        return nb_fail(err, NB_E_SPEC, "LLM.int8 has one scale per row, no groups inside it");
    job.per_piece = q->cols < NB_BNB_PIECE ? NB_BNB_PIECE / q->cols : 1;
    nb_pool_run(pool, (size_t)((q->rows + job.per_piece - 1) / job.per_piece), encode_piece, &job);
    bool holds = true;
    for (int64_t n = 0; n < q->rows; n++) holds = holds && q->scale.value[n] <= MAX_HALF / 127.0f;
    return holds ? 0 : nb_bnb_refuse(w, q->cols, q->rows * q->cols, 65519.996f, err);
}

static int settle(struct nb_qmat *q, const struct nb_grid_opts *opts, struct nb_err *err)
{
    (void)opts;
    (void)err;
    for (int64_t n = 0; n < nb_qmat_planes(q); n++)
        q->scale.value[n] = nb_bnb_int8_scale(q->scale.value[n]);
    return 0;
}

const struct nb_numeric nb_numeric_bnb8 = {
    .name = "bnb8",
    .supports = supports,
    .fit = nb_bnb_fit,
    .nearest = nb_bnb_nearest,
    .value = value,
    .round_group = nb_bnb_round_group,
    .round_lanes = nb_bnb_round_lanes,
    .encode = encode,
    .settle = settle,
};
