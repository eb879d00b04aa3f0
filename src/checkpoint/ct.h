/* SPDX-License-Identifier: Apache-2.0
 *
 * ct.h - what the files of the row compressed-tensors share: which tensors a linear has, and filling them.
 *
 *   layout       weight                       scale of W = scale * (code - zero)
 *   packed       weight_packed I32 [N, K*b/32]  weight_scale F16/BF16/F32 [N, G]; an LE stream of u = q + 2^(b-1) per row
 *   plain        weight I8 or F8_E4M3 [N, K]    weight_scale [1], [N, 1], [N, G] or [blocks of N, blocks of K]
 *   nvfp4        weight_packed U8 [N, K/2]      weight_scale F8_E4M3 [N, K/16], divided by weight_global_scale F32 [1]
 *   mxfp4        weight_packed U8 [N, K/2]      weight_scale U8 [N, K/32], 2^(byte - 127)
 *   mxfp8        weight F8_E4M3 [N, K]          weight_scale U8 [N, K/32]
 *
 * Beside them, packed: weight_shape I64 [2], asymmetric weight_zero_point I32 [N*b/32, G] (an LE stream down each
 * column), actorder group weight_g_idx I32 [K] where there is more than one group. Plain, asymmetric: weight_zero_point I8 like the scale. Static inputs:
 * input_scale [1], of nvfp4 input_global_scale F32 [1]. Source: checkpoint formats, sections 5.3, 5.4, 5.9. */
#ifndef NB_CHECKPOINT_CT_H
#define NB_CHECKPOINT_CT_H

#include "checkpoint/ct_config.h"
#include "checkpoint/internal.h"

/* See struct nb_checkpoint. In a plan the order of the tensors is: weight, weight_scale, then the others. */
int nb_ct_plan(const struct nb_qspec *spec, int64_t rows, int64_t cols,
               const struct nb_pack_opts *opts, struct nb_packed_tensor out[NB_MAX_PACKED]);
/* The same in a layout that the file chose, which may be another than a writer's. */
int nb_ct_plan_as(enum nb_ct_layout layout, const struct nb_qspec *spec, int64_t rows, int64_t cols,
                  const struct nb_pack_opts *opts, struct nb_packed_tensor out[NB_MAX_PACKED]);
int nb_ct_can_write(const struct nb_qspec *spec, int64_t rows, int64_t cols, bool desc_act,
                    struct nb_err *err);
int nb_ct_pack(const struct nb_qmat *q, const struct nb_pack_opts *opts, struct nb_arena *arena,
               struct nb_packed_tensor out[NB_MAX_PACKED], int *n, struct nb_err *err);

static inline bool nb_ct_act_is_static(enum nb_act_kind act)
{
    return act == NB_ACT_INT8_STATIC || act == NB_ACT_FP8_STATIC;
}

#endif
