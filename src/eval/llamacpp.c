/* SPDX-License-Identifier: Apache-2.0
 *
 * llamacpp.c - see llamacpp.h. Every position is a unit, errors are propagated to first order.
 *
 * Source: gguf, section 7.3, and llama.cpp's perplexity tool for what the section leaves open. */
#include "eval/llamacpp.h"

#include <math.h>

#include "eval/interval.h"

enum { MIN_QUANTILES = 100, MIN_ERROR = 10 };

void nb_eval_moments_add(struct nb_eval_moments *m, const struct nb_eval_row *r)
{
    double a = r->nll, b = r->nll_base, d2 = (double)r->dp * r->dp;
    m->n++;
    m->n_same += r->same_top;
    m->nll += a;
    m->nll2 += a * a;
    m->base += b;
    m->base2 += b * b;
    m->nll_base += a * b;
    m->kld += r->kld;
    m->kld2 += r->kld * r->kld;
    m->dp += r->dp;
    m->dp2 += d2;
    m->dp4 += d2 * d2;
}

static struct nb_estimate mean_of(double sum, double sum2, int64_t n)
{
    double mean = sum / (double)n, variance = sum2 / (double)n - mean * mean;
    bool known = variance > 0 && n > MIN_ERROR;
    return (struct nb_estimate){mean, known ? sqrt(variance / (double)(n - 1)) : 0};
}

/* Of two means over the same n positions. */
static double covariance_of(const struct nb_eval_moments *m)
{
    double n = (double)m->n;
    if (m->n < MIN_ERROR) return 0;
    return (m->nll_base / n - (m->nll / n) * (m->base / n)) / (n - 1);
}

/* Error of a difference; equal terms may leave a negative rest. */
static double difference_error(double a, double b, double covariance)
{
    double variance = a * a + b * b - 2 * covariance;
    return variance > 0 ? sqrt(variance) : 0;
}

/* Position share * (n - 1), linear between neighbours, in single precision as the tool has it. */
static double quantile(const float *sorted, int64_t n, double share)
{
    if (share <= 0) return sorted[0];
    if (share >= 1) return sorted[n - 1];
    if (share == 0.5) {
        float upper = sorted[n / 2];
        return n % 2 ? upper : 0.5F * (upper + sorted[n / 2 - 1]);
    }
    float p = (float)share * (float)(n - 1);
    int64_t i = (int64_t)p, next = i + 1 < n ? i + 1 : n - 1;
    p -= (float)i;
    return (1 - p) * sorted[i] + p * sorted[next];
}

static void fill_ratio(const struct nb_eval_moments *m, struct nb_llamacpp_result *out)
{
    struct nb_estimate q = mean_of(m->nll, m->nll2, m->n), b = mean_of(m->base, m->base2, m->n);
    double covariance = covariance_of(m), ppl = exp(q.value), base = exp(b.value);
    out->ppl = (struct nb_estimate){ppl, ppl * q.error};
    out->ppl_base = (struct nb_estimate){base, base * b.error};
    out->correlation = covariance / (q.error * b.error);
    struct nb_estimate ln = {q.value - b.value, difference_error(q.error, b.error, covariance)};
    out->ln_ratio = ln;
    out->ratio = (struct nb_estimate){exp(ln.value), exp(ln.value) * ln.error};
    out->difference = (struct nb_estimate){
        ppl - base, difference_error(out->ppl.error, out->ppl_base.error, ppl * base * covariance)};
}

void nb_eval_moments_finish(const struct nb_eval_moments *m, float *kld, float *dp,
                            struct nb_llamacpp_result *out)
{
    fill_ratio(m, out);
    out->kld = mean_of(m->kld, m->kld2, m->n);
    out->dp = mean_of(m->dp, m->dp2, m->n);
    struct nb_estimate square = mean_of(m->dp2, m->dp4, m->n);
    double rms = sqrt(square.value), n = (double)m->n, top = (double)m->n_same / n;
    out->dp_rms = (struct nb_estimate){rms, rms > 0 ? 0.5 / rms * square.error : 0};
    out->same_top = (struct nb_estimate){top, m->n > 1 ? sqrt(top * (1 - top) / (n - 1)) : 0};
    out->has_quantiles = m->n >= MIN_QUANTILES;
    if (!out->has_quantiles) return;
    nb_eval_sort(kld, (size_t)m->n);
    nb_eval_sort(dp, (size_t)m->n);
    for (int i = 0; i < NB_LLAMACPP_KLD_LEVELS; i++)
        out->kld_quantiles[i] = quantile(kld, m->n, nb_llamacpp_kld_levels[i]);
    for (int i = 0; i < NB_LLAMACPP_DP_LEVELS; i++)
        out->dp_quantiles[i] = quantile(dp, m->n, nb_llamacpp_dp_levels[i]);
}
