/* SPDX-License-Identifier: Apache-2.0
 *
 * levels.h - decoders and encoders of blocks, once per instruction set. Every level gives the same bytes:
 * generic/ says what they are, the others are faster. */
#ifndef NB_NUMERIC_CPU_LEVELS_H
#define NB_NUMERIC_CPU_LEVELS_H

#include <stdint.h>

/* Types that have a decoder or an encoder per level. */
enum nb_block_kind {
    NB_BLOCK_Q4_0,
    NB_BLOCK_Q4_1,
    NB_BLOCK_Q5_0,
    NB_BLOCK_Q5_1,
    NB_BLOCK_Q8_0,
    NB_BLOCK_Q2_K,
    NB_BLOCK_Q3_K,
    NB_BLOCK_Q4_K,
    NB_BLOCK_Q5_K,
    NB_BLOCK_Q6_K,
    NB_BLOCK_IQ4_NL,
    NB_BLOCK_IQ4_XS,
    NB_BLOCK_MXFP4,
    NB_BLOCK_KINDS
};

/* n elements, whole blocks. Neither side needs alignment. */
typedef void (*nb_block_decode_fn)(const void *blocks, float *out, int64_t n);
/* One row of n finite elements, whole blocks; importance [n] or NULL. */
typedef void (*nb_block_encode_fn)(const float *x, const float *importance, int64_t n, void *out);

struct nb_block_level {
    const char *name;
    nb_block_decode_fn decode[NB_BLOCK_KINDS];
    nb_block_encode_fn encode[NB_BLOCK_KINDS];
};

extern const struct nb_block_level nb_block_generic, nb_block_avx2, nb_block_avx512;

/* The fastest this machine has. */
const struct nb_block_level *nb_block_level(void);
/* Those this machine has, generic first; NULL after the last. */
const struct nb_block_level *nb_block_level_at(int i);

#endif
