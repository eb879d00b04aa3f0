/* SPDX-License-Identifier: Apache-2.0
 *
 * opts.c - the solver settings used when nobody says otherwise; docs/quality.md shows what each brings. */
#include "quant/quant.h"

void nb_solve_opts_effort(struct nb_solve_opts *o, enum nb_effort effort)
{
    struct nb_solve_opts fresh = {.grid = o->grid, .order = NB_ORDER_STATIC};
    fresh.grid.clip = NB_CLIP_WEIGHTED;
    fresh.grid.sym_range = NB_SYM_FULL;
    if (effort >= NB_EFFORT_NORMAL) {
        fresh.order = NB_ORDER_AUTO;
        fresh.gptaq_alpha = 0.7;
        fresh.scale_trials = 2;
        fresh.cd_sweeps = 3;
        fresh.refit = true;
    }
    if (effort >= NB_EFFORT_BEST) {
        fresh.scale_trials = fresh.group_trials = 3;
        fresh.restarts = 1;
        fresh.beam = 8;
        fresh.beam_sweeps = 2;
        fresh.bias = true;
    }
    *o = fresh;
}

void nb_solve_opts_defaults(struct nb_solve_opts *o)
{
    nb_solve_opts_effort(o, NB_EFFORT_NORMAL);
}
