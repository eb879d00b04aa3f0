/* SPDX-License-Identifier: Apache-2.0
 *
 * ranges.h - magnitudes seen in calibration that become scales of the file: of inputs (static activations), of keys
 * and values (a float8 KV cache). Internal to pipeline/. */
#ifndef NB_PIPELINE_RANGES_H
#define NB_PIPELINE_RANGES_H

#include "pipeline/run.h"

/* Sets r->ranges, to NULL when the recipe needs none of this; all functions below then do nothing. */
int nb_ranges_open(struct nb_run *r, struct nb_err *err);
void nb_ranges_close(struct nb_ranges *a);

/* Before an input of a layer of the quantized stream is run: forgets what was seen, and has keys and values seen when
 * they are made. */
void nb_ranges_begin(struct nb_run *r, struct nb_layer *layer, enum nb_input input);
/* x [rows, k] of the quantized stream, any number of times. Values that are not finite do not count. */
void nb_ranges_add(struct nb_run *r, const float *x, int64_t rows, int64_t k);
/* q->input_scale by q->spec.act, from what was seen; with nothing seen (an expert without tokens) as if the largest
 * magnitude were 16. */
void nb_ranges_input_scale(const struct nb_run *r, struct nb_qmat *q);

/* Tensors k_scale and v_scale, F32 [1], of every attention: planned for all layers; put for a layer that was run;
 * marked as written for one that was done before. */
int nb_ranges_plan_kv(struct nb_run *r, struct nb_err *err);
int nb_ranges_put_kv(struct nb_run *r, int64_t layer, struct nb_err *err);
int nb_ranges_mark_kv(struct nb_run *r, int64_t layer, struct nb_err *err);

#endif
