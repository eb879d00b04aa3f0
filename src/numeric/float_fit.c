/* SPDX-License-Identifier: Apache-2.0
 *
 * float_fit.c - the scale of a group of weights for a small float grid.
 *
 * none           the largest magnitude on the grid's largest value; for E8M0 the exponent rule of the MX formats:
 *                the power of two below amax, one more where its significand is at least 1.75, less the exponent
 *                of the grid's top. A group of zeros gets the epsilon of the type, as compressed-tensors does.
 * mse, weighted  least sum of u * error^2 over scales nearby. This pays where the grid is coarse (E2M1) and where
 *                scales are powers of two; an E4M3 grid under a free scale is as fine for small weights as for
 *                large ones, so the maximum stays where it is.
 *
 * Every candidate is what the file can hold: with two levels and a known magnitude of the matrix (tensor_amax) the
 * scales are E4M3 codes under its global scale. Sums run in fixed lanes, so that they vectorize without changing
 * their order. Source: checkpoint formats, sections 5.5, 5.9; algorithms, section 8. */
#include <float.h>
#include <math.h>

#include "base/fp8.h"
#include "numeric/elems.h"
#include "numeric/float.h"

enum {
    LANES = 16,
    LADDER = 24,     /* free scales tried, from 0.6 to 1.6 times the plain one */
    CODES_BELOW = 6, /* E4M3 scales tried: these steps of 6 to 12 % down */
    CODES_ABOVE = 5, /* and up: the block's maximum then stands at 4 instead of 6 */
    LARGEST_CODE = 126,
    CODE_OF_EIGHTH = 0x20 /* 0.125 */
};

/* Limits of free scales: times the largest value of a grid they stay finite. */
static const float least = 1e-30f, most = 7e35f;

static float mx_scale(float amax, int top_exponent)
{
    int exponent = (int)((nb_f32_bits(amax) + (1u << 21)) >> 23);
    if (exponent > 254) exponent = 254; /* so that scale times top is finite */
    const int byte = exponent - top_exponent;
    return nb_e8m0_to_f32((uint8_t)(byte > 0 ? byte : 0));
}

static float epsilon_of(enum nb_dtype t)
{
    return t == NB_F16 ? 0x1p-10f : t == NB_BF16 ? 0x1p-7f : FLT_EPSILON;
}

float nb_float_scale(const struct nb_qspec *spec, float amax)
{
    const struct nb_float_grid *g = nb_float_is_e4m3(spec) ? &nb_grid_e4m3 : &nb_grid_e2m1;
    if (spec->scale_dtype == NB_F8_E8M0) return mx_scale(amax, g->top_exponent);
    if (amax == 0.0f) return epsilon_of(spec->scale_dtype);
    float s = amax / g->top;
    if (!(s <= most)) s = most; /* and NaN */
    if (spec->scale_dtype == NB_F16) return nb_numeric_store_scale(s, NB_F16);
    return nb_round_to(s > least ? s : least, spec->scale_dtype);
}

float nb_nvfp4_global(float tensor_amax)
{
    const float global = 1.0f / tensor_amax * (NB_E4M3_MAX * nb_grid_e2m1.top); /* as torch does */
    return global > 0.0f && global <= FLT_MAX ? global : 1.0f;
}

uint8_t nb_nvfp4_scale_code(float global, float scale)
{
    const uint8_t code = nb_f32_to_e4m3(fabsf(global * scale)) & 0x7fu;
    if (code == 0) return CODE_OF_EIGHTH;
    return code > LARGEST_CODE ? LARGEST_CODE : code;
}

static inline float lanes_sum(const float acc[LANES])
{
    float s[4];
    for (int i = 0; i < 4; i++) s[i] = (acc[i] + acc[i + 4]) + (acc[i + 8] + acc[i + 12]);
    return (s[0] + s[2]) + (s[1] + s[3]);
}

static inline float squared_error(const struct nb_float_grid *g, const float *w, const float *u,
                                  int64_t n, float scale)
{
    float acc[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            const float d = scale * nb_float_round(w[i + l] / scale, g) - w[i + l];
            acc[l] += (u ? u[i + l] : 1.0f) * d * d;
        }
    }
    for (int l = 0; i < n; i++, l++) {
        const float d = scale * nb_float_round(w[i] / scale, g) - w[i];
        acc[l] += (u ? u[i] : 1.0f) * d * d;
    }
    return lanes_sum(acc);
}

struct search {
    const struct nb_qspec *spec;
    const float *w, *u;
    int64_t n;
    float best, err;
};

static void try_scale(struct search *s, float scale)
{
    const float err = nb_float_is_e4m3(s->spec)
                          ? squared_error(&nb_grid_e4m3, s->w, s->u, s->n, scale)
                          : squared_error(&nb_grid_e2m1, s->w, s->u, s->n, scale);
    if (!(err < s->err)) return;
    s->err = err;
    s->best = scale;
}

static void try_codes(struct search *s, float global, float plain)
{
    const int code = nb_nvfp4_scale_code(global, plain);
    for (int c = code - CODES_BELOW; c <= code + CODES_ABOVE; c++) {
        if (c >= 1 && c <= LARGEST_CODE) try_scale(s, nb_e4m3_values[c] / global);
    }
}

static void try_powers(struct search *s, float plain)
{
    for (float f = 0.5f; f <= 2.0f; f *= 2.0f) {
        const float scale = plain * f;
        if (scale >= 0x1p-127f && scale <= 0x1p119f) try_scale(s, scale);
    }
}

static void try_ladder(struct search *s, float plain)
{
    const enum nb_dtype t = s->spec->super_groups ? NB_F32 : s->spec->scale_dtype;
    for (int i = 0; i <= LADDER; i++) {
        float scale = plain * (0.6f + (float)i / LADDER);
        if (scale < least || scale > most) continue;
        scale = t == NB_F16 ? nb_numeric_store_scale(scale, t) : nb_round_to(scale, t);
        try_scale(s, scale);
    }
}

void nb_float_fit(const struct nb_grid_opts *opts, const float *w, const float *u, int64_t n,
                  struct nb_group_params *out)
{
    const struct nb_qspec *spec = &opts->spec;
    const bool nvfp4 = spec->super_groups > 0, whole = spec->group_rows > 1;
    const float global = nvfp4 && opts->tensor_amax > 0 ? nb_nvfp4_global(opts->tensor_amax) : 0;
    const float amax =
        whole && opts->tensor_amax > 0 ? opts->tensor_amax : nb_float_amax(w, n, 0.0f);
    float plain = nb_float_scale(spec, amax);
    if (global > 0) plain = nb_e4m3_values[nb_nvfp4_scale_code(global, plain)] / global;
    *out = (struct nb_group_params){.scale = plain};
    const bool mx = spec->scale_dtype == NB_F8_E8M0;
    if (opts->clip == NB_CLIP_NONE || whole || amax == 0.0f || (nb_float_is_e4m3(spec) && !mx))
        return;
    struct search s = {.spec = spec, .w = w, .n = n, .best = plain, .err = FLT_MAX};
    if (opts->clip == NB_CLIP_WEIGHTED) s.u = u;
    try_scale(&s, plain);
    if (mx) try_powers(&s, plain);
    else if (global > 0) try_codes(&s, global, plain);
    else try_ladder(&s, plain);
    out->scale = s.best;
}
