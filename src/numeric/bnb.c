/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb.c - bitsandbytes' 4-bit encodings, NF4 and FP4: w = absmax * table[code], absmax over a block of the flat
 * matrix, plain or itself in 8 bits (double quantization).
 *
 * encode gives what bitsandbytes 0.50 writes on the CPU to the bit: x = w * (1 / absmax) in f32 against the
 * thresholds, a short last block by division. Codes are chosen under the absmax itself, which is nested
 * afterwards. FP4 differs from the CPU build where the CUDA kernels do: in the code of zero and by units in the last
 * place of the thresholds. Loaders only ever multiply by absmax, so a negative one would mirror the table and
 * round better; it is not used, because nobody expects it in such a file and our reader refuses it.
 * Source: checkpoint formats, sections 4.1 to 4.3; algorithms, section 5. */
#include "numeric/bnb.h"

#include <assert.h>
#include <float.h>
#include <inttypes.h>

#include "base/half.h"
#include "numeric/elems.h"

enum { CHUNK = 64 };

enum nb_bnb_kind nb_bnb_kind_of(const struct nb_qspec *spec)
{
    if (spec->elem.kind == NB_ELEM_INT) return NB_BNB_INT8;
    return spec->elem.table == nb_nf4_values ? NB_BNB_NF4 : NB_BNB_FP4;
}

static bool supports(const struct nb_qspec *spec)
{
    const struct nb_elem *e = &spec->elem;
    if (e->kind != NB_ELEM_TABLE || e->bits != 4 || e->vec > 1) return false;
    if (e->table != nb_nf4_values && e->table != nb_fp4_values) return false;
    if (spec->zero != NB_ZERO_NONE || spec->group_rows > 1 || spec->scale_dtype != NB_F32)
        return false;
    return spec->super_groups == 0 ||
           (spec->super_flat && !spec->super_divides && spec->scale_table == nb_dynamic_map &&
            spec->scale_bits == 8);
}

unsigned nb_bnb_nearest(const struct nb_qspec *spec, float w, const struct nb_group_params *p)
{
    uint8_t code;
    nb_bnb_generic.round[nb_bnb_kind_of(spec)](&w, 1, nb_bnb_scale_of(p->scale), &code, NULL);
    return code;
}

static float value(const struct nb_qspec *spec, unsigned code, const struct nb_group_params *p)
{
    return p->scale * spec->elem.table[code];
}

void nb_bnb_round_group(const struct nb_qspec *spec, const float *w, int64_t n,
                        const struct nb_group_params *p, uint8_t *code, float *val)
{
    nb_bnb_level()->round[nb_bnb_kind_of(spec)](w, n, nb_bnb_scale_of(p->scale), code, val);
}

void nb_bnb_round_lanes(const struct nb_qspec *spec, const float *w, int64_t n,
                        const struct nb_lane_params *p, uint8_t *code, float *val)
{
    nb_bnb_level()->lanes[nb_bnb_kind_of(spec)](w, p->scale, n, code, val);
}

int nb_bnb_refuse(const float *w, int64_t cols, int64_t n, float most, struct nb_err *err)
{
    for (int64_t i = 0; i < n; i++) {
        if (fabsf(w[i]) <= most) continue;
        if (isfinite(w[i])) {
            return nb_fail(err, NB_E_NUMERIC,
                           "weight %g at row %" PRId64 ", column %" PRId64
                           " is beyond %g, the most that this format holds",
                           (double)w[i], i / cols, i % cols, (double)most);
        }
        return nb_fail(err, NB_E_NUMERIC,
                       "weight %g at row %" PRId64 ", column %" PRId64 " is not a finite number",
                       (double)w[i], i / cols, i % cols);
    }
    return 0;
}

/* ---- whole matrices ---- */

struct encode_job {
    const struct nb_bnb_level *level;
    enum nb_bnb_kind kind;
    const float *w;
    int64_t n, block, blocks, per_piece; /* weights, of a block, blocks, blocks of a piece */
    uint8_t *codes;
    float *absmax;
};

/* Here bitsandbytes divides, and keeps the clamped absmax. */
static void encode_short_block(const struct encode_job *job, int64_t b, int64_t n)
{
    const float *w = job->w + b * job->block;
    float x[CHUNK], a = job->absmax[b];
    a = job->absmax[b] = a < 1e-38f ? 1e-38f : a;
    for (int64_t i = 0; i < n; i += CHUNK) {
        const int64_t count = n - i < CHUNK ? n - i : CHUNK;
        for (int64_t k = 0; k < count; k++) x[k] = w[i + k] / a;
        job->level->round[job->kind](x, count, (struct nb_bnb_scale){1.0f, 1.0f},
                                     job->codes + b * job->block + i, NULL);
    }
}

static void encode_piece(void *ctx, size_t piece, int thread)
{
    const struct encode_job *job = ctx;
    (void)thread;
    const int64_t from = (int64_t)piece * job->per_piece;
    const int64_t to = job->blocks - from < job->per_piece ? job->blocks : from + job->per_piece;
    for (int64_t b = from; b < to; b++) {
        const int64_t start = b * job->block, left = job->n - start;
        const int64_t count = left < job->block ? left : job->block;
        const float a = nb_f32_from_bits(job->level->top(job->w + start, count));
        job->absmax[b] = a;
        if (!isfinite(a)) continue; /* the caller names the weight */
        if (count < job->block) {
            encode_short_block(job, b, count);
        } else {
            job->level->round[job->kind](job->w + start, count, nb_bnb_scale_of(a),
                                         job->codes + start, NULL);
        }
    }
}

static int encode(struct nb_qmat *q, const struct nb_grid_opts *opts, const float *w,
                  struct nb_pool *pool, struct nb_err *err)
{
    const int64_t asked = opts->spec.group_cols;
    struct encode_job job = {.level = nb_bnb_level(),
                             .kind = nb_bnb_kind_of(&q->spec),
                             .w = w,
                             .n = q->rows * q->cols,
                             .block = asked > 0 ? asked : q->spec.group_cols,
                             .codes = q->codes,
                             .absmax = q->scale.value};
    if (!q->spec.flat && q->cols % q->spec.group_cols) {
        return nb_fail(err, NB_E_SPEC,
                       "blocks of %" PRId64 " weights run across the ends of rows of %" PRId64
                       " here, groups that end with the rows are another format",
                       q->spec.group_cols, q->cols);
    }
    job.blocks = nb_qmat_planes(q);
    assert(job.blocks == (job.n + job.block - 1) / job.block);
    job.per_piece = job.block < NB_BNB_PIECE ? NB_BNB_PIECE / job.block : 1;
    nb_pool_run(pool, (size_t)((job.blocks + job.per_piece - 1) / job.per_piece), encode_piece,
                &job);
    bool finite = true;
    for (int64_t b = 0; b < job.blocks; b++) finite = finite && isfinite(job.absmax[b]);
    if (!finite) return nb_bnb_refuse(w, q->cols, job.n, FLT_MAX, err);
    return q->spec.super_groups ? nb_bnb_nest(q, false, pool, err) : 0;
}

static int settle(struct nb_qmat *q, const struct nb_grid_opts *opts, struct nb_err *err)
{
    (void)opts;
    return q->spec.super_groups ? nb_bnb_nest(q, true, NULL, err) : 0;
}

const struct nb_numeric nb_numeric_bnb4 = {
    .name = "bnb4",
    .supports = supports,
    .fit = nb_bnb_fit,
    .nearest = nb_bnb_nearest,
    .value = value,
    .round_group = nb_bnb_round_group,
    .round_lanes = nb_bnb_round_lanes,
    .encode = encode,
    .settle = settle,
};
