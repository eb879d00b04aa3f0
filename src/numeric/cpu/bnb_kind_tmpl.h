/* SPDX-License-Identifier: Apache-2.0
 *
 * bnb_kind_tmpl.h - rounding to one kind of numbers, once per kind and level. Included with OF(name) naming the
 * functions of the kind and
 *   VI OF(code)(VF x)       code of a weight over its scale
 *   VF OF(level)(VI code)   what the code means
 * after the level's VF, VI, LANES and v_* functions. */

static inline void OF(step)(const float *w, VF scale, VF inverse, uint8_t *code, float *value)
{
    const VI c = OF(code)(v_load(w) * inverse);
    if (code) v_store_codes(code, c);
    if (value) v_store(value, scale * OF(level)(c));
}

static void OF(round)(const float *w, int64_t n, struct nb_bnb_scale s, uint8_t *code, float *value)
{
    const VF scale = v_set(s.scale), inverse = v_set(s.inverse);
    int64_t i = 0;
    if (code && !value) {
        for (; i + LANES <= n; i += LANES) OF(step)(w + i, scale, inverse, code + i, NULL);
    }
    for (; i + LANES <= n; i += LANES)
        OF(step)(w + i, scale, inverse, code ? code + i : NULL, value ? value + i : NULL);
    if (i == n) return;
    float in[LANES] = {0}, out[LANES];
    uint8_t c[LANES];
    copy_floats(in, w + i, n - i);
    OF(step)(in, scale, inverse, c, out);
    if (code) copy_codes(code + i, c, n - i);
    if (value) copy_floats(value + i, out, n - i);
}

static void OF(lanes)(const float *w, const float *scale, int64_t n, uint8_t *code, float *value)
{
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const VF s = v_load(scale + i);
        OF(step)(w + i, s, v_inverse(s), code ? code + i : NULL, value ? value + i : NULL);
    }
    if (i == n) return;
    float in[LANES] = {0}, by[LANES] = {0}, out[LANES];
    uint8_t c[LANES];
    copy_floats(in, w + i, n - i);
    copy_floats(by, scale + i, n - i);
    OF(step)(in, v_load(by), v_inverse(v_load(by)), c, out);
    if (code) copy_codes(code + i, c, n - i);
    if (value) copy_floats(value + i, out, n - i);
}

/* 16 weights into the partial sums. */
static inline void OF(add_error)(const float *w, const float *u, VF scale, VF inverse, VF sum[SUMS])
{
    for (int k = 0; k < SUMS; k++) {
        const VF x = v_load(w + k * LANES);
        const VF d = scale * OF(level)(OF(code)(x * inverse)) - x;
        VF ud = d;
        if (u) ud = v_load(u + k * LANES) * d;
        sum[k] = sum[k] + ud * d;
    }
}

static float OF(error)(const float *w, const float *u, int64_t n, struct nb_bnb_scale s)
{
    const VF scale = v_set(s.scale), inverse = v_set(s.inverse);
    VF sum[SUMS];
    for (int k = 0; k < SUMS; k++) sum[k] = v_set(0.0f);
    int64_t i = 0;
    for (; u && i + NB_BNB_LANES <= n; i += NB_BNB_LANES)
        OF(add_error)(w + i, u + i, scale, inverse, sum);
    for (; i + NB_BNB_LANES <= n; i += NB_BNB_LANES)
        OF(add_error)(w + i, NULL, scale, inverse, sum);
    if (i < n) {
        float in[NB_BNB_LANES] = {0}, by[NB_BNB_LANES] = {0};
        copy_floats(in, w + i, n - i);
        if (u) copy_floats(by, u + i, n - i);
        OF(add_error)(in, u ? by : NULL, scale, inverse, sum);
    }
    return total_of(sum);
}

static inline void OF(add_moments)(const float *w, const float *u, VF inverse, VF wt[SUMS],
                                   VF tt[SUMS])
{
    for (int k = 0; k < SUMS; k++) {
        const VF x = v_load(w + k * LANES), t = OF(level)(OF(code)(x * inverse));
        VF ut = t;
        if (u) ut = v_load(u + k * LANES) * t;
        wt[k] = wt[k] + ut * x;
        tt[k] = tt[k] + ut * t;
    }
}

static void OF(moments)(const float *w, const float *u, int64_t n, struct nb_bnb_scale s,
                        struct nb_bnb_moments *out)
{
    const VF inverse = v_set(s.inverse);
    VF wt[SUMS], tt[SUMS];
    for (int k = 0; k < SUMS; k++) wt[k] = tt[k] = v_set(0.0f);
    int64_t i = 0;
    for (; i + NB_BNB_LANES <= n; i += NB_BNB_LANES)
        OF(add_moments)(w + i, u ? u + i : NULL, inverse, wt, tt);
    if (i < n) {
        float in[NB_BNB_LANES] = {0}, by[NB_BNB_LANES] = {0};
        copy_floats(in, w + i, n - i);
        if (u) copy_floats(by, u + i, n - i);
        OF(add_moments)(in, u ? by : NULL, inverse, wt, tt);
    }
    out->wt = total_of(wt);
    out->tt = total_of(tt);
}
