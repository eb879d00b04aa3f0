/* SPDX-License-Identifier: Apache-2.0
 *
 * scales.c - the scales of a solution: fitted group by group, shared by the rows of a block, brought to what a
 * file with two levels of scales can hold. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "quant/problem.h"

struct fit_job {
    const struct nb_problem *p;
    struct nb_solution *s;
};

static void fit_tile(void *ctx, size_t piece, int thread)
{
    const struct fit_job *job = ctx;
    const struct nb_problem *p = job->p;
    (void)thread;
    for (int64_t r = (int64_t)piece * NB_TILE; r < ((int64_t)piece + 1) * NB_TILE; r++) {
        for (int64_t g = 0; g < p->n_groups; g++) {
            const int64_t j = g * p->group;
            struct nb_group_params params;
            p->numeric->fit(&p->grid, p->w + r * p->cols + j, p->u ? p->u + j : NULL,
                            nb_problem_group_cols(p, g), &params);
            job->s->scale[g * p->padded + r] = params.scale;
            job->s->zero[g * p->padded + r] = params.zero;
        }
    }
}

/* The rows of a block take the largest scale among them; rows that only pad take the last block's. */
static void share_scales(const struct nb_problem *p, struct nb_solution *s)
{
    const int64_t height = p->spec.group_rows;
    for (int64_t g = 0; g < p->n_groups; g++) {
        float *scale = s->scale + g * p->padded, *zero = s->zero + g * p->padded;
        for (int64_t r0 = 0; r0 < p->rows; r0 += height) {
            const bool last = r0 + height >= p->rows;
            const int64_t end = last ? p->rows : r0 + height, fill = last ? p->padded : end;
            int64_t most = r0;
            for (int64_t r = r0; r < end; r++)
                most = fabsf(scale[r]) > fabsf(scale[most]) ? r : most;
            const float shared = scale[most], its_zero = zero[most];
            for (int64_t r = r0; r < fill; r++) {
                scale[r] = shared;
                zero[r] = its_zero;
            }
        }
    }
}

void nb_fit_groups(const struct nb_problem *p, struct nb_solution *s)
{
    struct fit_job job = {.p = p, .s = s};
    nb_pool_run(nb_backend_pool(p->be), (size_t)nb_problem_tiles(p), fit_tile, &job);
    if (nb_scales_are_shared(p)) share_scales(p, s);
}

float nb_scale_store(const struct nb_problem *p, float scale)
{
    if (p->spec.act == NB_ACT_INT8_OUTLIER) { /* the file holds 127 times the scale */
        const float row_max = nb_numeric_store_scale(scale, p->spec.scale_dtype) * 127.0f;
        return row_max / 127.0f;
    }
    if (p->spec.scale_dtype != NB_F8_E8M0)
        return nb_numeric_store_scale(scale, p->spec.scale_dtype);
    int exponent;
    const float part = frexpf(scale, &exponent);
    exponent -= fabsf(part) < 0.75f;
    return isfinite(scale) && scale > 0.0f && exponent >= -127 && exponent <= 127
               ? ldexpf(1.0f, exponent)
               : 1.0f;
}

int nb_scales_export(const struct nb_problem *p, struct nb_solution *s, struct nb_qmat *out,
                     struct nb_arena *arena, struct nb_err *err)
{
    int rc = nb_qmat_init(out, &p->spec, p->rows, p->cols, arena, err);
    if (rc) return rc;
    const int64_t height = out->spec.group_rows, groups = p->n_groups;
    for (int64_t r = 0; r < p->rows; r += height) {
        for (int64_t g = 0; g < groups; g++) {
            out->scale.value[r / height * groups + g] = s->scale[g * p->padded + r];
            if (out->zero.value)
                out->zero.value[r / height * groups + g] = s->zero[g * p->padded + r];
        }
    }
    if (!out->scale.codes) return 0;
    rc = p->numeric->settle(out, &p->grid, err);
    for (int64_t r = 0; !rc && r < p->rows; r++) {
        for (int64_t g = 0; g < groups; g++)
            s->scale[g * p->padded + r] = out->scale.value[r / height * groups + g];
    }
    return rc;
}
