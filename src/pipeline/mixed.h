/* SPDX-License-Identifier: Apache-2.0
 *
 * mixed.h - mixed precision: which linear gets which scheme, so that a target is met. Internal to pipeline/. */
#ifndef NB_PIPELINE_MIXED_H
#define NB_PIPELINE_MIXED_H

#include "pipeline/run.h"

/* Do the options ask for it? */
bool nb_mixed_wanted(const struct nb_quantize_opts *o);

/* After the recipe and the calibration windows are made, and (unless this is a dry run) the run's identity and the
 * work folder: measures the sensitivity, or takes it from the work folder of an interrupted run, and puts the
 * best assignment into r->recipe: module specs, its default (the commonest of them), its JSON. Fills
 * r->report->mixed. NB_E_SPEC when the container cannot hold different linears or the target is out of reach (the
 * text says what is possible). */
int nb_mixed_assign(struct nb_run *r, struct nb_err *err);

#endif
