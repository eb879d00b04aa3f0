/* SPDX-License-Identifier: Apache-2.0
 *
 * vector.c - the operators beside the matrix products, in plain C with the C library's
 * functions. */
#include <math.h>

#include "backend/cpu/generic/level.h"

static void rmsnorm(float *y, const float *x, const float *weight, int64_t d, float eps)
{
    double sum = 0;
    for (int64_t i = 0; i < d; i++) sum += (double)x[i] * x[i];
    float r = 1.0f / sqrtf((float)(sum / (double)d) + eps);
    for (int64_t i = 0; i < d; i++) y[i] = weight[i] * (x[i] * r);
}

static void rope(float *x, int64_t half, const float *cos_t, const float *sin_t)
{
    for (int64_t i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = a * cos_t[i] - b * sin_t[i];
        x[i + half] = b * cos_t[i] + a * sin_t[i];
    }
}

static void act_silu(float *out, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++) out[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static void act_gelu(float *out, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        out[i] = gate[i] * 0.5f * (1.0f + erff(gate[i] * 0.70710678118654752440f)) * up[i];
    }
}

static void act_gelu_tanh(float *out, const float *gate, const float *up, int64_t n)
{
    const float root_2_over_pi = 0.79788456080286535588f;
    for (int64_t i = 0; i < n; i++) {
        float x = gate[i];
        float t = tanhf(root_2_over_pi * (x + 0.044715f * x * x * x));
        out[i] = 0.5f * x * (1.0f + t) * up[i];
    }
}

static void act_relu(float *out, const float *gate, const float *up, int64_t n)
{
    for (int64_t i = 0; i < n; i++) out[i] = (gate[i] > 0 ? gate[i] : 0.0f) * up[i];
}

static void add(float *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

static void add_f64(double *y, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] += (double)x[i];
}

static void softcap(float *x, int64_t n, float cap)
{
    for (int64_t i = 0; i < n; i++) x[i] = cap * tanhf(x[i] / cap);
}

static double logsumexp(const float *x, int64_t n)
{
    float top = -INFINITY;
    for (int64_t i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    float shift = top == -INFINITY ? 0.0f : top;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)expf(x[i] - shift);
    return (double)shift + log(sum);
}

static float exp_sum(float *x, int64_t n, float shift)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - shift);
        sum += (double)x[i];
    }
    return (float)sum;
}

enum { NR = 8 }; /* of tile.c */

static void softmax(float *s, int64_t keys, float *m, float *l, float *alpha)
{
    for (int j = 0; j < NR; j++) {
        float top = m[j], sum = 0;
        for (int64_t t = 0; t < keys; t++) top = s[t * NR + j] > top ? s[t * NR + j] : top;
        float shift = top == -INFINITY ? 0.0f : top;
        for (int64_t t = 0; t < keys; t++) {
            s[t * NR + j] = expf(s[t * NR + j] - shift);
            sum += s[t * NR + j];
        }
        alpha[j] = expf(m[j] - shift);
        l[j] = l[j] * alpha[j] + sum;
        m[j] = top;
    }
}

static void scale(float *o, int64_t n, const float *alpha)
{
    for (int64_t i = 0; i < n; i++) {
        for (int j = 0; j < NR; j++) o[i * NR + j] *= alpha[j];
    }
}

void nb_generic_vectors(struct nb_cpu_ops *ops)
{
    ops->vector_name = "generic";
    ops->rmsnorm = rmsnorm;
    ops->rope = rope;
    ops->act[0] = act_silu;
    ops->act[1] = act_gelu;
    ops->act[2] = act_gelu_tanh;
    ops->act[3] = act_relu;
    ops->add = add;
    ops->add_f64 = add_f64;
    ops->softcap = softcap;
    ops->logsumexp = logsumexp;
    ops->exp_sum = exp_sum;
    ops->softmax = softmax;
    ops->scale = scale;
}

void nb_cpu_ops_generic(struct nb_cpu_ops *ops)
{
    nb_generic_tiles(ops);
    nb_generic_vectors(ops);
    nb_generic_quant(ops);
}
