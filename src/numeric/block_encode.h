/* SPDX-License-Identifier: Apache-2.0
 *
 * block_encode.h - encoders by name, for the table. */
#ifndef NB_NUMERIC_BLOCK_ENCODE_H
#define NB_NUMERIC_BLOCK_ENCODE_H

#include <stdint.h>

/* n finite elements, whole blocks; importance [n] or NULL, ignored by the types of the second part. */
void nb_block_encode_q4_0(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_q4_1(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_q5_0(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_q5_1(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_q8_0(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_q2_k(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_q3_k(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_q4_k(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_q5_k(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_q6_k(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_iq4_nl(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_iq4_xs(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_mxfp4(const float *x, const float *importance, int64_t n, void *out);

void nb_block_encode_f32(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_f16(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_bf16(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_q8_1(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_q8_k(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_nvfp4(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_q1_0(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_q2_0(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_tq1_0(const float *x, const float *importance, int64_t n, void *out);
void nb_block_encode_tq2_0(const float *x, const float *importance, int64_t n, void *out);

#endif
