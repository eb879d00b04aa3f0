/* SPDX-License-Identifier: Apache-2.0
 *
 * float.c - FP8 E4M3 and FP4 E2M1 under a scale, w = scale * value(code): two encodings with one grid each.
 *
 * "float" has scales of one level: F32, BF16, F16, or powers of two (E8M0, the MX formats). "nvfp4" is E2M1 whose
 * scales are E4M3 codes divided by one F32 of the matrix. Values are divided by the scale and saturate, as the
 * tools of these formats do it. How scales are chosen is in float_fit.c, whole matrices in float_encode.c.
 * Source: checkpoint formats, sections 0.1, 5.5, 5.9. */
#include "numeric/float.h"

#include "numeric/elems.h"

static bool is_small_float(const struct nb_qspec *spec)
{
    const struct nb_elem *e = &spec->elem;
    const bool e4m3 = e->bits == 8 && e->exp == 4 && e->man == 3;
    const bool e2m1 = e->bits == 4 && e->exp == 2 && e->man == 1;
    return e->kind == NB_ELEM_FLOAT && e->vec <= 1 && (e4m3 || e2m1) && !spec->flat &&
           spec->zero == NB_ZERO_NONE;
}

static bool supports(const struct nb_qspec *spec)
{
    return is_small_float(spec) && spec->super_groups == 0 &&
           (nb_dtype_is_weight(spec->scale_dtype) || spec->scale_dtype == NB_F8_E8M0);
}

static bool supports_nvfp4(const struct nb_qspec *spec)
{
    return is_small_float(spec) && spec->elem.bits == 4 && spec->group_rows <= 1 &&
           spec->super_groups > 0 && spec->super_flat && spec->super_divides &&
           spec->scale_bits == 8 && spec->scale_table == nb_e4m3_values &&
           spec->scale_dtype == NB_F32;
}

static unsigned nearest(const struct nb_qspec *spec, float w, const struct nb_group_params *p)
{
    return nb_float_code(w / p->scale, nb_float_is_e4m3(spec) ? &nb_grid_e4m3 : &nb_grid_e2m1);
}

static float value(const struct nb_qspec *spec, unsigned code, const struct nb_group_params *p)
{
    return p->scale * nb_elem_value(&spec->elem, code);
}

static inline void round_run(const struct nb_float_grid *g, const float *w, int64_t n, float scale,
                             uint8_t *code, float *val)
{
    if (code) {
        for (int64_t i = 0; i < n; i++) code[i] = (uint8_t)nb_float_code(w[i] / scale, g);
    }
    if (val) {
        for (int64_t i = 0; i < n; i++) val[i] = scale * nb_float_round(w[i] / scale, g);
    }
}

static void round_group(const struct nb_qspec *spec, const float *w, int64_t n,
                        const struct nb_group_params *p, uint8_t *code, float *val)
{
    if (nb_float_is_e4m3(spec)) round_run(&nb_grid_e4m3, w, n, p->scale, code, val);
    else round_run(&nb_grid_e2m1, w, n, p->scale, code, val);
}

static inline void round_column(const struct nb_float_grid *g, const float *w, int64_t n,
                                const float *scale, uint8_t *code, float *val)
{
    if (code) {
        for (int64_t i = 0; i < n; i++) code[i] = (uint8_t)nb_float_code(w[i] / scale[i], g);
    }
    if (val) {
        for (int64_t i = 0; i < n; i++) val[i] = scale[i] * nb_float_round(w[i] / scale[i], g);
    }
}

static void round_lanes(const struct nb_qspec *spec, const float *w, int64_t n,
                        const struct nb_lane_params *p, uint8_t *code, float *val)
{
    if (nb_float_is_e4m3(spec)) round_column(&nb_grid_e4m3, w, n, p->scale, code, val);
    else round_column(&nb_grid_e2m1, w, n, p->scale, code, val);
}

const struct nb_numeric nb_numeric_float = {
    .name = "float",
    .supports = supports,
    .fit = nb_float_fit,
    .nearest = nearest,
    .value = value,
    .round_group = round_group,
    .round_lanes = round_lanes,
    .encode = nb_float_encode,
};

const struct nb_numeric nb_numeric_nvfp4 = {
    .name = "nvfp4",
    .supports = supports_nvfp4,
    .fit = nb_float_fit,
    .nearest = nearest,
    .value = value,
    .round_group = round_group,
    .round_lanes = round_lanes,
    .encode = nb_float_encode,
    .settle = nb_nvfp4_settle,
};
