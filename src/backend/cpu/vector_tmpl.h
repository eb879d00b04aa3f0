/* SPDX-License-Identifier: Apache-2.0
 *
 * vector_tmpl.h - the operators beside the matrix products, once for every f32 vector type.
 * Included by an ISA's vector file with V (vector type), V_LANES, and V_LOAD V_STORE V_SET1 V_ADD
 * V_SUB V_MUL V_DIV V_MIN V_MAX V_FMA(a,b,c) V_FNMA(a,b,c) V_ROUND V_POW2(p,n) = p * 2^n V_SUM
 * V_TOP (horizontal), V_LOAD_AS(src, type), V_LOAD_PART(p, n) and V_STORE_PART(p, v, n) of n lanes.
 *
 * Tails of exp and of what is made from it are partial vectors, so that an element's value does not
 * depend on where it stands. No arrays on the stack beside vectors: gcc 12 with -fsanitize=address
 * may place them so that its own aligned stores fault. */
#include <math.h>
#include <string.h>

/* e^r - 1 of r = x - n ln 2, |r| <= ln 2 / 2, by a polynomial fitted for least relative error of e^r
 * (3e-9). */
static inline __attribute__((always_inline)) V v_expm1_rest(V x, V n)
{
    V r = V_FNMA(n, V_SET1(0.693359375f), x); /* ln 2 in two parts, the first with 9 bits */
    r = V_FNMA(n, V_SET1(-2.12194440e-4f), r);
    V p = V_SET1(0.00138144672f);
    p = V_FMA(p, r, V_SET1(0.00836878084f));
    p = V_FMA(p, r, V_SET1(0.0416683927f));
    p = V_FMA(p, r, V_SET1(0.166665196f));
    p = V_FMA(p, r, V_SET1(0.49999994f));
    return V_FMA(V_MUL(r, r), p, r);
}

/* e^x to 1 ulp, in base-2 scaling at the end. Below the smallest normal number results go through
 * subnormals to 0. */
static inline __attribute__((always_inline)) V v_exp_below_90(V x)
{
    x = V_MAX(x, V_SET1(-105.0f)); /* 0 comes out of the scaling */
    V n = V_ROUND(V_MUL(x, V_SET1(1.44269504f)));
    return V_POW2(V_ADD(v_expm1_rest(x, n), V_SET1(1.0f)), n);
}

static inline __attribute__((always_inline)) V v_exp(V x)
{
    return v_exp_below_90(V_MIN(x, V_SET1(90.0f))); /* and so does inf */
}

static inline __attribute__((always_inline)) V v_sigmoid(V x)
{
    V one = V_SET1(1.0f);
    return V_DIV(one, V_ADD(one, v_exp(V_SUB(V_SET1(0.0f), x))));
}

static inline __attribute__((always_inline)) V v_silu(V x)
{
    return V_MUL(x, v_sigmoid(x));
}

/* x (1 + tanh u) / 2 = x sigmoid(2u): no cancellation where tanh is near -1. */
static inline __attribute__((always_inline)) V v_gelu_tanh(V x)
{
    V cube = V_MUL(V_MUL(x, x), x);
    V u = V_MUL(V_SET1(0.79788456080286535588f), V_FMA(V_SET1(0.044715f), cube, x));
    return V_MUL(x, v_sigmoid(V_ADD(u, u)));
}

/* t / (t + 2) with t = e^2x - 1 = (2^n - 1) + 2^n (e^r - 1): no cancellation near 0. */
static inline __attribute__((always_inline)) V v_tanh(V x)
{
    const V one = V_SET1(1.0f);
    x = V_MAX(V_MIN(V_ADD(x, x), V_SET1(30.0f)), V_SET1(-30.0f)); /* +-1 beyond */
    V n = V_ROUND(V_MUL(x, V_SET1(1.44269504f))), s = V_POW2(one, n);
    V t = V_FMA(s, v_expm1_rest(x, n), V_SUB(s, one));
    return V_DIV(t, V_ADD(t, V_SET1(2.0f)));
}

static inline __attribute__((always_inline)) V v_relu(V x)
{
    return V_MAX(x, V_SET1(0.0f));
}

static inline __attribute__((always_inline)) void gated(float *out, const float *gate,
                                                        const float *up, int64_t n, V (*act)(V))
{
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES) {
        V_STORE(out + i, V_MUL(act(V_LOAD(gate + i)), V_LOAD(up + i)));
    }
    if (i < n) {
        int left = (int)(n - i);
        V g = V_LOAD_PART(gate + i, left), u = V_LOAD_PART(up + i, left);
        V_STORE_PART(out + i, V_MUL(act(g), u), left);
    }
}

static void act_silu(float *out, const float *gate, const float *up, int64_t n)
{
    gated(out, gate, up, n, v_silu);
}

static void act_gelu_tanh(float *out, const float *gate, const float *up, int64_t n)
{
    gated(out, gate, up, n, v_gelu_tanh);
}

static void act_relu(float *out, const float *gate, const float *up, int64_t n)
{
    gated(out, gate, up, n, v_relu);
}

static void softcap(float *x, int64_t n, float cap)
{
    const V c = V_SET1(cap), inv = V_SET1(1.0f / cap);
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        V_STORE(x + i, V_MUL(c, v_tanh(V_MUL(V_LOAD(x + i), inv))));
    if (i < n) {
        V v = V_LOAD_PART(x + i, (int)(n - i));
        V_STORE_PART(x + i, V_MUL(c, v_tanh(V_MUL(v, inv))), (int)(n - i));
    }
}

static void add(float *y, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES) V_STORE(y + i, V_ADD(V_LOAD(y + i), V_LOAD(x + i)));
    for (; i < n; i++) y[i] += x[i];
}

static void add_f64(double *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += (double)x[i]; /* the compiler's vectors of this level will do */
}

static void rmsnorm(float *y, const float *x, const float *weight, int64_t d, float eps)
{
    V sums[4] = {V_SET1(0.0f), V_SET1(0.0f), V_SET1(0.0f), V_SET1(0.0f)};
    int64_t i = 0;
    for (; i + 4 * V_LANES <= d; i += 4 * V_LANES) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            V v = V_LOAD(x + i + j * V_LANES);
            sums[j] = V_FMA(v, v, sums[j]);
        }
    }
    double sum = (double)V_SUM(V_ADD(V_ADD(sums[0], sums[1]), V_ADD(sums[2], sums[3])));
    for (; i < d; i++) sum += (double)x[i] * x[i];
    float r = 1.0f / sqrtf((float)(sum / (double)d) + eps);
    V rv = V_SET1(r);
    for (i = 0; i + V_LANES <= d; i += V_LANES) {
        V_STORE(y + i, V_MUL(V_LOAD(weight + i), V_MUL(V_LOAD(x + i), rv)));
    }
    for (; i < d; i++) y[i] = weight[i] * (x[i] * r);
}

static void rope(float *x, int64_t half, const float *cos_t, const float *sin_t)
{
    int64_t i = 0;
    for (; i + V_LANES <= half; i += V_LANES) {
        V a = V_LOAD(x + i), b = V_LOAD(x + half + i), c = V_LOAD(cos_t + i), s = V_LOAD(sin_t + i);
        V_STORE(x + i, V_FNMA(b, s, V_MUL(a, c)));
        V_STORE(x + half + i, V_FMA(a, s, V_MUL(b, c)));
    }
    for (; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos_t[i] - b * sin_t[i];
        x[i + half] = b * cos_t[i] + a * sin_t[i];
    }
}

static double logsumexp(const float *x, int64_t n)
{
    V top = V_SET1(-INFINITY);
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES) top = V_MAX(V_LOAD(x + i), top);
    float shift = V_TOP(top);
    for (; i < n; i++) shift = x[i] > shift ? x[i] : shift;
    if (shift == -INFINITY) shift = 0.0f;
    double sum = 0;
    for (i = 0; i + V_LANES <= n;) {
        V part = V_SET1(0.0f); /* f32 sums stay short; what is added up in f64 is exact to 1e-7 */
        for (int j = 0; j < 16 && i + V_LANES <= n; j++, i += V_LANES) {
            part = V_ADD(part, v_exp(V_SUB(V_LOAD(x + i), V_SET1(shift))));
        }
        sum += (double)V_SUM(part);
    }
    for (; i < n; i++) sum += (double)expf(x[i] - shift);
    return (double)shift + log(sum);
}

static float exp_sum(float *x, int64_t n, float shift)
{
    V sum = V_SET1(0.0f);
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES) {
        V p = v_exp(V_SUB(V_LOAD(x + i), V_SET1(shift)));
        V_STORE(x + i, p);
        sum = V_ADD(sum, p);
    }
    if (i < n)
        V_STORE_PART(x + i, v_exp(V_SUB(V_LOAD_PART(x + i, (int)(n - i)), V_SET1(shift))),
                     (int)(n - i));
    float total = V_SUM(sum);
    for (; i < n; i++) total += x[i];
    return total;
}

static void softmax(float *s, int64_t keys, float *m, float *l, float *alpha)
{
    enum { NR = 2 * V_LANES };
    const V none = V_SET1(-INFINITY), zero = V_SET1(0.0f);
    for (int j = 0; j < NR; j += V_LANES) {
        V old = V_LOAD(m + j), top = old, sum = zero;
        for (int64_t t = 0; t < keys; t++) top = V_MAX(V_LOAD(s + t * NR + j), top);
        V shift = V_ZERO_WHERE_EQUAL(top, none); /* nothing visible yet: exp(-inf - 0) = 0 */
        for (int64_t t = 0; t < keys; t++) {
            V p = v_exp_below_90(V_SUB(V_LOAD(s + t * NR + j), shift));
            V_STORE(s + t * NR + j, p);
            sum = V_ADD(sum, p);
        }
        V scale = v_exp_below_90(V_SUB(old, shift));
        V_STORE(alpha + j, scale);
        V_STORE(l + j, V_FMA(V_LOAD(l + j), scale, sum));
        V_STORE(m + j, top);
    }
}

static void scale(float *o, int64_t n, const float *alpha)
{
    enum { NR = 2 * V_LANES };
    V a0 = V_LOAD(alpha), a1 = V_LOAD(alpha + V_LANES);
    for (int64_t i = 0; i < n; i++, o += NR) {
        V_STORE(o, V_MUL(V_LOAD(o), a0));
        V_STORE(o + V_LANES, V_MUL(V_LOAD(o + V_LANES), a1));
    }
}

static void dequant_u8(float *dst, const uint8_t *code, int64_t n, float factor, float zero)
{
    V f = V_SET1(factor), z = V_SET1(zero);
    int64_t i = 0;
    for (; i + V_LANES <= n; i += V_LANES)
        V_STORE(dst + i, V_MUL(V_SUB(V_LOAD_U8(code + i), z), f));
    for (; i < n; i++) dst[i] = ((float)code[i] - zero) * factor;
}

static inline __attribute__((always_inline)) float element(const void *at, enum nb_dtype type)
{
    if (type == NB_F32) {
        float f;
        memcpy(&f, at, sizeof f);
        return f;
    }
    uint16_t h;
    memcpy(&h, at, sizeof h);
    return type == NB_F16 ? nb_f16_to_f32(h) : nb_bf16_to_f32(h);
}

/* ---- dot products: each (row of w, row of x) has two running sums, for even and odd vectors
 * ---- */

static inline __attribute__((always_inline)) void dot_rows(const struct nb_dot *d,
                                                           const unsigned char *w, int rows, int m,
                                                           enum nb_dtype type, float *y)
{
    const int64_t size = type == NB_F32 ? 4 : 2;
    const int64_t whole = d->k / (2 * V_LANES) * (2 * V_LANES);
    V acc[4][4][2];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int i = 0; i < m; i++) acc[r][i][0] = acc[r][i][1] = V_SET1(0.0f);
    }
    for (int64_t kk = 0; kk < whole; kk += 2 * V_LANES) {
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            V x[4];
#pragma GCC unroll 4
            for (int i = 0; i < m; i++) x[i] = V_LOAD(d->x + i * d->ldx + kk + h * V_LANES);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                V v = V_LOAD_AS(w + (r * d->ldw + kk + h * V_LANES) * size, type);
#pragma GCC unroll 4
                for (int i = 0; i < m; i++) acc[r][i][h] = V_FMA(x[i], v, acc[r][i][h]);
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (int i = 0; i < m; i++) {
            float sum = V_SUM(V_ADD(acc[r][i][0], acc[r][i][1]));
            for (int64_t t = whole; t < d->k; t++) {
                sum += d->x[i * d->ldx + t] * element(w + (r * d->ldw + t) * size, type);
            }
            y[i * d->ldy + r] = sum;
        }
    }
}

static inline __attribute__((always_inline)) void dot_all(const struct nb_dot *d, int m,
                                                          enum nb_dtype type)
{
    const int step = m == 1 ? 4 : m == 2 ? 2 : 1; /* 8 sums in flight */
    const int64_t row_bytes = d->ldw * (type == NB_F32 ? 4 : 2);
    const unsigned char *w = d->w;
    int64_t r = 0;
    for (; r + step <= d->rows; r += step) dot_rows(d, w + r * row_bytes, step, m, type, d->y + r);
    for (; r < d->rows; r++) dot_rows(d, w + r * row_bytes, 1, m, type, d->y + r);
}

static inline __attribute__((always_inline)) void dot_m(const struct nb_dot *d, enum nb_dtype type)
{
    switch (d->m) {
    case 1: dot_all(d, 1, type); break;
    case 2: dot_all(d, 2, type); break;
    case 3: dot_all(d, 3, type); break;
    case 4: dot_all(d, 4, type); break;
    }
}

static void dot(const struct nb_dot *d)
{
    switch (d->type) {
    case NB_F32: dot_m(d, NB_F32); break;
    case NB_F16: dot_m(d, NB_F16); break;
    default: dot_m(d, NB_BF16); break;
    }
}
