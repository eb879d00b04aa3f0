/* SPDX-License-Identifier: Apache-2.0
 *
 * blocks_problem.c - solutions in blocks: memory, errors, losses, copies. See blocks.h. */
#include <inttypes.h>
#include <string.h>

#include "quant/blocks.h"

int nb_block_solution_init(struct nb_block_solution *s, const struct nb_block_problem *b,
                           struct nb_arena *arena, struct nb_err *err)
{
    const size_t padded = (size_t)b->p.padded, subs = padded * (size_t)b->p.n_groups,
                 supers = padded * (size_t)b->n_supers;
    int rc = nb_solution_init(&s->s, &b->p, arena, err);
    s->scale = nb_arena_calloc(arena, subs, sizeof *s->scale);
    s->min = nb_arena_calloc(arena, subs, sizeof *s->min);
    s->d = nb_arena_calloc(arena, supers, sizeof *s->d);
    s->dmin = nb_arena_calloc(arena, supers, sizeof *s->dmin);
    if (!rc && arena->failed)
        rc = nb_fail(err, NB_E_NOMEM,
                     "no memory for the blocks of a matrix of %" PRId64 " x %" PRId64, b->p.rows,
                     b->p.cols);
    return rc;
}

void nb_block_solution_expand(const struct nb_block_problem *b, struct nb_block_solution *s,
                              int64_t super, int64_t r0)
{
    const int64_t padded = b->p.padded;
    for (int64_t sub = super * b->grid->subs; sub < (super + 1) * b->grid->subs; sub++) {
        for (int64_t r = r0; r < r0 + NB_TILE; r++) {
            const int64_t i = sub * padded + r;
            s->s.scale[i] = s->d[super * padded + r] * (float)s->scale[i];
            s->s.zero[i] = s->dmin[super * padded + r] * (float)s->min[i];
        }
    }
}

struct error_job {
    const struct nb_block_problem *b;
    const struct nb_block_solution *s;
    float *error;
};

static void error_tile(void *ctx, size_t piece, int thread)
{
    (void)thread;
    const struct error_job *job = ctx;
    const struct nb_block_grid *g = job->b->grid;
    const struct nb_problem *p = &job->b->p;
    const int zero = nb_block_grid_zero(g);
    for (int64_t r = (int64_t)piece * NB_TILE; r < ((int64_t)piece + 1) * NB_TILE; r++) {
        const uint8_t *code = job->s->s.code + r * p->cols;
        const float *w = p->w + r * p->cols;
        float *error = job->error + r * p->cols;
        for (int64_t sub = 0; sub < p->n_groups; sub++) {
            const float scale = job->s->s.scale[sub * p->padded + r],
                        min = job->s->s.zero[sub * p->padded + r];
            for (int64_t j = sub * g->sub; j < (sub + 1) * g->sub; j++) {
                const float level = g->table ? g->table[code[j]] : (float)(code[j] - zero);
                error[j] = w[j] - (scale * level - min);
            }
        }
    }
}

void nb_block_solution_error(const struct nb_block_problem *b, const struct nb_block_solution *s,
                             float *error)
{
    struct error_job job = {b, s, error};
    nb_pool_run(nb_backend_pool(b->p.be), (size_t)nb_problem_tiles(&b->p), error_tile, &job);
}

int nb_block_solution_measure(const struct nb_block_problem *b, struct nb_block_solution *s,
                              struct nb_err *err)
{
    const size_t n = (size_t)b->p.padded * (size_t)b->p.cols;
    float *error = nb_alloc(n, sizeof *error), *scratch = nb_alloc(n, sizeof *scratch);
    const bool ready = error && scratch;
    if (ready) {
        nb_block_solution_error(b, s, error);
        nb_solution_losses(&b->p, &s->s, error, scratch);
    }
    nb_free(error);
    nb_free(scratch);
    return ready
               ? 0
               : nb_fail(err, NB_E_NOMEM, "no memory to measure a matrix of %" PRId64 " x %" PRId64,
                         b->p.rows, b->p.cols);
}

static void copy_row(const struct nb_block_problem *b, struct nb_block_solution *s,
                     const struct nb_block_solution *other, int64_t r)
{
    const struct nb_problem *p = &b->p;
    s->s.loss[r] = other->s.loss[r];
    s->s.plain[r] = other->s.plain[r];
    memcpy(s->s.code + r * p->cols, other->s.code + r * p->cols, (size_t)p->cols);
    for (int64_t i = r; i < p->n_groups * p->padded; i += p->padded) {
        s->s.scale[i] = other->s.scale[i];
        s->s.zero[i] = other->s.zero[i];
        s->scale[i] = other->scale[i];
        s->min[i] = other->min[i];
    }
    for (int64_t i = r; i < b->n_supers * p->padded; i += p->padded) {
        s->d[i] = other->d[i];
        s->dmin[i] = other->dmin[i];
    }
}

void nb_block_solution_keep_best(const struct nb_block_problem *b, struct nb_block_solution *s,
                                 const struct nb_block_solution *other)
{
    for (int64_t r = 0; r < b->p.padded; r++) {
        if (other->s.loss[r] < s->s.loss[r]) copy_row(b, s, other, r);
    }
}

void nb_block_solution_scaled(const struct nb_block_problem *b, struct nb_block_solution *to,
                              const struct nb_block_solution *from, float factor)
{
    const int64_t padded = b->p.padded;
    memcpy(to->scale, from->scale, (size_t)(b->p.n_groups * padded) * sizeof *to->scale);
    memcpy(to->min, from->min, (size_t)(b->p.n_groups * padded) * sizeof *to->min);
    for (int64_t i = 0; i < b->n_supers * padded; i++) {
        const float d = nb_block_store(from->d[i] * factor),
                    dmin = nb_block_store(from->dmin[i] * factor);
        to->d[i] = d;
        to->dmin[i] = dmin;
    }
    for (int64_t i = 0; i < b->n_supers; i++) {
        for (int64_t r0 = 0; r0 < padded; r0 += NB_TILE) nb_block_solution_expand(b, to, i, r0);
    }
}
