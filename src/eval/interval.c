/* SPDX-License-Identifier: Apache-2.0
 *
 * interval.c - see interval.h.
 *
 * Neighbouring tokens are correlated, windows hardly: intervals treat the window as the unit. Source:
 * evaluation, section 9.2; the t quantile: Cornish-Fisher expansion, Abramowitz and Stegun 26.7.5. */
#include "eval/interval.h"

#include <math.h>
#include <stdlib.h>

double nb_eval_t975(int64_t df)
{
    static const double small[] = {12.706205, 4.302653, 3.182446, 2.776445, 2.570582,
                                   2.446912,  2.364624, 2.306004, 2.262157, 2.228139};
    if (df < 1) return NAN;
    if (df <= 10) return small[df - 1];
    double z = 1.959963984540054, z2 = z * z, n = (double)df;
    double g1 = z * (z2 + 1) / 4;
    double g2 = z * ((5 * z2 + 16) * z2 + 3) / 96;
    double g3 = z * (((3 * z2 + 19) * z2 + 17) * z2 - 15) / 384;
    double g4 = z * ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / 92160;
    return z + (g1 + (g2 + (g3 + g4 / n) / n) / n) / n;
}

struct nb_eval_mean nb_eval_cluster_mean(const double *sum, const double *weight, int64_t n)
{
    double total = 0, weights = 0, squares = 0;
    for (int64_t c = 0; c < n; c++) {
        total += sum[c];
        weights += weight[c];
    }
    double mean = total / weights;
    for (int64_t c = 0; c < n; c++) {
        double d = sum[c] - mean * weight[c];
        squares += d * d;
    }
    double clusters = (double)n;
    double variance = n < 2 ? NAN : squares * clusters / (clusters - 1) / (weights * weights);
    return (struct nb_eval_mean){mean, sqrt(variance)};
}

static int ascending(const void *pa, const void *pb)
{
    float a = *(const float *)pa, b = *(const float *)pb;
    return (a > b) - (a < b);
}

void nb_eval_sort(float *x, size_t n)
{
    qsort(x, n, sizeof *x, ascending);
}

double nb_eval_quantile(const float *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t i = (size_t)at;
    if (i + 1 >= n) return sorted[n - 1];
    return sorted[i] + (at - (double)i) * ((double)sorted[i + 1] - sorted[i]);
}
