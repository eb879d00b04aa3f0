/* SPDX-License-Identifier: Apache-2.0
 *
 * int_fit.c - choose scale and zero of a group of weights for an integer grid.
 *
 * none      the range of the weights, as the GPTQ tools do it; full-range symmetric puts the largest
 *           magnitude on the outermost code, with a scale of either sign.
 * mse       shrink that range by p = 1, .99 ... .21 and keep the least sum |error|^2.4.
 * weighted  least sum u * error^2: a coarse ladder of scales (either sign when the grid is full-range),
 *           then rounding and the least-squares scale in turn from the best few, and neighbouring zeros.
 *
 * Every candidate is cast to the stored type before it is judged. Sums run in 16 fixed lanes, so that
 * they vectorize without changing their order. Source: algorithms, sections 2.1 and 2.3. */
#include <float.h>
#include <math.h>

#include "base/half.h"
#include "numeric/encodings.h"

enum {
    LANES = 16,
    CHECK = 64, /* weights between two looks at the limit */
    RUNGS = 28, /* scales on the ladder of the weighted search */
    FEW_RUNGS = 9,
    KEPT = 3, /* best rungs that are refined */
    REFITS = 4,
    MSE_STEPS = 80,
};

struct candidate {
    float scale, zero, err;
};

struct search {
    const struct nb_grid_opts *opts;
    const float *w, *u;
    int64_t n;
    float top;       /* largest code */
    float lo, hi, a; /* min(0, min w), max(0, max w), max |w| */
    struct candidate best;
};

struct moments {
    float err, wt, tt; /* sum u (s t - w)^2, sum u w t, sum u t^2 */
};

static inline float lanes_sum(const float acc[LANES])
{
    float s[4];
    for (int i = 0; i < 4; i++) s[i] = (acc[i] + acc[i + 4]) + (acc[i + 8] + acc[i + 12]);
    return (s[0] + s[2]) + (s[1] + s[3]);
}

static inline float weight_at(const float *u, int64_t i)
{
    return u ? u[i] : 1.0f;
}

/* Weighted squared error under (s, levels lo..hi), given up once it exceeds limit. */
static inline float squared_error(const float *w, const float *u, int64_t n, const float range[3],
                                  float limit)
{
    const float s = range[0], lo = range[1], hi = range[2], inv = 1.0f / s;
    float acc[LANES] = {0};
    int64_t i = 0;
    while (i + LANES <= n) {
        int64_t stop = i + CHECK < n ? i + CHECK : n;
        for (; i + LANES <= stop; i += LANES) {
            for (int l = 0; l < LANES; l++) {
                float d = s * nb_int_level(w[i + l] * inv, lo, hi) - w[i + l];
                acc[l] += weight_at(u, u ? i + l : 0) * d * d;
            }
        }
        if (i + LANES <= n && lanes_sum(acc) > limit) return FLT_MAX;
    }
    for (int l = 0; i < n; i++, l++) {
        float d = s * nb_int_level(w[i] * inv, lo, hi) - w[i];
        acc[l] += weight_at(u, u ? i : 0) * d * d;
    }
    return lanes_sum(acc);
}

static inline void gather_moments(const float *w, const float *u, int64_t n, const float range[3],
                                  struct moments *out)
{
    const float s = range[0], lo = range[1], hi = range[2], inv = 1.0f / s;
    float wt[LANES] = {0}, tt[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            float t = nb_int_level(w[i + l] * inv, lo, hi);
            float ut = weight_at(u, u ? i + l : 0) * t;
            wt[l] += ut * w[i + l];
            tt[l] += ut * t;
        }
    }
    for (int l = 0; i < n; i++, l++) {
        float t = nb_int_level(w[i] * inv, lo, hi);
        float ut = weight_at(u, u ? i : 0) * t;
        wt[l] += ut * w[i];
        tt[l] += ut * t;
    }
    out->wt = lanes_sum(wt);
    out->tt = lanes_sum(tt);
}

/* |x|^0.4 within 1e-4, x >= 0: a polynomial in the exponent and one in the mantissa, no branches. */
static inline float pow_two_fifths(float x)
{
    uint32_t bits = nb_f32_bits(x);
    float m = nb_f32_from_bits((bits & 0x007fffffu) | 0x3f800000u) - 1.0f;
    float log2m =
        m * (1.4425459f +
             m * (-0.7178897f +
                  m * (0.4570773f + m * (-0.2773390f + m * (0.1213740f - m * 0.0257686f)))));
    float e = 0.4f * ((float)((int32_t)(bits >> 23) - 127) + log2m);
    e = e > -126.0f ? e : -126.0f;
    float whole = nb_int_rne(e);
    float f = (e - whole) * 0.69314718f;
    float p =
        1.0f + f * (1.0f + f * (0.5f + f * (0.16666667f + f * (0.041666668f + f * 0.0083333333f))));
    return p * nb_f32_from_bits((uint32_t)((int32_t)whole + 127) << 23);
}

static inline float norm24_error(const float *w, const float *u, int64_t n, const float range[3])
{
    const float s = range[0], lo = range[1], hi = range[2], inv = 1.0f / s;
    float acc[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            float d = fabsf(s * nb_int_level(w[i + l] * inv, lo, hi) - w[i + l]);
            acc[l] += weight_at(u, u ? i + l : 0) * d * d * pow_two_fifths(d);
        }
    }
    for (int l = 0; i < n; i++, l++) {
        float d = fabsf(s * nb_int_level(w[i] * inv, lo, hi) - w[i]);
        acc[l] += weight_at(u, u ? i : 0) * d * d * pow_two_fifths(d);
    }
    return lanes_sum(acc);
}

static float error_of(const struct search *f, float scale, float zero, float limit)
{
    const float range[3] = {scale, -zero, f->top - zero};
    if (f->opts->clip == NB_CLIP_MSE) {
        return f->u ? norm24_error(f->w, f->u, f->n, range) : norm24_error(f->w, NULL, f->n, range);
    }
    return f->u ? squared_error(f->w, f->u, f->n, range, limit)
                : squared_error(f->w, NULL, f->n, range, limit);
}

/* Judges (scale, zero) after the cast and keeps it if it is the best so far. */
static struct candidate try_params(struct search *f, float scale, float zero, float limit)
{
    struct candidate c = {.scale = nb_numeric_store_scale(scale, f->opts->spec.scale_dtype),
                          .zero = zero};
    c.err = error_of(f, c.scale, zero, limit);
    if (c.err < f->best.err) f->best = c;
    return c;
}

/* Rounds and re-fits the scale in turn, as long as the error falls. */
static void refine(struct search *f, struct candidate c)
{
    for (int i = 0; i < REFITS; i++) {
        const float range[3] = {c.scale, -c.zero, f->top - c.zero};
        struct moments m;
        if (f->u) gather_moments(f->w, f->u, f->n, range, &m);
        else gather_moments(f->w, NULL, f->n, range, &m);
        if (!(m.tt > 0.0f) || !isfinite(m.wt / m.tt)) return;
        struct candidate next = try_params(f, m.wt / m.tt, c.zero, FLT_MAX);
        if (next.scale == c.scale || !(next.err < c.err)) return;
        c = next;
    }
}

static float clamp_zero(const struct search *f, float zero)
{
    float least = (float)f->opts->zero_min;
    if (!(zero > least)) return least;
    return zero < f->top ? zero : f->top;
}

static void keep_candidate(struct candidate kept[KEPT], struct candidate c)
{
    for (int i = 0; i < KEPT; i++) {
        if (c.err < kept[i].err) {
            struct candidate t = kept[i];
            kept[i] = c;
            c = t;
        }
    }
}

/* Moves the zero one way, the scale re-fitted each time, until that has failed twice in a row. */
static void walk_zero(struct search *f, struct candidate c, float step)
{
    for (int failures = 0; failures < 2;) {
        float zero = clamp_zero(f, c.zero + step);
        if (zero == c.zero) return;
        float err = f->best.err;
        c = try_params(f, c.scale, zero, FLT_MAX);
        refine(f, c);
        if (f->best.err < err) c = f->best;
        else failures++;
    }
}

/* Zero that centres the grid of an asymmetric scale on the weighted mean, without leaving the range of
 * the weights on either side. */
static float centred_zero(const struct search *f, float scale, float mean)
{
    float zero = f->top / 2.0f - mean / scale;
    float least = f->top - f->hi / scale, most = -f->lo / scale;
    if (zero < least) zero = least;
    if (zero > most) zero = most;
    return clamp_zero(f, rintf(zero));
}

static float weighted_mean(const struct search *f)
{
    double sum = 0, weight = 0;
    for (int64_t i = 0; i < f->n; i++) {
        double u = f->u ? f->u[i] : 1.0;
        sum += u * f->w[i];
        weight += u;
    }
    return (float)(sum / weight);
}

static void weighted_search(struct search *f)
{
    const bool sym = f->opts->spec.symmetric;
    const bool both = sym && f->opts->sym_range == NB_SYM_FULL;
    const float mid = rintf((f->top + 1.0f) / 2.0f);
    /* From the scale whose shorter side just holds every weight, down to a sixth of it. */
    const float widest = sym ? f->a / (mid - 1.0f) : (f->hi - f->lo) / f->top;
    const float zero = sym ? mid : clamp_zero(f, rintf(-f->lo / widest));
    const float mean = sym ? 0.0f : weighted_mean(f);
    const int rungs = f->opts->coarse ? FEW_RUNGS : RUNGS;
    const float lowest = f->opts->coarse ? 0.4f : 0.17f;
    const float ratio = powf(lowest, 1.0f / (float)(rungs - 1));
    struct candidate kept[KEPT];
    for (int i = 0; i < KEPT; i++) kept[i] = (struct candidate){.err = FLT_MAX};
    float s = widest;
    for (int i = 0; i < rungs; i++, s *= ratio) {
        keep_candidate(kept, try_params(f, s, zero, kept[KEPT - 1].err));
        if (both) keep_candidate(kept, try_params(f, -s, zero, kept[KEPT - 1].err));
        float centred = sym ? zero : centred_zero(f, s, mean);
        if (centred != zero) keep_candidate(kept, try_params(f, s, centred, kept[KEPT - 1].err));
    }
    for (int i = 0; i < KEPT && kept[i].err < FLT_MAX && !f->opts->coarse; i++) {
        refine(f, kept[i]);
        if (sym) continue;
        walk_zero(f, kept[i], 1.0f);
        walk_zero(f, kept[i], -1.0f);
    }
}

/* The range of the weights shrunk by p, as the GPTQ tools write it. sign is for the full-range grid. */
static void range_params(const struct search *f, float p, float sign, float *scale, float *zero)
{
    const float mid = rintf((f->top + 1.0f) / 2.0f);
    if (f->opts->spec.symmetric) {
        *zero = mid;
        *scale =
            f->opts->sym_range == NB_SYM_FULL ? sign * p * f->a / mid : p * (f->a + f->a) / f->top;
    } else {
        *scale = (p * f->hi - p * f->lo) / f->top;
        *zero = clamp_zero(f, rintf(-p * f->lo / nb_numeric_store_scale(*scale, NB_F32)));
    }
}

static void measure(struct search *f)
{
    for (int64_t i = 0; i < f->n; i++) {
        f->lo = f->w[i] < f->lo ? f->w[i] : f->lo;
        f->hi = f->w[i] > f->hi ? f->w[i] : f->hi;
    }
    f->a = f->hi > -f->lo ? f->hi : -f->lo;
    if (!(f->a > 0.0f)) { /* all zero: the range the GPTQ tools take */
        f->lo = -1.0f;
        f->hi = f->a = 1.0f;
    }
}

static bool any_weight(const float *u, int64_t n)
{
    for (int64_t i = 0; u && i < n; i++) {
        if (u[i] > 0.0f) return true;
    }
    return false;
}

void nb_int_fit(const struct nb_grid_opts *opts, const float *w, const float *u, int64_t n,
                struct nb_group_params *out)
{
    struct search f = {
        .opts = opts, .w = w, .n = n, .top = (float)((1 << opts->spec.elem.bits) - 1)};
    f.best.err = FLT_MAX;
    measure(&f);
    if (opts->clip == NB_CLIP_WEIGHTED && any_weight(u, n)) f.u = u;

    float sign = f.hi >= -f.lo ? -1.0f : 1.0f; /* code 0 is the outermost: mid below zero */
    range_params(&f, 1.0f, sign, &f.best.scale, &f.best.zero);
    f.best.scale = nb_numeric_store_scale(f.best.scale, opts->spec.scale_dtype);
    if (opts->clip != NB_CLIP_NONE) f.best.err = error_of(&f, f.best.scale, f.best.zero, FLT_MAX);
    if (opts->clip == NB_CLIP_MSE) {
        const bool both = opts->spec.symmetric && opts->sym_range == NB_SYM_FULL;
        for (int i = 0; i < MSE_STEPS; i++) {
            float scale, zero, p = 1.0f - (float)i / 100.0f;
            for (int turn = 0; turn < (both ? 2 : 1); turn++) {
                range_params(&f, p, turn ? -sign : sign, &scale, &zero);
                try_params(&f, scale, zero, FLT_MAX);
            }
        }
    } else if (opts->clip == NB_CLIP_WEIGHTED) {
        weighted_search(&f);
    }
    out->scale = f.best.scale;
    out->zero = f.best.zero;
}
