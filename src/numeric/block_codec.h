/* SPDX-License-Identifier: Apache-2.0
 *
 * block_codec.h - an entry of the table of block types, and the decoders and encoders that are the same at
 * every level; for the files of this folder. */
#ifndef NB_NUMERIC_BLOCK_CODEC_H
#define NB_NUMERIC_BLOCK_CODEC_H

#include <stdbool.h>

#include "core/block.h"
#include "numeric/cpu/levels.h"

struct nb_block_codec {
    struct nb_block_type type;
    nb_block_encode_fn encode; /* NULL: decoded only */
    int half[2]; /* where a block has f16 scales, which must be finite; 0, 0: nowhere */
    int halves;
    float
        limit; /* values beyond are refused; those of f16 scales lie far above what a scale can hold, and
                  * keep every sum finite; 0: none */
    bool uses_importance, needs_importance;
};

const struct nb_block_codec *nb_block_codec_of(const struct nb_block_type *t);

/* block_decode.c: in the order of the specification's table */
void nb_block_decode_f32(const void *blocks, float *out, int64_t n);
void nb_block_decode_f16(const void *blocks, float *out, int64_t n);
void nb_block_decode_bf16(const void *blocks, float *out, int64_t n);
void nb_block_decode_q4_0(const void *blocks, float *out, int64_t n);
void nb_block_decode_q4_1(const void *blocks, float *out, int64_t n);
void nb_block_decode_q5_0(const void *blocks, float *out, int64_t n);
void nb_block_decode_q5_1(const void *blocks, float *out, int64_t n);
void nb_block_decode_q8_0(const void *blocks, float *out, int64_t n);
void nb_block_decode_q8_1(const void *blocks, float *out, int64_t n);
void nb_block_decode_q2_k(const void *blocks, float *out, int64_t n);
void nb_block_decode_q3_k(const void *blocks, float *out, int64_t n);
void nb_block_decode_q4_k(const void *blocks, float *out, int64_t n);
void nb_block_decode_q5_k(const void *blocks, float *out, int64_t n);
void nb_block_decode_q6_k(const void *blocks, float *out, int64_t n);
void nb_block_decode_q8_k(const void *blocks, float *out, int64_t n);
void nb_block_decode_iq4_nl(const void *blocks, float *out, int64_t n);
void nb_block_decode_iq4_xs(const void *blocks, float *out, int64_t n);
void nb_block_decode_mxfp4(const void *blocks, float *out, int64_t n);
void nb_block_decode_nvfp4(const void *blocks, float *out, int64_t n);
void nb_block_decode_q1_0(const void *blocks, float *out, int64_t n);
void nb_block_decode_q2_0(const void *blocks, float *out, int64_t n);
void nb_block_decode_tq1_0(const void *blocks, float *out, int64_t n);
void nb_block_decode_tq2_0(const void *blocks, float *out, int64_t n);

#endif
