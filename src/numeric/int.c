/* SPDX-License-Identifier: Apache-2.0
 *
 * int.c - integer grids of 2 to 8 bits with an integer zero: w = scale * (code - zero).
 *
 * One encoding serves symmetric (zero fixed at 2^(bits-1)) and asymmetric grids. Levels are clamped
 * before they are rounded: the same result, since the bounds are integers, and no float leaves the
 * range in which rounding by addition is exact. How scale and zero are chosen is in int_fit.c.
 * Source: algorithms, section 2.1; checkpoint formats, section 2.5. */
#include "numeric/encodings.h"

static bool supports(const struct nb_qspec *spec)
{
    const struct nb_elem *e = &spec->elem;
    return e->kind == NB_ELEM_INT && e->bits >= 2 && e->bits <= 8 && e->vec <= 1 &&
           spec->zero == NB_ZERO_CODE && spec->group_rows <= 1 && spec->super_groups == 0 &&
           nb_dtype_is_weight(spec->scale_dtype);
}

static inline float top_code(const struct nb_qspec *spec)
{
    return (float)((1 << spec->elem.bits) - 1);
}

static unsigned nearest(const struct nb_qspec *spec, float w, const struct nb_group_params *p)
{
    float t = nb_int_level(w / p->scale, -p->zero, top_code(spec) - p->zero);
    return (unsigned)(t + p->zero);
}

static float value(const struct nb_qspec *spec, unsigned code, const struct nb_group_params *p)
{
    (void)spec;
    return p->scale * ((float)code - p->zero);
}

static void round_group(const struct nb_qspec *spec, const float *w, int64_t n,
                        const struct nb_group_params *p, uint8_t *code, float *val)
{
    const float s = p->scale, z = p->zero, lo = -z, hi = top_code(spec) - z;
    if (code) {
        for (int64_t i = 0; i < n; i++) {
            code[i] = (uint8_t)(int)(nb_int_level(w[i] / s, lo, hi) + z);
        }
    }
    if (val) {
        for (int64_t i = 0; i < n; i++) val[i] = s * nb_int_level(w[i] / s, lo, hi);
    }
}

static void round_lanes(const struct nb_qspec *spec, const float *w, int64_t n,
                        const struct nb_lane_params *p, uint8_t *code, float *val)
{
    const float *scale = p->scale, *zero = p->zero;
    const float top = top_code(spec);
    if (code) {
        for (int64_t i = 0; i < n; i++) {
            float t = nb_int_level(w[i] / scale[i], -zero[i], top - zero[i]);
            code[i] = (uint8_t)(int)(t + zero[i]);
        }
    }
    if (val) {
        for (int64_t i = 0; i < n; i++) {
            val[i] = scale[i] * nb_int_level(w[i] / scale[i], -zero[i], top - zero[i]);
        }
    }
}

const struct nb_numeric nb_numeric_int = {
    .name = "int",
    .supports = supports,
    .fit = nb_int_fit,
    .nearest = nearest,
    .value = value,
    .round_group = round_group,
    .round_lanes = round_lanes,
};
