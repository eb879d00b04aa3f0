/* SPDX-License-Identifier: Apache-2.0
 *
 * row.c - log-softmax of a row of logits, and the divergence of two of them.
 *
 * With shifted exponentials e_i = exp(x_i - max), log p_t = x_t - max - log(sum e). The divergence needs no
 * second pass: KL(b || a) = sum_i p_b,i (b_i - a_i) - (lse_b - lse_a). Everything is summed in f64 in eight
 * interleaved lanes, an order that the compiler can vectorize and that never changes. */
#include "eval/row.h"

#include <math.h>
#include <string.h>

enum { LANES = 8 };

/* exp(x) for x <= 0, relative error below 1e-14, no branches: 2^n exp(r) with |r| <= ln2 / 2. */
static inline double exp_nonpositive(double x)
{
    const double round = 0x1.8p52; /* adding it leaves the rounded integer in the low bits */
    x = x < -700.0 ? -700.0 : x;
    double t = x * 0x1.71547652b82fep0 + round;
    uint64_t bits;
    memcpy(&bits, &t, sizeof bits);
    double n = t - round;
    double r = x - n * 0x1.62e42fefa3800p-1;
    r -= n * 0x1.ef35793c76730p-45;
    double p = 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    bits = (bits + 1023) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

static double lane_sum(const double lane[LANES])
{
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* Largest value and its first index. A NaN is never larger, but turns the sums into NaN later. */
static float row_max(const float *x, int64_t v, int64_t *index)
{
    float lane[LANES], best = x[0];
    for (int j = 0; j < LANES; j++) lane[j] = best;
    int64_t i = 0;
    for (; i + LANES <= v; i += LANES) {
        for (int j = 0; j < LANES; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    }
    for (; i < v; i++) best = x[i] > best ? x[i] : best;
    for (int j = 0; j < LANES; j++) best = lane[j] > best ? lane[j] : best;
    *index = 0;
    for (i = 0; i < v; i++) {
        if (x[i] == best) {
            *index = i;
            break;
        }
    }
    return best;
}

void nb_eval_row_one(struct nb_eval_row *out, const float *logits, int64_t v, int32_t target)
{
    int64_t top;
    double max = row_max(logits, v, &top), lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= v; i += LANES) {
        for (int j = 0; j < LANES; j++) lane[j] += exp_nonpositive((double)logits[i + j] - max);
    }
    for (int j = 0; i < v; i++, j++) lane[j] += exp_nonpositive((double)logits[i] - max);
    memset(out, 0, sizeof *out);
    out->nll = log(lane_sum(lane)) - ((double)logits[target] - max);
}

void nb_eval_row_pair(struct nb_eval_row *out, const float *logits, const float *base, int64_t v,
                      int32_t target)
{
    int64_t top, top_base;
    double max = row_max(logits, v, &top), max_base = row_max(base, v, &top_base);
    double lane[LANES] = {0}, lane_base[LANES] = {0}, cross[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= v; i += LANES) {
        for (int j = 0; j < LANES; j++) {
            double a = logits[i + j], b = base[i + j];
            double eb = exp_nonpositive(b - max_base);
            lane[j] += exp_nonpositive(a - max);
            lane_base[j] += eb;
            cross[j] += eb * (b - a);
        }
    }
    for (int j = 0; i < v; i++, j++) {
        double a = logits[i], b = base[i], eb = exp_nonpositive(b - max_base);
        lane[j] += exp_nonpositive(a - max);
        lane_base[j] += eb;
        cross[j] += eb * (b - a);
    }
    double sum_base = lane_sum(lane_base);
    double log_sum = log(lane_sum(lane)), log_sum_base = log(sum_base);
    double kld = lane_sum(cross) / sum_base - ((max_base - max) + (log_sum_base - log_sum));
    memset(out, 0, sizeof *out);
    out->nll = log_sum - ((double)logits[target] - max);
    out->nll_base = log_sum_base - ((double)base[target] - max_base);
    out->kld = kld < 0 ? 0 : kld; /* rounding of equal rows; NaN stays */
    out->same_top = top == top_base;
    out->flip = !out->same_top && 1.0 / sum_base > 0.9;
}

void nb_eval_row_sum(const float *logits, int64_t v, float *max, float *log_sum)
{
    int64_t top;
    float m = row_max(logits, v, &top);
    double lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= v; i += LANES) {
        for (int j = 0; j < LANES; j++) lane[j] += (float)exp_nonpositive(logits[i + j] - m);
    }
    for (int j = 0; i < v; i++, j++) lane[j] += (float)exp_nonpositive(logits[i] - m);
    *max = m;
    *log_sum = (float)log(lane_sum(lane));
}

void nb_eval_row_log_softmax(float *logits, int64_t v)
{
    float max, log_sum;
    nb_eval_row_sum(logits, v, &max, &log_sum);
    for (int64_t i = 0; i < v; i++) logits[i] = logits[i] - max - log_sum;
}

/* One entry's share of the divergence; lse: max + log_sum of the model's logits. */
static inline double divergence_term(float log_base, float logit, float lse)
{
    float p = (float)exp_nonpositive(log_base), term = p * (log_base - logit + lse);
    return log_base > -16.0F ? term : 0.0F;
}

void nb_eval_row_llamacpp(struct nb_eval_row *out, const float *logits, const float *log_base,
                          int64_t v, int32_t target)
{
    int64_t top, top_base;
    float max, log_sum, max_base = row_max(log_base, v, &top_base);
    row_max(logits, v, &top);
    nb_eval_row_sum(logits, v, &max, &log_sum);
    float lse = max + log_sum, nll = lse - logits[target], nll_base = -log_base[target];
    double lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= v; i += LANES) {
        for (int j = 0; j < LANES; j++)
            lane[j] += divergence_term(log_base[i + j], logits[i + j], lse);
    }
    for (int j = 0; i < v; i++, j++) lane[j] += divergence_term(log_base[i], logits[i], lse);
    memset(out, 0, sizeof *out);
    out->nll = nll;
    out->nll_base = nll_base;
    out->kld = lane_sum(lane);
    out->dp = expf(-nll) - expf(-nll_base);
    out->same_top = top == top_base;
    out->flip = !out->same_top && expf(max_base) > 0.9F;
}
