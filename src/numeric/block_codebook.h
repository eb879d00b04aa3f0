/* SPDX-License-Identifier: Apache-2.0
 *
 * block_codebook.h - decoders of the types whose codes are vectors from a codebook, and the codebooks. */
#ifndef NB_NUMERIC_BLOCK_CODEBOOK_H
#define NB_NUMERIC_BLOCK_CODEBOOK_H

#include <stdint.h>

extern const uint16_t nb_block_iq2_xxs_grid[256], nb_block_iq2_xs_grid[512],
    nb_block_iq2_s_grid[1024];
extern const uint16_t nb_block_iq3_xxs_grid[256], nb_block_iq3_s_grid[512], nb_block_iq1_grid[2048];

void nb_block_decode_iq1_s(const void *blocks, float *out, int64_t n);
void nb_block_decode_iq1_m(const void *blocks, float *out, int64_t n);
void nb_block_decode_iq2_xxs(const void *blocks, float *out, int64_t n);
void nb_block_decode_iq2_xs(const void *blocks, float *out, int64_t n);
void nb_block_decode_iq2_s(const void *blocks, float *out, int64_t n);
void nb_block_decode_iq3_xxs(const void *blocks, float *out, int64_t n);
void nb_block_decode_iq3_s(const void *blocks, float *out, int64_t n);

#endif
