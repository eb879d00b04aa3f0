/* SPDX-License-Identifier: Apache-2.0
 *
 * interval.h - means with intervals over clusters, and quantiles. Internal to eval/. */
#ifndef NB_EVAL_INTERVAL_H
#define NB_EVAL_INTERVAL_H

#include <stddef.h>
#include <stdint.h>

/* Quantile .975 of Student's t with df >= 1 degrees of freedom; relative error below 1e-5. */
double nb_eval_t975(int64_t df);

struct nb_eval_mean {
    double mean, stderr_; /* NaN: fewer than two clusters */
};
/* sum[c] over weight[c] of each of n clusters: mean = sum(sum) / sum(weight), and the standard error of that
 * ratio with clusters as units (equal weights: sd of the cluster means / sqrt(n)). */
struct nb_eval_mean nb_eval_cluster_mean(const double *sum, const double *weight, int64_t n);

/* Sorts x[0..n) ascending. */
void nb_eval_sort(float *x, size_t n);
/* Quantile q of sorted values, linear between neighbours. n > 0. */
double nb_eval_quantile(const float *sorted, size_t n, double q);

#endif
