/* SPDX-License-Identifier: Apache-2.0
 *
 * search_tmpl.h - the searches for scales, LANES sub-blocks side by side.
 *
 * Element i of the sub-block in lane l is at x[i * LANES + l]. A lane adds up its own elements in their order
 * and never meets another, so every LANES gives the bits of one lane at a time. Codes of the best candidate are
 * not kept: they follow from its inverse scale (and base) once the search is over.
 *
 * Included by a level's file with LANES, VF (LANES floats), VM (a mask), and
 *   v_set v_load v_store + - * /   v_abs v_sqrt   v_min(a, b) = a < b ? a : b   v_max alike
 *   v_less(a, b)  m_and m_or m_any  v_pick(m, a, b)
 *   v_level(x, lo, hi)   x rounded half to even by the adder, as an integer modulo 2^23, in [lo, hi]
 * Source: GGUF specification, section 5.3. */

#define TINY 1e-15f /* below this a block counts as zero */

struct fit { /* of each lane */
    float scale[LANES];
    float min[LANES];     /* of the shifted search, <= 0: value = scale * code + min */
    float inverse[LANES]; /* code = level(inverse * (x - base)); 0: every code is 0 */
    float base[LANES];
};

/* Value of the largest magnitude, the first of equals; *top: that magnitude. */
static inline VF extreme_of(const float *x, int n, VF *top)
{
    VF extreme = v_set(0.0f), most = v_set(0.0f);
    for (int i = 0; i < n; i++) {
        const VF v = v_load(x + i * LANES), a = v_abs(v);
        extreme = v_pick(v_less(most, a), v, extreme);
        most = v_max(a, most);
    }
    *top = most;
    return extreme;
}

/* A = sum w x l, B = sum w l^2 for codes l of the inverse scale s. */
static inline void gains(const float *x, const float *w, int n, int half, VF s, VF sum[2])
{
    VF a = v_set(0.0f), b = v_set(0.0f);
    for (int i = 0; i < n; i++) {
        const VF xi = v_load(x + i * LANES), wi = v_load(w + i * LANES);
        const VF l = v_level(s * xi, -half, half - 1);
        a = a + wi * xi * l;
        b = b + wi * l * l;
    }
    sum[0] = a;
    sum[1] = b;
}

/* Codes -half .. half - 1: 19 scales around the one that puts the extreme on -half, judged by the gain A^2 / B
 * of weighted least squares. */
static inline void fit_symmetric(const float *x, const float *w, int n, int half, struct fit *out)
{
    const VF zero = v_set(0.0f);
    VF top, sum[2];
    const VF extreme = extreme_of(x, n, &top);
    VF inverse = v_set(-(float)half) / extreme;
    gains(x, w, n, half, inverse, sum);
    VF scale = v_pick(v_less(zero, sum[1]), sum[0] / sum[1], zero);
    VF best = scale * sum[0];
    for (int k = -9; k <= 9; k++) {
        if (k == 0) continue;
        const VF s = v_set(-((float)half + 0.1f * (float)k)) / extreme;
        gains(x, w, n, half, s, sum);
        const VM better = m_and(v_less(zero, sum[1]), v_less(best * sum[1], sum[0] * sum[0]));
        scale = v_pick(better, sum[0] / sum[1], scale);
        best = v_pick(better, scale * sum[0], best);
        inverse = v_pick(better, s, inverse);
    }
    const VM dead = v_less(top, v_set(TINY));
    v_store(out->scale, v_pick(dead, zero, scale));
    v_store(out->inverse, v_pick(dead, zero, inverse));
}

struct shifted_grid {
    int n, top;        /* elements; codes 0 .. top */
    float start, step; /* candidate k uses the range divided by start + step k + top */
    int steps;         /* k = 0 .. steps */
    bool absolute;     /* errors count |e|, not e^2 */
};

static inline VF shifted_error(const struct shifted_grid *g, const float *x, const float *w,
                               const float *level, VF scale, VF min)
{
    VF sum = v_set(0.0f);
    for (int i = 0; i < g->n; i++) {
        VF e = scale * v_load(level + i * LANES) + min - v_load(x + i * LANES);
        if (g->absolute) e = v_abs(e);
        else e = e * e;
        sum = sum + v_load(w + i * LANES) * e;
    }
    return sum;
}

static inline void shifted_levels(const struct shifted_grid *g, const float *x, VF inverse, VF base,
                                  float *level)
{
    for (int i = 0; i < g->n; i++) {
        const VF l = v_level(inverse * (v_load(x + i * LANES) - base), 0, g->top);
        v_store(level + i * LANES, l);
    }
}

struct totals { /* of a sub-block: weights, weighted values, range */
    VF w, wx, min, max;
};

static inline struct totals totals_of(const float *x, const float *w, int n)
{
    const VF first = v_load(x);
    struct totals t = {v_load(w), v_load(w) * first, first, first};
    for (int i = 1; i < n; i++) {
        const VF xi = v_load(x + i * LANES), wi = v_load(w + i * LANES);
        t.min = v_min(xi, t.min);
        t.max = v_max(xi, t.max);
        t.w = t.w + wi;
        t.wx = t.wx + wi * xi;
    }
    t.min = v_min(v_set(0.0f), t.min);
    return t;
}

/* Weighted least squares of scale and min for given codes; false where there is none. */
static inline VM solve_shifted(const struct shifted_grid *g, const float *x, const float *w,
                               const float *level, const struct totals *t, VF solution[2])
{
    const VF zero = v_set(0.0f);
    VF sl = zero, sl2 = zero, sxl = zero;
    for (int i = 0; i < g->n; i++) {
        const VF l = v_load(level + i * LANES), wl = v_load(w + i * LANES) * l;
        sl = sl + wl;
        sl2 = sl2 + wl * l;
        sxl = sxl + wl * v_load(x + i * LANES);
    }
    const VF det = t->w * sl2 - sl * sl;
    const VF min = (sl2 * t->wx - sl * sxl) / det;
    const VM above = v_less(zero, min);
    solution[0] = v_pick(above, sxl / sl2, (t->w * sxl - t->wx * sl) / det);
    solution[1] = v_pick(above, zero, min);
    return v_less(zero, det);
}

/* Codes 0 .. top with a minimum <= 0. The range of later candidates starts from the best minimum so far, as in
 * the reference. */
static inline void fit_shifted(const struct shifted_grid *g, const float *x, const float *w,
                               struct fit *out)
{
    float level[32 * LANES];
    const VF zero = v_set(0.0f), top = v_set((float)g->top);
    const struct totals t = totals_of(x, w, g->n);
    VF min = t.min, base = min, inverse = top / (t.max - min), scale = v_set(1.0f) / inverse;
    shifted_levels(g, x, inverse, min, level);
    VF best = shifted_error(g, x, w, level, scale, min);
    for (int k = 0; k <= g->steps; k++) {
        const VF s = v_set(g->start + g->step * (float)k + (float)g->top) / (t.max - min);
        VF solution[2];
        shifted_levels(g, x, s, min, level);
        const VM solved = solve_shifted(g, x, w, level, &t, solution);
        const VF error = shifted_error(g, x, w, level, solution[0], solution[1]);
        const VM better = m_and(solved, v_less(error, best));
        best = v_pick(better, error, best);
        scale = v_pick(better, solution[0], scale);
        inverse = v_pick(better, s, inverse);
        base = v_pick(better, min, base);
        min = v_pick(better, solution[1], min);
    }
    const VM alive = v_less(t.min, t.max);
    v_store(out->scale, v_pick(alive, scale, zero));
    v_store(out->min, v_pick(alive, min, t.min));
    v_store(out->inverse, v_pick(alive, inverse, zero));
    v_store(out->base, v_pick(alive, base, zero));
}

/* Codes -4 .. 3 of 16 elements weighted by x^2: from the scale of the extreme, codes are improved one at a time.
 * level gets code + 4 (0 in a block of zeros). */
static inline void fit_by_descent(const float *x, float *level, float *scale)
{
    const VF zero = v_set(0.0f);
    VF top, a = zero, b = zero;
    const VF inverse = v_set(-4.0f) / extreme_of(x, 16, &top);
    for (int i = 0; i < 16; i++) {
        const VF xi = v_load(x + i * LANES), l = v_level(inverse * xi, -4, 3), w = xi * xi;
        a = a + w * xi * l;
        b = b + w * l * l;
        v_store(level + i * LANES, l);
    }
    const VM dead = v_less(top, v_set(TINY));
    for (int sweep = 0; sweep < 5; sweep++) {
        bool changed = false;
        for (int i = 0; i < 16; i++) {
            const VF xi = v_load(x + i * LANES), w = xi * xi, l = v_load(level + i * LANES);
            VF a1 = a - w * xi * l, b1 = b - w * l * l;
            const VF c = v_level(xi * b1 / a1, -4, 3);
            VM accept = m_and(v_less(zero, a1), m_or(v_less(c, l), v_less(l, c)));
            a1 = a1 + w * xi * c;
            b1 = b1 + w * c * c;
            accept = m_and(accept, m_and(v_less(zero, b1), v_less(a * a * b1, a1 * a1 * b)));
            if (!m_any(accept)) continue;
            changed = true;
            a = v_pick(accept, a1, a);
            b = v_pick(accept, b1, b);
            v_store(level + i * LANES, v_pick(accept, c, l));
        }
        if (!changed) break;
    }
    for (int i = 0; i < 16; i++) {
        const VF l = v_load(level + i * LANES) + v_set(4.0f);
        v_store(level + i * LANES, v_pick(dead, zero, l));
    }
    v_store(scale, v_pick(dead, zero, v_pick(v_less(zero, b), a / b, zero)));
}

/* sum w (v - scale level)^2 with levels of inverse. */
static inline VF scales_error(const float *v, const float *w, int n, int top, VF inverse)
{
    const VF scale = v_set(1.0f) / inverse;
    VF sum = v_set(0.0f);
    for (int i = 0; i < n; i++) {
        const VF vi = v_load(v + i * LANES), e = vi - scale * v_level(inverse * vi, 0, top);
        sum = sum + v_load(w + i * LANES) * e * e;
    }
    return sum;
}

/* n scales v >= 0 of a block (a lane is a block) as d * level, level 0 .. top. */
static inline void fit_scales(const float *v, const float *w, int n, int top, float *level,
                              float *d)
{
    const VF zero = v_set(0.0f);
    VF most = zero, a = zero, b = zero;
    for (int i = 0; i < n; i++) most = v_max(v_load(v + i * LANES), most);
    VF inverse = v_set((float)top) / most, best = scales_error(v, w, n, top, inverse);
    for (int k = -4; k <= 4; k++) {
        if (k == 0) continue;
        const VF s = v_set(0.1f * (float)k + (float)top) / most;
        const VF error = scales_error(v, w, n, top, s);
        const VM better = v_less(error, best);
        best = v_pick(better, error, best);
        inverse = v_pick(better, s, inverse);
    }
    for (int i = 0; i < n; i++) {
        const VF vi = v_load(v + i * LANES), wi = v_load(w + i * LANES);
        const VF l = v_level(inverse * vi, 0, top);
        v_store(level + i * LANES, l);
        a = a + wi * vi * l;
        b = b + wi * l * l;
    }
    for (int sweep = 0; sweep < 5; sweep++) {
        bool changed = false;
        for (int i = 0; i < n; i++) {
            const VF vi = v_load(v + i * LANES), wi = v_load(w + i * LANES);
            const VF l = v_load(level + i * LANES);
            VF a1 = a - wi * vi * l, b1 = b - wi * l * l;
            VM accept = m_and(v_less(zero, a1), v_less(zero, b1));
            const VF c = v_level(vi * b1 / a1, 0, top);
            accept = m_and(accept, m_or(v_less(c, l), v_less(l, c)));
            a1 = a1 + wi * vi * c;
            b1 = b1 + wi * c * c;
            accept = m_and(accept, v_less(a * a * b1, a1 * a1 * b));
            if (!m_any(accept)) continue;
            changed = true;
            a = v_pick(accept, a1, a);
            b = v_pick(accept, b1, b);
            v_store(level + i * LANES, v_pick(accept, c, l));
        }
        if (!changed) break;
    }
    const VM dead = v_less(most, v_set(TINY));
    for (int i = 0; i < n; i++)
        v_store(level + i * LANES, v_pick(dead, zero, v_load(level + i * LANES)));
    v_store(d, v_pick(dead, zero, v_pick(v_less(zero, b), a / b, zero)));
}

/* The value of nb_block_iq4_values nearest to x, ties upward. */
static inline VF nearest_iq4(VF x)
{
    VF q = v_set((float)nb_block_iq4_values[0]);
    for (int k = 0; k < 15; k++) {
        const VM below = v_less(x, v_set(nb_block_iq4_middle[k]));
        q = v_pick(below, q, v_set((float)nb_block_iq4_values[k + 1]));
    }
    return q;
}

/* sum w q x, sum w q^2 for the nearest table values q of x * inverse. */
static inline void table_gains(const float *x, const float *w, VF inverse, VF sum[2])
{
    VF a = v_set(0.0f), b = v_set(0.0f);
    for (int i = 0; i < 32; i++) {
        const VF xi = v_load(x + i * LANES), q = nearest_iq4(inverse * xi);
        const VF wq = v_load(w + i * LANES) * q;
        a = a + wq * xi;
        b = b + wq * q;
    }
    sum[0] = a;
    sum[1] = b;
}

/* Scale of 32 elements on the table of IQ4: 15 scales around the one that puts the extreme on -127. */
static inline void fit_table(const float *x, const float *w, float *out)
{
    const VF zero = v_set(0.0f);
    VF top, sum[2];
    const VF extreme = extreme_of(x, 32, &top);
    table_gains(x, w, v_set(1.0f) / (extreme / v_set(127.0f)), sum);
    VF scale = v_pick(v_less(zero, sum[1]), sum[0] / sum[1], zero), best = scale * sum[0];
    for (int k = -7; k <= 7; k++) {
        table_gains(x, w, v_set((float)(k - 127)) / extreme, sum);
        const VM better = m_and(v_less(zero, sum[1]), v_less(best * sum[1], sum[0] * sum[0]));
        scale = v_pick(better, sum[0] / sum[1], scale);
        best = v_pick(better, scale * sum[0], best);
    }
    v_store(out, v_pick(v_less(top, v_set(TINY)), zero, scale));
}
