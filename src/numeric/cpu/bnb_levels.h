/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb_levels.h - rounding to bitsandbytes' numbers, once per instruction set. Every level gives the same bytes and
 * the same sums: generic/ says what they are, the others are faster. */
#ifndef NB_NUMERIC_CPU_BNB_LEVELS_H
#define NB_NUMERIC_CPU_BNB_LEVELS_H

#include <stdint.h>

enum nb_bnb_kind { NB_BNB_NF4, NB_BNB_FP4, NB_BNB_INT8, NB_BNB_KINDS };

enum { NB_BNB_LANES = 16 }; /* partial sums of an error, whatever the level's width */

/* A weight w becomes the code nearest to w * inverse, inverse = 1 / scale; its value is scale * level(code). */
struct nb_bnb_scale {
    float scale, inverse;
};
struct nb_bnb_moments {
    float wt, tt; /* sum u w t, sum u t^2 over the levels t */
};

/* code or value may be NULL. */
typedef void (*nb_bnb_round_fn)(const float *w, int64_t n, struct nb_bnb_scale s, uint8_t *code,
                                float *value);
/* Each weight under its own scale; a scale nearer to 0 than 1e-38 counts as that. */
typedef void (*nb_bnb_lanes_fn)(const float *w, const float *scale, int64_t n, uint8_t *code,
                                float *value);
/* sum u (value - w)^2; u NULL: 1. Sums in NB_BNB_LANES lanes, so that their order is the same at every level. */
typedef float (*nb_bnb_error_fn)(const float *w, const float *u, int64_t n, struct nb_bnb_scale s);
typedef void (*nb_bnb_moments_fn)(const float *w, const float *u, int64_t n, struct nb_bnb_scale s,
                                  struct nb_bnb_moments *out);

struct nb_bnb_level {
    const char *name;
    /* Largest |w| as bits: above 0x7f7fffff when a weight is not finite. */
    uint32_t (*top)(const float *w, int64_t n);
    /* 128 + rne(f16(w) * factor), |f16(w) * factor| < 127.5. */
    void (*halves)(const float *w, int64_t n, float factor, uint8_t *code);
    nb_bnb_round_fn round[NB_BNB_KINDS];
    nb_bnb_lanes_fn lanes[NB_BNB_KINDS];
    nb_bnb_error_fn error[NB_BNB_KINDS];
    nb_bnb_moments_fn moments[NB_BNB_KINDS];
};

extern const struct nb_bnb_level nb_bnb_generic, nb_bnb_avx2, nb_bnb_avx512;

/* The fastest this machine has. */
const struct nb_bnb_level *nb_bnb_level(void);
/* Those this machine has, generic first; NULL after the last. */
const struct nb_bnb_level *nb_bnb_level_at(int i);

#endif
