/* SPDX-License-Identifier: Apache-2.0
 *
 * float.h - rounding to the small float grids E4M3 and E2M1: what float.c, float_fit.c and float_encode.c share.
 *
 * Branch-free, so that compilers vectorize it on any machine; every instruction set gives the same bits, since
 * each step is one IEEE operation or integer arithmetic. */
#ifndef NB_NUMERIC_FLOAT_H
#define NB_NUMERIC_FLOAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/half.h"
#include "numeric/encodings.h"

/* A grid of one sign bit, exponent and `23 - shift` mantissa bits, without infinities. */
struct nb_float_grid {
    float top;     /* largest value; everything beyond becomes it */
    float normal;  /* smallest normal; below it values are equally spaced */
    float magic;   /* power of two whose last place is that spacing */
    int shift;     /* mantissa bits of f32 that the grid has not */
    uint32_t bias; /* f32 exponent and kept mantissa minus this is the code */
    int sign_bit;
    int top_exponent; /* of top; what the exponent rule of MX scales subtracts */
};

static const struct nb_float_grid nb_grid_e4m3 = {448.0f, 0x1p-6f, 0x1p14f, 20, 960, 7, 8};
static const struct nb_float_grid nb_grid_e2m1 = {6.0f, 1.0f, 0x1p22f, 22, 252, 3, 2};

static inline bool nb_float_is_e4m3(const struct nb_qspec *spec)
{
    return spec->elem.bits == 8;
}

/* |x|, at most top; a NaN becomes top too. */
static inline float nb_float_saturate(float x, const struct nb_float_grid *g)
{
    const float a = nb_f32_from_bits(nb_f32_bits(x) & 0x7fffffffu);
    return a < g->top ? a : g->top;
}

/* Code of x, to nearest, ties to even codes. Adding `magic` makes the adder round values below `normal`. */
static inline uint32_t nb_float_code(float x, const struct nb_float_grid *g)
{
    const float a = nb_float_saturate(x, g);
    const uint32_t u = nb_f32_bits(a), half = (1u << (g->shift - 1)) - 1u;
    const uint32_t large = ((u + half + (u >> g->shift & 1u)) >> g->shift) - g->bias;
    const uint32_t small = nb_f32_bits(a + g->magic) - nb_f32_bits(g->magic);
    return (a < g->normal ? small : large) | nb_f32_bits(x) >> 31 << g->sign_bit;
}

/* What that code means. */
static inline float nb_float_round(float x, const struct nb_float_grid *g)
{
    const float a = nb_float_saturate(x, g);
    const uint32_t u = nb_f32_bits(a), half = (1u << (g->shift - 1)) - 1u;
    const uint32_t large = (u + half + (u >> g->shift & 1u)) >> g->shift << g->shift;
    const float magnitude = a + g->magic, small = magnitude - g->magic;
    const uint32_t r = a < g->normal ? nb_f32_bits(small) : large;
    return nb_f32_from_bits(r | (nb_f32_bits(x) & 0x80000000u));
}

/* Largest |w[i]|, and at least m. Magnitudes of floats compare as integers, which vectorizes. */
static inline float nb_float_amax(const float *w, int64_t n, float m)
{
    int32_t top = (int32_t)nb_f32_bits(m);
    for (int64_t i = 0; i < n; i++) {
        const int32_t a = (int32_t)(nb_f32_bits(w[i]) & 0x7fffffffu);
        top = a > top ? a : top;
    }
    return nb_f32_from_bits((uint32_t)top);
}

/* float_fit.c: the scale for weights of magnitude up to amax, as spec stores it: amax / top, for E8M0 the rule of
 * MX. Positive and finite. Single level. */
float nb_float_scale(const struct nb_qspec *spec, float amax);
/* NVFP4: the global scale, which divides, of a matrix; and the E4M3 code of the scale of a group under it. */
float nb_nvfp4_global(float tensor_amax);
uint8_t nb_nvfp4_scale_code(float global, float scale);
void nb_float_fit(const struct nb_grid_opts *opts, const float *w, const float *u, int64_t n,
                  struct nb_group_params *out);

/* float_encode.c */
int nb_float_encode(struct nb_qmat *q, const struct nb_grid_opts *opts, const float *w,
                    struct nb_pool *pool, struct nb_err *err);
int nb_nvfp4_settle(struct nb_qmat *q, const struct nb_grid_opts *opts, struct nb_err *err);

#endif
